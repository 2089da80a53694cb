#include "coordinator/server/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "coordinator/server/inside.h"
#include "coordinator/server/judging.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/store.h"

enum { JSON_BYTES = 1 << 20, FORMAT = 1 };

static const char why_ended[] = "the coordinator was restored from a backup";

struct restore {
    const struct ha_restore_options *options;
    struct ha_restore_report *report;
    char *from_db, *from_artifacts; /* of the backup */
    char *marker, *fresh;           /* beside the database: the marker, the new one */
    struct ha_store_facts facts;    /* of the backup */
    struct ha_error *err;
    int64_t done;
};

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

static void tell(struct restore *p, const char *what, int64_t done, int64_t total)
{
    if (p->options->progress)
        p->options->progress(p->options->context, what, done, total);
}

static char *beside(const char *database, const char *name)
{
    char *dir = ha_path_dirname(database), *path = dir ? ha_path_join(dir, name) : NULL;

    free(dir);
    return path;
}

/* ---- is the backup whole? --------------------------------------------------------- */

static int check_json(struct restore *p, struct ha_error *err)
{
    char *path = ha_path_join(p->options->backup, "backup.json"), hex[HA_SHA256_HEX_BYTES];
    const struct ha_json *database;
    struct ha_json *json = NULL;
    int64_t size = 0;
    int r = path ? ha_json_load(path, JSON_BYTES, &json, err) : no_memory(err);

    if (r < 0) {
        free(path);
        return ha_error_prefix(err, "not a backup of hactl backup");
    }
    database = ha_json_get(json, "database");
    if (ha_json_int(ha_json_get(json, "format"), 0) != FORMAT)
        r = ha_error_set(err, EPROTONOSUPPORT,
                         "%s: format %" PRId64 ", this version knows %d; use a newer version", path,
                         ha_json_int(ha_json_get(json, "format"), 0), FORMAT);
    if (r == 0)
        r = ha_file_sha256(p->from_db, hex, &size, err);
    if (r == 0 && (size != ha_json_int(ha_json_get(database, "size"), -1) ||
                   strcmp(hex, ha_json_string(ha_json_get(database, "sha256"), "")) != 0))
        r = ha_error_set(err, EBADMSG,
                         "%s: its bytes are not those that %s names; take another "
                         "backup",
                         p->from_db, path);
    ha_json_destroy(json);
    free(path);
    return r;
}

static char *artifact_path(const char *folder, const char *sha256)
{
    return ha_format("%s/%.2s/%s", folder, sha256, sha256);
}

static int check_artifact(void *context, const char *sha256, int64_t size)
{
    struct restore *p = context;
    char *path = artifact_path(p->from_artifacts, sha256), hex[HA_SHA256_HEX_BYTES];
    int64_t bytes = 0;
    int r = path ? ha_file_sha256(path, hex, &bytes, p->err) : no_memory(p->err);

    if (r == 0 && (bytes != size || strcmp(hex, sha256) != 0))
        r = ha_error_set(p->err, EBADMSG, "%s: its bytes have another hash; take another backup",
                         path);
    free(path);
    p->report->artifacts += r == 0;
    p->report->bytes += r == 0 ? size : 0;
    tell(p, "checked", ++p->done, p->facts.artifacts);
    return r;
}

static int check_backup(struct restore *p, struct ha_error *err)
{
    struct ha_store *store = NULL;
    int r = check_json(p, err);

    if (r == 0)
        r = ha_store_open_copy(p->from_db, &store, err);
    if (r < 0)
        return r;
    r = ha_store_check_whole(store, err);
    if (r == 0)
        r = ha_store_facts(store, &p->facts, err);
    if (r == 0)
        r = ha_store_artifact_each(store, check_artifact, p, err);
    ha_store_close(store);
    p->report->sweeps = p->facts.sweeps;
    return r;
}

/* ---- what is there already ---------------------------------------------------------- */

/* A database that cannot be read is no reason to keep it: mostly it is why somebody restores. */
static int check_there(struct restore *p, struct ha_error *err)
{
    struct ha_error unreadable = {0};
    struct ha_store_facts there;
    struct ha_store *store = NULL;
    int r;

    if (!ha_path_exists(p->options->database) || p->options->discard_newer)
        return 0;
    r = ha_store_open(p->options->database, &store, &unreadable);
    if (r == -EPROTONOSUPPORT) {
        *err = unreadable;
        return ha_error_prefix(err, "what is there is newer than this program");
    }
    if (r == -EBUSY || r == -ENOMEM || r == -EACCES) {
        *err = unreadable;
        return r;
    }
    if (r < 0)
        return 0;
    r = ha_store_facts(store, &there, &unreadable);
    ha_store_close(store);
    if (r < 0 || there.last_event_ms <= p->facts.last_event_ms || there.events == 0)
        return 0;
    return ha_error_set(err, EEXIST,
                        "%s knows more than the backup (%" PRId64 " events, the backup has %" PRId64
                        "); restore into another folder, or give --discard-newer (it is kept "
                        "beside the new one)",
                        p->options->database, there.events, p->facts.events);
}

/* ---- placing ----------------------------------------------------------------------------- */

/* A second name where both are on one disk; nobody ever writes to an artifact. */
static int place_artifact(void *context, const char *sha256, int64_t size)
{
    struct restore *p = context;
    char *from = artifact_path(p->from_artifacts, sha256);
    char *to = artifact_path(p->options->artifacts, sha256),
         *folder = to ? ha_path_dirname(to) : NULL;
    struct stat st;
    int r = from && folder ? ha_path_make_dirs(folder, 0700, p->err) : no_memory(p->err);
    char hex[HA_SHA256_HEX_BYTES];

    if (r == 0 && stat(to, &st) == 0 && st.st_size == size &&
        ha_file_sha256(to, hex, NULL, NULL) == 0 && strcmp(hex, sha256) == 0)
        goto out;
    if (r == 0 && unlink(to) < 0 && errno != ENOENT)
        r = ha_error_set(p->err, errno, "cannot replace %s: %s", to, strerror(errno));
    if (r == 0 && link(from, to) < 0)
        r = ha_file_copy(from, to, 0600, p->err);
    if (r == 0)
        r = ha_file_sync_dir(folder, p->err);
    p->report->placed += r == 0;
out:
    tell(p, "placed", ++p->done, p->facts.artifacts);
    free(from);
    free(to);
    free(folder);
    return r;
}

static int place_artifacts(struct restore *p, struct ha_error *err)
{
    struct ha_store *store;
    int r = ha_path_make_durable(p->options->artifacts, 0700, err);

    if (r == 0)
        r = ha_store_open_copy(p->from_db, &store, err);
    if (r < 0)
        return r;
    p->done = 0;
    r = ha_store_artifact_each(store, place_artifact, p, err);
    ha_store_close(store);
    return r < 0 ? r : ha_file_sync_dir(p->options->artifacts, err);
}

/* ---- a new life ---------------------------------------------------------------------------- */

static int on_send(void *context, uint64_t peer, const void *data, size_t size)
{
    (void)context;
    (void)peer;
    (void)data;
    (void)size;
    return -EHOSTUNREACH;
}

static void on_artifact(void *context, const char *sha256)
{
    (void)context;
    (void)sha256;
}

static void on_full(void *context)
{
    (void)context;
}

/* What ran at the time of the backup is not waited for: its worker is told that the
 * attempt is over, and its job is free.  It is nobody's fault and counts as nothing. */
static int end_attempts(struct ha_coordinator *c, const struct ha_by *by, int64_t *ret_count,
                        struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < c->member_count; i++) {
        struct ha_member *m = c->members[i];
        struct ha_attempt_row row;
        int64_t job = 0;

        if (m->judge) {
            r = ha_judging_lose(c, by, m, why_ended, err);
            continue;
        }
        while (r == 0 && (r = ha_store_attempt_next(c->store, m->id, job, true, &row, err)) == 1) {
            job = row.job;
            row.stop = HA_STOP_NONE;
            r = ha_server_end_attempt(c, by, &row, HA_OUTCOME_STOPPED, false, why_ended, 0, err);
            ++*ret_count;
        }
    }
    return r;
}

static int note(struct ha_coordinator *c, const struct ha_by *by, struct ha_error *err)
{
    return ha_store_event_add(
        c->store, by,
        &(struct ha_event){
            .subject = "coordinator", .before = "backup", .after = "restored", .reason = why_ended},
        err);
}

static int begin_anew(struct restore *p, struct ha_store *store, struct ha_error *err)
{
    struct ha_coordinator_options core = {
        .rules = {5000, 15000, 60000}, .version = HA_VERSION, .files_endpoint = ""};
    struct ha_coordinator_hooks hooks = {.send = on_send,
                                         .artifact_stored = on_artifact,
                                         .artifact_orphan = on_artifact,
                                         .disk_full = on_full};
    struct ha_by by = {.now_ms = ha_clock_wall_ms(), .actor = "restore"};
    struct ha_coordinator *c;
    int r = ha_coordinator_create(&core, &hooks, store, ha_clock_boot_ms(), by.now_ms, &c, err);

    if (r < 0)
        return r;
    r = ha_store_begin(store, err);
    if (r == 0)
        r = end_attempts(c, &by, &p->report->attempts, err);
    if (r == 0)
        r = ha_store_new_life(store, err);
    if (r == 0)
        r = note(c, &by, err);
    if (r == 0)
        r = ha_store_commit(store, err);
    ha_coordinator_destroy(c);
    return r < 0 ? r : ha_store_fold(store, err);
}

/* The new database, complete under a name of its own. */
static int make_fresh(struct restore *p, struct ha_error *err)
{
    struct ha_store *store = NULL;
    char *log = ha_format("%s-wal", p->fresh);
    char *old = ha_format("%s.schema%" PRId64, p->fresh, p->facts.schema);
    int r = log && old ? 0 : no_memory(err);

    if (r == 0) {
        (void)unlink(log);
        r = ha_file_copy(p->from_db, p->fresh, 0600, err);
    }
    if (r == 0)
        r = ha_store_open(p->fresh, &store, err);
    if (r == 0)
        r = begin_anew(p, store, err);
    ha_store_close(store);
    if (log)
        (void)unlink(log);
    if (old)
        (void)unlink(old); /* the backup itself has the older schema */
    free(log);
    free(old);
    return r;
}

/* ---- the change --------------------------------------------------------------------------- */

static int move_aside(const char *path, const char *suffix, struct ha_error *err)
{
    char *to = ha_format("%s%s", path, suffix);
    int r = to ? 0 : no_memory(err);

    if (r == 0 && rename(path, to) < 0 && errno != ENOENT)
        r = ha_error_set(err, errno, "cannot rename %s: %s", path, strerror(errno));
    free(to);
    return r;
}

static int replace(struct restore *p, struct ha_error *err)
{
    const char *database = p->options->database;
    char *log = ha_format("%s-wal", database), *dir = ha_path_dirname(database);
    bool there = ha_path_exists(database);
    struct tm parts;
    time_t now = time(NULL);
    int r = log && dir ? ha_file_write(p->marker, "", 0, 0600, err) : no_memory(err);

    gmtime_r(&now, &parts);
    if (there)
        strftime(p->report->replaced, sizeof p->report->replaced, ".replaced-%Y%m%dT%H%M%SZ",
                 &parts);
    HA_CRASH_POINT("coordinator.restore_marked");
    if (r == 0 && there)
        r = move_aside(log, p->report->replaced, err);
    if (r == 0 && there)
        r = move_aside(database, p->report->replaced, err);
    HA_CRASH_POINT("coordinator.restore_moved");
    if (r == 0 && rename(p->fresh, database) < 0)
        r = ha_error_set(err, errno, "cannot rename %s: %s", p->fresh, strerror(errno));
    if (r == 0)
        r = ha_file_sync_dir(dir, err);
    if (r == 0)
        HA_FAULT_DURABLE(NULL, database);
    HA_CRASH_POINT("coordinator.restore_replaced");
    if (r == 0 && unlink(p->marker) < 0)
        r = ha_error_set(err, errno, "cannot remove %s: %s", p->marker, strerror(errno));
    if (r == 0)
        r = ha_file_sync_dir(dir, err);
    free(log);
    free(dir);
    return r;
}

int ha_restore_check_marker(const char *database, struct ha_error *err)
{
    char *marker = beside(database, "restoring");
    bool there = marker && ha_path_exists(marker);
    int r = !marker ? no_memory(err)
            : there
                ? ha_error_set(err, EBUSY,
                               "%s: a restore was cut off here; run hactl restore again", marker)
                : 0;

    free(marker);
    return r;
}

int ha_restore(const struct ha_restore_options *options, struct ha_restore_report *ret_report,
               struct ha_error *err)
{
    struct restore p = {.options = options, .report = ret_report, .err = err};
    int r = 0;

    *ret_report = (struct ha_restore_report){.sweeps = 0};
    p.from_db = ha_path_join(options->backup, "coordinator.db");
    p.from_artifacts = ha_path_join(options->backup, "artifacts");
    p.marker = beside(options->database, "restoring");
    p.fresh = ha_format("%s.restored", options->database);
    if (!p.from_db || !p.from_artifacts || !p.marker || !p.fresh)
        r = no_memory(err);
    if (r == 0)
        r = check_backup(&p, err);
    if (r == 0)
        r = check_there(&p, err);
    if (r == 0)
        r = place_artifacts(&p, err);
    if (r == 0)
        r = make_fresh(&p, err);
    if (r == 0)
        r = replace(&p, err);
    free(p.from_db);
    free(p.from_artifacts);
    free(p.marker);
    free(p.fresh);
    return r;
}
