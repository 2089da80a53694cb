#include "coordinator/hactl/results_json.h"

#include <errno.h>
#include <string.h>

#include "common/conf/json.h"
#include "coordinator/report/experiment.h"

static struct ha_json *summary_json(const struct ha_summary *summary)
{
    struct ha_json *json = ha_json_new_object();

    if (!json || ha_json_set(json, "mean", ha_json_new_real(summary->mean)) < 0 ||
        ha_json_set(json, "std", ha_json_new_real(summary->std)) < 0 ||
        ha_json_set(json, "median", ha_json_new_real(summary->median)) < 0 ||
        ha_json_set(json, "count", ha_json_new_int(summary->n)) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

/* Adds "expected" and "dimensions" to an object. */
static int add_dimensions(struct ha_json *object, const struct ha_experiment *e, int64_t cell,
                          const char *strategy)
{
    struct ha_json *dimensions = ha_json_new_object();
    int64_t expected = 0;
    int r = ha_json_set(object, "dimensions", dimensions);

    for (int d = 0; r == 0 && d < HA_REPORT_DIMENSIONS; d++) {
        struct ha_summary summary;

        r = ha_report_summary(e, cell, strategy, d, &summary, &expected);
        if (r == 0)
            r = ha_json_set(dimensions, e->dimensions[d], summary_json(&summary));
    }
    return r < 0 ? r : ha_json_set(object, "expected", ha_json_new_int(expected));
}

static int add_cell(struct ha_json *cells, const struct ha_experiment *e, int64_t i)
{
    const struct ha_report_cell *cell = &e->cells[i];
    struct ha_json *object = ha_json_new_object();
    int r = ha_json_append(cells, object);

    if (r == 0)
        r = ha_json_set(object, "name", ha_json_new_string(cell->name));
    if (r == 0)
        r = ha_json_set(object, "model", ha_json_new_string(e->models[cell->model].name));
    if (r == 0)
        r = ha_json_set(object, "strategy", ha_json_new_string(cell->strategy));
    if (r == 0)
        r = ha_json_set(object, "layers", ha_json_new_string(cell->layers));
    return r < 0 ? r : add_dimensions(object, e, i, NULL);
}

static int add_strategy(struct ha_json *strategies, const struct ha_experiment *e, int64_t i)
{
    struct ha_json *object;
    int r;

    for (int64_t k = 0; k < i; k++)
        if (strcmp(e->cells[k].strategy, e->cells[i].strategy) == 0)
            return 0;
    object = ha_json_new_object();
    r = ha_json_append(strategies, object);
    if (r == 0)
        r = ha_json_set(object, "name", ha_json_new_string(e->cells[i].strategy));
    return r < 0 ? r : add_dimensions(object, e, -1, e->cells[i].strategy);
}

struct ha_json *ha_results_json(const struct ha_experiment *e)
{
    struct ha_json *json = ha_json_new_object();
    struct ha_json *cells = ha_json_new_array(), *strategies = ha_json_new_array();
    int r = ha_json_set(json, "label", ha_json_new_string(e->label));

    if (r == 0)
        r = ha_json_set(json, "cells", cells);
    if (r == 0)
        r = ha_json_set(json, "strategies", strategies);
    for (int64_t i = 0; r == 0 && i < e->n_cells; i++)
        r = add_cell(cells, e, i);
    for (int64_t i = 0; r == 0 && i < e->n_cells; i++)
        r = add_strategy(strategies, e, i);
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}
