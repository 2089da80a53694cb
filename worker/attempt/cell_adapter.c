#include "worker/attempt/cell_adapter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/blocks.h"
#include "worker/adapter/adapter.h"

static int module_bits(const struct ha_text_list *names, uint32_t *ret_bits, struct ha_error *err)
{
    uint32_t bits = 0;

    for (int64_t i = 0; i < names->count; i++) {
        enum ha_module module;
        int r = ha_module_parse(names->items[i], &module, err);

        if (r < 0)
            return ha_error_prefix(err, "train.target_modules");
        bits |= 1U << module;
    }
    *ret_bits = bits;
    return 0;
}

static char *layers_text(const struct ha_adapter_settings *settings)
{
    struct ha_layers layers = {.items = malloc((size_t)settings->n_layers * sizeof(int64_t)),
                               .count = settings->n_layers};
    char *text = NULL;

    if (layers.items) {
        memcpy(layers.items, settings->layers, (size_t)settings->n_layers * sizeof(int64_t));
        text = ha_layers_text(&layers);
    }
    ha_layers_clear(&layers);
    return text;
}

static bool equal_layers(const struct ha_adapter_settings *a, const struct ha_adapter_settings *b)
{
    return a->n_layers == b->n_layers &&
           memcmp(a->layers, b->layers, (size_t)a->n_layers * sizeof(*a->layers)) == 0;
}

static int other_layers(const char *dir, const struct ha_adapter_settings *got,
                        const struct ha_adapter_settings *want, struct ha_error *err)
{
    char *has = layers_text(got), *wants = layers_text(want);
    int r = ha_error_set(err, EINVAL, "%s: its layers are %s, the strategy's are %s", dir,
                         has ? has : "others", wants ? wants : "not these");

    free(has);
    free(wants);
    return r;
}

/* Training goes on from an adapter only as what the settings say: they are what is recorded. */
static int check_same(const char *dir, const struct ha_adapter_settings *got,
                      const struct ha_adapter_settings *want, bool drops, struct ha_error *err)
{
    if (!equal_layers(got, want))
        return other_layers(dir, got, want, err);
    if (got->rank != want->rank)
        return ha_error_set(err, EINVAL,
                            "%s: its rank is %lld, train.lora_rank is %lld; set it to the "
                            "adapter's",
                            dir, (long long)got->rank, (long long)want->rank);
    if (got->alpha < want->alpha || got->alpha > want->alpha)
        return ha_error_set(err, EINVAL,
                            "%s: its alpha is %g, train.lora_alpha is %g; set it to the adapter's",
                            dir, got->alpha, want->alpha);
    if (got->modules != want->modules)
        return ha_error_set(err, EINVAL, "%s: it adapts other modules than train.target_modules",
                            dir);
    if (got->rslora)
        return ha_error_set(err, EINVAL,
                            "%s: use_rslora is true; training scales by alpha / rank only", dir);
    if (drops && (got->dropout < want->dropout || got->dropout > want->dropout))
        return ha_error_set(err, EINVAL,
                            "%s: its lora_dropout is %g, train.lora_dropout is %g; set it to the "
                            "adapter's",
                            dir, got->dropout, want->dropout);
    return 0;
}

int ha_cell_adapter_create(const struct ha_training_cell *cell, const struct ha_engine *engine,
                           struct ha_adapter **ret_adapter, struct ha_error *err)
{
    const struct ha_sweep_train *train = &cell->settings->train;
    struct ha_adapter_settings settings = {.rank = train->lora_rank,
                                           .alpha = train->lora_alpha,
                                           .dropout = train->lora_dropout,
                                           .layers = cell->layers,
                                           .n_layers = cell->n_layers};
    struct ha_adapter_geometry geometry;
    struct ha_adapter *adapter = NULL;
    int r = module_bits(&train->target_modules, &settings.modules, err);

    ha_model_config_geometry(ha_model_config(engine->model), &geometry);
    if (r == 0 && cell->init_adapter) {
        r = ha_adapter_load(engine->backend, &geometry, cell->init_adapter, &adapter, err);
        if (r == 0)
            r = check_same(cell->init_adapter, ha_adapter_settings(adapter), &settings,
                           !train->disable_dropout, err);
    } else if (r == 0) {
        r = ha_adapter_create(engine->backend, &geometry, &settings, &adapter, err);
        if (r == 0)
            r = ha_adapter_init(adapter, (uint64_t)train->init_seed, err);
    }
    if (r < 0) {
        ha_adapter_destroy(adapter);
        return r;
    }
    *ret_adapter = adapter;
    return 0;
}
