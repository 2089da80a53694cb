/* attention.c - attention on the GPU is not there yet and refused by name */
#include "kernels/cuda/cuda.h"

#include <errno.h>

#include "common/base/error.h"

int ha_cuda_op_attention_forward(struct ha_backend *backend, void *out, float *logsumexp,
                                 const void *q, const void *k, const void *v,
                                 const struct ha_attention *shape, struct ha_error *err)
{
    (void)backend, (void)out, (void)logsumexp, (void)q, (void)k, (void)v, (void)shape;
    return ha_error_set(err, ENOTSUP, "attention forward is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_attention_backward(struct ha_backend *backend, void *dq, void *dk, void *dv,
                                  const void *dout, const void *out, const float *logsumexp,
                                  const void *q, const void *k, const void *v,
                                  const struct ha_attention *shape, struct ha_error *err)
{
    (void)backend, (void)dq, (void)dk, (void)dv, (void)dout, (void)out, (void)logsumexp;
    (void)q, (void)k, (void)v, (void)shape;
    return ha_error_set(err, ENOTSUP, "attention backward is not built for CUDA yet; use \"cpu\"");
}

int ha_cuda_op_decode_attention(struct ha_backend *backend, void *out, const void *q,
                                const struct ha_decode_attention *shape, struct ha_error *err)
{
    (void)backend, (void)out, (void)q, (void)shape;
    return ha_error_set(err, ENOTSUP, "decode attention is not built for CUDA yet; use \"cpu\"");
}
