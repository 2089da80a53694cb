/* launch.h - the C launchers of rows.cu, norm.cu, optimizer.cu, head.cu, sample.cu, convert.cu and
 * lora.cu
 *
 * Shapes and contracts are those of kernels/ops.h.  Pointers are of the device,
 * sizes are positive (the host part leaves empty work out), act is bf16.  Each
 * launches on the stream and returns a cudaError_t as an int. */
#ifndef HA_KERNELS_CUDA_LAUNCH_H
#define HA_KERNELS_CUDA_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;
struct ha_dropout_mask;
struct ha_kv_rows;
struct ha_sample;

/* ---- rows.cu ---- */

int ha_cuda_launch_add_bias(struct CUstream_st *stream, void *x, const void *bias,
                            enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride);

/* fault_word as struct ha_cuda_fault of cuda.h has it. */
int ha_cuda_launch_embed(struct CUstream_st *stream, void *out, const void *table,
                         enum ha_dtype dtype, int64_t vocabulary, int64_t cols, int64_t stride,
                         const int32_t *ids, int64_t n_tokens, uint64_t *fault_word);

int ha_cuda_launch_rope(struct CUstream_st *stream, void *x, const float *cos_sin,
                        const int32_t *positions, int64_t n_tokens, int64_t n_heads,
                        int64_t head_dim, int64_t stride, bool inverse);

int ha_cuda_launch_swiglu(struct CUstream_st *stream, void *out, const void *gate, const void *up,
                          int64_t n_rows, int64_t cols, int64_t out_stride, int64_t in_stride);
int ha_cuda_launch_swiglu_backward(struct CUstream_st *stream, void *dgate, void *dup,
                                   const void *dout, const void *gate, const void *up,
                                   int64_t n_rows, int64_t cols, int64_t out_stride,
                                   int64_t in_stride);

/* places of the device. */
int ha_cuda_launch_dropout(struct CUstream_st *stream, void *out, const void *x,
                           const struct ha_dropout_mask *mask, const uint32_t *places,
                           int64_t n_rows, int64_t cols, int64_t out_stride, int64_t x_stride,
                           bool accumulate);

int ha_cuda_launch_gather(struct CUstream_st *stream, void *out, const void *x,
                          const int64_t *index /* device */, int64_t n_rows, int64_t cols);

/* x[target[k]] += sum over j in [first[k], first[k + 1]) in order of
 * coefficient[j] * rows[item[j]], rounded once.  Targets differ. */
int ha_cuda_launch_scatter(struct CUstream_st *stream, void *x, const float *rows,
                           const int64_t *target, const int32_t *first, const int32_t *item,
                           const float *coefficient, int64_t n_targets, int64_t cols);

int ha_cuda_launch_kv_append(struct CUstream_st *stream, const struct ha_kv_rows *caches,
                             const int32_t *positions, int64_t layer, const void *k, const void *v,
                             int64_t n_rows, int64_t width, int64_t stride);

/* ---- norm.cu ---- */

int ha_cuda_launch_rmsnorm(struct CUstream_st *stream, void *out, float *rstd, const void *x,
                           const void *weight, enum ha_dtype weight_dtype, float eps,
                           int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                           int64_t x_stride);
int ha_cuda_launch_rmsnorm_backward(struct CUstream_st *stream, void *dx, const void *dout,
                                    const void *x, const float *rstd, const void *weight,
                                    enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                                    int64_t cols, int64_t dx_stride, int64_t dout_stride,
                                    int64_t x_stride, bool accumulate);

/* ---- optimizer.cu ---- */

/* Values that ha_cuda_launch_square_sum writes to `partial`. */
int64_t ha_cuda_square_parts(int64_t n);

/* *sum += sum of x^2, in double. */
int ha_cuda_launch_square_sum(struct CUstream_st *stream, double *sum, double *partial,
                              const float *x, int64_t n);

/* sum += x. */
int ha_cuda_launch_add(struct CUstream_st *stream, float *sum, const float *x, int64_t n);

struct ha_cuda_adamw {
    double max_grad_norm; /* 0: no clipping */
    float decay;          /* 1 - lr * weight_decay */
    float beta2;          /* v = beta2 v + blend2 g^2 */
    float blend1;         /* m += blend1 (g - m) */
    float blend2;
    float root_scale; /* 1 / sqrt(1 - beta2^t) */
    float step;       /* lr / (1 - beta1^t) */
    float eps;
};

int ha_cuda_launch_adamw(struct CUstream_st *stream, float *param, float *m, float *v,
                         const float *grad, int64_t n, const double *grad_square_sum,
                         const struct ha_cuda_adamw *settings);

/* ---- head.cu ---- */

/* One chunk of logits: statistics of each row, and the logits turned in place into
 * onehot - p as bf16 when dlogits is set.  Element v of row i lies at
 * logits + i * stride + v, of type bf16 or f32, 16-byte aligned, with a stride that is a
 * multiple of 8; what lies between rows may be written.  The gradients of a row are bf16
 * from the row's start. */
struct ha_cuda_head_chunk {
    void *logits;
    bool logits_bf16;
    bool dlogits;
    int64_t n_rows, vocabulary, stride;
    int64_t first_row; /* of the call, for messages */
    const int32_t *targets;
    float *logp;
    float *logsumexp, *entropy, *mean_logit, *logsumexp2; /* each may be NULL */
    int32_t *argmax;                                      /* may be NULL */
    uint64_t *fault_word;
};

int ha_cuda_launch_head(struct CUstream_st *stream, const struct ha_cuda_head_chunk *chunk);

/* ---- sample.cu ---- */

int ha_cuda_launch_sample(struct CUstream_st *stream, const struct ha_sample *sample);

/* ---- convert.cu ---- */

/* out (rows, cols) = in of another type. */
int ha_cuda_launch_convert(struct CUstream_st *stream, void *out, enum ha_dtype out_dtype,
                           int64_t out_stride, const void *in, enum ha_dtype in_dtype,
                           int64_t in_stride, int64_t rows, int64_t cols);

/* x (rows, cols) *= factor; 0 also clears NaN. */
int ha_cuda_launch_scale(struct CUstream_st *stream, void *x, enum ha_dtype dtype, int64_t rows,
                         int64_t cols, int64_t stride, float factor);

/* ---- lora.cu ---- */

struct ha_lora_columns;

/* Views of act memory and device masters; the parts have been checked. */
int ha_cuda_launch_lora_columns(struct CUstream_st *stream, const struct ha_lora_columns *columns);

#ifdef __cplusplus
}
#endif

#endif
