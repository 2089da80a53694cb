/* metric.h - one row per train result, optimizer step and name */
#ifndef HA_COORDINATOR_STORE_METRIC_H
#define HA_COORDINATOR_STORE_METRIC_H

#include <stdint.h>

struct ha_error;
struct ha_store;

/* A repeated step replaces its row. */
int ha_store_metric_put(struct ha_store *store, int64_t result, int64_t step, const char *name,
                        double value, struct ha_error *err);

struct ha_metric_row {
    int64_t id, cell, step;
    const char *name;
    double value; /* NaN: was not a number */
};

/* Metrics of a sweep's live cells after an id; cell 0 and name "": all. */
typedef int (*ha_metric_fn)(void *context, const struct ha_metric_row *row);
int ha_store_metric_each(struct ha_store *store, int64_t sweep, int64_t cell, const char *name,
                         int64_t after, int64_t limit, ha_metric_fn fn, void *context,
                         struct ha_error *err);

#endif
