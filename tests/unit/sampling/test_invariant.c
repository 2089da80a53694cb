/* With batch_invariant rows of products are separate while answers are made, and only then; and
 * drawn answers are the same however many run at once, whether steps are recorded or not.  On the
 * emulated device sums change with the number of rows otherwise.  Only where HA_KERNEL_TEST_BACKEND
 * names a device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/unit/model/support.h"
#include "worker/sampling/generate.h"

enum { REQUESTS = 9, PROMPTS = 3, PROMPT_MAX = 7, NEW = 7, VOCAB = 53, EDGE = 40 };

struct setup {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_adapter *adapters[2];
    int32_t prompts[PROMPTS][PROMPT_MAX];
    struct ha_generate_rules rules;
    struct ha_generate_request requests[REQUESTS];
    void *factor, *result; /* f32 (EDGE, EDGE) */
};

struct answers {
    const struct setup *setup;
    bool separate; /* rows were, whenever an answer was there */
    struct ha_generate_counts counts;
    int32_t ids[REQUESTS][NEW];
};

/* The square of a matrix has the same first rows in a product of these rows alone. */
static bool rows_are_separate(const struct setup *s)
{
    struct ha_matrix a = {s->factor, HA_DTYPE_F32, EDGE, EDGE, EDGE}, b = a;
    struct ha_matrix c = {s->result, HA_DTYPE_F32, EDGE, EDGE, EDGE};
    float all[EDGE * EDGE], one[EDGE];
    size_t row = EDGE * sizeof(float);

    assert_ok(ha_backend_ops(s->backend)->gemm(s->backend, &c, &a, false, &b, true, 1, 0, &err));
    assert_ok(ha_backend_download(s->backend, all, s->result, sizeof(all), &err));
    a.rows = c.rows = 1;
    assert_ok(ha_backend_ops(s->backend)->gemm(s->backend, &c, &a, false, &b, true, 1, 0, &err));
    assert_ok(ha_backend_download(s->backend, one, s->result, row, &err));
    return memcmp(all, one, row) == 0;
}

static int finished(void *context, const struct ha_generate_answer *answer, struct ha_error *err)
{
    struct answers *answers = context;

    (void)err;
    answers->separate = answers->separate && rows_are_separate(answers->setup);
    assert_int_equal(answer->n_ids, NEW);
    memcpy(answers->ids[answer->request], answer->ids, sizeof(answers->ids[0]));
    return 0;
}

static struct answers generate(const struct setup *s, int64_t at_once, int64_t burst,
                               bool invariant)
{
    struct ha_generate_settings settings = {
        .max_sequences = at_once, .batch_invariant = invariant, .burst = burst};
    struct answers answers = {.setup = s, .separate = true};
    struct ha_generate_hooks hooks = {.context = &answers, .finished = finished};

    assert_ok(ha_generate(s->small.model, s->requests, REQUESTS, &settings, &hooks, &answers.counts,
                          &err));
    return answers;
}

static void answers_are_the_same(void **state)
{
    struct ha_model_config config = small_config(HA_FAMILY_QWEN2);
    struct setup s = {.backend = open_backend(1)};
    struct random random = {3};
    struct answers all, other;
    float factor[EDGE * EDGE];

    (void)state;
    small_model_open(&s.small, s.backend, &config, HA_DTYPE_BF16, 4);
    small_model_join(&s.small, 0);
    for (int i = 0; i < 2; i++)
        s.adapters[i] = random_adapter(s.backend, &config, i, 3, 0x7f, 2 + i, 1.0f, 5 + i);
    for (int i = 0; i < PROMPTS; i++)
        for (int t = 0; t < PROMPT_MAX; t++)
            s.prompts[i][t] = (int32_t)random_below(&random, VOCAB);
    s.rules = (struct ha_generate_rules){
        .sampler = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
        .seed = 42,
        .max_new_tokens = NEW};
    for (int i = 0; i < REQUESTS; i++)
        s.requests[i] = (struct ha_generate_request){s.prompts[i / 3], 2 + i / 3,
                                                     i % 3 ? s.adapters[i % 3 - 1] : NULL, &s.rules,
                                                     (uint64_t)i / 3};
    for (int i = 0; i < EDGE * EDGE; i++)
        factor[i] = random_uniform(&random) / 3;
    assert_ok(ha_backend_alloc(s.backend, sizeof(factor), &s.factor, &err));
    assert_ok(ha_backend_alloc(s.backend, sizeof(factor), &s.result, &err));
    assert_ok(ha_backend_upload(s.backend, s.factor, factor, sizeof(factor), &err));

    all = generate(&s, REQUESTS, 0, true);
    assert_true(all.separate);
    other = generate(&s, 2, 1, true);
    assert_true(other.separate);
    assert_true(is_cpu(s.backend) || all.counts.replayed > 0);
    assert_int_equal(other.counts.replayed, 0);
    for (int i = 0; i < REQUESTS; i++)
        assert_memory_equal(all.ids[i], other.ids[i], sizeof(all.ids[i]));
    if (strstr(ha_backend_description(s.backend), "emulated")) {
        assert_false(rows_are_separate(&s));
        other = generate(&s, REQUESTS, 0, false);
        assert_false(other.separate);
    }
    ha_backend_free(s.backend, s.factor);
    ha_backend_free(s.backend, s.result);
    ha_adapter_destroy(s.adapters[0]);
    ha_adapter_destroy(s.adapters[1]);
    small_model_close(&s.small);
    ha_backend_close(s.backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_are_the_same)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
