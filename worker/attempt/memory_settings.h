/* memory_settings.h - what the settings say about memory, as bytes and tokens */
#ifndef HA_WORKER_ATTEMPT_MEMORY_SETTINGS_H
#define HA_WORKER_ATTEMPT_MEMORY_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf/run_settings.h"
#include "worker/dpo/plan.h"
#include "worker/model/config.h"

struct ha_backend;
struct ha_error;

/* train.memory_limit, of the memory that the backend computes in; "auto" is 90 % of what this
 * process may use of the machine, or on a GPU HA_GPU_MEMORY_LIMIT or else 95 % of its memory (the
 * driver has the rest); never what is free.  No more than HA_GPU_MEMORY_LIMIT in any case. */
int ha_memory_limit(const struct ha_run_settings *settings, const struct ha_backend *backend,
                    int64_t *ret_bytes, struct ha_error *err);

/* Where that limit comes from, for people; static. */
const char *ha_memory_limit_text(const struct ha_run_settings *settings,
                                 const struct ha_backend *backend);

/* train.shard_weights. */
enum ha_dpo_sharding ha_weight_sharding(const struct ha_run_settings *settings);
/* Of several cells, which may differ in what changes no result: one that says never is heard
 * first. */
enum ha_dpo_sharding ha_weight_sharding_join(enum ha_dpo_sharding before,
                                             const struct ha_run_settings *settings);

/* train.tokens_per_microbatch, picked where it is 0 for train.plan_memory: by
 * settings, model and kind of device alone. */
int ha_token_budget(const struct ha_model_config *config, const struct ha_run_settings *settings,
                    bool gpu, int64_t *ret_tokens, struct ha_error *err);

#endif
