/* Greedy answers of the demo models against Transformers' generate (tests/golden). */
#include "tests/unit/model/support.h"

#include <stdlib.h>
#include <string.h>

#include "worker/sampling/generate.h"

enum { PROMPTS = 4, MOST_TOKENS = 256 };

struct record {
    int32_t ids[PROMPTS][MOST_TOKENS];
    int64_t n_ids[PROMPTS];
    enum ha_generate_finish finish[PROMPTS];
};

static int keep(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    struct record *record = context;

    (void)err;
    assert_true(answer->request < PROMPTS && answer->n_ids <= MOST_TOKENS);
    memcpy(record->ids[answer->request], answer->ids, (size_t)answer->n_ids * sizeof(int32_t));
    record->n_ids[answer->request] = answer->n_ids;
    record->finish[answer->request] = answer->finish;
    return 0;
}

/* All prompts of the golden file, three at once. */
static void generate(struct ha_model *model, const struct ha_json *json, int64_t new_tokens,
                     int64_t min_new_tokens, struct record *record)
{
    const struct ha_json *prompts = ha_json_get(json, "prompts");
    struct ha_generate_rules rules = {
        .sampler = {.top_p = 1, .repetition_penalty = 1, .min_new_tokens = min_new_tokens},
        .max_new_tokens = new_tokens};
    struct ha_generate_settings settings = {.max_sequences = 3};
    struct ha_generate_hooks hooks = {.context = record, .finished = keep};
    struct ha_generate_request requests[PROMPTS] = {{0}};
    int32_t *ids[PROMPTS], *eos;

    assert_int_equal(ha_json_size(prompts), PROMPTS);
    eos = json_ids(ha_json_get(json, "end_ids"), &rules.n_eos);
    rules.eos = eos;
    for (int64_t i = 0; i < PROMPTS; i++) {
        ids[i] = json_ids(ha_json_get(ha_json_at(prompts, i), "ids"), &requests[i].n_ids);
        requests[i].ids = ids[i];
        requests[i].rules = &rules;
    }
    assert_ok(ha_generate(model, requests, PROMPTS, &settings, &hooks, NULL, &err));
    for (int64_t i = 0; i < PROMPTS; i++)
        free(ids[i]);
    free(eos);
}

/* The ids up to the end, or to the first position where the oracle's best two nearly tie. */
static void check(const struct record *record, int64_t prompt, const struct ha_json *new_ids,
                  int64_t near_tie)
{
    int64_t n, compared;
    int32_t *want = json_ids(new_ids, &n);

    compared = near_tie >= 0 ? near_tie : n;
    if (record->finish[prompt] == HA_FINISH_EOS && near_tie < 0)
        compared--; /* the end token is left out of answers */
    assert_true(near_tie >= 0 || record->n_ids[prompt] == compared);
    assert_true(record->n_ids[prompt] >= compared);
    assert_memory_equal(record->ids[prompt], want, (size_t)compared * sizeof(*want));
    free(want);
}

static void greedy_agrees(void **state)
{
    struct ha_json *json = golden_json(*state, "greedy.json");
    const struct ha_json *prompts = ha_json_get(json, "prompts"), *whole;
    struct ha_backend *backend = open_cpu(2);
    struct ha_model *model = NULL;
    struct record record;

    assert_ok(ha_model_open(backend, demo_model_path(*state), &model, &err));
    generate(model, json, ha_json_int(ha_json_get(json, "new_tokens"), 0), 0, &record);
    for (int64_t i = 0; i < PROMPTS; i++)
        check(&record, i, ha_json_get(ha_json_at(prompts, i), "new_ids"), -1);

    whole = ha_json_get(json, "whole");
    generate(model, json, MOST_TOKENS, MOST_TOKENS, &record);
    for (int64_t i = 0; i < PROMPTS; i++) {
        const struct ha_json *answer = ha_json_at(whole, i);

        assert_int_equal(ha_json_size(ha_json_get(answer, "new_ids")), MOST_TOKENS);
        assert_int_equal(record.finish[i], HA_FINISH_LENGTH);
        check(&record, i, ha_json_get(answer, "new_ids"),
              ha_json_int(ha_json_get(answer, "near_tie"), -1));
    }
    ha_model_destroy(model);
    ha_backend_close(backend);
    ha_json_destroy(json);
}

#define OF_FAMILY(family)                                                                          \
    {                                                                                              \
        "greedy " family, greedy_agrees, NULL, NULL, (void *)(uintptr_t)family                     \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {OF_FAMILY("llama-2-demo"), OF_FAMILY("llama-3.1-demo"),
                                       OF_FAMILY("qwen2.5-demo"), OF_FAMILY("qwen3-demo")};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
