#include "coordinator/store/sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "coordinator/store/db.h"

static const char *const state_names[HA_SWEEP_STATES] = {
    [HA_SWEEP_RUNNING] = "running", [HA_SWEEP_PAUSED] = "paused",       [HA_SWEEP_DONE] = "done",
    [HA_SWEEP_GAPS] = "gaps",       [HA_SWEEP_CANCELLED] = "cancelled",
};

const char *ha_sweep_state_name(enum ha_sweep_state state)
{
    return state_names[state];
}

static const char *const chore_names[HA_CHORES] = {
    [HA_CHORE_NONE] = "",       [HA_CHORE_CANCEL] = "cancel",       [HA_CHORE_REVIVE] = "revive",
    [HA_CHORE_RETRY] = "retry", [HA_CHORE_RETRY_ALL] = "retry_all",
};

static enum ha_sweep_chore parse_chore(const char *name)
{
    for (int i = 0; i < HA_CHORES; i++) {
        if (strcmp(chore_names[i], name) == 0)
            return (enum ha_sweep_chore)i;
    }
    return HA_CHORE_NONE;
}

static enum ha_sweep_state parse_state(const char *name)
{
    for (int i = 0; i < HA_SWEEP_STATES; i++) {
        if (strcmp(state_names[i], name) == 0)
            return (enum ha_sweep_state)i;
    }
    return HA_SWEEP_GAPS; /* the CHECK of the column lets nothing else in */
}

static int insert(struct ha_store *store, const struct ha_by *by, const struct ha_sweep_row *row,
                  struct ha_error *err)
{
    return ha_db_exec(
        store, err,
        "INSERT INTO sweep (name, state, version, expanding, toml, base_dir,"
        " overrides, submit_sha256, data_sha256, priority, seed, budget,"
        " max_attempts, max_failures, wait_when_lost, judge_label, fuse, time_alone_steps,"
        " cells, created_ms)"
        " VALUES (?, 'running', 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "titttttiiriiittiii", row->name, (int64_t)row->expanding, row->toml, row->base_dir,
        row->overrides, row->submit_sha256, row->data_sha256, row->priority, row->seed, row->budget,
        row->max_attempts, row->max_failures, (int64_t)row->wait_when_lost, row->judge_label,
        ha_fuse_mode_name(row->fuse), row->time_alone_steps, row->cells, by->now_ms);
}

/* A grid that is not to be expanded has the cells that are there. */
static int update(struct ha_store *store, const struct ha_sweep_row *row, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE sweep SET version = version + ?1, expanding = max(?1, expanding),"
                      " toml = ?2, base_dir = ?3, overrides = ?4, submit_sha256 = ?5,"
                      " data_sha256 = ?6, priority = ?7, seed = ?8, budget = ?9,"
                      " max_attempts = ?10, max_failures = ?11, wait_when_lost = ?12,"
                      " judge_label = ?13, fuse = ?14, time_alone_steps = ?15, cells = ?16"
                      " WHERE id = ?17",
                      "itttttiiriiittiii", (int64_t)row->expanding, row->toml, row->base_dir,
                      row->overrides, row->submit_sha256, row->data_sha256, row->priority,
                      row->seed, row->budget, row->max_attempts, row->max_failures,
                      (int64_t)row->wait_when_lost, row->judge_label, ha_fuse_mode_name(row->fuse),
                      row->time_alone_steps, row->cells, row->id);
}

static int put_needs(struct ha_store *store, int64_t sweep, const struct ha_sweep_row *row,
                     struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE sweep SET need_labels = ?, need_cpus = ?, need_memory_bytes = ?,"
                      " need_gpus = ?, need_gpu_memory_bytes = ?, need_nodes = ?, time_limit_s = ?"
                      " WHERE id = ?",
                      "tiiiiiii", row->need.labels ? row->need.labels : "", row->need.cpus,
                      row->need.memory_bytes, row->need.gpus, row->need.gpu_memory_bytes,
                      row->need.nodes > 1 ? row->need.nodes : 1, row->time_limit_s, sweep);
}

int ha_store_sweep_put(struct ha_store *store, const struct ha_by *by,
                       const struct ha_sweep_row *row, int64_t *ret_id, struct ha_error *err)
{
    int64_t id = row->id;
    int r = id == 0 ? insert(store, by, row, err) : update(store, row, err);
    char subject[256];

    if (r < 0)
        return r;
    if (id == 0)
        id = ha_db_last_id(store);
    r = put_needs(store, id, row, err);
    if (r < 0)
        return r;
    snprintf(subject, sizeof subject, "sweep %s", row->name);
    *ret_id = id;
    return ha_store_event_add(store, by,
                              &(struct ha_event){.sweep = id,
                                                 .subject = subject,
                                                 .after = row->id == 0 ? "submitted" : "changed"},
                              err);
}

#define SWEEP_ROWS                                                                                 \
    "SELECT id, name, state, reason, version, expanding, toml, base_dir, overrides,"               \
    " submit_sha256, data_sha256, priority, seed, budget, max_attempts, max_failures,"             \
    " wait_when_lost, judge_label, cells, stages, stages_done, stages_failed,"                     \
    " stages_cancelled, created_ms, finished_ms, chore, fuse, time_alone_steps,"                   \
    " need_labels, need_cpus, need_memory_bytes, need_gpus, need_gpu_memory_bytes,"                \
    " time_limit_s, need_nodes FROM sweep"

/* One condition at a time: an alternative would read all of them. */
static int open_sweeps(struct ha_store *store, int64_t id, const char *name, struct ha_rows *rows,
                       struct ha_error *err)
{
    if (id != 0)
        return ha_rows_open(store, rows, err,
                            SWEEP_ROWS " WHERE id = ?1 AND (?2 IS NULL OR name = ?2)", "it", id,
                            name);
    if (name)
        return ha_rows_open(store, rows, err, SWEEP_ROWS " WHERE name = ?", "t", name);
    return ha_rows_open(store, rows, err, SWEEP_ROWS " ORDER BY id", "");
}

int ha_store_sweep_each(struct ha_store *store, int64_t id, const char *name, ha_sweep_fn fn,
                        void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = open_sweeps(store, id, name, &rows, err);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_sweep_row row = {
            .id = ha_rows_int(&rows, 0),
            .name = ha_rows_text(&rows, 1),
            .state = parse_state(ha_rows_text(&rows, 2)),
            .reason = ha_rows_text(&rows, 3),
            .version = ha_rows_int(&rows, 4),
            .expanding = ha_rows_int(&rows, 5) != 0,
            .toml = ha_rows_text(&rows, 6),
            .base_dir = ha_rows_text(&rows, 7),
            .overrides = ha_rows_text(&rows, 8),
            .submit_sha256 = ha_rows_text(&rows, 9),
            .data_sha256 = ha_rows_text(&rows, 10),
            .priority = ha_rows_int(&rows, 11),
            .seed = ha_rows_int(&rows, 12),
            .budget = ha_rows_real(&rows, 13),
            .max_attempts = ha_rows_int(&rows, 14),
            .max_failures = ha_rows_int(&rows, 15),
            .wait_when_lost = ha_rows_int(&rows, 16) != 0,
            .judge_label = ha_rows_text(&rows, 17),
            .cells = ha_rows_int(&rows, 18),
            .stages = ha_rows_int(&rows, 19),
            .stages_done = ha_rows_int(&rows, 20),
            .stages_failed = ha_rows_int(&rows, 21),
            .stages_cancelled = ha_rows_int(&rows, 22),
            .created_ms = ha_rows_int(&rows, 23),
            .finished_ms = ha_rows_int(&rows, 24),
            .chore = parse_chore(ha_rows_text(&rows, 25)),
            .time_alone_steps = ha_rows_int(&rows, 27),
            .need = {.labels = ha_rows_text(&rows, 28),
                     .cpus = ha_rows_int(&rows, 29),
                     .memory_bytes = ha_rows_int(&rows, 30),
                     .gpus = ha_rows_int(&rows, 31),
                     .gpu_memory_bytes = ha_rows_int(&rows, 32),
                     .nodes = ha_rows_int(&rows, 34)},
            .time_limit_s = ha_rows_int(&rows, 33),
        };

        ha_fuse_mode_parse(ha_rows_text(&rows, 26), &row.fuse);

        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_sweep_id(struct ha_store *store, const char *name, int64_t *ret_id,
                      struct ha_error *err)
{
    char *end;
    long long number;
    int r = ha_db_int(store, ret_id, err, "SELECT id FROM sweep WHERE name = ?", "t", name);

    if (r != 0)
        return r;
    number = strtoll(name, &end, 10);
    if (*end || end == name)
        return 0;
    return ha_db_int(store, ret_id, err, "SELECT id FROM sweep WHERE id = ?", "i", (int64_t)number);
}

int ha_store_sweep_only(struct ha_store *store, int64_t *ret_id, struct ha_error *err)
{
    return ha_db_int(store, ret_id, err, "SELECT max(id) FROM sweep HAVING count(*) = 1", "");
}

int ha_store_sweep_set_state(struct ha_store *store, const struct ha_by *by, int64_t sweep,
                             enum ha_sweep_state state, const char *reason, struct ha_error *err)
{
    struct ha_rows rows;
    char subject[256], before[16];
    bool ends = state != HA_SWEEP_RUNNING && state != HA_SWEEP_PAUSED;
    int r =
        ha_rows_open(store, &rows, err, "SELECT name, state FROM sweep WHERE id = ?", "i", sweep);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ENOENT, "sweep %" PRId64 " does not exist", sweep);
    snprintf(subject, sizeof subject, "sweep %s", ha_rows_text(&rows, 0));
    snprintf(before, sizeof before, "%s", ha_rows_text(&rows, 1));
    ha_rows_close(&rows);
    r = ha_db_exec(store, err,
                   "UPDATE sweep SET state = ?, reason = ?, finished_ms = ? WHERE id = ?", "ttii",
                   state_names[state], reason, ends ? by->now_ms : (int64_t)0, sweep);
    if (r < 0 || strcmp(before, state_names[state]) == 0)
        return r;
    return ha_store_event_add(store, by,
                              &(struct ha_event){.sweep = sweep,
                                                 .subject = subject,
                                                 .before = before,
                                                 .after = state_names[state],
                                                 .reason = reason},
                              err);
}

int ha_store_sweep_set_chore(struct ha_store *store, int64_t sweep, enum ha_sweep_chore chore,
                             struct ha_error *err)
{
    return ha_db_exec(store, err, "UPDATE sweep SET chore = ? WHERE id = ?", "ti",
                      chore_names[chore], sweep);
}

int ha_store_sweep_set_expanded(struct ha_store *store, int64_t sweep, int64_t cells,
                                struct ha_error *err)
{
    return ha_db_exec(store, err, "UPDATE sweep SET expanding = 0, cells = ? WHERE id = ?", "ii",
                      cells, sweep);
}

/* As in the index sweep_unsettled. */
#define SHOULD_BE                                                                                  \
    "CASE WHEN stages > stages_done + stages_failed + stages_cancelled THEN 'running'"             \
    " WHEN stages_failed + stages_cancelled = 0 THEN 'done' ELSE 'gaps' END"

/* One sweep whose state is not what its counts say: its id and state to be. */
static int next_unsettled(struct ha_store *store, int64_t *ret_sweep,
                          enum ha_sweep_state *ret_state, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, " SHOULD_BE " FROM sweep INDEXED BY sweep_unsettled"
                         " WHERE state IN ('running', 'done', 'gaps') AND expanding = 0"
                         " AND state <> " SHOULD_BE " LIMIT 1",
                         "");

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    *ret_sweep = ha_rows_int(&rows, 0);
    *ret_state = parse_state(ha_rows_text(&rows, 1));
    ha_rows_close(&rows);
    return 1;
}

int ha_store_sweep_settle(struct ha_store *store, const struct ha_by *by, ha_sweep_fn fn,
                          void *context, struct ha_error *err)
{
    enum ha_sweep_state state;
    int64_t sweep;
    int r;

    while ((r = next_unsettled(store, &sweep, &state, err)) == 1) {
        r = ha_store_sweep_set_state(store, by, sweep, state, "", err);
        if (r == 0 && fn && state != HA_SWEEP_RUNNING)
            r = ha_store_sweep_each(store, sweep, NULL, fn, context, err);
        if (r < 0)
            break;
    }
    return r;
}

int ha_store_sweep_next_failing(struct ha_store *store, int64_t after, int64_t *ret_sweep,
                                int64_t *ret_failed, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, cells_failed FROM (SELECT w.id, w.max_failures,"
                         " (SELECT count(DISTINCT cell) FROM stage WHERE sweep = w.id"
                         "  AND state = 'failed' AND live = 1 AND kind <> 'probe') AS cells_failed"
                         " FROM sweep w INDEXED BY sweep_failing"
                         " WHERE w.id > ? AND w.state = 'running' AND w.chore = ''"
                         " AND w.max_failures > 0 AND w.stages_failed >= w.max_failures"
                         " AND w.stages > w.stages_done + w.stages_failed + w.stages_cancelled)"
                         " WHERE cells_failed >= max_failures ORDER BY id LIMIT 1",
                         "i", after);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    *ret_sweep = ha_rows_int(&rows, 0);
    *ret_failed = ha_rows_int(&rows, 1);
    ha_rows_close(&rows);
    return 1;
}

int ha_store_sweep_money(struct ha_store *store, int64_t sweep, struct ha_money *ret_money,
                         struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT ifnull(sum(j.spent), 0.0), ifnull(sum(j.reserved), 0.0), w.budget,"
                         " ifnull(sum(j.budget), 0.0), ifnull(sum(j.possibly_paid), 0)"
                         " FROM sweep w LEFT JOIN judge j ON j.sweep = w.id WHERE w.id = ?",
                         "i", sweep);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    *ret_money = (struct ha_money){
        .spent = ha_rows_real(&rows, 0),
        .reserved = ha_rows_real(&rows, 1),
        .budget = ha_rows_real(&rows, 2) > 0 ? ha_rows_real(&rows, 2) : ha_rows_real(&rows, 3),
        .possibly_paid = ha_rows_int(&rows, 4),
    };
    ha_rows_close(&rows);
    return 1;
}
