/* count.h - what work costs, and what the plain method would have cost */
#ifndef HA_WORKER_DPO_COUNT_H
#define HA_WORKER_DPO_COUNT_H

#include <stdint.h>

#include "kernels/backend.h"
#include "worker/dpo/flops.h"
#include "worker/dpo/packs.h"
#include "worker/dpo/trainer.h"

struct ha_error;

struct ha_dpo_meter {
    int64_t start_ns;
    double flops, bytes;
};

struct ha_dpo_meter ha_dpo_meter_start(const struct ha_backend *backend);

/* Waits for the stream, so that the time is the work's own; *ret_work is what was
 * done since the start. */
int ha_dpo_meter_stop(struct ha_backend *backend, const struct ha_dpo_meter *meter,
                      struct ha_dpo_work *ret_work, struct ha_error *err);

/* *to += what / parts. */
void ha_dpo_work_add(struct ha_dpo_work *to, const struct ha_dpo_work *what, int64_t parts);

/* TRL's: per padded token 8 P + 6 h, for P weights of the layers' products and h of the head
 * (policy and reference forward, recomputation, gradient through all layers). */
double ha_dpo_plain_flops(const struct ha_model_config *config, const struct ha_dpo_packs *packs,
                          const struct ha_window *window);

/* Tokens of a window as TRL computes them: the 2 n sequences of a logical micro-batch of n pairs,
 * padded to the longest of them. */
int64_t ha_dpo_padded_tokens(const struct ha_dpo_packs *packs, const struct ha_window *window);

/* The mean pair of a set in the order of its first epoch, for flops.h; the batch is a logical
 * micro-batch's and an optimizer step's, as in a job.  -EINVAL for no pairs, -ENOMEM. */
int ha_dpo_mean_lengths(const struct ha_pair_set *pairs, int64_t batch_size, int64_t accumulation,
                        uint64_t order_seed, struct ha_dpo_lengths *ret_lengths,
                        struct ha_error *err);

/* As TRL counts: both sequences of each pair, the prompt twice. */
int64_t ha_dpo_window_tokens(const struct ha_dpo_packs *packs, const struct ha_window *window);

#endif
