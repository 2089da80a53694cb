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

/* Rows [begin, begin + count) of a view. */
static struct ha_matrix rows_of(const struct ha_matrix *matrix, int64_t begin, int64_t count)
{
    struct ha_matrix rows = *matrix;

    rows.data =
        (char *)matrix->data + (size_t)(begin * matrix->stride) * ha_dtype_bytes(matrix->dtype);
    rows.rows = count;
    return rows;
}

static const struct ha_lora *lora_of(const struct ha_layer_context *context,
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
    const struct ha_lora *lora = lora_of(context, context->adapter, module);
    struct ha_matrix ax;

    return lora ? lora_input(context, lora, module, x, &ax, err) : 0;
}

/* out += scale (x A^T) B^T, where the adapter has this module. */
static int add_lora(const struct ha_layer_context *context, const struct ha_adapter *adapter,
                    enum ha_module module, const struct ha_matrix *out, const struct ha_matrix *x,
                    struct ha_error *err)
{
    const struct ha_lora *lora = lora_of(context, adapter, module);
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

int ha_layer_linear(const struct ha_layer_context *context, enum ha_module module,
                    const struct ha_matrix *out, const struct ha_matrix *x, float beta,
                    struct ha_error *err)
{
    const struct ha_ops *ops = context->ops;
    const struct ha_matrix *bias = &context->weights->bias[module];
    int r = ops->gemm(context->backend, out, x, false, &context->weights->linear[module], true,
                      1.0f, beta, err);

    if (r == 0 && bias->data)
        r = ops->add_bias(context->backend, out->data, bias->data, bias->dtype, out->rows,
                          out->cols, out->stride, err);
    if (r == 0 && !context->spans)
        r = add_lora(context, context->adapter, module, out, x, err);
    for (int64_t i = 0; r == 0 && i < context->n_spans; i++) {
        const struct ha_layer_span *span = &context->spans[i];
        struct ha_matrix out_rows = rows_of(out, span->begin, span->count);
        struct ha_matrix x_rows = rows_of(x, span->begin, span->count);

        r = add_lora(context, span->adapter, module, &out_rows, &x_rows, err);
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
                                         1, width, width, width, err);
}

int ha_layer_q(const struct ha_layer_context *context, void *q, const void *norm,
               struct ha_error *err)
{
    const struct ha_model_config *config = context->config;
    int64_t n = context->n_rows;
    struct ha_matrix x = ha_layer_act(context, norm, n, config->width);
    struct ha_matrix out = ha_layer_act(context, q, n, config->n_heads * config->head_dim);

    return ha_layer_linear(context, HA_MODULE_Q, &out, &x, 0.0f, err);
}

int ha_layer_kv(const struct ha_layer_context *context, void *k, void *v, const void *norm,
                struct ha_error *err)
{
    const struct ha_model_config *config = context->config;
    int64_t n = context->n_rows, kv_width = config->n_kv_heads * config->head_dim;
    struct ha_matrix x = ha_layer_act(context, norm, n, config->width);
    struct ha_matrix k_out = ha_layer_act(context, k, n, kv_width);
    struct ha_matrix v_out = ha_layer_act(context, v, n, kv_width);
    int r = ha_layer_linear(context, HA_MODULE_K, &k_out, &x, 0.0f, err);

    return r < 0 ? r : ha_layer_linear(context, HA_MODULE_V, &v_out, &x, 0.0f, err);
}

int ha_layer_qkv(const struct ha_layer_context *context, void *q, void *k, void *v,
                 const void *norm, struct ha_error *err)
{
    int r = ha_layer_q(context, q, norm, err);

    return r < 0 ? r : ha_layer_kv(context, k, v, norm, err);
}

/* One of q and k: norm (or copy), then rotate. */
static int rotate(const struct ha_layer_context *context, void *out, float *rstd, const void *x,
                  const struct ha_matrix *norm, int64_t n_heads, struct ha_error *err)
{
    int64_t head_dim = context->config->head_dim, stride = n_heads * head_dim;
    int r = 0;

    if (norm->data)
        r = context->ops->rmsnorm_forward(context->backend, out, rstd, x, norm->data, norm->dtype,
                                          context->config->rms_eps, context->n_rows, n_heads,
                                          head_dim, stride, stride, err);
    else if (out != x)
        r = ha_backend_copy(context->backend, out, x,
                            (size_t)(context->n_rows * stride) * ha_dtype_bytes(context->act), err);
    if (r == 0)
        r = context->ops->rope(context->backend, out, context->cos_sin, context->positions,
                               context->n_rows, n_heads, head_dim, stride, false, err);
    return r;
}

int ha_layer_rotate_q(const struct ha_layer_context *context, void *q_out, float *q_rstd,
                      const void *q, struct ha_error *err)
{
    return rotate(context, q_out, q_rstd, q, &context->weights->q_norm, context->config->n_heads,
                  err);
}

int ha_layer_rotate_k(const struct ha_layer_context *context, void *k_out, float *k_rstd,
                      const void *k, struct ha_error *err)
{
    return rotate(context, k_out, k_rstd, k, &context->weights->k_norm, context->config->n_kv_heads,
                  err);
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
    struct ha_matrix in =
        ha_layer_act(context, attention, context->n_rows, config->n_heads * config->head_dim);

    return ha_layer_linear(context, HA_MODULE_O, &out, &in, 1.0f, err);
}

int ha_layer_gate_up(const struct ha_layer_context *context, void *gate, void *up, const void *norm,
                     struct ha_error *err)
{
    const struct ha_model_config *config = context->config;
    int64_t n = context->n_rows;
    struct ha_matrix in = ha_layer_act(context, norm, n, config->width);
    struct ha_matrix gate_out = ha_layer_act(context, gate, n, config->inner);
    struct ha_matrix up_out = ha_layer_act(context, up, n, config->inner);
    int r = ha_layer_linear(context, HA_MODULE_GATE, &gate_out, &in, 0.0f, err);

    if (r == 0)
        r = ha_layer_linear(context, HA_MODULE_UP, &up_out, &in, 0.0f, err);
    return r;
}

int ha_layer_mlp(const struct ha_layer_context *context, void *x, void *gate, void *up, void *inner,
                 const void *norm, struct ha_error *err)
{
    const struct ha_model_config *config = context->config;
    int64_t n = context->n_rows;
    struct ha_matrix product = ha_layer_act(context, inner, n, config->inner);
    struct ha_matrix out = ha_layer_act(context, x, n, config->width);
    int r = ha_layer_gate_up(context, gate, up, norm, err);

    if (r == 0)
        r = context->ops->swiglu_forward(context->backend, inner, gate, up, n, config->inner,
                                         config->inner, config->inner, err);
    if (r == 0)
        r = ha_layer_linear(context, HA_MODULE_DOWN, &out, &product, 1.0f, err);
    return r;
}
