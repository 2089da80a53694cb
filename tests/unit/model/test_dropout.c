/* Dropout of adapters' inputs: which mask each token has, what it does to results and gradients,
 * and what it does not depend on. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/base/rng_philox.h"
#include "worker/model/pass.h"

#define ALL_MODULES ((1u << HA_MODULE_COUNT) - 1)

enum { N_PAIRS = 8, VOCAB = 53, RANK = 3 };

static const int64_t numbers[N_PAIRS] = {7, 1, 1000000, 0, 3, 12, 4294967295, 5};

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_pack_pair *pairs;
    int32_t *ids;
};

static void set_up(struct fixture *fixture, enum ha_model_family family, int threads)
{
    struct ha_model_config config = small_config(family);

    fixture->backend = open_cpu(threads);
    small_model_open(&fixture->small, fixture->backend, &config, HA_DTYPE_F32, 7);
    fixture->pairs = random_pairs(N_PAIRS, VOCAB, 11, &fixture->ids);
}

static void tear_down(struct fixture *fixture)
{
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
    free(fixture->pairs);
    free(fixture->ids);
}

/* Pairs first, first + 1, ... */
static struct ha_pack *make_pack(const struct fixture *fixture, int64_t first, int64_t n,
                                 bool share)
{
    struct ha_pack *pack = NULL;

    assert_ok(ha_pack_create_pairs(fixture->pairs + first, NULL, n, share, &pack, &err));
    return pack;
}

static int64_t width_of(const struct fixture *fixture)
{
    struct ha_adapter_geometry geometry;

    ha_model_config_geometry(&fixture->small.config, &geometry);
    return ha_adapter_widest_input(&geometry, ALL_MODULES);
}

static struct ha_pass *make_pass(const struct fixture *fixture, const struct ha_pack *pack,
                                 int64_t lowest, int64_t recomputed)
{
    struct ha_pass_limits limits = {.max_tokens = pack->n_tokens + 3,
                                    .max_rows = pack->n_rows + 2,
                                    .max_rank = RANK,
                                    .dropout_width = width_of(fixture),
                                    .lowest_layer = lowest,
                                    .recomputed_layers = recomputed};
    struct ha_pass *pass = NULL;

    assert_ok(ha_pass_create(fixture->small.model, &limits, &pass, &err));
    return pass;
}

static struct ha_adapter *make_adapter(const struct fixture *fixture, int64_t first,
                                       uint32_t modules, float b_scale)
{
    return random_adapter(fixture->backend, &fixture->small.config, first, 3, modules, RANK,
                          b_scale, 5);
}

static struct ha_pass_dropout dropout_from(int64_t first_pair)
{
    return (struct ha_pass_dropout){
        .p = 0.2, .seed = 99, .epoch = 2, .pairs = numbers + first_pair};
}

static struct ha_pass_rows forward(struct ha_pass *pass, const struct ha_pack *pack,
                                   const struct ha_adapter *adapter,
                                   const struct ha_pass_dropout *dropout)
{
    struct ha_pass_rows rows;

    assert_ok(ha_pass_begin(pass, pack, &err));
    if (dropout)
        assert_ok(ha_pass_set_dropout(pass, dropout, &err));
    assert_ok(ha_pass_embed(pass, &err));
    assert_ok(ha_pass_layers(pass, adapter, 0, pass->config->n_layers, &err));
    assert_ok(ha_pass_head(pass, pass->drows != NULL, &rows, &err));
    return rows;
}

/* Of sum coefficient * logp. */
static float *gradient_of(struct ha_pass *pass, const struct ha_pack *pack,
                          const struct ha_adapter *adapter, const struct ha_pass_dropout *dropout,
                          const float *coefficient)
{
    float *gradient = ha_calloc(ha_adapter_n_params(adapter), sizeof(float));

    assert_non_null(gradient);
    (void)forward(pass, pack, adapter, dropout);
    assert_ok(ha_pass_backward(pass, adapter, coefficient, gradient, &err));
    return gradient;
}

static float *coefficients(const struct ha_pack *pack)
{
    float *coefficient = ha_calloc(pack->n_rows, sizeof(float));
    struct random random = {13};

    assert_non_null(coefficient);
    for (int64_t i = 0; i < pack->n_rows; i++)
        coefficient[i] = random_uniform(&random);
    return coefficient;
}

/* ---- the masks themselves ---- */

/* What the mask of one element must be, written out anew. */
static bool kept(const struct ha_pass_dropout *dropout, int64_t pair, uint32_t side,
                 uint32_t position, uint32_t layer, uint32_t module, uint32_t feature)
{
    uint32_t key[2] = {(uint32_t)dropout->seed, (uint32_t)(dropout->seed >> 32)}, words[4];
    uint32_t counter[4] = {position * 4 + side, (uint32_t)pair,
                           (uint32_t)dropout->epoch * 8192 + layer * 8 + module,
                           feature / 4 * 256 + 2};

    ha_philox(key, counter, words);
    return words[feature % 4] >= dropout->p * 0x1p32;
}

/* The mask of a module over the pack in work: ones are dropped. */
static float *mask_of(const struct ha_pass *pass, int64_t layer, enum ha_module module,
                      int64_t cols)
{
    struct ha_layer_context context = ha_pass_context(pass, NULL, layer);
    int64_t n = context.n_rows * cols;
    float *ones = ha_calloc(n, sizeof(float)), *mask = ha_calloc(n, sizeof(float));
    struct ha_matrix x = ha_layer_act(&context, ones, context.n_rows, cols), input;

    assert_true(ones && mask);
    for (int64_t i = 0; i < n; i++)
        ones[i] = 1;
    assert_ok(ha_layer_drop(&context, module, &x, &input, &err));
    memcpy(mask, input.data, (size_t)n * sizeof(float));
    free(ones);
    return mask;
}

/* Tokens in the order of the pack: (prompt, chosen, rejected) or (prompt chosen, prompt rejected),
 * without the last id of an answer. */
static void check_masks(const struct fixture *fixture, const struct ha_pass *pass, bool share,
                        const struct ha_pass_dropout *dropout, int64_t layer, enum ha_module module)
{
    int64_t cols = 5 + 4 * (int64_t)module, t = 0;
    float *mask = mask_of(pass, layer, module, cols), scale = (float)(1 / (1 - dropout->p));

    for (int64_t i = 0; i < N_PAIRS; i++) {
        const struct ha_pack_pair *pair = &fixture->pairs[i];
        int64_t answers[2] = {pair->n_chosen, pair->n_rejected};

        for (uint32_t answer = 0; answer < 2; answer++) {
            int64_t prompt = share && answer == 1 ? 0 : pair->n_prompt;
            int64_t n = answers[answer] > 0 ? answers[answer] - 1 : 0;

            for (int64_t k = 0; k < prompt + n; k++, t++) {
                int64_t position = k + pair->n_prompt - prompt;
                uint32_t side = position < pair->n_prompt ? 0 : 1 + answer;

                for (int64_t j = 0; j < cols; j++) {
                    bool keep = kept(dropout, numbers[i], side, (uint32_t)position, (uint32_t)layer,
                                     (uint32_t)module, (uint32_t)j);

                    assert_true(mask[t * cols + j] == (keep ? scale : 0.0f));
                }
            }
        }
    }
    assert_int_equal(t, pass->pack->n_tokens);
    free(mask);
}

static void masks_are_those_of_their_addresses(void **state)
{
    static const int64_t epochs[] = {0, 1, HA_PASS_MAX_DROPOUT_EPOCHS - 1};
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN2, 2);
    for (int share = 0; share < 2; share++) {
        struct ha_pack *pack = make_pack(&fixture, 0, N_PAIRS, share);
        struct ha_pass *pass = make_pass(&fixture, pack, 0, 0);

        for (int e = 0; e < 3; e++) {
            struct ha_pass_dropout dropout = dropout_from(0);

            dropout.epoch = epochs[e];
            dropout.seed += (uint64_t)e << 40;
            assert_ok(ha_pass_begin(pass, pack, &err));
            assert_ok(ha_pass_set_dropout(pass, &dropout, &err));
            for (int64_t layer = 0; layer < 4; layer++)
                for (int module = 0; module < HA_MODULE_COUNT; module++)
                    check_masks(&fixture, pass, share, &dropout, layer, (enum ha_module)module);
        }
        ha_pass_destroy(pass);
        ha_pack_destroy(pack);
    }
    tear_down(&fixture);
}

/* Plain sequences have a side of their own. */
static void sequences_have_masks_too(void **state)
{
    struct ha_pass_dropout dropout = dropout_from(3);
    struct fixture fixture;
    struct ha_pack_sequence sequence;
    struct ha_pack *pack = NULL;
    struct ha_pass *pass;
    float *mask;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, 1);
    sequence = (struct ha_pack_sequence){fixture.ids, 9};
    assert_ok(ha_pack_create_sequences(&sequence, 1, true, &pack, &err));
    pass = make_pass(&fixture, pack, 0, 0);
    assert_ok(ha_pass_begin(pass, pack, &err));
    assert_ok(ha_pass_set_dropout(pass, &dropout, &err));
    mask = mask_of(pass, 1, HA_MODULE_O, 8);
    for (uint32_t i = 0; i < 72; i++)
        assert_true((mask[i] != 0) == kept(&dropout, 0, 3, i / 8, 1, HA_MODULE_O, i % 8));
    free(mask);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    tear_down(&fixture);
}

/* Five standard deviations of a binomial. */
static void assert_share(double count, double n, double p)
{
    if (!(fabs(count - n * p) <= 5 * sqrt(n * p * (1 - p))))
        fail_msg("%g of %g where %g are expected", count, n, n * p);
}

/* The masks of all modules, layers and epochs agree as often as unrelated ones. */
static void masks_are_independent(void **state)
{
    enum { COLS = 40, EPOCHS = 2, MASKS = EPOCHS * 4 * HA_MODULE_COUNT };
    struct ha_pass_dropout dropout = dropout_from(0);
    struct fixture fixture;
    struct ha_pack *pack;
    struct ha_pass *pass;
    float *masks[MASKS];
    int64_t n;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, 1);
    pack = make_pack(&fixture, 0, N_PAIRS, true);
    pass = make_pass(&fixture, pack, 0, 0);
    n = pack->n_tokens * COLS;
    for (int i = 0; i < MASKS; i++) {
        double count = 0;

        dropout.epoch = i / (4 * HA_MODULE_COUNT);
        assert_ok(ha_pass_begin(pass, pack, &err));
        assert_ok(ha_pass_set_dropout(pass, &dropout, &err));
        masks[i] =
            mask_of(pass, i / HA_MODULE_COUNT % 4, (enum ha_module)(i % HA_MODULE_COUNT), COLS);
        for (int64_t k = 0; k < n; k++)
            count += masks[i][k] != 0;
        assert_share(count, (double)n, 1 - dropout.p);
        for (int j = 0; j < i; j++) {
            double equal = 0;

            for (int64_t k = 0; k < n; k++)
                equal += masks[i][k] == masks[j][k];
            assert_share(equal, (double)n, 0.8 * 0.8 + 0.2 * 0.2);
        }
    }
    for (int i = 0; i < MASKS; i++)
        free(masks[i]);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    tear_down(&fixture);
}

/* ---- what they do ---- */

/* B = 0: nothing that is dropped shows.  B not 0: it does, and only until the next pack. */
static void dropout_acts_through_b_only(void **state)
{
    struct ha_pass_dropout dropout = dropout_from(0), none = dropout;
    struct ha_adapter *zero, *full;
    struct fixture fixture;
    struct ha_pack *pack;
    struct ha_pass *pass;
    float *base, *without;
    struct ha_pass_rows rows;
    size_t bytes;

    (void)state;
    none.p = 0;
    set_up(&fixture, HA_FAMILY_QWEN3, 2);
    pack = make_pack(&fixture, 0, N_PAIRS, true);
    pass = make_pass(&fixture, pack, 0, 0);
    zero = make_adapter(&fixture, 0, ALL_MODULES, 0);
    full = make_adapter(&fixture, 0, ALL_MODULES, 0.3f);
    bytes = (size_t)pack->n_rows * sizeof(float);
    base = ha_calloc(pack->n_rows, sizeof(float));
    without = ha_calloc(pack->n_rows, sizeof(float));
    assert_true(base && without);
    rows = forward(pass, pack, NULL, NULL);
    memcpy(base, rows.logp, bytes);
    rows = forward(pass, pack, full, NULL);
    memcpy(without, rows.logp, bytes);
    assert_memory_equal(forward(pass, pack, zero, &dropout).logp, base, bytes);
    assert_memory_equal(forward(pass, pack, NULL, &dropout).logp, base, bytes);
    rows = forward(pass, pack, full, &dropout);
    for (int64_t i = 0; i < rows.n_rows; i++)
        assert_true(rows.logp[i] != without[i]);
    assert_memory_equal(forward(pass, pack, full, NULL).logp, without, bytes);
    assert_memory_equal(forward(pass, pack, full, &none).logp, without, bytes);
    free(base);
    free(without);
    ha_adapter_destroy(zero);
    ha_adapter_destroy(full);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    tear_down(&fixture);
}

static double weighted_sum(const struct ha_pass_rows *rows, const float *coefficient)
{
    double sum = 0;

    for (int64_t i = 0; i < rows->n_rows; i++)
        sum += (double)rows->logp[i] * (double)coefficient[i];
    return sum;
}

/* Along random directions, as test_pass.c has it without dropout. */
static void check_directions(const struct fixture *fixture, uint32_t modules, int64_t first)
{
    struct ha_pass_dropout dropout = dropout_from(0);
    struct ha_adapter *adapter = make_adapter(fixture, first, modules, 0.3f);
    struct ha_pack *pack = make_pack(fixture, 0, N_PAIRS, true);
    struct ha_pass *pass = make_pass(fixture, pack, first, 0);
    float *coefficient = coefficients(pack), *params = ha_adapter_params(adapter);
    float *gradient = gradient_of(pass, pack, adapter, &dropout, coefficient);
    int64_t n = ha_adapter_n_params(adapter);
    float *start = ha_calloc(n, sizeof(float));
    double step = 2e-3;

    assert_non_null(start);
    memcpy(start, params, (size_t)n * sizeof(float));
    for (uint64_t trial = 0; trial < 2; trial++) {
        double expected = 0, norm = 0, sums[2];

        for (int side = 0; side < 2; side++) {
            struct random direction = {modules + trial};
            struct ha_pass_rows rows;

            expected = norm = 0;
            for (int64_t i = 0; i < n; i++) {
                float d = random_uniform(&direction);

                params[i] = start[i] + (side ? -1.0f : 1.0f) * (float)step * d;
                expected += (double)gradient[i] * (double)d;
                norm += (double)gradient[i] * (double)gradient[i] / 3;
            }
            rows = forward(pass, pack, adapter, &dropout);
            sums[side] = weighted_sum(&rows, coefficient);
        }
        /* Rounding of the sums and the third derivative leave about 1e-3. */
        assert_true(fabs((sums[0] - sums[1]) / (2 * step) - expected) <= 5e-3 * sqrt(norm) + 1e-3);
    }
    free(start);
    free(gradient);
    free(coefficient);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    ha_adapter_destroy(adapter);
}

static void gradients_match_differences(void **state)
{
    static const enum ha_model_family families[] = {HA_FAMILY_LLAMA, HA_FAMILY_QWEN2,
                                                    HA_FAMILY_QWEN3};

    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct fixture fixture;

        set_up(&fixture, families[f], 1);
        for (int module = 0; module < HA_MODULE_COUNT; module++)
            check_directions(&fixture, 1u << module, 3 - module % 3);
        check_directions(&fixture, ALL_MODULES, 0);
        tear_down(&fixture);
    }
}

/* ---- what they do not depend on ---- */

/* A pair's log-probs: the same bits in a pack of all and by itself; with a prompt for each answer
 * but for rounding. */
static void packing_changes_no_mask(void **state)
{
    struct fixture fixture;
    struct ha_adapter *adapter;
    float *together[2];

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, 2);
    adapter = make_adapter(&fixture, 0, ALL_MODULES, 0.3f);
    for (int share = 0; share < 2; share++) {
        struct ha_pass_dropout dropout = dropout_from(0);
        struct ha_pack *all = make_pack(&fixture, 0, N_PAIRS, share);
        struct ha_pass *pass = make_pass(&fixture, all, 4, 0);
        struct ha_pass_rows rows = forward(pass, all, adapter, &dropout);

        together[share] = ha_calloc(rows.n_rows, sizeof(float));
        assert_non_null(together[share]);
        memcpy(together[share], rows.logp, (size_t)rows.n_rows * sizeof(float));
        for (int64_t i = 0; i < N_PAIRS; i++) {
            struct ha_pack *one = make_pack(&fixture, i, 1, share);

            dropout = dropout_from(i);
            if (one->n_tokens > 0) {
                rows = forward(pass, one, adapter, &dropout);
                assert_memory_equal(rows.logp, together[share] + all->chosen[i].begin,
                                    (size_t)rows.n_rows * sizeof(float));
            }
            ha_pack_destroy(one);
        }
        if (share)
            assert_true(relative_gap(together[1], together[0], all->n_rows) <= 1e-6);
        ha_pass_destroy(pass);
        ha_pack_destroy(all);
    }
    free(together[0]);
    free(together[1]);
    ha_adapter_destroy(adapter);
    tear_down(&fixture);
}

static void recomputing_and_threads_change_no_bit(void **state)
{
    float *first = NULL;

    (void)state;
    for (int64_t again = 0; again < 4; again++) {
        struct ha_pass_dropout dropout = dropout_from(0);
        struct fixture fixture;
        struct ha_adapter *adapter;
        struct ha_pack *pack;
        struct ha_pass *pass;
        float *coefficient, *gradient;

        set_up(&fixture, HA_FAMILY_QWEN3, 1 + (int)again);
        pack = make_pack(&fixture, 0, N_PAIRS, true);
        coefficient = coefficients(pack);
        adapter = make_adapter(&fixture, 0, ALL_MODULES, 0.3f);
        pass = make_pass(&fixture, pack, 0, again);
        gradient = gradient_of(pass, pack, adapter, &dropout, coefficient);
        if (first)
            assert_memory_equal(gradient, first,
                                (size_t)ha_adapter_n_params(adapter) * sizeof(float));
        else
            first = gradient;
        if (gradient != first)
            free(gradient);
        free(coefficient);
        ha_adapter_destroy(adapter);
        ha_pass_destroy(pass);
        ha_pack_destroy(pack);
        tear_down(&fixture);
    }
    free(first);
}

static void bad_calls_are_refused(void **state)
{
    static const int64_t wrong_pair[N_PAIRS] = {0, 0, 0, INT64_C(1) << 32, 0, 0, 0, 0};
    struct ha_pass_dropout dropout = dropout_from(0);
    struct ha_pass_limits limits = {.max_rank = RANK, .lowest_layer = 4};
    struct fixture fixture;
    struct ha_adapter *adapter;
    struct ha_pack *pack;
    struct ha_pass *pass;
    struct ha_error err;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, 1);
    pack = make_pack(&fixture, 0, N_PAIRS, true);
    limits.max_tokens = pack->n_tokens;
    limits.max_rows = pack->n_rows;
    assert_int_equal(ha_pass_create(fixture.small.model, &limits, &pass, &err), 0);
    assert_int_equal(ha_pass_begin(pass, pack, &err), 0);
    assert_int_equal(ha_pass_set_dropout(pass, &dropout, &err), -EINVAL);
    assert_non_null(strstr(err.text, "without room for dropout"));
    ha_pass_destroy(pass);

    limits.dropout_width = fixture.small.config.width; /* down_proj's input is wider */
    assert_int_equal(ha_pass_create(fixture.small.model, &limits, &pass, &err), 0);
    adapter = make_adapter(&fixture, 0, ALL_MODULES, 0.3f);
    assert_int_equal(ha_pass_begin(pass, pack, &err), 0);
    dropout.p = 1;
    assert_int_equal(ha_pass_set_dropout(pass, &dropout, &err), -EINVAL);
    dropout.p = 0.5;
    dropout.epoch = HA_PASS_MAX_DROPOUT_EPOCHS;
    assert_int_equal(ha_pass_set_dropout(pass, &dropout, &err), -EINVAL);
    assert_non_null(strstr(err.text, "epoch 524288 is out of range"));
    dropout.epoch = 0;
    dropout.pairs = wrong_pair;
    assert_int_equal(ha_pass_set_dropout(pass, &dropout, &err), -EINVAL);
    assert_non_null(strstr(err.text, "pair 4294967296 is out of range"));
    dropout.pairs = numbers;
    assert_int_equal(ha_pass_set_dropout(pass, &dropout, &err), 0);
    assert_int_equal(ha_pass_embed(pass, &err), 0);
    assert_int_equal(ha_pass_layers(pass, adapter, 0, 4, &err), -EINVAL);
    assert_non_null(strstr(err.text, "does not fit a pass with dropout"));
    ha_adapter_destroy(adapter);
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_those_of_their_addresses),
        cmocka_unit_test(sequences_have_masks_too),
        cmocka_unit_test(masks_are_independent),
        cmocka_unit_test(dropout_acts_through_b_only),
        cmocka_unit_test(gradients_match_differences),
        cmocka_unit_test(packing_changes_no_mask),
        cmocka_unit_test(recomputing_and_threads_change_no_bit),
        cmocka_unit_test(bad_calls_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
