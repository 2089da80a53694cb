/* groups.h - a control group (cgroup version 2) for each process of an attempt
 *
 * Whatever the process starts is in its group, also what leaves its process group or its session,
 * and nothing else is; so all of it can be ended, and nobody else.  The groups are in a folder of
 * this worker's own below the group that the daemon is in (or that worker.toml names):
 *
 *   .../ha-worker-NUMBER/JOB-GENERATION-NUMBER[.RANK]     NUMBER: of work_dir
 *
 * Their parent has to be writable, as where systemd starts the worker with Delegate=yes, or for
 * root, and not the root of all groups.  What an earlier daemon of this work_dir left in its groups
 * is killed when they are opened. A kernel without cgroup.kill has each process killed by itself.
 *
 * Where the kernel has the memory controller there, a group may get a limit (attempt_memory), and
 * the kernel tells that it killed a process of it for memory. */
#ifndef HA_WORKER_DAEMON_GROUPS_H
#define HA_WORKER_DAEMON_GROUPS_H

#include <stdbool.h>
#include <stdint.h>

struct group;
struct groups;
struct ha_error;
struct ha_worker_config;

/* Of config: work_dir, which this daemon has locked; cgroup; attempt_memory.  ret_groups: NULL with
 * cgroup = "off", and, with a line in the log, where "auto" finds none that can be written.  A
 * folder that is named has to be usable: -EACCES, -ENOENT, ... */
int groups_open(const struct ha_worker_config *config, struct groups **ret_groups,
                struct ha_error *err);

/* After all groups; kills what is still in them.  NULL is legal, as below. */
void groups_close(struct groups *groups);

/* A new group.  NULL: without groups, or where it cannot be made, which is logged. */
struct group *group_create(struct groups *groups, const char *name);

/* The file that a process enters by (ha_spawn_options.group_procs); NULL without a group. */
const char *group_procs(const struct group *group);

/* Kill everything in it. */
void group_kill(struct group *group);

/* Has the kernel killed a process of it for want of memory since it was made?  Those of its
 * neighbours are never counted there.  1, 0, or -1: it is not known, as there is no group, or the
 * kernel counts no memory for it. */
int group_starved(const struct group *group);

/* Kill what is left in it, and remove it as soon as that is gone. */
void group_destroy(struct group *group);

#endif
