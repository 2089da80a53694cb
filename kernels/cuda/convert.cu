/* convert.cu - matrices of one type in another, and scaled */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"

namespace
{

using namespace ha;

constexpr int BLOCK = 256;

template <int N, typename T>
__global__ void __launch_bounds__(BLOCK)
    convert(T *out, int64_t out_stride, const void *in, enum ha_dtype in_dtype, int64_t in_stride,
            int64_t rows, int64_t cols)
{
    int64_t parts = cols / N;

    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < rows * parts;
         i += (int64_t)gridDim.x * BLOCK) {
        int64_t row = i / parts, col = i % parts * N;
        float v[N];

        load_weight(v, in, in_dtype, row * in_stride + col);
        store(out + row * out_stride + col, v);
    }
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    scale(T *x, int64_t rows, int64_t cols, int64_t stride, float factor)
{
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < rows * cols;
         i += (int64_t)gridDim.x * BLOCK) {
        T *at = x + i / cols * stride + i % cols;
        float v[1];

        load(v, at);
        v[0] = factor == 0.0f ? 0.0f : v[0] * factor;
        store(at, v);
    }
}

template <typename T>
int launch_convert(CUstream_st *stream, T *out, int64_t out_stride, const void *in,
                   enum ha_dtype in_dtype, int64_t in_stride, int64_t rows, int64_t cols)
{
    bool vector =
        aligned(out) && aligned(in) && whole(out_stride) && whole(in_stride) && whole(cols);
    auto kernel = vector ? convert<VECTOR, T> : convert<1, T>;

    HA_LAUNCH(kernel, blocks_for(rows * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream, out,
              out_stride, in, in_dtype, in_stride, rows, cols);
    return HA_LAUNCHED();
}

} // namespace

int ha_cuda_launch_convert(CUstream_st *stream, void *out, enum ha_dtype out_dtype,
                           int64_t out_stride, const void *in, enum ha_dtype in_dtype,
                           int64_t in_stride, int64_t rows, int64_t cols)
{
    if (out_dtype == HA_DTYPE_BF16)
        return launch_convert(stream, static_cast<bf16 *>(out), out_stride, in, in_dtype, in_stride,
                              rows, cols);
    if (out_dtype == HA_DTYPE_F32)
        return launch_convert(stream, static_cast<float *>(out), out_stride, in, in_dtype,
                              in_stride, rows, cols);
    return (int)cudaErrorInvalidValue;
}

int ha_cuda_launch_scale(CUstream_st *stream, void *x, enum ha_dtype dtype, int64_t rows,
                         int64_t cols, int64_t stride, float factor)
{
    unsigned blocks = blocks_for(rows * cols, BLOCK);

    if (dtype == HA_DTYPE_BF16)
        HA_LAUNCH(scale<bf16>, blocks, BLOCK, 0, stream, static_cast<bf16 *>(x), rows, cols, stride,
                  factor);
    else if (dtype == HA_DTYPE_F32)
        HA_LAUNCH(scale<float>, blocks, BLOCK, 0, stream, static_cast<float *>(x), rows, cols,
                  stride, factor);
    else
        return (int)cudaErrorInvalidValue;
    return HA_LAUNCHED();
}
