/* model.c - models and data files of a sweep (sweep.h) */
#include "coordinator/store/db.h"
#include "coordinator/store/sweep.h"

int ha_store_model_put(struct ha_store *store, int64_t sweep, const struct ha_model_row *row,
                       int64_t *ret_id, struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "INSERT INTO model (sweep, name, path, hub_id, template, digest,"
                       " tokenizer_digest, layers, family, plan)"
                       " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ifnull(?, ''))"
                       " ON CONFLICT (sweep, name) DO UPDATE SET path = excluded.path,"
                       " hub_id = excluded.hub_id, template = excluded.template,"
                       " digest = excluded.digest, tokenizer_digest = excluded.tokenizer_digest,"
                       " layers = excluded.layers, family = excluded.family,"
                       " plan = excluded.plan",
                       "ittttttitt", sweep, row->name, row->path, row->hub_id, row->prompt_template,
                       row->digest, row->tokenizer_digest, row->layers, row->family, row->plan);

    if (r < 0)
        return r;
    r = ha_db_int(store, ret_id, err, "SELECT id FROM model WHERE sweep = ? AND name = ?", "it",
                  sweep, row->name);
    return r < 0 ? r : 0;
}

int ha_store_model_each(struct ha_store *store, int64_t sweep, ha_model_fn fn, void *context,
                        struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, name, path, hub_id, template, digest, tokenizer_digest,"
                         " family, layers, plan FROM model WHERE sweep = ? ORDER BY id",
                         "i", sweep);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_model_row row = {
            .id = ha_rows_int(&rows, 0),
            .name = ha_rows_text(&rows, 1),
            .path = ha_rows_text(&rows, 2),
            .hub_id = ha_rows_text(&rows, 3),
            .prompt_template = ha_rows_text(&rows, 4),
            .digest = ha_rows_text(&rows, 5),
            .tokenizer_digest = ha_rows_text(&rows, 6),
            .family = ha_rows_text(&rows, 7),
            .layers = ha_rows_int(&rows, 8),
            .plan = ha_rows_text(&rows, 9),
        };

        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_files_clear(struct ha_store *store, int64_t sweep, struct ha_error *err)
{
    return ha_db_exec(store, err, "DELETE FROM sweep_file WHERE sweep = ?", "i", sweep);
}

int ha_store_file_add(struct ha_store *store, int64_t sweep, const struct ha_file_row *row,
                      struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO sweep_file (sweep, split, position, path, sha256, size)"
                      " VALUES (?, ?, ?, ?, ?, ?)",
                      "ititti", sweep, row->split, row->position, row->path, row->sha256,
                      row->size);
}

int ha_store_file_each(struct ha_store *store, int64_t sweep, ha_file_fn fn, void *context,
                       struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT split, position, path, sha256, size FROM sweep_file"
                         " WHERE sweep = ? ORDER BY split, position",
                         "i", sweep);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_file_row row = {
            .split = ha_rows_text(&rows, 0),
            .position = ha_rows_int(&rows, 1),
            .path = ha_rows_text(&rows, 2),
            .sha256 = ha_rows_text(&rows, 3),
            .size = ha_rows_int(&rows, 4),
        };

        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
