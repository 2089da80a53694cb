/* The lists of tiles that attention on a GPU works by: each pair of the mask once, none beyond. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention_plan.h"
#include "kernels/segments.h"
#include "tests/unit/kernels/support.h"

enum { MAX_SEGMENTS = 12 };

struct pack {
    struct ha_segment segments[MAX_SEGMENTS];
    int64_t n_segments, n_tokens;
};

static struct ha_attention shape_of(const struct pack *pack)
{
    return (struct ha_attention){.n_tokens = pack->n_tokens,
                                 .n_heads = 1,
                                 .n_kv_heads = 1,
                                 .head_dim = 64,
                                 .segments = pack->segments,
                                 .n_segments = pack->n_segments};
}

static void add(struct pack *pack, int64_t length, int64_t prefix_begin, int64_t prefix_length)
{
    pack->segments[pack->n_segments++] =
        (struct ha_segment){pack->n_tokens, length, prefix_begin, prefix_length};
    pack->n_tokens += length;
}

/* Lengths around the tile's, prefixes that are a whole segment or an odd part of one. */
static struct pack random_pack(struct random *random)
{
    static const int64_t lengths[] = {0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 190};
    struct pack pack = {.n_segments = 0};
    int64_t n = 1 + random_below(random, MAX_SEGMENTS);

    for (int64_t s = 0; s < n; s++) {
        int64_t begin = 0, length = 0;

        if (s > 0 && random_below(random, 3) > 0) {
            const struct ha_segment *owner = &pack.segments[random_below(random, s)];

            begin = owner->begin;
            length = owner->length;
            if (length > 0 && random_below(random, 2)) {
                int64_t skip = random_below(random, length);

                begin += skip;
                length = 1 + random_below(random, length - skip);
            }
        }
        add(&pack, lengths[random_below(random, 13)], begin, length);
    }
    return pack;
}

static bool sees(const struct ha_segment *s, int64_t t, int64_t j)
{
    return (j >= s->prefix_begin && j < s->prefix_begin + s->prefix_length) ||
           (j >= s->begin && j <= t);
}

/* seen (T, T) counts what the walk over query tiles visits. */
static void walk_queries(const struct ha_cuda_attention_plan *plan, const struct pack *pack,
                         uint8_t *seen)
{
    for (int64_t i = 0; i < plan->n_query_tiles; i++) {
        const struct ha_cuda_query_tile *tile = &plan->query_tiles[i];

        assert_in_range(tile->n_rows, 1, HA_CUDA_ATTENTION_TILE);
        for (int32_t k = 0; k < ha_cuda_key_steps(tile); k++) {
            struct ha_cuda_key_step step = ha_cuda_key_step_at(tile, k);
            int64_t visited = 0;

            assert_in_range(step.n_keys, 1, HA_CUDA_ATTENTION_TILE);
            for (int32_t r = 0; r < tile->n_rows; r++)
                for (int32_t j = 0; j < HA_CUDA_ATTENTION_TILE; j++)
                    if (ha_cuda_step_sees(&step, r, j)) {
                        seen[(tile->row + r) * pack->n_tokens + step.key + j]++;
                        visited++;
                    }
            assert_true(visited > 0);
        }
        if (i > 0)
            assert_true(ha_cuda_key_steps(&plan->query_tiles[i - 1]) >= ha_cuda_key_steps(tile));
    }
}

/* The same for key tiles, with two query heads. */
static void walk_keys(const struct ha_cuda_attention_plan *plan, const struct pack *pack,
                      uint8_t *seen)
{
    for (int64_t i = 0; i < plan->n_key_tiles; i++) {
        const struct ha_cuda_key_tile *tile = &plan->key_tiles[i];
        struct ha_cuda_query_walk walk = ha_cuda_query_walk_start(tile, plan->ranges);

        assert_in_range(tile->n_keys, 1, HA_CUDA_ATTENTION_TILE);
        assert_true(tile->first_range + tile->n_ranges <= plan->n_ranges);
        do {
            const struct ha_cuda_query_range *range = &plan->ranges[walk.range];
            int64_t visited = 0;

            for (int32_t r = 0; r < HA_CUDA_ATTENTION_STEP; r++)
                for (int32_t j = 0; j < HA_CUDA_ATTENTION_TILE; j++)
                    if (ha_cuda_range_sees(range, walk.query + r, tile->key + j)) {
                        uint8_t *at = &seen[(walk.query + r) * pack->n_tokens + tile->key + j];

                        assert_true(j < tile->n_keys);
                        *at = (uint8_t)(*at + (walk.head == 0 ? 1 : 16));
                        visited++;
                    }
            assert_true(visited > 0);
        } while (ha_cuda_query_walk_next(&walk, tile, plan->ranges, 2));
    }
}

static void check_pack(const struct pack *pack)
{
    struct ha_attention shape = shape_of(pack);
    struct ha_cuda_attention_plan *plan;
    size_t n = (size_t)(pack->n_tokens * pack->n_tokens);
    uint8_t *by_query = calloc(n + 1, 1), *by_key = calloc(n + 1, 1);

    assert_non_null(by_query);
    assert_non_null(by_key);
    assert_ok(ha_attention_check(&shape, &err));
    assert_ok(ha_cuda_attention_plan_create(pack->segments, pack->n_segments, &plan, &err));
    walk_queries(plan, pack, by_query);
    walk_keys(plan, pack, by_key);
    for (int64_t s = 0; s < pack->n_segments; s++)
        for (int64_t t = pack->segments[s].begin;
             t < pack->segments[s].begin + pack->segments[s].length; t++)
            for (int64_t j = 0; j < pack->n_tokens; j++) {
                int want = sees(&pack->segments[s], t, j);

                assert_int_equal(by_query[t * pack->n_tokens + j], want);
                assert_int_equal(by_key[t * pack->n_tokens + j], want * 17);
            }
    assert_true(ha_cuda_attention_plan_bytes(plan) >=
                (size_t)plan->n_ranges * sizeof(*plan->ranges));
    ha_cuda_attention_plan_destroy(plan);
    free(by_query);
    free(by_key);
}

static void each_pair_of_the_mask_is_visited_once(void **state)
{
    struct random random = {31};

    (void)state;
    for (int i = 0; i < 60; i++) {
        struct pack pack = random_pack(&random);

        check_pack(&pack);
    }
}

static void long_packs_too(void **state)
{
    struct pack pack = {.n_segments = 0};

    (void)state;
    add(&pack, 1500, 0, 0);
    add(&pack, 300, 0, 1500);
    add(&pack, 517, 0, 1500);
    check_pack(&pack);
}

static void nothing_makes_an_empty_plan(void **state)
{
    static const struct ha_segment empty = {0, 0, 0, 0};
    struct ha_cuda_attention_plan *plan;

    (void)state;
    assert_ok(ha_cuda_attention_plan_create(&empty, 0, &plan, &err));
    assert_int_equal(ha_cuda_attention_plan_bytes(plan), 0);
    ha_cuda_attention_plan_destroy(plan);
    assert_ok(ha_cuda_attention_plan_create(&empty, 1, &plan, &err));
    assert_int_equal(plan->n_query_tiles, 0);
    ha_cuda_attention_plan_destroy(plan);
    ha_cuda_attention_plan_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_pair_of_the_mask_is_visited_once),
        cmocka_unit_test(long_packs_too),
        cmocka_unit_test(nothing_makes_an_empty_plan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
