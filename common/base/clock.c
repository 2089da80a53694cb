#include "common/base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t ha_clock_boot_ms(void)
{
    return read_ns(CLOCK_BOOTTIME) / 1000000;
}

int64_t ha_clock_boot_ns(void)
{
    return read_ns(CLOCK_BOOTTIME);
}

int64_t ha_clock_work_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

int64_t ha_clock_wall_ms(void)
{
    return read_ns(CLOCK_REALTIME) / 1000000;
}

const char *ha_clock_stamp(int64_t wall_ms, char stamp[HA_CLOCK_STAMP_BYTES])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;

    if (!gmtime_r(&seconds, &parts) ||
        strftime(stamp, HA_CLOCK_STAMP_BYTES, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        stamp[0] = '\0';
    return stamp;
}
