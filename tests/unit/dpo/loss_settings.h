/* loss_settings.h - settings of losses.json, for the tests of dpo */
#ifndef HA_TESTS_UNIT_DPO_LOSS_SETTINGS_H
#define HA_TESTS_UNIT_DPO_LOSS_SETTINGS_H

#include "common/conf/json.h"
#include "worker/dpo/loss.h"

/* A "settings" object under TRL's names.  The test fails where it is not understood. */
void read_loss_settings(const struct ha_json *json, double beta,
                        struct ha_dpo_loss_settings *settings);

/* "robust sft alpha_divergence ..." for messages; static memory. */
const char *describe_loss(const struct ha_json *json);

#endif
