/* attention_backward.c - gradients of attention
 *
 * One work item is a family of segments (a prompt and all runs that see it,
 * directly or not) and one kv head: no other item touches its rows of dq, dk and
 * dv, so there is nothing to lock, and the order of all sums is fixed.  Key tiles
 * are the outer loop, then the query tiles that see them, then the query heads:
 *
 *   p = exp(scale q k^T - lse)     dv += p^T dout     dp = dout v^T
 *   ds = scale p (dp - delta)      dk += ds^T q       dq += ds k
 *   delta = sum of dout * out over the head */
#include "kernels/cpu/attention.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/cpu/gemm.h"

struct backward {
    const struct ha_attention *shape;
    const struct ha_leaf *leaf;
    const float *q, *k, *v, *out, *dout, *logsumexp;
    float *dq, *dk, *dv;
    const int64_t *family; /* [segment] first segment of its family */
    int64_t group;         /* query heads of a kv head */
    int64_t width;         /* head_dim in whole column panels */
};

/* One thread's buffers; "rows" is packed as a left operand, "cols" as a right one. */
struct backward_scratch {
    float *keys_t, *values_t, *keys; /* of the key tile: k^T, v^T, k as cols */
    float *query_rows, *dout_rows;   /* of the query tile */
    float *query_cols, *dout_cols;
    float *p, *ds; /* (QUERIES, KEYS) */
    float *packed; /* p^T, ds^T, ds as rows */
};

int64_t ha_attention_backward_elements(const struct ha_leaf *leaf, int64_t head_dim)
{
    int64_t width = ha_gemm_packed(head_dim, leaf->nr, 1);
    int64_t square = HA_ATTENTION_QUERIES * HA_ATTENTION_KEYS;

    return HA_ATTENTION_KEYS * (2 * head_dim + width) +
           2 * HA_ATTENTION_QUERIES * (head_dim + width) + 2 * square +
           ha_gemm_packed(HA_ATTENTION_KEYS, leaf->mr, HA_ATTENTION_QUERIES);
}

static struct backward_scratch backward_scratch_of(const struct backward *b, float *memory)
{
    struct backward_scratch s;
    int64_t width = b->shape->head_dim;

    s.keys_t = memory;
    s.values_t = s.keys_t + HA_ATTENTION_KEYS * width;
    s.keys = s.values_t + HA_ATTENTION_KEYS * width;
    s.query_rows = s.keys + HA_ATTENTION_KEYS * b->width;
    s.dout_rows = s.query_rows + HA_ATTENTION_QUERIES * width;
    s.query_cols = s.dout_rows + HA_ATTENTION_QUERIES * width;
    s.dout_cols = s.query_cols + HA_ATTENTION_QUERIES * b->width;
    s.p = s.dout_cols + HA_ATTENTION_QUERIES * b->width;
    s.ds = s.p + HA_ATTENTION_QUERIES * HA_ATTENTION_KEYS;
    s.packed = s.ds + HA_ATTENTION_QUERIES * HA_ATTENTION_KEYS;
    return s;
}

/* A tile of queries of one head against a tile of keys.  Row i sees the keys
 * low .. min(high, high0 + i) of the tile. */
struct block {
    int64_t row, rows, head;
    int64_t key, n_keys, kv_head;
    int64_t low, high, high0;
};

static void pack_queries(const struct backward *b, const struct backward_scratch *s,
                         const struct block *t)
{
    const struct ha_attention *shape = b->shape;
    int64_t width = shape->head_dim;
    const float *q = b->q + t->row * shape->q_stride + t->head * width;
    const float *dout = b->dout + t->row * shape->out_stride + t->head * width;

    ha_gemm_pack_a(b->leaf, s->query_rows, q, shape->q_stride, false, t->rows, width);
    ha_gemm_pack_a(b->leaf, s->dout_rows, dout, shape->out_stride, false, t->rows, width);
    ha_gemm_pack_b(b->leaf, s->query_cols, q, HA_DTYPE_F32, shape->q_stride, false, t->rows, width);
    ha_gemm_pack_b(b->leaf, s->dout_cols, dout, HA_DTYPE_F32, shape->out_stride, false, t->rows,
                   width);
}

/* Scores in p and dp in ds become p and ds, 0 where a key is not seen. */
static void soften_block(const struct backward *b, const struct backward_scratch *s,
                         const struct block *t)
{
    const struct ha_attention *shape = b->shape;

    for (int64_t i = 0; i < t->rows; i++) {
        float *p = s->p + i * HA_ATTENTION_KEYS, *ds = s->ds + i * HA_ATTENTION_KEYS;
        int64_t at = (t->row + i) * shape->out_stride + t->head * shape->head_dim;
        int64_t high = ha_cpu_min(t->high, t->high0 + i);
        int64_t seen = high > t->low ? high - t->low : 0;

        memset(p, 0, (size_t)t->low * sizeof(float));
        memset(ds, 0, (size_t)t->low * sizeof(float));
        b->leaf->softmax_backward(ds + t->low, p + t->low, ds + t->low, shape->scale,
                                  b->logsumexp[t->head * shape->n_tokens + t->row + i],
                                  b->leaf->dot(b->dout + at, b->out + at, shape->head_dim), seen);
        memset(p + t->low + seen, 0, (size_t)(t->n_keys - t->low - seen) * sizeof(float));
        memset(ds + t->low + seen, 0, (size_t)(t->n_keys - t->low - seen) * sizeof(float));
    }
}

static void backward_block(const struct backward *b, const struct backward_scratch *s,
                           const struct block *t)
{
    const struct ha_attention *shape = b->shape;
    const struct ha_leaf *leaf = b->leaf;
    int64_t width = shape->head_dim;
    float *dq = b->dq + t->row * shape->q_stride + t->head * width;
    float *dk = b->dk + t->key * shape->k_stride + t->kv_head * width;
    float *dv = b->dv + t->key * shape->v_stride + t->kv_head * width;

    pack_queries(b, s, t);
    ha_gemm_packed_product(leaf, s->p, HA_ATTENTION_KEYS, s->query_rows, s->keys_t, t->rows,
                           t->n_keys, width, 1.0f, 0.0f);
    ha_gemm_packed_product(leaf, s->ds, HA_ATTENTION_KEYS, s->dout_rows, s->values_t, t->rows,
                           t->n_keys, width, 1.0f, 0.0f);
    soften_block(b, s, t);
    ha_gemm_pack_a(leaf, s->packed, s->p, HA_ATTENTION_KEYS, true, t->n_keys, t->rows);
    ha_gemm_packed_product(leaf, dv, shape->v_stride, s->packed, s->dout_cols, t->n_keys, width,
                           t->rows, 1.0f, 1.0f);
    ha_gemm_pack_a(leaf, s->packed, s->ds, HA_ATTENTION_KEYS, true, t->n_keys, t->rows);
    ha_gemm_packed_product(leaf, dk, shape->k_stride, s->packed, s->query_cols, t->n_keys, width,
                           t->rows, 1.0f, 1.0f);
    ha_gemm_pack_a(leaf, s->packed, s->ds, HA_ATTENTION_KEYS, false, t->rows, t->n_keys);
    ha_gemm_packed_product(leaf, dq, shape->q_stride, s->packed, s->keys, t->rows, width, t->n_keys,
                           1.0f, 1.0f);
}

/* All queries of one segment that see keys of the tile. */
static void backward_segment(const struct backward *b, const struct backward_scratch *s,
                             const struct ha_segment *queries, int64_t kv_head, int64_t key,
                             int64_t n_keys)
{
    int64_t end = queries->begin + queries->length;
    bool own = key >= queries->begin;
    struct block t = {.key = key, .n_keys = n_keys, .kv_head = kv_head, .high = n_keys};

    if (!own) {
        int64_t prefix_end = queries->prefix_begin + queries->prefix_length;

        t.low = queries->prefix_begin > key ? queries->prefix_begin - key : 0;
        t.high = ha_cpu_min(n_keys, prefix_end - key);
        if (t.low >= t.high)
            return;
    }
    for (t.row = queries->begin; t.row < end; t.row += HA_ATTENTION_QUERIES) {
        t.rows = ha_cpu_min(HA_ATTENTION_QUERIES, end - t.row);
        t.high0 = own ? t.row + 1 - key : n_keys;
        if (t.high0 + t.rows <= 1)
            continue;
        for (int64_t g = 0; g < b->group; g++) {
            t.head = kv_head * b->group + g;
            backward_block(b, s, &t);
        }
    }
}

static void zero_rows(float *x, int64_t stride, int64_t begin, int64_t n, int64_t col, int64_t cols)
{
    for (int64_t i = begin; i < begin + n; i++)
        memset(x + i * stride + col, 0, (size_t)cols * sizeof(float));
}

static void backward_keys(const struct backward *b, const struct backward_scratch *s,
                          int64_t segment, int64_t kv_head, int64_t key, int64_t n_keys)
{
    const struct ha_attention *shape = b->shape;
    int64_t width = shape->head_dim;
    const float *k = b->k + key * shape->k_stride + kv_head * width;
    const float *v = b->v + key * shape->v_stride + kv_head * width;

    ha_gemm_pack_b(b->leaf, s->keys_t, k, HA_DTYPE_F32, shape->k_stride, true, width, n_keys);
    ha_gemm_pack_b(b->leaf, s->values_t, v, HA_DTYPE_F32, shape->v_stride, true, width, n_keys);
    ha_gemm_pack_b(b->leaf, s->keys, k, HA_DTYPE_F32, shape->k_stride, false, n_keys, width);
    for (int64_t i = segment; i < shape->n_segments; i++)
        if (b->family[i] == b->family[segment])
            backward_segment(b, s, &shape->segments[i], kv_head, key, n_keys);
}

static void backward_family(const struct backward *b, int64_t first, int64_t kv_head, float *memory)
{
    const struct ha_attention *shape = b->shape;
    struct backward_scratch s = backward_scratch_of(b, memory);
    int64_t width = shape->head_dim;

    for (int64_t i = first; i < shape->n_segments; i++) {
        const struct ha_segment *segment = &shape->segments[i];

        if (b->family[i] != first)
            continue;
        zero_rows(b->dq, shape->q_stride, segment->begin, segment->length,
                  kv_head * b->group * width, b->group * width);
        zero_rows(b->dk, shape->k_stride, segment->begin, segment->length, kv_head * width, width);
        zero_rows(b->dv, shape->v_stride, segment->begin, segment->length, kv_head * width, width);
    }
    for (int64_t i = first; i < shape->n_segments; i++) {
        const struct ha_segment *segment = &shape->segments[i];
        int64_t end = segment->begin + segment->length;

        if (b->family[i] != first)
            continue;
        for (int64_t key = segment->begin; key < end; key += HA_ATTENTION_KEYS)
            backward_keys(b, &s, i, kv_head, key, ha_cpu_min(HA_ATTENTION_KEYS, end - key));
    }
}

static void do_family(const void *context, int64_t item, void *scratch)
{
    const struct backward *b = context;
    int64_t segment = item / b->shape->n_kv_heads;

    if (b->family[segment] == segment)
        backward_family(b, segment, item % b->shape->n_kv_heads, scratch);
}

/* family[s] = the first segment that s is connected with by prefixes. */
static void find_families(const struct ha_attention *shape, int64_t *family)
{
    for (int64_t s = 0; s < shape->n_segments; s++) {
        const struct ha_segment *segment = &shape->segments[s];

        family[s] = s;
        if (segment->prefix_length == 0 || segment->length == 0)
            continue;
        for (int64_t i = 0; i < s; i++) {
            int64_t offset = segment->prefix_begin - shape->segments[i].begin;

            if (offset >= 0 && offset < shape->segments[i].length)
                family[s] = family[i];
        }
    }
}

int ha_cpu_op_attention_backward(struct ha_backend *backend, void *dq, void *dk, void *dv,
                                 const void *dout, const void *out, const float *logsumexp,
                                 const void *q, const void *k, const void *v,
                                 const struct ha_attention *shape, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct backward b = {.shape = shape,
                         .leaf = &cpu->leaf,
                         .q = q,
                         .k = k,
                         .v = v,
                         .out = out,
                         .dout = dout,
                         .logsumexp = logsumexp,
                         .dq = dq,
                         .dk = dk,
                         .dv = dv};
    int64_t *family, elements;
    double flops;
    int rc = ha_attention_check(shape, err);

    if (rc < 0)
        return rc;
    b.group = shape->n_heads / shape->n_kv_heads;
    b.width = ha_gemm_packed(shape->head_dim, cpu->leaf.nr, 1);
    flops = 10.0 * (double)shape->head_dim * (double)shape->n_heads * ha_attention_pairs(shape);
    elements = ha_attention_backward_elements(&cpu->leaf, shape->head_dim);
    rc = ha_cpu_scratch(cpu, 0, (size_t)elements * sizeof(float), err);
    if (rc < 0)
        return rc;
    family = ha_calloc(shape->n_segments, sizeof(*family));
    if (!family)
        return ha_error_set(err, ENOMEM, "no memory for the list of attention segments");
    find_families(shape, family);
    b.family = family;
    ha_cpu_for_tiles(cpu, shape->n_segments * shape->n_kv_heads, flops / 2.0, do_family, &b);
    free(family);
    backend->flops += flops;
    /* All four and the gradient of each. */
    backend->bytes_moved += 2.0 * ha_attention_bytes(shape);
    return 0;
}
