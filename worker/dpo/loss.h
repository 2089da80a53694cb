/* loss.h - the DPO losses, as pure functions over summed log-probabilities
 *
 * A loss is evaluated over one logical micro-batch (TRL's unit for means and
 * sorts) and gives each pair's loss and its derivatives by the two policy
 * sums.  Formulas as TRL 1.9 has them (numerics, section 1.6):
 *
 *     delta = (chosen - ref_chosen) - (rejected - ref_rejected)
 *     sigmoid: -log sigmoid(beta * delta)
 *
 * All arithmetic is double. */
#ifndef HA_WORKER_DPO_LOSS_H
#define HA_WORKER_DPO_LOSS_H

#include <stdint.h>

struct ha_error;

enum ha_dpo_loss_kind { HA_DPO_SIGMOID };

struct ha_dpo_loss_settings {
    enum ha_dpo_loss_kind kind;
    double beta; /* > 0 */
};

/* Log-probability sums of one pair's answers, and their scored tokens. */
struct ha_dpo_pair_logps {
    double chosen, rejected;
    double ref_chosen, ref_rejected;
    int64_t n_chosen, n_rejected;
};

struct ha_dpo_pair_loss {
    double loss;
    double dchosen, drejected; /* d loss / d chosen, d loss / d rejected */
};

/* "sigmoid" -> kind.  Returns 0, or -EINVAL with the names that are built. */
int ha_dpo_loss_parse(const char *name, enum ha_dpo_loss_kind *ret_kind, struct ha_error *err);
const char *ha_dpo_loss_name(enum ha_dpo_loss_kind kind);

/* losses[i] (= ) of the n pairs of one logical micro-batch. */
void ha_dpo_loss(const struct ha_dpo_loss_settings *settings, const struct ha_dpo_pair_logps *pairs,
                 int64_t n, struct ha_dpo_pair_loss *losses);

#endif
