#include "kernels/cpu/cores.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/cgroup.h"

int ha_cpu_quota_parse(const char *text)
{
    long quota, period, cores;

    if (sscanf(text, "%ld %ld", &quota, &period) != 2 || quota <= 0 || period <= 0)
        return 0;
    cores = quota / period + (quota % period != 0);
    return cores > INT_MAX ? 0 : (int)cores;
}

static int tighter(int limit, int quota)
{
    return quota > 0 && quota < limit ? quota : limit;
}

static void take_quota(void *user, const char *line)
{
    int *limit = user;

    *limit = tighter(*limit, ha_cpu_quota_parse(line));
}

/* The tightest quota of the group and its parents. */
static int version_2(int limit)
{
    ha_cgroup_lines("cpu.max", take_quota, &limit);
    return limit;
}

static int version_1(int limit)
{
    char quota[64], period[64], both[160];

    if (!ha_first_line(HA_CGROUP_ROOT "/cpu/cpu.cfs_quota_us", quota, sizeof(quota)) ||
        !ha_first_line(HA_CGROUP_ROOT "/cpu/cpu.cfs_period_us", period, sizeof(period)))
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
