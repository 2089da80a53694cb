#include "worker/sampling/plain.h"
#include "tests/unit/model/support.h"
#include "worker/sampling/generate.h"

/* One row of a batch by the naive sum over tokens. */
static double row_by_tokens(const struct ha_model_config *config, double per_token, int64_t width,
                            int64_t drawn)
{
    double flops = 0.0;

    for (int64_t t = 0; t < width + drawn - 1; t++)
        flops += 2.0 * per_token +
                 4.0 * (double)(config->n_layers * config->n_heads * config->head_dim * (t + 1));
    return flops + 2.0 * (double)(drawn * config->vocab * config->width);
}

static double tokens_of_model(const struct ha_model_config *config)
{
    int64_t attention = 2 * config->n_heads + 2 * config->n_kv_heads;

    return (double)(config->n_layers * config->width *
                    (attention * config->head_dim + 3 * config->inner));
}

/* Two batches: padded to their longest prompt, run to their longest answer; what was not made
 * takes no row. */
static void batches_are_padded(void **state)
{
    static const struct ha_plain_answer answers[] = {{5, 3}, {0, 0}, {9, 1}, {7, -1}, {2, 8}};
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct ha_backend *backend = open_cpu(1);
    struct ha_adapter *adapter = random_adapter(backend, &config, 0, 1, 0xf, 2, 1.0f, 5);
    double token = tokens_of_model(&config), lora = (double)ha_adapter_n_params(adapter);

    (void)state;
    assert_true(ha_plain_flops(&config, NULL, answers, 5, 2) ==
                2 * row_by_tokens(&config, token, 9, 3) + row_by_tokens(&config, token, 2, 8));
    assert_true(ha_plain_flops(&config, adapter, answers, 5, 8) ==
                3 * row_by_tokens(&config, token + lora, 9, 8));
    assert_true(ha_plain_flops(&config, NULL, answers + 3, 1, 8) == 0.0);
    ha_adapter_destroy(adapter);
    ha_backend_close(backend);
}

static int ignore(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    double *flops = context;

    (void)err;
    *flops = answer->cost.flops;
    return 0;
}

/* One prompt alone: the engine's own count, but for the highest layer, which runs for the last
 * token only. */
static void one_answer_alone_is_what_the_engine_counts(void **state)
{
    static const int32_t ids[11] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct ha_backend *backend = open_cpu(1);
    struct ha_generate_rules rules = {.sampler = {0.0, 0, 1.0, 1.0, 0}, .max_new_tokens = 6};
    struct ha_generate_request request = {ids, 11, NULL, &rules, 0};
    struct ha_generate_settings settings = {.max_sequences = 1};
    struct ha_plain_answer answer = {11, 6};
    struct small_model small;
    double done = 0.0, left_out;
    struct ha_generate_hooks hooks = {.context = &done, .finished = ignore};

    (void)state;
    small_model_open(&small, backend, &config, HA_DTYPE_F32, 4);
    assert_ok(ha_generate(small.model, &request, 1, &settings, &hooks, NULL, &err));
    left_out = 10.0 * 2.0 *
               (double)(config.width * (2 * config.n_heads * config.head_dim + 3 * config.inner));
    left_out += 4.0 * (double)(config.n_heads * config.head_dim) * (11.0 * 12.0 / 2.0 - 11.0);
    assert_true(done == ha_plain_flops(&config, NULL, &answer, 1, 8) - left_out);
    small_model_close(&small);
    ha_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_padded),
        cmocka_unit_test(one_answer_alone_is_what_the_engine_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
