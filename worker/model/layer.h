/* layer.h - the pieces of one decoder layer, for this folder only
 *
 * forward.c chains them over packs, backward.c mirrors them, decode.c runs them
 * over one token per sequence with a KV cache.  All work on N rows of device
 * memory; H, D and the widths are the model's.  "act" is the backend's
 * activation type. */
#ifndef HA_WORKER_MODEL_LAYER_H
#define HA_WORKER_MODEL_LAYER_H

#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/arena.h"
#include "worker/model/model.h"

/* How q, k, v and gate, up of a row lie, in elements from one row to the next.  On a GPU (act is
 * bf16) those of a row stand side by side, k behind q and v behind k, up behind gate, so that one
 * product of joined weights can make them; on the CPU each has memory of its own. */
struct ha_layer_strides {
    bool joined;
    int64_t q, kv; /* kv: of k and of v */
    int64_t inner; /* of gate and of up */
    /* Of a norm's output and of the attention's; in a pass with the room behind them that LoRA's
     * columns take (below). */
    int64_t norm, attention;
};

struct ha_layer_strides ha_layer_strides_of(const struct ha_model_config *config,
                                            enum ha_dtype act);

/* Memory for `rows` rows of them; NULLs from an arena without a base.  ret_v may be NULL. */
void ha_layer_take_qkv(struct ha_arena *arena, const struct ha_model_config *config,
                       enum ha_dtype act, int64_t rows, void **ret_q, void **ret_k, void **ret_v);
void ha_layer_take_gate_up(struct ha_arena *arena, const struct ha_model_config *config,
                           enum ha_dtype act, int64_t rows, void **ret_gate, void **ret_up);

/* Rows [begin, begin + count) that use one adapter, or none (NULL). */
struct ha_layer_span {
    const struct ha_adapter *adapter;
    int64_t begin, count;
};

/* Dropout of the adapters' inputs. */
struct ha_layer_dropout {
    struct ha_dropout mask; /* its stream is the epoch's; layer and module are added to it */
    void *dropped; /* act (N, widest input): an input under its mask, or a gradient before it */
};

/* What every piece needs.  adapter may be NULL. */
struct ha_layer_context {
    struct ha_backend *backend;
    const struct ha_ops *ops;
    const struct ha_model_config *config;
    const struct ha_layer_weights *weights; /* of this layer */
    const struct ha_adapter *adapter;
    const struct ha_layer_span *spans; /* in place of adapter where rows use different ones */
    int64_t n_spans;
    const struct ha_layer_dropout *dropout; /* NULL: none; not with spans */
    int64_t layer;
    enum ha_dtype act;
    struct ha_layer_strides strides;
    const float *cos_sin;        /* ha_model_rope_table */
    const int32_t *positions;    /* device (N) */
    int64_t n_rows;              /* N */
    void *lora[HA_MODULE_COUNT]; /* act (N, rank) that A x goes to, kept for the backward pass
                                    where they differ; unused without an adapter */
    int64_t lora_columns;        /* C of the weights, where x has room too; 0: LoRA's products are
                                    made by themselves */
    void *lora_a;                /* act (C, widest input of q, k, v, o): A of the columns in work */
    void *lora_qkv;              /* act (N, C): those of the norm's output, kept */
};

/* A view of act memory; stride = cols. */
struct ha_matrix ha_layer_act(const struct ha_layer_context *context, const void *data,
                              int64_t rows, int64_t cols);

/* The same of a module's output among q, k, v, gate, up: with the stride that those have. */
struct ha_matrix ha_layer_out(const struct ha_layer_context *context, enum ha_module module,
                              const void *data);

/* The weight that makes the outputs of modules first..last at once, whose memory begins with that
 * of `first`; NULL data where they are made one by one. */
struct ha_matrix ha_layer_joined(const struct ha_layer_context *context, enum ha_module first,
                                 enum ha_module last);

/* ---- LoRA's columns ----
 *
 * Behind the weights of q, k, v and behind those of o lie C columns (weights.h), and as many behind
 * each row of what they multiply.  Where the layer's adapted modules of such a product fit, those
 * of the weight hold scale * B and those of x hold u = A x, so that the product makes
 * W x + scale B (A x); elsewhere both are 0, and the same product makes W x.  Nothing is remembered
 * of them: each product fills them before it runs. */

/* A view of a norm's output. */
struct ha_matrix ha_layer_normed(const struct ha_layer_context *context, const void *norm);
/* A view of the attention's output. */
struct ha_matrix ha_layer_attended(const struct ha_layer_context *context, const void *attention);

/* Has the product of modules first..last such columns? */
bool ha_layer_has_columns(const struct ha_layer_context *context, enum ha_module first,
                          enum ha_module last);

/* It has, and modules of it are adapted in this layer, which fit. */
bool ha_layer_columns_fit(const struct ha_layer_context *context, enum ha_module first,
                          enum ha_module last);

/* The columns behind a view, as a view. */
struct ha_matrix ha_layer_columns_of(const struct ha_layer_context *context,
                                     const struct ha_matrix *matrix);

/* The part of C columns (N, C), or of C rows of A (C, in), that a module has. */
struct ha_matrix ha_layer_column_part(const struct ha_layer_context *context, enum ha_module first,
                                      enum ha_module module, const struct ha_matrix *columns);
struct ha_matrix ha_layer_row_part(const struct ha_layer_context *context, enum ha_module first,
                                   enum ha_module module, const struct ha_matrix *a);

/* For modules that fit: columns of the weight = scale * B; ret_a a view of A in lora_a. */
int ha_layer_load_columns(const struct ha_layer_context *context, enum ha_module first,
                          enum ha_module last, const struct ha_matrix *weight,
                          struct ha_matrix *ret_a, struct ha_error *err);

/* Fill the columns of both, and make the views as wide as them. */
int ha_layer_widen(const struct ha_layer_context *context, enum ha_module first,
                   enum ha_module last, struct ha_matrix *weight, struct ha_matrix *x,
                   struct ha_error *err);

/* Where an adapter has this module in the context's layer; NULL: not. */
const struct ha_lora *ha_layer_lora_of(const struct ha_layer_context *context,
                                       const struct ha_adapter *adapter, enum ha_module module);

/* out (N, out) = beta * out + x W^T + bias, then += scale (x A^T) B^T, with x of the second
 * product under dropout.  beta is 0 or 1 (the
 * residual stream).  Row strides are the matrices' own. */
int ha_layer_linear(const struct ha_layer_context *context, enum ha_module module,
                    const struct ha_matrix *out, const struct ha_matrix *x, float beta,
                    struct ha_error *err);

/* norm = RMSNorm(x) with the layer's input (post = false) or post-attention weight;
 * rstd (N) may be NULL. */
int ha_layer_norm(const struct ha_layer_context *context, bool post, void *norm /* act (N, H) */,
                  float *rstd, const void *x /* act (N, H) */, struct ha_error *err);

/* q, k, v of the norm's output, before QK-norm and RoPE, with the context's strides. */
int ha_layer_qkv(const struct ha_layer_context *context, void *q /* act (N, n_heads * D) */,
                 void *k /* act (N, n_kv_heads * D) */, void *v /* act (N, n_kv_heads * D) */,
                 const void *norm, struct ha_error *err);

/* Its two parts. */
int ha_layer_q(const struct ha_layer_context *context, void *q, const void *norm,
               struct ha_error *err);
int ha_layer_kv(const struct ha_layer_context *context, void *k, void *v, const void *norm,
                struct ha_error *err);

/* QK-norm where the model has it, then RoPE: q_out, k_out from q, k, all with the context's
 * strides.  In place (q_out = q) is allowed, and what is done without QK-norm; the rstds
 * ((N * heads) each) may be NULL. */
int ha_layer_rotate(const struct ha_layer_context *context, void *q_out, void *k_out, float *q_rstd,
                    float *k_rstd, const void *q, const void *k, struct ha_error *err);

/* Its two parts. */
int ha_layer_rotate_q(const struct ha_layer_context *context, void *q_out, float *q_rstd,
                      const void *q, struct ha_error *err);
int ha_layer_rotate_k(const struct ha_layer_context *context, void *k_out, float *k_rstd,
                      const void *k, struct ha_error *err);

/* x += O(attention). */
int ha_layer_attention_out(const struct ha_layer_context *context, void *x /* act (N, H) += */,
                           const void *attention /* act (N, n_heads * D) */, struct ha_error *err);

/* gate and up of the norm's output, with the context's stride. */
int ha_layer_gate_up(const struct ha_layer_context *context, void *gate /* act (N, inner) */,
                     void *up /* act (N, inner) */, const void *norm, struct ha_error *err);

/* context->lora[module] = A x, as ha_layer_linear computes it; nothing where the
 * adapter has no such module. */
int ha_layer_lora_input(const struct ha_layer_context *context, enum ha_module module,
                        const struct ha_matrix *x, struct ha_error *err);

/* What a module's A is applied to: x, or under dropout x times the module's mask, in
 * dropout->dropped. */
int ha_layer_drop(const struct ha_layer_context *context, enum ha_module module,
                  const struct ha_matrix *x, struct ha_matrix *ret_input, struct ha_error *err);

/* dx += u A, under dropout times the module's mask; dropout->dropped is overwritten. */
int ha_layer_drop_backward(const struct ha_layer_context *context, enum ha_module module,
                           const struct ha_matrix *dx, const struct ha_matrix *u,
                           const struct ha_matrix *a, struct ha_error *err);

/* x += down(silu(gate(norm)) * up(norm)); gate, up and inner act (N, inner) are left filled. */
int ha_layer_mlp(const struct ha_layer_context *context, void *x /* act (N, H) += */, void *gate,
                 void *up, void *inner, const void *norm, struct ha_error *err);

#endif
