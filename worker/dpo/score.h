/* score.h - log-probabilities of both answers of each pair */
#ifndef HA_WORKER_DPO_SCORE_H
#define HA_WORKER_DPO_SCORE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/data/pairs.h"
#include "worker/model/model.h"

struct ha_error;

/* Per-token log-probs of one pair; a negative return ends the scoring. */
typedef int (*ha_dpo_score_result)(void *user, int64_t pair, const float *chosen, int64_t n_chosen,
                                   const float *rejected, int64_t n_rejected, struct ha_error *err);

/* Score the pairs in order, in packs of at most tokens_per_microbatch tokens.
 * adapter may be NULL. */
int ha_dpo_score(struct ha_model *model, const struct ha_adapter *adapter,
                 const struct ha_pair_set *pairs, int64_t tokens_per_microbatch, bool share_prompt,
                 ha_dpo_score_result result, void *user, struct ha_error *err);

#endif
