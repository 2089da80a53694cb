/* plan_view.h - the plan of a model's strategies, on paper: computed, as text, as JSON */
#ifndef HA_WORKER_ATTEMPT_PLAN_VIEW_H
#define HA_WORKER_ATTEMPT_PLAN_VIEW_H

#include "common/conf/run_settings.h"
#include "worker/dpo/flops.h"
#include "worker/dpo/plan.h"

struct ha_error;
struct ha_json;

enum { HA_PLAN_STRATEGIES_MAX = 64 };

/* What to plan for. */
struct ha_plan_strategy {
    const char *name;
    const char *layers; /* as in a grid: "18-27", "auto:8"; NULL: the built-in of that name */
};

/* One strategy, or the lock-step of them all. */
struct ha_plan_column {
    const char *name; /* borrowed */
    char *layers;     /* text; NULL: lock-step */
    struct ha_dpo_plan plan;
    struct ha_dpo_flops flops; /* lock-step: sums over cells from their borders up; one reference */
    /* Lock-step: the sum over the strategies, and from HA_DPO_REFERENCE_ONCE on the reference. */
    double work[HA_DPO_SAVINGS];
};

/* Answers: what one takes and how many fit beside each other. */
struct ha_plan_generation {
    int64_t kv_token_bytes;  /* of the KV cache, a token */
    int64_t sequence_tokens; /* of an answer of mean prompt and generate.max_new_tokens */
    int64_t sequences;       /* at once, of each rank */
    int64_t total_bytes;     /* with so many */
    int shards;              /* ranks that share the weights; 1: they are whole */
    bool fits;
};

/* One device, or each of several. */
struct ha_plan_view {
    const struct ha_model_config *config;
    struct ha_dpo_device device;
    int ranks; /* of the gang; 1: no gang */
    int64_t max_length, tokens_per_microbatch;
    struct ha_dpo_lengths lengths;  /* of the pair that FLOPs are for */
    bool of_hh;                     /* the mean pair of hh-rlhf */
    struct ha_plan_column *columns; /* (n_strategies + 1), the last is the lock-step */
    int64_t n_strategies;
    struct ha_plan_generation generation;
};

struct ha_plan_view_request {
    const struct ha_model_config *config; /* outlives the view, and so do the strategies' names */
    const struct ha_run_settings *settings;
    struct ha_dpo_device device;
    int ranks;                                 /* that train together; 0: one */
    int64_t stored_bytes;                      /* of the weights as files; 0: not known */
    const struct ha_dpo_lengths *lengths;      /* of the pair to count; NULL: the mean of hh-rlhf */
    const struct ha_plan_strategy *strategies; /* NULL: local, mid, global, full */
    int64_t n_strategies;                      /* at most HA_PLAN_STRATEGIES_MAX */
};

/* Layers that a probe will choose ("auto:K") are planned as the lowest K, which take
 * the most. */
int ha_plan_view_make(const struct ha_plan_view_request *request, struct ha_plan_view *ret_view,
                      struct ha_error *err);
void ha_plan_view_clear(struct ha_plan_view *view);

void ha_plan_view_print(const struct ha_plan_view *view);

/* {"strategies": {NAME: {...}}, "lockstep": {...}, "generation": {...}, ...}; NULL
 * when memory is short. */
struct ha_json *ha_plan_view_json(const struct ha_plan_view *view);

#endif
