/* optimizer.cu - gradient norm and AdamW
 *
 * The norm stays on the device: the update reads the sum of squares there and forms
 * the clip factor itself, so that the host never waits. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sizes.h"

namespace
{

using namespace ha;

constexpr int BLOCK = 256;
constexpr int64_t TILE = HA_CUDA_SQUARE_TILE;

__global__ void __launch_bounds__(BLOCK) square_parts(double *partial, const float *x, int64_t n)
{
    __shared__ double room[BLOCK / WARP];
    int64_t begin = (int64_t)blockIdx.x * TILE, end = begin + TILE < n ? begin + TILE : n;
    double sum = 0.0;

    for (int64_t i = begin + threadIdx.x; i < end; i += BLOCK)
        sum += (double)x[i] * (double)x[i];
    sum = block_sum<BLOCK>(sum, room);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(BLOCK) add_parts(double *sum, const double *partial, int64_t n)
{
    __shared__ double room[BLOCK / WARP];
    double total = 0.0;

    for (int64_t i = threadIdx.x; i < n; i += BLOCK)
        total += partial[i];
    total = block_sum<BLOCK>(total, room);
    if (threadIdx.x == 0)
        *sum += total;
}

/* A NaN norm gives a NaN factor: a diverged cell must show. */
__device__ __forceinline__ float clip_factor(double square_sum, double limit)
{
    double factor;

    if (limit <= 0.0)
        return 1.0f;
    factor = limit / (sqrt(square_sum) + 1e-6);
    return (float)(factor > 1.0 ? 1.0 : factor);
}

template <int N>
__global__ void __launch_bounds__(BLOCK)
    adamw(float *param, float *m, float *v, const float *grad, int64_t n,
          const double *grad_square_sum, ha_cuda_adamw s)
{
    __shared__ float shared_scale;
    float scale;

    if (threadIdx.x == 0)
        shared_scale = clip_factor(*grad_square_sum, s.max_grad_norm);
    __syncthreads();
    scale = shared_scale;
    for (int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * N; i < n;
         i += (int64_t)gridDim.x * BLOCK * N) {
        float p[N], g[N], m1[N], m2[N];

        load(p, param + i);
        load(g, grad + i);
        load(m1, m + i);
        load(m2, v + i);
#pragma unroll
        for (int k = 0; k < N; k++) {
            g[k] *= scale;
            m1[k] += s.blend1 * (g[k] - m1[k]);
            m2[k] = s.beta2 * m2[k] + s.blend2 * g[k] * g[k];
            p[k] = p[k] * s.decay - s.step * (m1[k] / (sqrtf(m2[k]) * s.root_scale + s.eps));
        }
        store(param + i, p);
        store(m + i, m1);
        store(v + i, m2);
    }
}

template <int N>
__global__ void __launch_bounds__(BLOCK) add_values(float *sum, const float *x, int64_t n)
{
    for (int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * N; i < n;
         i += (int64_t)gridDim.x * BLOCK * N) {
        float a[N], b[N];

        load(a, sum + i);
        load(b, x + i);
#pragma unroll
        for (int k = 0; k < N; k++)
            a[k] += b[k];
        store(sum + i, a);
    }
}

} // namespace

int64_t ha_cuda_square_parts(int64_t n)
{
    return ceil_div(n, TILE);
}

int ha_cuda_launch_square_sum(CUstream_st *stream, double *sum, double *partial, const float *x,
                              int64_t n)
{
    int64_t parts = ha_cuda_square_parts(n);

    HA_LAUNCH(square_parts, (unsigned)parts, BLOCK, 0, stream, partial, x, n);
    HA_LAUNCH(add_parts, 1, BLOCK, 0, stream, sum, partial, parts);
    return HA_LAUNCHED();
}

int ha_cuda_launch_adamw(CUstream_st *stream, float *param, float *m, float *v, const float *grad,
                         int64_t n, const double *grad_square_sum,
                         const struct ha_cuda_adamw *settings)
{
    bool vector = aligned(param) && aligned(m) && aligned(v) && aligned(grad) && whole(n);
    auto kernel = vector ? adamw<VECTOR> : adamw<1>;
    ha_cuda_adamw s = *settings;

    HA_LAUNCH(kernel, blocks_for(vector ? n / VECTOR : n, BLOCK), BLOCK, 0, stream, param, m, v,
              grad, n, grad_square_sum, s);
    return HA_LAUNCHED();
}

int ha_cuda_launch_add(CUstream_st *stream, float *sum, const float *x, int64_t n)
{
    bool vector = aligned(sum) && aligned(x) && whole(n);
    auto kernel = vector ? add_values<VECTOR> : add_values<1>;

    HA_LAUNCH(kernel, blocks_for(vector ? n / VECTOR : n, BLOCK), BLOCK, 0, stream, sum, x, n);
    return HA_LAUNCHED();
}
