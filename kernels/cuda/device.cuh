/* device.cuh - what all kernels share
 *
 * A launch is written HA_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 * and followed by HA_LAUNCHED(), the error of the launch as an int; arguments are plain
 * values.  With HA_CUDA_EMULATED the same source is compiled as C++ for the CPU and
 * tests/cuda/emulator.hpp, which the compiler includes first, runs the threads of each
 * block one at a time, switching at barriers and shuffles.  So PTX has to stand in small
 * functions with a plain meaning beside it for that case. */
#ifndef HA_KERNELS_CUDA_DEVICE_CUH
#define HA_KERNELS_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

#include "kernels/backend.h"

#ifndef HA_CUDA_EMULATED
#define HA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define HA_LAUNCHED() ((int)cudaPeekAtLastError())
/* Shared memory whose size the launch gives; 16-byte aligned. */
#define HA_SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace ha
{

typedef __nv_bfloat16 bf16;

constexpr int WARP = 32;
constexpr int VECTOR = 8; /* elements of 16 bits in 16 bytes */
constexpr unsigned ALL_LANES = 0xffffffffu;

/* ---- moving N elements, 8 (16 bytes of bf16, aligned so) or 1 ---- */

struct alignas(16) bf16x8 {
    bf16 element[VECTOR];
};

struct alignas(16) half8 {
    __half element[VECTOR];
};

template <int N> __device__ __forceinline__ void load(float (&out)[N], const bf16 *from)
{
    if constexpr (N == VECTOR) {
        bf16x8 packed = *reinterpret_cast<const bf16x8 *>(from);

#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] = __bfloat162float(packed.element[i]);
    } else {
        static_assert(N == 1, "8 elements or 1");
        out[0] = __bfloat162float(*from);
    }
}

template <int N> __device__ __forceinline__ void store(bf16 *to, const float (&in)[N])
{
    if constexpr (N == VECTOR) {
        bf16x8 packed;

#pragma unroll
        for (int i = 0; i < N; i++)
            packed.element[i] = __float2bfloat16(in[i]);
        *reinterpret_cast<bf16x8 *>(to) = packed;
    } else {
        static_assert(N == 1, "8 elements or 1");
        *to = __float2bfloat16(in[0]);
    }
}

template <int N> __device__ __forceinline__ void load(float (&out)[N], const float *from)
{
    if constexpr (N == VECTOR) {
        float4 low = reinterpret_cast<const float4 *>(from)[0];
        float4 high = reinterpret_cast<const float4 *>(from)[1];

        out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
        out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
    } else {
        out[0] = *from;
    }
}

template <int N> __device__ __forceinline__ void store(float *to, const float (&in)[N])
{
    if constexpr (N == VECTOR) {
        reinterpret_cast<float4 *>(to)[0] = make_float4(in[0], in[1], in[2], in[3]);
        reinterpret_cast<float4 *>(to)[1] = make_float4(in[4], in[5], in[6], in[7]);
    } else {
        *to = in[0];
    }
}

template <int N> __device__ __forceinline__ void load(float (&out)[N], const __half *from)
{
    if constexpr (N == VECTOR) {
        half8 packed = *reinterpret_cast<const half8 *>(from);

#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] = __half2float(packed.element[i]);
    } else {
        out[0] = __half2float(*from);
    }
}

/* Elements at, at + 1, ... of a weight of any type. */
template <int N>
__device__ __forceinline__ void load_weight(float (&out)[N], const void *weight,
                                            enum ha_dtype dtype, int64_t at)
{
    if (dtype == HA_DTYPE_BF16)
        load(out, static_cast<const bf16 *>(weight) + at);
    else if (dtype == HA_DTYPE_F32)
        load(out, static_cast<const float *>(weight) + at);
    else
        load(out, static_cast<const __half *>(weight) + at);
}

/* ---- sums in a fixed order ---- */

template <typename T> __device__ __forceinline__ T warp_sum(T x)
{
#ifdef HA_CUDA_EMULATED
    return emulator::warp_sum(x);
#else
#pragma unroll
    for (int bits = WARP / 2; bits > 0; bits /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, bits);
    return x;
#endif
}

/* Of all threads of a block of THREADS; every thread has the result.  `room` is shared
 * memory of THREADS / 32 values that the last barrier has released. */
template <int THREADS, typename T> __device__ __forceinline__ T block_sum(T x, T *room)
{
    T sum = T(0);

    x = warp_sum(x);
    if (threadIdx.x % WARP == 0)
        room[threadIdx.x / WARP] = x;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / WARP; i++)
        sum += room[i];
    return sum;
}

/* ---- on the host: may 8 elements at a time be moved? ---- */

inline bool aligned(const void *address)
{
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

inline bool whole(int64_t n)
{
    return n % VECTOR == 0;
}

inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Blocks for n threads in all, of `threads` each; kernels step through what is beyond. */
inline unsigned blocks_for(int64_t n, int threads)
{
    const int64_t most = 1 << 20;
    int64_t blocks = ceil_div(n, threads);

    return static_cast<unsigned>(blocks < most ? blocks : most);
}

} // namespace ha

#endif
