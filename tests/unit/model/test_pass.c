/* Passes over packs of small random models: what must be bit-equal, what the
 * gradients are, and that the plan of the memory is the memory. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

#define ALL_MODULES ((1u << HA_MODULE_COUNT) - 1)

enum { N_PAIRS = 8, VOCAB = 53, RANK = 3 };

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
    small_model_open(&fixture->small, fixture->backend, &config,
                     family == HA_FAMILY_QWEN2 ? HA_DTYPE_BF16 : HA_DTYPE_F32, 7);
    fixture->pairs = random_pairs(N_PAIRS, VOCAB, 11, &fixture->ids);
}

static void tear_down(struct fixture *fixture)
{
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
    free(fixture->pairs);
    free(fixture->ids);
}

static struct ha_pack *make_pack(const struct fixture *fixture, bool share)
{
    struct ha_pack *pack = NULL;

    assert_ok(ha_pack_create_pairs(fixture->pairs, NULL, N_PAIRS, share, &pack, &err));
    return pack;
}

static struct ha_pass *make_recomputing(const struct fixture *fixture, const struct ha_pack *pack,
                                        int64_t lowest, int64_t recomputed)
{
    struct ha_pass_limits limits = {.max_tokens = pack->n_tokens + 3,
                                    .max_rows = pack->n_rows + 2,
                                    .max_rank = RANK,
                                    .lowest_layer = lowest,
                                    .recomputed_layers = recomputed,
                                    .statistics = true};
    struct ha_pass *pass = NULL;

    assert_ok(ha_pass_create(fixture->small.model, &limits, &pass, &err));
    return pass;
}

static struct ha_pass *make_pass(const struct fixture *fixture, const struct ha_pack *pack,
                                 int64_t lowest)
{
    return make_recomputing(fixture, pack, lowest, 0);
}

static float *copy_logp(const struct ha_pass_rows *rows)
{
    float *copy = ha_calloc(rows->n_rows, sizeof(float));

    assert_non_null(copy);
    memcpy(copy, rows->logp, (size_t)rows->n_rows * sizeof(float));
    return copy;
}

static void assert_same(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        assert_true(a[i] == b[i]);
}

/* One coefficient per row, as a loss would give. */
static float *coefficients(const struct ha_pack *pack)
{
    float *values = ha_calloc(pack->n_rows, sizeof(float));
    struct random random = {99};

    assert_non_null(values);
    for (int64_t i = 0; i < pack->n_rows; i++)
        values[i] = random_uniform(&random);
    return values;
}

/* Gradient of sum coefficient * logp on the host. */
static float *gradient_of(const struct fixture *fixture, struct ha_pass *pass,
                          const struct ha_pack *pack, const struct ha_adapter *adapter,
                          const float *coefficient)
{
    int64_t n = ha_adapter_n_params(adapter);
    struct ha_pass_rows rows;
    float *host = ha_calloc(n, sizeof(float));
    void *device = NULL;

    assert_non_null(host);
    assert_ok(ha_backend_alloc(fixture->backend, (size_t)n * sizeof(float), &device, &err));
    assert_ok(ha_pass_forward(pass, pack, adapter, true, &rows, &err));
    assert_ok(ha_pass_backward(pass, adapter, coefficient, device, &err));
    assert_ok(ha_backend_download(fixture->backend, host, device, (size_t)n * sizeof(float), &err));
    assert_ok(ha_backend_sync(fixture->backend, &err));
    ha_backend_free(fixture->backend, device);
    return host;
}

/* Weights of 16 bits are widened exactly, wherever they are used: the numbers are those of an f32
 * copy, forward and backward. */
static void half_weights_are_their_f32_copies(void **state)
{
    static const enum ha_dtype dtypes[] = {HA_DTYPE_BF16, HA_DTYPE_F16};

    (void)state;
    for (int i = 0; i < 6; i++) {
        struct ha_model_config config = small_config((enum ha_model_family)(i / 2));
        struct fixture half = {.backend = open_cpu(1)}, wide = half;
        struct ha_adapter *adapter =
            random_adapter(half.backend, &config, 1, 3, ALL_MODULES, RANK, 0.1f, 21);
        float *coefficient, *got, *want;
        struct ha_pass *half_pass, *wide_pass;
        struct ha_pack *pack;

        config.o_bias = config.qkv_bias;
        small_model_open(&half.small, half.backend, &config, dtypes[i % 2], 7);
        small_model_open_rounded(&wide.small, wide.backend, &config, HA_DTYPE_F32, dtypes[i % 2],
                                 7);
        half.pairs = random_pairs(N_PAIRS, VOCAB, 11, &half.ids);
        pack = make_pack(&half, true);
        half_pass = make_pass(&half, pack, 1);
        wide_pass = make_pass(&wide, pack, 1);
        coefficient = coefficients(pack);
        got = gradient_of(&half, half_pass, pack, adapter, coefficient);
        want = gradient_of(&wide, wide_pass, pack, adapter, coefficient);
        assert_same(got, want, ha_adapter_n_params(adapter));
        free(want);
        free(got);
        free(coefficient);
        ha_pass_destroy(wide_pass);
        ha_pass_destroy(half_pass);
        ha_pack_destroy(pack);
        ha_adapter_destroy(adapter);
        small_model_close(&wide.small);
        tear_down(&half);
    }
}

/* Adapter off, adapter with B = 0, with and without kept activations, with and
 * without gradients: one and the same numbers. */
static void zero_adapter_changes_no_bit(void **state)
{
    static const enum ha_model_family families[] = {HA_FAMILY_LLAMA, HA_FAMILY_QWEN2,
                                                    HA_FAMILY_QWEN3};

    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct fixture fixture;
        struct ha_adapter *adapter;
        struct ha_pack *pack;
        struct ha_pass_rows rows;
        float *reference = NULL;

        set_up(&fixture, families[f], 2);
        pack = make_pack(&fixture, true);
        adapter = random_adapter(fixture.backend, &fixture.small.config, 1, 3, ALL_MODULES, RANK,
                                 0.0f, 5);
        for (int64_t lowest = 4; lowest >= 0; lowest--) {
            struct ha_pass *pass = make_pass(&fixture, pack, lowest);

            for (int with = 0; with < 2; with++) {
                assert_ok(ha_pass_forward(pass, pack, with ? adapter : NULL, with && lowest < 4,
                                          &rows, &err));
                if (!reference)
                    reference = copy_logp(&rows);
                assert_same(rows.logp, reference, rows.n_rows);
            }
            ha_pass_destroy(pass);
        }
        free(reference);
        ha_adapter_destroy(adapter);
        ha_pack_destroy(pack);
        tear_down(&fixture);
    }
}

/* Starting from the hidden states at a border gives what the whole pass gives. */
static void borders_are_exact(void **state)
{
    struct fixture fixture;
    struct ha_adapter *adapter;
    struct ha_pack *pack;
    struct ha_pass *base, *policy;
    struct ha_pass_rows rows;
    float *whole;
    void *hidden = NULL;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, 1);
    pack = make_pack(&fixture, true);
    adapter =
        random_adapter(fixture.backend, &fixture.small.config, 2, 3, ALL_MODULES, RANK, 0.3f, 5);
    base = make_pass(&fixture, pack, 4);
    policy = make_pass(&fixture, pack, 2);
    assert_ok(ha_pass_forward(policy, pack, adapter, true, &rows, &err));
    whole = copy_logp(&rows);
    assert_ok(ha_backend_alloc(
        fixture.backend, (size_t)(pack->n_tokens * fixture.small.config.width) * 4, &hidden, &err));
    assert_ok(ha_pass_begin(base, pack, &err));
    assert_ok(ha_pass_embed(base, &err));
    assert_ok(ha_pass_layers(base, NULL, 0, 1, &err));
    assert_int_equal(ha_pass_layers(base, NULL, 2, 3, NULL), -EINVAL);
    assert_ok(ha_pass_layers(base, NULL, 1, 2, &err));
    assert_ok(ha_pass_get_hidden(base, hidden, &err));
    assert_ok(ha_pass_begin(policy, pack, &err));
    assert_ok(ha_pass_set_hidden(policy, hidden, 2, &err));
    assert_ok(ha_pass_layers(policy, adapter, 2, 4, &err));
    assert_ok(ha_pass_head(policy, true, &rows, &err));
    assert_same(rows.logp, whole, rows.n_rows);
    ha_backend_free(fixture.backend, hidden);
    free(whole);
    ha_pass_destroy(policy);
    ha_pass_destroy(base);
    ha_adapter_destroy(adapter);
    ha_pack_destroy(pack);
    tear_down(&fixture);
}

static void compare_tensors(const struct ha_adapter *adapter, const float *a, const float *b,
                            double limit)
{
    const struct ha_adapter_settings *settings = ha_adapter_settings(adapter);

    for (int64_t i = 0; i < settings->n_layers; i++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const struct ha_lora *lora =
                ha_adapter_lora(adapter, settings->layers[i], (enum ha_module)module);

            if (!lora->a.data)
                continue;
            assert_true(relative_gap(a + lora->a_offset, b + lora->a_offset,
                                     lora->a.rows * lora->a.cols) <= limit);
            assert_true(relative_gap(a + lora->b_offset, b + lora->b_offset,
                                     lora->b.rows * lora->b.cols) <= limit);
        }
    }
}

static void shared_prompt_equals_separate(void **state)
{
    static const enum ha_model_family families[] = {HA_FAMILY_LLAMA, HA_FAMILY_QWEN2,
                                                    HA_FAMILY_QWEN3};

    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct fixture fixture;
        struct ha_adapter *adapter;
        struct ha_pass_rows rows;
        float *coefficient = NULL, *gradient[2], *logp[2];
        int64_t n_rows = 0;

        set_up(&fixture, families[f], 2);
        adapter = random_adapter(fixture.backend, &fixture.small.config, 1, 3, ALL_MODULES, RANK,
                                 0.3f, 5);
        for (int share = 0; share < 2; share++) {
            struct ha_pack *pack = make_pack(&fixture, share);
            struct ha_pass *pass = make_pass(&fixture, pack, 1);

            if (!coefficient)
                coefficient = coefficients(pack);
            n_rows = pack->n_rows;
            assert_ok(ha_pass_forward(pass, pack, adapter, false, &rows, &err));
            logp[share] = copy_logp(&rows);
            gradient[share] = gradient_of(&fixture, pass, pack, adapter, coefficient);
            ha_pass_destroy(pass);
            ha_pack_destroy(pack);
        }
        assert_true(relative_gap(logp[1], logp[0], n_rows) <= 1e-6);
        compare_tensors(adapter, gradient[1], gradient[0], 1e-5);
        for (int share = 0; share < 2; share++) {
            free(gradient[share]);
            free(logp[share]);
        }
        free(coefficient);
        ha_adapter_destroy(adapter);
        tear_down(&fixture);
    }
}

static double weighted_sum(struct ha_pass *pass, const struct ha_pack *pack,
                           const struct ha_adapter *adapter, const float *coefficient)
{
    struct ha_pass_rows rows;
    double sum = 0;

    assert_ok(ha_pass_forward(pass, pack, adapter, false, &rows, &err));
    for (int64_t i = 0; i < rows.n_rows; i++)
        sum += (double)rows.logp[i] * (double)coefficient[i];
    return sum;
}

/* Against central differences along random directions, one module at a time, so
 * that each has to be right. */
static void check_directions(const struct fixture *fixture, uint32_t modules, int64_t first)
{
    struct ha_adapter *adapter =
        random_adapter(fixture->backend, &fixture->small.config, first, 3, modules, RANK, 0.3f, 5);
    struct ha_pack *pack = make_pack(fixture, true);
    struct ha_pass *pass = make_pass(fixture, pack, first);
    float *coefficient = coefficients(pack);
    int64_t n = ha_adapter_n_params(adapter);
    float *gradient = gradient_of(fixture, pass, pack, adapter, coefficient);
    float *params = ha_calloc(n, sizeof(float)), *moved = ha_calloc(n, sizeof(float));
    struct random random = {modules};
    double step = 2e-3;

    assert_non_null(params);
    assert_non_null(moved);
    memcpy(params, ha_adapter_params(adapter), (size_t)n * sizeof(float));
    for (int trial = 0; trial < 2; trial++) {
        double expected = 0, norm = 0, sums[2];
        struct random direction = {random.state + (uint64_t)trial};

        for (int side = 0; side < 2; side++) {
            direction.state = random.state + (uint64_t)trial;
            expected = norm = 0;
            for (int64_t i = 0; i < n; i++) {
                float d = random_uniform(&direction);

                moved[i] = params[i] + (side ? -1.0f : 1.0f) * (float)step * d;
                expected += (double)gradient[i] * (double)d;
                norm += (double)gradient[i] * (double)gradient[i] / 3;
            }
            memcpy(ha_adapter_params(adapter), moved, (size_t)n * sizeof(float));
            sums[side] = weighted_sum(pass, pack, adapter, coefficient);
        }
        /* Rounding of the sums and the third derivative leave about 1e-3. */
        assert_true(fabs((sums[0] - sums[1]) / (2 * step) - expected) <= 5e-3 * sqrt(norm) + 1e-3);
    }
    free(moved);
    free(params);
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

/* Frozen layers above, between and below: gradients of a module do not depend
 * on which others are adapted (B of the others is 0). */
static void lowest_layer_shortcuts(void **state)
{
    struct fixture fixture;
    struct ha_pack *pack;
    float *coefficient;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, 1);
    pack = make_pack(&fixture, true);
    coefficient = coefficients(pack);
    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        float *gradient[2];
        int64_t offset[2], n = 0;

        for (int wide = 0; wide < 2; wide++) {
            uint32_t modules = wide ? ALL_MODULES : 1u << module;
            struct ha_adapter *adapter = random_adapter(fixture.backend, &fixture.small.config,
                                                        wide ? 0 : 2, 3, modules, RANK, 0.0f, 5);
            struct ha_pass *pass = make_pass(&fixture, pack, wide ? 0 : 2);
            const struct ha_lora *lora = ha_adapter_lora(adapter, 2, (enum ha_module)module);

            /* The same A for both. */
            for (int64_t i = 0; i < lora->a.rows * lora->a.cols; i++)
                ha_adapter_params(adapter)[lora->a_offset + i] = (float)(i % 7) * 0.1f - 0.3f;
            offset[wide] = lora->b_offset;
            n = lora->b.rows * lora->b.cols;
            gradient[wide] = gradient_of(&fixture, pass, pack, adapter, coefficient);
            ha_pass_destroy(pass);
            ha_adapter_destroy(adapter);
        }
        assert_same(gradient[0] + offset[0], gradient[1] + offset[1], n);
        free(gradient[0]);
        free(gradient[1]);
    }
    free(coefficient);
    ha_pack_destroy(pack);
    tear_down(&fixture);
}

/* Whichever layers are run again, for an adapter that begins at the pass's lowest layer or above
 * it: the bits of log-probs and gradients are those of a pass that keeps everything. */
static void recomputing_changes_no_bit(void **state)
{
    static const uint32_t modules[] = {ALL_MODULES, 0xf, 1u << HA_MODULE_DOWN, 1u << HA_MODULE_V};

    (void)state;
    for (int i = 0; i < 12; i++) {
        struct fixture fixture;
        struct ha_adapter *adapter;
        struct ha_pack *pack;
        struct ha_pass *pass;
        float *coefficient, *kept;
        int64_t first = i % 3;

        set_up(&fixture, (enum ha_model_family)(i / 4), 2);
        pack = make_pack(&fixture, true);
        coefficient = coefficients(pack);
        adapter = random_adapter(fixture.backend, &fixture.small.config, first, 3, modules[i % 4],
                                 RANK, 0.3f, 5);
        pass = make_pass(&fixture, pack, first);
        kept = gradient_of(&fixture, pass, pack, adapter, coefficient);
        ha_pass_destroy(pass);
        for (int64_t lowest = 0; lowest <= first; lowest++)
            for (int64_t recomputed = 0; recomputed < 4 - lowest; recomputed++) {
                float *gradient;

                pass = make_recomputing(&fixture, pack, lowest, recomputed);
                gradient = gradient_of(&fixture, pass, pack, adapter, coefficient);
                assert_same(gradient, kept, ha_adapter_n_params(adapter));
                free(gradient);
                ha_pass_destroy(pass);
            }
        free(kept);
        ha_adapter_destroy(adapter);
        free(coefficient);
        ha_pack_destroy(pack);
        tear_down(&fixture);
    }
}

static void threads_change_no_bit(void **state)
{
    float *gradient[3];
    int64_t n = 0;

    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        struct fixture fixture;
        struct ha_adapter *adapter;
        struct ha_pack *pack;
        struct ha_pass *pass;
        float *coefficient;

        set_up(&fixture, HA_FAMILY_QWEN2, threads);
        pack = make_pack(&fixture, true);
        coefficient = coefficients(pack);
        adapter = random_adapter(fixture.backend, &fixture.small.config, 0, 3, ALL_MODULES, RANK,
                                 0.3f, 5);
        pass = make_pass(&fixture, pack, 0);
        n = ha_adapter_n_params(adapter);
        gradient[threads - 1] = gradient_of(&fixture, pass, pack, adapter, coefficient);
        ha_pass_destroy(pass);
        ha_adapter_destroy(adapter);
        ha_pack_destroy(pack);
        free(coefficient);
        tear_down(&fixture);
    }
    assert_same(gradient[1], gradient[0], n);
    assert_same(gradient[2], gradient[0], n);
    for (int i = 0; i < 3; i++)
        free(gradient[i]);
}

static void plan_is_what_is_allocated(void **state)
{
    struct fixture fixture;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3, 1);
    for (int64_t lowest = 0; lowest <= 4; lowest++) {
        struct ha_pass_limits limits = {.max_tokens = 100,
                                        .max_rows = 40,
                                        .max_rank = RANK,
                                        .lowest_layer = lowest,
                                        .recomputed_layers = lowest < 4 ? (3 - lowest) / 2 : 0,
                                        .statistics = lowest % 2};
        int64_t before = ha_backend_allocated_bytes(fixture.backend), bytes = 0;
        struct ha_pass_sizes sizes;
        struct ha_pass *pass = NULL;

        assert_ok(ha_pass_plan_bytes(&fixture.small.config, HA_DTYPE_F32, &limits, &bytes, &err));
        assert_ok(ha_pass_plan(&fixture.small.config, HA_DTYPE_F32, &limits, &sizes, &err));
        assert_int_equal(sizes.residual + sizes.kept + sizes.scratch + sizes.head, bytes);
        assert_ok(ha_pass_create(fixture.small.model, &limits, &pass, &err));
        assert_int_equal(ha_backend_allocated_bytes(fixture.backend) - before, bytes);
        ha_pass_destroy(pass);
    }
    tear_down(&fixture);
}

static void plans_of_real_sizes(void **state)
{
    struct ha_model_config config = {.family = HA_FAMILY_LLAMA,
                                     .n_layers = 32,
                                     .width = 4096,
                                     .inner = 14336,
                                     .n_heads = 32,
                                     .n_kv_heads = 8,
                                     .head_dim = 128,
                                     .vocab = 128256};
    struct ha_pass_limits limits = {
        .max_tokens = 6768, .max_rows = 3216, .max_rank = 16, .statistics = true};
    int64_t bytes = 0, kept;

    (void)state;
    assert_ok(ha_pass_plan_bytes(&config, HA_DTYPE_BF16, &limits, &bytes, &err));
    /* gpu.md 2.4 (f): 20 to 24 GB for a whole 24-pair step. */
    assert_true(bytes > INT64_C(19) << 30 && bytes < INT64_C(25) << 30);
    /* Each layer that is run again takes 84 KiB and a little off each token. */
    limits.recomputed_layers = 31;
    kept = bytes;
    assert_ok(ha_pass_plan_bytes(&config, HA_DTYPE_BF16, &limits, &bytes, &err));
    assert_true(kept - bytes > 31 * 6768 * (INT64_C(84) << 10));
    assert_true(kept - bytes < 31 * 6768 * (INT64_C(86) << 10));
    limits.recomputed_layers = 32;
    assert_int_equal(ha_pass_plan_bytes(&config, HA_DTYPE_BF16, &limits, &bytes, NULL), -EINVAL);
    limits.recomputed_layers = 0;
    limits.max_tokens = INT32_MAX;
    limits.max_rows = INT32_MAX;
    assert_ok(ha_pass_plan_bytes(&config, HA_DTYPE_F32, &limits, &bytes, &err));
    assert_true(bytes > INT64_C(1) << 50);
    limits.max_tokens = INT64_C(1) << 33;
    assert_int_equal(ha_pass_plan_bytes(&config, HA_DTYPE_F32, &limits, &bytes, NULL), -EINVAL);
    limits.max_tokens = 1;
    limits.lowest_layer = 33;
    assert_int_equal(ha_pass_plan_bytes(&config, HA_DTYPE_F32, &limits, &bytes, NULL), -EINVAL);
}

static void bad_calls_are_refused(void **state)
{
    struct fixture fixture;
    struct ha_adapter *adapter;
    struct ha_pack *pack;
    struct ha_pass *pass;
    struct ha_pass_rows rows;
    float coefficient[256] = {0};

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, 1);
    pack = make_pack(&fixture, true);
    adapter =
        random_adapter(fixture.backend, &fixture.small.config, 1, 3, ALL_MODULES, RANK, 0.0f, 5);
    pass = make_pass(&fixture, pack, 2);
    /* No head before the layers, no backward pass before a head that kept gradients. */
    assert_ok(ha_pass_begin(pass, pack, &err));
    assert_int_equal(ha_pass_head(pass, false, &rows, NULL), -EINVAL);
    assert_int_equal(ha_pass_backward(pass, adapter, coefficient, NULL, NULL), -EINVAL);
    assert_ok(ha_pass_forward(pass, pack, adapter, true, &rows, &err));
    /* Layer 1 has kept nothing. */
    assert_int_equal(ha_pass_backward(pass, adapter, coefficient, NULL, NULL), -EINVAL);
    pack->ids[2] = VOCAB;
    assert_int_equal(ha_pass_forward(pass, pack, NULL, false, &rows, NULL), -EINVAL);
    pack->ids[2] = -1;
    assert_int_equal(ha_pass_forward(pass, pack, NULL, false, &rows, NULL), -EINVAL);
    pack->ids[2] = 0;
    pack->row_target[1] = VOCAB;
    assert_int_equal(ha_pass_forward(pass, pack, NULL, false, &rows, NULL), -EINVAL);
    pack->row_target[1] = 0;
    assert_ok(ha_pass_forward(pass, pack, NULL, false, &rows, &err));
    ha_pass_destroy(pass);
    ha_adapter_destroy(adapter);
    ha_pack_destroy(pack);
    tear_down(&fixture);
}

/* No rows (all answers empty), and no tokens at all. */
static void empty_packs(void **state)
{
    static const int32_t ids[] = {1, 2, 3};
    struct ha_pack_pair pairs[2] = {{.prompt = ids, .chosen = ids, .rejected = ids, .n_prompt = 3},
                                    {.prompt = ids, .chosen = ids, .rejected = ids}};
    struct fixture fixture;
    struct ha_adapter *adapter;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA, 1);
    adapter =
        random_adapter(fixture.backend, &fixture.small.config, 1, 3, ALL_MODULES, RANK, 0.3f, 5);
    for (int i = 0; i < 2; i++) {
        struct ha_pack *pack = NULL;
        struct ha_pass *pass;
        float coefficient[1] = {0}, *gradient;

        assert_ok(ha_pack_create_pairs(&pairs[i], NULL, 1, true, &pack, &err));
        assert_int_equal(pack->n_rows, 0);
        pass = make_pass(&fixture, pack, 1);
        gradient = gradient_of(&fixture, pass, pack, adapter, coefficient);
        for (int64_t j = 0; j < ha_adapter_n_params(adapter); j++)
            assert_true(gradient[j] == 0.0f);
        free(gradient);
        ha_pass_destroy(pass);
        ha_pack_destroy(pack);
    }
    ha_adapter_destroy(adapter);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_weights_are_their_f32_copies),
        cmocka_unit_test(zero_adapter_changes_no_bit),
        cmocka_unit_test(borders_are_exact),
        cmocka_unit_test(shared_prompt_equals_separate),
        cmocka_unit_test(gradients_match_differences),
        cmocka_unit_test(lowest_layer_shortcuts),
        cmocka_unit_test(recomputing_changes_no_bit),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(plan_is_what_is_allocated),
        cmocka_unit_test(plans_of_real_sizes),
        cmocka_unit_test(bad_calls_are_refused),
        cmocka_unit_test(empty_packs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
