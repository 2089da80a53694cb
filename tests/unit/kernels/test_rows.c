#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int64_t token_counts[] = {1, 3, 17, 33, 65};
static const int64_t widths[] = {16, 24, 64, 128, 129};

static double *doubles(int64_t n)
{
    double *x = calloc((size_t)n, sizeof(*x));

    assert_non_null(x);
    return x;
}

static struct guarded filled(struct random *random, int64_t n, float scale)
{
    struct guarded x = guarded_new(n);

    random_fill(random, x.data, n, scale);
    return x;
}

/* Keeps the one-thread result of an instruction set and compares the others with it. */
static void same_for_all_threads(const struct variant *variant, struct guarded *first,
                                 struct guarded got)
{
    guarded_check(got);
    if (variant->threads == 1) {
        if (first->data)
            guarded_free(*first);
        *first = got;
        return;
    }
    assert_same_bits(got.data, first->data, got.n);
    guarded_free(got);
}

static double rms_scale(const float *x, int64_t n, double eps)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return 1.0 / sqrt(sum / (double)n + eps);
}

/* Forward, and backward against the derivative written out in double. */
static void rmsnorm_one(const struct variant *variants, int n, struct random *random, int64_t rows,
                        int64_t groups, int64_t cols, int64_t pad, bool accumulate)
{
    int64_t stride = groups * cols + pad, count = rows * stride;
    struct guarded x = filled(random, count, 2.0f), w = filled(random, cols, 1.0f);
    struct guarded dout = filled(random, count, 1.0f), start = filled(random, count, 1.0f);
    struct guarded first_out = {0}, first_dx = {0};
    uint16_t *half = calloc((size_t)cols, sizeof(*half));
    double *out = doubles(count), *dx = doubles(count), *scales = doubles(rows * groups);

    round_to(HA_DTYPE_BF16, half, w.data, cols);
    for (int64_t i = 0; i < rows * groups; i++) {
        int64_t at = i / groups * stride + i % groups * cols;
        double r = rms_scale(x.data + at, cols, 1e-5), dot = 0.0;

        scales[i] = r;
        for (int64_t j = 0; j < cols; j++)
            dot += (double)dout.data[at + j] * (double)w.data[j] * (double)x.data[at + j];
        for (int64_t j = 0; j < cols; j++) {
            double xj = (double)x.data[at + j], wj = (double)w.data[j];

            out[at + j] = xj * r * wj;
            dx[at + j] = r * ((double)dout.data[at + j] * wj - xj * r * r * dot / (double)cols) +
                         (accumulate ? (double)start.data[at + j] : 0.0);
        }
    }
    for (int64_t i = 0; i < rows; i++) /* what lies between rows stays as it was */
        for (int64_t j = groups * cols; j < stride; j++)
            out[i * stride + j] = dx[i * stride + j] = (double)start.data[i * stride + j];
    for (int v = 0; v < n; v++) {
        const struct ha_ops *ops = variants[v].ops;
        struct guarded got = guarded_copy(start), rstd = guarded_new(rows * groups);
        struct guarded got_dx = guarded_copy(start);

        assert_ok(ops->rmsnorm_forward(variants[v].backend, got.data, rstd.data, x.data, half,
                                       HA_DTYPE_BF16, 1e-5f, rows, groups, cols, stride, stride,
                                       &err));
        assert_near(got.data, out, count, 3e-7);
        assert_near_f32(rstd.data, scales, rows * groups, 3e-7);
        assert_ok(ops->rmsnorm_backward(variants[v].backend, got_dx.data, dout.data, x.data,
                                        rstd.data, w.data, HA_DTYPE_F32, rows, groups, cols, stride,
                                        stride, stride, accumulate, &err));
        assert_near(got_dx.data, dx, count, 1e-6);
        same_for_all_threads(&variants[v], &first_out, got);
        same_for_all_threads(&variants[v], &first_dx, got_dx);
        guarded_free(rstd);
    }
    guarded_free(first_out);
    guarded_free(first_dx);
    guarded_free(x);
    guarded_free(w);
    guarded_free(dout);
    guarded_free(start);
    free(half);
    free(out);
    free(dx);
    free(scales);
}

static void rmsnorm_agrees_with_double(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {21};

    (void)state;
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 5; j++)
            rmsnorm_one(variants, n, &random, token_counts[i], j % 2 ? 4 : 1, widths[j],
                        i % 2 ? 8 : 3, i % 2);
    rmsnorm_one(variants, n, &random, 70, 1, 1024, 3, true);
    rmsnorm_one(variants, n, &random, 5, 1, 1025, 3, false);
    rmsnorm_one(variants, n, &random, 5, 1, 4096, 8, true);
    variants_close(variants, n);
}

static void rope_turns_and_turns_back(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {22};

    (void)state;
    for (size_t c = 0; c < 5; c++)
        for (int64_t dim = 16; dim <= 128; dim += dim == 16 ? 8 : 40) {
            int64_t tokens = token_counts[c], heads = 3;
            int64_t stride = heads * dim + (c % 2 ? 4 : 8);
            struct guarded x = filled(&random, tokens * stride, 1.0f), first = {0};
            struct guarded table = guarded_new(70 * dim);
            double *want = doubles(x.n), *back = doubles(x.n);
            int32_t positions[65];

            for (int64_t i = 0; i < 70 * dim; i++) {
                double angle = (double)(i / dim) * pow(10.0, -(double)(i % (dim / 2)) / 8.0);

                table.data[i] = (float)(i % dim < dim / 2 ? cos(angle) : sin(angle));
            }
            for (int64_t i = 0; i < x.n; i++)
                want[i] = back[i] = (double)x.data[i];
            for (int64_t t = 0; t < tokens; t++) {
                positions[t] = (int32_t)random_below(&random, 70);
                for (int64_t e = 0; e < heads * dim; e++) {
                    int64_t at = t * stride + e, k = e % dim, half = dim / 2;
                    double co = (double)table.data[positions[t] * dim + k % half];
                    double si = (double)table.data[positions[t] * dim + half + k % half];

                    want[at] = k < half ? back[at] * co - back[at + half] * si
                                        : back[at] * co + back[at - half] * si;
                }
            }
            for (int v = 0; v < n; v++) {
                struct guarded got = guarded_copy(x), turned;

                assert_ok(variants[v].ops->rope(variants[v].backend, got.data, table.data,
                                                positions, tokens, heads, dim, stride, false,
                                                &err));
                assert_near(got.data, want, got.n, 2e-7);
                turned = guarded_copy(got);
                assert_ok(variants[v].ops->rope(variants[v].backend, turned.data, table.data,
                                                positions, tokens, heads, dim, stride, true, &err));
                assert_near(turned.data, back, turned.n, device_mode() ? 1e-3 : 5e-7);
                guarded_free(turned);
                same_for_all_threads(&variants[v], &first, got);
            }
            guarded_free(first);
            guarded_free(x);
            guarded_free(table);
            free(want);
            free(back);
        }
    variants_close(variants, n);
}

static void swiglu_agrees_with_double(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {23};

    (void)state;
    for (size_t c = 0; c < 5; c++) {
        int64_t rows = token_counts[c], cols = widths[c] * 11 + (c % 2 ? 5 : 8);
        int64_t in = 2 * cols, out = cols + (c % 2 ? 1 : 8);
        struct guarded x = filled(&random, rows * in, 12.0f), first = {0}, first_dx = {0};
        struct guarded dout = filled(&random, rows * out, 1.0f);
        double *want = doubles(rows * out), *dx = doubles(rows * in);

        x.data[0] = -200.0f; /* exp(200) is infinite: silu must be -0, not NaN */
        for (int64_t i = 0; i < rows * cols; i++) {
            int64_t gate = i / cols * in + i % cols, at = i / cols * out + i % cols;
            double g = (double)x.data[gate], u = (double)x.data[gate + cols];
            double s = 1.0 / (1.0 + exp(-g)), d = (double)dout.data[at];

            want[at] = g * s * u;
            dx[gate] = d * u * s * (1.0 + g * (1.0 - s));
            dx[gate + cols] = d * g * s;
        }
        for (int v = 0; v < n; v++) {
            struct guarded got = guarded_new(rows * out), got_dx = guarded_copy(x);

            assert_ok(variants[v].ops->swiglu_forward(variants[v].backend, got.data, x.data,
                                                      x.data + cols, rows, cols, out, in, &err));
            assert_near(got.data, want, got.n, 3e-7);
            assert_ok(variants[v].ops->swiglu_backward(
                variants[v].backend, got_dx.data, got_dx.data + cols, dout.data, got_dx.data,
                got_dx.data + cols, rows, cols, out, in, &err));
            assert_near(got_dx.data, dx, got_dx.n, 5e-7);
            same_for_all_threads(&variants[v], &first, got);
            same_for_all_threads(&variants[v], &first_dx, got_dx);
        }
        guarded_free(first);
        guarded_free(first_dx);
        guarded_free(x);
        guarded_free(dout);
        free(want);
        free(dx);
    }
    variants_close(variants, n);
}

static void embedding_widens_and_checks_ids(void **state)
{
    static const uint16_t halves[] = {0x0000, 0x8000, 0x3c00, 0xc000, 0x0001, 0x83ff,
                                      0x7bff, 0x7c00, 0xfc00, 0x7e01, 0x3555, 0x0400};
    static const float values[] = {0.0f,     -0.0f,    1.0f,      -2.0f, 0x1p-24f,    -0x1.ff8p-15f,
                                   65504.0f, INFINITY, -INFINITY, NAN,   0x1.554p-2f, 0x1p-14f};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {24};
    uint16_t *table = calloc(40 * 70, sizeof(*table));
    float *exact = calloc(40 * 70, sizeof(*exact));
    int32_t ids[33], outside[2] = {39, 40};

    (void)state;
    random_fill(&random, exact, 40 * 70, 3.0f);
    round_to(HA_DTYPE_BF16, table, exact, 40 * 70);
    for (int i = 0; i < 33; i++)
        ids[i] = (int32_t)random_below(&random, 40);
    for (int v = 0; v < n; v++) {
        struct ha_matrix weights = matrix_of(table, HA_DTYPE_BF16, 40, 67, 70);
        struct ha_matrix f16 = matrix_of(NULL, HA_DTYPE_F16, 1, 12, 12);
        struct guarded out = guarded_new(33 * 67), few = guarded_new(12);
        uint16_t copy[12];
        struct ha_error why;

        assert_ok(
            variants[v].ops->embed_forward(variants[v].backend, out.data, &weights, ids, 33, &err));
        for (int64_t t = 0; t < 33; t++)
            assert_same_bits(out.data + t * 67, exact + ids[t] * 70, 67);
        memcpy(copy, halves, sizeof(copy));
        f16.data = copy;
        assert_ok(variants[v].ops->embed_forward(variants[v].backend, few.data, &f16,
                                                 (const int32_t[]){0}, 1, &err));
        for (int i = 0; i < 12; i++) {
            float want = as_stored(values[i]);

            assert_true(i == 9 ? isnan(few.data[i])
                               : memcmp(&few.data[i], &want, sizeof(float)) == 0);
        }
        assert_int_equal(variants[v].ops->embed_forward(variants[v].backend, out.data, &weights,
                                                        outside, 2, &why),
                         -EINVAL);
        assert_non_null(strstr(why.text, "token 1 has id 40"));
        guarded_free(out);
        guarded_free(few);
    }
    free(table);
    free(exact);
    variants_close(variants, n);
}

/* The bias leaves the last `spare` columns out. */
static void bias_gather_and_scatter_of(int64_t cols, int64_t spare)
{
    enum { ROWS = 65, MOST_COLS = 608, PICKED = 33 };
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {25};
    struct guarded x = filled(&random, ROWS * cols, 1.0f), bias = filled(&random, cols, 1.0f);
    struct guarded rows = filled(&random, PICKED * cols, 1.0f), first = {0};
    uint16_t half[MOST_COLS];
    int64_t index[PICKED];
    float coefficient[PICKED];
    double *sum = doubles(x.n);

    round_to(HA_DTYPE_BF16, half, bias.data, cols);
    for (int i = 0; i < PICKED; i++) {
        index[i] = i % 5 ? random_below(&random, ROWS) : 7;
        coefficient[i] = random_uniform(&random);
    }
    for (int64_t i = 0; i < x.n; i++)
        sum[i] = (double)x.data[i];
    for (int64_t i = 0; i < PICKED * cols; i++)
        sum[index[i / cols] * cols + i % cols] +=
            (double)coefficient[i / cols] * (double)rows.data[i];
    for (int v = 0; v < n; v++) {
        struct guarded got = guarded_copy(x), picked = guarded_new(PICKED * cols);
        const struct ha_ops *ops = variants[v].ops;

        assert_ok(ops->add_bias(variants[v].backend, got.data, half, HA_DTYPE_BF16, ROWS - 1,
                                cols - spare, cols, &err));
        for (int64_t i = 0; i < x.n; i++) {
            bool touched = i / cols < ROWS - 1 && i % cols < cols - spare;

            assert_true(got.data[i] ==
                        as_stored(x.data[i] + (touched ? bias.data[i % cols] : 0.0f)));
        }
        assert_ok(
            ops->gather_rows(variants[v].backend, picked.data, x.data, index, PICKED, cols, &err));
        for (int64_t i = 0; i < PICKED; i++)
            assert_same_bits(picked.data + i * cols, x.data + index[i] * cols, cols);
        guarded_free(picked);
        guarded_free(got);
        got = guarded_copy(x);
        assert_ok(ops->scatter_rows_add(variants[v].backend, got.data, rows.data, index,
                                        coefficient, PICKED, cols, &err));
        assert_near(got.data, sum, got.n, 4e-7);
        same_for_all_threads(&variants[v], &first, got);
    }
    guarded_free(first);
    guarded_free(x);
    guarded_free(bias);
    guarded_free(rows);
    free(sum);
    variants_close(variants, n);
}

static void bias_gather_and_scatter(void **state)
{
    (void)state;
    bias_gather_and_scatter_of(601, 1);
    bias_gather_and_scatter_of(608, 8);
}

/* ---- LoRA's columns ---- */

/* One shape: parts of these ranks (0: not adapted) and 8 rows, then 9, then 10 of W. */
static void lora_columns_of(const int64_t *ranks, int n_parts, int64_t in, int64_t columns,
                            int64_t pad)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {31};
    struct ha_lora_columns c = {.scale = 0.75f, .n_parts = n_parts};
    struct guarded master[2 * HA_LORA_MAX_PARTS], want_a, want_b;
    int64_t rows = 0, column = 0;

    for (int p = 0; p < n_parts; p++) {
        master[2 * p] = guarded_new(ranks[p] * in);
        master[2 * p + 1] = guarded_new((8 + p) * ranks[p]);
        random_fill_f32(&random, master[2 * p].data, ranks[p] * in, 1.0f);
        random_fill_f32(&random, master[2 * p + 1].data, (8 + p) * ranks[p], 1.0f);
        c.parts[p] = (struct ha_lora_part){.a = ranks[p] ? master[2 * p].data : NULL,
                                           .b = ranks[p] ? master[2 * p + 1].data : NULL,
                                           .rank = ranks[p],
                                           .out = 8 + p};
        rows += 8 + p;
    }
    want_b = filled(&random, rows * (columns + pad), 1.0f);
    want_a = filled(&random, columns * in, 1.0f);
    c.b = matrix_of(NULL, HA_DTYPE_F32, rows, columns, columns + pad);
    c.a = matrix_of(NULL, HA_DTYPE_F32, columns, in, in);
    for (int v = 0; v < n; v++) {
        struct guarded a = guarded_copy(want_a), b = guarded_copy(want_b);

        c.a.data = a.data;
        c.b.data = b.data;
        assert_ok(variants[v].ops->lora_columns(variants[v].backend, &c, &err));
        rows = column = 0;
        for (int p = 0; p < n_parts; p++) {
            for (int64_t i = 0; i < c.parts[p].out; i++, rows++)
                for (int64_t k = 0; k < columns + pad; k++) {
                    int64_t own = k - column, at = rows * (columns + pad) + k;
                    float product = own >= 0 && own < ranks[p]
                                        ? c.scale * c.parts[p].b[i * ranks[p] + own]
                                        : 0.0f;

                    assert_true(b.data[at] == (k < columns ? as_stored(product) : want_b.data[at]));
                }
            for (int64_t k = 0; k < ranks[p] * in; k++)
                assert_true(a.data[column * in + k] == as_stored(c.parts[p].a[k]));
            column += ranks[p];
        }
        for (int64_t k = column * in; k < columns * in; k++)
            assert_true(a.data[k] == 0.0f);
        c.n_parts = 0;
        assert_int_equal(variants[v].ops->lora_columns(variants[v].backend, &c, NULL), -EINVAL);
        c.n_parts = n_parts;
        guarded_check(a);
        guarded_check(b);
        guarded_free(a);
        guarded_free(b);
    }
    for (int i = 0; i < 2 * n_parts; i++)
        guarded_free(master[i]);
    guarded_free(want_a);
    guarded_free(want_b);
    variants_close(variants, n);
}

static void lora_columns_lie_as_blocks(void **state)
{
    (void)state;
    lora_columns_of((const int64_t[]){8, 8, 8}, 3, 40, 32, 8);
    lora_columns_of((const int64_t[]){3, 0, 5}, 3, 19, 11, 2);
    lora_columns_of((const int64_t[]){8}, 1, 16, 8, 0);
}

/* No row operation may turn a NaN into a number, or spread it to another row. */
static void nan_shows_and_stays_in_its_row(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {26};

    (void)state;
    for (int v = 0; v < n; v++) {
        enum { ROWS = 5, COLS = 37 };
        const struct ha_ops *ops = variants[v].ops;
        struct guarded x = filled(&random, ROWS * COLS, 1.0f), w = filled(&random, COLS, 1.0f);
        struct guarded out = guarded_new(x.n), rstd = guarded_new(ROWS), dx = guarded_new(x.n);

        x.data[2 * COLS + 36] = NAN;
        assert_ok(ops->rmsnorm_forward(variants[v].backend, out.data, rstd.data, x.data, w.data,
                                       HA_DTYPE_F32, 1e-6f, ROWS, 1, COLS, COLS, COLS, &err));
        assert_ok(ops->rmsnorm_backward(variants[v].backend, dx.data, x.data, x.data, rstd.data,
                                        w.data, HA_DTYPE_F32, ROWS, 1, COLS, COLS, COLS, COLS,
                                        false, &err));
        for (int i = 0; i < ROWS * COLS; i++)
            assert_true(isnan(out.data[i]) == (i / COLS == 2) &&
                        isnan(dx.data[i]) == (i / COLS == 2));
        assert_ok(ops->swiglu_forward(variants[v].backend, out.data, x.data, x.data, ROWS, COLS,
                                      COLS, COLS, &err));
        assert_ok(ops->swiglu_backward(variants[v].backend, dx.data, out.data, x.data, x.data,
                                       x.data, ROWS, COLS, COLS, COLS, &err));
        for (int i = 0; i < ROWS * COLS; i++)
            assert_true(isnan(out.data[i]) == (i == 2 * COLS + 36) &&
                        isnan(dx.data[i]) == (i == 2 * COLS + 36));
        guarded_free(x);
        guarded_free(w);
        guarded_free(out);
        guarded_free(rstd);
        guarded_free(dx);
    }
    variants_close(variants, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        both(rmsnorm_agrees_with_double), both(rope_turns_and_turns_back),
        both(swiglu_agrees_with_double),  both(embedding_widens_and_checks_ids),
        both(bias_gather_and_scatter),    both(nan_shows_and_stays_in_its_row),
        both(lora_columns_lie_as_blocks),
    };

    return run_kernel_tests(tests);
}
