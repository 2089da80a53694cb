#include "worker/dpo/metrics.h"

#include <string.h>

/* Over the rows of one side from the `from`-th on. */
static double sum_from(const float *values, const struct ha_pack_rows *rows, int64_t from)
{
    double total = 0;

    for (int64_t i = rows->begin + from; i < rows->begin + rows->count; i++)
        total += (double)values[i];
    return total;
}

static double sum(const float *values, const struct ha_pack_rows *rows)
{
    return sum_from(values, rows, 0);
}

/* Sum of log sum p^2 = logsumexp(2 z) - 2 logsumexp(z). */
static double log_square_sum(const struct ha_pass_rows *rows, const struct ha_pack_rows *side)
{
    return rows->logsumexp ? sum(rows->logsumexp2, side) - 2 * sum(rows->logsumexp, side) : 0;
}

void ha_dpo_pair_result(const struct ha_pass_rows *rows, const struct ha_pack *pack, int64_t pair,
                        struct ha_dpo_pair_result *ret_result)
{
    const struct ha_pack_rows *chosen = &pack->chosen[pair], *rejected = &pack->rejected[pair];
    int64_t shared = chosen->count < rejected->count ? chosen->count : rejected->count;
    double chosen_sum = sum(rows->logp, chosen), rejected_sum = sum(rows->logp, rejected);

    *ret_result = (struct ha_dpo_pair_result){
        .logps = {.chosen = chosen_sum,
                  .rejected = rejected_sum,
                  .plain_chosen = chosen_sum,
                  .plain_rejected = rejected_sum,
                  .chosen_log_square = log_square_sum(rows, chosen),
                  .rejected_log_square = log_square_sum(rows, rejected),
                  .n_chosen = chosen->count,
                  .n_rejected = rejected->count,
                  .chosen_tokens = chosen->count,
                  .rejected_tokens = rejected->count},
        .chosen_tail = sum_from(rows->logp, chosen, shared),
        .rejected_tail = sum_from(rows->logp, rejected, shared),
        .chosen_logits = sum(rows->mean_logit, chosen),
        .rejected_logits = sum(rows->mean_logit, rejected),
        .entropy = sum(rows->entropy, chosen) + sum(rows->entropy, rejected),
    };
    for (int64_t i = chosen->begin; i < chosen->begin + chosen->count; i++)
        ret_result->hits += rows->argmax[i] == pack->row_target[i];
}

static double ratio(double sum, double count)
{
    return count > 0 ? sum / count : 0;
}

void ha_dpo_metrics_add(struct ha_dpo_metrics *metrics, const struct ha_dpo_pair_result *pairs,
                        int64_t n, double beta)
{
    struct ha_dpo_metrics micro = {0};
    double n_chosen = 0, n_rejected = 0, n_pairs = (double)n;

    for (int64_t i = 0; i < n; i++) {
        const struct ha_dpo_pair_logps *logps = &pairs[i].logps;
        double chosen = beta * (logps->chosen - logps->ref_chosen);
        double rejected = beta * (logps->rejected - logps->ref_rejected);

        micro.loss += pairs[i].loss.value;
        micro.chosen_reward += chosen;
        micro.rejected_reward += rejected;
        micro.margin += chosen - rejected;
        micro.accuracy += chosen > rejected;
        micro.chosen_logp += logps->chosen;
        micro.rejected_logp += logps->rejected;
        micro.chosen_logits += pairs[i].chosen_logits;
        micro.rejected_logits += pairs[i].rejected_logits;
        micro.entropy += pairs[i].entropy;
        micro.token_accuracy += (double)pairs[i].hits;
        n_chosen += (double)logps->n_chosen;
        n_rejected += (double)logps->n_rejected;
    }
    metrics->n_micro++;
    metrics->n_pairs += n;
    metrics->pair_loss += micro.loss;
    metrics->loss += micro.loss / n_pairs;
    metrics->chosen_reward += micro.chosen_reward / n_pairs;
    metrics->rejected_reward += micro.rejected_reward / n_pairs;
    metrics->margin += micro.margin / n_pairs;
    metrics->accuracy += micro.accuracy / n_pairs;
    metrics->chosen_logp += micro.chosen_logp / n_pairs;
    metrics->rejected_logp += micro.rejected_logp / n_pairs;
    metrics->chosen_logits += ratio(micro.chosen_logits, n_chosen);
    metrics->rejected_logits += ratio(micro.rejected_logits, n_rejected);
    metrics->entropy += ratio(micro.entropy, n_chosen + n_rejected);
    metrics->token_accuracy += ratio(micro.token_accuracy, n_chosen);
}

int64_t ha_dpo_metrics_list(const struct ha_dpo_metrics *metrics, bool evaluation,
                            struct ha_dpo_metric list[HA_DPO_MAX_METRICS])
{
    const struct {
        const char *eval_name;
        double sum;
    } entries[] = {
        {"eval_loss", metrics->loss},
        {"eval_rewards/chosen", metrics->chosen_reward},
        {"eval_rewards/rejected", metrics->rejected_reward},
        {"eval_rewards/margins", metrics->margin},
        {"eval_rewards/accuracies", metrics->accuracy},
        {"eval_logps/chosen", metrics->chosen_logp},
        {"eval_logps/rejected", metrics->rejected_logp},
        {"eval_logits/chosen", metrics->chosen_logits},
        {"eval_logits/rejected", metrics->rejected_logits},
        {"eval_entropy", metrics->entropy},
        {"eval_mean_token_accuracy", metrics->token_accuracy},
    };
    int64_t n = (int64_t)(sizeof(entries) / sizeof(entries[0]));

    for (int64_t i = 0; i < n; i++)
        list[i] = (struct ha_dpo_metric){entries[i].eval_name + (evaluation ? 0 : strlen("eval_")),
                                         ratio(entries[i].sum, (double)metrics->n_micro)};
    if (evaluation)
        list[0].value = ratio(metrics->pair_loss, (double)metrics->n_pairs);
    return n;
}
