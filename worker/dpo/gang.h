/* gang.h - the part of a trainer that is one rank of several, for this folder only
 *
 * A rank runs its share of a window's packs (share.h).  Then all exchange, in one message of
 * each, what the pairs gave, what the work cost, whether somebody was told to stop, and whether
 * somebody failed: from then on all ranks know the same and decide the same.  Only if all is
 * well are the gradients added, cell by cell, and each rank takes the same optimizer step. */
#ifndef HA_WORKER_DPO_GANG_H
#define HA_WORKER_DPO_GANG_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/dpo/packs.h"
#include "worker/dpo/share.h"
#include "worker/dpo/trainer.h"

struct ha_dpo_pair_result;
struct ha_dpo_reference;

/* What a cell had cost before the window. */
struct ha_dpo_gang_cost {
    struct ha_dpo_work own, shared;
    int64_t tokens;
};

struct ha_dpo_gang {
    struct ha_comm *comm; /* NULL until ha_dpo_trainer_join */
    int rank, size;
    bool stop; /* all know that one was told to */
    struct ha_dpo_share share;
    struct ha_dpo_gang_cost *before; /* (cells) */
    bool *takes_part;                /* (cells): in the exchange */
    double flops_before;             /* of the backend */
    int64_t tokens_before;           /* of the trainer's steps */
};

/* Pairs [first, first + n_pairs) of the order, micro-batches of packs->batch, of which the rank
 * has its share. */
struct ha_dpo_exchange {
    const struct ha_dpo_packs *packs;
    int64_t first, n_pairs;
    struct ha_dpo_reference *references;
    struct ha_dpo_pair_result **results; /* (cells)(n_pairs) */
    bool costs;                          /* count what the window has cost, and check the losses */
    int result;                          /* of this rank's share: 0 or a negative errno */
    const struct ha_error *why;
};

int ha_dpo_gang_create(const struct ha_dpo_trainer *trainer, struct ha_dpo_gang **ret_gang,
                       struct ha_error *err);
void ha_dpo_gang_destroy(struct ha_dpo_gang *gang);

/* Positions of the order that are this rank's, of micro-batches that begin at `first`. */
struct ha_dpo_range ha_dpo_gang_pairs(const struct ha_dpo_gang *gang, int rank,
                                      const struct ha_dpo_packs *packs, int64_t first,
                                      int64_t n_pairs);

/* Deal, and remember what the cells have cost so far. */
void ha_dpo_gang_begin(struct ha_dpo_trainer *trainer, int64_t n_micro);

/* Returns what all ranks then return: 0, -EINTR where one gave up its share because it was told
 * to stop, or the error of the first rank that failed. */
int ha_dpo_gang_exchange(struct ha_dpo_trainer *trainer, const struct ha_dpo_exchange *exchange,
                         struct ha_error *err);

/* A window: this rank's packs, by run_share, then the exchange and the sums of the gradients. */
int ha_dpo_gang_window(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                       int (*run_share)(struct ha_dpo_trainer *trainer,
                                        const struct ha_window *window, struct ha_dpo_range share,
                                        struct ha_error *err),
                       struct ha_error *err);

#endif
