#include "common/base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

bool ha_first_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    bool ok = file && fgets(line, size, file);

    if (file)
        fclose(file);
    if (ok)
        line[strcspn(line, "\n")] = '\0';
    return ok;
}

/* The path of this process's group in version 2: the line "0::PATH". */
static bool own_group(char *path, int size)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    bool found = false;

    while (file && !found && fgets(path, size, file))
        found = strncmp(path, "0::/", 4) == 0;
    if (file)
        fclose(file);
    if (!found)
        return false;
    path[strcspn(path, "\n")] = '\0';
    memmove(path, path + 3, strlen(path + 3) + 1);
    return true;
}

void ha_cgroup_lines(const char *file, void (*take)(void *user, const char *line), void *user)
{
    char group[PATH_MAX], path[PATH_MAX + 64], line[128];

    if (!own_group(group, sizeof(group)))
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
