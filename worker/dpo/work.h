/* work.h - the inside of a trainer, for this folder only
 *
 * trainer.c  create, destroy, run
 * step.c     one optimizer step of all cells
 * score.c    references, evaluation, and scoring without a trainer
 * state.c    checkpoints and reference files */
#ifndef HA_WORKER_DPO_WORK_H
#define HA_WORKER_DPO_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "worker/dpo/metrics.h"
#include "worker/dpo/packs.h"
#include "worker/dpo/trainer.h"

/* Log-prob sums of the base model for each pair of a set. */
struct ha_dpo_reference {
    double chosen, rejected;
};

/* One cell at work. */
struct ha_dpo_cell_work {
    struct ha_dpo_cell settings;
    char hash[HA_SHA256_HEX_BYTES];     /* of settings and adapter */
    float *gradient, *m, *v;            /* device (n_params of the adapter) */
    double *square_sum;                 /* device: of the gradient */
    struct ha_dpo_pair_result *results; /* (pairs of a window) */
    char *outcome;                      /* why it ended early, or NULL */
    int64_t step;                       /* optimizer steps done */
};

struct ha_dpo_trainer {
    struct ha_model *model;
    struct ha_backend *backend;
    struct ha_dpo_job job;
    struct ha_dpo_callbacks callbacks;
    const volatile sig_atomic_t *stop; /* or NULL */

    struct ha_dpo_cell_work *cells;
    int64_t n_cells;

    struct ha_dpo_packs train, eval; /* eval.pairs NULL: no evaluation */
    char plan_hash[HA_SHA256_HEX_BYTES];
    struct ha_pass *pass;
    int64_t pass_bytes, max_rows;
    float *coefficient; /* host (max_rows) */

    struct ha_dpo_reference *train_reference; /* (train pairs) */
    struct ha_dpo_reference *eval_reference;  /* (eval pairs) */
    bool has_train_reference, has_eval_reference;

    int64_t step;          /* optimizer steps done by every cell that goes on */
    int64_t n_tokens;      /* seen in training, as TRL counts them */
    int64_t n_computed;    /* tokens of packs that steps have run, over all cells */
    int64_t checkpoint_ms; /* boot time of the last checkpoint */
};

bool ha_dpo_stopped(const struct ha_dpo_trainer *trainer);

/* Optimizer steps of one epoch, and of the schedule. */
int64_t ha_dpo_steps_per_epoch(const struct ha_dpo_trainer *trainer);
int64_t ha_dpo_schedule_steps(const struct ha_dpo_trainer *trainer);

/* Learning rate of the step after `done` ones: linear with warm-up. */
double ha_dpo_learning_rate(const struct ha_dpo_cell *cell, int64_t done, int64_t total);

/* End a cell early; the text is copied. */
void ha_dpo_end_cell(struct ha_dpo_cell_work *cell, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool ha_dpo_any_cell(const struct ha_dpo_trainer *trainer);

/* Gradients of window `window` of the current epoch for every cell, into its
 * zeroed gradient block, and results.  -EINTR when stopped between packs. */
int ha_dpo_window(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                  struct ha_error *err);

/* The next optimizer step: gradients, AdamW, metrics. */
int ha_dpo_step(struct ha_dpo_trainer *trainer, struct ha_error *err);

/* Log-prob sums of the base model, where they are not there yet. */
int ha_dpo_make_references(struct ha_dpo_trainer *trainer, struct ha_error *err);

/* Held-out metrics of every cell. */
int ha_dpo_evaluate(struct ha_dpo_trainer *trainer, struct ha_error *err);

/* Time of a phase, for progress. */
struct ha_dpo_clock {
    int64_t start_ns, tokens;
    double start_flops;
};

struct ha_dpo_clock ha_dpo_clock_start(const struct ha_dpo_trainer *trainer);
void ha_dpo_report(const struct ha_dpo_trainer *trainer, const struct ha_dpo_clock *clock,
                   enum ha_dpo_phase phase, int64_t done, int64_t total);

#endif
