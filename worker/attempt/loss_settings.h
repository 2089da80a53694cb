/* loss_settings.h - the loss that a cell's [train] asks for */
#ifndef HA_WORKER_ATTEMPT_LOSS_SETTINGS_H
#define HA_WORKER_ATTEMPT_LOSS_SETTINGS_H

#include "common/conf/sweep.h"
#include "worker/dpo/loss.h"

struct ha_error;

/* Sets all but what `train` does not speak of, which keeps ha_dpo_loss_defaults' values.
 * -EINVAL for what TRL refuses or does not know. */
int ha_loss_settings_read(const struct ha_sweep_train *train,
                          struct ha_dpo_loss_settings *ret_settings, struct ha_error *err);

#endif
