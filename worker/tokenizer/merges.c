#include "worker/tokenizer/merges.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

/* Words up to this length are scanned for their best pair, longer ones keep a heap: the whole of a
 * text is one word for tokenizers without a pre-tokenizer. */
enum { SCAN_LIMIT = 48 };

struct ha_symbol {
    int32_t id;
    int32_t previous, next; /* -1: none */
    bool gone;
};

struct ha_candidate {
    uint32_t rank;
    int32_t position; /* of the left symbol */
    int32_t id;       /* what the pair was to become: an entry whose pair has changed is stale */
};

int ha_merges_create(struct ha_merges *merges, int64_t n)
{
    int bits = 4;

    while ((INT64_C(1) << bits) < 2 * n)
        bits++;
    merges->slots = ha_calloc(INT64_C(1) << bits, sizeof(*merges->slots));
    if (!merges->slots)
        return -ENOMEM;
    for (int64_t i = 0; i < INT64_C(1) << bits; i++)
        merges->slots[i].rank = UINT32_MAX;
    merges->bits = bits;
    return 0;
}

void ha_merges_clear(struct ha_merges *merges)
{
    free(merges->slots);
    *merges = (struct ha_merges){0};
}

void ha_merges_put(struct ha_merges *merges, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t mask = (UINT64_C(1) << merges->bits) - 1;
    uint64_t at = pair * UINT64_C(0x9e3779b97f4a7c15) >> (64 - merges->bits);

    while (merges->slots[at].rank != UINT32_MAX && merges->slots[at].pair != pair)
        at = (at + 1) & mask;
    merges->slots[at] = (struct ha_merge){pair, rank, id};
}

void ha_merge_scratch_clear(struct ha_merge_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    *scratch = (struct ha_merge_scratch){0};
}

static uint32_t rank_of(const struct ha_merges *merges, int32_t left, int32_t right,
                        int32_t *ret_id)
{
    const struct ha_merge *merge = ha_merges_find(merges, left, right);

    if (!merge)
        return UINT32_MAX;
    *ret_id = merge->id;
    return merge->rank;
}

static void apply_by_scan(const struct ha_merges *merges, int32_t *ids, int64_t *n)
{
    uint32_t ranks[SCAN_LIMIT] = {0}; /* of the pair that begins at a symbol */
    int32_t joined[SCAN_LIMIT] = {0};
    int64_t count = *n;

    for (int64_t i = 0; i + 1 < count; i++)
        ranks[i] = rank_of(merges, ids[i], ids[i + 1], &joined[i]);
    while (count > 1) {
        int64_t best = 0;

        for (int64_t i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == UINT32_MAX)
            break;
        ids[best] = joined[best];
        count--;
        for (int64_t i = best + 1; i < count; i++) {
            ids[i] = ids[i + 1];
            ranks[i] = ranks[i + 1];
            joined[i] = joined[i + 1];
        }
        if (best + 1 < count)
            ranks[best] = rank_of(merges, ids[best], ids[best + 1], &joined[best]);
        if (best > 0)
            ranks[best - 1] = rank_of(merges, ids[best - 1], ids[best], &joined[best - 1]);
    }
    *n = count;
}

static bool before(const struct ha_candidate *a, const struct ha_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static int push(struct ha_merge_scratch *s, int64_t *n, struct ha_candidate candidate)
{
    int64_t i = *n;

    if (ha_grow((void **)&s->heap, &s->heap_capacity, *n + 1, sizeof(*s->heap)) < 0)
        return -ENOMEM;
    (*n)++;
    for (; i > 0 && before(&candidate, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = candidate;
    return 0;
}

static struct ha_candidate pop(struct ha_merge_scratch *s, int64_t *n)
{
    struct ha_candidate top = s->heap[0], last = s->heap[--*n];
    int64_t i = 0;

    for (;;) {
        int64_t child = 2 * i + 1;

        if (child >= *n)
            break;
        if (child + 1 < *n && before(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!before(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    if (*n > 0)
        s->heap[i] = last;
    return top;
}

static int consider(const struct ha_merges *merges, struct ha_merge_scratch *s, int64_t *n,
                    int32_t position)
{
    const struct ha_symbol *left = &s->symbols[position];
    struct ha_candidate candidate = {.position = position};

    if (left->next < 0)
        return 0;
    candidate.rank = rank_of(merges, left->id, s->symbols[left->next].id, &candidate.id);
    return candidate.rank == UINT32_MAX ? 0 : push(s, n, candidate);
}

static int apply_by_heap(const struct ha_merges *merges, struct ha_merge_scratch *s, int32_t *ids,
                         int64_t *n)
{
    int64_t queued = 0, kept = 0;
    int r = 0;

    if (*n > INT32_MAX ||
        ha_grow((void **)&s->symbols, &s->symbol_capacity, *n, sizeof(*s->symbols)) < 0)
        return -ENOMEM;
    for (int32_t i = 0; i < *n; i++)
        s->symbols[i] = (struct ha_symbol){ids[i], i - 1, i + 1 < *n ? i + 1 : -1, false};
    for (int32_t i = 0; i + 1 < *n && r == 0; i++)
        r = consider(merges, s, &queued, i);
    while (queued > 0 && r == 0) {
        struct ha_candidate top = pop(s, &queued);
        struct ha_symbol *left = &s->symbols[top.position], *right;
        int32_t id = -1;

        if (left->gone || left->next < 0)
            continue;
        right = &s->symbols[left->next];
        if (rank_of(merges, left->id, right->id, &id) == UINT32_MAX || id != top.id)
            continue;
        left->id = id;
        right->gone = true;
        left->next = right->next;
        if (left->next >= 0)
            s->symbols[left->next].previous = top.position;
        if (left->previous >= 0)
            r = consider(merges, s, &queued, left->previous);
        if (r == 0)
            r = consider(merges, s, &queued, top.position);
    }
    for (int64_t i = 0; i < *n; i++)
        if (!s->symbols[i].gone)
            ids[kept++] = s->symbols[i].id;
    *n = kept;
    return r;
}

int ha_merges_apply(const struct ha_merges *merges, struct ha_merge_scratch *scratch, int32_t *ids,
                    int64_t *n)
{
    if (*n <= SCAN_LIMIT) {
        apply_by_scan(merges, ids, n);
        return 0;
    }
    return apply_by_heap(merges, scratch, ids, n);
}
