#include "coordinator/store/hold.h"

#include <errno.h>
#include <stdio.h>

#include "common/base/error.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/db.h"

/* "sweep demo", "sweep demo/m", "sweep demo//mid" */
static int event(struct ha_store *store, const struct ha_by *by, int64_t sweep, int64_t model,
                 const char *strategy, const char *after, const char *reason, struct ha_error *err)
{
    struct ha_rows rows;
    char subject[256];
    int r = ha_rows_open(store, &rows, err,
                         "SELECT w.name, ifnull(m.name, '') FROM sweep w LEFT JOIN model m"
                         " ON m.id = ?2 WHERE w.id = ?1",
                         "ii", sweep, model);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    snprintf(subject, sizeof subject, "sweep %s%s%s%s%s", ha_rows_text(&rows, 0),
             model != 0 || strategy[0] ? "/" : "", ha_rows_text(&rows, 1), strategy[0] ? "/" : "",
             strategy);
    ha_rows_close(&rows);
    return ha_store_event_add(
        store, by,
        &(struct ha_event){.sweep = sweep, .subject = subject, .after = after, .reason = reason},
        err);
}

int ha_store_hold_put(struct ha_store *store, const struct ha_by *by, const struct ha_hold *hold,
                      struct ha_error *err)
{
    int64_t same = 0;
    int r = ha_db_int(store, &same, err,
                      "SELECT id FROM hold WHERE sweep = ? AND ifnull(model, 0) = ?"
                      " AND strategy = ?",
                      "iit", hold->sweep, hold->model, hold->strategy);

    if (r < 0)
        return r;
    if (r > 0) {
        r = ha_db_exec(store, err,
                       "UPDATE hold SET finish = ?, actor = ?, reason = ?, since_ms = ?"
                       " WHERE id = ?",
                       "ittii", (int64_t)hold->finish, by->actor, hold->reason, by->now_ms, same);
        return r;
    }
    r = ha_db_exec(store, err,
                   "INSERT INTO hold (sweep, model, strategy, finish, actor, reason, since_ms)"
                   " VALUES (?1, nullif(?2, 0), ?3, ?4, ?5, ?6, ?7)",
                   "iititti", hold->sweep, hold->model, hold->strategy, (int64_t)hold->finish,
                   by->actor, hold->reason, by->now_ms);
    if (r == 0)
        r = event(store, by, hold->sweep, hold->model, hold->strategy, "held", hold->reason, err);
    return r < 0 ? r : 1;
}

int64_t ha_store_hold_remove(struct ha_store *store, const struct ha_by *by, int64_t sweep,
                             int64_t model, const char *strategy, struct ha_error *err)
{
    int64_t removed;
    int r = ha_db_exec(store, err,
                       "DELETE FROM hold WHERE sweep = ?1 AND (?2 = 0 OR model = ?2)"
                       " AND (?3 = '' OR strategy = ?3)",
                       "iit", sweep, model, strategy);

    removed = r < 0 ? r : ha_db_changes(store);
    if (removed > 0)
        r = event(store, by, sweep, model, strategy, "released", "", err);
    return r < 0 ? r : removed;
}

static int read_one(struct ha_rows *rows, ha_hold_fn fn, void *context, struct ha_error *err)
{
    int r = ha_rows_next(rows, err);

    if (r == 1 && fn) {
        struct ha_hold hold = {
            .sweep = ha_rows_int(rows, 0),
            .model = ha_rows_int(rows, 1),
            .model_name = ha_rows_text(rows, 2),
            .strategy = ha_rows_text(rows, 3),
            .finish = ha_rows_int(rows, 4) != 0,
            .actor = ha_rows_text(rows, 5),
            .reason = ha_rows_text(rows, 6),
            .since_ms = ha_rows_int(rows, 7),
        };

        r = fn(context, &hold);
        r = r < 0 ? r : 1;
    }
    ha_rows_close(rows);
    return r;
}

#define HOLD_COLUMNS                                                                               \
    "h.sweep, ifnull(h.model, 0), ifnull(m.name, ''), h.strategy, h.finish, h.actor, h.reason,"    \
    " h.since_ms"

/* Joins c, a cell. */
#define COVERS                                                                                     \
    " h.sweep = c.sweep AND ifnull(h.model, c.model) = c.model"                                    \
    " AND (h.strategy = '' OR h.strategy = c.strategy)"

int ha_store_hold_of_cell(struct ha_store *store, int64_t cell, ha_hold_fn fn, void *context,
                          struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " HOLD_COLUMNS " FROM cell c JOIN hold h ON" COVERS
                         " LEFT JOIN model m ON m.id = h.model WHERE c.id = ?"
                         " ORDER BY h.since_ms, h.id LIMIT 1",
                         "i", cell);

    return r < 0 ? r : read_one(&rows, fn, context, err);
}

int ha_store_hold_of_result(struct ha_store *store, int64_t result, ha_hold_fn fn, void *context,
                            struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " HOLD_COLUMNS " FROM result r JOIN stage s ON s.id = r.owner"
                         " JOIN cell c ON c.id = s.cell JOIN hold h ON" COVERS
                         " LEFT JOIN model m ON m.id = h.model WHERE r.id = ?"
                         " ORDER BY h.since_ms, h.id LIMIT 1",
                         "i", result);

    return r < 0 ? r : read_one(&rows, fn, context, err);
}

int ha_store_hold_of_sweep(struct ha_store *store, int64_t sweep, struct ha_error *err)
{
    int64_t id;

    return ha_db_int(store, &id, err,
                     "SELECT id FROM hold WHERE sweep = ? AND model IS NULL AND strategy = ''", "i",
                     sweep);
}

int ha_store_hold_any(struct ha_store *store, int64_t sweep, struct ha_error *err)
{
    int64_t id;

    return ha_db_int(store, &id, err, "SELECT id FROM hold WHERE sweep = ? LIMIT 1", "i", sweep);
}

int ha_store_hold_model(struct ha_store *store, int64_t sweep, const char *name, int64_t *ret_model,
                        struct ha_error *err)
{
    return ha_db_int(store, ret_model, err, "SELECT id FROM model WHERE sweep = ? AND name = ?",
                     "it", sweep, name);
}

int ha_store_hold_strategy(struct ha_store *store, int64_t sweep, const char *name,
                           struct ha_error *err)
{
    int64_t cell;

    return ha_db_int(store, &cell, err,
                     "SELECT id FROM cell WHERE sweep = ? AND strategy = ? AND live = 1 LIMIT 1",
                     "it", sweep, name);
}

int ha_store_hold_next_attempt(struct ha_store *store, int64_t after_job,
                               struct ha_attempt_row *ret_row, struct ha_error *err)
{
    struct ha_rows rows;
    struct ha_epoch epoch;
    int64_t job;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT j.id, a.generation, a.number FROM hold h"
                         " CROSS JOIN job j ON j.sweep = h.sweep"
                         " CROSS JOIN attempt a ON a.job = j.id AND a.number = j.attempts"
                         " WHERE h.finish = 0 AND j.state IN ('leased', 'running') AND j.stop = 0"
                         " AND a.state IN ('leased', 'running') AND j.id > ? AND EXISTS"
                         " (SELECT 1 FROM job_cell jc JOIN result r ON r.id = jc.result"
                         "  JOIN stage s ON s.id = r.owner JOIN cell c ON c.id = s.cell"
                         "  WHERE jc.job = j.id AND jc.outcome = 'pending' AND" COVERS ")"
                         " ORDER BY j.id, a.generation DESC LIMIT 1",
                         "i", after_job);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    job = ha_rows_int(&rows, 0);
    epoch = (struct ha_epoch){ha_rows_int(&rows, 1), ha_rows_int(&rows, 2)};
    ha_rows_close(&rows);
    return ha_store_attempt_get(store, job, epoch, ret_row, err);
}

#define HELD_CELL                                                                                  \
    "(SELECT 1 FROM result r JOIN stage s ON s.id = r.owner JOIN cell c ON c.id = s.cell"          \
    " JOIN hold h ON" COVERS " WHERE r.id = jc.result)"

int ha_store_hold_next_mixed(struct ha_store *store, int64_t sweep, int64_t job, int64_t *ret_job,
                             int64_t *ret_result, int64_t *ret_cell, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(
        store, &rows, err,
        "SELECT j.id, jc.result, jc.cell FROM job j INDEXED BY job_formed"
        " CROSS JOIN job_cell jc ON jc.job = j.id AND jc.outcome = 'pending' AND EXISTS " HELD_CELL
        " WHERE j.sweep = ?1 AND (?2 = 0 OR j.id = ?2) AND j.attempts > 0"
        " AND j.state IN ('waiting', 'ready', 'held', 'aside') AND EXISTS"
        " (SELECT 1 FROM job_cell jc WHERE jc.job = j.id"
        "  AND jc.outcome = 'pending' AND NOT EXISTS " HELD_CELL ") LIMIT 1",
        "ii", sweep, job);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    *ret_job = ha_rows_int(&rows, 0);
    *ret_result = ha_rows_int(&rows, 1);
    *ret_cell = ha_rows_int(&rows, 2);
    ha_rows_close(&rows);
    return 1;
}
