/* gemm.h - the matrix product inside the CPU backend
 *
 * Each element of c is one chain of multiply-adds over the depth, in slices of
 * HA_GEMM_DEPTH whose partial sums are added in order.  Its bits depend on its
 * own row of a, its own column of b, the depth and the instruction set only: not
 * on the other rows and columns of the call, the tiles, or the threads. */
#ifndef HA_KERNELS_CPU_GEMM_H
#define HA_KERNELS_CPU_GEMM_H

#include "kernels/cpu/cpu.h"

enum {
    HA_GEMM_DEPTH = 256,
    HA_GEMM_TILE_COLS = 128, /* a multiple of every nr */
    HA_GEMM_THREAD_ELEMENTS = HA_GEMM_TILE_COLS * HA_GEMM_DEPTH,
    HA_GEMM_SHARED_BYTES = 4 << 20, /* of packed rows, at most */
};

/* Elements of a packed operand: rows (columns) are filled up to whole panels. */
static inline int64_t ha_gemm_packed(int64_t rows, int64_t panel, int64_t depth)
{
    return ha_cpu_ceil_div(rows, panel) * panel * depth;
}

/* Pack all rows of a (all columns of b); the panel of rows r .. r + mr starts at
 * out + r * depth. */
void ha_gemm_pack_a(const struct ha_leaf *leaf, float *out, const float *a, int64_t stride,
                    bool transpose, int64_t rows, int64_t depth);
void ha_gemm_pack_b(const struct ha_leaf *leaf, float *out, const void *b, enum ha_dtype dtype,
                    int64_t stride, bool transpose, int64_t depth, int64_t cols);

/* c = alpha * a b + beta * c from packed operands, on the calling thread. */
void ha_gemm_packed_product(const struct ha_leaf *leaf, float *c, int64_t c_stride, const float *a,
                            const float *b, int64_t rows, int64_t cols, int64_t depth, float alpha,
                            float beta);

#endif
