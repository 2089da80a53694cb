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
    uint32_t *seen; /* of the backend: ids so far, where there is a repetition penalty */
    bool done;
    struct ha_generate_cost cost;
};

/* The end tokens of some rules, of the backend. */
struct end_tokens {
    const struct ha_generate_rules *rules;
    int32_t *eos; /* NULL: none */
};

/* Invariant: running[0 .. n_running) lies in the order of adapter_order, so that
 * sequences of one adapter stand side by side; entering[0 .. n_entering) lies in the
 * order of requests, so that those of one prompt do. */
struct generation {
    struct ha_model *model;
    const struct ha_generate_request *requests;
    int64_t n_requests;
    const struct ha_generate_settings *settings;
    const struct ha_generate_hooks *hooks;
    struct ha_generate_counts counts;
    struct ha_decoder *decoder;
    struct ha_decoder_limits limits;
    int64_t kv_limit, kv_used;
    int64_t *adapter_order; /* (n_requests): number of the request's adapter, by first use */
    struct sequence *running, *entering; /* (max_sequences) each */
    int64_t n_running, n_entering;
    struct ha_decoder_sequence *call; /* (max_sequences) */
    int64_t *row;                     /* (max_sequences), of logits, and so are the others */
    struct ha_draw *draws, *device_draws;
    int64_t most_steps;            /* of a burst */
    int32_t *drawn, *device_drawn; /* (max_sequences, most_steps) */
    int32_t *draw_row, *device_row;
    uint32_t *seen;         /* (words of the vocabulary) scratch */
    struct end_tokens *end; /* (n_end) */
    int64_t n_end;
    int64_t next;                    /* request */
    int64_t group_end;               /* requests below it have their places */
    struct ha_generate_cost charged; /* the meters when work was charged last */
    bool some_failed;                /* since unwanted sequences were dropped */
    bool seated;                     /* the device has the running sequences as they are here */
    bool unrecorded;                 /* steps cannot be recorded here */
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

static struct ha_backend *backend_of(const struct generation *g)
{
    return ha_model_backend(g->model);
}

/* Memory of the backend with a copy of the host's. */
static int send(const struct generation *g, const void *host, size_t bytes, void **ret_memory,
                struct ha_error *err)
{
    void *memory;
    int r = ha_backend_alloc(backend_of(g), bytes, &memory, err);

    if (r < 0)
        return r;
    r = ha_backend_upload(backend_of(g), memory, host, bytes, err);
    if (r < 0)
        ha_backend_free(backend_of(g), memory);
    else
        *ret_memory = memory;
    return r;
}

/* The ids of a prompt count as seen; draws add theirs. */
static int send_seen(struct generation *g, struct sequence *sequence, struct ha_error *err)
{
    const struct ha_generate_request *request = &g->requests[sequence->request];
    int64_t vocab = ha_model_config(g->model)->vocab;
    size_t bytes = (size_t)ha_sampler_seen_words(vocab) * sizeof(*g->seen);
    void *memory = NULL;
    int r;

    if (request->rules->sampler.repetition_penalty == 1.0)
        return 0;
    memset(g->seen, 0, bytes);
    ha_sampler_see(g->seen, vocab, request->ids, request->n_ids);
    r = send(g, g->seen, bytes, &memory, err);
    sequence->seen = memory;
    return r;
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
    if (r == 0)
        r = send_seen(g, sequence, err);
    if (r < 0) {
        ha_kv_cache_destroy(sequence->cache);
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
    if (sequence->seen)
        ha_backend_free(backend_of(g), sequence->seen);
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

static int32_t *end_tokens_of(const struct generation *g, const struct ha_generate_rules *rules)
{
    int64_t i = 0;

    while (g->end[i].rules != rules)
        i++;
    return g->end[i].eos;
}

static struct ha_draw draw_of(const struct generation *g, const struct sequence *sequence)
{
    const struct ha_generate_request *request = &g->requests[sequence->request];
    const struct ha_generate_rules *rules = request->rules;
    struct ha_draw draw;

    ha_sampler_rules(&rules->sampler, &draw);
    draw.max_new = (int32_t)rules->max_new_tokens;
    draw.eos = end_tokens_of(g, rules);
    draw.n_eos = (int32_t)rules->n_eos;
    draw.seed = rules->seed;
    draw.item = request->number;
    draw.seen = sequence->seen;
    draw.n_new = (int32_t)(sequence->n_ids - request->n_ids);
    return draw;
}

/* Rules and states of the sequences to the device. */
static int send_draws(struct generation *g, const struct sequence *sequences, int64_t n,
                      struct ha_error *err)
{
    for (int64_t i = 0; i < n; i++)
        g->draws[i] = draw_of(g, &sequences[i]);
    return ha_backend_upload(backend_of(g), g->device_draws, g->draws,
                             (size_t)n * sizeof(*g->draws), err);
}

/* The next token of each of n sequences, from the decoder's logits: the first after a prompt,
 * where sequence i has row g->device_row[i] of them, or one of the seated. */
static int draw(struct generation *g, int64_t n, bool first, struct ha_error *err)
{
    struct ha_sample sample = {.n_rows = n,
                               .vocab = ha_model_config(g->model)->vocab,
                               .logits = ha_decoder_logits(g->decoder),
                               .row = first ? g->device_row : NULL,
                               .draws = g->device_draws,
                               .drawn = g->device_drawn,
                               .drawn_stride = g->most_steps,
                               .ids = first ? NULL : ha_decoder_ids(g->decoder),
                               .positions = first ? NULL : ha_decoder_positions(g->decoder)};

    return ha_backend_ops(backend_of(g))->sample(backend_of(g), &sample, err);
}

/* Wait for tokens and states: all that comes back to the host. */
static int fetch(struct generation *g, int64_t n, struct ha_error *err)
{
    int r = ha_backend_download(backend_of(g), g->draws, g->device_draws,
                                (size_t)n * sizeof(*g->draws), err);

    return r < 0 ? r
                 : ha_backend_download(backend_of(g), g->drawn, g->device_drawn,
                                       (size_t)(n * g->most_steps) * sizeof(*g->drawn), err);
}

static int diverged(struct generation *g, struct sequence *sequence, struct ha_error *err)
{
    int64_t n_new = sequence->n_ids - g->requests[sequence->request].n_ids;

    ha_error_set(err, EDOM,
                 "the logits of new token %" PRId64 " are not finite numbers: the model or its "
                 "adapter has diverged",
                 n_new);
    if (!g->hooks->failed) {
        ha_error_prefix(err, "request %" PRId64, sequence->request);
        return -EDOM;
    }
    sequence->done = true;
    g->some_failed = true;
    return g->hooks->failed(g->hooks->context, sequence->request, err);
}

/* Append a token and see whether the answer ends with it. */
static int take_token(struct generation *g, struct sequence *sequence, int32_t token,
                      struct ha_error *err)
{
    const struct ha_generate_request *request = &g->requests[sequence->request];
    int64_t n_new = sequence->n_ids - request->n_ids + 1;
    int r;

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

/* What step `step` of a burst gave sequence i of its call. */
static int advance(struct generation *g, struct sequence *sequence, int64_t i, int64_t step,
                   struct ha_error *err)
{
    const struct ha_draw *drawn = &g->draws[i];

    if (step < drawn->n_drawn)
        return take_token(g, sequence, g->drawn[i * g->most_steps + step], err);
    if (drawn->state == HA_DRAW_EOS)
        return deliver(g, sequence, HA_FINISH_EOS, err);
    return diverged(g, sequence, err);
}

/* What a burst gave the sequences of its call, in the order of its steps: the hooks see the same
 * whether the steps were made at once or one by one.  What was drawn behind a stop is left. */
static int take_drawn(struct generation *g, struct sequence *sequences, int64_t n, int64_t n_steps,
                      struct ha_error *err)
{
    int r = 0;

    for (int64_t step = 0; step < n_steps; step++) {
        for (int64_t i = 0; r == 0 && i < n; i++)
            if (!sequences[i].done)
                r = advance(g, &sequences[i], i, step, err);
        if (r < 0)
            return r;
        for (int64_t i = 0; g->some_failed && i < n; i++)
            if (!is_wanted(g, sequences[i].request))
                sequences[i].done = true;
    }
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

/* The first tokens of the entering sequences. */
static int draw_first(struct generation *g, struct ha_error *err)
{
    int64_t n = g->n_entering;
    int r;

    for (int64_t i = 0; i < n; i++)
        g->draw_row[i] = (int32_t)g->row[i];
    r = ha_backend_upload(backend_of(g), g->device_row, g->draw_row,
                          (size_t)n * sizeof(*g->draw_row), err);
    if (r == 0)
        r = send_draws(g, g->entering, n, err);
    if (r == 0)
        r = draw(g, n, true, err);
    return r < 0 ? r : fetch(g, n, err);
}

/* Run the prompts of the entering sequences and choose their first tokens. */
static int prefill(struct generation *g, struct ha_error *err)
{
    struct ha_generate_cost work;
    int64_t tokens = 0, n = g->n_entering;
    int r;

    for (int64_t i = 0; i < n; i++) {
        const struct ha_generate_request *request = &g->requests[g->entering[i].request];

        g->call[i] = (struct ha_decoder_sequence){g->entering[i].cache, request->adapter,
                                                  request->ids, request->n_ids};
        tokens += request->n_ids;
    }
    g->seated = false;
    r = ha_decoder_prefill(g->decoder, g->call, n, NULL, g->row, err);
    if (r == 0)
        r = draw_first(g, err);
    work = take_work(g);
    g->counts.prompt_tokens += tokens;
    for (int64_t i = 0; i < n; i++)
        charge(&g->entering[i], &work, (double)g->entering[i].n_ids / (double)tokens);
    return r < 0 ? r : take_drawn(g, g->entering, n, 1, err);
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
    g->seated = g->seated && kept == g->n_running;
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

/* The running sequences to the device, which then knows them until one comes or goes. */
static int seat(struct generation *g, struct ha_error *err)
{
    int r;

    for (int64_t i = 0; i < g->n_running; i++) {
        const struct sequence *sequence = &g->running[i];

        g->call[i] =
            (struct ha_decoder_sequence){sequence->cache, g->requests[sequence->request].adapter,
                                         sequence->ids + sequence->n_ids - 1, 1};
    }
    r = ha_decoder_seat(g->decoder, g->call, g->n_running, err);
    if (r == 0)
        r = send_draws(g, g->running, g->n_running, err);
    g->seated = r == 0;
    return r;
}

/* What was drawn is with the host: there is room for more. */
static int empty_drawn(struct generation *g, struct ha_error *err)
{
    return ha_backend_zero_rows(backend_of(g), &g->device_draws->n_drawn, sizeof(*g->draws),
                                sizeof(g->draws->n_drawn), g->n_running, err);
}

/* Steps that may be made at once: none of the sequences comes to its last token before. */
static int64_t steps_of_burst(const struct generation *g)
{
    int64_t steps = ha_generate_burst(g->model, g->settings, g->n_running);

    for (int64_t i = 0; i < g->n_running; i++) {
        const struct ha_generate_request *request = &g->requests[g->running[i].request];
        int64_t left = request->rules->max_new_tokens - (g->running[i].n_ids - request->n_ids);

        steps = left < steps ? left : steps;
    }
    return steps;
}

static int draw_seated(void *context, struct ha_error *err)
{
    struct generation *g = context;

    return draw(g, g->n_running, false, err);
}

/* Record a step where the `left` that are still to be made pay for it.  Where it does not work,
 * steps are made one call after the other, which gives the same. */
static int record(struct generation *g, int64_t left, struct ha_error *err)
{
    int r;

    if (g->unrecorded || g->n_running > HA_GENERATE_RECORDED || left < HA_GENERATE_REPLAYS ||
        !ha_backend_records(backend_of(g)) || ha_decoder_is_recorded(g->decoder))
        return 0;
    r = ha_decoder_record(g->decoder, draw_seated, g, err);
    g->unrecorded = r == -EBUSY || r == -ENOTSUP;
    return g->unrecorded ? 0 : r;
}

/* One step, of which `made` were made in this burst. */
static int step(struct generation *g, int64_t made, int64_t left, struct ha_error *err)
{
    int r = made > 0 ? record(g, left, err) : 0;

    if (r == 0 && ha_decoder_is_recorded(g->decoder)) {
        r = ha_decoder_replay(g->decoder, err);
        g->counts.replayed += r == 0;
        if (r != -ESTALE)
            return r;
        r = 0;
    }
    if (r == 0)
        r = ha_decoder_run(g->decoder, err);
    return r < 0 ? r : draw_seated(g, err);
}

static int burst(struct generation *g, struct ha_error *err)
{
    int64_t n = g->n_running, n_steps = steps_of_burst(g);
    struct ha_generate_cost work;
    int r = g->seated ? empty_drawn(g, err) : seat(g, err);

    for (int64_t made = 0; r == 0 && made < n_steps; made++)
        r = step(g, made, n_steps - made, err);
    if (r == 0)
        r = fetch(g, n, err);
    work = take_work(g);
    g->counts.steps += n_steps;
    for (int64_t i = 0; i < n; i++)
        charge(&g->running[i], &work, 1.0 / (double)n);
    if (r == 0)
        r = take_drawn(g, g->running, n, n_steps, err);
    for (int64_t i = 0; i < n; i++)
        ha_kv_cache_set_length(g->running[i].cache, g->running[i].n_ids - 1);
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
            r = burst(g, err);
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

/* The end tokens of each rules that the requests have; requests are many, rules few. */
static int send_end_tokens(struct generation *g, struct ha_error *err)
{
    for (int64_t i = 0; i < g->n_requests; i++) {
        const struct ha_generate_rules *rules = g->requests[i].rules;
        int64_t at = 0;
        struct end_tokens *more;
        void *eos = NULL;

        while (at < g->n_end && g->end[at].rules != rules)
            at++;
        if (at < g->n_end)
            continue;
        more = realloc(g->end, (size_t)(g->n_end + 1) * sizeof(*more));
        if (!more)
            return ha_error_set(err, ENOMEM, "no memory for the rules of %" PRId64 " cells", at);
        g->end = more;
        if (rules->n_eos > 0) {
            int r = send(g, rules->eos, (size_t)rules->n_eos * sizeof(*rules->eos), &eos, err);

            if (r < 0)
                return r;
        }
        g->end[g->n_end++] = (struct end_tokens){rules, eos};
    }
    return 0;
}

static int allocate_draws(struct generation *g, struct ha_error *err)
{
    size_t n = (size_t)g->limits.max_sequences, steps = (size_t)g->most_steps;
    void *draws = NULL, *drawn = NULL, *row = NULL;
    int r = ha_backend_alloc(backend_of(g), n * sizeof(*g->draws), &draws, err);

    if (r == 0)
        r = ha_backend_alloc(backend_of(g), n * steps * sizeof(*g->drawn), &drawn, err);
    if (r == 0)
        r = ha_backend_alloc(backend_of(g), n * sizeof(*g->draw_row), &row, err);
    g->device_draws = draws;
    g->device_drawn = drawn;
    g->device_row = row;
    return r == 0 ? send_end_tokens(g, err) : r;
}

static int allocate(struct generation *g, struct ha_error *err)
{
    int64_t n = g->limits.max_sequences;
    int r = ha_decoder_create(g->model, &g->limits, &g->decoder, err);

    if (r == 0)
        r = allocate_draws(g, err);
    if (r < 0)
        return r;
    g->adapter_order = ha_calloc(g->n_requests, sizeof(*g->adapter_order));
    g->running = ha_calloc(n, sizeof(*g->running));
    g->entering = ha_calloc(n, sizeof(*g->entering));
    g->call = ha_calloc(n, sizeof(*g->call));
    g->row = ha_calloc(n, sizeof(*g->row));
    g->draws = ha_calloc(n, sizeof(*g->draws));
    g->drawn = ha_calloc(n, (size_t)g->most_steps * sizeof(*g->drawn));
    g->draw_row = ha_calloc(n, sizeof(*g->draw_row));
    g->seen = ha_calloc(ha_sampler_seen_words(ha_model_config(g->model)->vocab), sizeof(*g->seen));
    if (!g->adapter_order || !g->running || !g->entering || !g->call || !g->row || !g->draws ||
        !g->drawn || !g->draw_row || !g->seen)
        return ha_error_set(err, ENOMEM, "no memory for %" PRId64 " sequences at once", n);
    return order_adapters(g, err);
}

static void release(struct generation *g)
{
    struct ha_backend *backend = backend_of(g);
    void *of_backend[] = {g->device_draws, g->device_drawn, g->device_row};

    for (int64_t i = 0; i < g->n_running; i++)
        end_sequence(g, &g->running[i]);
    for (int64_t i = 0; i < g->n_entering; i++)
        end_sequence(g, &g->entering[i]);
    ha_decoder_destroy(g->decoder);
    for (size_t i = 0; i < sizeof(of_backend) / sizeof(of_backend[0]); i++)
        if (of_backend[i])
            ha_backend_free(backend, of_backend[i]);
    for (int64_t i = 0; i < g->n_end; i++)
        if (g->end[i].eos)
            ha_backend_free(backend, g->end[i].eos);
    free(g->end);
    free(g->adapter_order);
    free(g->running);
    free(g->entering);
    free(g->call);
    free(g->row);
    free(g->draws);
    free(g->drawn);
    free(g->draw_row);
    free(g->seen);
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
    int r = ha_generate_check(model, requests, n_requests, settings, err);

    if (r < 0 || n_requests == 0)
        goto out;
    g.limits = ha_generate_limits(requests, n_requests, settings);
    g.most_steps = ha_generate_burst(model, settings, 1);
    g.kv_limit = ha_generate_kv_limit(model, requests, n_requests, settings);
    ha_backend_separate_rows(backend_of(&g), settings->batch_invariant);
    r = allocate(&g, err);
    if (r == 0)
        r = run(&g, err);
    ha_backend_separate_rows(backend_of(&g), false);
out:
    release(&g);
    if (ret_counts)
        *ret_counts = g.counts;
    return r;
}
