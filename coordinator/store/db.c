#include "coordinator/store/db.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "common/base/error.h"

static int errno_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL:
        return ENOSPC;
    case SQLITE_NOMEM:
        return ENOMEM;
    case SQLITE_CONSTRAINT:
        return EEXIST;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return EBUSY;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return EROFS;
    case SQLITE_CANTOPEN:
        return EACCES;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return EBADMSG;
    case SQLITE_TOOBIG:
    case SQLITE_RANGE:
    case SQLITE_MISMATCH:
        return EINVAL;
    default:
        return EIO;
    }
}

int ha_db_error(struct ha_store *store, int code, const char *what, struct ha_error *err)
{
    int number = errno_of(code);
    int extended = sqlite3_extended_errcode(store->db);

    if (number != EEXIST && number != EINVAL)
        store->broken = true;
    if (extended == SQLITE_IOERR_FSYNC || extended == SQLITE_IOERR_DIR_FSYNC)
        store->fatal = true;
    if (number == ENOSPC)
        return ha_error_set(err, number, "%s: the disk is full (%s)", store->path, what);
    if (number == EBADMSG)
        return ha_error_set(err, number,
                            "%s: the database is damaged (%s: %s); restore a backup, or begin anew "
                            "with another folder",
                            store->path, what, sqlite3_errmsg(store->db));
    return ha_error_set(err, number, "%s: %s: %s", store->path, what, sqlite3_errmsg(store->db));
}

static size_t slot_of(const char *sql)
{
    uint64_t x = (uint64_t)(uintptr_t)sql * 0x9e3779b97f4a7c15u;

    return (size_t)(x >> 54) % HA_DB_CACHE;
}

/* The prepared statement of a literal; prepared at first use. */
static int prepare(struct ha_store *store, const char *sql, sqlite3_stmt **ret_statement,
                   struct ha_error *err)
{
    size_t slot = slot_of(sql);
    int code;

    while (store->cache[slot].sql && store->cache[slot].sql != sql)
        slot = (slot + 1) % HA_DB_CACHE;
    if (!store->cache[slot].sql) {
        if (store->cached >= HA_DB_CACHE - 1)
            return ha_error_set(err, ENOSPC, "too many kinds of statements");
        code = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                  &store->cache[slot].statement, NULL);
        if (code != SQLITE_OK)
            return ha_db_error(store, code, sql, err);
        store->cache[slot].sql = sql;
        store->cached++;
    }
    *ret_statement = store->cache[slot].statement;
    return 0;
}

static int bind(sqlite3_stmt *statement, const char *types, va_list args)
{
    int code = SQLITE_OK;

    for (int i = 0; types[i] && code == SQLITE_OK; i++) {
        switch (types[i]) {
        case 'i':
            code = sqlite3_bind_int64(statement, i + 1, va_arg(args, int64_t));
            break;
        case 'r':
            code = sqlite3_bind_double(statement, i + 1, va_arg(args, double));
            break;
        case 't': {
            const char *text = va_arg(args, const char *);

            code = text ? sqlite3_bind_text(statement, i + 1, text, -1, SQLITE_TRANSIENT)
                        : sqlite3_bind_null(statement, i + 1);
            break;
        }
        case 'b': {
            const void *bytes = va_arg(args, const void *);
            size_t size = va_arg(args, size_t);

            code = size > 0 ? sqlite3_bind_blob64(statement, i + 1, bytes, size, SQLITE_TRANSIENT)
                            : sqlite3_bind_zeroblob(statement, i + 1, 0);
            break;
        }
        default:
            code = sqlite3_bind_null(statement, i + 1);
            break;
        }
    }
    return code;
}

static int start(struct ha_store *store, const char *sql, const char *types, va_list args,
                 sqlite3_stmt **ret_statement, struct ha_error *err)
{
    int r = prepare(store, sql, ret_statement, err), code;

    if (r < 0)
        return r;
    code = bind(*ret_statement, types, args);
    if (code != SQLITE_OK) {
        sqlite3_reset(*ret_statement);
        return ha_db_error(store, code, sql, err);
    }
    return 0;
}

int ha_db_exec(struct ha_store *store, struct ha_error *err, const char *sql, const char *types,
               ...)
{
    sqlite3_stmt *statement;
    va_list args;
    int code, r;

    va_start(args, types);
    r = start(store, sql, types, args, &statement, err);
    va_end(args);
    if (r < 0)
        return r;
    do
        code = sqlite3_step(statement);
    while (code == SQLITE_ROW);
    if (code != SQLITE_DONE)
        r = ha_db_error(store, code, sql, err);
    sqlite3_reset(statement);
    return r;
}

int64_t ha_db_changes(const struct ha_store *store)
{
    return sqlite3_changes64(store->db);
}

int64_t ha_db_last_id(const struct ha_store *store)
{
    return sqlite3_last_insert_rowid(store->db);
}

int ha_db_script(struct ha_store *store, const char *sql, struct ha_error *err)
{
    int code = sqlite3_exec(store->db, sql, NULL, NULL, NULL);

    return code == SQLITE_OK ? 0 : ha_db_error(store, code, "script", err);
}

int ha_rows_open(struct ha_store *store, struct ha_rows *rows, struct ha_error *err,
                 const char *sql, const char *types, ...)
{
    va_list args;
    int r;

    rows->store = store;
    rows->statement = NULL;
    va_start(args, types);
    r = start(store, sql, types, args, &rows->statement, err);
    va_end(args);
    if (r < 0)
        rows->statement = NULL;
    return r;
}

int ha_rows_next(struct ha_rows *rows, struct ha_error *err)
{
    int code, r = 0;

    if (!rows->statement)
        return 0;
    code = sqlite3_step(rows->statement);
    if (code == SQLITE_ROW)
        return 1;
    if (code != SQLITE_DONE)
        r = ha_db_error(rows->store, code, sqlite3_sql(rows->statement), err);
    ha_rows_close(rows);
    return r;
}

void ha_rows_close(struct ha_rows *rows)
{
    if (rows->statement)
        sqlite3_reset(rows->statement);
    rows->statement = NULL;
}

int64_t ha_rows_int(const struct ha_rows *rows, int column)
{
    return sqlite3_column_int64(rows->statement, column);
}

double ha_rows_real(const struct ha_rows *rows, int column)
{
    if (sqlite3_column_type(rows->statement, column) == SQLITE_NULL)
        return (double)NAN;
    return sqlite3_column_double(rows->statement, column);
}

const char *ha_rows_text(const struct ha_rows *rows, int column)
{
    const unsigned char *text = sqlite3_column_text(rows->statement, column);

    return text ? (const char *)text : "";
}

const void *ha_rows_blob(const struct ha_rows *rows, int column, size_t *ret_bytes)
{
    const void *bytes = sqlite3_column_blob(rows->statement, column);

    *ret_bytes = (size_t)sqlite3_column_bytes(rows->statement, column);
    return bytes;
}

int ha_db_int(struct ha_store *store, int64_t *ret_value, struct ha_error *err, const char *sql,
              const char *types, ...)
{
    sqlite3_stmt *statement;
    va_list args;
    int code, r;

    va_start(args, types);
    r = start(store, sql, types, args, &statement, err);
    va_end(args);
    if (r < 0)
        return r;
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *ret_value = sqlite3_column_int64(statement, 0);
        r = 1;
    } else if (code != SQLITE_DONE) {
        r = ha_db_error(store, code, sql, err);
    }
    sqlite3_reset(statement);
    return r;
}
