/* backup.c - Backup: a copy of the database while turns go on (inside.h)
 *
 * The copy is made between turns (store/backup.h), hashed by the artifacts' thread,
 * and then read like an artifact.  From its first page to its end nothing that it
 * may name is removed from the disk: what becomes an orphan meanwhile waits. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/backup.h"

enum { KEY_BYTES = 80, FORGOTTEN_MS = 600000, QUIET_SLICES = 4, SPARE_BYTES = 64 << 20 };

enum state { COPYING, HASHING, READY, FAILED };

struct ha_backup {
    char key[KEY_BYTES];
    int64_t number; /* of its file */
    char *path;
    enum state state;
    struct ha_store_copy *copy; /* while it is copied */
    int64_t done, total;        /* pages */
    char sha256[65];
    int64_t size;
    struct ha_error error;
    int64_t asked_ms; /* boot time */
    bool ending;
    char (*kept)[65]; /* orphans whose files stay until the end */
    int64_t kept_count, kept_capacity;
};

bool ha_backup_keeps(struct ha_coordinator *c, const char *sha256)
{
    struct ha_backup *b = c->backup;
    void *array = b ? b->kept : NULL;

    if (!b)
        return false;
    /* Without memory the file stays: gc finds it. */
    if (ha_grow(&array, &b->kept_capacity, b->kept_count + 1, sizeof *b->kept) < 0)
        return true;
    b->kept = array;
    ha_utf8_copy(b->kept[b->kept_count++], sizeof *b->kept, sha256);
    return true;
}

/* Files that nothing needs, now that the copy does not either; one that came again
 * meanwhile has a row. */
static void release_kept(struct ha_coordinator *c, struct ha_backup *b)
{
    for (int64_t i = 0; i < b->kept_count; i++) {
        if (ha_store_artifact_find(c->store, b->kept[i], NULL, NULL) == 0)
            c->hooks.artifact_orphan(c->hooks.context, b->kept[i]);
    }
}

void ha_backup_drop(struct ha_coordinator *c)
{
    struct ha_backup *b = c->backup;

    if (!b)
        return;
    c->backup = NULL;
    ha_store_copy_end(b->copy);
    if (b->state == COPYING)
        (void)unlink(b->path);
    if (b->state == READY)
        c->hooks.snapshot_end(c->hooks.context, b->sha256);
    release_kept(c, b);
    free(b->kept);
    free(b->path);
    free(b);
}

bool ha_backup_has_work(const struct ha_coordinator *c)
{
    return c->backup && c->backup->state == COPYING;
}

static void fail(struct ha_backup *b, const struct ha_error *why)
{
    (void)unlink(b->path);
    b->state = FAILED;
    b->error = *why;
    ha_log_warning("a backup failed: %s", ha_error_text(why));
}

void ha_backup_work(struct ha_coordinator *c)
{
    struct ha_backup *b = c->backup;
    int64_t slices = c->asked_count == 0 ? QUIET_SLICES : 1;
    struct ha_error err = {0};
    int r;

    if (!b)
        return;
    if (b->ending || c->boot_ms - b->asked_ms > FORGOTTEN_MS) {
        ha_backup_drop(c);
        return;
    }
    if (b->state != COPYING)
        return;
    r = ha_store_copy_step(b->copy, ha_clock_boot_ns() + slices * c->options.slice_us * 1000, &err);
    ha_store_copy_progress(b->copy, &b->done, &b->total);
    if (r == 0)
        return;
    ha_store_copy_end(b->copy);
    b->copy = NULL;
    if (r < 0) {
        fail(b, &err);
        return;
    }
    b->state = HASHING;
    c->hooks.snapshot_copied(c->hooks.context, b->number, b->path);
}

void ha_coordinator_snapshot(struct ha_coordinator *c, int64_t number, const char *sha256,
                             int64_t size, const struct ha_error *why)
{
    struct ha_backup *b = c->backup;

    if (!b || b->number != number) {
        if (!why)
            c->hooks.snapshot_end(c->hooks.context, sha256);
    } else if (why) {
        fail(b, why);
    } else {
        ha_utf8_copy(b->sha256, sizeof b->sha256, sha256);
        b->size = size;
        b->state = READY;
    }
}

/* The copy shall not take the room that results need. */
static int check_room(const struct ha_coordinator *c, struct ha_error *err)
{
    struct statvfs fs;
    struct stat st;
    int64_t free_bytes;

    if (!c->options.database || stat(c->options.database, &st) < 0 ||
        statvfs(c->options.artifacts, &fs) < 0)
        return 0;
    free_bytes = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
    if (free_bytes >= st.st_size + SPARE_BYTES)
        return 0;
    return ha_error_set(err, ENOSPC,
                        "a copy of the database needs %" PRId64 " MiB in %s, and %" PRId64
                        " MiB are free; free some",
                        ((int64_t)st.st_size + SPARE_BYTES) >> 20, c->options.artifacts,
                        free_bytes >> 20);
}

static int begin(struct ha_request *q, const char *key, struct ha_error *err)
{
    struct ha_coordinator *c = q->c;
    struct ha_backup *b;
    int r = check_room(c, err);

    if (r < 0)
        return r;
    b = ha_calloc(1, sizeof *b);
    if (!b)
        return ha_error_set(err, ENOMEM, "no memory for a backup");
    ha_utf8_copy(b->key, sizeof b->key, key);
    b->number = ++c->snapshots;
    b->path = ha_format("%s/snapshot/%" PRId64 ".db", c->options.artifacts, b->number);
    r = b->path ? ha_store_copy_begin(c->store, b->path, &b->copy, err)
                : ha_error_set(err, ENOMEM, "no memory for a backup");
    if (r < 0) {
        free(b->path);
        free(b);
        return r;
    }
    c->backup = b;
    return 0;
}

static void fill_reply(struct ha_request *q, const struct ha_backup *b)
{
    static const char *const names[] = {
        [COPYING] = "copying", [HASHING] = "hashing", [READY] = "ready", [FAILED] = "failed"};
    struct ha_wire_backup_reply *reply = &q->reply.body.backup_reply;

    *reply = (struct ha_wire_backup_reply){.state = names[b->state],
                                           .done = b->done,
                                           .total = b->total,
                                           .sha256 = b->sha256,
                                           .size = b->size,
                                           .folder = q->c->options.artifacts};
    if (b->state == FAILED)
        reply->error = ha_scratch_text(&q->arena, ha_error_text(&b->error));
}

int ha_handle_backup(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_backup *request = &q->message->body.backup;
    struct ha_coordinator *c = q->c;
    size_t length = strlen(request->key);
    int r;

    if (!c->options.artifacts)
        return ha_error_set(err, ENOSYS, "this coordinator cannot make backups");
    if (length < 16 || length >= KEY_BYTES)
        return ha_error_set(err, EINVAL, "a backup needs a key of 16 to %d letters", KEY_BYTES - 1);
    q->reply.kind = HA_WIRE_BACKUP_REPLY;
    if (request->end) {
        if (c->backup && strcmp(c->backup->key, request->key) == 0)
            c->backup->ending = true;
        q->reply.body.backup_reply.state = "ended";
        return 0;
    }
    if (c->backup && strcmp(c->backup->key, request->key) != 0)
        return ha_error_set(err, EBUSY,
                            "another backup is under way; wait for it (one whose client is gone "
                            "ends after ten minutes)");
    r = c->backup ? 0 : begin(q, request->key, err);
    if (r < 0)
        return r;
    c->backup->asked_ms = c->boot_ms;
    fill_reply(q, c->backup);
    return 0;
}
