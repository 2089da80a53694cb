/* scratch.h - memory that operations take beside their operands, by arithmetic
 *
 * What a backend holds for itself, before one is opened: for a plan of the
 * memory of a run. */
#ifndef HA_KERNELS_SCRATCH_H
#define HA_KERNELS_SCRATCH_H

#include <stdbool.h>
#include <stdint.h>

/* The largest calls of a run; what is 0 does not happen. */
struct ha_scratch_shape {
    int threads;       /* 0: one per core */
    int64_t head_rows; /* of a call of head */
    int64_t vocab;     /* with head_rows */
    bool f32_logits;   /* head does not round them to bf16 */
    bool attention;    /* forward, over packs */
    bool backward;     /* of it */
    int64_t n_heads, n_kv_heads, head_dim;
    int64_t decode_length;  /* keys of a call of decode_attention */
    int64_t sample_vocab;   /* ids of a call of sample; CPU */
    int64_t n_params;       /* of the largest sum_of_squares */
    int64_t n_tokens;       /* of a pack; GPU */
    int64_t decode_rows;    /* sequences of a call of decode_attention; GPU */
    int64_t operand_values; /* of the largest f32 operand of a product beside a bf16 one, the
                               length of its rows rounded up to 8; GPU */
    /* Where rows are kept separate (ha_backend_separate_rows), else 0: the longest rows that are
     * multiplied, and the longest results in the activation type and in f32; GPU */
    int64_t separate_depth, separate_cols, separate_f32_cols;
};

/* Bytes that the CPU backend allocates for itself at most. */
int64_t ha_cpu_scratch_bytes(const struct ha_scratch_shape *shape);

/* Bytes of the device that the CUDA backend allocates for itself at most, and of pinned host
 * memory. */
int64_t ha_gpu_scratch_bytes(const struct ha_scratch_shape *shape);
int64_t ha_gpu_pinned_bytes(void);

#endif
