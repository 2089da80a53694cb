/* job.h - what workers lease */
#ifndef HA_COORDINATOR_STORE_JOB_H
#define HA_COORDINATOR_STORE_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/fuse.h"
#include "coordinator/core/retry.h"
#include "coordinator/core/state.h"
#include "coordinator/store/event.h"

struct ha_error;
struct ha_store;

struct ha_job_row {
    int64_t id, sweep;
    enum ha_stage_kind kind;
    const char *model_digest;
    enum ha_job_state state;
    const char *reason;
    int64_t priority;
    int64_t attempts; /* leases granted: the number of the newest epoch */
    int64_t crashes, losses;
    int64_t not_before_ms;
    const char *fuse_key; /* "": its cells stay by themselves */
    int64_t turn;         /* place among jobs of its sweep */
    enum ha_stop stop;    /* why its attempt shall stop at a checkpoint */
    const char *stop_reason;
    /* of its sweep */
    bool paused;
    enum ha_fuse_mode fuse;
    int64_t max_attempts;
    bool wait_when_lost;
    /* from ha_store_job_each_ready only */
    struct ha_fuse_need need; /* of its first cell */
    bool grows;               /* more cells of its fuse_key wait for their training */
};

/* A job of one result of one cell.  state: waiting or ready. */
int ha_store_job_add(struct ha_store *store, const struct ha_by *by, const struct ha_job_row *row,
                     int64_t result, int64_t cell, int64_t *ret_id, struct ha_error *err);

typedef int (*ha_job_fn)(void *context, const struct ha_job_row *row);

/* One job: 1 or 0, or fn's result when it is negative. */
int ha_store_job_get(struct ha_store *store, int64_t job, ha_job_fn fn, void *context,
                     struct ha_error *err);

/* Ready jobs of running sweeps that nobody holds and whose wait is over: sweep by
 * sweep, high priority first, about limit in all and the same number of each.  A
 * time further away than max_wait_ms is not believed (clocks jump).  Nothing of a
 * sweep that is still being expanded, unless it forms no jobs of several cells:
 * not all that belongs together is known then.  Of a sweep whose jobs never become one
 * at most `apart`, and several times its share of them among those of its priority.
 * 1: a sweep may have more. */
int ha_store_job_each_ready(struct ha_store *store, int64_t now_ms, int64_t max_wait_ms,
                            int64_t limit, int64_t apart, ha_job_fn fn, void *context,
                            struct ha_error *err);

/* The highest priority of a sweep with such jobs, held or not: 1, or 0 when there is none. */
int ha_store_job_highest_ready(struct ha_store *store, int64_t *ret_priority, struct ha_error *err);

/* When the next ready job's wait is over: 1, or 0 when none waits. */
int ha_store_job_next_wait(struct ha_store *store, int64_t now_ms, int64_t *ret_ms,
                           struct ha_error *err);

/* Change the state (core's table decides: -EINVAL otherwise), the reason, and
 * the results of cells that are still pending. */
int ha_store_job_set(struct ha_store *store, const struct ha_by *by, int64_t job,
                     enum ha_job_state state, const char *reason, struct ha_error *err);

int ha_store_job_set_counts(struct ha_store *store, int64_t job, int64_t crashes, int64_t losses,
                            int64_t not_before_ms, struct ha_error *err);

struct ha_job_cell_row {
    int64_t job, result, cell, sweep, parent;
    const char *outcome; /* "pending", "done", "failed" */
    const char *name, *settings;
    const char *layers;        /* trained ones; "" for base and a probe */
    const char *reference_key; /* "": none */
};

typedef int (*ha_job_cell_fn)(void *context, const struct ha_job_cell_row *row);
int ha_store_job_cell_each(struct ha_store *store, int64_t job, ha_job_cell_fn fn, void *context,
                           struct ha_error *err);

/* Has it more than one cell: 1 or 0. */
int ha_store_job_has_mates(struct ha_store *store, int64_t job, struct ha_error *err);

/* One cell of the job: 1 or 0, or fn's result when it is negative. */
int ha_store_job_cell_get(struct ha_store *store, int64_t job, int64_t cell, ha_job_cell_fn fn,
                          void *context, struct ha_error *err);

/* A cell of the job is final: its outcome, and the state of its result. */
int ha_store_job_cell_end(struct ha_store *store, const struct ha_by *by, int64_t job,
                          int64_t result, bool done, const char *reason, struct ha_error *err);

struct ha_job_counts {
    int64_t pending, done, failed; /* cells by outcome */
};

int ha_store_job_cell_counts(struct ha_store *store, int64_t job, struct ha_job_counts *ret_counts,
                             struct ha_error *err);

/* The newest job that is not final and still has the result to do: 1 or 0. */
int ha_store_job_of_result(struct ha_store *store, int64_t result, int64_t *ret_job,
                           struct ha_error *err);

/* ---- jobs of several cells (join.c) ------------------------------------------------ */

/* `into` takes the cells of a job over; both are ready and were never leased.  The
 * job is gone then; its history names the other. */
int ha_store_job_join(struct ha_store *store, const struct ha_by *by, int64_t into, int64_t job,
                      struct ha_error *err);

/* Every cell that is pending gets a ready job of its own, which no other joins and
 * which begins to count its attempts anew; the job itself is cancelled.  No
 * attempt of it is open. */
int ha_store_job_split(struct ha_store *store, const struct ha_by *by, int64_t job,
                       int64_t not_before_ms, const char *reason, struct ha_error *err);

/* One result goes on in a job of its own, in that sweep; an attempt that works on
 * the others shall stop and go on without it.  why: what the older job says of it. */
int ha_store_job_detach(struct ha_store *store, const struct ha_by *by, int64_t job, int64_t result,
                        int64_t sweep, int64_t cell, const char *why, struct ha_error *err);

/* Its attempt shall stop at a checkpoint.  The first word stands. */
int ha_store_job_set_stop(struct ha_store *store, const struct ha_by *by, int64_t job,
                          enum ha_stop stop, const char *reason, struct ha_error *err);

#endif
