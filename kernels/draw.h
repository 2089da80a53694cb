/* draw.h - the arithmetic of drawing a token, the same on every backend
 *
 * A token's probability is its weight over the sum of weights; a weight is
 * exp(z - z of the likeliest) in units of 2^-40, made by whole-number arithmetic alone.
 * Sums of weights are then exact, in any order and on any device, so that the CPU and a GPU
 * draw the same token from the same logits.  What is less likely than the best by a factor of
 * 2^41 has weight 0 and is never drawn.  The rest is single operations on IEEE floats, which
 * no compiler may join to others.
 *
 * Compiled into kernels of a GPU too. */
#ifndef HA_KERNELS_DRAW_H
#define HA_KERNELS_DRAW_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/base/rng_philox.h"

#ifdef __CUDACC__
#define HA_DRAW_CALL __host__ __device__ __forceinline__
#else
#define HA_DRAW_CALL inline
#endif

enum { HA_DRAW_UNIT_BITS = 40, HA_DRAW_TERMS = 16 };

/* Sums of so many weights fit 63 bits. */
#define HA_DRAW_MOST_IDS ((int64_t)1 << 23)

static HA_DRAW_CALL uint64_t ha_draw_high(uint64_t a, uint64_t b)
{
#ifdef __CUDA_ARCH__
    return __umul64hi(a, b);
#else
    __extension__ typedef unsigned __int128 wide;

    return (uint64_t)((wide)a * b >> 64);
#endif
}

/* 2^f in units of 2^-62; f in [0, 1) in units of 2^-64.  Terms of (ln 2)^i / i!; never above 2,
 * never smaller for a larger f. */
static HA_DRAW_CALL uint64_t ha_draw_power(uint64_t f)
{
    const uint64_t terms[HA_DRAW_TERMS] = {
        0x4000000000000000u, 0x2c5c85fdf473de6au, 0xf5fdeffc162c754u, 0x38d611ae09417f1u,
        0x9d955b7dd273b9u,   0x15d87fe78a6731u,   0x2861225f0d8f0u,   0x3ff97f8b1161u,
        0x58b0088e972u,      0x6d494f4e57u,       0x7933d4562u,       0x7a32b1cdu,
        0x70ef594u,          0x605864u,           0x4c525u,           0x386du};
    uint64_t sum = terms[HA_DRAW_TERMS - 1];

    for (int i = HA_DRAW_TERMS - 2; i >= 0; i--)
        sum = terms[i] + ha_draw_high(sum, f);
    return sum;
}

/* The weight of a token whose logit lies at `below` <= 0 from the largest.  Never smaller for a
 * larger `below`. */
static HA_DRAW_CALL uint64_t ha_draw_weight(float below)
{
    const double steps = 0x1.71547652b82fep+0 * 0x1p50; /* 1 / ln 2 in units of 2^-50 */
    uint64_t down, whole, part;
    int shift;

    if (!(below > -28.5f))
        return 0;
    down = (uint64_t)(-(double)below * steps);
    whole = down >> 50;
    part = down & (((uint64_t)1 << 50) - 1);
    if (part == 0)
        return (uint64_t)1 << HA_DRAW_UNIT_BITS >> whole;
    shift = 62 - HA_DRAW_UNIT_BITS + 1 + (int)whole;
    if (shift >= 64)
        return 0;
    part = ha_draw_power((((uint64_t)1 << 50) - part) << 14);
    return (part + ((uint64_t)1 << (shift - 1))) >> shift;
}

/* Whole numbers in the order of floats that are no NaN; both zeros are one. */
static HA_DRAW_CALL uint32_t ha_draw_key(float z)
{
    uint32_t bits;

    memcpy(&bits, &z, sizeof(bits));
    if (bits == 0x80000000u)
        bits = 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The float of a key. */
static HA_DRAW_CALL float ha_draw_value(uint32_t key)
{
    uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
    float z;

    memcpy(&z, &bits, sizeof(z));
    return z;
}

static HA_DRAW_CALL float ha_draw_penalised(float z, float penalty)
{
    return z < 0.0f ? z * penalty : z / penalty;
}

/* top_p drops the least likely tokens as long as their share is not above 1 - top_p, both
 * rounded to f32 as in Transformers: ten equal logits with top_p = 0.9 lose one, though
 * 1 - 0.9 < 0.1. */
static HA_DRAW_CALL bool ha_draw_too_much(uint64_t dropped, uint64_t total, double top_p)
{
    return (float)((double)dropped / (double)total) > (float)(1.0 - top_p);
}

/* The sum of weights, in the order of ids, that the drawn token is the first to exceed. */
static HA_DRAW_CALL uint64_t ha_draw_threshold(uint64_t seed, uint64_t item, uint32_t position,
                                               uint64_t total)
{
    return ha_draw_high(ha_philox_bits(seed, HA_PHILOX_SAMPLING, item, position) << 11, total);
}

#endif
