/* accounting.c - what both the program and the loaded module need of a backend */
#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"
#include "kernels/backend_table.h"

size_t ha_dtype_bytes(enum ha_dtype dtype)
{
    return dtype == HA_DTYPE_F32 ? 4 : 2;
}

const char *ha_dtype_name(enum ha_dtype dtype)
{
    switch (dtype) {
    case HA_DTYPE_F32:
        return "F32";
    case HA_DTYPE_BF16:
        return "BF16";
    case HA_DTYPE_F16:
        return "F16";
    }
    return "unknown";
}

int ha_backend_reserve(struct ha_backend *backend, size_t bytes, struct ha_error *err)
{
    int64_t sum;

    if (bytes > INT64_MAX || __builtin_add_overflow(backend->allocated_bytes, (int64_t)bytes, &sum))
        return ha_error_set(err, ENOMEM, "%zu bytes are more than any memory holds", bytes);
    if (backend->memory_limit > 0 && sum > backend->memory_limit)
        return ha_error_set(err, ENOMEM,
                            "%zu bytes wanted, %" PRId64 " held: over the memory limit of %" PRId64
                            " bytes; raise the limit or use smaller batches",
                            bytes, backend->allocated_bytes, backend->memory_limit);
    backend->allocated_bytes = sum;
    if (sum > backend->peak_bytes)
        backend->peak_bytes = sum;
    return 0;
}

void ha_backend_unreserve(struct ha_backend *backend, size_t bytes)
{
    backend->allocated_bytes -= (int64_t)bytes;
}

int ha_backend_alloc_counted(struct ha_backend *backend, size_t bytes, ha_backend_alloc_fn alloc,
                             void **ret_memory, struct ha_error *err)
{
    int64_t peak = backend->peak_bytes;
    int rc = ha_backend_reserve(backend, bytes, err);

    if (rc < 0)
        return rc;
    rc = alloc(backend, bytes, ret_memory, err);
    if (rc < 0) {
        ha_backend_unreserve(backend, bytes);
        backend->peak_bytes = peak;
    }
    return rc;
}
