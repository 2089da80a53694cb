/* Layout of packs, by hand and by rule. */
#include "tests/unit/model/support.h"

#include <stdlib.h>

static const int32_t prompt[] = {10, 11, 12}, chosen[] = {20, 21, 22}, rejected[] = {30, 31};

static const struct ha_pack_pair pair = {prompt, chosen, rejected, 3, 3, 2};

static void assert_ids(const int32_t *got, const int32_t *want, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(got[i], want[i]);
}

static void assert_segment(const struct ha_pack *pack, int64_t i, enum ha_pack_part part,
                           int64_t begin, int64_t length, int64_t prefix_begin,
                           int64_t prefix_length)
{
    assert_int_equal(pack->segment_part[i], part);
    assert_int_equal(pack->segments[i].begin, begin);
    assert_int_equal(pack->segments[i].length, length);
    assert_int_equal(pack->segments[i].prefix_length, prefix_length);
    if (prefix_length > 0)
        assert_int_equal(pack->segments[i].prefix_begin, prefix_begin);
}

static void shared_prompt(void **state)
{
    static const int32_t ids[] = {10, 11, 12, 20, 21, 30}, positions[] = {0, 1, 2, 3, 4, 3};
    static const int64_t tokens[] = {2, 3, 4, 2, 5};
    static const int32_t targets[] = {20, 21, 22, 30, 31};
    struct ha_pack *pack = NULL;

    (void)state;
    assert_ok(ha_pack_create_pairs(&pair, NULL, 1, true, &pack, &err));
    assert_int_equal(pack->n_tokens, 6);
    assert_int_equal(pack->n_tokens, ha_pack_pair_tokens(&pair, true));
    assert_ids(pack->ids, ids, 6);
    assert_ids(pack->positions, positions, 6);
    assert_int_equal(pack->n_segments, 3);
    assert_segment(pack, 0, HA_PACK_PROMPT, 0, 3, 0, 0);
    assert_segment(pack, 1, HA_PACK_CHOSEN, 3, 2, 0, 3);
    assert_segment(pack, 2, HA_PACK_REJECTED, 5, 1, 0, 3);
    assert_int_equal(pack->n_rows, 5);
    assert_int_equal(pack->n_rows, ha_pack_pair_rows(&pair));
    assert_ids(pack->row_target, targets, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(pack->row_token[i], tokens[i]);
    assert_int_equal(pack->chosen[0].begin, 0);
    assert_int_equal(pack->chosen[0].count, 3);
    assert_int_equal(pack->rejected[0].begin, 3);
    assert_int_equal(pack->rejected[0].count, 2);
    ha_pack_destroy(pack);
}

static void separate_prompts(void **state)
{
    static const int32_t ids[] = {10, 11, 12, 20, 21, 10, 11, 12, 30};
    static const int32_t positions[] = {0, 1, 2, 3, 4, 0, 1, 2, 3};
    static const int64_t tokens[] = {2, 3, 4, 7, 8};
    struct ha_pack *pack = NULL;

    (void)state;
    assert_ok(ha_pack_create_pairs(&pair, NULL, 1, false, &pack, &err));
    assert_int_equal(pack->n_tokens, 9);
    assert_int_equal(pack->n_tokens, ha_pack_pair_tokens(&pair, false));
    assert_ids(pack->ids, ids, 9);
    assert_ids(pack->positions, positions, 9);
    assert_int_equal(pack->n_segments, 2);
    assert_segment(pack, 0, HA_PACK_CHOSEN, 0, 5, 0, 0);
    assert_segment(pack, 1, HA_PACK_REJECTED, 5, 4, 0, 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(pack->row_token[i], tokens[i]);
    ha_pack_destroy(pack);
}

/* Answers of no token and of one, an empty prompt, an empty pair. */
static void odd_pairs(void **state)
{
    static const struct ha_pack_pair odd[] = {
        {prompt, chosen, rejected, 3, 0, 1},
        {prompt, chosen, rejected, 0, 3, 1},
        {prompt, chosen, rejected, 2, 0, 0},
        {prompt, chosen, rejected, 0, 0, 0},
    };
    static const int64_t chosen_rows[] = {0, 2, 0, 0}, rejected_rows[] = {1, 0, 0, 0};

    (void)state;
    for (int share = 0; share < 2; share++) {
        struct ha_pack *pack = NULL;
        int64_t tokens = 0, covered = 0, of_pair[4] = {0};

        assert_ok(ha_pack_create_pairs(odd, NULL, 4, share, &pack, &err));
        for (int i = 0; i < 4; i++) {
            tokens += ha_pack_pair_tokens(&odd[i], share);
            assert_int_equal(pack->chosen[i].count, chosen_rows[i]);
            assert_int_equal(pack->rejected[i].count, rejected_rows[i]);
        }
        assert_int_equal(pack->n_tokens, tokens);
        for (int64_t i = 0; i < pack->n_segments; i++) {
            assert_int_equal(pack->segments[i].begin, covered);
            assert_true(pack->segments[i].length > 0);
            covered += pack->segments[i].length;
            of_pair[pack->segment_pair[i]] += pack->segments[i].length;
        }
        assert_int_equal(covered, tokens);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(of_pair[i], ha_pack_pair_tokens(&odd[i], share));
            assert_int_equal(pack->prompt_length[i], odd[i].n_prompt);
        }
        for (int64_t i = 0; i < pack->n_rows; i++)
            assert_true(pack->row_token[i] >= 0 && pack->row_token[i] < tokens);
        ha_pack_destroy(pack);
    }
}

static void cut_from_the_front(void **state)
{
    struct ha_pack_pair cut = pair;

    (void)state;
    ha_pack_pair_truncate(&cut, 5);
    assert_int_equal(cut.n_prompt, 3);
    assert_int_equal(cut.n_chosen, 2);
    assert_int_equal(cut.n_rejected, 2);
    ha_pack_pair_truncate(&cut, 2);
    assert_int_equal(cut.n_prompt, 2);
    assert_int_equal(cut.n_chosen, 0);
    assert_int_equal(cut.n_rejected, 0);
}

static void filling(void **state)
{
    const struct ha_pack_pair pairs[] = {pair, pair, pair, pair};
    static const int64_t index[] = {3, 1, 0, 2};

    (void)state;
    /* A pair has 6 tokens shared and 9 apart; one pair is always taken. */
    assert_int_equal(ha_pack_fill(pairs, index, 4, true, 1), 1);
    assert_int_equal(ha_pack_fill(pairs, index, 4, true, 11), 1);
    assert_int_equal(ha_pack_fill(pairs, index, 4, true, 12), 2);
    assert_int_equal(ha_pack_fill(pairs, NULL, 4, false, 18), 2);
    assert_int_equal(ha_pack_fill(pairs, index, 4, true, 1000), 4);
    assert_int_equal(ha_pack_fill(pairs, index, 1, true, 1), 1);
}

static void plain_sequences(void **state)
{
    const struct ha_pack_sequence sequences[] = {{prompt, 3}, {prompt, 0}, {chosen, 2}};
    struct ha_pack *pack = NULL;

    (void)state;
    assert_ok(ha_pack_create_sequences(sequences, 3, true, &pack, &err));
    assert_int_equal(pack->n_tokens, 5);
    assert_int_equal(pack->n_segments, 2);
    assert_segment(pack, 1, HA_PACK_WHOLE, 3, 2, 0, 0);
    assert_int_equal(pack->n_rows, 3);
    assert_int_equal(pack->chosen[2].begin, 2);
    assert_int_equal(pack->row_token[2], 3);
    assert_int_equal(pack->row_target[2], 21);
    ha_pack_destroy(pack);
    assert_ok(ha_pack_create_sequences(sequences, 3, false, &pack, &err));
    assert_int_equal(pack->n_rows, 0);
    ha_pack_destroy(pack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_prompt), cmocka_unit_test(separate_prompts),
        cmocka_unit_test(odd_pairs),     cmocka_unit_test(cut_from_the_front),
        cmocka_unit_test(filling),       cmocka_unit_test(plain_sequences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
