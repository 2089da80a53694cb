/* The losses of logical micro-batches, from what their packs gave. */
#include "worker/dpo/work.h"

void ha_dpo_take_pair(const struct ha_pass_rows *rows, const struct ha_pack *pack, int64_t i,
                      const struct ha_dpo_loss_settings *settings, const struct ha_dpo_packs *packs,
                      int64_t position, const struct ha_dpo_reference *references,
                      struct ha_dpo_pair_result *ret_result)
{
    const struct ha_pack_pair *pair = &packs->pairs[packs->order[position]];
    const struct ha_dpo_reference *reference = &references[packs->order[position]];
    double behind = settings->ld_alpha - 1.0;
    struct ha_dpo_pair_logps *logps = &ret_result->logps;

    ha_dpo_pair_result(rows, pack, i, ret_result);
    logps->chosen = logps->plain_chosen + behind * ret_result->chosen_tail;
    logps->rejected = logps->plain_rejected + behind * ret_result->rejected_tail;
    logps->ref_chosen = reference->chosen + behind * reference->chosen_tail;
    logps->ref_rejected = reference->rejected + behind * reference->rejected_tail;
    logps->chosen_tokens = pair->n_chosen;
    logps->rejected_tokens = pair->n_rejected;
}

/* Chosen tokens that have a row: an empty prompt predicts no first token. */
static int64_t scored_chosen(const struct ha_pack_pair *pair)
{
    return pair->n_prompt == 0 && pair->n_chosen > 0 ? pair->n_chosen - 1 : pair->n_chosen;
}

int ha_dpo_micro_loss(struct ha_dpo_trainer *trainer, const struct ha_dpo_loss_settings *settings,
                      const struct ha_dpo_packs *packs, const struct ha_micro *micro, int64_t first,
                      int64_t end, struct ha_dpo_pair_result *results, struct ha_error *err)
{
    struct ha_dpo_micro_totals totals = {.n_pairs = micro->n_pairs};
    int64_t n = end - first;
    int r;

    for (int64_t i = micro->first; i < micro->first + micro->n_pairs; i++)
        totals.n_chosen += scored_chosen(&packs->pairs[packs->order[i]]);
    for (int64_t i = 0; i < n; i++)
        trainer->micro_logps[i] = results[i].logps;
    r = ha_dpo_loss(settings, &totals, trainer->micro_logps, n, trainer->micro_losses, err);
    for (int64_t i = 0; r == 0 && i < n; i++)
        results[i].loss = trainer->micro_losses[i];
    return r;
}

static void side_coefficients(const struct ha_dpo_loss_settings *settings, double weight,
                              double slope, double plain_slope, const struct ha_pack_rows *rows,
                              int64_t shared, float *coefficient)
{
    for (int64_t i = 0; i < rows->count; i++)
        coefficient[rows->begin + i] =
            (float)(weight * ha_dpo_row_slope(settings, slope, plain_slope, i, shared));
}

void ha_dpo_pair_coefficients(const struct ha_dpo_loss_settings *settings,
                              const struct ha_dpo_pair_loss *loss, double weight,
                              const struct ha_pack *pack, int64_t i, float *coefficient)
{
    const struct ha_pack_rows *chosen = &pack->chosen[i], *rejected = &pack->rejected[i];
    int64_t shared = chosen->count < rejected->count ? chosen->count : rejected->count;

    side_coefficients(settings, weight, loss->dchosen, loss->dplain_chosen, chosen, shared,
                      coefficient);
    side_coefficients(settings, weight, loss->drejected, 0, rejected, shared, coefficient);
}
