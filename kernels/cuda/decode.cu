/* decode.cu - one query of each sequence over its cache of keys and values, on tensor cores
 *
 * A block has one sequence, one kv head and up to 16 of its query heads, which are the rows of
 * the products, so keys and values are read once for all of them.  The keys are cut into chunks
 * of HA_CUDA_DECODE_CHUNK.  In a chunk each warp goes through every fourth tile of 32 keys with
 * buffers of its own; then the warps' results are joined in their order, and that to what the
 * chunks before gave.
 *
 * Where there are few sequences, a block does one chunk and another kernel joins the chunks, in
 * the same order by the same operations: how many sequences are decoded changes no bit. */
#include "kernels/cuda/attention.cuh"

namespace
{

using namespace ha;

constexpr int HEADS = HA_CUDA_DECODE_HEADS;
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int KEYS = 32;              /* of a warp's tile */
constexpr int TEAM = THREADS / HEADS; /* threads that join one head's results */

/* Shared memory: the queries; keys and values of each warp, where then its result lies; each
 * warp's maxima and sums. */
template <int D> struct room_of {
    static constexpr int QUERIES = tile_of<D>::bytes(HEADS);
    static constexpr int WARP_BYTES = 2 * tile_of<D>::bytes(KEYS);
    static constexpr int STATES = QUERIES + WARPS * WARP_BYTES;
    static constexpr int ALL = STATES + 2 * WARPS * HEADS * 4;
    static constexpr int STRIDE = D + 8; /* floats between the rows of a result */
    static_assert(HEADS * STRIDE * 4 <= WARP_BYTES, "a result lies where keys and values lay");
};

/* A thread's share of one head's result: columns 2 * (thread % TEAM) + 16 * i, + 1. */
template <int D> struct share {
    float top, total, out[D / TEAM];
};

__device__ __forceinline__ int share_col(int i, int thread)
{
    return i / 2 * 2 * TEAM + thread % TEAM * 2 + i % 2;
}

template <int D> __device__ __forceinline__ share<D> share_start()
{
    share<D> s;

    s.top = -INFINITY;
    s.total = 0.0f;
#pragma unroll
    for (int i = 0; i < D / TEAM; i++)
        s.out[i] = 0.0f;
    return s;
}

/* What of keys first seen comes to what came before; out(i) is its element i. */
template <int D, typename Out>
__device__ __forceinline__ void join(share<D> &s, float top, float total, float scale2, Out out)
{
    float both = fmaxf(s.top, top), base = softmax_base(both, scale2);
    float old = exp2_fast(fmaf(s.top, scale2, -base)), now = exp2_fast(fmaf(top, scale2, -base));

    s.top = both;
    s.total = fmaf(s.total, old, total * now);
#pragma unroll
    for (int i = 0; i < D / TEAM; i++)
        s.out[i] = fmaf(s.out[i], old, out(i) * now);
}

template <int D>
__device__ __forceinline__ void store_share(const ha_cuda_decode &c, const share<D> &s, int64_t row,
                                            int64_t head, int thread)
{
    bf16 *out = static_cast<bf16 *>(c.out) + row * c.out_stride + head * D;

#pragma unroll
    for (int i = 0; i < D / TEAM; i += 2)
        *reinterpret_cast<__nv_bfloat162 *>(out + share_col(i, thread)) =
            __floats2bfloat162_rn(s.out[i] / s.total, s.out[i + 1] / s.total);
}

/* Which part of the work a block has. */
struct place {
    int64_t row, kv_head, first_head; /* the first of its query heads */
    int n_heads;
};

__device__ __forceinline__ place place_of(const ha_cuda_decode &c, int64_t block)
{
    const int group = c.n_heads / c.n_kv_heads, blocks = (group + HEADS - 1) / HEADS;
    const int part = (int)(block % blocks);
    place p;

    p.kv_head = block / blocks % c.n_kv_heads;
    p.row = block / blocks / c.n_kv_heads;
    p.first_head = p.kv_head * group + part * HEADS;
    p.n_heads = ha_cuda_least(HEADS, group - part * HEADS);
    return p;
}

/* A warp's part of a chunk: tiles of keys first, first + WARPS * KEYS ... before end. */
template <int D>
__device__ __forceinline__ void
attend_tiles(float (&out)[D / 8][4], softmax &state, const bf16 *queries, bf16 *keys, const bf16 *k,
             const bf16 *v, int64_t stride, int64_t first, int64_t end, float scale2, int lane)
{
    bf16 *const values = keys + KEYS * tile_of<D>::STRIDE;
    auto load = [&](bf16 *to, const bf16 *from, int64_t key) {
        if (key < end)
            load_tile<D, KEYS, WARP>(to, from + key * stride, stride,
                                     end - key < KEYS ? (int)(end - key) : KEYS, lane);
        copy_commit();
    };

    load(keys, k, first);
    load(values, v, first);
    for (int64_t key = first; key < end; key += WARPS * KEYS) {
        float s[KEYS / 8][4];
        uint32_t p[KEYS / 16][4];

        copy_wait<1>();
        __syncwarp();
        scores_of<D, KEYS>(s, queries, 0, keys, lane);
        __syncwarp();
        load(keys, k, key + WARPS * KEYS);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (key + fragment_col(n, e, lane) >= end)
                    s[n][e] = -INFINITY;
        soften<KEYS, D>(s, state, out, scale2);
        pack_fragments<KEYS>(p, s);
        copy_wait<1>();
        __syncwarp();
        add_product<D, KEYS>(out, p, values, lane);
        __syncwarp();
        load(values, v, key + WARPS * KEYS);
    }
    copy_wait<0>();
    __syncwarp();
}

/* A warp's result to where the others can read it. */
template <int D>
__device__ __forceinline__ void show_result(unsigned char *shared, const float (&out)[D / 8][4],
                                            const softmax &state, int warp, int lane)
{
    float *result =
        reinterpret_cast<float *>(shared + room_of<D>::QUERIES + warp * room_of<D>::WARP_BYTES);
    float *tops = reinterpret_cast<float *>(shared + room_of<D>::STATES) + warp * HEADS;
    float total[2] = {row_sum(state.total[0]), row_sum(state.total[1])};

#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            result[fragment_row(e, lane) * room_of<D>::STRIDE + fragment_col(n, e, lane)] =
                out[n][e];
    if (lane % 4 == 0)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            tops[lane / 4 + 8 * r] = state.top[r];
            tops[WARPS * HEADS + lane / 4 + 8 * r] = total[r];
        }
}

/* The result of one chunk, of all warps. */
template <int D>
__device__ __forceinline__ share<D> chunk_result(unsigned char *shared, const bf16 *k,
                                                 const bf16 *v, int64_t stride, int64_t begin,
                                                 int64_t end, float scale2, int thread)
{
    const int warp = thread / WARP, lane = thread % WARP, head = thread / TEAM;
    const float *tops = reinterpret_cast<const float *>(shared + room_of<D>::STATES) + head;
    softmax state = softmax_start();
    share<D> s = share_start<D>();
    float out[D / 8][4];

    clear(out);
    attend_tiles<D>(
        out, state, reinterpret_cast<const bf16 *>(shared),
        reinterpret_cast<bf16 *>(shared + room_of<D>::QUERIES + warp * room_of<D>::WARP_BYTES), k,
        v, stride, begin + warp * KEYS, end, scale2, lane);
    show_result<D>(shared, out, state, warp, lane);
    __syncthreads();
    for (int w = 0; w < WARPS; w++) {
        const float *result = reinterpret_cast<const float *>(shared + room_of<D>::QUERIES +
                                                              w * room_of<D>::WARP_BYTES) +
                              head * room_of<D>::STRIDE;

        join<D>(s, tops[w * HEADS], tops[(WARPS + w) * HEADS], scale2,
                [=](int i) { return result[share_col(i, thread)]; });
    }
    __syncthreads(); /* the results are read */
    return s;
}

/* One head's result of one chunk: D elements, the maximum, the sum. */
template <int D>
__device__ __forceinline__ float *partial_of(const ha_cuda_decode &c, int64_t block, int64_t split,
                                             int head)
{
    return c.partial + ((block * c.n_splits + split) * HEADS + head) * (D + 2);
}

template <int D>
__global__ void __launch_bounds__(THREADS, D == 64 ? 3 : 2) decode(ha_cuda_decode c)
{
    HA_SHARED_BYTES(shared);
    const int thread = (int)threadIdx.x, head = thread / TEAM;
    const int64_t block = blockIdx.x / c.n_splits, split = blockIdx.x % c.n_splits;
    const place p = place_of(c, block);
    const ha_kv_rows cache = c.caches[p.row];
    const int64_t length = (int64_t)c.positions[p.row] + 1;
    const int64_t stride = (int64_t)c.n_kv_heads * D;
    const int64_t begin = c.layer * cache.layer_stride + p.kv_head * D;
    const int64_t first = split * HA_CUDA_DECODE_CHUNK;
    const int64_t last = c.n_splits > 1 && first + HA_CUDA_DECODE_CHUNK < length
                             ? first + HA_CUDA_DECODE_CHUNK
                             : length;
    share<D> all = share_start<D>();

    if (first >= last)
        return;
    if (thread < WARP) {
        load_tile<D, HEADS, WARP>(reinterpret_cast<bf16 *>(shared),
                                  static_cast<const bf16 *>(c.q) + p.row * c.q_stride +
                                      p.first_head * D,
                                  D, p.n_heads, thread);
        copy_commit();
        copy_wait<0>();
    }
    __syncthreads();
    for (int64_t at = first; at < last; at += HA_CUDA_DECODE_CHUNK) {
        const int64_t end = at + HA_CUDA_DECODE_CHUNK < last ? at + HA_CUDA_DECODE_CHUNK : last;
        const share<D> s = chunk_result<D>(shared, static_cast<const bf16 *>(cache.k) + begin,
                                           static_cast<const bf16 *>(cache.v) + begin, stride, at,
                                           end, c.scale * LOG2E, thread);

        if (c.n_splits > 1)
            all = s;
        else
            join<D>(all, s.top, s.total, c.scale * LOG2E, [&](int i) { return s.out[i]; });
    }
    if (c.n_splits > 1) {
        float *to = partial_of<D>(c, block, split, head);

#pragma unroll
        for (int i = 0; i < D / TEAM; i++)
            to[share_col(i, thread)] = all.out[i];
        if (thread % TEAM == 0) {
            to[D] = all.top;
            to[D + 1] = all.total;
        }
    } else if (head < p.n_heads) {
        store_share<D>(c, all, p.row, p.first_head + head, thread);
    }
}

template <int D> __global__ void __launch_bounds__(THREADS) join_chunks(ha_cuda_decode c)
{
    const int thread = (int)threadIdx.x, head = thread / TEAM;
    const int64_t block = blockIdx.x;
    const place p = place_of(c, block);
    const int64_t length = (int64_t)c.positions[p.row] + 1;
    share<D> all = share_start<D>();

    if (head >= p.n_heads)
        return;
    for (int64_t split = 0; split * HA_CUDA_DECODE_CHUNK < length; split++) {
        const float *from = partial_of<D>(c, block, split, head);

        join<D>(all, from[D], from[D + 1], c.scale * LOG2E,
                [=](int i) { return from[share_col(i, thread)]; });
    }
    store_share<D>(c, all, p.row, p.first_head + head, thread);
}

template <int D> int launch(struct CUstream_st *stream, const ha_cuda_decode &call)
{
    const int64_t blocks =
        call.n_rows * call.n_kv_heads * ceil_div(call.n_heads / call.n_kv_heads, HEADS);
    cudaError_t code = allow_shared(decode<D>, room_of<D>::ALL);

    if (code != cudaSuccess)
        return (int)code;
    HA_LAUNCH(decode<D>, (unsigned)(blocks * call.n_splits), THREADS, room_of<D>::ALL, stream,
              call);
    code = (cudaError_t)HA_LAUNCHED();
    if (code != cudaSuccess || call.n_splits == 1)
        return (int)code;
    HA_LAUNCH(join_chunks<D>, (unsigned)blocks, THREADS, 0, stream, call);
    return HA_LAUNCHED();
}

} // namespace

int ha_cuda_launch_decode(struct CUstream_st *stream, const struct ha_cuda_decode *call)
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
