/* backend_table.h - what a backend fills in (internal to kernels)
 *
 * A backend embeds `struct ha_backend` as its first member and points it at its
 * table.  backend.c checks arguments that are the same for all backends and
 * keeps the byte counts; the table does the device's part.
 *
 * The CUDA backend is a shared object that the program opens at run time: it
 * exports HA_BACKEND_CUDA_SYMBOL of type ha_backend_cuda_open_fn and refuses an
 * api_version other than its own with -ENODEV. */
#ifndef HA_KERNELS_BACKEND_TABLE_H
#define HA_KERNELS_BACKEND_TABLE_H

#include <stdint.h>

#include "kernels/backend.h"

/* Raised whenever backend.h, ops.h or this header changes what a module sees. */
enum { HA_BACKEND_API_VERSION = 12 };

#define HA_BACKEND_CUDA_MODULE "ha-kernels-cuda.so"
/* Names the module where it does not lie beside the program: for tests and packages. */
#define HA_BACKEND_CUDA_VARIABLE "HA_CUDA_MODULE"
#define HA_BACKEND_CUDA_SYMBOL "ha_backend_cuda_open"

typedef int (*ha_backend_alloc_fn)(struct ha_backend *backend, size_t bytes, void **ret_memory,
                                   struct ha_error *err);

struct ha_backend_table {
    const char *name;
    void (*close)(struct ha_backend *backend);
    /* Forget what a job has left; the stream is empty.  NULL: nothing is left. */
    int (*renew)(struct ha_backend *backend, struct ha_error *err);
    /* Zeroed, 256-byte aligned memory; bytes > 0. */
    ha_backend_alloc_fn alloc;
    /* Returns the bytes that alloc was asked for. */
    size_t (*free)(struct ha_backend *backend, void *memory);
    int (*import_host)(struct ha_backend *backend, const void *host, size_t bytes,
                       const void **ret_memory, struct ha_error *err);
    /* (rows, cols) values as bf16 into memory of alloc, rows `stride` apart there; NULL: weights
     * are read where they lie. */
    int (*load_weight)(struct ha_backend *backend, void *memory, int64_t stride, const void *host,
                       enum ha_dtype dtype, int64_t rows, int64_t cols, struct ha_error *err);
    void (*release_host)(struct ha_backend *backend, const void *memory);
    int (*upload)(struct ha_backend *backend, void *memory, const void *host, size_t bytes,
                  struct ha_error *err);
    int (*download)(struct ha_backend *backend, void *host, const void *memory, size_t bytes,
                    struct ha_error *err);
    int (*copy)(struct ha_backend *backend, void *to, const void *from, size_t bytes,
                struct ha_error *err);
    int (*copy_rows)(struct ha_backend *backend, void *to, size_t to_stride, const void *from,
                     size_t from_stride, size_t row_bytes, int64_t n_rows, struct ha_error *err);
    int (*zero)(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err);
    int (*zero_rows)(struct ha_backend *backend, void *memory, size_t stride, size_t row_bytes,
                     int64_t n_rows, struct ha_error *err);
    int (*sync)(struct ha_backend *backend, struct ha_error *err);
    /* All four or none: NULL where calls return when their work is done. */
    int (*poll)(struct ha_backend *backend, struct ha_error *err);
    void *(*stream)(struct ha_backend *backend);
    int (*fork)(struct ha_backend *backend, void **ret_stream, struct ha_error *err);
    int (*poll_fork)(struct ha_backend *backend, struct ha_error *err);
    /* All three or none: NULL where nothing is chosen. */
    int (*export_choices)(const struct ha_backend *backend, void **ret_blob, size_t *ret_bytes,
                          struct ha_error *err);
    int (*import_choices)(struct ha_backend *backend, const void *blob, size_t bytes,
                          struct ha_error *err);
    void (*time_choices)(struct ha_backend *backend, bool on);
    /* NULL: they are. */
    void (*separate_rows)(struct ha_backend *backend, bool on);
    /* All four or none: NULL where calls return when their work is done.  record_end without
     * ret_kept gives up; kept is whatever the backend knows the recording by. */
    int (*record_begin)(struct ha_backend *backend, struct ha_error *err);
    int (*record_end)(struct ha_backend *backend, void **ret_kept, struct ha_error *err);
    int (*replay)(struct ha_backend *backend, void *kept, struct ha_error *err);
    void (*forget)(struct ha_backend *backend, void *kept);
};

struct ha_recording {
    void *kept;
    double flops, bytes_moved; /* of the calls */
};

enum { HA_BACKEND_TEXT_BYTES = 384 };

struct ha_backend {
    const struct ha_backend_table *table;
    const struct ha_ops *ops;
    enum ha_dtype activation_dtype;
    char description[HA_BACKEND_TEXT_BYTES];
    char fingerprint[HA_BACKEND_TEXT_BYTES];
    int64_t memory_limit; /* bytes; 0 = none */
    int64_t device_bytes; /* of its own memory; 0 = the host's */
    int64_t allocated_bytes, peak_bytes;
    double flops, bytes_moved;
    double recorded_flops, recorded_bytes; /* the two when a recording began */
};

/* Count bytes as allocated, if the limit allows it.  Returns 0 or -ENOMEM with
 * the size, the sum and the limit in the text. */
int ha_backend_reserve(struct ha_backend *backend, size_t bytes, struct ha_error *err);
void ha_backend_unreserve(struct ha_backend *backend, size_t bytes);

/* alloc after reserve; where it fails, the counts are as before. */
int ha_backend_alloc_counted(struct ha_backend *backend, size_t bytes, ha_backend_alloc_fn alloc,
                             void **ret_memory, struct ha_error *err);

typedef int (*ha_backend_cuda_open_fn)(uint32_t api_version,
                                       const struct ha_backend_options *options,
                                       struct ha_backend **ret_backend, struct ha_error *err);

/* kernels/cpu. */
int ha_cpu_open(const struct ha_backend_options *options, struct ha_backend **ret_backend,
                struct ha_error *err);

#endif
