/* dry_run.h - what a grid would do, without a coordinator */
#ifndef HA_COORDINATOR_HACTL_DRY_RUN_H
#define HA_COORDINATOR_HACTL_DRY_RUN_H

struct ha_error;
struct ha_grid_input;

/* Print the cells, the blocks of each model, jobs and counts, memory and FLOPs on
 * the CPU and on a GPU of this memory ("24GiB"), and every setting with the
 * source of its value. */
int ha_dry_run_print(const struct ha_grid_input *input, const char *gpu_memory,
                     struct ha_error *err);

/* The same as one JSON object. */
int ha_dry_run_json(const struct ha_grid_input *input, const char *gpu_memory,
                    struct ha_error *err);

#endif
