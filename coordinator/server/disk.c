#include "coordinator/server/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"

enum { UPLOADS = 32, PIECE_BYTES = 1 << 20, PARTIAL_KEPT_S = 86400, FOLDERS = 256 };

/* An upload that is under way, with the hash of the bytes that are there. */
struct upload {
    char sha256[HA_SHA256_HEX_BYTES]; /* "": a free place */
    int fd;
    int64_t have, used; /* used: of the least recently used one */
    struct ha_sha256 hash;
};

struct ha_disk {
    char *dir;
    bool fatal;
    int64_t clock;
    struct upload uploads[UPLOADS];
    bool settled[FOLDERS]; /* what an earlier process left in the folder is on the disk */
};

static char *final_path(const struct ha_disk *disk, const char *sha256)
{
    return ha_format("%s/%.2s/%s", disk->dir, sha256, sha256);
}

static char *partial_path(const struct ha_disk *disk, const char *sha256)
{
    return ha_format("%s/partial/%s", disk->dir, sha256);
}

static char *snapshot_path(const struct ha_disk *disk, const char *sha256)
{
    return ha_format("%s/snapshot/%s", disk->dir, sha256);
}

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for an artifact");
}

static int failed(const char *what, const char *path, int code, struct ha_error *err)
{
    if (code == ENOSPC || code == EDQUOT)
        return ha_error_set(err, ENOSPC, "%s: the disk is full", path);
    return ha_error_set(err, code, "cannot %s %s: %s", what, path, strerror(code));
}

/* ---- opening ------------------------------------------------------------------------- */

static void remove_old(const struct ha_disk *disk, const char *name, int64_t kept_s)
{
    char *folder = ha_path_join(disk->dir, name);
    DIR *entries = folder ? opendir(folder) : NULL;
    struct dirent *entry;
    struct stat st;

    while (entries && (entry = readdir(entries)) != NULL) {
        if (fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && time(NULL) - st.st_mtime >= kept_s)
            unlinkat(dirfd(entries), entry->d_name, 0);
    }
    if (entries)
        closedir(entries);
    free(folder);
}

int ha_disk_open(const char *dir, struct ha_disk **ret_disk, struct ha_error *err)
{
    struct ha_disk *disk = ha_calloc(1, sizeof *disk);
    char *partial = ha_path_join(dir, "partial"), *snapshot = ha_path_join(dir, "snapshot");
    int r = disk && partial && snapshot ? ha_path_make_durable(partial, 0700, err) : no_memory(err);

    if (r == 0)
        r = ha_path_make_dirs(snapshot, 0700, err);
    if (disk) {
        disk->dir = ha_strdup(dir);
        for (int i = 0; i < UPLOADS; i++)
            disk->uploads[i].fd = -1;
    }
    free(partial);
    free(snapshot);
    if (r == 0 && !disk->dir)
        r = no_memory(err);
    if (r < 0) {
        ha_disk_close(disk);
        return r;
    }
    remove_old(disk, "partial", PARTIAL_KEPT_S);
    remove_old(disk, "snapshot", 0);
    *ret_disk = disk;
    return 0;
}

static void forget(struct upload *upload)
{
    if (upload->fd >= 0)
        close(upload->fd);
    upload->fd = -1;
    upload->sha256[0] = '\0';
}

void ha_disk_close(struct ha_disk *disk)
{
    if (!disk)
        return;
    for (int i = 0; i < UPLOADS; i++)
        forget(&disk->uploads[i]);
    free(disk->dir);
    free(disk);
}

bool ha_disk_fatal(const struct ha_disk *disk)
{
    return disk->fatal;
}

/* ---- an upload ------------------------------------------------------------------------- */

/* Hash what an earlier run of the program wrote. */
static int rehash(struct upload *upload, const char *path, struct ha_error *err)
{
    char *piece = malloc(PIECE_BYTES);
    ssize_t n = 1;

    if (!piece)
        return no_memory(err);
    ha_sha256_init(&upload->hash);
    upload->have = 0;
    while (n > 0) {
        n = pread(upload->fd, piece, PIECE_BYTES, upload->have);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0) {
            ha_sha256_update(&upload->hash, piece, (size_t)n);
            upload->have += n;
        }
    }
    free(piece);
    return n < 0 ? failed("read", path, errno, err) : 0;
}

static struct upload *find(struct ha_disk *disk, const char *sha256)
{
    for (int i = 0; i < UPLOADS; i++) {
        if (strcmp(disk->uploads[i].sha256, sha256) == 0)
            return &disk->uploads[i];
    }
    return NULL;
}

static struct upload *free_place(struct ha_disk *disk)
{
    struct upload *oldest = &disk->uploads[0];

    for (int i = 0; i < UPLOADS; i++) {
        if (!disk->uploads[i].sha256[0])
            return &disk->uploads[i];
        if (disk->uploads[i].used < oldest->used)
            oldest = &disk->uploads[i];
    }
    forget(oldest); /* its file stays and is hashed again when it goes on */
    return oldest;
}

/* The upload of a hash, begun or gone on with. */
static int get_upload(struct ha_disk *disk, const char *sha256, int64_t size,
                      struct upload **ret_upload, struct ha_error *err)
{
    struct upload *upload = find(disk, sha256);
    char *path;
    int r;

    if (upload) {
        upload->used = ++disk->clock;
        *ret_upload = upload;
        return 0;
    }
    path = partial_path(disk, sha256);
    if (!path)
        return no_memory(err);
    upload = free_place(disk);
    upload->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    r = upload->fd < 0 ? failed("open", path, errno, err) : rehash(upload, path, err);
    if (r == 0 && upload->have > size) {
        r = ftruncate(upload->fd, 0) < 0 ? failed("cut", path, errno, err) : 0;
        ha_sha256_init(&upload->hash);
        upload->have = 0;
    }
    free(path);
    if (r < 0) {
        forget(upload);
        return r;
    }
    snprintf(upload->sha256, sizeof upload->sha256, "%s", sha256);
    upload->used = ++disk->clock;
    *ret_upload = upload;
    return 0;
}

/* Size of the complete file, or -1. */
static int64_t complete_size(const struct ha_disk *disk, const char *sha256)
{
    char *path = final_path(disk, sha256);
    struct stat st;
    int64_t size = path && stat(path, &st) == 0 && S_ISREG(st.st_mode) ? st.st_size : -1;

    free(path);
    return size;
}

/* The folder that the file lies in, and its names: whoever made them may have been killed before
 * they were synced, which is made good once in the life of a process. */
static int settle(struct ha_disk *disk, const char *sha256, struct ha_error *err)
{
    char *folder = ha_format("%s/%.2s", disk->dir, sha256);
    bool *settled = &disk->settled[strtoul((char[3]){sha256[0], sha256[1]}, NULL, 16)];
    int r = folder ? ha_path_make_dirs(folder, 0700, err) : no_memory(err);

    if (r == 0 && !*settled) {
        disk->fatal = ha_file_sync_dir(disk->dir, err) < 0 || ha_file_sync_dir(folder, err) < 0;
        *settled = !disk->fatal;
        r = disk->fatal ? -EIO : 0;
    }
    free(folder);
    return r;
}

/* A file that lost its bytes after it was stored must not keep them from coming
 * again.  True when it was removed. */
static bool drop_damaged(struct ha_disk *disk, const char *sha256)
{
    char *path = final_path(disk, sha256), hex[HA_SHA256_HEX_BYTES];
    int64_t size;
    bool damaged = path && ha_file_sha256(path, hex, &size, NULL) == 0 && strcmp(hex, sha256) != 0;

    if (damaged) {
        ha_log_warning("artifact %s was damaged on the disk; it is taken anew", sha256);
        unlink(path);
    }
    free(path);
    return damaged;
}

int ha_disk_state(struct ha_disk *disk, const char *sha256, int64_t size, int64_t *ret_have,
                  struct ha_error *err)
{
    int64_t complete = complete_size(disk, sha256);
    struct upload *upload;
    int r;

    if (complete >= 0 && complete != size && drop_damaged(disk, sha256))
        complete = -1;
    if (complete >= 0 && complete != size)
        return ha_error_set(err, EINVAL, "artifact %s has %lld bytes, not %lld", sha256,
                            (long long)complete, (long long)size);
    if (complete >= 0) {
        r = settle(disk, sha256, err);
        if (r == 0)
            *ret_have = size;
        return r;
    }
    r = get_upload(disk, sha256, size, &upload, err);
    if (r < 0)
        return r;
    /* Only the last step was missing when the program ended. */
    if (upload->have == size && size > 0)
        return ha_disk_write(disk, sha256, size, size, "", 0, ret_have, err);
    *ret_have = upload->have;
    return 0;
}

/* ---- the last byte ------------------------------------------------------------------------ */

static int check_hash(struct ha_disk *disk, struct upload *upload, const char *path,
                      struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];

    (void)disk;
    ha_sha256_final(&upload->hash, digest);
    if (strcmp(ha_sha256_hex(digest, hex), upload->sha256) == 0)
        return 0;
    unlink(path);
    return ha_error_set(err, EBADMSG, "the bytes of artifact %s have hash %s", upload->sha256, hex);
}

static int sync_and_rename(struct ha_disk *disk, struct upload *upload, const char *partial,
                           const char *path, struct ha_error *err)
{
    char *folder = ha_path_dirname(path);
    int r = folder ? settle(disk, upload->sha256, err) : no_memory(err);

    HA_CRASH_POINT("coordinator.artifact_before_sync");
    if (r == 0 && fsync(upload->fd) < 0) {
        disk->fatal = true;
        r = failed("sync", partial, errno, err);
    }
    HA_CRASH_POINT("coordinator.artifact_before_rename");
    if (r == 0 && rename(partial, path) < 0)
        r = failed("rename", partial, errno, err);
    HA_CRASH_POINT("coordinator.artifact_after_rename");
    if (r == 0 && ha_file_sync_dir(folder, err) < 0) {
        disk->fatal = true;
        r = -EIO;
    }
    free(folder);
    return r;
}

static int finish(struct ha_disk *disk, struct upload *upload, struct ha_error *err)
{
    char *partial = partial_path(disk, upload->sha256), *path = final_path(disk, upload->sha256);
    int r = partial && path ? check_hash(disk, upload, partial, err) : no_memory(err);

    if (r == 0)
        r = sync_and_rename(disk, upload, partial, path, err);
    if (r == 0)
        HA_FAULT_DURABLE(NULL, path);
    forget(upload);
    free(partial);
    free(path);
    return r;
}

static int append(struct upload *upload, const char *data, size_t bytes, struct ha_error *err)
{
    size_t done = 0;

    while (done < bytes) {
        ssize_t n = pwrite(upload->fd, data + done, bytes - done, upload->have + (int64_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return failed("write", upload->sha256, n < 0 ? errno : EIO, err);
        done += (size_t)n;
    }
    ha_sha256_update(&upload->hash, data, bytes);
    upload->have += (int64_t)bytes;
    return 0;
}

int ha_disk_write(struct ha_disk *disk, const char *sha256, int64_t size, int64_t offset,
                  const void *data, size_t bytes, int64_t *ret_have, struct ha_error *err)
{
    struct upload *upload;
    int r = 0;

    if (complete_size(disk, sha256) == size) {
        *ret_have = size;
        return 0;
    }
    r = get_upload(disk, sha256, size, &upload, err);
    if (r < 0)
        return r;
    if (offset > size || (int64_t)bytes > size - offset)
        return ha_error_set(err, EINVAL, "a chunk of artifact %s ends behind its size", sha256);
    if (offset == upload->have)
        r = append(upload, data, bytes, err);
    if (r < 0)
        return r;
    *ret_have = upload->have;
    return upload->have == size ? finish(disk, upload, err) : 0;
}

/* ---- complete ones -------------------------------------------------------------------------- */

int64_t ha_disk_read(struct ha_disk *disk, const char *sha256, int64_t offset, void *data,
                     size_t bytes, int64_t *ret_size, struct ha_error *err)
{
    char *path = final_path(disk, sha256);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    size_t done = 0;
    struct stat st;
    int r = 0;

    if (fd < 0 && path) {
        free(path);
        path = snapshot_path(disk, sha256);
        fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    }
    if (fd < 0 || fstat(fd, &st) < 0)
        r = !path ? no_memory(err) : ha_error_set(err, ENOENT, "there is no artifact %s", sha256);
    while (r == 0 && done < bytes) {
        ssize_t n = pread(fd, (char *)data + done, bytes - done, offset + (int64_t)done);

        if (n < 0 && errno != EINTR)
            r = failed("read", path, errno, err);
        if (n == 0)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    if (r == 0)
        *ret_size = st.st_size;
    if (fd >= 0)
        close(fd);
    free(path);
    return r < 0 ? r : (int64_t)done;
}

void ha_disk_remove(struct ha_disk *disk, const char *sha256)
{
    char *path = final_path(disk, sha256);

    if (path)
        unlink(path);
    free(path);
}

/* ---- snapshots ------------------------------------------------------------------------------- */

static int sync_file(const char *path, struct ha_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r = 0;

    if (fd < 0 || fsync(fd) < 0)
        r = failed("sync", path, errno, err);
    if (fd >= 0)
        close(fd);
    return r;
}

int ha_disk_adopt(struct ha_disk *disk, const char *path, char ret_sha256[65], int64_t *ret_size,
                  struct ha_error *err)
{
    char *named = NULL;
    int r = sync_file(path, err);

    if (r == 0)
        r = ha_file_sha256(path, ret_sha256, ret_size, err);
    if (r == 0) {
        named = snapshot_path(disk, ret_sha256);
        r = !named                     ? no_memory(err)
            : rename(path, named) == 0 ? 0
                                       : failed("rename", path, errno, err);
    }
    if (r < 0)
        unlink(path);
    free(named);
    return r;
}

void ha_disk_remove_snapshot(struct ha_disk *disk, const char *sha256)
{
    char *path = snapshot_path(disk, sha256);

    if (path)
        unlink(path);
    free(path);
}
