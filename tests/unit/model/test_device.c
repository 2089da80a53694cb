/* The engine on a device whose memory is not the host's, against the CPU with the same bf16
 * weights; and joined weights against weights one by one.  Only where HA_KERNEL_TEST_BACKEND names
 * a device.
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

/* One set of weights, pairs and an adapter on one backend. */
struct side {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_adapter *adapter;
    float *logp, *gradient, *logits;
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

/* ---- joined weights ---- */

static char *join(struct ha_backend *backend, const struct ha_matrix *parts, int n,
                  struct ha_matrix *ret_joined)
{
    struct ha_matrix joined = parts[0];
    void *memory = NULL;
    size_t used = 0;

    for (int i = 1; i < n; i++) {
        if (parts[0].rows == 1)
            joined.cols = joined.stride = joined.cols + parts[i].cols;
        else
            joined.rows += parts[i].rows;
    }
    assert_ok(ha_backend_alloc(backend, (size_t)(joined.rows * joined.cols) * 2, &memory, &err));
    for (int i = 0; i < n; i++) {
        size_t bytes = (size_t)(parts[i].rows * parts[i].cols) * 2;

        assert_ok(ha_backend_copy(backend, (char *)memory + used, parts[i].data, bytes, &err));
        used += bytes;
    }
    joined.data = memory;
    *ret_joined = joined;
    return memory;
}

/* The layers of a model with joined weights; memory of 3 blocks a layer. */
static struct ha_layer_weights *join_layers(struct side *side, void **memory)
{
    int64_t n_layers = side->small.config.n_layers;
    struct ha_layer_weights *layers = ha_calloc(n_layers, sizeof(*layers));

    assert_non_null(layers);
    for (int64_t i = 0; i < n_layers; i++) {
        struct ha_layer_weights *layer = &layers[i];
        char *at;

        *layer = side->small.weights.layers[i];
        at = memory[3 * i] = join(side->backend, &layer->linear[HA_MODULE_Q], 3, &layer->qkv);
        for (int module = HA_MODULE_Q; module <= HA_MODULE_V; module++) {
            layer->linear[module].data = at;
            at += layer->linear[module].rows * layer->linear[module].cols * 2;
        }
        at = memory[3 * i + 1] =
            join(side->backend, &layer->linear[HA_MODULE_GATE], 2, &layer->gate_up);
        for (int module = HA_MODULE_GATE; module <= HA_MODULE_UP; module++) {
            layer->linear[module].data = at;
            at += layer->linear[module].rows * layer->linear[module].cols * 2;
        }
        if (!layer->bias[HA_MODULE_Q].data)
            continue;
        at = memory[3 * i + 2] =
            join(side->backend, &layer->bias[HA_MODULE_Q], 3, &layer->qkv_bias);
        for (int module = HA_MODULE_Q; module <= HA_MODULE_V; module++) {
            layer->bias[module].data = at;
            at += layer->bias[module].cols * 2;
        }
    }
    return layers;
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

static int64_t take_gradient(struct side *side, struct ha_model *model, const struct ha_pack *pack,
                             int64_t recomputed)
{
    struct ha_pass_limits limits = {.max_tokens = pack->n_tokens + 1,
                                    .max_rows = pack->n_rows,
                                    .max_rank = RANK,
                                    .lowest_layer = 0,
                                    .recomputed_layers = recomputed,
                                    .statistics = true};
    size_t bytes = (size_t)ha_adapter_n_params(side->adapter) * sizeof(float);
    float *coefficient = coefficients(pack->n_rows);
    struct ha_pass *pass = NULL;
    struct ha_pass_rows rows;
    void *device = NULL;

    assert_ok(ha_pass_create(model, &limits, &pass, &err));
    assert_ok(ha_backend_alloc(side->backend, bytes, &device, &err));
    assert_ok(ha_pass_forward(pass, pack, side->adapter, true, &rows, &err));
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
static void take_logits(struct side *side, struct ha_model *model, const struct ha_pack_pair *pairs)
{
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

static int64_t take_all(struct side *side, struct ha_model *model, const struct ha_pack *pack,
                        const struct ha_pack_pair *pairs, int64_t recomputed)
{
    take_logits(side, model, pairs);
    return take_gradient(side, model, pack, recomputed);
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

    *side = (struct side){.backend = backend};
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

static void agrees(void **state)
{
    int shape = *(const int *)*state;
    struct ha_backend *backend = open_backend(1);
    struct side cpu, device, joined;
    struct ha_pack_pair *pairs;
    struct ha_pack *pack = NULL;
    struct ha_weights weights;
    struct ha_model *model = NULL;
    void *memory[3 * 4] = {NULL};
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
    n_rows = take_all(&cpu, cpu.small.model, pack, pairs, 0);
    (void)take_all(&device, device.small.model, pack, pairs, 0);
    compare_sides(&device, &cpu, n_rows);

    joined = device;
    weights = device.small.weights;
    weights.layers = join_layers(&device, memory);
    assert_ok(ha_model_create(backend, &device.small.config, &weights, &model, &err));
    (void)take_all(&joined, model, pack, pairs, 2);
    compare_sides(&joined, &cpu, n_rows);
    /* Forward a product of joined weights is the products of its parts, to the bit where an
     * element's bits do not hang on the matrix around it; backward it rounds less often. */
    compare_sides(&joined, &device, n_rows);

    ha_model_destroy(model);
    for (int i = 0; i < 3 * 4; i++)
        ha_backend_free(backend, memory[i]);
    free(weights.layers);
    forget(&joined);
    forget(&device);
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
