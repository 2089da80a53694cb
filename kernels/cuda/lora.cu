/* lora.cu - an adapter's masters as columns of a weight and rows of an input's product */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace
{

using namespace ha;

constexpr int BLOCK = 256;

/* The part that has row `row` of B, with the columns before its own. */
__device__ __forceinline__ int part_of_row(const struct ha_lora_columns &c, int64_t &row,
                                           int64_t &column)
{
    int part = 0;

    column = 0;
#pragma unroll
    for (int i = 0; i + 1 < HA_LORA_MAX_PARTS; i++)
        if (part == i && i + 1 < c.n_parts && row >= c.parts[i].out) {
            row -= c.parts[i].out;
            column += c.parts[i].rank;
            part = i + 1;
        }
    return part;
}

/* N elements at `col` of row `row` of B. */
template <int N>
__device__ __forceinline__ void fill_b(const struct ha_lora_columns &c, int64_t row, int64_t col)
{
    bf16 *to = static_cast<bf16 *>(c.b.data) + row * c.b.stride + col;
    float v[N] = {};
    int64_t first;
    int part = part_of_row(c, row, first);

#pragma unroll
    for (int i = 0; i < HA_LORA_MAX_PARTS; i++)
        if (part == i && col >= first && col < first + c.parts[i].rank)
            load(v, c.parts[i].b + row * c.parts[i].rank + col - first);
#pragma unroll
    for (int k = 0; k < N; k++)
        v[k] *= c.scale;
    store(to, v);
}

/* N elements at `col` of row `row` of A. */
template <int N>
__device__ __forceinline__ void fill_a(const struct ha_lora_columns &c, int64_t row, int64_t col)
{
    bf16 *to = static_cast<bf16 *>(c.a.data) + row * c.a.stride + col;
    float v[N] = {};

#pragma unroll
    for (int i = 0; i < HA_LORA_MAX_PARTS; i++) {
        if (i < c.n_parts && row >= 0 && row < c.parts[i].rank)
            load(v, c.parts[i].a + row * c.a.cols + col);
        row -= i < c.n_parts ? c.parts[i].rank : 0;
    }
    store(to, v);
}

template <int N> __global__ void __launch_bounds__(BLOCK) lora_columns(struct ha_lora_columns c)
{
    int64_t b_parts = c.b.cols / N, a_parts = c.a.cols / N;
    int64_t n_b = c.b.rows * b_parts, n = n_b + c.a.rows * a_parts;

    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * BLOCK) {
        if (i < n_b)
            fill_b<N>(c, i / b_parts, i % b_parts * N);
        else
            fill_a<N>(c, (i - n_b) / a_parts, (i - n_b) % a_parts * N);
    }
}

} // namespace

int ha_cuda_launch_lora_columns(CUstream_st *stream, const struct ha_lora_columns *columns)
{
    struct ha_lora_columns c = *columns;
    int64_t n = c.b.rows * c.b.cols + c.a.rows * c.a.cols;
    bool vector = aligned(c.b.data) && aligned(c.a.data) && whole(c.b.stride) && whole(c.b.cols) &&
                  whole(c.a.stride) && whole(c.a.cols);

    for (int i = 0; i < c.n_parts; i++)
        vector = vector && aligned(c.parts[i].a) && aligned(c.parts[i].b) && whole(c.parts[i].rank);

    auto kernel = vector ? lora_columns<VECTOR> : lora_columns<1>;

    HA_LAUNCH(kernel, blocks_for(n / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream, c);
    return HA_LAUNCHED();
}
