#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "worker/sampling/sampler.h"

static const struct ha_sampler_settings greedy = {0.0, 0, 1.0, 1.0, 0};

static struct ha_backend *cpu;

/* What one draw is about. */
struct place {
    const int32_t *ids; /* prompt and new tokens so far */
    int64_t n_ids, n_new;
    const int32_t *eos;
    int64_t n_eos;
    uint64_t seed, prompt;
};

/* Draws once; the state it leaves, and the token. */
static int32_t draw(const struct ha_sampler_settings *settings, const struct place *place,
                    const float *logits, int64_t vocab, int32_t *ret_token)
{
    uint32_t *seen = calloc((size_t)ha_sampler_seen_words(vocab), sizeof(*seen));
    struct ha_draw rules;
    struct ha_sample sample = {.n_rows = 1,
                               .vocab = vocab,
                               .logits = logits,
                               .draws = &rules,
                               .drawn = ret_token,
                               .drawn_stride = 1};

    assert_non_null(seen);
    ha_sampler_rules(settings, &rules);
    ha_sampler_see(seen, vocab, place->ids, place->n_ids);
    rules.max_new = INT32_MAX;
    rules.seen = seen;
    rules.n_new = (int32_t)place->n_new;
    rules.eos = place->eos;
    rules.n_eos = (int32_t)place->n_eos;
    rules.seed = place->seed;
    rules.item = place->prompt;
    assert_int_equal(ha_backend_ops(cpu)->sample(cpu, &sample, NULL), 0);
    free(seen);
    return rules.state;
}

static int32_t pick(const struct ha_sampler_settings *settings, const struct place *place,
                    const float *logits, int64_t vocab)
{
    int32_t token = -1;
    int32_t state = draw(settings, place, logits, vocab, &token);

    if (state == HA_DRAW_EOS) /* the token is one of them, and not told */
        return place->eos[0];
    assert_int_equal(state, HA_DRAW_RUNNING);
    return token;
}

/* How often each id comes up at `draws` places. */
static void count(const struct ha_sampler_settings *settings, const float *logits, int64_t vocab,
                  int draws, int *counts)
{
    struct place place = {.seed = 5};

    memset(counts, 0, (size_t)vocab * sizeof(*counts));
    for (int i = 0; i < draws; i++) {
        place.prompt = (uint64_t)i;
        counts[pick(settings, &place, logits, vocab)]++;
    }
}

static void greedy_takes_the_first_largest(void **state)
{
    static const float logits[] = {1.0f, 3.0f, -2.0f, 3.0f, -INFINITY};
    struct place place = {0};

    (void)state;
    assert_int_equal(pick(&greedy, &place, logits, 5), 1);
}

/* Positive scores are divided, negative ones multiplied, each id once. */
static void penalty_covers_prompt_and_answer(void **state)
{
    static const float logits[] = {2.0f, 1.9f, 1.2f, -1.0f};
    static const float negative[] = {-2.0f, -1.0f, -1.5f, -3.0f};
    static const int32_t ids[] = {0, 0, 1, 0, 77};
    struct ha_sampler_settings settings = greedy;
    struct place place = {.ids = ids, .n_ids = 5};

    (void)state;
    settings.repetition_penalty = 1.5; /* 2/1.5, 1.9/1.5 (not twice), 1.2, -1 */
    assert_int_equal(pick(&settings, &place, logits, 4), 0);
    settings.repetition_penalty = 1.7; /* 1.18, 1.12, 1.2, -1 */
    assert_int_equal(pick(&settings, &place, logits, 4), 2);
    assert_int_equal(pick(&settings, &place, negative, 4), 2); /* -3.4, -1.7, -1.5, -3 */
}

static void end_waits_for_min_new_tokens(void **state)
{
    static const float logits[] = {2.0f, 1.0f, 5.0f, 4.0f};
    static const int32_t eos[] = {2, 3};
    struct ha_sampler_settings settings = greedy;
    struct place place = {.eos = eos, .n_eos = 2, .n_new = 2};

    (void)state;
    settings.min_new_tokens = 3;
    assert_int_equal(pick(&settings, &place, logits, 4), 0);
    place.n_new = 3;
    assert_int_equal(pick(&settings, &place, logits, 4), 2);
}

static void temperature_follows_the_softmax(void **state)
{
    static const float logits[] = {0.0f, 1.0f, 2.0f, -1.0f};
    enum { DRAWS = 20000 };
    struct ha_sampler_settings settings = greedy;
    int counts[4];

    (void)state;
    for (int t = 1; t <= 2; t++) {
        double total = 0.0;

        settings.temperature = t;
        count(&settings, logits, 4, DRAWS, counts);
        for (int i = 0; i < 4; i++)
            total += exp((double)logits[i] / t);
        for (int i = 0; i < 4; i++) {
            double p = exp((double)logits[i] / t) / total;

            assert_true(fabs(counts[i] - DRAWS * p) < 4.0 * sqrt(DRAWS * p * (1.0 - p)));
        }
    }
}

static void top_k_keeps_ties(void **state)
{
    static const float logits[] = {1.0f, 2.0f, 1.0f, 3.0f, 0.5f, 1.0f};
    struct ha_sampler_settings settings = greedy;
    int counts[6];

    (void)state;
    settings.temperature = 1.0;
    settings.top_k = 3;
    count(&settings, logits, 6, 2000, counts);
    assert_true(counts[0] && counts[1] && counts[2] && counts[3] && counts[5]);
    assert_int_equal(counts[4], 0);
    settings.top_k = 2;
    count(&settings, logits, 6, 500, counts);
    assert_int_equal(counts[1] + counts[3], 500);
    settings.top_k = 1;
    count(&settings, logits, 6, 50, counts);
    assert_int_equal(counts[3], 50);
    settings.top_k = 100;
    count(&settings, logits, 6, 2000, counts);
    assert_true(counts[4] > 0);
}

/* Probabilities 0.5, 0.25, 0.125, 0.125: removed while the ascending sum is at most
 * 1 - top_p. */
static void top_p_keeps_the_head(void **state)
{
    float logits[] = {logf(0.125f), logf(0.5f), logf(0.25f), logf(0.125f)};
    struct ha_sampler_settings settings = greedy;
    int counts[4];

    (void)state;
    settings.temperature = 1.0;
    settings.top_p = 0.9; /* 0.1: nothing goes */
    count(&settings, logits, 4, 1000, counts);
    assert_true(counts[0] && counts[1] && counts[2] && counts[3]);
    settings.top_p = 0.8; /* 0.2: the first of the two small ones goes */
    count(&settings, logits, 4, 1000, counts);
    assert_true(!counts[0] && counts[1] && counts[2] && counts[3]);
    settings.top_p = 0.7; /* 0.3: both */
    count(&settings, logits, 4, 1000, counts);
    assert_true(!counts[0] && counts[1] && counts[2] && !counts[3]);
    settings.top_p = 1e-18; /* the best always stays */
    count(&settings, logits, 4, 100, counts);
    assert_int_equal(counts[1], 100);
    logits[0] = logits[2] = logits[3] = logits[1]; /* all equal: the last of a stable sort */
    count(&settings, logits, 4, 100, counts);
    assert_int_equal(counts[3], 100);
}

/* top_p looks at what temperature and top_k have left. */
static void top_p_comes_last(void **state)
{
    float logits[1000];
    struct ha_sampler_settings settings = {2.0, 3, 0.5, 1.0, 0};
    int counts[1000];

    (void)state;
    for (int i = 0; i < 1000; i++)
        logits[i] = -10.0f;
    logits[500] = 2.0f; /* sqrt(e) : 1 : 1 after temperature 2 = 0.45 : 0.27 : 0.27 */
    logits[501] = 1.0f;
    logits[502] = 1.0f;
    count(&settings, logits, 1000, 300, counts);
    assert_true(counts[500] > 0 && counts[502] > 0);
    assert_int_equal(counts[500] + counts[502], 300);
}

/* Against a plain sort of everything, on random logits of a large vocabulary. */
static void agrees_with_a_full_sort(void **state)
{
    enum { VOCAB = 3000 };
    static float logits[VOCAB];
    static double sorted[VOCAB];
    static int counts[VOCAB];
    struct ha_sampler_settings settings = {0.7, 200, 0.6, 1.0, 0};
    double total = 0.0, sum = 0.0, lowest = 0.0;
    uint32_t bits = 1;

    (void)state;
    for (int i = 0; i < VOCAB; i++) {
        bits = bits * 1664525u + 1013904223u;
        logits[i] = (float)(bits >> 8) * 0x1p-22f;
        sorted[i] = (double)(logits[i] / 0.7f);
    }
    for (int i = 0; i < 200; i++) /* the 200 largest, descending */
        for (int j = i + 1; j < VOCAB; j++)
            if (sorted[j] > sorted[i]) {
                double swap = sorted[i];

                sorted[i] = sorted[j];
                sorted[j] = swap;
            }
    for (int i = 0; i < 200; i++)
        total += exp(sorted[i]);
    for (int i = 199; i >= 0 && (sum + exp(sorted[i])) / total <= 0.4; i--) {
        sum += exp(sorted[i]);
        lowest = sorted[i - 1];
    }
    count(&settings, logits, VOCAB, 3000, counts);
    for (int i = 0; i < VOCAB; i++)
        if ((double)(logits[i] / 0.7f) < lowest)
            assert_int_equal(counts[i], 0);
        else
            assert_true(counts[i] > 0);
}

static void draws_depend_on_place_only(void **state)
{
    static const float logits[64] = {0};
    struct ha_sampler_settings settings = {1.0, 0, 1.0, 1.0, 0};
    struct place place = {.seed = 1, .prompt = 2, .n_new = 3}, other;
    int32_t base = pick(&settings, &place, logits, 64);
    int changed = 0;

    (void)state;
    assert_int_equal(pick(&settings, &place, logits, 64), base);
    for (int i = 1; i <= 4; i++) {
        other = place;
        other.seed += (uint64_t)i;
        changed += pick(&settings, &other, logits, 64) != base;
        other = place;
        other.prompt += (uint64_t)i;
        changed += pick(&settings, &other, logits, 64) != base;
        other = place;
        other.n_new += i;
        changed += pick(&settings, &other, logits, 64) != base;
    }
    assert_true(changed >= 9);
}

static void diverged_logits_are_refused(void **state)
{
    static const float bad[][3] = {
        {1.0f, NAN, 2.0f}, {1.0f, INFINITY, 2.0f}, {-INFINITY, -INFINITY, -INFINITY}};
    struct ha_sampler_settings settings = greedy;
    struct place place = {.n_new = 7};

    (void)state;
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 3; i++) {
            int32_t token = -1;

            settings.temperature = t;
            assert_int_equal(draw(&settings, &place, bad[i], 3, &token), HA_DRAW_DIVERGED);
            assert_int_equal(token, -1);
        }
}

static void settings_are_checked(void **state)
{
    static const struct {
        struct ha_sampler_settings settings;
        const char *name;
    } bad[] = {
        {{-1.0, 0, 1.0, 1.0, 0}, "temperature"},
        {{NAN, 0, 1.0, 1.0, 0}, "temperature"},
        {{1.0, -1, 1.0, 1.0, 0}, "top_k"},
        {{1.0, 0, 0.0, 1.0, 0}, "top_p"},
        {{1.0, 0, 1.1, 1.0, 0}, "top_p"},
        {{1.0, 0, NAN, 1.0, 0}, "top_p"},
        {{1.0, 0, 1.0, 0.0, 0}, "repetition_penalty"},
        {{1.0, 0, 1.0, 1.0, -1}, "min_new_tokens"},
    };
    struct ha_error err;

    (void)state;
    assert_int_equal(ha_sampler_settings_check(&greedy, &err), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ha_sampler_settings_check(&bad[i].settings, &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i].name));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_largest),
        cmocka_unit_test(penalty_covers_prompt_and_answer),
        cmocka_unit_test(end_waits_for_min_new_tokens),
        cmocka_unit_test(temperature_follows_the_softmax),
        cmocka_unit_test(top_k_keeps_ties),
        cmocka_unit_test(top_p_keeps_the_head),
        cmocka_unit_test(top_p_comes_last),
        cmocka_unit_test(agrees_with_a_full_sort),
        cmocka_unit_test(draws_depend_on_place_only),
        cmocka_unit_test(diverged_logits_are_refused),
        cmocka_unit_test(settings_are_checked),
    };

    struct ha_backend_options options = {.name = "cpu", .threads = 1};
    int failed;

    if (ha_backend_open(&options, &cpu, NULL) < 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    ha_backend_close(cpu);
    return failed;
}
