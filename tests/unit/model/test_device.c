/* The engine on a device whose memory is not the host's, against the CPU with the same bf16
 * weights; and joined weights, with LoRA's columns and without, against weights one by one.  Only
 * where HA_KERNEL_TEST_BACKEND names a device.
 *
 * Limits.  The device rounds every activation to bf16, the CPU none: each rounding is off by up to
 * 2^-9 of a value, 2^-9 / sqrt(3) in the mean, and about 12 of them in each of 4 layers add up like
 * a random walk to sqrt(48) 2^-9 / sqrt(3), 0.8 % of a hidden state; logits have a norm of about 4
 * and log-probs take two of them.  Gradients pass twice as many.  A wrong mask, position, stride or
 * scale is off by as much as the values themselves. */
#include "tests/unit/model/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "worker/model/decode.h"

#define ALL_MODULES ((1u << HA_MODULE_COUNT) - 1)
#define LOGP_GAP 0.02     /* of the norm of all log-probs */
#define GRADIENT_GAP 0.06 /* of the norm of each A and B */
#define LOGIT_GAP 0.04    /* of the norm of all logits */

enum { N_PAIRS = 6, VOCAB = 53, RANK = 3, N_SHAPES = 4, N_STEPS = 3 };

/* Of each shape: none, too few for q, k, v, enough, enough with dropout. */
static const int64_t lora_columns[N_SHAPES] = {0, 8, 16, 16};
static const double dropout_of[N_SHAPES] = {0, 0.3, 0, 0.3};

/* One set of weights, pairs and an adapter on one backend. */
struct side {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_adapter *adapter;
    float *logp, *gradient, *logits;
    double dropout;
};

static struct ha_model_config config_of(int shape)
{
    static const enum ha_model_family families[] = {HA_FAMILY_LLAMA, HA_FAMILY_QWEN2,
                                                    HA_FAMILY_QWEN3, HA_FAMILY_QWEN3};
    struct ha_model_config config = small_config(families[shape]);

    config.o_bias = config.qkv_bias;
    if (shape == 3) { /* heads that tensor cores take */
        config.head_dim = 64;
        config.n_heads = 2;
        config.n_kv_heads = 1;
        config.width = 64;
        config.inner = 96;
    }
    return config;
}

/* ---- what a model gives ---- */

static float *coefficients(int64_t n)
{
    float *values = ha_calloc(n, sizeof(float));
    struct random random = {99};

    assert_non_null(values);
    for (int64_t i = 0; i < n; i++)
        values[i] = random_uniform(&random);
    return values;
}

static int64_t take_gradient(struct side *side, const struct ha_pack *pack, int64_t recomputed)
{
    static const int64_t numbers[N_PAIRS] = {3, 1, 4, 15, 9, 2};
    struct ha_pass_dropout dropout = {.p = side->dropout, .seed = 77, .epoch = 2, .pairs = numbers};

    struct ha_pass_limits limits = {.max_tokens = pack->n_tokens + 1,
                                    .max_rows = pack->n_rows,
                                    .max_rank = RANK,
                                    .lowest_layer = 0,
                                    .recomputed_layers = recomputed,
                                    .dropout_width = 128,
                                    .statistics = true};
    size_t bytes = (size_t)ha_adapter_n_params(side->adapter) * sizeof(float);
    float *coefficient = coefficients(pack->n_rows);
    struct ha_pass *pass = NULL;
    struct ha_pass_rows rows;
    void *device = NULL;

    assert_ok(ha_pass_create(side->small.model, &limits, &pass, &err));
    assert_ok(ha_backend_alloc(side->backend, bytes, &device, &err));
    assert_ok(ha_pass_begin(pass, pack, &err));
    assert_ok(ha_pass_set_dropout(pass, &dropout, &err));
    assert_ok(ha_pass_embed(pass, &err));
    assert_ok(ha_pass_layers(pass, side->adapter, 0, side->small.config.n_layers, &err));
    assert_ok(ha_pass_head(pass, true, &rows, &err));
    side->logp = ha_calloc(rows.n_rows, sizeof(float));
    assert_non_null(side->logp);
    memcpy(side->logp, rows.logp, (size_t)rows.n_rows * sizeof(float));
    assert_ok(ha_pass_backward(pass, side->adapter, coefficient, device, &err));
    side->gradient = to_host(side->backend, device, bytes);
    ha_backend_free(side->backend, device);
    ha_pass_destroy(pass);
    free(coefficient);
    return rows.n_rows;
}

/* Logits of two prompts and of N_STEPS tokens behind each, which are the prompt's over again. */
static void take_logits(struct side *side, const struct ha_pack_pair *pairs)
{
    struct ha_model *model = side->small.model;

    struct ha_decoder_limits limits = {2, 60, RANK};
    struct ha_decoder_sequence call[2];
    struct ha_decoder *decoder = NULL;
    int64_t row[2];
    float *logits = ha_calloc((N_STEPS + 1) * 2 * VOCAB, sizeof(float)), *at = logits;

    assert_non_null(logits);
    assert_ok(ha_decoder_create(model, &limits, &decoder, &err));
    for (int i = 0; i < 2; i++) {
        call[i] = (struct ha_decoder_sequence){NULL, i ? side->adapter : NULL, pairs[i].prompt,
                                               pairs[i].n_prompt};
        assert_ok(ha_kv_cache_create(model, pairs[i].n_prompt + N_STEPS, &call[i].cache, &err));
    }
    assert_ok(ha_decoder_prefill(decoder, call, 2, at, row, &err));
    assert_int_equal(row[0] + row[1], 1);
    if (row[0] == 1)
        for (int i = 0; i < VOCAB; i++) {
            float kept = at[i];

            at[i] = at[VOCAB + i];
            at[VOCAB + i] = kept;
        }
    for (int step = 0; step < N_STEPS; step++) {
        at += 2 * VOCAB;
        for (int i = 0; i < 2; i++) {
            call[i].ids = pairs[i].prompt + step % pairs[i].n_prompt;
            call[i].n_ids = 1;
        }
        assert_ok(ha_decoder_step(decoder, call, 2, at, &err));
    }
    for (int i = 0; i < 2; i++)
        ha_kv_cache_destroy(call[i].cache);
    ha_decoder_destroy(decoder);
    side->logits = logits;
}

static int64_t take_all(struct side *side, const struct ha_pack *pack,
                        const struct ha_pack_pair *pairs, int64_t recomputed)
{
    take_logits(side, pairs);
    return take_gradient(side, pack, recomputed);
}

static void forget(struct side *side)
{
    free(side->logp);
    free(side->gradient);
    free(side->logits);
}

static void open_side(struct side *side, struct ha_backend *backend, int shape)
{
    struct ha_model_config config = config_of(shape);

    *side = (struct side){.backend = backend, .dropout = dropout_of[shape]};
    small_model_open(&side->small, backend, &config, HA_DTYPE_BF16, 7);
    side->adapter = random_adapter(backend, &config, 0, 3, ALL_MODULES, RANK, 0.2f, 21);
}

static void close_side(struct side *side)
{
    ha_adapter_destroy(side->adapter);
    small_model_close(&side->small);
    ha_backend_close(side->backend);
}

static void compare(const char *what, const float *got, const float *want, int64_t n, double limit)
{
    double gap = relative_gap(got, want, n);

    if (!(gap <= limit))
        fail_msg("%s: %g of its norm away from the CPU's, the limit is %g", what, gap, limit);
}

static void compare_sides(const struct side *got, const struct side *want, int64_t n_rows)
{
    const struct ha_adapter_settings *settings = ha_adapter_settings(want->adapter);
    char what[64];

    compare("log-probs", got->logp, want->logp, n_rows, LOGP_GAP);
    compare("logits", got->logits, want->logits, (int64_t)(N_STEPS + 1) * 2 * VOCAB, LOGIT_GAP);
    for (int64_t i = 0; i < settings->n_layers * HA_MODULE_COUNT; i++) {
        enum ha_module module = (enum ha_module)(i % HA_MODULE_COUNT);
        const struct ha_lora *lora = ha_adapter_lora(want->adapter, i / HA_MODULE_COUNT, module);

        snprintf(what, sizeof(what), "A of %s in layer %d", ha_module_name(module),
                 (int)(i / HA_MODULE_COUNT));
        compare(what, got->gradient + lora->a_offset, want->gradient + lora->a_offset,
                lora->a.rows * lora->a.cols, GRADIENT_GAP);
        what[0] = 'B';
        compare(what, got->gradient + lora->b_offset, want->gradient + lora->b_offset,
                lora->b.rows * lora->b.cols, GRADIENT_GAP);
    }
}

/* An adapter with B = 0 gives the bits of none, after one that has left its columns everywhere. */
static void zero_b_is_none(struct side *side, const struct ha_pack *pack)
{
    struct ha_pass_limits limits = {.max_tokens = pack->n_tokens,
                                    .max_rows = pack->n_rows,
                                    .max_rank = RANK,
                                    .lowest_layer = side->small.config.n_layers};
    struct ha_adapter *zero =
        random_adapter(side->backend, &side->small.config, 0, 2, ALL_MODULES, RANK, 0, 22);
    const struct ha_adapter *adapters[] = {side->adapter, NULL, zero};
    size_t bytes = (size_t)pack->n_rows * sizeof(float);
    float *logp[3];
    struct ha_pass *pass = NULL;
    struct ha_pass_rows rows;

    assert_ok(ha_pass_create(side->small.model, &limits, &pass, &err));
    for (int i = 0; i < 3; i++) {
        assert_ok(ha_pass_forward(pass, pack, adapters[i], false, &rows, &err));
        logp[i] = ha_calloc(1, bytes);
        assert_non_null(logp[i]);
        memcpy(logp[i], rows.logp, bytes);
    }
    assert_memory_not_equal(logp[0], logp[1], bytes);
    assert_memory_equal(logp[1], logp[2], bytes);
    for (int i = 0; i < 3; i++)
        free(logp[i]);
    ha_pass_destroy(pass);
    ha_adapter_destroy(zero);
}

static void agrees(void **state)
{
    int shape = *(const int *)*state;
    struct ha_backend *backend = open_backend(1);
    struct side cpu, device, apart;
    struct ha_pack_pair *pairs;
    struct ha_pack *pack = NULL;
    int32_t *ids;
    int64_t n_rows;

    if (is_cpu(backend)) {
        ha_backend_close(backend);
        skip();
    }
    pairs = random_pairs(N_PAIRS, VOCAB, 11, &ids);
    assert_ok(ha_pack_create_pairs(pairs, NULL, N_PAIRS, true, &pack, &err));
    open_side(&cpu, open_cpu(1), shape);
    open_side(&device, backend, shape);
    n_rows = take_all(&cpu, pack, pairs, 0);
    (void)take_all(&device, pack, pairs, 0);
    compare_sides(&device, &cpu, n_rows);

    apart = device; /* its results */
    small_model_join(&device.small, lora_columns[shape]);
    (void)take_all(&device, pack, pairs, 2);
    compare_sides(&device, &cpu, n_rows);
    /* Forward a product of joined weights is the products of its parts, to the bit where an
     * element's bits do not hang on the matrix around it; backward it rounds less often, with
     * LoRA's columns forward too. */
    compare_sides(&device, &apart, n_rows);
    zero_b_is_none(&device, pack);

    forget(&device);
    forget(&apart);
    forget(&cpu);
    close_side(&device);
    close_side(&cpu);
    ha_pack_destroy(pack);
    free(pairs);
    free(ids);
}

int main(void)
{
    static const int shapes[N_SHAPES] = {0, 1, 2, 3};
    static const char *const names[N_SHAPES] = {"llama", "qwen 2.5", "qwen 3", "heads of 64"};
    struct CMUnitTest tests[N_SHAPES];

    for (int i = 0; i < N_SHAPES; i++)
        tests[i] = (struct CMUnitTest){
            .name = names[i], .test_func = agrees, .initial_state = (void *)(uintptr_t)&shapes[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
