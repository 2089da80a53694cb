#include "common/base/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { GROUPS_BYTES = 4 * PATH_MAX };

bool ha_read_start(const char *path, char *text, int size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), have = 0;
    ssize_t n = fd < 0 ? -1 : 1;

    while (n > 0 && have < size - 1) {
        n = read(fd, text + have, (size_t)(size - 1 - have));
        if (n > 0)
            have += (int)n;
        else if (n < 0 && errno == EINTR)
            n = 1;
    }
    if (fd >= 0)
        (void)close(fd);
    text[have] = '\0';
    return n >= 0;
}

bool ha_first_line(const char *path, char *line, int size)
{
    bool ok = ha_read_start(path, line, size) && line[0];

    line[strcspn(line, "\n")] = '\0';
    return ok;
}

/* The path of this process's group in version 2: the line "0::PATH". */
static bool own_group(char path[PATH_MAX])
{
    char text[GROUPS_BYTES], *at;
    size_t length;

    if (!ha_read_start("/proc/self/cgroup", text, sizeof(text)))
        return false;
    at = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
    if (!at)
        return false;
    at = strchr(at, '/');
    length = strcspn(at, "\n");
    if (length >= PATH_MAX)
        return false;
    memcpy(path, at, length);
    path[length] = '\0';
    return true;
}

void ha_cgroup_lines(const char *file, void (*take)(void *user, const char *line), void *user)
{
    char group[PATH_MAX], path[PATH_MAX + 64], line[128];

    if (!own_group(group))
        return;
    for (;;) {
        char *slash = strrchr(group, '/');

        (void)snprintf(path, sizeof(path), HA_CGROUP_ROOT "%s/%s", group, file);
        if (ha_first_line(path, line, sizeof(line)))
            take(user, line);
        if (!slash)
            return;
        *slash = '\0';
    }
}
