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

enum { HOST_BYTES = 65, HOLDER_BYTES = 128 };

static void own_host(char host[HOST_BYTES])
{
    if (gethostname(host, HOST_BYTES) < 0)
        host[0] = '\0';
    host[HOST_BYTES - 1] = '\0';
}

/* "process 7", with " on HOST" where that is not this machine: a folder may be shared. */
static const char *holder(int fd, char words[HOLDER_BYTES])
{
    char text[HOLDER_BYTES] = "", own[HOST_BYTES], *host;
    long pid;

    if (pread(fd, text, sizeof(text) - 1, 0) < 0)
        text[0] = '\0';
    pid = strtol(text, &host, 10);
    host += strspn(host, " ");
    host[strcspn(host, "\n")] = '\0';
    own_host(own);
    if (host[0] && strcmp(host, own) != 0)
        (void)snprintf(words, HOLDER_BYTES, "process %ld on %.64s", pid, host);
    else
        (void)snprintf(words, HOLDER_BYTES, "process %ld", pid);
    return words;
}

static void write_holder(int fd)
{
    char text[HOLDER_BYTES], host[HOST_BYTES];
    int n;

    own_host(host);
    n = snprintf(text, sizeof(text), "%ld %s\n", (long)getpid(), host);
    /* For people: a lock without its number is still a lock. */
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        (void)ftruncate(fd, 0);
}

int ha_lock_take(const char *path, struct ha_lock **ret_lock, struct ha_error *err)
{
    struct ha_lock *lock = ha_calloc(1, sizeof(*lock));
    char words[HOLDER_BYTES];
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
            ha_error_set(err, code, "%s is held by %s; stop that one first", path,
                         holder(lock->fd, words));
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
