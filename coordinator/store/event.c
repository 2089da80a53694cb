#include "coordinator/store/event.h"

#include "coordinator/store/db.h"

int ha_store_event_add(struct ha_store *store, const struct ha_by *by, const struct ha_event *event,
                       struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO event (time_ms, sweep, job, subject, before, after, reason,"
                      " actor) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                      "iiittttt", by->now_ms, event->sweep, event->job, event->subject,
                      event->before ? event->before : "", event->after ? event->after : "",
                      event->reason ? event->reason : "", by->actor);
}

static int open_rows(struct ha_store *store, struct ha_rows *rows, int64_t sweep, int64_t job,
                     int64_t after, int64_t limit, struct ha_error *err)
{
    if (job != 0)
        return ha_rows_open(store, rows, err,
                            "SELECT id, time_ms, subject, before, after, reason, actor FROM event"
                            " WHERE job = ? AND job <> 0 AND id > ? ORDER BY id LIMIT ?",
                            "iii", job, after, limit);
    if (sweep != 0)
        return ha_rows_open(store, rows, err,
                            "SELECT id, time_ms, subject, before, after, reason, actor FROM event"
                            " WHERE sweep = ? AND id > ? ORDER BY id LIMIT ?",
                            "iii", sweep, after, limit);
    return ha_rows_open(store, rows, err,
                        "SELECT id, time_ms, subject, before, after, reason, actor FROM event"
                        " WHERE id > ? ORDER BY id LIMIT ?",
                        "ii", after, limit);
}

int ha_store_event_each(struct ha_store *store, int64_t sweep, int64_t job, int64_t after,
                        int64_t limit, ha_event_fn fn, void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = open_rows(store, &rows, sweep, job, after, limit, err);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_event_row row = {
            .id = ha_rows_int(&rows, 0),
            .time_ms = ha_rows_int(&rows, 1),
            .subject = ha_rows_text(&rows, 2),
            .before = ha_rows_text(&rows, 3),
            .after = ha_rows_text(&rows, 4),
            .reason = ha_rows_text(&rows, 5),
            .actor = ha_rows_text(&rows, 6),
        };

        r = fn(context, &row);
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
