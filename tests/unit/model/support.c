#include "tests/unit/model/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/half.h"
#include "common/base/memory.h"

const char *const golden_families[4] = {"llama-2-demo", "llama-3.1-demo", "qwen2.5-demo",
                                        "qwen3-demo"};

/* splitmix64 */
static uint64_t next(struct random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

float random_uniform(struct random *random)
{
    return (float)(next(random) >> 40) * 0x1p-23f - 1.0f;
}

int64_t random_below(struct random *random, int64_t n)
{
    return (int64_t)(next(random) % (uint64_t)n);
}

static struct ha_backend *open_named(const char *name, int threads)
{
    struct ha_backend_options options = {.name = name, .threads = threads};
    struct ha_backend *backend = NULL;

    assert_ok(ha_backend_open(&options, &backend, &err));
    return backend;
}

struct ha_backend *open_cpu(int threads)
{
    return open_named("cpu", threads);
}

struct ha_backend *open_backend(int threads)
{
    const char *name = getenv("HA_KERNEL_TEST_BACKEND");

    return open_named(name ? name : "cpu", threads);
}

bool is_cpu(const struct ha_backend *backend)
{
    return strcmp(ha_backend_name(backend), "cpu") == 0;
}

void *to_host(struct ha_backend *backend, const void *memory, size_t bytes)
{
    void *host = ha_calloc((int64_t)bytes, 1);

    assert_non_null(host);
    assert_ok(ha_backend_download(backend, host, memory, bytes, &err));
    assert_ok(ha_backend_sync(backend, &err));
    return host;
}

struct ha_model_config small_config(enum ha_model_family family)
{
    struct ha_model_config config = {
        .family = family,
        .n_layers = 4,
        .width = 24,
        .inner = 40,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = family == HA_FAMILY_QWEN3 ? 10 : 6,
        .vocab = 53,
        .max_position = 512,
        .rms_eps = 1e-5f,
        .rope = {.theta = 10000.0},
        .qkv_bias = family == HA_FAMILY_QWEN2,
        .qk_norm = family == HA_FAMILY_QWEN3,
    };

    if (family == HA_FAMILY_LLAMA)
        config.rope = (struct ha_rope){.theta = 10000.0,
                                       .llama3 = true,
                                       .factor = 4,
                                       .low_freq_factor = 1,
                                       .high_freq_factor = 4,
                                       .original_max_position = 64};
    return config;
}

/* Gives out random tensors from one block; base NULL: only counts. */
struct filler {
    char *base;
    size_t used;
    enum ha_dtype dtype;     /* as stored */
    enum ha_dtype precision; /* values are rounded to it first */
    struct random random;
};

static void put(const struct filler *filler, void *data, int64_t i, float value)
{
    if (filler->precision == HA_DTYPE_BF16)
        value = ha_half_from_bf16(ha_half_to_bf16(value));
    else if (filler->precision == HA_DTYPE_F16)
        value = ha_half_from_f16(ha_half_to_f16(value));
    if (filler->dtype == HA_DTYPE_F32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] =
            filler->dtype == HA_DTYPE_BF16 ? ha_half_to_bf16(value) : ha_half_to_f16(value);
}

static struct ha_matrix fill(struct filler *filler, int64_t rows, int64_t cols, float mean,
                             float scale)
{
    struct ha_matrix matrix = {.dtype = filler->dtype, .rows = rows, .cols = cols, .stride = cols};
    size_t bytes = (size_t)(rows * cols) * ha_dtype_bytes(filler->dtype);

    if (filler->base) {
        matrix.data = filler->base + filler->used;
        for (int64_t i = 0; i < rows * cols; i++)
            put(filler, matrix.data, i, mean + scale * random_uniform(&filler->random));
    }
    filler->used += (bytes + 63) / 64 * 64;
    return matrix;
}

static void fill_weights(struct filler *filler, const struct ha_model_config *config,
                         struct ha_weights *weights)
{
    struct ha_adapter_geometry geometry;

    ha_model_config_geometry(config, &geometry);
    weights->embedding = fill(filler, config->vocab, config->width, 0, 1.0f);
    for (int64_t i = 0; i < config->n_layers; i++) {
        struct ha_layer_weights *layer = &weights->layers[i];

        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            layer->linear[module] = fill(filler, geometry.out[module], geometry.in[module], 0,
                                         1.7f / sqrtf((float)geometry.in[module]));
            if (config->qkv_bias && module <= HA_MODULE_V)
                layer->bias[module] = fill(filler, 1, geometry.out[module], 0, 0.3f);
            if (config->o_bias && module == HA_MODULE_O)
                layer->bias[module] = fill(filler, 1, geometry.out[module], 0, 0.3f);
        }
        layer->input_norm = fill(filler, 1, config->width, 1.0f, 0.2f);
        layer->post_norm = fill(filler, 1, config->width, 1.0f, 0.2f);
        if (config->qk_norm) {
            layer->q_norm = fill(filler, 1, config->head_dim, 1.0f, 0.2f);
            layer->k_norm = fill(filler, 1, config->head_dim, 1.0f, 0.2f);
        }
    }
    weights->final_norm = fill(filler, 1, config->width, 1.0f, 0.2f);
    weights->head = config->tied ? weights->embedding
                                 : fill(filler, config->vocab, config->width, 0,
                                        4.0f / sqrtf((float)config->width));
}

static void import(struct small_model *small, struct ha_matrix *matrix)
{
    const void *memory = NULL;

    if (!matrix->data)
        return;
    assert_ok(ha_backend_import_weight(small->backend, matrix->data, matrix->dtype,
                                       matrix->rows * matrix->cols, &memory, &matrix->dtype, &err));
    matrix->data = (void *)(uintptr_t)memory;
    small->imported[small->n_imported++] = memory;
}

static void import_weights(struct small_model *small)
{
    enum { MOST_OF_LAYER = 2 * HA_MODULE_COUNT + 4 };
    struct ha_weights *weights = &small->weights;

    small->imported =
        ha_calloc(small->config.n_layers * MOST_OF_LAYER + 3, sizeof(*small->imported));
    assert_non_null(small->imported);
    import(small, &weights->embedding);
    import(small, &weights->final_norm);
    for (int64_t i = 0; i < small->config.n_layers; i++) {
        struct ha_layer_weights *layer = &weights->layers[i];

        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            import(small, &layer->linear[module]);
            import(small, &layer->bias[module]);
        }
        import(small, &layer->input_norm);
        import(small, &layer->post_norm);
        import(small, &layer->q_norm);
        import(small, &layer->k_norm);
    }
    if (small->config.tied)
        weights->head = weights->embedding;
    else
        import(small, &weights->head);
}

void small_model_open(struct small_model *small, struct ha_backend *backend,
                      const struct ha_model_config *config, enum ha_dtype dtype, uint64_t seed)
{
    small_model_open_rounded(small, backend, config, dtype, dtype, seed);
}

void small_model_open_rounded(struct small_model *small, struct ha_backend *backend,
                              const struct ha_model_config *config, enum ha_dtype dtype,
                              enum ha_dtype precision, uint64_t seed)
{
    struct filler filler = {.dtype = dtype, .precision = precision, .random = {seed}};

    memset(small, 0, sizeof(*small));
    small->backend = backend;
    small->config = *config;
    small->weights.layers = ha_calloc(config->n_layers, sizeof(*small->weights.layers));
    assert_non_null(small->weights.layers);
    fill_weights(&filler, config, &small->weights);
    small->memory = ha_calloc_aligned((int64_t)filler.used, 1);
    assert_non_null(small->memory);
    filler = (struct filler){
        .base = small->memory, .dtype = dtype, .precision = precision, .random = {seed}};
    fill_weights(&filler, config, &small->weights);
    small->weights.bytes = (int64_t)filler.used;
    import_weights(small);
    assert_ok(ha_model_create(backend, config, &small->weights, &small->model, &err));
}

/* Matrices or vectors in one, each row with columns behind it; they become views of it. */
static struct ha_matrix join_matrices(struct small_model *small, struct ha_matrix *parts, int n,
                                      int64_t columns)
{
    struct ha_matrix joined = parts[0];
    bool vector = joined.rows == 1;
    size_t used = 0;

    if (!joined.data)
        return joined;
    for (int i = 1; i < n; i++) {
        joined.rows += vector ? 0 : parts[i].rows;
        joined.cols += vector ? parts[i].cols : 0;
    }
    joined.stride = joined.cols + columns;
    assert_ok(ha_backend_alloc(small->backend, (size_t)(joined.rows * joined.stride) * 2,
                               &joined.data, &err));
    small->joined[small->n_joined++] = joined.data;
    for (int i = 0; i < n; i++) {
        void *to = (char *)joined.data + used;

        assert_ok(ha_backend_copy_rows(small->backend, to, (size_t)joined.stride * 2, parts[i].data,
                                       (size_t)parts[i].cols * 2, (size_t)parts[i].cols * 2,
                                       parts[i].rows, &err));
        for (int64_t k = 0; k < small->n_imported; k++)
            if (small->imported[k] == parts[i].data) {
                ha_backend_release_host(small->backend, small->imported[k]);
                small->imported[k] = NULL;
            }
        parts[i].data = to;
        parts[i].stride = vector ? parts[i].cols : joined.stride;
        used += (size_t)(parts[i].rows * parts[i].stride) * 2;
    }
    return joined;
}

void small_model_join(struct small_model *small, int64_t lora_columns)
{
    enum { OF_LAYER = 4 };

    if (!ha_backend_copies_weights(small->backend))
        return;
    small->joined = ha_calloc(small->config.n_layers * OF_LAYER, sizeof(*small->joined));
    assert_non_null(small->joined);
    for (int64_t i = 0; i < small->config.n_layers; i++) {
        struct ha_layer_weights *layer = &small->weights.layers[i];

        layer->qkv = join_matrices(small, &layer->linear[HA_MODULE_Q], 3, lora_columns);
        layer->qkv_bias = join_matrices(small, &layer->bias[HA_MODULE_Q], 3, 0);
        (void)join_matrices(small, &layer->linear[HA_MODULE_O], 1, lora_columns);
        layer->gate_up = join_matrices(small, &layer->linear[HA_MODULE_GATE], 2, 0);
    }
    small->weights.lora_columns = lora_columns;
}

void small_model_close(struct small_model *small)
{
    ha_model_destroy(small->model);
    for (int64_t i = 0; i < small->n_joined; i++)
        ha_backend_free(small->backend, small->joined[i]);
    free(small->joined);
    for (int64_t i = 0; i < small->n_imported; i++)
        ha_backend_release_host(small->backend, small->imported[i]);
    free(small->imported);
    free(small->weights.layers);
    free(small->memory);
}

struct ha_adapter *random_adapter(struct ha_backend *backend, const struct ha_model_config *config,
                                  int64_t first, int64_t last, uint32_t modules, int64_t rank,
                                  float b_scale, uint64_t seed)
{
    struct ha_adapter_geometry geometry;
    struct ha_adapter *adapter = NULL;
    struct random random = {seed};
    int64_t layers[HA_ADAPTER_MAX_LAYERS];
    struct ha_adapter_settings settings = {.rank = rank,
                                           .alpha = 2.0 * (double)rank,
                                           .modules = modules,
                                           .layers = layers,
                                           .n_layers = last - first + 1};
    float *params;

    for (int64_t i = first; i <= last; i++)
        layers[i - first] = i;
    ha_model_config_geometry(config, &geometry);
    assert_ok(ha_adapter_create(backend, &geometry, &settings, &adapter, &err));
    params = ha_calloc(ha_adapter_n_params(adapter), sizeof(float));
    assert_non_null(params);
    for (int64_t i = first; i <= last; i++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const struct ha_lora *lora = ha_adapter_lora(adapter, i, (enum ha_module)module);

            if (!lora->a.data)
                continue;
            for (int64_t j = 0; j < rank * lora->a.cols; j++)
                params[lora->a_offset + j] = random_uniform(&random) / sqrtf((float)lora->a.cols);
            for (int64_t j = 0; j < lora->b.rows * rank; j++)
                params[lora->b_offset + j] = b_scale * random_uniform(&random);
        }
    }
    assert_ok(ha_backend_upload(backend, ha_adapter_params(adapter), params,
                                (size_t)ha_adapter_n_params(adapter) * sizeof(float), &err));
    free(params);
    return adapter;
}

struct ha_pack_pair *random_pairs(int64_t n, int64_t vocab, uint64_t seed, int32_t **ret_ids)
{
    enum { MAX_PROMPT = 12, MAX_ANSWER = 9 };
    struct random random = {seed};
    struct ha_pack_pair *pairs = ha_calloc(n, sizeof(*pairs));
    int32_t *ids = ha_calloc(n * (MAX_PROMPT + 2 * MAX_ANSWER), sizeof(*ids)), *at = ids;

    assert_non_null(pairs);
    assert_non_null(ids);
    for (int64_t i = 0; i < n; i++) {
        struct ha_pack_pair *pair = &pairs[i];

        pair->n_prompt = 1 + random_below(&random, MAX_PROMPT);
        pair->n_chosen = i % 5 == 3 ? 0 : 1 + random_below(&random, MAX_ANSWER);
        pair->n_rejected = i % 7 == 5 ? 0 : 1 + random_below(&random, MAX_ANSWER);
        pair->prompt = at;
        pair->chosen = at + pair->n_prompt;
        pair->rejected = pair->chosen + pair->n_chosen;
        for (int64_t j = 0; j < pair->n_prompt + pair->n_chosen + pair->n_rejected; j++)
            *at++ = (int32_t)random_below(&random, vocab);
    }
    *ret_ids = ids;
    return pairs;
}

double relative_gap(const float *a, const float *b, int64_t n)
{
    double gap = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        gap += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return gap == 0 ? 0 : sqrt(gap / norm);
}

/* ---- golden files ---- */

static const char *join(const char *root, const char *family, const char *name)
{
    static char paths[2][4096];
    static int turn;
    char *path = paths[turn++ & 1];

    snprintf(path, sizeof(paths[0]), "%s/%s%s%s", root, family, name ? "/" : "", name ? name : "");
    return path;
}

const char *golden_path(const char *family, const char *name)
{
    const char *root = getenv("HA_GOLDEN_DIR");

    return join(root ? root : HA_SOURCE_DIR "/tests/golden", family, name);
}

const char *demo_model_path(const char *family)
{
    return join(HA_SOURCE_DIR "/deploy/demo/models", family, NULL);
}

struct ha_json *golden_json(const char *family, const char *name)
{
    struct ha_json *json = NULL;

    assert_ok(ha_json_load(golden_path(family, name), 64 << 20, &json, &err));
    return json;
}

struct ha_safetensors *golden_tensors(const char *family, const char *name)
{
    struct ha_safetensors *file = NULL;

    assert_ok(ha_safetensors_open(golden_path(family, name), &file, &err));
    return file;
}

int32_t *json_ids(const struct ha_json *array, int64_t *ret_n)
{
    int64_t n = ha_json_size(array);
    int32_t *ids = ha_calloc(n, sizeof(*ids));

    assert_non_null(ids);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)ha_json_int(ha_json_at(array, i), -1);
    *ret_n = n;
    return ids;
}
