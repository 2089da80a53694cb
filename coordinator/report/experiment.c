#include "coordinator/report/experiment.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "coordinator/report/table.h"

/* Which score sets a row of a table is made of. */
struct group {
    int64_t cell;         /* -1: any */
    int64_t model;        /* -1: any */
    const char *strategy; /* NULL: any */
};

static bool belongs(const struct ha_report_cell *cell, int64_t index, const struct group *group)
{
    return (group->cell < 0 || group->cell == index) &&
           (group->model < 0 || group->model == cell->model) &&
           (!group->strategy || strcmp(group->strategy, cell->strategy) == 0);
}

static int64_t expected_of(const struct ha_experiment *e, const struct group *group)
{
    int64_t n = 0;

    if (group->cell >= 0)
        return e->cells[group->cell].expected;
    for (int64_t i = 0; i < e->n_cells; i++)
        if (belongs(&e->cells[i], i, group))
            n += e->cells[i].expected;
    return n;
}

/* The first score set of a cell, or of the next one that has any. */
static int64_t first_of_cell(const struct ha_experiment *e, int64_t cell)
{
    int64_t low = 0, high = e->n_scores;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (e->scores[middle].cell < cell)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* One value for each prompt: the mean of its score sets. */
static int64_t collect_cell(const struct ha_experiment *e, int64_t cell, int dimension,
                            double *work)
{
    int64_t n = 0, i = first_of_cell(e, cell);

    while (i < e->n_scores && e->scores[i].cell == cell) {
        int64_t first = i;
        double sum = 0;

        for (; i < e->n_scores && e->scores[i].cell == cell &&
               e->scores[i].prompt == e->scores[first].prompt;
             i++)
            sum += e->scores[i].values[dimension];
        work[n++] = sum / (double)(i - first);
    }
    return n;
}

/* work has room for all score sets. */
static struct ha_summary summarise(const struct ha_experiment *e, const struct group *group,
                                   int dimension, double *work)
{
    int64_t begin = group->cell < 0 ? 0 : group->cell;
    int64_t end = group->cell < 0 ? e->n_cells : group->cell + 1;
    int64_t n = 0;

    for (int64_t i = begin; i < end; i++)
        if (belongs(&e->cells[i], i, group))
            n += collect_cell(e, i, dimension, work + n);
    return ha_stats_summary(work, n);
}

static double *work_for(const struct ha_experiment *e)
{
    return ha_calloc(e->n_scores, sizeof(double));
}

/* The mean over models of each model's mean; NaN when a model has no score. */
static double mean_of_models(const struct ha_experiment *e, const char *strategy, int dimension,
                             double *work)
{
    double sum = 0;
    int64_t n = 0;

    for (int64_t model = 0; model < e->n_models; model++) {
        struct group group = {.cell = -1, .model = model, .strategy = strategy};

        if (expected_of(e, &group) == 0)
            continue;
        sum += summarise(e, &group, dimension, work).mean;
        n++;
    }
    return n > 0 ? sum / (double)n : NAN;
}

/* True when no earlier cell has the strategy of cell i. */
static bool first_of_strategy(const struct ha_experiment *e, int64_t i)
{
    for (int64_t k = 0; k < i; k++)
        if (strcmp(e->cells[k].strategy, e->cells[i].strategy) == 0)
            return false;
    return true;
}

static void note_label(struct ha_table *table, const struct ha_experiment *e)
{
    if (e->label && e->label[0])
        ha_table_note(table, "%s", e->label);
}

static void statistics_columns(struct ha_table *table)
{
    ha_table_column_number(table, "Mean");
    ha_table_column_number(table, "Std");
    ha_table_column_number(table, "Median");
    ha_table_column_number(table, "Count");
}

static void put_statistics(struct ha_table *table, const struct ha_summary *summary,
                           int64_t expected)
{
    ha_table_real(table, summary->mean, 3);
    ha_table_real(table, summary->std, 3);
    ha_table_real(table, summary->median, 3);
    ha_table_format(table, "%lld/%lld", (long long)summary->n, (long long)expected);
}

int ha_report_summary(const struct ha_experiment *e, int64_t cell, const char *strategy,
                      int dimension, struct ha_summary *ret_summary, int64_t *ret_expected)
{
    struct group group = {.cell = cell, .model = -1, .strategy = strategy};
    double *work = work_for(e);

    if (!work)
        return -ENOMEM;
    *ret_summary = summarise(e, &group, dimension, work);
    if (ret_expected)
        *ret_expected = expected_of(e, &group);
    free(work);
    return 0;
}

struct ha_table *ha_report_strategies(const struct ha_experiment *e)
{
    struct ha_table *table = ha_table_create("Overall scores by strategy");
    double *work = work_for(e);
    int overall = e->overall;

    ha_table_column_text(table, "Strategy");
    statistics_columns(table);
    ha_table_column_number(table, "Mean of model means");
    for (int64_t i = 0; work && i < e->n_cells; i++) {
        struct group group = {.cell = -1, .model = -1, .strategy = e->cells[i].strategy};
        struct ha_summary summary;

        if (!first_of_strategy(e, i))
            continue;
        summary = summarise(e, &group, overall, work);
        ha_table_text(table, group.strategy);
        put_statistics(table, &summary, expected_of(e, &group));
        ha_table_real(table, mean_of_models(e, group.strategy, overall, work), 3);
    }
    ha_table_note(table, "A row pools the prompts of all models, each the mean of its samples. "
                         "Std with n - 1; count is scored/expected.");
    note_label(table, e);
    free(work);
    return table;
}

struct ranked {
    int64_t cell;
    struct ha_summary summary;
};

/* Best first; cells without a score last; ties in the order of the grid. */
static int by_mean(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    bool x_none = isnan(x->summary.mean), y_none = isnan(y->summary.mean);

    if (x_none != y_none)
        return x_none - y_none;
    if (!x_none && x->summary.mean != y->summary.mean)
        return x->summary.mean < y->summary.mean ? 1 : -1;
    return (x->cell > y->cell) - (x->cell < y->cell);
}

struct ha_table *ha_report_ranking(const struct ha_experiment *e, int64_t limit)
{
    struct ha_table *table = ha_table_create("Cells by mean Overall score");
    struct ranked *ranks = ha_calloc(e->n_cells, sizeof(*ranks));
    double *work = work_for(e);

    ha_table_column_number(table, "Rank");
    ha_table_column_text(table, "Model");
    ha_table_column_text(table, "Strategy");
    ha_table_column_text(table, "Cell");
    ha_table_column_number(table, "Mean");
    ha_table_column_number(table, "Count");
    if (ranks && work) {
        for (int64_t i = 0; i < e->n_cells; i++) {
            struct group group = {.cell = i, .model = -1};

            ranks[i].cell = i;
            ranks[i].summary = summarise(e, &group, e->overall, work);
        }
        qsort(ranks, (size_t)e->n_cells, sizeof(*ranks), by_mean);
    }
    for (int64_t i = 0; ranks && work && i < e->n_cells && (limit == 0 || i < limit); i++) {
        const struct ha_report_cell *cell = &e->cells[ranks[i].cell];

        ha_table_format(table, "%lld", (long long)i + 1);
        ha_table_text(table, e->models[cell->model].name);
        ha_table_text(table, cell->strategy);
        ha_table_text(table, cell->name);
        ha_table_real(table, ranks[i].summary.mean, 3);
        ha_table_format(table, "%lld/%lld", (long long)ranks[i].summary.n,
                        (long long)cell->expected);
    }
    note_label(table, e);
    free(ranks);
    free(work);
    return table;
}

static const char *layers_of(const struct ha_experiment *e, int64_t model, const char *strategy)
{
    for (int64_t i = 0; i < e->n_cells; i++)
        if (e->cells[i].model == model && strcmp(e->cells[i].strategy, strategy) == 0)
            return e->cells[i].layers;
    return "-";
}

struct ha_table *ha_report_blocks(const struct ha_experiment *e)
{
    struct ha_table *table = ha_table_create("Layer blocks of each model");

    ha_table_column_text(table, "Model");
    ha_table_column_number(table, "Total Layers");
    ha_table_column_text(table, "Local Block");
    ha_table_column_text(table, "Intermediate Block");
    ha_table_column_text(table, "Global Block");
    for (int64_t i = 0; i < e->n_models; i++) {
        ha_table_text(table, e->models[i].name);
        ha_table_format(table, "%lld", (long long)e->models[i].layers);
        ha_table_text(table, layers_of(e, i, "local"));
        ha_table_text(table, layers_of(e, i, "mid"));
        ha_table_text(table, layers_of(e, i, "global"));
    }
    ha_table_note(table, "Layers count from 0; \"-\": the block is not in this grid.");
    return table;
}

struct ha_table *ha_report_cells(const struct ha_experiment *e, int dimension)
{
    struct ha_table *table = ha_table_create(e->dimensions[dimension]);
    double *work = work_for(e);

    ha_table_column_text(table, "Cell");
    statistics_columns(table);
    for (int64_t i = 0; work && i < e->n_cells; i++) {
        struct group group = {.cell = i, .model = -1};
        struct ha_summary summary = summarise(e, &group, dimension, work);

        ha_table_text(table, e->cells[i].name);
        put_statistics(table, &summary, e->cells[i].expected);
    }
    note_label(table, e);
    free(work);
    return table;
}

static void put_dimension_means(struct ha_table *table, const struct ha_experiment *e,
                                const struct group *group, double *work)
{
    for (int d = 0; d < HA_REPORT_DIMENSIONS; d++)
        ha_table_real(table, summarise(e, group, d, work).mean, 3);
}

struct ha_table *ha_report_dimensions(const struct ha_experiment *e, int by_strategy)
{
    struct ha_table *table = ha_table_create(by_strategy ? "Mean of each dimension by strategy"
                                                         : "Mean of each dimension by cell");
    double *work = work_for(e);

    ha_table_column_text(table, by_strategy ? "Strategy" : "Cell");
    for (int d = 0; d < HA_REPORT_DIMENSIONS; d++)
        ha_table_column_number(table, e->dimensions[d]);
    for (int64_t i = 0; work && i < e->n_cells; i++) {
        struct group group = {.cell = by_strategy ? -1 : i,
                              .model = -1,
                              .strategy = by_strategy ? e->cells[i].strategy : NULL};

        if (by_strategy && !first_of_strategy(e, i))
            continue;
        ha_table_text(table, by_strategy ? group.strategy : e->cells[i].name);
        put_dimension_means(table, e, &group, work);
    }
    note_label(table, e);
    free(work);
    return table;
}

static void put_long_rows(struct ha_table *table, const struct ha_experiment *e, const char *kind,
                          const char *name, const struct group *group, double *work)
{
    for (int d = 0; d < HA_REPORT_DIMENSIONS; d++) {
        struct ha_summary summary = summarise(e, group, d, work);

        ha_table_text(table, kind);
        ha_table_text(table, name);
        ha_table_text(table, e->dimensions[d]);
        ha_table_real(table, summary.mean, 9);
        ha_table_real(table, summary.std, 9);
        ha_table_real(table, summary.median, 1);
        ha_table_format(table, "%lld", (long long)summary.n);
        ha_table_format(table, "%lld", (long long)expected_of(e, group));
    }
}

struct ha_table *ha_report_long(const struct ha_experiment *e)
{
    struct ha_table *table = ha_table_create("");
    double *work = work_for(e);

    ha_table_column_text(table, "group");
    ha_table_column_text(table, "name");
    ha_table_column_text(table, "dimension");
    ha_table_column_number(table, "mean");
    ha_table_column_number(table, "std");
    ha_table_column_number(table, "median");
    ha_table_column_number(table, "count");
    ha_table_column_number(table, "expected");
    for (int64_t i = 0; work && i < e->n_cells; i++) {
        struct group group = {.cell = i, .model = -1};

        put_long_rows(table, e, "cell", e->cells[i].name, &group, work);
    }
    for (int64_t i = 0; work && i < e->n_cells; i++) {
        struct group group = {.cell = -1, .model = -1, .strategy = e->cells[i].strategy};

        if (first_of_strategy(e, i))
            put_long_rows(table, e, "strategy", group.strategy, &group, work);
    }
    free(work);
    return table;
}

struct ha_table *ha_report_missing_table(const struct ha_experiment *e)
{
    struct ha_table *table = ha_table_create("Answers without a score");

    ha_table_column_text(table, "Cell");
    ha_table_column_text(table, "Reason");
    ha_table_column_number(table, "Count");
    for (int64_t i = 0; i < e->n_missing; i++) {
        ha_table_text(table, e->cells[e->missing[i].cell].name);
        ha_table_text(table, e->missing[i].reason);
        ha_table_format(table, "%lld", (long long)e->missing[i].count);
    }
    return table;
}
