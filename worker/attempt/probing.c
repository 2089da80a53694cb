#include "worker/attempt/probing.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/memory_use.h"
#include "common/conf/blocks.h"
#include "common/conf/json.h"
#include "common/conf/loss_rules.h"
#include "kernels/collective.h"
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
    struct ha_dpo_probe_settings settings;
    struct ha_dpo_probe_range ranges[N_BLOCKS];
    struct ha_comm *comm; /* of a gang */
    struct ha_dpo_probe_result *result;
    int64_t start_ms;
    int64_t peak_bytes; /* of this process's own memory, of samples */
};

static int load(struct work *work, struct ha_error *err)
{
    const struct ha_probing *probing = work->probing;
    struct ha_engine_options options = probing->engine;
    struct ha_pair_files files = {.what = "training pairs",
                                  .paths = probing->train,
                                  .n_paths = probing->n_train,
                                  .samples = probing->settings->data.train_samples,
                                  .settings = probing->settings};
    int r = work->reporter->phase(work->reporter->context, "load", err);

    /* The ranks of a gang read weights when the memory is planned. */
    options.weights_later = probing->gang != NULL;
    if (r == 0)
        r = ha_engine_open(&options, &work->engine, err);
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

static int read_settings(struct work *work, struct ha_error *err)
{
    const struct ha_run_settings *settings = work->probing->settings;
    const struct ha_gang *gang = work->probing->gang;
    const char *precision = ha_engine_precision(&work->engine, settings->train.precision);
    struct ha_dpo_probe_settings *probe = &work->settings;
    int r;

    *probe = (struct ha_dpo_probe_settings){
        .pairs = settings->probe.pairs,
        .share_prompt = true,
        .round_logits_bf16 = strcmp(precision, "bf16") == 0,
        .threads = work->probing->engine.threads,
        .memory_limit = ha_memory_limit_text(settings, work->engine.backend),
        .ranges = work->ranges,
        .n_ranges = N_BLOCKS,
        .sharding = ha_weight_sharding(settings)};
    if (gang) {
        probe->ranks = gang->ranks;
        probe->comm_bytes =
            ha_comm_device_bytes(ha_gang_collective(gang, work->engine.backend), gang->ranks);
    }
    r = ha_loss_settings_read(&settings->train, &probe->loss, err);
    if (r == 0)
        r = ha_memory_limit(settings, work->engine.backend, &probe->memory_bytes, err);
    for (int i = 0; r == 0 && i < N_BLOCKS; i++) {
        int64_t end;

        (void)ha_blocks_range(blocks[i], ha_model_config(work->engine.model)->n_layers,
                              &work->ranges[i].first, &end);
        work->ranges[i].count = end - work->ranges[i].first;
    }
    if (r == 0 && ha_loss_rules_warning(&settings->train))
        ha_log_warning("%s", ha_loss_rules_warning(&settings->train));
    return r;
}

/* Everything that the ranks must have in common. */
static void hash_job(const struct work *work, char hex[HA_SHA256_HEX_BYTES])
{
    const struct ha_pair_set *pairs = work->pairs;
    const struct ha_sweep_train *train = &work->probing->settings->train;
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    ha_sha256_update(&hash, &work->settings.pairs, sizeof(work->settings.pairs));
    for (int64_t i = 0; i < train->loss.count; i++)
        ha_sha256_update(&hash, train->loss.items[i], strlen(train->loss.items[i]) + 1);
    ha_sha256_update(&hash, &train->beta, sizeof(train->beta));
    ha_sha256_update(&hash, pairs->offset, (size_t)(3 * pairs->n_pairs + 1) * sizeof(int64_t));
    ha_sha256_update(&hash, pairs->ids,
                     (size_t)pairs->offset[3 * pairs->n_pairs] * sizeof(int32_t));
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
}

/* Of a gang: load weights as the plan says, and come together. */
static int gather(struct work *work, const volatile sig_atomic_t *stop, struct ha_error *err)
{
    const struct ha_gang *gang = work->probing->gang;
    struct ha_dpo_plan plan = {.shards = 1};
    char job[HA_SHA256_HEX_BYTES];
    struct ha_gang_same same = {.engine = &work->engine, .job = job};
    struct ha_model_shard shard;
    int r;

    if (!gang)
        return 0;
    r = ha_dpo_probe_foresee(work->engine.model, work->pairs, &work->settings, &plan, err);
    if (r < 0)
        return r;
    shard = (struct ha_model_shard){gang->rank, plan.shards};
    if (plan.shards > 1)
        ha_log_info("the weights of each layer are shared by %d ranks", plan.shards);
    r = ha_engine_load(&work->probing->engine, &work->engine, plan.shards > 1 ? &shard : NULL, err);
    if (r < 0)
        return r;
    hash_job(work, job);
    r = ha_gang_join(gang, work->engine.backend, ha_gang_join_same, &same, stop, &work->comm, err);
    work->settings.comm = work->comm;
    return r;
}

static int run(struct work *work, const volatile sig_atomic_t *stop, struct ha_error *err)
{
    int r = read_settings(work, err);

    if (r == 0)
        r = gather(work, stop, err);
    if (r == 0)
        r = work->reporter->phase(work->reporter->context, "probe", err);
    if (r == 0)
        r = ha_dpo_probe(work->engine.model, work->pairs, &work->settings, on_progress, work, stop,
                         &work->result, err);
    if (r < 0 && r != -EINTR && work->comm)
        ha_gang_fail(work->probing->gang, work->comm, err);
    return r;
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
        ha_json_set(json, "ranks",
                    ha_json_new_int(work->probing->gang ? work->probing->gang->ranks : 1)) < 0 ||
        ha_json_set(json, "weight_shards", ha_json_new_int(ha_model_ranks(work->engine.model))) <
            0 ||
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
    bool keeps = !probing->gang || probing->gang->rank == 0;
    int r = load(&work, err);

    if (r == 0)
        r = run(&work, stop, err);
    if (r == 0)
        log_cost(work.result);
    if (r == 0 && keeps)
        r = report_norms(&work, err);
    if (r == 0 && keeps)
        r = reporter->cell(reporter->context, probing->cell, true, "", false, summary_of(&work),
                           err);
    ha_comm_destroy(work.comm);
    ha_dpo_probe_result_destroy(work.result);
    ha_pair_set_destroy(work.pairs);
    ha_engine_close(&work.engine);
    return r;
}
