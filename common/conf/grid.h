/* grid.h - a sweep expanded into its cells
 *
 * A cell is one point: model x strategy x varied values.  Its order is fixed:
 * models as listed, in each the strategies, in each the points of [vary] with
 * the last axis fastest.  Base trains nothing, so it ignores every axis of
 * [train] and [[strategy]] and exists once per model and generation setting.
 *
 * The stages of a cell are probe (in a sweep that probes) and train (both unless
 * base), generate, and one judge stage per [[judge]]. */
#ifndef HA_COMMON_CONF_GRID_H
#define HA_COMMON_CONF_GRID_H

#include "common/conf/blocks.h"
#include "common/conf/sweep.h"

enum { HA_GRID_CELLS_MAX = 1000000 };

struct ha_grid_cell {
    char *name;              /* "model/strategy", "model/strategy/lr=1e-4,beta=0.2" */
    int64_t model;           /* index in sweep->models */
    int64_t strategy;        /* index in sweep->strategies */
    bool trains;             /* false: base */
    struct ha_layers layers; /* trained ones, ascending; borrowed from the grid; none for base
                                and for a rule */
    int64_t auto_layers;     /* so many, as its probe finds ("auto:K"); 0: those of layers */
    const struct ha_sweep_train *train;       /* resolved: strategy and axes applied; NULL for base;
                                                 borrowed from the grid */
    const struct ha_sweep_generate *generate; /* resolved; borrowed from the grid */
    struct ha_text_list axis_values; /* one text per sweep->axes; NULL items where the axis does
                                        not touch the cell; borrowed from the grid */
};

struct ha_grid {
    const struct ha_sweep *sweep; /* borrowed: outlives the grid */
    struct ha_grid_cell *cells;
    int64_t cell_count;
    int64_t points;                /* there are at most so many cells */
    int64_t *layers;               /* per model: its number of layers */
    struct ha_grid_shared *shared; /* what the cells borrow */
};

/* layers[model_count]: number of layers per model from its config.json, 0
 * where it was not read; NULL: all 0.  A model must have layers there or in the
 * grid; where both exist they must agree.  -EINVAL names what is wrong, also
 * two cells of one name or more than HA_GRID_CELLS_MAX. */
int ha_grid_create(const struct ha_sweep *sweep, const int64_t *layers, struct ha_grid **ret_grid,
                   struct ha_error *err);

/* The same in steps, for who may not work long: begin checks what is quickly checked and makes a
 * grid without cells; step makes so many more points of it: 1 when all are there, which again is
 * legal, 0 or a negative errno.  Of a grid that is not complete only points and layers are to be
 * read. */
int ha_grid_begin(const struct ha_sweep *sweep, const int64_t *layers, struct ha_grid **ret_grid,
                  struct ha_error *err);
int ha_grid_step(struct ha_grid *grid, int64_t most, struct ha_error *err);

void ha_grid_destroy(struct ha_grid *grid);

/* The cell of a name, or NULL. */
const struct ha_grid_cell *ha_grid_find(const struct ha_grid *grid, const char *name);

/* "0-10", "auto:8", "" for base.  The caller frees it; NULL when memory is short. */
char *ha_grid_cell_layers(const struct ha_grid_cell *cell);

/* The resolved settings as run_settings.h writes them, [probe] only where the
 * cell has that stage.  NULL when memory is short. */
struct ha_json *ha_grid_cell_json(const struct ha_grid *grid, const struct ha_grid_cell *cell);

#endif
