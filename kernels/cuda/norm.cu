/* norm.cu - RMSNorm forward and backward
 *
 * A team of threads does one group: a warp for the short groups of QK-norm, a block
 * for hidden states.  The group is read twice, the second time from cache; each
 * thread sums its elements in order and the team adds up in a tree, so that a
 * group's result depends on nothing else. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace
{

using namespace ha;

constexpr int BLOCK = 256;
constexpr int64_t WARP_COLS = 1024; /* up to here a warp does a group */

template <int TEAM> __device__ __forceinline__ float team_sum(float x)
{
    if constexpr (TEAM == WARP) {
        return warp_sum(x);
    } else {
        __shared__ float room[TEAM / WARP];

        return block_sum<TEAM>(x, room);
    }
}

struct norm_call {
    bf16 *out; /* or dx */
    const bf16 *x, *dout;
    const void *weight;
    enum ha_dtype weight_dtype;
    float *ret_rstd;
    const float *rstd;
    float eps;
    bool accumulate;
    int64_t n_groups, groups, cols, out_stride, x_stride, dout_stride;
};

/* Of the group in n that this team does; -1: none.  The same for all threads of a team. */
template <int TEAM> __device__ __forceinline__ int64_t group_of_team(const norm_call &n)
{
    int64_t group = (int64_t)blockIdx.x * (BLOCK / TEAM) + threadIdx.x / TEAM;

    return group < n.n_groups ? group : -1;
}

template <int TEAM, int N> __global__ void __launch_bounds__(BLOCK) forward(norm_call n)
{
    int64_t group = group_of_team<TEAM>(n);
    int64_t first = threadIdx.x % TEAM * N, step = TEAM * N;
    const bf16 *x;
    bf16 *out;
    float sum = 0.0f, rstd;

    if (group < 0)
        return;
    x = n.x + group / n.groups * n.x_stride + group % n.groups * n.cols;
    out = n.out + group / n.groups * n.out_stride + group % n.groups * n.cols;
    for (int64_t j = first; j < n.cols; j += step) {
        float v[N];

        load(v, x + j);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum += v[i] * v[i];
    }
    rstd = 1.0f / sqrtf(team_sum<TEAM>(sum) / (float)n.cols + n.eps);
    if (n.ret_rstd && first == 0)
        n.ret_rstd[group] = rstd;
    for (int64_t j = first; j < n.cols; j += step) {
        float v[N], w[N];

        load(v, x + j);
        load_weight(w, n.weight, n.weight_dtype, j);
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = v[i] * rstd * w[i];
        store(out + j, v);
    }
}

/* dx = rstd (dout w - x rstd^2 mean(dout w x)). */
template <int TEAM, int N> __global__ void __launch_bounds__(BLOCK) backward(norm_call n)
{
    int64_t group = group_of_team<TEAM>(n);
    int64_t first = threadIdx.x % TEAM * N, step = TEAM * N;
    const bf16 *x, *dout;
    bf16 *dx;
    float dot = 0.0f, rstd, mean;

    if (group < 0)
        return;
    x = n.x + group / n.groups * n.x_stride + group % n.groups * n.cols;
    dout = n.dout + group / n.groups * n.dout_stride + group % n.groups * n.cols;
    dx = n.out + group / n.groups * n.out_stride + group % n.groups * n.cols;
    rstd = n.rstd[group];
    for (int64_t j = first; j < n.cols; j += step) {
        float v[N], d[N], w[N];

        load(v, x + j);
        load(d, dout + j);
        load_weight(w, n.weight, n.weight_dtype, j);
#pragma unroll
        for (int i = 0; i < N; i++)
            dot += d[i] * w[i] * v[i];
    }
    mean = team_sum<TEAM>(dot) / (float)n.cols * rstd * rstd;
    for (int64_t j = first; j < n.cols; j += step) {
        float v[N], d[N], w[N], before[N];

        load(v, x + j);
        load(d, dout + j);
        load_weight(w, n.weight, n.weight_dtype, j);
        if (n.accumulate)
            load(before, dx + j);
#pragma unroll
        for (int i = 0; i < N; i++) {
            v[i] = rstd * (d[i] * w[i] - v[i] * mean);
            if (n.accumulate)
                v[i] += before[i];
        }
        store(dx + j, v);
    }
}

bool vectors(const norm_call &n)
{
    return aligned(n.out) && aligned(n.x) && aligned(n.weight) && whole(n.cols) &&
           whole(n.out_stride) && whole(n.x_stride) && (!n.dout || aligned(n.dout)) &&
           whole(n.dout_stride);
}

int launch(CUstream_st *stream, void (*warps)(norm_call), void (*blocks)(norm_call),
           const norm_call &n)
{
    bool warp = n.cols <= WARP_COLS;
    int64_t grid = warp ? ceil_div(n.n_groups, BLOCK / WARP) : n.n_groups;
    void (*kernel)(norm_call) = warp ? warps : blocks;

    HA_LAUNCH(kernel, (unsigned)grid, BLOCK, 0, stream, n);
    return HA_LAUNCHED();
}

} // namespace

int ha_cuda_launch_rmsnorm(CUstream_st *stream, void *out, float *rstd, const void *x,
                           const void *weight, enum ha_dtype weight_dtype, float eps,
                           int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                           int64_t x_stride)
{
    norm_call n = {};

    n.out = static_cast<bf16 *>(out);
    n.x = static_cast<const bf16 *>(x);
    n.weight = weight;
    n.weight_dtype = weight_dtype;
    n.ret_rstd = rstd;
    n.eps = eps;
    n.n_groups = n_rows * groups;
    n.groups = groups;
    n.cols = cols;
    n.out_stride = out_stride;
    n.x_stride = x_stride;
    if (vectors(n))
        return launch(stream, forward<WARP, VECTOR>, forward<BLOCK, VECTOR>, n);
    return launch(stream, forward<WARP, 1>, forward<BLOCK, 1>, n);
}

int ha_cuda_launch_rmsnorm_backward(CUstream_st *stream, void *dx, const void *dout, const void *x,
                                    const float *rstd, const void *weight,
                                    enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                                    int64_t cols, int64_t dx_stride, int64_t dout_stride,
                                    int64_t x_stride, bool accumulate)
{
    norm_call n = {};

    n.out = static_cast<bf16 *>(dx);
    n.x = static_cast<const bf16 *>(x);
    n.dout = static_cast<const bf16 *>(dout);
    n.weight = weight;
    n.weight_dtype = weight_dtype;
    n.rstd = rstd;
    n.accumulate = accumulate;
    n.n_groups = n_rows * groups;
    n.groups = groups;
    n.cols = cols;
    n.out_stride = dx_stride;
    n.x_stride = x_stride;
    n.dout_stride = dout_stride;
    if (vectors(n))
        return launch(stream, backward<WARP, VECTOR>, backward<BLOCK, VECTOR>, n);
    return launch(stream, backward<WARP, 1>, backward<BLOCK, 1>, n);
}
