/* plan_view.h - the plan of a model's strategies, on paper: computed, as text, as JSON */
#ifndef HA_WORKER_ATTEMPT_PLAN_VIEW_H
#define HA_WORKER_ATTEMPT_PLAN_VIEW_H

#include "common/conf/run_settings.h"
#include "worker/dpo/flops.h"
#include "worker/dpo/plan.h"

struct ha_error;
struct ha_json;

enum { HA_PLAN_STRATEGIES = 4, HA_PLAN_COLUMNS = HA_PLAN_STRATEGIES + 1 };

/* One built-in strategy, or the lock-step of them all. */
struct ha_plan_column {
    const char *name;
    char *layers;
    struct ha_dpo_plan plan;
    struct ha_dpo_flops flops; /* lock-step: sums over cells from their borders up; one reference */
    /* Lock-step: the sum over the strategies, and from HA_DPO_REFERENCE_ONCE on the reference. */
    double work[HA_DPO_SAVINGS];
};

/* Answers: what one takes and how many fit beside each other. */
struct ha_plan_generation {
    int64_t kv_token_bytes;  /* of the KV cache, a token */
    int64_t sequence_tokens; /* of an answer of mean prompt and generate.max_new_tokens */
    int64_t sequences;       /* at once */
    int64_t total_bytes;     /* with so many */
};

/* One device. */
struct ha_plan_view {
    const struct ha_model_config *config;
    struct ha_dpo_device device;
    int64_t max_length, tokens_per_microbatch;
    struct ha_dpo_lengths lengths; /* of the pair that FLOPs are for */
    struct ha_plan_column columns[HA_PLAN_COLUMNS];
    struct ha_plan_generation generation;
};

/* stored_bytes: of the weights as files; 0: not known.  The config must outlive the view. */
int ha_plan_view_make(const struct ha_model_config *config, const struct ha_run_settings *settings,
                      const struct ha_dpo_device *device, int64_t stored_bytes,
                      struct ha_plan_view *ret_view, struct ha_error *err);
void ha_plan_view_clear(struct ha_plan_view *view);

void ha_plan_view_print(const struct ha_plan_view *view);

/* {"strategies": {NAME: {...}}, "lockstep": {...}, "generation": {...}, ...}; NULL
 * when memory is short. */
struct ha_json *ha_plan_view_json(const struct ha_plan_view *view);

#endif
