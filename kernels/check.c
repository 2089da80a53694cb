#include "kernels/check.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/ops.h"

enum { EDGE = 256, SQUARE = EDGE * EDGE };

/* -2 to 2: a sum of EDGE products stays far below the 2^24 that an f32 counts exactly. */
static int value_at(int i, int salt)
{
    return (int)((uint32_t)(i * 7 + i / EDGE * 13 + salt) * 2654435761u >> 16) % 5 - 2;
}

/* Small whole numbers have at most eight significant bits: bf16 is the upper half of f32. */
static int upload(struct ha_backend *backend, void *memory, int salt, struct ha_error *err)
{
    enum ha_dtype dtype = ha_backend_activation_dtype(backend);
    float *values = ha_calloc(SQUARE, sizeof(*values));
    uint16_t *halves = (uint16_t *)(void *)values;
    int r;

    if (!values)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int i = 0; i < SQUARE; i++) {
        union {
            float number;
            uint32_t bits;
        } x = {.number = (float)value_at(i, salt)};

        if (dtype == HA_DTYPE_F32)
            values[i] = x.number;
        else
            halves[i] = (uint16_t)(x.bits >> 16);
    }
    r = ha_backend_upload(backend, memory, values, SQUARE * ha_dtype_bytes(dtype), err);
    if (r == 0)
        r = ha_backend_sync(backend, err); /* before the values go */
    free(values);
    return r;
}

static int compare(const float *c, struct ha_error *err)
{
    for (int row = 0; row < EDGE; row++) {
        for (int col = 0; col < EDGE; col++) {
            int sum = 0;

            for (int k = 0; k < EDGE; k++)
                sum += value_at(row * EDGE + k, 1) * value_at(col * EDGE + k, 2);
            if (c[row * EDGE + col] != (float)sum)
                return ha_error_set(err, EIO,
                                    "a product of whole numbers is wrong at row %d, column %d: %g "
                                    "instead of %d",
                                    row, col, (double)c[row * EDGE + col], sum);
        }
    }
    return 0;
}

int ha_backend_check(struct ha_backend *backend, struct ha_error *err)
{
    enum ha_dtype dtype = ha_backend_activation_dtype(backend);
    struct ha_matrix a = {.dtype = dtype, .rows = EDGE, .cols = EDGE, .stride = EDGE}, b = a, c = a;
    float *host = ha_calloc(SQUARE, sizeof(*host));
    int r = host ? 0 : ha_error_set(err, ENOMEM, "out of memory");

    c.dtype = HA_DTYPE_F32;
    if (r == 0 && dtype == HA_DTYPE_F16)
        r = ha_error_set(err, ENOTSUP, "this check has no numbers of type F16");
    if (r == 0)
        r = ha_backend_alloc(backend, SQUARE * ha_dtype_bytes(dtype), &a.data, err);
    if (r == 0)
        r = ha_backend_alloc(backend, SQUARE * ha_dtype_bytes(dtype), &b.data, err);
    if (r == 0)
        r = ha_backend_alloc(backend, SQUARE * sizeof(float), &c.data, err);
    if (r == 0)
        r = upload(backend, a.data, 1, err);
    if (r == 0)
        r = upload(backend, b.data, 2, err);
    if (r == 0)
        r = ha_backend_ops(backend)->gemm(backend, &c, &a, false, &b, true, 1, 0, err);
    if (r == 0)
        r = ha_backend_download(backend, host, c.data, SQUARE * sizeof(float), err);
    if (r == 0)
        r = compare(host, err);
    ha_backend_free(backend, a.data);
    ha_backend_free(backend, b.data);
    ha_backend_free(backend, c.data);
    free(host);
    return r;
}
