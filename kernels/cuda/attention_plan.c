#include "kernels/cuda/attention_plan.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/ops.h"

enum { TILE = HA_CUDA_ATTENTION_TILE };

static int64_t tiles_of(int64_t n)
{
    return (n + TILE - 1) / TILE;
}

static bool has_prefix(const struct ha_segment *segment)
{
    return segment->length > 0 && segment->prefix_length > 0;
}

/* A key tile while the list is made; its index in it is that in the order of tokens. */
struct draft {
    struct ha_cuda_key_tile tile;
    int64_t work; /* queries that see it, per head */
};

/* The segment, not empty, that holds a token.  first_tile[s] counts the key tiles before s. */
static int64_t segment_of(const struct ha_segment *segments, int64_t n, int64_t token)
{
    int64_t low = 0, high = n;

    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;

        if (segments[middle].begin <= token)
            low = middle;
        else
            high = middle;
    }
    return low; /* of several with one begin the last, which is the one that is not empty */
}

/* Key tiles first .. last that a segment's prefix touches. */
static void tiles_of_prefix(const struct ha_segment *segments, int64_t n_segments,
                            const int64_t *first_tile, const struct ha_segment *segment,
                            int64_t *ret_first, int64_t *ret_last)
{
    int64_t owner = segment_of(segments, n_segments, segment->prefix_begin);
    int64_t offset = segment->prefix_begin - segments[owner].begin;

    *ret_first = first_tile[owner] + offset / TILE;
    *ret_last = first_tile[owner] + (offset + segment->prefix_length - 1) / TILE;
}

static int heavier_query_tile(const void *a, const void *b)
{
    const struct ha_cuda_query_tile *x = a, *y = b;
    int32_t steps_x = ha_cuda_key_steps(x), steps_y = ha_cuda_key_steps(y);

    return steps_x != steps_y ? (steps_x < steps_y ? 1 : -1)
                              : (x->row > y->row) - (x->row < y->row);
}

static int heavier_draft(const void *a, const void *b)
{
    const struct draft *x = a, *y = b;

    return x->work != y->work ? (x->work < y->work ? 1 : -1)
                              : (x->tile.key > y->tile.key) - (x->tile.key < y->tile.key);
}

static void list_query_tiles(struct ha_cuda_attention_plan *plan, const struct ha_segment *segments,
                             int64_t n_segments)
{
    int64_t n = 0;

    for (int64_t s = 0; s < n_segments; s++) {
        const struct ha_segment *segment = &segments[s];
        bool prefix = has_prefix(segment);

        for (int64_t at = 0; at < segment->length; at += TILE)
            plan->query_tiles[n++] = (struct ha_cuda_query_tile){
                .row = (int32_t)(segment->begin + at),
                .n_rows = (int32_t)(segment->length - at < TILE ? segment->length - at : TILE),
                .prefix_begin = (int32_t)(prefix ? segment->prefix_begin : 0),
                .prefix_end =
                    (int32_t)(prefix ? segment->prefix_begin + segment->prefix_length : 0),
                .own_begin = (int32_t)segment->begin,
            };
    }
    qsort(plan->query_tiles, (size_t)n, sizeof(*plan->query_tiles), heavier_query_tile);
}

/* Key tiles in the order of tokens, with room for their ranges.  Returns how many these are. */
static int64_t draft_key_tiles(struct draft *drafts, int64_t *first_tile,
                               const struct ha_segment *segments, int64_t n_segments)
{
    int64_t n = 0, n_ranges = 0, first, last;

    for (int64_t s = 0; s < n_segments; s++) {
        const struct ha_segment *segment = &segments[s];

        first_tile[s] = n;
        for (int64_t at = 0; at < segment->length; at += TILE)
            drafts[n++].tile = (struct ha_cuda_key_tile){
                .key = (int32_t)(segment->begin + at),
                .n_keys = (int32_t)(segment->length - at < TILE ? segment->length - at : TILE),
                .n_ranges = 1,
            };
    }
    for (int64_t s = 0; s < n_segments; s++) {
        if (!has_prefix(&segments[s]))
            continue;
        tiles_of_prefix(segments, n_segments, first_tile, &segments[s], &first, &last);
        for (int64_t i = first; i <= last; i++)
            drafts[i].tile.n_ranges++;
    }
    for (int64_t i = 0; i < n; i++) {
        drafts[i].tile.first_range = (int32_t)n_ranges;
        n_ranges += drafts[i].tile.n_ranges;
        drafts[i].tile.n_ranges = 0;
    }
    return n_ranges;
}

static void add_range(struct ha_cuda_attention_plan *plan, struct draft *draft,
                      const struct ha_cuda_query_range *range)
{
    plan->ranges[draft->tile.first_range + draft->tile.n_ranges++] = *range;
    draft->work += range->end - range->begin;
}

static void add_ranges(struct ha_cuda_attention_plan *plan, struct draft *drafts,
                       const int64_t *first_tile, const struct ha_segment *segments,
                       int64_t n_segments)
{
    int64_t first, last;

    for (int64_t s = 0; s < n_segments; s++) {
        const struct ha_segment *segment = &segments[s];
        int32_t end = (int32_t)(segment->begin + segment->length);

        for (int64_t i = first_tile[s]; i < first_tile[s] + tiles_of(segment->length); i++) {
            const struct ha_cuda_key_tile *tile = &drafts[i].tile;

            add_range(plan, &drafts[i],
                      &(struct ha_cuda_query_range){tile->key, end, tile->key,
                                                    tile->key + tile->n_keys, 1});
        }
    }
    for (int64_t s = 0; s < n_segments; s++) {
        const struct ha_segment *segment = &segments[s];
        int32_t low = (int32_t)segment->prefix_begin;
        int32_t high = (int32_t)(segment->prefix_begin + segment->prefix_length);

        if (!has_prefix(segment))
            continue;
        tiles_of_prefix(segments, n_segments, first_tile, segment, &first, &last);
        for (int64_t i = first; i <= last; i++) {
            const struct ha_cuda_key_tile *tile = &drafts[i].tile;

            add_range(plan, &drafts[i],
                      &(struct ha_cuda_query_range){
                          (int32_t)segment->begin, (int32_t)(segment->begin + segment->length),
                          low > tile->key ? low : tile->key,
                          ha_cuda_least(high, tile->key + tile->n_keys), 0});
        }
    }
}

/* Counts, and the block that the lists lie in. */
static int plan_alloc(const struct ha_segment *segments, int64_t n_segments,
                      struct ha_cuda_attention_plan **ret_plan, struct ha_error *err)
{
    struct ha_cuda_attention_plan *plan = ha_calloc(1, sizeof(*plan));
    char *block = NULL;

    if (!plan)
        return ha_error_set(err, ENOMEM, "no memory for the plan of attention");
    for (int64_t s = 0; s < n_segments; s++) {
        const struct ha_segment *segment = &segments[s];

        plan->n_query_tiles += tiles_of(segment->length);
        if (has_prefix(segment)) /* it may touch one tile more than it has tiles of its own */
            plan->n_ranges += tiles_of(segment->prefix_length) + 1;
    }
    plan->n_key_tiles = plan->n_query_tiles;
    plan->n_ranges += plan->n_key_tiles;
    if (plan->n_ranges <= INT32_MAX)
        block = ha_calloc((int64_t)ha_cuda_attention_plan_bytes(plan) + 1, 1);
    if (!block) {
        free(plan);
        return ha_error_set(err, ENOMEM, "no memory for the lists of attention tiles");
    }
    plan->query_tiles = (void *)block;
    plan->key_tiles = (void *)(plan->query_tiles + plan->n_query_tiles);
    plan->ranges = (void *)(plan->key_tiles + plan->n_key_tiles);
    *ret_plan = plan;
    return 0;
}

int ha_cuda_attention_plan_create(const struct ha_segment *segments, int64_t n_segments,
                                  struct ha_cuda_attention_plan **ret_plan, struct ha_error *err)
{
    struct ha_cuda_attention_plan *plan;
    struct draft *drafts;
    int64_t *first_tile;
    int rc = plan_alloc(segments, n_segments, &plan, err);

    if (rc < 0)
        return rc;
    drafts = ha_calloc(plan->n_key_tiles + 1, sizeof(*drafts));
    first_tile = ha_calloc(n_segments + 1, sizeof(*first_tile));
    if (drafts && first_tile) {
        list_query_tiles(plan, segments, n_segments);
        plan->n_ranges = draft_key_tiles(drafts, first_tile, segments, n_segments);
        add_ranges(plan, drafts, first_tile, segments, n_segments);
        qsort(drafts, (size_t)plan->n_key_tiles, sizeof(*drafts), heavier_draft);
        for (int64_t i = 0; i < plan->n_key_tiles; i++)
            plan->key_tiles[i] = drafts[i].tile;
        *ret_plan = plan;
    } else {
        rc = ha_error_set(err, ENOMEM, "no memory for the plan of attention");
        ha_cuda_attention_plan_destroy(plan);
    }
    free(drafts);
    free(first_tile);
    return rc;
}

void ha_cuda_attention_plan_destroy(struct ha_cuda_attention_plan *plan)
{
    if (!plan)
        return;
    free(plan->query_tiles);
    free(plan);
}

size_t ha_cuda_attention_plan_bytes(const struct ha_cuda_attention_plan *plan)
{
    return (size_t)plan->n_query_tiles * sizeof(*plan->query_tiles) +
           (size_t)plan->n_key_tiles * sizeof(*plan->key_tiles) +
           (size_t)plan->n_ranges * sizeof(*plan->ranges);
}
