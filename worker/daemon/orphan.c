#include "worker/daemon/orphan.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "common/io/file.h"

enum { ENVIRON_BYTES = 4 << 20 };

static bool bears(int64_t pid, const char *mark)
{
    char path[64], *text = NULL;
    size_t size = 0;
    bool found = false;

    (void)snprintf(path, sizeof(path), "/proc/%lld/environ", (long long)pid);
    if (ha_file_read(path, ENVIRON_BYTES, &text, &size, NULL) < 0)
        return false;
    for (const char *at = text; at < text + size && !found; at += strlen(at) + 1)
        found = strcmp(at, mark) == 0;
    free(text);
    return found;
}

bool ha_orphan_kill(int64_t pid, const char *mark)
{
    int fd = pid > 1 && pid != getpid() ? pidfd_open((pid_t)pid, 0) : -1;
    bool killed;

    if (fd < 0)
        return false;
    killed = bears(pid, mark) && pidfd_send_signal(fd, SIGKILL, NULL, 0) == 0;
    (void)close(fd);
    return killed;
}
