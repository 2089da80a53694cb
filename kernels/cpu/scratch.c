#include "kernels/scratch.h"

#include "kernels/cpu/attention.h"
#include "kernels/cpu/cores.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sample.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Elements of one thread's part. */
static int64_t per_thread(const struct ha_leaf *leaf, const struct ha_scratch_shape *shape)
{
    int64_t elements = larger(HA_GEMM_THREAD_ELEMENTS, shape->decode_length);

    if (shape->attention)
        elements = larger(elements, ha_attention_forward_elements(
                                        leaf, shape->n_heads, shape->n_kv_heads, shape->head_dim));
    if (shape->backward)
        elements = larger(elements, ha_attention_backward_elements(leaf, shape->head_dim));
    return elements;
}

int64_t ha_cpu_scratch_bytes(const struct ha_scratch_shape *shape)
{
    int64_t threads = shape->threads > 0 ? shape->threads : ha_cpu_cores();
    int64_t thread, work = ha_cpu_squares_bytes(shape->n_params);
    struct ha_leaf leaf;

    ha_leaf_best(&leaf);
    if (shape->head_rows > 0)
        work = larger(work, ha_cpu_head_chunk(&leaf, shape->vocab, shape->head_rows) *
                                shape->vocab * (int64_t)sizeof(float));
    thread = larger(per_thread(&leaf, shape) * (int64_t)sizeof(float),
                    ha_cpu_sample_bytes(shape->sample_vocab));
    return HA_GEMM_SHARED_BYTES + threads * ha_cpu_scratch_rounded(thread) +
           ha_cpu_scratch_rounded(work);
}
