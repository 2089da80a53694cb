/* stage_rows.c - the rows of stages, as a page of a status and a comparison of grids read them */
#include "coordinator/store/db.h"
#include "coordinator/store/stage.h"

/* The newest attempt's worker, or the workers that share it now. */
#define WORKER                                                                                     \
    "CASE WHEN j.attempts > 0 THEN ifnull((SELECT group_concat(w.name, '+') FROM part p"           \
    "  JOIN worker w ON w.id = p.worker WHERE p.job = j.id AND p.open = 1),"                       \
    "  (SELECT w.name FROM attempt a JOIN worker w ON w.id = a.worker WHERE a.job = j.id"          \
    "  ORDER BY a.started_ms DESC, a.number DESC LIMIT 1)) END"

#define SHOWN_COLUMNS                                                                              \
    "s.id, s.cell, s.kind, s.state, s.reason, r.id, r.reason, r.done, r.total, r.failed,"          \
    " r.summary, r.started_ms, r.finished_ms"

#define JOB_ROWS                                                                                   \
    ", j.id, j.state, j.attempts, j.not_before_ms, " WORKER ", j.fuse_key, j.stop, j.stop_reason"

#define JUDGE_ROWS ", r.ready, r.leased, u.id, u.name, u.stop, u.samples, u.trouble"

#define OF_JOBS                                                                                    \
    " CROSS JOIN result r ON r.id = s.result LEFT JOIN job j ON j.id = (SELECT job FROM job_cell"  \
    "  WHERE result = s.result ORDER BY job DESC LIMIT 1)"                                         \
    " WHERE s.kind <> 'judge' AND s.live = 1 AND s.sweep = ?1 AND s.cell BETWEEN ?2 AND ?3"

#define OF_JUDGES                                                                                  \
    " CROSS JOIN result r ON r.id = s.result CROSS JOIN judge u ON u.id = s.judge"                 \
    " WHERE s.kind = 'judge' AND s.live = 1 AND s.sweep = ?1 AND s.cell BETWEEN ?2 AND ?3"

#define BY_INDEX " FROM stage s INDEXED BY stage_live"
#define BY_ID " FROM stage s NOT INDEXED"
#define OF_IDS " AND s.id BETWEEN ?4 AND ?5 ORDER BY s.id"

static void read_shown(const struct ha_rows *rows, int64_t sweep, struct ha_stage_row *row)
{
    *row = (struct ha_stage_row){
        .id = ha_rows_int(rows, 0),
        .sweep = sweep,
        .cell = ha_rows_int(rows, 1),
        .kind = HA_STAGE_TRAIN,
        .judge_name = "",
        .judge_stop = "",
        .judge_trouble = "",
        .key = "",
        .state = HA_STAGE_FAILED,
        .reason = ha_rows_text(rows, 4),
        .result = ha_rows_int(rows, 5),
        .done = ha_rows_int(rows, 7),
        .total = ha_rows_int(rows, 8),
        .failed = ha_rows_int(rows, 9),
        .summary = ha_rows_text(rows, 10),
        .started_ms = ha_rows_int(rows, 11),
        .finished_ms = ha_rows_int(rows, 12),
        .job_state = HA_JOB_ASIDE,
        .worker = "",
        .stop_reason = "",
        .fuse_key = "",
    };
    if (!row->reason[0])
        row->reason = ha_rows_text(rows, 6);
    ha_stage_kind_parse(ha_rows_text(rows, 2), &row->kind);
    ha_stage_state_parse(ha_rows_text(rows, 3), &row->state);
}

static void read_job(const struct ha_rows *rows, struct ha_stage_row *row)
{
    row->job = ha_rows_int(rows, 13);
    if (row->job == 0)
        return;
    ha_job_state_parse(ha_rows_text(rows, 14), &row->job_state);
    row->attempts = ha_rows_int(rows, 15);
    row->not_before_ms = ha_rows_int(rows, 16);
    if (row->attempts > 0)
        row->worker = ha_rows_text(rows, 17);
    else if (row->job_state == HA_JOB_READY)
        row->fuse_key = ha_rows_text(rows, 18);
    if (ha_rows_int(rows, 19) != 0)
        row->stop_reason = ha_rows_text(rows, 20);
}

static void read_judge(const struct ha_rows *rows, struct ha_stage_row *row)
{
    row->ready = ha_rows_int(rows, 13);
    row->leased = ha_rows_int(rows, 14);
    row->judge = ha_rows_int(rows, 15);
    row->judge_name = ha_rows_text(rows, 16);
    row->judge_stop = ha_rows_text(rows, 17);
    row->judge_samples = ha_rows_int(rows, 18);
    row->judge_trouble = ha_rows_text(rows, 19);
}

static int each_shown(struct ha_rows *rows, int64_t sweep,
                      void (*read_more)(const struct ha_rows *rows, struct ha_stage_row *row),
                      ha_stage_fn fn, void *context, struct ha_error *err)
{
    int r = 0;

    while (r == 0 && (r = ha_rows_next(rows, err)) == 1) {
        struct ha_stage_row row;

        read_shown(rows, sweep, &row);
        read_more(rows, &row);
        r = fn(context, &row);
    }
    ha_rows_close(rows);
    return r < 0 ? r : 0;
}

struct span {
    int64_t sweep, first_cell, last_cell;
    int64_t count, first, last; /* of the stages: how many, and their ids */
};

/* Do their ids lie together, as they do when a sweep was expanded once? */
static int find_span(struct ha_store *store, struct span *span, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT count(*), ifnull(min(id), 0), ifnull(max(id), 0) FROM stage"
                         " INDEXED BY stage_live WHERE cell BETWEEN ? AND ? AND live = 1",
                         "ii", span->first_cell, span->last_cell);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    span->count = ha_rows_int(&rows, 0);
    span->first = ha_rows_int(&rows, 1);
    span->last = ha_rows_int(&rows, 2);
    ha_rows_close(&rows);
    return span->last - span->first < 2 * span->count;
}

/* Rows one after the other in all three tables are found in half the time of those that are looked
 * for one by one. */
static int open_jobs(struct ha_store *store, const struct span *span, bool together,
                     struct ha_rows *rows, struct ha_error *err)
{
    if (together)
        return ha_rows_open(store, rows, err, "SELECT " SHOWN_COLUMNS JOB_ROWS BY_ID OF_JOBS OF_IDS,
                            "iiiii", span->sweep, span->first_cell, span->last_cell, span->first,
                            span->last);
    return ha_rows_open(store, rows, err, "SELECT " SHOWN_COLUMNS JOB_ROWS BY_INDEX OF_JOBS, "iii",
                        span->sweep, span->first_cell, span->last_cell);
}

static int open_judges(struct ha_store *store, const struct span *span, bool together,
                       struct ha_rows *rows, struct ha_error *err)
{
    if (together)
        return ha_rows_open(
            store, rows, err, "SELECT " SHOWN_COLUMNS JUDGE_ROWS BY_ID OF_JUDGES OF_IDS, "iiiii",
            span->sweep, span->first_cell, span->last_cell, span->first, span->last);
    return ha_rows_open(store, rows, err, "SELECT " SHOWN_COLUMNS JUDGE_ROWS BY_INDEX OF_JUDGES,
                        "iii", span->sweep, span->first_cell, span->last_cell);
}

int ha_store_stage_each_of_cells(struct ha_store *store, int64_t sweep, int64_t first, int64_t last,
                                 ha_stage_fn fn, void *context, struct ha_error *err)
{
    struct span span = {.sweep = sweep, .first_cell = first, .last_cell = last};
    struct ha_rows rows;
    int together = find_span(store, &span, err);
    int r = together < 0 ? together : open_jobs(store, &span, together, &rows, err);

    if (r == 0)
        r = each_shown(&rows, sweep, read_job, fn, context, err);
    if (r == 0)
        r = open_judges(store, &span, together, &rows, err);
    return r < 0 ? r : each_shown(&rows, sweep, read_judge, fn, context, err);
}

int ha_store_stage_each(struct ha_store *store, int64_t cell, ha_stage_fn fn, void *context,
                        struct ha_error *err)
{
    struct ha_rows rows;
    /* Kind by kind, in the order in which they are worked on. */
    int r = ha_rows_open(
        store, &rows, err,
        "SELECT s.id, s.kind, s.key, s.state, ifnull(u.name, '')"
        " FROM (SELECT 'probe' AS kind UNION ALL SELECT 'train' UNION ALL SELECT 'generate'"
        "  UNION ALL SELECT 'judge') k CROSS JOIN stage s INDEXED BY stage_live"
        " LEFT JOIN judge u ON u.id = s.judge WHERE s.cell = ? AND s.kind = k.kind AND s.live = 1",
        "i", cell);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_stage_row row = {.id = ha_rows_int(&rows, 0),
                                   .cell = cell,
                                   .kind = HA_STAGE_TRAIN,
                                   .key = ha_rows_text(&rows, 2),
                                   .state = HA_STAGE_FAILED,
                                   .judge_name = ha_rows_text(&rows, 4)};

        ha_stage_kind_parse(ha_rows_text(&rows, 1), &row.kind);
        ha_stage_state_parse(ha_rows_text(&rows, 3), &row.state);
        r = fn(context, &row);
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
