/* LoRA's columns of the products of q, k, v and of o (layer.h). */
#include "worker/model/layer.h"

#include "common/base/error.h"

struct ha_matrix ha_layer_normed(const struct ha_layer_context *context, const void *norm)
{
    struct ha_matrix x = ha_layer_act(context, norm, context->n_rows, context->config->width);

    x.stride = context->strides.norm;
    return x;
}

struct ha_matrix ha_layer_attended(const struct ha_layer_context *context, const void *attention)
{
    const struct ha_model_config *config = context->config;
    struct ha_matrix x =
        ha_layer_act(context, attention, context->n_rows, config->n_heads * config->head_dim);

    x.stride = context->strides.attention;
    return x;
}

bool ha_layer_has_columns(const struct ha_layer_context *context, enum ha_module first,
                          enum ha_module last)
{
    if (context->lora_columns == 0)
        return false;
    return (first == HA_MODULE_Q && last == HA_MODULE_V) ||
           (first == HA_MODULE_O && last == HA_MODULE_O);
}

bool ha_layer_columns_fit(const struct ha_layer_context *context, enum ha_module first,
                          enum ha_module last)
{
    int64_t ranks = 0;

    if (!ha_layer_has_columns(context, first, last))
        return false;
    for (int module = (int)first; module <= (int)last; module++) {
        const struct ha_lora *lora =
            ha_layer_lora_of(context, context->adapter, (enum ha_module)module);

        ranks += lora ? lora->a.rows : 0;
    }
    return ranks > 0 && ranks <= context->lora_columns;
}

struct ha_matrix ha_layer_columns_of(const struct ha_layer_context *context,
                                     const struct ha_matrix *matrix)
{
    struct ha_matrix columns = *matrix;

    columns.data = (char *)matrix->data + (size_t)matrix->cols * ha_dtype_bytes(matrix->dtype);
    columns.cols = context->lora_columns;
    return columns;
}

/* Those of the modules before it lie first. */
static int64_t ranks_before(const struct ha_layer_context *context, enum ha_module first,
                            enum ha_module module)
{
    int64_t ranks = 0;

    for (int before = (int)first; before < (int)module; before++) {
        const struct ha_lora *lora =
            ha_layer_lora_of(context, context->adapter, (enum ha_module)before);

        ranks += lora ? lora->a.rows : 0;
    }
    return ranks;
}

struct ha_matrix ha_layer_column_part(const struct ha_layer_context *context, enum ha_module first,
                                      enum ha_module module, const struct ha_matrix *columns)
{
    struct ha_matrix part = *columns;
    size_t offset = (size_t)ranks_before(context, first, module);

    part.data = (char *)columns->data + offset * ha_dtype_bytes(columns->dtype);
    part.cols = ha_layer_lora_of(context, context->adapter, module)->a.rows;
    return part;
}

struct ha_matrix ha_layer_row_part(const struct ha_layer_context *context, enum ha_module first,
                                   enum ha_module module, const struct ha_matrix *a)
{
    struct ha_matrix part = *a;
    int64_t offset = ranks_before(context, first, module) * a->stride;

    part.data = (char *)a->data + (size_t)offset * ha_dtype_bytes(a->dtype);
    part.rows = ha_layer_lora_of(context, context->adapter, module)->a.rows;
    return part;
}

int ha_layer_load_columns(const struct ha_layer_context *context, enum ha_module first,
                          enum ha_module last, const struct ha_matrix *weight,
                          struct ha_matrix *ret_a, struct ha_error *err)
{
    struct ha_lora_columns columns = {
        .b = ha_layer_columns_of(context, weight),
        .a = ha_layer_act(context, context->lora_a, context->lora_columns, weight->cols),
        .scale = ha_adapter_scale(context->adapter)};

    for (int module = (int)first; module <= (int)last; module++) {
        const struct ha_lora *lora =
            ha_layer_lora_of(context, context->adapter, (enum ha_module)module);
        struct ha_lora_part *part = &columns.parts[columns.n_parts++];

        part->out = context->weights->linear[module].rows;
        if (lora) {
            part->a = lora->a.data;
            part->b = lora->b.data;
            part->rank = lora->a.rows;
        }
    }
    *ret_a = columns.a;
    return context->ops->lora_columns(context->backend, &columns, err);
}

static int zero(const struct ha_layer_context *context, const struct ha_matrix *matrix,
                struct ha_error *err)
{
    size_t bytes = ha_dtype_bytes(matrix->dtype);

    return ha_backend_zero_rows(context->backend, matrix->data, (size_t)matrix->stride * bytes,
                                (size_t)matrix->cols * bytes, matrix->rows, err);
}

/* u = A x of all modules at once, or under dropout, where each has an input of its own, one by
 * one. */
static int make_u(const struct ha_layer_context *context, enum ha_module first, enum ha_module last,
                  const struct ha_matrix *u, const struct ha_matrix *a, const struct ha_matrix *x,
                  struct ha_error *err)
{
    int r;

    if (!context->dropout)
        return context->ops->gemm(context->backend, u, x, false, a, true, 1.0f, 0.0f, err);
    r = zero(context, u, err);
    for (int i = (int)first; r == 0 && i <= (int)last; i++) {
        enum ha_module module = (enum ha_module)i;
        struct ha_matrix u_part, a_part, input;

        if (!ha_layer_lora_of(context, context->adapter, module))
            continue;
        u_part = ha_layer_column_part(context, first, module, u);
        a_part = ha_layer_row_part(context, first, module, a);
        r = ha_layer_drop(context, module, x, &input, err);
        if (r == 0)
            r = context->ops->gemm(context->backend, &u_part, &input, false, &a_part, true, 1.0f,
                                   0.0f, err);
    }
    return r;
}

/* The norm's output is made again in the backward pass, its columns are not. */
static int keep_u(const struct ha_layer_context *context, const struct ha_matrix *u,
                  struct ha_error *err)
{
    size_t bytes = ha_dtype_bytes(u->dtype), row = (size_t)u->cols * bytes;

    return ha_backend_copy_rows(context->backend, context->lora_qkv, row, u->data,
                                (size_t)u->stride * bytes, row, u->rows, err);
}

int ha_layer_widen(const struct ha_layer_context *context, enum ha_module first,
                   enum ha_module last, struct ha_matrix *weight, struct ha_matrix *x,
                   struct ha_error *err)
{
    struct ha_matrix b = ha_layer_columns_of(context, weight), a;
    struct ha_matrix u = ha_layer_columns_of(context, x);
    int r;

    if (ha_layer_columns_fit(context, first, last)) {
        r = ha_layer_load_columns(context, first, last, weight, &a, err);
        if (r == 0)
            r = make_u(context, first, last, &u, &a, x, err);
        if (r == 0 && first == HA_MODULE_Q)
            r = keep_u(context, &u, err);
    } else {
        /* Both: 0 times what another cell has left is no 0 where that is not finite. */
        r = zero(context, &b, err);
        if (r == 0)
            r = zero(context, &u, err);
    }
    weight->cols += context->lora_columns;
    x->cols += context->lora_columns;
    return r;
}
