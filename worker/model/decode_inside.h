/* decode_inside.h - the working memory of a decoder, for this folder only
 *
 * decode.c makes it and runs steps, replay.c records them, prefill.c runs prompts,
 * kv_cache.c keeps what they attend to. */
#ifndef HA_WORKER_MODEL_DECODE_INSIDE_H
#define HA_WORKER_MODEL_DECODE_INSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/model/decode.h"
#include "worker/model/layer.h"

/* One block: [layer][keys, values][n_positions][n_kv_heads * D] of act. */
struct ha_kv_cache {
    struct ha_backend *backend;
    void *memory;
    int64_t n_positions; /* room */
    int64_t length;      /* tokens held */
};

/* The rows of one prompt under one adapter.  All branches of a prompt start as one:
 * its trunk, the branch whose lowest adapted layer is the highest.  A branch takes a
 * copy of the trunk's rows when its own lowest layer comes. */
struct ha_decoder_branch {
    const struct ha_adapter *adapter; /* NULL: the base model */
    int64_t lowest;                   /* adapted layer; n_layers for the base model */
    int64_t number;                   /* of the adapter, in the order of the call */
    int64_t sequence;                 /* of the call: the first one that it serves */
    int64_t prompt;                   /* of the call: the first sequence with these ids */
    bool is_trunk;
    int64_t begin, count; /* rows */
    int64_t trunk_begin;  /* rows of its trunk */
};

/* What a recorded step hangs on beside the adapters' rows. */
struct ha_decoder_shape {
    int64_t n_rows, n_spans, max_keys;
    const float *cos_sin;
    double n_keys; /* as counted in it */
};

struct ha_decoder {
    struct ha_model *model;
    struct ha_backend *backend;
    const struct ha_ops *ops;
    const struct ha_model_config *config;
    struct ha_decoder_limits limits;
    enum ha_dtype act;
    struct ha_layer_strides strides; /* of q, k, v, gate and up */
    int64_t q_width, kv_width;
    void *arena;
    const float *cos_sin;

    /* Device; T = rows of the largest call. */
    int32_t *ids, *positions;  /* (T) */
    int32_t *last_positions;   /* (max_sequences) */
    struct ha_kv_rows *caches; /* (max_sequences) */
    void *x, *norm;            /* act (T, H) */
    void *q, *k, *v;           /* act (T, heads * D) */
    void *attention;           /* act (T, n_heads * D) */
    void *gate, *up, *inner;   /* act (T, inner) */
    void *lora;                /* act (T, max rank) */
    void *last, *last_norm;    /* act (max_sequences, H): states of each last token */
    float *logits;             /* (max_sequences, V) */

    /* Host, for the call in work. */
    int32_t *host_ids, *host_positions; /* (T) */
    struct ha_segment *segments;        /* (max_sequences), and so are the others */
    struct ha_layer_span *spans;
    struct ha_decoder_branch *branches;
    int64_t *branch_of; /* sequence -> branch */
    int64_t *last_token;
    struct ha_kv_rows *host_caches;

    /* The sequences that have seats: their ids, positions and caches lie on the device, their
     * adapters are the first n_spans spans.  Steps do not touch the host's part. */
    int64_t n_seated, n_spans; /* 0: none */
    int64_t max_keys;          /* positions that the longest cache so far has room for */
    double n_keys;             /* of the next step, while none has ended */

    /* replay.c */
    struct ha_recording *recording; /* NULL: none */
    struct ha_decoder_shape recorded_shape;
    struct ha_layer_span *recorded_spans; /* (max_sequences) */
};

/* Where its rows are. */
struct ha_kv_rows ha_kv_cache_rows(const struct ha_decoder *decoder,
                                   const struct ha_kv_cache *cache);

/* Row `position` of the keys (part 0) or values (part 1) of a layer. */
void *ha_kv_cache_row(const struct ha_decoder *decoder, const struct ha_kv_cache *cache,
                      int64_t layer, int part, int64_t position);

/* Nothing is recorded any more. */
void ha_decoder_forget(struct ha_decoder *decoder);

/* What all calls refuse: -EINVAL with the sequence's number. */
int ha_decoder_check(const struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                     int64_t n, bool prefill, struct ha_error *err);

/* Positions and the ids of the first n_embedded rows to the device, and a table for n_positions. */
int ha_decoder_send(struct ha_decoder *decoder, int64_t n_rows, int64_t n_embedded,
                    int64_t n_positions, struct ha_error *err);

/* Embeddings of the ids there, in x. */
int ha_decoder_embed(struct ha_decoder *decoder, int64_t n_rows, struct ha_error *err);

struct ha_layer_context ha_decoder_context(const struct ha_decoder *decoder, int64_t layer,
                                           int64_t n_rows, const struct ha_layer_span *spans,
                                           int64_t n_spans);

/* The first n of host_caches to the device. */
int ha_decoder_send_caches(struct ha_decoder *decoder, int64_t n, struct ha_error *err);

/* The query of each of n rows, at its position, over `caches`; attention = . */
int ha_decoder_attend_caches(struct ha_decoder *decoder, const int32_t *positions, int64_t n,
                             int64_t layer, int64_t max_keys, double n_keys, struct ha_error *err);

/* The rest of a layer once `attention` is there: x += ...; norm is scratch of the same shape. */
int ha_decoder_end_layer(struct ha_decoder *decoder, const struct ha_layer_context *context,
                         void *x, void *norm, struct ha_error *err);

/* Logits (n, V) of the n final states in `x`, which may be `last`; and n rows of them to host
 * memory unless that is NULL. */
int ha_decoder_head(struct ha_decoder *decoder, const void *x, int64_t n, struct ha_error *err);
int ha_decoder_show(struct ha_decoder *decoder, int64_t n, float *logits, struct ha_error *err);

#endif
