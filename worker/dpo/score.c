#include "worker/dpo/score.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/work.h"

/* The reference policy's log-prob sums of one pack's pairs. */
static int reference_pack(struct ha_dpo_trainer *trainer, const struct ha_dpo_packs *packs,
                          int64_t first, int64_t count, struct ha_dpo_reference *references,
                          struct ha_dpo_clock *clock, struct ha_error *err)
{
    struct ha_pack *pack = NULL;
    struct ha_pass_rows rows;
    int r = ha_dpo_packs_make(packs, first, count, &pack, err);

    if (r == 0)
        r = ha_pass_forward(trainer->pass, pack, trainer->job.reference, false, &rows, err);
    for (int64_t i = 0; r == 0 && i < count; i++) {
        struct ha_dpo_pair_result result;

        ha_dpo_pair_result(&rows, pack, i, &result);
        references[packs->order[first + i]] = (struct ha_dpo_reference){
            result.logps.chosen, result.logps.rejected, result.chosen_tail, result.rejected_tail};
    }
    if (r == 0)
        clock->tokens += pack->n_tokens;
    ha_pack_destroy(pack);
    return r;
}

/* Over the packs of epoch 0, the ones that the first steps train on. */
static int reference_set(struct ha_dpo_trainer *trainer, struct ha_dpo_packs *packs,
                         struct ha_dpo_reference *references, struct ha_dpo_clock *clock,
                         int64_t done, int64_t total, struct ha_error *err)
{
    int r = ha_dpo_packs_set_epoch(packs, 0, err);

    for (int64_t w = 0; r == 0 && w < ha_batch_windows(&packs->batch); w++) {
        struct ha_window window = ha_batch_window(&packs->batch, w);
        int64_t first = window.first, end = window.first + window.n_pairs;

        while (r == 0 && first < end) {
            int64_t count = ha_dpo_packs_fill(packs, first, end);

            if (ha_dpo_stopped(trainer))
                return ha_error_set(err, EINTR, "stopped");
            r = reference_pack(trainer, packs, first, count, references, clock, err);
            first += count;
            ha_dpo_report(trainer, clock, HA_DPO_REFERENCE, done + first, total);
        }
    }
    return r;
}

int ha_dpo_make_references(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    struct ha_dpo_clock clock = ha_dpo_clock_start(trainer);
    bool train = !trainer->has_train_reference;
    bool eval = trainer->eval.pairs && !trainer->has_eval_reference;
    int64_t n_train = train ? trainer->train.batch.n_pairs : 0;
    int64_t n_eval = eval ? trainer->eval.batch.n_pairs : 0;
    int r = 0;

    if (train)
        r = reference_set(trainer, &trainer->train, trainer->train_reference, &clock, 0,
                          n_train + n_eval, err);
    if (r == 0 && train)
        trainer->has_train_reference = true;
    if (r == 0 && eval)
        r = reference_set(trainer, &trainer->eval, trainer->eval_reference, &clock, n_train,
                          n_train + n_eval, err);
    if (r == 0 && eval)
        trainer->has_eval_reference = true;
    return r;
}

/* ---- evaluation ---- */

static int evaluate_pack(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                         int64_t first, int64_t count, struct ha_dpo_pair_result *results,
                         struct ha_dpo_clock *clock, struct ha_error *err)
{
    const struct ha_dpo_packs *packs = &trainer->eval;
    struct ha_pack *pack = NULL;
    struct ha_pass_rows rows;
    int r = ha_dpo_packs_make(packs, first, count, &pack, err);

    if (r == 0)
        r = ha_pass_forward(trainer->pass, pack, cell->settings.adapter, false, &rows, err);
    for (int64_t i = 0; r == 0 && i < count; i++)
        ha_dpo_take_pair(&rows, pack, i, &cell->settings.loss, packs, first + i,
                         trainer->eval_reference, &results[first + i]);
    if (r == 0)
        clock->tokens += pack->n_tokens;
    ha_pack_destroy(pack);
    return r;
}

static int evaluate_cell(struct ha_dpo_trainer *trainer, int64_t cell_index,
                         struct ha_dpo_pair_result *results, struct ha_dpo_clock *clock,
                         struct ha_error *err)
{
    struct ha_dpo_cell_work *cell = &trainer->cells[cell_index];
    const struct ha_batch *batch = &trainer->eval.batch;
    struct ha_window window = ha_batch_window(batch, 0);
    int64_t n = batch->n_pairs;
    struct ha_dpo_metric list[HA_DPO_MAX_METRICS];
    struct ha_dpo_metrics metrics = {0};
    int64_t first = 0, n_metrics;

    while (first < n) {
        int64_t count = ha_dpo_packs_fill(&trainer->eval, first, n);
        int r;

        if (ha_dpo_stopped(trainer))
            return ha_error_set(err, EINTR, "stopped");
        r = evaluate_pack(trainer, cell, first, count, results, clock, err);
        if (r < 0)
            return r;
        first += count;
        ha_dpo_report(trainer, clock, HA_DPO_EVALUATE, cell_index * n + first,
                      trainer->n_cells * n);
    }
    for (int64_t i = 0; i < window.n_micro; i++) {
        struct ha_micro micro = ha_batch_micro(batch, 0, i);
        int r =
            ha_dpo_micro_loss(trainer, &cell->settings.loss, &trainer->eval, &micro, micro.first,
                              micro.first + micro.n_pairs, results + micro.first, err);

        if (r < 0)
            return r;
        ha_dpo_metrics_add(&metrics, results + micro.first, micro.n_pairs,
                           cell->settings.loss.beta);
    }
    n_metrics = ha_dpo_metrics_list(&metrics, true, list);
    trainer->callbacks.metrics(trainer->callbacks.user, cell_index, trainer->step, list, n_metrics);
    return 0;
}

int ha_dpo_evaluate(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    struct ha_dpo_clock clock = ha_dpo_clock_start(trainer);
    struct ha_dpo_pair_result *results;
    int r;

    if (!trainer->eval.pairs || !trainer->callbacks.metrics)
        return 0;
    results = ha_calloc(trainer->eval.batch.n_pairs, sizeof(*results));
    if (!results)
        return ha_error_set(err, ENOMEM, "no memory for an evaluation");
    r = ha_dpo_packs_set_epoch(&trainer->eval, 0, err);
    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        if (!trainer->cells[i].outcome)
            r = evaluate_cell(trainer, i, results, &clock, err);
    }
    free(results);
    return r;
}

/* ---- scoring ---- */

static int score_pack(struct ha_pass *pass, const struct ha_adapter *adapter,
                      const struct ha_pack *pack, int64_t first, ha_dpo_score_result result,
                      void *user, struct ha_error *err)
{
    struct ha_pass_rows rows;
    int r = ha_pass_forward(pass, pack, adapter, false, &rows, err);

    for (int64_t i = 0; r == 0 && i < pack->n_pairs; i++)
        r = result(user, first + i, rows.logp + pack->chosen[i].begin, pack->chosen[i].count,
                   rows.logp + pack->rejected[i].begin, pack->rejected[i].count, err);
    return r;
}

int ha_dpo_score(struct ha_model *model, const struct ha_adapter *adapter,
                 const struct ha_pair_set *pairs, int64_t tokens_per_microbatch, bool share_prompt,
                 ha_dpo_score_result result, void *user, struct ha_error *err)
{
    struct ha_pass_limits limits = {
        .max_tokens = 1,
        .max_rank = adapter ? ha_adapter_settings(adapter)->rank : 0,
        .lowest_layer = ha_model_config(model)->n_layers,
    };
    struct ha_dpo_packs packs;
    struct ha_pass *pass = NULL;
    struct ha_sha256 hash;
    int64_t first = 0;
    int r = ha_dpo_packs_init(&packs, pairs, 1, pairs->n_pairs, tokens_per_microbatch, share_prompt,
                              err);

    if (r < 0)
        return r;
    ha_sha256_init(&hash);
    r = ha_dpo_packs_survey(&packs, 1, &limits.max_tokens, &limits.max_rows, &hash, err);
    if (r == 0)
        r = ha_pass_create(model, &limits, &pass, err);
    while (r == 0 && first < pairs->n_pairs) {
        int64_t count = ha_dpo_packs_fill(&packs, first, pairs->n_pairs);
        struct ha_pack *pack = NULL;

        r = ha_dpo_packs_make(&packs, first, count, &pack, err);
        if (r == 0)
            r = score_pack(pass, adapter, pack, first, result, user, err);
        ha_pack_destroy(pack);
        first += count;
    }
    ha_pass_destroy(pass);
    ha_dpo_packs_clear(&packs);
    return r;
}
