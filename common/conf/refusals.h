/* refusals.h - what a grid may say but is not built yet
 *
 * grid.toml's language is complete from the start; where a part of the system
 * is still missing, the key is refused by name instead of being passed over.
 * Building the part ends with deleting its row in refusals.c. */
#ifndef HA_COMMON_CONF_REFUSALS_H
#define HA_COMMON_CONF_REFUSALS_H

#include "common/conf/settings.h"

/* 0, or -ENOTSUP with "section.key = value is not built yet; ...". */
int ha_refusals_check(const struct ha_section *section, const struct ha_setting *row,
                      const void *values, struct ha_error *err);

#endif
