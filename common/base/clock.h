/* clock.h - the clocks of the project
 *
 * Deadlines and durations use boot time: it does not jump and goes on while
 * the machine sleeps.  How long work took is told by the monotonic clock, which
 * stands still meanwhile.  Wall time is for people and for rows of the database. */
#ifndef HA_COMMON_BASE_CLOCK_H
#define HA_COMMON_BASE_CLOCK_H

#include <stdint.h>

int64_t ha_clock_boot_ms(void); /* CLOCK_BOOTTIME */
int64_t ha_clock_boot_ns(void);
int64_t ha_clock_work_ns(void); /* CLOCK_MONOTONIC */
int64_t ha_clock_wall_ms(void); /* Unix time */

enum { HA_CLOCK_STAMP_BYTES = 32 };

/* "2026-01-31T12:00:00Z" for a Unix time. */
const char *ha_clock_stamp(int64_t wall_ms, char stamp[HA_CLOCK_STAMP_BYTES]);

#endif
