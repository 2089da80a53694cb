/* segments.h - what every backend asks of the segments of an attention (internal to kernels) */
#ifndef HA_KERNELS_SEGMENTS_H
#define HA_KERNELS_SEGMENTS_H

#include "kernels/ops.h"

/* Segments lie in order and cover the tokens, heads fit, a prefix lies inside one
 * earlier segment.  Returns 0 or -EINVAL. */
int ha_attention_check(const struct ha_attention *shape, struct ha_error *err);

/* (query, key) pairs of one head. */
double ha_attention_pairs(const struct ha_attention *shape);

#endif
