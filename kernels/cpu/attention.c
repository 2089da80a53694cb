/* attention.c - softmax(q k^T) v over packed segments
 *
 * One work item is a tile of queries of one segment and one kv head: it goes
 * through the key tiles of the prefix, then of its own segment up to its last
 * query, keeping a running maximum and sum for each row (online softmax), for all
 * query heads that share the kv head.  Packed keys and values serve them all. */
#include "kernels/cpu/attention.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/cpu/gemm.h"

double ha_attention_bytes(const struct ha_attention *shape)
{
    return 2.0 * (double)shape->n_tokens * (double)(shape->n_heads + shape->n_kv_heads) *
           (double)shape->head_dim * sizeof(float);
}

struct forward {
    const struct ha_attention *shape;
    const float *q, *k, *v;
    float *out, *logsumexp;
    int64_t group; /* query heads of a kv head */
    int64_t width; /* head_dim in whole column panels */
    const struct ha_leaf *leaf;
    const struct tile *tiles;
};

/* A tile of queries: its segment and first token. */
struct tile {
    int64_t segment, row;
};

/* One thread's buffers. */
struct forward_scratch {
    float *keys;    /* packed k^T of a key tile */
    float *values;  /* packed v */
    float *queries; /* [group] packed q */
    float *scores;  /* (QUERIES, KEYS) */
    float *packed;  /* packed probabilities */
    float *top;     /* [group][QUERIES] running maximum of scale * score */
    float *total;   /* [group][QUERIES] running sum */
};

static int64_t query_elements(const struct ha_attention *shape)
{
    return HA_ATTENTION_QUERIES * shape->head_dim;
}

int64_t ha_attention_forward_elements(const struct ha_leaf *leaf, int64_t n_heads,
                                      int64_t n_kv_heads, int64_t head_dim)
{
    int64_t group = n_heads / n_kv_heads;

    return HA_ATTENTION_KEYS * (head_dim + ha_gemm_packed(head_dim, leaf->nr, 1)) +
           group * HA_ATTENTION_QUERIES * head_dim + 2 * HA_ATTENTION_QUERIES * HA_ATTENTION_KEYS +
           2 * group * HA_ATTENTION_QUERIES;
}

static struct forward_scratch forward_scratch_of(const struct forward *f, float *memory)
{
    struct forward_scratch scratch;

    scratch.keys = memory;
    scratch.values = scratch.keys + HA_ATTENTION_KEYS * f->shape->head_dim;
    scratch.queries = scratch.values + HA_ATTENTION_KEYS * f->width;
    scratch.scores = scratch.queries + f->group * query_elements(f->shape);
    scratch.packed = scratch.scores + HA_ATTENTION_QUERIES * HA_ATTENTION_KEYS;
    scratch.top = scratch.packed + HA_ATTENTION_QUERIES * HA_ATTENTION_KEYS;
    scratch.total = scratch.top + f->group * HA_ATTENTION_QUERIES;
    return scratch;
}

/* Scores of one row become exponentials; what was summed before is rescaled to the
 * new maximum. */
static void soften_row(const struct ha_leaf *leaf, float *score, int64_t visible, int64_t n,
                       float scale, float *top, float *total, float *out, int64_t width)
{
    float high = leaf->largest(score, visible) * scale;
    float rescale;

    if (!(high > *top))
        high = *top;
    rescale = expf(*top - high);
    *total = *total * rescale + leaf->exp_row(score, score, scale, high, visible);
    if (rescale != 1.0f)
        leaf->scale(out, rescale, width);
    *top = high;
    memset(score + visible, 0, (size_t)(n - visible) * sizeof(float));
}

/* Keys key .. key + n_keys for all heads of the tile; row i of the tile sees the
 * first `visible0 + i` of them, or all. */
static void forward_keys(const struct ha_leaf *leaf, const struct forward *f,
                         const struct forward_scratch *scratch, int64_t row, int64_t rows,
                         int64_t kv_head, int64_t key, int64_t n_keys, int64_t visible0, bool first)
{
    const struct ha_attention *shape = f->shape;
    int64_t width = shape->head_dim;

    ha_gemm_pack_b(leaf, scratch->keys, f->k + key * shape->k_stride + kv_head * width,
                   HA_DTYPE_F32, shape->k_stride, true, width, n_keys);
    ha_gemm_pack_b(leaf, scratch->values, f->v + key * shape->v_stride + kv_head * width,
                   HA_DTYPE_F32, shape->v_stride, false, n_keys, width);
    for (int64_t g = 0; g < f->group; g++) {
        float *out = f->out + row * shape->out_stride + (kv_head * f->group + g) * width;

        ha_gemm_packed_product(leaf, scratch->scores, HA_ATTENTION_KEYS,
                               scratch->queries + g * query_elements(shape), scratch->keys, rows,
                               n_keys, width, 1.0f, 0.0f);
        for (int64_t i = 0; i < rows; i++) {
            int64_t visible = ha_cpu_min(n_keys, visible0 + i);
            int64_t at = g * HA_ATTENTION_QUERIES + i;

            if (visible > 0)
                soften_row(leaf, scratch->scores + i * HA_ATTENTION_KEYS, visible, n_keys,
                           shape->scale, &scratch->top[at], &scratch->total[at],
                           out + i * shape->out_stride, first ? 0 : width);
            else
                memset(scratch->scores + i * HA_ATTENTION_KEYS, 0, (size_t)n_keys * sizeof(float));
        }
        ha_gemm_pack_a(leaf, scratch->packed, scratch->scores, HA_ATTENTION_KEYS, false, rows,
                       n_keys);
        ha_gemm_packed_product(leaf, out, shape->out_stride, scratch->packed, scratch->values, rows,
                               width, n_keys, 1.0f, first ? 0.0f : 1.0f);
    }
}

static void finish_rows(const struct ha_leaf *leaf, const struct forward *f,
                        const struct forward_scratch *scratch, int64_t row, int64_t rows,
                        int64_t kv_head)
{
    const struct ha_attention *shape = f->shape;

    for (int64_t g = 0; g < f->group; g++) {
        int64_t head = kv_head * f->group + g;

        for (int64_t i = 0; i < rows; i++) {
            int64_t at = g * HA_ATTENTION_QUERIES + i;

            leaf->scale(f->out + (row + i) * shape->out_stride + head * shape->head_dim,
                        1.0f / scratch->total[at], shape->head_dim);
            if (f->logsumexp)
                f->logsumexp[head * shape->n_tokens + row + i] =
                    scratch->top[at] + logf(scratch->total[at]);
        }
    }
}

static void forward_tile(const struct ha_leaf *leaf, const struct forward *f,
                         const struct ha_segment *segment, int64_t row, int64_t kv_head,
                         float *memory)
{
    const struct ha_attention *shape = f->shape;
    struct forward_scratch scratch = forward_scratch_of(f, memory);
    int64_t end = segment->begin + segment->length;
    int64_t rows = ha_cpu_min(HA_ATTENTION_QUERIES, end - row);
    int64_t prefix_end = segment->prefix_begin + segment->prefix_length;
    bool first = true;

    for (int64_t g = 0; g < f->group; g++) {
        int64_t head = kv_head * f->group + g;

        ha_gemm_pack_a(leaf, scratch.queries + g * query_elements(shape),
                       f->q + row * shape->q_stride + head * shape->head_dim, shape->q_stride,
                       false, rows, shape->head_dim);
        for (int64_t i = 0; i < rows; i++) {
            scratch.top[g * HA_ATTENTION_QUERIES + i] = -INFINITY;
            scratch.total[g * HA_ATTENTION_QUERIES + i] = 0.0f;
        }
    }
    for (int64_t key = segment->prefix_begin; key < prefix_end; key += HA_ATTENTION_KEYS) {
        forward_keys(leaf, f, &scratch, row, rows, kv_head, key,
                     ha_cpu_min(HA_ATTENTION_KEYS, prefix_end - key), HA_ATTENTION_KEYS, first);
        first = false;
    }
    for (int64_t key = segment->begin; key < row + rows; key += HA_ATTENTION_KEYS) {
        forward_keys(leaf, f, &scratch, row, rows, kv_head, key,
                     ha_cpu_min(HA_ATTENTION_KEYS, row + rows - key), row + 1 - key, first);
        first = false;
    }
    finish_rows(leaf, f, &scratch, row, rows, kv_head);
}

static void do_tile(const void *context, int64_t item, void *scratch)
{
    const struct forward *f = context;
    const struct tile *tile = &f->tiles[item / f->shape->n_kv_heads];

    forward_tile(f->leaf, f, &f->shape->segments[tile->segment], tile->row,
                 item % f->shape->n_kv_heads, scratch);
}

/* The query tiles of all segments; the caller frees them. */
static struct tile *list_tiles(const struct ha_attention *shape, int64_t *ret_count)
{
    struct tile *tiles;
    int64_t count = 0;

    for (int64_t s = 0; s < shape->n_segments; s++)
        count += ha_cpu_ceil_div(shape->segments[s].length, HA_ATTENTION_QUERIES);
    tiles = ha_calloc(count, sizeof(*tiles));
    if (!tiles)
        return NULL;
    *ret_count = count;
    count = 0;
    for (int64_t s = 0; s < shape->n_segments; s++)
        for (int64_t row = 0; row < shape->segments[s].length; row += HA_ATTENTION_QUERIES)
            tiles[count++] = (struct tile){s, shape->segments[s].begin + row};
    return tiles;
}

int ha_cpu_op_attention_forward(struct ha_backend *backend, void *out, float *logsumexp,
                                const void *q, const void *k, const void *v,
                                const struct ha_attention *shape, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct forward f = {.shape = shape,
                        .leaf = &cpu->leaf,
                        .q = q,
                        .k = k,
                        .v = v,
                        .out = out,
                        .logsumexp = logsumexp};
    struct tile *tiles;
    int64_t n_tiles = 0, elements;
    double flops;
    int rc = ha_attention_check(shape, err);

    if (rc < 0)
        return rc;
    f.group = shape->n_heads / shape->n_kv_heads;
    f.width = ha_gemm_packed(shape->head_dim, cpu->leaf.nr, 1);
    flops = 4.0 * (double)shape->head_dim * (double)shape->n_heads * ha_attention_pairs(shape);
    elements = ha_attention_forward_elements(&cpu->leaf, shape->n_heads, shape->n_kv_heads,
                                             shape->head_dim);
    rc = ha_cpu_scratch(cpu, 0, (size_t)elements * sizeof(float), err);
    if (rc < 0)
        return rc;
    tiles = list_tiles(shape, &n_tiles);
    if (!tiles)
        return ha_error_set(err, ENOMEM, "no memory for the list of attention tiles");
    f.tiles = tiles;
    ha_cpu_for_tiles(cpu, n_tiles * shape->n_kv_heads, flops / 2.0, do_tile, &f);
    free(tiles);
    backend->flops += flops;
    backend->bytes_moved += ha_attention_bytes(shape);
    return 0;
}
