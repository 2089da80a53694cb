/* gc.h - what the store holds and nothing needs any more
 *
 *   FILES     artifacts that no product, sweep or reference names (an upload
 *             whose submit never came)
 *   STEPS     checkpoints of results that are done, and of results that failed or
 *             were cancelled and are in no grid any more
 *   LOGS      logs of attempts whose job is done
 *   REFERENCE log-probs of base models that no job used lately
 *
 * Adapters, data files of sweeps, and checkpoints and logs of what may go on or
 * failed are never among them. */
#ifndef HA_COORDINATOR_STORE_GC_H
#define HA_COORDINATOR_STORE_GC_H

#include <stdint.h>

#include "coordinator/store/artifact.h"

struct ha_error;
struct ha_store;

enum ha_gc_kind { HA_GC_FILES, HA_GC_STEPS, HA_GC_LOGS, HA_GC_REFERENCES, HA_GC_KINDS };

/* "files", "checkpoints", "logs", "references" */
const char *ha_gc_kind_name(enum ha_gc_kind kind);

struct ha_gc_thing {
    char key[65]; /* where it stands in its kind's order */
    char sha256[65];
    int64_t size;
};

/* The first thing after a key ("" begins) that was last needed before a time:
 * 1 or 0. */
int ha_store_gc_next(struct ha_store *store, enum ha_gc_kind kind, const char *after,
                     int64_t before_ms, struct ha_gc_thing *ret_thing, struct ha_error *err);

/* In a turn: delete it, and its artifact's row when nothing else names that; fn is
 * then called with its hash. */
int ha_store_gc_drop(struct ha_store *store, enum ha_gc_kind kind, const struct ha_gc_thing *thing,
                     ha_orphan_fn fn, void *context, struct ha_error *err);

#endif
