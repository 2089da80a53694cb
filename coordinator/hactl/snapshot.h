/* snapshot.h - a copy of a running coordinator's database, and what it names
 *
 * The coordinator makes the copy between its turns and keeps every artifact that
 * the copy names until the snapshot ends. */
#ifndef HA_COORDINATOR_HACTL_SNAPSHOT_H
#define HA_COORDINATOR_HACTL_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/hash.h"

struct ha_error;
struct ha_link;
struct ha_snapshot;

/* what: "database", "artifacts"; totals are 0 while they are not known. */
typedef void (*ha_snapshot_fn)(const char *what, int64_t done, int64_t total);

/* Let the coordinator copy its database and wait until that is done.  fn may be NULL. */
int ha_snapshot_take(struct ha_link *link, ha_snapshot_fn fn, struct ha_snapshot **ret_snapshot,
                     struct ha_error *err);

/* Tell the coordinator that it is not needed any more; NULL is legal. */
void ha_snapshot_end(struct ha_snapshot *snapshot);

const char *ha_snapshot_sha256(const struct ha_snapshot *snapshot);
int64_t ha_snapshot_size(const struct ha_snapshot *snapshot);

/* The folder of the artifacts, as the coordinator's machine names it. */
const char *ha_snapshot_folder(const struct ha_snapshot *snapshot);

/* Is that folder on this machine?  (The snapshot's own file, which has a name of its own, was seen
 * in it; another machine may have a folder of the same path.) */
bool ha_snapshot_is_here(const struct ha_snapshot *snapshot);

/* Put the copy at path, checked. */
int ha_snapshot_get(struct ha_snapshot *snapshot, const char *path, struct ha_error *err);

/* Put an artifact at path, checked: as a further name of the coordinator's own file
 * where links is said and both are on one disk, else as a copy. */
int ha_snapshot_get_artifact(struct ha_snapshot *snapshot, const char *sha256, int64_t size,
                             const char *path, bool links, struct ha_error *err);

/* ---- what a copy holds ------------------------------------------------------------- */

struct ha_inventory_item {
    char sha256[HA_SHA256_HEX_BYTES];
    int64_t size;
};

struct ha_inventory {
    int64_t schema, sweeps, events, last_event_ms, bytes;
    struct ha_inventory_item *items;
    int64_t count;
};

/* Read all of a copy with `ha-coordinator --inspect`: -EBADMSG with its words when the
 * database is damaged. */
int ha_inventory_read(const char *path, struct ha_inventory *ret_inventory, struct ha_error *err);
void ha_inventory_clear(struct ha_inventory *inventory);

#endif
