#include "worker/sampling/sampler.h"

#include <errno.h>
#include <math.h>

#include "common/base/error.h"

int ha_sampler_settings_check(const struct ha_sampler_settings *settings, struct ha_error *err)
{
    if (!(settings->temperature >= 0.0) || isinf(settings->temperature))
        return ha_error_set(err, EINVAL, "temperature is %g; it must be 0 (greedy) or positive",
                            settings->temperature);
    if (settings->top_k < 0)
        return ha_error_set(err, EINVAL, "top_k is %lld; it must be 0 (all) or positive",
                            (long long)settings->top_k);
    if (!(settings->top_p > 0.0 && settings->top_p <= 1.0))
        return ha_error_set(err, EINVAL, "top_p is %g; it must be above 0 and at most 1",
                            settings->top_p);
    if (!(settings->repetition_penalty > 0.0) || isinf(settings->repetition_penalty))
        return ha_error_set(err, EINVAL, "repetition_penalty is %g; it must be positive",
                            settings->repetition_penalty);
    if (settings->min_new_tokens < 0)
        return ha_error_set(err, EINVAL, "min_new_tokens is %lld; it must not be negative",
                            (long long)settings->min_new_tokens);
    return 0;
}

static int32_t bounded(int64_t n)
{
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

void ha_sampler_rules(const struct ha_sampler_settings *settings, struct ha_draw *ret_draw)
{
    *ret_draw = (struct ha_draw){
        .top_p = settings->top_p,
        .temperature = (float)settings->temperature,
        .penalty = (float)settings->repetition_penalty,
        .top_k = bounded(settings->top_k),
        .min_new = bounded(settings->min_new_tokens),
    };
}

int64_t ha_sampler_seen_words(int64_t vocab)
{
    return (vocab + 31) / 32;
}

void ha_sampler_see(uint32_t *seen, int64_t vocab, const int32_t *ids, int64_t n_ids)
{
    for (int64_t i = 0; i < n_ids; i++)
        if (ids[i] >= 0 && ids[i] < vocab)
            seen[ids[i] / 32] |= (uint32_t)1 << ids[i] % 32;
}
