/* gc.c - Gc: what nothing needs any more is removed, a slice per request (inside.h)
 *
 * A slice is one transaction: rows are deleted, and only when that is durable do
 * their files go.  A file whose row went but which stayed (the process was killed
 * between the two), and one whose row was never made, is found by the last phase,
 * which looks through the folder.  The client asks until there is nothing more. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/hash.h"
#include "common/base/memory.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/gc.h"
#include "coordinator/store/store.h"

enum { SLICE = 64, FOLDERS = 256 };

/* Things younger than this may belong to an upload or a submit that is under way. */
enum { YOUNGEST_MS = 3600000 };

#define STRAY_PHASE "strays"

struct slice {
    struct ha_request *q;
    struct ha_wire_gc_reply *reply;
    bool dry_run;
    const struct ha_gc_thing *thing;
    const char *what;
    int64_t before_ms;
};

static int tell(struct slice *s, const char *sha256, int64_t size, struct ha_error *err)
{
    const char *what = ha_scratch_text(&s->q->arena, s->what);
    const char *name = ha_scratch_text(&s->q->arena, sha256);
    const char **place =
        ha_scratch_grow(&s->q->arena, &s->reply->sha256, &s->reply->n_sha256, sizeof *place);
    const char **why;

    if (!what || !name || !place)
        return ha_error_set(err, ENOMEM, "no memory for the reply");
    *place = name;
    why = ha_scratch_grow(&s->q->arena, &s->reply->why, &s->reply->n_why, sizeof *why);
    if (!why)
        return ha_error_set(err, ENOMEM, "no memory for the reply");
    *why = what;
    s->reply->artifacts++;
    s->reply->bytes += size;
    return 0;
}

static int drop_orphan(void *context, const char *sha256)
{
    struct slice *s = context;
    int r = tell(s, sha256, s->thing->size, NULL);

    if (r == 0 && !s->dry_run)
        r = ha_server_hold_artifact(s->q->c, sha256, true, NULL);
    return r;
}

/* A dry run does the same and takes it back: so it says what would happen. */
static int collect(struct slice *s, enum ha_gc_kind kind, const char *after, struct ha_error *err)
{
    struct ha_store *store = s->q->c->store;
    struct ha_gc_thing thing;
    int r = s->dry_run ? ha_store_mark(store, err) : 0, n = 0;

    if (r < 0)
        return r;
    s->thing = &thing;
    snprintf(thing.key, sizeof thing.key, "%s", after);
    while (n < SLICE &&
           (r = ha_store_gc_next(store, kind, thing.key, s->before_ms, &thing, err)) == 1) {
        r = ha_store_gc_drop(store, kind, &thing, drop_orphan, s, err);
        if (r < 0)
            break;
        n++;
    }
    if (s->dry_run)
        ha_store_undo(store);
    if (r < 0)
        return r;
    if (n == SLICE) {
        s->reply->phase = ha_gc_kind_name(kind);
        s->reply->after = ha_scratch_text(&s->q->arena, thing.key);
    } else {
        s->reply->phase = kind + 1 < HA_GC_KINDS ? ha_gc_kind_name(kind + 1) : STRAY_PHASE;
    }
    return 0;
}

/* ---- files without a row ---------------------------------------------------------- */

/* An age by the clock of the disk, which is the wall clock. */
static bool is_old(const struct slice *s, const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000 < s->before_ms;
}

static int look_at(struct slice *s, DIR *dir, const char *name, struct ha_error *err)
{
    struct stat st;
    int r;

    if (!ha_sha256_hex_valid(name) || fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISREG(st.st_mode) || !is_old(s, &st))
        return 0;
    r = ha_store_artifact_find(s->q->c->store, name, NULL, err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = tell(s, name, st.st_size, err);
    if (r == 0 && !s->dry_run)
        r = ha_server_hold_artifact(s->q->c, name, true, err);
    return r;
}

static int collect_strays(struct slice *s, const char *after, struct ha_error *err)
{
    int64_t folder = strtoll(after, NULL, 10);
    const struct dirent *entry;
    char *path;
    DIR *dir;
    int r = 0;

    if (folder < 0 || folder >= FOLDERS)
        return ha_error_set(err, EINVAL, "gc: there is no such folder");
    path = ha_format("%s/%02x", s->q->c->options.artifacts, (unsigned)folder);
    if (!path)
        return ha_error_set(err, ENOMEM, "no memory");
    s->what = "no row names this file";
    dir = opendir(path);
    while (r == 0 && dir && (entry = readdir(dir)) != NULL)
        r = look_at(s, dir, entry->d_name, err);
    if (dir)
        closedir(dir);
    free(path);
    if (folder + 1 < FOLDERS) {
        s->reply->phase = STRAY_PHASE;
        s->reply->after = ha_scratch_format(&s->q->arena, "%" PRId64, folder + 1);
    }
    return r;
}

/* ---- the request --------------------------------------------------------------------- */

int ha_handle_gc(struct ha_request *q, struct ha_error *err)
{
    static const char *const words[HA_GC_KINDS] = {
        "an upload that nothing names", "a checkpoint of what is done or in no grid",
        "the log of a job that is done", "log-probs that no job used lately"};
    const struct ha_wire_gc *gc = &q->message->body.gc;
    int64_t age_ms = gc->older_ms > 0 ? gc->older_ms : q->c->options.gc_after_ms;
    struct slice s = {.q = q, .reply = &q->reply.body.gc_reply, .dry_run = gc->dry_run};

    if (!q->c->options.artifacts)
        return ha_error_set(err, ENOSYS, "this coordinator has no artifacts to remove");
    if (age_ms < YOUNGEST_MS)
        return ha_error_set(err, EINVAL,
                            "gc: at least an hour old; what is younger may belong to an upload or "
                            "a submit under way");
    s.before_ms = q->c->wall_ms - age_ms;
    q->reply.kind = HA_WIRE_GC_REPLY;
    if (strcmp(gc->phase, STRAY_PHASE) == 0)
        return collect_strays(&s, gc->after, err);
    for (int kind = 0; kind < HA_GC_KINDS; kind++) {
        if (gc->phase[0] ? strcmp(gc->phase, ha_gc_kind_name((enum ha_gc_kind)kind)) == 0
                         : kind == 0) {
            s.what = words[kind];
            return collect(&s, (enum ha_gc_kind)kind, gc->after, err);
        }
    }
    return ha_error_set(err, EINVAL, "gc: there is no phase \"%.20s\"", gc->phase);
}
