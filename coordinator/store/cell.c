#include "coordinator/store/cell.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "coordinator/store/db.h"

/* Settings are many cells' own, so each text is kept once, and counted for who brought it. */
static int put_setting(struct ha_store *store, int64_t sweep, const char *json, int64_t *ret_id,
                       struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];
    int r;

    ha_sha256(json, strlen(json), digest);
    ha_sha256_hex(digest, hex);
    r = ha_db_int(store, ret_id, err, "SELECT id FROM setting WHERE sha256 = ?", "t", hex);
    if (r != 0)
        return r < 0 ? r : 0;
    r = ha_db_exec(store, err, "INSERT INTO setting (sha256, json) VALUES (?, ?)", "tt", hex, json);
    if (r < 0)
        return r;
    *ret_id = ha_db_last_id(store);
    return ha_db_exec(store, err, "UPDATE sweep_rows SET bytes = bytes + ? WHERE sweep = ?", "ii",
                      (int64_t)strlen(json), sweep);
}

int ha_store_cell_put(struct ha_store *store, const struct ha_cell_row *row, int64_t *ret_id,
                      struct ha_error *err)
{
    int64_t setting;
    int r = put_setting(store, row->sweep, row->settings, &setting, err);

    if (r < 0)
        return r;
    r = ha_db_exec(store, err,
                   "INSERT INTO cell (sweep, model, position, name, strategy, layers, setting,"
                   " version, live) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)"
                   " ON CONFLICT (sweep, name) DO UPDATE SET model = excluded.model,"
                   " position = excluded.position, strategy = excluded.strategy,"
                   " layers = excluded.layers, setting = excluded.setting,"
                   " version = excluded.version, live = 1",
                   "iiitttii", row->sweep, row->model, row->position, row->name, row->strategy,
                   row->layers, setting, row->version);
    if (r < 0)
        return r;
    r = ha_db_int(store, ret_id, err, "SELECT id FROM cell WHERE sweep = ? AND name = ?", "it",
                  row->sweep, row->name);
    return r < 0 ? r : 0;
}

/* Without what a probe chose; that costs more than the rest. */
#define PLAIN_COLUMNS(settings)                                                                    \
    "c.id, c.sweep, c.model, m.name, c.name, c.strategy, c.layers, " settings ", c.position,"      \
    " c.version, c.live, m.layers"

#define CELL_COLUMNS(settings)                                                                     \
    PLAIN_COLUMNS(settings)                                                                        \
    ", ifnull(x.count, 0), ifnull(r.parent, 0), ifnull(x.measure, ''),"                            \
    " ifnull(x.layers, ''), ifnull(x.share, 0.0) FROM cell c"                                      \
    " JOIN model m ON m.id = c.model"                                                              \
    " LEFT JOIN stage t ON t.cell = c.id AND t.kind = 'train' AND ifnull(t.judge, 0) = 0"          \
    "  AND t.live = 1"                                                                             \
    " LEFT JOIN choice x ON x.result = t.result LEFT JOIN result r ON r.id = x.result"

static void read_choice(const struct ha_rows *rows, struct ha_cell_row *row)
{
    row->auto_layers = ha_rows_int(rows, 12);
    row->probe = ha_rows_int(rows, 13);
    row->measure = ha_rows_text(rows, 14);
    row->chosen = ha_rows_text(rows, 15);
    row->share = ha_rows_real(rows, 16);
}

static int each(struct ha_rows *rows, bool choices, ha_cell_fn fn, void *context,
                struct ha_error *err)
{
    int r, count = 0;

    while ((r = ha_rows_next(rows, err)) == 1) {
        struct ha_cell_row row = {
            .id = ha_rows_int(rows, 0),
            .sweep = ha_rows_int(rows, 1),
            .model = ha_rows_int(rows, 2),
            .model_name = ha_rows_text(rows, 3),
            .name = ha_rows_text(rows, 4),
            .strategy = ha_rows_text(rows, 5),
            .layers = ha_rows_text(rows, 6),
            .settings = ha_rows_text(rows, 7),
            .position = ha_rows_int(rows, 8),
            .version = ha_rows_int(rows, 9),
            .live = ha_rows_int(rows, 10) != 0,
            .model_layers = ha_rows_int(rows, 11),
            .measure = "",
            .chosen = "",
        };

        if (choices)
            read_choice(rows, &row);
        count = 1;
        r = fn(context, &row);
        if (r != 0)
            break;
    }
    ha_rows_close(rows);
    return r < 0 ? r : count;
}

/* Does a probe choose layers of its cells?  1 or 0. */
static int has_choices(struct ha_store *store, int64_t sweep, struct ha_error *err)
{
    int64_t stage;

    return ha_db_int(store, &stage, err,
                     "SELECT id FROM stage INDEXED BY stage_probe WHERE sweep = ?"
                     " AND kind = 'probe' AND live = 1 LIMIT 1",
                     "i", sweep);
}

int ha_store_cell_each(struct ha_store *store, int64_t sweep, int64_t after, int64_t limit,
                       ha_cell_fn fn, void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int choices = has_choices(store, sweep, err), r;

    if (choices < 0)
        return choices;
    if (choices)
        r = ha_rows_open(
            store, &rows, err,
            "SELECT " CELL_COLUMNS("''") " WHERE c.sweep = ? AND c.id > ? ORDER BY c.id LIMIT ?",
            "iii", sweep, after, limit);
    else
        r = ha_rows_open(
            store, &rows, err,
            "SELECT " PLAIN_COLUMNS(
                "''") " FROM cell c CROSS JOIN model m"
                      " ON m.id = c.model WHERE c.sweep = ? AND c.id > ? ORDER BY c.id LIMIT ?",
            "iii", sweep, after, limit);
    if (r == 0)
        r = each(&rows, choices != 0, fn, context, err);
    return r < 0 ? r : 0;
}

int ha_store_cell_get(struct ha_store *store, int64_t cell, ha_cell_fn fn, void *context,
                      struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(
        store, &rows, err,
        "SELECT " CELL_COLUMNS("(SELECT json FROM setting WHERE id = c.setting)") " WHERE c.id = ?",
        "i", cell);

    return r < 0 ? r : each(&rows, true, fn, context, err);
}

int ha_store_cell_id(struct ha_store *store, int64_t sweep, const char *name, int64_t *ret_id,
                     struct ha_error *err)
{
    char *end;
    long long number;
    int r = ha_db_int(store, ret_id, err, "SELECT id FROM cell WHERE sweep = ? AND name = ?", "it",
                      sweep, name);

    if (r != 0)
        return r;
    number = strtoll(name, &end, 10);
    if (*end || end == name)
        return 0;
    return ha_db_int(store, ret_id, err, "SELECT id FROM cell WHERE sweep = ? AND id = ?", "ii",
                     sweep, (int64_t)number);
}

int ha_store_cell_gone(struct ha_store *store, int64_t sweep, int64_t *ret_id, struct ha_error *err)
{
    return ha_db_int(store, ret_id, err,
                     "SELECT c.id FROM cell c JOIN sweep w ON w.id = c.sweep"
                     " WHERE c.sweep = ? AND c.live = 1 AND c.version < w.version LIMIT 1",
                     "i", sweep);
}

int ha_store_cell_count(struct ha_store *store, int64_t sweep, int64_t *ret_count,
                        struct ha_error *err)
{
    int r =
        ha_db_int(store, ret_count, err, "SELECT count(*) FROM cell WHERE sweep = ?", "i", sweep);

    return r < 0 ? r : 0;
}

int ha_store_cell_set_live(struct ha_store *store, int64_t cell, bool live, struct ha_error *err)
{
    return ha_db_exec(store, err, "UPDATE cell SET live = ? WHERE id = ?", "ii", (int64_t)live,
                      cell);
}
