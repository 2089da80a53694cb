/* event.h - the append-only history of every change of state */
#ifndef HA_COORDINATOR_STORE_EVENT_H
#define HA_COORDINATOR_STORE_EVENT_H

#include <stdint.h>

struct ha_error;
struct ha_store;

/* Who changes something, and when. */
struct ha_by {
    int64_t now_ms;    /* wall clock */
    const char *actor; /* a key's name, "worker w1", "coordinator" */
};

struct ha_event {
    int64_t sweep, job; /* 0: none */
    const char *subject, *before, *after, *reason;
};

int ha_store_event_add(struct ha_store *store, const struct ha_by *by, const struct ha_event *event,
                       struct ha_error *err);

struct ha_event_row {
    int64_t id, time_ms;
    const char *subject, *before, *after, *reason, *actor;
};

/* Events after an id, oldest first; sweep and job 0: of all.  fn returns 0 to go on, 1 to stop,
 * or a negative errno that becomes the result. */
typedef int (*ha_event_fn)(void *context, const struct ha_event_row *row);
int ha_store_event_each(struct ha_store *store, int64_t sweep, int64_t job, int64_t after,
                        int64_t limit, ha_event_fn fn, void *context, struct ha_error *err);

#endif
