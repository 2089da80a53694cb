#include "worker/model/merge.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/half.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/io/safetensors.h"
#include "worker/adapter/adapter.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"

#define CONFIG_FILE "config.json"

enum { BLOCK_ROWS = 256, NAME_BYTES = 128 };

/* What a model directory has beside its weights; each is copied if it is there. */
static const char *const companions[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    HA_WEIGHT_INDEX_FILE,
};

struct merge {
    struct ha_backend *backend;
    const struct ha_adapter *adapter;
    const struct ha_safetensors *file;
    void *product; /* device f32 (BLOCK_ROWS, in) of the tensor being made */
    float *delta;  /* its copy on the host */
    uint8_t *made; /* the tensor being made */
};

/* The adapted layer whose weight has this name, or NULL. */
static const struct ha_lora *find_lora(const struct ha_adapter *adapter, const char *name)
{
    const struct ha_adapter_settings *settings = ha_adapter_settings(adapter);

    for (int64_t i = 0; i < settings->n_layers; i++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const struct ha_lora *lora =
                ha_adapter_lora(adapter, settings->layers[i], (enum ha_module)module);
            char adapted[NAME_BYTES];

            snprintf(adapted, sizeof(adapted), "model.layers.%lld.%s.weight",
                     (long long)settings->layers[i], ha_module_path((enum ha_module)module));
            if (lora->a.data && strcmp(name, adapted) == 0)
                return lora;
        }
    }
    return NULL;
}

/* One weight, wherever it lies: the file's tensors may be unaligned. */
static float load(const uint8_t *data, enum ha_safetensors_dtype dtype, int64_t i)
{
    uint16_t half;
    float value;

    if (dtype == HA_SAFETENSORS_F32) {
        memcpy(&value, data + i * 4, sizeof(value));
        return value;
    }
    memcpy(&half, data + i * 2, sizeof(half));
    return dtype == HA_SAFETENSORS_F16 ? ha_half_from_f16(half) : ha_half_from_bf16(half);
}

/* Returns what the stored value is. */
static float store(uint8_t *data, enum ha_safetensors_dtype dtype, int64_t i, float value)
{
    bool f16 = dtype == HA_SAFETENSORS_F16;
    uint16_t half;

    if (dtype == HA_SAFETENSORS_F32) {
        memcpy(data + i * 4, &value, sizeof(value));
        return value;
    }
    half = f16 ? ha_half_to_f16(value) : ha_half_to_bf16(value);
    memcpy(data + i * 2, &half, sizeof(half));
    return f16 ? ha_half_from_f16(half) : ha_half_from_bf16(half);
}

static int add_block(struct merge *merge, const struct ha_lora *lora,
                     const struct ha_safetensors_tensor *tensor, int64_t row, struct ha_error *err)
{
    int64_t rows = lora->b.rows - row, cols = lora->a.cols;
    struct ha_matrix b = lora->b, delta;
    int r;

    rows = rows > BLOCK_ROWS ? BLOCK_ROWS : rows;
    b.data = (float *)lora->b.data + row * b.stride;
    b.rows = rows;
    delta = (struct ha_matrix){
        .data = merge->product, .dtype = HA_DTYPE_F32, .rows = rows, .cols = cols, .stride = cols};
    r = ha_backend_ops(merge->backend)
            ->gemm(merge->backend, &delta, &b, false, &lora->a, false,
                   ha_adapter_scale(merge->adapter), 0.0f, err);
    if (r == 0)
        r = ha_backend_download(merge->backend, merge->delta, merge->product,
                                (size_t)(rows * cols) * sizeof(float), err);
    if (r == 0)
        r = ha_backend_sync(merge->backend, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t at = row * cols + i;
        float sum = load(tensor->data, tensor->dtype, at) + merge->delta[i];

        if (!isfinite(store(merge->made, tensor->dtype, at, sum)))
            return ha_error_set(err, ERANGE, "%s: element [%lld, %lld] would be %g, which %s lacks",
                                tensor->name, (long long)(row + i / cols), (long long)(i % cols),
                                (double)sum, ha_safetensors_dtype_name(tensor->dtype));
    }
    return 0;
}

static void forget_tensor(struct merge *merge)
{
    free(merge->made);
    free(merge->delta);
    ha_backend_free(merge->backend, merge->product);
    merge->made = NULL;
    merge->delta = NULL;
    merge->product = NULL;
}

/* Of the writer: the bytes of one tensor. */
static int make_tensor(void *user, const struct ha_safetensors_item *item, const void **ret_data,
                       struct ha_error *err)
{
    struct merge *merge = user;
    const struct ha_safetensors_tensor *tensor = ha_safetensors_find(merge->file, item->name);
    const struct ha_lora *lora = find_lora(merge->adapter, item->name);
    size_t row_bytes;
    int r;

    if (!lora) {
        *ret_data = tensor->data;
        return 0;
    }
    row_bytes = (size_t)lora->a.cols * sizeof(float);
    forget_tensor(merge);
    merge->made = ha_calloc((int64_t)tensor->bytes, 1);
    merge->delta = ha_calloc(BLOCK_ROWS, row_bytes);
    if (!merge->made || !merge->delta)
        return ha_error_set(err, ENOMEM, "no memory to merge %s", item->name);
    r = ha_backend_alloc(merge->backend, BLOCK_ROWS * row_bytes, &merge->product, err);
    for (int64_t row = 0; r == 0 && row < lora->b.rows; row += BLOCK_ROWS)
        r = add_block(merge, lora, tensor, row, err);
    *ret_data = merge->made;
    return r;
}

static int write_file(struct merge *merge, const char *out_dir, const char *name,
                      struct ha_error *err)
{
    static const struct ha_safetensors_pair metadata = {"format", "pt"};
    int64_t n = ha_safetensors_count(merge->file);
    struct ha_safetensors_item *items = ha_calloc(n, sizeof(*items));
    char *path = ha_path_join(out_dir, name);
    int r;

    if (!items || !path) {
        r = ha_error_set(err, ENOMEM, "no memory to write %s", name);
        goto out;
    }
    for (int64_t i = 0; i < n; i++) {
        const struct ha_safetensors_tensor *tensor = ha_safetensors_at(merge->file, i);

        items[i] = (struct ha_safetensors_item){
            .name = tensor->name, .dtype = tensor->dtype, .rank = tensor->rank};
        memcpy(items[i].shape, tensor->shape, sizeof(items[i].shape));
    }
    r = ha_safetensors_write_from(path, items, n, &metadata, 1, make_tensor, merge, err);
out:
    free(path);
    free(items);
    return r;
}

static int copy_file(const char *from_dir, const char *to_dir, const char *name,
                     struct ha_error *err)
{
    char *from = ha_path_join(from_dir, name), *to = ha_path_join(to_dir, name);
    int r = 0;

    if (!from || !to)
        r = ha_error_set(err, ENOMEM, "no memory to copy %s", name);
    else if (ha_path_exists(from))
        r = ha_file_copy(from, to, 0644, err);
    free(to);
    free(from);
    return r;
}

static int check_out(const char *out_dir, struct ha_error *err)
{
    char *path = ha_path_join(out_dir, CONFIG_FILE);
    int r = 0;

    if (!path)
        return ha_error_set(err, ENOMEM, "no memory to merge");
    if (ha_path_exists(path))
        r = ha_error_set(err, EEXIST, "%s: there is a model already; give another --out", path);
    free(path);
    return r < 0 ? r : ha_path_make_dirs(out_dir, 0777, err);
}

static int write_files(struct merge *merge, const struct ha_weight_files *files,
                       const char *model_dir, const char *out_dir, struct ha_error *err)
{
    int r = check_out(out_dir, err);

    for (int64_t i = 0; r == 0 && i < ha_weight_files_count(files); i++) {
        merge->file = ha_weight_files_at(files, i);
        r = write_file(merge, out_dir, ha_weight_files_name(files, i), err);
    }
    for (size_t i = 0; r == 0 && i < sizeof(companions) / sizeof(companions[0]); i++) {
        bool single = strcmp(ha_weight_files_name(files, 0), "model.safetensors") == 0;

        /* A single file wins over an index that lies beside it. */
        if (!single || strcmp(companions[i], HA_WEIGHT_INDEX_FILE) != 0)
            r = copy_file(model_dir, out_dir, companions[i], err);
    }
    return r < 0 ? r : copy_file(model_dir, out_dir, CONFIG_FILE, err);
}

int ha_model_merge(struct ha_backend *backend, const char *model_dir, const char *adapter_dir,
                   const char *out_dir, struct ha_error *err)
{
    struct merge merge = {.backend = backend};
    struct ha_weight_files *files = NULL;
    struct ha_adapter *adapter = NULL;
    struct ha_adapter_geometry geometry;
    struct ha_model_config config;
    int r = ha_model_config_load(model_dir, &config, err);

    if (r < 0)
        return r;
    ha_model_config_geometry(&config, &geometry);
    r = ha_weight_files_open(backend, &config, model_dir, &files, err);
    if (r == 0)
        r = ha_adapter_load(backend, &geometry, adapter_dir, &adapter, err);
    merge.adapter = adapter;
    if (r == 0)
        r = write_files(&merge, files, model_dir, out_dir, err);
    forget_tensor(&merge);
    ha_adapter_destroy(adapter);
    ha_weight_files_close(files);
    return r;
}
