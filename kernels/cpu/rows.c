/* rows.c - operations that treat each row, or each element, by itself */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/error.h"

/* A vector of weights in f32: itself, or converted into the work buffer. */
static int widen(struct ha_cpu *cpu, const void *weight, enum ha_dtype dtype, int64_t n,
                 const float **ret_weight, struct ha_error *err)
{
    int rc;

    if (dtype == HA_DTYPE_F32) {
        *ret_weight = weight;
        return 0;
    }
    rc = ha_cpu_work(cpu, (size_t)n * sizeof(float), err);
    if (rc < 0)
        return rc;
    cpu->leaf.convert((float *)(void *)cpu->work, weight, dtype, n);
    *ret_weight = (const float *)(void *)cpu->work;
    return 0;
}

int ha_cpu_op_add_bias(struct ha_backend *backend, void *x, const void *bias,
                       enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride,
                       struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    const float *row;
    int rc = widen(cpu, bias, bias_dtype, cols, &row, err);

    if (rc < 0)
        return rc;
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n_rows, cols))
    for (int64_t i = 0; i < n_rows; i++)
        cpu->leaf.add((float *)x + i * stride, row, cols);
    return 0;
}

int ha_cpu_op_embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                            const int32_t *ids, int64_t n_tokens, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int64_t cols = table->cols;

    for (int64_t t = 0; t < n_tokens; t++)
        if (ids[t] < 0 || ids[t] >= table->rows)
            return ha_error_set(err, EINVAL,
                                "token %" PRId64 " has id %" PRId32
                                ", outside the vocabulary of %" PRId64,
                                t, ids[t], table->rows);
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n_tokens, cols))
    for (int64_t t = 0; t < n_tokens; t++) {
        size_t at = (size_t)(ids[t] * table->stride) * ha_dtype_bytes(table->dtype);

        cpu->leaf.convert((float *)out + t * cols, (const char *)table->data + at, table->dtype,
                          cols);
    }
    return 0;
}

int ha_cpu_op_rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                              const void *weight, enum ha_dtype weight_dtype, float eps,
                              int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                              int64_t x_stride, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    const float *wide;
    int rc = widen(cpu, weight, weight_dtype, cols, &wide, err);

    if (rc < 0)
        return rc;
#pragma omp parallel for num_threads(                                                              \
    cpu->threads) if (ha_cpu_parallel_rows(cpu, n_rows, groups * cols))
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t g = 0; g < groups; g++) {
            float r =
                cpu->leaf.rmsnorm((float *)out + i * out_stride + g * cols,
                                  (const float *)x + i * x_stride + g * cols, wide, eps, cols);

            if (rstd)
                rstd[i * groups + g] = r;
        }
    return 0;
}

int ha_cpu_op_rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout,
                               const void *x, const float *rstd, const void *weight,
                               enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                               int64_t cols, int64_t dx_stride, int64_t dout_stride,
                               int64_t x_stride, bool accumulate, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    const float *wide;
    int rc = widen(cpu, weight, weight_dtype, cols, &wide, err);

    if (rc < 0)
        return rc;
#pragma omp parallel for num_threads(                                                              \
    cpu->threads) if (ha_cpu_parallel_rows(cpu, n_rows, groups * cols))
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t g = 0; g < groups; g++)
            cpu->leaf.rmsnorm_backward((float *)dx + i * dx_stride + g * cols,
                                       (const float *)dout + i * dout_stride + g * cols,
                                       (const float *)x + i * x_stride + g * cols, wide,
                                       rstd[i * groups + g], accumulate, cols);
    return 0;
}

int ha_cpu_op_rope(struct ha_backend *backend, void *x, const float *cos_sin,
                   const int32_t *positions, int64_t n_tokens, int64_t n_heads, int64_t head_dim,
                   int64_t stride, bool inverse, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int64_t half = head_dim / 2;

    if (head_dim % 2 != 0)
        return ha_error_set(err, EINVAL, "rope: the head width %" PRId64 " is odd", head_dim);
#pragma omp parallel for num_threads(                                                              \
    cpu->threads) if (ha_cpu_parallel_rows(cpu, n_tokens, n_heads * head_dim))
    for (int64_t t = 0; t < n_tokens; t++) {
        const float *cosine = cos_sin + positions[t] * head_dim;

        for (int64_t h = 0; h < n_heads; h++) {
            float *head = (float *)x + t * stride + h * head_dim;

            cpu->leaf.rotate(head, head + half, cosine, cosine + half, inverse ? -1.0f : 1.0f,
                             half);
        }
    }
    return 0;
}

int ha_cpu_op_swiglu_forward(struct ha_backend *backend, void *out, const void *gate,
                             const void *up, int64_t n_rows, int64_t cols, int64_t out_stride,
                             int64_t in_stride, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n_rows, cols))
    for (int64_t i = 0; i < n_rows; i++)
        cpu->leaf.swiglu((float *)out + i * out_stride, (const float *)gate + i * in_stride,
                         (const float *)up + i * in_stride, cols);
    return 0;
}

int ha_cpu_op_swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                              const void *gate, const void *up, int64_t n_rows, int64_t cols,
                              int64_t out_stride, int64_t in_stride, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n_rows, cols))
    for (int64_t i = 0; i < n_rows; i++)
        cpu->leaf.swiglu_backward((float *)dgate + i * in_stride, (float *)dup + i * in_stride,
                                  (const float *)dout + i * out_stride,
                                  (const float *)gate + i * in_stride,
                                  (const float *)up + i * in_stride, cols);
    return 0;
}

int ha_cpu_op_gather_rows(struct ha_backend *backend, void *out, const void *x,
                          const int64_t *index, int64_t n_rows, int64_t cols, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n_rows, cols))
    for (int64_t i = 0; i < n_rows; i++)
        memcpy((float *)out + i * cols, (const float *)x + index[i] * cols,
               (size_t)cols * sizeof(float));
    return 0;
}

/* Tiles of columns: an index may appear twice, so rows are added one after another. */
int ha_cpu_op_scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                               const int64_t *index, const float *coefficient, int64_t n_rows,
                               int64_t cols, struct ha_error *err)
{
    enum { TILE = 256 };
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int64_t tiles = ha_cpu_ceil_div(cols, TILE);

    (void)err;
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n_rows, cols))
    for (int64_t tile = 0; tile < tiles; tile++) {
        int64_t col = tile * TILE, n = ha_cpu_min(TILE, cols - col);

        for (int64_t i = 0; i < n_rows; i++)
            cpu->leaf.add_scaled((float *)x + index[i] * cols + col, rows + i * cols + col,
                                 coefficient[i], n);
    }
    return 0;
}
