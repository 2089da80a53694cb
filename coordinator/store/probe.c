#include "coordinator/store/probe.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/blocks.h"
#include "coordinator/store/db.h"

enum { LAYERS_TEXT_BYTES = 48 };

int ha_store_norm_put(struct ha_store *store, const struct ha_norm_row *row, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO norm (result, block, layer, layers, module, norm, parameters,"
                      " pairs) SELECT ?, ?, ?, ?, ?, ?, ?, ?"
                      " WHERE (SELECT state FROM result WHERE id = ?1) <> 'done'"
                      " ON CONFLICT (result, block, layer, module) DO UPDATE SET"
                      " layers = excluded.layers, norm = excluded.norm,"
                      " parameters = excluded.parameters, pairs = excluded.pairs",
                      "itiitrii", row->result, row->block, row->layer, row->layers, row->module,
                      row->norm, row->parameters, row->pairs);
}

int ha_store_norm_each(struct ha_store *store, int64_t sweep, int64_t cell, int64_t after,
                       int64_t limit, ha_norm_fn fn, void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT n.id, n.result, m.name, c.id, n.block, n.layer, n.layers,"
                         " n.module, n.norm, n.parameters, n.pairs FROM norm n"
                         " JOIN (SELECT result, min(cell) AS cell FROM stage WHERE sweep = ?1"
                         "  AND kind = 'probe' AND live = 1 AND (?2 = 0 OR cell = ?2)"
                         "  GROUP BY result) s ON s.result = n.result"
                         " JOIN cell c ON c.id = s.cell JOIN model m ON m.id = c.model"
                         " WHERE n.id > ?3 ORDER BY n.id LIMIT ?4",
                         "iiii", sweep, cell, after, limit);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        struct ha_norm_row row = {
            .id = ha_rows_int(&rows, 0),
            .result = ha_rows_int(&rows, 1),
            .model = ha_rows_text(&rows, 2),
            .cell = ha_rows_int(&rows, 3),
            .block = ha_rows_text(&rows, 4),
            .layer = ha_rows_int(&rows, 5),
            .layers = ha_rows_int(&rows, 6),
            .module = ha_rows_text(&rows, 7),
            .norm = ha_rows_real(&rows, 8),
            .parameters = ha_rows_int(&rows, 9),
            .pairs = ha_rows_int(&rows, 10),
        };

        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_norms_complete(struct ha_store *store, int64_t result, int64_t layers,
                            struct ha_error *err)
{
    int64_t count = 0;
    int r = ha_db_int(store, &count, err,
                      "SELECT count(*) FROM norm WHERE result = ? AND block = ''"
                      " AND module = 'all' AND layer < ?",
                      "ii", result, layers);

    return r < 0 ? r : layers > 0 && count == layers;
}

int ha_store_choice_put(struct ha_store *store, int64_t result, int64_t count, const char *measure,
                        struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO choice (result, count, measure) VALUES (?, ?, ?)"
                      " ON CONFLICT DO NOTHING",
                      "iit", result, count, measure);
}

/* The measure of each layer; they are numbered from 0 without a gap. */
static int read_values(struct ha_store *store, int64_t probe, bool per_sqrt_parameters,
                       double values[HA_LAYERS_MAX], int64_t *ret_count, struct ha_error *err)
{
    struct ha_rows rows;
    int64_t count = 0;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT layer, norm, parameters FROM norm WHERE result = ? AND block = ''"
                         " AND module = 'all' ORDER BY layer",
                         "i", probe);

    while (r == 0 && (r = ha_rows_next(&rows, err)) == 1) {
        if (ha_rows_int(&rows, 0) != count || count == HA_LAYERS_MAX) {
            r = ha_error_set(err, EINVAL, "the probe has no norm of layer %" PRId64, count);
            break;
        }
        values[count] = ha_rows_real(&rows, 1);
        if (per_sqrt_parameters)
            values[count] /= sqrt((double)ha_rows_int(&rows, 2));
        count++;
        r = 0;
    }
    ha_rows_close(&rows);
    *ret_count = count;
    return r < 0 ? r : 0;
}

/* The rule of a result: 1, or 0 without one. */
static int read_rule(struct ha_store *store, int64_t result, int64_t *ret_count,
                     bool *ret_per_sqrt_parameters, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err, "SELECT count, measure FROM choice WHERE result = ?",
                         "i", result);

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 1) {
        *ret_count = ha_rows_int(&rows, 0);
        *ret_per_sqrt_parameters = strcmp(ha_rows_text(&rows, 1), "per_sqrt_parameters") == 0;
        ha_rows_close(&rows);
    }
    return r;
}

int ha_store_choice_make(struct ha_store *store, int64_t result, int64_t probe,
                         struct ha_error *err)
{
    double values[HA_LAYERS_MAX], share = 0;
    char layers[LAYERS_TEXT_BYTES];
    int64_t count = 0, total = 0, first = 0;
    bool per_sqrt_parameters = false;
    int r = read_rule(store, result, &count, &per_sqrt_parameters, err);

    if (r <= 0)
        return r;
    r = read_values(store, probe, per_sqrt_parameters, values, &total, err);
    if (r == 0)
        r = ha_layers_choose(values, total, count, &first, &share, err);
    if (r < 0)
        return r;
    if (count == 1)
        snprintf(layers, sizeof layers, "%" PRId64, first);
    else
        snprintf(layers, sizeof layers, "%" PRId64 "-%" PRId64, first, first + count - 1);
    r = ha_db_exec(store, err, "UPDATE choice SET layers = ?, share = ? WHERE result = ?", "tri",
                   layers, share, result);
    return r < 0 ? r : 1;
}
