/* shard_layout.h - how the ranks of a gang divide the frozen weights of a model, by arithmetic
 *
 * Each layer is one run of bytes: its matrices as products take them (q, k, v below each other,
 * and gate and up), biases and norms, each at a multiple of HA_SHARD_ALIGNMENT.  The run is cut
 * into as many equal shares as there are ranks, and rank r keeps the r-th of every layer.  Before
 * a layer computes, its shares are put together in one of two buffers, while the layer before it
 * computes out of the other.  A buffer holds the bytes that a layer would hold at one place, so
 * sharding changes no bit of any result.
 *
 * Embedding and head are divided in the same way where that takes less memory: they then use the
 * buffers' memory as one, as no layer computes beside them.  For a small model of a large
 * vocabulary it takes more, and each rank keeps them whole.  The final norm every rank has. */
#ifndef HA_WORKER_MODEL_SHARD_LAYOUT_H
#define HA_WORKER_MODEL_SHARD_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/model/config.h"

enum { HA_SHARD_ALIGNMENT = 256, HA_SHARD_BUFFERS = 2 };

enum ha_shard_field {
    HA_SHARD_QKV,
    HA_SHARD_O,
    HA_SHARD_GATE_UP,
    HA_SHARD_DOWN,
    HA_SHARD_QKV_BIAS,
    HA_SHARD_O_BIAS,
    HA_SHARD_INPUT_NORM,
    HA_SHARD_POST_NORM,
    HA_SHARD_Q_NORM,
    HA_SHARD_K_NORM,
    HA_SHARD_FIELDS
};

struct ha_shard_layout {
    int ranks;
    int64_t n_layers;
    int64_t value_bytes;             /* of one value: of the widest type among the weights */
    int64_t columns;                 /* behind the rows of q, k, v and o (weights.h) */
    int64_t offset[HA_SHARD_FIELDS]; /* bytes, from the layer's beginning */
    int64_t layer_share;             /* bytes of a layer that each rank keeps */
    bool tables;                     /* embedding and head are divided */
    int64_t n_tables;                /* 1 where they are one */
    int64_t table_share;             /* of each */
    int64_t own_bytes;               /* shares that a rank keeps */
    int64_t region_bytes;            /* of the buffers */
    int64_t resident_bytes;          /* what every rank keeps whole */
    int64_t total_bytes;             /* of a rank */
};

void ha_shard_layout_make(const struct ha_model_config *config, int ranks, int64_t value_bytes,
                          int64_t columns, struct ha_shard_layout *ret_layout);

/* Bytes that a rank gets from the others for a pass forward through embedding, layers
 * [0, n_layers) and head. */
int64_t ha_shard_layout_forward_bytes(const struct ha_shard_layout *layout);

#endif
