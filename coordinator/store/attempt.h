/* attempt.h - leases of jobs
 *
 * An attempt is named by (job, epoch).  Its reports are taken in the same
 * statement that checks the epoch, so that a report of an older one changes
 * nothing.  The newest attempt of a job may come back after it was lost, as
 * long as nobody else was given the job. */
#ifndef HA_COORDINATOR_STORE_ATTEMPT_H
#define HA_COORDINATOR_STORE_ATTEMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/lease.h"
#include "coordinator/core/retry.h"
#include "coordinator/core/state.h"
#include "coordinator/store/event.h"

struct ha_error;
struct ha_store;

/* ready -> leased: the job's next epoch.  -EINVAL when it is not ready. */
int ha_store_attempt_lease(struct ha_store *store, const struct ha_by *by, int64_t job,
                           int64_t worker, const char *instance, struct ha_epoch *ret_epoch,
                           struct ha_error *err);

struct ha_attempt_row {
    int64_t job;
    struct ha_epoch epoch;
    int64_t worker;
    enum ha_attempt_state state;
    int64_t sequence;  /* reports taken */
    bool progress;     /* a checkpoint or answers came out of it */
    bool charged;      /* its loss counted as a crash */
    bool newest;       /* of its job, which is not final: it may report */
    bool stops;        /* it shall stop at a checkpoint */
    enum ha_stop stop; /* why */
    enum ha_job_state job_state;
};

/* 1 or 0. */
int ha_store_attempt_get(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                         struct ha_attempt_row *ret_row, struct ha_error *err);

/* Take report number `sequence`: 1, or 0 when it is not the next one of an
 * attempt that may report (ha_store_attempt_get then tells why). */
int ha_store_attempt_take(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                          int64_t sequence, struct ha_error *err);

/* The attempt was seen running (also again, after it was lost): attempt and job
 * are running then. */
int ha_store_attempt_runs(struct ha_store *store, const struct ha_by *by,
                          const struct ha_attempt_row *row, struct ha_error *err);

int ha_store_attempt_progress(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                              struct ha_error *err);

/* leased, running or lost -> ended. */
int ha_store_attempt_end(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                         enum ha_outcome outcome, const char *reason, int64_t exit_code,
                         int64_t now_ms, struct ha_error *err);

/* leased or running -> lost.  charged: its loss counted as a crash. */
int ha_store_attempt_lose(struct ha_store *store, int64_t job, struct ha_epoch epoch, bool charged,
                          struct ha_error *err);

/* The next open attempt of a worker after a job's id (lost ones included when
 * asked), those of whose gang it has a part too: 1 or 0. */
int ha_store_attempt_next(struct ha_store *store, int64_t worker, int64_t after_job, bool lost,
                          struct ha_attempt_row *ret_row, struct ha_error *err);

/* Attempts of a worker that hold a slot. */
int ha_store_attempt_count(struct ha_store *store, int64_t worker, int64_t *ret_count,
                           struct ha_error *err);

/* The next attempt of a job after an id that shall stop: 1 or 0. */
int ha_store_attempt_next_stop(struct ha_store *store, int64_t after_job,
                               struct ha_attempt_row *ret_row, struct ha_error *err);

/* An open attempt whose job was cancelled: 1 or 0. */
int ha_store_attempt_next_revoked(struct ha_store *store, struct ha_attempt_row *ret_row,
                                  struct ha_error *err);

/* Slots that attempts of a sweep hold. */
int ha_store_attempt_count_sweep(struct ha_store *store, int64_t sweep, int64_t *ret_count,
                                 struct ha_error *err);

/* The lowest priority of a sweep whose attempts hold slots: 1, or 0 when none does. */
int ha_store_attempt_lowest_priority(struct ha_store *store, int64_t *ret_priority,
                                     struct ha_error *err);

/* Attempts that hold a slot, with the priority of their sweep. */
typedef int (*ha_running_fn)(void *context, const struct ha_attempt_row *row, int64_t priority,
                             int64_t started_ms);
int ha_store_attempt_each_running(struct ha_store *store, ha_running_fn fn, void *context,
                                  struct ha_error *err);

#endif
