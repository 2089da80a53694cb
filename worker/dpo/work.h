/* work.h - the inside of a trainer, for this folder only
 *
 * make.c      create, destroy
 * trainer.c   run
 * step.c      one optimizer step of all cells
 * gang.c      what the ranks of a gang exchange in it
 * lockstep.c  the pass that cells share
 * alone.c     what a step of each cell takes by itself
 * micro.c     losses of a logical micro-batch
 * offset.c    how far references of another plan are from ours
 * probe.c     the gradient's norms of frozen weights, without a trainer
 * score.c     evaluation, and scoring without a trainer
 * state.c     checkpoints and reference files */
#ifndef HA_WORKER_DPO_WORK_H
#define HA_WORKER_DPO_WORK_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "worker/dpo/gang.h"
#include "worker/dpo/lockstep.h"
#include "worker/dpo/metrics.h"
#include "worker/dpo/packs.h"
#include "worker/dpo/trainer.h"

/* Log-prob sums of the reference policy for one pair of a set; the tails are those
 * of the tokens behind the shorter side's length, which ld_alpha weighs.  State
 * files hold it as it is; all four are NaN where it is not known yet. */
struct ha_dpo_reference {
    double chosen, rejected;
    double chosen_tail, rejected_tail;
};

static inline bool ha_dpo_reference_known(const struct ha_dpo_reference *reference)
{
    return !isnan(reference->chosen);
}

/* One cell at work. */
struct ha_dpo_cell_work {
    struct ha_dpo_cell settings;
    char hash[HA_SHA256_HEX_BYTES];     /* of settings and adapter */
    float *gradient, *m, *v;            /* device (n_params of the adapter) */
    float **partial;                    /* (levels - 1) device: further sums of a gang's rank */
    double *square_sum;                 /* device: of the gradient */
    struct ha_dpo_pair_result *results; /* (pairs of a window) */
    char *outcome;                      /* why it ended early, or NULL */
    int64_t n_tokens;                   /* seen in training, as TRL counts them */
    struct ha_dpo_stats stats;
    bool takes_part; /* in the pass over the pack in work */
};

struct ha_dpo_trainer {
    struct ha_model *model;
    struct ha_backend *backend;
    struct ha_dpo_job job;
    struct ha_dpo_callbacks callbacks;
    const volatile sig_atomic_t *stop; /* or NULL */

    struct ha_dpo_cell_work *cells;
    int64_t n_cells;
    struct ha_dpo_border *borders; /* (n_borders) */
    int64_t n_borders;

    struct ha_dpo_packs train, eval; /* eval.pairs NULL: no evaluation */
    char plan_hash[HA_SHA256_HEX_BYTES];
    struct ha_dpo_reference_key key;
    struct ha_pass *pass;
    struct ha_dpo_plan plan;
    int64_t pass_bytes, max_rows;
    float *coefficient; /* host (max_rows) */
    /* Of one micro-batch (batch_size). */
    struct ha_dpo_pair_logps *micro_logps;
    struct ha_dpo_pair_loss *micro_losses;

    struct ha_dpo_reference *train_reference; /* (train pairs) */
    struct ha_dpo_reference *eval_reference;  /* (eval pairs) */
    bool references_told;

    struct ha_dpo_gang *gang; /* NULL: not one rank of several */
    int n_levels;             /* gradients that a cell adds up side by side; 1 but in a gang */
    int level;                /* which of them is in work; 0: gradient, then partial */

    int64_t step;                 /* optimizer steps done by every cell that goes on */
    struct ha_dpo_progress steps; /* what they have done in this process */
    int64_t checkpoint_ms;        /* boot time of the last checkpoint */
};

/* Time to end, as all ranks of a gang see it. */
bool ha_dpo_stopped(const struct ha_dpo_trainer *trainer);

/* This process was told to stop. */
bool ha_dpo_told_to_stop(const struct ha_dpo_trainer *trainer);

/* The cell's gradient of a level. */
float *ha_dpo_gradient(const struct ha_dpo_cell_work *cell, int level);

/* Ends the cell if this loss of a pair is not finite. */
void ha_dpo_check_loss(const struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                       double value);

/* Optimizer steps of one epoch, and of the schedule. */
int64_t ha_dpo_steps_per_epoch(const struct ha_dpo_trainer *trainer);
int64_t ha_dpo_schedule_steps(const struct ha_dpo_trainer *trainer);

/* Learning rate of the step after `done` ones: linear with warm-up. */
double ha_dpo_learning_rate(const struct ha_dpo_cell *cell, int64_t done, int64_t total);

/* End a cell early; the text is copied. */
void ha_dpo_end_cell(struct ha_dpo_cell_work *cell, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
bool ha_dpo_any_cell(const struct ha_dpo_trainer *trainer);

/* False for a cell that has ended, and for one that waits for the job to reach its step. */
bool ha_dpo_cell_active(const struct ha_dpo_trainer *trainer, const struct ha_dpo_cell_work *cell);

/* Make the job's step the lowest of the cells that go on. */
void ha_dpo_align(struct ha_dpo_trainer *trainer);

/* Everything but the loss of the pair at `position` of the order, which is pair i
 * of this pack. */
void ha_dpo_take_pair(const struct ha_pass_rows *rows, const struct ha_pack *pack, int64_t i,
                      const struct ha_dpo_loss_settings *settings, const struct ha_dpo_packs *packs,
                      int64_t position, const struct ha_dpo_reference *references,
                      struct ha_dpo_pair_result *ret_result);

/* Losses of the pairs at positions [first, end), which belong to this micro-batch
 * (and are all of it if the loss sorts).  results[0] is that of `first`. */
int ha_dpo_micro_loss(struct ha_dpo_trainer *trainer, const struct ha_dpo_loss_settings *settings,
                      const struct ha_dpo_packs *packs, const struct ha_micro *micro, int64_t first,
                      int64_t end, struct ha_dpo_pair_result *results, struct ha_error *err);

/* coefficient[row] (=) = weight * d loss / d log p of the rows of a pack's pair i. */
void ha_dpo_pair_coefficients(const struct ha_dpo_loss_settings *settings,
                              const struct ha_dpo_pair_loss *loss, double weight,
                              const struct ha_pack *pack, int64_t i, float *coefficient);

/* Gradients of window `window` of the current epoch for every active cell, into
 * its zeroed gradient block, and results.  -EINTR when stopped between packs. */
int ha_dpo_window(struct ha_dpo_trainer *trainer, const struct ha_window *window,
                  struct ha_error *err);

/* The next optimizer step: gradients, AdamW, metrics. */
int ha_dpo_step(struct ha_dpo_trainer *trainer, struct ha_error *err);

/* Held-out metrics of every cell that is active. */
int ha_dpo_evaluate(struct ha_dpo_trainer *trainer, struct ha_error *err);

/* The reference log-probs of held-out pairs, as an evaluation makes them; nothing
 * where they are known. */
int ha_dpo_make_eval_references(struct ha_dpo_trainer *trainer, struct ha_error *err);

void ha_dpo_report(const struct ha_dpo_trainer *trainer, const struct ha_dpo_progress *progress);

#endif
