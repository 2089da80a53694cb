#include "worker/attempt/job_spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "kernels/collective.h"

enum { LIMIT_BYTES = 64 << 20, MAX_LAYERS = 1024, MAX_THREADS = 4096 };

static int missing(const char *what, struct ha_error *err)
{
    return ha_error_set(err, EINVAL, "job.json: %s is missing or of another kind", what);
}

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "job.json: out of memory");
}

static int read_text(const struct ha_json *object, const char *key, const char **ret_text,
                     struct ha_error *err)
{
    *ret_text = ha_json_string(ha_json_get(object, key), NULL);
    return *ret_text ? 0 : missing(key, err);
}

/* NULL for null, "" and what is not there. */
static const char *optional_text(const struct ha_json *object, const char *key)
{
    const char *text = ha_json_string(ha_json_get(object, key), "");

    return text[0] ? text : NULL;
}

static int read_paths(const struct ha_json *data, const char *key, const char ***ret_paths,
                      int64_t *ret_count, struct ha_error *err)
{
    const struct ha_json *array = ha_json_get(data, key);
    const char **paths;

    if (array && !ha_json_is(array, HA_JSON_ARRAY))
        return missing(key, err);
    paths = ha_calloc(ha_json_size(array), sizeof(*paths));
    if (!paths)
        return out_of_memory(err);
    *ret_paths = paths;
    for (int64_t i = 0; i < ha_json_size(array); i++) {
        paths[i] = ha_json_string(ha_json_at(array, i), NULL);
        if (!paths[i])
            return missing(key, err);
        *ret_count = i + 1;
    }
    return 0;
}

static int read_layers(const struct ha_json *array, struct ha_job_cell *cell, struct ha_error *err)
{
    int64_t n = ha_json_size(array);

    if (!ha_json_is(array, HA_JSON_ARRAY) || n > MAX_LAYERS)
        return missing("layers", err);
    cell->layers = ha_calloc(n, sizeof(*cell->layers));
    if (!cell->layers)
        return out_of_memory(err);
    for (int64_t i = 0; i < n; i++) {
        cell->layers[i] = ha_json_int(ha_json_at(array, i), -1);
        if (cell->layers[i] < 0 || (i > 0 && cell->layers[i] <= cell->layers[i - 1]))
            return ha_error_set(err, EINVAL, "job.json: layers must rise from 0");
    }
    cell->n_layers = n;
    return 0;
}

static int read_skip(const struct ha_json *all, struct ha_job_cell *cell, struct ha_error *err)
{
    const struct ha_json *array;
    char key[32];

    (void)snprintf(key, sizeof(key), "%lld", (long long)cell->id);
    array = ha_json_get(all, key);
    cell->skip = ha_calloc(ha_json_size(array), sizeof(*cell->skip));
    if (!cell->skip)
        return out_of_memory(err);
    for (int64_t i = 0; i < ha_json_size(array); i++) {
        const struct ha_json *pair = ha_json_at(array, i);

        cell->skip[i].prompt = ha_json_int(ha_json_at(pair, 0), -1);
        cell->skip[i].sample = ha_json_int(ha_json_at(pair, 1), -1);
        if (cell->skip[i].prompt < 0 || cell->skip[i].sample < 0)
            return missing("skip_answers", err);
    }
    cell->n_skip = ha_json_size(array);
    return 0;
}

static int read_cell(const struct ha_job_spec *spec, const struct ha_json *json,
                     struct ha_job_cell *cell, struct ha_error *err)
{
    const struct ha_json *own = ha_json_get(json, "settings");
    int r;

    cell->id = ha_json_int(ha_json_get(json, "id"), 0);
    if (cell->id <= 0)
        return missing("id of a cell", err);
    cell->adapter = optional_text(json, "adapter");
    cell->checkpoint = optional_text(json, "checkpoint");
    r = read_text(json, "name", &cell->name, err);
    if (r == 0)
        r = read_layers(ha_json_get(json, "layers"), cell, err);
    if (r == 0 && spec->kind == HA_JOB_TRAIN && cell->n_layers == 0)
        r = ha_error_set(err, EINVAL, "job.json: %s trains no layer", cell->name);
    if (r == 0)
        r = read_skip(ha_json_get(spec->document, "skip_answers"), cell, err);
    if (r == 0)
        r = ha_run_settings_from_json(ha_json_get(spec->document, "settings"), "job.json: settings",
                                      &cell->settings, err);
    if (r == 0 && own)
        r = ha_run_settings_merge(cell->settings, own, cell->name, err);
    return r;
}

static int read_cells(struct ha_job_spec *spec, struct ha_error *err)
{
    const struct ha_json *cells = ha_json_get(spec->document, "cells");
    int r = 0;

    if (!ha_json_is(cells, HA_JSON_ARRAY) || ha_json_size(cells) == 0)
        return missing("cells", err);
    spec->cells = ha_calloc(ha_json_size(cells), sizeof(*spec->cells));
    if (!spec->cells)
        return out_of_memory(err);
    for (int64_t i = 0; r == 0 && i < ha_json_size(cells); i++) {
        spec->n_cells = i + 1;
        r = read_cell(spec, ha_json_at(cells, i), &spec->cells[i], err);
    }
    return r;
}

static int read_machine(struct ha_job_spec *spec, struct ha_error *err)
{
    int64_t threads = ha_json_int(ha_json_get(spec->document, "threads"), 0), ranks, first;

    if (threads < 0 || threads > MAX_THREADS)
        return ha_error_set(err, EINVAL, "job.json: threads must be 0 to %d", MAX_THREADS);
    spec->time_alone_steps = ha_json_int(ha_json_get(spec->document, "time_alone_steps"), 0);
    if (spec->time_alone_steps < 0)
        return ha_error_set(err, EINVAL, "job.json: time_alone_steps is negative");
    ranks = ha_json_int(ha_json_get(spec->document, "ranks"), 1);
    spec->gang_wait_ms = ha_json_int(ha_json_get(spec->document, "gang_wait_ms"), 0);
    if (ranks < 1 || ranks > HA_COMM_MAX_RANKS || spec->gang_wait_ms < 0)
        return ha_error_set(err, EINVAL, "job.json: ranks must be 1 to %d", HA_COMM_MAX_RANKS);
    first = ha_json_int(ha_json_get(spec->document, "first_rank"), 0);
    if (first < 0 || first >= ranks)
        return ha_error_set(err, EINVAL, "job.json: first_rank must be below ranks");
    spec->ranks = (int)ranks;
    spec->first_rank = (int)first;
    spec->threads = (int)threads;
    spec->backend = ha_json_string(ha_json_get(spec->document, "backend"), "auto");
    spec->digests = optional_text(spec->document, "digests");
    spec->choices = optional_text(spec->document, "choices");
    spec->reference = optional_text(spec->document, "reference");
    return 0;
}

static int parse_kind(const char *name, enum ha_job_kind *ret_kind, struct ha_error *err)
{
    static const char *const names[] = {
        [HA_JOB_TRAIN] = "train", [HA_JOB_PROBE] = "probe", [HA_JOB_GENERATE] = "generate"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0) {
            *ret_kind = (enum ha_job_kind)i;
            return 0;
        }
    }
    return ha_error_set(err, EINVAL, "job.json: kind '%s' is neither train, probe nor generate",
                        name);
}

static int read_spec(struct ha_job_spec *spec, struct ha_error *err)
{
    const struct ha_json *model = ha_json_get(spec->document, "model");
    const struct ha_json *data = ha_json_get(spec->document, "data");
    bool generates;
    const char *kind;
    int r = read_text(spec->document, "kind", &kind, err);

    if (r < 0)
        return r;
    r = parse_kind(kind, &spec->kind, err);
    if (r < 0)
        return r;
    spec->hub_id = optional_text(model, "hub_id");
    spec->prompt_template = ha_json_string(ha_json_get(model, "template"), "hh");
    r = read_text(model, "path", &spec->model_path, err);
    if (r == 0)
        r = read_machine(spec, err);
    if (r == 0)
        r = read_paths(data, "train", &spec->train, &spec->n_train, err);
    if (r == 0)
        r = read_paths(data, "eval", &spec->eval, &spec->n_eval, err);
    generates = spec->kind == HA_JOB_GENERATE;
    if (r == 0 && (generates ? spec->n_eval : spec->n_train) == 0)
        r = missing(generates ? "data.eval" : "data.train", err);
    if (r == 0 && !ha_json_is(ha_json_get(spec->document, "settings"), HA_JSON_OBJECT))
        r = missing("settings", err);
    if (r == 0)
        r = read_cells(spec, err);
    if (r == 0 && spec->kind == HA_JOB_PROBE && spec->n_cells != 1)
        r = ha_error_set(err, EINVAL, "job.json: a probe has one cell, not %lld",
                         (long long)spec->n_cells);
    return r;
}

int ha_job_spec_load(const char *path, struct ha_job_spec **ret_spec, struct ha_error *err)
{
    struct ha_job_spec *spec = ha_calloc(1, sizeof(*spec));
    int r;

    if (!spec)
        return out_of_memory(err);
    r = ha_json_load(path, LIMIT_BYTES, &spec->document, err);
    if (r == 0)
        r = read_spec(spec, err);
    if (r < 0) {
        ha_job_spec_destroy(spec);
        return r;
    }
    *ret_spec = spec;
    return 0;
}

void ha_job_spec_destroy(struct ha_job_spec *spec)
{
    if (!spec)
        return;
    for (int64_t i = 0; i < spec->n_cells; i++) {
        free(spec->cells[i].layers);
        free(spec->cells[i].skip);
        ha_run_settings_destroy(spec->cells[i].settings);
    }
    free(spec->cells);
    free(spec->train);
    free(spec->eval);
    ha_json_destroy(spec->document);
    free(spec);
}
