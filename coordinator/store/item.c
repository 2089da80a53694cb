#include "coordinator/store/item.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/block.h"
#include "coordinator/store/db.h"
#include "coordinator/store/stage.h"

/* ---- making them ---------------------------------------------------------------- */

static int fill_sample(struct ha_store *store, int64_t result, int64_t answer, int64_t sample,
                       struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO item (result, answer, sample, judge, model, prompt,"
                      " answer_sample, turn, state)"
                      " SELECT r.id, a.id, ?3, s.judge, s.model, a.prompt, a.sample,"
                      " ha_turn(w.seed, m.name, a.prompt, c.name, a.sample, ?3),"
                      " CASE j.eager WHEN 1 THEN 'ready' ELSE 'blocked' END"
                      " FROM result r JOIN stage s ON s.id = r.owner"
                      " JOIN judge j ON j.id = s.judge JOIN sweep w ON w.id = s.sweep"
                      " JOIN model m ON m.id = s.model JOIN cell c ON c.id = s.cell"
                      " JOIN answer a ON a.result = r.parent"
                      " WHERE r.id = ?1 AND (?2 = 0 OR a.id = ?2) ON CONFLICT DO NOTHING",
                      "iii", result, answer, sample);
}

static int ensure_blocks(struct ha_store *store, int64_t result, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO block (model, prompt, sample, answered)"
                      " SELECT DISTINCT model, prompt, answer_sample, 0 FROM item"
                      " WHERE result = ? AND state = 'blocked' ON CONFLICT DO NOTHING",
                      "i", result);
}

static int read_owner(struct ha_store *store, int64_t result, int64_t *ret_samples,
                      int64_t *ret_model, int64_t *ret_waiting, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT j.samples, s.model, r.state = 'waiting' FROM result r"
                         " JOIN stage s ON s.id = r.owner JOIN judge j ON j.id = s.judge"
                         " WHERE r.id = ?",
                         "i", result);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    *ret_samples = ha_rows_int(&rows, 0);
    *ret_model = ha_rows_int(&rows, 1);
    *ret_waiting = ha_rows_int(&rows, 2);
    ha_rows_close(&rows);
    return 1;
}

int ha_store_items_fill(struct ha_store *store, const struct ha_by *by, int64_t result,
                        int64_t answer, struct ha_error *err)
{
    int64_t samples, model, waiting, made = 0;
    int r = read_owner(store, result, &samples, &model, &waiting, err);

    if (r <= 0)
        return r;
    r = 0;
    for (int64_t sample = 0; r == 0 && sample < samples; sample++) {
        r = fill_sample(store, result, answer, sample, err);
        made += r == 0 ? ha_db_changes(store) : 0;
    }
    if (r == 0 && answer == 0)
        r = ensure_blocks(store, result, err);
    if (r == 0 && answer == 0)
        r = ha_store_block_release(store, model, err);
    if (r == 0 && waiting && made > 0)
        r = ha_store_result_set(store, by, result, HA_STAGE_READY, "", err);
    return r;
}

int ha_store_items_fill_from(struct ha_store *store, const struct ha_by *by, int64_t generate,
                             int64_t answer, struct ha_error *err)
{
    int64_t result = 0;
    int r;

    while ((r = ha_db_int(store, &result, err,
                          "SELECT id FROM result WHERE parent = ? AND id > ?"
                          " AND state IN ('waiting', 'ready', 'leased', 'running')"
                          " ORDER BY id LIMIT 1",
                          "ii", generate, result)) == 1) {
        r = ha_store_items_fill(store, by, result, answer, err);
        if (r < 0)
            break;
    }
    return r;
}

/* ---- moving all of a result ------------------------------------------------------- */

int ha_store_items_restore(struct ha_store *store, int64_t result, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE item SET judge = o.judge, model = o.model, reasks = 0, sends = 0,"
                      " not_before_ms = 0, fault = '',"
                      " state = CASE o.eager WHEN 1 THEN 'ready' ELSE 'blocked' END"
                      " FROM (SELECT s.judge, s.model, j.eager FROM result r"
                      "  JOIN stage s ON s.id = r.owner JOIN judge j ON j.id = s.judge"
                      "  WHERE r.id = ?1) AS o"
                      " WHERE item.result = ?1 AND item.state IN ('failed', 'cancelled')",
                      "i", result);
}

int ha_store_items_cancel(struct ha_store *store, int64_t result, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE item SET state = 'cancelled' WHERE result = ?"
                      " AND state IN ('blocked', 'ready', 'leased')",
                      "i", result);
}

int ha_store_items_move(struct ha_store *store, int64_t result, int64_t judge, int64_t model,
                        struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "UPDATE item SET judge = ?, model = ? WHERE result = ?"
                       " AND state IN ('blocked', 'ready', 'leased')",
                       "iii", judge, model, result);

    if (r == 0)
        r = ensure_blocks(store, result, err);
    return r < 0 ? r : ha_store_block_release(store, model, err);
}

/* ---- reading ------------------------------------------------------------------------ */

static void read_row(const struct ha_rows *rows, struct ha_item_row *row)
{
    *row = (struct ha_item_row){
        .id = ha_rows_int(rows, 0),
        .result = ha_rows_int(rows, 1),
        .answer = ha_rows_int(rows, 2),
        .judge = ha_rows_int(rows, 3),
        .sample = ha_rows_int(rows, 4),
        .state = HA_ITEM_CANCELLED,
        .epoch = ha_rows_int(rows, 6),
        .worker = ha_rows_int(rows, 7),
        .reasks = ha_rows_int(rows, 8),
        .sends = ha_rows_int(rows, 9),
        .unread_call = ha_rows_int(rows, 10),
    };
    ha_item_state_parse(ha_rows_text(rows, 5), &row->state);
}

int ha_store_item_each_ready(struct ha_store *store, int64_t judge, int64_t now_ms,
                             int64_t max_wait_ms, int64_t limit, ha_item_fn fn, void *context,
                             struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT i.id, i.result, i.answer, i.judge, i.sample, i.state, i.epoch,"
                         " ifnull(i.worker, 0), i.reasks, i.sends, i.unread_call, i.fault,"
                         " p.text, a.text FROM item i INDEXED BY item_ready"
                         " JOIN answer a ON a.id = i.answer JOIN prompt p ON p.id = a.prompt_row"
                         " WHERE i.judge = ?1 AND i.state = 'ready'"
                         " AND (i.not_before_ms <= ?2 OR i.not_before_ms > ?3)"
                         " AND NOT EXISTS (SELECT 1 FROM hold h CROSS JOIN result r"
                         "  CROSS JOIN stage s CROSS JOIN cell c"
                         "  WHERE h.sweep = (SELECT sweep FROM judge WHERE id = ?1)"
                         "  AND r.id = i.result AND s.id = r.owner AND c.id = s.cell"
                         "  AND ifnull(h.model, c.model) = c.model"
                         "  AND (h.strategy = '' OR h.strategy = c.strategy))"
                         " ORDER BY i.turn LIMIT ?4",
                         "iiii", judge, now_ms, now_ms + max_wait_ms, limit);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_item_row row;

        read_row(&rows, &row);
        row.fault = ha_rows_text(&rows, 11);
        row.prompt = ha_rows_text(&rows, 12);
        row.text = ha_rows_text(&rows, 13);
        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_item_each_judge(struct ha_store *store, ha_item_judge_fn fn, void *context,
                             struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT j.id FROM judge j JOIN sweep w ON w.id = j.sweep"
                         " WHERE w.state IN ('running', 'done', 'gaps') AND j.stop = '' AND EXISTS"
                         " (SELECT 1 FROM item i WHERE i.judge = j.id AND i.state = 'ready')"
                         " ORDER BY w.priority DESC, j.id",
                         "");

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        r = fn(context, ha_rows_int(&rows, 0));
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_item_get(struct ha_store *store, int64_t item, struct ha_item_row *ret_row,
                      struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, result, answer, judge, sample, state, epoch,"
                         " ifnull(worker, 0), reasks, sends, unread_call FROM item WHERE id = ?",
                         "i", item);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 1) {
        read_row(&rows, ret_row);
        ret_row->fault = ret_row->prompt = ret_row->text = "";
        ha_rows_close(&rows);
    }
    return r;
}

int ha_store_item_next_leased(struct ha_store *store, int64_t worker, int64_t after,
                              int64_t *ret_item, struct ha_error *err)
{
    return ha_db_int(store, ret_item, err,
                     "SELECT id FROM item WHERE worker = ? AND state = 'leased' AND id > ?"
                     " ORDER BY id LIMIT 1",
                     "ii", worker, after);
}

/* ---- changing one --------------------------------------------------------------------- */

int ha_store_item_lease(struct ha_store *store, const struct ha_by *by, int64_t item,
                        int64_t worker, int64_t *ret_epoch, struct ha_error *err)
{
    int64_t result;
    int r = ha_db_exec(store, err,
                       "UPDATE item SET state = 'leased', epoch = epoch + 1, worker = ?"
                       " WHERE id = ? AND state = 'ready'",
                       "ii", worker, item);

    if (r < 0 || ha_db_changes(store) == 0)
        return r;
    r = ha_db_int(store, ret_epoch, err, "SELECT epoch FROM item WHERE id = ?", "i", item);
    if (r > 0)
        r = ha_db_int(store, &result, err,
                      "SELECT r.id FROM item i JOIN result r ON r.id = i.result WHERE i.id = ?"
                      " AND r.state IN ('waiting', 'ready')",
                      "i", item);
    if (r > 0)
        r = ha_store_result_set(store, by, result, HA_STAGE_RUNNING, "", err);
    return r < 0 ? r : 1;
}

static int settle(struct ha_store *store, const struct ha_by *by, int64_t item,
                  struct ha_error *err)
{
    int64_t result;
    int r = ha_db_int(store, &result, err, "SELECT result FROM item WHERE id = ?", "i", item);

    return r < 0 ? r : ha_store_result_settle(store, by, result, err);
}

int ha_store_item_return(struct ha_store *store, const struct ha_by *by, int64_t item,
                         int64_t epoch, const struct ha_item_change *change, struct ha_error *err)
{
    char subject[32];
    int r = ha_db_exec(store, err,
                       "UPDATE item SET state = ?, reasks = ?, sends = ?, not_before_ms = ?,"
                       " fault = ?, unread_call = 0, worker = NULL WHERE id = ? AND epoch = ?"
                       " AND state = 'leased'",
                       "tiiitii", ha_item_state_name(change->state), change->reasks, change->sends,
                       change->not_before_ms, change->fault, item, epoch);

    if (r < 0 || ha_db_changes(store) == 0)
        return r;
    if (change->state == HA_ITEM_FAILED) {
        snprintf(subject, sizeof subject, "item %" PRId64, item);
        r = ha_store_event_add(
            store, by,
            &(struct ha_event){
                .subject = subject, .before = "leased", .after = "failed", .reason = change->fault},
            err);
        if (r == 0)
            r = settle(store, by, item, err);
    }
    return r < 0 ? r : 1;
}

static int dimension_id(struct ha_store *store, const char *name, int64_t *ret_id,
                        struct ha_error *err)
{
    int r = ha_db_int(store, ret_id, err, "SELECT id FROM dimension WHERE name = ?", "t", name);

    if (r != 0)
        return r < 0 ? r : 0;
    r = ha_db_exec(store, err, "INSERT INTO dimension (name) VALUES (?)", "t", name);
    if (r == 0)
        *ret_id = ha_db_last_id(store);
    return r;
}

int ha_store_item_score(struct ha_store *store, const struct ha_by *by, int64_t item,
                        const struct ha_item_scores *scores, struct ha_error *err)
{
    int64_t judge = 0, bytes = 0;
    int r = ha_db_exec(store, err,
                       "UPDATE item SET state = 'scored', call = ?, identity = ?, repairs = ?,"
                       " flagged = ?, fault = '', unread_call = 0, worker = NULL WHERE id = ?"
                       " AND state <> 'scored'",
                       "ittii", scores->call, scores->identity, scores->repairs,
                       (int64_t)scores->flagged, item);

    if (r < 0 || ha_db_changes(store) == 0)
        return r;
    for (int64_t i = 0; r == 0 && i < scores->count; i++) {
        int64_t dimension;

        r = dimension_id(store, scores->scores[i].dimension, &dimension, err);
        if (r == 0)
            r = ha_db_exec(store, err,
                           "INSERT INTO score (item, dimension, value, reason)"
                           " VALUES (?, ?, ?, ?)",
                           "iiit", item, dimension, scores->scores[i].value,
                           scores->scores[i].reason);
        bytes += HA_ROW_SCORE + (int64_t)strlen(scores->scores[i].reason);
    }
    if (r == 0)
        r = ha_db_int(store, &judge, err, "SELECT judge FROM item WHERE id = ?", "i", item);
    if (r >= 0)
        r = ha_store_count_rows(store, 0, judge, bytes, err);
    if (r == 0)
        r = settle(store, by, item, err);
    return r < 0 ? r : 1;
}

int ha_store_item_set_unread(struct ha_store *store, int64_t item, int64_t call,
                             struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE item SET unread_call = ? WHERE id = ? AND state <> 'scored'", "ii",
                      call, item);
}
