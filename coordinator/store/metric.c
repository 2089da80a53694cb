#include "coordinator/store/metric.h"

#include "coordinator/store/db.h"

int ha_store_metric_put(struct ha_store *store, int64_t result, int64_t step, const char *name,
                        double value, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO metric (result, step, name, value) VALUES (?, ?, ?, ?)"
                      " ON CONFLICT (result, step, name) DO UPDATE SET value = excluded.value",
                      "iitr", result, step, name, value);
}

/* A result that several cells share yields its rows once per cell; a page never
 * ends between them, so that the id of its last row tells where to go on. */
int ha_store_metric_each(struct ha_store *store, int64_t sweep, int64_t cell, const char *name,
                         int64_t after, int64_t limit, ha_metric_fn fn, void *context,
                         struct ha_error *err)
{
    struct ha_rows rows;
    int64_t count = 0, last = 0;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT m.id, s.cell, m.step, m.name, m.value"
                         " FROM metric m CROSS JOIN stage s ON s.result = m.result"
                         " WHERE m.id > ?1 AND s.sweep = ?2 AND s.live = 1 AND s.kind = 'train'"
                         " AND (?3 = 0 OR s.cell = ?3) AND (?4 = '' OR m.name = ?4) ORDER BY m.id",
                         "iiit", after, sweep, cell, name);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_metric_row row = {
            .id = ha_rows_int(&rows, 0),
            .cell = ha_rows_int(&rows, 1),
            .step = ha_rows_int(&rows, 2),
            .name = ha_rows_text(&rows, 3),
            .value = ha_rows_real(&rows, 4),
        };

        if (count >= limit && row.id != last)
            break;
        last = row.id;
        count++;
        r = fn(context, &row);
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}
