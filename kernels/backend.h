/* backend.h - a device, its memory and its stream
 *
 * A backend is one device (the CPU, one GPU) opened for one process.  Memory
 * of a backend is addressed by plain pointers that only its own operations may
 * follow; on the CPU they are host pointers.  Calls are ordered on the
 * backend's one stream and may return before the work is done: results are on
 * the host after ha_backend_download or ha_backend_sync. */
#ifndef HA_KERNELS_BACKEND_H
#define HA_KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_backend;
struct ha_error;
struct ha_ops;

enum ha_dtype { HA_DTYPE_F32, HA_DTYPE_BF16, HA_DTYPE_F16 };

/* Bytes of one element. */
size_t ha_dtype_bytes(enum ha_dtype dtype);
const char *ha_dtype_name(enum ha_dtype dtype); /* "F32", "BF16", "F16" */

struct ha_backend_options {
    const char *name; /* "cpu", "cuda", or "auto": cuda where module, driver and device are there */
    int threads;      /* CPU threads; 0 = one per available core */
    int device;       /* index of the GPU */
    int64_t memory_limit; /* bytes the backend may allocate; 0 = no limit but the device's */
};

/* Returns 0, -ENODEV (this backend cannot run here; the text says why), -EINVAL
 * (unknown name) or -ENOMEM. */
int ha_backend_open(const struct ha_backend_options *options, struct ha_backend **ret_backend,
                    struct ha_error *err);
void ha_backend_close(struct ha_backend *backend);

/* Between two jobs of one process: wait for the stream, and be as a backend that was just opened,
 * but for the memory of ha_backend_alloc that is still held.  Choices of products are forgotten,
 * counts begin anew, and the peak is what is held now.  Returns an error of earlier work, after
 * which the backend serves nobody. */
int ha_backend_renew(struct ha_backend *backend, struct ha_error *err);

/* "cpu" or "cuda". */
const char *ha_backend_name(const struct ha_backend *backend);

/* One line for people: which backend, on what, and why this one was chosen.
 * Owned by the backend. */
const char *ha_backend_description(const struct ha_backend *backend);

/* Names everything that bits depend on (kernel build, library versions, core
 * type or device kind, a digest of the choices that were timed); checkpoints and
 * references are bound to it.  Owned by the backend; another after choices were
 * imported or their timing has ended. */
const char *ha_backend_fingerprint(const struct ha_backend *backend);

/* The type of activations: F32 on the CPU, BF16 on a GPU. */
enum ha_dtype ha_backend_activation_dtype(const struct ha_backend *backend);

const struct ha_ops *ha_backend_ops(const struct ha_backend *backend);

/* Zeroed memory, 256-byte aligned.  Returns 0 or -ENOMEM with the size, the
 * sum held so far and the limit in the text. */
int ha_backend_alloc(struct ha_backend *backend, size_t bytes, void **ret_memory,
                     struct ha_error *err);
void ha_backend_free(struct ha_backend *backend, void *memory);

/* Make host bytes that stay valid and unchanged (a mapped file) readable for
 * operations: the same address on the CPU, a copy on a GPU.  Ended by
 * ha_backend_release_host. */
int ha_backend_import_host(struct ha_backend *backend, const void *host, size_t bytes,
                           const void **ret_memory, struct ha_error *err);
void ha_backend_release_host(struct ha_backend *backend, const void *memory);

/* The same for n values of a weight.  A backend may keep them in another type and says which: a
 * GPU keeps every weight as bf16, rounded to nearest, ties to even. */
int ha_backend_import_weight(struct ha_backend *backend, const void *host, enum ha_dtype dtype,
                             int64_t n, const void **ret_memory, enum ha_dtype *ret_dtype,
                             struct ha_error *err);

/* True where a weight is always copied, as bf16, into the backend's own memory; false where it is
 * read where it lies. */
bool ha_backend_copies_weights(const struct ha_backend *backend);

/* Where it is: copy n values of a weight, rounded as above, to memory of ha_backend_alloc, so that
 * several lie side by side.  The host's bytes need no alignment. */
int ha_backend_load_weight(struct ha_backend *backend, void *memory, const void *host,
                           enum ha_dtype dtype, int64_t n, struct ha_error *err);
/* The same for (rows, cols) values whose rows shall begin `stride` values apart; what lies between
 * them stays as it is. */
int ha_backend_load_weight_rows(struct ha_backend *backend, void *memory, int64_t stride,
                                const void *host, enum ha_dtype dtype, int64_t rows, int64_t cols,
                                struct ha_error *err);

int ha_backend_upload(struct ha_backend *backend, void *memory, const void *host, size_t bytes,
                      struct ha_error *err);
int ha_backend_download(struct ha_backend *backend, void *host, const void *memory, size_t bytes,
                        struct ha_error *err);
int ha_backend_copy(struct ha_backend *backend, void *to, const void *from, size_t bytes,
                    struct ha_error *err);
/* n_rows rows of row_bytes each; the strides are bytes from one row to the next. */
int ha_backend_copy_rows(struct ha_backend *backend, void *to, size_t to_stride, const void *from,
                         size_t from_stride, size_t row_bytes, int64_t n_rows,
                         struct ha_error *err);
int ha_backend_zero(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err);
/* n_rows rows of row_bytes each, which begin `stride` bytes apart. */
int ha_backend_zero_rows(struct ha_backend *backend, void *memory, size_t stride, size_t row_bytes,
                         int64_t n_rows, struct ha_error *err);

/* Wait for the stream.  A device error is sticky: once returned, every later
 * call returns it. */
int ha_backend_sync(struct ha_backend *backend, struct ha_error *err);

/* 0 when all work of the stream is done, -EINPROGRESS while it is not: for work that may never
 * end, as a collective may not whose peer is gone. */
int ha_backend_poll(struct ha_backend *backend, struct ha_error *err);

/* The stream itself (a cudaStream_t), for kernels/comm; NULL on the CPU. */
void *ha_backend_stream(struct ha_backend *backend);

/* A second stream (a cudaStream_t), for kernels/comm, whose work runs beside the first one's: what
 * is put on it from now on begins when all that the first was given so far is done.  NULL on the
 * CPU.  ha_backend_poll_fork is 0 when all work of the second is done, -EINPROGRESS while it is
 * not; the first does not wait for it. */
int ha_backend_fork(struct ha_backend *backend, void **ret_stream, struct ha_error *err);
int ha_backend_poll_fork(struct ha_backend *backend, struct ha_error *err);

/* What a backend chose for itself that bits depend on, as a blob that only it reads: a GPU's
 * algorithm for each shape of a product.  The blob of one run makes another multiply as it did;
 * it is kept with checkpoints, and on disk for later runs on devices of the same kind.  Empty
 * (NULL, 0) on the CPU, whose choices are fixed.  The blob is the caller's to free. */
int ha_backend_export_choices(const struct ha_backend *backend, void **ret_blob, size_t *ret_bytes,
                              struct ha_error *err);

/* Returns 0, -EINVAL for what is no such blob, -ESTALE for one of another kind of device or
 * version of the libraries, or -ENOMEM; nothing has changed then. */
int ha_backend_import_choices(struct ha_backend *backend, const void *blob, size_t bytes,
                              struct ha_error *err);

/* While it is on, choose for shapes that are new by the clock: some milliseconds for each, and a
 * choice that may differ from run to run.  Without it a choice is a pure function of device,
 * libraries and shape, and no part of the blob. */
void ha_backend_time_choices(struct ha_backend *backend, bool on);

/* While it is on, a row of a product (ops.h: gemm whose a is not transposed, logits) hangs on its
 * own row of a, its own row of c and b alone: neither on how many rows the call has, nor on which,
 * nor on where it stands among them.  So it is on the CPU anyway.  A GPU else chooses how to
 * multiply by the number of rows; then it multiplies HA_CUDA_SEPARATE_ROWS at a time, in the
 * same way always, which costs time (tests/bench/GPU.md) and is a pure function of device,
 * libraries and the sizes of b: the clock chooses nothing.  Off in a backend that was opened or
 * renewed. */
void ha_backend_separate_rows(struct ha_backend *backend, bool on);

/* Work that was recorded, to be done again without the host's part of it, which for few rows takes
 * longer than the device's.  Between begin and end, operations and what copies or clears memory on
 * the device are kept in their order and not done.  What waits for the device, takes or gives
 * memory, chooses by the clock or brings something from the host cannot be kept: it is refused
 * with -EBUSY, and the recording is void.  So the same calls must have been made before, which then
 * have their scratch memory and their choices.  A replay works on the same memory as the calls
 * did, with what lies there then; it gives their bits, and counts as their work.
 *
 * end without ret_recording gives up what was begun, and is due after every failure in between.
 * Whatever fails, the backend is as if nothing had been recorded.  A replay returns -ESTALE where
 * memory of the backend's own, which the recording uses, has moved since. */
struct ha_recording;

/* False on the CPU, whose calls are the work: what follows is refused there with -ENOTSUP. */
bool ha_backend_records(const struct ha_backend *backend);
int ha_backend_record_begin(struct ha_backend *backend, struct ha_error *err);
int ha_backend_record_end(struct ha_backend *backend, struct ha_recording **ret_recording,
                          struct ha_error *err);
int ha_backend_replay(struct ha_backend *backend, struct ha_recording *recording,
                      struct ha_error *err);
/* Before the backend is closed or renewed.  Takes NULL. */
void ha_backend_forget(struct ha_backend *backend, struct ha_recording *recording);

/* What the memory of a GPU may hold: its limit, or else all of it; 0 on the CPU, whose memory is
 * the host's. */
int64_t ha_backend_memory_bytes(const struct ha_backend *backend);

/* The limit that HA_GPU_MEMORY_LIMIT sets to any GPU; 0: none.  -EINVAL for what is no amount. */
int ha_backend_gpu_limit(int64_t *ret_bytes, struct ha_error *err);

/* Bytes allocated now, and the highest value so far. */
int64_t ha_backend_allocated_bytes(const struct ha_backend *backend);
int64_t ha_backend_peak_bytes(const struct ha_backend *backend);

/* Floating-point operations done by ha_ops calls so far (2 per multiply-add). */
double ha_backend_flops(const struct ha_backend *backend);

/* Bytes that their matrix products and attention have read and written so far,
 * each operand once. */
double ha_backend_bytes_moved(const struct ha_backend *backend);

/* Add to both what their calls do not know: how much more, or less, a replay does than its
 * recording. */
void ha_backend_count(struct ha_backend *backend, double flops, double bytes_moved);

#endif
