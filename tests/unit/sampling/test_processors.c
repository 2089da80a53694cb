/* The next-token distribution against Transformers' processors (tests/golden/processors.json). */
#include "tests/unit/model/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "kernels/cpu/sample.h"
#include "worker/sampling/sampler.h"

#define LIMIT 1e-6

struct problem {
    struct ha_sampler_settings settings;
    int32_t *ids, *eos;
    int64_t n_ids, n_eos, n_new;
    int64_t vocab;
    float *logits; /* (vocab) */
    double *want;  /* (vocab) probabilities */
    bool *tied;    /* (vocab): which of these go is up to a sort */
};

static void read_problem(const struct ha_json *json, struct problem *p)
{
    const struct ha_json *settings = ha_json_get(json, "settings"), *tied;
    const struct ha_json *logits = ha_json_get(json, "logits");

    *p = (struct problem){.vocab = ha_json_size(logits)};
    p->settings = (struct ha_sampler_settings){
        .temperature = ha_json_real(ha_json_get(settings, "temperature"), NAN),
        .top_k = ha_json_int(ha_json_get(settings, "top_k"), -1),
        .top_p = ha_json_real(ha_json_get(settings, "top_p"), NAN),
        .repetition_penalty = ha_json_real(ha_json_get(settings, "repetition_penalty"), NAN),
        .min_new_tokens = ha_json_int(ha_json_get(settings, "min_new_tokens"), -1)};
    assert_ok(ha_sampler_settings_check(&p->settings, &err));
    p->ids = json_ids(ha_json_get(json, "ids"), &p->n_ids);
    p->eos = json_ids(ha_json_get(json, "eos"), &p->n_eos);
    p->n_new = ha_json_int(ha_json_get(json, "new"), -1);
    p->logits = ha_calloc(p->vocab, sizeof(*p->logits));
    p->want = ha_calloc(p->vocab, sizeof(*p->want));
    p->tied = ha_calloc(p->vocab, sizeof(*p->tied));
    assert_true(p->vocab > 0 && p->logits && p->want && p->tied);
    for (int64_t i = 0; i < p->vocab; i++) {
        p->logits[i] = (float)ha_json_real(ha_json_at(logits, i), -INFINITY);
        p->want[i] = ha_json_real(ha_json_at(ha_json_get(json, "probabilities"), i), NAN);
    }
    tied = ha_json_get(json, "tied");
    for (int64_t i = 0; i < ha_json_size(tied); i++)
        p->tied[ha_json_int(ha_json_at(tied, i), -1)] = true;
}

static void clear_problem(struct problem *p)
{
    free(p->ids);
    free(p->eos);
    free(p->logits);
    free(p->want);
    free(p->tied);
}

/* The largest difference; of tied ids only the sum of what they keep is compared. */
static double difference(const struct problem *p)
{
    const struct ha_cpu_candidate *candidates;
    double *got = ha_calloc(p->vocab, sizeof(*got)), total = 0, worst = 0, balance = 0;
    uint32_t *seen = ha_calloc(ha_sampler_seen_words(p->vocab), sizeof(*seen));
    void *scratch = ha_calloc(ha_cpu_sample_bytes(p->vocab), 1);
    struct ha_draw draw;
    int64_t n;

    assert_true(got && seen && scratch);
    ha_sampler_rules(&p->settings, &draw);
    ha_sampler_see(seen, p->vocab, p->ids, p->n_ids);
    draw.seen = seen;
    draw.eos = p->eos;
    draw.n_eos = (int32_t)p->n_eos;
    draw.n_new = (int32_t)p->n_new;
    n = ha_cpu_sample_candidates(&draw, p->logits, p->vocab, scratch, &candidates);
    assert_true(n > 0 && n <= p->vocab);
    for (int64_t i = 0; i < n; i++) {
        assert_true(i == 0 || candidates[i].id > candidates[i - 1].id);
        total += (double)candidates[i].weight;
    }
    for (int64_t i = 0; i < n; i++)
        got[candidates[i].id] = (double)candidates[i].weight / total;
    for (int64_t i = 0; i < p->vocab; i++) {
        if (p->tied[i])
            balance += got[i] - p->want[i];
        else
            worst = fmax(worst, isnan(p->want[i]) ? INFINITY : fabs(got[i] - p->want[i]));
    }
    free(scratch);
    free(seen);
    free(got);
    return fmax(worst, fabs(balance));
}

static void distributions_agree(void **state)
{
    struct ha_json *json = golden_json(".", "processors.json");
    const struct ha_json *cases = ha_json_get(json, "cases");
    double worst = 0;

    (void)state;
    assert_true(ha_json_size(cases) >= 70);
    for (int64_t i = 0; i < ha_json_size(cases); i++) {
        struct problem p;
        double gap;

        read_problem(ha_json_at(cases, i), &p);
        gap = difference(&p);
        if (!(gap <= LIMIT))
            fail_msg("case %d differs by %g", (int)i, gap);
        worst = fmax(worst, gap);
        clear_problem(&p);
    }
    print_message("  %d cases, largest difference %.2g of %g allowed\n", (int)ha_json_size(cases),
                  worst, LIMIT);
    ha_json_destroy(json);
}

/* Each setting left out is told apart by some case. */
static void faults_are_caught(void **state)
{
    struct ha_json *json = golden_json(".", "processors.json");
    const struct ha_json *cases = ha_json_get(json, "cases");

    (void)state;
    for (int fault = 0; fault < 6; fault++) {
        int caught = 0;

        for (int64_t i = 0; i < ha_json_size(cases); i++) {
            struct problem p;

            read_problem(ha_json_at(cases, i), &p);
            if (fault == 0 && p.settings.temperature > 0)
                p.settings.temperature *= 1.0001;
            if (fault == 1)
                p.settings.top_k = p.settings.top_k > 0 ? p.settings.top_k + 1 : 0;
            if (fault == 2)
                p.settings.top_p = 1;
            if (fault == 3)
                p.settings.repetition_penalty = 1;
            if (fault == 4)
                p.settings.min_new_tokens = 0;
            if (fault == 5)
                p.n_eos = p.n_eos > 0 ? p.n_eos - 1 : 0;
            caught += difference(&p) > LIMIT;
            clear_problem(&p);
        }
        if (caught == 0)
            fail_msg("no case tells fault %d", fault);
    }
    ha_json_destroy(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distributions_agree),
        cmocka_unit_test(faults_are_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
