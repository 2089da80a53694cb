/* training_summary.h - the record of a trained cell, as worker/contract.h says */
#ifndef HA_WORKER_ATTEMPT_TRAINING_SUMMARY_H
#define HA_WORKER_ATTEMPT_TRAINING_SUMMARY_H

#include "common/conf/json.h"
#include "worker/attempt/engine.h"
#include "worker/attempt/reference_file.h"
#include "worker/data/pairs.h"
#include "worker/dpo/trainer.h"

struct ha_training_record {
    const struct ha_dpo_trainer *trainer;
    int64_t cell; /* its index in the trainer */
    int64_t n_params, n_cells;
    int64_t ranks; /* of the gang; 1 alone */
    double load_seconds, wall_seconds;
    int64_t peak_bytes; /* of the process's own memory */
    const char *precision, *backend;
    const struct ha_engine *engine;
    const struct ha_taken_reference *taken;
    const struct ha_pair_set *pairs;
    const struct ha_json *last_eval; /* {"eval_loss": ...} or NULL */
};

/* NULL where memory is short. */
struct ha_json *ha_training_summary(const struct ha_training_record *record);

#endif
