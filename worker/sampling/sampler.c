#include "worker/sampling/sampler.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/rng_philox.h"

struct ha_sampler {
    int64_t vocab;
    uint8_t *seen; /* (vocab): ids already penalised; zero between calls */
    float *values; /* (vocab) scratch of the selection */
    struct ha_sampler_candidate *candidates; /* (vocab), by id */
    struct ha_sampler_candidate *sorted;     /* (vocab) scratch of top_p */
};

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

int ha_sampler_create(int64_t vocab, struct ha_sampler **ret_sampler, struct ha_error *err)
{
    struct ha_sampler *sampler;

    if (vocab < 1 || vocab > INT32_MAX)
        return ha_error_set(err, EINVAL, "a vocabulary of %lld is out of range", (long long)vocab);
    sampler = ha_calloc(1, sizeof(*sampler));
    if (!sampler)
        return ha_error_set(err, ENOMEM, "no memory for a sampler");
    sampler->vocab = vocab;
    sampler->seen = ha_calloc(vocab, sizeof(*sampler->seen));
    sampler->values = ha_calloc(vocab, sizeof(*sampler->values));
    sampler->candidates = ha_calloc(vocab, sizeof(*sampler->candidates));
    sampler->sorted = ha_calloc(vocab, sizeof(*sampler->sorted));
    if (!sampler->seen || !sampler->values || !sampler->candidates || !sampler->sorted) {
        ha_sampler_destroy(sampler);
        return ha_error_set(err, ENOMEM, "no memory for a sampler over %lld ids", (long long)vocab);
    }
    *ret_sampler = sampler;
    return 0;
}

void ha_sampler_destroy(struct ha_sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->seen);
    free(sampler->values);
    free(sampler->candidates);
    free(sampler->sorted);
    free(sampler);
}

static void penalise(struct ha_sampler *sampler, const struct ha_sampler_place *place,
                     float penalty, float *logits)
{
    for (int64_t i = 0; i < place->n_ids; i++) {
        int32_t id = place->ids[i];

        if (id < 0 || id >= sampler->vocab || sampler->seen[id])
            continue;
        sampler->seen[id] = 1;
        logits[id] = logits[id] < 0.0f ? logits[id] * penalty : logits[id] / penalty;
    }
    for (int64_t i = 0; i < place->n_ids; i++)
        if (place->ids[i] >= 0 && place->ids[i] < sampler->vocab)
            sampler->seen[place->ids[i]] = 0;
}

/* The k-th largest of n values, 1 <= k <= n; the values are reordered. */
static float kth_largest(float *values, int64_t n, int64_t k)
{
    int64_t low = 0, high = n - 1, at = k - 1;

    while (low < high) {
        float pivot = values[low + (high - low) / 2];
        int64_t i = low, j = high;

        while (i <= j) {
            while (values[i] > pivot)
                i++;
            while (values[j] < pivot)
                j--;
            if (i <= j) {
                float value = values[i];

                values[i++] = values[j];
                values[j--] = value;
            }
        }
        if (at <= j)
            high = j;
        else if (at >= i)
            low = i;
        else
            break;
    }
    return values[at];
}

/* Logits of at least `lowest` into the candidate list, in the order of ids. */
static int64_t collect(struct ha_sampler *sampler, const float *logits, float lowest, float largest)
{
    int64_t n = 0;

    for (int64_t id = 0; id < sampler->vocab; id++)
        if (logits[id] >= lowest && logits[id] > -INFINITY)
            sampler->candidates[n++] = (struct ha_sampler_candidate){
                logits[id], (int32_t)id, exp((double)(logits[id] - largest))};
    return n;
}

/* Ascending by logit, then by id: the order of a stable ascending sort. */
static int compare(const void *a, const void *b)
{
    const struct ha_sampler_candidate *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit < y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static double total_of(const struct ha_sampler_candidate *candidates, int64_t n)
{
    double total = 0.0;

    for (int64_t i = 0; i < n; i++)
        total += candidates[i].weight;
    return total;
}

/* Drop the least likely candidates while their sum stays within 1 - top_p.  Those
 * with no more than an n-th of that each go without being sorted.
 *
 * Transformers compares f32 sums of f32 probabilities with an f32 limit.  So does
 * this: ten equal logits with top_p = 0.9 lose one there, though 1 - 0.9 < 0.1. */
static int64_t cut_tail(struct ha_sampler *sampler, int64_t n, double top_p)
{
    struct ha_sampler_candidate *candidates = sampler->candidates, best = candidates[0], cut;
    double total = total_of(candidates, n), limit = 1.0 - top_p, dropped = 0.0;
    int64_t n_sorted = 0, first = 0, kept = 0;

    for (int64_t i = 1; i < n; i++)
        if (compare(&candidates[i], &best) > 0)
            best = candidates[i];
    for (int64_t i = 0; i < n; i++) {
        double share = (double)(float)(candidates[i].weight / total);

        if (share <= limit / (double)n && candidates[i].id != best.id)
            dropped += share;
        else
            sampler->sorted[n_sorted++] = candidates[i];
    }
    qsort(sampler->sorted, (size_t)n_sorted, sizeof(*sampler->sorted), compare);
    for (; first < n_sorted - 1; first++) {
        dropped += (double)(float)(sampler->sorted[first].weight / total);
        if ((float)dropped > (float)limit)
            break;
    }
    cut = sampler->sorted[first];
    for (int64_t i = 0; i < n; i++)
        if (compare(&candidates[i], &cut) >= 0)
            candidates[kept++] = candidates[i];
    return kept;
}

/* The first candidate whose cumulative weight exceeds u of the total. */
static int32_t draw(const struct ha_sampler_candidate *candidates, int64_t n, double u)
{
    double total = total_of(candidates, n), sum = 0.0;

    for (int64_t i = 0; i < n - 1; i++) {
        sum += candidates[i].weight;
        if (sum > u * total)
            return candidates[i].id;
    }
    return candidates[n - 1].id;
}

/* The first largest id; -1 when a logit is no number, or none is above -infinity. */
static int32_t first_largest(const float *logits, int64_t vocab)
{
    int32_t best = -1;
    float largest = -INFINITY;

    for (int64_t id = 0; id < vocab; id++) {
        if (isnan(logits[id]) || logits[id] == INFINITY)
            return -1;
        if (logits[id] > largest) {
            largest = logits[id];
            best = (int32_t)id;
        }
    }
    return best;
}

/* Temperature, top_k and top_p: the number of candidates that are left. */
static int64_t shape(struct ha_sampler *sampler, const struct ha_sampler_settings *settings,
                     float *logits, int32_t best)
{
    float lowest = -INFINITY;
    int64_t n;

    if (settings->temperature != 1.0)
        for (int64_t id = 0; id < sampler->vocab; id++)
            logits[id] /= (float)settings->temperature;
    if (settings->top_k > 0 && settings->top_k < sampler->vocab) {
        memcpy(sampler->values, logits, (size_t)sampler->vocab * sizeof(float));
        lowest = kth_largest(sampler->values, sampler->vocab, settings->top_k);
    }
    n = collect(sampler, logits, lowest, logits[best]);
    return settings->top_p < 1.0 ? cut_tail(sampler, n, settings->top_p) : n;
}

int ha_sampler_distribution(struct ha_sampler *sampler, const struct ha_sampler_settings *settings,
                            const struct ha_sampler_place *place, float *logits,
                            const struct ha_sampler_candidate **ret_candidates,
                            int64_t *ret_n_candidates, struct ha_error *err)
{
    int32_t best;

    if (settings->repetition_penalty != 1.0)
        penalise(sampler, place, (float)settings->repetition_penalty, logits);
    if (place->n_new < settings->min_new_tokens)
        for (int64_t i = 0; i < place->n_eos; i++)
            if (place->eos[i] >= 0 && place->eos[i] < sampler->vocab)
                logits[place->eos[i]] = -INFINITY;
    best = first_largest(logits, sampler->vocab);
    if (best >= 0 && settings->temperature > 0.0 &&
        !isfinite(logits[best] / (float)settings->temperature))
        best = -1;
    if (best < 0)
        return ha_error_set(err, EDOM,
                            "the logits of new token %lld are not finite numbers: the model or "
                            "its adapter has diverged",
                            (long long)place->n_new);
    if (settings->temperature > 0.0) {
        *ret_n_candidates = shape(sampler, settings, logits, best);
    } else {
        sampler->candidates[0] = (struct ha_sampler_candidate){logits[best], best, 1.0};
        *ret_n_candidates = 1;
    }
    *ret_candidates = sampler->candidates;
    return 0;
}

int ha_sampler_pick(struct ha_sampler *sampler, const struct ha_sampler_settings *settings,
                    const struct ha_sampler_place *place, float *logits, int32_t *ret_token,
                    struct ha_error *err)
{
    const struct ha_sampler_candidate *candidates;
    int64_t n;
    int r = ha_sampler_distribution(sampler, settings, place, logits, &candidates, &n, err);

    if (r < 0)
        return r;
    *ret_token = draw(
        candidates, n,
        ha_philox_uniform(place->seed, HA_PHILOX_SAMPLING, place->prompt, (uint32_t)place->n_new));
    return 0;
}
