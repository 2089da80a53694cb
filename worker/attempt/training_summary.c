#include "worker/attempt/training_summary.h"

#include "worker/attempt/pair_files.h"

static double ratio(double value, double by)
{
    return by > 0 ? value / by : 0;
}

static int put_counts(const struct ha_training_record *record, const struct ha_dpo_stats *stats,
                      struct ha_json *json)
{
    const struct ha_dpo_plan *plan = ha_dpo_trainer_plan(record->trainer);
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"trainable_parameters", record->n_params},
        {"steps", stats->steps},
        {"cells_in_job", record->n_cells},
        {"ranks", record->ranks},
        {"pairs_trained", stats->pairs},
        {"tokens", stats->tokens},
        {"memory_planned", plan->total_bytes},
        {"memory_peak", record->peak_bytes},
        {"layers_run_again", plan->recomputed_layers},
        {"weight_shards", plan->shards},
        {"weights_gathered_bytes", ha_model_gathered_bytes(record->engine->model)},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(counts) / sizeof(counts[0]); i++)
        r = ha_json_set(json, counts[i].name, ha_json_new_int(counts[i].value));
    return r;
}

static int put_costs(const struct ha_training_record *record, const struct ha_dpo_stats *stats,
                     struct ha_json *json)
{
    double seconds = stats->own.seconds + stats->shared.seconds;
    double flops = stats->own.flops + stats->shared.flops;
    const struct {
        const char *name;
        double value;
    } costs[] = {
        {"seconds", seconds},
        {"train_seconds_own", stats->own.seconds},
        {"train_seconds_shared", stats->shared.seconds},
        {"load_seconds", record->load_seconds},
        {"wall_seconds", record->wall_seconds},
        {"flops", flops},
        {"flops_plain", stats->plain_flops},
        {"saved", stats->plain_flops > 0 ? 1 - flops / stats->plain_flops : 0},
        {"bytes_moved", stats->own.bytes + stats->shared.bytes},
        {"pairs_per_second", ratio((double)stats->pairs, seconds)},
        {"tokens_per_second", ratio((double)stats->tokens, seconds)},
        {"flops_per_second", ratio(flops, seconds)},
        {"utilisation", ha_engine_utilisation(record->engine, ratio(flops, seconds))},
        {"peak_flops_per_second", record->engine->peak_flops_per_second},
    };
    int r = 0;

    if (record->taken->taken && !record->taken->same_plan)
        r = ha_json_set(json, "reference_offset", ha_json_new_real(record->taken->offset));
    if (r == 0 && stats->seconds_alone > 0)
        r = ha_json_set(json, "seconds_alone_per_step", ha_json_new_real(stats->seconds_alone));
    for (size_t i = 0; r == 0 && i < sizeof(costs) / sizeof(costs[0]); i++)
        r = ha_json_set(json, costs[i].name, ha_json_new_real(costs[i].value));
    return r;
}

static int put_texts(const struct ha_training_record *record, struct ha_json *json)
{
    const struct {
        const char *name, *value;
    } texts[] = {
        {"precision", record->precision},
        {"backend", record->backend},
        {"plan", ha_dpo_trainer_plan_hash(record->trainer)},
        {"reference", ha_dpo_trainer_key(record->trainer)->hex},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
        r = ha_json_set(json, texts[i].name, ha_json_new_string(texts[i].value));
    return r;
}

struct ha_json *ha_training_summary(const struct ha_training_record *record)
{
    struct ha_json *json = ha_json_new_object(), *value;
    struct ha_dpo_stats stats;
    const char *key;
    void *at = NULL;
    int r;

    ha_dpo_trainer_stats(record->trainer, record->cell, &stats);
    r = json ? put_counts(record, &stats, json) : -1;
    if (r == 0)
        r = put_costs(record, &stats, json);
    if (r == 0)
        r = put_texts(record, json);
    if (r == 0)
        r = ha_pair_files_summary(record->pairs, json);
    while (r == 0 && ha_json_next(record->last_eval, &at, &key, &value))
        r = ha_json_set(json, key, ha_json_new_real(ha_json_real(value, 0)));
    if (r == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}
