/* limit.h - reading HA_GPU_MEMORY_LIMIT */
#ifndef HA_KERNELS_CUDA_LIMIT_H
#define HA_KERNELS_CUDA_LIMIT_H

#include <stdint.h>

struct ha_error;

#define HA_CUDA_LIMIT_VARIABLE "HA_GPU_MEMORY_LIMIT"

/* A number of bytes, or of K, M, G or T (binary, also written KiB, MB ...): "24G" is
 * 24 * 2^30.  NULL and "" give 0, no limit.  Returns 0 or -EINVAL. */
int ha_cuda_limit_parse(const char *text, int64_t *ret_bytes, struct ha_error *err);

#endif
