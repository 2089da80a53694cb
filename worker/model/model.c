#include "worker/model/model.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/model/shards.h"

struct ha_model {
    struct ha_backend *backend;
    struct ha_model_config config;
    struct ha_weight_files *files; /* NULL: the weights are the caller's */
    const struct ha_weights *weights;
    struct ha_weights none; /* what weights are before they are loaded */
    float *cos_sin;         /* device (n_positions, D) */
    int64_t n_positions;
};

int ha_model_create(struct ha_backend *backend, const struct ha_model_config *config,
                    const struct ha_weights *weights, struct ha_model **ret_model,
                    struct ha_error *err)
{
    struct ha_model *model = ha_calloc(1, sizeof(*model));

    if (!model)
        return ha_error_set(err, ENOMEM, "no memory for a model");
    model->backend = backend;
    model->config = *config;
    model->weights = weights;
    *ret_model = model;
    return 0;
}

int ha_model_prepare(struct ha_backend *backend, const char *dir, struct ha_model **ret_model,
                     struct ha_error *err)
{
    struct ha_model_config config;
    int r = ha_model_config_load(dir, &config, err);

    if (r == 0)
        r = ha_model_create(backend, &config, NULL, ret_model, err);
    if (r < 0)
        return r;
    (*ret_model)->none.lora_columns = ha_weights_lora_columns(ha_backend_copies_weights(backend));
    (*ret_model)->weights = &(*ret_model)->none;
    return 0;
}

int ha_model_load(struct ha_model *model, const char *dir, const struct ha_model_shard *shard,
                  struct ha_error *err)
{
    int r =
        ha_weight_files_open_shard(model->backend, &model->config, dir, shard, &model->files, err);

    if (r == 0)
        model->weights = ha_weight_files_weights(model->files);
    return r;
}

int ha_model_open(struct ha_backend *backend, const char *dir, struct ha_model **ret_model,
                  struct ha_error *err)
{
    struct ha_model *model;
    int r = ha_model_prepare(backend, dir, &model, err);

    if (r < 0)
        return r;
    r = ha_model_load(model, dir, NULL, err);
    if (r < 0) {
        ha_model_destroy(model);
        return r;
    }
    *ret_model = model;
    return 0;
}

void ha_model_rest(struct ha_model *model)
{
    if (model->cos_sin)
        ha_backend_free(model->backend, model->cos_sin);
    model->cos_sin = NULL;
    model->n_positions = 0;
}

struct ha_shards *ha_model_shards(const struct ha_model *model)
{
    return model->files ? ha_weight_files_shards(model->files) : NULL;
}

void ha_model_join(struct ha_model *model, struct ha_comm *comm)
{
    if (ha_model_shards(model))
        ha_shards_join(ha_model_shards(model), comm);
}

int ha_model_idle(struct ha_model *model, struct ha_error *err)
{
    return ha_shards_idle(ha_model_shards(model), err);
}

int ha_model_ranks(const struct ha_model *model)
{
    const struct ha_shards *shards = ha_model_shards(model);

    return shards ? ha_shards_layout(shards)->ranks : 1;
}

int64_t ha_model_gathered_bytes(const struct ha_model *model)
{
    return ha_shards_gathered_bytes(ha_model_shards(model));
}

void ha_model_destroy(struct ha_model *model)
{
    if (!model)
        return;
    ha_model_rest(model);
    ha_weight_files_close(model->files);
    free(model);
}

struct ha_backend *ha_model_backend(const struct ha_model *model)
{
    return model->backend;
}

const struct ha_model_config *ha_model_config(const struct ha_model *model)
{
    return &model->config;
}

const struct ha_weights *ha_model_weights(const struct ha_model *model)
{
    return model->weights;
}

/* Rows of D/2 cosines, then D/2 sines; the angle is rounded to f32 before its
 * cosine is taken, as Transformers does. */
static void fill_table(const struct ha_model_config *config, const float *frequencies, float *table,
                       int64_t n_positions)
{
    int64_t half = config->head_dim / 2;

    for (int64_t position = 0; position < n_positions; position++) {
        float *row = table + position * config->head_dim;

        for (int64_t i = 0; i < half; i++) {
            double angle = (double)((float)position * frequencies[i]);

            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
    }
}

static int make_table(struct ha_model *model, int64_t n_positions, struct ha_error *err)
{
    const struct ha_model_config *config = &model->config;
    size_t bytes = (size_t)n_positions * (size_t)config->head_dim * sizeof(float);
    float *frequencies = ha_calloc(config->head_dim / 2, sizeof(float));
    float *table = ha_calloc(n_positions, (size_t)config->head_dim * sizeof(float));
    void *memory = NULL;
    int r;

    if (!frequencies || !table) {
        r = ha_error_set(err, ENOMEM, "no memory for the positions of %lld tokens",
                         (long long)n_positions);
        goto out;
    }
    ha_model_config_inverse_frequencies(config, frequencies);
    fill_table(config, frequencies, table, n_positions);
    /* There is never room for two. */
    ha_backend_free(model->backend, model->cos_sin);
    model->cos_sin = NULL;
    model->n_positions = 0;
    r = ha_backend_alloc(model->backend, bytes, &memory, err);
    if (r < 0)
        goto out;
    r = ha_backend_upload(model->backend, memory, table, bytes, err);
    if (r < 0) {
        ha_backend_free(model->backend, memory);
        goto out;
    }
    model->cos_sin = memory;
    model->n_positions = n_positions;
out:
    free(table);
    free(frequencies);
    return r;
}

int ha_model_rope_table(struct ha_model *model, int64_t n_positions, const float **ret_cos_sin,
                        struct ha_error *err)
{
    int r = 0;

    if (n_positions < 1 || n_positions > INT32_MAX)
        return ha_error_set(err, EINVAL, "%lld positions are out of range", (long long)n_positions);
    if (n_positions > model->n_positions)
        r = make_table(model, n_positions, err);
    if (r == 0)
        *ret_cos_sin = model->cos_sin;
    return r;
}
