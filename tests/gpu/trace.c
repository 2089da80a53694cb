#include "tests/gpu/trace.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/error.h"
#include "kernels/backend_table.h"
#include "kernels/ops.h"

enum { MAX_KINDS = 512 };

static const double SMALL = 0.002;

struct kind {
    char name[64];
    int64_t calls;
    double ms, bytes, flops, floor_ms;
};

static struct {
    const struct ha_ops *real;
    const struct ha_backend_table *real_table;
    struct ha_ops ops;
    struct ha_backend_table table;
    struct kind kinds[MAX_KINDS];
    int n_kinds;
    bool on;
    double began, flops, bytes;
} trace;

static double now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void begin(struct ha_backend *backend)
{
    if (!trace.on)
        return;
    (void)trace.real_table->sync(backend, NULL);
    trace.flops = backend->flops;
    trace.bytes = backend->bytes_moved;
    trace.began = now_ms();
}

static struct kind *find(const char *name)
{
    for (int i = 0; i < trace.n_kinds; i++)
        if (strcmp(trace.kinds[i].name, name) == 0)
            return &trace.kinds[i];
    if (trace.n_kinds == MAX_KINDS)
        return &trace.kinds[MAX_KINDS - 1];
    (void)snprintf(trace.kinds[trace.n_kinds].name, sizeof(trace.kinds[0].name), "%s", name);
    return &trace.kinds[trace.n_kinds++];
}

/* bytes: of operations that the backend does not count itself; else 0. */
static int end(struct ha_backend *backend, int r, double bytes, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int end(struct ha_backend *backend, int r, double bytes, const char *format, ...)
{
    char name[64];
    struct kind *kind;
    double ms;
    va_list args;

    if (!trace.on || r < 0)
        return r;
    (void)trace.real_table->sync(backend, NULL);
    ms = now_ms() - trace.began;
    va_start(args, format);
    (void)vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    kind = find(name);
    bytes += backend->bytes_moved - trace.bytes;
    kind->calls++;
    kind->ms += ms;
    kind->bytes += bytes;
    kind->flops += backend->flops - trace.flops;
    return 0;
}

static double act(const struct ha_backend *backend)
{
    return (double)ha_dtype_bytes(backend->activation_dtype);
}

/* ---- the operations, in the order of ops.h ---- */

static int gemm(struct ha_backend *backend, const struct ha_matrix *c, const struct ha_matrix *a,
                bool transpose_a, const struct ha_matrix *b, bool transpose_b, float alpha,
                float beta, struct ha_error *err)
{
    int64_t depth = transpose_a ? a->rows : a->cols;
    int r;

    begin(backend);
    r = trace.real->gemm(backend, c, a, transpose_a, b, transpose_b, alpha, beta, err);
    /* Rows are tokens unless a is transposed; then the depth is. */
    if (transpose_a)
        return end(backend, r, 0, "gradient %lld x %lld", (long long)c->rows, (long long)c->cols);
    return end(backend, r, 0, "product%s %lld to %lld%s", transpose_b ? "" : " backward",
               (long long)depth, (long long)c->cols, beta != 0 ? ", added" : "");
}

static int add_bias(struct ha_backend *backend, void *x, const void *bias, enum ha_dtype dtype,
                    int64_t n_rows, int64_t cols, int64_t stride, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->add_bias(backend, x, bias, dtype, n_rows, cols, stride, err);
    return end(backend, r, 2 * act(backend) * (double)(n_rows * cols), "bias %lld",
               (long long)cols);
}

static int embed_forward(struct ha_backend *backend, void *out, const struct ha_matrix *table,
                         const int32_t *ids, int64_t n_tokens, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->embed_forward(backend, out, table, ids, n_tokens, err);
    return end(backend, r, 2 * act(backend) * (double)(n_tokens * table->cols), "embedding");
}

static int rmsnorm_forward(struct ha_backend *backend, void *out, float *rstd, const void *x,
                           const void *weight, enum ha_dtype dtype, float eps, int64_t n_rows,
                           int64_t groups, int64_t cols, int64_t out_stride, int64_t x_stride,
                           struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->rmsnorm_forward(backend, out, rstd, x, weight, dtype, eps, n_rows, groups, cols,
                                    out_stride, x_stride, err);
    return end(backend, r, 2 * act(backend) * (double)(n_rows * groups * cols), "norm %lld x %lld",
               (long long)groups, (long long)cols);
}

static int rmsnorm_backward(struct ha_backend *backend, void *dx, const void *dout, const void *x,
                            const float *rstd, const void *weight, enum ha_dtype dtype,
                            int64_t n_rows, int64_t groups, int64_t cols, int64_t dx_stride,
                            int64_t dout_stride, int64_t x_stride, bool accumulate,
                            struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->rmsnorm_backward(backend, dx, dout, x, rstd, weight, dtype, n_rows, groups,
                                     cols, dx_stride, dout_stride, x_stride, accumulate, err);
    return end(backend, r, (accumulate ? 4 : 3) * act(backend) * (double)(n_rows * groups * cols),
               "norm backward %lld x %lld", (long long)groups, (long long)cols);
}

static int rope(struct ha_backend *backend, void *x, const float *cos_sin, const int32_t *positions,
                int64_t n_tokens, int64_t n_heads, int64_t head_dim, int64_t stride, bool inverse,
                struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->rope(backend, x, cos_sin, positions, n_tokens, n_heads, head_dim, stride,
                         inverse, err);
    return end(backend, r, 2 * act(backend) * (double)(n_tokens * n_heads * head_dim),
               "rope%s %lld heads", inverse ? " back" : "", (long long)n_heads);
}

static int attention_forward(struct ha_backend *backend, void *out, float *logsumexp, const void *q,
                             const void *k, const void *v, const struct ha_attention *shape,
                             struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->attention_forward(backend, out, logsumexp, q, k, v, shape, err);
    return end(backend, r, 0, "attention");
}

static int attention_backward(struct ha_backend *backend, void *dq, void *dk, void *dv,
                              const void *dout, const void *out, const float *logsumexp,
                              const void *q, const void *k, const void *v,
                              const struct ha_attention *shape, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->attention_backward(backend, dq, dk, dv, dout, out, logsumexp, q, k, v, shape,
                                       err);
    return end(backend, r, 0, "attention backward");
}

static int swiglu_forward(struct ha_backend *backend, void *out, const void *gate, const void *up,
                          int64_t n_rows, int64_t cols, int64_t out_stride, int64_t in_stride,
                          struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->swiglu_forward(backend, out, gate, up, n_rows, cols, out_stride, in_stride,
                                   err);
    return end(backend, r, 3 * act(backend) * (double)(n_rows * cols), "swiglu");
}

static int swiglu_backward(struct ha_backend *backend, void *dgate, void *dup, const void *dout,
                           const void *gate, const void *up, int64_t n_rows, int64_t cols,
                           int64_t out_stride, int64_t in_stride, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->swiglu_backward(backend, dgate, dup, dout, gate, up, n_rows, cols, out_stride,
                                    in_stride, err);
    return end(backend, r, 5 * act(backend) * (double)(n_rows * cols), "swiglu backward");
}

static int dropout(struct ha_backend *backend, void *out, const void *x,
                   const struct ha_dropout *settings, int64_t n_rows, int64_t cols,
                   int64_t out_stride, int64_t x_stride, bool accumulate, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->dropout(backend, out, x, settings, n_rows, cols, out_stride, x_stride,
                            accumulate, err);
    return end(backend, r, (accumulate ? 3 : 2) * act(backend) * (double)(n_rows * cols),
               "dropout %lld", (long long)cols);
}

static int gather_rows(struct ha_backend *backend, void *out, const void *x, const int64_t *index,
                       int64_t n_rows, int64_t cols, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->gather_rows(backend, out, x, index, n_rows, cols, err);
    return end(backend, r, 2 * act(backend) * (double)(n_rows * cols), "gather rows");
}

static int scatter_rows_add(struct ha_backend *backend, void *x, const float *rows,
                            const int64_t *index, const float *coefficient, int64_t n_rows,
                            int64_t cols, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->scatter_rows_add(backend, x, rows, index, coefficient, n_rows, cols, err);
    return end(backend, r, (4 + 2 * act(backend)) * (double)(n_rows * cols), "scatter rows");
}

static int head(struct ha_backend *backend, const struct ha_head *shape, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->head(backend, shape, err);
    return end(backend, r, 0, "head%s", shape->dhidden ? " and gradient" : "");
}

static int logits(struct ha_backend *backend, float *out, const void *hidden,
                  const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                  struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->logits(backend, out, hidden, weight, n_rows, hidden_stride, err);
    return end(backend, r, 0, "logits");
}

static int decode_attention(struct ha_backend *backend, void *out, const void *q,
                            const struct ha_decode_attention *shape, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->decode_attention(backend, out, q, shape, err);
    return end(backend, r, 0, "attention to the cache");
}

static int kv_append(struct ha_backend *backend, const struct ha_kv_rows *caches,
                     const int32_t *positions, int64_t layer, const void *k, const void *v,
                     int64_t n_rows, int64_t width, int64_t stride, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->kv_append(backend, caches, positions, layer, k, v, n_rows, width, stride, err);
    return end(backend, r, 4 * act(backend) * (double)(n_rows * width), "new keys and values");
}

static int sample(struct ha_backend *backend, const struct ha_sample *call, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->sample(backend, call, err);
    return end(backend, r, 4 * (double)call->n_rows * (double)call->vocab, "draw");
}

static int sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                          struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->sum_of_squares(backend, sum, x, n, err);
    return end(backend, r, 4 * (double)n, "gradient norm");
}

static int adamw(struct ha_backend *backend, float *param, float *m, float *v, const float *grad,
                 int64_t n, const double *grad_square_sum, const struct ha_adamw *settings,
                 struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real->adamw(backend, param, m, v, grad, n, grad_square_sum, settings, err);
    return end(backend, r, 28 * (double)n, "AdamW");
}

/* ---- of the backend's table ---- */

static int copy(struct ha_backend *backend, void *to, const void *from, size_t bytes,
                struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real_table->copy(backend, to, from, bytes, err);
    return end(backend, r, 2 * (double)bytes, "copy");
}

static int zero(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real_table->zero(backend, memory, bytes, err);
    return end(backend, r, (double)bytes, "zero");
}

static int upload(struct ha_backend *backend, void *memory, const void *host, size_t bytes,
                  struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real_table->upload(backend, memory, host, bytes, err);
    return end(backend, r, (double)bytes, "upload");
}

static int download(struct ha_backend *backend, void *host, const void *memory, size_t bytes,
                    struct ha_error *err)
{
    int r;

    begin(backend);
    r = trace.real_table->download(backend, host, memory, bytes, err);
    return end(backend, r, (double)bytes, "download");
}

/* What is not named here runs untraced. */
void trace_install(struct ha_backend *backend)
{
    trace.real = backend->ops;
    trace.real_table = backend->table;
    trace.ops = *backend->ops;
    trace.table = *backend->table;
    trace.ops.gemm = gemm;
    trace.ops.add_bias = add_bias;
    trace.ops.embed_forward = embed_forward;
    trace.ops.rmsnorm_forward = rmsnorm_forward;
    trace.ops.rmsnorm_backward = rmsnorm_backward;
    trace.ops.rope = rope;
    trace.ops.attention_forward = attention_forward;
    trace.ops.attention_backward = attention_backward;
    trace.ops.swiglu_forward = swiglu_forward;
    trace.ops.swiglu_backward = swiglu_backward;
    trace.ops.dropout = dropout;
    trace.ops.gather_rows = gather_rows;
    trace.ops.scatter_rows_add = scatter_rows_add;
    trace.ops.head = head;
    trace.ops.logits = logits;
    trace.ops.kv_append = kv_append;
    trace.ops.decode_attention = decode_attention;
    trace.ops.sample = sample;
    trace.ops.sum_of_squares = sum_of_squares;
    trace.ops.adamw = adamw;
    trace.table.copy = copy;
    trace.table.zero = zero;
    trace.table.upload = upload;
    trace.table.download = download;
    backend->ops = &trace.ops;
    backend->table = &trace.table;
}

void trace_start(void)
{
    trace.n_kinds = 0;
    memset(trace.kinds, 0, sizeof(trace.kinds));
    trace.on = true;
}

void trace_stop(void)
{
    trace.on = false;
}

static int by_loss(const void *a, const void *b)
{
    const struct kind *x = a, *y = b;
    double difference = (y->ms - y->floor_ms) - (x->ms - x->floor_ms);

    return (difference > 0) - (difference < 0);
}

static void print_kind(const struct kind *kind, double sum)
{
    printf("  %-36s %6lld %10.3f %5.1f%% %9.1f %9.2f %10.3f %8.0f%%\n", kind->name,
           (long long)kind->calls, kind->ms, 100 * kind->ms / sum, kind->bytes / kind->ms * 1e-6,
           kind->flops / kind->ms * 1e-9, kind->floor_ms, 100 * kind->floor_ms / kind->ms);
}

void trace_print(const char *what, double untraced_ms, const struct trace_rates *rates)
{
    struct kind rest = {.name = "the rest, under 0.2 % each"};
    double sum = 0, floor = 0;

    for (int i = 0; i < trace.n_kinds; i++) {
        struct kind *kind = &trace.kinds[i];
        double bytes = kind->bytes / rates->bytes_per_ms, flops = kind->flops / rates->flops_per_ms;

        kind->floor_ms = bytes > flops ? bytes : flops;
        sum += kind->ms;
        floor += kind->floor_ms;
    }
    qsort(trace.kinds, (size_t)trace.n_kinds, sizeof(trace.kinds[0]), by_loss);
    printf("%s: %.2f ms, traced %.2f ms, floor %.2f ms\n", what, untraced_ms, sum, floor);
    printf("  %-36s %6s %10s %6s %9s %9s %10s %9s\n", "operation", "calls", "ms", "share", "GB/s",
           "TFLOP/s", "floor ms", "of floor");
    for (int i = 0; i < trace.n_kinds; i++) {
        const struct kind *kind = &trace.kinds[i];

        if (kind->ms < sum * SMALL && kind->ms - kind->floor_ms < sum * SMALL)
            rest.ms += kind->ms, rest.calls += kind->calls, rest.bytes += kind->bytes,
                rest.flops += kind->flops, rest.floor_ms += kind->floor_ms;
        else
            print_kind(kind, sum);
    }
    if (rest.calls > 0)
        print_kind(&rest, sum);
}
