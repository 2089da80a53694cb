#include "worker/model/pass.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/model/arena.h"
#include "worker/model/shards.h"

enum { LOGIT_ROWS = 16 };

static int64_t trained_layers(const struct ha_pass *pass)
{
    return pass->config->n_layers - pass->limits.lowest_layer;
}

static int64_t kept_sets(const struct ha_pass *pass)
{
    int64_t sets = trained_layers(pass) - pass->limits.recomputed_layers;

    return sets > 0 ? sets : 1;
}

static void lay_out_kept(struct ha_pass *pass, struct ha_arena *arena, struct ha_pass_kept *kept,
                         bool backward)
{
    const struct ha_model_config *config = pass->config;
    int64_t t = pass->limits.max_tokens;
    size_t act = ha_dtype_bytes(pass->act);

    kept->mid = backward ? ha_arena_take(arena, t, config->width, act) : NULL;
    ha_layer_take_qkv(arena, config, pass->act, t, &kept->q, &kept->k, &kept->v);
    kept->attention = ha_arena_take(arena, t, pass->strides.attention, act);
    kept->logsumexp = ha_arena_take(arena, config->n_heads, t, sizeof(float));
    kept->rstd = ha_arena_take(arena, t, 1, sizeof(float));
    kept->post_rstd = ha_arena_take(arena, t, 1, sizeof(float));
    kept->q_rstd = config->qk_norm ? ha_arena_take(arena, t, config->n_heads, sizeof(float)) : NULL;
    kept->k_rstd =
        config->qk_norm ? ha_arena_take(arena, t, config->n_kv_heads, sizeof(float)) : NULL;
    ha_layer_take_gate_up(arena, config, pass->act, t, &kept->gate, &kept->up);
    for (int module = 0; module < HA_MODULE_COUNT; module++)
        kept->lora[module] = ha_weights_lora_fits(pass->limits.lora_columns, (enum ha_module)module,
                                                  pass->limits.max_rank)
                                 ? NULL
                                 : ha_arena_take(arena, t, pass->limits.max_rank, act);
    kept->lora_qkv = pass->limits.lora_columns > 0
                         ? ha_arena_take(arena, t, pass->limits.lora_columns, act)
                         : NULL;
}

static void lay_out_head(struct ha_pass *pass, struct ha_arena *arena, bool backward)
{
    int64_t n = pass->limits.max_rows, width = pass->config->width;
    bool statistics = pass->limits.statistics;

    pass->rows = ha_arena_take(arena, n, width, ha_dtype_bytes(pass->act));
    pass->drows = backward ? ha_arena_take(arena, n, width, sizeof(float)) : NULL;
    pass->logp = ha_arena_take(arena, n, 1, sizeof(float));
    pass->entropy = statistics ? ha_arena_take(arena, n, 1, sizeof(float)) : NULL;
    pass->mean_logit = statistics ? ha_arena_take(arena, n, 1, sizeof(float)) : NULL;
    /* Room whether or not they are asked for: a plan does not know the losses. */
    pass->logsumexp = statistics ? ha_arena_take(arena, n, 1, sizeof(float)) : NULL;
    pass->logsumexp2 = statistics ? ha_arena_take(arena, n, 1, sizeof(float)) : NULL;
    pass->argmax = statistics ? ha_arena_take(arena, n, 1, sizeof(int32_t)) : NULL;
}

static void lay_out_backward(struct ha_pass *pass, struct ha_arena *arena)
{
    const struct ha_model_config *config = pass->config;
    int64_t t = pass->limits.max_tokens;
    size_t act = ha_dtype_bytes(pass->act);

    pass->dx = ha_arena_take(arena, t, config->width, act);
    pass->dnorm = ha_arena_take(arena, t, pass->strides.norm, act);
    ha_layer_take_qkv(arena, config, pass->act, t, &pass->dq, &pass->dk, &pass->dv);
    pass->dattention = ha_arena_take(arena, t, pass->strides.attention, act);
    pass->dlora = ha_arena_take(arena, t, pass->limits.max_rank, act);
}

static void lay_out_scratch(struct ha_pass *pass, struct ha_arena *arena)
{
    const struct ha_model_config *config = pass->config;
    int64_t t = pass->limits.max_tokens, q_width = config->n_heads * config->head_dim;
    int64_t widest = q_width > config->width ? q_width : config->width;
    size_t act = ha_dtype_bytes(pass->act);

    pass->ids = ha_arena_take(arena, t, 1, sizeof(int32_t));
    pass->positions = ha_arena_take(arena, t, 1, sizeof(int32_t));
    pass->targets = ha_arena_take(arena, pass->limits.max_rows, 1, sizeof(int32_t));
    pass->norm = ha_arena_take(arena, t, pass->strides.norm, act);
    if (pass->limits.lora_columns > 0)
        pass->lora_a = ha_arena_take(arena, pass->limits.lora_columns, widest, act);
    if (pass->limits.dropout_width > 0) {
        pass->dropout.dropped = ha_arena_take(arena, t, pass->limits.dropout_width, act);
        pass->places = ha_arena_take(arena, t, 2, sizeof(uint32_t));
    }
    pass->inner = ha_arena_take(arena, t, config->inner, act);
    /* Gradients of q and k have their strides, so that they have those of q, k and v. */
    if (config->qk_norm)
        ha_layer_take_qkv(arena, config, pass->act, t, &pass->q_rotated, &pass->k_rotated, NULL);
    pass->final_rstd = ha_arena_take(arena, t, 1, sizeof(float));
    if (trained_layers(pass) > 0)
        lay_out_backward(pass, arena);
}

/* Every pointer of the arena. */
static void lay_out(struct ha_pass *pass, struct ha_arena *arena, struct ha_pass_sizes *ret_sizes)
{
    int64_t s = trained_layers(pass), n_kept = kept_sets(pass);
    size_t at[4];

    for (int64_t i = 0; i <= s; i++)
        pass->x[i] = ha_arena_take(arena, pass->limits.max_tokens, pass->config->width,
                                   ha_dtype_bytes(pass->act));
    at[0] = arena->bytes;
    for (int64_t i = 0; i < n_kept; i++)
        lay_out_kept(pass, arena, &pass->kept[i], s > 0);
    at[1] = arena->bytes;
    lay_out_scratch(pass, arena);
    at[2] = arena->bytes;
    lay_out_head(pass, arena, s > 0);
    at[3] = arena->bytes;
    *ret_sizes = (struct ha_pass_sizes){.residual = (int64_t)at[0],
                                        .kept = (int64_t)(at[1] - at[0]),
                                        .scratch = (int64_t)(at[2] - at[1]),
                                        .head = (int64_t)(at[3] - at[2]),
                                        .total = (int64_t)at[3]};
}

/* A pass without an arena: what both the plan and the real one begin with. */
static int begin_pass(const struct ha_model_config *config, enum ha_dtype activation,
                      const struct ha_pass_limits *limits, struct ha_pass **ret_pass,
                      struct ha_error *err)
{
    struct ha_pass *pass;
    int64_t s = config->n_layers - limits->lowest_layer;

    if (limits->max_tokens < 1 || limits->max_tokens > INT32_MAX || limits->max_rows < 0 ||
        limits->max_rows > INT32_MAX || limits->max_rank < 0 ||
        limits->max_rank > HA_ADAPTER_MAX_RANK || limits->dropout_width < 0 ||
        limits->dropout_width > HA_DROPOUT_MAX_COLS || limits->lowest_layer < 0 || s < 0 ||
        limits->recomputed_layers < 0 || limits->recomputed_layers > (s > 0 ? s - 1 : 0) ||
        limits->lora_columns < 0 || limits->lora_columns > HA_ADAPTER_MAX_RANK)
        return ha_error_set(err, EINVAL, "the limits of a pass are out of range");
    pass = ha_calloc(1, sizeof(*pass));
    if (!pass)
        return ha_error_set(err, ENOMEM, "no memory for a pass");
    pass->config = config;
    pass->limits = *limits;
    pass->act = activation;
    pass->strides = ha_layer_strides_of(config, activation);
    pass->strides.norm += limits->lora_columns;
    pass->strides.attention += limits->lora_columns;
    pass->border = -1;
    pass->x = ha_calloc(s + 1, sizeof(void *));
    pass->kept = ha_calloc(kept_sets(pass), sizeof(*pass->kept));
    if (!pass->x || !pass->kept) {
        ha_pass_destroy(pass);
        return ha_error_set(err, ENOMEM, "no memory for a pass");
    }
    *ret_pass = pass;
    return 0;
}

static int measure(struct ha_pass *pass, struct ha_pass_sizes *ret_sizes, struct ha_error *err)
{
    struct ha_arena arena = {0};
    struct ha_pass_sizes sizes;

    lay_out(pass, &arena, &sizes);
    if (arena.overflow)
        return ha_error_set(err, EOVERFLOW,
                            "a pass of %lld tokens needs more memory than can be addressed",
                            (long long)pass->limits.max_tokens);
    *ret_sizes = sizes;
    return 0;
}

int ha_pass_plan(const struct ha_model_config *config, enum ha_dtype activation,
                 const struct ha_pass_limits *limits, struct ha_pass_sizes *ret_sizes,
                 struct ha_error *err)
{
    struct ha_pass *pass;
    int r = begin_pass(config, activation, limits, &pass, err);

    if (r < 0)
        return r;
    r = measure(pass, ret_sizes, err);
    ha_pass_destroy(pass);
    return r;
}

int ha_pass_plan_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                       const struct ha_pass_limits *limits, int64_t *ret_bytes,
                       struct ha_error *err)
{
    struct ha_pass_sizes sizes;
    int r = ha_pass_plan(config, activation, limits, &sizes, err);

    if (r == 0)
        *ret_bytes = sizes.total;
    return r;
}

static int allocate_host(struct ha_pass *pass, struct ha_error *err)
{
    int64_t n = pass->limits.max_rows;
    struct ha_pass_rows *host = &pass->host;

    host->logp = ha_calloc(n, sizeof(float));
    if (pass->limits.statistics) {
        host->entropy = ha_calloc(n, sizeof(float));
        host->mean_logit = ha_calloc(n, sizeof(float));
        host->argmax = ha_calloc(n, sizeof(int32_t));
    }
    if (pass->limits.logsumexps) {
        host->logsumexp = ha_calloc(n, sizeof(float));
        host->logsumexp2 = ha_calloc(n, sizeof(float));
    }
    if (pass->limits.dropout_width > 0)
        pass->host_places = ha_calloc(pass->limits.max_tokens, 2 * sizeof(uint32_t));
    if (!host->logp || (pass->limits.dropout_width > 0 && !pass->host_places) ||
        (pass->limits.statistics && (!host->entropy || !host->mean_logit || !host->argmax)) ||
        (pass->limits.logsumexps && (!host->logsumexp || !host->logsumexp2)))
        return ha_error_set(err, ENOMEM, "no memory for the results of a pass");
    return 0;
}

int ha_pass_create(struct ha_model *model, const struct ha_pass_limits *limits,
                   struct ha_pass **ret_pass, struct ha_error *err)
{
    struct ha_backend *backend = ha_model_backend(model);
    struct ha_arena arena = {0};
    struct ha_pass *pass;
    struct ha_pass_sizes sizes = {0};
    struct ha_pass_limits own = *limits;
    int r;

    own.lora_columns = ha_model_weights(model)->lora_columns;
    r = begin_pass(ha_model_config(model), ha_backend_activation_dtype(backend), &own, &pass, err);
    if (r < 0)
        return r;
    pass->model = model;
    pass->backend = backend;
    pass->ops = ha_backend_ops(backend);
    r = allocate_host(pass, err);
    if (r == 0)
        r = measure(pass, &sizes, err);
    if (r == 0)
        r = ha_backend_alloc(backend, (size_t)sizes.total, &pass->arena, err);
    if (r < 0) {
        ha_pass_destroy(pass);
        return r;
    }
    arena.base = pass->arena;
    lay_out(pass, &arena, &sizes);
    *ret_pass = pass;
    return 0;
}

void ha_pass_destroy(struct ha_pass *pass)
{
    if (!pass)
        return;
    if (pass->arena)
        ha_backend_free(pass->backend, pass->arena);
    free((void *)(uintptr_t)pass->host.logp);
    free((void *)(uintptr_t)pass->host.entropy);
    free((void *)(uintptr_t)pass->host.mean_logit);
    free((void *)(uintptr_t)pass->host.logsumexp);
    free((void *)(uintptr_t)pass->host.logsumexp2);
    free((void *)(uintptr_t)pass->host.argmax);
    free(pass->host_places);
    free(pass->kept);
    free(pass->x);
    free(pass);
}

void *ha_pass_x(const struct ha_pass *pass, int64_t border)
{
    int64_t i = border - pass->limits.lowest_layer;

    return pass->x[i > 0 ? i : 0];
}

struct ha_pass_kept *ha_pass_kept(const struct ha_pass *pass, int64_t layer)
{
    int64_t i = layer - pass->limits.lowest_layer - pass->limits.recomputed_layers;

    return &pass->kept[i > 0 ? i : 0];
}

size_t ha_pass_act_bytes(const struct ha_pass *pass, int64_t cols)
{
    return (size_t)pass->pack->n_tokens * (size_t)cols * ha_dtype_bytes(pass->act);
}

struct ha_layer_context ha_pass_context(const struct ha_pass *pass,
                                        const struct ha_adapter *adapter, int64_t layer)
{
    struct ha_layer_context context = {
        .backend = pass->backend,
        .ops = pass->ops,
        .config = pass->config,
        .weights = &ha_model_weights(pass->model)->layers[layer],
        .adapter = adapter,
        .dropout = pass->drops ? &pass->dropout : NULL,
        .layer = layer,
        .act = pass->act,
        .strides = pass->strides,
        .cos_sin = pass->cos_sin,
        .positions = pass->positions,
        .n_rows = pass->pack->n_tokens,
        .lora_columns = pass->limits.lora_columns,
        .lora_a = pass->lora_a,
        .lora_qkv = ha_pass_kept(pass, layer)->lora_qkv,
    };

    memcpy(context.lora, ha_pass_kept(pass, layer)->lora, sizeof(context.lora));
    return context;
}

struct ha_attention ha_pass_attention(const struct ha_pass *pass)
{
    const struct ha_model_config *config = pass->config;

    return (struct ha_attention){
        .n_tokens = pass->pack->n_tokens,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .scale = (float)(1.0 / sqrt((double)config->head_dim)),
        .q_stride = pass->strides.q,
        .k_stride = pass->strides.kv,
        .v_stride = pass->strides.kv,
        .out_stride = pass->strides.attention,
        .segments = pass->pack->segments,
        .n_segments = pass->pack->n_segments,
    };
}

/* Ids outside the vocabulary would read outside the tables. */
static int check_pack(const struct ha_pass *pass, const struct ha_pack *pack,
                      int64_t *ret_n_positions, struct ha_error *err)
{
    int64_t vocab = pass->config->vocab, n_positions = 1;

    if (pack->n_tokens > pass->limits.max_tokens)
        return ha_error_set(err, EINVAL, "a pack of %lld tokens does not fit a pass of %lld",
                            (long long)pack->n_tokens, (long long)pass->limits.max_tokens);
    if (pack->n_rows > pass->limits.max_rows)
        return ha_error_set(err, EINVAL, "a pack of %lld rows does not fit a pass of %lld",
                            (long long)pack->n_rows, (long long)pass->limits.max_rows);
    for (int64_t i = 0; i < pack->n_tokens; i++) {
        if (pack->ids[i] < 0 || pack->ids[i] >= vocab)
            return ha_error_set(err, EINVAL,
                                "token id %d is not in the model's vocabulary of %lld; tokenizer "
                                "and model do not belong together",
                                (int)pack->ids[i], (long long)vocab);
        if (pack->positions[i] >= n_positions)
            n_positions = (int64_t)pack->positions[i] + 1;
    }
    for (int64_t i = 0; i < pack->n_rows; i++) {
        if (pack->row_target[i] < 0 || pack->row_target[i] >= vocab)
            return ha_error_set(err, EINVAL, "token id %d is not in the model's vocabulary of %lld",
                                (int)pack->row_target[i], (long long)vocab);
    }
    *ret_n_positions = n_positions;
    return 0;
}

int ha_pass_begin(struct ha_pass *pass, const struct ha_pack *pack, struct ha_error *err)
{
    int64_t n_positions = 0;
    size_t token_bytes, row_bytes;
    int r = check_pack(pass, pack, &n_positions, err);

    pass->border = -1;
    pass->has_gradient = false;
    pass->drops = false;
    if (r < 0)
        return r;
    token_bytes = (size_t)pack->n_tokens * sizeof(int32_t);
    row_bytes = (size_t)pack->n_rows * sizeof(int32_t);
    pass->pack = pack;
    r = ha_model_rope_table(pass->model, n_positions, &pass->cos_sin, err);
    if (r == 0)
        r = ha_backend_upload(pass->backend, pass->ids, pack->ids, token_bytes, err);
    if (r == 0)
        r = ha_backend_upload(pass->backend, pass->positions, pack->positions, token_bytes, err);
    if (r == 0 && row_bytes > 0)
        r = ha_backend_upload(pass->backend, pass->targets, pack->row_target, row_bytes, err);
    return r;
}

int ha_pass_embed(struct ha_pass *pass, struct ha_error *err)
{
    int r = ha_shards_begin(ha_model_shards(pass->model), HA_WALK_EMBEDDING, 0, 0, err);

    if (r == 0)
        r = pass->ops->embed_forward(pass->backend, ha_pass_x(pass, 0),
                                     &ha_model_weights(pass->model)->embedding, pass->ids,
                                     pass->pack->n_tokens, err);
    if (r == 0)
        pass->border = 0;
    return r;
}

int ha_pass_get_hidden(struct ha_pass *pass, void *hidden, struct ha_error *err)
{
    if (pass->border < 0)
        return ha_error_set(err, EINVAL, "the pass has no hidden state yet");
    return ha_backend_copy(pass->backend, hidden, ha_pass_x(pass, pass->border),
                           ha_pass_act_bytes(pass, pass->config->width), err);
}

int ha_pass_set_hidden(struct ha_pass *pass, const void *hidden, int64_t from, struct ha_error *err)
{
    int r;

    if (from < 0 || from > pass->config->n_layers)
        return ha_error_set(err, EINVAL, "layer %lld is out of range", (long long)from);
    r = ha_backend_copy(pass->backend, ha_pass_x(pass, from), hidden,
                        ha_pass_act_bytes(pass, pass->config->width), err);
    if (r == 0)
        pass->border = from;
    return r;
}

/* ---- the head ---- */

/* What both kinds of head begin with. */
static int final_norm(struct ha_pass *pass, struct ha_error *err)
{
    const struct ha_matrix *weight = &ha_model_weights(pass->model)->final_norm;
    int64_t width = pass->config->width;

    int r;

    if (pass->border != pass->config->n_layers)
        return ha_error_set(err, EINVAL, "the head runs after the last layer");
    r = ha_shards_begin(ha_model_shards(pass->model), HA_WALK_HEAD, 0, 0, err);
    if (r < 0)
        return r;
    return pass->ops->rmsnorm_forward(
        pass->backend, pass->norm, pass->final_rstd, ha_pass_x(pass, pass->border), weight->data,
        weight->dtype, pass->config->rms_eps, pass->pack->n_tokens, 1, width, width, width, err);
}

static int download_rows(struct ha_pass *pass, struct ha_error *err)
{
    size_t bytes = (size_t)pass->pack->n_rows * sizeof(float);
    struct {
        const void *host, *device;
    } results[] = {
        {pass->host.logp, pass->logp},
        {pass->host.entropy, pass->entropy},
        {pass->host.mean_logit, pass->mean_logit},
        {pass->host.logsumexp, pass->logsumexp},
        {pass->host.logsumexp2, pass->logsumexp2},
        {pass->host.argmax, pass->argmax},
    };

    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        int r = results[i].host && bytes > 0
                    ? ha_backend_download(pass->backend, (void *)(uintptr_t)results[i].host,
                                          results[i].device, bytes, err)
                    : 0;

        if (r < 0)
            return r;
    }
    return ha_backend_sync(pass->backend, err);
}

int ha_pass_head(struct ha_pass *pass, bool gradient, struct ha_pass_rows *ret_rows,
                 struct ha_error *err)
{
    const struct ha_pack *pack = pass->pack;
    int64_t width = pass->config->width;
    struct ha_head head;
    int r;

    if (gradient && !pass->drows)
        return ha_error_set(err, EINVAL, "the pass was made without a backward pass");
    pass->has_gradient = false;
    r = final_norm(pass, err);
    if (r == 0)
        r = pass->ops->gather_rows(pass->backend, pass->rows, pass->norm, pack->row_token,
                                   pack->n_rows, width, err);
    if (r < 0)
        return r;
    head = (struct ha_head){
        .hidden = pass->rows,
        .hidden_stride = width,
        .weight = ha_model_weights(pass->model)->head,
        .targets = pass->targets,
        .n_rows = pack->n_rows,
        .width = width,
        .round_logits_bf16 = pass->limits.round_logits_bf16,
        .logp = pass->logp,
        .entropy = pass->entropy,
        .mean_logit = pass->mean_logit,
        .logsumexp = pass->host.logsumexp ? pass->logsumexp : NULL,
        .logsumexp2 = pass->host.logsumexp2 ? pass->logsumexp2 : NULL,
        .argmax = pass->argmax,
        .dhidden = gradient ? pass->drows : NULL,
    };
    r = pass->ops->head(pass->backend, &head, err);
    if (r == 0)
        r = download_rows(pass, err);
    if (r < 0)
        return r;
    pass->has_gradient = gradient;
    pass->host.n_rows = pack->n_rows;
    *ret_rows = pass->host;
    return 0;
}

int ha_pass_logits(struct ha_pass *pass, const int64_t *token, int64_t n, float *logits,
                   struct ha_error *err)
{
    int64_t width = pass->config->width, vocab = pass->config->vocab;
    size_t row_bytes = (size_t)vocab * sizeof(float);
    void *device = NULL;
    int r;

    if (n > pass->limits.max_rows)
        return ha_error_set(err, EINVAL, "logits of %lld tokens do not fit a pass of %lld rows",
                            (long long)n, (long long)pass->limits.max_rows);
    r = final_norm(pass, err);
    if (r == 0)
        r = pass->ops->gather_rows(pass->backend, pass->rows, pass->norm, token, n, width, err);
    if (r == 0)
        r = ha_backend_alloc(pass->backend, LOGIT_ROWS * row_bytes, &device, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; r == 0 && i < n; i += LOGIT_ROWS) {
        int64_t count = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        const char *rows =
            (const char *)pass->rows + (size_t)(i * width) * ha_dtype_bytes(pass->act);

        r = pass->ops->logits(pass->backend, device, rows, &ha_model_weights(pass->model)->head,
                              count, width, err);
        if (r == 0)
            r = ha_backend_download(pass->backend, logits + i * vocab, device,
                                    (size_t)count * row_bytes, err);
    }
    if (r == 0)
        r = ha_backend_sync(pass->backend, err);
    ha_backend_free(pass->backend, device);
    return r;
}
