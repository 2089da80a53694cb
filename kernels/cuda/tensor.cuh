/* tensor.cuh - products of bf16 on tensor cores, and copies that run beside them
 *
 * A warp multiplies 16 x 16 by 16 x 8 (mma.sync, of compute capability 8.0 on).  Where
 * element (row, col) of an operand lies is the matter of PTX's fragments:
 *
 *   A (16 x 16) 4 registers of two neighbours: lane / 4 is the row, + 8 in registers 1 and 3;
 *               2 * (lane % 4) the first column, + 8 in registers 2 and 3
 *   B (16 x 8)  2 registers: 2 * (lane % 4) the first row, + 8 in register 1; lane / 4 the column
 *   C (16 x 8)  4 floats: row lane / 4, + 8 in floats 2 and 3; columns 2 * (lane % 4), + 1
 *
 * So two neighbouring C, rounded and packed, are an A: a product feeds the next without
 * leaving the registers.
 *
 * A tile in shared memory has rows of D elements, STRIDE = D + 8 apart: D / 8 + 1 pieces of 16
 * bytes, an odd number, so that the 8 rows that ldmatrix reads at once lie in different banks. */
#ifndef HA_KERNELS_CUDA_TENSOR_CUH
#define HA_KERNELS_CUDA_TENSOR_CUH

#include "kernels/cuda/device.cuh"

namespace ha
{

/* ---- the instructions; the emulator has a plain meaning for each ---- */

/* Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. */
__device__ __forceinline__ void ldmatrix(uint32_t (&out)[4], const bf16 *row)
{
#ifdef HA_CUDA_EMULATED
    emulator::load_matrices(out, row, false);
#else
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&out)[4], const bf16 *row)
{
#ifdef HA_CUDA_EMULATED
    emulator::load_matrices(out, row, true);
#else
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
#endif
}

/* c += a b, in f32. */
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
#ifdef HA_CUDA_EMULATED
    emulator::multiply_add(c, a, b0, b1);
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/* BYTES (16 or 4) to shared memory, beside what follows; zeros where there is nothing to read,
 * but `from` is an address of global memory even then. */
template <int BYTES>
__device__ __forceinline__ void copy_async(void *to, const void *from, bool there)
{
#ifdef HA_CUDA_EMULATED
    emulator::copy_async(to, from, BYTES, there ? BYTES : 0);
#else
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    int bytes = there ? BYTES : 0;

    static_assert(BYTES == 16 || BYTES == 4, "what cp.async has and is used here");
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                     "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from),
                     "r"(bytes)
                     : "memory");
#endif
}

/* Ends a group of copies. */
__device__ __forceinline__ void copy_commit()
{
#ifdef HA_CUDA_EMULATED
    emulator::copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Until the thread's own copies have arrived but for those of the last N groups. */
template <int N> __device__ __forceinline__ void copy_wait()
{
#ifdef HA_CUDA_EMULATED
    emulator::copy_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* 2^x; 0 for -infinity, results below 2^-126 are 0. */
__device__ __forceinline__ float exp2_fast(float x)
{
#ifdef HA_CUDA_EMULATED
    return exp2f(x);
#else
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/* ---- tiles in shared memory ---- */

template <int D> struct tile_of {
    static_assert(D % 16 == 0, "whole steps of a product");
    static constexpr int STRIDE = D + 8;
    static constexpr int PIECES = D / 8; /* of 16 bytes in a row */

    static constexpr int bytes(int rows)
    {
        return rows * STRIDE * 2;
    }
};

/* Rows 0 .. n of `from` into a tile of ROWS rows, the others 0; by THREADS threads, of which
 * this is one.  n > 0. */
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16 *to, const bf16 *from, int64_t stride, int n,
                                          int thread)
{
    constexpr int PIECES = tile_of<D>::PIECES;

    static_assert(ROWS * PIECES % THREADS == 0, "each thread has as many pieces");
#pragma unroll
    for (int i = 0; i < ROWS * PIECES / THREADS; i++) {
        int at = thread + i * THREADS, row = at / PIECES, piece = at % PIECES;

        copy_async<16>(to + row * tile_of<D>::STRIDE + piece * 8,
                       from + (row < n ? row : 0) * stride + piece * 8, row < n);
    }
}

/* A fragment: rows row .. row + 16, columns col .. col + 16 of a tile. */
template <int D>
__device__ __forceinline__ void fragment_a(uint32_t (&a)[4], const bf16 *tile, int row, int col,
                                           int lane)
{
    ldmatrix(a, tile + (row + lane % 16) * tile_of<D>::STRIDE + col + lane / 16 * 8);
}

/* Two B fragments of the tile's transpose: its rows row .. row + 16 are the columns, the first 8
 * in b[0], b[1]. */
template <int D>
__device__ __forceinline__ void fragment_b_rows(uint32_t (&b)[4], const bf16 *tile, int row,
                                                int col, int lane)
{
    ldmatrix(b,
             tile + (row + lane % 8 + lane / 16 * 8) * tile_of<D>::STRIDE + col + lane / 8 % 2 * 8);
}

/* Two B fragments of the tile itself: columns col .. col + 16, the first 8 in b[0], b[1]. */
template <int D>
__device__ __forceinline__ void fragment_b_cols(uint32_t (&b)[4], const bf16 *tile, int row,
                                                int col, int lane)
{
    ldmatrix_transposed(b, tile + (row + lane % 16) * tile_of<D>::STRIDE + col + lane / 16 * 8);
}

/* c (16, N) = rows row .. row + 16 of the tile a times the first N rows of the tile b, transposed.
 */
template <int D, int N>
__device__ __forceinline__ void scores_of(float (&c)[N / 8][4], const bf16 *a, int row,
                                          const bf16 *b, int lane)
{
#pragma unroll
    for (int n = 0; n < N / 8; n++)
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t fa[4];

        fragment_a<D>(fa, a, row, k * 16, lane);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            uint32_t f[4];

            fragment_b_rows<D>(f, b, n * 16, k * 16, lane);
            mma(c[2 * n], fa, f[0], f[1]);
            mma(c[2 * n + 1], fa, f[2], f[3]);
        }
    }
}

__device__ __forceinline__ uint32_t pack(float low, float high)
{
    __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    uint32_t bits;

    memcpy(&bits, &both, sizeof(bits));
    return bits;
}

/* C fragments (16, K), rounded, as A fragments. */
template <int K>
__device__ __forceinline__ void pack_fragments(uint32_t (&a)[K / 16][4], const float (&c)[K / 8][4])
{
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
        a[k][0] = pack(c[2 * k][0], c[2 * k][1]);
        a[k][1] = pack(c[2 * k][2], c[2 * k][3]);
        a[k][2] = pack(c[2 * k + 1][0], c[2 * k + 1][1]);
        a[k][3] = pack(c[2 * k + 1][2], c[2 * k + 1][3]);
    }
}

/* c (16, D) += a (16, K) times the first K rows of the tile b. */
template <int D, int K>
__device__ __forceinline__ void add_product(float (&c)[D / 8][4], const uint32_t (&a)[K / 16][4],
                                            const bf16 *b, int lane)
{
#pragma unroll
    for (int k = 0; k < K / 16; k++)
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t f[4];

            fragment_b_cols<D>(f, b, k * 16, n * 16, lane);
            mma(c[2 * n], a[k], f[0], f[1]);
            mma(c[2 * n + 1], a[k], f[2], f[3]);
        }
}

/* Rows 0 .. n (of at most 16) of c, times low in rows below 8 and high in the others as each lane
 * has them for its rows, to memory; `room` is 16 rows of a tile that no other warp uses. */
template <int D>
__device__ __forceinline__ void store_rows(bf16 *to, int64_t stride, int n,
                                           const float (&c)[D / 8][4], float low, float high,
                                           bf16 *room, int lane)
{
    constexpr int PIECES = tile_of<D>::PIECES;

    __syncwarp();
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        bf16 *at = room + lane / 4 * tile_of<D>::STRIDE + i * 8 + lane % 4 * 2;
        uint32_t bits[2] = {pack(c[i][0] * low, c[i][1] * low),
                            pack(c[i][2] * high, c[i][3] * high)};

        *reinterpret_cast<uint32_t *>(at) = bits[0];
        *reinterpret_cast<uint32_t *>(at + 8 * tile_of<D>::STRIDE) = bits[1];
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * PIECES / WARP; i++) {
        int at = lane + i * WARP, row = at / PIECES, piece = at % PIECES;

        if (row < n)
            *reinterpret_cast<uint4 *>(to + row * stride + piece * 8) =
                *reinterpret_cast<const uint4 *>(room + row * tile_of<D>::STRIDE + piece * 8);
    }
}

} // namespace ha

#endif
