#include "worker/dpo/loss.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "common/base/error.h"

typedef void (*loss_fn)(const struct ha_dpo_loss_settings *settings,
                        const struct ha_dpo_pair_logps *pairs, int64_t n,
                        struct ha_dpo_pair_loss *losses);

/* log sigmoid(x) without overflow on either side. */
static double log_sigmoid(double x)
{
    return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x));
}

static double sigmoid(double x)
{
    return x < 0 ? exp(x) / (1.0 + exp(x)) : 1.0 / (1.0 + exp(-x));
}

static void sigmoid_loss(const struct ha_dpo_loss_settings *settings,
                         const struct ha_dpo_pair_logps *pairs, int64_t n,
                         struct ha_dpo_pair_loss *losses)
{
    for (int64_t i = 0; i < n; i++) {
        double chosen = pairs[i].chosen - pairs[i].ref_chosen;
        double rejected = pairs[i].rejected - pairs[i].ref_rejected;
        double x = settings->beta * (chosen - rejected);
        double slope = settings->beta * sigmoid(-x);

        losses[i] = (struct ha_dpo_pair_loss){-log_sigmoid(x), -slope, slope};
    }
}

static const struct {
    const char *name;
    loss_fn run;
} table[] = {
    [HA_DPO_SIGMOID] = {"sigmoid", sigmoid_loss},
};

int ha_dpo_loss_parse(const char *name, enum ha_dpo_loss_kind *ret_kind, struct ha_error *err)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(name, table[i].name) == 0) {
            *ret_kind = (enum ha_dpo_loss_kind)i;
            return 0;
        }
    }
    return ha_error_set(err, EINVAL, "train.loss \"%s\" is not supported; \"sigmoid\" is", name);
}

const char *ha_dpo_loss_name(enum ha_dpo_loss_kind kind)
{
    return table[kind].name;
}

void ha_dpo_loss(const struct ha_dpo_loss_settings *settings, const struct ha_dpo_pair_logps *pairs,
                 int64_t n, struct ha_dpo_pair_loss *losses)
{
    table[settings->kind].run(settings, pairs, n, losses);
}
