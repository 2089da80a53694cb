#include "worker/sampling/generate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/model/decode.h"

/* Prompts that enter together fill at most this many tokens, or one longer prompt. */
enum { PROMPT_TOKENS = 2048 };

/* A request that runs. */
struct sequence {
    int64_t request;
    int64_t kv_bytes;
    struct ha_kv_cache *cache;
    int32_t *ids; /* prompt, then new tokens */
    int64_t n_ids;
    bool done;
};

/* Invariant: running[0 .. n_running) lies in the order of adapter_order, so that
 * sequences of one adapter stand side by side. */
struct generation {
    struct ha_model *model;
    const struct ha_generate_request *requests;
    int64_t n_requests;
    const struct ha_generate_settings *settings;
    const struct ha_generate_hooks *hooks;
    struct ha_generate_counts counts;
    struct ha_decoder *decoder;
    struct ha_sampler *sampler;
    struct ha_decoder_limits limits;
    int64_t kv_limit, kv_used;
    int64_t *adapter_order; /* (n_requests): number of the request's adapter, by first use */
    struct sequence *running;
    int64_t n_running;
    struct ha_decoder_sequence *call; /* (max_sequences) */
    float *logits;                    /* (max_sequences, V) */
    int64_t next;                     /* request */
};

const char *ha_generate_finish_name(enum ha_generate_finish finish)
{
    switch (finish) {
    case HA_FINISH_EOS:
        return "eos";
    case HA_FINISH_STOP:
        return "stop";
    case HA_FINISH_LENGTH:
        return "length";
    }
    return "unknown";
}

/* ---- checks and plans ---- */

/* Positions of a cache: the last new token is never read. */
static int64_t kv_bytes(struct ha_model *model, const struct ha_generate_request *request,
                        const struct ha_generate_settings *settings)
{
    return ha_kv_cache_bytes(ha_model_config(model),
                             ha_backend_activation_dtype(ha_model_backend(model)),
                             request->n_ids + settings->max_new_tokens - 1);
}

static int check_settings(const struct ha_generate_settings *settings, struct ha_error *err)
{
    int r = ha_sampler_settings_check(&settings->sampler, err);

    if (r < 0)
        return r;
    if (settings->max_new_tokens < 1 || settings->max_new_tokens > INT32_MAX / 2)
        return ha_error_set(err, EINVAL, "max_new_tokens is %" PRId64 "; it must be 1 to %d",
                            settings->max_new_tokens, INT32_MAX / 2);
    if (settings->max_sequences < 1 || settings->max_sequences > INT32_MAX)
        return ha_error_set(err, EINVAL, "%" PRId64 " sequences at once; it must be 1 or more",
                            settings->max_sequences);
    if (settings->max_kv_bytes < 0)
        return ha_error_set(err, EINVAL, "the KV cache limit of %" PRId64 " bytes is negative",
                            settings->max_kv_bytes);
    return 0;
}

static int check_requests(struct ha_model *model, const struct ha_generate_request *requests,
                          int64_t n_requests, const struct ha_generate_settings *settings,
                          struct ha_error *err)
{
    for (int64_t i = 0; i < n_requests; i++) {
        if (requests[i].n_ids < 1 || requests[i].n_ids > INT32_MAX / 2)
            return ha_error_set(err, EINVAL, "request %" PRId64 ": a prompt of %" PRId64 " tokens",
                                i, requests[i].n_ids);
        if (settings->max_kv_bytes > 0 &&
            kv_bytes(model, &requests[i], settings) > settings->max_kv_bytes)
            return ha_error_set(err, EINVAL,
                                "request %" PRId64 " needs %" PRId64
                                " bytes of KV cache, the limit is %" PRId64
                                "; raise it or lower max_new_tokens",
                                i, kv_bytes(model, &requests[i], settings), settings->max_kv_bytes);
    }
    return 0;
}

static struct ha_decoder_limits limits_for(const struct ha_generate_request *requests,
                                           int64_t n_requests,
                                           const struct ha_generate_settings *settings)
{
    struct ha_decoder_limits limits = {
        .max_sequences =
            settings->max_sequences < n_requests ? settings->max_sequences : n_requests,
    };
    int64_t all = 0, longest = 0;

    for (int64_t i = 0; i < n_requests; i++) {
        int64_t rank = requests[i].adapter ? ha_adapter_settings(requests[i].adapter)->rank : 0;

        limits.max_rank = rank > limits.max_rank ? rank : limits.max_rank;
        longest = requests[i].n_ids > longest ? requests[i].n_ids : longest;
        all += requests[i].n_ids < PROMPT_TOKENS - all ? requests[i].n_ids : PROMPT_TOKENS - all;
    }
    limits.max_prompt_tokens = longest > all ? longest : all;
    return limits;
}

/* The caches that can be alive together: an upper bound. */
static int64_t kv_limit_for(struct ha_model *model, const struct ha_generate_request *requests,
                            int64_t n_requests, const struct ha_generate_settings *settings)
{
    int64_t largest = 0, all = 0, bound;

    for (int64_t i = 0; i < n_requests; i++) {
        int64_t bytes = kv_bytes(model, &requests[i], settings);

        largest = bytes > largest ? bytes : largest;
        all += bytes;
    }
    if (!__builtin_mul_overflow(largest, settings->max_sequences, &bound) && bound < all)
        all = bound;
    return settings->max_kv_bytes > 0 && settings->max_kv_bytes < all ? settings->max_kv_bytes
                                                                      : all;
}

int ha_generate_plan_bytes(struct ha_model *model, const struct ha_generate_request *requests,
                           int64_t n_requests, const struct ha_generate_settings *settings,
                           int64_t *ret_bytes, struct ha_error *err)
{
    struct ha_decoder_limits limits;
    int64_t bytes = 0;
    int r = check_settings(settings, err);

    if (r == 0)
        r = check_requests(model, requests, n_requests, settings, err);
    if (r == 0 && n_requests > 0) {
        limits = limits_for(requests, n_requests, settings);
        r = ha_decoder_plan_bytes(ha_model_config(model),
                                  ha_backend_activation_dtype(ha_model_backend(model)), &limits,
                                  &bytes, err);
    }
    if (r < 0)
        return r;
    *ret_bytes = bytes + kv_limit_for(model, requests, n_requests, settings);
    return 0;
}

/* ---- one sequence ---- */

static int start_sequence(struct generation *g, int64_t request_index,
                          struct sequence *ret_sequence, struct ha_error *err)
{
    const struct ha_generate_request *request = &g->requests[request_index];
    struct sequence sequence = {.request = request_index, .n_ids = request->n_ids};
    int r;

    sequence.ids = ha_calloc(request->n_ids + g->settings->max_new_tokens, sizeof(*sequence.ids));
    if (!sequence.ids)
        return ha_error_set(err, ENOMEM, "no memory for the tokens of request %" PRId64,
                            request_index);
    memcpy(sequence.ids, request->ids, (size_t)request->n_ids * sizeof(*sequence.ids));
    sequence.kv_bytes = kv_bytes(g->model, request, g->settings);
    r = ha_kv_cache_create(g->model, request->n_ids + g->settings->max_new_tokens - 1,
                           &sequence.cache, err);
    if (r < 0) {
        free(sequence.ids);
        return r;
    }
    g->kv_used += sequence.kv_bytes;
    *ret_sequence = sequence;
    return 0;
}

static void end_sequence(struct generation *g, struct sequence *sequence)
{
    g->kv_used -= sequence->kv_bytes;
    ha_kv_cache_destroy(sequence->cache);
    free(sequence->ids);
}

static int deliver(struct generation *g, struct sequence *sequence, enum ha_generate_finish finish,
                   struct ha_error *err)
{
    int64_t n_prompt = g->requests[sequence->request].n_ids;
    struct ha_generate_answer answer = {
        .request = sequence->request,
        .ids = sequence->ids + n_prompt,
        .n_ids = sequence->n_ids - n_prompt,
        .finish = finish,
    };

    sequence->done = true;
    return g->hooks->finished(g->hooks->context, &answer, err);
}

static bool is_eos(const struct ha_generate_settings *settings, int32_t token)
{
    for (int64_t i = 0; i < settings->n_eos; i++)
        if (settings->eos[i] == token)
            return true;
    return false;
}

/* Choose the sequence's next token and see whether its answer ends there. */
static int advance(struct generation *g, struct sequence *sequence, float *logits,
                   struct ha_error *err)
{
    const struct ha_generate_settings *settings = g->settings;
    const struct ha_generate_request *request = &g->requests[sequence->request];
    int64_t n_new = sequence->n_ids - request->n_ids;
    struct ha_sampler_place place = {
        .ids = sequence->ids,
        .n_ids = sequence->n_ids,
        .n_new = n_new,
        .eos = settings->eos,
        .n_eos = settings->n_eos,
        .seed = settings->seed,
        .prompt = request->prompt,
    };
    int32_t token = 0;
    int r = ha_sampler_pick(g->sampler, &settings->sampler, &place, logits, &token, err);

    if (r < 0) {
        ha_error_prefix(err, "request %" PRId64, sequence->request);
        return r;
    }
    if (is_eos(settings, token))
        return deliver(g, sequence, HA_FINISH_EOS, err);
    sequence->ids[sequence->n_ids++] = token;
    n_new++;
    g->counts.new_tokens++;
    if (g->hooks->stop) {
        r = g->hooks->stop(g->hooks->context, sequence->request, sequence->ids + request->n_ids,
                           n_new, err);
        if (r < 0)
            return r;
        if (r > 0)
            return deliver(g, sequence, HA_FINISH_STOP, err);
    }
    if (n_new == settings->max_new_tokens)
        return deliver(g, sequence, HA_FINISH_LENGTH, err);
    return 0;
}

/* ---- all sequences ---- */

static int advance_all(struct generation *g, struct sequence *sequences, int64_t n,
                       struct ha_error *err)
{
    int64_t vocab = ha_model_config(g->model)->vocab;
    int r = 0;

    for (int64_t i = 0; r == 0 && i < n; i++)
        r = advance(g, &sequences[i], g->logits + i * vocab, err);
    return r;
}

/* Take out what is done; the rest keeps its order. */
static void sweep(struct generation *g)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < g->n_running; i++) {
        if (g->running[i].done)
            end_sequence(g, &g->running[i]);
        else
            g->running[kept++] = g->running[i];
    }
    g->n_running = kept;
}

/* Put the sequence behind the last running one of an adapter that is not later. */
static void insert(struct generation *g, const struct sequence *sequence)
{
    int64_t order = g->adapter_order[sequence->request], at = g->n_running;

    while (at > 0 && g->adapter_order[g->running[at - 1].request] > order)
        at--;
    memmove(g->running + at + 1, g->running + at,
            (size_t)(g->n_running - at) * sizeof(*g->running));
    g->running[at] = *sequence;
    g->n_running++;
}

/* True when the next request may enter beside what runs and `prompt_tokens` of
 * others that enter now. */
static bool fits(const struct generation *g, int64_t prompt_tokens)
{
    const struct ha_generate_request *request = &g->requests[g->next];

    return g->n_running < g->limits.max_sequences &&
           request->n_ids <= g->limits.max_prompt_tokens - prompt_tokens &&
           kv_bytes(g->model, request, g->settings) <= g->kv_limit - g->kv_used;
}

/* Run the prompts of the sequences whose cache is empty and choose their first tokens. */
static int prefill(struct generation *g, struct ha_error *err)
{
    int64_t vocab = ha_model_config(g->model)->vocab, n = 0, row = 0;
    int r;

    for (int64_t i = 0; i < g->n_running; i++)
        if (ha_kv_cache_length(g->running[i].cache) == 0)
            g->call[n++] = (struct ha_decoder_sequence){g->running[i].cache,
                                                        g->requests[g->running[i].request].adapter,
                                                        g->running[i].ids, g->running[i].n_ids};
    r = ha_decoder_prefill(g->decoder, g->call, n, g->logits, err);
    for (int64_t i = 0; r == 0 && i < g->n_running; i++) {
        struct sequence *sequence = &g->running[i];

        if (row == n || sequence->cache != g->call[row].cache)
            continue;
        g->counts.prompt_tokens += sequence->n_ids;
        r = advance(g, sequence, g->logits + row * vocab, err);
        row++;
    }
    return r;
}

/* Let waiting requests in, one pack of prompts after the other. */
static int admit(struct generation *g, struct ha_error *err)
{
    while (g->next < g->n_requests && fits(g, 0)) {
        int64_t prompt_tokens = 0;
        int r = 0;

        while (g->next < g->n_requests && fits(g, prompt_tokens)) {
            struct sequence sequence;

            r = start_sequence(g, g->next, &sequence, err);
            if (r < 0)
                return r;
            insert(g, &sequence);
            prompt_tokens += sequence.n_ids;
            g->next++;
        }
        if (g->n_running > g->counts.most_sequences)
            g->counts.most_sequences = g->n_running;
        r = prefill(g, err);
        if (r < 0)
            return r;
        sweep(g);
    }
    return 0;
}

static int step(struct generation *g, struct ha_error *err)
{
    int r;

    for (int64_t i = 0; i < g->n_running; i++) {
        const struct sequence *sequence = &g->running[i];

        g->call[i] =
            (struct ha_decoder_sequence){sequence->cache, g->requests[sequence->request].adapter,
                                         sequence->ids + sequence->n_ids - 1, 1};
    }
    r = ha_decoder_step(g->decoder, g->call, g->n_running, g->logits, err);
    if (r == 0)
        r = advance_all(g, g->running, g->n_running, err);
    g->counts.steps++;
    sweep(g);
    return r;
}

static int run(struct generation *g, struct ha_error *err)
{
    while (g->next < g->n_requests || g->n_running > 0) {
        int r;

        if (g->hooks->cancelled && g->hooks->cancelled(g->hooks->context))
            return ha_error_set(err, ECANCELED, "generation was stopped");
        r = admit(g, err);
        if (r == 0 && g->n_running > 0)
            r = step(g, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Number the adapters by their first use. */
static void order_adapters(struct generation *g)
{
    int64_t n_adapters = 0;

    for (int64_t i = 0; i < g->n_requests; i++) {
        int64_t earlier = 0;

        if (i > 0 && g->requests[i].adapter == g->requests[i - 1].adapter) {
            g->adapter_order[i] = g->adapter_order[i - 1];
            continue;
        }
        while (g->requests[earlier].adapter != g->requests[i].adapter)
            earlier++;
        g->adapter_order[i] = earlier < i ? g->adapter_order[earlier] : n_adapters++;
    }
}

static int allocate(struct generation *g, struct ha_error *err)
{
    int64_t n = g->limits.max_sequences, vocab = ha_model_config(g->model)->vocab;
    int r = ha_decoder_create(g->model, &g->limits, &g->decoder, err);

    if (r == 0)
        r = ha_sampler_create(vocab, &g->sampler, err);
    if (r < 0)
        return r;
    g->adapter_order = ha_calloc(g->n_requests, sizeof(*g->adapter_order));
    g->running = ha_calloc(n, sizeof(*g->running));
    g->call = ha_calloc(n, sizeof(*g->call));
    g->logits = ha_calloc(n, (size_t)vocab * sizeof(*g->logits));
    if (!g->adapter_order || !g->running || !g->call || !g->logits)
        return ha_error_set(err, ENOMEM, "no memory for %" PRId64 " sequences at once", n);
    order_adapters(g);
    return 0;
}

int ha_generate(struct ha_model *model, const struct ha_generate_request *requests,
                int64_t n_requests, const struct ha_generate_settings *settings,
                const struct ha_generate_hooks *hooks, struct ha_generate_counts *ret_counts,
                struct ha_error *err)
{
    struct generation g = {.model = model,
                           .requests = requests,
                           .n_requests = n_requests,
                           .settings = settings,
                           .hooks = hooks};
    int r = check_settings(settings, err);

    if (r == 0)
        r = check_requests(model, requests, n_requests, settings, err);
    if (r < 0 || n_requests == 0)
        goto out;
    g.limits = limits_for(requests, n_requests, settings);
    g.kv_limit = kv_limit_for(model, requests, n_requests, settings);
    r = allocate(&g, err);
    if (r == 0)
        r = run(&g, err);
out:
    for (int64_t i = 0; i < g.n_running; i++)
        end_sequence(&g, &g.running[i]);
    ha_decoder_destroy(g.decoder);
    ha_sampler_destroy(g.sampler);
    free(g.adapter_order);
    free(g.running);
    free(g.call);
    free(g.logits);
    if (ret_counts)
        *ret_counts = g.counts;
    return r;
}
