#include "worker/attempt/memory_settings.h"

#include <string.h>

#include "common/base/memory_use.h"
#include "kernels/backend.h"
#include "worker/dpo/plan.h"

enum { RESERVED_PART = 10, DRIVER_PART = 20 };

/* "auto". */
static int64_t own_limit(const struct ha_backend *backend)
{
    int64_t total = ha_backend_memory_bytes(backend), limit = 0;

    if (total == 0) {
        total = ha_memory_total();
        return total - total / RESERVED_PART;
    }
    /* A limit is meant for what we allocate; its text was read when the backend was opened. */
    (void)ha_backend_gpu_limit(&limit, NULL);
    return limit == total ? total : total - total / DRIVER_PART;
}

int ha_memory_limit(const struct ha_run_settings *settings, const struct ha_backend *backend,
                    int64_t *ret_bytes, struct ha_error *err)
{
    const char *limit = settings->train.memory_limit;
    int64_t most = ha_backend_memory_bytes(backend);
    int r;

    if (strcmp(limit, "auto") == 0) {
        *ret_bytes = own_limit(backend);
        return 0;
    }
    r = ha_memory_parse("train.memory_limit", limit, ret_bytes, err);
    if (r == 0 && most > 0 && most < *ret_bytes)
        *ret_bytes = most;
    return r;
}

const char *ha_memory_limit_text(const struct ha_run_settings *settings,
                                 const struct ha_backend *backend)
{
    if (strcmp(settings->train.memory_limit, "auto") != 0)
        return "train.memory_limit";
    return ha_backend_memory_bytes(backend) > 0
               ? "train.memory_limit = auto, HA_GPU_MEMORY_LIMIT or 95 % of the GPU's memory"
               : "train.memory_limit = auto, 90 % of this machine's memory";
}

enum ha_dpo_sharding ha_weight_sharding(const struct ha_run_settings *settings)
{
    const char *text = settings->train.shard_weights;

    return strcmp(text, "never") == 0    ? HA_DPO_SHARD_NEVER
           : strcmp(text, "always") == 0 ? HA_DPO_SHARD_ALWAYS
                                         : HA_DPO_SHARD_AUTO;
}

enum ha_dpo_sharding ha_weight_sharding_join(enum ha_dpo_sharding before,
                                             const struct ha_run_settings *settings)
{
    enum ha_dpo_sharding said = ha_weight_sharding(settings);

    return before == HA_DPO_SHARD_NEVER || said == HA_DPO_SHARD_AUTO ? before : said;
}

int ha_token_budget(const struct ha_model_config *config, const struct ha_run_settings *settings,
                    bool gpu, int64_t *ret_tokens, struct ha_error *err)
{
    const struct ha_sweep_train *train = &settings->train;
    struct ha_dpo_device device = {.gpu = gpu};
    int r = 0;

    if (train->tokens_per_microbatch > 0) {
        *ret_tokens = train->tokens_per_microbatch;
        return 0;
    }
    if (train->plan_memory)
        r = ha_memory_parse("train.plan_memory", train->plan_memory, &device.memory_bytes, err);
    return r < 0 ? r : ha_dpo_plan_tokens(config, &device, train->max_length, ret_tokens, err);
}
