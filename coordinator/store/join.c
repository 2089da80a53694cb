/* join.c - jobs of several cells: formed when they are leased, taken apart again (job.h) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/base/error.h"
#include "coordinator/store/db.h"
#include "coordinator/store/job.h"
#include "coordinator/store/stage.h"

/* Ready, and nobody ever worked on it. */
static int check_untouched(struct ha_store *store, int64_t job, int64_t *ret_sweep,
                           struct ha_error *err)
{
    int r = ha_db_int(store, ret_sweep, err,
                      "SELECT sweep FROM job WHERE id = ? AND state = 'ready' AND attempts = 0",
                      "i", job);

    if (r == 0)
        return ha_error_set(err, EINVAL, "job %" PRId64 " cannot become a part of another", job);
    return r < 0 ? r : 0;
}

int ha_store_job_join(struct ha_store *store, const struct ha_by *by, int64_t into, int64_t job,
                      struct ha_error *err)
{
    char subject[32], reason[64];
    int64_t sweep = 0;
    int r = check_untouched(store, into, &sweep, err);

    if (r == 0)
        r = check_untouched(store, job, &sweep, err);
    if (r == 0)
        r = ha_db_exec(store, err, "UPDATE job_cell SET job = ? WHERE job = ?", "ii", into, job);
    if (r == 0)
        r = ha_db_exec(store, err, "DELETE FROM job WHERE id = ?", "i", job);
    if (r < 0)
        return r;
    snprintf(subject, sizeof subject, "job %" PRId64, job);
    snprintf(reason, sizeof reason, "its cell is worked on in job %" PRId64, into);
    return ha_store_event_add(store, by,
                              &(struct ha_event){.sweep = sweep,
                                                 .job = job,
                                                 .subject = subject,
                                                 .before = "ready",
                                                 .after = "joined",
                                                 .reason = reason},
                              err);
}

struct copy {
    struct ha_store *store;
    const struct ha_by *by;
    struct ha_job_row row; /* of the new job; texts of the one that is copied */
    int64_t result, cell, job;
    struct ha_error *err;
};

static int add_copy(void *context, const struct ha_job_row *row)
{
    struct copy *copy = context;
    struct ha_job_row new = copy->row;

    new.kind = row->kind;
    new.model_digest = row->model_digest;
    new.turn = row->turn;
    new.fuse_key = "";
    if (new.sweep == 0) {
        new.sweep = row->sweep;
        new.priority = row->priority;
    }
    return ha_store_job_add(copy->store, copy->by, &new, copy->result, copy->cell, &copy->job,
                            copy->err);
}

static int next_pending(struct ha_store *store, int64_t job, int64_t *ret_result, int64_t *ret_cell,
                        struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT result, cell FROM job_cell WHERE job = ? AND outcome = 'pending'"
                         " ORDER BY cell LIMIT 1",
                         "i", job);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    *ret_result = ha_rows_int(&rows, 0);
    *ret_cell = ha_rows_int(&rows, 1);
    ha_rows_close(&rows);
    return 1;
}

int ha_store_job_split(struct ha_store *store, const struct ha_by *by, int64_t job,
                       int64_t not_before_ms, const char *reason, struct ha_error *err)
{
    struct copy copy = {
        .store = store,
        .by = by,
        .row = {.state = HA_JOB_READY, .not_before_ms = not_before_ms},
        .err = err,
    };
    int r;

    while ((r = next_pending(store, job, &copy.result, &copy.cell, err)) == 1) {
        r = ha_db_exec(store, err, "DELETE FROM job_cell WHERE job = ? AND result = ?", "ii", job,
                       copy.result);
        if (r == 0)
            r = ha_store_job_get(store, job, add_copy, &copy, err);
        if (r == 1)
            r = ha_store_job_set(store, by, copy.job, HA_JOB_READY, reason, err);
        if (r < 0)
            return r;
    }
    return r < 0 ? r : ha_store_job_set(store, by, job, HA_JOB_CANCELLED, reason, err);
}

int ha_store_job_set_stop(struct ha_store *store, const struct ha_by *by, int64_t job,
                          enum ha_stop stop, const char *reason, struct ha_error *err)
{
    char subject[32];
    int64_t sweep = 0;
    int r = ha_db_exec(store, err,
                       "UPDATE job SET stop = 1, stop_kind = ?, stop_reason = ? WHERE id = ?"
                       " AND stop = 0 AND state IN ('leased', 'running')",
                       "tti", ha_stop_name(stop), reason, job);

    if (r < 0 || ha_db_changes(store) == 0)
        return r;
    r = ha_db_int(store, &sweep, err, "SELECT sweep FROM job WHERE id = ?", "i", job);
    snprintf(subject, sizeof subject, "job %" PRId64, job);
    return r < 0 ? r
                 : ha_store_event_add(store, by,
                                      &(struct ha_event){.sweep = sweep,
                                                         .job = job,
                                                         .subject = subject,
                                                         .before = "running",
                                                         .after = "stopping",
                                                         .reason = reason},
                                      err);
}

int ha_store_job_detach(struct ha_store *store, const struct ha_by *by, int64_t job, int64_t result,
                        int64_t sweep, int64_t cell, const char *why, struct ha_error *err)
{
    struct copy copy = {.store = store,
                        .by = by,
                        .row = {.state = HA_JOB_READY, .sweep = sweep},
                        .result = result,
                        .cell = cell,
                        .err = err};
    int64_t waits = 0;
    int r = ha_db_int(store, &copy.row.priority, err, "SELECT priority FROM sweep WHERE id = ?",
                      "i", sweep);

    if (r > 0)
        r = ha_db_int(store, &waits, err, "SELECT state = 'waiting' FROM job WHERE id = ?", "i",
                      job);
    if (r >= 0)
        r = ha_db_exec(store, err,
                       "UPDATE job_cell SET outcome = 'failed', reason = ? WHERE job = ?"
                       " AND result = ?",
                       "tii", why, job, result);
    copy.row.state = waits ? HA_JOB_WAITING : HA_JOB_READY;
    if (r == 0)
        r = ha_store_job_get(store, job, add_copy, &copy, err);
    if (r == 1)
        r = ha_store_job_set(store, by, copy.job, copy.row.state, "", err);
    return r < 0 ? r
                 : ha_store_job_set_stop(store, by, job, HA_STOP_CELL,
                                         "to go on without a cell that left its job", err);
}
