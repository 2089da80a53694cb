#include "coordinator/hactl/norms.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/hactl/fetch.h"

enum { MEMORY_BYTES = 1 << 30, RULE_BYTES = 32 };

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

bool ha_norms_has_probe(const struct ha_status *status)
{
    for (int64_t i = 0; i < status->n_cells; i++)
        for (int64_t k = 0; k < status->cells[i]->n_stages; k++)
            if (strcmp(status->cells[i]->stages[k].stage, "probe") == 0)
                return true;
    return false;
}

/* A row as it came, with what its name in tables is made from. */
struct fetched {
    struct ha_report_norm norm; /* name: its model */
    uint64_t row, cell;
};

struct fetching {
    struct ha_norms *norms;
    const struct ha_status *status;
    const char *cell;
    struct fetched *rows;
    int64_t n_rows, capacity;
};

static const char *keep(struct ha_norms *norms, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = ha_arena_alloc(&norms->memory, bytes);

    return copy ? memcpy(copy, text, bytes) : NULL;
}

static int take(void *context, const struct ha_wire_norm_row *row, struct ha_error *err)
{
    struct fetching *fetching = context;
    struct ha_norms *norms = fetching->norms;
    void *array = fetching->rows;
    struct ha_report_norm *norm;

    if (ha_grow(&array, &fetching->capacity, fetching->n_rows + 1, sizeof(*fetching->rows)) < 0)
        return out_of_memory(err);
    fetching->rows = array;
    fetching->rows[fetching->n_rows].row = row->row;
    fetching->rows[fetching->n_rows].cell = row->norm.cell;
    norm = &fetching->rows[fetching->n_rows++].norm;
    *norm = (struct ha_report_norm){
        .probe = row->probe,
        .name = keep(norms, row->model),
        .block = keep(norms, row->norm.block),
        .layer = row->norm.layer,
        .layers = row->norm.layers,
        .module = keep(norms, row->norm.module),
        .norm = row->norm.norm,
        .parameters = row->norm.parameters,
        .pairs = row->norm.pairs,
    };
    return norm->name && norm->block && norm->module ? 0 : out_of_memory(err);
}

static int by_probe(const void *a, const void *b)
{
    const struct fetched *x = a, *y = b;

    if (x->norm.probe != y->norm.probe)
        return x->norm.probe < y->norm.probe ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static const char *cell_name(const struct ha_status *status, uint64_t cell)
{
    for (int64_t i = 0; i < status->n_cells; i++)
        if (status->cells[i]->cell == cell)
            return status->cells[i]->name;
    return NULL;
}

/* The model's name; where it has several probes, the name of the first cell with
 * this one. */
static const char *name_of(const struct fetching *fetching, const struct fetched *row)
{
    const char *cell = cell_name(fetching->status, row->cell);

    for (int64_t i = 0; cell && i < fetching->n_rows; i++) {
        const struct ha_report_norm *other = &fetching->rows[i].norm;

        if (other->probe != row->norm.probe && strcmp(other->name, row->norm.name) == 0)
            return cell;
    }
    return row->norm.name;
}

static int make_rows(struct fetching *fetching, struct ha_error *err)
{
    struct ha_norms *norms = fetching->norms;
    size_t bytes = (size_t)fetching->n_rows * sizeof(struct ha_report_norm);
    struct ha_report_norm *rows = ha_arena_alloc(&norms->memory, bytes);

    if (!rows)
        return out_of_memory(err);
    if (fetching->n_rows > 0)
        qsort(fetching->rows, (size_t)fetching->n_rows, sizeof(*fetching->rows), by_probe);
    for (int64_t i = 0; i < fetching->n_rows; i++) {
        rows[i] = fetching->rows[i].norm;
        rows[i].name = i > 0 && rows[i].probe == rows[i - 1].probe
                           ? rows[i - 1].name
                           : name_of(fetching, &fetching->rows[i]);
    }
    norms->norms = (struct ha_report_norms){.rows = rows, .n_rows = fetching->n_rows};
    return 0;
}

/* Is it called so, by name or id?  "" calls every cell. */
static bool is_called(const struct ha_wire_cell_row *cell, const char *name)
{
    return !name[0] || strcmp(cell->name, name) == 0 ||
           (name[strspn(name, "0123456789")] == '\0' && strtoull(name, NULL, 10) == cell->cell);
}

static int make_choices(struct fetching *fetching, struct ha_error *err)
{
    struct ha_norms *norms = fetching->norms;
    const struct ha_status *status = fetching->status;

    norms->choices =
        ha_arena_alloc(&norms->memory, (size_t)(status->n_cells + 1) * sizeof(*norms->choices));
    if (!norms->choices)
        return out_of_memory(err);
    for (int64_t i = 0; i < status->n_cells; i++) {
        const struct ha_wire_cell_row *cell = status->cells[i];

        if (cell->choice.count == 0 || !is_called(cell, fetching->cell))
            continue;
        norms->choices[norms->n_choices++] =
            (struct ha_report_choice){.cell = cell->name,
                                      .measure = cell->choice.measure,
                                      .layers = cell->choice.layers,
                                      .count = cell->choice.count,
                                      .share = cell->choice.share,
                                      .probe = cell->choice.probe};
    }
    return 0;
}

int ha_norms_fetch(struct ha_link *link, const struct ha_status *status, const char *cell,
                   struct ha_norms **ret_norms, struct ha_error *err)
{
    struct ha_norms *norms = ha_calloc(1, sizeof(*norms));
    struct fetching fetching = {.norms = norms, .status = status, .cell = cell};
    struct ha_wire_norms_request request = {.sweep = status->head->sweep.name, .cell = cell};
    int r;

    if (!norms)
        return out_of_memory(err);
    ha_arena_init(&norms->memory, MEMORY_BYTES);
    r = ha_fetch_norms(link, &request, take, &fetching, err);
    if (r == 0)
        r = make_rows(&fetching, err);
    if (r == 0)
        r = make_choices(&fetching, err);
    free(fetching.rows);
    if (r < 0)
        ha_norms_destroy(norms);
    else
        *ret_norms = norms;
    return r;
}

void ha_norms_destroy(struct ha_norms *norms)
{
    if (!norms)
        return;
    ha_arena_clear(&norms->memory);
    free(norms);
}

/* ---- JSON ------------------------------------------------------------------------ */

static struct ha_json *norm_json(const struct ha_report_norms *norms,
                                 const struct ha_report_norm *row)
{
    struct ha_json *json = ha_json_new_object();

    if (ha_json_set(json, "probe", ha_json_new_string(row->name)) < 0 ||
        ha_json_set(json, "block", ha_json_new_string(row->block)) < 0 ||
        ha_json_set(json, "first", ha_json_new_int(row->layer)) < 0 ||
        ha_json_set(json, "layers", ha_json_new_int(row->layers)) < 0 ||
        ha_json_set(json, "module", ha_json_new_string(row->module)) < 0 ||
        ha_json_set(json, "norm", ha_json_new_real(row->norm)) < 0 ||
        ha_json_set(json, "per_sqrt_parameters",
                    ha_json_new_real(ha_report_norm_value(row, true))) < 0 ||
        ha_json_set(json, "share",
                    ha_json_new_real(ha_report_norm_share(norms, row->probe, row->module,
                                                          row->layer, row->layers, false))) < 0 ||
        ha_json_set(json, "parameters", ha_json_new_int(row->parameters)) < 0 ||
        ha_json_set(json, "pairs", ha_json_new_int(row->pairs)) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

struct ha_json *ha_norms_choice_json(const struct ha_wire_choice *choice)
{
    struct ha_json *json = ha_json_new_object();
    char rule[RULE_BYTES];

    (void)snprintf(rule, sizeof(rule), "auto:%lld", (long long)choice->count);
    if (ha_json_set(json, "rule", ha_json_new_string(rule)) < 0 ||
        ha_json_set(json, "measure", ha_json_new_string(choice->measure)) < 0 ||
        ha_json_set(json, "layers", ha_json_new_string(choice->layers)) < 0 ||
        ha_json_set(json, "share", ha_json_new_real(choice->share)) < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static int append_choice(struct ha_json *choices, const struct ha_report_choice *choice)
{
    struct ha_wire_choice wire = {.count = choice->count,
                                  .measure = choice->measure,
                                  .layers = choice->layers,
                                  .share = choice->share};
    struct ha_json *json = ha_norms_choice_json(&wire);
    int r = ha_json_append(choices, json);

    return r < 0 ? r : ha_json_set(json, "cell", ha_json_new_string(choice->cell));
}

struct ha_json *ha_norms_json(const struct ha_norms *norms)
{
    struct ha_json *json = ha_json_new_object(), *rows = ha_json_new_array();
    struct ha_json *choices = ha_json_new_array();
    int r = ha_json_set(json, "norms", rows);

    if (ha_json_set(json, "choices", choices) < 0)
        r = -ENOMEM;
    for (int64_t i = 0; r == 0 && i < norms->norms.n_rows; i++)
        r = ha_json_append(rows, norm_json(&norms->norms, &norms->norms.rows[i]));
    for (int64_t i = 0; r == 0 && i < norms->n_choices; i++)
        r = append_choice(choices, &norms->choices[i]);
    if (r == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}
