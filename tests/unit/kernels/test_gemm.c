#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/half.h"
#include "kernels/scratch.h"

struct shape {
    int64_t rows, cols, depth;
};

static const struct shape shapes[] = {
    {1, 1, 1},    {3, 17, 5},    {13, 33, 65},  {12, 32, 256}, {65, 129, 257},
    {17, 3, 600}, {490, 30, 70}, {1, 300, 513}, {7, 8200, 20}, {33, 31, 1},
};

/* The operands of one product, stored as asked for, and its exact result. */
struct problem {
    struct shape s;
    bool transpose_a, transpose_b;
    enum ha_dtype dtype_a, dtype_b, dtype_c;
    int64_t a_stride, b_stride, c_stride;
    struct guarded a, b, c;
    uint16_t *a_half, *b_half;
    double *want;
};

static float element(const float *x, int64_t stride, bool transpose, int64_t row, int64_t col)
{
    return transpose ? x[col * stride + row] : x[row * stride + col];
}

/* A device multiplies in f32 then; else it rounds what is not bf16 yet, so that the operands
 * must be numbers of bf16 to know the exact product. */
static bool in_f32(const struct problem *p)
{
    return p->dtype_a != HA_DTYPE_BF16 && p->dtype_b != HA_DTYPE_BF16 && p->dtype_c == HA_DTYPE_F32;
}

static void problem_create(struct problem *p, struct random *random, float alpha, float beta)
{
    int64_t a_rows = p->transpose_a ? p->s.depth : p->s.rows;
    int64_t b_rows = p->transpose_b ? p->s.cols : p->s.depth;

    p->a_stride = (p->transpose_a ? p->s.rows : p->s.depth) + 3;
    p->b_stride = (p->transpose_b ? p->s.depth : p->s.cols) + 1;
    p->c_stride = p->s.cols + 2;
    p->a = guarded_new(a_rows * p->a_stride);
    p->b = guarded_new(b_rows * p->b_stride);
    p->c = guarded_new(p->s.rows * p->c_stride);
    p->a_half = calloc((size_t)p->a.n, sizeof(*p->a_half));
    p->b_half = calloc((size_t)p->b.n, sizeof(*p->b_half));
    p->want = calloc((size_t)p->c.n, sizeof(*p->want));
    (in_f32(p) ? random_fill_f32 : random_fill)(random, p->a.data, p->a.n, 1.0f);
    (in_f32(p) ? random_fill_f32 : random_fill)(random, p->b.data, p->b.n, 1.0f);
    random_fill(random, p->c.data, p->c.n, 1.0f);
    if (p->dtype_a != HA_DTYPE_F32)
        round_to(p->dtype_a, p->a_half, p->a.data, p->a.n);
    if (p->dtype_b != HA_DTYPE_F32)
        round_to(p->dtype_b, p->b_half, p->b.data, p->b.n);
    for (int64_t i = 0; i < p->c.n; i++)
        p->want[i] = (double)p->c.data[i];
    for (int64_t i = 0; i < p->s.rows; i++)
        for (int64_t j = 0; j < p->s.cols; j++) {
            double sum = 0.0;

            for (int64_t k = 0; k < p->s.depth; k++)
                sum += (double)element(p->a.data, p->a_stride, p->transpose_a, i, k) *
                       (double)element(p->b.data, p->b_stride, p->transpose_b, k, j);
            p->want[i * p->c_stride + j] =
                (double)alpha * sum + (double)beta * p->want[i * p->c_stride + j];
        }
}

static void problem_destroy(struct problem *p)
{
    guarded_free(p->a);
    guarded_free(p->b);
    guarded_free(p->c);
    free(p->a_half);
    free(p->b_half);
    free(p->want);
}

static void *stored(const struct guarded *values, uint16_t *half, enum ha_dtype dtype)
{
    return dtype == HA_DTYPE_F32 ? (void *)values->data : (void *)half;
}

static struct guarded run(const struct variant *variant, const struct problem *p, float alpha,
                          float beta)
{
    struct guarded out = guarded_copy(p->c);
    uint16_t *c_half = calloc((size_t)out.n, sizeof(*c_half));
    struct ha_matrix c =
        matrix_of(stored(&out, c_half, p->dtype_c), p->dtype_c, p->s.rows, p->s.cols, p->c_stride);
    struct ha_matrix a = matrix_of(stored(&p->a, p->a_half, p->dtype_a), p->dtype_a,
                                   p->transpose_a ? p->s.depth : p->s.rows,
                                   p->transpose_a ? p->s.rows : p->s.depth, p->a_stride);
    struct ha_matrix b = matrix_of(stored(&p->b, p->b_half, p->dtype_b), p->dtype_b,
                                   p->transpose_b ? p->s.cols : p->s.depth,
                                   p->transpose_b ? p->s.depth : p->s.cols, p->b_stride);

    for (int64_t i = 0; i < out.n; i++)
        c_half[i] = ha_half_to_bf16(out.data[i]);
    assert_ok(variant->ops->gemm(variant->backend, &c, &a, p->transpose_a, &b, p->transpose_b,
                                 alpha, beta, &err));
    for (int64_t i = 0; p->dtype_c == HA_DTYPE_BF16 && i < out.n; i++)
        out.data[i] = ha_half_from_bf16(c_half[i]);
    free(c_half);
    guarded_check(out);
    return out;
}

/* All transpositions and dtypes against a double sum; threads change no bit. */
static void agrees_with_double(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {1};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int kind = 0; kind < (device_mode() ? 72 : 12); kind++) {
            struct problem p = {.s = shapes[i],
                                .transpose_a = kind & 1,
                                .transpose_b = kind & 2,
                                .dtype_b = (enum ha_dtype)(kind / 4 % 3),
                                .dtype_a = (enum ha_dtype)(kind / 12 % 3),
                                .dtype_c = kind < 36 ? HA_DTYPE_F32 : HA_DTYPE_BF16};
            double tolerance = 2e-7 * sqrt((double)p.s.depth) + 1e-7;
            float alpha = kind == 5 ? 0.75f : 1.0f, beta = kind & 1 ? 1.0f : 0.0f;
            struct guarded first = {0};

            if (device_mode() && p.s.cols > 1000 && kind % 5 != 0)
                continue; /* of the widest product some kinds will do */
            problem_create(&p, &random, alpha, beta);
            for (int v = 0; v < n; v++) {
                struct guarded out = run(&variants[v], &p, alpha, beta);

                if (p.dtype_c == HA_DTYPE_F32)
                    assert_near_f32(out.data, p.want, out.n, tolerance);
                else
                    assert_near(out.data, p.want, out.n, tolerance);
                if (variants[v].threads == 1) {
                    if (first.data)
                        guarded_free(first);
                    first = out;
                    continue;
                }
                assert_same_bits(out.data, first.data, out.n);
                guarded_free(out);
            }
            guarded_free(first);
            problem_destroy(&p);
        }
    variants_close(variants, n);
}

/* A row computed by itself has the bits it has among other rows. */
static void rows_do_not_influence_each_other(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {2};
    struct problem p = {.s = {37, 150, 700}, .transpose_b = true, .dtype_b = HA_DTYPE_BF16};

    (void)state;
    problem_create(&p, &random, 1.0f, 1.0f);
    for (int v = 0; v < n; v++) {
        struct guarded all = run(&variants[v], &p, 0.5f, 1.0f);

        for (int64_t row = 0; row < p.s.rows; row += 5)
            for (int64_t rows = 1; rows <= 14 && row + rows <= p.s.rows; rows += 4) {
                struct problem part = p;
                struct guarded out;

                part.s.rows = rows;
                part.a.data += row * p.a_stride;
                part.c.data += row * p.c_stride;
                part.c.n = rows * p.c_stride;
                out = run(&variants[v], &part, 0.5f, 1.0f);
                assert_same_bits(out.data, all.data + row * p.c_stride, out.n);
                guarded_free(out);
            }
        guarded_free(all);
    }
    problem_destroy(&p);
    variants_close(variants, n);
}

/* Rows first .. first + rows of a product in a call of their own, against those of `all`; returns
 * how many elements differ. */
static int64_t differ_alone(const struct variant *variant, const struct problem *p,
                            const struct guarded *all, int64_t first, int64_t rows, float beta)
{
    struct problem part = *p;
    struct guarded out;
    int64_t n = 0;

    part.s.rows = rows;
    part.a.data += first * p->a_stride;
    if (p->a_half)
        part.a_half += first * p->a_stride;
    part.c.data += first * p->c_stride;
    part.c.n = rows * p->c_stride;
    out = run(variant, &part, 0.5f, beta);
    for (int64_t i = 0; i < out.n; i++)
        n += out.data[i] != all->data[first * p->c_stride + i];
    guarded_free(out);
    return n;
}

/* Where they are kept separate, no row hangs on how many there are, nor on its place: one by one,
 * a few, more than a tile, from any row on.  Else they do, on the emulated device at least. */
static void rows_are_separate_where_asked(void **state)
{
    static const struct {
        struct shape s;
        enum ha_dtype c;
        float beta;
        int64_t rows[5]; /* of a call */
    } cases[] = {
        {{520, 30, 70}, HA_DTYPE_BF16, 0.0f, {1, 17, 256, 500}},
        {{300, 33, 16}, HA_DTYPE_BF16, 1.0f, {3, 17, 270}},
        {{40, 70, 130}, HA_DTYPE_F32, 1.0f, {1, 3, 17}},
        {{5, 33000, 3}, HA_DTYPE_F32, 0.0f, {2}},
    };
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    bool emulated = strstr(ha_backend_description(variants[0].backend), "emulated") != NULL;
    struct random random = {7};
    int64_t differ[2] = {0};

    (void)state;
    assert_int_equal(n, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct problem p = {.s = cases[i].s,
                            .transpose_b = true,
                            .dtype_a = HA_DTYPE_BF16,
                            .dtype_b = i % 2 ? HA_DTYPE_F32 : HA_DTYPE_BF16,
                            .dtype_c = cases[i].c};

        problem_create(&p, &random, 0.5f, cases[i].beta);
        for (int on = 0; on < 2; on++) {
            struct guarded all;

            ha_backend_separate_rows(variants[0].backend, on);
            all = run(&variants[0], &p, 0.5f, cases[i].beta);
            assert_near_f32(all.data, p.want, cases[i].c == HA_DTYPE_F32 ? all.n : 0, 1e-6);
            for (int j = 0; j < 5 && cases[i].rows[j] > 0; j++) {
                int64_t rows = cases[i].rows[j], last = p.s.rows - rows;

                differ[on] += differ_alone(&variants[0], &p, &all, 0, rows, cases[i].beta) +
                              differ_alone(&variants[0], &p, &all, last / 3, rows, cases[i].beta) +
                              differ_alone(&variants[0], &p, &all, last, rows, cases[i].beta);
            }
            guarded_free(all);
        }
        problem_destroy(&p);
    }
    assert_int_equal(differ[1], 0);
    if (emulated)
        assert_true(differ[0] > 1000);
    variants_close(variants, n);
}

static void *random_bf16(struct ha_backend *backend, struct random *random, int64_t n)
{
    uint16_t *half = calloc((size_t)n, sizeof(*half));
    void *memory;

    assert_non_null(half);
    for (int64_t i = 0; i < n; i++)
        half[i] = ha_half_to_bf16(random_uniform(random));
    assert_ok(ha_backend_alloc(backend, (size_t)n * sizeof(*half), &memory, &err));
    assert_ok(ha_backend_upload(backend, memory, half, (size_t)n * sizeof(*half), &err));
    free(half);
    return memory;
}

/* c = a b^T in bf16; returns its first `rows` rows from row `first` of a on. */
static uint16_t *some_rows(struct ha_backend *backend, const struct ha_matrix *c,
                           const struct ha_matrix *a, const struct ha_matrix *b, int64_t first,
                           int64_t rows)
{
    size_t bytes = (size_t)(rows * c->cols) * sizeof(uint16_t);
    struct ha_matrix out = *c, in = *a;
    uint16_t *got = malloc(bytes);

    assert_non_null(got);
    out.rows = in.rows = rows;
    in.data = (uint16_t *)a->data + first * a->stride;
    assert_ok(ha_backend_ops(backend)->gemm(backend, &out, &in, false, b, true, 1.0f, 0.0f, &err));
    assert_ok(ha_backend_download(backend, got, out.data, bytes, &err));
    return got;
}

/* The same at the widths of a model of 8 billion weights, of which the emulated device has a
 * 32nd: q, k, v; o; gate and up; down; A and B of an adapter. */
static void rows_are_separate_in_wide_products(void **state)
{
    static const struct shape wide[] = {{300, 6144, 4096},  {300, 4096, 4096}, {300, 28672, 4096},
                                        {300, 4096, 14336}, {300, 16, 4096},   {300, 4096, 16}};
    static const int64_t part[][2] = {{0, 1}, {17, 3}, {299, 1}, {40, 256}};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct ha_backend *backend = variants[0].backend;
    int64_t share = strstr(ha_backend_description(backend), "emulated") ? 32 : 1;
    struct random random = {9};

    (void)state;
    ha_backend_separate_rows(backend, true);
    for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
        int64_t rows = wide[i].rows, cols = wide[i].cols, depth = wide[i].depth;
        struct ha_matrix a, b, c;
        uint16_t *all, *some;

        cols = cols > 16 ? cols / share : cols;
        depth = depth > 16 ? depth / share : depth;
        a = matrix_of(random_bf16(backend, &random, rows * depth), HA_DTYPE_BF16, rows, depth,
                      depth);
        b = matrix_of(random_bf16(backend, &random, cols * depth), HA_DTYPE_BF16, cols, depth,
                      depth);
        c = matrix_of(random_bf16(backend, &random, rows * cols), HA_DTYPE_BF16, rows, cols, cols);
        all = some_rows(backend, &c, &a, &b, 0, rows);
        for (size_t j = 0; j < sizeof(part) / sizeof(part[0]); j++) {
            some = some_rows(backend, &c, &a, &b, part[j][0], part[j][1]);
            assert_memory_equal(some, all + part[j][0] * cols,
                                (size_t)(part[j][1] * cols) * sizeof(*some));
            free(some);
        }
        free(all);
        ha_backend_free(backend, a.data);
        ha_backend_free(backend, b.data);
        ha_backend_free(backend, c.data);
    }
    variants_close(variants, n);
}

/* The plan has the tiles, to the byte. */
static void separate_rows_take_what_is_planned(void **state)
{
    const struct ha_scratch_shape none = {0}, shape = {.separate_depth = 130,
                                                       .separate_cols = 900,
                                                       .separate_f32_cols = 33000};
    struct problem wide = {.s = {5, 33000, 3},
                           .transpose_b = true,
                           .dtype_a = HA_DTYPE_BF16,
                           .dtype_b = HA_DTYPE_BF16};
    struct problem deep = wide;
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    int64_t held = ha_backend_allocated_bytes(variants[0].backend);
    struct random random = {8};

    (void)state;
    deep.s = (struct shape){300, 900, 130};
    deep.dtype_c = HA_DTYPE_BF16;
    ha_backend_separate_rows(variants[0].backend, true);
    problem_create(&wide, &random, 1.0f, 0.0f);
    problem_create(&deep, &random, 1.0f, 1.0f);
    guarded_free(run(&variants[0], &wide, 1.0f, 0.0f));
    guarded_free(run(&variants[0], &deep, 1.0f, 1.0f));
    assert_int_equal(ha_backend_allocated_bytes(variants[0].backend) - held,
                     ha_gpu_scratch_bytes(&shape) - ha_gpu_scratch_bytes(&none));
    problem_destroy(&wide);
    problem_destroy(&deep);
    variants_close(variants, n);
}

static void half_operand_a(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {3};

    (void)state;
    for (int transposed = 0; transposed < 2; transposed++) {
        int64_t a_rows = transposed ? 300 : 29, a_cols = transposed ? 29 : 300;
        struct problem p = {.s = {29, 40, 300}, .transpose_a = transposed != 0};
        uint16_t *half;

        problem_create(&p, &random, 1.0f, 0.0f);
        half = calloc((size_t)p.a.n, sizeof(*half));
        round_to(HA_DTYPE_BF16, half, p.a.data, p.a.n);
        for (int v = 0; v < n; v++) {
            struct guarded want = run(&variants[v], &p, 1.0f, 0.0f), got = guarded_copy(p.c);
            struct ha_matrix c = matrix_of(got.data, HA_DTYPE_F32, 29, 40, p.c_stride);
            struct ha_matrix a = matrix_of(half, HA_DTYPE_BF16, a_rows, a_cols, p.a_stride);
            struct ha_matrix b = matrix_of(p.b.data, HA_DTYPE_F32, 300, 40, p.b_stride);

            assert_ok(variants[v].ops->gemm(variants[v].backend, &c, &a, transposed != 0, &b, false,
                                            1.0f, 0.0f, &err));
            assert_same_bits(got.data, want.data, got.n);
            guarded_free(want);
            guarded_free(got);
        }
        free(half);
        problem_destroy(&p);
    }
    variants_close(variants, n);
}

static void nan_shows_and_stays_in_its_row(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {4};
    struct problem p = {.s = {20, 35, 300}};

    (void)state;
    problem_create(&p, &random, 1.0f, 0.0f);
    p.a.data[7 * p.a_stride + 290] = NAN;
    p.a.data[9 * p.a_stride + 1] = INFINITY;
    memset(p.c.data, 0xff, (size_t)p.c.n * sizeof(float)); /* beta = 0 does not read c */
    for (int v = 0; v < n; v++) {
        struct guarded out = run(&variants[v], &p, 1.0f, 0.0f);

        for (int64_t i = 0; i < p.s.rows; i++)
            for (int64_t j = 0; j < p.s.cols; j++) {
                float c = out.data[i * p.c_stride + j];

                assert_true(i == 7 ? isnan(c) : i == 9 ? !isfinite(c) : isfinite(c));
            }
        guarded_free(out);
    }
    problem_destroy(&p);
    variants_close(variants, n);
}

static void empty_and_wrong_shapes(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    float x[6] = {1, 2, 3, 4, 5, 6}, y[4] = {1, 1, 1, 1};
    struct ha_error why = {0};

    (void)state;
    for (int v = 0; v < n; v++) {
        struct ha_matrix none = matrix_of(x, HA_DTYPE_F32, 2, 0, 1);
        struct ha_matrix none_b = matrix_of(x, HA_DTYPE_F32, 0, 2, 2);
        struct ha_matrix c = matrix_of(y, HA_DTYPE_F32, 2, 2, 2);
        struct ha_matrix a = matrix_of(x, HA_DTYPE_F32, 2, 3, 3);
        struct ha_matrix half = matrix_of(y, device_mode() ? HA_DTYPE_F16 : HA_DTYPE_BF16, 2, 2, 2);
        double before = ha_backend_flops(variants[v].backend);
        double moved = ha_backend_bytes_moved(variants[v].backend);

        y[0] = 3.0f;
        assert_ok(variants[v].ops->gemm(variants[v].backend, &c, &none, false, &none_b, false, 1.0f,
                                        2.0f, &err));
        assert_true(y[0] == 6.0f);
        assert_int_equal(
            variants[v].ops->gemm(variants[v].backend, &c, &a, false, &a, false, 1.0f, 0.0f, &why),
            -EINVAL);
        assert_non_null(strstr(why.text, "2 x 3 times 2 x 3"));
        assert_int_equal(variants[v].ops->gemm(variants[v].backend, &half, &a, false, &a, true,
                                               1.0f, 0.0f, &why),
                         -EINVAL);
        assert_ok(
            variants[v].ops->gemm(variants[v].backend, &c, &a, false, &a, true, 1.0f, 0.0f, &err));
        assert_true(y[0] == 14.0f && y[1] == 32.0f && y[3] == 77.0f);
        assert_true(ha_backend_flops(variants[v].backend) - before == 24.0);
        /* a, b and c once; a product without depth is not counted. */
        assert_true(ha_backend_bytes_moved(variants[v].backend) - moved == 64.0);
    }
    variants_close(variants, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        both(agrees_with_double),
        cpu_only(rows_do_not_influence_each_other),
        cpu_only(half_operand_a),
        both(nan_shows_and_stays_in_its_row),
        both(empty_and_wrong_shapes),
        device_only(rows_are_separate_where_asked),
        device_only(rows_are_separate_in_wide_products),
        device_only(separate_rows_take_what_is_planned),
    };

    return run_kernel_tests(tests);
}
