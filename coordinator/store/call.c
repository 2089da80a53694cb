#include "coordinator/store/call.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/db.h"

struct purse {
    int64_t judge;
    double judge_budget, judge_used; /* spent and reserved */
    double sweep_budget, sweep_used;
    int64_t sweep_bytes;
};

static int read_purse(struct ha_store *store, int64_t item, struct purse *ret_purse,
                      struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT j.id, j.budget, j.spent + j.reserved, w.budget,"
                         " (SELECT sum(spent + reserved) FROM judge WHERE sweep = w.id),"
                         " w.stored_bytes + (SELECT bytes FROM sweep_rows WHERE sweep = w.id)"
                         " FROM item i JOIN judge j ON j.id = i.judge"
                         " JOIN sweep w ON w.id = j.sweep WHERE i.id = ?",
                         "i", item);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ENOENT, "item %" PRId64 " does not exist", item);
    *ret_purse = (struct purse){
        .judge = ha_rows_int(&rows, 0),
        .judge_budget = ha_rows_real(&rows, 1),
        .judge_used = ha_rows_real(&rows, 2),
        .sweep_budget = ha_rows_real(&rows, 3),
        .sweep_used = ha_rows_real(&rows, 4),
        .sweep_bytes = ha_rows_int(&rows, 5),
    };
    ha_rows_close(&rows);
    return 0;
}

int ha_store_call_begin(struct ha_store *store, int64_t item, int64_t epoch, int64_t worker,
                        double reserve, int64_t max_bytes, int64_t now_ms, int64_t *ret_call,
                        struct ha_error *err)
{
    struct purse purse = {0};
    const char *stop = NULL;
    int r = read_purse(store, item, &purse, err);

    if (r < 0)
        return r;
    if ((purse.judge_budget > 0 && purse.judge_used + reserve > purse.judge_budget) ||
        (purse.sweep_budget > 0 && purse.sweep_used + reserve > purse.sweep_budget))
        stop = "the budget is used up; raise it and submit again";
    else if (max_bytes > 0 && purse.sweep_bytes >= max_bytes)
        stop = "the sweep may store no more; raise max_sweep_size in coordinator.toml and submit "
               "again";
    if (stop)
        return ha_db_exec(store, err, "UPDATE judge SET stop = ? WHERE id = ?", "ti", stop,
                          purse.judge);
    r = ha_db_exec(store, err,
                   "INSERT INTO judge_call (item, judge, epoch, worker, state, reserved, begun_ms)"
                   " VALUES (?, ?, ?, ?, 'begun', ?, ?)",
                   "iiiiri", item, purse.judge, epoch, worker, reserve, now_ms);
    if (r < 0)
        return r;
    *ret_call = ha_db_last_id(store);
    r = ha_db_exec(store, err, "UPDATE judge SET reserved = reserved + ? WHERE id = ?", "ri",
                   reserve, purse.judge);
    return r < 0 ? r : 1;
}

struct call {
    int64_t judge;
    char state[16];
    double reserved;
};

static int read_call(struct ha_store *store, int64_t call, int64_t item, struct call *ret_call,
                     struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT judge, state, reserved FROM judge_call WHERE id = ? AND item = ?",
                         "ii", call, item);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    ret_call->judge = ha_rows_int(&rows, 0);
    strncpy(ret_call->state, ha_rows_text(&rows, 1), sizeof ret_call->state - 1);
    ret_call->state[sizeof ret_call->state - 1] = '\0';
    ret_call->reserved = ha_rows_real(&rows, 2);
    ha_rows_close(&rows);
    return 1;
}

/* A call that was possibly paid keeps its reservation until it is known better;
 * money that comes free may let a stopped judge go on. */
static int pay(struct ha_store *store, const struct call *call, double spent, bool possibly_paid,
               struct ha_error *err)
{
    bool was_unknown = strcmp(call->state, "unknown") == 0;
    double release = possibly_paid ? 0 : call->reserved;

    return ha_db_exec(store, err,
                      "UPDATE judge SET spent = spent + ?1, reserved = max(0, reserved - ?2),"
                      " possibly_paid = possibly_paid + ?3,"
                      " stop = CASE WHEN ?2 > ?1 THEN '' ELSE stop END WHERE id = ?4",
                      "rrii", possibly_paid ? 0.0 : spent, release,
                      (int64_t)possibly_paid - (int64_t)was_unknown, call->judge);
}

static int store_raw(struct ha_store *store, int64_t judge, const struct ha_call_reply *reply,
                     struct ha_error *err)
{
    int r;

    if (reply->raw_bytes == 0)
        return 0;
    r = ha_db_exec(store, err, "INSERT INTO judge_raw (call, raw) VALUES (?, ?)", "ib", reply->call,
                   reply->raw, reply->raw_bytes);
    return r < 0 ? r : ha_store_count_rows(store, 0, judge, (int64_t)reply->raw_bytes, err);
}

int ha_store_call_reply(struct ha_store *store, const struct ha_call_reply *reply, int64_t now_ms,
                        enum ha_call_taken *ret_taken, struct ha_error *err)
{
    bool unknown = reply->possibly_paid && reply->raw_bytes == 0;
    struct call call;
    int r = read_call(store, reply->call, reply->item, &call, err);

    if (r < 0)
        return r;
    *ret_taken = r == 0 ? HA_CALL_UNKNOWN : HA_CALL_AGAIN;
    if (r == 0 || strcmp(call.state, "replied") == 0 ||
        (unknown && strcmp(call.state, "begun") != 0))
        return 0;
    r = ha_db_exec(store, err,
                   "UPDATE judge_call SET state = ?, cost = ?, http_status = ?, host = ?,"
                   " latency_ms = ?, prompt_tokens = ?, completion_tokens = ?, error = ?,"
                   " replied_ms = ? WHERE id = ?",
                   "tritiiitii", unknown ? "unknown" : "replied", reply->cost, reply->http_status,
                   reply->host, reply->latency_ms, reply->prompt_tokens, reply->completion_tokens,
                   reply->error, now_ms, reply->call);
    if (r == 0)
        r = store_raw(store, call.judge, reply, err);
    if (r == 0)
        r = pay(store, &call, reply->cost, unknown, err);
    if (r == 0)
        *ret_taken = HA_CALL_TAKEN;
    return r;
}

int ha_store_call_unsent(struct ha_store *store, int64_t id, int64_t item, struct ha_error *err)
{
    struct call call;
    int r = read_call(store, id, item, &call, err);

    if (r <= 0 || strcmp(call.state, "begun") != 0)
        return r < 0 ? r : 0;
    r = ha_db_exec(store, err, "UPDATE judge_call SET state = 'unsent' WHERE id = ?", "i", id);
    return r < 0 ? r : pay(store, &call, 0, false, err);
}

int64_t ha_store_calls_unknown(struct ha_store *store, int64_t item, int64_t epoch,
                               struct ha_error *err)
{
    int64_t count;
    int r = ha_db_exec(store, err,
                       "UPDATE judge SET possibly_paid = possibly_paid + 1 WHERE id IN"
                       " (SELECT judge FROM judge_call WHERE item = ? AND epoch = ?"
                       " AND state = 'begun')",
                       "ii", item, epoch);

    if (r == 0)
        r = ha_db_exec(store, err,
                       "UPDATE judge_call SET state = 'unknown' WHERE item = ? AND epoch = ?"
                       " AND state = 'begun'",
                       "ii", item, epoch);
    count = r == 0 ? ha_db_changes(store) : 0;
    return r < 0 ? r : count;
}

int ha_store_call_outcome(struct ha_store *store, int64_t call, const char *outcome,
                          struct ha_error *err)
{
    return ha_db_exec(store, err, "UPDATE judge_call SET outcome = ? WHERE id = ?", "ti", outcome,
                      call);
}

int ha_store_call_raw(struct ha_store *store, int64_t call, struct ha_buffer *out,
                      struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err, "SELECT raw FROM judge_raw WHERE call = ?", "i", call);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 1) {
        size_t size;
        const void *bytes = ha_rows_blob(&rows, 0, &size);

        r = ha_buffer_append(out, bytes, size);
        r = r < 0 ? ha_error_set(err, -r, "no memory for a stored reply") : 1;
        ha_rows_close(&rows);
    }
    return r;
}

int ha_store_call_open(struct ha_store *store, int64_t item, int64_t epoch, int64_t *ret_call,
                       struct ha_error *err)
{
    return ha_db_int(store, ret_call, err,
                     "SELECT CASE state WHEN 'begun' THEN id ELSE 0 END FROM judge_call"
                     " WHERE item = ? AND epoch = ? ORDER BY id DESC LIMIT 1",
                     "ii", item, epoch);
}

int ha_store_call_replied(struct ha_store *store, int64_t call, int64_t item, struct ha_error *err)
{
    int64_t id;

    return ha_db_int(store, &id, err,
                     "SELECT id FROM judge_call WHERE id = ? AND item = ? AND state = 'replied'",
                     "ii", call, item);
}
