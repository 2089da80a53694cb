#include "worker/model/layer.h"

#include "common/base/error.h"

/* Device memory is addressed by plain pointers that operations may write to;
 * views of what is only read are views all the same. */
static void *device(const void *data)
{
    return (void *)(uintptr_t)data;
}

struct ha_matrix ha_layer_act(const struct ha_layer_context *context, const void *data,
                              int64_t rows, int64_t cols)
{
    return (struct ha_matrix){
        .data = device(data), .dtype = context->act, .rows = rows, .cols = cols, .stride = cols};
}

/* ---- how they lie ---- */

static int64_t q_width(const struct ha_model_config *config)
{
    return config->n_heads * config->head_dim;
}

static int64_t kv_width(const struct ha_model_config *config)
{
    return config->n_kv_heads * config->head_dim;
}

struct ha_layer_strides ha_layer_strides_of(const struct ha_model_config *config, enum ha_dtype act)
{
    int64_t q = q_width(config), kv = kv_width(config);

    if (act == HA_DTYPE_F32)
        return (struct ha_layer_strides){
            .q = q, .kv = kv, .inner = config->inner, .norm = config->width, .attention = q};
    return (struct ha_layer_strides){.joined = true,
                                     .q = q + 2 * kv,
                                     .kv = q + 2 * kv,
                                     .inner = 2 * config->inner,
                                     .norm = config->width,
                                     .attention = q};
}

/* `cols` elements further. */
static void *behind(void *memory, int64_t cols, enum ha_dtype act)
{
    return memory ? (char *)memory + (size_t)cols * ha_dtype_bytes(act) : NULL;
}

void ha_layer_take_qkv(struct ha_arena *arena, const struct ha_model_config *config,
                       enum ha_dtype act, int64_t rows, void **ret_q, void **ret_k, void **ret_v)
{
    struct ha_layer_strides strides = ha_layer_strides_of(config, act);
    size_t bytes = ha_dtype_bytes(act);

    *ret_q = ha_arena_take(arena, rows, strides.q, bytes);
    *ret_k = strides.joined ? behind(*ret_q, q_width(config), act)
                            : ha_arena_take(arena, rows, strides.kv, bytes);
    if (ret_v)
        *ret_v = strides.joined ? behind(*ret_k, kv_width(config), act)
                                : ha_arena_take(arena, rows, strides.kv, bytes);
}

void ha_layer_take_gate_up(struct ha_arena *arena, const struct ha_model_config *config,
                           enum ha_dtype act, int64_t rows, void **ret_gate, void **ret_up)
{
    struct ha_layer_strides strides = ha_layer_strides_of(config, act);
    size_t bytes = ha_dtype_bytes(act);

    *ret_gate = ha_arena_take(arena, rows, strides.inner, bytes);
    *ret_up = strides.joined ? behind(*ret_gate, config->inner, act)
                             : ha_arena_take(arena, rows, strides.inner, bytes);
}

struct ha_matrix ha_layer_out(const struct ha_layer_context *context, enum ha_module module,
                              const void *data)
{
    const struct ha_layer_strides *strides = &context->strides;
    struct ha_matrix out =
        ha_layer_act(context, data, context->n_rows, context->weights->linear[module].rows);

    out.stride = module == HA_MODULE_Q    ? strides->q
                 : module <= HA_MODULE_V  ? strides->kv
                 : module <= HA_MODULE_UP ? strides->inner
                                          : out.cols;
    return out;
}

/* ---- products ---- */

/* Rows [begin, begin + count) of a view. */
static struct ha_matrix rows_of(const struct ha_matrix *matrix, int64_t begin, int64_t count)
{
    struct ha_matrix rows = *matrix;

    rows.data =
        (char *)matrix->data + (size_t)(begin * matrix->stride) * ha_dtype_bytes(matrix->dtype);
    rows.rows = count;
    return rows;
}

const struct ha_lora *ha_layer_lora_of(const struct ha_layer_context *context,
                                       const struct ha_adapter *adapter, enum ha_module module)
{
    const struct ha_lora *lora = adapter ? ha_adapter_lora(adapter, context->layer, module) : NULL;

    return lora && lora->a.data ? lora : NULL;
}

/* The numbers of layer and module have 10 and 3 bits of a counter's word, the epoch the rest
 * (ha_pass_set_dropout). */
_Static_assert(HA_ADAPTER_MAX_LAYERS <= 1 << 10 && HA_MODULE_COUNT <= 1 << 3,
               "layers and modules do not fit the counters of dropout");

static struct ha_dropout mask_of(const struct ha_layer_context *context, enum ha_module module)
{
    struct ha_dropout mask = context->dropout->mask;

    mask.stream |= (uint32_t)context->layer << 3 | (uint32_t)module;
    return mask;
}

int ha_layer_drop(const struct ha_layer_context *context, enum ha_module module,
                  const struct ha_matrix *x, struct ha_matrix *ret_input, struct ha_error *err)
{
    struct ha_matrix dropped;
    struct ha_dropout mask;
    int r;

    if (!context->dropout) {
        *ret_input = *x;
        return 0;
    }
    mask = mask_of(context, module);
    dropped = ha_layer_act(context, context->dropout->dropped, x->rows, x->cols);
    r = context->ops->dropout(context->backend, dropped.data, x->data, &mask, x->rows, x->cols,
                              dropped.stride, x->stride, false, err);
    if (r == 0)
        *ret_input = dropped;
    return r;
}

int ha_layer_drop_backward(const struct ha_layer_context *context, enum ha_module module,
                           const struct ha_matrix *dx, const struct ha_matrix *u,
                           const struct ha_matrix *a, struct ha_error *err)
{
    struct ha_matrix ua;
    struct ha_dropout mask;
    int r;

    if (!context->dropout)
        return context->ops->gemm(context->backend, dx, u, false, a, false, 1.0f, 1.0f, err);
    mask = mask_of(context, module);
    ua = ha_layer_act(context, context->dropout->dropped, dx->rows, dx->cols);
    r = context->ops->gemm(context->backend, &ua, u, false, a, false, 1.0f, 0.0f, err);
    if (r == 0)
        r = context->ops->dropout(context->backend, dx->data, ua.data, &mask, dx->rows, dx->cols,
                                  dx->stride, ua.stride, true, err);
    return r;
}

/* A x, kept for the backward pass. */
static int lora_input(const struct ha_layer_context *context, const struct ha_lora *lora,
                      enum ha_module module, const struct ha_matrix *x, struct ha_matrix *ret_ax,
                      struct ha_error *err)
{
    struct ha_matrix input;
    int r = ha_layer_drop(context, module, x, &input, err);

    *ret_ax = ha_layer_act(context, context->lora[module], x->rows, lora->a.rows);
    if (r == 0)
        r = context->ops->gemm(context->backend, ret_ax, &input, false, &lora->a, true, 1.0f, 0.0f,
                               err);
    return r;
}

int ha_layer_lora_input(const struct ha_layer_context *context, enum ha_module module,
                        const struct ha_matrix *x, struct ha_error *err)
{
    const struct ha_lora *lora = ha_layer_lora_of(context, context->adapter, module);
    struct ha_matrix ax;

    return lora ? lora_input(context, lora, module, x, &ax, err) : 0;
}

/* out += scale (x A^T) B^T, where the adapter has this module. */
static int add_lora(const struct ha_layer_context *context, const struct ha_adapter *adapter,
                    enum ha_module module, const struct ha_matrix *out, const struct ha_matrix *x,
                    struct ha_error *err)
{
    const struct ha_lora *lora = ha_layer_lora_of(context, adapter, module);
    struct ha_matrix ax;
    int r;

    if (!lora)
        return 0;
    r = lora_input(context, lora, module, x, &ax, err);
    if (r == 0)
        r = context->ops->gemm(context->backend, out, &ax, false, &lora->b, true,
                               ha_adapter_scale(adapter), 1.0f, err);
    return r;
}

/* out = beta * out + x W^T + bias. */
static int product(const struct ha_layer_context *context, const struct ha_matrix *out,
                   const struct ha_matrix *x, const struct ha_matrix *weight,
                   const struct ha_matrix *bias, float beta, struct ha_error *err)
{
    int r = context->ops->gemm(context->backend, out, x, false, weight, true, 1.0f, beta, err);

    if (r == 0 && bias->data)
        r = context->ops->add_bias(context->backend, out->data, bias->data, bias->dtype, out->rows,
                                   out->cols, out->stride, err);
    return r;
}

/* What the adapters add to the module's output: one, or one for each span of rows. */
static int add_adapters(const struct ha_layer_context *context, enum ha_module module,
                        const struct ha_matrix *out, const struct ha_matrix *x,
                        struct ha_error *err)
{
    int r = 0;

    if (!context->spans)
        r = add_lora(context, context->adapter, module, out, x, err);
    for (int64_t i = 0; r == 0 && i < context->n_spans; i++) {
        const struct ha_layer_span *span = &context->spans[i];
        struct ha_matrix out_rows = rows_of(out, span->begin, span->count);
        struct ha_matrix x_rows = rows_of(x, span->begin, span->count);

        r = add_lora(context, span->adapter, module, &out_rows, &x_rows, err);
    }
    return r;
}

int ha_layer_linear(const struct ha_layer_context *context, enum ha_module module,
                    const struct ha_matrix *out, const struct ha_matrix *x, float beta,
                    struct ha_error *err)
{
    struct ha_matrix weight = context->weights->linear[module], in = *x;
    bool widens = ha_layer_has_columns(context, module, module);
    int r = widens ? ha_layer_widen(context, module, module, &weight, &in, err) : 0;

    if (r == 0)
        r = product(context, out, &in, &weight, &context->weights->bias[module], beta, err);
    if (r < 0 || ha_layer_columns_fit(context, module, module))
        return r;
    return add_adapters(context, module, out, x, err);
}

struct ha_matrix ha_layer_joined(const struct ha_layer_context *context, enum ha_module first,
                                 enum ha_module last)
{
    const struct ha_layer_weights *weights = context->weights;
    const struct ha_matrix *whole = first <= HA_MODULE_V ? &weights->qkv : &weights->gate_up;
    int64_t begin = 0, count = 0;

    if (!whole->data || !context->strides.joined)
        return (struct ha_matrix){.data = NULL};
    for (int module = first <= HA_MODULE_V ? HA_MODULE_Q : HA_MODULE_GATE; module <= (int)last;
         module++) {
        begin += module < (int)first ? weights->linear[module].rows : 0;
        count += module < (int)first ? 0 : weights->linear[module].rows;
    }
    return rows_of(whole, begin, count);
}

/* Outputs of modules first..last, where they lie, of the norm's output. */
static int linears(const struct ha_layer_context *context, enum ha_module first,
                   enum ha_module last, void *const out[], const void *norm, struct ha_error *err)
{
    struct ha_matrix x = ha_layer_normed(context, norm), in = x;
    struct ha_matrix joined = ha_layer_joined(context, first, last);
    int r = 0;

    if (joined.data) {
        struct ha_matrix all = ha_layer_out(context, first, out[0]);
        struct ha_matrix bias = context->weights->bias[first];

        /* Biases lie behind each other as well. */
        all.cols = joined.rows;
        if (ha_layer_has_columns(context, first, last))
            r = ha_layer_widen(context, first, last, &joined, &in, err);
        if (r == 0)
            r = product(context, &all, &in, &joined, &bias, 0.0f, err);
        if (r < 0 || ha_layer_columns_fit(context, first, last))
            return r;
    }
    for (int module = (int)first; r == 0 && module <= (int)last; module++) {
        struct ha_matrix one = ha_layer_out(context, (enum ha_module)module, out[module - first]);

        r = joined.data ? add_adapters(context, (enum ha_module)module, &one, &x, err)
                        : ha_layer_linear(context, (enum ha_module)module, &one, &x, 0.0f, err);
    }
    return r;
}

int ha_layer_norm(const struct ha_layer_context *context, bool post, void *norm, float *rstd,
                  const void *x, struct ha_error *err)
{
    const struct ha_matrix *weight =
        post ? &context->weights->post_norm : &context->weights->input_norm;
    int64_t width = context->config->width;

    return context->ops->rmsnorm_forward(context->backend, norm, rstd, x, weight->data,
                                         weight->dtype, context->config->rms_eps, context->n_rows,
                                         1, width, context->strides.norm, width, err);
}

int ha_layer_q(const struct ha_layer_context *context, void *q, const void *norm,
               struct ha_error *err)
{
    return linears(context, HA_MODULE_Q, HA_MODULE_Q, (void *const[]){q}, norm, err);
}

int ha_layer_kv(const struct ha_layer_context *context, void *k, void *v, const void *norm,
                struct ha_error *err)
{
    return linears(context, HA_MODULE_K, HA_MODULE_V, (void *const[]){k, v}, norm, err);
}

int ha_layer_qkv(const struct ha_layer_context *context, void *q, void *k, void *v,
                 const void *norm, struct ha_error *err)
{
    return linears(context, HA_MODULE_Q, HA_MODULE_V, (void *const[]){q, k, v}, norm, err);
}

/* One of q and k: norm where the model has it, then rotate. */
static int rotate(const struct ha_layer_context *context, void *out, float *rstd, const void *x,
                  const struct ha_matrix *norm, int64_t n_heads, int64_t stride,
                  struct ha_error *err)
{
    int64_t head_dim = context->config->head_dim;
    int r = 0;

    if (norm->data)
        r = context->ops->rmsnorm_forward(context->backend, out, rstd, x, norm->data, norm->dtype,
                                          context->config->rms_eps, context->n_rows, n_heads,
                                          head_dim, stride, stride, err);
    if (r == 0)
        r = context->ops->rope(context->backend, out, context->cos_sin, context->positions,
                               context->n_rows, n_heads, head_dim, stride, false, err);
    return r;
}

int ha_layer_rotate_q(const struct ha_layer_context *context, void *q_out, float *q_rstd,
                      const void *q, struct ha_error *err)
{
    return rotate(context, q_out, q_rstd, q, &context->weights->q_norm, context->config->n_heads,
                  context->strides.q, err);
}

int ha_layer_rotate_k(const struct ha_layer_context *context, void *k_out, float *k_rstd,
                      const void *k, struct ha_error *err)
{
    return rotate(context, k_out, k_rstd, k, &context->weights->k_norm, context->config->n_kv_heads,
                  context->strides.kv, err);
}

int ha_layer_rotate(const struct ha_layer_context *context, void *q_out, void *k_out, float *q_rstd,
                    float *k_rstd, const void *q, const void *k, struct ha_error *err)
{
    int r = ha_layer_rotate_q(context, q_out, q_rstd, q, err);

    return r < 0 ? r : ha_layer_rotate_k(context, k_out, k_rstd, k, err);
}

int ha_layer_attention_out(const struct ha_layer_context *context, void *x, const void *attention,
                           struct ha_error *err)
{
    const struct ha_model_config *config = context->config;
    struct ha_matrix out = ha_layer_act(context, x, context->n_rows, config->width);
    struct ha_matrix in = ha_layer_attended(context, attention);

    return ha_layer_linear(context, HA_MODULE_O, &out, &in, 1.0f, err);
}

int ha_layer_gate_up(const struct ha_layer_context *context, void *gate, void *up, const void *norm,
                     struct ha_error *err)
{
    return linears(context, HA_MODULE_GATE, HA_MODULE_UP, (void *const[]){gate, up}, norm, err);
}

int ha_layer_mlp(const struct ha_layer_context *context, void *x, void *gate, void *up, void *inner,
                 const void *norm, struct ha_error *err)
{
    const struct ha_model_config *config = context->config;
    int64_t n = context->n_rows;
    struct ha_matrix in = ha_layer_act(context, inner, n, config->inner);
    struct ha_matrix out = ha_layer_act(context, x, n, config->width);
    int r = ha_layer_gate_up(context, gate, up, norm, err);

    if (r == 0)
        r = context->ops->swiglu_forward(context->backend, inner, gate, up, n, config->inner,
                                         config->inner, context->strides.inner, err);
    if (r == 0)
        r = ha_layer_linear(context, HA_MODULE_DOWN, &out, &in, 1.0f, err);
    return r;
}
