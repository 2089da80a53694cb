#include "coordinator/store/part.h"

#include "coordinator/store/db.h"

int ha_store_part_add(struct ha_store *store, const struct ha_part_row *row, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "INSERT INTO part (job, generation, number, part, worker, first_rank, ranks)"
                      " VALUES (?, ?, ?, ?, ?, ?, ?)",
                      "iiiiiii", row->job, row->epoch.generation, row->epoch.number, row->part,
                      row->worker, row->first_rank, row->ranks);
}

static int each(struct ha_rows *rows, ha_part_fn fn, void *context, struct ha_error *err)
{
    int r = 0;

    while (r == 0 && (r = ha_rows_next(rows, err)) == 1) {
        const struct ha_part_row row = {
            .job = ha_rows_int(rows, 0),
            .epoch = {ha_rows_int(rows, 1), ha_rows_int(rows, 2)},
            .part = ha_rows_int(rows, 3),
            .worker = ha_rows_int(rows, 4),
            .first_rank = ha_rows_int(rows, 5),
            .ranks = ha_rows_int(rows, 6),
            .comm_id = ha_rows_text(rows, 7),
        };

        r = fn(context, &row);
    }
    ha_rows_close(rows);
    return r < 0 ? r : 0;
}

#define PART_COLUMNS "job, generation, number, part, worker, first_rank, ranks, comm_id"

int ha_store_part_each(struct ha_store *store, int64_t job, struct ha_epoch epoch, ha_part_fn fn,
                       void *context, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " PART_COLUMNS " FROM part WHERE job = ? AND generation = ?"
                         " AND number = ? AND open = 1 ORDER BY part",
                         "iii", job, epoch.generation, epoch.number);

    return r < 0 ? r : each(&rows, fn, context, err);
}

int ha_store_part_each_gang(struct ha_store *store, ha_part_fn fn, void *context,
                            struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT " PART_COLUMNS " FROM part INDEXED BY part_open WHERE open = 1"
                         " AND part = 0",
                         "");

    return r < 0 ? r : each(&rows, fn, context, err);
}

int ha_store_part_of(struct ha_store *store, int64_t job, struct ha_epoch epoch, int64_t worker,
                     struct ha_error *err)
{
    int64_t one;

    return ha_db_int(store, &one, err,
                     "SELECT 1 FROM part WHERE job = ? AND generation = ? AND number = ?"
                     " AND worker = ? AND open = 1",
                     "iiii", job, epoch.generation, epoch.number, worker);
}

int ha_store_part_set_id(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                         const char *comm_id, struct ha_error *err)
{
    return ha_db_exec(store, err,
                      "UPDATE part SET comm_id = ? WHERE job = ? AND generation = ?"
                      " AND number = ? AND part = 0 AND comm_id = ''",
                      "tiii", comm_id, job, epoch.generation, epoch.number);
}
