/* probe.h - what probes found, and the layers that were chosen by it
 *
 * A norm belongs to a probe result.  A choice belongs to a train result that is
 * made from a probe result: it is there from the start with its rule, and gets
 * its layers when the probe is done. */
#ifndef HA_COORDINATOR_STORE_PROBE_H
#define HA_COORDINATOR_STORE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_store;

struct ha_norm_row {
    int64_t id, result;
    const char *model; /* of the sweep that is asked about, as cell */
    int64_t cell;      /* the first that shows the result */
    const char *block; /* "" for one layer */
    int64_t layer, layers;
    const char *module; /* "all": the four together */
    double norm;
    int64_t parameters, pairs;
};

/* A repeated one replaces its row, unless the probe is done.  id, model and cell
 * are not read. */
int ha_store_norm_put(struct ha_store *store, const struct ha_norm_row *row, struct ha_error *err);

/* Norms of the probes that a sweep's live cells show (cell 0: all), after an id. */
typedef int (*ha_norm_fn)(void *context, const struct ha_norm_row *row);
int ha_store_norm_each(struct ha_store *store, int64_t sweep, int64_t cell, int64_t after,
                       int64_t limit, ha_norm_fn fn, void *context, struct ha_error *err);

/* Does a result have the norms of each of `layers` layers? 1 or 0. */
int ha_store_norms_complete(struct ha_store *store, int64_t result, int64_t layers,
                            struct ha_error *err);

/* The rule of a train result; kept when there is one. */
int ha_store_choice_put(struct ha_store *store, int64_t result, int64_t count, const char *measure,
                        struct ha_error *err);

/* Give a train result the layers that its rule says by the probe's norms: 1, or 0
 * when it has no rule.  -EINVAL: the norms do not allow it. */
int ha_store_choice_make(struct ha_store *store, int64_t result, int64_t probe,
                         struct ha_error *err);

#endif
