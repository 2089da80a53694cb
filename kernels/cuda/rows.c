/* rows.c - host part of the operations on rows: checks, host arguments, launches */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"
#include "kernels/dropout.h"
#include "kernels/lora.h"

int ha_cuda_op_add_bias(struct ha_backend *backend, void *x, const void *bias,
                        enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride,
                        struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || cols == 0)
        return rc;
    return ha_cuda_check(
        cuda, ha_cuda_launch_add_bias(cuda->stream, x, bias, bias_dtype, n_rows, cols, stride),
        "add_bias", err);
}

int ha_cuda_op_embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                             const int32_t *ids, int64_t n_tokens, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_tokens == 0 || table->cols == 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_embed(cuda->stream, out, table->data, table->dtype,
                                              table->rows, table->cols, table->stride, ids,
                                              n_tokens, ha_cuda_fault_word(cuda)),
                         "embed", err);
}

int ha_cuda_op_rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                               const void *weight, enum ha_dtype weight_dtype, float eps,
                               int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                               int64_t x_stride, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || groups == 0 || cols == 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_rmsnorm(cuda->stream, out, rstd, x, weight, weight_dtype,
                                                eps, n_rows, groups, cols, out_stride, x_stride),
                         "rmsnorm", err);
}

int ha_cuda_op_rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout,
                                const void *x, const float *rstd, const void *weight,
                                enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                                int64_t cols, int64_t dx_stride, int64_t dout_stride,
                                int64_t x_stride, bool accumulate, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || groups == 0 || cols == 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_rmsnorm_backward(
                             cuda->stream, dx, dout, x, rstd, weight, weight_dtype, n_rows, groups,
                             cols, dx_stride, dout_stride, x_stride, accumulate),
                         "rmsnorm backward", err);
}

int ha_cuda_op_rope(struct ha_backend *backend, void *x, const float *cos_sin,
                    const int32_t *positions, int64_t n_tokens, int64_t n_heads, int64_t head_dim,
                    int64_t stride, bool inverse, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0 && head_dim % 2 != 0)
        return ha_error_set(err, EINVAL, "rope: the head width %" PRId64 " is odd", head_dim);
    if (rc < 0 || n_tokens == 0 || n_heads == 0 || head_dim == 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_rope(cuda->stream, x, cos_sin, positions, n_tokens, n_heads,
                                             head_dim, stride, inverse),
                         "rope", err);
}

int ha_cuda_op_swiglu_forward(struct ha_backend *backend, void *out, const void *gate,
                              const void *up, int64_t n_rows, int64_t cols, int64_t out_stride,
                              int64_t in_stride, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || cols == 0)
        return rc;
    return ha_cuda_check(
        cuda,
        ha_cuda_launch_swiglu(cuda->stream, out, gate, up, n_rows, cols, out_stride, in_stride),
        "swiglu", err);
}

int ha_cuda_op_swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                               const void *gate, const void *up, int64_t n_rows, int64_t cols,
                               int64_t out_stride, int64_t in_stride, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || cols == 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_swiglu_backward(cuda->stream, dgate, dup, dout, gate, up,
                                                        n_rows, cols, out_stride, in_stride),
                         "swiglu backward", err);
}

int ha_cuda_op_dropout(struct ha_backend *backend, void *out, const void *x,
                       const struct ha_dropout *dropout, int64_t n_rows, int64_t cols,
                       int64_t out_stride, int64_t x_stride, bool accumulate, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    struct ha_dropout_mask mask;
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_dropout_mask_make(dropout, cols, &mask, err);
    if (rc < 0 || n_rows == 0 || cols == 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_dropout(cuda->stream, out, x, &mask, dropout->places,
                                                n_rows, cols, out_stride, x_stride, accumulate),
                         "dropout", err);
}

int ha_cuda_op_lora_columns(struct ha_backend *backend, const struct ha_lora_columns *columns,
                            struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_lora_columns_check(columns, err);
    if (rc < 0 || columns->b.rows == 0 || columns->b.cols == 0)
        return rc;
    return ha_cuda_check(cuda, ha_cuda_launch_lora_columns(cuda->stream, columns), "lora_columns",
                         err);
}

int ha_cuda_op_gather_rows(struct ha_backend *backend, void *out, const void *x,
                           const int64_t *index, int64_t n_rows, int64_t cols, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    const void *device_index;
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || cols == 0)
        return rc;
    rc = ha_cuda_arguments(cuda, index, (size_t)n_rows * sizeof(*index), &device_index, err);
    if (rc < 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_gather(cuda->stream, out, x, device_index, n_rows, cols),
                         "gather_rows", err);
}

int ha_cuda_op_kv_append(struct ha_backend *backend, const struct ha_kv_rows *caches,
                         const int32_t *positions, int64_t layer, const void *k, const void *v,
                         int64_t n_rows, int64_t width, int64_t stride, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || width == 0)
        return rc;
    return ha_cuda_check(cuda,
                         ha_cuda_launch_kv_append(cuda->stream, caches, positions, layer, k, v,
                                                  n_rows, width, stride),
                         "kv_append", err);
}

/* ---- scatter: rows of one index are added up by one thread, in order ---- */

struct entry {
    int64_t index;
    int32_t item;
};

static int by_index(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->item < y->item ? -1 : x->item > y->item;
}

/* What the kernel reads, in one piece: targets, then the first entry of each and the end,
 * then of each entry its row and its coefficient. */
struct plan {
    char *memory;
    size_t bytes, first_at, item_at, coefficient_at;
    int64_t n_targets;
};

static void fill_plan(struct plan *plan, const struct entry *entries, const float *coefficient,
                      int64_t n)
{
    int64_t *target = (int64_t *)(void *)plan->memory;
    int32_t *first, *item;
    float *factor;
    int64_t n_targets = 0;

    plan->first_at = (size_t)n * sizeof(*target);
    plan->item_at = plan->first_at + (size_t)(n + 1) * sizeof(*first);
    plan->coefficient_at = plan->item_at + (size_t)n * sizeof(*item);
    first = (int32_t *)(void *)(plan->memory + plan->first_at);
    item = (int32_t *)(void *)(plan->memory + plan->item_at);
    factor = (float *)(void *)(plan->memory + plan->coefficient_at);
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || entries[i].index != entries[i - 1].index) {
            target[n_targets] = entries[i].index;
            first[n_targets++] = (int32_t)i;
        }
        item[i] = entries[i].item;
        factor[i] = coefficient[entries[i].item];
    }
    first[n_targets] = (int32_t)n;
    plan->n_targets = n_targets;
}

static int make_plan(const int64_t *index, const float *coefficient, int64_t n, struct plan *plan,
                     struct ha_error *err)
{
    struct entry *entries;

    if (n > INT32_MAX)
        return ha_error_set(err, EINVAL, "scatter_rows_add: %" PRId64 " rows in one call", n);
    plan->bytes =
        (size_t)n * (sizeof(int64_t) + 2 * sizeof(int32_t) + sizeof(float)) + sizeof(int32_t);
    plan->memory = ha_calloc((int64_t)plan->bytes, 1);
    entries = ha_calloc(n, sizeof(*entries));
    if (!plan->memory || !entries) {
        free(plan->memory);
        free(entries);
        return ha_error_set(err, ENOMEM, "scatter_rows_add: no memory for %" PRId64 " indices", n);
    }
    for (int64_t i = 0; i < n; i++)
        entries[i] = (struct entry){index[i], (int32_t)i};
    qsort(entries, (size_t)n, sizeof(*entries), by_index);
    fill_plan(plan, entries, coefficient, n);
    free(entries);
    return 0;
}

int ha_cuda_op_scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                                const int64_t *index, const float *coefficient, int64_t n_rows,
                                int64_t cols, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    struct plan plan;
    const void *device;
    const char *at;
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n_rows == 0 || cols == 0)
        return rc;
    rc = make_plan(index, coefficient, n_rows, &plan, err);
    if (rc < 0)
        return rc;
    rc = ha_cuda_arguments(cuda, plan.memory, plan.bytes, &device, err);
    free(plan.memory);
    if (rc < 0)
        return rc;
    at = device;
    return ha_cuda_check(
        cuda,
        ha_cuda_launch_scatter(cuda->stream, x, rows, (const int64_t *)device,
                               (const int32_t *)(const void *)(at + plan.first_at),
                               (const int32_t *)(const void *)(at + plan.item_at),
                               (const float *)(const void *)(at + plan.coefficient_at),
                               plan.n_targets, cols),
        "scatter_rows_add", err);
}
