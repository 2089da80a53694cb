/* cpu.h - the CPU backend's own state (internal to kernels/cpu)
 *
 * Work is cut into fixed tiles that a pool of threads takes one by one; a tile's
 * result depends on nothing but its inputs, and sums over tiles run in tile order.
 * So neither the number of threads nor their timing changes a bit.
 *
 * Scratch memory grows to what the largest call so far needed and is counted as
 * allocated: `shared` and `per_thread` belong to the innermost operation, `work`
 * to an operation that calls gemm. */
#ifndef HA_KERNELS_CPU_CPU_H
#define HA_KERNELS_CPU_CPU_H

#include "kernels/backend_table.h"
#include "kernels/cpu/leaf.h"
#include "kernels/cpu/pool.h"
#include "kernels/ops.h"

struct ha_cpu {
    struct ha_backend base;
    struct ha_leaf leaf;
    struct ha_pool *pool;
    int threads;
    int64_t parallel_min; /* 0 in tests: always parallel */
    char *shared;         /* 64-byte aligned */
    size_t shared_bytes;
    char *per_thread; /* threads * per_thread_bytes */
    size_t per_thread_bytes;
    char *work;
    size_t work_bytes;
};

/* Raised when a change of the code changes bits of any result. */
enum { HA_CPU_NUMERICS = 1 };

enum { HA_CPU_SCRATCH_PAGE = 4096 };

static inline struct ha_cpu *ha_cpu_of(struct ha_backend *backend)
{
    return (struct ha_cpu *)backend;
}

/* One tile; scratch is the thread's own part of per_thread. */
typedef void (*ha_cpu_tile_fn)(const void *context, int64_t tile, void *scratch);

/* What an element of a row operation costs, in multiply-adds. */
enum { HA_CPU_ELEMENT_WORK = 16 };

/* Do tiles 0 .. n_tiles - 1.  Where `work`, in multiply-adds, is small, the calling
 * thread does them alone: waking the others costs microseconds, and far more where
 * other processes want the cores too. */
void ha_cpu_for_tiles(struct ha_cpu *cpu, int64_t n_tiles, double work, ha_cpu_tile_fn fn,
                      const void *context);

typedef void (*ha_cpu_rows_fn)(const void *context, int64_t begin, int64_t end);

/* Do rows 0 .. n_rows - 1 of `cols` elements each, some rows at a time. */
void ha_cpu_for_rows(struct ha_cpu *cpu, int64_t n_rows, int64_t cols, ha_cpu_rows_fn fn,
                     const void *context);

/* Make sure of the scratch; earlier contents are lost.  Returns 0 or -ENOMEM. */
int ha_cpu_scratch(struct ha_cpu *cpu, size_t shared_bytes, size_t per_thread_bytes,
                   struct ha_error *err);

int ha_cpu_work(struct ha_cpu *cpu, size_t bytes, struct ha_error *err);

/* What scratch of so many bytes takes. */
static inline int64_t ha_cpu_scratch_rounded(int64_t bytes)
{
    return (bytes + HA_CPU_SCRATCH_PAGE - 1) / HA_CPU_SCRATCH_PAGE * HA_CPU_SCRATCH_PAGE;
}

/* Rows of logits that the head holds at once, for n_rows of them. */
int64_t ha_cpu_head_chunk(const struct ha_leaf *leaf, int64_t vocabulary, int64_t n_rows);

/* Bytes of `work` that sum_of_squares takes for n values. */
int64_t ha_cpu_squares_bytes(int64_t n);

/* ha_cpu_open with a given instruction set (NULL: the best): for tests. */
int ha_cpu_open_with(const struct ha_backend_options *options, const char *leaf_name,
                     struct ha_backend **ret_backend, struct ha_error *err);

static inline int64_t ha_cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t ha_cpu_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- the entries of ha_ops, one file per subject; contracts in kernels/ops.h ---- */

int ha_cpu_op_gemm(struct ha_backend *backend, const struct ha_matrix *c, const struct ha_matrix *a,
                   bool transpose_a, const struct ha_matrix *b, bool transpose_b, float alpha,
                   float beta, struct ha_error *err);

int ha_cpu_op_add_bias(struct ha_backend *backend, void *x, const void *bias,
                       enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride,
                       struct ha_error *err);
int ha_cpu_op_embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                            const int32_t *ids, int64_t n_tokens, struct ha_error *err);
int ha_cpu_op_rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                              const void *weight, enum ha_dtype weight_dtype, float eps,
                              int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                              int64_t x_stride, struct ha_error *err);
int ha_cpu_op_rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout,
                               const void *x, const float *rstd, const void *weight,
                               enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                               int64_t cols, int64_t dx_stride, int64_t dout_stride,
                               int64_t x_stride, bool accumulate, struct ha_error *err);
int ha_cpu_op_rope(struct ha_backend *backend, void *x, const float *cos_sin,
                   const int32_t *positions, int64_t n_tokens, int64_t n_heads, int64_t head_dim,
                   int64_t stride, bool inverse, struct ha_error *err);
int ha_cpu_op_swiglu_forward(struct ha_backend *backend, void *out, const void *gate,
                             const void *up, int64_t n_rows, int64_t cols, int64_t out_stride,
                             int64_t in_stride, struct ha_error *err);
int ha_cpu_op_swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                              const void *gate, const void *up, int64_t n_rows, int64_t cols,
                              int64_t out_stride, int64_t in_stride, struct ha_error *err);
int ha_cpu_op_dropout(struct ha_backend *backend, void *out, const void *x,
                      const struct ha_dropout *dropout, int64_t n_rows, int64_t cols,
                      int64_t out_stride, int64_t x_stride, bool accumulate, struct ha_error *err);
int ha_cpu_op_lora_columns(struct ha_backend *backend, const struct ha_lora_columns *columns,
                           struct ha_error *err);
int ha_cpu_op_gather_rows(struct ha_backend *backend, void *out, const void *x,
                          const int64_t *index, int64_t n_rows, int64_t cols, struct ha_error *err);
int ha_cpu_op_scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                               const int64_t *index, const float *coefficient, int64_t n_rows,
                               int64_t cols, struct ha_error *err);

int ha_cpu_op_attention_forward(struct ha_backend *backend, void *out, float *logsumexp,
                                const void *q, const void *k, const void *v,
                                const struct ha_attention *shape, struct ha_error *err);
int ha_cpu_op_attention_backward(struct ha_backend *backend, void *dq, void *dk, void *dv,
                                 const void *dout, const void *out, const float *logsumexp,
                                 const void *q, const void *k, const void *v,
                                 const struct ha_attention *shape, struct ha_error *err);
int ha_cpu_op_kv_append(struct ha_backend *backend, const struct ha_kv_rows *caches,
                        const int32_t *positions, int64_t layer, const void *k, const void *v,
                        int64_t n_rows, int64_t width, int64_t stride, struct ha_error *err);
int ha_cpu_op_decode_attention(struct ha_backend *backend, void *out, const void *q,
                               const struct ha_decode_attention *shape, struct ha_error *err);

int ha_cpu_op_head(struct ha_backend *backend, const struct ha_head *head, struct ha_error *err);
int ha_cpu_op_logits(struct ha_backend *backend, float *logits, const void *hidden,
                     const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                     struct ha_error *err);

int ha_cpu_op_sample(struct ha_backend *backend, const struct ha_sample *sample,
                     struct ha_error *err);

int ha_cpu_op_sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                             struct ha_error *err);
int ha_cpu_op_add(struct ha_backend *backend, float *sum, const float *x, int64_t n,
                  struct ha_error *err);
int ha_cpu_op_adamw(struct ha_backend *backend, float *param, float *m, float *v, const float *grad,
                    int64_t n, const double *grad_square_sum, const struct ha_adamw *settings,
                    struct ha_error *err);

#endif
