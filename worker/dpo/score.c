#include "worker/dpo/score.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/count.h"
#include "worker/dpo/work.h"

/* The state of an evaluation of all active cells. */
struct evaluation {
    struct ha_dpo_trainer *trainer;
    struct ha_dpo_pair_result *results; /* (n_cells, pairs); NULL: only the references are made */
    struct ha_dpo_meter meter;
    struct ha_dpo_progress progress;
};

static struct ha_dpo_pair_result *results_of(const struct evaluation *evaluation, int64_t cell)
{
    return evaluation->results + cell * evaluation->trainer->eval.batch.n_pairs;
}

static int evaluate_cell(struct evaluation *evaluation, int64_t cell_index, int64_t first,
                         const struct ha_pack *pack, struct ha_error *err)
{
    struct ha_dpo_trainer *trainer = evaluation->trainer;
    const struct ha_dpo_cell_work *cell = &trainer->cells[cell_index];
    struct ha_pass_rows rows;
    int r = ha_dpo_cell_forward(trainer, cell, pack, NULL, false, &rows, err);

    for (int64_t i = 0; r == 0 && i < pack->n_pairs; i++)
        ha_dpo_take_pair(&rows, pack, i, &cell->settings.loss, &trainer->eval, first + i,
                         trainer->eval_reference, &results_of(evaluation, cell_index)[first + i]);
    evaluation->progress.tokens += pack->n_tokens;
    return r;
}

static int evaluate_pack(struct evaluation *evaluation, int64_t first, const struct ha_pack *pack,
                         struct ha_error *err)
{
    struct ha_dpo_trainer *trainer = evaluation->trainer;
    int r = ha_dpo_share_pack(trainer, &trainer->eval, first, pack, trainer->eval_reference, false,
                              err);

    for (int64_t i = 0; r == 0 && evaluation->results && i < trainer->n_cells; i++) {
        if (trainer->cells[i].takes_part)
            r = evaluate_cell(evaluation, i, first, pack, err);
    }
    return r;
}

/* Of the pairs at positions [first, end). */
static int evaluate_packs(struct evaluation *evaluation, int64_t first, int64_t end,
                          struct ha_error *err)
{
    struct ha_dpo_trainer *trainer = evaluation->trainer;
    struct ha_dpo_progress *progress = &evaluation->progress;
    struct ha_dpo_work work;
    int r = 0;

    ha_dpo_report(trainer, progress);
    while (r == 0 && first < end) {
        int64_t count = ha_dpo_packs_fill(&trainer->eval, first, end);
        struct ha_pack *pack = NULL;

        if (ha_dpo_told_to_stop(trainer))
            return ha_error_set(err, EINTR, "stopped");
        r = ha_dpo_packs_make(&trainer->eval, first, count, &pack, err);
        if (r == 0)
            r = evaluate_pack(evaluation, first, pack, err);
        ha_pack_destroy(pack);
        if (r == 0)
            r = ha_dpo_meter_stop(trainer->backend, &evaluation->meter, &work, err);
        if (r < 0)
            break;
        first += count;
        progress->done = progress->pairs = first;
        progress->seconds = work.seconds;
        progress->flops = work.flops;
        ha_dpo_report(trainer, progress);
    }
    return r;
}

/* A rank of a gang has its share of the pairs; then all know what all have found. */
static int evaluate_share(struct evaluation *evaluation, struct ha_error *err)
{
    struct ha_dpo_trainer *trainer = evaluation->trainer;
    struct ha_window window = ha_batch_window(&trainer->eval.batch, 0);
    struct ha_error why = {0};
    struct ha_dpo_exchange exchange = {.packs = &trainer->eval,
                                       .n_pairs = window.n_pairs,
                                       .references = trainer->eval_reference,
                                       .why = &why};
    struct ha_dpo_pair_result **results = ha_calloc(trainer->n_cells, sizeof(*results));
    struct ha_dpo_range own;
    int r;

    if (!results)
        return ha_error_set(err, ENOMEM, "no memory for an evaluation");
    ha_dpo_gang_begin(trainer, window.n_micro);
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        if (evaluation->results)
            results[i] = results_of(evaluation, i);
        else
            trainer->gang->takes_part[i] = false; /* references alone */
    }
    exchange.results = results;
    own = ha_dpo_gang_pairs(trainer->gang, trainer->gang->rank, &trainer->eval, 0, window.n_pairs);
    exchange.result = evaluate_packs(evaluation, own.first, own.end, &why);
    r = ha_dpo_gang_exchange(trainer, &exchange, err);
    free(results);
    evaluation->progress.done = evaluation->progress.pairs = window.n_pairs;
    if (r == 0)
        ha_dpo_report(trainer, &evaluation->progress);
    return r;
}

static int evaluate_all(struct evaluation *evaluation, struct ha_error *err)
{
    struct ha_dpo_trainer *trainer = evaluation->trainer;
    int r = ha_dpo_packs_set_epoch(&trainer->eval, 0, err);

    if (r < 0)
        return r;
    return trainer->gang ? evaluate_share(evaluation, err)
                         : evaluate_packs(evaluation, 0, trainer->eval.batch.n_pairs, err);
}

static int report_cell(struct evaluation *evaluation, int64_t cell_index, struct ha_error *err)
{
    struct ha_dpo_trainer *trainer = evaluation->trainer;
    const struct ha_dpo_loss_settings *loss = &trainer->cells[cell_index].settings.loss;
    struct ha_dpo_pair_result *results = results_of(evaluation, cell_index);
    struct ha_window window = ha_batch_window(&trainer->eval.batch, 0);
    struct ha_dpo_metric list[HA_DPO_MAX_METRICS];
    struct ha_dpo_metrics metrics = {0};
    int64_t n;

    for (int64_t i = 0; i < window.n_micro; i++) {
        struct ha_micro micro = ha_batch_micro(&trainer->eval.batch, 0, i);
        int r = ha_dpo_micro_loss(trainer, loss, &trainer->eval, &micro, micro.first,
                                  micro.first + micro.n_pairs, results + micro.first, err);

        if (r < 0)
            return r;
        ha_dpo_metrics_add(&metrics, results + micro.first, micro.n_pairs, loss->beta);
    }
    n = ha_dpo_metrics_list(&metrics, true, list);
    trainer->callbacks.metrics(trainer->callbacks.user, cell_index, trainer->step, list, n);
    return 0;
}

static struct evaluation begin(struct ha_dpo_trainer *trainer)
{
    for (int64_t i = 0; i < trainer->n_cells; i++)
        trainer->cells[i].takes_part = ha_dpo_cell_active(trainer, &trainer->cells[i]);
    return (struct evaluation){
        .trainer = trainer,
        .meter = ha_dpo_meter_start(trainer->backend),
        .progress = {.phase = HA_DPO_EVALUATE, .total = trainer->eval.batch.n_pairs}};
}

int ha_dpo_make_eval_references(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    struct evaluation evaluation;

    if (ha_dpo_trainer_has_references(trainer) || !ha_dpo_any_cell(trainer))
        return 0;
    evaluation = begin(trainer);
    return evaluate_all(&evaluation, err);
}

int ha_dpo_evaluate(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    struct evaluation evaluation;
    int r;

    if (!trainer->eval.pairs || !trainer->callbacks.metrics || !ha_dpo_any_cell(trainer))
        return 0;
    evaluation = begin(trainer);
    evaluation.results =
        ha_calloc(trainer->n_cells * trainer->eval.batch.n_pairs, sizeof(*evaluation.results));
    if (!evaluation.results)
        return ha_error_set(err, ENOMEM, "no memory for an evaluation");
    r = evaluate_all(&evaluation, err);
    for (int64_t i = 0; r == 0 && i < trainer->n_cells; i++) {
        if (trainer->cells[i].takes_part)
            r = report_cell(&evaluation, i, err);
    }
    free(evaluation.results);
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
