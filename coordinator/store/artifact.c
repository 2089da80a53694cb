#include "coordinator/store/artifact.h"

#include "common/base/hash.h"
#include "common/base/utf8.h"
#include "coordinator/store/db.h"

int ha_store_artifact_add(struct ha_store *store, const char *sha256, int64_t size, int64_t now_ms,
                          struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO artifact (sha256, size, created_ms) VALUES (?, ?, ?)"
                      " ON CONFLICT (sha256) DO UPDATE"
                      " SET created_ms = max(created_ms, excluded.created_ms)",
                      "tii", sha256, size, now_ms);
}

int ha_store_artifact_find(struct ha_store *store, const char *sha256, int64_t *ret_size,
                           struct ha_error *err)
{
    int64_t size;
    int r = ha_db_int(store, &size, err, "SELECT size FROM artifact WHERE sha256 = ?", "t", sha256);

    if (r == 1 && ret_size)
        *ret_size = size;
    return r;
}

int ha_store_artifact_each(struct ha_store *store, ha_artifact_fn fn, void *context,
                           struct ha_error *err)
{
    struct ha_rows rows;
    int r =
        ha_rows_open(store, &rows, err, "SELECT sha256, size FROM artifact ORDER BY sha256", "");

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1)
        r = fn(context, ha_rows_text(&rows, 0), ha_rows_int(&rows, 1));
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_product_add(struct ha_store *store, const struct ha_product *p, struct ha_error *err)
{
    if (p->result == 0)
        return ha_db_exec(store, err,
                          "INSERT INTO product (job, number, kind, name, step, sha256, size)"
                          " VALUES (?, ?, ?, ?, ?, ?, ?)"
                          " ON CONFLICT (job, number, kind, name) WHERE result IS NULL DO UPDATE"
                          " SET step = excluded.step, sha256 = excluded.sha256,"
                          " size = excluded.size",
                          "iittiti", p->job, p->number, p->kind, p->name, p->step, p->sha256,
                          p->size);
    return ha_db_exec(store, err,
                      "INSERT INTO product (job, number, result, kind, name, step, sha256, size)"
                      " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                      " ON CONFLICT (result, kind, step, name) WHERE result IS NOT NULL DO UPDATE"
                      " SET job = excluded.job, number = excluded.number,"
                      " sha256 = excluded.sha256, size = excluded.size",
                      "iiittiti", p->job, p->number, p->result, p->kind, p->name, p->step,
                      p->sha256, p->size);
}

int ha_store_stored_bytes(struct ha_store *store, int64_t sweep, int64_t job, int64_t *ret_bytes,
                          char *ret_name, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT s.stored_bytes + r.bytes, s.name FROM sweep s"
                         " JOIN sweep_rows r ON r.sweep = s.id WHERE s.id = CASE WHEN ?1 <> 0"
                         " THEN ?1 ELSE (SELECT sweep FROM job WHERE id = ?2) END",
                         "ii", sweep, job);

    *ret_bytes = 0;
    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 1) {
        *ret_bytes = ha_rows_int(&rows, 0);
        if (ret_name)
            ha_utf8_copy(ret_name, 64, ha_rows_text(&rows, 1));
        ha_rows_close(&rows);
    }
    return r < 0 ? r : 0;
}

int ha_store_count_rows(struct ha_store *store, int64_t job, int64_t judge, int64_t bytes,
                        struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE sweep_rows SET bytes = bytes + ?1 WHERE sweep = CASE WHEN ?2 <> 0"
                      " THEN (SELECT sweep FROM job WHERE id = ?2)"
                      " ELSE (SELECT sweep FROM judge WHERE id = ?3) END",
                      "iii", bytes, job, judge);
}

static int each(struct ha_rows *rows, ha_product_fn fn, void *context, struct ha_error *err)
{
    int r;

    while ((r = ha_rows_next(rows, err)) == 1) {
        struct ha_product product = {
            .job = ha_rows_int(rows, 0),
            .number = ha_rows_int(rows, 1),
            .result = ha_rows_int(rows, 2),
            .kind = ha_rows_text(rows, 3),
            .name = ha_rows_text(rows, 4),
            .step = ha_rows_int(rows, 5),
            .sha256 = ha_rows_text(rows, 6),
            .size = ha_rows_int(rows, 7),
        };

        r = fn(context, &product);
        if (r != 0)
            break;
    }
    ha_rows_close(rows);
    return r < 0 ? r : 0;
}

int ha_store_product_each(struct ha_store *store, int64_t result, const char *kind,
                          ha_product_fn fn, void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT job, number, result, kind, name, step, sha256, size FROM product"
                         " WHERE result = ?1 AND (?2 IS NULL OR kind = ?2)"
                         " ORDER BY kind, step DESC, name",
                         "it", result, kind);

    return r < 0 ? r : each(&rows, fn, context, err);
}

int ha_store_product_each_of_job(struct ha_store *store, int64_t job, ha_product_fn fn,
                                 void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT job, number, 0, kind, name, step, sha256, size FROM product"
                         " WHERE job = ? AND result IS NULL ORDER BY number DESC, kind, name",
                         "i", job);

    return r < 0 ? r : each(&rows, fn, context, err);
}

/* The hash of one checkpoint that is older than the last `keep` steps; its row
 * is deleted.  Returns 1 or 0. */
static int take_old(struct ha_store *store, int64_t result, int64_t keep,
                    char sha256[HA_SHA256_HEX_BYTES], struct ha_error *err)
{
    struct ha_rows rows;
    int64_t id;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, sha256 FROM product WHERE result = ?1 AND kind = 'checkpoint'"
                         " AND step < (SELECT DISTINCT step FROM product WHERE result = ?1"
                         " AND kind = 'checkpoint' ORDER BY step DESC LIMIT 1 OFFSET ?2) LIMIT 1",
                         "ii", result, keep - 1);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r <= 0)
        return r;
    id = ha_rows_int(&rows, 0);
    for (int i = 0; i < HA_SHA256_HEX_BYTES; i++) {
        sha256[i] = ha_rows_text(&rows, 1)[i];
        if (!sha256[i])
            break;
    }
    ha_rows_close(&rows);
    r = ha_db_exec(store, err, "DELETE FROM product WHERE id = ?", "i", id);
    return r < 0 ? r : 1;
}

int ha_store_artifact_release(struct ha_store *store, const char *sha256, ha_orphan_fn fn,
                              void *context, struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "DELETE FROM artifact WHERE sha256 = ?1"
                       " AND NOT EXISTS (SELECT 1 FROM product WHERE sha256 = ?1)"
                       " AND NOT EXISTS (SELECT 1 FROM sweep_file WHERE sha256 = ?1)"
                       " AND NOT EXISTS (SELECT 1 FROM reference WHERE sha256 = ?1)",
                       "t", sha256);

    return r == 0 && ha_db_changes(store) == 1 ? fn(context, sha256) : r;
}

int ha_store_checkpoint_prune(struct ha_store *store, int64_t result, int64_t keep, ha_orphan_fn fn,
                              void *context, struct ha_error *err)
{
    char sha256[HA_SHA256_HEX_BYTES];
    int r;

    while ((r = take_old(store, result, keep, sha256, err)) == 1) {
        r = ha_store_artifact_release(store, sha256, fn, context, err);
        if (r < 0)
            break;
    }
    return r < 0 ? r : 0;
}
