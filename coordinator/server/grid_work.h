/* grid_work.h - a submitted grid, parsed and expanded, with the keys of its stages
 *
 * The source is a Submit message, also for a sweep that is read back from the
 * store. */
#ifndef HA_COORDINATOR_SERVER_GRID_WORK_H
#define HA_COORDINATOR_SERVER_GRID_WORK_H

#include "common/conf/grid.h"
#include "common/conf/stage_key.h"
#include "coordinator/core/fuse.h"
#include "proto/arena.h"
#include "proto/wire.h"

struct ha_store;

struct ha_grid_work {
    int owners;                   /* ha_grid_work_destroy frees it when the last one is gone */
    struct ha_arena arena;        /* of the copies below */
    struct ha_wire_submit submit; /* a copy; overrides hold the limit of prompts */
    struct ha_sweep *sweep;
    struct ha_grid *grid;
    struct ha_stage_digests *digests; /* per model of the sweep */
    const struct ha_wire_submit_model **models;
    struct ha_fuse_model *costs; /* per model of the sweep */
    char submit_sha256[65];      /* of the message without key and extend */
    char data_sha256[65];        /* of the list of data files */
};

enum { HA_CELL_REFERENCE_BYTES = 2 * HA_SHA256_HEX_BYTES + 16 };

struct ha_cell_keys {
    char probe[HA_SHA256_HEX_BYTES]; /* "" where the cell has no such stage */
    char train[HA_SHA256_HEX_BYTES]; /* "" for base */
    char generate[HA_SHA256_HEX_BYTES];
    char reference[HA_CELL_REFERENCE_BYTES];  /* stage.h: reference_key; "" for base */
    char train_together[HA_SHA256_HEX_BYTES]; /* "" for base */
    char generate_together[HA_SHA256_HEX_BYTES];
    char (*judges)[HA_SHA256_HEX_BYTES]; /* per judge of the sweep */
};

/* -EINVAL says what is wrong with the grid, its models or its files. */
int ha_grid_work_create(const struct ha_wire_submit *submit, struct ha_grid_work **ret_work,
                        struct ha_error *err);

/* The same in steps (common/conf/grid.h): begin reads all but the cells, step makes so many more: 1
 * when all are there. */
int ha_grid_work_begin(const struct ha_wire_submit *submit, struct ha_grid_work **ret_work,
                       struct ha_error *err);
int ha_grid_work_step(struct ha_grid_work *work, int64_t most, struct ha_error *err);

/* The same from a sweep's rows, with so many overrides more. */
int ha_grid_work_load(struct ha_store *store, int64_t sweep, const char *const *more, int64_t count,
                      struct ha_grid_work **ret_work, struct ha_error *err);
int ha_grid_work_load_begin(struct ha_store *store, int64_t sweep, const char *const *more,
                            int64_t count, struct ha_grid_work **ret_work, struct ha_error *err);
void ha_grid_work_destroy(struct ha_grid_work *work);

/* One more owner. */
struct ha_grid_work *ha_grid_work_share(struct ha_grid_work *work);

/* keys->judges [judge_count] is the caller's memory. */
int ha_grid_work_keys(const struct ha_grid_work *work, int64_t cell, struct ha_cell_keys *keys,
                      struct ha_error *err);

/* What the cell's train (unless base) or generate stage takes. */
struct ha_fuse_need ha_grid_work_need(const struct ha_grid_work *work, int64_t cell, bool train);

/* Settings of a cell as they are stored, and its layers ("" for base, "auto:8" for a rule); the
 * caller frees both. */
int ha_grid_work_cell(const struct ha_grid_work *work, int64_t cell, char **ret_settings,
                      char **ret_layers, struct ha_error *err);

/* Settings of a judge as they are stored; the caller frees them. */
int ha_grid_work_judge(const struct ha_grid_work *work, int64_t judge, char **ret_settings,
                       struct ha_error *err);

/* "" or what every table made with the sweep's judges must say. */
const char *ha_grid_work_label(const struct ha_grid_work *work);

#endif
