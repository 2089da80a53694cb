#include "coordinator/hactl/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/dimensions.h"
#include "coordinator/hactl/fetch.h"

_Static_assert((int)HA_DIMENSIONS == (int)HA_REPORT_DIMENSIONS, "the report shows every dimension");

struct walk {
    struct ha_gathered *gathered;
    const struct ha_status *status;
    const char *judge;
    int64_t samples, judge_samples; /* of a prompt and of an answer, as far as they are seen */
};

static const char *const *dimension_names(void)
{
    static const char *names[HA_DIMENSIONS];

    for (int i = 0; i < HA_DIMENSIONS; i++)
        names[i] = ha_dimensions[i].name;
    return names;
}

static int64_t model_of(struct ha_gathered *g, const struct ha_status *status, const char *name)
{
    int64_t n = g->experiment.n_models;

    for (int64_t i = 0; i < n; i++)
        if (strcmp(g->models[i].name, name) == 0)
            return i;
    g->models[n].name = name;
    for (int64_t i = 0; i < status->head->n_models; i++)
        if (strcmp(status->head->models[i].name, name) == 0)
            g->models[n].layers = status->head->models[i].layers;
    return g->experiment.n_models++;
}

/* "judge:NAME" of the first judge stage, when none was asked for. */
static const char *first_judge(const struct ha_status *status)
{
    for (int64_t i = 0; i < status->n_cells; i++)
        for (int64_t k = 0; k < status->cells[i]->n_stages; k++)
            if (strncmp(status->cells[i]->stages[k].stage, "judge:", 6) == 0)
                return status->cells[i]->stages[k].stage + 6;
    return "";
}

static int64_t expected_of(const struct ha_wire_cell_row *cell, const char *judge)
{
    for (int64_t k = 0; k < cell->n_stages; k++)
        if (strncmp(cell->stages[k].stage, "judge:", 6) == 0 &&
            strcmp(cell->stages[k].stage + 6, judge) == 0)
            return cell->stages[k].total;
    return 0;
}

static int count_missing(struct ha_gathered *g, int64_t cell, const char *reason,
                         struct ha_error *err)
{
    void *array;
    char *copy;

    for (int64_t i = 0; i < g->experiment.n_missing; i++) {
        if (g->missing[i].cell == cell && strcmp(g->missing[i].reason, reason) == 0) {
            g->missing[i].count++;
            return 0;
        }
    }
    copy = ha_strdup(reason);
    array = g->reasons;
    if (!copy || ha_grow(&array, &g->reasons_capacity, g->n_reasons + 1, sizeof(*g->reasons)) < 0) {
        free(copy);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    g->reasons = array;
    g->reasons[g->n_reasons++] = copy;
    array = g->missing;
    if (ha_grow(&array, &g->missing_capacity, g->experiment.n_missing + 1, sizeof(*g->missing)) < 0)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    g->missing = array;
    g->missing[g->experiment.n_missing++] =
        (struct ha_report_missing){.cell = cell, .reason = copy, .count = 1};
    return 0;
}

static int add_scores(struct ha_gathered *g, int64_t cell, const struct ha_wire_answer_row *row,
                      const struct ha_wire_score_set *set, struct ha_error *err)
{
    struct ha_report_scores *scores;
    void *array = g->scores;

    if (ha_grow(&array, &g->scores_capacity, g->experiment.n_scores + 1, sizeof(*scores)) < 0)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    g->scores = array;
    scores = &g->scores[g->experiment.n_scores];
    *scores = (struct ha_report_scores){.cell = cell, .prompt = row->prompt};
    for (int64_t i = 0; i < set->n_scores; i++) {
        int d = ha_dimension_index(set->scores[i].dimension);

        if (d < 0 || set->scores[i].value < 1 || set->scores[i].value > 5)
            return ha_error_set(err, EBADMSG, "answer %llu: a score that is none: %s = %u",
                                (unsigned long long)row->answer, set->scores[i].dimension,
                                set->scores[i].value);
        scores->values[d] = (uint8_t)set->scores[i].value;
    }
    if (memchr(scores->values, 0, sizeof(scores->values)))
        return ha_error_set(err, EBADMSG, "answer %llu has no full set of 16 scores",
                            (unsigned long long)row->answer);
    g->experiment.n_scores++;
    return 0;
}

static int64_t cell_index(const struct ha_status *status, uint64_t id)
{
    for (int64_t i = 0; i < status->n_cells; i++)
        if (status->cells[i]->cell == id)
            return i;
    return -1;
}

static int take_answer(void *context, const struct ha_wire_answer_row *row, struct ha_error *err)
{
    struct walk *walk = context;
    int64_t cell = cell_index(walk->status, row->cell);
    int r = 0;

    for (int64_t i = 0; r == 0 && cell >= 0 && i < row->n_scores; i++) {
        const struct ha_wire_score_set *set = &row->scores[i];

        if (strcmp(set->judge, walk->judge) != 0)
            continue;
        if (row->sample >= walk->samples)
            walk->samples = (int64_t)row->sample + 1;
        if (set->sample >= walk->judge_samples)
            walk->judge_samples = (int64_t)set->sample + 1;
        if (strcmp(set->state, "scored") == 0)
            r = add_scores(walk->gathered, cell, row, set, err);
        else
            r = count_missing(walk->gathered, cell, set->fault[0] ? set->fault : set->state, err);
    }
    return r;
}

static int by_cell(const void *a, const void *b)
{
    const struct ha_report_scores *x = a, *y = b;

    if (x->cell != y->cell)
        return x->cell < y->cell ? -1 : 1;
    return (x->prompt > y->prompt) - (x->prompt < y->prompt);
}

static int fill_cells(struct ha_gathered *g, const struct ha_status *status, const char *judge,
                      struct ha_error *err)
{
    g->models = ha_calloc(status->n_cells, sizeof(*g->models));
    g->cells = ha_calloc(status->n_cells, sizeof(*g->cells));
    g->label = ha_strdup(status->head->judge_label);
    if (!g->models || !g->cells || !g->label)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    for (int64_t i = 0; i < status->n_cells; i++) {
        const struct ha_wire_cell_row *cell = status->cells[i];

        g->cells[i] = (struct ha_report_cell){.model = model_of(g, status, cell->model),
                                              .strategy = cell->strategy,
                                              .name = cell->name,
                                              .layers = cell->layers,
                                              .expected = expected_of(cell, judge)};
    }
    g->experiment.n_cells = status->n_cells;
    return 0;
}

int ha_gather(struct ha_link *link, const struct ha_status *status, const char *judge,
              struct ha_gathered **ret_gathered, struct ha_error *err)
{
    struct ha_gathered *g = ha_calloc(1, sizeof(*g));
    struct walk walk = {.gathered = g,
                        .status = status,
                        .judge = judge[0] ? judge : first_judge(status),
                        .samples = 1,
                        .judge_samples = 1};
    struct ha_wire_answers_request request = {.sweep = status->head->sweep.name, .prompt = -1};
    int r = g ? fill_cells(g, status, walk.judge, err)
              : ha_error_set(err, ENOMEM, "hactl: out of memory");

    if (r == 0)
        r = ha_fetch_answers(link, &request, take_answer, &walk, err);
    if (r < 0) {
        ha_gathered_destroy(g);
        return r;
    }
    /* The report counts prompts; a stage counts score sets. */
    for (int64_t i = 0; i < g->experiment.n_cells; i++)
        g->cells[i].expected /= walk.samples * walk.judge_samples;
    if (g->experiment.n_scores > 0)
        qsort(g->scores, (size_t)g->experiment.n_scores, sizeof(*g->scores), by_cell);
    g->experiment.dimensions = dimension_names();
    g->experiment.overall = ha_dimension_overall();
    g->experiment.models = g->models;
    g->experiment.cells = g->cells;
    g->experiment.scores = g->scores;
    g->experiment.missing = g->missing;
    g->experiment.label = g->label;
    *ret_gathered = g;
    return 0;
}

void ha_gathered_destroy(struct ha_gathered *g)
{
    if (!g)
        return;
    for (int64_t i = 0; i < g->n_reasons; i++)
        free(g->reasons[i]);
    free(g->reasons);
    free(g->models);
    free(g->cells);
    free(g->scores);
    free(g->missing);
    free(g->label);
    free(g);
}
