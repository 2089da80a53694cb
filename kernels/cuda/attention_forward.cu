/* attention_forward.cu - softmax(q k^T) v over a plan's query tiles, on tensor cores
 *
 * A block has one query tile of one head, a warp 16 of its rows.  Keys
 * and values pass through shared memory in steps of the walk (attention_plan.h): values
 * arrive while scores are made, the next keys while the values are used.  A row's result
 * depends on its own segment and prefix only. */
#include "kernels/cuda/attention.cuh"

namespace
{

using namespace ha;

template <int D> constexpr int forward_bytes()
{
    return 3 * tile_of<D>::bytes(TILE);
}

/* On a multiprocessor at least: so many that nothing is spilled. */
template <int D> constexpr int blocks_of()
{
    return D == 128 ? 3 : D == 96 ? 2 : 4;
}

template <int N>
__device__ __forceinline__ void hide_keys(float (&s)[N / 8][4], const ha_cuda_key_step &step,
                                          int row, int lane)
{
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (!ha_cuda_step_sees(&step, row + fragment_row(e, lane), fragment_col(n, e, lane)))
                s[n][e] = -INFINITY;
}

template <int D>
__device__ __forceinline__ void finish_rows(const ha_cuda_attention &c, int64_t head, int64_t row,
                                            int n_rows, float (&out)[D / 8][4],
                                            const softmax &state, bf16 *room, int lane)
{
    float total[2] = {row_sum(state.total[0]), row_sum(state.total[1])};

    if (c.logsumexp && lane % 4 == 0)
#pragma unroll
        for (int r = 0; r < 2; r++)
            if (lane / 4 + 8 * r < n_rows)
                c.logsumexp[head * c.n_tokens + row + lane / 4 + 8 * r] =
                    fmaf(state.top[r], c.scale, logf(total[r]));
    store_rows<D>(static_cast<bf16 *>(c.out) + row * c.out_stride + head * D, c.out_stride, n_rows,
                  out, 1.0f / total[0], 1.0f / total[1], room, lane);
}

template <int D>
__global__ void __launch_bounds__(TILE_THREADS, blocks_of<D>()) forward(ha_cuda_attention c)
{
    HA_SHARED_BYTES(shared);
    bf16 *const queries = reinterpret_cast<bf16 *>(shared);
    bf16 *const keys = queries + TILE * tile_of<D>::STRIDE;
    bf16 *const values = keys + TILE * tile_of<D>::STRIDE;
    const int thread = (int)threadIdx.x, lane = thread % WARP, row = thread / WARP * 16;
    const int64_t head = blockIdx.x % c.n_heads, kv_head = head / (c.n_heads / c.n_kv_heads);
    const ha_cuda_query_tile tile = c.query_tiles[blockIdx.x / c.n_heads];
    const bf16 *const k = static_cast<const bf16 *>(c.k) + kv_head * D;
    const bf16 *const v = static_cast<const bf16 *>(c.v) + kv_head * D;
    const int n_steps = ha_cuda_key_steps(&tile);
    const bool active = row < tile.n_rows; /* the same for all of a warp */
    const float scale2 = c.scale * LOG2E;
    ha_cuda_key_step step = ha_cuda_key_step_at(&tile, 0);
    softmax state = softmax_start();
    float out[D / 8][4];

    clear(out);
    load_tile<D, TILE, TILE_THREADS>(
        queries, static_cast<const bf16 *>(c.q) + tile.row * c.q_stride + head * D, c.q_stride,
        tile.n_rows, thread);
    load_tile<D, TILE, TILE_THREADS>(keys, k + step.key * c.k_stride, c.k_stride, step.n_keys,
                                     thread);
    copy_commit();
    for (int i = 0; i < n_steps; i++) {
        float s[TILE / 8][4];
        uint32_t p[TILE / 16][4];

        copy_wait<0>();
        __syncthreads(); /* keys are here, and the values before them used */
        load_tile<D, TILE, TILE_THREADS>(values, v + step.key * c.v_stride, c.v_stride, step.n_keys,
                                         thread);
        copy_commit();
        if (active) {
            scores_of<D, TILE>(s, queries, row, keys, lane);
            if (!sees_all(step, row))
                hide_keys<TILE>(s, step, row, lane);
            soften<TILE, D>(s, state, out, scale2);
            pack_fragments<TILE>(p, s);
        }
        copy_wait<0>();
        __syncthreads(); /* values are here, and the keys used */
        if (i + 1 < n_steps) {
            step = ha_cuda_key_step_at(&tile, i + 1);
            load_tile<D, TILE, TILE_THREADS>(keys, k + step.key * c.k_stride, c.k_stride,
                                             step.n_keys, thread);
            copy_commit();
        }
        if (active)
            add_product<D, TILE>(out, p, values, lane);
    }
    if (active)
        finish_rows<D>(c, head, tile.row + row, tile.n_rows - row, out, state,
                       queries + row * tile_of<D>::STRIDE, lane);
}

template <int D> int launch(struct CUstream_st *stream, const ha_cuda_attention &call)
{
    cudaError_t code = allow_shared(forward<D>, forward_bytes<D>());

    if (code != cudaSuccess)
        return (int)code;
    HA_LAUNCH(forward<D>, (unsigned)(call.n_query_tiles * call.n_heads), TILE_THREADS,
              forward_bytes<D>(), stream, call);
    return HA_LAUNCHED();
}

} // namespace

int ha_cuda_launch_attention_forward(struct CUstream_st *stream,
                                     const struct ha_cuda_attention *call)
{
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
