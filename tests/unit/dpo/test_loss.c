/* DPO losses: values, slopes against differences, arguments of any size, and
 * TRL's own values and slopes. */
#include "tests/unit/dpo/loss_settings.h"
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

enum { N_PAIRS = 5, N_DIVERGENCES = HA_DPO_ALPHA_DIVERGENCE + 1, N_LOSSES = HA_DPO_SFT + 1 };

static void names(void **state)
{
    enum ha_dpo_loss_kind kind = HA_DPO_SIGMOID;
    enum ha_dpo_divergence divergence = HA_DPO_REVERSE_KL;

    (void)state;
    for (int i = 0; i < N_LOSSES; i++) {
        assert_int_equal(ha_dpo_loss_parse(ha_dpo_loss_name((enum ha_dpo_loss_kind)i), &kind, NULL),
                         0);
        assert_int_equal(kind, i);
    }
    assert_int_equal(ha_dpo_loss_parse("aot_unpaired", &kind, NULL), 0);
    assert_int_equal(kind, HA_DPO_AOT_UNPAIRED);
    assert_int_equal(ha_dpo_loss_parse("sigmoids", &kind, NULL), -EINVAL);
    assert_int_equal(ha_dpo_loss_parse("", &kind, NULL), -EINVAL);
    assert_int_equal(ha_dpo_divergence_parse("js_divergence", &divergence, NULL), 0);
    assert_int_equal(divergence, HA_DPO_JS_DIVERGENCE);
    assert_int_equal(ha_dpo_divergence_parse("kl", &divergence, NULL), -EINVAL);
}

static struct ha_dpo_loss_settings settings_of(enum ha_dpo_loss_kind kind, double beta)
{
    struct ha_dpo_loss_settings settings;

    ha_dpo_loss_defaults(&settings);
    settings.terms[0].kind = kind;
    settings.beta = beta;
    if (kind == HA_DPO_EXO_PAIR || kind == HA_DPO_ROBUST || kind == HA_DPO_AOT)
        settings.label_smoothing = 0.1;
    return settings;
}

static struct ha_dpo_pair_loss one(enum ha_dpo_loss_kind kind, double chosen, double rejected,
                                   double ref_chosen, double ref_rejected, double beta)
{
    struct ha_dpo_loss_settings settings = settings_of(kind, beta);
    struct ha_dpo_pair_logps pair = {.chosen = chosen,
                                     .rejected = rejected,
                                     .ref_chosen = ref_chosen,
                                     .ref_rejected = ref_rejected,
                                     .plain_chosen = chosen,
                                     .plain_rejected = rejected,
                                     .n_chosen = 3,
                                     .n_rejected = 4,
                                     .chosen_tokens = 3,
                                     .rejected_tokens = 4};
    struct ha_dpo_micro_totals micro = {1, 3};
    struct ha_dpo_pair_loss loss;

    assert_ok(ha_dpo_loss_check(&settings, &err));
    assert_ok(ha_dpo_loss(&settings, &micro, &pair, 1, &loss, &err));
    return loss;
}

static void sigmoid_values(void **state)
{
    struct ha_dpo_pair_loss loss = one(HA_DPO_SIGMOID, -5, -7, -5, -7, 0.1);

    (void)state;
    assert_true(loss.value == log(2.0));
    assert_true(loss.dchosen == -0.05 && loss.drejected == 0.05);
    /* delta = 3, beta = 0.5: -log sigmoid(1.5). */
    loss = one(HA_DPO_SIGMOID, -4, -9, -5, -7, 0.5);
    assert_true(fabs(loss.value - 0.20141327798275246) < 1e-15);
    assert_true(fabs(loss.dchosen + 0.5 * 0.18242552380635635) < 1e-15);
}

static void settings_are_checked(void **state)
{
    struct ha_dpo_loss_settings settings;

    (void)state;
    for (int i = 0; i < N_LOSSES; i++) {
        bool of_pair = i != HA_DPO_AOT && i != HA_DPO_AOT_UNPAIRED && i != HA_DPO_SFT;

        settings = settings_of((enum ha_dpo_loss_kind)i, 0.1);
        assert_ok(ha_dpo_loss_check(&settings, &err));
        settings.use_weighting = true;
        assert_int_equal(ha_dpo_loss_check(&settings, NULL), of_pair ? 0 : -EINVAL);
    }
    settings = settings_of(HA_DPO_EXO_PAIR, 0.1);
    settings.label_smoothing = 0;
    assert_int_equal(ha_dpo_loss_check(&settings, NULL), -EINVAL);
    settings = settings_of(HA_DPO_ROBUST, 0.1);
    settings.label_smoothing = 0.5;
    assert_int_equal(ha_dpo_loss_check(&settings, NULL), -EINVAL);
    settings = settings_of(HA_DPO_SIGMOID, 0);
    assert_int_equal(ha_dpo_loss_check(&settings, NULL), -EINVAL);
    settings = settings_of(HA_DPO_SIGMOID, 0.1);
    settings.ld_alpha = 1.5;
    assert_int_equal(ha_dpo_loss_check(&settings, NULL), -EINVAL);
    settings = settings_of(HA_DPO_SIGMOID, 0.1);
    settings.n_terms = 0;
    assert_int_equal(ha_dpo_loss_check(&settings, NULL), -EINVAL);
}

/* ---- slopes against differences ---- */

static void random_micro(struct ha_dpo_pair_logps pairs[N_PAIRS], struct random *random,
                         struct ha_dpo_micro_totals *micro)
{
    *micro = (struct ha_dpo_micro_totals){.n_pairs = N_PAIRS};
    for (int i = 0; i < N_PAIRS; i++) {
        struct ha_dpo_pair_logps *p = &pairs[i];

        *p = (struct ha_dpo_pair_logps){.ref_chosen = -20 + 5.0 * random_uniform(random),
                                        .ref_rejected = -20 + 5.0 * random_uniform(random),
                                        .chosen_log_square = -3 + random_uniform(random),
                                        .rejected_log_square = -3 + random_uniform(random),
                                        .n_chosen = 1 + random_below(random, 5),
                                        .n_rejected = 1 + random_below(random, 5)};
        p->chosen = p->ref_chosen + 3.0 * random_uniform(random);
        p->rejected = p->ref_rejected + 3.0 * random_uniform(random);
        p->plain_chosen = p->chosen;
        p->plain_rejected = p->rejected;
        p->chosen_tokens = p->n_chosen;
        p->rejected_tokens = p->n_rejected;
        micro->n_chosen += p->n_chosen;
    }
}

static double mean_loss(const struct ha_dpo_loss_settings *settings,
                        const struct ha_dpo_micro_totals *micro,
                        const struct ha_dpo_pair_logps pairs[N_PAIRS])
{
    struct ha_dpo_pair_loss losses[N_PAIRS];
    double sum = 0;

    assert_ok(ha_dpo_loss(settings, micro, pairs, N_PAIRS, losses, &err));
    for (int i = 0; i < N_PAIRS; i++)
        sum += losses[i].value;
    return sum / N_PAIRS;
}

static void compare_slope(const struct ha_dpo_loss_settings *settings,
                          const struct ha_dpo_micro_totals *micro,
                          struct ha_dpo_pair_logps pairs[N_PAIRS], double *argument, double slope,
                          const char *what)
{
    double step = 1e-5, at = *argument, up, down, wanted;

    *argument = at + step;
    up = mean_loss(settings, micro, pairs);
    *argument = at - step;
    down = mean_loss(settings, micro, pairs);
    *argument = at;
    wanted = N_PAIRS * (up - down) / (2 * step);
    if (!(fabs(wanted - slope) <= 1e-7 * fmax(1, fabs(wanted))))
        fail_msg("%s, divergence %d: slope by %s is %.10g, differences give %.10g",
                 ha_dpo_loss_name(settings->terms[0].kind), (int)settings->divergence, what, slope,
                 wanted);
}

static void compare_slopes(const struct ha_dpo_loss_settings *settings, struct random *random)
{
    struct ha_dpo_pair_logps pairs[N_PAIRS];
    struct ha_dpo_pair_loss losses[N_PAIRS];
    struct ha_dpo_micro_totals micro;

    random_micro(pairs, random, &micro);
    assert_ok(ha_dpo_loss(settings, &micro, pairs, N_PAIRS, losses, &err));
    for (int i = 0; i < N_PAIRS; i++) {
        compare_slope(settings, &micro, pairs, &pairs[i].chosen, losses[i].dchosen, "chosen");
        compare_slope(settings, &micro, pairs, &pairs[i].rejected, losses[i].drejected, "rejected");
        /* WPO's weight hangs on the plain sum, too, but is a constant to the gradient. */
        if (!settings->use_weighting)
            compare_slope(settings, &micro, pairs, &pairs[i].plain_chosen, losses[i].dplain_chosen,
                          "plain chosen");
    }
}

static void slopes_match_differences(void **state)
{
    struct random random = {17};

    (void)state;
    for (int kind = 0; kind < N_LOSSES; kind++) {
        for (int divergence = 0; divergence < N_DIVERGENCES; divergence++) {
            struct ha_dpo_loss_settings settings = settings_of((enum ha_dpo_loss_kind)kind, 0.3);

            settings.divergence = (enum ha_dpo_divergence)divergence;
            settings.discopop_tau = 0.4;
            compare_slopes(&settings, &random);
            settings.terms[0].weight = -0.7;
            settings.terms[1] = (struct ha_dpo_loss_term){HA_DPO_SFT, 0.3};
            settings.terms[2] = (struct ha_dpo_loss_term){HA_DPO_IPO, 2};
            settings.n_terms = 3;
            compare_slopes(&settings, &random);
            settings.n_terms = 1;
            settings.use_weighting = true;
            if (ha_dpo_loss_check(&settings, NULL) == 0)
                compare_slopes(&settings, &random);
        }
    }
}

/* A pair's values do not hang on which pairs of its micro-batch it is asked with. */
static void parts_are_the_whole(void **state)
{
    struct ha_dpo_pair_logps pairs[N_PAIRS];
    struct ha_dpo_pair_loss whole[N_PAIRS], part;
    struct ha_dpo_micro_totals micro;
    struct random random = {5};

    (void)state;
    random_micro(pairs, &random, &micro);
    for (int kind = 0; kind < N_LOSSES; kind++) {
        struct ha_dpo_loss_settings settings = settings_of((enum ha_dpo_loss_kind)kind, 0.3);

        assert_ok(ha_dpo_loss(&settings, &micro, pairs, N_PAIRS, whole, &err));
        assert_int_equal(ha_dpo_loss_sorts(&settings),
                         kind == HA_DPO_AOT || kind == HA_DPO_AOT_UNPAIRED);
        for (int i = 0; !ha_dpo_loss_sorts(&settings) && i < N_PAIRS; i++) {
            assert_ok(ha_dpo_loss(&settings, &micro, pairs + i, 1, &part, &err));
            assert_memory_equal(&part, &whole[i], sizeof(part));
        }
    }
}

static void no_overflow(void **state)
{
    static const double far[] = {-1e6, -800, 800, 1e6};
    struct ha_dpo_pair_loss loss;

    (void)state;
    loss = one(HA_DPO_SIGMOID, -1e6, 0, 0, 0, 1);
    assert_true(loss.value == 1e6 && loss.dchosen == -1);
    loss = one(HA_DPO_SIGMOID, 0, -1e6, 0, 0, 1);
    assert_true(loss.value == 0 && loss.dchosen == 0);
    assert_true(isinf(one(HA_DPO_SIGMOID, -INFINITY, 0, 0, 0, 1).value));
    for (int kind = 0; kind < N_LOSSES; kind++) {
        for (size_t i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
            loss = one((enum ha_dpo_loss_kind)kind, far[i], 0, 0, 0, 1);
            assert_true(isfinite(loss.value) && isfinite(loss.dchosen) && isfinite(loss.drejected));
            loss = one((enum ha_dpo_loss_kind)kind, 0, far[i], 0, 0, 1);
            assert_true(isfinite(loss.value) && isfinite(loss.dchosen) && isfinite(loss.drejected));
        }
        assert_true(isnan(one((enum ha_dpo_loss_kind)kind, NAN, 0, 0, 0, 1).value));
    }
}

/* ---- TRL ---- */

/* The made-up micro-batch of losses.json. */
struct micro_batch {
    int64_t n_pairs;
    const struct ha_json *completion_tokens, *policy, *reference, *log_square;
};

static double sum_of(const struct ha_json *rows, int64_t row, int64_t from)
{
    const struct ha_json *values = ha_json_at(rows, row);
    double sum = 0;

    for (int64_t i = from; i < ha_json_size(values); i++)
        sum += ha_json_real(ha_json_at(values, i), NAN);
    return sum;
}

static int64_t scored(const struct micro_batch *micro, int64_t row)
{
    return ha_json_size(ha_json_at(micro->policy, row));
}

static int64_t shared(const struct micro_batch *micro, int64_t pair)
{
    int64_t chosen = scored(micro, pair), rejected = scored(micro, micro->n_pairs + pair);

    return chosen < rejected ? chosen : rejected;
}

static double side_sum(const struct micro_batch *micro, const struct ha_json *rows, int64_t row,
                       double ld_alpha)
{
    return sum_of(rows, row, 0) +
           (ld_alpha - 1) * sum_of(rows, row, shared(micro, row % micro->n_pairs));
}

static struct ha_dpo_pair_logps golden_pair(const struct micro_batch *micro,
                                            const struct ha_dpo_loss_settings *settings,
                                            int64_t chosen, int64_t rejected)
{
    return (struct ha_dpo_pair_logps){
        .chosen = side_sum(micro, micro->policy, chosen, settings->ld_alpha),
        .rejected = side_sum(micro, micro->policy, rejected, settings->ld_alpha),
        .ref_chosen = side_sum(micro, micro->reference, chosen, settings->ld_alpha),
        .ref_rejected = side_sum(micro, micro->reference, rejected, settings->ld_alpha),
        .plain_chosen = sum_of(micro->policy, chosen, 0),
        .plain_rejected = sum_of(micro->policy, rejected, 0),
        .chosen_log_square = sum_of(micro->log_square, chosen, 0),
        .rejected_log_square = sum_of(micro->log_square, rejected, 0),
        .n_chosen = scored(micro, chosen),
        .n_rejected = scored(micro, rejected),
        .chosen_tokens = ha_json_int(ha_json_at(micro->completion_tokens, chosen), -1),
        .rejected_tokens = ha_json_int(ha_json_at(micro->completion_tokens, rejected), -1),
    };
}

/* The largest difference of one row's coefficients, in units of what is allowed. */
static double row_gap(const struct micro_batch *micro, const struct ha_dpo_loss_settings *settings,
                      const struct ha_json *wanted, int64_t row, double slope, double plain_slope,
                      double limit)
{
    const struct ha_json *values = ha_json_at(wanted, row);
    double worst = 0;

    assert_int_equal(ha_json_size(values), scored(micro, row));
    for (int64_t i = 0; i < ha_json_size(values); i++) {
        double theirs = ha_json_real(ha_json_at(values, i), NAN);
        double ours =
            ha_dpo_row_slope(settings, slope, plain_slope, i, shared(micro, row % micro->n_pairs)) /
            (double)micro->n_pairs;

        worst = fmax(worst, fabs(ours - theirs) / (limit * fmax(1, fabs(theirs))));
    }
    return worst;
}

enum fault { NO_FAULT, LARGER_BETA, SWAPPED_SIDES, SWAPPED_SIGN };

/* How far a case is from TRL, in units of what is allowed. */
static double case_distance(const struct micro_batch *micro, const struct ha_json *entry,
                            double beta, enum fault fault)
{
    const struct ha_json *wanted = ha_json_get(entry, "coefficients");
    bool narrow = strcmp(ha_json_string(ha_json_get(entry, "precision"), ""), "fp32") == 0;
    /* Nine digits are kept, and exo_pair's logarithms are fp32 throughout. */
    double limit = narrow ? 2e-6 : 1e-7, loss = ha_json_real(ha_json_get(entry, "loss"), NAN);
    struct ha_dpo_pair_logps *pairs = ha_calloc(micro->n_pairs, sizeof(*pairs));
    struct ha_dpo_pair_loss *losses = ha_calloc(micro->n_pairs, sizeof(*losses));
    struct ha_dpo_micro_totals totals = {.n_pairs = micro->n_pairs};
    struct ha_dpo_loss_settings settings;
    double mean = 0, worst = 0, sign = fault == SWAPPED_SIGN ? -1 : 1;

    assert_true(pairs && losses);
    read_loss_settings(ha_json_get(entry, "settings"), fault == LARGER_BETA ? 1.01 * beta : beta,
                       &settings);
    for (int64_t i = 0; i < micro->n_pairs; i++) {
        int64_t other = micro->n_pairs + i;

        pairs[i] = fault == SWAPPED_SIDES ? golden_pair(micro, &settings, other, i)
                                          : golden_pair(micro, &settings, i, other);
        totals.n_chosen += pairs[i].n_chosen;
    }
    assert_ok(ha_dpo_loss(&settings, &totals, pairs, micro->n_pairs, losses, &err));
    for (int64_t i = 0; i < micro->n_pairs; i++) {
        mean += losses[i].value / (double)micro->n_pairs;
        worst = fmax(worst, row_gap(micro, &settings, wanted, i, sign * losses[i].dchosen,
                                    sign * losses[i].dplain_chosen, limit));
        worst = fmax(worst, row_gap(micro, &settings, wanted, micro->n_pairs + i,
                                    sign * losses[i].drejected, 0, limit));
    }
    free(pairs);
    free(losses);
    return fmax(worst, fabs(mean - loss) / (limit * fmax(1, fabs(loss))));
}

static void trl_agrees(void **state)
{
    struct ha_json *json = golden_json(".", "losses.json");
    const struct ha_json *inputs = ha_json_get(json, "inputs"), *cases = ha_json_get(json, "cases");
    struct micro_batch micro = {.n_pairs = ha_json_int(ha_json_get(json, "pairs"), -1),
                                .completion_tokens = ha_json_get(inputs, "completion_tokens"),
                                .policy = ha_json_get(inputs, "policy"),
                                .reference = ha_json_get(inputs, "reference"),
                                .log_square = ha_json_get(inputs, "log_square")};
    double beta = ha_json_real(ha_json_get(json, "beta"), NAN), nearest = 0;

    (void)state;
    assert_true(ha_json_size(cases) > N_LOSSES);
    for (int64_t i = 0; i < ha_json_size(cases); i++) {
        const struct ha_json *entry = ha_json_at(cases, i);
        const struct ha_json *settings = ha_json_get(entry, "settings");
        const struct ha_json *kinds = ha_json_get(settings, "loss_type");
        bool sft = ha_json_size(kinds) == 1 &&
                   strcmp(ha_json_string(ha_json_at(kinds, 0), ""), "sft") == 0;
        double distance = case_distance(&micro, entry, beta, NO_FAULT);

        if (!(distance <= 1))
            fail_msg("%s: %.3g times the limit", describe_loss(settings), distance);
        nearest = fmax(nearest, distance);
        /* sft knows no beta. */
        for (int fault = LARGER_BETA; fault <= SWAPPED_SIGN; fault++)
            if (!(sft && fault == LARGER_BETA) &&
                !(case_distance(&micro, entry, beta, (enum fault)fault) > 1))
                fail_msg("%s: fault %d is not caught", describe_loss(settings), fault);
    }
    print_message("  %d cases, nearest to its limit: %.2g of it\n", (int)ha_json_size(cases),
                  nearest);
    ha_json_destroy(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(sigmoid_values),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(slopes_match_differences),
        cmocka_unit_test(parts_are_the_whole),
        cmocka_unit_test(no_overflow),
        cmocka_unit_test(trl_agrees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
