/* sampler.h - from a row of logits to the next token
 *
 * Does what Transformers' generate() does, in its order: repetition penalty over
 * the distinct ids so far (prompt included), no end token before min_new_tokens;
 * then, unless greedy, temperature, top_k (ties with the k-th largest are kept),
 * top_p (ascending cumulative probability above 1 - top_p is kept, at least the
 * best token), a draw from what is left.  Greedy takes the first largest.
 *
 * The random number of a draw depends on (seed, prompt, position) only. */
#ifndef HA_WORKER_SAMPLING_SAMPLER_H
#define HA_WORKER_SAMPLING_SAMPLER_H

#include <stdint.h>

struct ha_error;

struct ha_sampler_settings {
    double temperature;        /* 0: greedy, else > 0 */
    int64_t top_k;             /* 0: all */
    double top_p;              /* (0, 1]; 1: all */
    double repetition_penalty; /* > 0; 1: none */
    int64_t min_new_tokens;    /* 0: none */
};

/* -EINVAL with the name of the setting that is out of range. */
int ha_sampler_settings_check(const struct ha_sampler_settings *settings, struct ha_error *err);

/* What one draw is about. */
struct ha_sampler_place {
    const int32_t *ids; /* prompt and new tokens so far */
    int64_t n_ids;
    int64_t n_new; /* new tokens among them */
    const int32_t *eos;
    int64_t n_eos;
    uint64_t seed;
    uint64_t prompt; /* number of the prompt in its file */
};

/* Scratch memory for one vocabulary. */
struct ha_sampler;

int ha_sampler_create(int64_t vocab, struct ha_sampler **ret_sampler, struct ha_error *err);
void ha_sampler_destroy(struct ha_sampler *sampler);

/* A token that may be drawn. */
struct ha_sampler_candidate {
    float logit; /* after the settings */
    int32_t id;
    double weight; /* its probability is its share of the sum of weights */
};

/* What the settings leave of the logits, in the order of ids (greedy: one
 * candidate); valid until the sampler is used again.  logits (vocab) are changed.
 * Returns 0, or -EDOM when the logits hold a NaN or nothing that can be drawn (a
 * diverged model). */
int ha_sampler_distribution(struct ha_sampler *sampler, const struct ha_sampler_settings *settings,
                            const struct ha_sampler_place *place, float *logits,
                            const struct ha_sampler_candidate **ret_candidates,
                            int64_t *ret_n_candidates, struct ha_error *err);

/* Draw a token from that distribution. */
int ha_sampler_pick(struct ha_sampler *sampler, const struct ha_sampler_settings *settings,
                    const struct ha_sampler_place *place, float *logits, int32_t *ret_token,
                    struct ha_error *err);

#endif
