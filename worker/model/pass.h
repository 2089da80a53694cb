/* pass.h - the working memory of a pass, for this folder only
 *
 * One arena, laid out by lay_out in pass.c.  T = max_tokens, N = max_rows,
 * S = layers that are trained (n_layers - lowest_layer), R = those of them that
 * are run again in the backward pass.
 *
 * Residual stream: x[0] serves all layers below lowest_layer in place and then
 * holds the input of layer lowest_layer; x[i + 1] is the output of layer
 * lowest_layer + i; x[S] enters the final norm.
 *
 * There are S - R kept sets (one even if S = 0).  Layers below lowest_layer + R
 * share the set of layer lowest_layer + R as scratch: that one is the last to run
 * forward, so it finds its own there, and the others are run again into it when
 * the backward pass comes to them. */
#ifndef HA_WORKER_MODEL_PASS_H
#define HA_WORKER_MODEL_PASS_H

#include <stdint.h>

#include "worker/model/layer.h"
#include "worker/model/model.h"

/* What the backward pass of a layer reads. */
struct ha_pass_kept {
    void *mid;                   /* act (T, H): residual stream after attention; NULL if S = 0 */
    void *q, *k;                 /* act (T, heads * D), as all q, k, v with the pass's strides:
                                    before QK-norm where the model has it, else rotated */
    void *v;                     /* act (T, n_kv_heads * D) */
    void *attention;             /* act (T, n_heads * D), with the pass's stride */
    float *logsumexp;            /* (n_heads, T) */
    float *rstd, *post_rstd;     /* (T) */
    float *q_rstd, *k_rstd;      /* (T * heads), or NULL */
    void *gate, *up;             /* act (T, inner) */
    void *lora[HA_MODULE_COUNT]; /* act (T, max rank): A x of each module, but of those that always
                                    fit LoRA's columns */
    void *lora_qkv; /* act (T, C): LoRA's columns of the norm's output; NULL if C = 0 */
};

struct ha_pass {
    struct ha_model *model;
    struct ha_backend *backend;
    const struct ha_ops *ops;
    const struct ha_model_config *config;
    struct ha_pass_limits limits;
    enum ha_dtype act;
    struct ha_layer_strides strides;
    void *arena;

    int32_t *ids, *positions;        /* device (T) */
    int32_t *targets;                /* device (N) */
    void **x;                        /* host (S + 1) of act (T, H) */
    struct ha_pass_kept *kept;       /* host (max(S - R, 1)) */
    void *norm;                      /* act (T, H), with the pass's stride */
    void *lora_a;                    /* act (C, widest input of q, k, v, o); NULL if C = 0 */
    struct ha_layer_dropout dropout; /* of the pack in work; its memory NULL without */
    uint32_t *places;                /* device (T, 2): where each token's masks begin */
    void *inner;                     /* act (T, inner): silu(gate) * up, then its gradient */
    void *q_rotated, *k_rotated;     /* act (T, heads * D); NULL without QK-norm */
    float *final_rstd;               /* (T) */

    void *rows;   /* act (N, H): final hidden states of the rows */
    float *drows; /* f32 (N, H): d logp / d rows; NULL without a backward pass */
    float *logp, *entropy, *mean_logit; /* (N); the last two and argmax NULL without statistics */
    float *logsumexp, *logsumexp2;      /* (N); as entropy */
    int32_t *argmax;                    /* (N) */

    /* Backward only. */
    void *dx, *dnorm;   /* act (T, H); dnorm with the norm's stride */
    void *dq, *dk, *dv; /* act (T, heads * D) */
    void *dattention;   /* act (T, n_heads * D), with the attention's stride */
    void *dlora;        /* act (T, max rank) */

    struct ha_pass_rows host; /* (N) each; host memory */
    uint32_t *host_places;    /* (T, 2); NULL without dropout */

    /* The pack in work. */
    const struct ha_pack *pack;
    const float *cos_sin;
    int64_t border;    /* the next layer to run; -1 before embed */
    bool has_gradient; /* the head kept drows */
    bool drops;        /* `dropout` is on for this pack */
};

/* The input of layer `border`, or of the final norm. */
void *ha_pass_x(const struct ha_pass *pass, int64_t border);

/* The kept set that a layer uses. */
struct ha_pass_kept *ha_pass_kept(const struct ha_pass *pass, int64_t layer);

/* Run a layer again from its input, up to what its backward pass reads, where
 * its kept set was taken by others (nothing where it was not). */
int ha_pass_recompute(const struct ha_pass *pass, const struct ha_adapter *adapter, int64_t layer,
                      struct ha_error *err);

struct ha_layer_context ha_pass_context(const struct ha_pass *pass,
                                        const struct ha_adapter *adapter, int64_t layer);

struct ha_attention ha_pass_attention(const struct ha_pass *pass);

/* Bytes of the pack's (n_tokens, cols) activations. */
size_t ha_pass_act_bytes(const struct ha_pass *pass, int64_t cols);

#endif
