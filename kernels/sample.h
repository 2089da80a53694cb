/* sample.h - what every backend asks of a call of sample (internal to kernels) */
#ifndef HA_KERNELS_SAMPLE_H
#define HA_KERNELS_SAMPLE_H

#include "kernels/ops.h"

/* Sizes, not what lies on the device.  Returns 0 or -EINVAL. */
int ha_sample_check(const struct ha_sample *sample, struct ha_error *err);

#endif
