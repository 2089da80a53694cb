/* judging.h - leases of items, shared by the handlers of judge workers */
#ifndef HA_COORDINATOR_SERVER_JUDGING_H
#define HA_COORDINATOR_SERVER_JUDGING_H

#include "coordinator/server/inside.h"

struct ha_item_row;

/* Every item that a judge worker held is ready again; its open calls are
 * possibly paid. */
int ha_judging_lose(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                    const char *why, struct ha_error *err);

/* A send of a leased item came to nothing that counts: ready again after a wait
 * (-1: the usual backoff), or failed when its sends are used up. */
int ha_judging_send_failed(struct ha_coordinator *c, const struct ha_by *by,
                           const struct ha_item_row *item, int64_t wait_ms, const char *why,
                           struct ha_error *err);

/* The item's lease is this one, and this judge worker's. */
bool ha_judging_holds(const struct ha_coordinator *c, const struct ha_member *m,
                      const struct ha_item_row *item, const struct ha_wire_epoch *epoch);

/* Take back what is leased to this judge worker and is not among these. */
int ha_judging_reconcile(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                         const struct ha_wire_item_ref *held, int64_t n_held, struct ha_error *err);

#endif
