/* attention_backward.cu - gradients of attention, on tensor cores
 *
 *   p = exp(scale q k^T - lse)     dv += p^T dout     dp = dout v^T
 *   ds = p (dp - delta)            dk += scale ds^T q     dq += scale ds k
 *   delta = sum of dout * out over the head
 *
 * One kernel goes through the key tiles and holds dk and dv in registers: it makes the
 * transposes of scores and dp, 16 keys of a warp by 32 queries, which are at once the left
 * operands of the next products.  Query steps of its own segment, of all that have the tile
 * in their prefix, and of all query heads of the group follow each other in a fixed order.
 * Another goes through the query tiles and holds dq; it makes scores and dp again.  So no
 * sum is shared between blocks, at the price of two products of seven. */
#include "kernels/cuda/attention.cuh"

namespace
{

using namespace ha;

constexpr int STEP = HA_CUDA_ATTENTION_STEP;

/* ---- dq ---- */

/* Queries, dout, twice keys, values. */
template <int D> constexpr int dq_bytes()
{
    return 5 * tile_of<D>::bytes(TILE);
}

/* Scores s and dp become ds, in s. */
__device__ __forceinline__ void soften_rows(float (&s)[TILE / 8][4], const float (&dp)[TILE / 8][4],
                                            const float (&lse2)[2], const float (&delta)[2],
                                            float scale2, const ha_cuda_key_step &step, int row,
                                            int lane)
{
    bool all = sees_all(step, row);

#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float p = exp2_fast(fmaf(s[n][e], scale2, -lse2[e / 2]));

            s[n][e] = all || ha_cuda_step_sees(&step, row + fragment_row(e, lane),
                                               fragment_col(n, e, lane))
                          ? p * (dp[n][e] - delta[e / 2])
                          : 0.0f;
        }
}

/* The next keys arrive while scores and dp are made, the next values while dq grows. */
template <int D>
__global__ void __launch_bounds__(TILE_THREADS, 2) query_gradient(ha_cuda_attention c)
{
    HA_SHARED_BYTES(shared);
    constexpr int ELEMENTS = TILE * tile_of<D>::STRIDE;
    bf16 *const queries = reinterpret_cast<bf16 *>(shared), *const douts = queries + ELEMENTS;
    bf16 *const keys = douts + ELEMENTS, *const values = keys + 2 * ELEMENTS;
    const int thread = (int)threadIdx.x, lane = thread % WARP, row = thread / WARP * 16;
    const int64_t head = blockIdx.x % c.n_heads, kv_head = head / (c.n_heads / c.n_kv_heads);
    const ha_cuda_query_tile tile = c.query_tiles[blockIdx.x / c.n_heads];
    const bf16 *const q = static_cast<const bf16 *>(c.q) + tile.row * c.q_stride + head * D;
    const bf16 *const dout = static_cast<const bf16 *>(c.dout) + tile.row * c.out_stride + head * D;
    const bf16 *const k = static_cast<const bf16 *>(c.k) + kv_head * D;
    const bf16 *const v = static_cast<const bf16 *>(c.v) + kv_head * D;
    const int n_steps = ha_cuda_key_steps(&tile);
    const bool active = row < tile.n_rows;
    ha_cuda_key_step step = ha_cuda_key_step_at(&tile, 0), next = step;
    float lse2[2] = {0.0f, 0.0f}, delta[2] = {0.0f, 0.0f}, dq[D / 8][4];

    clear(dq);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int at = row + lane / 4 + 8 * r;

        if (at < tile.n_rows) {
            lse2[r] = c.logsumexp[head * c.n_tokens + tile.row + at] * LOG2E;
            delta[r] = c.delta[head * c.n_tokens + tile.row + at];
        }
    }
    load_tile<D, TILE, TILE_THREADS>(queries, q, c.q_stride, tile.n_rows, thread);
    load_tile<D, TILE, TILE_THREADS>(douts, dout, c.out_stride, tile.n_rows, thread);
    load_tile<D, TILE, TILE_THREADS>(keys, k + step.key * c.k_stride, c.k_stride, step.n_keys,
                                     thread);
    load_tile<D, TILE, TILE_THREADS>(values, v + step.key * c.v_stride, c.v_stride, step.n_keys,
                                     thread);
    copy_commit();
    for (int i = 0; i < n_steps; i++, step = next) {
        uint32_t packed[TILE / 16][4];

        copy_wait<0>();
        __syncthreads(); /* keys and values are here, and the keys before them used */
        if (i + 1 < n_steps) {
            next = ha_cuda_key_step_at(&tile, i + 1);
            load_tile<D, TILE, TILE_THREADS>(keys + (i + 1) % 2 * ELEMENTS,
                                             k + next.key * c.k_stride, c.k_stride, next.n_keys,
                                             thread);
            copy_commit();
        }
        if (active) {
            float s[TILE / 8][4], dp[TILE / 8][4];

            scores_of<D, TILE>(s, queries, row, keys + i % 2 * ELEMENTS, lane);
            scores_of<D, TILE>(dp, douts, row, values, lane);
            soften_rows(s, dp, lse2, delta, c.scale * LOG2E, step, row, lane);
            pack_fragments<TILE>(packed, s);
        }
        __syncthreads(); /* the values are used */
        if (i + 1 < n_steps) {
            load_tile<D, TILE, TILE_THREADS>(values, v + next.key * c.v_stride, c.v_stride,
                                             next.n_keys, thread);
            copy_commit();
        }
        if (active)
            add_product<D, TILE>(dq, packed, keys + i % 2 * ELEMENTS, lane);
    }
    if (active)
        store_rows<D>(static_cast<bf16 *>(c.dq) + (tile.row + row) * c.q_stride + head * D,
                      c.q_stride, tile.n_rows - row, dq, c.scale, c.scale,
                      queries + row * tile_of<D>::STRIDE, lane);
}

/* ---- dk and dv ---- */

/* Shared memory: keys, values, and twice queries, dout, logsumexp and delta of a step. */
template <int D> struct stage_of {
    static constexpr int DOUT = STEP * tile_of<D>::STRIDE * 2; /* bytes from the stage's begin */
    static constexpr int LSE = 2 * DOUT;
    static constexpr int DELTA = LSE + STEP * 4;
    static constexpr int BYTES = DELTA + STEP * 4;
    static constexpr int FIRST = 2 * tile_of<D>::bytes(TILE);
    static constexpr int ALL = FIRST + 2 * BYTES;
};

template <int D>
__device__ __forceinline__ void load_step(unsigned char *stage, const ha_cuda_attention &c,
                                          const ha_cuda_query_walk &walk, int64_t first_head,
                                          int thread)
{
    const int64_t head = first_head + walk.head, query = walk.query;
    const int n = ha_cuda_least(STEP, c.ranges[walk.range].end - walk.query);

    load_tile<D, STEP, TILE_THREADS>(reinterpret_cast<bf16 *>(stage),
                                     static_cast<const bf16 *>(c.q) + query * c.q_stride + head * D,
                                     c.q_stride, n, thread);
    load_tile<D, STEP, TILE_THREADS>(reinterpret_cast<bf16 *>(stage + stage_of<D>::DOUT),
                                     static_cast<const bf16 *>(c.dout) + query * c.out_stride +
                                         head * D,
                                     c.out_stride, n, thread);
    if (thread < 2 * STEP) {
        const float *from = thread < STEP ? c.logsumexp : c.delta;
        int at = thread % STEP;

        copy_async<4>(stage + stage_of<D>::LSE + thread * 4,
                      from + head * c.n_tokens + query + (at < n ? at : 0), at < n);
    }
}

/* Transposed scores s and dp of 16 keys by STEP queries become p, in s, and ds, in dp. */
__device__ __forceinline__ void soften_columns(float (&s)[STEP / 8][4], float (&dp)[STEP / 8][4],
                                               const float *lse, const float *delta, float scale2,
                                               const ha_cuda_query_range &range, int query, int key,
                                               int lane)
{
    /* The warp's last key is seen by the first query, and all queries are there. */
    bool all = query + STEP <= range.end && key >= range.low && key + 16 <= range.high &&
               (!range.own || key + 15 <= query);

#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int at = fragment_col(n, e, lane);
            float p = exp2_fast(fmaf(s[n][e], scale2, -lse[at] * LOG2E));
            bool seen = all || ha_cuda_range_sees(&range, query + at, key + fragment_row(e, lane));

            s[n][e] = seen ? p : 0.0f;
            dp[n][e] = seen ? p * (dp[n][e] - delta[at]) : 0.0f;
        }
}

template <int D>
__device__ __forceinline__ void
add_step(float (&dk)[D / 8][4], float (&dv)[D / 8][4], const unsigned char *stage, const bf16 *keys,
         const bf16 *values, float scale2, const ha_cuda_query_range &range, int query, int key,
         int row, int lane)
{
    const bf16 *queries = reinterpret_cast<const bf16 *>(stage);
    const bf16 *douts = reinterpret_cast<const bf16 *>(stage + stage_of<D>::DOUT);
    float s[STEP / 8][4], dp[STEP / 8][4];
    uint32_t packed[STEP / 16][4];

    scores_of<D, STEP>(s, keys, row, queries, lane);
    scores_of<D, STEP>(dp, values, row, douts, lane);
    soften_columns(s, dp, reinterpret_cast<const float *>(stage + stage_of<D>::LSE),
                   reinterpret_cast<const float *>(stage + stage_of<D>::DELTA), scale2, range,
                   query, key + row, lane);
    pack_fragments<STEP>(packed, s);
    add_product<D, STEP>(dv, packed, douts, lane);
    pack_fragments<STEP>(packed, dp);
    add_product<D, STEP>(dk, packed, queries, lane);
}

template <int D>
__global__ void __launch_bounds__(TILE_THREADS, D == 64 ? 3 : 2) key_gradients(ha_cuda_attention c)
{
    HA_SHARED_BYTES(shared);
    bf16 *const keys = reinterpret_cast<bf16 *>(shared);
    bf16 *const values = keys + TILE * tile_of<D>::STRIDE;
    unsigned char *const stages = shared + stage_of<D>::FIRST;
    const int thread = (int)threadIdx.x, lane = thread % WARP, row = thread / WARP * 16;
    const int group = c.n_heads / c.n_kv_heads;
    const int64_t kv_head = blockIdx.x % c.n_kv_heads;
    const ha_cuda_key_tile tile = c.key_tiles[blockIdx.x / c.n_kv_heads];
    const bool active = row < tile.n_keys;
    ha_cuda_query_walk walk = ha_cuda_query_walk_start(&tile, c.ranges), next = walk;
    float dk[D / 8][4], dv[D / 8][4];
    bool more = true;
    int64_t at = (int64_t)tile.key * c.k_stride + kv_head * D;

    clear(dk);
    clear(dv);
    load_tile<D, TILE, TILE_THREADS>(keys, static_cast<const bf16 *>(c.k) + at, c.k_stride,
                                     tile.n_keys, thread);
    load_tile<D, TILE, TILE_THREADS>(
        values, static_cast<const bf16 *>(c.v) + tile.key * c.v_stride + kv_head * D, c.v_stride,
        tile.n_keys, thread);
    load_step<D>(stages, c, walk, kv_head * group, thread);
    copy_commit();
    for (int i = 0; more; i++) {
        unsigned char *stage = stages + i % 2 * stage_of<D>::BYTES;

        more = ha_cuda_query_walk_next(&next, &tile, c.ranges, group);
        if (more)
            load_step<D>(stages + (i + 1) % 2 * stage_of<D>::BYTES, c, next, kv_head * group,
                         thread);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
        if (active)
            add_step<D>(dk, dv, stage, keys, values, c.scale * LOG2E, c.ranges[walk.range],
                        walk.query, tile.key, row, lane);
        __syncthreads();
        walk = next;
    }
    copy_wait<0>();
    if (!active)
        return;
    store_rows<D>(static_cast<bf16 *>(c.dk) + at + row * c.k_stride, c.k_stride, tile.n_keys - row,
                  dk, c.scale, c.scale, keys + row * tile_of<D>::STRIDE, lane);
    store_rows<D>(static_cast<bf16 *>(c.dv) + (tile.key + row) * c.v_stride + kv_head * D,
                  c.v_stride, tile.n_keys - row, dv, 1.0f, 1.0f, keys + row * tile_of<D>::STRIDE,
                  lane);
}

template <int D> int launch(struct CUstream_st *stream, const ha_cuda_attention &call)
{
    cudaError_t code = allow_shared(key_gradients<D>, stage_of<D>::ALL);

    if (code == cudaSuccess)
        code = allow_shared(query_gradient<D>, dq_bytes<D>());
    if (code != cudaSuccess)
        return (int)code;
    HA_LAUNCH(key_gradients<D>, (unsigned)(call.n_key_tiles * call.n_kv_heads), TILE_THREADS,
              stage_of<D>::ALL, stream, call);
    code = (cudaError_t)HA_LAUNCHED();
    if (code != cudaSuccess)
        return (int)code;
    HA_LAUNCH(query_gradient<D>, (unsigned)(call.n_query_tiles * call.n_heads), TILE_THREADS,
              dq_bytes<D>(), stream, call);
    return HA_LAUNCHED();
}

} // namespace

int ha_cuda_launch_attention_backward(struct CUstream_st *stream,
                                      const struct ha_cuda_attention *call)
{
    int code = ha_cuda_launch_attention_delta(stream, call);

    if (code != 0)
        return code;
    switch (call->head_dim) {
    case 64:
        return launch<64>(stream, *call);
    case 96:
        return launch<96>(stream, *call);
    case 128:
        return launch<128>(stream, *call);
    default:
        return (int)cudaErrorInvalidValue;
    }
}
