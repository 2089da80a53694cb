#include "common/conf/loss_rules.h"

#include <errno.h>

#include "common/base/error.h"

enum { LOSSES_MAX = 16 };

int ha_loss_rules_check(const struct ha_sweep_train *train, struct ha_error *err)
{
    static const char *const of_no_pair[] = {"aot", "aot_unpaired", "sft"};
    const struct ha_text_list *loss = &train->loss;

    if (loss->count < 1 || loss->count > LOSSES_MAX)
        return ha_error_set(err, EINVAL, "train.loss must name 1 to %d losses", LOSSES_MAX);
    if (train->loss_weights.count > 0 && train->loss_weights.count != loss->count)
        return ha_error_set(err, EINVAL,
                            "train.loss_weights has %lld numbers for %lld of train.loss; give one "
                            "for each",
                            (long long)train->loss_weights.count, (long long)loss->count);
    if (ha_text_list_has(loss, "exo_pair") &&
        !(train->label_smoothing > 0 && train->label_smoothing < 1))
        return ha_error_set(err, EINVAL,
                            "train.loss exo_pair needs a train.label_smoothing between 0 and 1, "
                            "such as 1e-3");
    if (ha_text_list_has(loss, "robust") && train->label_smoothing >= 0.5)
        return ha_error_set(err, EINVAL,
                            "train.loss robust needs a train.label_smoothing below 0.5");
    for (size_t i = 0; i < sizeof(of_no_pair) / sizeof(of_no_pair[0]); i++)
        if (train->use_weighting && ha_text_list_has(loss, of_no_pair[i]))
            return ha_error_set(err, EINVAL,
                                "train.use_weighting cannot be used with train.loss %s, whose "
                                "value is not one pair's; leave one of them out",
                                of_no_pair[i]);
    return 0;
}

const char *ha_loss_rules_warning(const struct ha_sweep_train *train)
{
    static const char *const smoothed[] = {"robust", "exo_pair", "aot", "aot_unpaired"};

    for (size_t i = 0; i < sizeof(smoothed) / sizeof(smoothed[0]); i++)
        if (ha_text_list_has(&train->loss, smoothed[i]))
            return NULL;
    return train->label_smoothing > 0
               ? "train.label_smoothing does nothing with this train.loss, as in TRL since 0.29; "
                 "robust, exo_pair, aot and aot_unpaired have it"
               : NULL;
}
