/* packs.h - the batch plan of a job, for this folder only
 *
 * How the pairs of an epoch become windows, and each window packs.  A pure
 * function of pairs and settings; its hash names it. */
#ifndef HA_WORKER_DPO_PACKS_H
#define HA_WORKER_DPO_PACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "worker/data/batch.h"
#include "worker/data/pairs.h"
#include "worker/model/pack.h"

struct ha_error;

struct ha_dpo_packs {
    struct ha_pack_pair *pairs; /* (batch.n_pairs): ids belong to the pair set */
    struct ha_batch batch;
    int64_t tokens_per_microbatch;
    bool share_prompt;
    bool by_micro; /* no pack holds pairs of two micro-batches */
    bool shuffled; /* epochs in random order; else always 0, 1, ... */
    uint64_t order_seed;

    int64_t epoch;  /* that order belongs to; -1: none yet */
    int64_t *order; /* (batch.n_pairs) */
};

/* The set must outlive it. */
int ha_dpo_packs_init(struct ha_dpo_packs *packs, const struct ha_pair_set *set, int64_t batch_size,
                      int64_t accumulation, int64_t tokens_per_microbatch, bool share_prompt,
                      struct ha_error *err);
void ha_dpo_packs_clear(struct ha_dpo_packs *packs);

/* Make order that of this epoch. */
int ha_dpo_packs_set_epoch(struct ha_dpo_packs *packs, int64_t epoch, struct ha_error *err);

/* The pack that begins at position `first` of the order and ends before `end`:
 * how many pairs it takes. */
int64_t ha_dpo_packs_fill(const struct ha_dpo_packs *packs, int64_t first, int64_t end);
int ha_dpo_packs_make(const struct ha_dpo_packs *packs, int64_t first, int64_t count,
                      struct ha_pack **ret_pack, struct ha_error *err);

/* Raise *max_tokens and *max_rows to the largest pack of epochs [0, epochs),
 * and add every pack's extent to the hash. */
int ha_dpo_packs_survey(struct ha_dpo_packs *packs, int64_t epochs, int64_t *max_tokens,
                        int64_t *max_rows, struct ha_sha256 *hash, struct ha_error *err);

#endif
