#include "worker/model/decode_inside.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/model/arena.h"
#include "worker/model/shards.h"

/* ---- the decoder's memory ---- */

static int64_t most_tokens(const struct ha_decoder *decoder)
{
    const struct ha_decoder_limits *limits = &decoder->limits;

    return limits->max_sequences > limits->max_prompt_tokens ? limits->max_sequences
                                                             : limits->max_prompt_tokens;
}

static void lay_out(struct ha_decoder *decoder, struct ha_arena *arena)
{
    const struct ha_model_config *config = decoder->config;
    int64_t t = most_tokens(decoder), n = decoder->limits.max_sequences;
    size_t act = ha_dtype_bytes(decoder->act);

    decoder->ids = ha_arena_take(arena, t, 1, sizeof(int32_t));
    decoder->positions = ha_arena_take(arena, t, 1, sizeof(int32_t));
    decoder->x = ha_arena_take(arena, t, config->width, act);
    decoder->norm = ha_arena_take(arena, t, config->width, act);
    ha_layer_take_qkv(arena, config, decoder->act, t, &decoder->q, &decoder->k, &decoder->v);
    decoder->attention = ha_arena_take(arena, t, decoder->q_width, act);
    ha_layer_take_gate_up(arena, config, decoder->act, t, &decoder->gate, &decoder->up);
    decoder->inner = ha_arena_take(arena, t, config->inner, act);
    decoder->lora = ha_arena_take(arena, t, decoder->limits.max_rank, act);
    decoder->last_positions = ha_arena_take(arena, n, 1, sizeof(int32_t));
    decoder->caches = ha_arena_take(arena, n, 1, sizeof(*decoder->caches));
    decoder->last = ha_arena_take(arena, n, config->width, act);
    decoder->last_norm = ha_arena_take(arena, n, config->width, act);
    decoder->logits = ha_arena_take(arena, n, config->vocab, sizeof(float));
}

/* Widths and limits, no memory yet. */
static int begin_decoder(struct ha_decoder *decoder, const struct ha_model_config *config,
                         enum ha_dtype activation, const struct ha_decoder_limits *limits,
                         size_t *ret_bytes, struct ha_error *err)
{
    struct ha_arena arena = {0};

    if (limits->max_sequences < 1 || limits->max_prompt_tokens < 1 || limits->max_rank < 0 ||
        limits->max_sequences > INT32_MAX || limits->max_prompt_tokens > INT32_MAX ||
        limits->max_rank > HA_ADAPTER_MAX_RANK)
        return ha_error_set(err, EINVAL,
                            "a decoder for %lld sequences, %lld prompt tokens and rank %lld is out "
                            "of range",
                            (long long)limits->max_sequences, (long long)limits->max_prompt_tokens,
                            (long long)limits->max_rank);
    decoder->config = config;
    decoder->limits = *limits;
    decoder->act = activation;
    decoder->strides = ha_layer_strides_of(config, activation);
    decoder->q_width = config->n_heads * config->head_dim;
    decoder->kv_width = config->n_kv_heads * config->head_dim;
    lay_out(decoder, &arena);
    if (arena.overflow)
        return ha_error_set(err, EOVERFLOW,
                            "a decoder for %lld sequences needs more memory than can be addressed",
                            (long long)limits->max_sequences);
    *ret_bytes = arena.bytes;
    return 0;
}

int ha_decoder_plan_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                          const struct ha_decoder_limits *limits, int64_t *ret_bytes,
                          struct ha_error *err)
{
    struct ha_decoder decoder = {0};
    size_t bytes = 0;
    int r = begin_decoder(&decoder, config, activation, limits, &bytes, err);

    if (r == 0)
        *ret_bytes = (int64_t)bytes;
    return r;
}

static int allocate_host(struct ha_decoder *decoder, struct ha_error *err)
{
    int64_t t = most_tokens(decoder), n = decoder->limits.max_sequences;

    decoder->host_ids = ha_calloc(t, sizeof(*decoder->host_ids));
    decoder->host_positions = ha_calloc(t, sizeof(*decoder->host_positions));
    decoder->segments = ha_calloc(n, sizeof(*decoder->segments));
    decoder->spans = ha_calloc(n, sizeof(*decoder->spans));
    decoder->branches = ha_calloc(n, sizeof(*decoder->branches));
    decoder->branch_of = ha_calloc(n, sizeof(*decoder->branch_of));
    decoder->last_token = ha_calloc(n, sizeof(*decoder->last_token));
    decoder->host_caches = ha_calloc(n, sizeof(*decoder->host_caches));
    decoder->recorded_spans = ha_calloc(n, sizeof(*decoder->recorded_spans));
    if (!decoder->host_ids || !decoder->host_positions || !decoder->segments || !decoder->spans ||
        !decoder->branches || !decoder->branch_of || !decoder->last_token ||
        !decoder->host_caches || !decoder->recorded_spans)
        return ha_error_set(err, ENOMEM, "no memory for a decoder of %lld sequences", (long long)n);
    return 0;
}

int ha_decoder_create(struct ha_model *model, const struct ha_decoder_limits *limits,
                      struct ha_decoder **ret_decoder, struct ha_error *err)
{
    struct ha_backend *backend = ha_model_backend(model);
    struct ha_decoder *decoder = ha_calloc(1, sizeof(*decoder));
    struct ha_arena arena = {0};
    size_t bytes = 0;
    int r;

    if (!decoder)
        return ha_error_set(err, ENOMEM, "no memory for a decoder");
    decoder->model = model;
    decoder->backend = backend;
    decoder->ops = ha_backend_ops(backend);
    r = begin_decoder(decoder, ha_model_config(model), ha_backend_activation_dtype(backend), limits,
                      &bytes, err);
    if (r == 0)
        r = allocate_host(decoder, err);
    if (r == 0)
        r = ha_backend_alloc(backend, bytes, &decoder->arena, err);
    if (r < 0) {
        ha_decoder_destroy(decoder);
        return r;
    }
    arena.base = decoder->arena;
    lay_out(decoder, &arena);
    *ret_decoder = decoder;
    return 0;
}

void ha_decoder_destroy(struct ha_decoder *decoder)
{
    if (!decoder)
        return;
    ha_decoder_forget(decoder);
    if (decoder->arena)
        ha_backend_free(decoder->backend, decoder->arena);
    free(decoder->host_ids);
    free(decoder->host_positions);
    free(decoder->segments);
    free(decoder->spans);
    free(decoder->branches);
    free(decoder->branch_of);
    free(decoder->last_token);
    free(decoder->host_caches);
    free(decoder->recorded_spans);
    free(decoder);
}

/* ---- what prompts and steps have in common ---- */

static int check_sequence(const struct ha_decoder *decoder,
                          const struct ha_decoder_sequence *sequence, int64_t i, bool prefill,
                          struct ha_error *err)
{
    const struct ha_kv_cache *cache = sequence->cache;
    int64_t rank = sequence->adapter ? ha_adapter_settings(sequence->adapter)->rank : 0;

    if (sequence->n_ids < 1 ||
        (prefill ? cache->length != 0 : sequence->n_ids != 1 || cache->length == 0))
        return ha_error_set(err, EINVAL, "sequence %lld: %lld tokens after %lld cannot run as a %s",
                            (long long)i, (long long)sequence->n_ids, (long long)cache->length,
                            prefill ? "prompt" : "step");
    if (sequence->n_ids > cache->n_positions - cache->length)
        return ha_error_set(err, EINVAL, "sequence %lld: its KV cache of %lld tokens is full",
                            (long long)i, (long long)cache->n_positions);
    if (rank > decoder->limits.max_rank)
        return ha_error_set(err, EINVAL, "sequence %lld: rank %lld, the decoder is for rank %lld",
                            (long long)i, (long long)rank, (long long)decoder->limits.max_rank);
    for (int64_t t = 0; t < sequence->n_ids; t++)
        if (sequence->ids[t] < 0 || sequence->ids[t] >= decoder->config->vocab)
            return ha_error_set(err, EINVAL,
                                "sequence %lld: token id %d is not in the model's vocabulary of "
                                "%lld; tokenizer and model do not belong together",
                                (long long)i, (int)sequence->ids[t],
                                (long long)decoder->config->vocab);
    return 0;
}

int ha_decoder_check(const struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                     int64_t n, bool prefill, struct ha_error *err)
{
    if (n < 1 || n > decoder->limits.max_sequences)
        return ha_error_set(err, EINVAL, "%lld sequences do not fit a decoder of %lld",
                            (long long)n, (long long)decoder->limits.max_sequences);
    for (int64_t i = 0; i < n; i++) {
        int r = check_sequence(decoder, &sequences[i], i, prefill, err);

        if (r < 0)
            return r;
    }
    return 0;
}

int ha_decoder_send(struct ha_decoder *decoder, int64_t n_rows, int64_t n_embedded,
                    int64_t n_positions, struct ha_error *err)
{
    int r = ha_model_rope_table(decoder->model, n_positions, &decoder->cos_sin, err);

    if (r == 0)
        r = ha_backend_upload(decoder->backend, decoder->ids, decoder->host_ids,
                              (size_t)n_embedded * sizeof(int32_t), err);
    if (r == 0)
        r = ha_backend_upload(decoder->backend, decoder->positions, decoder->host_positions,
                              (size_t)n_rows * sizeof(int32_t), err);
    return r;
}

int ha_decoder_embed(struct ha_decoder *decoder, int64_t n_rows, struct ha_error *err)
{
    int r = ha_shards_begin(ha_model_shards(decoder->model), HA_WALK_EMBEDDING, 0, 0, err);

    if (r == 0)
        r = decoder->ops->embed_forward(decoder->backend, decoder->x,
                                        &ha_model_weights(decoder->model)->embedding, decoder->ids,
                                        n_rows, err);
    return r;
}

struct ha_layer_context ha_decoder_context(const struct ha_decoder *decoder, int64_t layer,
                                           int64_t n_rows, const struct ha_layer_span *spans,
                                           int64_t n_spans)
{
    struct ha_layer_context context = {
        .backend = decoder->backend,
        .ops = decoder->ops,
        .config = decoder->config,
        .weights = &ha_model_weights(decoder->model)->layers[layer],
        .spans = spans,
        .n_spans = n_spans,
        .layer = layer,
        .act = decoder->act,
        .strides = decoder->strides,
        .cos_sin = decoder->cos_sin,
        .positions = decoder->positions,
        .n_rows = n_rows,
    };

    for (int module = 0; module < HA_MODULE_COUNT; module++)
        context.lora[module] = decoder->lora;
    return context;
}

int ha_decoder_send_caches(struct ha_decoder *decoder, int64_t n, struct ha_error *err)
{
    return ha_backend_upload(decoder->backend, decoder->caches, decoder->host_caches,
                             (size_t)n * sizeof(*decoder->host_caches), err);
}

int ha_decoder_attend_caches(struct ha_decoder *decoder, const int32_t *positions, int64_t n,
                             int64_t layer, int64_t max_keys, double n_keys, struct ha_error *err)
{
    const struct ha_model_config *config = decoder->config;
    struct ha_decode_attention shape = {
        .n_rows = n,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .scale = (float)(1.0 / sqrt((double)config->head_dim)),
        .q_stride = decoder->strides.q,
        .out_stride = decoder->q_width,
        .caches = decoder->caches,
        .positions = positions,
        .layer = layer,
        .max_keys = max_keys,
        .n_keys = n_keys,
    };

    return decoder->ops->decode_attention(decoder->backend, decoder->attention, decoder->q, &shape,
                                          err);
}

int ha_decoder_end_layer(struct ha_decoder *decoder, const struct ha_layer_context *context,
                         void *x, void *norm, struct ha_error *err)
{
    int r = ha_layer_attention_out(context, x, decoder->attention, err);

    if (r == 0)
        r = ha_layer_norm(context, true, norm, NULL, x, err);
    if (r == 0)
        r = ha_layer_mlp(context, x, decoder->gate, decoder->up, decoder->inner, norm, err);
    return r;
}

int ha_decoder_head(struct ha_decoder *decoder, const void *x, int64_t n, struct ha_error *err)
{
    const struct ha_weights *weights = ha_model_weights(decoder->model);
    int64_t width = decoder->config->width;
    int r = decoder->ops->rmsnorm_forward(decoder->backend, decoder->last, NULL, x,
                                          weights->final_norm.data, weights->final_norm.dtype,
                                          decoder->config->rms_eps, n, 1, width, width, width, err);

    if (r == 0)
        r = ha_shards_begin(ha_model_shards(decoder->model), HA_WALK_HEAD, 0, 0, err);
    if (r == 0)
        r = decoder->ops->logits(decoder->backend, decoder->logits, decoder->last, &weights->head,
                                 n, width, err);
    return r;
}

int ha_decoder_show(struct ha_decoder *decoder, int64_t n, float *logits, struct ha_error *err)
{
    return logits ? ha_backend_download(decoder->backend, logits, decoder->logits,
                                        (size_t)n * (size_t)decoder->config->vocab * sizeof(float),
                                        err)
                  : 0;
}

const float *ha_decoder_logits(const struct ha_decoder *decoder)
{
    return decoder->logits;
}

int32_t *ha_decoder_ids(struct ha_decoder *decoder)
{
    return decoder->ids;
}

int32_t *ha_decoder_positions(struct ha_decoder *decoder)
{
    return decoder->positions;
}

/* ---- a step ---- */

/* One row for each sequence. */
static void lay_side_by_side(struct ha_decoder *decoder,
                             const struct ha_decoder_sequence *sequences, int64_t n)
{
    struct ha_layer_span *span = NULL;

    decoder->n_spans = 0;
    decoder->n_keys = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const struct ha_decoder_sequence *sequence = &sequences[i];
        const struct ha_kv_cache *cache = sequence->cache;

        decoder->host_ids[i] = sequence->ids[0];
        decoder->host_positions[i] = (int32_t)cache->length;
        decoder->host_caches[i] = ha_kv_cache_rows(decoder, cache);
        decoder->n_keys += (double)(cache->length + 1);
        if (cache->n_positions > decoder->max_keys)
            decoder->max_keys = cache->n_positions;
        if (!span || span->adapter != sequence->adapter) {
            span = &decoder->spans[decoder->n_spans++];
            *span = (struct ha_layer_span){sequence->adapter, i, 0};
        }
        span->count++;
    }
}

int ha_decoder_seat(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                    int64_t n, struct ha_error *err)
{
    int r = ha_decoder_check(decoder, sequences, n, false, err);

    decoder->n_seated = 0;
    if (r < 0)
        return r;
    lay_side_by_side(decoder, sequences, n);
    r = ha_decoder_send(decoder, n, n, decoder->max_keys, err);
    if (r == 0)
        r = ha_decoder_send_caches(decoder, n, err);
    if (r == 0)
        decoder->n_seated = n;
    return r;
}

static int step_layer(struct ha_decoder *decoder, int64_t layer, struct ha_error *err)
{
    int64_t n = decoder->n_seated;
    struct ha_layer_context context =
        ha_decoder_context(decoder, layer, n, decoder->spans, decoder->n_spans);
    int r = ha_layer_norm(&context, false, decoder->norm, NULL, decoder->x, err);

    if (r == 0)
        r = ha_layer_qkv(&context, decoder->q, decoder->k, decoder->v, decoder->norm, err);
    if (r == 0)
        r = ha_layer_rotate(&context, decoder->q, decoder->k, NULL, NULL, decoder->q, decoder->k,
                            err);
    if (r == 0)
        r = decoder->ops->kv_append(decoder->backend, decoder->caches, decoder->positions, layer,
                                    decoder->k, decoder->v, n, decoder->kv_width,
                                    decoder->strides.kv, err);
    if (r == 0)
        r = ha_decoder_attend_caches(decoder, decoder->positions, n, layer, decoder->max_keys,
                                     decoder->n_keys, err);
    return r < 0 ? r : ha_decoder_end_layer(decoder, &context, decoder->x, decoder->norm, err);
}

int ha_decoder_run(struct ha_decoder *decoder, struct ha_error *err)
{
    struct ha_shards *shards = ha_model_shards(decoder->model);
    int64_t n = decoder->n_seated, n_layers = decoder->config->n_layers;
    int r;

    if (n == 0)
        return ha_error_set(err, EINVAL, "no sequence has a seat in the decoder");
    r = ha_decoder_embed(decoder, n, err);
    if (r == 0)
        r = ha_shards_begin(shards, HA_WALK_UP, 0, n_layers, err);
    for (int64_t layer = 0; r == 0 && layer < n_layers; layer++) {
        r = ha_shards_take(shards, layer, err);
        if (r == 0)
            r = step_layer(decoder, layer, err);
    }
    if (r == 0)
        r = ha_decoder_head(decoder, decoder->x, n, err);
    decoder->n_keys += (double)n;
    return r;
}

int ha_decoder_step(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                    int64_t n, float *logits, struct ha_error *err)
{
    int r = ha_decoder_seat(decoder, sequences, n, err);

    if (r == 0)
        r = ha_decoder_run(decoder, err);
    decoder->n_seated = 0;
    if (r == 0)
        r = ha_decoder_show(decoder, n, logits, err);
    for (int64_t i = 0; r == 0 && i < n; i++)
        sequences[i].cache->length++;
    return r;
}
