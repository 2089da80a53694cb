/* loss.h - the DPO losses, as pure functions over summed log-probabilities
 *
 * A loss is evaluated over one logical micro-batch (TRL's unit for means and
 * sorts) and gives each pair's value and its derivatives by the policy's sums.
 * Formulas as TRL 1.9 has them (numerics, section 1.6).  With
 *
 *     c = chosen - ref_chosen, r = rejected - ref_rejected      log-ratios
 *     s(x) = x, -exp(-x), log sigmoid(x), exp((a-1) x) / (a-1)  by f_divergence
 *     D = s(c) - s(r), n = tokens of a completion, e = label_smoothing
 *
 *     sigmoid       -log sigmoid(beta D)
 *     robust        [-(1-e) log sigmoid(beta D) + e log sigmoid(-beta D)] / (1-2e)
 *     hinge         max(0, 1 - beta D)
 *     ipo           (s(c)/n_c - s(r)/n_r - 1/(2 beta))^2
 *     exo_pair      q (log q - log(1-e)) + p (log p - log e), q = sigmoid(beta D), p = 1 - q
 *     nca_pair      -log sigmoid(beta s(c)) - [log sigmoid(-beta s(c)) + log sigmoid(-beta s(r))]/2
 *     bco_pair      -log sigmoid(beta s(c)) - log sigmoid(-beta s(r))
 *     apo_zero      1 - sigmoid(beta c) + sigmoid(beta r)
 *     apo_down      sigmoid(beta c) + 1 - sigmoid(beta D)
 *     sppo_hard     (s(c) - 1/(2 beta))^2 + (s(r) + 1/(2 beta))^2
 *     discopop      -log sigmoid(x) (1-m) + exp(-x) m, x = beta D, m = sigmoid(x / discopop_tau)
 *     sigmoid_norm  -log sigmoid(beta (s(c)/n_c - s(r)/n_r))
 *     aot           -(1-e) log sigmoid(beta d) - e log sigmoid(-beta d), d = the k-th smallest
 *                   chosen - rejected less the k-th smallest ref_chosen - ref_rejected
 *     aot_unpaired  the same with d = the k-th smallest c less the k-th smallest r
 *     sft           mean of -log p over all chosen tokens of the micro-batch
 *
 * A micro-batch's loss is the sum over the terms of weight * mean over pairs.
 * label_smoothing acts on robust, exo_pair and both aot only, as in TRL.
 *
 * ld_alpha: chosen and rejected (of policy and reference) are the sum over the
 * first min(n_c, n_r) tokens plus ld_alpha times the sum over the rest.
 *
 * use_weighting (WPO): a pair's loss is multiplied by exp(mean over the chosen
 * tokens of a + mean over the rejected ones of a), a = log p - log of the sum
 * over the vocabulary of p^2.  The weight is a constant to the gradient.
 *
 * All arithmetic is double. */
#ifndef HA_WORKER_DPO_LOSS_H
#define HA_WORKER_DPO_LOSS_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;

enum ha_dpo_loss_kind {
    HA_DPO_SIGMOID,
    HA_DPO_ROBUST,
    HA_DPO_HINGE,
    HA_DPO_IPO,
    HA_DPO_EXO_PAIR,
    HA_DPO_NCA_PAIR,
    HA_DPO_BCO_PAIR,
    HA_DPO_APO_ZERO,
    HA_DPO_APO_DOWN,
    HA_DPO_SPPO_HARD,
    HA_DPO_DISCOPOP,
    HA_DPO_SIGMOID_NORM,
    HA_DPO_AOT,
    HA_DPO_AOT_UNPAIRED,
    HA_DPO_SFT
};

enum ha_dpo_divergence {
    HA_DPO_REVERSE_KL,
    HA_DPO_FORWARD_KL,
    HA_DPO_JS_DIVERGENCE,
    HA_DPO_ALPHA_DIVERGENCE
};

struct ha_dpo_loss_term {
    enum ha_dpo_loss_kind kind;
    double weight;
};

enum { HA_DPO_MAX_TERMS = 16 };

struct ha_dpo_loss_settings {
    struct ha_dpo_loss_term terms[HA_DPO_MAX_TERMS];
    int64_t n_terms;
    double beta; /* > 0 */
    double label_smoothing;
    enum ha_dpo_divergence divergence;
    double f_alpha;      /* of alpha_divergence; within 1e-6 of 1: reverse_kl */
    double discopop_tau; /* > 0 */
    double ld_alpha;     /* 0 to 1; 1: off */
    bool use_weighting;
};

/* One sigmoid of weight 1, beta 0.1, and TRL's values for the rest. */
void ha_dpo_loss_defaults(struct ha_dpo_loss_settings *settings);

/* A name of TRL's -> kind.  Returns 0, or -EINVAL with a text. */
int ha_dpo_loss_parse(const char *name, enum ha_dpo_loss_kind *ret_kind, struct ha_error *err);
int ha_dpo_divergence_parse(const char *name, enum ha_dpo_divergence *ret_divergence,
                            struct ha_error *err);
const char *ha_dpo_loss_name(enum ha_dpo_loss_kind kind);

/* -EINVAL for numbers out of range, exo_pair without label_smoothing, and
 * use_weighting with a loss that has no value of its own for each pair (aot,
 * aot_unpaired, sft), where TRL stops as well. */
int ha_dpo_loss_check(const struct ha_dpo_loss_settings *settings, struct ha_error *err);

/* True when a pair's slopes need the sums of its whole micro-batch (aot). */
bool ha_dpo_loss_sorts(const struct ha_dpo_loss_settings *settings);

/* One pair.  "Scored" tokens have a log-prob: all but the first of a completion
 * to an empty prompt. */
struct ha_dpo_pair_logps {
    double chosen, rejected;                       /* as ld_alpha weighs them */
    double ref_chosen, ref_rejected;               /* the same of the reference */
    double plain_chosen, plain_rejected;           /* the policy's sums without ld_alpha */
    double chosen_log_square, rejected_log_square; /* use_weighting: sum of log sum p^2 */
    int64_t n_chosen, n_rejected;                  /* scored tokens */
    int64_t chosen_tokens, rejected_tokens;        /* tokens of the completion */
};

struct ha_dpo_pair_loss {
    double value;
    double dchosen, drejected; /* by chosen and rejected */
    double dplain_chosen;      /* by plain_chosen, beside that */
};

/* The whole of a logical micro-batch. */
struct ha_dpo_micro_totals {
    int64_t n_pairs;
    int64_t n_chosen; /* scored chosen tokens of all its pairs */
};

/* losses[i] (= ) of n of a micro-batch's pairs, so that its loss and gradient
 * are the means over all its pairs.  n must be all of them if ha_dpo_loss_sorts.
 * (A sorting loss shares its values out by rank: only their mean means
 * anything.)  0, or -ENOMEM from a sorting loss. */
int ha_dpo_loss(const struct ha_dpo_loss_settings *settings,
                const struct ha_dpo_micro_totals *micro, const struct ha_dpo_pair_logps *pairs,
                int64_t n, struct ha_dpo_pair_loss *losses, struct ha_error *err);

/* d loss / d log p of one side's token: row of `shared` = min(n_chosen,
 * n_rejected) tokens or of those behind them. */
double ha_dpo_row_slope(const struct ha_dpo_loss_settings *settings, double slope,
                        double plain_slope, int64_t row, int64_t shared);

#endif
