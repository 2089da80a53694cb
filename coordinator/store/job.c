#include "coordinator/store/job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/base/error.h"
#include "coordinator/store/db.h"
#include "coordinator/store/stage.h"

static int job_event(struct ha_store *store, const struct ha_by *by, int64_t job, int64_t sweep,
                     const char *before, const char *after, const char *reason,
                     struct ha_error *err)
{
    char subject[32];

    snprintf(subject, sizeof subject, "job %" PRId64, job);
    return ha_store_event_add(store, by,
                              &(struct ha_event){.sweep = sweep,
                                                 .job = job,
                                                 .subject = subject,
                                                 .before = before,
                                                 .after = after,
                                                 .reason = reason},
                              err);
}

int ha_store_job_add(struct ha_store *store, const struct ha_by *by, const struct ha_job_row *row,
                     int64_t result, int64_t cell, int64_t *ret_id, struct ha_error *err)
{
    int64_t id;
    int r = ha_db_exec(store, err,
                       "INSERT INTO job (sweep, kind, model_digest, state, priority, fuse_key,"
                       " turn, not_before_ms, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                       "itttitiii", row->sweep, ha_stage_kind_name(row->kind), row->model_digest,
                       ha_job_state_name(row->state), row->priority, row->fuse_key, row->turn,
                       row->not_before_ms, by->now_ms);

    if (r < 0)
        return r;
    id = ha_db_last_id(store);
    r = ha_db_exec(store, err,
                   "INSERT INTO job_cell (job, result, cell, outcome) VALUES (?, ?, ?, 'pending')",
                   "iii", id, result, cell);
    if (r == 0)
        r = job_event(store, by, id, row->sweep, "", ha_job_state_name(row->state),
                      ha_stage_kind_name(row->kind), err);
    if (r == 0)
        *ret_id = id;
    return r;
}

#define JOB_COLUMNS                                                                                \
    "j.id, j.sweep, j.kind, j.model_digest, j.state, j.reason, w.priority, j.attempts,"            \
    " j.crashes, j.losses, j.not_before_ms, w.state = 'paused', w.max_attempts,"                   \
    " w.wait_when_lost, j.fuse_key, j.turn, w.fuse, j.stop_kind, j.stop_reason"

/* A state that no version knows shows as aside: the job is left alone. */
static void read_row(const struct ha_rows *rows, struct ha_job_row *row)
{
    *row = (struct ha_job_row){
        .id = ha_rows_int(rows, 0),
        .sweep = ha_rows_int(rows, 1),
        .kind = HA_STAGE_TRAIN,
        .model_digest = ha_rows_text(rows, 3),
        .state = HA_JOB_ASIDE,
        .reason = ha_rows_text(rows, 5),
        .priority = ha_rows_int(rows, 6),
        .attempts = ha_rows_int(rows, 7),
        .crashes = ha_rows_int(rows, 8),
        .losses = ha_rows_int(rows, 9),
        .not_before_ms = ha_rows_int(rows, 10),
        .paused = ha_rows_int(rows, 11) != 0,
        .max_attempts = ha_rows_int(rows, 12),
        .wait_when_lost = ha_rows_int(rows, 13) != 0,
        .fuse_key = ha_rows_text(rows, 14),
        .turn = ha_rows_int(rows, 15),
        .fuse = HA_FUSE_NEVER,
        .stop_reason = ha_rows_text(rows, 18),
    };
    ha_fuse_mode_parse(ha_rows_text(rows, 16), &row->fuse);
    ha_stop_parse(ha_rows_text(rows, 17), &row->stop);
    ha_stage_kind_parse(ha_rows_text(rows, 2), &row->kind);
    ha_job_state_parse(ha_rows_text(rows, 4), &row->state);
}

static void read_need(const struct ha_rows *rows, struct ha_job_row *row)
{
    row->need = (struct ha_fuse_need){
        .shared = ha_rows_real(rows, 19),
        .cost = ha_rows_real(rows, 20),
        .shared_bytes = ha_rows_int(rows, 21),
        .pass_bytes = ha_rows_int(rows, 22),
        .bytes = ha_rows_int(rows, 23),
    };
    row->grows = ha_rows_int(rows, 24) != 0;
}

static int each(struct ha_rows *rows, bool needs, ha_job_fn fn, void *context, struct ha_error *err)
{
    int r, count = 0;

    while ((r = ha_rows_next(rows, err)) == 1) {
        struct ha_job_row row;

        read_row(rows, &row);
        if (needs)
            read_need(rows, &row);
        count = 1;
        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(rows);
    return r < 0 ? r : count;
}

int ha_store_job_get(struct ha_store *store, int64_t job, ha_job_fn fn, void *context,
                     struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " JOB_COLUMNS " FROM job j JOIN sweep w ON w.id = j.sweep"
                         " WHERE j.id = ?",
                         "i", job);

    return r < 0 ? r : each(&rows, false, fn, context, err);
}

/* Sweeps with something ready, high priority first. */
enum { SWEEPS = 256, SWEEP_JOBS = 16, SHARES = 4 };

struct listed {
    int64_t sweep, priority;
    bool apart; /* its jobs never become one */
};

static int list_sweeps(struct ha_store *store, struct listed sweeps[SWEEPS], int64_t *ret_count,
                       struct ha_error *err)
{
    struct ha_rows rows;
    int64_t count = 0;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT w.id, w.priority, w.fuse = 'never' FROM sweep w"
                         " INDEXED BY sweep_running"
                         " WHERE w.state = 'running'"
                         " AND (w.expanding = 0 OR w.fuse = 'never') AND EXISTS"
                         " (SELECT 1 FROM job j INDEXED BY job_ready WHERE j.sweep = w.id"
                         "  AND j.state = 'ready') ORDER BY w.priority DESC, w.id LIMIT ?",
                         "i", (int64_t)SWEEPS);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        sweeps[count++] = (struct listed){ha_rows_int(&rows, 0), ha_rows_int(&rows, 1),
                                          ha_rows_int(&rows, 2) != 0};
        r = 0;
    }
    *ret_count = count;
    return r;
}

struct counted {
    ha_job_fn fn;
    void *context;
    int64_t count;
};

static int count_job(void *context, const struct ha_job_row *row)
{
    struct counted *counted = context;

    counted->count++;
    return counted->fn(counted->context, row);
}

static int each_of_sweep(struct ha_store *store, int64_t sweep, int64_t now_ms, int64_t max_wait_ms,
                         int64_t limit, ha_job_fn fn, void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r =
        ha_rows_open(store, &rows, err,
                     "SELECT " JOB_COLUMNS ", ifnull(s.shared, 0), ifnull(s.cost, 0),"
                     " ifnull(s.shared_bytes, 0), ifnull(s.pass_bytes, 0), ifnull(s.bytes, 0),"
                     " j.fuse_key <> '' AND EXISTS (SELECT 1 FROM stage o"
                     "  INDEXED BY stage_fuse WHERE o.sweep = j.sweep"
                     "  AND o.fuse_key = j.fuse_key AND o.fuse_key <> ''"
                     "  AND o.state = 'waiting' AND o.live = 1)"
                     " FROM job j INDEXED BY job_ready JOIN sweep w ON w.id = j.sweep"
                     " LEFT JOIN stage s ON s.id = (SELECT r.owner FROM job_cell c"
                     "  JOIN result r ON r.id = c.result WHERE c.job = j.id"
                     "  ORDER BY c.result LIMIT 1)"
                     " WHERE j.sweep = ?1 AND j.state = 'ready'"
                     " AND NOT EXISTS (SELECT 1 FROM hold h WHERE h.sweep = ?1"
                     "  AND h.model = j.turn / 8 AND h.strategy = '')" /* without the job's row */
                     " AND (j.not_before_ms <= ?2 OR j.not_before_ms > ?3)"
                     " AND NOT EXISTS (SELECT 1 FROM hold h CROSS JOIN job_cell jc"
                     "  CROSS JOIN result r CROSS JOIN stage o CROSS JOIN cell c"
                     "  WHERE h.sweep = ?1 AND jc.job = j.id AND jc.outcome = 'pending'"
                     "  AND r.id = jc.result AND o.id = r.owner AND c.id = o.cell"
                     "  AND ifnull(h.model, c.model) = c.model"
                     "  AND (h.strategy = '' OR h.strategy = c.strategy))"
                     " ORDER BY j.turn, j.id LIMIT ?4",
                     "iiii", sweep, now_ms, now_ms + max_wait_ms, limit);

    return r < 0 ? r : each(&rows, true, fn, context, err);
}

/* How many jobs of a sweep are read.  Those that never become one fill at most `apart` slots, which
 * sweeps of one priority share: several times its share is enough of each; only those of the
 * highest are likely to fill all. */
static int64_t part_of(const struct listed *sweeps, int64_t count, int64_t i, int64_t limit,
                       int64_t apart)
{
    int64_t part = limit / count > SWEEP_JOBS ? limit / count : SWEEP_JOBS, peers = 0, share;

    if (!sweeps[i].apart)
        return part;
    for (int64_t k = 0; k < count; k++)
        peers += sweeps[k].priority == sweeps[i].priority;
    share = SHARES * apart / peers > SHARES ? SHARES * apart / peers : SHARES;
    if (sweeps[i].priority < sweeps[0].priority && share > part)
        share = part;
    return share < apart ? share : apart;
}

int ha_store_job_each_ready(struct ha_store *store, int64_t now_ms, int64_t max_wait_ms,
                            int64_t limit, int64_t apart, ha_job_fn fn, void *context,
                            struct ha_error *err)
{
    struct listed sweeps[SWEEPS];
    int64_t count;
    bool more = false;
    int r = list_sweeps(store, sweeps, &count, err);

    for (int64_t i = 0; r >= 0 && i < count; i++) {
        struct counted counted = {.fn = fn, .context = context};
        int64_t part = part_of(sweeps, count, i, limit, apart);

        r = each_of_sweep(store, sweeps[i].sweep, now_ms, max_wait_ms, part, count_job, &counted,
                          err);
        more = more || counted.count == part;
    }
    return r < 0 ? r : more;
}

int ha_store_job_highest_ready(struct ha_store *store, int64_t *ret_priority, struct ha_error *err)
{
    return ha_db_int(store, ret_priority, err,
                     "SELECT w.priority FROM sweep w INDEXED BY sweep_running"
                     " WHERE w.state = 'running'"
                     " AND (w.expanding = 0 OR w.fuse = 'never') AND EXISTS"
                     " (SELECT 1 FROM job j INDEXED BY job_ready WHERE j.sweep = w.id"
                     "  AND j.state = 'ready') ORDER BY w.priority DESC LIMIT 1",
                     "");
}

int ha_store_job_next_wait(struct ha_store *store, int64_t now_ms, int64_t *ret_ms,
                           struct ha_error *err)
{
    return ha_db_int(store, ret_ms, err,
                     "SELECT not_before_ms FROM job WHERE state = 'ready' AND not_before_ms > 0"
                     " AND not_before_ms > ? ORDER BY not_before_ms LIMIT 1",
                     "i", now_ms);
}

struct change {
    int64_t sweep;
    enum ha_job_state before;
};

static int read_change(void *context, const struct ha_job_row *row)
{
    struct change *change = context;

    change->sweep = row->sweep;
    change->before = row->state;
    return 0;
}

/* The next pending result of the job after an id. */
static int next_pending(struct ha_store *store, int64_t job, int64_t after, int64_t *ret_result,
                        struct ha_error *err)
{
    return ha_db_int(store, ret_result, err,
                     "SELECT result FROM job_cell WHERE job = ? AND result > ?"
                     " AND outcome = 'pending' ORDER BY result LIMIT 1",
                     "ii", job, after);
}

int ha_store_job_set(struct ha_store *store, const struct ha_by *by, int64_t job,
                     enum ha_job_state state, const char *reason, struct ha_error *err)
{
    struct change change;
    int64_t result = 0;
    int r = ha_store_job_get(store, job, read_change, &change, err);

    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ENOENT, "job %" PRId64 " does not exist", job);
    if (change.before != state && !ha_job_may(change.before, state))
        return ha_error_set(err, EINVAL, "job %" PRId64 " cannot go from %s to %s", job,
                            ha_job_state_name(change.before), ha_job_state_name(state));
    r = ha_db_exec(store, err, "UPDATE job SET state = ?, reason = ?, finished_ms = ? WHERE id = ?",
                   "ttii", ha_job_state_name(state), reason,
                   ha_job_final(state) ? by->now_ms : (int64_t)0, job);
    if (r == 0)
        r = job_event(store, by, job, change.sweep, ha_job_state_name(change.before),
                      ha_job_state_name(state), reason, err);
    if (r < 0 || state == HA_JOB_DONE || state == HA_JOB_CANCELLED)
        return r; /* done: each cell has its outcome; cancelled: see stage.c */
    while ((r = next_pending(store, job, result, &result, err)) == 1) {
        r = ha_store_result_set(store, by, result, ha_stage_of_job(state), reason, err);
        if (r == 0 && state == HA_JOB_FAILED)
            r = ha_db_exec(store, err,
                           "UPDATE job_cell SET outcome = 'failed', reason = ? WHERE job = ?"
                           " AND result = ?",
                           "tii", reason, job, result);
        if (r < 0)
            break;
    }
    return r;
}

int ha_store_job_set_counts(struct ha_store *store, int64_t job, int64_t crashes, int64_t losses,
                            int64_t not_before_ms, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE job SET crashes = ?, losses = ?, not_before_ms = ? WHERE id = ?",
                      "iiii", crashes, losses, not_before_ms, job);
}

#define CELL_QUERY                                                                                 \
    "SELECT jc.job, jc.result, jc.cell, c.sweep, ifnull(r.parent, 0), jc.outcome, c.name,"         \
    " CASE r.kind WHEN 'probe' THEN '' ELSE ifnull((SELECT layers FROM choice WHERE result ="      \
    "  CASE r.kind WHEN 'train' THEN r.id ELSE r.parent END), c.layers) END,"                      \
    " s.json, ifnull(o.reference_key, '') FROM job_cell jc"                                        \
    " JOIN cell c ON c.id = jc.cell JOIN setting s ON s.id = c.setting"                            \
    " JOIN result r ON r.id = jc.result LEFT JOIN stage o ON o.id = r.owner WHERE jc.job = ?"

static int each_cell(struct ha_rows *rows, ha_job_cell_fn fn, void *context, struct ha_error *err)
{
    int r, count = 0;

    while ((r = ha_rows_next(rows, err)) == 1) {
        struct ha_job_cell_row row = {
            .job = ha_rows_int(rows, 0),
            .result = ha_rows_int(rows, 1),
            .cell = ha_rows_int(rows, 2),
            .sweep = ha_rows_int(rows, 3),
            .parent = ha_rows_int(rows, 4),
            .outcome = ha_rows_text(rows, 5),
            .name = ha_rows_text(rows, 6),
            .layers = ha_rows_text(rows, 7),
            .settings = ha_rows_text(rows, 8),
            .reference_key = ha_rows_text(rows, 9),
        };

        count = 1;
        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(rows);
    return r < 0 ? r : count;
}

int ha_store_job_cell_each(struct ha_store *store, int64_t job, ha_job_cell_fn fn, void *context,
                           struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err, CELL_QUERY " ORDER BY jc.cell", "i", job);

    if (r == 0)
        r = each_cell(&rows, fn, context, err);
    return r < 0 ? r : 0;
}

int ha_store_job_has_mates(struct ha_store *store, int64_t job, struct ha_error *err)
{
    int64_t result;

    return ha_db_int(store, &result, err,
                     "SELECT result FROM job_cell WHERE job = ? ORDER BY result LIMIT 1 OFFSET 1",
                     "i", job);
}

int ha_store_job_cell_get(struct ha_store *store, int64_t job, int64_t cell, ha_job_cell_fn fn,
                          void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err, CELL_QUERY " AND jc.cell = ?", "ii", job, cell);

    return r < 0 ? r : each_cell(&rows, fn, context, err);
}

int ha_store_job_cell_end(struct ha_store *store, const struct ha_by *by, int64_t job,
                          int64_t result, bool done, const char *reason, struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "UPDATE job_cell SET outcome = ?, reason = ? WHERE job = ? AND result = ?"
                       " AND outcome = 'pending'",
                       "ttii", done ? "done" : "failed", reason, job, result);

    if (r < 0 || ha_db_changes(store) == 0)
        return r;
    return ha_store_result_set(store, by, result, done ? HA_STAGE_DONE : HA_STAGE_FAILED, reason,
                               err);
}

int ha_store_job_cell_counts(struct ha_store *store, int64_t job, struct ha_job_counts *ret_counts,
                             struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT count(*) FILTER (WHERE outcome = 'pending'),"
                         " count(*) FILTER (WHERE outcome = 'done'),"
                         " count(*) FILTER (WHERE outcome = 'failed') FROM job_cell WHERE job = ?",
                         "i", job);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r < 0)
        return r;
    *ret_counts = (struct ha_job_counts){.pending = ha_rows_int(&rows, 0),
                                         .done = ha_rows_int(&rows, 1),
                                         .failed = ha_rows_int(&rows, 2)};
    ha_rows_close(&rows);
    return 0;
}

int ha_store_job_of_result(struct ha_store *store, int64_t result, int64_t *ret_job,
                           struct ha_error *err)
{
    return ha_db_int(store, ret_job, err,
                     "SELECT j.id FROM job_cell jc JOIN job j ON j.id = jc.job WHERE jc.result = ?"
                     " AND jc.outcome = 'pending'"
                     " AND j.state IN ('waiting', 'ready', 'leased', 'running', 'held', 'aside')"
                     " ORDER BY j.id DESC LIMIT 1",
                     "i", result);
}
