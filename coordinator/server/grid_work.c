#include "coordinator/server/grid_work.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/sweep.h"

enum { WORK_BYTES = 256 << 20 };

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for the grid");
}

/* ---- a copy of the message --------------------------------------------------------- */

static bool copy_text(struct ha_grid_work *w, const char **text)
{
    *text = ha_scratch_text(&w->arena, *text ? *text : "");
    return *text != NULL;
}

static int copy_submit(struct ha_grid_work *w, const struct ha_wire_submit *from)
{
    struct ha_wire_submit *to = &w->submit;
    size_t overrides = (size_t)(from->n_overrides + 1) * sizeof *to->overrides;
    bool good;

    *to = *from;
    to->key = "";
    to->extend = false;
    to->overrides = ha_arena_alloc(&w->arena, overrides);
    to->models = ha_arena_alloc(&w->arena, (size_t)(from->n_models + 1) * sizeof *to->models);
    to->files = ha_arena_alloc(&w->arena, (size_t)(from->n_files + 1) * sizeof *to->files);
    good = to->overrides && to->models && to->files && copy_text(w, &to->name) &&
           copy_text(w, &to->toml) && copy_text(w, &to->base_dir);
    for (int64_t i = 0; good && i < from->n_overrides; i++) {
        to->overrides[i] = from->overrides[i];
        good = copy_text(w, &to->overrides[i]);
    }
    for (int64_t i = 0; good && i < from->n_models; i++) {
        to->models[i] = from->models[i];
        good = copy_text(w, &to->models[i].name) && copy_text(w, &to->models[i].path) &&
               copy_text(w, &to->models[i].digest) && copy_text(w, &to->models[i].family) &&
               copy_text(w, &to->models[i].tokenizer_digest) &&
               copy_text(w, &to->models[i].plan_json);
    }
    for (int64_t i = 0; good && i < from->n_files; i++) {
        to->files[i] = from->files[i];
        good = copy_text(w, &to->files[i].path) && copy_text(w, &to->files[i].sha256) &&
               copy_text(w, &to->files[i].split);
    }
    return good ? 0 : -ENOMEM;
}

/* ---- what belongs together ------------------------------------------------------------- */

static int parse(struct ha_grid_work *w, struct ha_error *err)
{
    struct ha_wire_submit *s = &w->submit;
    int r = ha_sweep_parse(s->toml, strlen(s->toml), "grid.toml", s->base_dir, s->overrides,
                           s->n_overrides, &w->sweep, err);

    if (r < 0 || s->limit_prompts <= 0 || s->limit_prompts >= w->sweep->data.eval_samples)
        return r;
    s->overrides[s->n_overrides++] =
        ha_scratch_format(&w->arena, "data.eval_samples=%" PRId64, s->limit_prompts);
    if (!s->overrides[s->n_overrides - 1])
        return no_memory(err);
    ha_sweep_destroy(w->sweep);
    w->sweep = NULL;
    return ha_sweep_parse(s->toml, strlen(s->toml), "grid.toml", s->base_dir, s->overrides,
                          s->n_overrides, &w->sweep, err);
}

static int match_models(struct ha_grid_work *w, struct ha_error *err)
{
    int64_t count = w->sweep->model_count;

    w->models = ha_arena_alloc(&w->arena, (size_t)(count + 1) * sizeof *w->models);
    w->digests = ha_arena_alloc(&w->arena, (size_t)(count + 1) * sizeof *w->digests);
    if (!w->models || !w->digests)
        return no_memory(err);
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < w->submit.n_models; j++) {
            if (strcmp(w->submit.models[j].name, w->sweep->models[i].name) == 0)
                w->models[i] = &w->submit.models[j];
        }
        if (!w->models[i])
            return ha_error_set(err, EINVAL, "model %s came without the digest of its files",
                                w->sweep->models[i].name);
    }
    return 0;
}

/* Digests of the files of one split, in order; their number must be the grid's. */
static const char **split_digests(struct ha_grid_work *w, const char *split, int64_t expected,
                                  struct ha_error *err)
{
    const char **digests = ha_arena_alloc(&w->arena, (size_t)(expected + 1) * sizeof *digests);
    int64_t count = 0;

    if (!digests) {
        no_memory(err);
        return NULL;
    }
    for (int64_t i = 0; i < w->submit.n_files; i++) {
        if (strcmp(w->submit.files[i].split, split) != 0)
            continue;
        if (count < expected)
            digests[count] = w->submit.files[i].sha256;
        count++;
    }
    if (count == expected)
        return digests;
    ha_error_set(err, EINVAL,
                 "the grid names %" PRId64 " files of split %s, %" PRId64 " came along", expected,
                 split, count);
    return NULL;
}

static int match_files(struct ha_grid_work *w, struct ha_error *err)
{
    const struct ha_sweep_data *data = &w->sweep->data;
    const char **train = split_digests(w, "train", data->train.count, err);
    const char **eval = train ? split_digests(w, "eval", data->eval.count, err) : NULL;
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    if (!eval)
        return -EINVAL;
    ha_sha256_init(&hash);
    for (int64_t i = 0; i < w->submit.n_files; i++) {
        ha_sha256_update(&hash, w->submit.files[i].split, strlen(w->submit.files[i].split) + 1);
        ha_sha256_update(&hash, w->submit.files[i].sha256, strlen(w->submit.files[i].sha256) + 1);
    }
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, w->data_sha256);
    for (int64_t i = 0; i < w->sweep->model_count; i++)
        w->digests[i] = (struct ha_stage_digests){.model = w->models[i]->digest,
                                                  .tokenizer = w->models[i]->tokenizer_digest,
                                                  .train = train,
                                                  .train_count = data->train.count,
                                                  .eval = eval,
                                                  .eval_count = data->eval.count};
    return 0;
}

static int expand(struct ha_grid_work *w, struct ha_error *err)
{
    int64_t *layers = ha_calloc(w->sweep->model_count, sizeof *layers);
    int r;

    if (!layers)
        return no_memory(err);
    for (int64_t i = 0; i < w->sweep->model_count; i++)
        layers[i] = w->models[i]->layers;
    r = ha_grid_begin(w->sweep, layers, &w->grid, err);
    free(layers);
    return r;
}

/* What the models' passes cost. */
static int read_costs(struct ha_grid_work *w, struct ha_error *err)
{
    w->costs = ha_arena_alloc(&w->arena, (size_t)(w->sweep->model_count + 1) * sizeof *w->costs);
    if (!w->costs)
        return no_memory(err);
    for (int64_t i = 0; i < w->sweep->model_count; i++) {
        const char *text = w->models[i]->plan_json;
        struct ha_json *plan = NULL;

        if (text[0] && ha_json_parse(text, strlen(text), "plan", &plan, err) < 0)
            return ha_error_prefix(err, "model %s", w->sweep->models[i].name);
        ha_fuse_model_read(plan, w->grid->layers[i], &w->costs[i]);
        ha_json_destroy(plan);
    }
    return 0;
}

/* The plans are left out: another version's numbers make no other grid. */
static int hash_submit(struct ha_grid_work *w, struct ha_error *err)
{
    struct ha_wire_message message = {
        .protocol = HA_WIRE_PROTOCOL, .kind = HA_WIRE_SUBMIT, .body.submit = w->submit};
    struct ha_wire_submit_model *models =
        ha_arena_alloc(&w->arena, (size_t)(w->submit.n_models + 1) * sizeof *models);

    if (!models)
        return no_memory(err);
    for (int64_t i = 0; i < w->submit.n_models; i++) {
        models[i] = w->submit.models[i];
        models[i].plan_json = "";
    }
    message.body.submit.models = models;
    message.body.submit.limit_prompts = 0; /* an override by now */
    return ha_server_once_hash(&message, w->submit_sha256, err);
}

int ha_grid_work_begin(const struct ha_wire_submit *submit, struct ha_grid_work **ret_work,
                       struct ha_error *err)
{
    struct ha_grid_work *w = ha_calloc(1, sizeof *w);
    int r;

    if (!w)
        return no_memory(err);
    w->owners = 1;
    ha_arena_init(&w->arena, WORK_BYTES);
    r = copy_submit(w, submit) < 0 ? no_memory(err) : parse(w, err);
    if (r == 0 && !w->submit.name[0])
        w->submit.name = w->sweep->general.name;
    if (r == 0)
        r = match_models(w, err);
    if (r == 0)
        r = match_files(w, err);
    if (r == 0)
        r = expand(w, err);
    if (r == 0)
        r = read_costs(w, err);
    if (r == 0)
        r = hash_submit(w, err);
    if (r < 0) {
        ha_grid_work_destroy(w);
        return r;
    }
    *ret_work = w;
    return 0;
}

int ha_grid_work_step(struct ha_grid_work *w, int64_t most, struct ha_error *err)
{
    return ha_grid_step(w->grid, most, err);
}

/* All cells of a grid that was begun, which is gone when that fails. */
static int complete(struct ha_grid_work *w, struct ha_grid_work **ret_work, struct ha_error *err)
{
    int r = ha_grid_work_step(w, INT64_MAX, err);

    if (r < 0) {
        ha_grid_work_destroy(w);
        return r;
    }
    *ret_work = w;
    return 0;
}

int ha_grid_work_create(const struct ha_wire_submit *submit, struct ha_grid_work **ret_work,
                        struct ha_error *err)
{
    struct ha_grid_work *w;
    int r = ha_grid_work_begin(submit, &w, err);

    return r < 0 ? r : complete(w, ret_work, err);
}

void ha_grid_work_destroy(struct ha_grid_work *w)
{
    if (!w || --w->owners > 0)
        return;
    ha_grid_destroy(w->grid);
    ha_sweep_destroy(w->sweep);
    ha_arena_clear(&w->arena);
    free(w);
}

struct ha_grid_work *ha_grid_work_share(struct ha_grid_work *w)
{
    w->owners++;
    return w;
}

/* ---- from the store -------------------------------------------------------------------- */

struct loader {
    struct ha_arena arena;
    struct ha_wire_submit submit;
    struct ha_json *overrides;
};

static int load_sweep(void *context, const struct ha_sweep_row *row)
{
    struct loader *l = context;

    l->submit.name = ha_scratch_text(&l->arena, row->name);
    l->submit.toml = ha_scratch_text(&l->arena, row->toml);
    l->submit.base_dir = ha_scratch_text(&l->arena, row->base_dir);
    if (!l->submit.name || !l->submit.toml || !l->submit.base_dir)
        return -ENOMEM;
    return ha_json_parse(row->overrides, strlen(row->overrides), "overrides", &l->overrides, NULL);
}

static int load_model(void *context, const struct ha_model_row *row)
{
    struct loader *l = context;
    struct ha_wire_submit_model *model =
        ha_scratch_grow(&l->arena, &l->submit.models, &l->submit.n_models, sizeof *model);

    if (!model)
        return -ENOMEM;
    model->name = ha_scratch_text(&l->arena, row->name);
    model->path = ha_scratch_text(&l->arena, row->path);
    model->digest = ha_scratch_text(&l->arena, row->digest);
    model->tokenizer_digest = ha_scratch_text(&l->arena, row->tokenizer_digest);
    model->family = ha_scratch_text(&l->arena, row->family);
    model->plan_json = ha_scratch_text(&l->arena, row->plan);
    model->layers = (uint32_t)row->layers;
    return 0;
}

static int load_file(void *context, const struct ha_file_row *row)
{
    struct loader *l = context;
    struct ha_wire_submit_file *file =
        ha_scratch_grow(&l->arena, &l->submit.files, &l->submit.n_files, sizeof *file);

    if (!file)
        return -ENOMEM;
    file->path = ha_scratch_text(&l->arena, row->path);
    file->sha256 = ha_scratch_text(&l->arena, row->sha256);
    file->split = ha_scratch_text(&l->arena, row->split);
    file->size = row->size;
    return 0;
}

static bool same_key(const char *a, const char *b)
{
    size_t length = strcspn(a, "=");

    return strcspn(b, "=") == length && memcmp(a, b, length) == 0;
}

/* An older override of a key that comes again is gone. */
static int load_overrides(struct loader *l, const char *const *more, int64_t count)
{
    for (int64_t i = 0; i < ha_json_size(l->overrides); i++) {
        const char *old = ha_json_string(ha_json_at(l->overrides, i), "");
        const char **place;
        int64_t k = 0;

        while (k < count && !same_key(more[k], old))
            k++;
        if (k < count)
            continue;
        place =
            ha_scratch_grow(&l->arena, &l->submit.overrides, &l->submit.n_overrides, sizeof *place);
        if (!place)
            return -ENOMEM;
        *place = old;
    }
    for (int64_t k = 0; k < count; k++) {
        const char **place =
            ha_scratch_grow(&l->arena, &l->submit.overrides, &l->submit.n_overrides, sizeof *place);

        if (!place)
            return -ENOMEM;
        *place = more[k];
    }
    return 0;
}

int ha_grid_work_load_begin(struct ha_store *store, int64_t sweep, const char *const *more,
                            int64_t count, struct ha_grid_work **ret_work, struct ha_error *err)
{
    struct loader l = {0};
    int r;

    ha_arena_init(&l.arena, WORK_BYTES);
    r = ha_store_sweep_each(store, sweep, NULL, load_sweep, &l, err);
    if (r == 0 && !l.overrides)
        r = ha_error_set(err, ENOENT, "sweep %" PRId64 " does not exist", sweep);
    if (r == 0)
        r = ha_store_model_each(store, sweep, load_model, &l, err);
    if (r == 0)
        r = ha_store_file_each(store, sweep, load_file, &l, err);
    if (r == 0)
        r = load_overrides(&l, more, count);
    if (r == -ENOMEM)
        r = no_memory(err);
    if (r == 0)
        r = ha_grid_work_begin(&l.submit, ret_work, err);
    ha_json_destroy(l.overrides);
    ha_arena_clear(&l.arena);
    return r;
}

int ha_grid_work_load(struct ha_store *store, int64_t sweep, const char *const *more, int64_t count,
                      struct ha_grid_work **ret_work, struct ha_error *err)
{
    struct ha_grid_work *w;
    int r = ha_grid_work_load_begin(store, sweep, more, count, &w, err);

    return r < 0 ? r : complete(w, ret_work, err);
}

/* ---- cells and judges ---------------------------------------------------------------------- */

static int reference_keys(const struct ha_grid_work *w, const struct ha_grid_cell *cell,
                          const struct ha_stage_digests *digests,
                          char text[HA_CELL_REFERENCE_BYTES], struct ha_error *err)
{
    char own[HA_SHA256_HEX_BYTES], any[HA_SHA256_HEX_BYTES];
    int r = ha_stage_key_reference(w->grid, cell, digests, own, err);

    if (r == 0)
        r = ha_stage_key_reference_any(w->grid, cell, digests, any, err);
    if (r == 0)
        (void)snprintf(text, HA_CELL_REFERENCE_BYTES, "%s %s %s", own, any, cell->train->reference);
    return r;
}

int ha_grid_work_keys(const struct ha_grid_work *w, int64_t index, struct ha_cell_keys *keys,
                      struct ha_error *err)
{
    const struct ha_grid_cell *cell = &w->grid->cells[index];
    const struct ha_stage_digests *digests = &w->digests[cell->model];
    int r = 0;

    keys->probe[0] = keys->train[0] = keys->reference[0] = keys->train_together[0] = '\0';
    if (cell->trains && w->sweep->probes)
        r = ha_stage_key_probe(w->grid, cell, digests, keys->probe, err);
    if (r == 0 && cell->trains)
        r = ha_stage_key_train(w->grid, cell, digests, keys->probe, keys->train, err);
    if (r == 0 && cell->trains)
        r = reference_keys(w, cell, digests, keys->reference, err);
    if (r == 0 && cell->trains)
        r = ha_stage_key_train_together(w->grid, cell, digests, keys->train_together, err);
    if (r == 0)
        r = ha_stage_key_generate_together(w->grid, cell, digests, keys->generate_together, err);
    if (r == 0)
        r = ha_stage_key_generate(w->grid, cell, digests, cell->trains ? keys->train : NULL,
                                  keys->generate, err);
    for (int64_t j = 0; r == 0 && j < w->sweep->judge_count; j++)
        r = ha_stage_key_judge(&w->sweep->judges[j], NULL, keys->generate, keys->judges[j], err);
    return r < 0 ? ha_error_prefix(err, "cell %s", cell->name) : 0;
}

struct ha_fuse_need ha_grid_work_need(const struct ha_grid_work *w, int64_t index, bool train)
{
    const struct ha_grid_cell *cell = &w->grid->cells[index];
    const struct ha_fuse_model *model = &w->costs[cell->model];
    /* Layers that a probe will choose may begin at the lowest. */
    int64_t lowest = cell->layers.count > 0 ? cell->layers.items[0] : 0;
    int64_t layers = cell->auto_layers > 0 ? cell->auto_layers : cell->layers.count;

    struct ha_fuse_need need =
        train ? ha_fuse_train_need(model, lowest, layers, cell->train->lora_rank)
              : ha_fuse_generate_need(model);
    const struct ha_sweep_data *data = &w->sweep->data;
    double times = train ? (double)data->train_samples * (double)cell->train->epochs
                         : (double)data->eval_samples * (double)cell->generate->samples;

    need.shared *= times;
    need.cost *= times;
    return need;
}

int ha_grid_work_cell(const struct ha_grid_work *w, int64_t index, char **ret_settings,
                      char **ret_layers, struct ha_error *err)
{
    const struct ha_grid_cell *cell = &w->grid->cells[index];
    struct ha_json *json = ha_grid_cell_json(w->grid, cell);
    char *settings = json ? ha_json_dump(json, HA_JSON_CANONICAL) : NULL;
    char *layers = ha_grid_cell_layers(cell);

    ha_json_destroy(json);
    if (!settings || !layers) {
        free(settings);
        free(layers);
        return no_memory(err);
    }
    *ret_settings = settings;
    *ret_layers = layers;
    return 0;
}

int ha_grid_work_judge(const struct ha_grid_work *w, int64_t judge, char **ret_settings,
                       struct ha_error *err)
{
    struct ha_json *json = ha_section_json(&ha_sweep_judge_section, &w->sweep->judges[judge], 0);
    char *settings = json ? ha_json_dump(json, HA_JSON_CANONICAL) : NULL;

    ha_json_destroy(json);
    if (!settings)
        return no_memory(err);
    *ret_settings = settings;
    return 0;
}

const char *ha_grid_work_label(const struct ha_grid_work *w)
{
    for (int64_t i = 0; i < w->sweep->judge_count; i++) {
        if (strcmp(w->sweep->judges[i].provider, "ha-evaluator") == 0)
            return "scores are text statistics (ha-evaluator), not a language model's judgement";
    }
    return "";
}
