/* cgroup.h - limits that the kernel puts on this process's control group
 *
 * No memory is allocated: a limit is never overlooked for want of it. */
#ifndef HA_COMMON_BASE_CGROUP_H
#define HA_COMMON_BASE_CGROUP_H

#include <stdbool.h>

#define HA_CGROUP_ROOT "/sys/fs/cgroup"

/* The beginning of a file (of /proc, /sys) that fits into size - 1 bytes, ended by a zero; false
 * where it cannot be read. */
bool ha_read_start(const char *path, char *text, int size);

/* The first line of a small file, without its end; false where it cannot be read. */
bool ha_first_line(const char *path, char *line, int size);

/* Calls take with the first line of `file` ("cpu.max", "memory.max") of this
 * process's group and of each of its parents that has one (version 2). */
void ha_cgroup_lines(const char *file, void (*take)(void *user, const char *line), void *user);

#endif
