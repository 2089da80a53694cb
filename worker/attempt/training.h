/* training.h - one training job: data, adapters, trainer, adapter files
 *
 * The cells of a job share model, pairs and their order and are trained in
 * lock-step; each has layers, adapter and optimizer settings of its own.  Cells may
 * have checkpoints of different steps, or none (worker/dpo/trainer.h). */
#ifndef HA_WORKER_ATTEMPT_TRAINING_H
#define HA_WORKER_ATTEMPT_TRAINING_H

#include <signal.h>

#include "common/conf/run_settings.h"
#include "worker/attempt/engine.h"
#include "worker/attempt/gang.h"
#include "worker/attempt/reporter.h"

struct ha_training_cell {
    int64_t id;
    const char *name;
    const int64_t *layers; /* ascending, at least one */
    int64_t n_layers;
    const struct ha_run_settings *settings;
    const char *init_adapter; /* PEFT folder to go on from, also the reference then; NULL: a new
                                 adapter.  In a job of one cell only */
    const char *checkpoint;   /* file to resume from; NULL: from the start */
    const char *out_dir;      /* gets the PEFT files */
    const char *checkpoint_dir;
};

struct ha_training {
    struct ha_engine_options engine;
    const char *hub_id; /* base_model_name_or_path; NULL: the model folder */
    const char *const *train;
    int64_t n_train;
    const char *const *eval; /* may be none */
    int64_t n_eval;
    const struct ha_training_cell *cells;
    int64_t n_cells;
    bool require_exact;      /* a checkpoint of another plan or backend is an error, else it is left
                                aside with a warning and training starts anew */
    bool prunes_checkpoints; /* keep the last two of this run; else whoever takes them removes them
                              */
    bool allow_inexact;      /* accept a checkpoint of another backend */
    const char *reference;   /* file of reference log-probs to take; NULL: none */
    const char *reference_out; /* gets them where none were taken; NULL: they are not kept */
    int64_t time_alone_steps;  /* of each cell of several, measured by itself at the end; 0: none */
    const struct ha_gang *gang; /* this process is one rank of several (gang.h): all are given the
                                   same job; what there is to keep, rank 0 keeps.  NULL: alone */
    const char *choices;        /* folder of choices of products (choices.h) or NULL */
    const char *digests;        /* cache of files' digests (common/io/digest.h) or NULL */
};

/* Train to the end.  Returns 0 when every cell was reported, -EINTR when stopped: checkpoints were
 * reported, unless no step was done yet.  *stop asks for that; a report that fails sets
 * it too, and its error is returned.  outcome.h tells errors that come back from those that heal.
 */
int ha_training_run(const struct ha_training *training, const struct ha_reporter *reporter,
                    volatile sig_atomic_t *stop, struct ha_error *err);

#endif
