/* experiment.h - the rows that a report is made of, and its tables
 *
 * Pure functions over rows that the caller fills from the coordinator's
 * replies.  All texts and arrays are borrowed and must outlive the tables'
 * making; the tables own what they show.
 *
 * The prompt is the unit: one score set is the 16 scores that one judge gave
 * to one answer.  Several sets of one prompt and cell (samples of the answer,
 * samples of the judge) are averaged first; they never make N larger. */
#ifndef HA_COORDINATOR_REPORT_EXPERIMENT_H
#define HA_COORDINATOR_REPORT_EXPERIMENT_H

#include <stdint.h>

#include "coordinator/report/stats.h"

struct ha_table;

enum { HA_REPORT_DIMENSIONS = 16 };

struct ha_report_model {
    const char *name;
    int64_t layers;
};

struct ha_report_cell {
    int64_t model;        /* index into models */
    const char *strategy; /* "base", "mid", … */
    const char *name;     /* unique among the cells: "model/strategy" and what is varied */
    const char *layers;   /* "0-10", "" for base */
    int64_t expected;     /* prompts that a complete cell has scores for */
};

struct ha_report_scores {
    int64_t cell; /* index into cells */
    int64_t prompt;
    uint8_t values[HA_REPORT_DIMENSIONS]; /* 1..5, in the order of dimensions */
};

struct ha_report_missing {
    int64_t cell;
    const char *reason;
    int64_t count;
};

struct ha_experiment {
    const char *const *dimensions; /* HA_REPORT_DIMENSIONS names */
    int overall;                   /* which of them is the holistic one */
    const struct ha_report_model *models;
    int64_t n_models;
    const struct ha_report_cell *cells;
    int64_t n_cells;
    const struct ha_report_scores *scores; /* in order of cell, then prompt */
    int64_t n_scores;
    const struct ha_report_missing *missing;
    int64_t n_missing;
    const char *label; /* "" or what must stand below every table made from scores */
};

/* One statistic: of a cell, or with cell -1 of a strategy over all models.
 * *ret_expected may be NULL.  Returns 0 or -ENOMEM. */
int ha_report_summary(const struct ha_experiment *experiment, int64_t cell, const char *strategy,
                      int dimension, struct ha_summary *ret_summary, int64_t *ret_expected);

/* The paper's Table 2: Overall by strategy, answers of all models pooled, and
 * the mean of the models' means beside it.  NULL when memory is short, as for
 * all tables here. */
struct ha_table *ha_report_strategies(const struct ha_experiment *experiment);

/* The paper's Table 3: cells ranked by mean Overall, at most limit rows (0: all). */
struct ha_table *ha_report_ranking(const struct ha_experiment *experiment, int64_t limit);

/* The paper's Table 4: the blocks of each model, from its cells' layers. */
struct ha_table *ha_report_blocks(const struct ha_experiment *experiment);

/* Mean, std, median and count of one dimension, a row per cell. */
struct ha_table *ha_report_cells(const struct ha_experiment *experiment, int dimension);

/* Means of all 16 dimensions: a row per cell, or per strategy. */
struct ha_table *ha_report_dimensions(const struct ha_experiment *experiment, int by_strategy);

/* Every statistic of every cell and dimension in long form, for CSV and JSON:
 * group ("cell" | "strategy"), name, dimension, mean, std, median, count, expected. */
struct ha_table *ha_report_long(const struct ha_experiment *experiment);

/* What has no score, by cell and reason. */
struct ha_table *ha_report_missing_table(const struct ha_experiment *experiment);

#endif
