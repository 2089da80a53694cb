/* support.h - buffers with guard zones, random numbers and backends for the kernel tests */
#ifndef HA_TESTS_UNIT_KERNELS_SUPPORT_H
#define HA_TESTS_UNIT_KERNELS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "kernels/backend.h"
#include "kernels/ops.h"

/* n floats (or other 4-byte values) between two zones that no operation may touch. */
struct guarded {
    float *data;
    int64_t n;
};

/* Zero-filled. */
struct guarded guarded_new(int64_t n);
struct guarded guarded_copy(struct guarded from);
/* Fails the test when a zone was written to. */
void guarded_check(struct guarded buffer);
void guarded_free(struct guarded buffer);

/* A small generator of its own, so that the tests depend on nothing. */
struct random {
    uint64_t state;
};

float random_uniform(struct random *random); /* [-1, 1) */
int64_t random_below(struct random *random, int64_t n);
void random_fill(struct random *random, float *x, int64_t n, float scale);

/* f32 -> bf16 or f16 by truncation, stored as 16 bits; x becomes what was kept. */
void round_to(enum ha_dtype dtype, uint16_t *out, float *x, int64_t n);

/* The best instruction set of this processor with 1, 2 and 3 threads, the lesser ones with
 * 1 and 3. */
struct variant {
    struct ha_backend *backend;
    const struct ha_ops *ops;
    const char *leaf;
    int threads;
};

enum { MAX_VARIANTS = 7 };

int variants_open(struct variant variants[MAX_VARIANTS]);
void variants_close(struct variant *variants, int n);

/* Fails unless |got - want| <= tolerance * max(1, largest |want|) for all elements. */
void assert_near(const float *got, const double *want, int64_t n, double tolerance);
void assert_same_bits(const float *a, const float *b, int64_t n);

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        struct ha_error err = {0};                                                                 \
        int ok_rc = (call);                                                                        \
        if (ok_rc != 0)                                                                            \
            fail_msg("%s: %s", #call, ha_error_text(&err));                                        \
    } while (0)

struct ha_matrix matrix_of(void *data, enum ha_dtype dtype, int64_t rows, int64_t cols,
                           int64_t stride);

#endif
