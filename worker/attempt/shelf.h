/* shelf.h - the engine between two jobs of one process
 *
 * A process that serves several jobs closes a job's engine by putting it here, and the next job's
 * ha_engine_open takes it back, if it is the engine that would be opened: same backend, device and
 * threads, and the same files, none of which has changed (name, inode, size, time).  What a job
 * leaves behind is gone by then (ha_backend_renew, ha_model_rest), so that results have the bits
 * that they have in a process of their own. */
#ifndef HA_WORKER_ATTEMPT_SHELF_H
#define HA_WORKER_ATTEMPT_SHELF_H

#include "worker/attempt/engine.h"

struct ha_shelf {
    struct ha_engine engine;
    bool full;
};

/* What an engine for these options is told by; the caller's.  NULL: the files cannot be looked at,
 * or memory is short; such an engine is not used again. */
char *ha_shelf_key(const struct ha_engine_options *options);

/* Take the engine if its key is this one.  Another one is closed: there is no room for two. */
bool ha_shelf_take(struct ha_shelf *shelf, const char *key, struct ha_engine *ret_engine);

/* Takes the engine over. */
void ha_shelf_put(struct ha_shelf *shelf, const struct ha_engine *engine);

/* After a job that was done: keep nothing but backend, model and tokenizer.  An error means that
 * the device has failed: the process must end. */
int ha_shelf_rest(struct ha_shelf *shelf, struct ha_error *err);

/* Before the next job: does the device still multiply rightly? */
int ha_shelf_wake(struct ha_shelf *shelf, struct ha_error *err);

void ha_shelf_clear(struct ha_shelf *shelf);

#endif
