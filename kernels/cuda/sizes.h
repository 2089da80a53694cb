/* sizes.h - what the CUDA backend takes for itself, in numbers that a plan needs too
 *
 * Nothing here needs a device. */
#ifndef HA_KERNELS_CUDA_SIZES_H
#define HA_KERNELS_CUDA_SIZES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    HA_CUDA_WORKSPACE_BYTES = 32 << 20, /* of cuBLASLt */
    HA_CUDA_STAGE_BYTES = 8 << 20,      /* one of the pinned buffers that uploads go through */
    HA_CUDA_N_STAGES = 4,
    HA_CUDA_RING_BYTES = 256 << 10, /* one part of the ring of small arguments */
    HA_CUDA_N_RINGS = 8,
    HA_CUDA_SCRATCH_STEP = 64 << 10, /* scratch memory is a multiple of it */
    HA_CUDA_SQUARE_TILE = 16384,     /* values of a partial sum of squares */
    HA_CUDA_DECODE_CHUNK = 512, /* keys whose result is made by itself; a part of the numerics */
    HA_CUDA_DECODE_HEADS = 16,  /* query heads that a block pads to */
    /* Of each product where rows are kept separate (gemm.c); a part of the numerics. */
    HA_CUDA_SEPARATE_ROWS = 256,
    HA_CUDA_SEPARATE_COLS = 1 << 15, /* at most */
};

/* Of a chunk of logits in head: elements between rows, and rows. */
int64_t ha_cuda_head_stride(int64_t vocabulary);
int64_t ha_cuda_head_rows(int64_t vocabulary, bool f32_logits, int64_t n_rows);

#endif
