/* leaf.h - the inner loops of the CPU backend, one table per instruction set
 *
 * leaf_*.c are compiled once for each instruction set with its compiler flags;
 * open picks the best table the processor runs.  A leaf is single-threaded and
 * keeps no state.  Every element, in the middle or at an edge, goes through the
 * same vector instructions, so its bits do not depend on where it lies. */
#ifndef HA_KERNELS_CPU_LEAF_H
#define HA_KERNELS_CPU_LEAF_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/dropout.h"

struct ha_leaf_adamw {
    float grad_scale; /* the clip factor */
    float decay;      /* 1 - lr * weight_decay */
    float beta2;      /* v = beta2 v + blend2 g^2 */
    float blend1;     /* m += blend1 (g - m) */
    float blend2;
    float root_scale; /* 1 / sqrt(1 - beta2^t) */
    float step;       /* lr / (1 - beta1^t) */
    float eps;
};

struct ha_leaf {
    const char *name; /* "AVX-512" */

    /* ---- matrix product: panels of mr rows of a, nr columns of b ---- */
    int64_t mr, nr;
    /* out[p * mr + i] = a(i, p), i < rows <= mr, p < depth; rows up to mr are zero.
     * a(i, p) = a[i * stride + p], or a[p * stride + i] with transpose. */
    void (*pack_a)(float *out, const float *a, int64_t stride, bool transpose, int64_t rows,
                   int64_t depth);
    /* out[p * nr + j] = b(p, j), j < cols <= nr, p < depth; columns up to nr are zero.
     * b(p, j) = b[p * stride + j], or b[j * stride + p] with transpose.  Strides and
     * offsets count elements of dtype. */
    void (*pack_b)(float *out, const void *b, enum ha_dtype dtype, int64_t stride, bool transpose,
                   int64_t depth, int64_t cols);
    /* c(i, j) = alpha * sum over p in order of a(i, p) b(p, j) + beta * c(i, j) for
     * i < rows <= mr, j < cols <= nr; c is not read when beta is 0. */
    void (*multiply)(float *c, int64_t c_stride, const float *a, const float *b, int64_t depth,
                     int64_t rows, int64_t cols, float alpha, float beta);

    /* ---- rows ---- */
    void (*convert)(float *out, const void *in, enum ha_dtype dtype, int64_t n);
    void (*add)(float *x /* += */, const float *y, int64_t n);
    void (*add_scaled)(float *x /* += scale * y */, const float *y, float scale, int64_t n);
    void (*scale)(float *x /* *= */, float scale, int64_t n);
    float (*dot)(const float *x, const float *y, int64_t n);
    /* out[j] = x . rows[j * stride] */
    void (*dots)(float *out, const float *x, const float *rows, int64_t stride, int64_t n_rows,
                 int64_t n);
    /* out = sum over j of weight[j] * rows[j * stride] */
    void (*mix)(float *out, const float *weight, const float *rows, int64_t stride, int64_t n_rows,
                int64_t n);
    double (*sum)(const float *x, int64_t n);
    double (*sum_of_squares)(const float *x, int64_t n);
    /* out = x * rstd * w; returns rstd = 1 / sqrt(mean(x^2) + eps).  out = x allowed. */
    float (*rmsnorm)(float *out, const float *x, const float *weight, float eps, int64_t n);
    void (*rmsnorm_backward)(float *dx, const float *dout, const float *x, const float *weight,
                             float rstd, bool accumulate, int64_t n);
    /* (lo, hi) = (lo cos - hi sin, hi cos + lo sin), sine times sign. */
    void (*rotate)(float *lo, float *hi, const float *cosine, const float *sine, float sign,
                   int64_t n);
    void (*swiglu)(float *out, const float *gate, const float *up, int64_t n);
    void (*swiglu_backward)(float *dgate, float *dup, const float *dout, const float *gate,
                            const float *up, int64_t n);
    /* out = x * mask, or += with accumulate, for a row whose counters begin with place. */
    void (*dropout)(float *out, const float *x, const struct ha_dropout_mask *mask,
                    const uint32_t place[2], bool accumulate, int64_t n);
    void (*adamw)(float *param, float *m, float *v, const float *grad,
                  const struct ha_leaf_adamw *settings, int64_t n);

    /* ---- exponentials ---- */
    void (*round_bf16)(float *x, int64_t n);
    /* The largest element that is a number; -infinity for n = 0. */
    float (*largest)(const float *x, int64_t n);
    /* p = exp(scale * s - shift); returns the sum.  p = s allowed. */
    float (*exp_row)(float *p, const float *s, float scale, float shift, int64_t n);
    /* ds = scale * p * (dp - delta) with p = exp(scale * s - shift), which is kept. */
    void (*softmax_backward)(float *ds, float *p /* s in, p out */, const float *dp, float scale,
                             float shift, float delta, int64_t n);
    /* sum of exp(scale * (x - shift)), in double. */
    double (*exp_sum)(const float *x, float scale, float shift, int64_t n);
    /* sum of exp(x - shift) * (x - shift), in double; 0 where exp is 0. */
    double (*exp_moment)(const float *x, float shift, int64_t n);
    /* x = -exp(x - shift). */
    void (*negative_exp)(float *x, float shift, int64_t n);
};

/* Fill in the table for this processor. */
void ha_leaf_best(struct ha_leaf *ret_leaf);

/* The table of that name ("AVX-512", "AVX2", "baseline"): for tests.  False when this
 * build or this processor has none. */
bool ha_leaf_named(const char *name, struct ha_leaf *ret_leaf);

#endif
