/* merges.h - the merge table: a pair of ids -> (rank, id of both joined) */
#ifndef HA_WORKER_TOKENIZER_MERGES_H
#define HA_WORKER_TOKENIZER_MERGES_H

#include <stddef.h>
#include <stdint.h>

struct ha_merge {
    uint64_t pair; /* left << 32 | right */
    uint32_t rank; /* UINT32_MAX: a free slot */
    int32_t id;
};

/* Open addressing; empty when all zero. */
struct ha_merges {
    struct ha_merge *slots; /* [1 << bits] */
    int bits;
};

/* Room for n merges.  Returns 0 or -ENOMEM. */
int ha_merges_create(struct ha_merges *merges, int64_t n);
void ha_merges_clear(struct ha_merges *merges);

/* Of two merges of one pair the later stays. */
void ha_merges_put(struct ha_merges *merges, int32_t left, int32_t right, uint32_t rank,
                   int32_t id);

/* NULL where the pair does not merge. */
static inline const struct ha_merge *ha_merges_find(const struct ha_merges *merges, int32_t left,
                                                    int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t mask = (UINT64_C(1) << merges->bits) - 1;
    uint64_t at = pair * UINT64_C(0x9e3779b97f4a7c15) >> (64 - merges->bits);

    for (; merges->slots[at].rank != UINT32_MAX; at = (at + 1) & mask)
        if (merges->slots[at].pair == pair)
            return &merges->slots[at];
    return NULL;
}

/* Scratch of ha_merges_apply; begin with {0}. */
struct ha_merge_scratch {
    struct ha_symbol *symbols;
    int64_t symbol_capacity;
    struct ha_candidate *heap;
    int64_t heap_capacity;
};

void ha_merge_scratch_clear(struct ha_merge_scratch *scratch);

/* Merge ids [*n] in place until no pair merges; *n becomes the new number.
 * Returns 0 or -ENOMEM. */
int ha_merges_apply(const struct ha_merges *merges, struct ha_merge_scratch *scratch, int32_t *ids,
                    int64_t *n);

#endif
