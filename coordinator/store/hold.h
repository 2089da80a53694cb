/* hold.h - what people hold back
 *
 * A hold covers the cells of a sweep that are of its model (0: any) and of its
 * strategy ("": any).  Work on a result is held while a hold covers the cell on
 * whose behalf it is done: jobs with such a cell are not leased, items of it are
 * not given out.  The states of jobs, results and items know nothing of it. */
#ifndef HA_COORDINATOR_STORE_HOLD_H
#define HA_COORDINATOR_STORE_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/store/event.h"

struct ha_attempt_row;
struct ha_error;
struct ha_store;

struct ha_hold {
    int64_t sweep;
    int64_t model;          /* 0: every model */
    const char *strategy;   /* "": every strategy */
    bool finish;            /* what runs may end by itself */
    const char *reason;     /* as the person gave it; "" */
    const char *model_name; /* of rows that are read; "" for every model */
    const char *actor;
    int64_t since_ms;
};

/* Add it, or replace the one of the same model and strategy.  1: it is new. */
int ha_store_hold_put(struct ha_store *store, const struct ha_by *by, const struct ha_hold *hold,
                      struct ha_error *err);

/* Take back every hold of what is named and of what lies within it: how many. */
int64_t ha_store_hold_remove(struct ha_store *store, const struct ha_by *by, int64_t sweep,
                             int64_t model, const char *strategy, struct ha_error *err);

typedef int (*ha_hold_fn)(void *context, const struct ha_hold *hold);

/* The oldest one that covers a cell, or the cell on whose behalf a result is
 * worked on: 1 or 0, or fn's result when it is negative. */
int ha_store_hold_of_cell(struct ha_store *store, int64_t cell, ha_hold_fn fn, void *context,
                          struct ha_error *err);
int ha_store_hold_of_result(struct ha_store *store, int64_t result, ha_hold_fn fn, void *context,
                            struct ha_error *err);

/* A hold covers the whole sweep: 1 or 0. */
int ha_store_hold_of_sweep(struct ha_store *store, int64_t sweep, struct ha_error *err);

/* Is any part of the sweep held: 1 or 0. */
int ha_store_hold_any(struct ha_store *store, int64_t sweep, struct ha_error *err);

/* The model of a sweep by name: 1 or 0; and whether a live cell is of the strategy. */
int ha_store_hold_model(struct ha_store *store, int64_t sweep, const char *name, int64_t *ret_model,
                        struct ha_error *err);
int ha_store_hold_strategy(struct ha_store *store, int64_t sweep, const char *name,
                           struct ha_error *err);

/* The next attempt of a job after an id that runs although its job has a cell that
 * is held, and that was not told to stop: 1 or 0.  Those that may finish are left out. */
int ha_store_hold_next_attempt(struct ha_store *store, int64_t after_job,
                               struct ha_attempt_row *ret_row, struct ha_error *err);

/* A cell of a job nobody works on, when some of its cells are held and some are
 * not: 1 and the result that is held, or 0.  job 0: of any job of the sweep. */
int ha_store_hold_next_mixed(struct ha_store *store, int64_t sweep, int64_t job, int64_t *ret_job,
                             int64_t *ret_result, int64_t *ret_cell, struct ha_error *err);

#endif
