#include "worker/daemon/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/file.h"

enum { PIECE_BYTES = 1 << 16 };

struct log_file {
    char *path;
    int fd; /* -1: the file could not be begun anew */
    int64_t bytes, files, size;
    bool turned; /* there is a PATH.1 */
};

static int open_new(const char *path, int flags)
{
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
}

int log_file_open(const char *path, int64_t bytes, int64_t files, struct log_file **ret_log,
                  struct ha_error *err)
{
    struct log_file *log = ha_calloc(1, sizeof(*log));
    struct stat st;
    int r = 0;

    if (!log)
        return ha_error_set(err, ENOMEM, "out of memory");
    *log = (struct log_file){.fd = -1, .bytes = bytes, .files = files};
    log->path = ha_strdup(path);
    if (!log->path)
        r = ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0) {
        log->fd = open_new(path, O_APPEND);
        if (log->fd < 0 || fstat(log->fd, &st) < 0)
            r = ha_error_set(err, errno, "cannot write %s: %s", path, strerror(errno));
    }
    if (r < 0) {
        if (log->fd >= 0)
            close(log->fd);
        free(log->path);
        free(log);
        return r;
    }
    log->size = st.st_size;
    *ret_log = log;
    return 0;
}

/* Name of the n-th older file; 0: the newest.  False without memory. */
static bool name_of(const struct log_file *log, int64_t n, char **ret_name)
{
    *ret_name = n == 0 ? ha_strdup(log->path) : ha_format("%s.%" PRId64, log->path, n);
    return *ret_name != NULL;
}

/* Every file gets the next older name; the oldest goes. */
static void turn(struct log_file *log)
{
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
    for (int64_t n = log->files - 1; n >= 0; n--) {
        char *from = NULL, *to = NULL;

        if (name_of(log, n, &from) && n == log->files - 1)
            (void)unlink(from);
        else if (from && name_of(log, n + 1, &to))
            (void)rename(from, to);
        free(from);
        free(to);
    }
    log->fd = open_new(log->path, O_TRUNC | O_APPEND);
    log->size = 0;
    log->turned = log->files > 1;
}

void log_file_write(struct log_file *log, const char *text, size_t size)
{
    while (size > 0) {
        int64_t room = log->bytes - log->size;
        size_t n = (int64_t)size < room ? size : (size_t)(room > 0 ? room : 0);

        if (n == 0) {
            turn(log);
            continue;
        }
        if (log->fd >= 0)
            (void)ha_file_write_all(log->fd, text, n);
        log->size += (int64_t)n;
        text += n;
        size -= n;
    }
}

/* Append what stands in `from` after an offset. */
static int copy_rest(int from, int64_t offset, int to)
{
    char *piece = malloc(PIECE_BYTES);
    ssize_t n = piece ? 1 : -1;

    while (n > 0) {
        n = pread(from, piece, PIECE_BYTES, offset);
        if (n > 0 && ha_file_write_all(to, piece, (size_t)n) < 0)
            n = -1;
        offset += n > 0 ? n : 0;
    }
    free(piece);
    return n < 0 ? -EIO : 0;
}

/* The end of PATH.1 in front of PATH; whatever fails, PATH stays as it is. */
static void join(struct log_file *log)
{
    char *older = NULL, *joined = ha_format("%s.joined", log->path);
    int from = -1, to = -1;
    struct stat st;

    if (joined && name_of(log, 1, &older)) {
        from = open(older, O_RDONLY | O_CLOEXEC);
        to = open_new(joined, O_TRUNC);
    }
    if (from >= 0 && to >= 0 && fstat(from, &st) == 0) {
        int64_t room = log->bytes - log->size, skip = st.st_size > room ? st.st_size - room : 0;

        if (copy_rest(from, skip, to) == 0 && copy_rest(log->fd, 0, to) == 0)
            (void)rename(joined, log->path);
    }
    if (from >= 0)
        close(from);
    if (to >= 0) {
        close(to);
        (void)unlink(joined);
    }
    free(older);
    free(joined);
}

void log_file_close(struct log_file *log)
{
    if (!log)
        return;
    if (log->turned && log->fd >= 0)
        join(log);
    if (log->fd >= 0)
        close(log->fd);
    free(log->path);
    free(log);
}
