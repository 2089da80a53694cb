/* head.cu - statistics of rows of logits, and the logits turned into d logp / d logits
 *
 * A block does one row in two passes.  The first keeps, for each thread, sums of
 * exp(z - top) under the largest logit that the thread has met, scaled again when it
 * meets a larger one; the block then brings all to one top and adds up in double, in a
 * fixed order.  The second writes onehot - p, formed in f32 and rounded once, over the
 * logits.  Logits of 32 bits are read by the whole block before their place is
 * written, which lies at or before them. */
#include <limits.h>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace
{

using namespace ha;

constexpr int BLOCK = 512;
constexpr int WARPS = BLOCK / WARP;

struct shared_room {
    double sum[4][WARPS];
    float top[WARPS];
    int best[WARPS];
};

/* Of the logits that one thread has met. */
struct part {
    float top;                     /* largest that is a number; -infinity: none */
    float sum, square_sum, moment; /* of e, e^2 and e (z - top), e = exp(z - top) */
    float total;                   /* of z */
    int best;                      /* first index of top; INT_MAX: none */
};

__device__ __forceinline__ int smaller(int a, int b)
{
    return a < b ? a : b;
}

__device__ __forceinline__ float shift_of(float top)
{
    return top == -INFINITY ? 0.0f : top;
}

/* Bring the sums under a larger top. */
__device__ __forceinline__ void raise(part &p, float top)
{
    if (top > p.top && p.top > -INFINITY) {
        float d = p.top - top, factor = expf(d);

        p.moment = (p.moment + d * p.sum) * factor;
        p.sum *= factor;
        p.square_sum *= factor * factor;
    }
    if (top > p.top)
        p.top = top;
}

__device__ __forceinline__ void take(part &p, const float (&z)[VECTOR], int at, int vocabulary)
{
    float top = p.top, shift;

#pragma unroll
    for (int k = 0; k < VECTOR; k++)
        if (at + k < vocabulary && z[k] > top) {
            top = z[k];
            p.best = at + k;
        }
    raise(p, top);
    shift = shift_of(p.top);
#pragma unroll
    for (int k = 0; k < VECTOR; k++)
        if (at + k < vocabulary) {
            float d = z[k] - shift, e = expf(d);

            p.sum += e;
            p.square_sum += e * e;
            p.moment += e == 0.0f ? 0.0f : e * d;
            p.total += z[k];
        }
}

/* The same part for all threads, but for the sums, which are each thread's own under
 * the block's top. */
__device__ __forceinline__ void agree(part &p, shared_room &room)
{
    float top = p.top, largest = -INFINITY;
    int best;

#pragma unroll
    for (int bits = WARP / 2; bits > 0; bits /= 2)
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, bits));
    if (threadIdx.x % WARP == 0)
        room.top[threadIdx.x / WARP] = top;
    __syncthreads();
    for (int i = 0; i < WARPS; i++)
        largest = fmaxf(largest, room.top[i]);
    best = p.top == largest ? p.best : INT_MAX;
    raise(p, largest);
    p.top = largest;
#pragma unroll
    for (int bits = WARP / 2; bits > 0; bits /= 2)
        best = smaller(best, __shfl_xor_sync(ALL_LANES, best, bits));
    if (threadIdx.x % WARP == 0)
        room.best[threadIdx.x / WARP] = best;
    __syncthreads();
    best = INT_MAX;
    for (int i = 0; i < WARPS; i++)
        best = smaller(best, room.best[i]);
    p.best = best;
}

template <typename T> __global__ void __launch_bounds__(BLOCK) head(ha_cuda_head_chunk c)
{
    __shared__ shared_room room;
    int64_t row = blockIdx.x;
    T *z = static_cast<T *>(c.logits) + row * c.stride;
    int vocabulary = (int)c.vocabulary, target = c.targets[row];
    bool known = target >= 0 && target < vocabulary;
    float of_target[1] = {NAN};
    part p = {-INFINITY, 0.0f, 0.0f, 0.0f, 0.0f, INT_MAX};
    double sum, square_sum, moment, total;
    float logp, factor;

    if (known)
        load(of_target, z + target);
    for (int at = threadIdx.x * VECTOR; at < vocabulary; at += BLOCK * VECTOR) {
        float v[VECTOR];

        load(v, z + at);
        take(p, v, at, vocabulary);
    }
    agree(p, room);
    sum = block_sum<BLOCK>((double)p.sum, room.sum[0]);
    square_sum = block_sum<BLOCK>((double)p.square_sum, room.sum[1]);
    moment = block_sum<BLOCK>((double)p.moment, room.sum[2]);
    total = block_sum<BLOCK>((double)p.total, room.sum[3]);
    logp = (float)((double)of_target[0] - (double)shift_of(p.top) - log(sum));
    if (threadIdx.x == 0) {
        double top = (double)shift_of(p.top);

        if (!known)
            *c.fault_word = (uint64_t)2 << 62 | (uint64_t)((c.first_row + row) & 0x3fffffff) << 32 |
                            (uint32_t)target;
        c.logp[row] = logp;
        if (c.logsumexp)
            c.logsumexp[row] = (float)(top + log(sum));
        if (c.entropy)
            c.entropy[row] = (float)(log(sum) - moment / sum);
        if (c.mean_logit)
            c.mean_logit[row] = (float)(total / (double)vocabulary);
        if (c.logsumexp2)
            c.logsumexp2[row] = (float)(2.0 * top + log(square_sum));
        if (c.argmax)
            c.argmax[row] = p.best != INT_MAX ? p.best : 0;
    }
    if (!c.dlogits)
        return;
    factor = (float)(1.0 / sum);
    for (int base = 0; base < vocabulary; base += BLOCK * VECTOR) {
        int at = base + threadIdx.x * VECTOR;
        float v[VECTOR];

        if (at < vocabulary) {
            load(v, z + at);
#pragma unroll
            for (int k = 0; k < VECTOR; k++) {
                v[k] = -expf(v[k] - shift_of(p.top)) * factor;
                if (at + k == target)
                    v[k] = -expm1f(logp); /* 1 - p without cancellation */
            }
        }
        if (sizeof(T) > sizeof(bf16))
            __syncthreads();
        if (at < vocabulary)
            store(reinterpret_cast<bf16 *>(z) + at, v);
    }
}

} // namespace

int ha_cuda_launch_head(CUstream_st *stream, const struct ha_cuda_head_chunk *chunk)
{
    auto kernel = chunk->logits_bf16 ? head<bf16> : head<float>;
    ha_cuda_head_chunk c = *chunk;

    HA_LAUNCH(kernel, (unsigned)c.n_rows, BLOCK, 0, stream, c);
    return HA_LAUNCHED();
}
