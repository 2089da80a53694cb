#include "worker/attempt/probing.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/memory_use.h"
#include "common/conf/blocks.h"
#include "common/conf/json.h"
#include "common/conf/loss_rules.h"
#include "worker/attempt/loss_settings.h"
#include "worker/attempt/memory_settings.h"
#include "worker/attempt/pair_files.h"
#include "worker/dpo/probe.h"

static const char *const blocks[] = {"local", "mid", "global", "full"};
enum { N_BLOCKS = 4 };

struct work {
    const struct ha_probing *probing;
    const struct ha_reporter *reporter;
    struct ha_engine engine;
    struct ha_pair_set *pairs;
    struct ha_dpo_probe_result *result;
    int64_t start_ms;
    int64_t peak_bytes; /* of this process's own memory, of samples */
};

static int load(struct work *work, struct ha_error *err)
{
    const struct ha_probing *probing = work->probing;
    struct ha_pair_files files = {.what = "training pairs",
                                  .paths = probing->train,
                                  .n_paths = probing->n_train,
                                  .samples = probing->settings->data.train_samples,
                                  .settings = probing->settings};
    int r = work->reporter->phase(work->reporter->context, "load", err);

    if (r == 0)
        r = ha_engine_open(&probing->engine, &work->engine, err);
    if (r < 0)
        return r;
    files.chat = ha_engine_chat(&work->engine);
    r = ha_pair_files_load(&files, work->engine.tokenizer, &work->pairs, err);
    /* The texts are not needed any more; what the heap keeps of them would be wasted. */
    ha_memory_sample(&work->peak_bytes);
    (void)malloc_trim(0);
    return r;
}

static int on_progress(void *user, int64_t done, int64_t total, int64_t tokens, int64_t elapsed_ns,
                       struct ha_error *err)
{
    struct work *work = user;
    double seconds = (double)elapsed_ns / 1e9;
    struct ha_reported_progress progress = {.step = done, .steps = total};

    ha_memory_sample(&work->peak_bytes);
    if (seconds > 0) {
        progress.tokens_per_second = (double)tokens / seconds;
        progress.pairs_per_second = (double)done / seconds;
    }
    return work->reporter->progress(work->reporter->context, &progress, err);
}

static int run(struct work *work, const volatile sig_atomic_t *stop, struct ha_error *err)
{
    const struct ha_sweep_train *train = &work->probing->settings->train;
    struct ha_dpo_probe_range ranges[N_BLOCKS];
    const char *precision = ha_engine_precision(&work->engine, train->precision);
    struct ha_dpo_probe_settings settings = {
        .pairs = work->probing->settings->probe.pairs,
        .share_prompt = true,
        .round_logits_bf16 = strcmp(precision, "bf16") == 0,
        .threads = work->probing->engine.threads,
        .memory_limit = ha_memory_limit_text(work->probing->settings, work->engine.backend),
        .ranges = ranges,
        .n_ranges = N_BLOCKS};
    int r = ha_loss_settings_read(train, &settings.loss, err);

    if (r == 0)
        r = ha_memory_limit(work->probing->settings, work->engine.backend, &settings.memory_bytes,
                            err);
    for (int i = 0; r == 0 && i < N_BLOCKS; i++) {
        int64_t end;

        (void)ha_blocks_range(blocks[i], ha_model_config(work->engine.model)->n_layers,
                              &ranges[i].first, &end);
        ranges[i].count = end - ranges[i].first;
    }
    if (r == 0 && ha_loss_rules_warning(train))
        ha_log_warning("%s", ha_loss_rules_warning(train));
    if (r == 0)
        r = work->reporter->phase(work->reporter->context, "probe", err);
    return r < 0 ? r
                 : ha_dpo_probe(work->engine.model, work->pairs, &settings, on_progress, work, stop,
                                &work->result, err);
}

static int report_norms(const struct work *work, struct ha_error *err)
{
    const struct ha_dpo_probe_result *result = work->result;
    int64_t n_layers = result->n_norms - N_BLOCKS;
    int r = 0;

    for (int64_t i = 0; i < result->n_norms; i++) {
        const struct ha_dpo_probe_norms *norms = &result->norms[i];

        if (norms->range.count == 0) /* a block of a model of fewer than three layers */
            continue;
        for (int module = 0; r == 0 && module < HA_DPO_PROBE_MODULES; module++) {
            struct ha_reported_norm norm = {.cell = work->probing->cell,
                                            .block = i < n_layers ? "" : blocks[i - n_layers],
                                            .layer = norms->range.first,
                                            .layers = norms->range.count,
                                            .module = ha_dpo_probe_module_name(module),
                                            .norm = norms->norm[module],
                                            .parameters = norms->parameters[module],
                                            .pairs = result->n_pairs};

            r = work->reporter->norm(work->reporter->context, &norm, err);
        }
    }
    return r;
}

static void log_cost(const struct ha_dpo_probe_result *result)
{
    char memory[HA_MEMORY_TEXT_BYTES];
    double seconds = (double)result->elapsed_ns / 1e9;

    ha_log_info("%lld pairs, %lld tokens in %.1f s, %.4g TFLOP, %.4g GFLOP/s, activations %s",
                (long long)result->n_pairs, (long long)result->n_tokens, seconds,
                result->flops / 1e12, seconds > 0 ? result->flops / seconds / 1e9 : 0,
                ha_memory_text(result->pass_bytes, memory));
}

static struct ha_json *summary_of(const struct work *work)
{
    const struct ha_dpo_probe_result *result = work->result;
    struct ha_json *json = ha_json_new_object();
    double seconds = (double)(ha_clock_boot_ms() - work->start_ms) / 1000;
    const char *precision = work->probing->settings->train.precision;

    if (ha_json_set(json, "pairs_probed", ha_json_new_int(result->n_pairs)) < 0 ||
        ha_json_set(json, "tokens", ha_json_new_int(result->n_tokens)) < 0 ||
        ha_json_set(json, "seconds", ha_json_new_real(seconds)) < 0 ||
        ha_json_set(json, "probe_seconds", ha_json_new_real((double)result->elapsed_ns / 1e9)) <
            0 ||
        ha_json_set(json, "flops", ha_json_new_real(result->flops)) < 0 ||
        ha_json_set(json, "activation_bytes", ha_json_new_int(result->pass_bytes)) < 0 ||
        ha_json_set(json, "memory_planned", ha_json_new_int(result->planned_bytes)) < 0 ||
        ha_json_set(json, "memory_peak", ha_json_new_int(work->peak_bytes)) < 0 ||
        ha_json_set(json, "recomputed_layers", ha_json_new_int(result->recomputed_layers)) < 0 ||
        ha_pair_files_summary(work->pairs, json) < 0 ||
        ha_json_set(json, "precision",
                    ha_json_new_string(ha_engine_precision(&work->engine, precision))) < 0 ||
        ha_json_set(json, "backend",
                    ha_json_new_string(ha_backend_fingerprint(work->engine.backend))) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

int ha_probing_run(const struct ha_probing *probing, const struct ha_reporter *reporter,
                   const volatile sig_atomic_t *stop, struct ha_error *err)
{
    struct work work = {.probing = probing, .reporter = reporter, .start_ms = ha_clock_boot_ms()};
    int r = load(&work, err);

    if (r == 0)
        r = run(&work, stop, err);
    if (r == 0) {
        log_cost(work.result);
        r = report_norms(&work, err);
    }
    if (r == 0)
        r = reporter->cell(reporter->context, probing->cell, true, "", false, summary_of(&work),
                           err);
    ha_dpo_probe_result_destroy(work.result);
    ha_pair_set_destroy(work.pairs);
    ha_engine_close(&work.engine);
    return r;
}
