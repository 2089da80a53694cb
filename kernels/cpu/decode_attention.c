/* decode_attention.c - one query of each sequence over its cache of keys and values, and the new
 * ones into it
 *
 * One work item is a sequence and a kv head, so a sequence's result does not
 * depend on the others in the batch. */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/base/error.h"

static void attend(const struct ha_leaf *leaf, float *out, const float *q,
                   const struct ha_decode_attention *shape, int64_t row, int64_t kv_head,
                   float *score)
{
    int64_t width = shape->head_dim, stride = shape->n_kv_heads * width;
    int64_t group = shape->n_heads / shape->n_kv_heads, n = (int64_t)shape->positions[row] + 1;
    const struct ha_kv_rows *cache = &shape->caches[row];
    int64_t begin = shape->layer * cache->layer_stride + kv_head * width;
    const float *k = (const float *)cache->k + begin, *v = (const float *)cache->v + begin;

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
    double flops;
    int rc;

    if (shape->n_heads < 1 || shape->n_kv_heads < 1 || shape->n_heads % shape->n_kv_heads != 0)
        return ha_error_set(err, EINVAL,
                            "decode attention: %" PRId64 " heads, %" PRId64 " kv heads",
                            shape->n_heads, shape->n_kv_heads);
    for (int64_t i = 0; i < shape->n_rows; i++)
        if (shape->positions[i] < 0 || shape->positions[i] >= shape->max_keys)
            return ha_error_set(err, EINVAL,
                                "decode attention: sequence %" PRId64 " is at position %" PRId32
                                " of %" PRId64,
                                i, shape->positions[i], shape->max_keys);
    if (shape->n_rows == 0)
        return 0;
    rc = ha_cpu_scratch(cpu, 0, (size_t)shape->max_keys * sizeof(float), err);
    if (rc < 0)
        return rc;
    flops = ha_decode_attention_flops(shape);
    ha_cpu_for_tiles(cpu, shape->n_rows * shape->n_kv_heads, flops, do_row,
                     &(struct decode){&cpu->leaf, shape, out, q});
    backend->flops += flops;
    backend->bytes_moved += ha_decode_attention_bytes(shape, HA_DTYPE_F32);
    return 0;
}

int ha_cpu_op_kv_append(struct ha_backend *backend, const struct ha_kv_rows *caches,
                        const int32_t *positions, int64_t layer, const void *k, const void *v,
                        int64_t n_rows, int64_t width, int64_t stride, struct ha_error *err)
{
    const float *keys = k, *values = v;

    (void)backend;
    for (int64_t i = 0; i < n_rows; i++) {
        int64_t at = layer * caches[i].layer_stride + positions[i] * width;

        if (positions[i] < 0)
            return ha_error_set(err, EINVAL,
                                "kv_append: sequence %" PRId64 " is at position %" PRId32, i,
                                positions[i]);
        memcpy((float *)caches[i].k + at, keys + i * stride, (size_t)width * sizeof(float));
        memcpy((float *)caches[i].v + at, values + i * stride, (size_t)width * sizeof(float));
    }
    return 0;
}
