#include "coordinator/core/job_spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/blocks.h"
#include "common/conf/json.h"

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for a job's description");
}

static struct ha_json *text_or_null(const char *text)
{
    return text ? ha_json_new_string(text) : ha_json_new_null();
}

static int parse_settings(const struct ha_spec_cell *cell, struct ha_json **ret_json,
                          struct ha_error *err)
{
    int r = ha_json_parse(cell->settings, strlen(cell->settings), cell->name, ret_json, err);

    if (r < 0)
        return ha_error_prefix(err, "settings");
    if (!ha_json_is(*ret_json, HA_JSON_OBJECT)) {
        ha_json_destroy(*ret_json);
        *ret_json = NULL;
        return ha_error_set(err, EINVAL, "the settings of cell %s are not an object", cell->name);
    }
    return 0;
}

static struct ha_json *text_array(const char *const *items, int64_t count)
{
    struct ha_json *array = ha_json_new_array();

    for (int64_t i = 0; array && i < count; i++) {
        if (ha_json_append(array, ha_json_new_string(items[i])) < 0) {
            ha_json_destroy(array);
            array = NULL;
        }
    }
    return array;
}

static int model_json(const struct ha_spec *spec, struct ha_json **ret_model)
{
    struct ha_json *model = ha_json_new_object();
    int r = model ? 0 : -ENOMEM;

    if (r == 0)
        r = ha_json_set(model, "name", ha_json_new_string(spec->model_name));
    if (r == 0)
        r = ha_json_set(model, "path", ha_json_new_string(spec->model_path));
    if (r == 0)
        r = ha_json_set(model, "hub_id", ha_json_new_string(spec->hub_id));
    if (r == 0)
        r = ha_json_set(model, "template", ha_json_new_string(spec->prompt_template));
    if (r < 0)
        ha_json_destroy(model);
    else
        *ret_model = model;
    return r;
}

static int data_json(const struct ha_spec *spec, struct ha_json **ret_data)
{
    struct ha_json *data = ha_json_new_object();
    int r = data ? 0 : -ENOMEM;

    if (r == 0)
        r = ha_json_set(data, "train", text_array(spec->train, spec->train_count));
    if (r == 0)
        r = ha_json_set(data, "eval", text_array(spec->eval, spec->eval_count));
    if (r < 0)
        ha_json_destroy(data);
    else
        *ret_data = data;
    return r;
}

static int layers_json(const struct ha_spec_cell *cell, struct ha_json **ret_layers,
                       struct ha_error *err)
{
    struct ha_layers layers = {0};
    struct ha_json *array;
    int r = 0;

    if (cell->layers[0])
        r = ha_layers_parse(cell->layers, 0, &layers, err);
    if (r < 0)
        return ha_error_prefix(err, "layers of cell %s", cell->name);
    array = ha_json_new_array();
    r = array ? 0 : -ENOMEM;
    for (int64_t i = 0; r == 0 && i < layers.count; i++)
        r = ha_json_append(array, ha_json_new_int(layers.items[i]));
    ha_layers_clear(&layers);
    if (r < 0) {
        ha_json_destroy(array);
        return no_memory(err);
    }
    *ret_layers = array;
    return 0;
}

/* settings is taken over, also when this fails. */
static int cell_json(const struct ha_spec_cell *cell, struct ha_json *settings,
                     struct ha_json **ret_cell, struct ha_error *err)
{
    struct ha_json *object = ha_json_new_object(), *layers = NULL;
    int r = layers_json(cell, &layers, err);

    if (r < 0 || !object || !settings) {
        ha_json_destroy(object);
        ha_json_destroy(settings);
        ha_json_destroy(layers);
        return r < 0 ? r : no_memory(err);
    }
    r = ha_json_set(object, "settings", settings);
    if (r < 0)
        ha_json_destroy(layers);
    else
        r = ha_json_set(object, "layers", layers);
    if (r == 0)
        r = ha_json_set(object, "id", ha_json_new_int(cell->id));
    if (r == 0)
        r = ha_json_set(object, "name", ha_json_new_string(cell->name));
    if (r == 0)
        r = ha_json_set(object, "adapter", text_or_null(cell->adapter));
    if (r == 0)
        r = ha_json_set(object, "checkpoint", text_or_null(cell->checkpoint));
    if (r < 0) {
        ha_json_destroy(object);
        return no_memory(err);
    }
    *ret_cell = object;
    return 0;
}

/* "settings" are the first cell's; every other cell carries its own whole. */
static int cells_json(const struct ha_spec *spec, struct ha_json *root, struct ha_error *err)
{
    struct ha_json *cells = ha_json_new_array();
    int r = cells ? 0 : no_memory(err);

    for (int64_t i = 0; r == 0 && i < spec->cell_count; i++) {
        struct ha_json *settings = NULL, *cell = NULL;

        r = parse_settings(&spec->cells[i], &settings, err);
        if (r == 0 && i == 0) {
            r = ha_json_set(root, "settings", settings) < 0 ? no_memory(err) : 0;
            settings = r == 0 ? ha_json_new_object() : NULL;
        }
        if (r == 0)
            r = cell_json(&spec->cells[i], settings, &cell, err);
        if (r == 0 && ha_json_append(cells, cell) < 0)
            r = no_memory(err);
    }
    if (r == 0 && ha_json_set(root, "cells", cells) < 0)
        return no_memory(err);
    if (r < 0)
        ha_json_destroy(cells);
    return r;
}

static int skip_json(const struct ha_spec *spec, struct ha_json *root)
{
    struct ha_json *skip = ha_json_new_object(), *list = NULL;
    int64_t cell = 0;
    int r = skip ? 0 : -ENOMEM;

    for (int64_t i = 0; r == 0 && i < spec->skip_count; i++) {
        struct ha_json *pair = ha_json_new_array();
        char key[24];

        if (!list || spec->skip[i].cell != cell) {
            cell = spec->skip[i].cell;
            snprintf(key, sizeof key, "%" PRId64, cell);
            list = ha_json_new_array();
            r = ha_json_set(skip, key, list);
        }
        if (r < 0 || !pair) {
            ha_json_destroy(pair);
            r = -ENOMEM;
            break;
        }
        r = ha_json_append(pair, ha_json_new_int(spec->skip[i].prompt));
        if (r == 0)
            r = ha_json_append(pair, ha_json_new_int(spec->skip[i].sample));
        if (r < 0)
            ha_json_destroy(pair);
        else
            r = ha_json_append(list, pair);
    }
    if (r < 0) {
        ha_json_destroy(skip);
        return r;
    }
    return ha_json_set(root, "skip_answers", skip);
}

static int fill(const struct ha_spec *spec, struct ha_json *root, struct ha_error *err)
{
    struct ha_json *model = NULL, *data = NULL;
    int r = ha_json_set(root, "kind", ha_json_new_string(ha_stage_kind_name(spec->kind)));

    if (r == 0)
        r = ha_json_set(root, "sweep", ha_json_new_string(spec->sweep));
    if (r == 0)
        r = ha_json_set(root, "job", ha_json_new_int(spec->job));
    if (r == 0)
        r = model_json(spec, &model);
    if (r == 0)
        r = ha_json_set(root, "model", model);
    if (r == 0)
        r = data_json(spec, &data);
    if (r == 0)
        r = ha_json_set(root, "data", data);
    if (r == 0)
        r = ha_json_set(root, "threads", ha_json_new_int(0));
    if (r == 0)
        r = ha_json_set(root, "backend", ha_json_new_string("auto"));
    if (r == 0)
        r = ha_json_set(root, "ranks", ha_json_new_int(spec->ranks > 1 ? spec->ranks : 1));
    if (r == 0)
        r = ha_json_set(root, "time_alone_steps", ha_json_new_int(spec->time_alone_steps));
    if (r == 0)
        r = ha_json_set(root, "reference", text_or_null(spec->reference));
    if (r == 0)
        r = skip_json(spec, root);
    return r < 0 ? no_memory(err) : cells_json(spec, root, err);
}

int ha_spec_json(const struct ha_spec *spec, char **ret_text, struct ha_error *err)
{
    struct ha_json *root = ha_json_new_object();
    char *text = NULL;
    int r = root ? fill(spec, root, err) : no_memory(err);

    if (r == 0) {
        text = ha_json_dump(root, HA_JSON_COMPACT);
        r = text ? 0 : no_memory(err);
    }
    ha_json_destroy(root);
    if (r == 0)
        *ret_text = text;
    return r;
}

/* ".jsonl.gz": everything from the first dot of the last part that is followed
 * by letters, digits and dots only; "" without one. */
static const char *suffix(const char *path)
{
    const char *base = ha_path_basename(path), *dot = strrchr(base, '.');

    if (!dot || dot == base)
        return "";
    if (strcmp(dot, ".gz") == 0) {
        const char *before = dot;

        while (before > base && before[-1] != '.')
            before--;
        if (before - 1 > base && before > base)
            return before - 1;
    }
    return dot;
}

char *ha_spec_data_path(const char *split, int64_t index, const char *path)
{
    char safe[32];
    size_t n = 0;

    for (const char *c = suffix(path); *c && n + 1 < sizeof safe; c++) {
        if ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
            *c == '.')
            safe[n++] = *c;
    }
    safe[n] = '\0';
    return ha_format("inputs/data/%s-%" PRId64 "%s", split, index, safe);
}

char *ha_spec_adapter_path(int64_t cell, const char *name)
{
    return name ? ha_format("inputs/adapter/%" PRId64 "/%s", cell, name)
                : ha_format("inputs/adapter/%" PRId64, cell);
}

char *ha_spec_reference_path(void)
{
    return ha_strdup("inputs/reference");
}

char *ha_spec_checkpoint_path(int64_t cell)
{
    return ha_format("inputs/checkpoint/%" PRId64, cell);
}
