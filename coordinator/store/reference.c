#include "coordinator/store/reference.h"

#include <stdio.h>

#include "common/base/hash.h"
#include "coordinator/store/db.h"

/* The file of a key, if there is one: its hash; its row is deleted. */
static int take(struct ha_store *store, const char *key, char sha256[HA_SHA256_HEX_BYTES],
                struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err, "SELECT sha256 FROM reference WHERE key = ?", "t", key);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    snprintf(sha256, HA_SHA256_HEX_BYTES, "%s", ha_rows_text(&rows, 0));
    ha_rows_close(&rows);
    r = ha_db_exec(store, err, "DELETE FROM reference WHERE key = ?", "t", key);
    return r < 0 ? r : 1;
}

static int drop(struct ha_store *store, const char *key, ha_orphan_fn fn, void *context,
                struct ha_error *err)
{
    char sha256[HA_SHA256_HEX_BYTES];
    int r = take(store, key, sha256, err);

    return r <= 0 ? r : ha_store_artifact_release(store, sha256, fn, context, err);
}

/* The key that was not used for longest, when there are too many: 1 or 0. */
static int find_oldest(struct ha_store *store, char key[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT key FROM reference WHERE (SELECT count(*) FROM reference) > ?"
                         " ORDER BY used_ms, key LIMIT 1",
                         "i", (int64_t)HA_REFERENCES_KEPT);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    snprintf(key, HA_SHA256_HEX_BYTES, "%s", ha_rows_text(&rows, 0));
    ha_rows_close(&rows);
    return 1;
}

int ha_store_reference_put(struct ha_store *store, const char *key,
                           const struct ha_reference *reference, int64_t now_ms, ha_orphan_fn fn,
                           void *context, struct ha_error *err)
{
    char before[HA_SHA256_HEX_BYTES] = "", oldest[HA_SHA256_HEX_BYTES];
    int r = take(store, key, before, err);

    if (r >= 0)
        r = ha_db_exec(store, err,
                       "INSERT INTO reference (key, name, sha256, size, used_ms)"
                       " VALUES (?, ?, ?, ?, ?)",
                       "tttii", key, reference->name, reference->sha256, reference->size, now_ms);
    if (r == 0 && before[0])
        r = ha_store_artifact_release(store, before, fn, context, err);
    while (r >= 0 && (r = find_oldest(store, oldest, err)) == 1)
        r = drop(store, oldest, fn, context, err);
    return r;
}

int ha_store_reference_use(struct ha_store *store, const char *key, int64_t now_ms,
                           ha_reference_fn fn, void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT name, sha256, size FROM reference WHERE key = ?", "t", key);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    r = fn(context, &(struct ha_reference){.name = ha_rows_text(&rows, 0),
                                           .sha256 = ha_rows_text(&rows, 1),
                                           .size = ha_rows_int(&rows, 2)});
    ha_rows_close(&rows);
    if (r == 0)
        r = ha_db_exec(store, err, "UPDATE reference SET used_ms = ? WHERE key = ?", "it", now_ms,
                       key);
    return r < 0 ? r : 1;
}
