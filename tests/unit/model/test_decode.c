/* Prefill and steps against the packed forward pass over the whole sequence. */
#include "worker/model/decode.h"
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5, LENGTH = 23, VOCAB = 53 };

struct batch {
    int32_t ids[N][LENGTH];
    int64_t n_prompt[N];
    struct ha_kv_cache *cache[N];
    const struct ha_adapter *adapter[N];
};

static void batch_open(struct batch *batch, struct ha_model *model, uint64_t seed)
{
    static const int64_t prompts[N] = {1, 7, 3, 20, 22};
    struct random random = {seed};

    memset(batch, 0, sizeof(*batch));
    for (int i = 0; i < N; i++) {
        for (int t = 0; t < LENGTH; t++)
            batch->ids[i][t] = (int32_t)random_below(&random, VOCAB);
        batch->n_prompt[i] = prompts[i];
        assert_ok(ha_kv_cache_create(model, LENGTH, &batch->cache[i], &err));
    }
}

static void batch_close(struct batch *batch)
{
    for (int i = 0; i < N; i++)
        ha_kv_cache_destroy(batch->cache[i]);
}

/* Logits of every token of one sequence, by the forward pass. */
static float *reference(struct ha_model *model, const int32_t *ids,
                        const struct ha_adapter *adapter)
{
    struct ha_pass_limits limits = {.max_tokens = LENGTH,
                                    .max_rows = LENGTH,
                                    .max_rank = 4,
                                    .lowest_layer = ha_model_config(model)->n_layers};
    struct ha_pack_sequence sequence = {ids, LENGTH};
    float *logits = malloc(sizeof(float) * LENGTH * VOCAB);
    int64_t tokens[LENGTH];
    struct ha_pack *pack = NULL;
    struct ha_pass *pass = NULL;

    assert_non_null(logits);
    for (int t = 0; t < LENGTH; t++)
        tokens[t] = t;
    assert_ok(ha_pack_create_sequences(&sequence, 1, false, &pack, &err));
    assert_ok(ha_pass_create(model, &limits, &pass, &err));
    assert_ok(ha_pass_begin(pass, pack, &err));
    assert_ok(ha_pass_embed(pass, &err));
    assert_ok(ha_pass_layers(pass, adapter, 0, ha_model_config(model)->n_layers, &err));
    assert_ok(ha_pass_logits(pass, tokens, LENGTH, logits, &err));
    ha_pass_destroy(pass);
    ha_pack_destroy(pack);
    return logits;
}

static void check_logits(const float *got, const float *want)
{
    for (int v = 0; v < VOCAB; v++)
        assert_true(fabsf(got[v] - want[v]) < 5e-5f);
}

/* Run all sequences of the batch to their ends; every row of logits is checked. */
static void run_batch(struct ha_decoder *decoder, struct batch *batch, float *const *want)
{
    struct ha_decoder_sequence call[N];
    float logits[N * VOCAB];
    int64_t row[N];
    int which[N];

    for (int i = 0; i < N; i++)
        call[i] = (struct ha_decoder_sequence){batch->cache[i], batch->adapter[i], batch->ids[i],
                                               batch->n_prompt[i]};
    assert_ok(ha_decoder_prefill(decoder, call, N, logits, row, &err));
    for (int i = 0; i < N; i++)
        check_logits(logits + row[i] * VOCAB, want[i] + (batch->n_prompt[i] - 1) * VOCAB);
    for (;;) {
        int n = 0;

        for (int i = 0; i < N; i++) {
            int64_t length = ha_kv_cache_length(batch->cache[i]);

            if (length == LENGTH)
                continue;
            which[n] = i;
            call[n++] = (struct ha_decoder_sequence){batch->cache[i], batch->adapter[i],
                                                     &batch->ids[i][length], 1};
        }
        if (n == 0)
            return;
        assert_ok(ha_decoder_step(decoder, call, n, logits, &err));
        for (int k = 0; k < n; k++) {
            int64_t last = ha_kv_cache_length(batch->cache[which[k]]) - 1;

            check_logits(logits + k * VOCAB, want[which[k]] + last * VOCAB);
        }
    }
}

static void agrees_with_the_forward_pass(void **state)
{
    static const enum ha_model_family families[] = {HA_FAMILY_LLAMA, HA_FAMILY_QWEN2,
                                                    HA_FAMILY_QWEN3};
    static const struct ha_decoder_limits limits = {N, 60, 4};

    (void)state;
    for (int f = 0; f < 3; f++) {
        struct ha_backend *backend = open_cpu(2);
        struct ha_model_config config = small_config(families[f]);
        struct small_model small;
        struct ha_adapter *low, *high;
        struct ha_decoder *decoder = NULL;
        struct batch batch;
        float *want[N];

        small_model_open(&small, backend, &config, HA_DTYPE_BF16, 5);
        low = random_adapter(backend, &config, 0, 1, 0x7f, 4, 0.5f, 6);
        high = random_adapter(backend, &config, 2, 3, 0x0f, 2, 0.5f, 7);
        batch_open(&batch, small.model, 8);
        batch.adapter[1] = batch.adapter[2] = low; /* NULL, low, low, high, NULL */
        batch.adapter[3] = high;
        for (int i = 0; i < N; i++)
            want[i] = reference(small.model, batch.ids[i], batch.adapter[i]);
        assert_ok(ha_decoder_create(small.model, &limits, &decoder, &err));
        run_batch(decoder, &batch, want);
        for (int i = 0; i < N; i++)
            free(want[i]);
        batch_close(&batch);
        ha_decoder_destroy(decoder);
        ha_adapter_destroy(low);
        ha_adapter_destroy(high);
        small_model_close(&small);
        ha_backend_close(backend);
    }
}

/* Prefill, then one step, of the sequences call[0 .. n); rows of logits in their order. */
static void two_calls(struct ha_decoder *decoder, const struct ha_decoder_sequence *call, int64_t n,
                      float *first, float *second)
{
    struct ha_decoder_sequence next[N];
    float logits[N * VOCAB];
    int64_t row[N];

    for (int i = 0; i < n; i++)
        ha_kv_cache_reset(call[i].cache);
    assert_ok(ha_decoder_prefill(decoder, call, n, logits, row, &err));
    for (int i = 0; i < n; i++) {
        memcpy(first + i * VOCAB, logits + row[i] * VOCAB, VOCAB * sizeof(float));
        next[i] = call[i];
        next[i].ids += call[i].n_ids;
        next[i].n_ids = 1;
    }
    assert_ok(ha_decoder_step(decoder, next, n, second, &err));
}

static void same_alone(struct ha_decoder *decoder, const struct ha_decoder_sequence *call)
{
    float together[N * VOCAB], after[N * VOCAB], alone[VOCAB], alone_after[VOCAB];

    two_calls(decoder, call, N, together, after);
    for (int i = 0; i < N; i++) {
        two_calls(decoder, &call[i], 1, alone, alone_after);
        assert_memory_equal(alone, together + i * VOCAB, sizeof(alone));
        assert_memory_equal(alone_after, after + i * VOCAB, sizeof(alone));
    }
}

/* What runs beside a sequence changes no bit of its logits on the CPU. */
static void sequences_do_not_influence_each_other(void **state)
{
    static const struct ha_decoder_limits limits = {N, 60, 0};
    struct ha_backend *backend = open_cpu(1);
    struct ha_model_config config = small_config(HA_FAMILY_QWEN3);
    struct ha_decoder_sequence call[N];
    struct ha_decoder *decoder = NULL;
    struct small_model small;
    struct batch batch;

    (void)state;
    small_model_open(&small, backend, &config, HA_DTYPE_F32, 9);
    batch_open(&batch, small.model, 10);
    assert_ok(ha_decoder_create(small.model, &limits, &decoder, &err));
    for (int i = 0; i < N; i++)
        call[i] =
            (struct ha_decoder_sequence){batch.cache[i], NULL, batch.ids[i], batch.n_prompt[i]};
    same_alone(decoder, call);
    batch_close(&batch);
    ha_decoder_destroy(decoder);
    small_model_close(&small);
    ha_backend_close(backend);
}

/* Variants of a model that share a prompt share its computation below their adapters, and no
 * bit changes, whatever stands side by side. */
static void a_shared_prompt_is_as_good_as_ones_own(void **state)
{
    static const int prompt_of[][N] = {{0, 0, 0, 0, 0}, {0, 0, 0, 1, 1}, {0, 1, 1, 1, 0}};
    static const int adapter_of[][N] = {{0, 1, 2, 3, 1}, {3, 0, 1, 2, 2}, {1, 3, 2, 1, 0}};
    static const struct ha_decoder_limits limits = {N, 60, 4};
    struct ha_backend *backend = open_cpu(2);

    (void)state;
    for (int family = 0; family < 2; family++) {
        struct ha_model_config config = small_config(family ? HA_FAMILY_QWEN3 : HA_FAMILY_LLAMA);
        struct ha_adapter *adapters[4] = {NULL};
        struct ha_decoder *decoder = NULL;
        struct small_model small;
        struct batch batch;

        small_model_open(&small, backend, &config, HA_DTYPE_BF16, 12);
        adapters[1] = random_adapter(backend, &config, 0, 1, 0x7f, 4, 0.5f, 6);
        adapters[2] = random_adapter(backend, &config, 2, 3, 0x0f, 2, 0.5f, 7);
        adapters[3] = random_adapter(backend, &config, 3, 3, 0x0f, 3, 0.5f, 8);
        batch_open(&batch, small.model, 13);
        assert_ok(ha_decoder_create(small.model, &limits, &decoder, &err));
        for (size_t k = 0; k < sizeof(prompt_of) / sizeof(prompt_of[0]); k++) {
            struct ha_decoder_sequence call[N];

            for (int i = 0; i < N; i++)
                call[i] = (struct ha_decoder_sequence){batch.cache[i], adapters[adapter_of[k][i]],
                                                       batch.ids[prompt_of[k][i]],
                                                       prompt_of[k][i] ? 7 : 13};
            same_alone(decoder, call);
        }
        batch_close(&batch);
        ha_decoder_destroy(decoder);
        for (int i = 1; i < 4; i++)
            ha_adapter_destroy(adapters[i]);
        small_model_close(&small);
    }
    ha_backend_close(backend);
}

/* The work that sharing leaves: five variants of one prompt, and three samples of one. */
static void shared_work_is_not_done_twice(void **state)
{
    static const struct ha_decoder_limits limits = {N, 5 * 20, 2};
    struct ha_backend *backend = open_cpu(1);
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct ha_adapter *top;
    struct ha_decoder_sequence call[N];
    struct ha_decoder *decoder = NULL;
    struct small_model small;
    struct batch batch;
    float logits[N * VOCAB];
    int64_t row[N];
    double alone, twice, samples;

    (void)state;
    small_model_open(&small, backend, &config, HA_DTYPE_F32, 12);
    top = random_adapter(backend, &config, 3, 3, 0x0f, 2, 0.5f, 8);
    batch_open(&batch, small.model, 13);
    assert_ok(ha_decoder_create(small.model, &limits, &decoder, &err));
    for (int i = 0; i < N; i++)
        call[i] =
            (struct ha_decoder_sequence){batch.cache[i], i == 1 ? top : NULL, batch.ids[0], 20};
    call[2].adapter = call[3].adapter = top;
    alone = ha_backend_flops(backend);
    assert_ok(ha_decoder_prefill(decoder, call, 1, logits, row, &err));
    alone = ha_backend_flops(backend) - alone;
    for (int i = 0; i < N; i++)
        ha_kv_cache_reset(batch.cache[i]);
    twice = ha_backend_flops(backend);
    assert_ok(ha_decoder_prefill(decoder, call, 2, logits, row, &err));
    twice = ha_backend_flops(backend) - twice;
    /* Three of four layers are shared, and the highest one is mostly left out. */
    assert_true(twice > alone && twice < 1.3 * alone);
    for (int i = 0; i < N; i++)
        ha_kv_cache_reset(batch.cache[i]);
    samples = ha_backend_flops(backend);
    assert_ok(ha_decoder_prefill(decoder, call, 4, logits, row, &err));
    samples = ha_backend_flops(backend) - samples;
    assert_true(samples == twice);
    assert_true(row[0] != row[1] && row[1] == row[2] && row[2] == row[3]);
    batch_close(&batch);
    ha_decoder_destroy(decoder);
    ha_adapter_destroy(top);
    small_model_close(&small);
    ha_backend_close(backend);
}

static void expect_refused(struct ha_decoder *decoder, const struct ha_decoder_sequence *sequences,
                           int64_t n, bool prefill, const char *text)
{
    float logits[N * VOCAB];
    struct ha_error why = {0};
    int64_t row[N], length = ha_kv_cache_length(sequences[0].cache);

    assert_int_equal(prefill ? ha_decoder_prefill(decoder, sequences, n, logits, row, &why)
                             : ha_decoder_step(decoder, sequences, n, logits, &why),
                     -EINVAL);
    if (!strstr(why.text, text))
        fail_msg("\"%s\" does not say \"%s\"", why.text, text);
    assert_int_equal(ha_kv_cache_length(sequences[0].cache), length);
}

static void refuses_what_does_not_fit(void **state)
{
    static const struct ha_decoder_limits limits = {2, 10, 1};
    static const struct ha_decoder_limits bad = {0, 10, 1};
    struct ha_backend *backend = open_cpu(1);
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct ha_decoder *decoder = NULL;
    struct small_model small;
    struct ha_adapter *adapter;
    struct ha_kv_cache *cache = NULL, *other = NULL;
    struct ha_decoder_sequence two[3];
    int32_t ids[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 53};
    float logits[2 * VOCAB];
    int64_t row[2];
    struct ha_error why;
    int64_t bytes = 0;

    (void)state;
    small_model_open(&small, backend, &config, HA_DTYPE_F32, 11);
    adapter = random_adapter(backend, &config, 0, 3, 0xf, 2, 0.5f, 6);
    assert_int_equal(ha_decoder_create(small.model, &bad, &decoder, &why), -EINVAL);
    assert_int_equal(ha_kv_cache_create(small.model, 0, &cache, &why), -EINVAL);
    assert_ok(ha_decoder_plan_bytes(&config, HA_DTYPE_F32, &limits, &bytes, &err));
    bytes += ha_backend_allocated_bytes(backend);
    assert_ok(ha_decoder_create(small.model, &limits, &decoder, &err));
    assert_int_equal(ha_backend_allocated_bytes(backend), bytes);
    assert_ok(ha_kv_cache_create(small.model, 9, &cache, &err));
    assert_ok(ha_kv_cache_create(small.model, 9, &other, &err));
    for (int i = 0; i < 3; i++)
        two[i] = (struct ha_decoder_sequence){i ? other : cache, NULL, ids + i, 6};
    expect_refused(decoder, two, 2, true, "10 tokens in one call");
    expect_refused(decoder, two, 3, true, "3 sequences");
    expect_refused(decoder, two, 1, false, "6 tokens after 0");
    two[0].n_ids = 10;
    expect_refused(decoder, two, 1, true, "cache of 9 tokens is full");
    two[0].n_ids = 1;
    two[0].ids = ids + 11;
    expect_refused(decoder, two, 1, true, "token id 53");
    two[0].adapter = adapter;
    expect_refused(decoder, two, 1, true, "rank 2");
    two[0] = (struct ha_decoder_sequence){cache, NULL, ids, 9};
    assert_ok(ha_decoder_prefill(decoder, two, 1, logits, row, &err));
    expect_refused(decoder, two, 1, true, "9 tokens after 9");
    two[0].n_ids = 1;
    expect_refused(decoder, two, 1, false, "cache of 9 tokens is full");
    ha_kv_cache_destroy(cache);
    ha_kv_cache_destroy(other);
    ha_decoder_destroy(decoder);
    ha_adapter_destroy(adapter);
    small_model_close(&small);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_forward_pass),
        cmocka_unit_test(sequences_do_not_influence_each_other),
        cmocka_unit_test(a_shared_prompt_is_as_good_as_ones_own),
        cmocka_unit_test(shared_work_is_not_done_twice),
        cmocka_unit_test(refuses_what_does_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
