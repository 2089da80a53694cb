/* plan_shapes.h - which cells of a grid take the same memory to train
 *
 * Cells that differ in a learning rate or a seed alone are one shape; those of
 * another strategy, or where [vary] changes a rank or a length, are others. */
#ifndef HA_COORDINATOR_HACTL_PLAN_SHAPES_H
#define HA_COORDINATOR_HACTL_PLAN_SHAPES_H

#include <stdint.h>

#include "common/conf/grid.h"

struct ha_error;

enum { HA_PLAN_SHAPES_MAX = 48 }; /* of a model; more have nobody to read them */

struct ha_plan_shape {
    char *label;                        /* "top", "mid, rank=64" */
    char *layers;                       /* "0-10", "auto:8" */
    struct ha_text_list settings;       /* "train.lora_rank=64", ... what the memory depends on */
    const struct ha_sweep_train *train; /* of one of its cells; borrowed from the grid */
    bool built_in;                      /* with the grid's own [train] settings */
};

struct ha_plan_shapes {
    struct ha_plan_shape *items;
    int64_t count, left_out; /* left_out: cells of shapes beyond HA_PLAN_SHAPES_MAX */
};

/* Those of a model's cells, in the grid's order. */
int ha_plan_shapes_find(const struct ha_grid *grid, int64_t model,
                        struct ha_plan_shapes *ret_shapes, struct ha_error *err);
void ha_plan_shapes_clear(struct ha_plan_shapes *shapes);

/* May one plan show both? */
bool ha_plan_shapes_agree(const struct ha_plan_shape *a, const struct ha_plan_shape *b);

#endif
