/* sweep_private.h - between the files that read a sweep */
#ifndef HA_COMMON_CONF_SWEEP_PRIVATE_H
#define HA_COMMON_CONF_SWEEP_PRIVATE_H

#include "common/conf/sweep.h"
#include "common/conf/toml.h"

/* Give each row whose default is "@section.key" that setting's value; a
 * reference to a given value counts as given.  general may be NULL. */
void ha_sweep_fill_seeds(const struct ha_sweep_general *general, struct ha_sweep_data *data,
                         struct ha_sweep_train *train, struct ha_sweep_generate *generate);

/* [generate] for JSON and keys: with settings = "model" only what was given,
 * since the rest comes from the model's own file. */
struct ha_json *ha_sweep_generate_json(const struct ha_sweep_generate *generate, unsigned reads);

/* Greedy: seed, top_p and top_k change nothing. */
bool ha_sweep_generate_greedy(const struct ha_sweep_generate *generate);

/* [vary] into sweep->axes and sweep->excludes; the sections must be read. */
int ha_sweep_read_vary(struct ha_sweep *sweep, const struct ha_toml *vary, const char *file,
                       struct ha_error *err);

void ha_sweep_clear_vary(struct ha_sweep *sweep);

#endif
