/* result.c - states of results: the stages that show them, and what follows (stage.h) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/utf8.h"
#include "coordinator/store/block.h"
#include "coordinator/store/db.h"
#include "coordinator/store/item.h"
#include "coordinator/store/job.h"
#include "coordinator/store/probe.h"
#include "coordinator/store/result.h"

/* ---- one stage -------------------------------------------------------------- */

int ha_store_shown_read(struct ha_store *store, int64_t stage, struct ha_shown *ret_shown,
                        struct ha_error *err)
{
    struct ha_rows rows;
    const char *judge;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT s.id, s.sweep, s.cell, s.model, s.kind, ifnull(s.judge, 0),"
                         " s.state, s.result, s.live, c.name, ifnull(j.name, '') FROM stage s"
                         " JOIN cell c ON c.id = s.cell LEFT JOIN judge j ON j.id = s.judge"
                         " WHERE s.id = ?",
                         "i", stage);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ENOENT, "stage %" PRId64 " does not exist", stage);
    *ret_shown = (struct ha_shown){
        .id = ha_rows_int(&rows, 0),
        .sweep = ha_rows_int(&rows, 1),
        .cell = ha_rows_int(&rows, 2),
        .model = ha_rows_int(&rows, 3),
        .judge = ha_rows_int(&rows, 5),
        .result = ha_rows_int(&rows, 7),
        .live = ha_rows_int(&rows, 8) != 0,
        .state = HA_STAGE_FAILED,
    };
    ha_stage_kind_parse(ha_rows_text(&rows, 4), &ret_shown->kind);
    ha_stage_state_parse(ha_rows_text(&rows, 6), &ret_shown->state);
    judge = ha_rows_text(&rows, 10);
    snprintf(ret_shown->subject, sizeof ret_shown->subject, "cell %s %s%s%s",
             ha_rows_text(&rows, 9), ha_stage_kind_name(ret_shown->kind), judge[0] ? ":" : "",
             judge);
    ha_rows_close(&rows);
    return 0;
}

/* A generate stage that becomes open or final changes which prompts all cells
 * of its model have answered. */
static int count_open(struct ha_store *store, const struct ha_shown *shown, bool open,
                      struct ha_error *err)
{
    bool was_open = shown->live && !ha_stage_final(shown->state);

    if (shown->kind != HA_STAGE_GENERATE || open == was_open)
        return 0;
    return open ? ha_store_block_open_cell(store, shown->model, shown->result, err)
                : ha_store_block_close_cell(store, shown->model, shown->result, err);
}

int ha_store_shown_set(struct ha_store *store, const struct ha_by *by, const struct ha_shown *shown,
                       enum ha_stage_state state, bool live, const char *reason,
                       struct ha_error *err)
{
    int r = ha_db_exec(store, err, "UPDATE stage SET state = ?, reason = ?, live = ? WHERE id = ?",
                       "ttii", ha_stage_state_name(state), reason, (int64_t)live, shown->id);

    if (r < 0)
        return r;
    if (state != shown->state || live != shown->live)
        r = ha_store_event_add(store, by,
                               &(struct ha_event){.sweep = shown->sweep,
                                                  .subject = shown->subject,
                                                  .before = ha_stage_state_name(shown->state),
                                                  .after = ha_stage_state_name(state),
                                                  .reason = reason},
                               err);
    return r < 0 ? r : count_open(store, shown, live && !ha_stage_final(state), err);
}

/* ---- one result --------------------------------------------------------------- */

int ha_store_result_read(struct ha_store *store, int64_t result, struct ha_result *ret_result,
                         struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT kind, state, ifnull(parent, 0), ifnull(owner, 0), total, done,"
                         " failed, cancelled FROM result WHERE id = ?",
                         "i", result);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ENOENT, "result %" PRId64 " does not exist", result);
    *ret_result = (struct ha_result){
        .id = result,
        .kind = HA_STAGE_TRAIN,
        .state = HA_STAGE_FAILED,
        .parent = ha_rows_int(&rows, 2),
        .owner = ha_rows_int(&rows, 3),
        .total = ha_rows_int(&rows, 4),
        .done = ha_rows_int(&rows, 5),
        .failed = ha_rows_int(&rows, 6),
        .cancelled = ha_rows_int(&rows, 7),
    };
    ha_stage_kind_parse(ha_rows_text(&rows, 0), &ret_result->kind);
    ha_stage_state_parse(ha_rows_text(&rows, 1), &ret_result->state);
    ha_rows_close(&rows);
    return 0;
}

static int update_row(struct ha_store *store, const struct ha_by *by, int64_t result,
                      enum ha_stage_state state, const char *reason, struct ha_error *err)
{
    bool runs = state == HA_STAGE_LEASED || state == HA_STAGE_RUNNING;

    return ha_db_exec(store, err,
                      "UPDATE result SET state = ?1, reason = ?2,"
                      " started_ms = CASE WHEN started_ms = 0 AND ?3 THEN ?5 ELSE started_ms END,"
                      " finished_ms = CASE WHEN ?4 THEN ?5 ELSE 0 END WHERE id = ?6",
                      "ttiiii", ha_stage_state_name(state), reason, (int64_t)runs,
                      (int64_t)ha_stage_final(state), by->now_ms, result);
}

/* The next live stage that shows the result, after an id. */
static int next_shown(struct ha_store *store, int64_t result, int64_t after, int64_t *ret_stage,
                      struct ha_error *err)
{
    return ha_db_int(store, ret_stage, err,
                     "SELECT id FROM stage WHERE result = ? AND id > ? AND live = 1"
                     " AND state <> 'cancelled' ORDER BY id LIMIT 1",
                     "ii", result, after);
}

static int show(struct ha_store *store, const struct ha_by *by, const struct ha_result *result,
                enum ha_stage_state state, const char *reason, struct ha_error *err)
{
    int64_t stage = 0;
    int r;

    while ((r = next_shown(store, result->id, stage, &stage, err)) == 1) {
        struct ha_shown shown;
        bool reused = state == HA_STAGE_DONE && stage != result->owner;

        r = ha_store_shown_read(store, stage, &shown, err);
        if (r == 0)
            r = ha_store_shown_set(store, by, &shown, reused ? HA_STAGE_REUSED : state, true,
                                   reason, err);
        if (r < 0)
            break;
    }
    return r;
}

/* ---- what follows ----------------------------------------------------------------- */

static int next_child(struct ha_store *store, int64_t parent, int64_t after, int64_t *ret_child,
                      struct ha_error *err)
{
    return ha_db_int(store, ret_child, err,
                     "SELECT id FROM result WHERE parent = ? AND id > ? ORDER BY id LIMIT 1", "ii",
                     parent, after);
}

/* Why nothing can be made from a result that has none of its own. */
static const char *failure_of(enum ha_stage_kind kind)
{
    return kind == HA_STAGE_PROBE ? "the probe failed" : "training failed";
}

/* What is made from a probe's norms gets its layers.  Norms that do not allow it
 * are a failure of the child: *ret_state and why say so then. */
static int choose_layers(struct ha_store *store, const struct ha_result *parent, int64_t child,
                         enum ha_stage_state *ret_state, struct ha_error *why, struct ha_error *err)
{
    int r =
        parent->kind == HA_STAGE_PROBE ? ha_store_choice_make(store, child, parent->id, why) : 0;

    if (r == -EINVAL)
        *ret_state = HA_STAGE_FAILED;
    else if (r < 0)
        return ha_error_set(err, -r, "%s", why->text);
    return 0;
}

/* A train result whose norms are there, or a generate result whose adapter is, or
 * will never be. */
static int child_follows(struct ha_store *store, const struct ha_by *by,
                         const struct ha_result *parent, int64_t child, enum ha_stage_state state,
                         const char *reason, struct ha_error *err)
{
    struct ha_result result;
    struct ha_error why = {0};
    char text[HA_ERROR_TEXT_BYTES];
    int64_t job;
    int r = ha_store_result_read(store, child, &result, err);

    if (r < 0 || result.state != HA_STAGE_WAITING)
        return r;
    ha_error_set(&why, EIO, "%s: %s", failure_of(parent->kind), reason);
    if (state == HA_STAGE_DONE)
        r = choose_layers(store, parent, child, &state, &why, err);
    if (r < 0)
        return r;
    ha_utf8_copy(text, sizeof text, why.text);
    r = ha_store_job_of_result(store, child, &job, err);
    if (r <= 0)
        return r < 0 ? r : ha_store_result_set(store, by, child, HA_STAGE_FAILED, text, err);
    return state == HA_STAGE_DONE ? ha_store_job_set(store, by, job, HA_JOB_READY, "", err)
                                  : ha_store_job_set(store, by, job, HA_JOB_FAILED, text, err);
}

static int follow(struct ha_store *store, const struct ha_by *by, const struct ha_result *result,
                  enum ha_stage_state state, const char *reason, struct ha_error *err)
{
    int64_t child = 0;
    int r;

    if (result->kind == HA_STAGE_JUDGE || !ha_stage_final(state))
        return 0;
    while ((r = next_child(store, result->id, child, &child, err)) == 1) {
        r = result->kind == HA_STAGE_GENERATE
                ? ha_store_result_settle(store, by, child, err)
                : child_follows(store, by, result, child, state, reason, err);
        if (r < 0)
            break;
    }
    return r;
}

int ha_store_result_set(struct ha_store *store, const struct ha_by *by, int64_t id,
                        enum ha_stage_state state, const char *reason, struct ha_error *err)
{
    struct ha_result result;
    int r = ha_store_result_read(store, id, &result, err);

    if (r == 0)
        r = update_row(store, by, id, state, reason, err);
    if (r == 0)
        r = show(store, by, &result, state, reason, err);
    return r < 0 ? r : follow(store, by, &result, state, reason, err);
}

/* Why a judge result has gaps. */
static int gap_reason(struct ha_store *store, const struct ha_result *result, bool answers,
                      char text[HA_ERROR_TEXT_BYTES], struct ha_error *err)
{
    struct ha_error why;
    struct ha_rows rows;
    int r;

    if (!answers && result->failed == 0) {
        snprintf(text, HA_ERROR_TEXT_BYTES, "generation ended without all answers");
        return 0;
    }
    r = ha_rows_open(store, &rows, err,
                     "SELECT fault FROM item WHERE result = ? AND state = 'failed'"
                     " ORDER BY id DESC LIMIT 1",
                     "i", result->id);
    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r < 0)
        return r;
    ha_error_set(&why, EIO, "%" PRId64 " of %" PRId64 " answers have no scores; the last one: %s",
                 result->failed + result->cancelled, result->total,
                 r ? ha_rows_text(&rows, 0) : "");
    ha_utf8_copy(text, HA_ERROR_TEXT_BYTES, why.text);
    ha_rows_close(&rows);
    return 0;
}

int ha_store_result_settle(struct ha_store *store, const struct ha_by *by, int64_t id,
                           struct ha_error *err)
{
    struct ha_result result, parent;
    char reason[HA_ERROR_TEXT_BYTES] = "";
    bool answers, complete;
    int r = ha_store_result_read(store, id, &result, err);

    if (r < 0 || (ha_stage_final(result.state) && result.state != HA_STAGE_FAILED))
        return r;
    r = ha_store_result_read(store, result.parent, &parent, err);
    if (r < 0 || !ha_stage_final(parent.state) ||
        result.done + result.failed + result.cancelled < result.total)
        return r;
    answers = parent.state == HA_STAGE_DONE;
    complete = answers && result.done == result.total;
    if (!complete && result.state == HA_STAGE_FAILED)
        return 0; /* only a late score mends a failure */
    if (!complete)
        r = gap_reason(store, &result, answers, reason, err);
    if (r < 0)
        return r;
    return ha_store_result_set(store, by, id, complete ? HA_STAGE_DONE : HA_STAGE_FAILED, reason,
                               err);
}

int ha_store_result_progress(struct ha_store *store, int64_t result, int64_t done, int64_t total,
                             struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE result SET done = max(done, ?1), total = max(total, ?2)"
                      " WHERE id = ?3",
                      "iii", done, total, result);
}

int ha_store_result_summary(struct ha_store *store, int64_t result, const char *summary,
                            const char *adapter_sha256, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE result SET summary = ?, adapter_sha256 = ?,"
                      " total = CASE WHEN kind = 'judge' THEN total ELSE done END WHERE id = ?",
                      "tti", summary, adapter_sha256, result);
}

/* ---- who wants it --------------------------------------------------------------- */

/* The job follows to the other sweep, unless it has cells that stay. */
static int move_job(struct ha_store *store, const struct ha_by *by, const struct ha_shown *to,
                    struct ha_error *err)
{
    struct ha_job_counts counts;
    int64_t job;
    int r = ha_store_job_of_result(store, to->result, &job, err);

    if (r <= 0)
        return r;
    r = ha_store_job_cell_counts(store, job, &counts, err);
    if (r < 0)
        return r;
    if (counts.pending > 1)
        return ha_store_job_detach(store, by, job, to->result, to->sweep, to->cell,
                                   "another sweep goes on with it", err);
    return ha_db_exec(store, err,
                      "UPDATE job SET sweep = ?1,"
                      " priority = (SELECT priority FROM sweep WHERE id = ?1) WHERE id = ?2",
                      "ii", to->sweep, job);
}

/* Give the result to another stage that wants it: 1; 0 when none does. */
static int move_owner(struct ha_store *store, const struct ha_by *by,
                      const struct ha_result *result, struct ha_error *err)
{
    struct ha_shown shown;
    int64_t stage = 0;
    int r = next_shown(store, result->id, 0, &stage, err);

    if (r <= 0)
        return r;
    r = ha_store_shown_read(store, stage, &shown, err);
    if (r == 0)
        r = ha_db_exec(store, err, "UPDATE result SET owner = ? WHERE id = ?", "ii", stage,
                       result->id);
    if (r == 0 && result->kind == HA_STAGE_JUDGE)
        r = ha_store_items_move(store, result->id, shown.judge, shown.model, err);
    else if (r == 0)
        r = move_job(store, by, &shown, err);
    return r < 0 ? r : 1;
}

static int cancel_work(struct ha_store *store, const struct ha_by *by,
                       const struct ha_result *result, const char *reason, struct ha_error *err)
{
    struct ha_job_counts counts = {0};
    int64_t job;
    int r = update_row(store, by, result->id, HA_STAGE_CANCELLED, reason, err);

    if (r < 0)
        return r;
    if (result->kind == HA_STAGE_JUDGE)
        return ha_store_items_cancel(store, result->id, err);
    r = ha_store_job_of_result(store, result->id, &job, err);
    if (r <= 0)
        return r;
    r = ha_db_exec(store, err,
                   "UPDATE job_cell SET outcome = 'failed', reason = ? WHERE job = ?"
                   " AND result = ? AND outcome = 'pending'",
                   "tii", reason, job, result->id);
    if (r == 0)
        r = ha_store_job_cell_counts(store, job, &counts, err);
    if (r < 0)
        return r;
    return counts.pending > 0
               ? ha_store_job_set_stop(store, by, job, HA_STOP_CELL,
                                       "to go on without a cell that was cancelled", err)
               : ha_store_job_set(store, by, job, HA_JOB_CANCELLED, reason, err);
}

int ha_store_result_drop(struct ha_store *store, const struct ha_by *by, int64_t id,
                         const char *reason, struct ha_error *err)
{
    struct ha_result result;
    int r = ha_store_result_read(store, id, &result, err);

    if (r < 0)
        return r;
    r = move_owner(store, by, &result, err);
    if (r != 0 || ha_stage_final(result.state))
        return r < 0 ? r : 0;
    return cancel_work(store, by, &result, reason, err);
}

/* Model by model; the probe, which others wait for, first; then, where cells
 * answer together, training. */
static int64_t turn_of(enum ha_stage_kind kind, int64_t model, bool apart)
{
    if (kind == HA_STAGE_PROBE)
        return model * 8;
    return model * 8 + (apart || kind == HA_STAGE_TRAIN ? 2 : 4);
}

static int add_job(struct ha_store *store, const struct ha_by *by, const struct ha_result *result,
                   enum ha_stage_state state, struct ha_error *err)
{
    struct ha_rows rows;
    struct ha_job_row row;
    int64_t cell, job;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT s.sweep, s.cell, w.priority, m.digest, s.fuse_key, s.model,"
                         " w.fuse = 'never' FROM stage s"
                         " JOIN sweep w ON w.id = s.sweep JOIN model m ON m.id = s.model"
                         " WHERE s.id = ?",
                         "i", result->owner);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ENOENT, "a result has no owner");
    row = (struct ha_job_row){
        .sweep = ha_rows_int(&rows, 0),
        .kind = result->kind,
        .model_digest = ha_rows_text(&rows, 3),
        .state = state == HA_STAGE_READY ? HA_JOB_READY : HA_JOB_WAITING,
        .priority = ha_rows_int(&rows, 2),
        .fuse_key = ha_rows_text(&rows, 4),
        .turn = turn_of(result->kind, ha_rows_int(&rows, 5), ha_rows_int(&rows, 6) != 0),
    };
    cell = ha_rows_int(&rows, 1);
    r = ha_store_job_add(store, by, &row, result->id, cell, &job, err);
    ha_rows_close(&rows);
    return r;
}

static int start_job(struct ha_store *store, const struct ha_by *by, const struct ha_result *result,
                     struct ha_error *err)
{
    struct ha_result parent = {.state = HA_STAGE_DONE};
    struct ha_error why = {0};
    enum ha_stage_state state;
    int r = result->parent ? ha_store_result_read(store, result->parent, &parent, err) : 0;

    if (r < 0)
        return r;
    ha_error_set(&why, EIO, "%s", failure_of(parent.kind));
    if (result->parent && parent.state == HA_STAGE_DONE)
        r = choose_layers(store, &parent, result->id, &parent.state, &why, err);
    if (r < 0)
        return r;
    if (parent.state == HA_STAGE_FAILED || parent.state == HA_STAGE_CANCELLED)
        return ha_store_result_set(store, by, result->id, HA_STAGE_FAILED, why.text, err);
    state = parent.state == HA_STAGE_DONE ? HA_STAGE_READY : HA_STAGE_WAITING;
    r = add_job(store, by, result, state, err);
    return r < 0 ? r : ha_store_result_set(store, by, result->id, state, "", err);
}

int ha_store_result_start(struct ha_store *store, const struct ha_by *by, int64_t id,
                          struct ha_error *err)
{
    struct ha_result result;
    int r = ha_store_result_read(store, id, &result, err);

    if (r < 0)
        return r;
    if (result.kind != HA_STAGE_JUDGE)
        return start_job(store, by, &result, err);
    r = ha_store_result_set(store, by, id, HA_STAGE_WAITING, "", err);
    if (r == 0)
        r = ha_store_items_restore(store, id, err);
    if (r == 0)
        r = ha_store_items_fill(store, by, id, 0, err);
    return r < 0 ? r : ha_store_result_settle(store, by, id, err);
}

int ha_store_result_each_record(struct ha_store *store, int64_t limit, ha_result_record_fn fn,
                                void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r =
        ha_rows_open(store, &rows, err,
                     "SELECT worker, kind, summary FROM (SELECT r.id, r.kind, r.summary,"
                     " r.finished_ms, (SELECT a.worker FROM job_cell c JOIN attempt a"
                     "  ON a.job = c.job WHERE c.result = r.id AND c.outcome = 'done'"
                     "  ORDER BY a.started_ms DESC LIMIT 1) AS worker"
                     " FROM result r INDEXED BY result_record WHERE r.kind IN ('train', 'generate')"
                     " AND r.state = 'done' AND r.summary <> ''"
                     " ORDER BY r.finished_ms DESC, r.id DESC LIMIT ?)"
                     " WHERE worker IS NOT NULL ORDER BY finished_ms, id",
                     "i", limit);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        enum ha_stage_kind kind;

        r = 0;
        if (ha_stage_kind_parse(ha_rows_text(&rows, 1), &kind))
            r = fn(context, ha_rows_int(&rows, 0), kind, ha_rows_text(&rows, 2));
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
