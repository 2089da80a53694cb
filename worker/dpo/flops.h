/* flops.h - floating-point operations of a pair, by arithmetic
 *
 * Two per multiply-add of products and attention, as ha_backend_flops counts
 * them: for a pair of its own pack both agree to the last operation, with
 * dropout too, which is no product.  Lengths may be means. */
#ifndef HA_WORKER_DPO_FLOPS_H
#define HA_WORKER_DPO_FLOPS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/config.h"

/* Tokens of a pair.  padded: what TRL computes for it, both rows filled up to
 * the longest of their batch. */
struct ha_dpo_lengths {
    double prompt, chosen, rejected, padded;
};

/* Mean lengths of a random pair of hh-rlhf, all four subsets (performance
 * reference, 2.1): with Llama-2's vocabulary, or one of 128 thousand ids. */
struct ha_dpo_lengths ha_dpo_hh_lengths(const struct ha_model_config *config);

struct ha_dpo_flops {
    double reference; /* base model, forward with the head: once for all cells */
    double below;     /* of it: the layers below the lowest trained one */
    double forward;   /* of the cell, all layers and the head */
    double backward;
    double recompute; /* of layers that are run again */
};

/* How LoRA is computed: in columns of the weights of q, k, v and of o (worker/model/weights.h), 0:
 * by products of its own, as the plain method has it; and whether its inputs are dropped, so that
 * each module's A has one of its own. */
struct ha_dpo_lora_way {
    int64_t columns;
    bool dropout;
};

/* shared: the prompt is computed once.  Layers below `kept_from` are run again in
 * the backward pass (ha_pass_limits.recomputed_layers; 0: none). */
void ha_dpo_flops_of_pair(const struct ha_model_config *config,
                          const struct ha_adapter_settings *adapter,
                          const struct ha_dpo_lengths *lengths, bool shared, int64_t kept_from,
                          struct ha_dpo_lora_way way, struct ha_dpo_flops *ret_flops);

/* TRL with gradient checkpointing, whatever the strategy: forward of policy and
 * reference, forward again and gradients through all layers, for every padded
 * token, the head three times over all of them. */
double ha_dpo_flops_of_trl(const struct ha_model_config *config,
                           const struct ha_adapter_settings *adapter,
                           const struct ha_dpo_lengths *lengths);

/* What is not done, one thing after the other; each is with all before it. */
enum ha_dpo_saving {
    HA_DPO_NOTHING_SAVED,  /* ha_dpo_flops_of_trl */
    HA_DPO_PACKED,         /* no padding, and no last token of an answer: it predicts nothing */
    HA_DPO_SHARED_PROMPT,  /* once for both answers */
    HA_DPO_SCORED_ROWS,    /* the head for tokens of answers only */
    HA_DPO_REFERENCE_ONCE, /* for all cells of a model, kept as a file: not in a cell's work */
    HA_DPO_ACTIVATIONS,    /* kept: only the layers that memory asks for are run again */
    HA_DPO_BACKWARD_ENDS,  /* at the lowest trained layer: the cell in a job of its own */
    HA_DPO_LOCKSTEP,       /* the layers below it are of the pass that cells share */
    HA_DPO_SAVINGS
};

/* "packed", ... as in JSON; for people. */
const char *ha_dpo_saving_name(enum ha_dpo_saving saving);
const char *ha_dpo_saving_text(enum ha_dpo_saving saving);

/* Layers that are run again, as kept_from above: of the cell's own job, and of the job in
 * lock-step. */
struct ha_dpo_kept {
    int64_t alone, lockstep;
};

/* The work on a pair that is left after each.  From HA_DPO_REFERENCE_ONCE on the reference is
 * that of ha_dpo_flops_of_pair, once beside all cells; from HA_DPO_PACKED on LoRA is computed in
 * `way`, which saves bytes and no operations. */
void ha_dpo_flops_by_saving(const struct ha_model_config *config,
                            const struct ha_adapter_settings *adapter,
                            const struct ha_dpo_lengths *lengths, const struct ha_dpo_kept *kept,
                            struct ha_dpo_lora_way way, double ret_flops[HA_DPO_SAVINGS]);

#endif
