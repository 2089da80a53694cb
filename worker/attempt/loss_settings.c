#include "worker/attempt/loss_settings.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/conf/loss_rules.h"

int ha_loss_settings_read(const struct ha_sweep_train *train,
                          struct ha_dpo_loss_settings *ret_settings, struct ha_error *err)
{
    struct ha_dpo_loss_settings loss;
    int r = ha_loss_rules_check(train, err);

    if (r < 0)
        return r;
    if (train->loss.count > HA_DPO_MAX_TERMS)
        return ha_error_set(err, EINVAL, "train.loss: %lld losses, more than %d",
                            (long long)train->loss.count, (int)HA_DPO_MAX_TERMS);
    ha_dpo_loss_defaults(&loss);
    loss.n_terms = train->loss.count;
    for (int64_t i = 0; r == 0 && i < train->loss.count; i++) {
        loss.terms[i].weight =
            train->loss_weights.count > 0 ? strtod(train->loss_weights.items[i], NULL) : 1;
        r = ha_dpo_loss_parse(train->loss.items[i], &loss.terms[i].kind, err);
    }
    loss.beta = train->beta;
    loss.label_smoothing = train->label_smoothing;
    loss.f_alpha = train->f_alpha;
    loss.discopop_tau = train->discopop_tau;
    loss.ld_alpha = train->ld_alpha;
    loss.use_weighting = train->use_weighting;
    if (r == 0)
        r = ha_dpo_divergence_parse(train->f_divergence, &loss.divergence, err);
    if (r == 0)
        *ret_settings = loss;
    return r;
}
