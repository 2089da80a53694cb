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
    decoder->lengths = ha_calloc(n, sizeof(*decoder->lengths));
    decoder->k_caches = ha_calloc(n, sizeof(*decoder->k_caches));
    decoder->v_caches = ha_calloc(n, sizeof(*decoder->v_caches));
    if (!decoder->host_ids || !decoder->host_positions || !decoder->segments || !decoder->spans ||
        !decoder->branches || !decoder->branch_of || !decoder->last_token || !decoder->lengths ||
        !decoder->k_caches || !decoder->v_caches)
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
    if (decoder->arena)
        ha_backend_free(decoder->backend, decoder->arena);
    free(decoder->host_ids);
    free(decoder->host_positions);
    free(decoder->segments);
    free(decoder->spans);
    free(decoder->branches);
    free(decoder->branch_of);
    free(decoder->last_token);
    free(decoder->lengths);
    free(decoder->k_caches);
    free(decoder->v_caches);
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

int ha_decoder_embed(struct ha_decoder *decoder, int64_t n_rows, int64_t n_embedded,
                     struct ha_error *err)
{
    int32_t highest = 0;
    int r;

    for (int64_t i = 0; i < n_rows; i++)
        if (decoder->host_positions[i] > highest)
            highest = decoder->host_positions[i];
    r = ha_model_rope_table(decoder->model, (int64_t)highest + 1, &decoder->cos_sin, err);
    if (r == 0)
        r = ha_backend_upload(decoder->backend, decoder->ids, decoder->host_ids,
                              (size_t)n_embedded * sizeof(int32_t), err);
    if (r == 0)
        r = ha_backend_upload(decoder->backend, decoder->positions, decoder->host_positions,
                              (size_t)n_rows * sizeof(int32_t), err);
    if (r == 0)
        r = ha_shards_begin(ha_model_shards(decoder->model), HA_WALK_EMBEDDING, 0, 0, err);
    if (r == 0)
        r = decoder->ops->embed_forward(decoder->backend, decoder->x,
                                        &ha_model_weights(decoder->model)->embedding, decoder->ids,
                                        n_embedded, err);
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

int ha_decoder_attend_caches(struct ha_decoder *decoder, int64_t n, struct ha_error *err)
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
        .k_cache = decoder->k_caches,
        .v_cache = decoder->v_caches,
        .lengths = decoder->lengths,
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

int ha_decoder_head(struct ha_decoder *decoder, const void *x, int64_t n, float *logits,
                    struct ha_error *err)
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
    if (r == 0 && logits)
        r = ha_backend_download(decoder->backend, logits, decoder->logits,
                                (size_t)n * (size_t)decoder->config->vocab * sizeof(float), err);
    if (r == 0 && logits)
        r = ha_backend_sync(decoder->backend, err);
    return r;
}

const float *ha_decoder_logits(const struct ha_decoder *decoder)
{
    return decoder->logits;
}

/* ---- a step ---- */

/* One row for each sequence; returns the number of runs of one adapter. */
static int64_t lay_side_by_side(struct ha_decoder *decoder,
                                const struct ha_decoder_sequence *sequences, int64_t n)
{
    int64_t n_spans = 0;

    for (int64_t i = 0; i < n; i++) {
        const struct ha_decoder_sequence *sequence = &sequences[i];

        decoder->host_ids[i] = sequence->ids[0];
        decoder->host_positions[i] = (int32_t)sequence->cache->length;
        decoder->lengths[i] = sequence->cache->length + 1;
        if (n_spans == 0 || decoder->spans[n_spans - 1].adapter != sequence->adapter)
            decoder->spans[n_spans++] = (struct ha_layer_span){sequence->adapter, i, 0};
        decoder->spans[n_spans - 1].count++;
    }
    return n_spans;
}

/* The new key and value of a layer go behind what each cache holds. */
static int append(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                  int64_t n, int64_t layer, struct ha_error *err)
{
    size_t row_bytes = (size_t)decoder->kv_width * ha_dtype_bytes(decoder->act);
    size_t stride = (size_t)decoder->strides.kv * ha_dtype_bytes(decoder->act);
    int r = 0;

    for (int64_t i = 0; r == 0 && i < n; i++) {
        const struct ha_kv_cache *cache = sequences[i].cache;

        decoder->k_caches[i] = ha_kv_cache_row(decoder, cache, layer, 0, 0);
        decoder->v_caches[i] = ha_kv_cache_row(decoder, cache, layer, 1, 0);
        r = ha_backend_copy(decoder->backend,
                            ha_kv_cache_row(decoder, cache, layer, 0, cache->length),
                            (const char *)decoder->k + (size_t)i * stride, row_bytes, err);
        if (r == 0)
            r = ha_backend_copy(decoder->backend,
                                ha_kv_cache_row(decoder, cache, layer, 1, cache->length),
                                (const char *)decoder->v + (size_t)i * stride, row_bytes, err);
    }
    return r;
}

static int step_layer(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                      int64_t n, int64_t n_spans, int64_t layer, struct ha_error *err)
{
    struct ha_layer_context context =
        ha_decoder_context(decoder, layer, n, decoder->spans, n_spans);
    int r = ha_layer_norm(&context, false, decoder->norm, NULL, decoder->x, err);

    if (r == 0)
        r = ha_layer_qkv(&context, decoder->q, decoder->k, decoder->v, decoder->norm, err);
    if (r == 0)
        r = ha_layer_rotate(&context, decoder->q, decoder->k, NULL, NULL, decoder->q, decoder->k,
                            err);
    if (r == 0)
        r = append(decoder, sequences, n, layer, err);
    if (r == 0)
        r = ha_decoder_attend_caches(decoder, n, err);
    return r < 0 ? r : ha_decoder_end_layer(decoder, &context, decoder->x, decoder->norm, err);
}

int ha_decoder_step(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                    int64_t n, float *logits, struct ha_error *err)
{
    struct ha_shards *shards = ha_model_shards(decoder->model);
    int64_t n_spans, n_layers = decoder->config->n_layers;
    int r = ha_decoder_check(decoder, sequences, n, false, err);

    if (r < 0)
        return r;
    n_spans = lay_side_by_side(decoder, sequences, n);
    r = ha_decoder_embed(decoder, n, n, err);
    if (r == 0)
        r = ha_shards_begin(shards, HA_WALK_UP, 0, n_layers, err);
    for (int64_t layer = 0; r == 0 && layer < n_layers; layer++) {
        r = ha_shards_take(shards, layer, err);
        if (r == 0)
            r = step_layer(decoder, sequences, n, n_spans, layer, err);
    }
    if (r == 0)
        r = ha_decoder_head(decoder, decoder->x, n, logits, err);
    for (int64_t i = 0; r == 0 && i < n; i++)
        sequences[i].cache->length++;
    return r;
}
