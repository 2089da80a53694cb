/* model.h - a decoder-only transformer on a backend: forward and backward over packs
 *
 * A model is a configuration and frozen weights.  A pass is the working memory
 * for one pack at a time: one arena whose size is known by arithmetic before
 * the run (ha_pass_plan_bytes) and which is never enlarged.
 *
 * Order of calls for one pack (each call works on what the one before left):
 *
 *     ha_pass_begin        ids, positions, rows to the device; then ha_pass_set_dropout or not
 *     ha_pass_embed        hidden = embedding        | or ha_pass_set_hidden
 *     ha_pass_layers       hidden = layers [from, to)  (several calls make a chain)
 *     ha_pass_head         log-probs of the rows     | or ha_pass_logits
 *     ha_pass_backward     adapter gradients from one coefficient per row
 *
 * ha_pass_forward is the first four in one.  The adapter may be NULL: the base
 * model.  LoRA is applied un-merged, as y = W x + scale * B (A x) in one product where the
 * weights have room for it (weights.h), else as y = W x, then y += scale * B (A x).  Either way
 * an adapter with B = 0 gives bit for bit what NULL gives.
 *
 * The backward pass ends at the lowest adapted layer; only layers from
 * limits.lowest_layer on keep activations, or only their input
 * (limits.recomputed_layers).  Frozen weights have no gradients, but
 * ha_pass_backward_frozen shows the factors of those of the attention's. */
#ifndef HA_WORKER_MODEL_MODEL_H
#define HA_WORKER_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "worker/adapter/adapter.h"
#include "worker/model/config.h"
#include "worker/model/pack.h"
#include "worker/model/weights.h"

struct ha_comm;
struct ha_error;
struct ha_model;
struct ha_pass;

/* Open a Hugging Face directory. */
int ha_model_open(struct ha_backend *backend, const char *dir, struct ha_model **ret_model,
                  struct ha_error *err);

/* The same in two steps: the configuration alone, by which memory is planned, then the weights.
 * Between them a model serves for nothing else.
 *
 * With a shard this process is one rank of a gang whose ranks each keep a share of the layers, and
 * put each layer together when it computes (shard_layout.h); results have the same bits.  It
 * computes after ha_model_join only, and all ranks then need each other in every pass, prompt and
 * step of generation, whatever each of them computes: before any other collective over the
 * communicator each calls ha_model_idle, which returns when no rank wants to compute any more. */
int ha_model_prepare(struct ha_backend *backend, const char *dir, struct ha_model **ret_model,
                     struct ha_error *err);
int ha_model_load(struct ha_model *model, const char *dir, const struct ha_model_shard *shard,
                  struct ha_error *err);

/* The communicator must outlive the model's last pass.  Nothing happens, here and below, where
 * weights are whole. */
void ha_model_join(struct ha_model *model, struct ha_comm *comm);
int ha_model_idle(struct ha_model *model, struct ha_error *err);

/* Ranks that share the weights; 1: they are whole. */
int ha_model_ranks(const struct ha_model *model);

/* Bytes of weights that came from other ranks so far. */
int64_t ha_model_gathered_bytes(const struct ha_model *model);

/* A model over weights that the caller keeps (tests with made-up weights). */
int ha_model_create(struct ha_backend *backend, const struct ha_model_config *config,
                    const struct ha_weights *weights, struct ha_model **ret_model,
                    struct ha_error *err);
void ha_model_destroy(struct ha_model *model);

/* Between two jobs: give back what passes have left with the model (the table of positions). */
void ha_model_rest(struct ha_model *model);

struct ha_backend *ha_model_backend(const struct ha_model *model);
const struct ha_model_config *ha_model_config(const struct ha_model *model);
const struct ha_weights *ha_model_weights(const struct ha_model *model);

/* The table of cosines and sines for positions [0, n_positions), enlarged when
 * needed; pointers of earlier calls end.  Positions at or above the model's
 * max_position are legal, as in Transformers. */
int ha_model_rope_table(struct ha_model *model, int64_t n_positions, const float **ret_cos_sin,
                        struct ha_error *err);

struct ha_pass_limits {
    int64_t max_tokens;    /* of a pack */
    int64_t max_rows;      /* of a pack */
    int64_t max_rank;      /* of an adapter; 0: no adapter */
    int64_t dropout_width; /* widest input of an adapter under dropout; 0: none is dropped */
    int64_t lowest_layer;  /* the lowest layer to train; n_layers: no backward pass */
    /* Of the layers from lowest_layer on, the first so many keep only their input and are run
     * again in the backward pass; the highest never needs it, so at most n_layers -
     * lowest_layer - 1.  Changes no bit of any result. */
    int64_t recomputed_layers;
    bool statistics; /* entropy, mean logit, arg max of each row */
    bool logsumexps; /* with statistics: the two logsumexps too */
    bool round_logits_bf16;
    int64_t lora_columns; /* of the model's weights (weights.h), for a plan; ha_pass_create knows */
};

/* The parts of the arena of a pass. */
struct ha_pass_sizes {
    int64_t residual; /* the residual stream: the input of every layer that is trained */
    int64_t kept;     /* what the backward pass of layers that are not run again reads */
    int64_t scratch;  /* of the layer in work, forward or backward */
    int64_t head;     /* rows that are scored: hidden states, gradients, statistics */
    int64_t total;
};

/* The arena that ha_pass_create allocates.  Returns -EOVERFLOW where the sum
 * does not fit, -EINVAL for limits out of range. */
int ha_pass_plan(const struct ha_model_config *config, enum ha_dtype activation,
                 const struct ha_pass_limits *limits, struct ha_pass_sizes *ret_sizes,
                 struct ha_error *err);

/* Its total. */
int ha_pass_plan_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                       const struct ha_pass_limits *limits, int64_t *ret_bytes,
                       struct ha_error *err);

/* The model must outlive the pass. */
int ha_pass_create(struct ha_model *model, const struct ha_pass_limits *limits,
                   struct ha_pass **ret_pass, struct ha_error *err);
void ha_pass_destroy(struct ha_pass *pass);

/* The pack must stay as it is until the last call for it. */
int ha_pass_begin(struct ha_pass *pass, const struct ha_pack *pack, struct ha_error *err);
int ha_pass_embed(struct ha_pass *pass, struct ha_error *err);

/* Dropout of the adapter's inputs, y = W x + scale B A (mask x), for one pack. */
struct ha_pass_dropout {
    double p; /* 0: none */
    uint64_t seed;
    int64_t epoch;
    const int64_t *pairs; /* host (n_pairs of the pack): their numbers in the data */
};

/* After ha_pass_begin and before the layers; begin switches it off.  A mask depends on seed,
 * epoch, the pair's number, the side, position, layer, module and feature, and on nothing else.  A
 * pair's prompt is a side of its own, computed once or twice, so that it is dropped alike for both
 * answers.  The pass must have been made with room for it (dropout_width). */
int ha_pass_set_dropout(struct ha_pass *pass, const struct ha_pass_dropout *dropout,
                        struct ha_error *err);
enum { HA_PASS_MAX_DROPOUT_EPOCHS = 1 << 19 };
int ha_pass_layers(struct ha_pass *pass, const struct ha_adapter *adapter, int64_t from, int64_t to,
                   struct ha_error *err);

/* Hidden state (act (n_tokens, H), device memory) at the border that the last
 * call left, and setting it as the input of layer `from`: lock-step training
 * starts cells from the shared states at block borders. */
int ha_pass_get_hidden(struct ha_pass *pass, void *hidden, struct ha_error *err);
int ha_pass_set_hidden(struct ha_pass *pass, const void *hidden, int64_t from,
                       struct ha_error *err);

/* What the head gives for each row of the pack: host arrays owned by the pass,
 * valid until its next head call; NULL without limits.statistics. */
struct ha_pass_rows {
    int64_t n_rows;
    const float *logp;       /* log-probability of the target */
    const float *entropy;    /* -sum p log p */
    const float *mean_logit; /* over the vocabulary */
    const float *logsumexp;  /* of the logits; NULL without limits.logsumexps */
    const float *logsumexp2; /* of twice the logits; the same */
    const int32_t *argmax;
};

/* gradient: also keep d logp / d hidden of each row for ha_pass_backward. */
int ha_pass_head(struct ha_pass *pass, bool gradient, struct ha_pass_rows *ret_rows,
                 struct ha_error *err);

/* f32 logits (n, V) of the pack's tokens token[0..n) to host memory.  n is at
 * most limits.max_rows. */
int ha_pass_logits(struct ha_pass *pass, const int64_t *token, int64_t n, float *logits,
                   struct ha_error *err);

int ha_pass_forward(struct ha_pass *pass, const struct ha_pack *pack,
                    const struct ha_adapter *adapter, bool gradient, struct ha_pass_rows *ret_rows,
                    struct ha_error *err);

/* gradient (device, the adapter's layout) += d (sum_i coefficient[i] * logp[i]) / d (A, B).
 * After a head call with gradient = true over the same pack and adapter.  Ends
 * the pass over the pack: activations are overwritten. */
int ha_pass_backward(struct ha_pass *pass, const struct ha_adapter *adapter,
                     const float *coefficient /* host (n_rows) */, float *gradient,
                     struct ha_error *err);

/* Takes the two factors of the gradient of a frozen weight W (out, in), dW = dy^T x: dy act
 * (n_tokens, out), the gradient of W x before bias, QK-norm and RoPE, and x act (n_tokens, in).
 * Both are device memory that is valid during the call; they may be read only. */
typedef int (*ha_pass_factors)(void *user, int64_t layer, enum ha_module module,
                               const struct ha_matrix *dy, const struct ha_matrix *x,
                               struct ha_error *err);

/* ha_pass_backward for the frozen weights of the base model: calls factors for o, q, k, v of every
 * layer from the last down to limits.lowest_layer.  After a head call with gradient = true over
 * the same pack and no adapter. */
int ha_pass_backward_frozen(struct ha_pass *pass, const float *coefficient /* host (n_rows) */,
                            ha_pass_factors factors, void *user, struct ha_error *err);

#endif
