/* probe.h - the tables of what probes found
 *
 * Pure functions over rows, as in experiment.h: all texts and arrays are borrowed
 * and must outlive the tables' making.
 *
 * A row is the mean over pairs of the norm of the loss's gradient with respect
 * to the frozen weights of one module, of one layer or of a block of layers.
 * The share of layers is their part of the sum over all layers of a probe. */
#ifndef HA_COORDINATOR_REPORT_PROBE_H
#define HA_COORDINATOR_REPORT_PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct ha_table;

struct ha_report_norm {
    uint64_t probe;    /* equal for the rows of one probe */
    const char *name;  /* of the probe in tables: its model, or a cell where there are several */
    const char *block; /* "" for one layer */
    int64_t layer;     /* from 0; the first of `layers` */
    int64_t layers;
    const char *module; /* "q_proj" …, "all" for the four together */
    double norm;
    int64_t parameters, pairs;
};

struct ha_report_norms {
    const struct ha_report_norm *rows; /* in rising order of probe */
    int64_t n_rows;
};

struct ha_report_choice {
    const char *cell;
    const char *measure; /* "norm" | "per_sqrt_parameters" */
    const char *layers;  /* "3-4"; "" until the probe is done */
    int64_t count;
    double share;
    uint64_t probe;
};

/* The norm, or the norm per square root of parameters. */
double ha_report_norm_value(const struct ha_report_norm *row, bool per_sqrt_parameters);

/* Of layers [first, first + count) in the sum over all layers, for one module;
 * NaN without rows. */
double ha_report_norm_share(const struct ha_report_norms *norms, uint64_t probe, const char *module,
                            int64_t first, int64_t count, bool per_sqrt_parameters);

/* A row per layer of each probe: its block, the norm of each module and of all,
 * all per square root of parameters, and its share.  NULL when memory is short,
 * as for all tables here. */
struct ha_table *ha_report_norm_layers(const struct ha_report_norms *norms);

/* The same for each block. */
struct ha_table *ha_report_norm_blocks(const struct ha_report_norms *norms);

/* Every row, for CSV: probe, block, first, layers, module, norm,
 * per_sqrt_parameters, share, parameters, pairs. */
struct ha_table *ha_report_norm_long(const struct ha_report_norms *norms);

/* The layers that cells got by the rule "auto:K", and why. */
struct ha_table *ha_report_choices(const struct ha_report_norms *norms,
                                   const struct ha_report_choice *choices, int64_t n_choices);

#endif
