#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/proc/spawn.h"

struct ha_lock {
    int fd;
};

/* The process id in the file, or 0. */
static long holder(int fd)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    return n > 0 ? strtol(text, NULL, 10) : 0;
}

static void write_holder(int fd)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    /* For people: a lock without its number is still a lock. */
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        (void)ftruncate(fd, 0);
}

int ha_lock_take(const char *path, struct ha_lock **ret_lock, struct ha_error *err)
{
    struct ha_lock *lock = ha_calloc(1, sizeof(*lock));
    int code;

    if (!lock)
        return ha_error_set(err, ENOMEM, "%s: out of memory", path);
    lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock->fd < 0) {
        code = errno;
        free(lock);
        return ha_error_set(err, code, "cannot open %s: %s", path, strerror(code));
    }
    if (flock(lock->fd, LOCK_EX | LOCK_NB) < 0) {
        code = errno;
        if (code == EWOULDBLOCK)
            ha_error_set(err, code, "%s is held by process %ld; stop that one first", path,
                         holder(lock->fd));
        else
            ha_error_set(err, code, "cannot lock %s: %s", path, strerror(code));
        close(lock->fd);
        free(lock);
        return -code;
    }
    write_holder(lock->fd);
    *ret_lock = lock;
    return 0;
}

void ha_lock_release(struct ha_lock *lock)
{
    if (!lock)
        return;
    close(lock->fd);
    free(lock);
}
