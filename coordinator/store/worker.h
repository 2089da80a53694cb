/* worker.h - workers and judge workers that ever said hello */
#ifndef HA_COORDINATOR_STORE_WORKER_H
#define HA_COORDINATOR_STORE_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/store/event.h"

struct ha_error;
struct ha_store;

struct ha_worker_row {
    int64_t id;
    bool judge; /* a judge worker */
    const char *name, *machine, *instance, *host, *backend, *version;
    const char *key; /* the name of the key that it belongs to; "": none */
    int64_t slots;
    bool lost;
    int64_t seen_ms; /* wall clock of its last hello or loss */
    /* a person drains it: by whom ("": nobody), why, when, until when (0: no deadline); not put */
    const char *drain_actor, *drain_reason;
    int64_t drain_since_ms, drain_deadline_ms;
};

/* Insert or replace by (role, name); row->id is not read.  Returns its id. */
int ha_store_worker_put(struct ha_store *store, const struct ha_worker_row *row, int64_t *ret_id,
                        struct ha_error *err);

/* Its key is not allowed any more: lost, and the name belongs to no key. */
int ha_store_worker_revoked(struct ha_store *store, int64_t worker, int64_t now_ms,
                            struct ha_error *err);

int ha_store_worker_lost(struct ha_store *store, int64_t worker, bool lost, int64_t now_ms,
                         struct ha_error *err);

/* actor "": it takes work again. */
int ha_store_worker_drain(struct ha_store *store, const struct ha_by *by, int64_t worker,
                          const char *actor, const char *reason, int64_t deadline_ms,
                          struct ha_error *err);

typedef int (*ha_worker_fn)(void *context, const struct ha_worker_row *row);
int ha_store_worker_each(struct ha_store *store, ha_worker_fn fn, void *context,
                         struct ha_error *err);

#endif
