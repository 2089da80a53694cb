#include "kernels/peak.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "kernels/ops.h"

enum {
    EDGE = 512,
    MOST_EDGE = 8192,
    LONG_ENOUGH_NS = 1000000, /* for the clock, and for all threads to have work */
    TIME_NS = 40000000,
    TIMES = 2, /* at least: the first one may wait for threads and memory */
};

/* Square matrices of the activation type. */
struct matrices {
    void *c, *a, *b;
};

static void free_matrices(struct ha_backend *backend, struct matrices *m)
{
    ha_backend_free(backend, m->c);
    ha_backend_free(backend, m->a);
    ha_backend_free(backend, m->b);
    *m = (struct matrices){0};
}

/* Values that are not zero: a GPU multiplies zeros with less power, so faster.  Any 16 bits
 * of this are finite and small, read as f32, bf16 or f16. */
static int fill(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err)
{
    size_t n = bytes / sizeof(uint16_t);
    uint16_t *values = malloc(bytes);
    uint32_t x = 1;
    int r;

    if (!values)
        return ha_error_set(err, ENOMEM, "no memory to measure the backend's peak");
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        values[i] = (uint16_t)(0x3c00u | (x >> 16 & 0x83ffu));
    }
    r = ha_backend_upload(backend, memory, values, bytes, err);
    if (r == 0)
        r = ha_backend_sync(backend, err); /* before the values go */
    free(values);
    return r;
}

static int make_matrices(struct ha_backend *backend, int64_t edge, struct matrices *m,
                         struct ha_error *err)
{
    size_t bytes = (size_t)(edge * edge) * ha_dtype_bytes(ha_backend_activation_dtype(backend));
    int r = ha_backend_alloc(backend, bytes, &m->c, err);

    if (r == 0)
        r = ha_backend_alloc(backend, bytes, &m->a, err);
    if (r == 0)
        r = ha_backend_alloc(backend, bytes, &m->b, err);
    if (r == 0)
        r = fill(backend, m->a, bytes, err);
    return r < 0 ? r : ha_backend_copy(backend, m->b, m->a, bytes, err);
}

static struct ha_matrix view(struct ha_backend *backend, void *data, int64_t edge)
{
    return (struct ha_matrix){.data = data,
                              .dtype = ha_backend_activation_dtype(backend),
                              .rows = edge,
                              .cols = edge,
                              .stride = edge};
}

/* Nanoseconds of one product c = a b', the form of a linear layer. */
static int time_product(struct ha_backend *backend, const struct matrices *m, int64_t edge,
                        int64_t *ret_ns, struct ha_error *err)
{
    struct ha_matrix c = view(backend, m->c, edge), a = view(backend, m->a, edge);
    struct ha_matrix b = view(backend, m->b, edge);
    int64_t begin = ha_clock_work_ns();
    int r = ha_backend_ops(backend)->gemm(backend, &c, &a, false, &b, true, 1, 0, err);

    if (r == 0)
        r = ha_backend_sync(backend, err);
    *ret_ns = ha_clock_work_ns() - begin;
    return r;
}

/* The shortest time of a product of this size. */
static int best_time(struct ha_backend *backend, int64_t edge, int64_t *ret_ns,
                     struct ha_error *err)
{
    struct matrices m = {0};
    int64_t best = INT64_MAX, spent = 0;
    int r = make_matrices(backend, edge, &m, err);

    for (int i = 0; r == 0 && (i < TIMES || spent < TIME_NS); i++) {
        int64_t ns = 0;

        r = time_product(backend, &m, edge, &ns, err);
        spent += ns > 0 ? ns : 1;
        best = ns < best ? ns : best;
        if (i + 1 >= TIMES && best < LONG_ENOUGH_NS && edge < MOST_EDGE)
            break;
    }
    free_matrices(backend, &m);
    *ret_ns = best > 0 ? best : 1;
    return r;
}

int ha_backend_measure_peak(struct ha_backend *backend, double *ret_flops_per_second,
                            struct ha_error *err)
{
    int64_t edge = EDGE, ns = 0;
    int r = best_time(backend, edge, &ns, err);

    while (r == 0 && ns < LONG_ENOUGH_NS && edge < MOST_EDGE) {
        edge *= 2;
        r = best_time(backend, edge, &ns, err);
    }
    if (r < 0)
        return r;
    *ret_flops_per_second = 2e9 * (double)edge * (double)edge * (double)edge / (double)ns;
    return 0;
}
