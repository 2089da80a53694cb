#include "worker/attempt/generation_cell.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

/* An answer that was there before this attempt. */
enum { STORED = -1 };

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory while preparing the generation");
}

/* ---- rules ----------------------------------------------------------------------- */

static void add_eos(int32_t *eos, int64_t *n, int32_t id)
{
    for (int64_t i = 0; i < *n; i++)
        if (eos[i] == id)
            return;
    if (id >= 0 && *n < HA_MODEL_MAX_EOS)
        eos[(*n)++] = id;
}

static const char *precision_of(const struct ha_answering *answering,
                                const struct ha_engine *engine)
{
    return ha_engine_precision(engine, answering->cell->settings->train.precision);
}

static bool given(const struct ha_sweep_generate *generate, const char *key)
{
    const struct ha_section *section = &ha_sweep_generate_section;

    return ha_section_given(section, ha_section_find(section, key), generate);
}

/* With settings = "model": the model's own values where the grid gives none. */
static void take_model_values(const struct ha_sweep_generate *generate,
                              const struct ha_generation_config *model,
                              struct ha_generate_rules *rules)
{
    struct ha_sampler_settings *sampler = &rules->sampler;

    if (!given(generate, "temperature"))
        sampler->temperature = model->do_sample ? model->temperature : 0;
    if (!given(generate, "top_k"))
        sampler->top_k = model->top_k;
    if (!given(generate, "top_p"))
        sampler->top_p = model->top_p;
    if (!given(generate, "repetition_penalty"))
        sampler->repetition_penalty = model->repetition_penalty;
    if (!given(generate, "max_new_tokens") && model->max_new_tokens > 0)
        rules->max_new_tokens = model->max_new_tokens;
}

/* The cell's settings, and the end tokens of model and tokenizer. */
static int read_rules(struct ha_answering *answering, const struct ha_generation *generation,
                      const struct ha_engine *engine, struct ha_error *err)
{
    const struct ha_sweep_generate *generate = &answering->cell->settings->generate;
    struct ha_generation_config model;
    int64_t n_eos = 0;
    int r = ha_generation_config_load(generation->engine.model_dir, &model, err);

    if (r < 0)
        return r;
    for (int64_t i = 0; i < model.n_eos; i++)
        add_eos(answering->eos, &n_eos, model.eos[i]);
    add_eos(answering->eos, &n_eos, ha_tokenizer_eos_id(engine->tokenizer));
    if (ha_engine_chat(engine))
        add_eos(
            answering->eos, &n_eos,
            ha_tokenizer_token_to_id(engine->tokenizer, ha_chat_end_token(ha_engine_chat(engine))));
    answering->rules =
        (struct ha_generate_rules){.sampler = {.temperature = generate->temperature,
                                               .top_k = generate->top_k,
                                               .top_p = generate->top_p,
                                               .repetition_penalty = generate->repetition_penalty,
                                               .min_new_tokens = generate->min_new_tokens},
                                   .seed = (uint64_t)generate->seed,
                                   .max_new_tokens = generate->max_new_tokens,
                                   .eos = answering->eos,
                                   .n_eos = n_eos};
    if (strcmp(generate->settings, "model") == 0)
        take_model_values(generate, &model, &answering->rules);
    return ha_sampler_settings_check(&answering->rules.sampler, err);
}

/* The dialogue form of hh-rlhf ends an answer where the next turn begins. */
static int make_stops(struct ha_answering *answering, const struct ha_engine *engine,
                      struct ha_error *err)
{
    const struct ha_text_list *given_stops = &answering->cell->settings->generate.stop;

    answering->stops = ha_calloc(given_stops->count + 1, sizeof(*answering->stops));
    if (!answering->stops)
        return out_of_memory(err);
    if (!ha_engine_chat(engine))
        answering->stops[answering->n_stops++] = "\n\nHuman:";
    for (int64_t i = 0; i < given_stops->count; i++)
        answering->stops[answering->n_stops++] = given_stops->items[i];
    for (int64_t i = 0; i < answering->n_stops; i++)
        if (strlen(answering->stops[i]) > answering->longest_stop)
            answering->longest_stop = strlen(answering->stops[i]);
    return 0;
}

/* ---- prompts --------------------------------------------------------------------- */

void ha_shared_prompts_destroy(struct ha_shared_prompts *list)
{
    while (list) {
        struct ha_shared_prompts *next = list->next;

        ha_prompt_set_destroy(list->set);
        free(list);
        list = next;
    }
}

static int by_row(const void *a, const void *b)
{
    const struct ha_prompt *x = a, *y = b;

    return (x->row > y->row) - (x->row < y->row);
}

static void log_prompts(const struct ha_prompt_report *report)
{
    ha_log_info(
        "held-out prompts: rows %lld, selected %lld, kept %lld, longer than the context %lld, "
        "without a turn %lld, refused by the chat template %lld, seen in training %lld",
        (long long)report->total, (long long)report->selected, (long long)report->prompts,
        (long long)report->dropped_too_long, (long long)report->dropped_no_turn,
        (long long)report->dropped_by_template, (long long)report->seen_in_training);
}

static int make_key(const struct ha_answering *answering, const struct ha_engine *engine,
                    struct ha_prompts_key *ret_key, struct ha_error *err)
{
    const struct ha_sweep_data *data = &answering->cell->settings->data;
    int64_t context = ha_model_config(engine->model)->max_position;
    int64_t tokens = answering->rules.max_new_tokens;

    if (context > 0 && context <= tokens)
        return ha_error_set(err, EINVAL,
                            "generate.max_new_tokens = %lld leaves no room for a prompt in a "
                            "context of %lld",
                            (long long)tokens, (long long)context);
    *ret_key = (struct ha_prompts_key){.room = context > 0 ? context - tokens : 0,
                                       .eval_samples = data->eval_samples,
                                       .train_samples = data->train_samples,
                                       .seed = data->seed};
    return 0;
}

static int read_prompts(const struct ha_generation *generation, const struct ha_engine *engine,
                        const struct ha_prompts_key *key, struct ha_prompt_set **ret_prompts,
                        struct ha_error *err)
{
    int64_t samples = generation->in_file_order ? 0 : key->eval_samples;
    struct ha_rows *rows = NULL, *train = NULL;
    struct ha_prompt_set *prompts = NULL;
    int r = ha_rows_open(generation->prompts, generation->n_prompts, &rows, err);

    if (r < 0)
        return r;
    r = ha_prompt_set_create(rows, engine->tokenizer, ha_engine_chat(engine), key->room, samples,
                             (uint64_t)key->seed, &prompts, err);
    if (r < 0)
        (void)ha_error_prefix(err, "%s", generation->prompts[0]);
    if (r == 0 && generation->in_file_order)
        qsort(prompts->prompts, (size_t)prompts->n_prompts, sizeof(*prompts->prompts), by_row);
    if (r == 0 && generation->n_train > 0)
        r = ha_rows_open(generation->train, generation->n_train, &train, err);
    if (r == 0 && train)
        r = ha_prompt_set_mark_seen(prompts, train, key->train_samples, (uint64_t)key->seed, err);
    ha_rows_close(rows);
    ha_rows_close(train);
    if (r < 0) {
        ha_prompt_set_destroy(prompts);
        return r;
    }
    *ret_prompts = prompts;
    return 0;
}

static bool same_key(const struct ha_prompts_key *a, const struct ha_prompts_key *b)
{
    return a->room == b->room && a->seed == b->seed && a->eval_samples == b->eval_samples &&
           a->train_samples == b->train_samples;
}

static int find_prompts(struct ha_answering *answering, const struct ha_generation *generation,
                        const struct ha_engine *engine, struct ha_shared_prompts **list,
                        struct ha_error *err)
{
    struct ha_shared_prompts *shared = *list;
    struct ha_prompts_key key;
    int r = make_key(answering, engine, &key, err);

    if (r < 0)
        return r;
    while (shared && !same_key(&shared->key, &key))
        shared = shared->next;
    if (!shared) {
        shared = ha_calloc(1, sizeof(*shared));
        if (!shared)
            return out_of_memory(err);
        shared->key = key;
        r = read_prompts(generation, engine, &key, &shared->set, err);
        if (r < 0) {
            free(shared);
            return r;
        }
        log_prompts(&shared->set->report);
        shared->next = *list;
        *list = shared;
    }
    answering->prompts = shared->set;
    return 0;
}

/* ---- the cell -------------------------------------------------------------------- */

static int64_t samples_of(const struct ha_answering *answering)
{
    return answering->cell->settings->generate.samples;
}

/* Mark what is there already: it is no work of this attempt. */
static int begin_counts(struct ha_answering *answering, struct ha_error *err)
{
    const struct ha_generation_cell *cell = answering->cell;
    int64_t n_prompts = answering->prompts->n_prompts;

    answering->total = n_prompts * samples_of(answering);
    answering->made = ha_calloc(answering->total, sizeof(*answering->made));
    if (!answering->made)
        return out_of_memory(err);
    for (int64_t i = 0; i < cell->n_skip; i++) {
        const struct ha_generation_skip *skip = &cell->skip[i];

        if (skip->prompt >= 0 && skip->prompt < n_prompts && skip->sample >= 0 &&
            skip->sample < samples_of(answering))
            answering->made[skip->sample * n_prompts + skip->prompt].drawn = STORED;
    }
    for (int64_t i = 0; i < answering->total; i++)
        answering->done += answering->made[i].drawn == STORED;
    return 0;
}

int ha_answering_open(const struct ha_generation *generation, const struct ha_engine *engine,
                      const struct ha_generation_cell *cell, struct ha_shared_prompts **list,
                      struct ha_answering *answering, struct ha_error *err)
{
    struct ha_adapter_geometry geometry;
    int r;

    *answering = (struct ha_answering){.cell = cell};
    r = read_rules(answering, generation, engine, err);
    if (r == 0)
        r = find_prompts(answering, generation, engine, list, err);
    if (r == 0)
        r = make_stops(answering, engine, err);
    if (r == 0)
        r = begin_counts(answering, err);
    if (r == 0 && cell->adapter) {
        ha_model_config_geometry(ha_model_config(engine->model), &geometry);
        r = ha_adapter_load(engine->backend, &geometry, cell->adapter, &answering->adapter, err);
    }
    return r;
}

void ha_answering_close(struct ha_answering *answering)
{
    ha_adapter_destroy(answering->adapter);
    free(answering->stops);
    free(answering->made);
}

bool ha_answering_skips(const struct ha_answering *answering, int64_t prompt, int64_t sample)
{
    return answering->made[sample * answering->prompts->n_prompts + prompt].drawn == STORED;
}

void ha_answering_count(struct ha_answering *answering, int64_t prompt, int64_t sample,
                        const struct ha_generate_answer *answer)
{
    int64_t prompt_tokens = answering->prompts->prompts[prompt].n_ids;

    answering->made[sample * answering->prompts->n_prompts + prompt] = (struct ha_plain_answer){
        .prompt_tokens = prompt_tokens,
        .drawn = answer->n_ids + (answer->finish == HA_FINISH_EOS),
    };
    answering->done++;
    answering->tokens += answer->n_ids;
    answering->prompt_tokens += prompt_tokens;
    answering->limited += answer->finish == HA_FINISH_LENGTH;
    answering->cost.seconds += answer->cost.seconds;
    answering->cost.flops += answer->cost.flops;
    answering->cost.bytes_moved += answer->cost.bytes_moved;
}

/* One sample of all prompts after the other. */
double ha_answering_plain_flops(const struct ha_answering *answering,
                                const struct ha_engine *engine)
{
    int64_t n_prompts = answering->prompts->n_prompts;
    double flops = 0.0;

    for (int64_t sample = 0; sample < samples_of(answering); sample++)
        flops += ha_plain_flops(ha_model_config(engine->model), answering->adapter,
                                answering->made + sample * n_prompts, n_prompts, HA_PLAIN_BATCH);
    return flops;
}

static int set_int(struct ha_json *json, const char *key, int64_t value)
{
    return ha_json_set(json, key, ha_json_new_int(value));
}

static int set_real(struct ha_json *json, const char *key, double value)
{
    return ha_json_set(json, key, ha_json_new_real(value));
}

static int add_work(struct ha_json *json, const struct ha_answering *answering,
                    const struct ha_answering_record *record)
{
    const struct ha_engine *engine = record->engine;
    const struct ha_generate_cost *cost = &answering->cost;
    double plain = ha_answering_plain_flops(answering, engine);
    double per_second = cost->seconds > 0 ? 1.0 / cost->seconds : 0.0;
    double speed = cost->flops * per_second;

    if (set_real(json, "seconds", cost->seconds) < 0 ||
        set_real(json, "tokens_per_second", (double)answering->tokens * per_second) < 0 ||
        set_real(json, "flops", cost->flops) < 0 || set_real(json, "flops_plain", plain) < 0 ||
        set_real(json, "saved", plain > 0 ? 1.0 - cost->flops / plain : 0.0) < 0 ||
        set_real(json, "flops_per_second", speed) < 0 ||
        set_real(json, "utilisation", ha_engine_utilisation(engine, speed / record->ranks)) < 0 ||
        set_real(json, "peak_flops_per_second", engine->peak_flops_per_second) < 0)
        return -ENOMEM;
    return set_real(json, "bytes_moved", cost->bytes_moved);
}

static int add_counts(struct ha_json *json, const struct ha_answering *answering)
{
    const struct ha_prompt_report *report = &answering->prompts->report;

    if (set_int(json, "answers", answering->done) < 0 ||
        set_int(json, "prompts", report->prompts) < 0 ||
        set_int(json, "prompts_dropped",
                report->dropped_too_long + report->dropped_no_turn + report->dropped_by_template) <
            0 ||
        set_int(json, "prompts_seen_in_training", report->seen_in_training) < 0 ||
        set_int(json, "cut_by_the_limit", answering->limited) < 0 ||
        set_int(json, "prompt_tokens", answering->prompt_tokens) < 0)
        return -ENOMEM;
    return set_int(json, "tokens", answering->tokens);
}

struct ha_json *ha_answering_summary(const struct ha_answering *answering,
                                     const struct ha_answering_record *record)
{
    const struct ha_engine *engine = record->engine;
    struct ha_json *json = ha_json_new_object();

    if (!json || (answering->prompts && add_counts(json, answering) < 0) ||
        (answering->made && add_work(json, answering, record) < 0) ||
        set_real(json, "wall_seconds", record->wall_seconds) < 0 ||
        set_int(json, "cells_in_job", record->cells_in_job) < 0 ||
        set_int(json, "ranks", record->ranks) < 0 ||
        set_int(json, "weight_shards", ha_model_ranks(engine->model)) < 0 ||
        set_int(json, "weights_gathered_bytes", ha_model_gathered_bytes(engine->model)) < 0 ||
        set_int(json, "memory_planned", record->planned_bytes) < 0 ||
        set_int(json, "memory_peak", record->peak_bytes) < 0 ||
        ha_json_set(json, "batch_invariant", ha_json_new_bool(record->batch_invariant)) < 0 ||
        ha_json_set(json, "precision", ha_json_new_string(precision_of(answering, engine))) < 0 ||
        ha_json_set(json, "backend", ha_json_new_string(ha_backend_fingerprint(engine->backend))) <
            0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}
