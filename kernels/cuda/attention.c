/* attention.c - attention over segments and over caches: checks, lists of tiles, launches */
#include "kernels/cuda/attention_launch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

#include "common/base/error.h"
#include "kernels/cuda/cuda.h"
#include "kernels/segments.h"

static bool tensor_width(int64_t head_dim)
{
    return head_dim == 64 || head_dim == 96 || head_dim == 128;
}

/* May rows be moved 16 bytes at a time? */
static bool whole(const void *address, int64_t stride)
{
    return (uintptr_t)address % 16 == 0 && stride % 8 == 0;
}

static int check_sizes(const char *what, int64_t n_heads, int64_t n_kv_heads, int64_t head_dim,
                       struct ha_error *err)
{
    if (n_heads < 1 || n_kv_heads < 1 || n_heads % n_kv_heads != 0 || head_dim < 1)
        return ha_error_set(err, EINVAL,
                            "%s: %" PRId64 " heads, %" PRId64 " kv heads, width %" PRId64, what,
                            n_heads, n_kv_heads, head_dim);
    if (head_dim > HA_CUDA_ATTENTION_WIDEST)
        return ha_error_set(err, ENOTSUP,
                            "%s: heads of %" PRId64 " elements; CUDA is built for %d at most", what,
                            head_dim, HA_CUDA_ATTENTION_WIDEST);
    return 0;
}

/* Blocks of a launch: one dimension of the grid. */
static int check_blocks(const char *what, int64_t n, int64_t heads, struct ha_error *err)
{
    if (heads > INT32_MAX || n > INT32_MAX / heads)
        return ha_error_set(err, EINVAL, "%s: %" PRId64 " tiles of %" PRId64 " heads are too many",
                            what, n, heads);
    return 0;
}

/* ---- over segments ---- */

struct attention {
    struct ha_cuda *cuda;
    struct ha_cuda_attention_plan *plan;
    struct ha_cuda_attention call;
};

static int check_attention(const struct ha_cuda *cuda, const struct ha_attention *shape,
                           struct ha_error *err)
{
    int rc = check_sizes("attention", shape->n_heads, shape->n_kv_heads, shape->head_dim, err);

    if (rc == 0)
        rc = ha_attention_check(shape, err);
    if (rc < 0)
        return rc;
    if (cuda->base.activation_dtype != HA_DTYPE_BF16)
        return ha_error_set(err, ENOTSUP, "attention on CUDA is built for bf16 activations only");
    if (shape->n_tokens > INT32_MAX - 2 * HA_CUDA_ATTENTION_TILE)
        return ha_error_set(err, EINVAL, "attention: %" PRId64 " tokens in one pack are too many",
                            shape->n_tokens);
    return 0;
}

/* Make the plan and take it to the device. */
static int send_plan(struct attention *a, const struct ha_attention *shape, struct ha_error *err)
{
    struct ha_cuda_attention *call = &a->call;
    const void *block = NULL;
    int rc = ha_cuda_attention_plan_create(shape->segments, shape->n_segments, &a->plan, err);

    if (rc == 0)
        rc = check_blocks("attention", a->plan->n_query_tiles, shape->n_heads, err);
    if (rc == 0)
        rc = ha_cuda_arguments(a->cuda, a->plan->query_tiles, ha_cuda_attention_plan_bytes(a->plan),
                               &block, err);
    if (rc < 0)
        return rc;
    call->query_tiles = block;
    call->n_query_tiles = a->plan->n_query_tiles;
    call->key_tiles = (const void *)(call->query_tiles + a->plan->n_query_tiles);
    call->n_key_tiles = a->plan->n_key_tiles;
    call->ranges = (const void *)(call->key_tiles + a->plan->n_key_tiles);
    return 0;
}

static struct ha_cuda_attention call_of(const struct ha_attention *shape, const void *q,
                                        const void *k, const void *v)
{
    return (struct ha_cuda_attention){.q = q,
                                      .k = k,
                                      .v = v,
                                      .q_stride = shape->q_stride,
                                      .k_stride = shape->k_stride,
                                      .v_stride = shape->v_stride,
                                      .out_stride = shape->out_stride,
                                      .n_tokens = shape->n_tokens,
                                      .n_heads = (int32_t)shape->n_heads,
                                      .n_kv_heads = (int32_t)shape->n_kv_heads,
                                      .head_dim = (int32_t)shape->head_dim,
                                      .scale = shape->scale};
}

static bool on_tensor_cores(const struct ha_cuda_attention *call)
{
    return tensor_width(call->head_dim) && whole(call->q, call->q_stride) &&
           whole(call->k, call->k_stride) && whole(call->v, call->v_stride) &&
           whole(call->out, call->out_stride) && whole(call->dout, call->out_stride) &&
           whole(call->dq, call->q_stride) && whole(call->dk, call->k_stride) &&
           whole(call->dv, call->v_stride);
}

/* As the kernels read and write: q, k, v and the output. */
static double bytes_of(const struct ha_attention *shape)
{
    return 2.0 * (double)shape->n_tokens * (double)(shape->n_heads + shape->n_kv_heads) *
           (double)shape->head_dim * 2.0;
}

int ha_cuda_op_attention_forward(struct ha_backend *backend, void *out, float *logsumexp,
                                 const void *q, const void *k, const void *v,
                                 const struct ha_attention *shape, struct ha_error *err)
{
    struct attention a = {.cuda = ha_cuda_of(backend), .call = call_of(shape, q, k, v)};
    int rc = check_attention(a.cuda, shape, err);

    if (rc < 0 || shape->n_tokens == 0)
        return rc;
    a.call.out = out;
    a.call.logsumexp = logsumexp;
    rc = ha_cuda_enter(a.cuda, err);
    if (rc == 0)
        rc = send_plan(&a, shape, err);
    if (rc == 0)
        rc = ha_cuda_check(a.cuda,
                           on_tensor_cores(&a.call)
                               ? ha_cuda_launch_attention_forward(a.cuda->stream, &a.call)
                               : ha_cuda_launch_attention_plain_forward(a.cuda->stream, &a.call),
                           "attention forward", err);
    ha_cuda_attention_plan_destroy(a.plan);
    if (rc < 0)
        return rc;
    backend->flops +=
        4.0 * (double)shape->head_dim * (double)shape->n_heads * ha_attention_pairs(shape);
    backend->bytes_moved += bytes_of(shape);
    return 0;
}

int ha_cuda_op_attention_backward(struct ha_backend *backend, void *dq, void *dk, void *dv,
                                  const void *dout, const void *out, const float *logsumexp,
                                  const void *q, const void *k, const void *v,
                                  const struct ha_attention *shape, struct ha_error *err)
{
    struct attention a = {.cuda = ha_cuda_of(backend), .call = call_of(shape, q, k, v)};
    void *delta = NULL;
    int rc = check_attention(a.cuda, shape, err);

    if (rc < 0 || shape->n_tokens == 0)
        return rc;
    rc = ha_cuda_enter(a.cuda, err);
    if (rc == 0)
        rc = ha_cuda_scratch(a.cuda, HA_CUDA_SCRATCH_ATTENTION,
                             (size_t)shape->n_heads * (size_t)shape->n_tokens * sizeof(float),
                             &delta, err);
    if (rc == 0)
        rc = send_plan(&a, shape, err);
    a.call.out = (void *)(uintptr_t)out;
    a.call.logsumexp = (float *)(uintptr_t)logsumexp;
    a.call.dout = dout;
    a.call.delta = delta;
    a.call.dq = dq;
    a.call.dk = dk;
    a.call.dv = dv;
    if (rc == 0)
        rc = ha_cuda_check(a.cuda,
                           on_tensor_cores(&a.call)
                               ? ha_cuda_launch_attention_backward(a.cuda->stream, &a.call)
                               : ha_cuda_launch_attention_plain_backward(a.cuda->stream, &a.call),
                           "attention backward", err);
    ha_cuda_attention_plan_destroy(a.plan);
    if (rc < 0)
        return rc;
    /* What the gradients need; scores and dp are made twice here. */
    backend->flops +=
        10.0 * (double)shape->head_dim * (double)shape->n_heads * ha_attention_pairs(shape);
    backend->bytes_moved += 2.0 * bytes_of(shape);
    return 0;
}

/* ---- over caches ---- */

static int check_decode(const struct ha_cuda *cuda, const struct ha_decode_attention *shape,
                        struct ha_error *err)
{
    int rc =
        check_sizes("decode attention", shape->n_heads, shape->n_kv_heads, shape->head_dim, err);

    if (rc < 0)
        return rc;
    if (cuda->base.activation_dtype != HA_DTYPE_BF16)
        return ha_error_set(err, ENOTSUP,
                            "decode attention on CUDA is built for bf16 activations only");
    if (shape->max_keys < 1 && shape->n_rows > 0)
        return ha_error_set(err, EINVAL, "decode attention: sequences of %" PRId64 " keys",
                            shape->max_keys);
    return check_blocks("decode attention", shape->n_rows, shape->n_heads, err);
}

/* Few sequences leave much of the device idle: then each block does one chunk of a long one, where
 * there may be any. */
static int choose_splits(struct ha_cuda *cuda, struct ha_cuda_decode *call, int64_t blocks,
                         int64_t max_keys, struct ha_error *err)
{
    int64_t chunks = ha_cuda_ceil_div(max_keys, HA_CUDA_DECODE_CHUNK);
    void *partial = NULL;
    int rc;

    call->n_splits = 1;
    if (chunks == 1 || blocks >= 2 * (int64_t)cuda->processors || chunks > INT32_MAX / blocks)
        return 0;
    call->n_splits = (int32_t)chunks;
    rc = ha_cuda_scratch(cuda, HA_CUDA_SCRATCH_ATTENTION,
                         (size_t)ha_cuda_decode_partial(call) * sizeof(float), &partial, err);
    call->partial = partial;
    return rc;
}

int ha_cuda_op_decode_attention(struct ha_backend *backend, void *out, const void *q,
                                const struct ha_decode_attention *shape, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    struct ha_cuda_decode call = {.out = out,
                                  .q = q,
                                  .q_stride = shape->q_stride,
                                  .out_stride = shape->out_stride,
                                  .n_rows = shape->n_rows,
                                  .n_heads = (int32_t)shape->n_heads,
                                  .n_kv_heads = (int32_t)shape->n_kv_heads,
                                  .head_dim = (int32_t)shape->head_dim,
                                  .scale = shape->scale,
                                  .caches = shape->caches,
                                  .positions = shape->positions,
                                  .layer = shape->layer,
                                  .n_splits = 1};
    bool aligned =
        tensor_width(shape->head_dim) && whole(q, shape->q_stride) && whole(out, shape->out_stride);
    int rc = check_decode(cuda, shape, err);

    if (rc < 0 || shape->n_rows == 0)
        return rc;
    rc = ha_cuda_enter(cuda, err);
    if (rc == 0 && aligned)
        rc = choose_splits(
            cuda, &call,
            shape->n_rows * shape->n_kv_heads *
                ha_cuda_ceil_div(shape->n_heads / shape->n_kv_heads, HA_CUDA_DECODE_HEADS),
            shape->max_keys, err);
    if (rc == 0)
        rc = ha_cuda_check(cuda,
                           aligned ? ha_cuda_launch_decode(cuda->stream, &call)
                                   : ha_cuda_launch_decode_plain(cuda->stream, &call),
                           "decode attention", err);
    if (rc < 0)
        return rc;
    backend->flops += ha_decode_attention_flops(shape);
    backend->bytes_moved += ha_decode_attention_bytes(shape, HA_DTYPE_BF16);
    return 0;
}
