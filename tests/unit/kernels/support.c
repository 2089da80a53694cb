#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/half.h"
#include "kernels/cpu/cpu.h"
#include "tests/unit/kernels/device_ops.h"

enum { ZONE = 64 };
static const uint32_t zone_mark = 0xdeadbeef;

struct guarded guarded_new(int64_t n)
{
    struct guarded buffer = {NULL, n};
    float *memory = calloc((size_t)(n + 2 * ZONE), sizeof(float));

    assert_non_null(memory);
    for (int64_t i = 0; i < ZONE; i++) {
        memcpy(memory + i, &zone_mark, sizeof(zone_mark));
        memcpy(memory + ZONE + n + i, &zone_mark, sizeof(zone_mark));
    }
    buffer.data = memory + ZONE;
    return buffer;
}

struct guarded guarded_copy(struct guarded from)
{
    struct guarded buffer = guarded_new(from.n);

    memcpy(buffer.data, from.data, (size_t)from.n * sizeof(float));
    return buffer;
}

void guarded_check(struct guarded buffer)
{
    for (int64_t i = 0; i < ZONE; i++) {
        assert_memory_equal(buffer.data - ZONE + i, &zone_mark, sizeof(zone_mark));
        assert_memory_equal(buffer.data + buffer.n + i, &zone_mark, sizeof(zone_mark));
    }
}

void guarded_free(struct guarded buffer)
{
    guarded_check(buffer);
    free(buffer.data - ZONE);
}

static uint64_t random_next(struct random *random)
{
    uint64_t x = random->state += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

float random_uniform(struct random *random)
{
    return (float)((double)(random_next(random) >> 40) / (1 << 23) - 1.0);
}

int64_t random_below(struct random *random, int64_t n)
{
    return (int64_t)(random_next(random) % (uint64_t)n);
}

void random_fill_f32(struct random *random, float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = random_uniform(random) * scale;
}

void random_fill(struct random *random, float *x, int64_t n, float scale)
{
    random_fill_f32(random, x, n, scale);
    for (int64_t i = 0; i < n; i++)
        x[i] = as_stored(x[i]);
}

void round_to(enum ha_dtype dtype, uint16_t *out, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, x + i, sizeof(bits));
        if (dtype == HA_DTYPE_BF16) {
            out[i] = (uint16_t)(bits >> 16);
            bits &= 0xffff0000u;
        } else {
            int exponent = (int)(bits >> 23 & 0xff) - 127 + 15;

            out[i] = 0;
            if (exponent > 0 && exponent < 31)
                out[i] = (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)exponent << 10 |
                                    (bits >> 13 & 0x3ff));
            bits = out[i] ? bits & 0xffffe000u : 0;
        }
        memcpy(x + i, &bits, sizeof(bits));
    }
}

/* ---- which tests run, and on what ---- */

static bool device;

int on_cpu(void **state)
{
    (void)state;
    device = false;
    return 0;
}

int on_device(void **state)
{
    (void)state;
    device = true;
    return 0;
}

bool device_mode(void)
{
    return device;
}

float as_stored(float x)
{
    return device ? ha_half_from_bf16(ha_half_to_bf16(x)) : x;
}

static int open_device(struct ha_backend **ret_backend, struct ha_error *err)
{
    struct ha_backend_options options = {"cuda", 0, 0, 0};

    return ha_backend_open(&options, ret_backend, err);
}

bool choose_kernel_tests(void)
{
    const char *wanted = getenv("HA_KERNEL_TEST_BACKEND");
    bool device_wanted = wanted && strcmp(wanted, "cuda") == 0;
    struct ha_backend *backend;
    struct ha_error why = {0};

    if (open_device(&backend, &why) < 0) {
        printf("skipped on a device: %s\n", ha_error_text(&why));
        cmocka_set_test_filter("* on cpu");
        return !device_wanted;
    }
    printf("%s\n", ha_backend_description(backend));
    ha_backend_close(backend);
    if (device_wanted)
        cmocka_set_test_filter("* on device");
    return true;
}

static int open_device_variant(struct variant *variant)
{
    struct ha_backend *backend = NULL;

    assert_ok(open_device(&backend, &err));
    *variant = (struct variant){backend, device_ops(), ha_backend_name(backend), 1};
    return 1;
}

int variants_open(struct variant variants[MAX_VARIANTS])
{
    static const char *const leaves[] = {"AVX-512", "AVX2", "baseline"};
    int n = 0;

    if (device)
        return open_device_variant(&variants[0]);

    for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++)
        for (int threads = 1; threads <= 3; threads += n > 2 ? 2 : 1) {
            struct ha_backend_options options = {"cpu", threads, 0, 0};
            struct ha_backend *backend;

            if (ha_cpu_open_with(&options, leaves[i], &backend, NULL) != 0)
                break;
            ha_cpu_of(backend)->parallel_min = 0; /* small shapes go to all threads too */
            variants[n++] = (struct variant){backend, ha_backend_ops(backend), leaves[i], threads};
        }
    assert_true(n > 0);
    return n;
}

void variants_close(struct variant *variants, int n)
{
    for (int i = 0; i < n; i++)
        ha_backend_close(variants[i].backend);
}

static void check_near(const float *got, const double *want, int64_t n, double tolerance,
                       double rounding)
{
    double largest = 1.0;

    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < n; i++) {
        double limit = tolerance * largest + rounding * fabs(want[i]);

        if (!(fabs((double)got[i] - want[i]) <= limit))
            fail_msg("element %lld is %.9g, expected %.9g (tolerance %g)", (long long)i,
                     (double)got[i], want[i], limit);
    }
}

void assert_near(const float *got, const double *want, int64_t n, double tolerance)
{
    /* Half a unit in the last place of bf16, and a little for what was rounded. */
    check_near(got, want, n, device ? 4 * tolerance : tolerance, device ? 0x1.02p-8 : 0.0);
}

void assert_near_f32(const float *got, const double *want, int64_t n, double tolerance)
{
    check_near(got, want, n, device ? 8 * tolerance : tolerance, 0.0);
}

void assert_same_bits(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof(float)) != 0)
            fail_msg("element %lld differs: %.9g and %.9g", (long long)i, (double)a[i],
                     (double)b[i]);
}

struct ha_matrix matrix_of(void *data, enum ha_dtype dtype, int64_t rows, int64_t cols,
                           int64_t stride)
{
    return (struct ha_matrix){data, dtype, rows, cols, stride};
}
