/* rng_torch.h - torch.Generator(device="cpu").manual_seed(seed), bit for bit
 *
 * MT19937 seeded with the low 32 bits of the seed.  It orders an epoch's pairs
 * (torch.randperm) and draws the start values of LoRA (uniform_). */
#ifndef HA_COMMON_BASE_RNG_TORCH_H
#define HA_COMMON_BASE_RNG_TORCH_H

#include <stdint.h>

struct ha_error;

struct ha_rng_torch {
    uint32_t state[624];
    int next; /* 0..624; 624: the state must be renewed before the next draw */
};

void ha_rng_torch_init(struct ha_rng_torch *rng, uint64_t seed);

uint32_t ha_rng_torch_u32(struct ha_rng_torch *rng);

/* One fp32 element of tensor.uniform_(from, to): 24 bits, then u * (to - from) + from without a
 * fused multiply-add. */
float ha_rng_torch_uniform(struct ha_rng_torch *rng, float from, float to);

/* torch.randperm(n) into order [n].  -ERANGE for n >= 214,748,364, where torch changes to
 * 64-bit draws. */
int ha_rng_torch_randperm(struct ha_rng_torch *rng, int64_t *order, int64_t n,
                          struct ha_error *err);

#endif
