#include "common/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/memory.h"
#include "common/base/path.h"

enum { PIECE_BYTES = 1 << 20 };

struct ha_file_writer {
    char *path;
    char *temporary;
    char *folder;
    int fd; /* -1: closed */
};

static int write_error(struct ha_error *err, int code, const char *path)
{
    if (code == ENOSPC || code == EDQUOT)
        return ha_error_set(err, code, "cannot write %s: the disk is full; free some space", path);
    return ha_error_set(err, code, "cannot write %s: %s", path, strerror(code));
}

int ha_file_write_all(int fd, const void *data, size_t size)
{
    const char *bytes = data;

    while (size > 0) {
        ssize_t n = write(fd, bytes, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

int ha_file_sync_dir(const char *path, struct ha_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code;

    if (fd < 0)
        return ha_error_set(err, errno, "cannot open folder %s: %s", path, strerror(errno));
    /* EINVAL: the filesystem has no such call for folders. */
    code = fsync(fd) < 0 && errno != EINVAL ? errno : 0;
    close(fd);
    return code ? ha_error_set(err, code, "cannot sync folder %s: %s", path, strerror(code)) : 0;
}

int ha_file_writer_open(const char *path, unsigned mode, struct ha_file_writer **ret_writer,
                        struct ha_error *err)
{
    struct ha_file_writer *writer = ha_calloc(1, sizeof(*writer));
    int r;

    if (!writer)
        return ha_error_set(err, ENOMEM, "%s: out of memory", path);
    writer->fd = -1;
    writer->path = ha_strdup(path);
    writer->folder = ha_path_dirname(path);
    if (writer->path && writer->folder)
        writer->temporary = ha_format("%s/.%s.XXXXXX.tmp", writer->folder, ha_path_basename(path));
    if (!writer->temporary) {
        r = ha_error_set(err, ENOMEM, "%s: out of memory", path);
        goto fail;
    }
    writer->fd = mkostemps(writer->temporary, 4, O_CLOEXEC);
    if (writer->fd < 0 || fchmod(writer->fd, (mode_t)mode) < 0) {
        r = write_error(err, errno, path);
        goto fail;
    }
    *ret_writer = writer;
    return 0;
fail:
    ha_file_writer_destroy(writer);
    return r;
}

int ha_file_writer_write(struct ha_file_writer *writer, const void *bytes, size_t size,
                         struct ha_error *err)
{
    int r = ha_file_write_all(writer->fd, bytes, size);

    return r < 0 ? write_error(err, -r, writer->path) : 0;
}

int ha_file_writer_commit(struct ha_file_writer *writer, struct ha_error *err)
{
    int fd = writer->fd;

    HA_CRASH_POINT("file.before_sync");
    if (fsync(fd) < 0)
        return write_error(err, errno, writer->path);
    HA_CRASH_POINT("file.before_rename");
    writer->fd = -1;
    if (close(fd) < 0 || rename(writer->temporary, writer->path) < 0) {
        int code = errno;

        unlink(writer->temporary);
        return write_error(err, code, writer->path);
    }
    HA_CRASH_POINT("file.after_rename");
    return ha_file_sync_dir(writer->folder, err);
}

void ha_file_writer_destroy(struct ha_file_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0) {
        close(writer->fd);
        unlink(writer->temporary);
    }
    free(writer->path);
    free(writer->temporary);
    free(writer->folder);
    free(writer);
}

int ha_file_write(const char *path, const void *bytes, size_t size, unsigned mode,
                  struct ha_error *err)
{
    struct ha_file_writer *writer;
    int r = ha_file_writer_open(path, mode, &writer, err);

    if (r < 0)
        return r;
    r = ha_file_writer_write(writer, bytes, size, err);
    if (r == 0)
        r = ha_file_writer_commit(writer, err);
    ha_file_writer_destroy(writer);
    return r;
}

static int open_file(const char *path, int *ret_fd, int64_t *ret_bytes, struct ha_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int code;

    if (fd < 0)
        return ha_error_set(err, errno, "cannot open %s: %s", path, strerror(errno));
    code = fstat(fd, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? EISDIR : 0;
    if (code) {
        close(fd);
        return ha_error_set(err, code, "cannot read %s: %s", path, strerror(code));
    }
    *ret_fd = fd;
    *ret_bytes = (int64_t)st.st_size;
    return 0;
}

/* Up to size bytes; fewer only at the end of the file. */
static ssize_t read_piece(int fd, char *bytes, size_t size)
{
    size_t have = 0;

    while (have < size) {
        ssize_t n = read(fd, bytes + have, size - have);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        have += (size_t)n;
    }
    return (ssize_t)have;
}

int ha_file_read(const char *path, size_t limit, char **ret_bytes, size_t *ret_size,
                 struct ha_error *err)
{
    size_t capacity = 4096, have = 0;
    char *bytes = NULL;
    int64_t file_bytes;
    int fd = -1;
    int r = open_file(path, &fd, &file_bytes, err);

    if (r < 0)
        return r;
    if (limit > SIZE_MAX - 2)
        limit = SIZE_MAX - 2;
    /* The size is a hint only: files under /proc and pipes say 0. */
    if (file_bytes > 0)
        capacity = (uint64_t)file_bytes > limit ? limit + 1 : (size_t)file_bytes + 1;
    for (;;) {
        char *more = realloc(bytes, capacity + 1);
        ssize_t n;

        if (!more) {
            r = ha_error_set(err, ENOMEM, "%s: out of memory", path);
            goto out;
        }
        bytes = more;
        n = read_piece(fd, bytes + have, capacity - have);
        if (n < 0) {
            r = ha_error_set(err, (int)-n, "cannot read %s: %s", path, strerror((int)-n));
            goto out;
        }
        have += (size_t)n;
        if (have > limit) {
            r = ha_error_set(err, EFBIG, "%s is larger than the limit of %zu bytes", path, limit);
            goto out;
        }
        if (have < capacity)
            break;
        capacity = capacity > limit / 2 ? limit + 1 : capacity * 2;
    }
    bytes[have] = '\0';
    *ret_bytes = bytes;
    *ret_size = have;
    bytes = NULL;
out:
    free(bytes);
    close(fd);
    return r;
}

/* Hand a file to `each`, a piece at a time. */
static int for_each_piece(const char *path,
                          int (*each)(void *context, const void *bytes, size_t size,
                                      struct ha_error *err),
                          void *context, int64_t *ret_bytes, struct ha_error *err)
{
    char *piece = malloc(PIECE_BYTES);
    int64_t total = 0;
    int64_t size_hint;
    int fd = -1;
    int r;

    if (!piece)
        return ha_error_set(err, ENOMEM, "%s: out of memory", path);
    r = open_file(path, &fd, &size_hint, err);
    while (r == 0) {
        ssize_t n = read_piece(fd, piece, PIECE_BYTES);

        if (n < 0)
            r = ha_error_set(err, (int)-n, "cannot read %s: %s", path, strerror((int)-n));
        if (n <= 0)
            break;
        total += n;
        r = each(context, piece, (size_t)n, err);
    }
    if (fd >= 0)
        close(fd);
    free(piece);
    if (r == 0 && ret_bytes)
        *ret_bytes = total;
    return r;
}

static int copy_piece(void *context, const void *bytes, size_t size, struct ha_error *err)
{
    return ha_file_writer_write(context, bytes, size, err);
}

int ha_file_copy(const char *from, const char *to, unsigned mode, struct ha_error *err)
{
    struct ha_file_writer *writer;
    int r = ha_file_writer_open(to, mode, &writer, err);

    if (r < 0)
        return r;
    r = for_each_piece(from, copy_piece, writer, NULL, err);
    if (r == 0)
        r = ha_file_writer_commit(writer, err);
    ha_file_writer_destroy(writer);
    return r;
}

static int hash_piece(void *context, const void *bytes, size_t size, struct ha_error *err)
{
    (void)err;
    ha_sha256_update(context, bytes, size);
    return 0;
}

int ha_file_sha256(const char *path, char ret_hex[HA_SHA256_HEX_BYTES], int64_t *ret_bytes,
                   struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;
    int r;

    ha_sha256_init(&hash);
    r = for_each_piece(path, hash_piece, &hash, ret_bytes, err);
    if (r < 0)
        return r;
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, ret_hex);
    return 0;
}
