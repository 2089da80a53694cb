#include "kernels/scratch.h"

#include "kernels/cuda/sizes.h"

/* A chunk of logits is no longer; rows of it are a multiple of a step where there are more. */
#define CHUNK_BYTES ((int64_t)256 << 20)

enum {
    STRIDE_STEP = 64,
    ROW_STEP = 128,
    ROW_ARGUMENTS = 24,   /* of scatter_rows_add, the longest per row */
    TOKEN_ARGUMENTS = 16, /* lists of attention's tiles, where segments have 8 tokens or more */
    IDLE_BLOCKS = 512,    /* fewer leave a device idle, so that long sequences are split */
};

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t rounded(int64_t bytes)
{
    return (bytes + HA_CUDA_SCRATCH_STEP - 1) / HA_CUDA_SCRATCH_STEP * HA_CUDA_SCRATCH_STEP;
}

int64_t ha_cuda_head_stride(int64_t vocabulary)
{
    return (vocabulary + STRIDE_STEP - 1) / STRIDE_STEP * STRIDE_STEP;
}

int64_t ha_cuda_head_rows(int64_t vocabulary, bool f32_logits, int64_t n_rows)
{
    int64_t rows = CHUNK_BYTES / (ha_cuda_head_stride(vocabulary) * (f32_logits ? 4 : 2));

    if (rows > ROW_STEP)
        rows = rows / ROW_STEP * ROW_STEP;
    return smaller(larger(rows, 1), n_rows);
}

static int64_t head_bytes(const struct ha_scratch_shape *shape)
{
    return ha_cuda_head_rows(shape->vocab, shape->f32_logits, shape->head_rows) *
           ha_cuda_head_stride(shape->vocab) * (shape->f32_logits ? 4 : 2);
}

/* Row sums of the backward pass, or parts of sequences that blocks share. */
static int64_t attention_bytes(const struct ha_scratch_shape *shape)
{
    int64_t sums = shape->backward ? 4 * shape->n_tokens * shape->n_heads : 0;
    int64_t chunks = (shape->decode_length + HA_CUDA_DECODE_CHUNK - 1) / HA_CUDA_DECODE_CHUNK;
    int64_t group, blocks;

    if (chunks < 2)
        return sums;
    group = shape->n_heads / shape->n_kv_heads;
    blocks = shape->decode_rows * shape->n_kv_heads *
             ((group + HA_CUDA_DECODE_HEADS - 1) / HA_CUDA_DECODE_HEADS);
    return larger(sums, 4 * smaller(blocks, IDLE_BLOCKS) * chunks * HA_CUDA_DECODE_HEADS *
                            (shape->head_dim + 2));
}

static int64_t argument_bytes(const struct ha_scratch_shape *shape)
{
    int64_t bytes = larger(ROW_ARGUMENTS * shape->head_rows, TOKEN_ARGUMENTS * shape->n_tokens);

    return bytes > HA_CUDA_RING_BYTES ? bytes : 0;
}

/* A tile's rows, each a whole number of 16 bytes. */
static int64_t tile_bytes(int64_t cols, int64_t element_bytes)
{
    return HA_CUDA_SEPARATE_ROWS * ((cols + 7) / 8 * 8) * element_bytes;
}

static int64_t separate_bytes(const struct ha_scratch_shape *shape)
{
    int64_t act = smaller(shape->separate_cols, HA_CUDA_SEPARATE_COLS);
    int64_t f32 = smaller(shape->separate_f32_cols, HA_CUDA_SEPARATE_COLS);

    return rounded(tile_bytes(shape->separate_depth, 2)) +
           rounded(larger(tile_bytes(act, 2), tile_bytes(f32, 4)));
}

int64_t ha_gpu_scratch_bytes(const struct ha_scratch_shape *shape)
{
    int64_t parts = (shape->n_params + HA_CUDA_SQUARE_TILE - 1) / HA_CUDA_SQUARE_TILE;

    return HA_CUDA_WORKSPACE_BYTES + HA_CUDA_N_RINGS * HA_CUDA_RING_BYTES +
           rounded(shape->head_rows > 0 ? head_bytes(shape) : 0) +
           rounded(2 * shape->operand_values) + rounded(8 * parts) +
           rounded(attention_bytes(shape)) + rounded(argument_bytes(shape)) + separate_bytes(shape);
}

int64_t ha_gpu_pinned_bytes(void)
{
    return HA_CUDA_N_STAGES * HA_CUDA_STAGE_BYTES + HA_CUDA_N_RINGS * HA_CUDA_RING_BYTES;
}
