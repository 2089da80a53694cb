/* ops.h - the numeric operations every backend offers
 *
 * Shapes: T tokens of a pack, H hidden width, V vocabulary rows, N rows, D head
 * width.  Row-major, last dimension contiguous; a stride counts elements from
 * one row to the next.  Activations ("act") have the backend's activation type,
 * statistics, losses and LoRA masters are f32, sums over pairs are double.
 * Weights are f32, bf16 or f16 as their view says; the arithmetic of a product
 * accumulates in f32.
 *
 * Outputs come first, then saved statistics, inputs, sizes.  Each pointer says
 * "=" (set) or "+=" (accumulated).  Outputs may not overlap inputs unless said.
 * Pointers belong to the backend's device; sizes of 0 are legal and do nothing.
 * Every entry returns 0 or a negative errno with a text.
 *
 * NaN and infinity are data, computed with as IEEE 754 has it: they show in the
 * results that are computed from them (an infinite norm or score may leave 0 of
 * its neighbours) and change no bit of another row, segment or sequence.  No entry
 * refuses them or turns a NaN into a number; argmax passes over NaN, and is 0
 * where there is nothing else.
 *
 * Results do not depend on the number of threads: work is cut into fixed tiles
 * and reductions run in a fixed order.  A row's (a segment's, a sequence's) do not depend
 * on the others of the call, but for rows of a product on a GPU, whose bits may change with
 * the number of rows unless they are kept separate (backend.h). */
#ifndef HA_KERNELS_OPS_H
#define HA_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

/* A view of a matrix in device memory. */
struct ha_matrix {
    void *data; /* (rows, cols) */
    enum ha_dtype dtype;
    int64_t rows, cols;
    int64_t stride; /* elements between rows, >= cols */
};

/* A run of tokens that attend causally to each other and, before that, to all
 * of one earlier run: the prompt that chosen and rejected answers share.  All
 * tokens of a pack belong to exactly one segment, segments lie in token order;
 * a prefix lies inside one earlier segment; a segment of length 0 is legal. */
struct ha_segment {
    int64_t begin, length;               /* tokens of this segment in the pack */
    int64_t prefix_begin, prefix_length; /* tokens seen in full by each; length 0: none */
};

/* q, k, v, out and their gradients of one layer; heads lie side by side in a
 * row: head h of token t starts at t * stride + h * D. */
struct ha_attention {
    int64_t n_tokens;   /* T */
    int64_t n_heads;    /* query heads */
    int64_t n_kv_heads; /* divides n_heads; query head h reads kv head h / (n_heads / n_kv_heads) */
    int64_t head_dim;   /* D */
    float scale;        /* D^-0.5 */
    int64_t q_stride, k_stride, v_stride, out_stride;
    const struct ha_segment *segments; /* host memory */
    int64_t n_segments;
};

/* One pass over the output head for N rows of final hidden states. */
struct ha_head {
    const void *hidden; /* act (N, H), rows hidden_stride apart */
    int64_t hidden_stride;
    struct ha_matrix weight; /* (V, H) */
    const int32_t *targets;  /* (N) ids in [0, V), device memory */
    int64_t n_rows, width;   /* N, H */
    bool round_logits_bf16;  /* round logits to bf16 before the f32 log-softmax */
    float *logp;             /* (N) =  log softmax(z)[target] */
    float *logsumexp;        /* (N) =  or NULL */
    float *entropy;          /* (N) =  -sum p log p, or NULL */
    float *mean_logit;       /* (N) =  or NULL */
    float *logsumexp2;       /* (N) =  logsumexp(2 z), or NULL */
    int32_t *argmax;         /* (N) =  first largest logit, or NULL */
    float *dhidden;          /* (N, H) f32 = d logp / d hidden = (onehot - p) W, or NULL */
};

/* Dropout whose mask is a function of addresses alone, so that it is never stored: element j of
 * row i is kept where word j % 4 of Philox4x32-10 (common/base/rng_philox.h) with
 *     key     = seed, its low word first
 *     counter = places[2 i], places[2 i + 1], stream, HA_PHILOX_DROPOUT + 256 * (j / 4)
 * is at least p * 2^32, rounded to a whole number. */
struct ha_dropout {
    double p; /* the share that is dropped, [0, 1) */
    uint64_t seed;
    uint32_t stream;        /* what all rows of a call have in common */
    const uint32_t *places; /* device memory (N, 2) */
};

enum { HA_DROPOUT_MAX_COLS = 1 << 26 };

/* One of the LoRA modules whose outputs a product makes side by side. */
struct ha_lora_part {
    const float *a, *b; /* f32 (rank, in) and (out, rank); both NULL: not adapted, with rank 0 */
    int64_t rank, out;
};

enum { HA_LORA_MAX_PARTS = 3 };

/* What LoRA adds to a product y = x W^T of an input and a weight that have C columns more:
 * with x's columns u = x A^T and W's columns B it is y = x W^T + u B^T.  Part p has the rows of W
 * behind those of the parts before it, and the columns behind theirs, so that B is block-diagonal
 * with scale * b; what no part has is 0.  A holds the parts' a below each other, then zeros. */
struct ha_lora_columns {
    struct ha_matrix b; /* act (sum of the parts' out, C) = */
    struct ha_matrix a; /* act (C, in) = */
    float scale;
    struct ha_lora_part parts[HA_LORA_MAX_PARTS]; /* ranks sum up to C at most */
    int n_parts;
};

/* Doubles, as torch keeps them: a float's 0.999 would put 1e-5 of error into 1 - beta2. */
struct ha_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    double max_grad_norm; /* clip to this L2 norm; 0 = no clipping */
    int64_t step;         /* 1 for the first */
};

/* Where keys and values of a sequence are kept, those of all layers: of position p of layer l they
 * begin l * layer_stride + p * n_kv_heads * D elements behind k and v.  k, v and the layers behind
 * them begin at a multiple of 16 bytes wherever a row of n_kv_heads * D elements is one. */
struct ha_kv_rows {
    void *k, *v; /* act */
    int64_t layer_stride;
};

/* One query of each of N sequences over its own keys and values.  A position that is not in
 * [0, max_keys) is refused where the backend's memory is the host's; elsewhere the row is lost. */
struct ha_decode_attention {
    int64_t n_rows; /* N */
    int64_t n_heads, n_kv_heads, head_dim;
    float scale;
    int64_t q_stride, out_stride;
    const struct ha_kv_rows *caches; /* device (N) */
    const int32_t *positions;        /* device (N), of the queries: keys up to it, it included */
    int64_t layer;
    int64_t
        max_keys;  /* above every position: what is launched and held, and no result, hangs on it */
    double n_keys; /* of all rows together, as far as the host knows: for the counts of work */
};

/* What one call of it is counted as. */
static inline double ha_decode_attention_flops(const struct ha_decode_attention *shape)
{
    return 4.0 * (double)shape->head_dim * (double)shape->n_heads * shape->n_keys;
}

static inline double ha_decode_attention_bytes(const struct ha_decode_attention *shape,
                                               enum ha_dtype act)
{
    return 2.0 * (double)shape->head_dim * (double)(act == HA_DTYPE_F32 ? 4 : 2) *
           ((double)shape->n_kv_heads * shape->n_keys +
            (double)shape->n_heads * (double)shape->n_rows);
}

/* How a sequence draws its tokens, and how far it has come; in device memory.
 *
 * A draw does what Transformers' generate() does, in its order: repetition penalty over the
 * distinct ids so far; no end token before min_new; then, unless greedy, temperature, top_k (ties
 * with the k-th largest are kept), top_p (the least likely are dropped while their share is not
 * above 1 - top_p, of equal ones those of lower ids first; the best stays), and a draw from what
 * is left.  Greedy takes the first largest.  The random number depends on (seed, item, n_new)
 * alone.  kernels/draw.h has the arithmetic: the token is a function of these and the logits,
 * the same on every backend. */
struct ha_draw {
    double top_p;      /* (0, 1]; 1: all */
    float temperature; /* 0: greedy, else > 0 */
    float penalty;     /* > 0; 1: none */
    int32_t top_k;     /* 0: all */
    int32_t min_new, max_new;
    int32_t n_eos;
    const int32_t *eos; /* device (n_eos); ids that end the sequence */
    uint64_t seed, item;
    uint32_t *seen;  /* device, bit id % 32 of word id / 32: ids so far; NULL where penalty is 1 */
    int32_t n_new;   /* tokens drawn so far, end tokens not counted */
    int32_t n_drawn; /* of them, since the host set it to 0 */
    int32_t state;   /* enum ha_draw_state */
};

/* Diverged: the logits hold a NaN or an infinity, or nothing that can be drawn. */
enum ha_draw_state { HA_DRAW_RUNNING, HA_DRAW_EOS, HA_DRAW_LENGTH, HA_DRAW_DIVERGED };

/* One draw for each of N sequences; those whose state is not RUNNING are left as they are. */
struct ha_sample {
    int64_t n_rows;        /* N */
    int64_t vocab;         /* V */
    const float *logits;   /* device (rows, V) */
    const int32_t *row;    /* device (N): the row of each; NULL: row i */
    struct ha_draw *draws; /* device (N) */
    int32_t *drawn;       /* device (N, drawn_stride): token n_drawn goes behind the earlier ones */
    int64_t drawn_stride; /* a sequence that has drawn so many draws no more */
    int32_t *ids;         /* device (N) = the token that was drawn, where it goes on; or NULL */
    int32_t *positions;   /* device (N) += 1 where it goes on; or NULL */
};

struct ha_ops {
    /* c = alpha * op(a) op(b) + beta * c.  op is transpose where said.  c f32 or act. */
    int (*gemm)(struct ha_backend *backend, const struct ha_matrix *c, const struct ha_matrix *a,
                bool transpose_a, const struct ha_matrix *b, bool transpose_b, float alpha,
                float beta, struct ha_error *err);

    /* rows of x += bias (cols). */
    int (*add_bias)(struct ha_backend *backend, void *x /* act (N, cols) += */, const void *bias,
                    enum ha_dtype bias_dtype, int64_t n_rows, int64_t cols, int64_t stride,
                    struct ha_error *err);

    /* out[t] = table[ids[t]]. */
    int (*embed_forward)(struct ha_backend *backend, void *out /* act (T, H) = */,
                         const struct ha_matrix *table /* (V, H) */,
                         const int32_t *ids /* device (T) */, int64_t n_tokens,
                         struct ha_error *err);

    /* out = x * rsqrt(mean(x^2) + eps) * w, over groups of `cols`: a row holds `groups`
     * groups side by side (1 for a hidden state, the number of heads for QK-norm).
     * out = x (in place) is allowed for the forward call. */
    int (*rmsnorm_forward)(struct ha_backend *backend, void *out /* act = */,
                           float *rstd /* (N * groups) =, or NULL */, const void *x /* act */,
                           const void *weight /* (cols) */, enum ha_dtype weight_dtype, float eps,
                           int64_t n_rows, int64_t groups, int64_t cols, int64_t out_stride,
                           int64_t x_stride, struct ha_error *err);

    /* dx (=, or += with accumulate); weight is frozen.  dx = dout is allowed. */
    int (*rmsnorm_backward)(struct ha_backend *backend, void *dx /* act */, const void *dout,
                            const void *x, const float *rstd, const void *weight,
                            enum ha_dtype weight_dtype, int64_t n_rows, int64_t groups,
                            int64_t cols, int64_t dx_stride, int64_t dout_stride, int64_t x_stride,
                            bool accumulate, struct ha_error *err);

    /* Rotate pairs (i, i + D/2) of each head in place by table row positions[t];
     * inverse = true rotates back (the backward pass). */
    int (*rope)(struct ha_backend *backend, void *x /* act (T, heads * D), in place */,
                const float *cos_sin /* (max_position, D): D/2 cosines, then D/2 sines */,
                const int32_t *positions /* device (T) */, int64_t n_tokens, int64_t n_heads,
                int64_t head_dim, int64_t stride, bool inverse, struct ha_error *err);

    /* Softmax attention over the segments; logsumexp (n_heads, T) is kept for the
     * backward pass, or NULL. */
    int (*attention_forward)(struct ha_backend *backend, void *out /* act = */, float *logsumexp,
                             const void *q, const void *k, const void *v,
                             const struct ha_attention *shape, struct ha_error *err);
    int (*attention_backward)(struct ha_backend *backend, void *dq /* = */, void *dk /* = */,
                              void *dv /* = */, const void *dout, const void *out,
                              const float *logsumexp, const void *q, const void *k, const void *v,
                              const struct ha_attention *shape, struct ha_error *err);

    /* out = silu(gate) * up, element by element over (N, cols), rows stride apart.  out
     * may be the memory of gate or up. */
    int (*swiglu_forward)(struct ha_backend *backend, void *out /* act (N, cols) = */,
                          const void *gate, const void *up, int64_t n_rows, int64_t cols,
                          int64_t out_stride, int64_t in_stride, struct ha_error *err);
    /* dgate and dup may be the memory of gate and up. */
    int (*swiglu_backward)(struct ha_backend *backend, void *dgate /* = */, void *dup /* = */,
                           const void *dout, const void *gate, const void *up, int64_t n_rows,
                           int64_t cols, int64_t out_stride, int64_t in_stride,
                           struct ha_error *err);

    /* out = x * mask, or out += x * mask with accumulate; the mask is 1 / (1 - p) where an element
     * is kept, else 0.  cols <= HA_DROPOUT_MAX_COLS.  out = x is allowed without accumulate.
     * The mask is its own derivative: the backward pass is the same call over gradients. */
    int (*dropout)(struct ha_backend *backend, void *out /* act (N, cols) */,
                   const void *x /* act */, const struct ha_dropout *dropout, int64_t n_rows,
                   int64_t cols, int64_t out_stride, int64_t x_stride, bool accumulate,
                   struct ha_error *err);

    /* Rounds the masters of an adapter to what one product of all takes. */
    int (*lora_columns)(struct ha_backend *backend, const struct ha_lora_columns *columns,
                        struct ha_error *err);

    /* out[i] = x[index[i]]. */
    int (*gather_rows)(struct ha_backend *backend, void *out /* act (N, cols) = */, const void *x,
                       const int64_t *index /* host (N) */, int64_t n_rows, int64_t cols,
                       struct ha_error *err);

    /* x[index[i]] += coefficient[i] * rows[i]; an index may appear twice; order of i. */
    int (*scatter_rows_add)(struct ha_backend *backend, void *x /* act (T, cols) += */,
                            const float *rows /* f32 (N, cols) */,
                            const int64_t *index /* host (N) */,
                            const float *coefficient /* host (N) */, int64_t n_rows, int64_t cols,
                            struct ha_error *err);

    /* Log-probabilities and the unscaled hidden gradient in one pass over the
     * vocabulary, cut into chunks of rows with whole vocabulary rows; no more than
     * one chunk of logits is held. */
    int (*head)(struct ha_backend *backend, const struct ha_head *head, struct ha_error *err);

    /* logits (N, V) f32 = hidden W^T: for generation. */
    int (*logits)(struct ha_backend *backend, float *logits, const void *hidden,
                  const struct ha_matrix *weight, int64_t n_rows, int64_t hidden_stride,
                  struct ha_error *err);

    /* The keys and values of position positions[i] in a layer of cache i = row i of k and v. */
    int (*kv_append)(struct ha_backend *backend, const struct ha_kv_rows *caches /* device (N) */,
                     const int32_t *positions /* device (N), >= 0 */, int64_t layer,
                     const void *k /* act (N, width) */, const void *v, int64_t n_rows,
                     int64_t width, int64_t stride, struct ha_error *err);

    /* out[i] = attention of query i over its cache. */
    int (*decode_attention)(struct ha_backend *backend, void *out /* act (N, heads * D) = */,
                            const void *q, const struct ha_decode_attention *shape,
                            struct ha_error *err);

    /* Draw the next token of each sequence; an id below 0 or from V on in eos is no token.
     * V <= HA_DRAW_MOST_IDS. */
    int (*sample)(struct ha_backend *backend, const struct ha_sample *sample, struct ha_error *err);

    /* *sum += sum of squares of n f32 values, in double. */
    int (*sum_of_squares)(struct ha_backend *backend, double *sum /* device, += */, const float *x,
                          int64_t n, struct ha_error *err);

    /* sum[i] += x[i], f32; they do not overlap. */
    int (*add)(struct ha_backend *backend, float *sum, const float *x, int64_t n,
               struct ha_error *err);

    /* One AdamW step with decoupled decay; eps is added after the bias-corrected root
     * (torch.optim.AdamW).  The gradient is multiplied by
     * min(1, max_grad_norm / (sqrt(*grad_square_sum) + 1e-6)) first. */
    int (*adamw)(struct ha_backend *backend, float *param, float *m, float *v, const float *grad,
                 int64_t n, const double *grad_square_sum /* device */,
                 const struct ha_adamw *settings, struct ha_error *err);
};

#endif
