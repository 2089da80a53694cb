#include "common/base/rng_numpy.h"

#include <stddef.h>

__extension__ typedef unsigned __int128 wide;

/* SeedSequence: a pool of four words, hashed and mixed; all arithmetic modulo 2^32. */

static uint32_t hash_in(uint32_t value, uint32_t *constant)
{
    value ^= *constant;
    *constant *= 0x931e8875u;
    value *= *constant;
    return value ^ value >> 16;
}

static uint32_t mix(uint32_t x, uint32_t y)
{
    uint32_t r = 0xca01f9ddu * x - 0x4973f715u * y;

    return r ^ r >> 16;
}

static void fill_pool(uint64_t seed, uint32_t pool[4])
{
    const uint32_t words[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), 0, 0};
    uint32_t constant = 0x43b0d7e5u;

    for (int i = 0; i < 4; i++)
        pool[i] = hash_in(words[i], &constant);
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++)
            if (from != to)
                pool[to] = mix(pool[to], hash_in(pool[from], &constant));
}

static void draw_state(const uint32_t pool[4], uint64_t out[4])
{
    uint32_t constant = 0x8b51f9ddu, words[8];

    for (int k = 0; k < 8; k++) {
        uint32_t d = pool[k % 4] ^ constant;

        constant *= 0x58f38dedu;
        d *= constant;
        words[k] = d ^ d >> 16;
    }
    for (int k = 0; k < 4; k++)
        out[k] = (uint64_t)words[2 * k + 1] << 32 | words[2 * k];
}

static wide load(const uint64_t parts[2])
{
    return (wide)parts[0] << 64 | parts[1];
}

static void store(uint64_t parts[2], wide value)
{
    parts[0] = (uint64_t)(value >> 64);
    parts[1] = (uint64_t)value;
}

static wide step(wide state, wide increment)
{
    const wide multiplier =
        (wide)UINT64_C(2549297995355413924) << 64 | UINT64_C(4865540595714422341);

    return state * multiplier + increment;
}

void ha_rng_numpy_init(struct ha_rng_numpy *rng, uint64_t seed)
{
    uint32_t pool[4];
    uint64_t v[4];
    wide increment;

    fill_pool(seed, pool);
    draw_state(pool, v);
    increment = load(v + 2) << 1 | 1;
    store(rng->increment, increment);
    store(rng->state, step(step(0, increment) + load(v), increment));
    rng->half = 0;
    rng->has_half = 0;
}

uint64_t ha_rng_numpy_u64(struct ha_rng_numpy *rng)
{
    wide state = step(load(rng->state), load(rng->increment));
    uint64_t folded = (uint64_t)(state >> 64) ^ (uint64_t)state;
    unsigned turn = (unsigned)(state >> 122);

    store(rng->state, state);
    return folded >> turn | folded << ((64 - turn) & 63);
}

uint32_t ha_rng_numpy_u32(struct ha_rng_numpy *rng)
{
    uint64_t both;

    if (rng->has_half) {
        rng->has_half = 0;
        return rng->half;
    }
    both = ha_rng_numpy_u64(rng);
    rng->half = (uint32_t)(both >> 32);
    rng->has_half = 1;
    return (uint32_t)both;
}

double ha_rng_numpy_double(struct ha_rng_numpy *rng)
{
    return (double)(ha_rng_numpy_u64(rng) >> 11) * 0x1p-53;
}

/* random_interval: a value in [0, max] by masked rejection. */
static uint64_t interval(struct ha_rng_numpy *rng, uint64_t max)
{
    uint64_t mask = max, value;

    if (max == 0)
        return 0;
    for (int shift = 1; shift < 64; shift *= 2)
        mask |= mask >> shift;
    do
        value = (max <= UINT32_MAX ? ha_rng_numpy_u32(rng) : ha_rng_numpy_u64(rng)) & mask;
    while (value > max);
    return value;
}

void ha_rng_numpy_permutation(struct ha_rng_numpy *rng, int64_t *order, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)interval(rng, (uint64_t)i), held = order[i];

        order[i] = order[j];
        order[j] = held;
    }
}
