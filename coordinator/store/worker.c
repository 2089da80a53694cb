#include "coordinator/store/worker.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/store/db.h"

int ha_store_worker_put(struct ha_store *store, const struct ha_worker_row *row, int64_t *ret_id,
                        struct ha_error *err)
{
    const char *role = row->judge ? "judge" : "worker";
    int r = ha_db_exec(store, err,
                       "INSERT INTO worker (role, name, machine, instance, host, backend, version,"
                       " slots, key_name, lost, seen_ms)"
                       " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
                       " ON CONFLICT (role, name) DO UPDATE SET machine = excluded.machine,"
                       " instance = excluded.instance, host = excluded.host,"
                       " backend = excluded.backend, version = excluded.version,"
                       " slots = excluded.slots, key_name = excluded.key_name, lost = 0,"
                       " seen_ms = excluded.seen_ms",
                       "tttttttiti", role, row->name, row->machine, row->instance, row->host,
                       row->backend, row->version, row->slots, row->key, row->seen_ms);

    if (r < 0)
        return r;
    r = ha_db_int(store, ret_id, err, "SELECT id FROM worker WHERE role = ? AND name = ?", "tt",
                  role, row->name);
    return r < 0 ? r : 0;
}

int ha_store_worker_revoked(struct ha_store *store, int64_t worker, int64_t now_ms,
                            struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE worker SET lost = 1, key_name = '', seen_ms = ? WHERE id = ?", "ii",
                      now_ms, worker);
}

int ha_store_worker_lost(struct ha_store *store, int64_t worker, bool lost, int64_t now_ms,
                         struct ha_error *err)
{
    return ha_db_exec(store, err, "UPDATE worker SET lost = ?, seen_ms = ? WHERE id = ?", "iii",
                      (int64_t)lost, now_ms, worker);
}

int ha_store_worker_drain(struct ha_store *store, const struct ha_by *by, int64_t worker,
                          const char *actor, const char *reason, int64_t deadline_ms,
                          struct ha_error *err)
{
    struct ha_rows rows;
    char subject[128] = "";
    int r =
        ha_db_exec(store, err,
                   "UPDATE worker SET drain_actor = ?, drain_reason = ?, drain_since_ms = ?,"
                   " drain_deadline_ms = ? WHERE id = ?",
                   "ttiii", actor, reason, actor[0] ? by->now_ms : (int64_t)0, deadline_ms, worker);

    if (r == 0)
        r = ha_rows_open(store, &rows, err,
                         "SELECT CASE role WHEN 'judge' THEN 'judge worker ' ELSE 'worker ' END ||"
                         " name FROM worker WHERE id = ?",
                         "i", worker);
    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    snprintf(subject, sizeof subject, "%s", ha_rows_text(&rows, 0));
    ha_rows_close(&rows);
    return ha_store_event_add(store, by,
                              &(struct ha_event){.subject = subject,
                                                 .before = actor[0] ? "" : "drained",
                                                 .after = actor[0] ? "drained" : "undrained",
                                                 .reason = reason},
                              err);
}

int ha_store_worker_each(struct ha_store *store, ha_worker_fn fn, void *context,
                         struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, role, name, machine, instance, host, backend, version, slots,"
                         " lost, seen_ms, drain_actor, drain_reason, drain_since_ms,"
                         " drain_deadline_ms, key_name FROM worker ORDER BY id",
                         "");

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_worker_row row = {
            .id = ha_rows_int(&rows, 0),
            .judge = strcmp(ha_rows_text(&rows, 1), "judge") == 0,
            .name = ha_rows_text(&rows, 2),
            .machine = ha_rows_text(&rows, 3),
            .instance = ha_rows_text(&rows, 4),
            .host = ha_rows_text(&rows, 5),
            .backend = ha_rows_text(&rows, 6),
            .version = ha_rows_text(&rows, 7),
            .slots = ha_rows_int(&rows, 8),
            .lost = ha_rows_int(&rows, 9) != 0,
            .seen_ms = ha_rows_int(&rows, 10),
            .drain_actor = ha_rows_text(&rows, 11),
            .drain_reason = ha_rows_text(&rows, 12),
            .drain_since_ms = ha_rows_int(&rows, 13),
            .drain_deadline_ms = ha_rows_int(&rows, 14),
            .key = ha_rows_text(&rows, 15),
        };

        r = fn(context, &row);
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
