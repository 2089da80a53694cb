#include "worker/attempt/generation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "worker/adapter/adapter.h"
#include "worker/attempt/answer_text.h"
#include "worker/attempt/outcome.h"
#include "worker/data/prompts.h"
#include "worker/model/decode.h"
#include "worker/sampling/generate.h"

enum { DEFAULT_SEQUENCES = 64, PROGRESS_MS = 1000 };

/* One answer in the making. */
struct making {
    int64_t prompt, sample;
    struct ha_tokenizer_stream *stream;
    struct ha_buffer text;
    int64_t pushed; /* ids that the stream has seen */
};

/* What a set of prompts depends on. */
struct prompts_key {
    int64_t room, eval_samples, train_samples, seed;
};

/* A cell at work. */
struct work {
    const struct ha_generation *generation;
    const struct ha_generation_cell *cell;
    const struct ha_reporter *reporter;
    const volatile sig_atomic_t *stop;
    struct ha_engine engine;
    struct ha_prompt_set *prompts;
    struct making *making;
    struct ha_generate_request *requests;
    int64_t n_requests;
    struct ha_generate_settings settings; /* of the cell */
    int32_t eos[HA_MODEL_MAX_EOS];
    struct prompts_key key; /* of prompts */
    const char **stops;
    int64_t n_stops;
    int64_t done, total; /* answers */
    int64_t tokens, limited, start_ms, next_progress_ms;
    double flops_before;
};

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory while preparing the generation");
}

/* ---- settings ------------------------------------------------------------------ */

static void add_eos(int32_t *eos, int64_t *n, int32_t id)
{
    for (int64_t i = 0; i < *n; i++)
        if (eos[i] == id)
            return;
    if (id >= 0 && *n < HA_MODEL_MAX_EOS)
        eos[(*n)++] = id;
}

static const char *precision_of(const struct work *work)
{
    return ha_engine_precision(&work->engine, work->cell->settings->train.precision);
}

static bool given(const struct ha_sweep_generate *generate, const char *key)
{
    const struct ha_section *section = &ha_sweep_generate_section;

    return ha_section_given(section, ha_section_find(section, key), generate);
}

/* With settings = "model": the model's own values where the grid gives none. */
static void take_model_values(const struct ha_sweep_generate *generate,
                              const struct ha_generation_config *model,
                              struct ha_generate_settings *settings)
{
    struct ha_sampler_settings *sampler = &settings->sampler;

    if (!given(generate, "temperature"))
        sampler->temperature = model->do_sample ? model->temperature : 0;
    if (!given(generate, "top_k"))
        sampler->top_k = model->top_k;
    if (!given(generate, "top_p"))
        sampler->top_p = model->top_p;
    if (!given(generate, "repetition_penalty"))
        sampler->repetition_penalty = model->repetition_penalty;
    if (!given(generate, "max_new_tokens") && model->max_new_tokens > 0)
        settings->max_new_tokens = model->max_new_tokens;
}

/* The cell's settings, and the end tokens of model and tokenizer. */
static int read_settings(struct work *work, struct ha_error *err)
{
    const struct ha_sweep_generate *generate = &work->cell->settings->generate;
    const struct ha_generation *generation = work->generation;
    struct ha_generation_config model;
    int64_t n_eos = 0;
    int r = ha_generation_config_load(generation->engine.model_dir, &model, err);

    if (r < 0)
        return r;
    for (int64_t i = 0; i < model.n_eos; i++)
        add_eos(work->eos, &n_eos, model.eos[i]);
    add_eos(work->eos, &n_eos, ha_tokenizer_eos_id(work->engine.tokenizer));
    work->settings = (struct ha_generate_settings){
        .sampler = {.temperature = generate->temperature,
                    .top_k = generate->top_k,
                    .top_p = generate->top_p,
                    .repetition_penalty = generate->repetition_penalty,
                    .min_new_tokens = generate->min_new_tokens},
        .seed = (uint64_t)generate->seed,
        .max_new_tokens = generate->max_new_tokens,
        .eos = work->eos,
        .n_eos = n_eos,
        .max_sequences =
            generation->max_sequences > 0 ? generation->max_sequences : DEFAULT_SEQUENCES};
    if (strcmp(generate->settings, "model") == 0)
        take_model_values(generate, &model, &work->settings);
    ha_log_info("precision %s", precision_of(work));
    return ha_sampler_settings_check(&work->settings.sampler, err);
}

/* The dialogue form of hh-rlhf ends an answer where the next turn begins. */
static int make_stops(struct work *work, struct ha_error *err)
{
    const struct ha_text_list *given = &work->cell->settings->generate.stop;

    free(work->stops);
    work->n_stops = 0;
    work->stops = ha_calloc(given->count + 1, sizeof(*work->stops));
    if (!work->stops)
        return out_of_memory(err);
    work->stops[work->n_stops++] = "\n\nHuman:";
    for (int64_t i = 0; i < given->count; i++)
        work->stops[work->n_stops++] = given->items[i];
    return 0;
}

/* ---- hooks of the generator -------------------------------------------------------- */

static size_t longest_stop(const struct work *work)
{
    size_t longest = 0;

    for (int64_t i = 0; i < work->n_stops; i++)
        if (strlen(work->stops[i]) > longest)
            longest = strlen(work->stops[i]);
    return longest;
}

/* Brings the text of a request up to its ids. */
static int push_ids(struct making *making, const int32_t *ids, int64_t n, struct ha_error *err)
{
    for (; making->pushed < n; making->pushed++) {
        const char *text;
        size_t size;
        int r = ha_tokenizer_stream_push(making->stream, ids[making->pushed], &text, &size, err);

        if (r < 0)
            return r;
        if (ha_buffer_append(&making->text, text, size) < 0)
            return out_of_memory(err);
    }
    return 0;
}

static int on_token(void *context, int64_t request, const int32_t *ids, int64_t n,
                    struct ha_error *err)
{
    struct work *work = context;
    struct making *making = &work->making[request];
    size_t before = making->text.size, reach = longest_stop(work);
    int r = push_ids(making, ids, n, err);

    if (r < 0)
        return r;
    work->tokens++;
    if (n < work->settings.sampler.min_new_tokens)
        return 0;
    before = before > reach ? before - reach : 0;
    return ha_answer_stop(ha_buffer_text(&making->text), making->text.size, before, work->stops,
                          work->n_stops) < making->text.size;
}

static int report_progress(struct work *work, struct ha_error *err)
{
    int64_t now = ha_clock_boot_ms(), ms = now - work->start_ms;
    struct ha_reported_progress progress = {
        .step = work->done,
        .steps = work->total,
        .tokens_per_second = ms > 0 ? (double)work->tokens * 1000 / (double)ms : 0,
    };

    if (now < work->next_progress_ms && work->done < work->total)
        return 0;
    work->next_progress_ms = now + PROGRESS_MS;
    return work->reporter->progress(work->reporter->context, &progress, err);
}

static int on_finished(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    struct work *work = context;
    struct making *making = &work->making[answer->request];
    const struct ha_prompt *prompt = &work->prompts->prompts[making->prompt];
    struct ha_reported_answer reported = {.cell = work->cell->id,
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
    int r = push_ids(making, answer->ids, answer->n_ids, err);

    if (r == 0)
        r = ha_tokenizer_stream_finish(making->stream, &rest, &rest_size, err);
    if (r == 0 && ha_buffer_append(&making->text, rest, rest_size) < 0)
        r = out_of_memory(err);
    if (r < 0)
        return r;
    reported.raw = ha_buffer_text(&making->text);
    reported.raw_bytes = making->text.size;
    ha_answer_cut(reported.raw, reported.raw_bytes, work->stops, work->n_stops, &begin, &size);
    reported.text = reported.raw + begin;
    reported.text_bytes = size;
    r = work->reporter->answer(work->reporter->context, &reported, err);
    ha_buffer_clear(&making->text);
    ha_tokenizer_stream_destroy(making->stream);
    making->stream = NULL;
    work->limited += answer->finish == HA_FINISH_LENGTH;
    work->done++;
    return r < 0 ? r : report_progress(work, err);
}

static bool on_step(void *context)
{
    const struct work *work = context;

    return work->stop && *work->stop;
}

/* ---- requests --------------------------------------------------------------------- */

static bool skipped(const struct ha_generation_cell *cell, int64_t prompt, int64_t sample)
{
    for (int64_t i = 0; i < cell->n_skip; i++)
        if (cell->skip[i].prompt == prompt && cell->skip[i].sample == sample)
            return true;
    return false;
}

static int64_t count_skipped(const struct work *work)
{
    const struct ha_generation_cell *cell = work->cell;
    int64_t n = 0;

    for (int64_t i = 0; i < cell->n_skip; i++)
        n += cell->skip[i].prompt < work->prompts->n_prompts &&
             cell->skip[i].sample < cell->settings->generate.samples;
    return n;
}

/* Each sample of a row draws from a stream of its own. */
static uint64_t stream_of(int64_t row, int64_t sample)
{
    return (uint64_t)row | (uint64_t)sample << 48;
}

static void clear_requests(struct work *work)
{
    for (int64_t i = 0; i < work->n_requests; i++) {
        ha_tokenizer_stream_destroy(work->making[i].stream);
        ha_buffer_clear(&work->making[i].text);
    }
    free(work->making);
    free(work->requests);
    work->making = NULL;
    work->requests = NULL;
    work->n_requests = 0;
}

/* The answers of one sample number that are still to be made. */
static int make_requests(struct work *work, int64_t sample, const struct ha_adapter *adapter,
                         struct ha_error *err)
{
    work->making = ha_calloc(work->prompts->n_prompts, sizeof(*work->making));
    work->requests = ha_calloc(work->prompts->n_prompts, sizeof(*work->requests));
    if (!work->making || !work->requests)
        return out_of_memory(err);
    for (int64_t i = 0; i < work->prompts->n_prompts; i++) {
        const struct ha_prompt *prompt = &work->prompts->prompts[i];
        struct making *making = &work->making[work->n_requests];
        int r;

        if (skipped(work->cell, i, sample))
            continue;
        making->prompt = i;
        making->sample = sample;
        ha_buffer_init(&making->text, 0);
        r = ha_tokenizer_stream_create(work->engine.tokenizer, true, &making->stream, err);
        if (r < 0)
            return r;
        work->requests[work->n_requests++] =
            (struct ha_generate_request){.ids = prompt->ids,
                                         .n_ids = prompt->n_ids,
                                         .adapter = adapter,
                                         .prompt = stream_of(prompt->row, sample)};
    }
    return 0;
}

/* ---- prompts ---------------------------------------------------------------------- */

static int by_row(const void *a, const void *b)
{
    const struct ha_prompt *x = a, *y = b;

    return (x->row > y->row) - (x->row < y->row);
}

static void log_prompts(const struct ha_prompt_report *report)
{
    ha_log_info(
        "held-out prompts: rows %lld, selected %lld, kept %lld, longer than the context %lld, "
        "without a turn %lld, seen in training %lld",
        (long long)report->total, (long long)report->selected, (long long)report->prompts,
        (long long)report->dropped_too_long, (long long)report->dropped_no_turn,
        (long long)report->seen_in_training);
}

/* Ids that a prompt may have; 0: any number. */
static int find_room(const struct work *work, int64_t *ret_room, struct ha_error *err)
{
    int64_t context = ha_model_config(work->engine.model)->max_position;
    int64_t tokens = work->settings.max_new_tokens;

    if (context > 0 && context <= tokens)
        return ha_error_set(err, EINVAL,
                            "generate.max_new_tokens = %lld leaves no room for a prompt in a "
                            "context of %lld",
                            (long long)tokens, (long long)context);
    *ret_room = context > 0 ? context - tokens : 0;
    return 0;
}

static int read_prompts(const struct work *work, int64_t room, struct ha_prompt_set **ret_prompts,
                        struct ha_error *err)
{
    const struct ha_generation *generation = work->generation;
    const struct ha_sweep_data *data = &work->cell->settings->data;
    int64_t samples = generation->in_file_order ? 0 : data->eval_samples;
    struct ha_rows *rows = NULL, *train = NULL;
    struct ha_prompt_set *prompts = NULL;
    int r = ha_rows_open(generation->prompts, generation->n_prompts, &rows, err);

    if (r < 0)
        return r;
    r = ha_prompt_set_create(rows, work->engine.tokenizer, room, samples, (uint64_t)data->seed,
                             &prompts, err);
    if (r < 0)
        (void)ha_error_prefix(err, "%s", generation->prompts[0]);
    if (r == 0 && generation->in_file_order)
        qsort(prompts->prompts, (size_t)prompts->n_prompts, sizeof(*prompts->prompts), by_row);
    if (r == 0 && generation->n_train > 0)
        r = ha_rows_open(generation->train, generation->n_train, &train, err);
    if (r == 0 && train)
        r = ha_prompt_set_mark_seen(prompts, train, data->train_samples, (uint64_t)data->seed, err);
    ha_rows_close(rows);
    ha_rows_close(train);
    if (r < 0) {
        ha_prompt_set_destroy(prompts);
        return r;
    }
    *ret_prompts = prompts;
    return 0;
}

/* What the prompts of the cell depend on; equal for most cells of a job. */
static struct prompts_key key_of(const struct work *work, int64_t room)
{
    const struct ha_sweep_data *data = &work->cell->settings->data;

    return (struct prompts_key){.room = room,
                                .eval_samples = data->eval_samples,
                                .train_samples = data->train_samples,
                                .seed = data->seed};
}

static int load_prompts(struct work *work, struct ha_error *err)
{
    struct prompts_key key;
    int64_t room = 0;
    int r = find_room(work, &room, err);

    if (r < 0)
        return r;
    key = key_of(work, room);
    if (work->prompts && key.room == work->key.room && key.seed == work->key.seed &&
        key.eval_samples == work->key.eval_samples && key.train_samples == work->key.train_samples)
        return 0;
    ha_prompt_set_destroy(work->prompts);
    work->prompts = NULL;
    work->key = key;
    r = read_prompts(work, room, &work->prompts, err);
    if (r == 0)
        log_prompts(&work->prompts->report);
    return r;
}

/* ---- cells -------------------------------------------------------------------------- */

static struct ha_json *summary_of(const struct work *work)
{
    const struct ha_prompt_report *report = &work->prompts->report;
    struct ha_json *json = ha_json_new_object();
    int64_t ms = ha_clock_boot_ms() - work->start_ms;

    if (!json || ha_json_set(json, "answers", ha_json_new_int(work->done)) < 0 ||
        ha_json_set(json, "prompts", ha_json_new_int(report->prompts)) < 0 ||
        ha_json_set(json, "prompts_dropped",
                    ha_json_new_int(report->dropped_too_long + report->dropped_no_turn)) < 0 ||
        ha_json_set(json, "prompts_seen_in_training", ha_json_new_int(report->seen_in_training)) <
            0 ||
        ha_json_set(json, "cut_by_the_limit", ha_json_new_int(work->limited)) < 0 ||
        ha_json_set(json, "tokens", ha_json_new_int(work->tokens)) < 0 ||
        ha_json_set(json, "seconds", ha_json_new_real((double)ms / 1000)) < 0 ||
        ha_json_set(json, "tokens_per_second",
                    ha_json_new_real(ms > 0 ? (double)work->tokens * 1000 / (double)ms : 0)) < 0 ||
        ha_json_set(json, "flops",
                    ha_json_new_real(ha_backend_flops(work->engine.backend) - work->flops_before)) <
            0 ||
        ha_json_set(json, "precision", ha_json_new_string(precision_of(work))) < 0 ||
        ha_json_set(json, "backend",
                    ha_json_new_string(ha_backend_fingerprint(work->engine.backend))) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

/* Bytes that the caches of this machine's sequences may take together: a quarter of its memory,
 * and always enough for the longest of them.  Answers do not depend on it. */
static int64_t kv_budget(const struct work *work)
{
    int64_t pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    int64_t longest = 0, largest;

    for (int64_t i = 0; i < work->n_requests; i++)
        if (work->requests[i].n_ids > longest)
            longest = work->requests[i].n_ids;
    largest = ha_kv_cache_bytes(ha_model_config(work->engine.model),
                                ha_backend_activation_dtype(work->engine.backend),
                                longest + work->settings.max_new_tokens);
    if (pages <= 0 || page_bytes <= 0 || pages > INT64_MAX / page_bytes)
        return largest;
    return pages * page_bytes / 4 > largest ? pages * page_bytes / 4 : largest;
}

static int generate_sample(struct work *work, int64_t sample, const struct ha_adapter *adapter,
                           struct ha_error *err)
{
    struct ha_generate_hooks hooks = {
        .context = work, .stop = on_token, .finished = on_finished, .cancelled = on_step};
    int r = make_requests(work, sample, adapter, err);

    if (strcmp(ha_backend_name(work->engine.backend), "cpu") == 0)
        work->settings.max_kv_bytes = kv_budget(work);
    if (r == 0 && work->n_requests > 0)
        r = ha_generate(work->engine.model, work->requests, work->n_requests, &work->settings,
                        &hooks, NULL, err);
    clear_requests(work);
    return r == -ECANCELED ? ha_error_set(err, EINTR, "stopped as asked") : r;
}

/* All answers of the cell that are not there yet. */
static int answer(struct work *work, struct ha_error *err)
{
    struct ha_adapter_geometry geometry;
    struct ha_adapter *adapter = NULL;
    int64_t samples = work->cell->settings->generate.samples;
    int r = 0;

    ha_model_config_geometry(ha_model_config(work->engine.model), &geometry);
    if (work->cell->adapter)
        r = ha_adapter_load(work->engine.backend, &geometry, work->cell->adapter, &adapter, err);
    if (r == 0)
        r = work->reporter->phase(work->reporter->context, "generate", err);
    if (r == 0)
        r = report_progress(work, err);
    for (int64_t sample = 0; r == 0 && sample < samples; sample++)
        r = generate_sample(work, sample, adapter, err);
    ha_adapter_destroy(adapter);
    return r;
}

static int generate_cell(struct work *work, struct ha_error *err)
{
    int r = read_settings(work, err);

    if (r == 0)
        r = load_prompts(work, err);
    if (r == 0)
        r = make_stops(work, err);
    if (r < 0)
        return r;
    work->start_ms = ha_clock_boot_ms();
    work->tokens = work->limited = 0;
    work->total = work->prompts->n_prompts * work->cell->settings->generate.samples;
    work->done = count_skipped(work);
    work->flops_before = ha_backend_flops(work->engine.backend);
    r = answer(work, err);
    /* An adapter that is damaged or has diverged is the end of its cell, not of the others. */
    if (r < 0 && !ha_outcome_is_permanent(r))
        return r;
    return work->reporter->cell(work->reporter->context, work->cell->id, r == 0,
                                r < 0 ? ha_error_text(err) : "", r < 0, summary_of(work), err);
}

static int prepare(struct work *work, struct ha_error *err)
{
    const struct ha_generation *generation = work->generation;
    int r = work->reporter->phase(work->reporter->context, "load", err);

    if (r == 0 && strcmp(generation->prompt_template, "hh") != 0)
        r = ha_error_set(err, ENOTSUP, "template \"%s\" is not built yet; use \"hh\"",
                         generation->prompt_template);
    return r < 0 ? r : ha_engine_open(&generation->engine, &work->engine, err);
}

int ha_generation_run(const struct ha_generation *generation, const struct ha_reporter *reporter,
                      const volatile sig_atomic_t *stop, struct ha_error *err)
{
    struct work work = {.generation = generation, .reporter = reporter, .stop = stop};
    int r = prepare(&work, err);

    for (int64_t i = 0; r == 0 && i < generation->n_cells; i++) {
        work.cell = &generation->cells[i];
        r = generate_cell(&work, err);
    }
    free(work.stops);
    ha_prompt_set_destroy(work.prompts);
    ha_engine_close(&work.engine);
    return r;
}
