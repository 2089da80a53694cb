#include "worker/daemon/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/proc/spawn.h"
#include "worker/daemon/journal.h"

enum { KEPT = 5 };

struct folders {
    struct ha_lock *lock;
    char *root, *cache, *digests, *choices;
    char **left; /* of an earlier daemon, with a journal */
    int64_t n_left, left_capacity;
    char *kept[KEPT]; /* folders of failed attempts, oldest first */
    int n_kept;
};

/* "12-7-3": digits and two dashes. */
static bool is_attempt_name(const char *name)
{
    int dashes = 0;

    for (const char *at = name; *at; at++) {
        if (*at == '-')
            dashes++;
        else if (*at < '0' || *at > '9')
            return false;
    }
    return dashes == 2;
}

static bool has_journal(const char *path)
{
    char *journal = ha_path_join(path, JOURNAL_FILE);
    struct stat st;
    bool has = journal && stat(journal, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;

    free(journal);
    return has;
}

/* Takes the path. */
static int clean_attempt(struct folders *folders, char *path, struct ha_error *err)
{
    int r;

    if (has_journal(path) && ha_grow((void **)&folders->left, &folders->left_capacity,
                                     folders->n_left + 1, sizeof(*folders->left)) == 0) {
        folders->left[folders->n_left++] = path;
        return 0;
    }
    r = ha_path_remove_tree(path, err);
    free(path);
    return r;
}

static int clean_up(struct folders *folders, struct ha_error *err)
{
    DIR *dir = opendir(folders->root);
    const struct dirent *entry;
    int r = 0;

    if (!dir)
        return ha_error_set(err, errno, "cannot read %s: %s", folders->root, strerror(errno));
    while (r == 0 && (entry = readdir(dir)) != NULL) {
        char *path =
            is_attempt_name(entry->d_name) ? ha_path_join(folders->root, entry->d_name) : NULL;

        if (path)
            r = clean_attempt(folders, path, err);
    }
    closedir(dir);
    return r;
}

int folders_open(const char *work_dir, struct folders **ret_folders, struct ha_error *err)
{
    struct folders *folders = ha_calloc(1, sizeof(*folders));
    char *lock_path = NULL;
    int r;

    if (!folders)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = ha_path_make_durable(work_dir, 0700, err);
    if (r < 0)
        goto fail;
    folders->root = realpath(work_dir, NULL);
    if (folders->root) {
        folders->cache = ha_path_join(folders->root, "cache");
        folders->digests = ha_path_join(folders->root, "digests");
        folders->choices = ha_path_join(folders->root, "choices");
        lock_path = ha_path_join(folders->root, "lock");
    }
    if (!folders->cache || !folders->digests || !folders->choices || !lock_path) {
        r = ha_error_set(err, ENOMEM, "%s: out of memory", work_dir);
        goto fail;
    }
    r = ha_lock_take(lock_path, &folders->lock, err);
    if (r == 0)
        r = ha_path_make_dirs(folders->cache, 0700, err);
    if (r == 0)
        r = clean_up(folders, err);
    if (r < 0)
        goto fail;
    free(lock_path);
    *ret_folders = folders;
    return 0;
fail:
    free(lock_path);
    folders_close(folders);
    return r;
}

void folders_close(struct folders *folders)
{
    if (!folders)
        return;
    ha_lock_release(folders->lock);
    for (int i = 0; i < folders->n_kept; i++)
        free(folders->kept[i]);
    while (folders->n_left > 0)
        free(folders->left[--folders->n_left]);
    free(folders->left);
    free(folders->root);
    free(folders->cache);
    free(folders->digests);
    free(folders->choices);
    free(folders);
}

const char *folders_digests(const struct folders *folders)
{
    return folders->digests;
}

const char *folders_choices(const struct folders *folders)
{
    return folders->choices;
}

int folders_make_attempt(struct folders *folders, const struct attempt_id *id, char **ret_path,
                         struct ha_error *err)
{
    char *path = ha_format("%s/%" PRIu64 "-%" PRIu64 "-%" PRIu64, folders->root, id->job,
                           id->epoch.generation, id->epoch.number);
    int r;

    if (!path)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = ha_path_remove_tree(path, err);
    if (r == 0)
        r = ha_path_make_dirs(path, 0700, err);
    if (r < 0) {
        free(path);
        return r;
    }
    *ret_path = path;
    return 0;
}

char *folders_take_left(struct folders *folders, struct attempt_id *ret_id)
{
    char *path;

    while (folders->n_left > 0) {
        path = folders->left[--folders->n_left];
        if (sscanf(strrchr(path, '/') + 1, "%" SCNu64 "-%" SCNu64 "-%" SCNu64, &ret_id->job,
                   &ret_id->epoch.generation, &ret_id->epoch.number) == 3)
            return path;
        (void)ha_path_remove_tree(path, NULL);
        free(path);
    }
    return NULL;
}

void folders_end_attempt(struct folders *folders, const char *path, bool keep)
{
    char *oldest, *copy = keep ? ha_strdup(path) : NULL;

    if (!copy) {
        (void)ha_path_remove_tree(path, NULL);
        return;
    }
    if (folders->n_kept == KEPT) {
        oldest = folders->kept[0];
        (void)ha_path_remove_tree(oldest, NULL);
        free(oldest);
        memmove(folders->kept, folders->kept + 1, (KEPT - 1) * sizeof(folders->kept[0]));
        folders->n_kept--;
    }
    folders->kept[folders->n_kept++] = copy;
}

/* ---- the cache ---------------------------------------------------------------------------- */

char *folders_cached(const struct folders *folders, const char *sha256)
{
    return ha_path_join(folders->cache, sha256);
}

static int make_parent(const char *path, struct ha_error *err)
{
    char *parent = ha_path_dirname(path);
    int r =
        parent ? ha_path_make_dirs(parent, 0700, err) : ha_error_set(err, ENOMEM, "out of memory");

    free(parent);
    return r;
}

int folders_link(struct folders *folders, const char *sha256, const char *path,
                 struct ha_error *err)
{
    char *cached = folders_cached(folders, sha256);
    int r;

    if (!cached)
        return ha_error_set(err, ENOMEM, "out of memory");
    (void)utimensat(AT_FDCWD, cached, NULL, 0); /* used now */
    if (!ha_path_exists(cached))
        r = ha_error_set(err, ENOENT, "%s is not in the cache", sha256);
    else
        r = make_parent(path, err);
    if (r == 0 && link(cached, path) < 0)
        r = errno == EEXIST ? 0 : ha_file_copy(cached, path, 0444, err);
    free(cached);
    return r;
}

void folders_remember(struct folders *folders, const char *sha256, const char *path)
{
    char *cached = ha_sha256_hex_valid(sha256) ? folders_cached(folders, sha256) : NULL;

    if (cached && link(path, cached) == 0)
        (void)chmod(cached, 0444);
    free(cached);
}

struct cached {
    char *path;
    int64_t bytes;
    struct timespec used;
};

static int compare_use(const void *left, const void *right)
{
    const struct cached *a = left, *b = right;

    if (a->used.tv_sec != b->used.tv_sec)
        return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    return (a->used.tv_nsec > b->used.tv_nsec) - (a->used.tv_nsec < b->used.tv_nsec);
}

/* List the cache; what cannot be read or kept in memory is not trimmed. */
static struct cached *list_cache(const struct folders *folders, int64_t *ret_n, int64_t *ret_bytes)
{
    struct cached *list = NULL;
    const struct dirent *entry;
    int64_t capacity = 0;
    DIR *dir = opendir(folders->cache);
    struct stat st;

    *ret_n = *ret_bytes = 0;
    while (dir && (entry = readdir(dir)) != NULL) {
        char *path = entry->d_name[0] != '.' ? ha_path_join(folders->cache, entry->d_name) : NULL;

        if (!path || stat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
            ha_grow((void **)&list, &capacity, *ret_n + 1, sizeof(*list)) < 0) {
            free(path);
            continue;
        }
        list[(*ret_n)++] = (struct cached){.path = path, .bytes = st.st_size, .used = st.st_mtim};
        *ret_bytes += st.st_size;
    }
    if (dir)
        closedir(dir);
    return list;
}

void folders_trim(struct folders *folders, int64_t most_bytes)
{
    int64_t n, bytes;
    struct cached *list = list_cache(folders, &n, &bytes);

    if (n > 0)
        qsort(list, (size_t)n, sizeof(*list), compare_use);
    for (int64_t i = 0; i < n; i++) {
        if (bytes > most_bytes && unlink(list[i].path) == 0)
            bytes -= list[i].bytes;
        free(list[i].path);
    }
    free(list);
}
