/* private_coordinator.h - a coordinator for one command, or for an embedded run
 *
 * Its sockets are ipc:// in a 0700 folder with a short path under
 * XDG_RUNTIME_DIR or /tmp (the name of a Unix socket ends at 107 bytes); it
 * ends when the process that started it is gone, by whatever way. */
#ifndef HA_COORDINATOR_HACTL_PRIVATE_COORDINATOR_H
#define HA_COORDINATOR_HACTL_PRIVATE_COORDINATOR_H

#include "common/proc/spawn.h"

struct ha_error;
struct ha_private_coordinator;

/* Start ha-coordinator for dir (made by the caller) and wait until it has
 * bound.  -ETIMEDOUT, or its own last words when it ended. */
int ha_private_coordinator_start(const char *dir, struct ha_private_coordinator **ret_coordinator,
                                 struct ha_error *err);

/* SIGTERM, wait, remove the socket folder.  NULL is allowed. */
void ha_private_coordinator_stop(struct ha_private_coordinator *coordinator);

/* Start it again when it has ended.  Returns 1 when that was so, 0 when it runs. */
int ha_private_coordinator_revive(struct ha_private_coordinator *coordinator, struct ha_error *err);

const char *ha_private_coordinator_endpoint(const struct ha_private_coordinator *coordinator);
const char *ha_private_coordinator_files(const struct ha_private_coordinator *coordinator);

#endif
