#include "coordinator/hactl/grid_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/conf/model_path.h"
#include "common/conf/toml.h"
#include "common/io/digest.h"
#include "common/io/file.h"
#include "coordinator/hactl/capture.h"

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "hactl: out of memory");
}

/* Asks the engine about a model whose config.json is here. */
static int ask_plan(const struct ha_sweep_model *model, struct ha_input_model *input,
                    struct ha_error *err)
{
    const char *arguments[] = {
        "ha-attempt",           "plan", "--model", input->dir, "--json", "--template",
        model->prompt_template, NULL};
    char *text;
    int r = ha_capture(arguments, &text, err);

    if (r < 0)
        return ha_error_prefix(err, "model %s (%s)", model->name, input->dir);
    r = ha_json_parse(text, strlen(text), "ha-attempt plan", &input->plan, err);
    free(text);
    if (r < 0)
        return r;
    input->layers = ha_json_int(ha_json_get(input->plan, "n_layers"), 0);
    input->family = ha_json_string(ha_json_get(input->plan, "family"), "");
    return 0;
}

static int find_model(const struct ha_sweep *sweep, const struct ha_sweep_model *model, bool dry,
                      struct ha_input_model *input, struct ha_error *err)
{
    struct ha_error missing = {0};
    char *config;
    int r =
        ha_model_path_resolve(sweep->base_dir, model->path, model->revision, &input->dir, &missing);

    input->layers = model->layers;
    input->family = model->family ? model->family : "";
    if (r == 0) {
        config = ha_path_join(input->dir, "config.json");
        if (!config)
            return out_of_memory(err);
        r = ha_path_exists(config)
                ? 0
                : ha_error_set(&missing, ENOENT, "%s has no config.json", input->dir);
        free(config);
    }
    if (r == 0)
        return ask_plan(model, input, err);
    free(input->dir);
    input->dir = NULL;
    if (r == -ENOENT && dry && model->layers > 0)
        return 0;
    (void)ha_error_set(err, missing.code, "model %s: %s%s", model->name, ha_error_text(&missing),
                       dry ? "; without its files a dry run needs `layers` in the grid" : "");
    return r;
}

static int read_grid(struct ha_grid_input *input, const char *path, struct ha_error *err)
{
    char *dir = ha_path_dirname(path);
    size_t size;
    int r;

    if (!dir)
        return out_of_memory(err);
    input->base_dir = realpath(dir, NULL);
    free(dir);
    if (!input->base_dir)
        return ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    r = ha_file_read(path, HA_TOML_LIMIT_BYTES, &input->text, &size, err);
    if (r < 0)
        return r;
    return ha_sweep_load(path, input->overrides, input->n_overrides, &input->sweep, err);
}

int ha_grid_input_load(const char *path, const char *const *overrides, int64_t n_overrides,
                       bool dry, struct ha_grid_input **ret_input, struct ha_error *err)
{
    struct ha_grid_input *input = ha_calloc(1, sizeof(*input));
    int64_t *layers = NULL;
    int r;

    if (!input)
        return out_of_memory(err);
    input->overrides = overrides;
    input->n_overrides = n_overrides;
    r = read_grid(input, path, err);
    if (r == 0) {
        input->models = ha_calloc(input->sweep->model_count, sizeof(*input->models));
        layers = ha_calloc(input->sweep->model_count, sizeof(*layers));
        if (!input->models || !layers)
            r = out_of_memory(err);
    }
    for (int64_t i = 0; r == 0 && i < input->sweep->model_count; i++) {
        r = find_model(input->sweep, &input->sweep->models[i], dry, &input->models[i], err);
        layers[i] = input->models[i].layers;
    }
    if (r == 0)
        r = ha_grid_create(input->sweep, layers, &input->grid, err);
    free(layers);
    if (r < 0) {
        ha_grid_input_destroy(input);
        return r;
    }
    *ret_input = input;
    return 0;
}

/* Digests of large files are remembered between submissions. */
static char *cache_path(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *dir = NULL, *path = NULL;

    if (cache && cache[0] == '/')
        dir = ha_path_join(cache, "hierarchical-align");
    else if (home)
        dir = ha_path_join(home, ".cache/hierarchical-align");
    if (dir && ha_path_make_dirs(dir, 0700, NULL) == 0)
        path = ha_path_join(dir, "digests");
    free(dir);
    return path;
}

static int hash_file(const struct ha_sweep *sweep, const char *name, const char *split,
                     const char *cache, struct ha_input_file *file, struct ha_error *err)
{
    struct stat st;
    int r;

    file->name = name;
    file->split = split;
    file->path = ha_sweep_path(sweep, name);
    if (!file->path)
        return out_of_memory(err);
    if (stat(file->path, &st) < 0)
        return ha_error_set(err, errno, "data.%s: %s: %s", split, file->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return ha_error_set(err, EINVAL, "data.%s: %s is not a file", split, file->path);
    file->size = st.st_size;
    r = ha_digest_file(file->path, cache, file->sha256, err);
    return r < 0 ? ha_error_prefix(err, "data.%s", split) : 0;
}

int ha_grid_input_hash(struct ha_grid_input *input, struct ha_error *err)
{
    const struct ha_sweep_data *data = &input->sweep->data;
    char *cache = cache_path();
    int r = 0;

    for (int64_t i = 0; r == 0 && i < input->sweep->model_count; i++) {
        r = ha_digest_model(input->models[i].dir, cache, input->models[i].digest,
                            input->models[i].tokenizer_digest, err);
        if (r < 0)
            (void)ha_error_prefix(err, "model %s", input->sweep->models[i].name);
    }
    input->files = ha_calloc(data->train.count + data->eval.count, sizeof(*input->files));
    if (r == 0 && !input->files)
        r = out_of_memory(err);
    for (int64_t i = 0; r == 0 && i < data->train.count; i++)
        r = hash_file(input->sweep, data->train.items[i], "train", cache,
                      &input->files[input->n_files++], err);
    for (int64_t i = 0; r == 0 && i < data->eval.count; i++)
        r = hash_file(input->sweep, data->eval.items[i], "eval", cache,
                      &input->files[input->n_files++], err);
    free(cache);
    return r;
}

void ha_grid_input_destroy(struct ha_grid_input *input)
{
    if (!input)
        return;
    ha_grid_destroy(input->grid);
    for (int64_t i = 0; input->models && i < input->sweep->model_count; i++) {
        free(input->models[i].dir);
        ha_json_destroy(input->models[i].plan);
    }
    for (int64_t i = 0; i < input->n_files; i++)
        free(input->files[i].path);
    ha_sweep_destroy(input->sweep);
    free(input->models);
    free(input->files);
    free(input->text);
    free(input->base_dir);
    free(input);
}
