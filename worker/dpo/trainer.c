#include "worker/dpo/trainer.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/work.h"

void ha_dpo_job_defaults(struct ha_dpo_job *job)
{
    *job = (struct ha_dpo_job){
        .batch_size = 6,
        .gradient_accumulation = 4,
        .epochs = 1,
        .order_seed = 42,
        .tokens_per_microbatch = 4096,
        .share_prompt = true,
    };
}

void ha_dpo_cell_defaults(struct ha_dpo_cell *cell)
{
    *cell = (struct ha_dpo_cell){
        .learning_rate = 1e-5,
        .weight_decay = 0.01,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .max_grad_norm = 1.0,
    };
    ha_dpo_loss_defaults(&cell->loss);
}

bool ha_dpo_told_to_stop(const struct ha_dpo_trainer *trainer)
{
    return trainer->stop && *trainer->stop;
}

bool ha_dpo_stopped(const struct ha_dpo_trainer *trainer)
{
    return trainer->gang ? trainer->gang->stop : ha_dpo_told_to_stop(trainer);
}

int64_t ha_dpo_steps_per_epoch(const struct ha_dpo_trainer *trainer)
{
    return ha_batch_windows(&trainer->train.batch);
}

int64_t ha_dpo_schedule_steps(const struct ha_dpo_trainer *trainer)
{
    return trainer->job.epochs * ha_dpo_steps_per_epoch(trainer);
}

void ha_dpo_end_cell(struct ha_dpo_cell_work *cell, const char *format, ...)
{
    static const char short_of_memory[] = "ended early, and no memory to say why";
    char text[HA_ERROR_TEXT_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    free(cell->outcome);
    cell->outcome = ha_strdup(text);
    if (!cell->outcome)
        cell->outcome = ha_strdup(short_of_memory);
}

bool ha_dpo_any_cell(const struct ha_dpo_trainer *trainer)
{
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        if (!trainer->cells[i].outcome)
            return true;
    }
    return false;
}

bool ha_dpo_cell_active(const struct ha_dpo_trainer *trainer, const struct ha_dpo_cell_work *cell)
{
    return !cell->outcome && cell->stats.steps == trainer->step;
}

void ha_dpo_align(struct ha_dpo_trainer *trainer)
{
    int64_t lowest = INT64_MAX;

    for (int64_t i = 0; i < trainer->n_cells; i++) {
        const struct ha_dpo_cell_work *cell = &trainer->cells[i];

        if (!cell->outcome && cell->stats.steps < lowest)
            lowest = cell->stats.steps;
    }
    if (lowest < INT64_MAX)
        trainer->step = lowest;
}

void ha_dpo_report(const struct ha_dpo_trainer *trainer, const struct ha_dpo_progress *progress)
{
    if (trainer->callbacks.progress)
        trainer->callbacks.progress(trainer->callbacks.user, progress);
}

/* Of the cells that have something to keep: one that waits has it already. */
static int checkpoint(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && trainer->callbacks.checkpoint && i < trainer->n_cells; i++) {
        if (trainer->step > 0 && ha_dpo_cell_active(trainer, &trainer->cells[i]))
            r = trainer->callbacks.checkpoint(trainer->callbacks.user, trainer, i, trainer->step,
                                              err);
    }
    trainer->checkpoint_ms = ha_clock_boot_ms();
    return r;
}

static bool checkpoint_due(const struct ha_dpo_trainer *trainer)
{
    const struct ha_dpo_job *job = &trainer->job;

    if (job->checkpoint_steps > 0 && trainer->step % job->checkpoint_steps == 0)
        return true;
    return job->checkpoint_every_ms > 0 &&
           ha_clock_boot_ms() - trainer->checkpoint_ms >= job->checkpoint_every_ms;
}

static bool all_known(const struct ha_dpo_reference *references, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!ha_dpo_reference_known(&references[i]))
            return false;
    }
    return true;
}

/* Once they are all known.  Those of held-out pairs are needed in any case, at the end: where
 * epochs are left, others may have them meanwhile. */
static int tell_references(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    int r = 0;

    if (!trainer->callbacks.references || trainer->references_told ||
        !all_known(trainer->train_reference, trainer->train.batch.n_pairs))
        return 0;
    if (trainer->step < ha_dpo_trainer_total_steps(trainer))
        r = ha_dpo_make_eval_references(trainer, err);
    if (r < 0 || !ha_dpo_trainer_has_references(trainer))
        return r;
    trainer->references_told = true;
    return trainer->callbacks.references(trainer->callbacks.user, trainer, err);
}

/* What is due between two steps. */
static int between_steps(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    int64_t every = trainer->job.eval_steps;
    int r = checkpoint_due(trainer) ? checkpoint(trainer, err) : 0;

    if (r == 0)
        r = tell_references(trainer, err);
    if (r == 0 && every > 0 && trainer->step % every == 0)
        r = ha_dpo_evaluate(trainer, err);
    return r;
}

static int run_steps(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    int64_t total = ha_dpo_trainer_total_steps(trainer);
    int r;

    trainer->checkpoint_ms = ha_clock_boot_ms();
    trainer->steps.done = trainer->step;
    trainer->steps.total = total;
    ha_dpo_report(trainer, &trainer->steps);
    r = tell_references(trainer, err);
    while (r == 0 && trainer->step < total && ha_dpo_any_cell(trainer)) {
        if (ha_dpo_stopped(trainer))
            return ha_error_set(err, EINTR, "stopped after step %lld", (long long)trainer->step);
        r = ha_dpo_step(trainer, err);
        if (r < 0)
            return r;
        trainer->steps.done = trainer->step;
        ha_dpo_report(trainer, &trainer->steps);
        if (trainer->step < total)
            r = between_steps(trainer, err);
    }
    return r;
}

int ha_dpo_trainer_run(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    int r = run_steps(trainer, err), stopped;

    if (r == 0)
        r = ha_dpo_evaluate(trainer, err);
    if (r == 0)
        r = tell_references(trainer, err);
    if (r != -EINTR)
        return r;
    stopped = r;
    r = checkpoint(trainer, err);
    return r < 0 ? r : stopped;
}

int64_t ha_dpo_trainer_step(const struct ha_dpo_trainer *trainer)
{
    return trainer->step;
}

int64_t ha_dpo_trainer_total_steps(const struct ha_dpo_trainer *trainer)
{
    int64_t total = ha_dpo_schedule_steps(trainer), most = trainer->job.max_steps;

    return most > 0 && most < total ? most : total;
}

const struct ha_dpo_plan *ha_dpo_trainer_plan(const struct ha_dpo_trainer *trainer)
{
    return &trainer->plan;
}

int64_t ha_dpo_trainer_pass_bytes(const struct ha_dpo_trainer *trainer)
{
    return trainer->pass_bytes;
}

const char *ha_dpo_trainer_outcome(const struct ha_dpo_trainer *trainer, int64_t cell)
{
    return trainer->cells[cell].outcome;
}

void ha_dpo_trainer_stats(const struct ha_dpo_trainer *trainer, int64_t cell,
                          struct ha_dpo_stats *ret_stats)
{
    *ret_stats = trainer->cells[cell].stats;
}

const struct ha_dpo_reference_key *ha_dpo_trainer_key(const struct ha_dpo_trainer *trainer)
{
    return &trainer->key;
}

bool ha_dpo_trainer_has_references(const struct ha_dpo_trainer *trainer)
{
    return all_known(trainer->train_reference, trainer->train.batch.n_pairs) &&
           (!trainer->eval.pairs ||
            all_known(trainer->eval_reference, trainer->eval.batch.n_pairs));
}

const char *ha_dpo_trainer_plan_hash(const struct ha_dpo_trainer *trainer)
{
    return trainer->plan_hash;
}
