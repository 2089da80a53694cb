#include "coordinator/store/gc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "coordinator/store/db.h"

const char *ha_gc_kind_name(enum ha_gc_kind kind)
{
    static const char *const names[HA_GC_KINDS] = {"files", "checkpoints", "logs", "references"};

    return names[kind];
}

/* Columns: key, sha256, size. */
static int open_files(struct ha_store *store, struct ha_rows *rows, const char *after,
                      int64_t before_ms, struct ha_error *err)
{
    return ha_rows_open(store, rows, err,
                        "SELECT sha256, sha256, size FROM artifact a"
                        " WHERE sha256 > ? AND created_ms < ?"
                        " AND NOT EXISTS (SELECT 1 FROM product p WHERE p.sha256 = a.sha256)"
                        " AND NOT EXISTS (SELECT 1 FROM sweep_file f WHERE f.sha256 = a.sha256)"
                        " AND NOT EXISTS (SELECT 1 FROM reference r WHERE r.sha256 = a.sha256)"
                        " ORDER BY sha256 LIMIT 1",
                        "ti", after, before_ms);
}

static int open_steps(struct ha_store *store, struct ha_rows *rows, int64_t after,
                      int64_t before_ms, struct ha_error *err)
{
    return ha_rows_open(store, rows, err,
                        "SELECT p.id, p.sha256, p.size FROM product p"
                        " JOIN result r ON r.id = p.result"
                        " WHERE p.id > ?1 AND p.kind = 'checkpoint' AND r.finished_ms > 0"
                        " AND r.finished_ms < ?2 AND (r.state = 'done'"
                        " OR (r.state IN ('failed', 'cancelled') AND NOT EXISTS"
                        " (SELECT 1 FROM stage s WHERE s.result = r.id AND s.live = 1)))"
                        " ORDER BY p.id LIMIT 1",
                        "ii", after, before_ms);
}

static int open_logs(struct ha_store *store, struct ha_rows *rows, int64_t after, int64_t before_ms,
                     struct ha_error *err)
{
    return ha_rows_open(store, rows, err,
                        "SELECT p.id, p.sha256, p.size FROM product p JOIN job j ON j.id = p.job"
                        " WHERE p.id > ? AND p.kind = 'log' AND j.state = 'done'"
                        " AND j.finished_ms > 0 AND j.finished_ms < ? ORDER BY p.id LIMIT 1",
                        "ii", after, before_ms);
}

int ha_store_gc_next(struct ha_store *store, enum ha_gc_kind kind, const char *after,
                     int64_t before_ms, struct ha_gc_thing *ret_thing, struct ha_error *err)
{
    int64_t id = strtoll(after, NULL, 10);
    struct ha_rows rows;
    int r;

    switch (kind) {
    case HA_GC_FILES:
        r = open_files(store, &rows, after, before_ms, err);
        break;
    case HA_GC_STEPS:
        r = open_steps(store, &rows, id, before_ms, err);
        break;
    case HA_GC_LOGS:
        r = open_logs(store, &rows, id, before_ms, err);
        break;
    default:
        r = ha_rows_open(store, &rows, err,
                         "SELECT key, sha256, size FROM reference WHERE key > ? AND used_ms < ?"
                         " ORDER BY key LIMIT 1",
                         "ti", after, before_ms);
        break;
    }
    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 1) {
        snprintf(ret_thing->key, sizeof ret_thing->key, "%s", ha_rows_text(&rows, 0));
        snprintf(ret_thing->sha256, sizeof ret_thing->sha256, "%s", ha_rows_text(&rows, 1));
        ret_thing->size = ha_rows_int(&rows, 2);
        ha_rows_close(&rows);
    }
    return r;
}

int ha_store_gc_drop(struct ha_store *store, enum ha_gc_kind kind, const struct ha_gc_thing *thing,
                     ha_orphan_fn fn, void *context, struct ha_error *err)
{
    int64_t id = strtoll(thing->key, NULL, 10);
    int r = 0;

    if (kind == HA_GC_REFERENCES)
        r = ha_db_exec(store, err, "DELETE FROM reference WHERE key = ?", "t", thing->key);
    else if (kind != HA_GC_FILES)
        r = ha_db_exec(store, err, "DELETE FROM product WHERE id = ?", "i", id);
    return r < 0 ? r : ha_store_artifact_release(store, thing->sha256, fn, context, err);
}
