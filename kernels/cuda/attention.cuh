/* attention.cuh - what the kernels of attention share: masks and softmax on C fragments
 *
 * Scores of 16 rows are held as fragments (tensor.cuh): a lane has elements of the two rows
 * lane / 4 and lane / 4 + 8.  Softmax works with 2^x; `scale2` is scale * log2(e). */
#ifndef HA_KERNELS_CUDA_ATTENTION_CUH
#define HA_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/attention_launch.h"
#include "kernels/cuda/tensor.cuh"

namespace ha
{

constexpr int TILE = HA_CUDA_ATTENTION_TILE;
constexpr int TILE_THREADS = TILE / 16 * WARP; /* a warp has 16 rows */
constexpr float LOG2E = 1.44269504088896340736f;

/* Row of element e of a lane's fragment, and its column in fragment n. */
__device__ __forceinline__ int fragment_row(int e, int lane)
{
    return lane / 4 + e / 2 * 8;
}

__device__ __forceinline__ int fragment_col(int n, int e, int lane)
{
    return n * 8 + lane % 4 * 2 + e % 2;
}

/* Does a warp whose first row is `row` see all of a step's keys? */
__device__ __forceinline__ bool sees_all(const ha_cuda_key_step &step, int row)
{
    return step.n_keys == TILE && step.visible + row >= TILE;
}

/* Running softmax of a lane's two rows: the largest score, unscaled, and the lane's own part of
 * the sum of 2^(scale2 * (score - largest)). */
struct softmax {
    float top[2], total[2];
};

__device__ __forceinline__ softmax softmax_start()
{
    return {{-INFINITY, -INFINITY}, {0.0f, 0.0f}};
}

/* What 2^x is taken against; rows that have seen nothing but -infinity stay without a NaN. */
__device__ __forceinline__ float softmax_base(float top, float scale2)
{
    return top == -INFINITY ? 0.0f : top * scale2;
}

/* Over the four lanes that share a row. */
__device__ __forceinline__ float row_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

__device__ __forceinline__ float row_sum(float x)
{
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

/* Scores (-infinity: not seen) become 2^(...); what was summed before is rescaled in state and in
 * the result so far. */
template <int N, int D>
__device__ __forceinline__ void soften(float (&s)[N / 8][4], softmax &state, float (&out)[D / 8][4],
                                       float scale2)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = state.top[r], base, rescale, sum = 0.0f;

#pragma unroll
        for (int n = 0; n < N / 8; n++)
            top = fmaxf(top, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        top = row_max(top);
        base = softmax_base(top, scale2);
        rescale = exp2_fast(fmaf(state.top[r], scale2, -base));
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; e++) {
                s[n][e] = exp2_fast(fmaf(s[n][e], scale2, -base));
                sum += s[n][e];
            }
        state.total[r] = fmaf(state.total[r], rescale, sum);
        state.top[r] = top;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            out[n][2 * r] *= rescale;
            out[n][2 * r + 1] *= rescale;
        }
    }
}

template <int N> __device__ __forceinline__ void clear(float (&c)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0.0f;
}

/* Shared memory that a launch may ask for without saying so first. */
constexpr int SHARED_WITHOUT_ASKING = 48 << 10;

template <typename Kernel> inline cudaError_t allow_shared(Kernel *kernel, int bytes)
{
    if (bytes <= SHARED_WITHOUT_ASKING)
        return cudaSuccess;
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

} // namespace ha

#endif
