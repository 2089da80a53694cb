/* unbuilt.c - operations that the CUDA backend has not yet: refused by name */
#include "kernels/cuda/cuda.h"

#include <errno.h>

#include "common/base/error.h"

int ha_cuda_op_gemm(struct ha_backend *backend, const struct ha_matrix *c,
                    const struct ha_matrix *a, bool transpose_a, const struct ha_matrix *b,
                    bool transpose_b, float alpha, float beta, struct ha_error *err)
{
    (void)backend;
    (void)c;
    (void)a;
    (void)transpose_a;
    (void)b;
    (void)transpose_b;
    (void)alpha;
    (void)beta;
    return ha_error_set(err, ENOTSUP, "gemm is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_add_bias(struct ha_backend *backend, void *x, const void *bias,
                        enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride,
                        struct ha_error *err)
{
    (void)backend;
    (void)x;
    (void)bias;
    (void)bias_dtype;
    (void)n_rows;
    (void)cols;
    (void)stride;
    return ha_error_set(err, ENOTSUP, "add_bias is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                             const int32_t *ids, int64_t n_tokens, struct ha_error *err)
{
    (void)backend;
    (void)out;
    (void)table;
    (void)ids;
    (void)n_tokens;
    return ha_error_set(err, ENOTSUP, "embed_forward is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                               const void *weight, enum ha_dtype weight_dtype, float eps,
                               int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                               int64_t x_stride, struct ha_error *err)
{
    (void)backend;
    (void)out;
    (void)rstd;
    (void)x;
    (void)weight;
    (void)weight_dtype;
    (void)eps;
    (void)n_rows;
    (void)groups;
    (void)cols;
    (void)out_stride;
    (void)x_stride;
    return ha_error_set(err, ENOTSUP, "rmsnorm_forward is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout,
                                const void *x, const float *rstd, const void *weight,
                                enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                                int64_t cols, int64_t dx_stride, int64_t dout_stride,
                                int64_t x_stride, bool accumulate, struct ha_error *err)
{
    (void)backend;
    (void)dx;
    (void)dout;
    (void)x;
    (void)rstd;
    (void)weight;
    (void)weight_dtype;
    (void)n_rows;
    (void)groups;
    (void)cols;
    (void)dx_stride;
    (void)dout_stride;
    (void)x_stride;
    (void)accumulate;
    return ha_error_set(err, ENOTSUP, "rmsnorm_backward is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_rope(struct ha_backend *backend, void *x, const float *cos_sin,
                    const int32_t *positions, int64_t n_tokens, int64_t n_heads, int64_t head_dim,
                    int64_t stride, bool inverse, struct ha_error *err)
{
    (void)backend;
    (void)x;
    (void)cos_sin;
    (void)positions;
    (void)n_tokens;
    (void)n_heads;
    (void)head_dim;
    (void)stride;
    (void)inverse;
    return ha_error_set(err, ENOTSUP, "rope is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_swiglu_forward(struct ha_backend *backend, void *out, const void *gate,
                              const void *up, int64_t n_rows, int64_t cols, int64_t out_stride,
                              int64_t in_stride, struct ha_error *err)
{
    (void)backend;
    (void)out;
    (void)gate;
    (void)up;
    (void)n_rows;
    (void)cols;
    (void)out_stride;
    (void)in_stride;
    return ha_error_set(err, ENOTSUP, "swiglu_forward is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                               const void *gate, const void *up, int64_t n_rows, int64_t cols,
                               int64_t out_stride, int64_t in_stride, struct ha_error *err)
{
    (void)backend;
    (void)dgate;
    (void)dup;
    (void)dout;
    (void)gate;
    (void)up;
    (void)n_rows;
    (void)cols;
    (void)out_stride;
    (void)in_stride;
    return ha_error_set(err, ENOTSUP, "swiglu_backward is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_gather_rows(struct ha_backend *backend, void *out, const void *x,
                           const int64_t *index, int64_t n_rows, int64_t cols, struct ha_error *err)
{
    (void)backend;
    (void)out;
    (void)x;
    (void)index;
    (void)n_rows;
    (void)cols;
    return ha_error_set(err, ENOTSUP, "gather_rows is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                                const int64_t *index, const float *coefficient, int64_t n_rows,
                                int64_t cols, struct ha_error *err)
{
    (void)backend;
    (void)x;
    (void)rows;
    (void)index;
    (void)coefficient;
    (void)n_rows;
    (void)cols;
    return ha_error_set(err, ENOTSUP, "scatter_rows_add is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_head(struct ha_backend *backend, const struct ha_head *head, struct ha_error *err)
{
    (void)backend;
    (void)head;
    return ha_error_set(err, ENOTSUP, "head is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_logits(struct ha_backend *backend, float *logits, const void *hidden,
                      const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                      struct ha_error *err)
{
    (void)backend;
    (void)logits;
    (void)hidden;
    (void)weight;
    (void)n_rows;
    (void)hidden_stride;
    return ha_error_set(err, ENOTSUP, "logits is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                              struct ha_error *err)
{
    (void)backend;
    (void)sum;
    (void)x;
    (void)n;
    return ha_error_set(err, ENOTSUP, "sum_of_squares is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_adamw(struct ha_backend *backend, float *param, float *m, float *v,
                     const float *grad, int64_t n, const double *grad_square_sum,
                     const struct ha_adamw *settings, struct ha_error *err)
{
    (void)backend;
    (void)param;
    (void)m;
    (void)v;
    (void)grad;
    (void)n;
    (void)grad_square_sum;
    (void)settings;
    return ha_error_set(err, ENOTSUP, "adamw is not built for CUDA yet; use \"cpu\"");
}
