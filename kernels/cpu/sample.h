/* sample.h - what a draw chooses from, on the host */
#ifndef HA_KERNELS_CPU_SAMPLE_H
#define HA_KERNELS_CPU_SAMPLE_H

#include "kernels/ops.h"

/* A token that may be drawn. */
struct ha_cpu_candidate {
    uint64_t weight; /* its probability is its share of the sum of weights */
    float logit;     /* after the settings */
    int32_t id;
};

/* Scratch of one draw over `vocab` ids; 8-byte aligned. */
int64_t ha_cpu_sample_bytes(int64_t vocab);

/* What the settings leave of a row of logits, in the order of ids (greedy: one candidate); lies
 * in the scratch.  Returns their number, 0 where the logits have diverged. */
int64_t ha_cpu_sample_candidates(const struct ha_draw *draw, const float *logits, int64_t vocab,
                                 void *scratch, const struct ha_cpu_candidate **ret_candidates);

#endif
