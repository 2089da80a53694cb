/* loss_rules.h - how the loss settings of [train] go together
 *
 * What one row cannot say, as TRL 1.9 has it. */
#ifndef HA_COMMON_CONF_LOSS_RULES_H
#define HA_COMMON_CONF_LOSS_RULES_H

#include "common/conf/sweep.h"

/* 0, or -EINVAL: no loss or too many, another number of weights, exo_pair
 * without label_smoothing, robust with 0.5 or more of it, use_weighting with aot,
 * aot_unpaired or sft. */
int ha_loss_rules_check(const struct ha_sweep_train *train, struct ha_error *err);

/* One line about a setting that is given and does nothing, or NULL. */
const char *ha_loss_rules_warning(const struct ha_sweep_train *train);

#endif
