/* share.h - how the micro-batches of a window are dealt to the ranks of a gang
 *
 * A gang computes each logical micro-batch by itself, and adds the micro-batches' gradients
 * as a tree that depends on their number alone: those of [first, end) are the sum of the first
 * half (the larger one where they differ) and the second,
 *
 *     sum[first, end) = sum[first, middle) + sum[middle, end),   middle = (first + end + 1) / 2
 *
 * Ranks are dealt down the same tree, so that each has one subtree and gives one value, and what
 * is left of the tree are the additions between ranks.  So the sum, and all that follows from
 * it, has the same bits for any number of ranks. */
#ifndef HA_WORKER_DPO_SHARE_H
#define HA_WORKER_DPO_SHARE_H

#include <stdint.h>

#include "kernels/collective.h"

struct ha_dpo_range {
    int64_t first, end; /* micro-batches of the window */
};

struct ha_dpo_share {
    struct ha_dpo_range of_rank[HA_COMM_MAX_RANKS]; /* empty where there are more ranks */
    struct ha_comm_add adds[HA_COMM_MAX_RANKS];
    int n_adds;
};

static inline int64_t ha_dpo_share_middle(struct ha_dpo_range range)
{
    return range.first + (range.end - range.first + 1) / 2;
}

/* 1 <= n_ranks <= HA_COMM_MAX_RANKS. */
void ha_dpo_share_deal(int64_t n_micro, int n_ranks, struct ha_dpo_share *ret_share);

/* Values that a rank holds besides the first while it adds up so many micro-batches. */
int ha_dpo_share_depth(int64_t n_micro);

/* The most of them in a job whose windows have up to so many micro-batches. */
int ha_dpo_share_most(int64_t accumulation, int n_ranks);

#endif
