#include "worker/model/decode.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/model/arena.h"
#include "worker/model/layer.h"

/* One block: [layer][keys, values][n_positions][n_kv_heads * D] of act. */
struct ha_kv_cache {
    struct ha_backend *backend;
    void *memory;
    int64_t n_positions; /* room */
    int64_t length;      /* tokens held */
};

struct ha_decoder {
    struct ha_model *model;
    struct ha_backend *backend;
    const struct ha_ops *ops;
    const struct ha_model_config *config;
    struct ha_decoder_limits limits;
    enum ha_dtype act;
    int64_t q_width, kv_width;
    void *arena;

    /* Device; T = tokens of the largest call. */
    int32_t *ids, *positions; /* (T) */
    void *x, *norm;           /* act (T, H) */
    void *q, *k, *v;          /* act (T, heads * D) */
    void *attention;          /* act (T, n_heads * D) */
    void *gate, *up, *inner;  /* act (T, inner) */
    void *lora;               /* act (T, max rank) */
    void *last;               /* act (max_sequences, H): final state of each last token */
    float *logits;            /* (max_sequences, V) */

    /* Host, for the call in work. */
    int32_t *host_ids, *host_positions; /* (T) */
    struct ha_segment *segments;        /* (max_sequences), and so are the others */
    struct ha_layer_span *spans;
    int64_t *last_token, *lengths;
    const void **k_caches, **v_caches;
};

/* ---- caches ---- */

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
    cache->length = 0;
}

/* Row `position` of the keys (part 0) or values (part 1) of a layer. */
static void *cache_row(const struct ha_decoder *decoder, const struct ha_kv_cache *cache,
                       int64_t layer, int part, int64_t position)
{
    int64_t row = (2 * layer + part) * cache->n_positions + position;

    return (char *)cache->memory + (size_t)(row * decoder->kv_width) * ha_dtype_bytes(decoder->act);
}

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
    decoder->q = ha_arena_take(arena, t, decoder->q_width, act);
    decoder->k = ha_arena_take(arena, t, decoder->kv_width, act);
    decoder->v = ha_arena_take(arena, t, decoder->kv_width, act);
    decoder->attention = ha_arena_take(arena, t, decoder->q_width, act);
    decoder->gate = ha_arena_take(arena, t, config->inner, act);
    decoder->up = ha_arena_take(arena, t, config->inner, act);
    decoder->inner = ha_arena_take(arena, t, config->inner, act);
    decoder->lora = ha_arena_take(arena, t, decoder->limits.max_rank, act);
    decoder->last = ha_arena_take(arena, n, config->width, act);
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
    decoder->q_width = config->n_heads * config->head_dim;
    decoder->kv_width = kv_width(config);
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
    decoder->last_token = ha_calloc(n, sizeof(*decoder->last_token));
    decoder->lengths = ha_calloc(n, sizeof(*decoder->lengths));
    decoder->k_caches = ha_calloc(n, sizeof(*decoder->k_caches));
    decoder->v_caches = ha_calloc(n, sizeof(*decoder->v_caches));
    if (!decoder->host_ids || !decoder->host_positions || !decoder->segments || !decoder->spans ||
        !decoder->last_token || !decoder->lengths || !decoder->k_caches || !decoder->v_caches)
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
    free(decoder->last_token);
    free(decoder->lengths);
    free(decoder->k_caches);
    free(decoder->v_caches);
    free(decoder);
}

/* ---- a call ---- */

/* The tokens of one call and how its layers attend. */
struct call {
    const struct ha_decoder_sequence *sequences;
    int64_t n;
    bool prefill;
    int64_t n_tokens, n_spans;
    const float *cos_sin;
};

static int check_sequence(const struct ha_decoder *decoder, const struct call *call, int64_t i,
                          struct ha_error *err)
{
    const struct ha_decoder_sequence *sequence = &call->sequences[i];
    const struct ha_kv_cache *cache = sequence->cache;
    int64_t rank = sequence->adapter ? ha_adapter_settings(sequence->adapter)->rank : 0;

    if (sequence->n_ids < 1 ||
        (call->prefill ? cache->length != 0 : sequence->n_ids != 1 || cache->length == 0))
        return ha_error_set(err, EINVAL, "sequence %lld: %lld tokens after %lld cannot run as a %s",
                            (long long)i, (long long)sequence->n_ids, (long long)cache->length,
                            call->prefill ? "prompt" : "step");
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

static int check_call(const struct ha_decoder *decoder, const struct call *call,
                      struct ha_error *err)
{
    int64_t limit =
        call->prefill ? decoder->limits.max_prompt_tokens : decoder->limits.max_sequences;
    int64_t n_tokens = 0;

    if (call->n < 1 || call->n > decoder->limits.max_sequences)
        return ha_error_set(err, EINVAL, "%lld sequences do not fit a decoder of %lld",
                            (long long)call->n, (long long)decoder->limits.max_sequences);
    for (int64_t i = 0; i < call->n; i++) {
        int r = check_sequence(decoder, call, i, err);

        if (r < 0)
            return r;
        if (call->sequences[i].n_ids > limit - n_tokens)
            return ha_error_set(err, EINVAL, "more than the decoder's %lld tokens in one call",
                                (long long)limit);
        n_tokens += call->sequences[i].n_ids;
    }
    return 0;
}

/* Lay the sequences side by side: ids, positions, segments, runs of one adapter. */
static void lay_side_by_side(struct ha_decoder *decoder, struct call *call)
{
    for (int64_t i = 0; i < call->n; i++) {
        const struct ha_decoder_sequence *sequence = &call->sequences[i];
        int64_t begin = call->n_tokens;

        for (int64_t t = 0; t < sequence->n_ids; t++) {
            decoder->host_ids[begin + t] = sequence->ids[t];
            decoder->host_positions[begin + t] = (int32_t)(sequence->cache->length + t);
        }
        if (call->n_spans == 0 || decoder->spans[call->n_spans - 1].adapter != sequence->adapter)
            decoder->spans[call->n_spans++] = (struct ha_layer_span){sequence->adapter, begin, 0};
        decoder->spans[call->n_spans - 1].count += sequence->n_ids;
        decoder->segments[i] = (struct ha_segment){.begin = begin, .length = sequence->n_ids};
        decoder->lengths[i] = sequence->cache->length + sequence->n_ids;
        call->n_tokens += sequence->n_ids;
        decoder->last_token[i] = call->n_tokens - 1;
    }
}

static int begin_call(struct ha_decoder *decoder, struct call *call, struct ha_error *err)
{
    int64_t n_positions = 0;
    size_t bytes;
    int r = check_call(decoder, call, err);

    if (r < 0)
        return r;
    lay_side_by_side(decoder, call);
    for (int64_t i = 0; i < call->n; i++)
        n_positions = decoder->lengths[i] > n_positions ? decoder->lengths[i] : n_positions;
    bytes = (size_t)call->n_tokens * sizeof(int32_t);
    r = ha_model_rope_table(decoder->model, n_positions, &call->cos_sin, err);
    if (r == 0)
        r = ha_backend_upload(decoder->backend, decoder->ids, decoder->host_ids, bytes, err);
    if (r == 0)
        r = ha_backend_upload(decoder->backend, decoder->positions, decoder->host_positions, bytes,
                              err);
    if (r == 0)
        r = decoder->ops->embed_forward(decoder->backend, decoder->x,
                                        &ha_model_weights(decoder->model)->embedding, decoder->ids,
                                        call->n_tokens, err);
    return r;
}

/* New keys and values of a layer go behind what each cache holds. */
static int append(struct ha_decoder *decoder, const struct call *call, int64_t layer,
                  struct ha_error *err)
{
    size_t row_bytes = (size_t)decoder->kv_width * ha_dtype_bytes(decoder->act);
    int r = 0;

    for (int64_t i = 0; r == 0 && i < call->n; i++) {
        const struct ha_decoder_sequence *sequence = &call->sequences[i];
        size_t from = (size_t)decoder->segments[i].begin * row_bytes;
        size_t bytes = (size_t)sequence->n_ids * row_bytes;
        int64_t position = sequence->cache->length;

        r = ha_backend_copy(decoder->backend,
                            cache_row(decoder, sequence->cache, layer, 0, position),
                            (const char *)decoder->k + from, bytes, err);
        if (r == 0)
            r = ha_backend_copy(decoder->backend,
                                cache_row(decoder, sequence->cache, layer, 1, position),
                                (const char *)decoder->v + from, bytes, err);
    }
    return r;
}

static int attend(struct ha_decoder *decoder, const struct call *call, int64_t layer,
                  struct ha_error *err)
{
    const struct ha_model_config *config = decoder->config;
    float scale = (float)(1.0 / sqrt((double)config->head_dim));

    if (call->prefill) {
        struct ha_attention shape = {
            .n_tokens = call->n_tokens,
            .n_heads = config->n_heads,
            .n_kv_heads = config->n_kv_heads,
            .head_dim = config->head_dim,
            .scale = scale,
            .q_stride = decoder->q_width,
            .k_stride = decoder->kv_width,
            .v_stride = decoder->kv_width,
            .out_stride = decoder->q_width,
            .segments = decoder->segments,
            .n_segments = call->n,
        };

        return decoder->ops->attention_forward(decoder->backend, decoder->attention, NULL,
                                               decoder->q, decoder->k, decoder->v, &shape, err);
    }
    for (int64_t i = 0; i < call->n; i++) {
        decoder->k_caches[i] = cache_row(decoder, call->sequences[i].cache, layer, 0, 0);
        decoder->v_caches[i] = cache_row(decoder, call->sequences[i].cache, layer, 1, 0);
    }
    return decoder->ops->decode_attention(decoder->backend, decoder->attention, decoder->q,
                                          &(struct ha_decode_attention){
                                              .n_rows = call->n,
                                              .n_heads = config->n_heads,
                                              .n_kv_heads = config->n_kv_heads,
                                              .head_dim = config->head_dim,
                                              .scale = scale,
                                              .q_stride = decoder->q_width,
                                              .out_stride = decoder->q_width,
                                              .k_cache = decoder->k_caches,
                                              .v_cache = decoder->v_caches,
                                              .lengths = decoder->lengths,
                                          },
                                          err);
}

static int run_layer(struct ha_decoder *decoder, const struct call *call, int64_t layer,
                     struct ha_error *err)
{
    struct ha_layer_context context = {
        .backend = decoder->backend,
        .ops = decoder->ops,
        .config = decoder->config,
        .weights = &ha_model_weights(decoder->model)->layers[layer],
        .spans = decoder->spans,
        .n_spans = call->n_spans,
        .layer = layer,
        .act = decoder->act,
        .cos_sin = call->cos_sin,
        .positions = decoder->positions,
        .n_rows = call->n_tokens,
    };
    int r;

    for (int module = 0; module < HA_MODULE_COUNT; module++)
        context.lora[module] = decoder->lora;
    r = ha_layer_norm(&context, false, decoder->norm, NULL, decoder->x, err);
    if (r == 0)
        r = ha_layer_qkv(&context, decoder->q, decoder->k, decoder->v, decoder->norm, err);
    if (r == 0)
        r = ha_layer_rotate(&context, decoder->q, decoder->k, NULL, NULL, decoder->q, decoder->k,
                            err);
    if (r == 0)
        r = append(decoder, call, layer, err);
    if (r == 0)
        r = attend(decoder, call, layer, err);
    if (r == 0)
        r = ha_layer_attention_out(&context, decoder->x, decoder->attention, err);
    if (r == 0)
        r = ha_layer_norm(&context, true, decoder->norm, NULL, decoder->x, err);
    if (r == 0)
        r = ha_layer_mlp(&context, decoder->x, decoder->gate, decoder->up, decoder->inner,
                         decoder->norm, err);
    return r;
}

/* Logits of the last token of each sequence. */
static int finish_call(struct ha_decoder *decoder, const struct call *call, float *logits,
                       struct ha_error *err)
{
    const struct ha_weights *weights = ha_model_weights(decoder->model);
    int64_t width = decoder->config->width;
    int r = decoder->ops->gather_rows(decoder->backend, decoder->last, decoder->x,
                                      decoder->last_token, call->n, width, err);

    if (r == 0)
        r = decoder->ops->rmsnorm_forward(decoder->backend, decoder->last, NULL, decoder->last,
                                          weights->final_norm.data, weights->final_norm.dtype,
                                          decoder->config->rms_eps, call->n, 1, width, width, width,
                                          err);
    if (r == 0)
        r = decoder->ops->logits(decoder->backend, decoder->logits, decoder->last, &weights->head,
                                 call->n, width, err);
    if (r == 0)
        r = ha_backend_download(decoder->backend, logits, decoder->logits,
                                (size_t)call->n * (size_t)decoder->config->vocab * sizeof(float),
                                err);
    if (r == 0)
        r = ha_backend_sync(decoder->backend, err);
    return r;
}

static int run(struct ha_decoder *decoder, struct call *call, float *logits, struct ha_error *err)
{
    int r = begin_call(decoder, call, err);

    for (int64_t layer = 0; r == 0 && layer < decoder->config->n_layers; layer++)
        r = run_layer(decoder, call, layer, err);
    if (r == 0)
        r = finish_call(decoder, call, logits, err);
    for (int64_t i = 0; r == 0 && i < call->n; i++)
        call->sequences[i].cache->length += call->sequences[i].n_ids;
    return r;
}

int ha_decoder_prefill(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                       int64_t n, float *logits, struct ha_error *err)
{
    struct call call = {.sequences = sequences, .n = n, .prefill = true};

    return run(decoder, &call, logits, err);
}

int ha_decoder_step(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                    int64_t n, float *logits, struct ha_error *err)
{
    struct call call = {.sequences = sequences, .n = n};

    return run(decoder, &call, logits, err);
}
