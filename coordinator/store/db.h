/* db.h - statements of the one connection, for the files of this folder
 *
 * Statements are prepared once per SQL literal: the pointer is the key, so sql
 * is always a string literal.  Values follow a list of types, one letter each:
 *
 *   i  int64_t     t  const char * (NULL binds NULL)     r  double (NaN binds NULL)
 *   b  const void *, size_t       x  NULL, no value
 *
 * Every failing call says which; -ENOSPC, -EIO and -ENOMEM also break the
 * running turn (store.h). */
#ifndef HA_COORDINATOR_STORE_DB_H
#define HA_COORDINATOR_STORE_DB_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "coordinator/store/store.h"

struct ha_error;

struct ha_db_cached {
    const char *sql;
    sqlite3_stmt *statement;
};

enum { HA_DB_CACHE = 1024 };

struct ha_store {
    sqlite3 *db;
    char *path;
    int64_t generation;
    bool in_turn;
    bool broken;       /* the turn cannot be committed any more */
    bool fatal;        /* a sync failed: nothing that follows can be trusted */
    int64_t wal_pages; /* in the log since the last checkpoint */
    struct ha_store_tidied tidied;
    struct ha_db_cached cache[HA_DB_CACHE];
    int64_t cached;
};

/* The answer to an SQLite result code: 0 or a negative errno, with the text
 * "PATH: what: sqlite's message". */
int ha_db_error(struct ha_store *store, int code, const char *what, struct ha_error *err);

/* Run a statement that yields no rows. */
int ha_db_exec(struct ha_store *store, struct ha_error *err, const char *sql, const char *types,
               ...);

/* Rows changed, and the row id made, by the last exec. */
int64_t ha_db_changes(const struct ha_store *store);
int64_t ha_db_last_id(const struct ha_store *store);

/* One or several statements without values, not cached. */
int ha_db_script(struct ha_store *store, const char *sql, struct ha_error *err);

/* Rows of a query.  A statement must be closed before it is opened again. */
struct ha_rows {
    struct ha_store *store;
    sqlite3_stmt *statement;
};

int ha_rows_open(struct ha_store *store, struct ha_rows *rows, struct ha_error *err,
                 const char *sql, const char *types, ...);

/* 1: a row is there; 0: the end (rows is closed); negative errno (closed). */
int ha_rows_next(struct ha_rows *rows, struct ha_error *err);
void ha_rows_close(struct ha_rows *rows); /* again is legal */

/* Columns of the current row; texts are never NULL and live until the next call on rows. */
int64_t ha_rows_int(const struct ha_rows *rows, int column);
double ha_rows_real(const struct ha_rows *rows, int column);
const char *ha_rows_text(const struct ha_rows *rows, int column);
const void *ha_rows_blob(const struct ha_rows *rows, int column, size_t *ret_bytes);

/* Of a line that PRAGMA quick_check or integrity_check yields: what kept it from reading a page is
 * no damage.  SQLITE_OK where the line names nothing of the sort. */
int ha_db_verdict_code(const char *verdict);

/* A generation that no store has. */
int64_t ha_store_random_generation(void);

/* One integer of one row.  Returns 1, 0 (no row; *ret_value untouched) or a negative errno. */
int ha_db_int(struct ha_store *store, int64_t *ret_value, struct ha_error *err, const char *sql,
              const char *types, ...);

#endif
