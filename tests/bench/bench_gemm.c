/* The CPU backend's matrix product against OpenBLAS's sgemm, one thread each, at
 * shapes of training (rows of a pack times a weight) and of decoding; then attention,
 * as a share of OpenBLAS's best rate.  The rate is the best of some repeats in
 * processor time, so that other processes disturb little. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cblas.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/ops.h"

enum { REPEATS = 4 };

static double seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void need(int rc, const struct ha_error *err)
{
    if (rc < 0) {
        fprintf(stderr, "bench_gemm: %s\n", ha_error_text(err));
        exit(1);
    }
}

static void *filled(int64_t n, enum ha_dtype dtype)
{
    void *memory = ha_calloc_aligned(n, ha_dtype_bytes(dtype));

    if (!memory)
        need(-1, &(struct ha_error){.text = "no memory"});
    for (int64_t i = 0; i < n; i++) {
        if (dtype == HA_DTYPE_F32)
            ((float *)memory)[i] = (float)(i * 7919 % 1000) / 500.0f - 1.0f;
        else
            ((uint16_t *)memory)[i] = (uint16_t)(0x3c00 + i % 99);
    }
    return memory;
}

struct shape {
    const char *what;
    int64_t rows, cols, depth;
    bool transpose; /* of b: true is x W^T */
};

static const struct shape shapes[] = {
    {"square", 1024, 1024, 1024, false},
    {"8B attention, forward", 2048, 4096, 4096, true},
    {"8B attention, dX", 2048, 4096, 4096, false},
    {"8B MLP, forward", 512, 14336, 4096, true},
    {"20M model, forward", 3000, 1024, 256, true},
    {"20M model, dX", 3000, 256, 688, false},
    {"LoRA A, rank 16", 3000, 16, 4096, true},
    {"head, 64 rows", 64, 32000, 1024, true},
    {"decode, 8 rows", 8, 4096, 4096, true},
    {"decode, 1 row", 1, 4096, 4096, true},
};

/* GFLOP/s of the best repeat; dtype -1: OpenBLAS. */
static double product_rate(struct ha_backend *backend, const struct shape *s, int dtype)
{
    float *a = filled(s->rows * s->depth, HA_DTYPE_F32), *c = filled(s->rows * s->cols, 0);
    void *b = filled(s->cols * s->depth, dtype < 0 ? HA_DTYPE_F32 : (enum ha_dtype)dtype);
    int64_t b_rows = s->transpose ? s->cols : s->depth, b_cols = s->transpose ? s->depth : s->cols;
    struct ha_matrix matrix_c = {c, HA_DTYPE_F32, s->rows, s->cols, s->cols};
    struct ha_matrix matrix_a = {a, HA_DTYPE_F32, s->rows, s->depth, s->depth};
    struct ha_matrix matrix_b = {b, (enum ha_dtype)dtype, b_rows, b_cols, b_cols};
    double best = INFINITY, flops = 2.0 * (double)(s->rows * s->cols) * (double)s->depth;

    for (int r = 0; r < REPEATS; r++) {
        double start = seconds();
        struct ha_error err;

        if (dtype < 0)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, s->transpose ? CblasTrans : CblasNoTrans,
                        (blasint)s->rows, (blasint)s->cols, (blasint)s->depth, 1.0f, a,
                        (blasint)s->depth, b, (blasint)b_cols, 0.0f, c, (blasint)s->cols);
        else
            need(ha_backend_ops(backend)->gemm(backend, &matrix_c, &matrix_a, false, &matrix_b,
                                               s->transpose, 1.0f, 0.0f, &err),
                 &err);
        best = fmin(best, seconds() - start);
    }
    free(a);
    free(b);
    free(c);
    return flops / best * 1e-9;
}

struct layout {
    const char *what;
    int64_t n_heads, n_kv_heads, head_dim, prompt, answer, pairs;
};

static const struct layout layouts[] = {
    {"8B heads, pairs of 150 + 2 x 50", 32, 8, 128, 150, 50, 6},
    {"8B heads, one sequence of 2,048", 32, 8, 128, 2048, 0, 1},
    {"20M model, pairs of 150 + 2 x 50", 4, 2, 64, 150, 50, 12},
};

static void attention_rates(struct ha_backend *backend, const struct layout *l, double best_rate)
{
    struct ha_segment segments[3 * 12];
    int64_t tokens = (l->prompt + 2 * l->answer) * l->pairs, at = 0;
    int64_t q_width = l->n_heads * l->head_dim, k_width = l->n_kv_heads * l->head_dim;
    struct ha_attention shape = {
        tokens,      l->n_heads, l->n_kv_heads, l->head_dim, 1.0f / sqrtf((float)l->head_dim),
        q_width,     k_width,    k_width,       q_width,     segments,
        3 * l->pairs};
    float *q = filled(tokens * q_width, HA_DTYPE_F32), *k = filled(tokens * k_width, 0);
    float *v = filled(tokens * k_width, 0), *out = filled(tokens * q_width, 0);
    float *dq = filled(tokens * q_width, 0), *dk = filled(tokens * k_width, 0);
    float *dv = filled(tokens * k_width, 0), *lse = filled(tokens * l->n_heads, 0);
    double rate[2] = {0};

    for (int64_t p = 0; p < l->pairs; p++)
        for (int part = 0; part < 3; part++) {
            int64_t begin = at - (part == 2 ? l->answer : 0) - l->prompt;

            segments[3 * p + part] = (struct ha_segment){at, part ? l->answer : l->prompt,
                                                         part ? begin : 0, part ? l->prompt : 0};
            at += part ? l->answer : l->prompt;
        }
    for (int r = 0; r < 2 * REPEATS; r++) {
        double start = seconds(), flops = ha_backend_flops(backend);
        struct ha_error err;

        need(r % 2 ? ha_backend_ops(backend)->attention_backward(backend, dq, dk, dv, q, out, lse,
                                                                 q, k, v, &shape, &err)
                   : ha_backend_ops(backend)->attention_forward(backend, out, lse, q, k, v, &shape,
                                                                &err),
             &err);
        rate[r % 2] =
            fmax(rate[r % 2], (ha_backend_flops(backend) - flops) / (seconds() - start) * 1e-9);
    }
    printf("attention, %-34s forward %6.1f   backward %6.1f GFLOP/s   %.2f, %.2f of sgemm's best\n",
           l->what, rate[0], rate[1], rate[0] / best_rate, rate[1] / best_rate);
    free(q);
    free(k);
    free(v);
    free(out);
    free(dq);
    free(dk);
    free(dv);
    free(lse);
}

int main(void)
{
    struct ha_backend_options options = {"cpu", 1, 0, 0};
    struct ha_backend *backend;
    struct ha_error err;
    double logs = 0.0, best_rate = 0.0;
    int n = sizeof(shapes) / sizeof(shapes[0]);

    need(ha_backend_open(&options, &backend, &err), &err);
    openblas_set_num_threads(1);
    printf("%s; OpenBLAS %s\n", ha_backend_description(backend), openblas_get_corename());
    printf("%-24s %6s %6s %6s   %9s %9s %9s   %s\n", "GFLOP/s", "rows", "cols", "depth", "OpenBLAS",
           "f32", "bf16", "ratio (f32)");
    for (int i = 0; i < n; i++) {
        const struct shape *s = &shapes[i];
        double theirs = product_rate(backend, s, -1), ours = product_rate(backend, s, HA_DTYPE_F32);

        printf("%-24s %6lld %6lld %6lld   %9.1f %9.1f %9.1f   %.2f\n", s->what, (long long)s->rows,
               (long long)s->cols, (long long)s->depth, theirs, ours,
               product_rate(backend, s, HA_DTYPE_BF16), ours / theirs);
        logs += log(ours / theirs);
        best_rate = fmax(best_rate, theirs);
    }
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        attention_rates(backend, &layouts[i], best_rate);
    ha_backend_close(backend);
    printf("gemm ratio %.2f\n", exp(logs / n));
    return 0;
}
