/* rng_philox.h - Philox4x32-10 (Salmon et al., SC 2011; Random123)
 *
 * A counter-based generator: random numbers are a function of a key and a
 * counter, so that what is drawn for a place (a prompt and position, a feature
 * of a layer) depends on nothing that was drawn before.  The generator itself is
 * here in full, so that kernels of a GPU are compiled from the same lines. */
#ifndef HA_COMMON_BASE_RNG_PHILOX_H
#define HA_COMMON_BASE_RNG_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define HA_PHILOX_CALL __host__ __device__ __forceinline__
#else
#define HA_PHILOX_CALL inline
#endif

/* Multipliers of the even and the odd word, and what is added to the key in each round. */
#define HA_PHILOX_EVEN 0xd2511f53u
#define HA_PHILOX_ODD 0xcd9e8d57u
#define HA_PHILOX_KEY0 0x9e3779b9u
#define HA_PHILOX_KEY1 0xbb67ae85u
enum { HA_PHILOX_ROUNDS = 10 };

/* Four random words of a 128-bit counter under a 64-bit key. */
static HA_PHILOX_CALL void ha_philox(const uint32_t key[2], const uint32_t counter[4],
                                     uint32_t words[4])
{
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];

    for (int round = 0; round < HA_PHILOX_ROUNDS; round++) {
        uint64_t even = (uint64_t)HA_PHILOX_EVEN * c0, odd = (uint64_t)HA_PHILOX_ODD * c2;

        c0 = (uint32_t)(odd >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)odd;
        c2 = (uint32_t)(even >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)even;
        k0 += HA_PHILOX_KEY0;
        k1 += HA_PHILOX_KEY1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

/* What the numbers are for: uses never share a counter.  It is the lowest byte of the
 * counter's last word. */
enum ha_philox_use { HA_PHILOX_SAMPLING = 1, HA_PHILOX_DROPOUT = 2 };

/* 53 random bits: key = seed, counter = (item, position, use). */
static HA_PHILOX_CALL uint64_t ha_philox_bits(uint64_t seed, enum ha_philox_use use, uint64_t item,
                                              uint32_t position)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {(uint32_t)item, (uint32_t)(item >> 32), position, (uint32_t)use};
    uint32_t words[4];

    ha_philox(key, counter, words);
    return (uint64_t)words[0] << 21 | words[1] >> 11;
}

/* They as a number in [0, 1), a multiple of 2^-53. */
double ha_philox_uniform(uint64_t seed, enum ha_philox_use use, uint64_t item, uint32_t position);

#endif
