#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/model/decode_inside.h"

static int64_t kv_width(const struct ha_model_config *config)
{
    return config->n_kv_heads * config->head_dim;
}

int64_t ha_kv_cache_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                          int64_t n_positions)
{
    return 2 * config->n_layers * n_positions * kv_width(config) *
           (int64_t)ha_dtype_bytes(activation);
}

int ha_kv_cache_create(struct ha_model *model, int64_t n_positions, struct ha_kv_cache **ret_cache,
                       struct ha_error *err)
{
    const struct ha_model_config *config = ha_model_config(model);
    struct ha_kv_cache *cache;
    int r;

    if (n_positions < 1 || n_positions > INT32_MAX)
        return ha_error_set(err, EINVAL, "a KV cache of %lld tokens is out of range",
                            (long long)n_positions);
    cache = ha_calloc(1, sizeof(*cache));
    if (!cache)
        return ha_error_set(err, ENOMEM, "no memory for a KV cache");
    cache->backend = ha_model_backend(model);
    cache->n_positions = n_positions;
    r = ha_backend_alloc(
        cache->backend,
        (size_t)ha_kv_cache_bytes(config, ha_backend_activation_dtype(cache->backend), n_positions),
        &cache->memory, err);
    if (r < 0) {
        free(cache);
        return ha_error_prefix(err, "KV cache of %lld tokens", (long long)n_positions);
    }
    *ret_cache = cache;
    return 0;
}

void ha_kv_cache_destroy(struct ha_kv_cache *cache)
{
    if (!cache)
        return;
    ha_backend_free(cache->backend, cache->memory);
    free(cache);
}

int64_t ha_kv_cache_length(const struct ha_kv_cache *cache)
{
    return cache->length;
}

void ha_kv_cache_reset(struct ha_kv_cache *cache)
{
    ha_kv_cache_set_length(cache, 0);
}

void ha_kv_cache_set_length(struct ha_kv_cache *cache, int64_t n_tokens)
{
    cache->length = n_tokens;
}

struct ha_kv_rows ha_kv_cache_rows(const struct ha_decoder *decoder,
                                   const struct ha_kv_cache *cache)
{
    return (struct ha_kv_rows){
        .k = ha_kv_cache_row(decoder, cache, 0, 0, 0),
        .v = ha_kv_cache_row(decoder, cache, 0, 1, 0),
        .layer_stride = 2 * cache->n_positions * decoder->kv_width,
    };
}

void *ha_kv_cache_row(const struct ha_decoder *decoder, const struct ha_kv_cache *cache,
                      int64_t layer, int part, int64_t position)
{
    int64_t row = (2 * layer + part) * cache->n_positions + position;

    return (char *)cache->memory + (size_t)(row * decoder->kv_width) * ha_dtype_bytes(decoder->act);
}
