/* The two files of a PEFT 0.20 LoRA adapter.
 *
 * Tensor names are "base_model.model." + the module's name in Transformers +
 * ".lora_A.weight" (rank, in) or ".lora_B.weight" (out, rank).  PEFT loads
 * non-strictly: a name it does not know leaves the adapter without effect and
 * says so only in a warning.  This reader is strict in both directions. */
#include "worker/adapter/adapter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/half.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "common/io/safetensors.h"

#define CONFIG_FILE "adapter_config.json"
#define TENSOR_FILE "adapter_model.safetensors"

enum { CONFIG_LIMIT_BYTES = 16 << 20, NAME_BYTES = 128 };

static void tensor_name(char name[NAME_BYTES], int64_t layer, enum ha_module module, char side)
{
    snprintf(name, NAME_BYTES, "base_model.model.model.layers.%lld.%s.lora_%c.weight",
             (long long)layer, ha_module_path(module), side);
}

/* ---- writing ---- */

/* The keys that PEFT 0.20 writes and that are neither settings nor defaults of
 * ours, in its order (sorted). */
static int set_config(struct ha_json *config, const struct ha_adapter *adapter,
                      const char *base_model)
{
    const struct ha_adapter_settings *settings = ha_adapter_settings(adapter);
    struct ha_json *layers = ha_json_new_array(), *targets = ha_json_new_array();
    double alpha = settings->alpha;
    int r = 0;

    for (int64_t i = 0; i < settings->n_layers; i++)
        r |= ha_json_append(layers, ha_json_new_int(settings->layers[i]));
    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        if (settings->modules & 1u << module)
            r |=
                ha_json_append(targets, ha_json_new_string(ha_module_name((enum ha_module)module)));
    }
    r |= ha_json_set(config, "alpha_pattern", ha_json_new_object());
    r |= ha_json_set(config, "auto_mapping", ha_json_new_null());
    r |= ha_json_set(config, "base_model_name_or_path",
                     base_model ? ha_json_new_string(base_model) : ha_json_new_null());
    r |= ha_json_set(config, "bias", ha_json_new_string("none"));
    r |= ha_json_set(config, "fan_in_fan_out", ha_json_new_bool(false));
    r |= ha_json_set(config, "inference_mode", ha_json_new_bool(true));
    r |= ha_json_set(config, "init_lora_weights", ha_json_new_bool(true));
    r |= ha_json_set(config, "layers_pattern", ha_json_new_null());
    r |= ha_json_set(config, "layers_to_transform", layers);
    r |= ha_json_set(config, "lora_alpha",
                     alpha == (double)(int64_t)alpha ? ha_json_new_int((int64_t)alpha)
                                                     : ha_json_new_real(alpha));
    r |= ha_json_set(config, "lora_dropout", ha_json_new_real(settings->dropout));
    r |= ha_json_set(config, "modules_to_save", ha_json_new_null());
    r |= ha_json_set(config, "peft_type", ha_json_new_string("LORA"));
    r |= ha_json_set(config, "r", ha_json_new_int(settings->rank));
    r |= ha_json_set(config, "rank_pattern", ha_json_new_object());
    r |= ha_json_set(config, "revision", ha_json_new_null());
    r |= ha_json_set(config, "target_modules", targets);
    r |= ha_json_set(config, "task_type", ha_json_new_string("CAUSAL_LM"));
    r |= ha_json_set(config, "use_dora", ha_json_new_bool(false));
    r |= ha_json_set(config, "use_rslora", ha_json_new_bool(settings->rslora));
    return r == 0 ? 0 : -ENOMEM;
}

static int save_config(const struct ha_adapter *adapter, const char *dir, const char *base_model,
                       struct ha_error *err)
{
    struct ha_json *config = ha_json_new_object();
    char *path = ha_path_join(dir, CONFIG_FILE), *text = NULL;
    int r;

    if (config && set_config(config, adapter, base_model) == 0)
        text = ha_json_dump(config, HA_JSON_PRETTY);
    if (!path || !text)
        r = ha_error_set(err, ENOMEM, "no memory for %s", CONFIG_FILE);
    else
        r = ha_file_write(path, text, strlen(text), 0644, err);
    free(text);
    free(path);
    ha_json_destroy(config);
    return r;
}

static int save_tensors(const struct ha_adapter *adapter, const char *dir, const float *params,
                        struct ha_error *err)
{
    static const struct ha_safetensors_pair metadata = {"format", "pt"};
    const struct ha_adapter_settings *settings = ha_adapter_settings(adapter);
    int64_t capacity = settings->n_layers * HA_MODULE_COUNT * 2, n = 0;
    struct ha_safetensors_item *items = ha_calloc(capacity, sizeof(*items));
    char(*names)[NAME_BYTES] = ha_calloc(capacity, NAME_BYTES);
    char *path = ha_path_join(dir, TENSOR_FILE);
    int r;

    if (!items || !names || !path) {
        r = ha_error_set(err, ENOMEM, "no memory to write %s", TENSOR_FILE);
        goto out;
    }
    for (int64_t i = 0; i < settings->n_layers; i++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const struct ha_lora *lora =
                ha_adapter_lora(adapter, settings->layers[i], (enum ha_module)module);

            if (!lora->a.data)
                continue;
            tensor_name(names[n], settings->layers[i], (enum ha_module)module, 'A');
            items[n] = (struct ha_safetensors_item){names[n],
                                                    HA_SAFETENSORS_F32,
                                                    2,
                                                    {lora->a.rows, lora->a.cols},
                                                    params + lora->a_offset};
            n++;
            tensor_name(names[n], settings->layers[i], (enum ha_module)module, 'B');
            items[n] = (struct ha_safetensors_item){names[n],
                                                    HA_SAFETENSORS_F32,
                                                    2,
                                                    {lora->b.rows, lora->b.cols},
                                                    params + lora->b_offset};
            n++;
        }
    }
    r = ha_safetensors_write(path, items, n, &metadata, 1, err);
out:
    free(path);
    free(names);
    free(items);
    return r;
}

int ha_adapter_save(const struct ha_adapter *adapter, const char *dir, const char *base_model,
                    struct ha_error *err)
{
    int64_t n_params = ha_adapter_n_params(adapter);
    float *params = ha_calloc(n_params, sizeof(float));
    int r;

    if (!params)
        return ha_error_set(err, ENOMEM, "no memory to write an adapter");
    r = ha_backend_download(ha_adapter_backend(adapter), params, ha_adapter_params(adapter),
                            (size_t)n_params * sizeof(float), err);
    if (r == 0)
        r = ha_path_make_dirs(dir, 0777, err);
    if (r == 0)
        r = save_tensors(adapter, dir, params, err);
    /* The configuration last: a directory that has one is complete. */
    if (r == 0)
        r = save_config(adapter, dir, base_model, err);
    free(params);
    return r;
}

/* ---- reading ---- */

/* null, false, [] or {}: a feature that is off. */
static bool is_off(const struct ha_json *value)
{
    switch (ha_json_type(value)) {
    case HA_JSON_NULL:
        return true;
    case HA_JSON_BOOL:
        return !ha_json_bool(value, true);
    case HA_JSON_ARRAY:
    case HA_JSON_OBJECT:
        return ha_json_size(value) == 0;
    default:
        return false;
    }
}

/* Fields that change nothing in what the adapter computes. */
static bool is_ignored(const char *key)
{
    static const char *const keys[] = {
        "auto_mapping",   "base_model_name_or_path", "inference_mode", "megatron_core",
        "peft_version",   "qalora_group_size",       "revision",       "ensure_weight_tying",
        "runtime_config",
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(key, keys[i]) == 0)
            return true;
    }
    return false;
}

static int bad_field(struct ha_error *err, const char *path, const char *key, const char *wants)
{
    return ha_error_set(err, EINVAL, "%s: %s %s", path, key, wants);
}

static int read_targets(const struct ha_json *value, const char *path, uint32_t *ret_modules,
                        struct ha_error *err)
{
    uint32_t found = 0;

    if (!ha_json_is(value, HA_JSON_ARRAY) || ha_json_size(value) == 0)
        return bad_field(err, path, "target_modules",
                         "must be a list of module names (patterns are not supported)");
    for (int64_t i = 0; i < ha_json_size(value); i++) {
        enum ha_module module;
        int r = ha_module_parse(ha_json_string(ha_json_at(value, i), ""), &module, err);

        if (r < 0) {
            ha_error_prefix(err, "%s: target_modules", path);
            return r;
        }
        found |= 1u << module;
    }
    *ret_modules = found;
    return 0;
}

/* layers: room for HA_ADAPTER_MAX_LAYERS. */
static int read_layers(const struct ha_json *value, const char *path, int64_t n_model_layers,
                       int64_t *layers, int64_t *ret_n, struct ha_error *err)
{
    bool has[HA_ADAPTER_MAX_LAYERS] = {false};
    int64_t n = 0, count = ha_json_is(value, HA_JSON_ARRAY) ? ha_json_size(value) : 1;
    bool all = is_off(value);

    if (n_model_layers > HA_ADAPTER_MAX_LAYERS)
        return bad_field(err, path, "layers_to_transform", "cannot be read: too many layers");
    for (int64_t i = 0; i < count && !all; i++) {
        const struct ha_json *item =
            ha_json_is(value, HA_JSON_ARRAY) ? ha_json_at(value, i) : value;
        int64_t layer = ha_json_int(item, -1);

        if (layer < 0 || layer >= n_model_layers)
            return bad_field(err, path, "layers_to_transform",
                             "must be null or layer numbers of this model");
        has[layer] = true;
    }
    for (int64_t layer = 0; layer < n_model_layers; layer++) {
        if (all || has[layer])
            layers[n++] = layer;
    }
    *ret_n = n;
    return 0;
}

/* One member of adapter_config.json that has a meaning here; layers are read
 * by the caller.  Returns 1 when the key is not one of these. */
static int read_member(const char *key, const struct ha_json *value, const char *path,
                       struct ha_adapter_settings *settings, struct ha_error *err)
{
    const char *text = ha_json_string(value, "");

    if (strcmp(key, "peft_type") == 0)
        return strcmp(text, "LORA") == 0 ? 0 : bad_field(err, path, key, "must be \"LORA\"");
    if (strcmp(key, "task_type") == 0)
        return is_off(value) || strcmp(text, "CAUSAL_LM") == 0
                   ? 0
                   : bad_field(err, path, key, "must be \"CAUSAL_LM\"");
    if (strcmp(key, "bias") == 0)
        return strcmp(text, "none") == 0
                   ? 0
                   : bad_field(err, path, key,
                               "must be \"none\": trained biases are not supported");
    if (strcmp(key, "init_lora_weights") == 0)
        return ha_json_is(value, HA_JSON_BOOL) || strcmp(text, "gaussian") == 0
                   ? 0
                   : bad_field(err, path, key,
                               "is a method that changes the base weights; not supported");
    if (strcmp(key, "r") == 0)
        settings->rank = ha_json_int(value, 0);
    else if (strcmp(key, "lora_alpha") == 0)
        settings->alpha = ha_json_real(value, 0);
    else if (strcmp(key, "lora_dropout") == 0)
        settings->dropout = ha_json_real(value, -1);
    else if (strcmp(key, "use_rslora") == 0)
        settings->rslora = ha_json_bool(value, false);
    else if (strcmp(key, "target_modules") == 0)
        return read_targets(value, path, &settings->modules, err);
    else if (strcmp(key, "layers_to_transform") == 0)
        return 0;
    else if (strcmp(key, "layers_pattern") == 0)
        return is_off(value) || strcmp(text, "layers") == 0
                   ? 0
                   : bad_field(err, path, key, "other than \"layers\" is not supported");
    else
        return 1;
    return 0;
}

static int read_config(const struct ha_json *config, const char *path, int64_t n_model_layers,
                       int64_t *layers, struct ha_adapter_settings *ret_settings,
                       struct ha_error *err)
{
    struct ha_adapter_settings settings = {.rank = 8, .alpha = 8, .layers = layers};
    struct ha_json *value;
    const char *key;
    void *iterator = NULL;

    if (!ha_json_is(config, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s: not a JSON object", path);
    if (!ha_json_get(config, "peft_type"))
        return bad_field(err, path, "peft_type", "is missing; is this a PEFT adapter?");
    while (ha_json_next(config, &iterator, &key, &value)) {
        int r = read_member(key, value, path, &settings, err);

        if (r < 0)
            return r;
        if (r == 1 && !is_ignored(key) && !is_off(value))
            return bad_field(err, path, key, "is a LoRA feature that is not supported");
    }
    if (settings.modules == 0)
        return bad_field(err, path, "target_modules", "is missing");
    *ret_settings = settings;
    return read_layers(ha_json_get(config, "layers_to_transform"), path, n_model_layers, layers,
                       &ret_settings->n_layers, err);
}

/* F32, BF16 or F16 values as f32, whatever their alignment. */
static int widen(float *out, const struct ha_safetensors_tensor *tensor)
{
    const uint8_t *data = tensor->data;

    if (tensor->dtype == HA_SAFETENSORS_F32) {
        memcpy(out, data, tensor->bytes);
        return 0;
    }
    if (tensor->dtype != HA_SAFETENSORS_BF16 && tensor->dtype != HA_SAFETENSORS_F16)
        return -EINVAL;
    for (int64_t i = 0; i < tensor->n_elements; i++) {
        uint16_t half = (uint16_t)(data[2 * i] | data[2 * i + 1] << 8);

        out[i] =
            tensor->dtype == HA_SAFETENSORS_F16 ? ha_half_from_f16(half) : ha_half_from_bf16(half);
    }
    return 0;
}

static int read_tensor(const struct ha_safetensors *file, const char *path, const char *name,
                       const struct ha_matrix *shape, float *out, struct ha_error *err)
{
    const struct ha_safetensors_tensor *tensor = ha_safetensors_find(file, name);

    if (!tensor)
        return ha_error_set(err, EINVAL, "%s: tensor %s is missing", path, name);
    if (tensor->rank != 2 || tensor->shape[0] != shape->rows || tensor->shape[1] != shape->cols)
        return ha_error_set(err, EINVAL, "%s: tensor %s does not have the shape [%lld, %lld]", path,
                            name, (long long)shape->rows, (long long)shape->cols);
    if (widen(out, tensor) < 0)
        return ha_error_set(err, EINVAL, "%s: tensor %s has type %s; F32, BF16 and F16 are read",
                            path, name, ha_safetensors_dtype_name(tensor->dtype));
    return 0;
}

/* Every tensor of the adapter from the file, and no tensor left over. */
static int read_tensors(const struct ha_adapter *adapter, const struct ha_safetensors *file,
                        const char *path, float *params, struct ha_error *err)
{
    const struct ha_adapter_settings *settings = ha_adapter_settings(adapter);
    char name[NAME_BYTES];
    int64_t n = 0;

    for (int64_t i = 0; i < settings->n_layers; i++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const struct ha_lora *lora =
                ha_adapter_lora(adapter, settings->layers[i], (enum ha_module)module);
            int r;

            if (!lora->a.data)
                continue;
            tensor_name(name, settings->layers[i], (enum ha_module)module, 'A');
            r = read_tensor(file, path, name, &lora->a, params + lora->a_offset, err);
            if (r < 0)
                return r;
            tensor_name(name, settings->layers[i], (enum ha_module)module, 'B');
            r = read_tensor(file, path, name, &lora->b, params + lora->b_offset, err);
            if (r < 0)
                return r;
            n += 2;
        }
    }
    if (n != ha_safetensors_count(file))
        return ha_error_set(err, EINVAL,
                            "%s: has %lld tensors where %s announces %lld; others would be ignored",
                            path, (long long)ha_safetensors_count(file), CONFIG_FILE, (long long)n);
    return 0;
}

static int fill(struct ha_adapter *adapter, const char *path, struct ha_error *err)
{
    int64_t n_params = ha_adapter_n_params(adapter);
    float *params = ha_calloc(n_params, sizeof(float));
    struct ha_safetensors *file = NULL;
    int r;

    if (!params)
        return ha_error_set(err, ENOMEM, "%s: no memory for the adapter", path);
    r = ha_safetensors_open(path, &file, err);
    if (r == 0)
        r = read_tensors(adapter, file, path, params, err);
    if (r == 0)
        r = ha_backend_upload(ha_adapter_backend(adapter), ha_adapter_params(adapter), params,
                              (size_t)n_params * sizeof(float), err);
    ha_safetensors_close(file);
    free(params);
    return r;
}

int ha_adapter_load(struct ha_backend *backend, const struct ha_adapter_geometry *geometry,
                    const char *dir, struct ha_adapter **ret_adapter, struct ha_error *err)
{
    char *config_path = ha_path_join(dir, CONFIG_FILE), *path = ha_path_join(dir, TENSOR_FILE);
    int64_t *layers = ha_calloc(HA_ADAPTER_MAX_LAYERS, sizeof(*layers));
    struct ha_adapter_settings settings;
    struct ha_adapter *adapter = NULL;
    struct ha_json *config = NULL;
    int r;

    if (!config_path || !path || !layers) {
        r = ha_error_set(err, ENOMEM, "no memory to read an adapter");
        goto out;
    }
    r = ha_json_load(config_path, CONFIG_LIMIT_BYTES, &config, err);
    if (r < 0)
        goto out;
    r = read_config(config, config_path, geometry->n_layers, layers, &settings, err);
    if (r < 0)
        goto out;
    r = ha_adapter_create(backend, geometry, &settings, &adapter, err);
    if (r < 0) {
        ha_error_prefix(err, "%s", config_path);
        goto out;
    }
    r = fill(adapter, path, err);
    if (r < 0)
        goto out;
    *ret_adapter = adapter;
    adapter = NULL;
out:
    ha_adapter_destroy(adapter);
    ha_json_destroy(config);
    free(layers);
    free(path);
    free(config_path);
    return r;
}
