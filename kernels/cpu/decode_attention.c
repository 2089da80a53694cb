/* decode_attention.c - one query of each sequence over its cache of keys and values
 *
 * One work item is a sequence and a kv head, so a sequence's result does not
 * depend on the others in the batch. */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "common/base/error.h"

static void attend(const struct ha_leaf *leaf, float *out, const float *q,
                   const struct ha_decode_attention *shape, int64_t row, int64_t kv_head,
                   float *score)
{
    int64_t width = shape->head_dim, stride = shape->n_kv_heads * width;
    int64_t group = shape->n_heads / shape->n_kv_heads, n = shape->lengths[row];
    const float *k = (const float *)shape->k_cache[row] + kv_head * width;
    const float *v = (const float *)shape->v_cache[row] + kv_head * width;

    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        const float *query = q + row * shape->q_stride + h * width;
        float *result = out + row * shape->out_stride + h * width;
        float total;

        leaf->dots(score, query, k, stride, n, width);
        total =
            leaf->exp_row(score, score, shape->scale, leaf->largest(score, n) * shape->scale, n);
        leaf->mix(result, score, v, stride, n, width);
        leaf->scale(result, 1.0f / total, width);
    }
}

struct decode {
    const struct ha_leaf *leaf;
    const struct ha_decode_attention *shape;
    float *out;
    const float *q;
};

static void do_row(const void *context, int64_t item, void *scratch)
{
    const struct decode *d = context;

    attend(d->leaf, d->out, d->q, d->shape, item / d->shape->n_kv_heads,
           item % d->shape->n_kv_heads, scratch);
}

int ha_cpu_op_decode_attention(struct ha_backend *backend, void *out, const void *q,
                               const struct ha_decode_attention *shape, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int64_t longest = 0;
    double pairs = 0.0, flops;
    int rc;

    if (shape->n_heads < 1 || shape->n_kv_heads < 1 || shape->n_heads % shape->n_kv_heads != 0)
        return ha_error_set(err, EINVAL,
                            "decode attention: %" PRId64 " heads, %" PRId64 " kv heads",
                            shape->n_heads, shape->n_kv_heads);
    for (int64_t i = 0; i < shape->n_rows; i++) {
        if (shape->lengths[i] < 1)
            return ha_error_set(err, EINVAL,
                                "decode attention: sequence %" PRId64 " has %" PRId64 " keys", i,
                                shape->lengths[i]);
        longest = shape->lengths[i] > longest ? shape->lengths[i] : longest;
        pairs += (double)shape->lengths[i];
    }
    rc = ha_cpu_scratch(cpu, 0, (size_t)longest * sizeof(float), err);
    if (rc < 0)
        return rc;
    flops = 4.0 * (double)shape->head_dim * (double)shape->n_heads * pairs;
    ha_cpu_for_tiles(cpu, shape->n_rows * shape->n_kv_heads, flops, do_row,
                     &(struct decode){&cpu->leaf, shape, out, q});
    backend->flops += flops;
    backend->bytes_moved +=
        2.0 * (double)shape->head_dim * sizeof(float) *
        ((double)shape->n_kv_heads * pairs + (double)shape->n_heads * (double)shape->n_rows);
    return 0;
}
