#include "worker/dpo/loss.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"

#define COUNT(array) ((int64_t)(sizeof(array) / sizeof((array)[0])))

/* TRL's bound of alpha_divergence's exponent, so that exp stays finite in fp32. */
#define EXPONENT_LIMIT 80.0

/* log sigmoid(x) without overflow on either side. */
static double log_sigmoid(double x)
{
    return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}

static double sigmoid(double x)
{
    return x < 0 ? exp(x) / (1.0 + exp(x)) : 1.0 / (1.0 + exp(-x));
}

/* ---- scores ---- */

/* s(x) and s'(x) of the divergence. */
struct score {
    double value, slope;
};

static struct score score_of(const struct ha_dpo_loss_settings *settings, double x)
{
    double power = settings->f_alpha - 1.0, exponent = power * x;

    switch (settings->divergence) {
    case HA_DPO_FORWARD_KL:
        return (struct score){-exp(-x), exp(-x)};
    case HA_DPO_JS_DIVERGENCE:
        return (struct score){log_sigmoid(x), sigmoid(-x)};
    case HA_DPO_ALPHA_DIVERGENCE:
        if (fabs(power) < 1e-6)
            break;
        if (exponent > EXPONENT_LIMIT)
            return (struct score){exp(EXPONENT_LIMIT) / power, 0};
        return (struct score){exp(exponent) / power, exp(exponent)};
    case HA_DPO_REVERSE_KL:
        break;
    }
    return (struct score){x, 1};
}

/* ---- losses of a pair ---- */

/* What a loss sees of a pair, and what it gives back: slopes by the scores and,
 * beside that, by the log-ratios themselves. */
struct point {
    double chosen, rejected;             /* log-ratios */
    double chosen_score, rejected_score; /* s of them */
    double n_chosen, n_rejected;         /* tokens, at least 1 */
};

struct slopes {
    double value;
    double chosen_score, rejected_score;
    double chosen, rejected;
};

/* value as a function of x = beta (s(c) - s(r)), and its slope by x. */
static struct slopes of_margin(const struct ha_dpo_loss_settings *settings, double value,
                               double slope)
{
    return (struct slopes){.value = value,
                           .chosen_score = settings->beta * slope,
                           .rejected_score = -(settings->beta * slope)};
}

static double margin(const struct ha_dpo_loss_settings *settings, const struct point *p)
{
    return settings->beta * (p->chosen_score - p->rejected_score);
}

static struct slopes sigmoid_loss(const struct ha_dpo_loss_settings *settings,
                                  const struct point *p)
{
    double x = margin(settings, p);

    return of_margin(settings, -log_sigmoid(x), -sigmoid(-x));
}

static struct slopes robust_loss(const struct ha_dpo_loss_settings *settings, const struct point *p)
{
    double x = margin(settings, p), e = settings->label_smoothing, scale = 1.0 - 2.0 * e;

    return of_margin(settings, (-(1.0 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / scale,
                     (-(1.0 - e) * sigmoid(-x) - e * sigmoid(x)) / scale);
}

static struct slopes hinge_loss(const struct ha_dpo_loss_settings *settings, const struct point *p)
{
    double room = 1.0 - margin(settings, p);

    /* Not a number must stay one. */
    return of_margin(settings, room <= 0 ? 0 : room, room <= 0 ? 0 : -1);
}

static struct slopes ipo_loss(const struct ha_dpo_loss_settings *settings, const struct point *p)
{
    double gap = p->chosen_score / p->n_chosen - p->rejected_score / p->n_rejected -
                 1.0 / (2.0 * settings->beta);

    return (struct slopes){.value = gap * gap,
                           .chosen_score = 2.0 * gap / p->n_chosen,
                           .rejected_score = -2.0 * gap / p->n_rejected};
}

static struct slopes exo_pair_loss(const struct ha_dpo_loss_settings *settings,
                                   const struct point *p)
{
    double x = margin(settings, p), e = settings->label_smoothing;
    double log_won = log1p(-e), log_lost = log(e);

    return of_margin(settings,
                     sigmoid(x) * (log_sigmoid(x) - log_won) +
                         sigmoid(-x) * (log_sigmoid(-x) - log_lost),
                     sigmoid(x) * sigmoid(-x) * (x - log_won + log_lost));
}

static struct slopes nca_pair_loss(const struct ha_dpo_loss_settings *settings,
                                   const struct point *p)
{
    double c = settings->beta * p->chosen_score, r = settings->beta * p->rejected_score;

    return (struct slopes){.value = -log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r),
                           .chosen_score = settings->beta * (0.5 * sigmoid(c) - sigmoid(-c)),
                           .rejected_score = settings->beta * 0.5 * sigmoid(r)};
}

static struct slopes bco_pair_loss(const struct ha_dpo_loss_settings *settings,
                                   const struct point *p)
{
    double c = settings->beta * p->chosen_score, r = settings->beta * p->rejected_score;

    return (struct slopes){.value = -log_sigmoid(c) - log_sigmoid(-r),
                           .chosen_score = -settings->beta * sigmoid(-c),
                           .rejected_score = settings->beta * sigmoid(r)};
}

static struct slopes apo_zero_loss(const struct ha_dpo_loss_settings *settings,
                                   const struct point *p)
{
    double c = settings->beta * p->chosen, r = settings->beta * p->rejected;

    return (struct slopes){.value = sigmoid(-c) + sigmoid(r),
                           .chosen = -settings->beta * sigmoid(c) * sigmoid(-c),
                           .rejected = settings->beta * sigmoid(r) * sigmoid(-r)};
}

static struct slopes apo_down_loss(const struct ha_dpo_loss_settings *settings,
                                   const struct point *p)
{
    double c = settings->beta * p->chosen, x = margin(settings, p);
    struct slopes slopes = of_margin(settings, sigmoid(c) + sigmoid(-x), -sigmoid(x) * sigmoid(-x));

    slopes.chosen = settings->beta * sigmoid(c) * sigmoid(-c);
    return slopes;
}

static struct slopes sppo_hard_loss(const struct ha_dpo_loss_settings *settings,
                                    const struct point *p)
{
    double won = p->chosen_score - 0.5 / settings->beta;
    double lost = p->rejected_score + 0.5 / settings->beta;

    return (struct slopes){
        .value = won * won + lost * lost, .chosen_score = 2.0 * won, .rejected_score = 2.0 * lost};
}

static struct slopes discopop_loss(const struct ha_dpo_loss_settings *settings,
                                   const struct point *p)
{
    double x = margin(settings, p), tau = settings->discopop_tau;
    double logistic = sigmoid(-x / tau), mixed = sigmoid(x / tau);
    /* exp(-x) alone overflows where its share is 0. */
    double exponential = exp(-x + log_sigmoid(x / tau));

    return of_margin(settings, -log_sigmoid(x) * logistic + exponential,
                     -sigmoid(-x) * logistic + log_sigmoid(x) * mixed * logistic / tau -
                         exponential + exponential * logistic / tau);
}

static struct slopes sigmoid_norm_loss(const struct ha_dpo_loss_settings *settings,
                                       const struct point *p)
{
    double x = settings->beta * (p->chosen_score / p->n_chosen - p->rejected_score / p->n_rejected);
    double slope = settings->beta * -sigmoid(-x);

    return (struct slopes){.value = -log_sigmoid(x),
                           .chosen_score = slope / p->n_chosen,
                           .rejected_score = -slope / p->n_rejected};
}

/* ---- the table ---- */

static const struct {
    const char *name;
    /* NULL: not of one pair's sums alone. */
    struct slopes (*of_pair)(const struct ha_dpo_loss_settings *settings, const struct point *p);
} table[] = {
    [HA_DPO_SIGMOID] = {"sigmoid", sigmoid_loss},
    [HA_DPO_ROBUST] = {"robust", robust_loss},
    [HA_DPO_HINGE] = {"hinge", hinge_loss},
    [HA_DPO_IPO] = {"ipo", ipo_loss},
    [HA_DPO_EXO_PAIR] = {"exo_pair", exo_pair_loss},
    [HA_DPO_NCA_PAIR] = {"nca_pair", nca_pair_loss},
    [HA_DPO_BCO_PAIR] = {"bco_pair", bco_pair_loss},
    [HA_DPO_APO_ZERO] = {"apo_zero", apo_zero_loss},
    [HA_DPO_APO_DOWN] = {"apo_down", apo_down_loss},
    [HA_DPO_SPPO_HARD] = {"sppo_hard", sppo_hard_loss},
    [HA_DPO_DISCOPOP] = {"discopop", discopop_loss},
    [HA_DPO_SIGMOID_NORM] = {"sigmoid_norm", sigmoid_norm_loss},
    [HA_DPO_AOT] = {"aot", NULL},
    [HA_DPO_AOT_UNPAIRED] = {"aot_unpaired", NULL},
    [HA_DPO_SFT] = {"sft", NULL},
};

static const char *const divergences[] = {
    [HA_DPO_REVERSE_KL] = "reverse_kl",
    [HA_DPO_FORWARD_KL] = "forward_kl",
    [HA_DPO_JS_DIVERGENCE] = "js_divergence",
    [HA_DPO_ALPHA_DIVERGENCE] = "alpha_divergence",
};

void ha_dpo_loss_defaults(struct ha_dpo_loss_settings *settings)
{
    *settings = (struct ha_dpo_loss_settings){.terms = {{HA_DPO_SIGMOID, 1}},
                                              .n_terms = 1,
                                              .beta = 0.1,
                                              .divergence = HA_DPO_REVERSE_KL,
                                              .f_alpha = 0.5,
                                              .discopop_tau = 0.05,
                                              .ld_alpha = 1};
}

int ha_dpo_loss_parse(const char *name, enum ha_dpo_loss_kind *ret_kind, struct ha_error *err)
{
    for (int64_t i = 0; i < COUNT(table); i++) {
        if (strcmp(name, table[i].name) == 0) {
            *ret_kind = (enum ha_dpo_loss_kind)i;
            return 0;
        }
    }
    return ha_error_set(err, EINVAL, "train.loss: \"%.60s\" is no loss of TRL's", name);
}

int ha_dpo_divergence_parse(const char *name, enum ha_dpo_divergence *ret_divergence,
                            struct ha_error *err)
{
    for (int64_t i = 0; i < COUNT(divergences); i++) {
        if (strcmp(name, divergences[i]) == 0) {
            *ret_divergence = (enum ha_dpo_divergence)i;
            return 0;
        }
    }
    return ha_error_set(err, EINVAL, "train.f_divergence: \"%.60s\" is no divergence of TRL's",
                        name);
}

const char *ha_dpo_loss_name(enum ha_dpo_loss_kind kind)
{
    return table[kind].name;
}

static int check_term(const struct ha_dpo_loss_settings *settings,
                      const struct ha_dpo_loss_term *term, struct ha_error *err)
{
    double e = settings->label_smoothing;

    if (!isfinite(term->weight))
        return ha_error_set(err, EINVAL, "the weight of a loss is not finite");
    if (term->kind == HA_DPO_ROBUST && e >= 0.5)
        return ha_error_set(err, EINVAL, "robust needs a label_smoothing below 0.5");
    if (term->kind == HA_DPO_EXO_PAIR && !(e > 0 && e < 1))
        return ha_error_set(err, EINVAL, "exo_pair needs a label_smoothing between 0 and 1");
    if (settings->use_weighting && !table[term->kind].of_pair)
        return ha_error_set(err, EINVAL, "use_weighting cannot be used with %s",
                            table[term->kind].name);
    return 0;
}

int ha_dpo_loss_check(const struct ha_dpo_loss_settings *settings, struct ha_error *err)
{
    int r = 0;

    if (settings->n_terms < 1 || settings->n_terms > HA_DPO_MAX_TERMS)
        return ha_error_set(err, EINVAL, "a loss has 1 to %d terms", (int)HA_DPO_MAX_TERMS);
    if (!(settings->beta > 0) || !isfinite(settings->beta) ||
        !(settings->label_smoothing >= 0 && settings->label_smoothing <= 1) ||
        !isfinite(settings->f_alpha) || !(settings->discopop_tau > 0) ||
        !(settings->ld_alpha >= 0 && settings->ld_alpha <= 1))
        return ha_error_set(err, EINVAL, "a setting of its loss is out of range");
    for (int64_t i = 0; r == 0 && i < settings->n_terms; i++)
        r = check_term(settings, &settings->terms[i], err);
    return r;
}

bool ha_dpo_loss_sorts(const struct ha_dpo_loss_settings *settings)
{
    for (int64_t i = 0; i < settings->n_terms; i++) {
        if (settings->terms[i].kind == HA_DPO_AOT || settings->terms[i].kind == HA_DPO_AOT_UNPAIRED)
            return true;
    }
    return false;
}

/* ---- losses of a micro-batch ---- */

/* losses += weight times a loss of each pair's own sums. */
static void add_pairs(const struct ha_dpo_loss_settings *settings,
                      const struct ha_dpo_loss_term *term, const struct ha_dpo_pair_logps *pairs,
                      int64_t n, struct ha_dpo_pair_loss *losses)
{
    for (int64_t i = 0; i < n; i++) {
        double c = pairs[i].chosen - pairs[i].ref_chosen;
        double r = pairs[i].rejected - pairs[i].ref_rejected;
        struct score chosen = score_of(settings, c), rejected = score_of(settings, r);
        struct point p = {c,
                          r,
                          chosen.value,
                          rejected.value,
                          fmax(1, (double)pairs[i].chosen_tokens),
                          fmax(1, (double)pairs[i].rejected_tokens)};
        struct slopes slopes = table[term->kind].of_pair(settings, &p);

        losses[i].value += term->weight * slopes.value;
        losses[i].dchosen += term->weight * (slopes.chosen_score * chosen.slope + slopes.chosen);
        losses[i].drejected +=
            term->weight * (slopes.rejected_score * rejected.slope + slopes.rejected);
    }
}

/* A pair's part of the token mean, so that the mean over pairs gives it. */
static void add_sft(const struct ha_dpo_loss_term *term, const struct ha_dpo_micro_totals *micro,
                    const struct ha_dpo_pair_logps *pairs, int64_t n,
                    struct ha_dpo_pair_loss *losses)
{
    double share = micro->n_chosen > 0 ? (double)micro->n_pairs / (double)micro->n_chosen : 0;

    for (int64_t i = 0; i < n; i++) {
        losses[i].value -= term->weight * share * pairs[i].plain_chosen;
        losses[i].dplain_chosen -= term->weight * share;
    }
}

struct ranked {
    double value;
    int64_t pair;
};

/* Ascending, what is not a number last as torch sorts it, ties by pair. */
static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    if (isnan(x->value) != isnan(y->value))
        return isnan(x->value) ? 1 : -1;
    if (x->value < y->value || x->value > y->value)
        return x->value < y->value ? -1 : 1;
    return (x->pair > y->pair) - (x->pair < y->pair);
}

static int add_sorted(const struct ha_dpo_loss_settings *settings,
                      const struct ha_dpo_loss_term *term, const struct ha_dpo_pair_logps *pairs,
                      int64_t n, struct ha_dpo_pair_loss *losses, struct ha_error *err)
{
    bool unpaired = term->kind == HA_DPO_AOT_UNPAIRED;
    struct ranked *high = ha_calloc(n, 2 * sizeof(*high)), *low = high ? high + n : NULL;
    double e = settings->label_smoothing;

    if (!high)
        return ha_error_set(err, ENOMEM, "no memory to sort %lld pairs", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        const struct ha_dpo_pair_logps *p = &pairs[i];

        high[i] =
            (struct ranked){unpaired ? p->chosen - p->ref_chosen : p->chosen - p->rejected, i};
        low[i] = (struct ranked){
            unpaired ? p->rejected - p->ref_rejected : p->ref_chosen - p->ref_rejected, i};
    }
    qsort(high, (size_t)n, sizeof(*high), compare_ranked);
    qsort(low, (size_t)n, sizeof(*low), compare_ranked);
    for (int64_t k = 0; k < n; k++) {
        double x = settings->beta * (high[k].value - low[k].value);
        double slope = term->weight * settings->beta * (e * sigmoid(x) - (1.0 - e) * sigmoid(-x));

        losses[high[k].pair].value -=
            term->weight * ((1.0 - e) * log_sigmoid(x) + e * log_sigmoid(-x));
        losses[high[k].pair].dchosen += slope;
        losses[unpaired ? low[k].pair : high[k].pair].drejected -= slope;
    }
    free(high);
    return 0;
}

/* The weight of WPO, a constant to the gradient. */
static void weigh(const struct ha_dpo_pair_logps *pair, struct ha_dpo_pair_loss *loss)
{
    double n_chosen = fmax(1, (double)pair->n_chosen);
    double n_rejected = fmax(1, (double)pair->n_rejected);
    double weight = exp((pair->plain_chosen - pair->chosen_log_square) / n_chosen) *
                    exp((pair->plain_rejected - pair->rejected_log_square) / n_rejected);

    loss->value *= weight;
    loss->dchosen *= weight;
    loss->drejected *= weight;
}

int ha_dpo_loss(const struct ha_dpo_loss_settings *settings,
                const struct ha_dpo_micro_totals *micro, const struct ha_dpo_pair_logps *pairs,
                int64_t n, struct ha_dpo_pair_loss *losses, struct ha_error *err)
{
    int r = 0;

    memset(losses, 0, (size_t)n * sizeof(*losses));
    for (int64_t i = 0; r == 0 && i < settings->n_terms; i++) {
        const struct ha_dpo_loss_term *term = &settings->terms[i];

        if (term->kind == HA_DPO_SFT)
            add_sft(term, micro, pairs, n, losses);
        else if (table[term->kind].of_pair)
            add_pairs(settings, term, pairs, n, losses);
        else
            r = add_sorted(settings, term, pairs, n, losses, err);
    }
    for (int64_t i = 0; r == 0 && settings->use_weighting && i < n; i++)
        weigh(&pairs[i], &losses[i]);
    return r;
}

double ha_dpo_row_slope(const struct ha_dpo_loss_settings *settings, double slope,
                        double plain_slope, int64_t row, int64_t shared)
{
    return (row < shared ? slope : settings->ld_alpha * slope) + plain_slope;
}
