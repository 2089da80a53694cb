/* fuse_preview.h - which cells would train in one job, asked from ha-coordinator */
#ifndef HA_COORDINATOR_HACTL_FUSE_PREVIEW_H
#define HA_COORDINATOR_HACTL_FUSE_PREVIEW_H

struct ha_error;
struct ha_grid_input;
struct ha_table;

/* A row per model (and set of cells that may share a job) and number of idle
 * devices: the jobs, and their estimated end.  gpu_memory: of a device, "80GiB";
 * NULL: this machine's.  The table has no rows where nothing may be shared; it is
 * the caller's to destroy. */
int ha_fuse_preview_table(const struct ha_grid_input *input, const char *gpu_memory,
                          struct ha_table **ret_table, struct ha_error *err);

#endif
