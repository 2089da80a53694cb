#include "kernels/backend.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "kernels/backend_table.h"
#include "kernels/cuda/limit.h"

#ifdef HA_KERNELS_WITHOUT_CUDA

static int open_cuda(const struct ha_backend_options *options, struct ha_backend **ret_backend,
                     struct ha_error *err)
{
    (void)options;
    (void)ret_backend;
    return ha_error_set(err, ENODEV, "built with -Dcuda=disabled");
}

#else

/* The module stays open: unloading code that a driver may still call back into
 * is not safe. */
static int open_cuda(const struct ha_backend_options *options, struct ha_backend **ret_backend,
                     struct ha_error *err)
{
    const char *given = getenv(HA_BACKEND_CUDA_VARIABLE);
    char *dir = ha_path_program_dir();
    char *path = given && *given ? ha_strdup(given)
                 : dir           ? ha_path_join(dir, HA_BACKEND_CUDA_MODULE)
                                 : NULL;
    ha_backend_cuda_open_fn open_module;
    void *module, *symbol;
    int rc;

    if (!path) {
        rc = ha_error_set(err, ENOMEM, "no memory for the name of the CUDA module");
        goto out;
    }
    if (!ha_path_exists(path)) {
        rc = given && *given
                 ? ha_error_set(err, ENODEV,
                                "no CUDA module at %s, which " HA_BACKEND_CUDA_VARIABLE " names",
                                path)
                 : ha_error_set(err, ENODEV, "no CUDA module beside the program");
        goto out;
    }
    module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module) {
        const char *why = dlerror();

        rc = ha_error_set(err, ENODEV, "the CUDA module does not load: %s",
                          why ? why : "no reason given");
        goto out;
    }
    symbol = dlsym(module, HA_BACKEND_CUDA_SYMBOL);
    if (!symbol) {
        rc = ha_error_set(err, ENODEV, "%s has no entry %s; build it anew", path,
                          HA_BACKEND_CUDA_SYMBOL);
        goto out;
    }
    memcpy(&open_module, &symbol, sizeof(open_module));
    rc = open_module(HA_BACKEND_API_VERSION, options, ret_backend, err);
out:
    free(path);
    free(dir);
    return rc;
}

#endif

/* Say after the backend's own words why it was chosen. */
static void append_reason(struct ha_backend *backend, const char *reason)
{
    size_t used = strlen(backend->description);

    (void)snprintf(backend->description + used, sizeof(backend->description) - used, " (%s)",
                   reason);
}

static int open_auto(const struct ha_backend_options *options, struct ha_backend **ret_backend,
                     struct ha_error *err)
{
    struct ha_error why = {0};
    int rc = open_cuda(options, ret_backend, &why);

    if (rc == 0) {
        append_reason(*ret_backend, "module, driver and device found; not yet proven on a GPU");
        return 0;
    }
    rc = ha_cpu_open(options, ret_backend, err);
    if (rc == 0)
        append_reason(*ret_backend, ha_error_text(&why));
    return rc;
}

int ha_backend_open(const struct ha_backend_options *options, struct ha_backend **ret_backend,
                    struct ha_error *err)
{
    struct ha_backend *backend = NULL;
    int rc;

    if (options->memory_limit < 0)
        return ha_error_set(err, EINVAL, "memory limit %" PRId64 " is negative",
                            options->memory_limit);
    if (!options->name || strcmp(options->name, "auto") == 0) {
        rc = open_auto(options, &backend, err);
    } else if (strcmp(options->name, "cpu") == 0) {
        rc = ha_cpu_open(options, &backend, err);
        if (rc == 0)
            append_reason(backend, "asked for");
    } else if (strcmp(options->name, "cuda") == 0) {
        rc = open_cuda(options, &backend, err);
        if (rc == 0)
            append_reason(backend, "asked for");
        else
            ha_error_prefix(err, "the CUDA backend cannot run here, use \"cpu\" or \"auto\"");
    } else {
        rc = ha_error_set(err, EINVAL, "unknown backend \"%s\"; known: auto, cpu, cuda",
                          options->name);
    }
    if (rc < 0)
        return rc;
    *ret_backend = backend;
    return 0;
}

void ha_backend_close(struct ha_backend *backend)
{
    if (backend)
        backend->table->close(backend);
}

int ha_backend_renew(struct ha_backend *backend, struct ha_error *err)
{
    int rc = ha_backend_sync(backend, err);

    if (rc == 0 && backend->table->renew)
        rc = backend->table->renew(backend, err);
    if (rc < 0)
        return rc;
    backend->peak_bytes = backend->allocated_bytes;
    backend->flops = backend->bytes_moved = 0;
    return 0;
}

const char *ha_backend_name(const struct ha_backend *backend)
{
    return backend->table->name;
}

const char *ha_backend_description(const struct ha_backend *backend)
{
    return backend->description;
}

const char *ha_backend_fingerprint(const struct ha_backend *backend)
{
    return backend->fingerprint;
}

enum ha_dtype ha_backend_activation_dtype(const struct ha_backend *backend)
{
    return backend->activation_dtype;
}

const struct ha_ops *ha_backend_ops(const struct ha_backend *backend)
{
    return backend->ops;
}

int ha_backend_alloc(struct ha_backend *backend, size_t bytes, void **ret_memory,
                     struct ha_error *err)
{
    return ha_backend_alloc_counted(backend, bytes ? bytes : 1, backend->table->alloc, ret_memory,
                                    err);
}

void ha_backend_free(struct ha_backend *backend, void *memory)
{
    if (memory)
        ha_backend_unreserve(backend, backend->table->free(backend, memory));
}

int ha_backend_import_host(struct ha_backend *backend, const void *host, size_t bytes,
                           const void **ret_memory, struct ha_error *err)
{
    return backend->table->import_host(backend, host, bytes, ret_memory, err);
}

bool ha_backend_copies_weights(const struct ha_backend *backend)
{
    return backend->table->load_weight != NULL;
}

int ha_backend_load_weight(struct ha_backend *backend, void *memory, const void *host,
                           enum ha_dtype dtype, int64_t n, struct ha_error *err)
{
    return ha_backend_load_weight_rows(backend, memory, n, host, dtype, 1, n, err);
}

int ha_backend_load_weight_rows(struct ha_backend *backend, void *memory, int64_t stride,
                                const void *host, enum ha_dtype dtype, int64_t rows, int64_t cols,
                                struct ha_error *err)
{
    if (!backend->table->load_weight)
        return ha_error_set(err, ENOTSUP, "%s reads weights where they lie",
                            ha_backend_description(backend));
    if (stride < cols)
        return ha_error_set(err, EINVAL, "rows of %lld values do not fit a stride of %lld",
                            (long long)cols, (long long)stride);
    if (rows <= 0 || cols <= 0)
        return 0;
    if (stride == cols) { /* one run */
        cols *= rows;
        stride = cols;
        rows = 1;
    }
    return backend->table->load_weight(backend, memory, stride, host, dtype, rows, cols, err);
}

int ha_backend_import_weight(struct ha_backend *backend, const void *host, enum ha_dtype dtype,
                             int64_t n, const void **ret_memory, enum ha_dtype *ret_dtype,
                             struct ha_error *err)
{
    void *memory;
    int rc;

    if (!ha_backend_copies_weights(backend)) {
        rc = backend->table->import_host(backend, host, (size_t)n * ha_dtype_bytes(dtype),
                                         ret_memory, err);
        if (rc == 0)
            *ret_dtype = dtype;
        return rc;
    }
    rc = ha_backend_alloc(backend, (size_t)n * ha_dtype_bytes(HA_DTYPE_BF16), &memory, err);
    if (rc < 0)
        return rc;
    rc = ha_backend_load_weight(backend, memory, host, dtype, n, err);
    if (rc < 0) {
        ha_backend_free(backend, memory);
        return rc;
    }
    *ret_memory = memory;
    *ret_dtype = HA_DTYPE_BF16;
    return 0;
}

void ha_backend_release_host(struct ha_backend *backend, const void *memory)
{
    if (memory)
        backend->table->release_host(backend, memory);
}

int ha_backend_upload(struct ha_backend *backend, void *memory, const void *host, size_t bytes,
                      struct ha_error *err)
{
    return bytes ? backend->table->upload(backend, memory, host, bytes, err) : 0;
}

int ha_backend_download(struct ha_backend *backend, void *host, const void *memory, size_t bytes,
                        struct ha_error *err)
{
    return bytes ? backend->table->download(backend, host, memory, bytes, err) : 0;
}

int ha_backend_copy(struct ha_backend *backend, void *to, const void *from, size_t bytes,
                    struct ha_error *err)
{
    return bytes ? backend->table->copy(backend, to, from, bytes, err) : 0;
}

int ha_backend_copy_rows(struct ha_backend *backend, void *to, size_t to_stride, const void *from,
                         size_t from_stride, size_t row_bytes, int64_t n_rows, struct ha_error *err)
{
    if (row_bytes == 0 || n_rows == 0)
        return 0;
    if (to_stride == row_bytes && from_stride == row_bytes)
        return backend->table->copy(backend, to, from, row_bytes * (size_t)n_rows, err);
    return backend->table->copy_rows(backend, to, to_stride, from, from_stride, row_bytes, n_rows,
                                     err);
}

int ha_backend_zero(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err)
{
    return bytes ? backend->table->zero(backend, memory, bytes, err) : 0;
}

int ha_backend_zero_rows(struct ha_backend *backend, void *memory, size_t stride, size_t row_bytes,
                         int64_t n_rows, struct ha_error *err)
{
    if (row_bytes == 0 || n_rows == 0)
        return 0;
    return backend->table->zero_rows(backend, memory, stride, row_bytes, n_rows, err);
}

int ha_backend_sync(struct ha_backend *backend, struct ha_error *err)
{
    return backend->table->sync(backend, err);
}

int ha_backend_poll(struct ha_backend *backend, struct ha_error *err)
{
    return backend->table->poll ? backend->table->poll(backend, err) : 0;
}

void *ha_backend_stream(struct ha_backend *backend)
{
    return backend->table->stream ? backend->table->stream(backend) : NULL;
}

int ha_backend_fork(struct ha_backend *backend, void **ret_stream, struct ha_error *err)
{
    *ret_stream = NULL;
    return backend->table->fork ? backend->table->fork(backend, ret_stream, err) : 0;
}

int ha_backend_poll_fork(struct ha_backend *backend, struct ha_error *err)
{
    return backend->table->poll_fork ? backend->table->poll_fork(backend, err) : 0;
}

int ha_backend_export_choices(const struct ha_backend *backend, void **ret_blob, size_t *ret_bytes,
                              struct ha_error *err)
{
    if (backend->table->export_choices)
        return backend->table->export_choices(backend, ret_blob, ret_bytes, err);
    *ret_blob = NULL;
    *ret_bytes = 0;
    return 0;
}

int ha_backend_import_choices(struct ha_backend *backend, const void *blob, size_t bytes,
                              struct ha_error *err)
{
    if (bytes == 0)
        return 0;
    if (!backend->table->import_choices)
        return ha_error_set(err, ESTALE, "choices of another backend; this is %s",
                            ha_backend_description(backend));
    return backend->table->import_choices(backend, blob, bytes, err);
}

void ha_backend_time_choices(struct ha_backend *backend, bool on)
{
    if (backend->table->time_choices)
        backend->table->time_choices(backend, on);
}

void ha_backend_separate_rows(struct ha_backend *backend, bool on)
{
    if (backend->table->separate_rows)
        backend->table->separate_rows(backend, on);
}

/* ---- recordings ---- */

bool ha_backend_records(const struct ha_backend *backend)
{
    return backend->table->record_begin != NULL;
}

int ha_backend_record_begin(struct ha_backend *backend, struct ha_error *err)
{
    int rc;

    if (!ha_backend_records(backend))
        return ha_error_set(err, ENOTSUP, "the backend \"%s\" records nothing",
                            ha_backend_name(backend));
    rc = backend->table->record_begin(backend, err);
    if (rc == 0) {
        backend->recorded_flops = backend->flops;
        backend->recorded_bytes = backend->bytes_moved;
    }
    return rc;
}

/* Nothing was done yet: the counts go back. */
int ha_backend_record_end(struct ha_backend *backend, struct ha_recording **ret_recording,
                          struct ha_error *err)
{
    struct ha_recording *recording = ret_recording ? ha_calloc(1, sizeof(*recording)) : NULL;
    int rc = backend->table->record_end(backend, recording ? &recording->kept : NULL, err);
    double flops = backend->flops - backend->recorded_flops;
    double bytes_moved = backend->bytes_moved - backend->recorded_bytes;

    backend->flops = backend->recorded_flops;
    backend->bytes_moved = backend->recorded_bytes;
    if (rc == 0 && ret_recording && !recording)
        rc = ha_error_set(err, ENOMEM, "no memory for a recording");
    if (rc < 0 || !recording) {
        free(recording);
        return rc;
    }
    recording->flops = flops;
    recording->bytes_moved = bytes_moved;
    *ret_recording = recording;
    return 0;
}

int ha_backend_replay(struct ha_backend *backend, struct ha_recording *recording,
                      struct ha_error *err)
{
    int rc = backend->table->replay(backend, recording->kept, err);

    if (rc == 0)
        ha_backend_count(backend, recording->flops, recording->bytes_moved);
    return rc;
}

void ha_backend_forget(struct ha_backend *backend, struct ha_recording *recording)
{
    if (!recording)
        return;
    backend->table->forget(backend, recording->kept);
    free(recording);
}

void ha_backend_count(struct ha_backend *backend, double flops, double bytes_moved)
{
    backend->flops += flops;
    backend->bytes_moved += bytes_moved;
}

/* ---- counts ---- */

int64_t ha_backend_memory_bytes(const struct ha_backend *backend)
{
    int64_t device = backend->device_bytes, limit = backend->memory_limit;

    return limit > 0 && limit < device ? limit : device;
}

int ha_backend_gpu_limit(int64_t *ret_bytes, struct ha_error *err)
{
    return ha_cuda_limit_parse(getenv(HA_CUDA_LIMIT_VARIABLE), ret_bytes, err);
}

int64_t ha_backend_allocated_bytes(const struct ha_backend *backend)
{
    return backend->allocated_bytes;
}

int64_t ha_backend_peak_bytes(const struct ha_backend *backend)
{
    return backend->peak_bytes;
}

double ha_backend_flops(const struct ha_backend *backend)
{
    return backend->flops;
}

double ha_backend_bytes_moved(const struct ha_backend *backend)
{
    return backend->bytes_moved;
}
