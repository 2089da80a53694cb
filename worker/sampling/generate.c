#include "worker/sampling/generate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/sampling/generate_plan.h"

/* A request that runs. */
struct sequence {
    int64_t request;
    int64_t kv_bytes;
    struct ha_kv_cache *cache;
    int32_t *ids; /* prompt, then new tokens */
    int64_t n_ids;
    bool done;
    struct ha_generate_cost cost;
};

/* Invariant: running[0 .. n_running) lies in the order of adapter_order, so that
 * sequences of one adapter stand side by side; entering[0 .. n_entering) lies in the
 * order of requests, so that those of one prompt do. */
struct generation {
    struct ha_model *model;
    const struct ha_generate_request *requests;
    int64_t n_requests;
    const struct ha_generate_hooks *hooks;
    struct ha_generate_counts counts;
    struct ha_decoder *decoder;
    struct ha_sampler *sampler;
    struct ha_decoder_limits limits;
    int64_t kv_limit, kv_used;
    int64_t *adapter_order; /* (n_requests): number of the request's adapter, by first use */
    struct sequence *running, *entering; /* (max_sequences) each */
    int64_t n_running, n_entering;
    struct ha_decoder_sequence *call; /* (max_sequences) */
    int64_t *row;                     /* (max_sequences) */
    float *logits;                    /* (max_sequences + 1, V) */
    int64_t next;                     /* request */
    int64_t group_end;                /* requests below it have their places */
    struct ha_generate_cost charged;  /* the meters when work was charged last */
    bool some_failed;                 /* since unwanted sequences were dropped */
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

/* ---- what it costs ---- */

static struct ha_generate_cost read_meters(const struct generation *g)
{
    const struct ha_backend *backend = ha_model_backend(g->model);

    return (struct ha_generate_cost){.seconds = (double)ha_clock_boot_ns() * 1e-9,
                                     .flops = ha_backend_flops(backend),
                                     .bytes_moved = ha_backend_bytes_moved(backend)};
}

/* What was done since the last call, for the sequences of a call to share. */
static struct ha_generate_cost take_work(struct generation *g)
{
    struct ha_generate_cost now = read_meters(g), before = g->charged;

    g->charged = now;
    return (struct ha_generate_cost){.seconds = now.seconds - before.seconds,
                                     .flops = now.flops - before.flops,
                                     .bytes_moved = now.bytes_moved - before.bytes_moved};
}

static void charge(struct sequence *sequence, const struct ha_generate_cost *work, double part)
{
    sequence->cost.seconds += part * work->seconds;
    sequence->cost.flops += part * work->flops;
    sequence->cost.bytes_moved += part * work->bytes_moved;
}

/* ---- one sequence ---- */

static bool is_wanted(const struct generation *g, int64_t request)
{
    return !g->hooks->unwanted || !g->hooks->unwanted(g->hooks->context, request);
}

static int start_sequence(struct generation *g, int64_t request_index, struct ha_error *err)
{
    const struct ha_generate_request *request = &g->requests[request_index];
    struct sequence *sequence = &g->entering[g->n_entering];
    int r;

    *sequence = (struct sequence){.request = request_index, .n_ids = request->n_ids};
    sequence->ids =
        ha_calloc(request->n_ids + request->rules->max_new_tokens, sizeof(*sequence->ids));
    if (!sequence->ids)
        return ha_error_set(err, ENOMEM, "no memory for the tokens of request %" PRId64,
                            request_index);
    memcpy(sequence->ids, request->ids, (size_t)request->n_ids * sizeof(*sequence->ids));
    sequence->kv_bytes = ha_generate_kv_bytes(g->model, request);
    r = ha_kv_cache_create(g->model, ha_generate_positions(request), &sequence->cache, err);
    if (r < 0) {
        free(sequence->ids);
        return r;
    }
    g->kv_used += sequence->kv_bytes;
    g->n_entering++;
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
        .cost = sequence->cost,
    };

    sequence->done = true;
    return g->hooks->finished(g->hooks->context, &answer, err);
}

static bool is_eos(const struct ha_generate_rules *rules, int32_t token)
{
    for (int64_t i = 0; i < rules->n_eos; i++)
        if (rules->eos[i] == token)
            return true;
    return false;
}

/* The next token of a sequence. */
static int pick(struct generation *g, const struct sequence *sequence, float *logits,
                int32_t *ret_token, struct ha_error *err)
{
    const struct ha_generate_request *request = &g->requests[sequence->request];
    const struct ha_generate_rules *rules = request->rules;
    struct ha_sampler_place place = {
        .ids = sequence->ids,
        .n_ids = sequence->n_ids,
        .n_new = sequence->n_ids - request->n_ids,
        .eos = rules->eos,
        .n_eos = rules->n_eos,
        .seed = rules->seed,
        .prompt = request->number,
    };

    return ha_sampler_pick(g->sampler, &rules->sampler, &place, logits, ret_token, err);
}

/* Choose the sequence's next token and see whether its answer ends there. */
static int advance(struct generation *g, struct sequence *sequence, float *logits,
                   struct ha_error *err)
{
    const struct ha_generate_request *request = &g->requests[sequence->request];
    int64_t n_new = sequence->n_ids - request->n_ids + 1;
    int32_t token = 0;
    int r = pick(g, sequence, logits, &token, err);

    if (r == -EDOM && g->hooks->failed) {
        sequence->done = true;
        g->some_failed = true;
        return g->hooks->failed(g->hooks->context, sequence->request, err);
    }
    if (r < 0) {
        ha_error_prefix(err, "request %" PRId64, sequence->request);
        return r;
    }
    if (is_eos(request->rules, token))
        return deliver(g, sequence, HA_FINISH_EOS, err);
    sequence->ids[sequence->n_ids++] = token;
    g->counts.new_tokens++;
    if (g->hooks->stop) {
        r = g->hooks->stop(g->hooks->context, sequence->request, sequence->ids + request->n_ids,
                           n_new, err);
        if (r < 0)
            return r;
        if (r > 0)
            return deliver(g, sequence, HA_FINISH_STOP, err);
    }
    if (n_new == request->rules->max_new_tokens)
        return deliver(g, sequence, HA_FINISH_LENGTH, err);
    return 0;
}

/* ---- requests enter ---- */

/* The end of the run of wanted requests of one prompt that begins with `first`, as far as
 * places and memory reach that `n_used` sequences leave.  *ret_whole: it reaches to the end. */
static int64_t reach(const struct generation *g, int64_t first, int64_t n_used, bool *ret_whole)
{
    int64_t room = g->kv_limit - g->kv_used, i = first;

    *ret_whole = true;
    for (; i < g->n_requests && ha_generate_same_prompt(&g->requests[i], &g->requests[first]);
         i++) {
        int64_t bytes = ha_generate_kv_bytes(g->model, &g->requests[i]);

        if (n_used == g->limits.max_sequences || bytes > room) {
            *ret_whole = false;
            break;
        }
        n_used++;
        room -= bytes;
    }
    return i;
}

/* True when the next request may enter.  A prompt that does not fit with all its requests
 * waits for more places as long as there is something else to do. */
static bool may_enter(struct generation *g)
{
    int64_t n_used = g->n_running + g->n_entering, end;
    bool whole;

    while (g->next < g->n_requests && !is_wanted(g, g->next))
        g->next++;
    if (g->next == g->n_requests)
        return false;
    if (g->next < g->group_end)
        return true;
    end = reach(g, g->next, n_used, &whole);
    if (!whole && n_used > 0)
        return false;
    g->group_end = end;
    return true;
}

/* Rows that the next request adds to the pack of the entering ones. */
static int64_t rows_of_next(const struct generation *g)
{
    const struct ha_generate_request *next = &g->requests[g->next], *last;

    if (g->n_entering == 0)
        return next->n_ids;
    last = &g->requests[g->entering[g->n_entering - 1].request];
    return ha_generate_same_prompt(next, last) && next->adapter == last->adapter ? 0 : next->n_ids;
}

static int fill_pack(struct generation *g, struct ha_error *err)
{
    int64_t rows = 0;

    while (may_enter(g) && rows_of_next(g) <= g->limits.max_prompt_tokens - rows) {
        int r;

        rows += rows_of_next(g);
        r = start_sequence(g, g->next, err);
        if (r < 0)
            return r;
        g->next++;
    }
    if (g->n_running + g->n_entering > g->counts.most_sequences)
        g->counts.most_sequences = g->n_running + g->n_entering;
    return 0;
}

/* Run the prompts of the entering sequences and choose their first tokens. */
static int prefill(struct generation *g, struct ha_error *err)
{
    struct ha_generate_cost work;
    int64_t vocab = ha_model_config(g->model)->vocab, tokens = 0, n = g->n_entering;
    float *logits = g->logits + g->limits.max_sequences * vocab; /* of the one in work */
    int r;

    for (int64_t i = 0; i < n; i++) {
        const struct ha_generate_request *request = &g->requests[g->entering[i].request];

        g->call[i] = (struct ha_decoder_sequence){g->entering[i].cache, request->adapter,
                                                  request->ids, request->n_ids};
        tokens += request->n_ids;
    }
    r = ha_decoder_prefill(g->decoder, g->call, n, g->logits, g->row, err);
    work = take_work(g);
    g->counts.prompt_tokens += tokens;
    for (int64_t i = 0; r == 0 && i < n; i++) {
        struct sequence *sequence = &g->entering[i];

        charge(sequence, &work, (double)sequence->n_ids / (double)tokens);
        /* Sampling changes logits, and samples of one prompt share them. */
        memcpy(logits, g->logits + g->row[i] * vocab, (size_t)vocab * sizeof(*logits));
        r = advance(g, sequence, logits, err);
    }
    return r;
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

/* Entering sequences that are not done join the running ones. */
static void settle(struct generation *g)
{
    for (int64_t i = 0; i < g->n_entering; i++) {
        if (g->entering[i].done)
            end_sequence(g, &g->entering[i]);
        else
            insert(g, &g->entering[i]);
    }
    g->n_entering = 0;
}

/* Take out what is done or, after a failure, not wanted any more; the rest keeps its order. */
static void sweep(struct generation *g)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < g->n_running; i++) {
        struct sequence *sequence = &g->running[i];

        if (sequence->done || (g->some_failed && !is_wanted(g, sequence->request)))
            end_sequence(g, sequence);
        else
            g->running[kept++] = *sequence;
    }
    g->n_running = kept;
    g->some_failed = false;
}

/* Let waiting requests in, one pack of prompts after the other. */
static int admit(struct generation *g, struct ha_error *err)
{
    for (;;) {
        int r = fill_pack(g, err);

        if (r < 0 || g->n_entering == 0)
            return r;
        r = prefill(g, err);
        if (r < 0)
            return r;
        settle(g);
        if (g->some_failed)
            sweep(g);
    }
}

/* ---- all sequences ---- */

static int step(struct generation *g, struct ha_error *err)
{
    struct ha_generate_cost work;
    int64_t vocab = ha_model_config(g->model)->vocab;
    int r;

    for (int64_t i = 0; i < g->n_running; i++) {
        const struct sequence *sequence = &g->running[i];

        g->call[i] =
            (struct ha_decoder_sequence){sequence->cache, g->requests[sequence->request].adapter,
                                         sequence->ids + sequence->n_ids - 1, 1};
    }
    r = ha_decoder_step(g->decoder, g->call, g->n_running, g->logits, err);
    work = take_work(g);
    for (int64_t i = 0; r == 0 && i < g->n_running; i++) {
        charge(&g->running[i], &work, 1.0 / (double)g->n_running);
        r = advance(g, &g->running[i], g->logits + i * vocab, err);
    }
    g->counts.steps++;
    sweep(g);
    return r;
}

static int run(struct generation *g, struct ha_error *err)
{
    g->charged = read_meters(g);
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

/* Number the adapters by their first use; requests are many, adapters few. */
static int order_adapters(struct generation *g, struct ha_error *err)
{
    const struct ha_adapter **adapters = NULL;
    int64_t n_adapters = 0;

    for (int64_t i = 0; i < g->n_requests; i++) {
        int64_t order = 0;

        while (order < n_adapters && adapters[order] != g->requests[i].adapter)
            order++;
        if (order == n_adapters) {
            const struct ha_adapter **more =
                realloc(adapters, (size_t)(n_adapters + 1) * sizeof(*more));

            if (!more) {
                free(adapters);
                return ha_error_set(err, ENOMEM, "no memory for %" PRId64 " adapters", order);
            }
            adapters = more;
            adapters[n_adapters++] = g->requests[i].adapter;
        }
        g->adapter_order[i] = order;
    }
    free(adapters);
    return 0;
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
    g->entering = ha_calloc(n, sizeof(*g->entering));
    g->call = ha_calloc(n, sizeof(*g->call));
    g->row = ha_calloc(n, sizeof(*g->row));
    g->logits = ha_calloc(n + 1, (size_t)vocab * sizeof(*g->logits));
    if (!g->adapter_order || !g->running || !g->entering || !g->call || !g->row || !g->logits)
        return ha_error_set(err, ENOMEM, "no memory for %" PRId64 " sequences at once", n);
    return order_adapters(g, err);
}

int ha_generate(struct ha_model *model, const struct ha_generate_request *requests,
                int64_t n_requests, const struct ha_generate_settings *settings,
                const struct ha_generate_hooks *hooks, struct ha_generate_counts *ret_counts,
                struct ha_error *err)
{
    struct generation g = {
        .model = model, .requests = requests, .n_requests = n_requests, .hooks = hooks};
    int r = ha_generate_check(model, requests, n_requests, settings, err);

    if (r < 0 || n_requests == 0)
        goto out;
    g.limits = ha_generate_limits(requests, n_requests, settings);
    g.kv_limit = ha_generate_kv_limit(model, requests, n_requests, settings);
    r = allocate(&g, err);
    if (r == 0)
        r = run(&g, err);
out:
    for (int64_t i = 0; i < g.n_running; i++)
        end_sequence(&g, &g.running[i]);
    for (int64_t i = 0; i < g.n_entering; i++)
        end_sequence(&g, &g.entering[i]);
    ha_decoder_destroy(g.decoder);
    ha_sampler_destroy(g.sampler);
    free(g.adapter_order);
    free(g.running);
    free(g.entering);
    free(g.call);
    free(g.row);
    free(g.logits);
    if (ret_counts)
        *ret_counts = g.counts;
    return r;
}
