/* rng_philox.h - Philox4x32-10 (Salmon et al., SC 2011; Random123)
 *
 * A counter-based generator: random numbers are a function of a key and a
 * counter, so that what is drawn for a place (a prompt and position, a feature
 * of a layer) depends on nothing that was drawn before. */
#ifndef HA_COMMON_BASE_RNG_PHILOX_H
#define HA_COMMON_BASE_RNG_PHILOX_H

#include <stdint.h>

/* Four random words of a 128-bit counter under a 64-bit key. */
void ha_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t words[4]);

/* What the numbers are for: uses never share a counter. */
enum ha_philox_use { HA_PHILOX_SAMPLING = 1, HA_PHILOX_DROPOUT = 2 };

/* Uniform in [0, 1), a multiple of 2^-53: key = seed, counter = (item, position, use). */
double ha_philox_uniform(uint64_t seed, enum ha_philox_use use, uint64_t item, uint32_t position);

#endif
