/* part.h - what each worker runs of a gang
 *
 * An attempt of several ranks has a part for each of its workers, part 0 on the attempt's own one;
 * an attempt alone has none.  Parts are added with the lease, and end with the attempt
 * (ha_store_attempt_end). */
#ifndef HA_COORDINATOR_STORE_PART_H
#define HA_COORDINATOR_STORE_PART_H

#include <stdint.h>

#include "coordinator/core/lease.h"

struct ha_error;
struct ha_store;

struct ha_part_row {
    int64_t job;
    struct ha_epoch epoch;
    int64_t part, worker;
    int64_t first_rank, ranks;
    const char *comm_id; /* of part 0: the communicator's, once all ranks were ready; else "" */
};

int ha_store_part_add(struct ha_store *store, const struct ha_part_row *row, struct ha_error *err);

/* The open parts of an attempt in order.  fn: 0 goes on, 1 ends, a negative errno fails. */
typedef int (*ha_part_fn)(void *context, const struct ha_part_row *row);
int ha_store_part_each(struct ha_store *store, int64_t job, struct ha_epoch epoch, ha_part_fn fn,
                       void *context, struct ha_error *err);

/* Part 0 of every open gang. */
int ha_store_part_each_gang(struct ha_store *store, ha_part_fn fn, void *context,
                            struct ha_error *err);

/* Does the worker run an open part of this attempt?  1 or 0. */
int ha_store_part_of(struct ha_store *store, int64_t job, struct ha_epoch epoch, int64_t worker,
                     struct ha_error *err);

/* All ranks are ready: the communicator's id, which is kept once. */
int ha_store_part_set_id(struct ha_store *store, int64_t job, struct ha_epoch epoch,
                         const char *comm_id, struct ha_error *err);

#endif
