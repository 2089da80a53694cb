/* reference.h - the base model's log-probs of training pairs, kept for later jobs
 *
 * One file per key, the newest; of all keys those that were used last.  A key says
 * what the coordinator knows (model, data, rows, template, plan of batches, the
 * worker's backend), and each file has another one without the last two, for
 * train.reference = "any"; the file's own name says all that its numbers depend on, and
 * the attempt that gets it checks that. */
#ifndef HA_COORDINATOR_STORE_REFERENCE_H
#define HA_COORDINATOR_STORE_REFERENCE_H

#include <stdint.h>

#include "coordinator/store/artifact.h"

enum { HA_REFERENCES_KEPT = 128 }; /* keys: two for each file */

struct ha_reference {
    const char *name, *sha256;
    int64_t size;
};

/* Replaces the key's file.  fn is called for every artifact that nothing needs any
 * more; its row is gone.  The artifact must be there: else -EEXIST. */
int ha_store_reference_put(struct ha_store *store, const char *key,
                           const struct ha_reference *reference, int64_t now_ms, ha_orphan_fn fn,
                           void *context, struct ha_error *err);

/* 1 and marked as used, or 0; fn's result when it is negative. */
typedef int (*ha_reference_fn)(void *context, const struct ha_reference *reference);
int ha_store_reference_use(struct ha_store *store, const char *key, int64_t now_ms,
                           ha_reference_fn fn, void *context, struct ha_error *err);

#endif
