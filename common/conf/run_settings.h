/* run_settings.h - the settings of one cell's stages
 *
 * What an attempt needs to probe, train and generate: the resolved [data],
 * [train], [probe] and [generate] of one cell.  As JSON it is {"data": {...},
 * "train": {...}, "probe": {...}, "generate": {...}}: the form in which a job
 * carries it, and the one that ha_grid_cell_json writes. */
#ifndef HA_COMMON_CONF_RUN_SETTINGS_H
#define HA_COMMON_CONF_RUN_SETTINGS_H

#include "common/conf/sweep.h"

struct ha_run_settings {
    struct ha_sweep_data data;
    struct ha_sweep_train train;
    struct ha_sweep_probe probe;
    struct ha_sweep_generate generate;
};

/* Defaults, then overrides[count] ("train.learning_rate=1e-3"; "sweep.seed=7"
 * sets every seed that is not given itself).  data.train and data.eval stay
 * empty unless given. */
int ha_run_settings_create(const char *const *overrides, int64_t count,
                           struct ha_run_settings **ret_settings, struct ha_error *err);

/* From JSON; keys that are missing have their defaults.  where begins errors. */
int ha_run_settings_from_json(const struct ha_json *object, const char *where,
                              struct ha_run_settings **ret_settings, struct ha_error *err);

/* Replace what the object names: members of its sections. */
int ha_run_settings_merge(struct ha_run_settings *settings, const struct ha_json *object,
                          const char *where, struct ha_error *err);

/* NULL when memory is short. */
struct ha_json *ha_run_settings_json(const struct ha_run_settings *settings);

void ha_run_settings_destroy(struct ha_run_settings *settings);

#endif
