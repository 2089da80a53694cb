#include "coordinator/store/attempt.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"
#include "coordinator/store/db.h"
#include "coordinator/store/job.h"
#include "coordinator/store/store.h"

int ha_store_attempt_lease(struct ha_store *store, const struct ha_by *by, int64_t job,
                           int64_t worker, const char *instance, struct ha_epoch *ret_epoch,
                           struct ha_error *err)
{
    struct ha_epoch epoch = {.generation = ha_store_generation(store)};
    int r = ha_store_job_set(store, by, job, HA_JOB_LEASED, "", err);

    if (r == 0)
        r = ha_db_exec(store, err,
                       "UPDATE job SET attempts = attempts + 1, stop = 0, stop_kind = '',"
                       " stop_reason = '' WHERE id = ?",
                       "i", job);
    if (r == 0)
        r = ha_db_int(store, &epoch.number, err, "SELECT attempts FROM job WHERE id = ?", "i", job);
    if (r < 0)
        return r;
    /* A lost attempt of an older epoch can never come back now. */
    r = ha_db_exec(store, err,
                   "UPDATE attempt SET state = 'ended', outcome = 'lost', ended_ms = ?"
                   " WHERE job = ? AND state = 'lost'",
                   "ii", by->now_ms, job);
    if (r == 0)
        r = ha_db_exec(store, err, "UPDATE part SET open = 0 WHERE job = ? AND open = 1", "i", job);
    if (r == 0)
        r = ha_db_exec(store, err,
                       "INSERT INTO attempt (job, generation, number, worker, instance, state,"
                       " started_ms) VALUES (?, ?, ?, ?, ?, 'leased', ?)",
                       "iiiiti", job, epoch.generation, epoch.number, worker, instance, by->now_ms);
    if (r == 0)
        *ret_epoch = epoch;
    return r;
}

#define ATTEMPT_COLUMNS                                                                            \
    "a.job, a.generation, a.number, a.worker, a.state, a.sequence, a.progress, a.charged,"         \
    " j.attempts = a.number AND j.state IN ('leased', 'running', 'ready', 'held'), j.state, "      \
    "j.stop, j.stop_kind"

static void read_row(const struct ha_rows *rows, struct ha_attempt_row *row)
{
    *row = (struct ha_attempt_row){
        .job = ha_rows_int(rows, 0),
        .epoch = {ha_rows_int(rows, 1), ha_rows_int(rows, 2)},
        .worker = ha_rows_int(rows, 3),
        .state = HA_ATTEMPT_STATE_ENDED,
        .sequence = ha_rows_int(rows, 5),
        .progress = ha_rows_int(rows, 6) != 0,
        .charged = ha_rows_int(rows, 7) != 0,
        .newest = ha_rows_int(rows, 8) != 0,
        .job_state = HA_JOB_ASIDE,
        .stops = ha_rows_int(rows, 10) != 0,
    };
    ha_attempt_state_parse(ha_rows_text(rows, 4), &row->state);
    ha_stop_parse(ha_rows_text(rows, 11), &row->stop);
    ha_job_state_parse(ha_rows_text(rows, 9), &row->job_state);
}

static int one(struct ha_rows *rows, struct ha_attempt_row *ret_row, struct ha_error *err)
{
    int r = ha_rows_next(rows, err);

    if (r == 1)
        read_row(rows, ret_row);
    ha_rows_close(rows);
    return r;
}

int ha_store_attempt_get(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                         struct ha_attempt_row *ret_row, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " ATTEMPT_COLUMNS " FROM attempt a JOIN job j ON j.id = a.job"
                         " WHERE a.job = ? AND a.generation = ? AND a.number = ?",
                         "iii", job, epoch.generation, epoch.number);

    return r < 0 ? r : one(&rows, ret_row, err);
}

int ha_store_attempt_take(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                          int64_t sequence, struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "UPDATE attempt SET sequence = ?4 WHERE job = ?1 AND generation = ?2"
                       " AND number = ?3 AND sequence = ?4 - 1"
                       " AND state IN ('leased', 'running', 'lost')"
                       " AND number = (SELECT attempts FROM job WHERE id = ?1"
                       " AND state IN ('leased', 'running', 'ready', 'held'))",
                       "iiii", job, epoch.generation, epoch.number, sequence);

    return r < 0 ? r : ha_db_changes(store) == 1;
}

/* A loss that turns out to be none is taken off the counts again. */
static int uncharge(struct ha_store *store, const struct ha_attempt_row *row, struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "UPDATE job SET losses = 0, crashes = max(0, crashes - ?),"
                       " not_before_ms = 0 WHERE id = ?",
                       "ii", (int64_t)row->charged, row->job);

    if (r < 0)
        return r;
    return ha_db_exec(store, err,
                      "UPDATE attempt SET charged = 0 WHERE job = ? AND generation = ?"
                      " AND number = ?",
                      "iii", row->job, row->epoch.generation, row->epoch.number);
}

int ha_store_attempt_runs(struct ha_store *store, const struct ha_by *by,
                          const struct ha_attempt_row *row, struct ha_error *err)
{
    int r;

    if (row->state == HA_ATTEMPT_STATE_RUNNING)
        return 0;
    r = ha_db_exec(store, err,
                   "UPDATE attempt SET state = 'running' WHERE job = ? AND generation = ?"
                   " AND number = ? AND state IN ('leased', 'lost')",
                   "iii", row->job, row->epoch.generation, row->epoch.number);
    if (r == 0 && row->state == HA_ATTEMPT_STATE_LOST)
        r = uncharge(store, row, err);
    if (r < 0)
        return r;
    return ha_store_job_set(store, by, row->job, HA_JOB_RUNNING,
                            row->state == HA_ATTEMPT_STATE_LOST ? "its worker came back" : "", err);
}

int ha_store_attempt_progress(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                              struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE attempt SET progress = 1 WHERE job = ? AND generation = ?"
                      " AND number = ? AND progress = 0",
                      "iii", job, epoch.generation, epoch.number);
}

int ha_store_attempt_end(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                         enum ha_outcome outcome, const char *reason, int64_t exit_code,
                         int64_t now_ms, struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "UPDATE attempt SET state = 'ended', outcome = ?, reason = ?, exit_code = ?,"
                       " ended_ms = ? WHERE job = ? AND generation = ? AND number = ?"
                       " AND state <> 'ended'",
                       "ttiiiii", ha_outcome_name(outcome), reason, exit_code, now_ms, job,
                       epoch.generation, epoch.number);

    return r < 0 ? r
                 : ha_db_exec(store, err,
                              "UPDATE part SET open = 0 WHERE job = ? AND generation = ?"
                              " AND number = ? AND open = 1",
                              "iii", job, epoch.generation, epoch.number);
}

int ha_store_attempt_lose(struct ha_store *store, int64_t job, struct ha_epoch epoch, bool charged,
                          struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE attempt SET state = 'lost', charged = ? WHERE job = ?"
                      " AND generation = ? AND number = ? AND state IN ('leased', 'running')",
                      "iiii", (int64_t)charged, job, epoch.generation, epoch.number);
}

/* The next one of which it has another part than the first. */
static int next_part(struct ha_store *store, int64_t worker, int64_t after_job,
                     struct ha_attempt_row *ret_row, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " ATTEMPT_COLUMNS " FROM part p INDEXED BY part_open"
                         " JOIN attempt a ON a.job = p.job AND a.generation = p.generation"
                         " AND a.number = p.number JOIN job j ON j.id = a.job"
                         " WHERE p.worker = ? AND p.open = 1 AND p.part > 0 AND p.job > ?"
                         " AND a.state IN ('leased', 'running') ORDER BY p.job LIMIT 1",
                         "ii", worker, after_job);

    return r < 0 ? r : one(&rows, ret_row, err);
}

int ha_store_attempt_next(struct ha_store *store, int64_t worker, int64_t after_job, bool lost,
                          struct ha_attempt_row *ret_row, struct ha_error *err)
{
    struct ha_attempt_row part;
    struct ha_rows rows;
    int more = next_part(store, worker, after_job, &part, err);
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " ATTEMPT_COLUMNS " FROM attempt a INDEXED BY attempt_open"
                         " JOIN job j ON j.id = a.job WHERE a.worker = ?1"
                         " AND a.state IN ('leased', 'running', 'lost')"
                         " AND (?3 OR a.state <> 'lost') AND a.job > ?2 ORDER BY a.job LIMIT 1",
                         "iii", worker, after_job, (int64_t)lost);

    r = r < 0 ? r : one(&rows, ret_row, err);
    if (r < 0 || more < 0)
        return r < 0 ? r : more;
    if (more == 1 && (r == 0 || part.job < ret_row->job)) {
        *ret_row = part;
        r = 1;
    }
    return r;
}

int ha_store_attempt_count(struct ha_store *store, int64_t worker, int64_t *ret_count,
                           struct ha_error *err)
{
    int r = ha_db_int(store, ret_count, err,
                      "SELECT (SELECT count(*) FROM attempt INDEXED BY attempt_open WHERE"
                      " worker = ?1 AND state IN ('leased', 'running', 'lost')"
                      " AND state IN ('leased', 'running')) + (SELECT count(*) FROM part"
                      " INDEXED BY part_open WHERE worker = ?1 AND open = 1 AND part > 0)",
                      "i", worker);

    return r < 0 ? r : 0;
}

int ha_store_attempt_next_stop(struct ha_store *store, int64_t after_job,
                               struct ha_attempt_row *ret_row, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " ATTEMPT_COLUMNS " FROM attempt a INDEXED BY attempt_open"
                         " JOIN job j ON j.id = a.job"
                         " WHERE a.state IN ('leased', 'running', 'lost')"
                         " AND a.state IN ('leased', 'running') AND j.stop = 1 AND a.job > ?"
                         " ORDER BY a.job LIMIT 1",
                         "i", after_job);

    return r < 0 ? r : one(&rows, ret_row, err);
}

int ha_store_attempt_next_revoked(struct ha_store *store, struct ha_attempt_row *ret_row,
                                  struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " ATTEMPT_COLUMNS " FROM attempt a INDEXED BY attempt_open"
                         " JOIN job j ON j.id = a.job"
                         " WHERE a.state IN ('leased', 'running', 'lost')"
                         " AND j.state = 'cancelled' LIMIT 1",
                         "");

    return r < 0 ? r : one(&rows, ret_row, err);
}

int ha_store_attempt_count_sweep(struct ha_store *store, int64_t sweep, int64_t *ret_count,
                                 struct ha_error *err)
{
    int r = ha_db_int(store, ret_count, err,
                      "SELECT (SELECT count(*) FROM job INDEXED BY job_sweep WHERE sweep = ?1"
                      " AND state IN ('leased', 'running')) + (SELECT count(*) FROM part p"
                      " INDEXED BY part_open JOIN job j ON j.id = p.job WHERE p.open = 1"
                      " AND p.part > 0 AND j.sweep = ?1)",
                      "i", sweep);

    return r < 0 ? r : 0;
}

int ha_store_attempt_lowest_priority(struct ha_store *store, int64_t *ret_priority,
                                     struct ha_error *err)
{
    return ha_db_int(store, ret_priority, err,
                     "SELECT w.priority FROM sweep w WHERE EXISTS (SELECT 1 FROM attempt"
                     "  INDEXED BY attempt_open WHERE state IN ('leased', 'running', 'lost'))"
                     " AND EXISTS (SELECT 1 FROM job j"
                     " INDEXED BY job_sweep WHERE j.sweep = w.id"
                     " AND j.state IN ('leased', 'running')) ORDER BY w.priority LIMIT 1",
                     "");
}

int ha_store_attempt_each_running(struct ha_store *store, ha_running_fn fn, void *context,
                                  struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " ATTEMPT_COLUMNS ", w.priority, a.started_ms"
                         " FROM attempt a INDEXED BY attempt_open CROSS JOIN job j ON j.id = a.job"
                         " CROSS JOIN sweep w ON w.id = j.sweep"
                         " WHERE a.state IN ('leased', 'running', 'lost')"
                         " AND a.state IN ('leased', 'running')",
                         "");

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_attempt_row row;

        read_row(&rows, &row);
        r = fn(context, &row, ha_rows_int(&rows, 12), ha_rows_int(&rows, 13));
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
