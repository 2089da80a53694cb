/* rows.cu - operations that treat each row, or each element, by itself
 *
 * All are bound by memory: a thread moves 16 bytes at a time where widths, strides and
 * addresses allow, and one element otherwise.  Indices run over (row, part of a row). */
#include "common/base/rng_philox.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/dropout.h"
#include "kernels/ops.h"

namespace
{

using namespace ha;

constexpr int BLOCK = 256;

__device__ __forceinline__ int64_t first_index()
{
    return (int64_t)blockIdx.x * BLOCK + threadIdx.x;
}

__device__ __forceinline__ int64_t index_step()
{
    return (int64_t)gridDim.x * BLOCK;
}

/* ---- bias ---- */

template <int N>
__global__ void __launch_bounds__(BLOCK) add_bias(bf16 *x, const void *bias, enum ha_dtype dtype,
                                                  int64_t n_rows, int64_t cols, int64_t stride)
{
    int64_t parts = cols / N;

    for (int64_t i = first_index(); i < n_rows * parts; i += index_step()) {
        int64_t col = i % parts * N;
        bf16 *at = x + i / parts * stride + col;
        float v[N], b[N];

        load(v, at);
        load_weight(b, bias, dtype, col);
#pragma unroll
        for (int k = 0; k < N; k++)
            v[k] += b[k];
        store(at, v);
    }
}

/* ---- embedding ---- */

/* A row of NaN stands for an id outside the table; the host tells of one of them. */
template <int N>
__global__ void __launch_bounds__(BLOCK)
    embed(bf16 *out, const void *table, enum ha_dtype dtype, int64_t vocabulary, int64_t cols,
          int64_t stride, const int32_t *ids, int64_t n_tokens, uint64_t *fault_word)
{
    int64_t parts = cols / N;

    for (int64_t i = first_index(); i < n_tokens * parts; i += index_step()) {
        int64_t token = i / parts, col = i % parts * N;
        int32_t id = ids[token];
        float v[N];

        if (id >= 0 && id < vocabulary) {
            load_weight(v, table, dtype, id * stride + col);
        } else {
#pragma unroll
            for (int k = 0; k < N; k++)
                v[k] = NAN;
            *fault_word = (uint64_t)1 << 62 | (uint64_t)(token & 0x3fffffff) << 32 | (uint32_t)id;
        }
        store(out + token * cols + col, v);
    }
}

/* ---- rotary embedding ---- */

template <int N>
__global__ void __launch_bounds__(BLOCK)
    rope(bf16 *x, const float *cos_sin, const int32_t *positions, int64_t n_tokens, int64_t n_heads,
         int64_t half, int64_t stride, float sign)
{
    int64_t parts = half / N;

    for (int64_t i = first_index(); i < n_tokens * n_heads * parts; i += index_step()) {
        int64_t col = i % parts * N, token = i / parts / n_heads;
        bf16 *low = x + token * stride + i / parts % n_heads * 2 * half + col;
        const float *cosine = cos_sin + positions[token] * 2 * half + col;
        float a[N], b[N], c[N], s[N], turned[N];

        load(a, low);
        load(b, low + half);
        load(c, cosine);
        load(s, cosine + half);
#pragma unroll
        for (int k = 0; k < N; k++) {
            turned[k] = a[k] * c[k] - b[k] * sign * s[k];
            b[k] = b[k] * c[k] + a[k] * sign * s[k];
        }
        store(low, turned);
        store(low + half, b);
    }
}

/* ---- SwiGLU ---- */

__device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

template <int N>
__global__ void __launch_bounds__(BLOCK)
    swiglu(bf16 *out, const bf16 *gate, const bf16 *up, int64_t n_rows, int64_t cols,
           int64_t out_stride, int64_t in_stride)
{
    int64_t parts = cols / N;

    for (int64_t i = first_index(); i < n_rows * parts; i += index_step()) {
        int64_t row = i / parts, col = i % parts * N;
        float g[N], u[N];

        load(g, gate + row * in_stride + col);
        load(u, up + row * in_stride + col);
#pragma unroll
        for (int k = 0; k < N; k++)
            u[k] *= g[k] * sigmoid(g[k]);
        store(out + row * out_stride + col, u);
    }
}

template <int N>
__global__ void __launch_bounds__(BLOCK)
    swiglu_backward(bf16 *dgate, bf16 *dup, const bf16 *dout, const bf16 *gate, const bf16 *up,
                    int64_t n_rows, int64_t cols, int64_t out_stride, int64_t in_stride)
{
    int64_t parts = cols / N;

    for (int64_t i = first_index(); i < n_rows * parts; i += index_step()) {
        int64_t row = i / parts, col = i % parts * N, at = row * in_stride + col;
        float g[N], u[N], d[N];

        load(g, gate + at);
        load(u, up + at);
        load(d, dout + row * out_stride + col);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float s = sigmoid(g[k]);

            u[k] *= d[k] * s * (1.0f + g[k] * (1.0f - s));
            d[k] *= g[k] * s;
        }
        store(dgate + at, u);
        store(dup + at, d);
    }
}

/* ---- dropout ---- */

/* The mask's words of elements col, col + 1, ...; col is a multiple of N. */
template <int N>
__device__ __forceinline__ void mask_words(uint32_t (&words)[N], const struct ha_dropout_mask &mask,
                                           const uint32_t *place, int64_t col)
{
    uint32_t counter[4] = {place[0], place[1], mask.stream,
                           HA_PHILOX_DROPOUT + ((uint32_t)(col / 4) << 8)};

    if constexpr (N == VECTOR) {
        ha_philox(mask.key, counter, words);
        counter[3] += 1u << 8;
        ha_philox(mask.key, counter, words + 4);
    } else {
        uint32_t all[4];

        ha_philox(mask.key, counter, all);
        words[0] = col % 4 == 0 ? all[0] : col % 4 == 1 ? all[1] : col % 4 == 2 ? all[2] : all[3];
    }
}

template <int N>
__global__ void __launch_bounds__(BLOCK)
    dropout(bf16 *out, const bf16 *x, struct ha_dropout_mask mask, const uint32_t *places,
            int64_t n_rows, int64_t cols, int64_t out_stride, int64_t x_stride, bool accumulate)
{
    int64_t parts = cols / N;

    for (int64_t i = first_index(); i < n_rows * parts; i += index_step()) {
        int64_t row = i / parts, col = i % parts * N;
        bf16 *to = out + row * out_stride + col;
        float v[N], sum[N] = {};
        uint32_t words[N];

        mask_words(words, mask, places + 2 * row, col);
        load(v, x + row * x_stride + col);
        if (accumulate)
            load(sum, to);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float kept = v[k] * (words[k] >= mask.threshold ? mask.scale : 0.0f);

            v[k] = accumulate ? sum[k] + kept : kept;
        }
        store(to, v);
    }
}

/* ---- rows by index ---- */

template <int N>
__global__ void __launch_bounds__(BLOCK)
    gather(bf16 *out, const bf16 *x, const int64_t *index, int64_t n_rows, int64_t cols)
{
    int64_t parts = cols / N;

    for (int64_t i = first_index(); i < n_rows * parts; i += index_step()) {
        int64_t row = i / parts, col = i % parts * N;
        float v[N];

        load(v, x + index[row] * cols + col);
        store(out + row * cols + col, v);
    }
}

template <int N>
__global__ void __launch_bounds__(BLOCK)
    scatter(bf16 *x, const float *rows, const int64_t *target, const int32_t *first,
            const int32_t *item, const float *coefficient, int64_t n_targets, int64_t cols)
{
    int64_t parts = cols / N;

    for (int64_t i = first_index(); i < n_targets * parts; i += index_step()) {
        int64_t run = i / parts, col = i % parts * N;
        bf16 *at = x + target[run] * cols + col;
        float sum[N];

        load(sum, at);
        for (int32_t j = first[run]; j < first[run + 1]; j++) {
            float v[N], c = coefficient[j];

            load(v, rows + item[j] * cols + col);
#pragma unroll
            for (int k = 0; k < N; k++)
                sum[k] += c * v[k];
        }
        store(at, sum);
    }
}

/* ---- new keys and values ---- */

template <int N>
__global__ void __launch_bounds__(BLOCK)
    kv_append(const struct ha_kv_rows *caches, const int32_t *positions, int64_t layer,
              const bf16 *k, const bf16 *v, int64_t n_rows, int64_t width, int64_t stride)
{
    int64_t parts = width / N;

    for (int64_t i = first_index(); i < n_rows * parts; i += index_step()) {
        int64_t row = i / parts, col = i % parts * N;
        const ha_kv_rows cache = caches[row];
        int64_t to = layer * cache.layer_stride + positions[row] * width + col;
        float key[N], value[N];

        load(key, k + row * stride + col);
        load(value, v + row * stride + col);
        store(static_cast<bf16 *>(cache.k) + to, key);
        store(static_cast<bf16 *>(cache.v) + to, value);
    }
}

} // namespace

int ha_cuda_launch_add_bias(CUstream_st *stream, void *x, const void *bias,
                            enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride)
{
    bool vector = aligned(x) && aligned(bias) && whole(cols) && whole(stride);
    auto kernel = vector ? add_bias<VECTOR> : add_bias<1>;

    HA_LAUNCH(kernel, blocks_for(n_rows * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              static_cast<bf16 *>(x), bias, bias_dtype, n_rows, cols, stride);
    return HA_LAUNCHED();
}

int ha_cuda_launch_embed(CUstream_st *stream, void *out, const void *table, enum ha_dtype dtype,
                         int64_t vocabulary, int64_t cols, int64_t stride, const int32_t *ids,
                         int64_t n_tokens, uint64_t *fault_word)
{
    bool vector = aligned(out) && aligned(table) && whole(cols) && whole(stride);
    auto kernel = vector ? embed<VECTOR> : embed<1>;

    HA_LAUNCH(kernel, blocks_for(n_tokens * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              static_cast<bf16 *>(out), table, dtype, vocabulary, cols, stride, ids, n_tokens,
              fault_word);
    return HA_LAUNCHED();
}

int ha_cuda_launch_rope(CUstream_st *stream, void *x, const float *cos_sin,
                        const int32_t *positions, int64_t n_tokens, int64_t n_heads,
                        int64_t head_dim, int64_t stride, bool inverse)
{
    int64_t half = head_dim / 2;
    bool vector = aligned(x) && aligned(cos_sin) && whole(half) && whole(stride);
    auto kernel = vector ? rope<VECTOR> : rope<1>;

    HA_LAUNCH(kernel, blocks_for(n_tokens * n_heads * half / (vector ? VECTOR : 1), BLOCK), BLOCK,
              0, stream, static_cast<bf16 *>(x), cos_sin, positions, n_tokens, n_heads, half,
              stride, inverse ? -1.0f : 1.0f);
    return HA_LAUNCHED();
}

int ha_cuda_launch_swiglu(CUstream_st *stream, void *out, const void *gate, const void *up,
                          int64_t n_rows, int64_t cols, int64_t out_stride, int64_t in_stride)
{
    bool vector = aligned(out) && aligned(gate) && aligned(up) && whole(cols) &&
                  whole(out_stride) && whole(in_stride);
    auto kernel = vector ? swiglu<VECTOR> : swiglu<1>;

    HA_LAUNCH(kernel, blocks_for(n_rows * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              static_cast<bf16 *>(out), static_cast<const bf16 *>(gate),
              static_cast<const bf16 *>(up), n_rows, cols, out_stride, in_stride);
    return HA_LAUNCHED();
}

int ha_cuda_launch_swiglu_backward(CUstream_st *stream, void *dgate, void *dup, const void *dout,
                                   const void *gate, const void *up, int64_t n_rows, int64_t cols,
                                   int64_t out_stride, int64_t in_stride)
{
    bool vector = aligned(dgate) && aligned(dup) && aligned(dout) && aligned(gate) && aligned(up) &&
                  whole(cols) && whole(out_stride) && whole(in_stride);
    auto kernel = vector ? swiglu_backward<VECTOR> : swiglu_backward<1>;

    HA_LAUNCH(kernel, blocks_for(n_rows * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              static_cast<bf16 *>(dgate), static_cast<bf16 *>(dup), static_cast<const bf16 *>(dout),
              static_cast<const bf16 *>(gate), static_cast<const bf16 *>(up), n_rows, cols,
              out_stride, in_stride);
    return HA_LAUNCHED();
}

int ha_cuda_launch_dropout(CUstream_st *stream, void *out, const void *x,
                           const struct ha_dropout_mask *mask, const uint32_t *places,
                           int64_t n_rows, int64_t cols, int64_t out_stride, int64_t x_stride,
                           bool accumulate)
{
    bool vector = aligned(out) && aligned(x) && whole(cols) && whole(out_stride) && whole(x_stride);
    auto kernel = vector ? dropout<VECTOR> : dropout<1>;
    struct ha_dropout_mask own = *mask; /* a plain value */

    HA_LAUNCH(kernel, blocks_for(n_rows * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              static_cast<bf16 *>(out), static_cast<const bf16 *>(x), own, places, n_rows, cols,
              out_stride, x_stride, accumulate);
    return HA_LAUNCHED();
}

int ha_cuda_launch_gather(CUstream_st *stream, void *out, const void *x, const int64_t *index,
                          int64_t n_rows, int64_t cols)
{
    bool vector = aligned(out) && aligned(x) && whole(cols);
    auto kernel = vector ? gather<VECTOR> : gather<1>;

    HA_LAUNCH(kernel, blocks_for(n_rows * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              static_cast<bf16 *>(out), static_cast<const bf16 *>(x), index, n_rows, cols);
    return HA_LAUNCHED();
}

int ha_cuda_launch_scatter(CUstream_st *stream, void *x, const float *rows, const int64_t *target,
                           const int32_t *first, const int32_t *item, const float *coefficient,
                           int64_t n_targets, int64_t cols)
{
    bool vector = aligned(x) && aligned(rows) && whole(cols);
    auto kernel = vector ? scatter<VECTOR> : scatter<1>;

    HA_LAUNCH(kernel, blocks_for(n_targets * cols / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              static_cast<bf16 *>(x), rows, target, first, item, coefficient, n_targets, cols);
    return HA_LAUNCHED();
}

int ha_cuda_launch_kv_append(CUstream_st *stream, const struct ha_kv_rows *caches,
                             const int32_t *positions, int64_t layer, const void *k, const void *v,
                             int64_t n_rows, int64_t width, int64_t stride)
{
    bool vector = aligned(k) && aligned(v) && whole(width) && whole(stride);
    auto kernel = vector ? kv_append<VECTOR> : kv_append<1>;

    HA_LAUNCH(kernel, blocks_for(n_rows * width / (vector ? VECTOR : 1), BLOCK), BLOCK, 0, stream,
              caches, positions, layer, static_cast<const bf16 *>(k), static_cast<const bf16 *>(v),
              n_rows, width, stride);
    return HA_LAUNCHED();
}
