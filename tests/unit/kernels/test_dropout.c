/* Dropout: every element of the mask against the formula of ops.h, and what masks look like. */
#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng_philox.h"

/* Word of one element, as ops.h says. */
static uint32_t word_of(const struct ha_dropout *dropout, int64_t row, int64_t col)
{
    uint32_t key[2] = {(uint32_t)dropout->seed, (uint32_t)(dropout->seed >> 32)}, words[4];
    uint32_t counter[4] = {dropout->places[2 * row], dropout->places[2 * row + 1], dropout->stream,
                           HA_PHILOX_DROPOUT + 256 * (uint32_t)(col / 4)};

    ha_philox(key, counter, words);
    return words[col % 4];
}

static double mask_of(const struct ha_dropout *dropout, int64_t row, int64_t col)
{
    bool kept = word_of(dropout, row, col) >= floor(dropout->p * 0x1p32 + 0.5);

    return kept ? (double)(float)(1.0 / (1.0 - dropout->p)) : 0.0;
}

static struct guarded filled(struct random *random, int64_t n)
{
    struct guarded x = guarded_new(n);

    random_fill(random, x.data, n, 2.0f);
    return x;
}

static void fill_places(struct random *random, uint32_t *places, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        places[i] = (uint32_t)random_below(random, INT64_C(1) << 32);
}

/* One shape: set and accumulated, the same bits for every number of threads, nothing written
 * between rows. */
static void one_shape(const struct variant *variants, int n, struct random *random, int64_t rows,
                      int64_t cols, int64_t out_stride, int64_t x_stride, double p)
{
    struct guarded x = filled(random, rows * x_stride), start = filled(random, rows * out_stride);
    struct guarded first = {0};
    uint32_t *places = calloc((size_t)(2 * rows), sizeof(*places));
    struct ha_dropout dropout = {p, 0x123456789abcdef0u, 0xfedcba98u, places};
    double *sum = calloc((size_t)start.n, sizeof(*sum));

    assert_true(places && sum);
    fill_places(random, places, 2 * rows);
    for (int64_t i = 0; i < start.n; i++) {
        int64_t row = i / out_stride, col = i % out_stride;

        sum[i] = (double)start.data[i];
        if (col < cols)
            sum[i] += (double)x.data[row * x_stride + col] * mask_of(&dropout, row, col);
    }
    for (int v = 0; v < n; v++) {
        struct guarded out = guarded_copy(start), added = guarded_copy(start);

        assert_ok(variants[v].ops->dropout(variants[v].backend, out.data, x.data, &dropout, rows,
                                           cols, out_stride, x_stride, false, &err));
        for (int64_t i = 0; i < out.n; i++) {
            int64_t row = i / out_stride, col = i % out_stride;
            float want = start.data[i];

            if (col < cols)
                want = as_stored(x.data[row * x_stride + col] * (float)mask_of(&dropout, row, col));
            assert_true(out.data[i] == want);
        }
        assert_ok(variants[v].ops->dropout(variants[v].backend, added.data, x.data, &dropout, rows,
                                           cols, out_stride, x_stride, true, &err));
        assert_near(added.data, sum, added.n, 1e-7);
        guarded_check(added);
        if (variants[v].threads == 1) {
            if (first.data)
                guarded_free(first);
            first = guarded_copy(added);
        }
        assert_same_bits(added.data, first.data, added.n);
        guarded_free(out);
        guarded_free(added);
    }
    guarded_free(first);
    guarded_free(x);
    guarded_free(start);
    free(places);
    free(sum);
}

static void agrees_with_the_formula(void **state)
{
    static const int64_t widths[] = {1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 64, 129, 4096};
    static const double shares[] = {0.05, 0.5, 0.0, 0.99};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {71};

    (void)state;
    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
        int64_t cols = widths[i], rows = cols == 4096 ? 3 : 1 + (int64_t)i * 5;

        one_shape(variants, n, &random, rows, cols, cols, cols, shares[i % 4]);
        one_shape(variants, n, &random, rows, cols, cols + 3, cols + 1, shares[(i + 1) % 4]);
        one_shape(variants, n, &random, rows, cols, cols + 8, cols + 16, shares[(i + 2) % 4]);
    }
    variants_close(variants, n);
}

/* In place, and nothing where there is nothing. */
static void works_in_place(void **state)
{
    enum { ROWS = 6, COLS = 45 };
    static const uint32_t places[2 * ROWS] = {1, 1, 1, 2, 2, 1, 2, 2, 9, 9, 0, 0};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {72};

    (void)state;
    for (int v = 0; v < n; v++) {
        struct ha_dropout dropout = {0.25, 5, 6, places};
        struct guarded x = filled(&random, ROWS * COLS), out = guarded_new(x.n);

        assert_ok(variants[v].ops->dropout(variants[v].backend, out.data, x.data, &dropout, ROWS,
                                           COLS, COLS, COLS, false, &err));
        assert_ok(variants[v].ops->dropout(variants[v].backend, x.data, x.data, &dropout, ROWS,
                                           COLS, COLS, COLS, false, &err));
        assert_same_bits(x.data, out.data, x.n);
        assert_ok(variants[v].ops->dropout(variants[v].backend, x.data, x.data, &dropout, 0, COLS,
                                           COLS, COLS, false, &err));
        assert_ok(variants[v].ops->dropout(variants[v].backend, x.data, x.data, &dropout, ROWS, 0,
                                           COLS, COLS, true, &err));
        assert_same_bits(x.data, out.data, x.n);
        guarded_free(x);
        guarded_free(out);
    }
    variants_close(variants, n);
}

static void refuses_what_has_no_mask(void **state)
{
    static const uint32_t places[2] = {0};
    static const struct {
        double p;
        int64_t cols;
        const char *text;
    } wrong[] = {{1.0, 1, "p = 1 is not in [0, 1)"},
                 {-0.1, 1, "p = -0.1 is not in [0, 1)"},
                 {(double)NAN, 1, "is not in [0, 1)"},
                 {0.5, HA_DROPOUT_MAX_COLS + 1, "rows of 67108865 elements, more than 67108864"}};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    float x = 1;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct ha_dropout dropout = {wrong[i].p, 0, 0, places};
        const struct ha_ops *ops = ha_backend_ops(variants[0].backend);
        struct ha_error why;

        assert_int_equal(ops->dropout(variants[0].backend, &x, &x, &dropout, 1, wrong[i].cols, 1, 1,
                                      false, &why),
                         -EINVAL);
        assert_non_null(strstr(why.text, wrong[i].text));
    }
    assert_true(x == 1);
    variants_close(variants, n);
}

/* The masks of ROWS places under one setting, 1 where an element is kept. */
enum { ROWS = 64, COLS = 512 };

static void draw(const struct variant *variant, const struct ha_dropout *dropout, float *kept)
{
    for (int i = 0; i < ROWS * COLS; i++)
        kept[i] = 1;
    assert_ok(variant->ops->dropout(variant->backend, kept, kept, dropout, ROWS, COLS, COLS, COLS,
                                    false, &err));
    for (int i = 0; i < ROWS * COLS; i++)
        kept[i] = kept[i] != 0;
}

/* Within five standard deviations of a binomial: one time in a million by chance. */
static void assert_share(double count, double n, double p)
{
    if (!(fabs(count - n * p) <= 5 * sqrt(n * p * (1 - p))))
        fail_msg("%g of %g where %g are expected", count, n, n * p);
}

static void keeps_the_share(void **state)
{
    static const double shares[] = {0.05, 0.1, 0.5, 0.9};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct guarded kept = guarded_new(ROWS * COLS);
    uint32_t places[2 * ROWS];

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        places[2 * i] = 4 * i;
        places[2 * i + 1] = 7;
    }
    for (size_t s = 0; s < 4; s++) {
        struct ha_dropout dropout = {shares[s], 42, 0, places};
        double all = 0, columns[COLS] = {0};

        draw(&variants[0], &dropout, kept.data);
        for (int i = 0; i < ROWS; i++) {
            double row = 0;

            for (int j = 0; j < COLS; j++) {
                row += (double)kept.data[i * COLS + j];
                columns[j] += (double)kept.data[i * COLS + j];
            }
            assert_share(row, COLS, 1 - shares[s]);
            all += row;
        }
        assert_share(all, ROWS * COLS, 1 - shares[s]);
        for (int j = 0; j < COLS; j++)
            assert_share(columns[j], ROWS, 1 - shares[s]);
    }
    guarded_free(kept);
    variants_close(variants, n);
}

/* Whatever part of the address changes, the masks agree as often as unrelated ones do. */
static void masks_are_unrelated(void **state)
{
    enum { ADDRESSES = 6 };
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct guarded masks[ADDRESSES];
    uint32_t places[2 * ROWS], others[2][2 * ROWS];
    struct ha_dropout dropouts[ADDRESSES] = {
        {0.3, 42, 0, places}, {0.3, 43, 0, places},    {0.3, 42 + (UINT64_C(1) << 32), 0, places},
        {0.3, 42, 1, places}, {0.3, 42, 0, others[0]}, {0.3, 42, 0, others[1]}};
    double both = 0.7 * 0.7 + 0.3 * 0.3;

    (void)state;
    for (uint32_t i = 0; i < ROWS; i++) {
        places[2 * i] = others[0][2 * i] = 4 * i;
        places[2 * i + 1] = others[1][2 * i + 1] = 7;
        others[1][2 * i] = 4 * i + 1;
        others[0][2 * i + 1] = 8;
    }
    for (int a = 0; a < ADDRESSES; a++) {
        masks[a] = guarded_new(ROWS * COLS);
        draw(&variants[0], &dropouts[a], masks[a].data);
        for (int b = 0; b < a; b++) {
            double equal = 0;

            for (int i = 0; i < ROWS * COLS; i++)
                equal += masks[a].data[i] == masks[b].data[i];
            assert_share(equal, ROWS * COLS, both);
        }
    }
    /* Neighbours within one mask: features, and rows. */
    for (int step = 1; step <= COLS; step *= 2) {
        double equal = 0, pairs = ROWS * COLS - step;

        for (int i = 0; i + step < ROWS * COLS; i++)
            equal += masks[0].data[i] == masks[0].data[i + step];
        assert_share(equal, pairs, both);
    }
    for (int a = 0; a < ADDRESSES; a++)
        guarded_free(masks[a]);
    variants_close(variants, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        both(agrees_with_the_formula), both(works_in_place),      both(refuses_what_has_no_mask),
        both(keeps_the_share),         both(masks_are_unrelated),
    };

    return run_kernel_tests(tests);
}
