/* store.c - opening, transactions, the write-ahead log
 *
 * Why EXCLUSIVE before WAL: the index of the log then lives in our own memory,
 * no second process can open the file, and the bug of SQLite before 3.51.3 that
 * needs two connections cannot happen. */
#include "coordinator/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/db.h"
#include "coordinator/store/functions.h"
#include "coordinator/store/migrate.h"

enum { CHECK_BYTES = 64 << 20 };

/* From so many pages on, the log is moved. */
static const int64_t worth_moving[] = {
    [HA_LEISURE_REST] = 1000, [HA_LEISURE_TURN] = 8000, [HA_LEISURE_NONE] = 16000};

static int on_wal(void *context, sqlite3 *db, const char *name, int pages)
{
    struct ha_store *store = context;

    (void)db;
    (void)name;
    store->wal_pages = pages;
    return SQLITE_OK;
}

static int pragmas(struct ha_store *store, const char *text, struct ha_error *err)
{
    int code = sqlite3_exec(store->db, text, NULL, NULL, NULL);

    if (code == SQLITE_BUSY)
        return ha_error_set(err, EBUSY, "%s: another process has this database open", store->path);
    return code == SQLITE_OK ? 0 : ha_db_error(store, code, "open", err);
}

static int sync_folder_of(const char *path, struct ha_error *err)
{
    char *folder = ha_path_dirname(path);
    int r = folder ? ha_file_sync_dir(folder, err) : ha_error_set(err, ENOMEM, "no memory");

    free(folder);
    return r;
}

/* The version that was there, for who has to go back to it: "PATH.schemaN". */
static int keep_old(struct ha_store *store, int version, struct ha_error *err)
{
    char *path = ha_format("%s.schema%d", store->path, version);
    char *part = path ? ha_format("%s.part", path) : NULL;
    struct ha_store_copy *copy = NULL;
    int r = part ? ha_store_copy_begin(store, part, &copy, err)
                 : ha_error_set(err, ENOMEM, "no memory");
    int fd;

    while (r == 0)
        r = ha_store_copy_step(copy, INT64_MAX, err);
    ha_store_copy_end(copy);
    if (r > 0) {
        r = 0;
        fd = open(part, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0 || rename(part, path) < 0)
            r = ha_error_set(err, errno, "cannot keep %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    if (r == 0)
        r = sync_folder_of(path, err);
    if (r == 0)
        HA_FAULT_DURABLE(NULL, path);
    if (r < 0 && part)
        (void)unlink(part);
    if (r < 0)
        ha_error_prefix(err, "the database is not changed to schema %d before it is copied",
                        ha_store_schema_count);
    free(part);
    free(path);
    return r;
}

/* Nothing is written before the file was seen to be ours. */
static int configure(struct ha_store *store, struct ha_error *err)
{
    int version, r;

    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, 0);
    r = pragmas(store,
                "PRAGMA locking_mode = EXCLUSIVE;"
                "PRAGMA trusted_schema = OFF;"
                "PRAGMA cell_size_check = ON;"
                "PRAGMA mmap_size = 0;"
                "PRAGMA temp_store = MEMORY;"
                "PRAGMA cache_size = -65536;",
                err);
    if (r == 0)
        r = ha_store_identify(store, &version, err);
    if (r == 0)
        r = pragmas(store,
                    "PRAGMA journal_mode = WAL;"
                    "PRAGMA synchronous = FULL;"
                    "PRAGMA foreign_keys = ON;"
                    "PRAGMA wal_autocheckpoint = 0;"
                    "PRAGMA journal_size_limit = 134217728;",
                    err);
    if (r < 0)
        return r;
    sqlite3_wal_hook(store->db, on_wal, store);
    r = ha_store_functions(store, err);
    if (r == 0 && version > 0 && version < ha_store_schema_count)
        r = keep_old(store, version, err);
    return r < 0 ? r : ha_store_migrate(store, version, err);
}

/* The file is made here so that its mode is 0600 from the first byte. */
static int make_file(const char *path, struct ha_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    close(fd);
    return 0;
}

static int read_boot_id(char text[64])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, 63);

    if (fd >= 0)
        close(fd);
    if (n < 0)
        n = 0;
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return 0;
}

int64_t ha_store_random_generation(void)
{
    uint8_t bytes[8];
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    int64_t value = ha_clock_wall_ms();

    if (fd >= 0)
        close(fd);
    if (n == (ssize_t)sizeof bytes)
        memcpy(&value, bytes, sizeof value);
    return (value & INT64_MAX) | 1;
}

/* Read the meta row, or write it into a new database.  Files below CHECK_BYTES,
 * and all files after the machine was started anew, are read through once. */
static int read_meta(struct ha_store *store, struct ha_error *err)
{
    struct ha_rows rows;
    struct stat st;
    char boot_id[64];
    bool same_boot = false;
    int r;

    read_boot_id(boot_id);
    r = ha_rows_open(store, &rows, err, "SELECT generation, boot_id FROM store_meta", "");
    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 0) {
        store->generation = ha_store_random_generation();
        return ha_db_exec(store, err,
                          "INSERT INTO store_meta (id, generation, boot_id, created_ms)"
                          " VALUES (1, ?, ?, ?)",
                          "iti", store->generation, boot_id, ha_clock_wall_ms());
    }
    if (r < 0)
        return r;
    store->generation = ha_rows_int(&rows, 0);
    same_boot = strcmp(ha_rows_text(&rows, 1), boot_id) == 0;
    ha_rows_close(&rows);
    if (stat(store->path, &st) == 0 && (st.st_size < CHECK_BYTES || !same_boot)) {
        r = ha_store_check(store, err);
        if (r < 0)
            return r;
    }
    return ha_db_exec(store, err, "UPDATE store_meta SET boot_id = ?", "t", boot_id);
}

int ha_store_open(const char *path, struct ha_store **ret_store, struct ha_error *err)
{
    struct ha_store *store = ha_calloc(1, sizeof *store);
    int code, r;

    if (!store)
        return ha_error_set(err, ENOMEM, "no memory for the database");
    store->path = ha_strdup(path);
    r = store->path ? make_file(path, err) : ha_error_set(err, ENOMEM, "no memory");
    if (r < 0)
        goto out;
    /* Before the library's first use only; counting its memory costs a lock per piece. */
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    code = sqlite3_open_v2(path, &store->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        r = store->db ? ha_db_error(store, code, "open", err)
                      : ha_error_set(err, ENOMEM, "no memory for the database");
        goto out;
    }
    r = configure(store, err);
    if (r == 0)
        r = read_meta(store, err);
    /* So that both are prepared: a rollback may come when there is no memory for that. */
    if (r == 0)
        r = ha_store_begin(store, err);
    if (r == 0)
        ha_store_rollback(store);
out:
    if (r < 0) {
        ha_store_close(store);
        return r;
    }
    store->broken = false;
    *ret_store = store;
    return 0;
}

void ha_store_close(struct ha_store *store)
{
    int used = 0, most = 0;

    if (!store)
        return;
    if (store->db &&
        sqlite3_db_status(store->db, SQLITE_DBSTATUS_CACHE_USED, &used, &most, 0) == SQLITE_OK)
        ha_log_debug("%s: cache of pages: %d bytes", store->path, used);
    if (store->tidied.times > 0)
        ha_log_debug("%s: log moved %" PRId64 " times, %" PRId64 " pages, %.1f ms, longest %.1f ms",
                     store->path, store->tidied.times, store->tidied.pages,
                     (double)store->tidied.all_ns / 1e6, (double)store->tidied.longest_ns / 1e6);
    for (int i = 0; i < HA_DB_CACHE; i++)
        sqlite3_finalize(store->cache[i].statement);
    sqlite3_close(store->db);
    free(store->path);
    free(store);
}

/* "... error code=7", an SQLite result code. */
int ha_db_verdict_code(const char *verdict)
{
    static const char words[] = "error code=";
    const char *at = strstr(verdict, words);
    int code = at ? (int)strtol(at + sizeof(words) - 1, NULL, 10) : SQLITE_OK;

    return (code & 0xff) == SQLITE_NOMEM || (code & 0xff) == SQLITE_IOERR ? code : SQLITE_OK;
}

int ha_store_check(struct ha_store *store, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err, "PRAGMA quick_check(1)", "");

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r > 0) {
        const char *verdict = ha_rows_text(&rows, 0);
        int code = ha_db_verdict_code(verdict);

        r = 0;
        if (code != SQLITE_OK)
            r = ha_db_error(store, code, "check", err);
        else if (strcmp(verdict, "ok") != 0)
            r = ha_error_set(err, EBADMSG,
                             "%s: the database is damaged (%s); restore a backup, or begin anew "
                             "with another folder",
                             store->path, verdict);
        ha_rows_close(&rows);
    }
    return r;
}

int64_t ha_store_generation(const struct ha_store *store)
{
    return store->generation;
}

/* Out of whatever transaction is open: BEGIN may fail with one open, and ROLLBACK without memory.
 */
static void leave_transaction(struct ha_store *store)
{
    if (!sqlite3_get_autocommit(store->db))
        (void)ha_db_exec(store, NULL, "ROLLBACK", "");
    store->broken = false;
}

int ha_store_begin(struct ha_store *store, struct ha_error *err)
{
    int r;

    if (store->in_turn)
        return 0;
    leave_transaction(store);
    r = ha_db_exec(store, err, "BEGIN IMMEDIATE", "");
    if (r < 0)
        leave_transaction(store);
    store->in_turn = r == 0;
    return r;
}

int ha_store_commit(struct ha_store *store, struct ha_error *err)
{
    int r;

    if (!store->in_turn)
        return 0;
    if (ha_store_broken(store))
        return ha_error_set(err, EIO, "%s: the turn was broken", store->path);
    HA_CRASH_POINT("coordinator.before_commit");
    r = ha_db_exec(store, err, "COMMIT", "");
    HA_CRASH_POINT("coordinator.after_commit");
    if (r == 0)
        store->in_turn = false;
    else
        store->broken = true;
    return r;
}

void ha_store_rollback(struct ha_store *store)
{
    if (!store->in_turn)
        return;
    leave_transaction(store);
    store->in_turn = false;
}

int ha_store_mark(struct ha_store *store, struct ha_error *err)
{
    return ha_db_exec(store, err, "SAVEPOINT request", "");
}

int ha_store_keep(struct ha_store *store, struct ha_error *err)
{
    return ha_db_exec(store, err, "RELEASE request", "");
}

void ha_store_undo(struct ha_store *store)
{
    if (ha_db_exec(store, NULL, "ROLLBACK TO request", "") < 0 ||
        ha_db_exec(store, NULL, "RELEASE request", "") < 0)
        store->broken = true;
}

int64_t ha_store_changes(const struct ha_store *store)
{
    return sqlite3_total_changes64(store->db);
}

/* SQLite itself rolls back the whole transaction for some errors; then the
 * connection is in autocommit mode although a turn runs. */
bool ha_store_broken(const struct ha_store *store)
{
    return store->broken || (store->in_turn && sqlite3_get_autocommit(store->db));
}

bool ha_store_fatal(const struct ha_store *store)
{
    return store->fatal;
}

static void note_tidied(struct ha_store *store, int64_t took_ns)
{
    struct ha_store_tidied *t = &store->tidied;

    t->times++;
    t->pages += store->wal_pages;
    t->all_ns += took_ns;
    if (took_ns > t->longest_ns)
        t->longest_ns = took_ns;
    ha_log_debug("%s: %" PRId64 " pages of the log were moved in %.1f ms", store->path,
                 store->wal_pages, (double)took_ns / 1e6);
}

int ha_store_tidy(struct ha_store *store, enum ha_leisure leisure, struct ha_error *err)
{
    int64_t begin_ns;
    int code;

    if (store->in_turn || store->wal_pages < worth_moving[leisure])
        return 0;
    HA_CRASH_POINT("coordinator.before_wal_checkpoint");
    begin_ns = ha_clock_work_ns();
    code = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    HA_CRASH_POINT("coordinator.after_wal_checkpoint");
    note_tidied(store, ha_clock_work_ns() - begin_ns);
    store->wal_pages = 0;
    return code == SQLITE_OK || code == SQLITE_BUSY ? 0
                                                    : ha_db_error(store, code, "checkpoint", err);
}

bool ha_store_wants_rest(const struct ha_store *store)
{
    return store->wal_pages >= worth_moving[HA_LEISURE_REST];
}

struct ha_store_tidied ha_store_tidied(const struct ha_store *store)
{
    return store->tidied;
}
