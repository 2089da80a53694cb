#include "tests/unit/kernels/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

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

void random_fill(struct random *random, float *x, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = random_uniform(random) * scale;
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

int variants_open(struct variant variants[MAX_VARIANTS])
{
    static const char *const leaves[] = {"AVX-512", "AVX2", "baseline"};
    int n = 0;

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

void assert_near(const float *got, const double *want, int64_t n, double tolerance)
{
    double largest = 1.0;

    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(want[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= tolerance * largest))
            fail_msg("element %lld is %.9g, expected %.9g (tolerance %g)", (long long)i,
                     (double)got[i], want[i], tolerance * largest);
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
