/* shards.h - frozen weights that the ranks of a gang share, for this folder only
 *
 * shard_layout.h says what a rank keeps.  A pass works through walks: the embedding, some layers
 * upwards, the head, some layers downwards.  It says which walk begins (ha_shards_begin), and
 * takes the layers one after the other (ha_shards_take); each is then whole in a buffer, where the
 * views of struct ha_layer_weights point to until the next but one is taken, and the next is on its
 * way.
 *
 * Every rank has a part in every gather, whether it computes or not.  What ranks compute differs:
 * their packs are of different number, a cell may have ended for one of them alone, one was told
 * to stop.  So they agree on every walk: each says which one it wants, or that it has none
 * (ha_shards_idle), and all do the first of these in the order of a pass; whoever wants another
 * one helps, and asks again.  As packs go, they nearly always want the same.  A walk that is left
 * in its middle is gathered to its end before the next.
 *
 * No other collective may begin before ha_shards_idle has returned. */
#ifndef HA_WORKER_MODEL_SHARDS_H
#define HA_WORKER_MODEL_SHARDS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "worker/model/shard_layout.h"
#include "worker/model/weights.h"

struct ha_comm;
struct ha_error;
struct ha_model;
struct ha_shards;

/* In the order of a pass, which is that of preference. */
enum ha_walk { HA_WALK_EMBEDDING, HA_WALK_UP, HA_WALK_HEAD, HA_WALK_DOWN, HA_WALK_IDLE };

/* What weights belong to: a layer from 0, or one of these; a tied head is the embedding. */
enum { HA_SHARD_EMBEDDING = -1, HA_SHARD_HEAD = -2, HA_SHARD_RESIDENT = -3 };

/* Memory for a rank's shares and the buffers; `layers` (n_layers) are the views that will be moved
 * to the buffers.  All must outlive it. */
int ha_shards_create(struct ha_backend *backend, const struct ha_model_config *config,
                     const struct ha_model_shard *shard, int64_t value_bytes, int64_t columns,
                     struct ha_layer_weights *layers, struct ha_shards **ret_shards,
                     struct ha_error *err);
void ha_shards_destroy(struct ha_shards *shards);

const struct ha_shard_layout *ha_shards_layout(const struct ha_shards *shards);

/* Where a view of the part's bytes from `offset` on begins; never NULL. */
void *ha_shards_view(const struct ha_shards *shards, int64_t part, int64_t offset);

/* A tensor of a file. */
struct ha_shard_source {
    const void *host;
    enum ha_dtype dtype, stored; /* as in the file, and as it will be held */
    int64_t rows, cols;
    int64_t columns; /* that stay free behind each row */
};

/* The tensor belongs at `offset` bytes of the part: what of it is in this rank's share is copied
 * there, and nothing else of it is read. */
int ha_shards_load(struct ha_shards *shards, int64_t part, int64_t offset,
                   const struct ha_shard_source *source, struct ha_error *err);

/* The gang is together. */
void ha_shards_join(struct ha_shards *shards, struct ha_comm *comm);

/* While it is on, nothing is gathered and weights are what lies in the buffers: for passes whose
 * results nobody wants. */
void ha_shards_rehearse(struct ha_shards *shards, bool on);

/* A walk through layers [from, to), or with 0, 0 through the embedding or the head, which are
 * taken with it.  shards NULL, here and below: nothing is shared, and nothing happens. */
int ha_shards_begin(struct ha_shards *shards, enum ha_walk walk, int64_t from, int64_t to,
                    struct ha_error *err);

/* The next layer of the walk. */
int ha_shards_take(struct ha_shards *shards, int64_t layer, struct ha_error *err);

/* Help the others until none wants a walk any more. */
int ha_shards_idle(struct ha_shards *shards, struct ha_error *err);

/* Of a model (model.c); NULL: its weights are whole. */
struct ha_shards *ha_model_shards(const struct ha_model *model);

/* Bytes that this rank got from the others so far. */
int64_t ha_shards_gathered_bytes(const struct ha_shards *shards);

#endif
