#include "worker/adapter/adapter.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/rng_torch.h"

static const struct {
    const char *name, *path;
} modules[HA_MODULE_COUNT] = {
    [HA_MODULE_Q] = {"q_proj", "self_attn.q_proj"},
    [HA_MODULE_K] = {"k_proj", "self_attn.k_proj"},
    [HA_MODULE_V] = {"v_proj", "self_attn.v_proj"},
    [HA_MODULE_O] = {"o_proj", "self_attn.o_proj"},
    [HA_MODULE_GATE] = {"gate_proj", "mlp.gate_proj"},
    [HA_MODULE_UP] = {"up_proj", "mlp.up_proj"},
    [HA_MODULE_DOWN] = {"down_proj", "mlp.down_proj"},
};

struct ha_adapter {
    struct ha_backend *backend;
    struct ha_adapter_geometry geometry;
    struct ha_adapter_settings settings; /* layers point to own memory */
    int64_t *layers;
    float scale;
    float *params; /* device (n_params) */
    int64_t n_params;
    struct ha_lora *loras; /* (geometry.n_layers * HA_MODULE_COUNT) */
};

const char *ha_module_name(enum ha_module module)
{
    return modules[module].name;
}

const char *ha_module_path(enum ha_module module)
{
    return modules[module].path;
}

int ha_module_parse(const char *name, enum ha_module *ret_module, struct ha_error *err)
{
    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        if (strcmp(name, modules[module].name) == 0 || strcmp(name, modules[module].path) == 0) {
            *ret_module = (enum ha_module)module;
            return 0;
        }
    }
    return ha_error_set(err, EINVAL,
                        "\"%s\" is not a module that can be adapted; these can: q_proj, k_proj, "
                        "v_proj, o_proj, gate_proj, up_proj, down_proj",
                        name);
}

static int check_settings(const struct ha_adapter_geometry *geometry,
                          const struct ha_adapter_settings *settings, struct ha_error *err)
{
    if (geometry->n_layers < 1 || geometry->n_layers > HA_ADAPTER_MAX_LAYERS)
        return ha_error_set(err, EINVAL, "the model has %lld layers; adapters allow 1 to %d",
                            (long long)geometry->n_layers, HA_ADAPTER_MAX_LAYERS);
    if (settings->rank < 1 || settings->rank > HA_ADAPTER_MAX_RANK)
        return ha_error_set(err, EINVAL, "LoRA rank %lld is not between 1 and %d",
                            (long long)settings->rank, HA_ADAPTER_MAX_RANK);
    if (!isfinite(settings->alpha) || settings->alpha <= 0)
        return ha_error_set(err, EINVAL, "LoRA alpha %g is not a positive number", settings->alpha);
    if (!(settings->dropout >= 0 && settings->dropout < 1))
        return ha_error_set(err, EINVAL, "LoRA dropout %g is not in [0, 1)", settings->dropout);
    if (settings->modules == 0 || settings->modules >> HA_MODULE_COUNT != 0)
        return ha_error_set(err, EINVAL, "an adapter needs at least one known target module");
    if (settings->n_layers < 1)
        return ha_error_set(err, EINVAL, "an adapter needs at least one layer");
    for (int64_t i = 0; i < settings->n_layers; i++) {
        int64_t layer = settings->layers[i];

        if (layer < 0 || layer >= geometry->n_layers)
            return ha_error_set(err, EINVAL, "layer %lld is not in the model's 0 to %lld",
                                (long long)layer, (long long)geometry->n_layers - 1);
        if (i > 0 && layer <= settings->layers[i - 1])
            return ha_error_set(err, EINVAL, "the adapter's layers are not in ascending order");
    }
    return 0;
}

int64_t ha_adapter_widest_input(const struct ha_adapter_geometry *geometry, uint32_t bits)
{
    int64_t widest = 0;

    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        if (bits & 1u << module && geometry->in[module] > widest)
            widest = geometry->in[module];
    }
    return widest;
}

int ha_adapter_count_params(const struct ha_adapter_geometry *geometry,
                            const struct ha_adapter_settings *settings, int64_t *ret_n_params,
                            struct ha_error *err)
{
    int64_t per_layer = 0, n_params;
    int r = check_settings(geometry, settings, err);

    if (r < 0)
        return r;
    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        int64_t widths, values;

        if (!(settings->modules & 1u << module))
            continue;
        if (geometry->in[module] < 1 || geometry->out[module] < 1 ||
            __builtin_add_overflow(geometry->in[module], geometry->out[module], &widths) ||
            __builtin_mul_overflow(widths, settings->rank, &values) ||
            __builtin_add_overflow(per_layer, values, &per_layer))
            return ha_error_set(err, EINVAL, "the widths of %s are out of range",
                                modules[module].name);
    }
    if (__builtin_mul_overflow(per_layer, settings->n_layers, &n_params) ||
        n_params > INT64_MAX / (int64_t)sizeof(double))
        return ha_error_set(err, EINVAL, "the adapter is too large");
    *ret_n_params = n_params;
    return 0;
}

static struct ha_matrix param_view(float *params, int64_t offset, int64_t rows, int64_t cols)
{
    return (struct ha_matrix){
        .data = params + offset, .dtype = HA_DTYPE_F32, .rows = rows, .cols = cols, .stride = cols};
}

static void lay_out(struct ha_adapter *adapter)
{
    const struct ha_adapter_settings *settings = &adapter->settings;
    int64_t offset = 0;

    for (int64_t i = 0; i < settings->n_layers; i++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            int64_t in = adapter->geometry.in[module], out = adapter->geometry.out[module];
            struct ha_lora *lora = &adapter->loras[settings->layers[i] * HA_MODULE_COUNT + module];

            if (!(settings->modules & 1u << module))
                continue;
            lora->a_offset = offset;
            lora->a = param_view(adapter->params, offset, settings->rank, in);
            offset += settings->rank * in;
            lora->b_offset = offset;
            lora->b = param_view(adapter->params, offset, out, settings->rank);
            offset += out * settings->rank;
        }
    }
}

int ha_adapter_create(struct ha_backend *backend, const struct ha_adapter_geometry *geometry,
                      const struct ha_adapter_settings *settings, struct ha_adapter **ret_adapter,
                      struct ha_error *err)
{
    struct ha_adapter *adapter;
    void *params;
    int64_t n_params;
    int r = ha_adapter_count_params(geometry, settings, &n_params, err);

    if (r < 0)
        return r;
    adapter = ha_calloc(1, sizeof(*adapter));
    if (!adapter)
        return ha_error_set(err, ENOMEM, "no memory for an adapter");
    adapter->backend = backend;
    adapter->geometry = *geometry;
    adapter->settings = *settings;
    adapter->n_params = n_params;
    adapter->scale = (float)(settings->rslora ? settings->alpha / sqrt((double)settings->rank)
                                              : settings->alpha / (double)settings->rank);
    adapter->layers = ha_calloc(settings->n_layers, sizeof(*adapter->layers));
    adapter->loras = ha_calloc(geometry->n_layers * HA_MODULE_COUNT, sizeof(*adapter->loras));
    if (!adapter->layers || !adapter->loras) {
        r = ha_error_set(err, ENOMEM, "no memory for an adapter");
        goto fail;
    }
    memcpy(adapter->layers, settings->layers, (size_t)settings->n_layers * sizeof(int64_t));
    adapter->settings.layers = adapter->layers;
    r = ha_backend_alloc(backend, (size_t)n_params * sizeof(float), &params, err);
    if (r < 0)
        goto fail;
    adapter->params = params;
    lay_out(adapter);
    *ret_adapter = adapter;
    return 0;

fail:
    ha_adapter_destroy(adapter);
    return r;
}

void ha_adapter_destroy(struct ha_adapter *adapter)
{
    if (!adapter)
        return;
    if (adapter->params)
        ha_backend_free(adapter->backend, adapter->params);
    free(adapter->loras);
    free(adapter->layers);
    free(adapter);
}

/* PEFT first lets torch.nn.Linear fill A and B, then draws A again. */
static void draw_a(struct ha_rng_torch *rng, float *a, int64_t rank, int64_t in, int64_t out)
{
    double gain = sqrt(2.0 / 6.0);
    float bound = (float)(sqrt(3.0) * (gain / sqrt((double)in)));

    for (int64_t i = 0; i < rank * (in + out); i++)
        (void)ha_rng_torch_u32(rng);
    for (int64_t i = 0; i < rank * in; i++)
        a[i] = ha_rng_torch_uniform(rng, -bound, bound);
}

int ha_adapter_init(struct ha_adapter *adapter, uint64_t seed, struct ha_error *err)
{
    const struct ha_adapter_settings *settings = &adapter->settings;
    struct ha_rng_torch rng;
    float *params = ha_calloc(adapter->n_params, sizeof(float));
    int r;

    if (!params)
        return ha_error_set(err, ENOMEM, "no memory for the start values of an adapter");
    ha_rng_torch_init(&rng, seed);
    for (int64_t i = 0; i < settings->n_layers; i++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const struct ha_lora *lora =
                ha_adapter_lora(adapter, settings->layers[i], (enum ha_module)module);

            if (lora->a.data)
                draw_a(&rng, params + lora->a_offset, settings->rank, lora->a.cols, lora->b.rows);
        }
    }
    r = ha_backend_upload(adapter->backend, adapter->params, params,
                          (size_t)adapter->n_params * sizeof(float), err);
    free(params);
    return r;
}

const struct ha_adapter_settings *ha_adapter_settings(const struct ha_adapter *adapter)
{
    return &adapter->settings;
}

const struct ha_adapter_geometry *ha_adapter_geometry(const struct ha_adapter *adapter)
{
    return &adapter->geometry;
}

struct ha_backend *ha_adapter_backend(const struct ha_adapter *adapter)
{
    return adapter->backend;
}

float ha_adapter_scale(const struct ha_adapter *adapter)
{
    return adapter->scale;
}

const struct ha_lora *ha_adapter_lora(const struct ha_adapter *adapter, int64_t layer,
                                      enum ha_module module)
{
    return &adapter->loras[layer * HA_MODULE_COUNT + module];
}

int64_t ha_adapter_lowest_layer(const struct ha_adapter *adapter)
{
    return adapter->layers[0];
}

float *ha_adapter_params(const struct ha_adapter *adapter)
{
    return adapter->params;
}

int64_t ha_adapter_n_params(const struct ha_adapter *adapter)
{
    return adapter->n_params;
}
