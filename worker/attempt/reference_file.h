/* reference_file.h - the base model's log-probs as a file between jobs */
#ifndef HA_WORKER_ATTEMPT_REFERENCE_FILE_H
#define HA_WORKER_ATTEMPT_REFERENCE_FILE_H

#include "common/base/hash.h"
#include "worker/attempt/training.h"
#include "worker/data/pairs.h"
#include "worker/dpo/trainer.h"

struct ha_error;

/* What the key takes from outside the trainer. */
struct ha_origin {
    char model[HA_SHA256_HEX_BYTES], tokenizer[HA_SHA256_HEX_BYTES];
    char train[HA_SHA256_HEX_BYTES], eval[HA_SHA256_HEX_BYTES];
    struct ha_dpo_origin dpo; /* points into the above and into the training */
};

/* Digests of the model's files, through training->digests, and of the pairs' files; eval may be
 * NULL. */
int ha_origin_find(const struct ha_training *training, const struct ha_pair_set *train,
                   const struct ha_pair_set *eval, struct ha_origin *ret_origin,
                   struct ha_error *err);

struct ha_taken_reference {
    bool taken, same_plan;
    double offset; /* of one that was made under another plan: ha_dpo_trainer_reference_offset */
};

/* Take training->reference, with train.reference = "any" also one of another plan.  One that is
 * damaged, or of another key, is left aside with the reason in the log.  Returns 0 or -ENOMEM. */
int ha_reference_take(const struct ha_training *training, struct ha_dpo_trainer *trainer,
                      struct ha_taken_reference *ret_taken, struct ha_error *err);

/* The offset of one that was made under another plan, where the model can compute: after the ranks
 * of a gang have come together. */
int ha_reference_compare(struct ha_dpo_trainer *trainer, struct ha_taken_reference *taken,
                         struct ha_error *err);

/* Write training->reference_out, when all log-probs are known, and report it. */
int ha_reference_report(const struct ha_training *training, struct ha_dpo_trainer *trainer,
                        const struct ha_reporter *reporter, struct ha_error *err);

#endif
