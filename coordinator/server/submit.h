/* submit.h - taking over a grid: what Submit and the comparison of grids share */
#ifndef HA_COORDINATOR_SERVER_SUBMIT_H
#define HA_COORDINATOR_SERVER_SUBMIT_H

#include "coordinator/server/grid_work.h"
#include "coordinator/server/inside.h"

enum {
    HA_SUBMIT_AT_ONCE = 256,    /* points of a grid that are read in the turn of the request */
    HA_SUBMIT_SLICE_POINTS = 64 /* of a larger one, between two looks at the clock */
};

/* Store the grid of a sweep (id 0: a new one) and let it be expanded, unless it has the cells that
 * are there. */
int ha_submit_apply(struct ha_coordinator *c, const struct ha_by *by, int64_t sweep,
                    struct ha_grid_work *work, bool expand, int64_t *ret_sweep,
                    struct ha_error *err);

/* Who gets the reply of a Submit. */
struct ha_submitter {
    struct ha_waiter waiter;
    bool extend;
};

/* Compare the work with the sweep of the same name, then apply or refuse it, and
 * answer.  Takes over work. */
int ha_chore_compare(struct ha_coordinator *c, int64_t sweep, struct ha_grid_work *work,
                     const struct ha_submitter *submitter, struct ha_error *err);

/* Read the rest of a large grid, then do with it what submit does, and answer.  Takes over work. */
int ha_chore_read(struct ha_coordinator *c, struct ha_grid_work *work,
                  const struct ha_submitter *submitter, struct ha_error *err);

/* Take over a grid with its cells: *reply is the answer, whose texts are the work's, unless it
 * comes later. */
int ha_submit_take(struct ha_coordinator *c, const struct ha_by *by, struct ha_submitter *submitter,
                   struct ha_grid_work *work, struct ha_wire_message *reply, bool *ret_deferred,
                   struct ha_error *err);

#endif
