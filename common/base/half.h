/* half.h - the two 16-bit float types of model files, one value at a time
 *
 * F16 is IEEE binary16, BF16 the upper half of an f32.  Narrowing rounds to the
 * nearest value, ties to even, as PyTorch and NumPy do; what is too large
 * becomes infinity, NaN stays a (quiet) NaN. */
#ifndef HA_COMMON_BASE_HALF_H
#define HA_COMMON_BASE_HALF_H

#include <stdint.h>

float ha_half_from_f16(uint16_t bits);
float ha_half_from_bf16(uint16_t bits);

uint16_t ha_half_to_f16(float value);
uint16_t ha_half_to_bf16(float value);

#endif
