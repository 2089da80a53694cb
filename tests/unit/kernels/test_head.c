#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOGP, LSE, ENTROPY, MEAN, LSE2, DHIDDEN, N_RESULTS };

struct problem {
    int64_t rows, width, vocabulary, stride;
    bool round;
    struct guarded hidden;
    uint16_t *weight; /* bf16 */
    float *weight_values;
    int32_t *targets;
    double *want[N_RESULTS];
    int32_t *argmax;
};

static int64_t result_size(const struct problem *p, int result)
{
    return result == DHIDDEN ? p->rows * p->width : p->rows;
}

static double to_bf16(double x)
{
    float value = (float)x;
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&value, &bits, sizeof(value));
    return (double)value;
}

static void reference_row(struct problem *p, int64_t row, double *z)
{
    double top = -INFINITY, sum = 0.0, sum2 = 0.0, mean = 0.0, moment = 0.0;
    int64_t target = p->targets[row];

    for (int64_t v = 0; v < p->vocabulary; v++) {
        z[v] = 0.0;
        for (int64_t e = 0; e < p->width; e++)
            z[v] += (double)p->hidden.data[row * p->stride + e] *
                    (double)p->weight_values[v * p->width + e];
        if (p->round)
            z[v] = to_bf16(z[v]);
        if (z[v] > top) {
            top = z[v];
            p->argmax[row] = (int32_t)v;
        }
        mean += z[v] / (double)p->vocabulary;
    }
    for (int64_t v = 0; v < p->vocabulary; v++) {
        sum += exp(z[v] - top);
        sum2 += exp(2.0 * (z[v] - top));
        moment += exp(z[v] - top) * z[v];
    }
    p->want[LOGP][row] = z[target] - top - log(sum);
    p->want[LSE][row] = top + log(sum);
    p->want[ENTROPY][row] = top + log(sum) - moment / sum;
    p->want[MEAN][row] = mean;
    p->want[LSE2][row] = 2.0 * top + log(sum2);
    for (int64_t v = 0; v < p->vocabulary; v++) {
        double g = (v == target) - exp(z[v] - top) / sum;

        for (int64_t e = 0; e < p->width; e++)
            p->want[DHIDDEN][row * p->width + e] += g * (double)p->weight_values[v * p->width + e];
    }
}

static void problem_create(struct problem *p, struct random *random, int64_t rows, int64_t width,
                           int64_t vocabulary, bool round)
{
    double *z = calloc((size_t)vocabulary, sizeof(*z));

    *p = (struct problem){.rows = rows,
                          .width = width,
                          .vocabulary = vocabulary,
                          .stride = width + 2,
                          .round = round};
    p->hidden = guarded_new(rows * p->stride);
    random_fill(random, p->hidden.data, p->hidden.n, 1.0f);
    p->weight = calloc((size_t)(vocabulary * width), sizeof(*p->weight));
    p->weight_values = calloc((size_t)(vocabulary * width), sizeof(*p->weight_values));
    random_fill(random, p->weight_values, vocabulary * width, 1.0f);
    round_to(HA_DTYPE_BF16, p->weight, p->weight_values, vocabulary * width);
    if (round) /* products exact in f32, so that both sides round the same number */
        for (int64_t i = 0; i < p->hidden.n; i++)
            p->hidden.data[i] = (float)(int)(p->hidden.data[i] * 8.0f) / 4.0f;
    p->targets = calloc((size_t)rows, sizeof(*p->targets));
    p->argmax = calloc((size_t)rows, sizeof(*p->argmax));
    for (int i = 0; i < N_RESULTS; i++)
        p->want[i] = calloc((size_t)result_size(p, i), sizeof(double));
    for (int64_t i = 0; i < rows; i++) {
        p->targets[i] = (int32_t)random_below(random, vocabulary);
        reference_row(p, i, z);
    }
    free(z);
}

static void problem_destroy(struct problem *p)
{
    guarded_free(p->hidden);
    free(p->weight);
    free(p->weight_values);
    free(p->targets);
    free(p->argmax);
    for (int i = 0; i < N_RESULTS; i++)
        free(p->want[i]);
}

static void run(const struct variant *variant, const struct problem *p,
                struct guarded result[N_RESULTS], struct guarded argmax)
{
    struct ha_head head = {
        .hidden = p->hidden.data,
        .hidden_stride = p->stride,
        .weight = matrix_of(p->weight, HA_DTYPE_BF16, p->vocabulary, p->width, p->width),
        .targets = p->targets,
        .n_rows = p->rows,
        .width = p->width,
        .round_logits_bf16 = p->round,
        .argmax = (int32_t *)(void *)argmax.data};

    for (int i = 0; i < N_RESULTS; i++)
        result[i] = guarded_new(result_size(p, i));
    head.logp = result[LOGP].data;
    head.logsumexp = result[LSE].data;
    head.entropy = result[ENTROPY].data;
    head.mean_logit = result[MEAN].data;
    head.logsumexp2 = result[LSE2].data;
    head.dhidden = result[DHIDDEN].data;
    assert_ok(variant->ops->head(variant->backend, &head, &err));
}

static void check_all(struct problem *p)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct guarded first[N_RESULTS] = {{0}};

    for (int v = 0; v < n; v++) {
        struct guarded result[N_RESULTS], argmax = guarded_new(p->rows);

        run(&variants[v], p, result, argmax);
        for (int i = 0; i < N_RESULTS; i++) {
            /* A device rounds onehot - p to bf16 for the product that makes the gradient. */
            assert_near_f32(result[i].data, p->want[i], result[i].n,
                            i == DHIDDEN && device_mode() ? 5e-4 : 2e-6);
            if (variants[v].threads == 1) {
                if (first[i].data)
                    guarded_free(first[i]);
                first[i] = result[i];
                continue;
            }
            assert_same_bits(result[i].data, first[i].data, result[i].n);
            guarded_free(result[i]);
        }
        assert_memory_equal(argmax.data, p->argmax, (size_t)p->rows * sizeof(int32_t));
        guarded_free(argmax);
    }
    for (int i = 0; i < N_RESULTS; i++)
        guarded_free(first[i]);
    variants_close(variants, n);
}

static void agrees_with_double(void **state)
{
    static const int64_t rows[] = {1, 3, 17, 33};
    struct random random = {31};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct problem p;

        problem_create(&p, &random, rows[i], 24 + 20 * (int64_t)i, 300 + 511 * (int64_t)i, false);
        check_all(&p);
        problem_destroy(&p);
    }
}

static void rounds_logits_where_asked(void **state)
{
    struct random random = {32};
    struct problem p;

    (void)state;
    problem_create(&p, &random, 9, 32, 500, true);
    check_all(&p);
    problem_destroy(&p);
}

/* More rows than one chunk of logits holds: bits do not depend on where chunks end. */
static void chunks_change_nothing(void **state)
{
    enum { ROWS = 70, WIDTH = 8, VOCABULARY = 400000 };
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {33};
    struct guarded hidden = guarded_new(ROWS * WIDTH);
    struct guarded logp = guarded_new(ROWS), dhidden = guarded_new(ROWS * WIDTH);
    float *weight = calloc((size_t)VOCABULARY * WIDTH, sizeof(*weight));
    int32_t targets[ROWS];

    (void)state;
    random_fill(&random, hidden.data, hidden.n, 1.0f);
    random_fill(&random, weight, (int64_t)VOCABULARY * WIDTH, 1.0f);
    for (int i = 0; i < ROWS; i++)
        targets[i] = (int32_t)random_below(&random, VOCABULARY);
    {
        struct ha_head head = {.hidden = hidden.data,
                               .hidden_stride = WIDTH,
                               .weight = matrix_of(weight, HA_DTYPE_F32, VOCABULARY, WIDTH, WIDTH),
                               .targets = targets,
                               .n_rows = ROWS,
                               .width = WIDTH,
                               .logp = logp.data,
                               .dhidden = dhidden.data};

        assert_ok(variants[0].ops->head(variants[0].backend, &head, &err));
        assert_true(ha_backend_peak_bytes(variants[0].backend) < 96 << 20);
        for (int64_t row = 0; row < ROWS; row += 23) {
            struct guarded one = guarded_new(1), gradient = guarded_new(WIDTH);
            struct ha_head single = head;

            single.hidden = hidden.data + row * WIDTH;
            single.targets = targets + row;
            single.n_rows = 1;
            single.logp = one.data;
            single.dhidden = gradient.data;
            assert_ok(variants[0].ops->head(variants[0].backend, &single, &err));
            assert_same_bits(one.data, logp.data + row, 1);
            assert_same_bits(gradient.data, dhidden.data + row * WIDTH, WIDTH);
            guarded_free(one);
            guarded_free(gradient);
        }
    }
    guarded_free(hidden);
    guarded_free(logp);
    guarded_free(dhidden);
    free(weight);
    variants_close(variants, n);
}

static void logits_agree_with_double(void **state)
{
    static const int64_t shapes[][3] = {{1, 1, 1}, {3, 17, 130}, {17, 65, 33}, {65, 33, 257}};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {34};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct guarded first = {0};
        struct problem p;
        double *want;

        problem_create(&p, &random, shapes[i][0], shapes[i][1], shapes[i][2], false);
        want = calloc((size_t)(p.rows * p.vocabulary), sizeof(*want));
        assert_non_null(want);
        for (int64_t at = 0; at < p.rows * p.vocabulary; at++)
            for (int64_t e = 0; e < p.width; e++)
                want[at] += (double)p.hidden.data[at / p.vocabulary * p.stride + e] *
                            (double)p.weight_values[at % p.vocabulary * p.width + e];
        for (int v = 0; v < n; v++) {
            struct ha_matrix weight =
                matrix_of(p.weight, HA_DTYPE_BF16, p.vocabulary, p.width, p.width);
            struct guarded got = guarded_new(p.rows * p.vocabulary);

            assert_ok(variants[v].ops->logits(variants[v].backend, got.data, p.hidden.data, &weight,
                                              p.rows, p.stride, &err));
            assert_near_f32(got.data, want, got.n, 2e-6);
            if (variants[v].threads == 1) {
                if (first.data)
                    guarded_free(first);
                first = got;
                continue;
            }
            assert_same_bits(got.data, first.data, got.n);
            guarded_free(got);
        }
        guarded_free(first);
        free(want);
        problem_destroy(&p);
    }
    variants_close(variants, n);
}

static void nan_shows_and_ties_go_to_the_first(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    float hidden[3] = {1.0f, NAN, 2.0f}, weight[6] = {1, 3, 2, 3, 3, -1};
    int32_t targets[3] = {0, 0, 5}, wrong[3] = {0, 6, 0};

    (void)state;
    for (int v = 0; v < n; v++) {
        float logp[3], dhidden[3], logits[18];
        int32_t argmax[3];
        struct ha_error why;
        struct ha_head head = {.hidden = hidden,
                               .hidden_stride = 1,
                               .weight = matrix_of(weight, HA_DTYPE_F32, 6, 1, 1),
                               .targets = targets,
                               .n_rows = 3,
                               .width = 1,
                               .logp = logp,
                               .argmax = argmax,
                               .dhidden = dhidden};

        assert_ok(variants[v].ops->head(variants[v].backend, &head, &err));
        assert_true(isfinite(logp[0]) && isfinite(dhidden[0]) && argmax[0] == 1);
        assert_true(isnan(logp[1]) && isnan(dhidden[1]) && argmax[1] == 0);
        assert_true(isfinite(logp[2]) && isfinite(dhidden[2]) && argmax[2] == 1);
        assert_ok(
            variants[v].ops->logits(variants[v].backend, logits, hidden, &head.weight, 3, 1, &err));
        assert_true(logits[1] == 3.0f && isnan(logits[7]) && logits[17] == -2.0f);
        head.targets = wrong;
        assert_int_equal(variants[v].ops->head(variants[v].backend, &head, &why), -EINVAL);
        assert_non_null(strstr(why.text, "target 6 of row 1"));
    }
    variants_close(variants, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        both(agrees_with_double),
        both(rounds_logits_where_asked),
        cpu_only(chunks_change_nothing),
        both(logits_agree_with_double),
        both(nan_shows_and_ties_go_to_the_first),
    };

    return run_kernel_tests(tests);
}
