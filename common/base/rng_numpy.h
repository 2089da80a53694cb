/* rng_numpy.h - numpy.random.default_rng(seed), bit for bit
 *
 * SeedSequence -> PCG64 (XSL-RR 128/64), as NumPy 1.19 to 2.5 have it.  It
 * chooses the rows of a run: datasets.shuffle(seed).select(range(n)). */
#ifndef HA_COMMON_BASE_RNG_NUMPY_H
#define HA_COMMON_BASE_RNG_NUMPY_H

#include <stdint.h>

struct ha_rng_numpy {
    uint64_t state[2], increment[2]; /* 128 bits each: high, low */
    uint32_t half;                   /* upper half of the last 64 bits drawn by a 32-bit draw */
    int has_half;
};

void ha_rng_numpy_init(struct ha_rng_numpy *rng, uint64_t seed);

uint64_t ha_rng_numpy_u64(struct ha_rng_numpy *rng);
uint32_t ha_rng_numpy_u32(struct ha_rng_numpy *rng); /* low half first */

/* Generator.random(): [0, 1) with 53 bits. */
double ha_rng_numpy_double(struct ha_rng_numpy *rng);

/* Generator.permutation(n) into order [n]. */
void ha_rng_numpy_permutation(struct ha_rng_numpy *rng, int64_t *order, int64_t n);

#endif
