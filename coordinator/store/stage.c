#include "coordinator/store/stage.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/error.h"
#include "coordinator/store/block.h"
#include "coordinator/store/db.h"
#include "coordinator/store/job.h"
#include "coordinator/store/probe.h"
#include "coordinator/store/result.h"

/* The live stage of the cell's slot: 1 and whether its key is the spec's. */
static int find_live(struct ha_store *store, const struct ha_stage_spec *spec, int64_t *ret_stage,
                     bool *ret_same, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, key FROM stage WHERE cell = ? AND kind = ?"
                         " AND ifnull(judge, 0) = ? AND live = 1",
                         "iti", spec->cell, ha_stage_kind_name(spec->kind), spec->judge);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 1) {
        *ret_stage = ha_rows_int(&rows, 0);
        *ret_same = strcmp(ha_rows_text(&rows, 1), spec->key) == 0;
        ha_rows_close(&rows);
    }
    return r;
}

/* The result of the key; made when it is not there (1 in *ret_new). */
static int find_result(struct ha_store *store, const struct ha_stage_spec *spec,
                       int64_t *ret_result, bool *ret_new, struct ha_error *err)
{
    int r =
        ha_db_int(store, ret_result, err, "SELECT id FROM result WHERE key = ?", "t", spec->key);

    *ret_new = r == 0;
    if (r != 0)
        return r < 0 ? r : 0;
    r = ha_db_exec(store, err,
                   "INSERT INTO result (key, kind, parent, state, total)"
                   " VALUES (?, ?, nullif(?, 0), 'waiting', ?)",
                   "ttii", spec->key, ha_stage_kind_name(spec->kind), spec->parent, spec->total);
    if (r < 0)
        return r;
    *ret_result = ha_db_last_id(store);
    return spec->auto_layers == 0
               ? 0
               : ha_store_choice_put(store, *ret_result, spec->auto_layers, spec->measure, err);
}

static int insert_stage(struct ha_store *store, const struct ha_stage_spec *spec, int64_t result,
                        enum ha_stage_state state, int64_t *ret_stage, struct ha_error *err)
{
    int r = ha_db_exec(
        store, err,
        "INSERT INTO stage (sweep, cell, model, kind, judge, key, result, state,"
        " fuse_key, reference_key, shared, cost, shared_bytes, pass_bytes, bytes, live)"
        " VALUES (?, ?, ?, ?, nullif(?, 0), ?, ?, ?, ifnull(?, ''), ifnull(?, ''), ?, ?, ?,"
        " ?, ?, 1)",
        "iiitititttrriii", spec->sweep, spec->cell, spec->model, ha_stage_kind_name(spec->kind),
        spec->judge, spec->key, result, ha_stage_state_name(state), spec->fuse_key,
        spec->reference_key, spec->need.shared, spec->need.cost, spec->need.shared_bytes,
        spec->need.pass_bytes, spec->need.bytes);

    if (r == 0)
        *ret_stage = ha_db_last_id(store);
    if (r == 0 && spec->kind == HA_STAGE_GENERATE && !ha_stage_final(state))
        r = ha_store_block_open_cell(store, spec->model, result, err);
    return r;
}

/* The stage owns the result when no stage that wants it does. */
static int claim(struct ha_store *store, int64_t result, int64_t stage, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE result SET owner = ?1 WHERE id = ?2 AND (owner IS NULL"
                      " OR NOT EXISTS (SELECT 1 FROM stage s WHERE s.id = result.owner"
                      " AND s.live = 1 AND s.state <> 'cancelled'))",
                      "ii", stage, result);
}

static int add_stage(struct ha_store *store, const struct ha_by *by,
                     const struct ha_stage_spec *spec, int64_t *ret_result, struct ha_error *err)
{
    struct ha_result result;
    struct ha_shown shown;
    int64_t id = 0, stage = 0;
    bool new;
    int r = find_result(store, spec, &id, &new, err);

    if (r == 0)
        r = ha_store_result_read(store, id, &result, err);
    if (r < 0)
        return r;
    r = insert_stage(store, spec, id, HA_STAGE_WAITING, &stage, err);
    if (r == 0 && result.state != HA_STAGE_DONE)
        r = claim(store, id, stage, err);
    if (r < 0)
        return r;
    *ret_result = id;
    if (new || result.state == HA_STAGE_FAILED || result.state == HA_STAGE_CANCELLED)
        return ha_store_result_start(store, by, id, err);
    r = ha_store_shown_read(store, stage, &shown, err);
    return r < 0
               ? r
               : ha_store_shown_set(store, by, &shown,
                                    result.state == HA_STAGE_DONE ? HA_STAGE_REUSED : result.state,
                                    true, "", err);
}

/* A stage that was cancelled, or whose result failed, wants it again. */
static int want_again(struct ha_store *store, const struct ha_by *by, const struct ha_shown *shown,
                      struct ha_error *err)
{
    struct ha_result result;
    struct ha_shown waiting;
    enum ha_stage_state state;
    int r = ha_store_shown_set(store, by, shown, HA_STAGE_WAITING, true, "", err);

    if (r == 0)
        r = ha_store_result_read(store, shown->result, &result, err);
    if (r < 0)
        return r;
    if (result.state == HA_STAGE_FAILED || result.state == HA_STAGE_CANCELLED) {
        r = claim(store, shown->result, shown->id, err);
        return r < 0 ? r : ha_store_result_start(store, by, shown->result, err);
    }
    state = result.state;
    if (state == HA_STAGE_DONE && result.owner != shown->id)
        state = HA_STAGE_REUSED;
    r = ha_store_shown_read(store, shown->id, &waiting, err);
    return r < 0 ? r : ha_store_shown_set(store, by, &waiting, state, true, "", err);
}

int ha_store_stage_attach(struct ha_store *store, const struct ha_by *by,
                          const struct ha_stage_spec *spec, int64_t *ret_result,
                          struct ha_error *err)
{
    struct ha_shown shown;
    int64_t stage = 0;
    bool same = false;
    int r = find_live(store, spec, &stage, &same, err);

    if (r < 0)
        return r;
    if (r == 0)
        return add_stage(store, by, spec, ret_result, err);
    if (!same) {
        r = ha_store_stage_retire(store, by, stage, "its settings changed", err);
        return r < 0 ? r : add_stage(store, by, spec, ret_result, err);
    }
    r = ha_store_shown_read(store, stage, &shown, err);
    if (r < 0)
        return r;
    *ret_result = shown.result;
    return shown.state == HA_STAGE_CANCELLED ? want_again(store, by, &shown, err) : 0;
}

int ha_store_stage_cancel(struct ha_store *store, const struct ha_by *by, int64_t stage,
                          const char *reason, struct ha_error *err)
{
    struct ha_shown shown;
    int r = ha_store_shown_read(store, stage, &shown, err);

    if (r < 0 || ha_stage_final(shown.state))
        return r;
    r = ha_store_shown_set(store, by, &shown, HA_STAGE_CANCELLED, true, reason, err);
    return r < 0 ? r : ha_store_result_drop(store, by, shown.result, reason, err);
}

int ha_store_stage_retire(struct ha_store *store, const struct ha_by *by, int64_t stage,
                          const char *reason, struct ha_error *err)
{
    struct ha_shown shown;
    int r = ha_store_shown_read(store, stage, &shown, err);

    if (r < 0)
        return r;
    r = ha_store_shown_set(store, by, &shown,
                           ha_stage_final(shown.state) ? shown.state : HA_STAGE_CANCELLED, false,
                           reason, err);
    return r < 0 ? r : ha_store_result_drop(store, by, shown.result, reason, err);
}

int ha_store_stage_retire_probe(struct ha_store *store, const struct ha_by *by, int64_t cell,
                                const char *reason, struct ha_error *err)
{
    int64_t stage;
    int r =
        ha_db_int(store, &stage, err,
                  "SELECT id FROM stage WHERE cell = ? AND kind = 'probe' AND live = 1", "i", cell);

    return r <= 0 ? r : ha_store_stage_retire(store, by, stage, reason, err);
}

int ha_store_stages_retire_of_cell(struct ha_store *store, const struct ha_by *by, int64_t cell,
                                   const char *reason, struct ha_error *err)
{
    int64_t stage;
    int r;

    while ((r = ha_db_int(store, &stage, err,
                          "SELECT id FROM stage WHERE cell = ? AND live = 1 ORDER BY id DESC"
                          " LIMIT 1",
                          "i", cell)) == 1) {
        r = ha_store_stage_retire(store, by, stage, reason, err);
        if (r < 0)
            break;
    }
    return r;
}

int ha_store_stage_retry(struct ha_store *store, const struct ha_by *by, int64_t stage,
                         struct ha_error *err)
{
    struct ha_shown shown;
    int64_t job, held = 0;
    int r = ha_store_shown_read(store, stage, &shown, err);

    if (r < 0)
        return r;
    if (shown.state == HA_STAGE_FAILED || shown.state == HA_STAGE_CANCELLED) {
        r = want_again(store, by, &shown, err);
        return r < 0 ? r : 1;
    }
    if (ha_stage_final(shown.state) || shown.kind == HA_STAGE_JUDGE)
        return 0;
    r = ha_store_job_of_result(store, shown.result, &job, err);
    if (r > 0)
        r = ha_db_int(store, &held, err,
                      "SELECT id FROM job WHERE id = ? AND state IN ('held', 'aside')", "i", job);
    if (r <= 0)
        return r;
    r = ha_store_job_set_counts(store, job, 0, 0, 0, err);
    if (r == 0)
        r = ha_store_job_set(store, by, job, HA_JOB_READY, "", err);
    return r < 0 ? r : 1;
}

int ha_store_stage_next(struct ha_store *store, int64_t sweep, int64_t cell,
                        enum ha_stage_state state, int64_t after, int64_t *ret_stage,
                        struct ha_error *err)
{
    return ha_db_int(store, ret_stage, err,
                     "SELECT id FROM stage WHERE sweep = ?1 AND state = ?2 AND live = 1"
                     " AND (?3 = 0 OR cell = ?3) AND id > ?4 ORDER BY id LIMIT 1",
                     "itii", sweep, ha_stage_state_name(state), cell, after);
}

/* The next stage in a state; several of these at once would be sorted anew each time. */
#define OF_STATE(name)                                                                             \
    "SELECT id FROM stage INDEXED BY stage_sweep WHERE sweep = ?1 AND state = '" name              \
    "' AND live = 1 AND (?2 = 0 OR cell = ?2) AND id > ?3 ORDER BY id LIMIT 1"

int ha_store_stage_next_retry(struct ha_store *store, int64_t sweep, int64_t cell, int64_t after,
                              int64_t *ret_stage, struct ha_error *err)
{
    return ha_db_int(
        store, ret_stage, err,
        "SELECT id FROM (SELECT * FROM (" OF_STATE(
            "failed") ")"
                      " UNION ALL SELECT * FROM (SELECT s.id FROM job j INDEXED BY job_held"
                      "  CROSS JOIN job_cell jc ON jc.job = j.id"
                      "  CROSS JOIN stage s ON s.result = jc.result"
                      "  WHERE j.state IN ('held', 'aside') AND s.sweep = ?1 AND s.state = 'ready'"
                      "  AND s.live = 1 AND (?2 = 0 OR s.cell = ?2) AND s.id > ?3"
                      "  ORDER BY s.id LIMIT 1)) ORDER BY id LIMIT 1",
        "iii", sweep, cell, after);
}

int ha_store_stage_next_open(struct ha_store *store, int64_t sweep, int64_t cell, int64_t after,
                             int64_t *ret_stage, struct ha_error *err)
{
    return ha_db_int(
        store, ret_stage, err,
        "SELECT id FROM (SELECT * FROM (" OF_STATE(
            "waiting") ")"
                       " UNION ALL SELECT * FROM (" OF_STATE(
                           "ready") ")"
                                    " UNION ALL SELECT * FROM (" OF_STATE(
                                        "leased") ")"
                                                  " UNION ALL SELECT * FROM (" OF_STATE(
                                                      "running") ")) ORDER BY id LIMIT 1",
        "iii", sweep, cell, after);
}

int ha_store_stage_next_retired(struct ha_store *store, int64_t sweep, int64_t *ret_stage,
                                struct ha_error *err)
{
    return ha_db_int(store, ret_stage, err,
                     "SELECT s.id FROM judge j JOIN stage s ON s.sweep = j.sweep"
                     " AND s.judge = j.id WHERE j.sweep = ? AND j.live = 0 AND s.live = 1 LIMIT 1",
                     "i", sweep);
}

int ha_store_stage_grows(struct ha_store *store, int64_t sweep, const char *fuse_key,
                         struct ha_error *err)
{
    int64_t stage;

    return ha_db_int(store, &stage, err,
                     "SELECT id FROM stage INDEXED BY stage_fuse WHERE sweep = ? AND fuse_key = ?"
                     " AND fuse_key <> '' AND state = 'waiting' AND live = 1 LIMIT 1",
                     "it", sweep, fuse_key);
}
