/* plan.h - what a training job needs, by arithmetic, before anything runs */
#ifndef HA_WORKER_DPO_PLAN_H
#define HA_WORKER_DPO_PLAN_H

#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/config.h"

struct ha_error;

struct ha_dpo_plan_request {
    const struct ha_model_config *config;
    const struct ha_adapter_settings *adapter;
    enum ha_dtype activation; /* of the backend that will run it */
    int64_t weight_bytes;     /* as stored; 0: 2 bytes a parameter */
    bool weights_mapped;      /* the backend reads the mapped file (CPU): no copy is counted */
    /* Of a pack: tokens and rows at most, and mean lengths of a pair for the FLOPs. */
    int64_t max_tokens, max_rows;
    double prompt_tokens, chosen_tokens, rejected_tokens;
    bool share_prompt;
};

struct ha_dpo_plan {
    int64_t n_params;    /* of the model */
    int64_t n_trainable; /* LoRA values */
    int64_t lowest_layer;
    int64_t weight_bytes;
    int64_t adapter_bytes; /* masters, gradient, two moments */
    int64_t pass_bytes;    /* activations and scratch */
    int64_t total_bytes;
    double forward_flops;   /* per pair, head included */
    double backward_flops;  /* per pair */
    double reference_flops; /* per pair, once per job */
};

int ha_dpo_plan_make(const struct ha_dpo_plan_request *request, struct ha_dpo_plan *ret_plan,
                     struct ha_error *err);

#endif
