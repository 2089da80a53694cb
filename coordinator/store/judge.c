/* judge.c - the judges of a sweep (sweep.h) */
#include "coordinator/store/db.h"
#include "coordinator/store/sweep.h"

int ha_store_judge_put(struct ha_store *store, int64_t sweep, const struct ha_judge_row *row,
                       int64_t *ret_id, struct ha_error *err)
{
    int r = ha_db_exec(store, err,
                       "INSERT INTO judge (sweep, name, settings, eager, samples, max_reasks,"
                       " max_attempts, budget, live) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)"
                       " ON CONFLICT (sweep, name) DO UPDATE SET settings = excluded.settings,"
                       " eager = excluded.eager, samples = excluded.samples,"
                       " max_reasks = excluded.max_reasks, max_attempts = excluded.max_attempts,"
                       " budget = excluded.budget, stop = '', live = 1",
                       "ittiiiir", sweep, row->name, row->settings, (int64_t)row->eager,
                       row->samples, row->max_reasks, row->max_attempts, row->budget);

    if (r < 0)
        return r;
    r = ha_db_int(store, ret_id, err, "SELECT id FROM judge WHERE sweep = ? AND name = ?", "it",
                  sweep, row->name);
    return r < 0 ? r : 0;
}

int ha_store_judges_retire(struct ha_store *store, int64_t sweep, struct ha_error *err)
{
    return ha_db_exec(store, err, "UPDATE judge SET live = 0 WHERE sweep = ?", "i", sweep);
}

int ha_store_judge_set_trouble(struct ha_store *store, int64_t judge, const char *text,
                               struct ha_error *err)
{
    return ha_db_exec(store, err, "UPDATE judge SET trouble = ?1 WHERE id = ?2 AND trouble <> ?1",
                      "ti", text, judge);
}

int ha_store_judge_each(struct ha_store *store, int64_t sweep, int64_t judge, ha_judge_fn fn,
                        void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT id, sweep, name, settings, eager, samples, max_reasks,"
                         " max_attempts, budget, spent, reserved, possibly_paid, stop, live"
                         " FROM judge WHERE (?1 = 0 OR sweep = ?1) AND (?2 = 0 OR id = ?2)"
                         " ORDER BY id",
                         "ii", sweep, judge);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_judge_row row = {
            .id = ha_rows_int(&rows, 0),
            .sweep = ha_rows_int(&rows, 1),
            .name = ha_rows_text(&rows, 2),
            .settings = ha_rows_text(&rows, 3),
            .eager = ha_rows_int(&rows, 4) != 0,
            .samples = ha_rows_int(&rows, 5),
            .max_reasks = ha_rows_int(&rows, 6),
            .max_attempts = ha_rows_int(&rows, 7),
            .budget = ha_rows_real(&rows, 8),
            .spent = ha_rows_real(&rows, 9),
            .reserved = ha_rows_real(&rows, 10),
            .possibly_paid = ha_rows_int(&rows, 11),
            .stop = ha_rows_text(&rows, 12),
            .live = ha_rows_int(&rows, 13) != 0,
        };

        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
