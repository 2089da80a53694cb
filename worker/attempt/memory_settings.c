#include "worker/attempt/memory_settings.h"

#include <string.h>

#include "common/base/memory_use.h"
#include "worker/dpo/plan.h"

enum { RESERVED_TENTH = 10 };

int ha_memory_limit(const struct ha_run_settings *settings, bool gpu, int64_t *ret_bytes,
                    struct ha_error *err)
{
    const char *limit = settings->train.memory_limit;
    int64_t total;

    if (strcmp(limit, "auto") != 0)
        return ha_memory_parse("train.memory_limit", limit, ret_bytes, err);
    total = gpu ? 0 : ha_memory_total();
    *ret_bytes = total - total / RESERVED_TENTH;
    return 0;
}

const char *ha_memory_limit_text(const struct ha_run_settings *settings)
{
    return strcmp(settings->train.memory_limit, "auto") == 0
               ? "train.memory_limit = auto, 90 % of this machine's memory"
               : "train.memory_limit";
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
