/* trainer.h - DPO training of LoRA adapters on one frozen model
 *
 * A trainer takes a job: one model, one set of training pairs, and a list of
 * cells (adapters with their own layers, optimizer and loss settings) that see
 * the same pairs in the same order, in lock-step: what they have in common is
 * computed once (lockstep.h).  A cell's adapter is bit for bit the one that it
 * would be alone.  Order of calls:
 *
 *     ha_dpo_trainer_create
 *     ha_dpo_trainer_load_references to take those of an earlier job (optional)
 *     ha_dpo_trainer_load            per cell, to resume (optional)
 *     ha_dpo_trainer_join            in a gang
 *     ha_dpo_trainer_run             steps, evaluation
 *     ha_dpo_trainer_measure_alone   (optional)
 *     ha_dpo_trainer_outcome, _stats per cell
 *     ha_dpo_trainer_save_references for later jobs (optional)
 *     ha_dpo_trainer_destroy         the adapters stay with the caller
 *
 * Batch plan.  Epoch e visits the pairs in ha_select_epoch_order(order_seed, e);
 * windows and logical micro-batches are worker/data/batch.h's.  A window is cut
 * into packs, in order, of at most tokens_per_microbatch tokens (a longer pair
 * has a pack of its own).  Packs depend on nothing but the pairs and these
 * settings.  The reference log-probs of a pair are computed once, with the adapters
 * off, where they are needed first: in the step of epoch 0 that visits it, over
 * that step's pack.  So every pair's margin is exactly 0 at the first step (with a
 * reference adapter: of cells that start as copies of it).
 *
 * Cells may go on from different steps.  The job's step is the lowest of theirs;
 * a cell that is further waits, untouched, and joins when the job gets there.
 *
 * Metrics are named and averaged as TRL 1.9 logs them with logging_steps = 1;
 * evaluation adds "eval_" in front.  Sums of log-probs and losses are double.
 *
 * Several processes may be the ranks of a gang: each has a trainer of the same job, they share
 * the work of a step, and all come to the same adapters.  Every rank calls the same functions and
 * has the same callbacks, as what is computed depends on them, but for checkpoint.
 *
 * Resumed from a checkpoint, training gives the adapter bytes that it would
 * have given without the interruption. */
#ifndef HA_WORKER_DPO_TRAINER_H
#define HA_WORKER_DPO_TRAINER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "worker/adapter/adapter.h"
#include "worker/data/pairs.h"
#include "worker/dpo/loss.h"
#include "worker/dpo/plan.h"
#include "worker/dpo/reference.h"
#include "worker/model/model.h"

struct ha_comm;
struct ha_error;
struct ha_dpo_trainer;

/* What all cells of a job have in common. */
struct ha_dpo_job {
    const struct ha_pair_set *train;
    const struct ha_pair_set *eval; /* NULL: no held-out evaluation */
    int64_t batch_size;             /* pairs of a logical micro-batch; 6 */
    int64_t gradient_accumulation;  /* logical micro-batches of an optimizer step; 4 */
    int64_t epochs;                 /* >= 1 */
    uint64_t order_seed;
    int64_t tokens_per_microbatch; /* of a pack; >= 1 */
    bool share_prompt;             /* compute the prompt of a pair once (pack.h) */
    bool round_logits_bf16;        /* train.precision = "bf16" */
    /* Reference policy: NULL is the model with the adapters off.  Training that
     * goes on from an adapter has a copy of it here, as TRL has since 0.29. */
    const struct ha_adapter *reference;
    const struct ha_dpo_origin *origin; /* for the references' key; NULL: nothing is said of it */
    /* Memory that the job may use in all (plan.h); as many layers as it asks for are run again
     * in the backward pass, which changes no result.  0: no limit. */
    int64_t memory_bytes;
    const char *memory_limit; /* where it comes from, for people: "train.memory_limit" */
    int threads;              /* of the CPU backend, for the plan; 0: one per core */
    /* This is rank `rank` of a gang of `ranks`, which share the micro-batches of each window
     * (share.h); ha_dpo_trainer_join is called before the run.  0 ranks: alone, with packs that
     * may hold pairs of several micro-batches and one sum in their order.  So a gang of 1 has the
     * bits of a gang of any size, and those of a job alone only within rounding. */
    int rank, ranks;
    int64_t comm_bytes; /* of the device, of the gang's communicator, for the plan */
    /* Whether the ranks share the frozen weights.  For a trainer's own model this is settled: NEVER
     * where they are whole, else ALWAYS; ha_dpo_trainer_foresee says which it should be. */
    enum ha_dpo_sharding sharding;
    int64_t recomputed_layers;   /* run again at least, for tests */
    int64_t max_steps;           /* end after so many optimizer steps; 0: after the epochs.  Does
                                    not change the schedule */
    int64_t eval_steps;          /* evaluate after every so many steps; 0: at the end only */
    int64_t checkpoint_every_ms; /* 0: only when stopped */
    int64_t checkpoint_steps;    /* also after every so many steps; 0: never */
};

struct ha_dpo_cell {
    const char *name;           /* for errors */
    struct ha_adapter *adapter; /* trained in place; the caller's */
    struct ha_dpo_loss_settings loss;
    double learning_rate; /* linear to 0 over all steps, after warmup_steps rising from 0 */
    int64_t warmup_steps;
    double weight_decay, beta1, beta2, eps;
    double max_grad_norm; /* 0: no clipping */
    /* Of the inputs of the adapter while it is trained, with masks of this cell's own (model.h);
     * 0: none.  References, shared passes and evaluation drop nothing. */
    double dropout;
    uint64_t dropout_seed;
};

/* Defaults: the paper's where it speaks, else TRL's (ENGINE.md 7). */
void ha_dpo_job_defaults(struct ha_dpo_job *job);
void ha_dpo_cell_defaults(struct ha_dpo_cell *cell);

struct ha_dpo_metric {
    const char *name; /* "loss", "rewards/margins", ... static */
    double value;
};

enum ha_dpo_phase { HA_DPO_STEP, HA_DPO_EVALUATE, HA_DPO_MEASURE };

/* What a phase has done in this process. */
struct ha_dpo_progress {
    enum ha_dpo_phase phase;
    int64_t done, total; /* steps of STEP, pairs of EVALUATE, cells of MEASURE */
    int64_t pairs;       /* of the data: a pair counts once for all cells */
    int64_t tokens;      /* of the cells' own passes */
    double seconds, flops;
    double plain_flops; /* that the plain method would have needed for all cells; STEP */
};

struct ha_dpo_work {
    double seconds; /* monotonic clock */
    double flops;
    double bytes; /* ha_backend_bytes_moved */
};

/* Of all steps of a cell since step 0, those before a checkpoint included. */
struct ha_dpo_stats {
    int64_t steps, pairs;
    int64_t tokens;            /* of the cell's own passes */
    struct ha_dpo_work own;    /* its passes and its optimizer */
    struct ha_dpo_work shared; /* its equal part of the shared passes */
    double plain_flops;        /* count.h: what the plain method would have needed */
    double seconds_alone;      /* of a step by itself; 0: not measured */
};

/* Every entry may be NULL.  A negative return of checkpoint or references ends
 * the run with that error. */
struct ha_dpo_callbacks {
    void *user;
    /* After an optimizer step, or after an evaluation (names then begin with
     * "eval_").  step counts from 1. */
    void (*metrics)(void *user, int64_t cell, int64_t step, const struct ha_dpo_metric *metrics,
                    int64_t n_metrics);
    /* When a phase begins, and whenever it has got further. */
    void (*progress)(void *user, const struct ha_dpo_progress *progress);
    /* Time to call ha_dpo_trainer_save for this cell. */
    int (*checkpoint)(void *user, struct ha_dpo_trainer *trainer, int64_t cell, int64_t step,
                      struct ha_error *err);
    /* All reference log-probs are known: once in a run, as soon as they are.  Time to call
     * ha_dpo_trainer_save_references.  Where it is given, and epochs are left after the one that
     * made those of the training pairs, the held-out ones' are made before they go on. */
    int (*references)(void *user, struct ha_dpo_trainer *trainer, struct ha_error *err);
};

/* The plan of the memory that a trainer of this job would make, before the model's weights are
 * loaded; -EFBIG as ha_dpo_trainer_create. */
int ha_dpo_trainer_foresee(struct ha_model *model, const struct ha_dpo_job *job,
                           const struct ha_dpo_cell *cells, int64_t n_cells,
                           struct ha_dpo_plan *ret_plan, struct ha_error *err);

/* -EFBIG where the plan of the memory does not fit (ha_dpo_plan_check), before
 * anything is computed.  The model, the pair sets, all adapters and `stop` must outlive the
 * trainer. stop (may be NULL) is looked at between packs; it may be set by a signal handler. */
int ha_dpo_trainer_create(struct ha_model *model, const struct ha_dpo_job *job,
                          const struct ha_dpo_cell *cells, int64_t n_cells,
                          const struct ha_dpo_callbacks *callbacks,
                          const volatile sig_atomic_t *stop, struct ha_dpo_trainer **ret_trainer,
                          struct ha_error *err);
void ha_dpo_trainer_destroy(struct ha_dpo_trainer *trainer);

/* Of a gang: compare the ranks' plans, devices and states, and take the communicator, which
 * must outlive the trainer, for the run.  -ESTALE where they differ (the text says how). */
int ha_dpo_trainer_join(struct ha_dpo_trainer *trainer, struct ha_comm *comm, struct ha_error *err);

/* Train to the end.  Returns 0 when every cell has ended (see outcome), -EINTR
 * after a stop (checkpoints were asked for), or another negative errno. */
int ha_dpo_trainer_run(struct ha_dpo_trainer *trainer, struct ha_error *err);

/* After a run of several cells: what a step takes a cell by itself, the mean of so many steps
 * spread evenly over those it has done, with the same packs, nothing shared, the references
 * known.  Adapters, moments, references and counts are afterwards, bit for bit, what they were;
 * stats have seconds_alone.  A stop ends it early, without an error.  A job of one cell, and 0
 * steps, measure nothing.  Needs host memory for the state of one cell, as a checkpoint does. */
int ha_dpo_trainer_measure_alone(struct ha_dpo_trainer *trainer, int64_t steps,
                                 struct ha_error *err);

/* Optimizer steps done by every cell that goes on, and those of the whole run. */
int64_t ha_dpo_trainer_step(const struct ha_dpo_trainer *trainer);
int64_t ha_dpo_trainer_total_steps(const struct ha_dpo_trainer *trainer);

/* What the trainer planned before it allocated its working memory.  Owned by it. */
const struct ha_dpo_plan *ha_dpo_trainer_plan(const struct ha_dpo_trainer *trainer);

/* Bytes of activations and scratch that the trainer planned and holds. */
int64_t ha_dpo_trainer_pass_bytes(const struct ha_dpo_trainer *trainer);

/* NULL while the cell is well; else one line why it ended early (a loss that is
 * not finite). */
const char *ha_dpo_trainer_outcome(const struct ha_dpo_trainer *trainer, int64_t cell);

void ha_dpo_trainer_stats(const struct ha_dpo_trainer *trainer, int64_t cell,
                          struct ha_dpo_stats *ret_stats);

/* SHA-256 in hexadecimal over pairs, settings and packs; part of checkpoints.
 * Owned by the trainer. */
const char *ha_dpo_trainer_plan_hash(const struct ha_dpo_trainer *trainer);

/* The key of this job's references.  Owned by the trainer. */
const struct ha_dpo_reference_key *ha_dpo_trainer_key(const struct ha_dpo_trainer *trainer);

/* Write the cell's state: A, B, moments, step, references so far, stats.  Atomic.
 * -EINVAL before its first step: there is nothing to keep. */
int ha_dpo_trainer_save(struct ha_dpo_trainer *trainer, int64_t cell, const char *path,
                        struct ha_error *err);

/* Continue a cell from a checkpoint.  -ESTALE when batch plan, settings or
 * backend differ from the checkpoint's (the text says which); allow_inexact
 * accepts another backend fingerprint only.  -EINVAL for a damaged file.  The cell
 * is then as before. */
int ha_dpo_trainer_load(struct ha_dpo_trainer *trainer, int64_t cell, const char *path,
                        bool allow_inexact, struct ha_error *err);

/* What the backend had chosen when the checkpoint was written (ha_backend_export_choices), for
 * ha_backend_import_choices before the trainer is made: a trainer's keys and checkpoints name
 * them in the fingerprint.  The caller frees the blob; (NULL, 0) where there is none. */
int ha_dpo_checkpoint_choices(const char *path, void **ret_blob, size_t *ret_bytes,
                              struct ha_error *err);

/* True once those of all pairs, held-out ones included, are known: after the
 * first epoch and the first evaluation (see callbacks.references). */
bool ha_dpo_trainer_has_references(const struct ha_dpo_trainer *trainer);

/* Reference log-probs as a file that other jobs with the same key take instead of
 * computing them.  Saving is -EINVAL before all are known.  Loading is -ESTALE
 * where a part of the key differs (the text names it) and -EINVAL for a damaged
 * file; the trainer then computes its own.  With ret_same_plan the file may be of
 * another batch plan or kernel build, and it says whether it is of this one; NULL
 * takes only those.  References of another plan are used as they are, so that a new
 * cell's first margins are not exactly 0 (reference_offset). */
int ha_dpo_trainer_save_references(struct ha_dpo_trainer *trainer, const char *path,
                                   struct ha_error *err);
int ha_dpo_trainer_load_references(struct ha_dpo_trainer *trainer, const char *path,
                                   bool *ret_same_plan, struct ha_error *err);

/* After loading: the largest distance between a log-prob sum of the loaded references and the one
 * that this trainer computes, over the pairs of the first step.  NaN where one is no number.
 * Changes nothing; costs one forward pass over these pairs. */
int ha_dpo_trainer_reference_offset(struct ha_dpo_trainer *trainer, double *ret_offset,
                                    struct ha_error *err);

#endif
