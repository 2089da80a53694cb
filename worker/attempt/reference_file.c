#include "worker/attempt/reference_file.h"

#include <errno.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/io/digest.h"

int ha_origin_find(const struct ha_training *training, const struct ha_pair_set *train,
                   const struct ha_pair_set *eval, struct ha_origin *ret_origin,
                   struct ha_error *err)
{
    const struct ha_run_settings *settings = training->cells[0].settings;
    struct ha_origin *origin = ret_origin;
    int r = ha_digest_model(training->engine.model_dir, training->digests, origin->model,
                            origin->tokenizer, err);

    if (r < 0)
        return r;
    ha_sha256_hex(train->data_digest, origin->train);
    origin->eval[0] = '\0';
    if (eval)
        ha_sha256_hex(eval->data_digest, origin->eval);
    origin->dpo = (struct ha_dpo_origin){.model = origin->model,
                                         .tokenizer = origin->tokenizer,
                                         .train_data = origin->train,
                                         .eval_data = origin->eval,
                                         .prompt_template = training->engine.prompt_template,
                                         .split = settings->data.split,
                                         .ends = HA_PAIRS_ENDS,
                                         .max_length = settings->train.max_length};
    return 0;
}

int ha_reference_take(const struct ha_training *training, struct ha_dpo_trainer *trainer,
                      struct ha_taken_reference *ret_taken, struct ha_error *err)
{
    bool any = strcmp(training->cells[0].settings->train.reference, "any") == 0;
    struct ha_taken_reference taken = {.same_plan = true};
    struct ha_error why = {0};
    int r;

    *ret_taken = taken;
    if (!training->reference)
        return 0;
    r = ha_dpo_trainer_load_references(trainer, training->reference, any ? &taken.same_plan : NULL,
                                       &why);
    if (r == -ENOMEM) {
        *err = why;
        return r;
    }
    taken.taken = r == 0;
    if (r < 0)
        ha_log_warning("reference log-probs are computed anew: %s", ha_error_text(&why));
    else
        ha_log_info("reference log-probs are taken from %s", training->reference);
    *ret_taken = taken;
    return 0;
}

int ha_reference_compare(struct ha_dpo_trainer *trainer, struct ha_taken_reference *taken,
                         struct ha_error *err)
{
    int r;

    if (!taken->taken || taken->same_plan)
        return 0;
    r = ha_dpo_trainer_reference_offset(trainer, &taken->offset, err);
    if (r == 0)
        ha_log_warning("they were made under another plan: sums differ from this one's by up to "
                       "%.3g in the first step, and margins do not begin at exactly 0",
                       taken->offset);
    return r;
}

int ha_reference_report(const struct ha_training *training, struct ha_dpo_trainer *trainer,
                        const struct ha_reporter *reporter, struct ha_error *err)
{
    int r = ha_dpo_trainer_save_references(trainer, training->reference_out, err);

    if (r == 0)
        ha_log_info("reference log-probs are complete: %s", training->reference_out);
    return r < 0 ? r
                 : reporter->artifact(reporter->context, 0, "reference",
                                      ha_dpo_trainer_key(trainer)->hex, training->reference_out, 0,
                                      err);
}
