/* decode.h - generation: a KV cache, prompts into it, then one token at a time
 *
 * A decoder is the working memory for a batch: up to max_sequences sequences per
 * step, up to max_prompt_tokens tokens of prompts at once.  Each sequence has a
 * cache of its own and may have an adapter of its own (un-merged); sequences of
 * one adapter should stand side by side in the call, since each run of equal
 * adapters is one product.
 *
 * Where ranks share the model's weights, each call puts the layers together with them (model.h).
 *
 * A sequence's logits do not depend on the others in the call where a product's rows do not
 * depend on each other's number: on the CPU, and under ha_backend_separate_rows. */
#ifndef HA_WORKER_MODEL_DECODE_H
#define HA_WORKER_MODEL_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/adapter/adapter.h"
#include "worker/model/model.h"

struct ha_error;

/* Keys and values of one sequence, all layers. */
struct ha_kv_cache;

/* Bytes of a cache for n_positions tokens. */
int64_t ha_kv_cache_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                          int64_t n_positions);

/* The model must outlive the cache.  Returns 0, -EINVAL or -ENOMEM. */
int ha_kv_cache_create(struct ha_model *model, int64_t n_positions, struct ha_kv_cache **ret_cache,
                       struct ha_error *err);
void ha_kv_cache_destroy(struct ha_kv_cache *cache);

/* Tokens held; forget them. */
int64_t ha_kv_cache_length(const struct ha_kv_cache *cache);
void ha_kv_cache_reset(struct ha_kv_cache *cache);

/* Say how many are held after steps that only the device has counted (ha_decoder_run). */
void ha_kv_cache_set_length(struct ha_kv_cache *cache, int64_t n_tokens);

struct ha_decoder;

struct ha_decoder_limits {
    int64_t max_sequences;     /* of one call, >= 1 */
    int64_t max_prompt_tokens; /* of one prefill call, see there, >= 1 */
    int64_t max_rank;          /* of an adapter; 0: no adapters */
};

/* Bytes that ha_decoder_create allocates on the backend. */
int ha_decoder_plan_bytes(const struct ha_model_config *config, enum ha_dtype activation,
                          const struct ha_decoder_limits *limits, int64_t *ret_bytes,
                          struct ha_error *err);

/* The model must outlive the decoder. */
int ha_decoder_create(struct ha_model *model, const struct ha_decoder_limits *limits,
                      struct ha_decoder **ret_decoder, struct ha_error *err);
void ha_decoder_destroy(struct ha_decoder *decoder);

/* One sequence of a call: in a prefill all tokens of its prompt for an empty
 * cache, in a step the one token that follows what its cache holds. */
struct ha_decoder_sequence {
    struct ha_kv_cache *cache;
    const struct ha_adapter *adapter; /* NULL: the base model */
    const int32_t *ids;
    int64_t n_ids; /* >= 1; in a step 1 */
};

/* Run prompts.  Sequences that stand side by side and have the same ids (one array, not
 * equal ones) are one prompt: it is computed once below the lowest layer of each adapter,
 * and altogether once for sequences of one adapter.  Neither changes a bit of a result.
 * Of the tokens that max_prompt_tokens limits, a prompt counts once for each adapter.
 *
 * logits (n, V) f32, host memory: those of sequence i's last token are row row[i]; row
 * has room for n.  NULL: they stay where ha_decoder_logits says, and nothing is waited for.  On
 * failure the caches are as before.  Returns -EINVAL where limits, a cache or an id do not fit,
 * with the sequence's number. */
int ha_decoder_prefill(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                       int64_t n, float *logits, int64_t *row, struct ha_error *err);

/* Run one token of each sequence; logits (n, V) f32, host memory, in their order.
 * Otherwise as ha_decoder_prefill. */
int ha_decoder_step(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                    int64_t n, float *logits, struct ha_error *err);

/* Steps without the host.  Sequences take seats, as they would enter a step; then each run of the
 * decoder is one step of all seated: it leaves their logits at ha_decoder_logits, in their order,
 * and touches neither ids nor positions, which whoever draws the next tokens advances on the device
 * (struct ha_sample of kernels/ops.h).  A sequence that is not advanced does its token again: that
 * writes the same keys and values to the same place and changes nothing for the others.  What the
 * caches hold the host has to say when it knows.  Nothing is waited for, and nothing passes between
 * host and device in a run.  Prompts, and a step as above, empty the seats. */
int ha_decoder_seat(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                    int64_t n, struct ha_error *err);
int ha_decoder_run(struct ha_decoder *decoder, struct ha_error *err);

/* Of the seated, device memory: the token that follows what the cache holds, and how many that
 * are. */
int32_t *ha_decoder_ids(struct ha_decoder *decoder);
int32_t *ha_decoder_positions(struct ha_decoder *decoder);

/* A step of the seated and what `draw` puts behind it on the backend, recorded where the backend
 * can (ha_backend_records) and the model's weights are not shared by ranks; then each replay is
 * such a step, with the same bits.  One like it must have been made before.  A recording serves
 * these seats and others of as many sequences with the same adapters in the same rows, as long as
 * `draw` would do the same; is_recorded says whether there is one that does.  -EBUSY: the step
 * cannot be recorded.  A replay that fails was not begun, and the recording is gone; -ESTALE: the
 * backend's memory has moved. */
typedef int (*ha_decoder_draw_fn)(void *context, struct ha_error *err);

int ha_decoder_record(struct ha_decoder *decoder, ha_decoder_draw_fn draw, void *context,
                      struct ha_error *err);
bool ha_decoder_is_recorded(const struct ha_decoder *decoder);
int ha_decoder_replay(struct ha_decoder *decoder, struct ha_error *err);

/* The logits of the last call, device memory. */
const float *ha_decoder_logits(const struct ha_decoder *decoder);

#endif
