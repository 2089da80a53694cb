/* attention_launch.h - the C launchers of attention_*.cu and decode.cu
 *
 * Pointers are of the device, act is bf16.  Each launches on the stream and returns a
 * cudaError_t as an int.  The tensor kernels want a head width of 64, 96 or 128, addresses
 * of 16 bytes and strides of whole 8 elements; the plain ones take anything up to
 * HA_CUDA_ATTENTION_WIDEST. */
#ifndef HA_KERNELS_CUDA_ATTENTION_LAUNCH_H
#define HA_KERNELS_CUDA_ATTENTION_LAUNCH_H

#include <stdint.h>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/sizes.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

enum { HA_CUDA_ATTENTION_WIDEST = 512 };

/* One call over a plan; shapes as struct ha_attention of kernels/ops.h has them. */
struct ha_cuda_attention {
    const void *q, *k, *v;
    int64_t q_stride, k_stride, v_stride, out_stride;
    int64_t n_tokens;
    int32_t n_heads, n_kv_heads, head_dim;
    float scale;
    const struct ha_cuda_query_tile *query_tiles;
    const struct ha_cuda_key_tile *key_tiles;
    const struct ha_cuda_query_range *ranges;
    int64_t n_query_tiles, n_key_tiles; /* at least 1 */
    void *out;                          /* = forward, read backward */
    float *logsumexp;                   /* = forward or NULL, read backward */
    const void *dout;
    float *delta; /* (n_heads, T), scratch of the backward pass */
    void *dq, *dk, *dv;
};

int ha_cuda_launch_attention_forward(struct CUstream_st *stream,
                                     const struct ha_cuda_attention *call);
/* Three kernels: delta, then dk and dv, then dq. */
int ha_cuda_launch_attention_backward(struct CUstream_st *stream,
                                      const struct ha_cuda_attention *call);

int ha_cuda_launch_attention_plain_forward(struct CUstream_st *stream,
                                           const struct ha_cuda_attention *call);
int ha_cuda_launch_attention_plain_backward(struct CUstream_st *stream,
                                            const struct ha_cuda_attention *call);

/* delta[h][t] = sum over head h of dout[t] * out[t]. */
int ha_cuda_launch_attention_delta(struct CUstream_st *stream,
                                   const struct ha_cuda_attention *call);

struct ha_cuda_decode {
    void *out;     /* = */
    const void *q; /* (n_rows, heads * D) */
    int64_t q_stride, out_stride, n_rows;
    int32_t n_heads, n_kv_heads, head_dim;
    float scale;
    const struct ha_kv_rows *caches; /* (n_rows) */
    const int32_t *positions;
    int64_t layer;
    /* Blocks that share a sequence, each with its chunks: 1, or as many as the longest sequence
     * may have chunks; then partial has ha_cuda_decode_partial(call) floats.  It changes no bit. */
    int32_t n_splits;
    float *partial;
};

/* Query heads are padded to blocks of HA_CUDA_DECODE_HEADS; for each the result, its maximum and
 * its sum. */
static inline int64_t ha_cuda_decode_partial(const struct ha_cuda_decode *call)
{
    int64_t group = call->n_heads / call->n_kv_heads;
    int64_t blocks = (group + HA_CUDA_DECODE_HEADS - 1) / HA_CUDA_DECODE_HEADS;

    return call->n_rows * call->n_kv_heads * blocks * call->n_splits * HA_CUDA_DECODE_HEADS *
           (call->head_dim + 2);
}

int ha_cuda_launch_decode(struct CUstream_st *stream, const struct ha_cuda_decode *call);
int ha_cuda_launch_decode_plain(struct CUstream_st *stream, const struct ha_cuda_decode *call);

#ifdef __cplusplus
}
#endif

#endif
