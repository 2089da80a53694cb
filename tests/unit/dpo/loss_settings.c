#include "tests/unit/dpo/loss_settings.h"

#include <math.h>
#include <stdio.h>

#include "tests/unit/model/support.h"

static double number(const struct ha_json *json, const char *key, double otherwise)
{
    return ha_json_real(ha_json_get(json, key), otherwise);
}

void read_loss_settings(const struct ha_json *json, double beta,
                        struct ha_dpo_loss_settings *settings)
{
    const struct ha_json *names = ha_json_get(json, "loss_type");
    const struct ha_json *weights = ha_json_get(json, "loss_weights");

    ha_dpo_loss_defaults(settings);
    settings->beta = beta;
    settings->n_terms = ha_json_size(names);
    assert_true(settings->n_terms > 0 && settings->n_terms <= HA_DPO_MAX_TERMS);
    assert_int_equal(ha_json_size(weights), settings->n_terms);
    for (int64_t i = 0; i < settings->n_terms; i++) {
        assert_ok(ha_dpo_loss_parse(ha_json_string(ha_json_at(names, i), ""),
                                    &settings->terms[i].kind, &err));
        settings->terms[i].weight = ha_json_real(ha_json_at(weights, i), NAN);
    }
    settings->label_smoothing = number(json, "label_smoothing", NAN);
    assert_ok(ha_dpo_divergence_parse(ha_json_string(ha_json_get(json, "f_divergence_type"), ""),
                                      &settings->divergence, &err));
    settings->f_alpha = number(json, "f_alpha_divergence_coef", NAN);
    settings->discopop_tau = number(json, "discopop_tau", NAN);
    /* null, TRL's default, is off. */
    settings->ld_alpha = number(json, "ld_alpha", 1);
    settings->use_weighting = ha_json_bool(ha_json_get(json, "use_weighting"), false);
    assert_ok(ha_dpo_loss_check(settings, &err));
}

const char *describe_loss(const struct ha_json *json)
{
    static char text[240];
    const struct ha_json *names = ha_json_get(json, "loss_type");
    size_t at = 0;

    for (int64_t i = 0; i < ha_json_size(names); i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s ",
                               ha_json_string(ha_json_at(names, i), ""));
    snprintf(text + at, sizeof(text) - at, "%s smoothing %g alpha %g tau %g ld_alpha %g%s",
             ha_json_string(ha_json_get(json, "f_divergence_type"), ""),
             number(json, "label_smoothing", NAN), number(json, "f_alpha_divergence_coef", NAN),
             number(json, "discopop_tau", NAN), number(json, "ld_alpha", NAN),
             ha_json_bool(ha_json_get(json, "use_weighting"), false) ? " weighted" : "");
    return text;
}
