/* cell.h - the points of a sweep's grid */
#ifndef HA_COORDINATOR_STORE_CELL_H
#define HA_COORDINATOR_STORE_CELL_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_store;

struct ha_cell_row {
    int64_t id, sweep, model;
    const char *model_name, *name, *strategy;
    int64_t model_layers;
    const char *layers;   /* as the grid says: "0-10", "auto:2"; "" for base */
    const char *settings; /* JSON of ha_grid_cell_json */
    int64_t position;
    int64_t version; /* of the sweep's grid that it was last seen in */
    bool live;
    /* of its train result, where a probe chooses the layers; else 0 and "" */
    int64_t auto_layers, probe;   /* how many, by which result's norms */
    const char *measure, *chosen; /* chosen "": not yet */
    double share;
};

/* Insert or replace by (sweep, name); the cell is live then.  Only what the
 * table of cells holds is read, without the id. */
int ha_store_cell_put(struct ha_store *store, const struct ha_cell_row *row, int64_t *ret_id,
                      struct ha_error *err);

typedef int (*ha_cell_fn)(void *context, const struct ha_cell_row *row);

/* Cells of a sweep after an id, in order of id, with settings ""; limit -1: all. */
int ha_store_cell_each(struct ha_store *store, int64_t sweep, int64_t after, int64_t limit,
                       ha_cell_fn fn, void *context, struct ha_error *err);

/* One cell by id.  1 or 0; fn's result when it is negative. */
int ha_store_cell_get(struct ha_store *store, int64_t cell, ha_cell_fn fn, void *context,
                      struct ha_error *err);

/* One cell of a sweep by name, else by number.  1 or 0. */
int ha_store_cell_id(struct ha_store *store, int64_t sweep, const char *name, int64_t *ret_id,
                     struct ha_error *err);

/* The next live cell that is not in the sweep's newest grid: 1, or 0. */
int ha_store_cell_gone(struct ha_store *store, int64_t sweep, int64_t *ret_id,
                       struct ha_error *err);

/* Cells of a sweep, also those that are no longer in its grid. */
int ha_store_cell_count(struct ha_store *store, int64_t sweep, int64_t *ret_count,
                        struct ha_error *err);

int ha_store_cell_set_live(struct ha_store *store, int64_t cell, bool live, struct ha_error *err);

#endif
