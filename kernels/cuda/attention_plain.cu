/* attention_plain.cu - attention without tensor cores, for any head width and alignment; delta
 *
 * A warp has one row: a query of one head, or a key of one kv head.  Its lanes share the row's
 * elements, lane l those at l, l + 32 ...  Slow and exact to f32; what the models at hand need goes
 * through attention_forward.cu, attention_backward.cu and decode.cu. */
#include "kernels/cuda/attention.cuh"

namespace
{

using namespace ha;

constexpr int ROWS = 4; /* warps of a block */
constexpr int PARTS = HA_CUDA_ATTENTION_WIDEST / WARP;

/* One row's elements of a lane. */
struct part {
    float x[PARTS];
};

__device__ __forceinline__ part part_of(const bf16 *row, int width, int lane)
{
    part p;

#pragma unroll
    for (int i = 0; i < PARTS; i++)
        p.x[i] = lane + i * WARP < width ? __bfloat162float(row[lane + i * WARP]) : 0.0f;
    return p;
}

__device__ __forceinline__ void store_part(bf16 *row, const part &p, float factor, int width,
                                           int lane)
{
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        if (lane + i * WARP < width)
            row[lane + i * WARP] = __float2bfloat16(p.x[i] * factor);
}

__device__ __forceinline__ float dot(const part &a, const part &b)
{
    float sum = 0.0f;

#pragma unroll
    for (int i = 0; i < PARTS; i++)
        sum = fmaf(a.x[i], b.x[i], sum);
    return warp_sum(sum);
}

/* a = a * factor + b * weight. */
__device__ __forceinline__ void blend(part &a, float factor, const part &b, float weight)
{
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        a.x[i] = fmaf(a.x[i], factor, b.x[i] * weight);
}

__device__ __forceinline__ part nothing()
{
    part p;

#pragma unroll
    for (int i = 0; i < PARTS; i++)
        p.x[i] = 0.0f;
    return p;
}

/* ---- forward ---- */

struct attended {
    part out;
    float top, total; /* of scaled scores */
};

/* Keys begin .. end of a cache of rows. */
__device__ __forceinline__ void attend(attended &a, const part &q, const bf16 *k, int64_t k_stride,
                                       const bf16 *v, int64_t v_stride, int64_t begin, int64_t end,
                                       float scale, int width, int lane)
{
    for (int64_t j = begin; j < end; j++) {
        float score = dot(q, part_of(k + j * k_stride, width, lane)) * scale;
        float top = fmaxf(a.top, score), base = top == -INFINITY ? 0.0f : top;
        float rescale = expf(a.top - base), weight = expf(score - base);

        blend(a.out, rescale, part_of(v + j * v_stride, width, lane), weight);
        a.total = fmaf(a.total, rescale, weight);
        a.top = top;
    }
}

__global__ void __launch_bounds__(ROWS *WARP) forward(ha_cuda_attention c)
{
    const int lane = (int)threadIdx.x % WARP, width = c.head_dim;
    const int64_t head = blockIdx.x % c.n_heads, kv_head = head / (c.n_heads / c.n_kv_heads);
    const ha_cuda_query_tile tile = c.query_tiles[blockIdx.x / c.n_heads];
    const bf16 *const k = static_cast<const bf16 *>(c.k) + kv_head * width;
    const bf16 *const v = static_cast<const bf16 *>(c.v) + kv_head * width;

    for (int r = (int)threadIdx.x / WARP; r < tile.n_rows; r += ROWS) {
        const int64_t row = tile.row + r;
        const part q =
            part_of(static_cast<const bf16 *>(c.q) + row * c.q_stride + head * width, width, lane);
        attended a = {nothing(), -INFINITY, 0.0f};

        attend(a, q, k, c.k_stride, v, c.v_stride, tile.prefix_begin, tile.prefix_end, c.scale,
               width, lane);
        attend(a, q, k, c.k_stride, v, c.v_stride, tile.own_begin, row + 1, c.scale, width, lane);
        store_part(static_cast<bf16 *>(c.out) + row * c.out_stride + head * width, a.out,
                   1.0f / a.total, width, lane);
        if (c.logsumexp && lane == 0)
            c.logsumexp[head * c.n_tokens + row] = a.top + logf(a.total);
    }
}

/* ---- backward ---- */

__global__ void __launch_bounds__(ROWS *WARP) sum_delta(ha_cuda_attention c)
{
    const int lane = (int)threadIdx.x % WARP, width = c.head_dim;
    const int64_t n = (int64_t)c.n_heads * c.n_tokens, step = (int64_t)gridDim.x * ROWS;

    for (int64_t i = (int64_t)blockIdx.x * ROWS + threadIdx.x / WARP; i < n; i += step) {
        int64_t row = i / c.n_heads, head = i % c.n_heads, at = row * c.out_stride + head * width;
        float sum = 0.0f;

        for (int e = lane; e < width; e += WARP)
            sum = fmaf(__bfloat162float(static_cast<const bf16 *>(c.dout)[at + e]),
                       __bfloat162float(static_cast<const bf16 *>(c.out)[at + e]), sum);
        sum = warp_sum(sum);
        if (lane == 0)
            c.delta[head * c.n_tokens + row] = sum;
    }
}

/* A pair's p and ds. */
struct pair_gradient {
    float p, ds;
};

__device__ __forceinline__ pair_gradient gradient_of(const ha_cuda_attention &c, const part &q,
                                                     const part &k, const part &dout, const part &v,
                                                     int64_t head, int64_t query)
{
    int64_t at = head * c.n_tokens + query;
    pair_gradient g;

    g.p = expf(fmaf(dot(q, k), c.scale, -c.logsumexp[at]));
    g.ds = g.p * (dot(dout, v) - c.delta[at]) * c.scale;
    return g;
}

__device__ __forceinline__ void add_keys(part &dq, const ha_cuda_attention &c, const part &q,
                                         const part &dout, int64_t head, int64_t query,
                                         int64_t begin, int64_t end, int lane)
{
    const int64_t kv_head = head / (c.n_heads / c.n_kv_heads);

    for (int64_t j = begin; j < end; j++) {
        const part k =
            part_of(static_cast<const bf16 *>(c.k) + j * c.k_stride + kv_head * c.head_dim,
                    c.head_dim, lane);
        const part v =
            part_of(static_cast<const bf16 *>(c.v) + j * c.v_stride + kv_head * c.head_dim,
                    c.head_dim, lane);

        blend(dq, 1.0f, k, gradient_of(c, q, k, dout, v, head, query).ds);
    }
}

__global__ void __launch_bounds__(ROWS *WARP) query_gradient(ha_cuda_attention c)
{
    const int lane = (int)threadIdx.x % WARP, width = c.head_dim;
    const int64_t head = blockIdx.x % c.n_heads;
    const ha_cuda_query_tile tile = c.query_tiles[blockIdx.x / c.n_heads];

    for (int r = (int)threadIdx.x / WARP; r < tile.n_rows; r += ROWS) {
        const int64_t row = tile.row + r;
        const part q =
            part_of(static_cast<const bf16 *>(c.q) + row * c.q_stride + head * width, width, lane);
        const part dout = part_of(
            static_cast<const bf16 *>(c.dout) + row * c.out_stride + head * width, width, lane);
        part dq = nothing();

        add_keys(dq, c, q, dout, head, row, tile.prefix_begin, tile.prefix_end, lane);
        add_keys(dq, c, q, dout, head, row, tile.own_begin, row + 1, lane);
        store_part(static_cast<bf16 *>(c.dq) + row * c.q_stride + head * width, dq, 1.0f, width,
                   lane);
    }
}

/* What the queries of a range add to one key's gradients. */
__device__ __forceinline__ void add_queries(part &dk, part &dv, const ha_cuda_attention &c,
                                            const part &k, const part &v, int64_t head, int32_t key,
                                            const ha_cuda_query_range &range, int lane)
{
    for (int32_t query = range.begin; query < range.end; query++) {
        if (!ha_cuda_range_sees(&range, query, key))
            continue;

        const part q =
            part_of(static_cast<const bf16 *>(c.q) + query * c.q_stride + head * c.head_dim,
                    c.head_dim, lane);
        const part dout =
            part_of(static_cast<const bf16 *>(c.dout) + query * c.out_stride + head * c.head_dim,
                    c.head_dim, lane);
        const pair_gradient g = gradient_of(c, q, k, dout, v, head, query);

        blend(dv, 1.0f, dout, g.p);
        blend(dk, 1.0f, q, g.ds);
    }
}

__global__ void __launch_bounds__(ROWS *WARP) key_gradients(ha_cuda_attention c)
{
    const int lane = (int)threadIdx.x % WARP, width = c.head_dim;
    const int group = c.n_heads / c.n_kv_heads;
    const int64_t kv_head = blockIdx.x % c.n_kv_heads;
    const ha_cuda_key_tile tile = c.key_tiles[blockIdx.x / c.n_kv_heads];

    for (int j = (int)threadIdx.x / WARP; j < tile.n_keys; j += ROWS) {
        const int32_t key = tile.key + j;
        const int64_t k_at = key * c.k_stride + kv_head * width;
        const int64_t v_at = key * c.v_stride + kv_head * width;
        const part k = part_of(static_cast<const bf16 *>(c.k) + k_at, width, lane);
        const part v = part_of(static_cast<const bf16 *>(c.v) + v_at, width, lane);
        part dk = nothing(), dv = nothing();

        for (int i = tile.first_range; i < tile.first_range + tile.n_ranges; i++)
            for (int h = 0; h < group; h++)
                add_queries(dk, dv, c, k, v, kv_head * group + h, key, c.ranges[i], lane);
        store_part(static_cast<bf16 *>(c.dk) + k_at, dk, 1.0f, width, lane);
        store_part(static_cast<bf16 *>(c.dv) + v_at, dv, 1.0f, width, lane);
    }
}

/* ---- decoding ---- */

__global__ void __launch_bounds__(ROWS *WARP) decode(ha_cuda_decode c)
{
    const int lane = (int)threadIdx.x % WARP, width = c.head_dim;
    const int64_t at = (int64_t)blockIdx.x * ROWS + threadIdx.x / WARP;
    const int64_t row = at / c.n_heads, head = at % c.n_heads;
    const int64_t kv_head = head / (c.n_heads / c.n_kv_heads);
    const int64_t stride = (int64_t)c.n_kv_heads * width;

    if (row >= c.n_rows)
        return;

    const ha_kv_rows cache = c.caches[row];
    const int64_t begin = c.layer * cache.layer_stride + kv_head * width;
    const part q =
        part_of(static_cast<const bf16 *>(c.q) + row * c.q_stride + head * width, width, lane);
    attended a = {nothing(), -INFINITY, 0.0f};

    attend(a, q, static_cast<const bf16 *>(cache.k) + begin, stride,
           static_cast<const bf16 *>(cache.v) + begin, stride, 0, (int64_t)c.positions[row] + 1,
           c.scale, width, lane);
    store_part(static_cast<bf16 *>(c.out) + row * c.out_stride + head * width, a.out,
               1.0f / a.total, width, lane);
}

} // namespace

int ha_cuda_launch_attention_plain_forward(struct CUstream_st *stream,
                                           const struct ha_cuda_attention *call)
{
    const ha_cuda_attention c = *call;

    HA_LAUNCH(forward, (unsigned)(c.n_query_tiles * c.n_heads), ROWS * WARP, 0, stream, c);
    return HA_LAUNCHED();
}

int ha_cuda_launch_attention_delta(struct CUstream_st *stream, const struct ha_cuda_attention *call)
{
    const ha_cuda_attention c = *call;

    HA_LAUNCH(sum_delta, blocks_for(c.n_tokens * c.n_heads, ROWS), ROWS * WARP, 0, stream, c);
    return HA_LAUNCHED();
}

int ha_cuda_launch_attention_plain_backward(struct CUstream_st *stream,
                                            const struct ha_cuda_attention *call)
{
    const ha_cuda_attention c = *call;
    int code = ha_cuda_launch_attention_delta(stream, call);

    if (code != 0)
        return code;
    HA_LAUNCH(key_gradients, (unsigned)(c.n_key_tiles * c.n_kv_heads), ROWS * WARP, 0, stream, c);
    code = HA_LAUNCHED();
    if (code != 0)
        return code;
    HA_LAUNCH(query_gradient, (unsigned)(c.n_query_tiles * c.n_heads), ROWS * WARP, 0, stream, c);
    return HA_LAUNCHED();
}

int ha_cuda_launch_decode_plain(struct CUstream_st *stream, const struct ha_cuda_decode *call)
{
    const ha_cuda_decode c = *call;

    HA_LAUNCH(decode, (unsigned)ceil_div(c.n_rows * c.n_heads, ROWS), ROWS * WARP, 0, stream, c);
    return HA_LAUNCHED();
}
