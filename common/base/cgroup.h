/* cgroup.h - limits that the kernel puts on this process's control group */
#ifndef HA_COMMON_BASE_CGROUP_H
#define HA_COMMON_BASE_CGROUP_H

#include <stdbool.h>

#define HA_CGROUP_ROOT "/sys/fs/cgroup"

/* The first line of a small file, without its end; false where it cannot be read. */
bool ha_first_line(const char *path, char *line, int size);

/* Calls take with the first line of `file` ("cpu.max", "memory.max") of this
 * process's group and of each of its parents that has one (version 2). */
void ha_cgroup_lines(const char *file, void (*take)(void *user, const char *line), void *user);

#endif
