/* shim.c - a bad disk and a jumping clock for one program, by LD_PRELOAD
 *
 * HA_SHIM names a file that is mapped and may be rewritten at any time: lines
 *
 *     clock SECONDS             added to CLOCK_REALTIME
 *     FAULT CALL PREFIX         CALL on a path that begins with PREFIX fails; with a * in it: on a
 *                               path that matches
 *
 * FAULT: enospc, eio, erofs; stall: it takes a second and a half, and does not fail.  CALL:
 * write (pwrite, writev and new files too), fsync (fdatasync too), rename, open (for writing),
 * all.  HA_SHIM_TRACE=FILE records what changes files below HA_SHIM_ROOT, for power.py: a line per
 * call and the bytes behind it, written at once, after the call and before it returns, by the
 * program and by those that it starts.  HA_SHIM_NOSYNC=PATTERN plants a fault: no sync there.
 *
 * Descriptors are named by /proc/self/fd, so nothing has to be followed. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096 };

#define REAL(name)                                                                                 \
    static __typeof__(&name) real_##name;                                                          \
    if (!real_##name)                                                                              \
    real_##name = (__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name)

#define SHIM __attribute__((visibility("default")))

/* ---- orders ------------------------------------------------------------------------------- */

static const char *page(void)
{
    static const char *mapped;
    const char *path = getenv("HA_SHIM");
    int fd;

    if (mapped || !path)
        return mapped;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        void *at = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);

        close(fd);
        if (at != MAP_FAILED)
            mapped = at;
    }
    return mapped;
}

static int64_t clock_offset(void)
{
    const char *text = page();

    return text && strncmp(text, "clock ", 6) == 0 ? strtoll(text + 6, NULL, 10) : 0;
}

static int fault_code(const char *name)
{
    if (strcmp(name, "enospc") == 0)
        return ENOSPC;
    if (strcmp(name, "erofs") == 0)
        return EROFS;
    return EIO;
}

static bool matches(const char *path, const char *prefix)
{
    return strchr(prefix, '*') ? fnmatch(prefix, path, 0) == 0
                               : strncmp(path, prefix, strlen(prefix)) == 0;
}

/* 0, or the errno with which this call on this path fails. */
static int fault(const char *call, const char *path)
{
    const char *text = page();
    char copy[PAGE_BYTES], *at, *line;

    if (!text || !path)
        return 0;
    memcpy(copy, text, sizeof(copy));
    copy[sizeof(copy) - 1] = '\0';
    at = copy;
    while ((line = strsep(&at, "\n")) != NULL) {
        char name[16], which[16], prefix[512];

        if (sscanf(line, "%15s %15s %511s", name, which, prefix) == 3 &&
            (strcmp(which, call) == 0 || strcmp(which, "all") == 0) && matches(path, prefix)) {
            if (strcmp(name, "stall") != 0)
                return fault_code(name);
            (void)usleep(1500000);
            return 0;
        }
    }
    return 0;
}

static const char *path_of(int fd, char *path)
{
    char link[64];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, PATH_MAX - 1);
    if (n <= 0 || path[0] != '/')
        return NULL;
    path[n] = '\0';
    return path;
}

static int fault_fd(const char *call, int fd)
{
    char path[PATH_MAX];

    return page() ? fault(call, path_of(fd, path)) : 0;
}

/* ---- the record of a disk -------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool is_recorded(const char *path)
{
    const char *root = getenv("HA_SHIM_ROOT");

    size_t length = root ? strlen(root) : 0;

    return root && path && strncmp(path, root, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

static const char *absolute(const char *path, char whole[2 * PATH_MAX])
{
    char here[PATH_MAX];

    if (!path || path[0] == '/' || !getcwd(here, sizeof(here)))
        return path;
    (void)snprintf(whole, 2 * PATH_MAX, "%s/%s", here, path);
    return whole;
}

/* WHAT PATH OFFSET SIZE [PATH2]\n, then the bytes. */
static void record(const char *what, const char *path, const char *path2, int64_t offset,
                   const void *data, size_t size)
{
    static int fd = -1;
    const char *name = getenv("HA_SHIM_TRACE");
    char line[4 * PATH_MAX + 128], whole[2 * PATH_MAX], whole2[2 * PATH_MAX];
    int n;

    if (!name)
        return;
    path = absolute(path, whole);
    path2 = absolute(path2, whole2);
    if (!is_recorded(path))
        return;
    n = snprintf(line, sizeof(line), "%s\t%s\t%lld\t%zu\t%s\n", what, path, (long long)offset, size,
                 path2 ? path2 : "");
    pthread_mutex_lock(&lock);
    if (fd < 0)
        fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0 && n > 0) {
        const struct iovec parts[2] = {{line, (size_t)n}, {(void *)(uintptr_t)data, size}};

        (void)!writev(fd, parts, size > 0 && data ? 2 : 1);
    }
    pthread_mutex_unlock(&lock);
}

static void record_fd(const char *what, int fd, int64_t offset, const void *data, size_t size)
{
    char path[PATH_MAX];

    if (getenv("HA_SHIM_TRACE"))
        record(what, path_of(fd, path), NULL, offset, data, size);
}

/* Told by the program (common/base/fault.h): it relies on it that this file is on the disk. */
SHIM void ha_shim_durable(const char *path);

SHIM void ha_shim_durable(const char *path)
{
    record("durable", path, NULL, 0, NULL, 0);
}

/* HA_SHIM_NOSYNC: a sync of a path that matches is not made, as if the call were not there. */
static bool is_skipped(int fd)
{
    const char *pattern = getenv("HA_SHIM_NOSYNC");
    char path[PATH_MAX];
    const char *name = pattern ? path_of(fd, path) : NULL;

    return name && fnmatch(pattern, name, 0) == 0;
}

/* ---- calls
 * ---------------------------------------------------------------------------------------
 */

SHIM ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    int code = fault_fd("write", fd);
    ssize_t n;

    if (code) {
        errno = code;
        return -1;
    }
    n = real_write(fd, data, size);
    if (n > 0 && getenv("HA_SHIM_TRACE")) {
        int saved = errno;
        off_t end = lseek(fd, 0, SEEK_CUR);

        if (end >= 0)
            record_fd("write", fd, (int64_t)end - n, data, (size_t)n);
        errno = saved;
    }
    return n;
}

SHIM ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    REAL(pwrite);
    int code = fault_fd("write", fd);
    ssize_t n;

    if (code) {
        errno = code;
        return -1;
    }
    n = real_pwrite(fd, data, size, offset);
    if (n > 0)
        record_fd("write", fd, (int64_t)offset, data, (size_t)n);
    return n;
}

SHIM ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return pwrite(fd, data, size, (off_t)offset);
}

SHIM int ftruncate(int fd, off_t size)
{
    REAL(ftruncate);
    int r = real_ftruncate(fd, size);

    if (r == 0)
        record_fd("truncate", fd, (int64_t)size, NULL, 0);
    return r;
}

SHIM int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, (off_t)size);
}

SHIM int fsync(int fd)
{
    REAL(fsync);
    int code = fault_fd("fsync", fd), r;

    if (code) {
        errno = code;
        return -1;
    }
    if (is_skipped(fd))
        return 0;
    r = real_fsync(fd);
    if (r == 0)
        record_fd("sync", fd, 0, NULL, 0);
    return r;
}

SHIM int fdatasync(int fd)
{
    REAL(fdatasync);
    int code = fault_fd("fsync", fd), r;

    if (code) {
        errno = code;
        return -1;
    }
    if (is_skipped(fd))
        return 0;
    r = real_fdatasync(fd);
    if (r == 0)
        record_fd("sync", fd, 0, NULL, 0);
    return r;
}

SHIM int rename(const char *from, const char *to)
{
    REAL(rename);
    int code = fault("rename", to), r;

    if (code) {
        errno = code;
        return -1;
    }
    r = real_rename(from, to);
    if (r == 0)
        record("rename", from, to, 0, NULL, 0);
    return r;
}

SHIM int unlink(const char *path)
{
    REAL(unlink);
    int r = real_unlink(path);

    if (r == 0)
        record("unlink", path, NULL, 0, NULL, 0);
    return r;
}

SHIM int remove(const char *path)
{
    REAL(remove);
    int r = real_remove(path);

    if (r == 0)
        record("unlink", path, NULL, 0, NULL, 0);
    return r;
}

SHIM int rmdir(const char *path)
{
    REAL(rmdir);
    int r = real_rmdir(path);

    if (r == 0)
        record("unlink", path, NULL, 0, NULL, 0);
    return r;
}

SHIM int link(const char *from, const char *to)
{
    REAL(link);
    int r = real_link(from, to);

    if (r == 0)
        record("link", from, to, 0, NULL, 0);
    return r;
}

SHIM int mkostemps64(char *name, int suffix, int flags)
{
    REAL(mkostemps64);
    int fd = real_mkostemps64(name, suffix, flags);

    if (fd >= 0)
        record("create", name, NULL, 0, NULL, 0);
    return fd;
}

SHIM int mkostemps(char *name, int suffix, int flags)
{
    return mkostemps64(name, suffix, flags);
}

SHIM int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    int r = real_mkdir(path, mode);

    if (r == 0)
        record("mkdir", path, NULL, 0, NULL, 0);
    return r;
}

static int open_any(const char *path, int flags, mode_t mode)
{
    REAL(open64);
    bool writes = (flags & O_ACCMODE) != O_RDONLY, traced = writes && getenv("HA_SHIM_TRACE");
    bool makes = traced && (flags & O_CREAT) && access(path, F_OK) < 0;
    int code = 0, fd;

    if (writes && getenv("HA_SHIM") && strcmp(path, getenv("HA_SHIM")) != 0)
        code = fault("open", path);
    if (code) {
        errno = code;
        return -1;
    }
    fd = real_open64(path, flags, mode);
    if (fd >= 0 && makes)
        record("create", path, NULL, 0, NULL, 0);
    else if (fd >= 0 && traced && (flags & O_TRUNC))
        record("truncate", path, NULL, 0, NULL, 0);
    return fd;
}

SHIM int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    if (flags & (O_CREAT | O_TMPFILE)) {
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    return open_any(path, flags, mode);
}

SHIM int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    if (flags & (O_CREAT | O_TMPFILE)) {
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    return open_any(path, flags, mode);
}

/* ---- the clock ------------------------------------------------------------------------------- */

SHIM int clock_gettime(clockid_t which, struct timespec *now)
{
    REAL(clock_gettime);
    int r = real_clock_gettime(which, now);

    if (r == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        now->tv_sec += (time_t)clock_offset();
    return r;
}

SHIM time_t time(time_t *ret_now)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (ret_now)
        *ret_now = now.tv_sec;
    return now.tv_sec;
}

SHIM int gettimeofday(struct timeval *restrict ret_now, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *ret_now = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}
