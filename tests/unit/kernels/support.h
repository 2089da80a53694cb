/* support.h - buffers with guard zones, random numbers and backends for the kernel tests */
#ifndef HA_TESTS_UNIT_KERNELS_SUPPORT_H
#define HA_TESTS_UNIT_KERNELS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
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
/* On a device, whose activations are bf16, values that bf16 holds. */
void random_fill(struct random *random, float *x, int64_t n, float scale);
void random_fill_f32(struct random *random, float *x, int64_t n, float scale);

/* f32 -> bf16 or f16 by truncation, stored as 16 bits; x becomes what was kept. */
void round_to(enum ha_dtype dtype, uint16_t *out, float *x, int64_t n);

/* On the CPU: the best instruction set of this processor with 1, 2 and 3 threads, the lesser ones
 * with 1 and 3.  On a GPU: the device, with the operations of device_ops.h. */
struct variant {
    struct ha_backend *backend;
    const struct ha_ops *ops;
    const char *leaf;
    int threads;
};

enum { MAX_VARIANTS = 7 };

/* Tests are listed as both(name), or cpu_only(name) or device_only(name) where they are about one
 * kind, and run by run_kernel_tests.  Where the CUDA backend cannot run (HA_CUDA_MODULE names its
 * module), a line says why and the tests on it are left out.  HA_KERNEL_TEST_BACKEND=cuda runs
 * those on the device only, and exits with 77 where there is none. */
int on_cpu(void **state);
int on_device(void **state);

#define cpu_only(test)                                                                             \
    {                                                                                              \
#test " on cpu", test, on_cpu, NULL, NULL                                                  \
    }
#define device_only(test)                                                                          \
    {                                                                                              \
#test " on device", test, on_device, NULL, NULL                                            \
    }
#define both(test) cpu_only(test), device_only(test)
#define run_kernel_tests(tests)                                                                    \
    (choose_kernel_tests() ? cmocka_run_group_tests(tests, NULL, NULL) : 77)

bool choose_kernel_tests(void);

/* The running test is one on a device. */
bool device_mode(void);

/* What a device makes of an activation when it stores it; the same on the CPU. */
float as_stored(float x);

int variants_open(struct variant variants[MAX_VARIANTS]);
void variants_close(struct variant *variants, int n);

/* Fails unless |got - want| <= tolerance * max(1, largest |want|) for all elements of an
 * activation.  On a device four times that and the rounding of the element to bf16: sums are in
 * f32 there too, but in another order and with the device's own exponential. */
void assert_near(const float *got, const double *want, int64_t n, double tolerance);

/* The same for a result in f32: eight times the tolerance on a device. */
void assert_near_f32(const float *got, const double *want, int64_t n, double tolerance);
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
