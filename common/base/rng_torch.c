#include "common/base/rng_torch.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"

enum { WORDS = 624, SHIFT = 397 };

void ha_rng_torch_init(struct ha_rng_torch *rng, uint64_t seed)
{
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < WORDS; i++) {
        uint32_t before = rng->state[i - 1];

        rng->state[i] = 1812433253u * (before ^ before >> 30) + i;
    }
    rng->next = WORDS;
}

static void renew(struct ha_rng_torch *rng)
{
    uint32_t *s = rng->state;

    for (int i = 0; i < WORDS; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % WORDS] & 0x7fffffffu);

        s[i] = s[(i + SHIFT) % WORDS] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    rng->next = 0;
}

uint32_t ha_rng_torch_u32(struct ha_rng_torch *rng)
{
    uint32_t y;

    if (rng->next >= WORDS)
        renew(rng);
    y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

float ha_rng_torch_uniform(struct ha_rng_torch *rng, float from, float to)
{
    float u = (float)(ha_rng_torch_u32(rng) & 0xffffffu) * 0x1p-24f;
    /* A volatile product keeps the compiler from fusing it with the sum. */
    volatile float scaled = u * (to - from);

    return scaled + from;
}

int ha_rng_torch_randperm(struct ha_rng_torch *rng, int64_t *order, int64_t n, struct ha_error *err)
{
    if (n < 0 || n >= UINT32_MAX / 20)
        return ha_error_set(err, ERANGE, "%" PRId64 " elements are too many to be ordered", n);
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    for (int64_t i = 0; i + 1 < n; i++) {
        int64_t other = i + (int64_t)(ha_rng_torch_u32(rng) % (uint64_t)(n - i)), held = order[i];

        order[i] = order[other];
        order[other] = held;
    }
    return 0;
}
