#include "worker/attempt/generation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "worker/attempt/answer_gang.h"
#include "worker/attempt/answer_part.h"
#include "worker/attempt/answer_text.h"
#include "worker/attempt/generation_cell.h"
#include "worker/attempt/generation_plan.h"
#include "worker/attempt/memory_settings.h"
#include "worker/attempt/outcome.h"
#include "worker/dpo/plan.h"
#include "worker/sampling/generate.h"

enum { DEFAULT_SEQUENCES = 256, PROGRESS_MS = 1000 };

/* One answer in the making. */
struct making {
    struct ha_answering *answering;
    int64_t prompt, sample;
    struct ha_tokenizer_stream *stream; /* NULL before its first id */
    struct ha_buffer text;
    int64_t pushed; /* ids that the stream has seen */
};

/* All cells at work: their answers wait in one queue, of which a rank of a gang makes a part. */
struct work {
    const struct ha_generation *generation;
    const struct ha_reporter *reporter;
    const volatile sig_atomic_t *stop;
    struct ha_engine engine;
    struct ha_shared_prompts *prompts;
    struct ha_answering *cells; /* (n_cells) */
    struct making *making;      /* (n_requests), and so are the requests */
    struct ha_generate_request *requests;
    int64_t n_requests;
    struct ha_answer_part part; /* that this process makes */
    struct ha_generate_settings settings;
    struct ha_comm *comm; /* of a gang */
    struct ha_answer_gang *answers;
    int gang_result; /* of an exchange, which a hook cannot return */
    struct ha_error gang_error;
    int64_t done, total; /* answers */
    int64_t tokens, start_ms, next_progress_ms;
    double flops_before;
    int64_t planned_bytes, peak_bytes; /* of this process's own memory */
};

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory while preparing the generation");
}

/* Alone, or the rank of a gang that reports. */
static bool keeps(const struct work *work)
{
    return !work->generation->gang || work->generation->gang->rank == 0;
}

static int ranks_of(const struct work *work)
{
    return work->generation->gang ? work->generation->gang->ranks : 1;
}

/* ---- cells end ------------------------------------------------------------------- */

static double seconds_since_start(const struct work *work)
{
    return work->start_ms > 0 ? (double)(ha_clock_boot_ms() - work->start_ms) / 1000.0 : 0.0;
}

/* Cells that share a job have the same settings; by hand one is enough. */
static bool batch_invariant(const struct work *work)
{
    bool any = false;

    for (int64_t i = 0; i < work->generation->n_cells; i++)
        any = any || work->generation->cells[i].settings->generate.batch_invariant;
    return any;
}

static int end_cell(struct work *work, struct ha_answering *answering, bool done,
                    const char *reason, struct ha_error *err)
{
    struct ha_answering_record record = {.engine = &work->engine,
                                         .cells_in_job = work->generation->n_cells,
                                         .batch_invariant =
                                             batch_invariant(work) ||
                                             ha_backend_memory_bytes(work->engine.backend) == 0,
                                         .ranks = ranks_of(work),
                                         .wall_seconds = seconds_since_start(work),
                                         .planned_bytes = work->planned_bytes};

    ha_memory_sample(&work->peak_bytes);
    record.peak_bytes = ha_backend_memory_bytes(work->engine.backend) > 0
                            ? ha_backend_peak_bytes(work->engine.backend)
                            : work->peak_bytes;
    answering->ended = true;
    if (!keeps(work))
        return 0;
    return work->reporter->cell(work->reporter->context, answering->cell->id, done, reason, !done,
                                ha_answering_summary(answering, &record), err);
}

/* What is wrong with one cell is the end of that cell, not of the others.  Returns `code` where
 * it is not of that kind. */
static int fail_cell(struct work *work, struct ha_answering *answering, int code,
                     struct ha_error *err)
{
    struct ha_error reason = *err;

    if (!ha_outcome_is_permanent(code))
        return code;
    work->total -= answering->total - answering->done;
    return end_cell(work, answering, false, ha_error_text(&reason), err);
}

/* ---- hooks of the generator ------------------------------------------------------ */

/* Brings the text of a request up to its ids. */
static int push_ids(const struct work *work, struct making *making, const int32_t *ids, int64_t n,
                    struct ha_error *err)
{
    int r = 0;

    if (!making->stream)
        r = ha_tokenizer_stream_create(work->engine.tokenizer, true, &making->stream, err);
    for (; r == 0 && making->pushed < n; making->pushed++) {
        const char *text;
        size_t size;

        r = ha_tokenizer_stream_push(making->stream, ids[making->pushed], &text, &size, err);
        if (r == 0 && ha_buffer_append(&making->text, text, size) < 0)
            r = out_of_memory(err);
    }
    return r;
}

/* Only the end of the text is searched: what this token added, and as much before it as a stop
 * string may have begun in. */
static int on_token(void *context, int64_t request, const int32_t *ids, int64_t n,
                    struct ha_error *err)
{
    struct work *work = context;
    struct making *making = &work->making[work->part.place[request]];
    const struct ha_answering *answering = making->answering;
    size_t before = making->text.size, reach = answering->longest_stop;
    int r = push_ids(work, making, ids, n, err);

    if (r < 0)
        return r;
    work->tokens++;
    if (n < answering->rules.sampler.min_new_tokens)
        return 0;
    before = before > reach ? before - reach : 0;
    return ha_answer_stop(ha_buffer_text(&making->text), making->text.size, before,
                          answering->stops, answering->n_stops) < making->text.size;
}

/* Of the answers that are finished: work on the others has no plain counterpart yet. */
static double saved_so_far(const struct work *work)
{
    double flops = 0, plain = 0;

    for (int64_t i = 0; i < work->generation->n_cells; i++) {
        const struct ha_answering *answering = &work->cells[i];

        if (!answering->made)
            continue;
        flops += answering->cost.flops;
        plain += ha_answering_plain_flops(answering, &work->engine);
    }
    return plain > 0 ? 1 - flops / plain : 0;
}

static double own_flops(const struct work *work)
{
    return ha_backend_flops(work->engine.backend) - work->flops_before;
}

static int report_progress(struct work *work, struct ha_error *err)
{
    int64_t now = ha_clock_boot_ms();
    double seconds = seconds_since_start(work);
    double flops = own_flops(work), other_flops = 0;
    struct ha_reported_progress progress = {.step = work->done, .steps = work->total};
    int64_t other_tokens = 0;

    if (now < work->next_progress_ms && work->done < work->total)
        return 0;
    work->next_progress_ms = now + PROGRESS_MS;
    if (work->answers)
        ha_answer_gang_told(work->answers, &other_tokens, &other_flops);
    if (seconds > 0) {
        progress.tokens_per_second = (double)(work->tokens + other_tokens) / seconds;
        progress.flops_per_second = (flops + other_flops) / seconds;
    }
    progress.utilisation =
        ha_engine_utilisation(&work->engine, progress.flops_per_second / ranks_of(work));
    progress.saved = saved_so_far(work);
    return work->reporter->progress(work->reporter->context, &progress, err);
}

static void clear_making(struct making *making)
{
    ha_tokenizer_stream_destroy(making->stream);
    ha_buffer_clear(&making->text);
    making->stream = NULL;
}

static int report_answer(struct work *work, struct making *making,
                         const struct ha_generate_answer *answer, struct ha_error *err)
{
    const struct ha_answering *answering = making->answering;
    const struct ha_prompt *prompt = &answering->prompts->prompts[making->prompt];
    struct ha_reported_answer reported = {.cell = answering->cell->id,
                                          .prompt = making->prompt,
                                          .row = prompt->row,
                                          .sample = making->sample,
                                          .prompt_text = prompt->text.data,
                                          .prompt_bytes = prompt->text.size,
                                          .finish = ha_generate_finish_name(answer->finish),
                                          .prompt_tokens = prompt->n_ids,
                                          .tokens = answer->n_ids};
    const char *rest;
    size_t rest_size, begin, size;
    int r = push_ids(work, making, answer->ids, answer->n_ids, err);

    if (r == 0)
        r = ha_tokenizer_stream_finish(making->stream, &rest, &rest_size, err);
    if (r == 0 && ha_buffer_append(&making->text, rest, rest_size) < 0)
        r = out_of_memory(err);
    if (r < 0)
        return r;
    reported.raw = ha_buffer_text(&making->text);
    reported.raw_bytes = making->text.size;
    ha_answer_cut(reported.raw, reported.raw_bytes, answering->stops, answering->n_stops,
                  ha_engine_chat(&work->engine) != NULL, &begin, &size);
    reported.text = reported.raw + begin;
    reported.text_bytes = size;
    HA_CRASH_POINT("attempt.answer");
    return work->reporter->answer(work->reporter->context, &reported, err);
}

/* An answer of this process or of another; all of them count what all have. */
static int take_answer(struct work *work, const struct ha_generate_answer *answer,
                       struct ha_error *err)
{
    struct making *making = &work->making[answer->request];
    struct ha_answering *answering = making->answering;
    struct ha_generate_answer part = *answer;
    int r = 0;

    if (!answering->ended && keeps(work))
        r = report_answer(work, making, answer, err);
    clear_making(making);
    if (r < 0 || answering->ended)
        return r;
    /* The ranks work at the same time. */
    part.cost.seconds /= ranks_of(work);
    ha_answering_count(answering, making->prompt, making->sample, &part);
    work->done++;
    if (answering->done == answering->total)
        r = end_cell(work, answering, true, "", err);
    return r < 0 ? r : report_progress(work, err);
}

static int on_finished(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    struct ha_generate_answer whole = *answer;
    struct work *work = context;
    int r;

    whole.request = work->part.place[answer->request];
    r = take_answer(work, &whole, err);
    return r < 0 || keeps(work) ? r : ha_answer_gang_put(work->answers, &whole, err);
}

static int on_other_answer(void *context, const struct ha_generate_answer *answer,
                           struct ha_error *err)
{
    return take_answer(context, answer, err);
}

static int on_failed(void *context, int64_t request, struct ha_error *err)
{
    struct work *work = context;
    int64_t place = work->part.place[request];
    struct ha_answering *answering = work->making[place].answering;
    struct ha_error why = *err;
    int r = answering->ended ? 0 : fail_cell(work, answering, -EDOM, err);

    return r < 0 || !work->answers ? r
                                   : ha_answer_gang_put_failure(work->answers, place, &why, err);
}

static int on_other_failed(void *context, int64_t request, struct ha_error *why,
                           struct ha_error *err)
{
    struct work *work = context;
    struct ha_answering *answering = work->making[request].answering;
    int r = answering->ended ? 0 : fail_cell(work, answering, -why->code, why);

    if (r < 0)
        *err = *why;
    return r;
}

static bool on_unwanted(void *context, int64_t request)
{
    const struct work *work = context;

    return work->making[work->part.place[request]].answering->ended;
}

static bool on_step(void *context)
{
    struct work *work = context;
    bool stop = work->stop && *work->stop;

    ha_memory_sample(&work->peak_bytes);
    if (!work->answers)
        return stop;
    ha_answer_gang_tell(work->answers, work->tokens, own_flops(work));
    work->gang_result = ha_answer_gang_step(work->answers, stop, &work->gang_error);
    return work->gang_result < 0;
}

/* ---- the queue ------------------------------------------------------------------- */

/* Each sample of a row draws from a stream of its own. */
static uint64_t number_of(int64_t row, int64_t sample)
{
    return (uint64_t)row | (uint64_t)sample << 48;
}

static void add_request(struct work *work, struct ha_answering *answering, int64_t prompt,
                        int64_t sample)
{
    const struct ha_prompt *from = &answering->prompts->prompts[prompt];
    struct making *making = &work->making[work->n_requests];

    *making = (struct making){.answering = answering, .prompt = prompt, .sample = sample};
    ha_buffer_init(&making->text, 0);
    work->requests[work->n_requests++] =
        (struct ha_generate_request){.ids = from->ids,
                                     .n_ids = from->n_ids,
                                     .adapter = answering->adapter,
                                     .rules = &answering->rules,
                                     .number = number_of(from->row, sample)};
}

/* The missing answers to one prompt, all cells side by side, samples of a cell together. */
static void add_prompt(struct work *work, const struct ha_prompt_set *set, int64_t prompt)
{
    for (int64_t i = 0; i < work->generation->n_cells; i++) {
        struct ha_answering *answering = &work->cells[i];

        if (answering->ended || answering->prompts != set)
            continue;
        for (int64_t sample = 0; sample < answering->cell->settings->generate.samples; sample++)
            if (!ha_answering_skips(answering, prompt, sample))
                add_request(work, answering, prompt, sample);
    }
}

static int fill_queue(struct work *work, struct ha_error *err)
{
    int64_t n = work->total - work->done;

    work->making = ha_calloc(n, sizeof(*work->making));
    work->requests = ha_calloc(n, sizeof(*work->requests));
    if (!work->making || !work->requests)
        return out_of_memory(err);
    for (const struct ha_shared_prompts *shared = work->prompts; shared; shared = shared->next)
        for (int64_t prompt = 0; prompt < shared->set->n_prompts; prompt++)
            add_prompt(work, shared->set, prompt);
    return 0;
}

/* What the plan needs to know of the cells. */
static int read_cells(const struct work *work, struct ha_generation_plan_request *request,
                      struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < work->generation->n_cells; i++) {
        const struct ha_run_settings *settings = work->generation->cells[i].settings;
        const struct ha_adapter *adapter = work->cells[i].adapter;
        int64_t bytes = 0;

        if (adapter)
            request->adapter_bytes += ha_adapter_n_params(adapter) * (int64_t)sizeof(float);
        r = ha_memory_limit(settings, work->engine.backend, &bytes, err);
        if (r == 0 && bytes > 0 && (request->memory_bytes == 0 || bytes < request->memory_bytes)) {
            request->memory_bytes = bytes;
            request->memory_limit = ha_memory_limit_text(settings, work->engine.backend);
        }
    }
    return r;
}

static int64_t text_bytes(const struct work *work)
{
    int64_t bytes = 0;

    for (const struct ha_shared_prompts *shared = work->prompts; shared; shared = shared->next)
        for (int64_t i = 0; i < shared->set->n_prompts; i++) {
            const struct ha_prompt *prompt = &shared->set->prompts[i];

            bytes += (int64_t)prompt->text.size + prompt->n_ids * (int64_t)sizeof(int32_t);
        }
    return bytes;
}

/* The plan of some requests, beside so much for weights; settings are lowered to what fits. */
static int make_plan(const struct work *work, const struct ha_generate_request *requests, int64_t n,
                     int64_t weight_bytes, struct ha_generate_settings *settings,
                     struct ha_generation_plan *ret_plan, struct ha_error *err)
{
    const struct ha_gang *gang = work->generation->gang;
    struct ha_generation_plan_request request = {.engine = &work->engine,
                                                 .threads = work->generation->engine.threads,
                                                 .requests = requests,
                                                 .n_requests = n,
                                                 .weight_bytes = weight_bytes,
                                                 .text_bytes = text_bytes(work),
                                                 .memory_limit = "",
                                                 .max_kv_bytes = work->generation->max_kv_bytes};
    int r = read_cells(work, &request, err);

    if (gang) {
        request.comm_bytes =
            ha_comm_device_bytes(ha_gang_collective(gang, work->engine.backend), gang->ranks);
        request.neighbours = gang->ranks - 1;
    }
    return r < 0 ? r : ha_generation_plan_make(&request, settings, ret_plan, err);
}

static int plan(struct work *work, struct ha_error *err)
{
    const struct ha_model *model = work->engine.model;
    bool mapped = !ha_backend_copies_weights(work->engine.backend);
    /* Those of a GPU are there by now. */
    struct ha_dpo_weights weights =
        ha_dpo_plan_weights(ha_model_config(model), false, ha_model_ranks(model),
                            ha_model_weights(model)->lora_columns, ha_model_weights(model)->bytes);
    char kv[HA_MEMORY_TEXT_BYTES], total[HA_MEMORY_TEXT_BYTES];
    struct ha_generation_plan plan;
    int r;

    if (work->part.n == 0)
        return 0;
    r = make_plan(work, work->part.requests, work->part.n, mapped ? weights.bytes : 0,
                  &work->settings, &plan, err);
    if (r < 0)
        return r;
    work->planned_bytes = plan.total_bytes;
    ha_log_info("%lld answers to make, at most %lld at once; memory: %s planned, of it KV caches "
                "up to %s",
                (long long)work->part.n, (long long)work->settings.max_sequences,
                ha_memory_text(plan.total_bytes, total), ha_memory_text(plan.sizes.kv, kv));
    return 0;
}

static int answer_all(struct work *work, struct ha_error *err)
{
    struct ha_generate_hooks hooks = {.context = work,
                                      .stop = on_token,
                                      .finished = on_finished,
                                      .failed = on_failed,
                                      .unwanted = on_unwanted,
                                      .cancelled = on_step};
    int r = 0;

    if (work->part.n > 0)
        r = ha_generate(work->engine.model, work->part.requests, work->part.n, &work->settings,
                        &hooks, NULL, err);
    if (work->gang_result < 0) {
        *err = work->gang_error;
        return work->gang_result;
    }
    if (r == -ECANCELED)
        return ha_error_set(err, EINTR, "stopped as asked");
    if (r < 0 || !work->answers)
        return r;
    ha_answer_gang_tell(work->answers, work->tokens, own_flops(work));
    return ha_answer_gang_finish(work->answers, work->stop, err);
}

/* ---- the gang -------------------------------------------------------------------- */

/* Whole weights leave room for too few answers at a time.  Asked of the whole queue: all ranks must
 * come to the same. */
static bool is_cramped(const struct work *work)
{
    const struct ha_model *model = work->engine.model;
    struct ha_dpo_weights weights = ha_dpo_plan_weights(ha_model_config(model), true, 1,
                                                        ha_model_weights(model)->lora_columns, 0);
    struct ha_generate_settings settings = {.max_sequences = HA_GENERATION_FEWEST,
                                            .batch_invariant = work->settings.batch_invariant};
    struct ha_generation_plan plan;
    struct ha_error err;

    if (work->n_requests == 0)
        return false;
    return make_plan(work, work->requests, work->n_requests, weights.bytes, &settings, &plan,
                     &err) < 0 ||
           (settings.max_sequences < HA_GENERATION_FEWEST &&
            settings.max_sequences < work->n_requests);
}

/* Of a gang; all others have them already. */
static int load_weights(struct work *work, struct ha_error *err)
{
    const struct ha_generation *generation = work->generation;
    const struct ha_gang *gang = generation->gang;
    enum ha_dpo_sharding sharding = HA_DPO_SHARD_AUTO;
    struct ha_model_shard shard;
    bool shared;

    if (!gang)
        return 0;
    for (int64_t i = 0; i < generation->n_cells; i++)
        sharding = ha_weight_sharding_join(sharding, generation->cells[i].settings);
    shard = (struct ha_model_shard){gang->rank, gang->ranks};
    shared =
        gang->ranks > 1 && (sharding == HA_DPO_SHARD_ALWAYS ||
                            (sharding == HA_DPO_SHARD_AUTO &&
                             ha_backend_copies_weights(work->engine.backend) && is_cramped(work)));
    if (shared)
        ha_log_info("the weights of each layer are shared by %d ranks", gang->ranks);
    return ha_engine_load(&generation->engine, &work->engine, shared ? &shard : NULL, err);
}

/* Everything that the ranks must have in common. */
static int hash_job(const struct work *work, char hex[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;
    int r = 0;

    ha_sha256_init(&hash);
    ha_sha256_update(&hash, &work->settings.batch_invariant, sizeof(bool));
    for (int64_t i = 0; i < work->n_requests; i++) {
        int64_t cell = work->making[i].answering - work->cells;

        ha_sha256_update(&hash, &cell, sizeof(cell));
        ha_answer_hash_request(&work->requests[i], &hash);
    }
    for (int64_t i = 0; r == 0 && i < work->generation->n_cells; i++)
        if (work->cells[i].adapter)
            r = ha_answer_hash_adapter(work->engine.backend, work->cells[i].adapter, &hash, err);
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
    return r;
}

static int join_gang(struct work *work, struct ha_error *err)
{
    const struct ha_gang *gang = work->generation->gang;
    struct ha_answer_gang_options options = {.model = work->engine.model,
                                             .n_requests = work->n_requests,
                                             .context = work,
                                             .answer = on_other_answer,
                                             .failed = on_other_failed};
    char job[HA_SHA256_HEX_BYTES];
    struct ha_gang_same same = {.engine = &work->engine, .job = job};
    int r;

    if (!gang)
        return 0;
    r = hash_job(work, job, err);
    if (r == 0)
        r = ha_gang_join(gang, work->engine.backend, ha_gang_join_same, &same, work->stop,
                         &work->comm, err);
    if (r < 0)
        return r;
    options.comm = work->comm;
    options.wait_ms = gang->step_ms;
    return ha_answer_gang_create(&options, &work->answers, err);
}

/* ---- the job --------------------------------------------------------------------- */

static int open_cells(struct work *work, struct ha_error *err)
{
    const struct ha_generation *generation = work->generation;

    work->cells = ha_calloc(generation->n_cells, sizeof(*work->cells));
    if (!work->cells)
        return out_of_memory(err);
    for (int64_t i = 0; i < generation->n_cells; i++) {
        struct ha_answering *answering = &work->cells[i];
        int r = ha_answering_open(generation, &work->engine, &generation->cells[i], &work->prompts,
                                  answering, err);

        work->done += answering->done;
        work->total += answering->total;
        /* A damaged adapter is its cell's fault; what comes before it is wrong for all. */
        if (r < 0 && answering->made)
            r = fail_cell(work, answering, r, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Cells whose answers are all there. */
static int end_complete_cells(struct work *work, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < work->generation->n_cells; i++)
        if (!work->cells[i].ended && work->cells[i].done == work->cells[i].total)
            r = end_cell(work, &work->cells[i], true, "", err);
    return r;
}

static int prepare(struct work *work, struct ha_error *err)
{
    struct ha_engine_options options = work->generation->engine;
    int64_t most = work->generation->max_sequences;
    int r = work->reporter->phase(work->reporter->context, "load", err);

    /* The ranks of a gang read weights when it is known whether they share them. */
    options.weights_later = work->generation->gang != NULL;
    work->settings =
        (struct ha_generate_settings){.max_sequences = most > 0 ? most : DEFAULT_SEQUENCES,
                                      .batch_invariant = batch_invariant(work)};
    if (r == 0)
        r = ha_engine_open(&options, &work->engine, err);
    if (r < 0)
        return r;
    ha_engine_measure(&work->engine);
    r = open_cells(work, err);
    if (r == 0)
        r = fill_queue(work, err);
    if (r == 0)
        r = ha_answer_part_take(work->requests, work->n_requests, ranks_of(work),
                                work->generation->gang ? work->generation->gang->rank : 0,
                                &work->part, err);
    if (r == 0)
        r = end_complete_cells(work, err);
    if (r == 0)
        r = load_weights(work, err);
    if (r == 0)
        r = plan(work, err);
    return r < 0 ? r : join_gang(work, err);
}

static int generate(struct work *work, struct ha_error *err)
{
    int r = prepare(work, err);

    if (r == 0)
        r = work->reporter->phase(work->reporter->context, "generate", err);
    work->start_ms = ha_clock_boot_ms();
    work->flops_before = work->engine.backend ? ha_backend_flops(work->engine.backend) : 0;
    if (r == 0)
        r = report_progress(work, err);
    return r < 0 ? r : answer_all(work, err);
}

int ha_generation_run(const struct ha_generation *generation, const struct ha_reporter *reporter,
                      const volatile sig_atomic_t *stop, struct ha_error *err)
{
    struct work work = {.generation = generation, .reporter = reporter, .stop = stop};
    int r = generate(&work, err);

    if (r < 0 && r != -EINTR && work.comm)
        ha_gang_fail(generation->gang, work.comm, err);
    ha_answer_gang_destroy(work.answers);
    ha_comm_destroy(work.comm);
    for (int64_t i = 0; i < work.n_requests; i++)
        clear_making(&work.making[i]);
    free(work.making);
    free(work.requests);
    ha_answer_part_clear(&work.part);
    for (int64_t i = 0; work.cells && i < generation->n_cells; i++)
        ha_answering_close(&work.cells[i]);
    free(work.cells);
    ha_shared_prompts_destroy(work.prompts);
    ha_engine_close(&work.engine);
    return r;
}
