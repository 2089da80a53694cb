#include "coordinator/store/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "coordinator/store/db.h"
#include "coordinator/store/migrate.h"
#include "coordinator/store/store.h"

enum { STEP_PAGES = 64 };

/* Far above every number that was ever given. */
static const int64_t number_gap = INT64_C(1) << 40;

struct ha_store_copy {
    struct ha_store *store;
    sqlite3 *db;
    sqlite3_backup *backup;
    char *path;
    int64_t done, total;
};

/* ---- copying ---------------------------------------------------------------------- */

static int make_empty(const char *path, struct ha_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return ha_error_set(err, errno, "cannot make %s: %s", path, strerror(errno));
    close(fd);
    return 0;
}

/* An error of the copy's file: it does not concern the store's turn. */
static int failed(struct ha_store_copy *copy, int code, struct ha_error *err)
{
    int number = (code & 0xff) == SQLITE_FULL    ? ENOSPC
                 : (code & 0xff) == SQLITE_NOMEM ? ENOMEM
                                                 : EIO;

    return ha_error_set(err, number, "cannot copy the database to %s: %s", copy->path,
                        number == ENOSPC ? "the disk is full" : sqlite3_errstr(code));
}

int ha_store_copy_begin(struct ha_store *store, const char *path, struct ha_store_copy **ret_copy,
                        struct ha_error *err)
{
    struct ha_store_copy *copy = ha_calloc(1, sizeof *copy);
    int code, r;

    if (!copy)
        return ha_error_set(err, ENOMEM, "no memory for a copy of the database");
    copy->store = store;
    copy->path = ha_strdup(path);
    r = copy->path ? make_empty(path, err)
                   : ha_error_set(err, ENOMEM, "no memory for a copy of the database");
    if (r < 0)
        goto fail;
    code = sqlite3_open_v2(path, &copy->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    /* Whoever is cut off begins anew, so the copy needs no journal; who takes it syncs it. */
    if (code == SQLITE_OK)
        code = sqlite3_exec(copy->db, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;", NULL,
                            NULL, NULL);
    if (code == SQLITE_OK) {
        copy->backup = sqlite3_backup_init(copy->db, "main", store->db, "main");
        code = copy->backup ? SQLITE_OK : sqlite3_errcode(copy->db);
    }
    if (code != SQLITE_OK) {
        r = failed(copy, code, err);
        goto fail;
    }
    *ret_copy = copy;
    return 0;
fail:
    ha_store_copy_end(copy);
    return r;
}

static int finish(struct ha_store_copy *copy, struct ha_error *err)
{
    int code = sqlite3_backup_finish(copy->backup);

    copy->backup = NULL;
    if (code == SQLITE_OK)
        code = sqlite3_close(copy->db);
    if (code == SQLITE_OK)
        copy->db = NULL;
    return code == SQLITE_OK ? 1 : failed(copy, code, err);
}

int ha_store_copy_step(struct ha_store_copy *copy, int64_t end_ns, struct ha_error *err)
{
    int code;

    if (copy->store->in_turn)
        return ha_error_set(err, EBUSY, "a copy goes on between turns only");
    do {
        code = sqlite3_backup_step(copy->backup, STEP_PAGES);
        copy->total = sqlite3_backup_pagecount(copy->backup);
        copy->done = copy->total - sqlite3_backup_remaining(copy->backup);
    } while (code == SQLITE_OK && ha_clock_boot_ns() < end_ns);
    if (code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED)
        return 0;
    return code == SQLITE_DONE ? finish(copy, err) : failed(copy, code, err);
}

void ha_store_copy_progress(const struct ha_store_copy *copy, int64_t *ret_done, int64_t *ret_total)
{
    *ret_done = copy->done;
    *ret_total = copy->total;
}

void ha_store_copy_end(struct ha_store_copy *copy)
{
    if (!copy)
        return;
    if (copy->backup)
        sqlite3_backup_finish(copy->backup);
    sqlite3_close(copy->db);
    free(copy->path);
    free(copy);
}

/* ---- reading a copy --------------------------------------------------------------------- */

/* "file:PATH?immutable=1" with what a URI would read otherwise spelled out. */
static char *uri_of(const char *path)
{
    struct ha_buffer text;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_buffer_append_text(&text, "file:");
    for (const char *at = path; *at && r == 0; at++)
        r = ha_buffer_printf(&text, strchr("%?#", *at) ? "%%%02x" : "%c", (unsigned char)*at);
    if (r == 0)
        r = ha_buffer_append_text(&text, "?immutable=1");
    if (r < 0) {
        ha_buffer_clear(&text);
        return NULL;
    }
    return ha_buffer_detach(&text);
}

int ha_store_open_copy(const char *path, struct ha_store **ret_store, struct ha_error *err)
{
    struct ha_store *store = ha_calloc(1, sizeof *store);
    char *uri = uri_of(path);
    int code, version, r;

    if (store)
        store->path = ha_strdup(path);
    if (!store || !store->path || !uri) {
        r = ha_error_set(err, ENOMEM, "no memory for the database");
        goto out;
    }
    if (access(path, R_OK) < 0) {
        r = ha_error_set(err, errno, "%s: %s", path, strerror(errno));
        goto out;
    }
    code = sqlite3_open_v2(uri, &store->db,
                           SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(store->db, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
                            NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        r = store->db ? ha_db_error(store, code, "open", err)
                      : ha_error_set(err, ENOMEM, "no memory for the database");
        goto out;
    }
    r = ha_store_identify(store, &version, err);
    if (r == 0 && version == 0)
        r = ha_error_set(err, EBADMSG, "%s: an empty file, not a coordinator's database", path);
out:
    free(uri);
    if (r < 0)
        ha_store_close(store);
    else
        *ret_store = store;
    return r;
}

static int first_row_must_be(struct ha_store *store, const char *sql, const char *want,
                             struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err, sql, "");

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 1 && ha_db_verdict_code(ha_rows_text(&rows, 0)) != SQLITE_OK) {
        r = ha_db_error(store, ha_db_verdict_code(ha_rows_text(&rows, 0)), "check", err);
    } else if (r == 1 && (!want || strcmp(ha_rows_text(&rows, 0), want) != 0)) {
        ha_error_set(err, EBADMSG, "%s: the database is damaged (%s%s); restore a backup",
                     store->path, want ? "" : "a row refers to none in table of ",
                     ha_rows_text(&rows, 0));
        r = -EBADMSG;
    }
    ha_rows_close(&rows);
    return r < 0 ? r : 0;
}

int ha_store_check_whole(struct ha_store *store, struct ha_error *err)
{
    int r = first_row_must_be(store, "PRAGMA integrity_check(1)", "ok", err);

    return r < 0 ? r : first_row_must_be(store, "PRAGMA foreign_key_check", NULL, err);
}

int ha_store_facts(struct ha_store *store, struct ha_store_facts *ret_facts, struct ha_error *err)
{
    struct ha_rows rows;
    int r = ha_rows_open(store, &rows, err,
                         "SELECT generation, created_ms, (SELECT count(*) FROM sweep),"
                         " ifnull((SELECT max(id) FROM event), 0),"
                         " ifnull((SELECT time_ms FROM event ORDER BY id DESC LIMIT 1), 0),"
                         " (SELECT count(*) FROM artifact),"
                         " ifnull((SELECT sum(size) FROM artifact), 0) FROM store_meta",
                         "");

    if (r == 0)
        r = ha_rows_next(&rows, err);
    if (r == 0)
        return ha_error_set(err, EBADMSG, "%s: the database is damaged (no store_meta row)",
                            store->path);
    if (r < 0)
        return r;
    *ret_facts = (struct ha_store_facts){
        .generation = ha_rows_int(&rows, 0),
        .created_ms = ha_rows_int(&rows, 1),
        .sweeps = ha_rows_int(&rows, 2),
        .events = ha_rows_int(&rows, 3),
        .last_event_ms = ha_rows_int(&rows, 4),
        .artifacts = ha_rows_int(&rows, 5),
        .artifact_bytes = ha_rows_int(&rows, 6),
    };
    ha_rows_close(&rows);
    r = ha_db_int(store, &ret_facts->schema, err, "PRAGMA user_version", "");
    return r < 0 ? r : 0;
}

const char *ha_store_library(void)
{
    return sqlite3_libversion();
}

/* ---- a restored database ------------------------------------------------------------------ */

int ha_store_new_life(struct ha_store *store, struct ha_error *err)
{
    int64_t generation = ha_store_random_generation();
    int r = ha_db_exec(store, err, "UPDATE store_meta SET generation = ?", "i", generation);

    /* A reply to a call that the backup does not know shall not fit one that is made from now. */
    if (r == 0)
        r = ha_db_exec(store, err,
                       "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'judge_call'", "i",
                       number_gap);
    if (r == 0 && ha_db_changes(store) == 0)
        r = ha_db_exec(store, err,
                       "INSERT INTO sqlite_sequence (name, seq) VALUES ('judge_call', ?)", "i",
                       number_gap);
    if (r == 0)
        store->generation = generation;
    return r;
}

int ha_store_fold(struct ha_store *store, struct ha_error *err)
{
    int code = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);

    return code == SQLITE_OK ? 0 : ha_db_error(store, code, "checkpoint", err);
}
