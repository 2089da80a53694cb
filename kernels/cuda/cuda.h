/* cuda.h - the CUDA backend's own state (internal to kernels/cuda)
 *
 * One device, one stream.  Every operation only enqueues: nothing here waits for
 * the device but download, sync, growing scratch memory, and timing a product
 * that was never run before (gemm.c).
 *
 * The pieces: C files hold all host logic and call the CUDA run time and cuBLASLt
 * through their C interfaces.  A .cu file holds kernels and exports C launchers
 * (launch.h and headers beside it) that compute the grid, launch on the given
 * stream and return the CUDA error as an int.  No CUDA header is seen by a header
 * of ours, so all of them compile where CUDA is not installed.
 *
 * Rules for kernels: bf16 activations, f32 arithmetic; a sum has one fixed order
 * (no floating-point atomics); a row's result does not depend on the rows beside
 * it; offsets are 64 bits wide; any width works, and widths, strides and addresses
 * that allow it move 16 bytes at a time.  Kernels are launched with HA_LAUNCH
 * (device.cuh) and must run under tests/cuda, which runs the same sources on the
 * CPU, a thread at a time. */
#ifndef HA_KERNELS_CUDA_CUDA_H
#define HA_KERNELS_CUDA_CUDA_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/backend_table.h"
#include "kernels/cuda/gemm_choice.h"
#include "kernels/cuda/sizes.h"
#include "kernels/ops.h"

struct CUstream_st;     /* cudaStream_t points to it */
struct CUevent_st;      /* cudaEvent_t */
struct cublasLtContext; /* cublasLtHandle_t */

/* Raised when a change of the code changes bits of any result. */
enum { HA_CUDA_NUMERICS = 1 };

/* Device memory that grows to what the largest call so far needed; each belongs to
 * one use, so that an operation built of others keeps its own. */
enum ha_cuda_scratch {
    HA_CUDA_SCRATCH_A,         /* gemm: a in another type */
    HA_CUDA_SCRATCH_B,         /* gemm: b in another type */
    HA_CUDA_SCRATCH_LOGITS,    /* head: a chunk of logits */
    HA_CUDA_SCRATCH_REDUCE,    /* partial sums */
    HA_CUDA_SCRATCH_ATTENTION, /* attention: row sums of the backward pass */
    HA_CUDA_SCRATCH_ARGUMENTS, /* arguments too large for the ring */
    HA_CUDA_SCRATCH_TILE_A,    /* gemm, rows separate: the last rows of a */
    HA_CUDA_SCRATCH_TILE_C,    /* and of the result */
    HA_CUDA_N_SCRATCH,
};

/* What a kernel found wrong with its input.  It lies in pinned host memory; the
 * first report stands until the host has told it at download or sync. */
enum ha_cuda_fault_kind { HA_CUDA_FAULT_NONE, HA_CUDA_FAULT_ID, HA_CUDA_FAULT_TARGET };

struct ha_cuda_fault {
    /* kind << 62 | row << 32 | the id as it was: one store, so that it is never half written. */
    uint64_t word;
};

struct ha_cuda_block {
    void *memory;
    size_t bytes; /* as asked for */
};

struct ha_cuda {
    struct ha_backend base;
    int device;
    int sm; /* 10 * major + minor, 90 for a H100 */
    int processors;
    char kind[128]; /* device name, sm and library version: what choices of products hang on */
    struct CUstream_st *stream;
    struct CUstream_st *fork;  /* ha_backend_fork; NULL until it is asked for */
    struct CUevent_st *forked; /* on stream: where fork may begin */
    struct cublasLtContext *lt;
    void *workspace;                /* HA_CUDA_WORKSPACE_BYTES of the device */
    struct ha_cuda_choices choices; /* of products' algorithms */
    bool time_products;             /* choose by the clock from now on */
    bool separate_rows;             /* ha_backend_separate_rows */
    bool recording;                 /* ha_backend_record_begin */
    bool recording_void;            /* it has met what cannot be recorded */
    int64_t scratch_moves;          /* how often scratch memory was replaced or given back */
    size_t fingerprint_bytes;       /* of base.fingerprint without the choices' digest */

    struct ha_cuda_block *blocks; /* in order of allocation */
    int64_t n_blocks, max_blocks;
    int64_t held_block; /* that ha_cuda_holds found last */
    void *scratch[HA_CUDA_N_SCRATCH];
    size_t scratch_bytes[HA_CUDA_N_SCRATCH];

    char *stage; /* pinned, HA_CUDA_N_STAGES * HA_CUDA_STAGE_BYTES */
    struct CUevent_st *stage_done[HA_CUDA_N_STAGES];
    int next_stage;
    char *ring;        /* pinned, HA_CUDA_N_RINGS * HA_CUDA_RING_BYTES */
    char *device_ring; /* its copy on the device */
    struct CUevent_st *ring_done[HA_CUDA_N_RINGS];
    int ring_part;
    size_t ring_used; /* of that part */

    volatile struct ha_cuda_fault *fault; /* the same address on host and device */
    int failed;                           /* the CUDA error that stays; 0: none */
    char failure[200];
};

static inline struct ha_cuda *ha_cuda_of(struct ha_backend *backend)
{
    return (struct ha_cuda *)backend;
}

static inline int64_t ha_cuda_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t ha_cuda_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- errors (error.c) ---- */

/* To be called first by every entry: makes the device current for the calling
 * thread, or returns -EIO with the failure that stays. */
int ha_cuda_enter(struct ha_cuda *cuda, struct ha_error *err);

/* 0 for code 0 (a cudaError_t); else what failed and CUDA's words.  -ENOMEM where
 * memory is short, -EBUSY where it was to be recorded; anything else stays. */
int ha_cuda_check(struct ha_cuda *cuda, int code, const char *what, struct ha_error *err);

/* The same for a cublasStatus_t; only execution failures stay. */
int ha_cuda_check_lt(struct ha_cuda *cuda, int status, const char *what, struct ha_error *err);

/* What kernels write a fault to. */
static inline uint64_t *ha_cuda_fault_word(struct ha_cuda *cuda)
{
    return (uint64_t *)(uintptr_t)&cuda->fault->word;
}

/* After the stream was waited for: -EINVAL when a kernel met a bad id. */
int ha_cuda_take_fault(struct ha_cuda *cuda, struct ha_error *err);

/* ---- recordings (record.c); contracts in kernels/backend.h ---- */

int ha_cuda_record_begin(struct ha_backend *backend, struct ha_error *err);
int ha_cuda_record_end(struct ha_backend *backend, void **ret_kept, struct ha_error *err);
int ha_cuda_replay(struct ha_backend *backend, void *kept, struct ha_error *err);
void ha_cuda_forget(struct ha_backend *backend, void *kept);

/* To be called by whatever cannot be a part of one: -EBUSY, naming `what`, while one is made. */
int ha_cuda_refuse_recording(struct ha_cuda *cuda, const char *what, struct ha_error *err);

/* ---- memory (memory.c) ---- */

int ha_cuda_memory_open(struct ha_cuda *cuda, struct ha_error *err);
void ha_cuda_memory_close(struct ha_cuda *cuda);

int ha_cuda_alloc(struct ha_backend *backend, size_t bytes, void **ret_memory,
                  struct ha_error *err);
size_t ha_cuda_free(struct ha_backend *backend, void *memory);
int ha_cuda_import_host(struct ha_backend *backend, const void *host, size_t bytes,
                        const void **ret_memory, struct ha_error *err);
int ha_cuda_load_weight(struct ha_backend *backend, void *memory, int64_t stride, const void *host,
                        enum ha_dtype dtype, int64_t rows, int64_t cols, struct ha_error *err);
void ha_cuda_release_host(struct ha_backend *backend, const void *memory);
int ha_cuda_upload(struct ha_backend *backend, void *memory, const void *host, size_t bytes,
                   struct ha_error *err);
int ha_cuda_download(struct ha_backend *backend, void *host, const void *memory, size_t bytes,
                     struct ha_error *err);
int ha_cuda_copy(struct ha_backend *backend, void *to, const void *from, size_t bytes,
                 struct ha_error *err);
int ha_cuda_copy_rows(struct ha_backend *backend, void *to, size_t to_stride, const void *from,
                      size_t from_stride, size_t row_bytes, int64_t n_rows, struct ha_error *err);
int ha_cuda_zero(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err);
int ha_cuda_zero_rows(struct ha_backend *backend, void *memory, size_t stride, size_t row_bytes,
                      int64_t n_rows, struct ha_error *err);
int ha_cuda_poll(struct ha_backend *backend, struct ha_error *err);
int ha_cuda_fork(struct ha_backend *backend, void **ret_stream, struct ha_error *err);
int ha_cuda_poll_fork(struct ha_backend *backend, struct ha_error *err);
int ha_cuda_sync(struct ha_backend *backend, struct ha_error *err);

/* At least `bytes` of the device, 256-byte aligned, not zeroed; earlier contents are lost when it
 * grows.  Counted as allocated.  Returns 0 or -ENOMEM. */
int ha_cuda_scratch(struct ha_cuda *cuda, enum ha_cuda_scratch use, size_t bytes, void **ret_memory,
                    struct ha_error *err);

/* Do these bytes lie within one allocation of ours? */
bool ha_cuda_holds(struct ha_cuda *cuda, const void *memory, size_t bytes);

/* Give all of it back. */
void ha_cuda_scratch_clear(struct ha_cuda *cuda);

/* A copy on the device of an operation's host arguments (segments, indices, pointers), 256-byte
 * aligned, valid for what is enqueued by this operation.  Does not wait for the device unless
 * several MB of arguments are on their way.  Several calls in one operation may together take
 * HA_CUDA_RING_BYTES; one call of more goes through HA_CUDA_SCRATCH_ARGUMENTS, so only one of an
 * operation's arguments may be that long. */
int ha_cuda_arguments(struct ha_cuda *cuda, const void *host, size_t bytes, const void **ret_device,
                      struct ha_error *err);

/* ---- the entries of ha_ops, one file per subject; contracts in kernels/ops.h ---- */

int ha_cuda_op_gemm(struct ha_backend *backend, const struct ha_matrix *c,
                    const struct ha_matrix *a, bool transpose_a, const struct ha_matrix *b,
                    bool transpose_b, float alpha, float beta, struct ha_error *err);

int ha_cuda_op_add_bias(struct ha_backend *backend, void *x, const void *bias,
                        enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride,
                        struct ha_error *err);
int ha_cuda_op_embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                             const int32_t *ids, int64_t n_tokens, struct ha_error *err);
int ha_cuda_op_rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                               const void *weight, enum ha_dtype weight_dtype, float eps,
                               int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                               int64_t x_stride, struct ha_error *err);
int ha_cuda_op_rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout,
                                const void *x, const float *rstd, const void *weight,
                                enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                                int64_t cols, int64_t dx_stride, int64_t dout_stride,
                                int64_t x_stride, bool accumulate, struct ha_error *err);
int ha_cuda_op_rope(struct ha_backend *backend, void *x, const float *cos_sin,
                    const int32_t *positions, int64_t n_tokens, int64_t n_heads, int64_t head_dim,
                    int64_t stride, bool inverse, struct ha_error *err);
int ha_cuda_op_swiglu_forward(struct ha_backend *backend, void *out, const void *gate,
                              const void *up, int64_t n_rows, int64_t cols, int64_t out_stride,
                              int64_t in_stride, struct ha_error *err);
int ha_cuda_op_swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                               const void *gate, const void *up, int64_t n_rows, int64_t cols,
                               int64_t out_stride, int64_t in_stride, struct ha_error *err);
int ha_cuda_op_dropout(struct ha_backend *backend, void *out, const void *x,
                       const struct ha_dropout *dropout, int64_t n_rows, int64_t cols,
                       int64_t out_stride, int64_t x_stride, bool accumulate, struct ha_error *err);
int ha_cuda_op_lora_columns(struct ha_backend *backend, const struct ha_lora_columns *columns,
                            struct ha_error *err);
int ha_cuda_op_gather_rows(struct ha_backend *backend, void *out, const void *x,
                           const int64_t *index, int64_t n_rows, int64_t cols,
                           struct ha_error *err);
int ha_cuda_op_scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                                const int64_t *index, const float *coefficient, int64_t n_rows,
                                int64_t cols, struct ha_error *err);

int ha_cuda_op_attention_forward(struct ha_backend *backend, void *out, float *logsumexp,
                                 const void *q, const void *k, const void *v,
                                 const struct ha_attention *shape, struct ha_error *err);
int ha_cuda_op_attention_backward(struct ha_backend *backend, void *dq, void *dk, void *dv,
                                  const void *dout, const void *out, const float *logsumexp,
                                  const void *q, const void *k, const void *v,
                                  const struct ha_attention *shape, struct ha_error *err);
int ha_cuda_op_kv_append(struct ha_backend *backend, const struct ha_kv_rows *caches,
                         const int32_t *positions, int64_t layer, const void *k, const void *v,
                         int64_t n_rows, int64_t width, int64_t stride, struct ha_error *err);
int ha_cuda_op_decode_attention(struct ha_backend *backend, void *out, const void *q,
                                const struct ha_decode_attention *shape, struct ha_error *err);

int ha_cuda_op_head(struct ha_backend *backend, const struct ha_head *head, struct ha_error *err);
int ha_cuda_op_logits(struct ha_backend *backend, float *logits, const void *hidden,
                      const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                      struct ha_error *err);

int ha_cuda_op_sample(struct ha_backend *backend, const struct ha_sample *sample,
                      struct ha_error *err);

int ha_cuda_op_sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                              struct ha_error *err);
int ha_cuda_op_add(struct ha_backend *backend, float *sum, const float *x, int64_t n,
                   struct ha_error *err);
int ha_cuda_op_adamw(struct ha_backend *backend, float *param, float *m, float *v,
                     const float *grad, int64_t n, const double *grad_square_sum,
                     const struct ha_adamw *settings, struct ha_error *err);

#endif
