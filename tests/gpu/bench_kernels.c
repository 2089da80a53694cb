/* Time of each kind of kernel on a GPU at the shapes of real models, against its floor: bytes over
 * the rate of a copy, or FLOPs over the rate of a large product, both measured here first.
 *
 *   bench_kernels [TOKENS]       one line per operation: model, name, ms, rate, share of the floor
 *   bench_kernels small          tiny shapes, to see that it runs
 *
 * The share says how much of the measured peak the operation reaches; 100 % is all. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/error.h"
#include "kernels/ops.h"

enum { REPEATS = 20, HEAD_ROWS = 1024, MOST_DRAWS = 128 };

/* A pair of hh-rlhf's mean lengths, and what a sequence holds in the middle of its answer. */
enum { PROMPT = 148, CHOSEN = 59, REJECTED = 75, CACHED = 276, SEQUENCES = 1000 };

struct model {
    const char *name;
    int64_t width, inner, q_width, kv_width, vocabulary, head_dim;
};

static const struct model models[] = {
    {"Llama-2-7B", 4096, 11008, 4096, 4096, 32000, 128},
    {"Llama-3.1-8B", 4096, 14336, 4096, 1024, 128256, 128},
    {"Qwen2.5-7B", 3584, 18944, 3584, 512, 152064, 128},
    {"Qwen3-8B", 4096, 12288, 4096, 1024, 151936, 128},
};
static const struct model small_model = {"small", 128, 320, 128, 64, 1000, 64};

/* Memory of one model's operations; all of it is filled with small numbers. */
struct bench {
    struct ha_backend *backend;
    const struct ha_ops *ops;
    struct model model;
    int64_t tokens, head_rows, sequences;
    struct ha_segment *segments; /* pairs that fill the tokens, prompts shared */
    int64_t n_segments;
    void *cache;
    struct ha_kv_rows *caches;                      /* device (sequences) */
    int32_t *cached;                                /* device (sequences): the last position */
    void *x, *y, *gate, *up, *weight, *head_weight; /* bf16 */
    void *wide, *param, *m, *v;                     /* f32 */
    void *dq, *dk, *dv;                             /* bf16 */
    float *logsumexp;
    void *rstd, *sum, *ids, *table, *logp;
    void *logits, *draws, *drawn; /* of the sequences */
    int64_t n_params;
    double bytes_per_ms, flops_per_ms;
};

static void need(int rc, const struct ha_error *err)
{
    if (rc < 0) {
        fprintf(stderr, "bench_kernels: %s\n", ha_error_text(err));
        exit(1);
    }
}

static double now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* n values of bf16, or of f32 where wide, that are neither zero nor alike. */
static void *filled(struct bench *b, int64_t n, bool wide)
{
    size_t bytes = (size_t)n * (wide ? 4 : 2);
    uint16_t *host = malloc(bytes);
    struct ha_error err = {0};
    uint32_t state = 1;
    void *memory = NULL;

    if (!host)
        need(ha_error_set(&err, ENOMEM, "no memory for %zu bytes", bytes), &err);
    for (size_t i = 0; i < bytes / 2; i++) {
        state = state * 1664525u + 1013904223u;
        host[i] = (uint16_t)(0x3c00u | (state >> 16 & 0x81ffu)); /* about +-0.01 as bf16 and f32 */
    }
    need(ha_backend_alloc(b->backend, bytes, &memory, &err), &err);
    need(ha_backend_upload(b->backend, memory, host, bytes, &err), &err);
    free(host);
    return memory;
}

static void *zeroed(struct bench *b, size_t bytes)
{
    struct ha_error err = {0};
    void *memory = NULL;

    need(ha_backend_alloc(b->backend, bytes, &memory, &err), &err);
    return memory;
}

typedef int (*operation)(struct bench *b, struct ha_error *err);

/* Milliseconds of one call, many on their way at once as in training. */
static double time_of(struct bench *b, operation op)
{
    struct ha_error err = {0};
    double best = 1e300;

    need(op(b, &err), &err);
    need(ha_backend_sync(b->backend, &err), &err);
    for (int round = 0; round < 3; round++) {
        double begin = now_ms(), ms;

        for (int i = 0; i < REPEATS; i++)
            need(op(b, &err), &err);
        need(ha_backend_sync(b->backend, &err), &err);
        ms = (now_ms() - begin) / REPEATS;
        best = ms < best ? ms : best;
    }
    return best;
}

static void report(struct bench *b, const char *name, operation op, double bytes, double flops)
{
    double ms = time_of(b, op);
    double floor = bytes / b->bytes_per_ms;

    if (flops / b->flops_per_ms > floor)
        floor = flops / b->flops_per_ms;
    printf("%-13s %-22s %9.4f ms %8.0f GB/s %8.1f TFLOP/s %5.0f %% of its floor\n", b->model.name,
           name, ms, bytes / ms * 1e-6, flops / ms * 1e-9, 100.0 * floor / ms);
    fflush(stdout);
}

static struct ha_matrix view(void *data, enum ha_dtype dtype, int64_t rows, int64_t cols)
{
    return (struct ha_matrix){data, dtype, rows, cols, cols};
}

/* ---- the operations ---- */

static int copy(struct bench *b, struct ha_error *err)
{
    return ha_backend_copy(b->backend, b->y, b->x, (size_t)(b->tokens * b->model.inner) * 2, err);
}

/* y (tokens, out) = x (tokens, in) W^T, or its backward dx = dy W. */
static int product(struct bench *b, int64_t out, int64_t in, bool backward, struct ha_error *err)
{
    struct ha_matrix w = view(b->weight, HA_DTYPE_BF16, out, in);
    struct ha_matrix x = view(b->x, HA_DTYPE_BF16, b->tokens, backward ? out : in);
    struct ha_matrix y = view(b->y, HA_DTYPE_BF16, b->tokens, backward ? in : out);

    return b->ops->gemm(b->backend, &y, &x, false, &w, !backward, 1.0f, 0.0f, err);
}

static int gate_product(struct bench *b, struct ha_error *err)
{
    return product(b, b->model.inner, b->model.width, false, err);
}

static int gate_backward(struct bench *b, struct ha_error *err)
{
    return product(b, b->model.inner, b->model.width, true, err);
}

static int down_product(struct bench *b, struct ha_error *err)
{
    return product(b, b->model.width, b->model.inner, false, err);
}

static int q_product(struct bench *b, struct ha_error *err)
{
    return product(b, b->model.q_width, b->model.width, false, err);
}

static int kv_product(struct bench *b, struct ha_error *err)
{
    return product(b, b->model.kv_width, b->model.width, false, err);
}

enum { RANK = 16, COLUMNS = 64 };

/* A x of LoRA: the f32 master is rounded to bf16 on the way. */
static int lora_down(struct bench *b, struct ha_error *err)
{
    struct ha_matrix a = view(b->wide, HA_DTYPE_F32, RANK, b->model.width);
    struct ha_matrix x = view(b->x, HA_DTYPE_BF16, b->tokens, b->model.width);
    struct ha_matrix y = view(b->gate, HA_DTYPE_BF16, b->tokens, RANK);

    return b->ops->gemm(b->backend, &y, &x, false, &a, true, 1.0f, 0.0f, err);
}

/* dA (rank, width) += u^T x, in f32. */
static int lora_gradient(struct bench *b, struct ha_error *err)
{
    struct ha_matrix da = view(b->param, HA_DTYPE_F32, RANK, b->model.width);
    struct ha_matrix x = view(b->x, HA_DTYPE_BF16, b->tokens, b->model.width);
    struct ha_matrix u = view(b->gate, HA_DTYPE_BF16, b->tokens, RANK);

    return b->ops->gemm(b->backend, &da, &u, true, &x, false, 1.0f, 1.0f, err);
}

/* ---- LoRA of q, k and v: within their product, and by products of its own ---- */

static int64_t qkv_width(const struct bench *b)
{
    return b->model.q_width + 2 * b->model.kv_width;
}

/* Rows of memory with room for the columns, as wide as `cols`. */
static struct ha_matrix roomy(const struct bench *b, void *data, int64_t rows, int64_t cols)
{
    struct ha_matrix m = view(data, HA_DTYPE_BF16, rows, cols);

    m.stride = b->model.width + COLUMNS;
    return m;
}

static struct ha_matrix columns_of(const struct bench *b, const struct ha_matrix *m)
{
    struct ha_matrix columns = *m;

    columns.data = (uint16_t *)m->data + b->model.width;
    columns.cols = COLUMNS;
    return columns;
}

/* The masters as columns of the weight, and as rows of A in dq. */
static int lora_columns(struct bench *b, struct ha_error *err)
{
    const int64_t outs[] = {b->model.q_width, b->model.kv_width, b->model.kv_width};
    struct ha_matrix w = roomy(b, b->weight, qkv_width(b), b->model.width);
    struct ha_lora_columns c = {.b = columns_of(b, &w),
                                .a = view(b->dq, HA_DTYPE_BF16, COLUMNS, b->model.width),
                                .scale = 2.0f,
                                .n_parts = 3};

    for (int i = 0; i < 3; i++)
        c.parts[i] = (struct ha_lora_part){b->wide, b->param, RANK, outs[i]};
    return b->ops->lora_columns(b->backend, &c, err);
}

/* All of the forward pass, or of the backward pass but dA and dB. */
static int lora_within(struct bench *b, bool backward, struct ha_error *err)
{
    struct ha_matrix w = roomy(b, b->weight, qkv_width(b), b->model.width + COLUMNS);
    struct ha_matrix x = roomy(b, b->x, b->tokens, b->model.width);
    struct ha_matrix a = view(b->dq, HA_DTYPE_BF16, COLUMNS, b->model.width);
    struct ha_matrix y = view(b->y, HA_DTYPE_BF16, b->tokens, qkv_width(b));
    struct ha_matrix u = columns_of(b, &x), wide = x;
    int rc = lora_columns(b, err);

    wide.cols += COLUMNS;
    if (rc == 0 && !backward)
        rc = b->ops->gemm(b->backend, &u, &x, false, &a, true, 1.0f, 0.0f, err);
    if (rc == 0)
        rc = backward ? b->ops->gemm(b->backend, &wide, &y, false, &w, false, 1.0f, 0.0f, err)
                      : b->ops->gemm(b->backend, &y, &wide, false, &w, true, 1.0f, 0.0f, err);
    if (rc == 0 && backward)
        rc = b->ops->gemm(b->backend, &x, &u, false, &a, false, 1.0f, 1.0f, err);
    return rc;
}

static int lora_apart(struct bench *b, bool backward, struct ha_error *err)
{
    const int64_t outs[] = {b->model.q_width, b->model.kv_width, b->model.kv_width};
    struct ha_matrix w = view(b->weight, HA_DTYPE_BF16, qkv_width(b), b->model.width);
    struct ha_matrix x = view(b->x, HA_DTYPE_BF16, b->tokens, b->model.width);
    struct ha_matrix y = view(b->y, HA_DTYPE_BF16, b->tokens, qkv_width(b)), part = y;
    struct ha_matrix u = view(b->gate, HA_DTYPE_BF16, b->tokens, RANK);
    struct ha_matrix a = view(b->wide, HA_DTYPE_F32, RANK, b->model.width);
    int rc = backward ? b->ops->gemm(b->backend, &x, &y, false, &w, false, 1.0f, 0.0f, err)
                      : b->ops->gemm(b->backend, &y, &x, false, &w, true, 1.0f, 0.0f, err);

    for (int i = 0; rc == 0 && i < 3; i++) {
        struct ha_matrix master = view(b->param, HA_DTYPE_F32, outs[i], RANK);

        part.cols = outs[i];
        rc = backward ? b->ops->gemm(b->backend, &u, &part, false, &master, false, 2.0f, 0.0f, err)
                      : b->ops->gemm(b->backend, &u, &x, false, &a, true, 1.0f, 0.0f, err);
        if (rc == 0)
            rc = backward
                     ? b->ops->gemm(b->backend, &x, &u, false, &a, false, 1.0f, 1.0f, err)
                     : b->ops->gemm(b->backend, &part, &u, false, &master, true, 2.0f, 1.0f, err);
        part.data = (uint16_t *)part.data + outs[i];
    }
    return rc;
}

static int lora_within_forward(struct bench *b, struct ha_error *err)
{
    return lora_within(b, false, err);
}

static int lora_within_backward(struct bench *b, struct ha_error *err)
{
    return lora_within(b, true, err);
}

static int lora_apart_forward(struct bench *b, struct ha_error *err)
{
    return lora_apart(b, false, err);
}

static int lora_apart_backward(struct bench *b, struct ha_error *err)
{
    return lora_apart(b, true, err);
}

/* The norm's output under the mask of a module; places of all tokens alike. */
static int dropout(struct bench *b, struct ha_error *err)
{
    struct ha_dropout d = {.p = 0.05, .seed = 42, .places = b->ids};
    int64_t w = b->model.width;

    return b->ops->dropout(b->backend, b->y, b->x, &d, b->tokens, w, w, w, false, err);
}

static int norm(struct bench *b, struct ha_error *err)
{
    int64_t w = b->model.width;

    return b->ops->rmsnorm_forward(b->backend, b->y, b->rstd, b->x, b->weight, HA_DTYPE_BF16, 1e-5f,
                                   b->tokens, 1, w, w, w, err);
}

static int norm_backward(struct bench *b, struct ha_error *err)
{
    int64_t w = b->model.width;

    return b->ops->rmsnorm_backward(b->backend, b->y, b->gate, b->x, b->rstd, b->weight,
                                    HA_DTYPE_BF16, b->tokens, 1, w, w, w, w, true, err);
}

static int rope(struct bench *b, struct ha_error *err)
{
    return b->ops->rope(b->backend, b->x, b->table, b->ids, b->tokens,
                        b->model.q_width / b->model.head_dim, b->model.head_dim, b->model.q_width,
                        false, err);
}

static int swiglu(struct bench *b, struct ha_error *err)
{
    int64_t n = b->model.inner;

    return b->ops->swiglu_forward(b->backend, b->y, b->gate, b->up, b->tokens, n, n, n, err);
}

static int swiglu_backward(struct bench *b, struct ha_error *err)
{
    int64_t n = b->model.inner;

    return b->ops->swiglu_backward(b->backend, b->gate, b->up, b->x, b->gate, b->up, b->tokens, n,
                                   n, n, err);
}

static int head_of(struct bench *b, int64_t n_rows, struct ha_error *err)
{
    struct ha_head h = {
        .hidden = b->x,
        .hidden_stride = b->model.width,
        .weight = view(b->head_weight, HA_DTYPE_BF16, b->model.vocabulary, b->model.width),
        .targets = b->ids,
        .n_rows = n_rows,
        .width = b->model.width,
        .round_logits_bf16 = true,
        .logp = b->logp,
        .dhidden = b->wide};

    return b->ops->head(b->backend, &h, err);
}

static int head(struct bench *b, struct ha_error *err)
{
    return head_of(b, b->head_rows, err);
}

/* As packs have them: no multiple of anything. */
static int64_t odd_rows(const struct bench *b)
{
    return b->head_rows - 3;
}

static int odd_head(struct bench *b, struct ha_error *err)
{
    return head_of(b, odd_rows(b), err);
}

/* q, k and v lie in x, gate and up; k and v of all sequences are one. */
static struct ha_attention attention_shape(const struct bench *b)
{
    const struct model *m = &b->model;

    return (struct ha_attention){.n_tokens = b->tokens,
                                 .n_heads = m->q_width / m->head_dim,
                                 .n_kv_heads = m->kv_width / m->head_dim,
                                 .head_dim = m->head_dim,
                                 .scale = 0.088f,
                                 .q_stride = m->q_width,
                                 .k_stride = m->kv_width,
                                 .v_stride = m->kv_width,
                                 .out_stride = m->q_width,
                                 .segments = b->segments,
                                 .n_segments = b->n_segments};
}

static int attention(struct bench *b, struct ha_error *err)
{
    struct ha_attention shape = attention_shape(b);

    return b->ops->attention_forward(b->backend, b->y, b->logsumexp, b->x, b->gate, b->up, &shape,
                                     err);
}

/* Gradients of q, k and v go to the weights' memory, dout is q. */
static int attention_backward(struct bench *b, struct ha_error *err)
{
    struct ha_attention shape = attention_shape(b);

    return b->ops->attention_backward(b->backend, b->dq, b->dk, b->dv, b->x, b->y, b->logsumexp,
                                      b->x, b->gate, b->up, &shape, err);
}

static int decode_attention(struct bench *b, struct ha_error *err)
{
    const struct model *m = &b->model;
    struct ha_decode_attention shape = {.n_rows = b->sequences,
                                        .n_heads = m->q_width / m->head_dim,
                                        .n_kv_heads = m->kv_width / m->head_dim,
                                        .head_dim = m->head_dim,
                                        .scale = 0.088f,
                                        .q_stride = m->q_width,
                                        .out_stride = m->q_width,
                                        .caches = b->caches,
                                        .positions = b->cached,
                                        .max_keys = CACHED,
                                        .n_keys = (double)b->sequences * CACHED};

    return b->ops->decode_attention(b->backend, b->y, b->x, &shape, err);
}

/* Each sequence's keys and values of a layer, which lie beside its queries. */
static int append(struct bench *b, struct ha_error *err)
{
    const struct model *m = &b->model;

    return b->ops->kv_append(b->backend, b->caches, b->cached, 0, b->x, b->x, b->sequences,
                             m->kv_width, m->q_width, err);
}

/* A token of each sequence, by the rules that lie in draws. */
static int sample(struct bench *b, struct ha_error *err)
{
    struct ha_sample call = {.n_rows = b->sequences,
                             .vocab = b->model.vocabulary,
                             .logits = b->logits,
                             .draws = b->draws,
                             .drawn = b->drawn,
                             .drawn_stride = MOST_DRAWS};

    return b->ops->sample(b->backend, &call, err);
}

static int squares(struct bench *b, struct ha_error *err)
{
    return b->ops->sum_of_squares(b->backend, b->sum, b->param, b->n_params, err);
}

static int adamw(struct bench *b, struct ha_error *err)
{
    struct ha_adamw settings = {1e-5, 0.9, 0.999, 1e-8, 0.01, 1.0, 1};

    return b->ops->adamw(b->backend, b->param, b->m, b->v, b->wide, b->n_params, b->sum, &settings,
                         err);
}

/* Operations and bytes as the backend counts them. */
static void report_counted(struct bench *b, const char *name, operation op)
{
    double flops = ha_backend_flops(b->backend), bytes = ha_backend_bytes_moved(b->backend);
    struct ha_error err = {0};

    need(op(b, &err), &err);
    flops = ha_backend_flops(b->backend) - flops;
    bytes = ha_backend_bytes_moved(b->backend) - bytes;
    report(b, name, op, bytes, flops);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Pairs side by side, the last cut off where the tokens end. */
static void lay_out_pairs(struct bench *b)
{
    static const int64_t lengths[] = {PROMPT, CHOSEN, REJECTED};
    int64_t at = 0, prompt = 0;

    b->segments = calloc((size_t)b->tokens, sizeof(*b->segments));
    b->n_segments = 0;
    for (int part = 0; b->segments && at < b->tokens; part = (part + 1) % 3) {
        struct ha_segment *segment = &b->segments[b->n_segments++];

        prompt = part == 0 ? at : prompt;
        *segment = (struct ha_segment){.begin = at, .length = lengths[part]};
        if (at + segment->length > b->tokens)
            segment->length = b->tokens - at;
        if (part > 0)
            segment->prefix_begin = prompt, segment->prefix_length = PROMPT;
        at += segment->length;
    }
}

static void *sent(struct bench *b, const void *host, size_t bytes)
{
    struct ha_error err = {0};
    void *block = zeroed(b, bytes);

    need(ha_backend_upload(b->backend, block, host, bytes, &err), &err);
    return block;
}

/* Every sequence has a cache of its own, keys and values in one. */
static void lay_out_caches(struct bench *b)
{
    int64_t bytes = 2 * b->model.kv_width * CACHED;
    struct ha_kv_rows *caches = calloc((size_t)b->sequences, sizeof(*caches));
    int32_t *cached = calloc((size_t)b->sequences, sizeof(*cached));

    if (!caches || !cached)
        need(-1, &(struct ha_error){.text = "no memory"});
    b->cache = zeroed(b, (size_t)(b->sequences * bytes));
    for (int64_t i = 0; caches && cached && i < b->sequences; i++) {
        void *own = (char *)b->cache + i * bytes;

        caches[i] = (struct ha_kv_rows){own, own, 0};
        cached[i] = CACHED - 1;
    }
    b->caches = sent(b, caches, (size_t)b->sequences * sizeof(*caches));
    b->cached = sent(b, cached, (size_t)b->sequences * sizeof(*cached));
    free(caches);
    free(cached);
}

/* Rules for all sequences, which have drawn nothing yet. */
static void set_draws(struct bench *b, float temperature, double top_p)
{
    struct ha_draw *draws = calloc((size_t)b->sequences, sizeof(*draws));
    struct ha_error err = {.text = "no memory"};

    need(draws ? 0 : -1, &err);
    for (int64_t i = 0; draws && i < b->sequences; i++)
        draws[i] = (struct ha_draw){.top_p = top_p,
                                    .temperature = temperature,
                                    .penalty = 1.0f,
                                    .max_new = INT32_MAX,
                                    .item = (uint64_t)i};
    need(
        ha_backend_upload(b->backend, b->draws, draws, (size_t)b->sequences * sizeof(*draws), &err),
        &err);
    free(draws);
}

static void allocate(struct bench *b)
{
    const struct model *m = &b->model;
    int64_t qkv = qkv_width(b), n = b->tokens * larger(m->inner, qkv);

    b->n_params = b->tokens > 1000 ? 13600000 : 4096;
    b->x = filled(b, n, false);
    b->y = filled(b, n, false);
    b->gate = filled(b, n, false);
    b->up = filled(b, n, false);
    b->weight = filled(b, larger(m->inner * m->width, qkv * (m->width + COLUMNS)), false);
    b->head_weight = filled(b, m->vocabulary * m->width, false);
    b->wide =
        filled(b, larger(larger(b->n_params, b->head_rows * m->width), RANK * m->width), true);
    b->param = filled(b, larger(b->n_params, RANK * larger(m->width, qkv)), true);
    b->m = zeroed(b, (size_t)b->n_params * 4);
    b->v = zeroed(b, (size_t)b->n_params * 4);
    b->rstd = zeroed(b, (size_t)b->tokens * 4);
    b->sum = zeroed(b, sizeof(double));
    b->ids = zeroed(b, (size_t)larger(2 * b->tokens, b->head_rows) * 4);
    b->table = filled(b, m->head_dim, true);
    b->logp = zeroed(b, (size_t)b->head_rows * 4);
    b->dq = zeroed(b, (size_t)(larger(b->tokens * m->q_width, COLUMNS * m->width)) * 2);
    b->dk = zeroed(b, (size_t)(b->tokens * m->kv_width) * 2);
    b->dv = zeroed(b, (size_t)(b->tokens * m->kv_width) * 2);
    b->logsumexp = zeroed(b, (size_t)(b->tokens * m->q_width / m->head_dim) * 4);
    b->logits = filled(b, b->sequences * m->vocabulary, true);
    b->draws = zeroed(b, (size_t)b->sequences * sizeof(struct ha_draw));
    b->drawn = zeroed(b, (size_t)(b->sequences * MOST_DRAWS) * 4);
    lay_out_pairs(b);
    lay_out_caches(b);
    if (!b->segments)
        need(-1, &(struct ha_error){.text = "no memory"});
}

static void release(struct bench *b)
{
    void *all[] = {b->x,      b->y,      b->gate,  b->up,   b->weight,    b->head_weight, b->wide,
                   b->param,  b->m,      b->v,     b->rstd, b->sum,       b->ids,         b->table,
                   b->logp,   b->dq,     b->dk,    b->dv,   b->logsumexp, b->cache,       b->caches,
                   b->cached, b->logits, b->draws, b->drawn};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ha_backend_free(b->backend, all[i]);
    free(b->segments);
}

/* Products of a decoding step as they are chosen by the number of rows, and with separate rows
 * (generate.batch_invariant). */
static void report_rows(struct bench *b, int64_t rows)
{
    const struct model *m = &b->model;
    const struct {
        const char *name;
        operation op;
        int64_t out, in;
        double weight_bytes;
    } products[] = {{"gate_proj", gate_product, m->inner, m->width, 2.0},
                    {"down_proj", down_product, m->width, m->inner, 2.0},
                    {"q_proj", q_product, m->q_width, m->width, 2.0},
                    {"LoRA A x", lora_down, RANK, m->width, 4.0}};
    int64_t tokens = b->tokens;

    b->tokens = rows < tokens ? rows : tokens;
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
        for (int separate = 0; separate < 2; separate++) {
            double n = (double)b->tokens, out = (double)products[i].out,
                   in = (double)products[i].in;
            char name[32];

            (void)snprintf(name, sizeof(name), "%s %lld %s", products[i].name, (long long)b->tokens,
                           separate ? "separate" : "rows");
            ha_backend_separate_rows(b->backend, separate);
            report(b, name, products[i].op,
                   2 * n * (out + in) + products[i].weight_bytes * out * in, 2 * n * out * in);
        }
    ha_backend_separate_rows(b->backend, false);
    b->tokens = tokens;
}

static void run_model(struct bench *b)
{
    double t = (double)b->tokens, w = (double)b->model.width, inner = (double)b->model.inner;
    double q = (double)b->model.q_width, kv = (double)b->model.kv_width;
    double rows = (double)b->head_rows, vocabulary = (double)b->model.vocabulary;
    double n = (double)b->n_params, logits = 4.0 * (double)b->sequences * vocabulary;
    double qkv = (double)qkv_width(b), u = 3 * RANK;
    double lora_bytes = 2 * (t * w + t * qkv + w * qkv) + 4 * u * (w + qkv);
    double lora_flops = 2 * t * (w * qkv + u * (w + qkv));

    allocate(b);
    b->bytes_per_ms = 1.0, b->flops_per_ms = 1e300; /* until they are measured */
    b->bytes_per_ms = 4.0 * t * inner / time_of(b, copy);
    b->flops_per_ms = 2.0 * t * w * inner / time_of(b, gate_product);
    printf("%-13s a copy moves %.0f GB/s, gate_proj runs at %.1f TFLOP/s\n", b->model.name,
           b->bytes_per_ms * 1e-6, b->flops_per_ms * 1e-9);
    report(b, "gate_proj", gate_product, 2 * (t * w + t * inner + w * inner), 2 * t * w * inner);
    report(b, "gate_proj backward", gate_backward, 2 * (t * w + t * inner + w * inner),
           2 * t * w * inner);
    report(b, "down_proj", down_product, 2 * (t * w + t * inner + w * inner), 2 * t * w * inner);
    report(b, "q_proj", q_product, 2 * (t * w + t * q + w * q), 2 * t * w * q);
    report(b, "k_proj", kv_product, 2 * (t * w + t * kv + w * kv), 2 * t * w * kv);
    report(b, "LoRA A x", lora_down, 2 * (t * w + t * RANK) + 4 * RANK * w, 2 * t * w * RANK);
    report_rows(b, 16);
    report_rows(b, 500);
    report(b, "LoRA dA", lora_gradient, 2 * (t * w + t * RANK) + 8 * RANK * w, 2 * t * w * RANK);
    /* Each against the bytes that have to be moved and the products that have to be made. */
    report(b, "LoRA columns", lora_columns, 4 * u * (w + qkv) + 2 * COLUMNS * (w + qkv), 0);
    report(b, "qkv, LoRA within", lora_within_forward, lora_bytes, lora_flops);
    report(b, "qkv, LoRA apart", lora_apart_forward, lora_bytes, lora_flops);
    report(b, "qkv backward, within", lora_within_backward, lora_bytes, lora_flops);
    report(b, "qkv backward, apart", lora_apart_backward, lora_bytes, lora_flops);
    report(b, "dropout", dropout, 4 * t * w, 0);
    report(b, "rmsnorm", norm, 4 * t * w, 0);
    report(b, "rmsnorm backward", norm_backward, 8 * t * w, 0);
    report(b, "rope", rope, 4 * t * q, 0);
    report_counted(b, "attention", attention);
    report_counted(b, "attention backward", attention_backward);
    report_counted(b, "attention to the cache", decode_attention);
    report(b, "new keys and values", append, 8.0 * (double)b->sequences * kv, 0);
    set_draws(b, 0.0f, 1.0);
    report(b, "draw, greedy", sample, logits, 0);
    set_draws(b, 1.0f, 0.95);
    report(b, "draw, top-p", sample, logits, 0);
    report(b, "swiglu", swiglu, 6 * t * inner, 0);
    report(b, "swiglu backward", swiglu_backward, 10 * t * inner, 0);
    report(b, "head and gradient", head, 2 * vocabulary * w + 10 * rows * vocabulary,
           4 * rows * vocabulary * w);
    rows = (double)odd_rows(b);
    report(b, "head, odd rows", odd_head, 2 * vocabulary * w + 10 * rows * vocabulary,
           4 * rows * vocabulary * w);
    report(b, "sum of squares", squares, 4 * n, 0);
    report(b, "adamw", adamw, 28 * n, 0);
    release(b);
}

int main(int argc, char **argv)
{
    bool small = argc > 1 && strcmp(argv[1], "small") == 0;
    struct bench b = {.tokens = small      ? 24
                                : argc > 1 ? strtoll(argv[1], NULL, 10)
                                           : 8192,
                      .head_rows = small ? 8 : HEAD_ROWS,
                      .sequences = small ? 3 : SEQUENCES};
    struct ha_backend_options options = {"cuda", 0, 0, 0};
    struct ha_error err = {0};

    if (b.tokens < 1) {
        fprintf(stderr, "usage: bench_kernels [TOKENS | small]\n");
        return 2;
    }
    if (ha_backend_open(&options, &b.backend, &err) < 0) {
        printf("skipped: %s\n", ha_error_text(&err));
        return 77;
    }
    b.ops = ha_backend_ops(b.backend);
    ha_backend_time_choices(b.backend, true);
    printf("%s; %lld tokens, %lld rows in the head\n", ha_backend_description(b.backend),
           (long long)b.tokens, (long long)b.head_rows);
    for (size_t i = 0; i < (small ? 1 : sizeof(models) / sizeof(models[0])); i++) {
        b.model = small ? small_model : models[i];
        run_model(&b);
    }
    ha_backend_close(b.backend);
    return 0;
}
