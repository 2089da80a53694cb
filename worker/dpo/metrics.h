/* metrics.h - TRL's metrics from pairs, for this folder only
 *
 * A metric is the plain mean over logical micro-batches of a value of each
 * micro-batch; inside one, losses, rewards and log-probs are means over pairs,
 * logits, entropy and accuracy are weighted by tokens (numerics, section 1.7). */
#ifndef HA_WORKER_DPO_METRICS_H
#define HA_WORKER_DPO_METRICS_H

#include <stdint.h>

#include "worker/dpo/loss.h"
#include "worker/dpo/trainer.h"
#include "worker/model/model.h"

/* What one pair gives. */
struct ha_dpo_pair_result {
    struct ha_dpo_pair_logps logps;
    double chosen_tail, rejected_tail; /* sums behind the shorter side's length */
    struct ha_dpo_pair_loss loss;
    double chosen_logits, rejected_logits; /* sums over rows of the mean logit */
    double entropy;                        /* sum over the rows of both sides */
    int64_t hits;                          /* chosen rows whose arg max is the target */
};

/* What the rows of a pack's pair give: chosen and rejected of logps are the plain
 * sums, its tokens the rows, its reference and the loss are 0. */
void ha_dpo_pair_result(const struct ha_pass_rows *rows, const struct ha_pack *pack, int64_t pair,
                        struct ha_dpo_pair_result *ret_result);

enum { HA_DPO_MAX_METRICS = 20 };

/* Sums over micro-batches. */
struct ha_dpo_metrics {
    int64_t n_micro, n_pairs;
    double loss, pair_loss; /* sum of the micro-batches' means; sum over pairs */
    double chosen_reward, rejected_reward, margin, accuracy;
    double chosen_logp, rejected_logp;
    double chosen_logits, rejected_logits;
    double entropy, token_accuracy;
};

/* Add one micro-batch of n pairs. */
void ha_dpo_metrics_add(struct ha_dpo_metrics *metrics, const struct ha_dpo_pair_result *pairs,
                        int64_t n, double beta);

/* The means under TRL's names, with "eval_" in front for an evaluation; returns
 * how many were written.  As in Transformers' evaluation loop, eval_loss is the
 * mean over pairs. */
int64_t ha_dpo_metrics_list(const struct ha_dpo_metrics *metrics, bool evaluation,
                            struct ha_dpo_metric list[HA_DPO_MAX_METRICS]);

#endif
