/* rows.c - operations that treat each row, or each element, by itself
 *
 * Each is a function over a range of rows and an entry that hands the ranges out. */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/base/error.h"

/* A vector of weights in f32: itself, or converted into the work buffer. */
static int widen(struct ha_cpu *cpu, const void *weight, enum ha_dtype dtype, int64_t n,
                 const float **ret_weight, struct ha_error *err)
{
    int rc;

    if (dtype == HA_DTYPE_F32) {
        *ret_weight = weight;
        return 0;
    }
    rc = ha_cpu_work(cpu, (size_t)n * sizeof(float), err);
    if (rc < 0)
        return rc;
    cpu->leaf.convert((float *)(void *)cpu->work, weight, dtype, n);
    *ret_weight = (const float *)(void *)cpu->work;
    return 0;
}

/* ---- bias ---- */

struct bias {
    const struct ha_leaf *leaf;
    float *x;
    const float *row;
    int64_t cols, stride;
};

static void bias_rows(const void *context, int64_t begin, int64_t end)
{
    const struct bias *b = context;

    for (int64_t i = begin; i < end; i++)
        b->leaf->add(b->x + i * b->stride, b->row, b->cols);
}

int ha_cpu_op_add_bias(struct ha_backend *backend, void *x, const void *bias,
                       enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride,
                       struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct bias b = {&cpu->leaf, x, NULL, cols, stride};
    int rc = widen(cpu, bias, bias_dtype, cols, &b.row, err);

    if (rc == 0)
        ha_cpu_for_rows(cpu, n_rows, cols, bias_rows, &b);
    return rc;
}

/* ---- embedding ---- */

struct embedding {
    const struct ha_leaf *leaf;
    float *out;
    const struct ha_matrix *table;
    const int32_t *ids;
};

static void embed_rows(const void *context, int64_t begin, int64_t end)
{
    const struct embedding *e = context;
    const struct ha_matrix *table = e->table;

    for (int64_t t = begin; t < end; t++) {
        size_t at = (size_t)(e->ids[t] * table->stride) * ha_dtype_bytes(table->dtype);

        e->leaf->convert(e->out + t * table->cols, (const char *)table->data + at, table->dtype,
                         table->cols);
    }
}

int ha_cpu_op_embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                            const int32_t *ids, int64_t n_tokens, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    for (int64_t t = 0; t < n_tokens; t++)
        if (ids[t] < 0 || ids[t] >= table->rows)
            return ha_error_set(err, EINVAL,
                                "token %" PRId64 " has id %" PRId32
                                ", outside the vocabulary of %" PRId64,
                                t, ids[t], table->rows);
    ha_cpu_for_rows(cpu, n_tokens, table->cols, embed_rows,
                    &(struct embedding){&cpu->leaf, out, table, ids});
    return 0;
}

/* ---- RMSNorm ---- */

struct norm {
    const struct ha_leaf *leaf;
    float *out;        /* or dx */
    const float *dout; /* backward */
    const float *x;
    float *ret_rstd;   /* forward, or NULL */
    const float *rstd; /* backward */
    const float *weight;
    float eps;
    int64_t groups, cols, out_stride, dout_stride, x_stride;
    bool accumulate;
};

static void norm_rows(const void *context, int64_t begin, int64_t end)
{
    const struct norm *n = context;

    for (int64_t i = begin; i < end; i++)
        for (int64_t g = 0; g < n->groups; g++) {
            int64_t col = g * n->cols;
            float rstd = n->leaf->rmsnorm(n->out + i * n->out_stride + col,
                                          n->x + i * n->x_stride + col, n->weight, n->eps, n->cols);

            if (n->ret_rstd)
                n->ret_rstd[i * n->groups + g] = rstd;
        }
}

int ha_cpu_op_rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                              const void *weight, enum ha_dtype weight_dtype, float eps,
                              int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                              int64_t x_stride, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct norm n = {.leaf = &cpu->leaf,
                     .out = out,
                     .x = x,
                     .ret_rstd = rstd,
                     .eps = eps,
                     .groups = groups,
                     .cols = cols,
                     .out_stride = out_stride,
                     .x_stride = x_stride};
    int rc = widen(cpu, weight, weight_dtype, cols, &n.weight, err);

    if (rc == 0)
        ha_cpu_for_rows(cpu, n_rows, groups * cols, norm_rows, &n);
    return rc;
}

static void norm_backward_rows(const void *context, int64_t begin, int64_t end)
{
    const struct norm *n = context;

    for (int64_t i = begin; i < end; i++)
        for (int64_t g = 0; g < n->groups; g++) {
            int64_t col = g * n->cols;

            n->leaf->rmsnorm_backward(n->out + i * n->out_stride + col,
                                      n->dout + i * n->dout_stride + col,
                                      n->x + i * n->x_stride + col, n->weight,
                                      n->rstd[i * n->groups + g], n->accumulate, n->cols);
        }
}

int ha_cpu_op_rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout,
                               const void *x, const float *rstd, const void *weight,
                               enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                               int64_t cols, int64_t dx_stride, int64_t dout_stride,
                               int64_t x_stride, bool accumulate, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct norm n = {.leaf = &cpu->leaf,
                     .out = dx,
                     .dout = dout,
                     .x = x,
                     .rstd = rstd,
                     .groups = groups,
                     .cols = cols,
                     .out_stride = dx_stride,
                     .dout_stride = dout_stride,
                     .x_stride = x_stride,
                     .accumulate = accumulate};
    int rc = widen(cpu, weight, weight_dtype, cols, &n.weight, err);

    if (rc == 0)
        ha_cpu_for_rows(cpu, n_rows, groups * cols, norm_backward_rows, &n);
    return rc;
}

/* ---- rotary embedding ---- */

struct rotation {
    const struct ha_leaf *leaf;
    float *x;
    const float *cos_sin;
    const int32_t *positions;
    int64_t n_heads, head_dim, stride;
    float sign;
};

static void rotate_rows(const void *context, int64_t begin, int64_t end)
{
    const struct rotation *r = context;
    int64_t half = r->head_dim / 2;

    for (int64_t t = begin; t < end; t++) {
        const float *cosine = r->cos_sin + r->positions[t] * r->head_dim;

        for (int64_t h = 0; h < r->n_heads; h++) {
            float *head = r->x + t * r->stride + h * r->head_dim;

            r->leaf->rotate(head, head + half, cosine, cosine + half, r->sign, half);
        }
    }
}

int ha_cpu_op_rope(struct ha_backend *backend, void *x, const float *cos_sin,
                   const int32_t *positions, int64_t n_tokens, int64_t n_heads, int64_t head_dim,
                   int64_t stride, bool inverse, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct rotation r = {&cpu->leaf, x,        cos_sin, positions,
                         n_heads,    head_dim, stride,  inverse ? -1.0f : 1.0f};

    if (head_dim % 2 != 0)
        return ha_error_set(err, EINVAL, "rope: the head width %" PRId64 " is odd", head_dim);
    ha_cpu_for_rows(cpu, n_tokens, n_heads * head_dim, rotate_rows, &r);
    return 0;
}

/* ---- SwiGLU ---- */

struct swiglu {
    const struct ha_leaf *leaf;
    float *out, *dgate, *dup;
    const float *dout, *gate, *up;
    int64_t cols, out_stride, in_stride;
};

static void swiglu_rows(const void *context, int64_t begin, int64_t end)
{
    const struct swiglu *s = context;

    for (int64_t i = begin; i < end; i++)
        s->leaf->swiglu(s->out + i * s->out_stride, s->gate + i * s->in_stride,
                        s->up + i * s->in_stride, s->cols);
}

int ha_cpu_op_swiglu_forward(struct ha_backend *backend, void *out, const void *gate,
                             const void *up, int64_t n_rows, int64_t cols, int64_t out_stride,
                             int64_t in_stride, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
    ha_cpu_for_rows(cpu, n_rows, cols, swiglu_rows,
                    &(struct swiglu){.leaf = &cpu->leaf,
                                     .out = out,
                                     .gate = gate,
                                     .up = up,
                                     .cols = cols,
                                     .out_stride = out_stride,
                                     .in_stride = in_stride});
    return 0;
}

static void swiglu_backward_rows(const void *context, int64_t begin, int64_t end)
{
    const struct swiglu *s = context;

    for (int64_t i = begin; i < end; i++) {
        int64_t at = i * s->in_stride;

        s->leaf->swiglu_backward(s->dgate + at, s->dup + at, s->dout + i * s->out_stride,
                                 s->gate + at, s->up + at, s->cols);
    }
}

int ha_cpu_op_swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                              const void *gate, const void *up, int64_t n_rows, int64_t cols,
                              int64_t out_stride, int64_t in_stride, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
    ha_cpu_for_rows(cpu, n_rows, cols, swiglu_backward_rows,
                    &(struct swiglu){.leaf = &cpu->leaf,
                                     .dgate = dgate,
                                     .dup = dup,
                                     .dout = dout,
                                     .gate = gate,
                                     .up = up,
                                     .cols = cols,
                                     .out_stride = out_stride,
                                     .in_stride = in_stride});
    return 0;
}

/* ---- dropout ---- */

struct dropping {
    const struct ha_leaf *leaf;
    float *out;
    const float *x;
    struct ha_dropout_mask mask;
    const uint32_t *places;
    int64_t cols, out_stride, x_stride;
    bool accumulate;
};

static void dropout_rows(const void *context, int64_t begin, int64_t end)
{
    const struct dropping *d = context;

    for (int64_t i = begin; i < end; i++)
        d->leaf->dropout(d->out + i * d->out_stride, d->x + i * d->x_stride, &d->mask,
                         d->places + 2 * i, d->accumulate, d->cols);
}

int ha_cpu_op_dropout(struct ha_backend *backend, void *out, const void *x,
                      const struct ha_dropout *dropout, int64_t n_rows, int64_t cols,
                      int64_t out_stride, int64_t x_stride, bool accumulate, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    struct dropping d = {.leaf = &cpu->leaf,
                         .out = out,
                         .x = x,
                         .places = dropout->places,
                         .cols = cols,
                         .out_stride = out_stride,
                         .x_stride = x_stride,
                         .accumulate = accumulate};
    int rc = ha_dropout_mask_make(dropout, cols, &d.mask, err);

    if (rc == 0)
        ha_cpu_for_rows(cpu, n_rows, cols, dropout_rows, &d);
    return rc;
}

/* ---- rows by index ---- */

struct indexed {
    const struct ha_leaf *leaf;
    float *to;
    const float *from;
    const int64_t *index;
    const float *coefficient;
    int64_t n_rows, cols;
};

static void copy_rows(const void *context, int64_t begin, int64_t end)
{
    const struct indexed *s = context;

    for (int64_t i = begin; i < end; i++)
        memcpy(s->to + i * s->cols, s->from + s->index[i] * s->cols,
               (size_t)s->cols * sizeof(float));
}

int ha_cpu_op_gather_rows(struct ha_backend *backend, void *out, const void *x,
                          const int64_t *index, int64_t n_rows, int64_t cols, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
    ha_cpu_for_rows(cpu, n_rows, cols, copy_rows,
                    &(struct indexed){&cpu->leaf, out, x, index, NULL, n_rows, cols});
    return 0;
}

enum { SCATTER_COLS = 256 };

/* A tile of columns: an index may appear twice, so rows are added one after another. */
static void scatter_tile(const void *context, int64_t tile, void *scratch)
{
    const struct indexed *s = context;
    int64_t col = tile * SCATTER_COLS, n = ha_cpu_min(SCATTER_COLS, s->cols - col);

    (void)scratch;
    for (int64_t i = 0; i < s->n_rows; i++)
        s->leaf->add_scaled(s->to + s->index[i] * s->cols + col, s->from + i * s->cols + col,
                            s->coefficient[i], n);
}

int ha_cpu_op_scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                               const int64_t *index, const float *coefficient, int64_t n_rows,
                               int64_t cols, struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
    ha_cpu_for_tiles(cpu, ha_cpu_ceil_div(cols, SCATTER_COLS),
                     HA_CPU_ELEMENT_WORK * (double)n_rows * (double)cols, scatter_tile,
                     &(struct indexed){&cpu->leaf, x, rows, index, coefficient, n_rows, cols});
    return 0;
}
