/* sampler.h - the settings of drawing tokens
 *
 * What they mean, and the draw itself, is kernels/ops.h: struct ha_draw. */
#ifndef HA_WORKER_SAMPLING_SAMPLER_H
#define HA_WORKER_SAMPLING_SAMPLER_H

#include <stdint.h>

#include "kernels/ops.h"

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

/* The same as the backend has them, checked; for a sequence that has drawn nothing yet. */
void ha_sampler_rules(const struct ha_sampler_settings *settings, struct ha_draw *ret_draw);

/* The bitmap of ids that a repetition penalty needs: words, and those of ids set in it.  An id that
 * is not of the vocabulary is left out. */
int64_t ha_sampler_seen_words(int64_t vocab);
void ha_sampler_see(uint32_t *seen, int64_t vocab, const int32_t *ids, int64_t n_ids);

#endif
