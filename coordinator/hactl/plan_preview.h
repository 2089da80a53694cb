/* plan_preview.h - memory and FLOPs of a grid's models, as ha-attempt plans them */
#ifndef HA_COORDINATOR_HACTL_PLAN_PREVIEW_H
#define HA_COORDINATOR_HACTL_PLAN_PREVIEW_H

#include <stdint.h>

struct ha_error;
struct ha_grid_input;
struct ha_json;
struct ha_table;

/* ha-attempt plan --json of a model whose files are here, on the CPU and on a GPU of
 * this memory: the built-in strategies with the grid's own settings, and in
 * "strategies" also those of the grid's cells that need others: its own strategies, and
 * where [vary] changes what the memory depends on ("mid, rank=64"). */
int ha_plan_preview(const struct ha_grid_input *input, int64_t model, const char *gpu_memory,
                    struct ha_json **ret_plan, struct ha_error *err);

/* Of all such models; without rows where there are none. */
int ha_plan_preview_table(const struct ha_grid_input *input, const char *gpu_memory,
                          struct ha_table **ret_table, struct ha_error *err);

#endif
