/* Logits of a sequence whose products keep their rows separate, to the bit: whatever runs beside
 * it, how many, in which order; and that they change with that otherwise, on the emulated device.
 * Only where HA_KERNEL_TEST_BACKEND names a device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "tests/unit/model/support.h"
#include "worker/model/decode.h"

#define ALL_MODULES ((1u << HA_MODULE_COUNT) - 1)

enum {
    VOCAB = 53,
    N_PROMPTS = 12,
    N_ADAPTERS = 3, /* the first is none */
    N_STEPS = 1,
    N_LOGITS = (N_STEPS + 1) * VOCAB,
    MOST = 500,
    RANK = 5,
};

struct setup {
    struct ha_backend *backend;
    struct small_model small;
    const struct ha_adapter *adapters[N_ADAPTERS];
    int32_t *prompts[N_PROMPTS];
    int64_t lengths[N_PROMPTS];
};

static struct ha_model_config config_of(bool tensor_cores)
{
    struct ha_model_config config = small_config(HA_FAMILY_QWEN3);

    config.n_layers = 2;
    if (tensor_cores) {
        config.head_dim = 64;
        config.n_heads = 2;
        config.n_kv_heads = 1;
        config.width = 64;
        config.inner = 96;
    }
    return config;
}

static void set_up(struct setup *s, bool tensor_cores, int64_t longest)
{
    struct ha_model_config config = config_of(tensor_cores);
    struct random random = {31};

    *s = (struct setup){.backend = open_backend(1)};
    small_model_open(&s->small, s->backend, &config, HA_DTYPE_BF16, 7);
    small_model_join(&s->small, 0);
    s->adapters[1] = random_adapter(s->backend, &config, 1, 1, ALL_MODULES, RANK, 0.2f, 21);
    s->adapters[2] = random_adapter(s->backend, &config, 0, 1,
                                    1u << HA_MODULE_Q | 1u << HA_MODULE_DOWN, 2, 0.2f, 22);
    for (int i = 0; i < N_PROMPTS; i++) {
        s->lengths[i] = i == 3 ? longest : 1 + i % 5;
        s->prompts[i] = ha_calloc(s->lengths[i], sizeof(*s->prompts[i]));
        assert_non_null(s->prompts[i]);
        for (int64_t t = 0; t < s->lengths[i]; t++)
            s->prompts[i][t] = (int32_t)random_below(&random, VOCAB);
    }
}

static void take_down(struct setup *s)
{
    for (int i = 0; i < N_PROMPTS; i++)
        free(s->prompts[i]);
    for (int i = 1; i < N_ADAPTERS; i++)
        ha_adapter_destroy((struct ha_adapter *)(uintptr_t)s->adapters[i]);
    small_model_close(&s->small);
    ha_backend_close(s->backend);
}

/* What sequence `number` is: of a prompt three neighbours, one for each adapter. */
static int prompt_of(int number)
{
    return number / N_ADAPTERS % N_PROMPTS;
}

static void put(float *logits, int64_t step, const float *from)
{
    memcpy(logits + step * VOCAB, from, VOCAB * sizeof(float));
}

/* Logits (n, N_LOGITS) of the sequences of these numbers: behind the prompt, and behind tokens
 * that follow from the number. */
static float *logits_of(const struct setup *s, const int *numbers, int n)
{
    struct ha_decoder_limits limits = {.max_sequences = n, .max_rank = RANK};
    struct ha_decoder_sequence *call = ha_calloc(n, sizeof(*call));
    float *all = ha_calloc((int64_t)n * N_LOGITS, sizeof(float));
    float *of_call = ha_calloc((int64_t)n * VOCAB, sizeof(float));
    int32_t *next = ha_calloc(n, sizeof(*next));
    int64_t *row = ha_calloc(n, sizeof(*row));
    struct ha_decoder *decoder = NULL;

    assert_true(call && all && of_call && next && row);
    for (int i = 0; i < n; i++) {
        int prompt = prompt_of(numbers[i]);

        call[i] = (struct ha_decoder_sequence){NULL, s->adapters[numbers[i] % N_ADAPTERS],
                                               s->prompts[prompt], s->lengths[prompt]};
        limits.max_prompt_tokens += s->lengths[prompt];
        assert_ok(
            ha_kv_cache_create(s->small.model, s->lengths[prompt] + N_STEPS, &call[i].cache, &err));
    }
    assert_ok(ha_decoder_create(s->small.model, &limits, &decoder, &err));
    assert_ok(ha_decoder_prefill(decoder, call, n, of_call, row, &err));
    for (int i = 0; i < n; i++)
        put(all + (int64_t)i * N_LOGITS, 0, of_call + row[i] * VOCAB);
    for (int step = 1; step <= N_STEPS; step++) {
        for (int i = 0; i < n; i++) {
            next[i] = (numbers[i] * 7 + step) % VOCAB;
            call[i].ids = &next[i];
            call[i].n_ids = 1;
        }
        assert_ok(ha_decoder_step(decoder, call, n, of_call, &err));
        for (int i = 0; i < n; i++)
            put(all + (int64_t)i * N_LOGITS, step, of_call + (int64_t)i * VOCAB);
    }
    for (int i = 0; i < n; i++)
        ha_kv_cache_destroy(call[i].cache);
    ha_decoder_destroy(decoder);
    free(call);
    free(of_call);
    free(next);
    free(row);
    return all;
}

/* How many logits of these sequences are not those of `want`, which has them by number. */
static int64_t differ(const struct setup *s, const int *numbers, int n, const float *want)
{
    float *got = logits_of(s, numbers, n);
    int64_t count = 0;

    for (int i = 0; i < n; i++)
        for (int j = 0; j < N_LOGITS; j++)
            count +=
                memcmp(&got[i * N_LOGITS + j], &want[numbers[i] * N_LOGITS + j], sizeof(*got)) != 0;
    free(got);
    return count;
}

/* Alone, three and seventeen in several orders, of one prompt and of many, against all of n. */
static int64_t differ_in_batches(const struct setup *s, int n)
{
    int numbers[MOST];
    float *want;
    int64_t count = 0;

    for (int i = 0; i < n; i++)
        numbers[i] = i;
    want = logits_of(s, numbers, n);
    for (int i = 0; i < 3; i++) {
        numbers[0] = i * 11; /* the second of the long prompt */
        count += differ(s, numbers, 1, want);
    }
    for (int i = 0; i < 3; i++)
        numbers[i] = 9 + i; /* one prompt */
    count += differ(s, numbers, 3, want);
    for (int i = 0; i < 3; i++)
        numbers[i] = (30 - 13 * i) % n;
    count += differ(s, numbers, 3, want);
    for (int i = 0; i < 17; i++)
        numbers[i] = (n - 1 - i * 5 % n + n) % n;
    count += differ(s, numbers, 17, want);
    for (int i = 0; i < n / 2; i++)
        numbers[i] = n - 1 - i;
    count += differ(s, numbers, n / 2, want);
    free(want);
    return count;
}

static void check(bool tensor_cores, int64_t longest, int n)
{
    struct setup s;
    bool emulated;

    set_up(&s, tensor_cores, longest);
    emulated = strstr(ha_backend_description(s.backend), "emulated") != NULL;
    ha_backend_separate_rows(s.backend, true);
    assert_int_equal(differ_in_batches(&s, n), 0);
    ha_backend_separate_rows(s.backend, false);
    if (emulated) /* which sums in an order of its own for each number of rows */
        assert_true(differ_in_batches(&s, n < 40 ? n : 40) > 0);
    take_down(&s);
}

static void logits_are_a_sequences_own(void **state)
{
    (void)state;
    check(true, 70, 40);
}

static void logits_are_a_sequences_own_among_500(void **state)
{
    (void)state;
    check(false, 5, MOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_a_sequences_own),
        cmocka_unit_test(logits_are_a_sequences_own_among_500),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
