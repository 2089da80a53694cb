/* attention_plan.h - which tiles of queries and keys meet (host logic, no CUDA header)
 *
 * Forward and dq go through the query tiles, dk and dv through the key tiles.  Tiles
 * start at their segment's first token, so that the cut of a segment depends on no
 * other; the walk of a query tile over its prefix starts at the prefix's first token.
 * The lists are in the order of work, longest first; no result depends on it.
 *
 * The kernels walk by the inline functions below, as the tests do: each (query, key)
 * pair of the mask lies in one step of one tile of each list. */
#ifndef HA_KERNELS_CUDA_ATTENTION_PLAN_H
#define HA_KERNELS_CUDA_ATTENTION_PLAN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define HA_CUDA_BOTH __host__ __device__
#else
#define HA_CUDA_BOTH
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct ha_error;
struct ha_segment;

enum {
    HA_CUDA_ATTENTION_TILE = 64, /* queries or keys of a tile of a list, keys of a walk's step */
    HA_CUDA_ATTENTION_STEP = 32, /* queries of a step of a key tile's walk; divides the tile */
};

/* Queries row .. row + n_rows of one segment. */
struct ha_cuda_query_tile {
    int32_t row, n_rows;
    int32_t prefix_begin, prefix_end; /* keys that all rows see */
    int32_t own_begin;                /* row r sees own_begin .. row + r too */
};

/* Queries begin .. end of one segment, and which keys of a tile they see: low .. high, no
 * later than themselves where it is their own segment. */
struct ha_cuda_query_range {
    int32_t begin, end;
    int32_t low, high; /* tokens */
    int32_t own;
};

/* Keys key .. key + n_keys of one segment. */
struct ha_cuda_key_tile {
    int32_t key, n_keys;
    int32_t first_range, n_ranges; /* its own segment first, then in order of tokens */
};

struct ha_cuda_attention_plan {
    int64_t n_query_tiles, n_key_tiles, n_ranges;
    /* One block of memory: query tiles, key tiles, ranges. */
    struct ha_cuda_query_tile *query_tiles;
    struct ha_cuda_key_tile *key_tiles;
    struct ha_cuda_query_range *ranges;
};

/* For segments that ha_attention_check allows, of at most INT32_MAX - 2 tiles tokens.
 * Returns 0 or -ENOMEM. */
int ha_cuda_attention_plan_create(const struct ha_segment *segments, int64_t n_segments,
                                  struct ha_cuda_attention_plan **ret_plan, struct ha_error *err);
void ha_cuda_attention_plan_destroy(struct ha_cuda_attention_plan *plan);

/* Bytes of the block from query_tiles on. */
size_t ha_cuda_attention_plan_bytes(const struct ha_cuda_attention_plan *plan);

/* ---- the walks ---- */

static inline HA_CUDA_BOTH int32_t ha_cuda_tiles_of(int32_t n, int32_t tile)
{
    return (n + tile - 1) / tile;
}

static inline HA_CUDA_BOTH int32_t ha_cuda_least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Keys key .. key + n_keys, of which row r of the tile sees the first `visible` + r. */
struct ha_cuda_key_step {
    int32_t key, n_keys, visible;
};

static inline HA_CUDA_BOTH int32_t ha_cuda_key_steps(const struct ha_cuda_query_tile *tile)
{
    return ha_cuda_tiles_of(tile->prefix_end - tile->prefix_begin, HA_CUDA_ATTENTION_TILE) +
           ha_cuda_tiles_of(tile->row + tile->n_rows - tile->own_begin, HA_CUDA_ATTENTION_TILE);
}

static inline HA_CUDA_BOTH struct ha_cuda_key_step
ha_cuda_key_step_at(const struct ha_cuda_query_tile *tile, int32_t i)
{
    struct ha_cuda_key_step step;
    int32_t in_prefix =
        ha_cuda_tiles_of(tile->prefix_end - tile->prefix_begin, HA_CUDA_ATTENTION_TILE);
    int32_t end = i < in_prefix ? tile->prefix_end : tile->row + tile->n_rows;

    step.key = i < in_prefix ? tile->prefix_begin + i * HA_CUDA_ATTENTION_TILE
                             : tile->own_begin + (i - in_prefix) * HA_CUDA_ATTENTION_TILE;
    step.n_keys = ha_cuda_least(HA_CUDA_ATTENTION_TILE, end - step.key);
    step.visible = i < in_prefix ? HA_CUDA_ATTENTION_TILE : tile->row + 1 - step.key;
    return step;
}

/* Does row r see key j of the step? */
static inline HA_CUDA_BOTH int ha_cuda_step_sees(const struct ha_cuda_key_step *step, int32_t r,
                                                 int32_t j)
{
    return j < step->n_keys && j < step->visible + r;
}

/* Where a key tile's walk is: at queries query .. of range `range`, query head `head` of the
 * group. */
struct ha_cuda_query_walk {
    int32_t range, head, query;
};

static inline HA_CUDA_BOTH struct ha_cuda_query_walk
ha_cuda_query_walk_start(const struct ha_cuda_key_tile *tile,
                         const struct ha_cuda_query_range *ranges)
{
    struct ha_cuda_query_walk walk;

    walk.range = tile->first_range;
    walk.head = 0;
    walk.query = ranges[tile->first_range].begin;
    return walk;
}

/* The next step; 0 when there is none. */
static inline HA_CUDA_BOTH int ha_cuda_query_walk_next(struct ha_cuda_query_walk *walk,
                                                       const struct ha_cuda_key_tile *tile,
                                                       const struct ha_cuda_query_range *ranges,
                                                       int32_t n_heads)
{
    walk->query += HA_CUDA_ATTENTION_STEP;
    if (walk->query < ranges[walk->range].end)
        return 1;
    if (++walk->head == n_heads) {
        walk->head = 0;
        if (++walk->range == tile->first_range + tile->n_ranges)
            return 0;
    }
    walk->query = ranges[walk->range].begin;
    return 1;
}

/* Does a query of the range see a key of the tile? */
static inline HA_CUDA_BOTH int ha_cuda_range_sees(const struct ha_cuda_query_range *range,
                                                  int32_t query, int32_t key)
{
    return query < range->end && key >= range->low && key < range->high &&
           (!range->own || key <= query);
}

#ifdef __cplusplus
}
#endif

#endif
