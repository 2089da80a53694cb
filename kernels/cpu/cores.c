#include "kernels/cpu/cores.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

int ha_cpu_quota_parse(const char *text)
{
    long quota, period, cores;

    if (sscanf(text, "%ld %ld", &quota, &period) != 2 || quota <= 0 || period <= 0)
        return 0;
    cores = quota / period + (quota % period != 0);
    return cores > INT_MAX ? 0 : (int)cores;
}

/* The first line of a small file. */
static bool read_line(const char *path, char *line, int size)
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

static int tighter(int limit, int quota)
{
    return quota > 0 && quota < limit ? quota : limit;
}

/* The tightest quota of the group and its parents. */
static int version_2(int limit)
{
    char group[PATH_MAX], path[PATH_MAX + 64], line[128];

    if (!own_group(group, sizeof(group)))
        return limit;
    for (;;) {
        char *slash = strrchr(group, '/');

        (void)snprintf(path, sizeof(path), CGROUP_ROOT "%s/cpu.max", group);
        if (read_line(path, line, sizeof(line)))
            limit = tighter(limit, ha_cpu_quota_parse(line));
        if (!slash)
            return limit;
        *slash = '\0';
    }
}

static int version_1(int limit)
{
    char quota[64], period[64], both[160];

    if (!read_line(CGROUP_ROOT "/cpu/cpu.cfs_quota_us", quota, sizeof(quota)) ||
        !read_line(CGROUP_ROOT "/cpu/cpu.cfs_period_us", period, sizeof(period)))
        return limit;
    (void)snprintf(both, sizeof(both), "%s %s", quota, period);
    return tighter(limit, ha_cpu_quota_parse(both));
}

/* The affinity mask, which must be as large as the kernel's own; else what is online. */
static int affinity(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int cores = 0;

    for (int n = 1024; cores == 0 && n <= 1 << 20; n *= 2) {
        cpu_set_t *set = CPU_ALLOC(n);

        if (!set)
            break;
        if (sched_getaffinity(0, CPU_ALLOC_SIZE(n), set) == 0)
            cores = CPU_COUNT_S(CPU_ALLOC_SIZE(n), set);
        CPU_FREE(set);
    }
    if (cores > 0)
        return cores;
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

int ha_cpu_cores(void)
{
    return version_1(version_2(affinity()));
}
