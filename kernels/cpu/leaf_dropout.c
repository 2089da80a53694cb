/* leaf_dropout.c - a row times its dropout mask
 *
 * A 64-bit lane holds one word of one counter in its low half; what a product or a
 * sum leaves in the high half is never read.  So a round of Philox is two products,
 * two shifts and four exclusive ors for HA_LANES / 2 counters, and nothing is moved
 * between lanes before the last one. */
#include "kernels/cpu/leaf_parts.h"

#include "common/base/rng_philox.h"
#include "kernels/cpu/simd.h"

enum { COUNTERS = HA_LANES / 2, GROUP = 4 * COUNTERS /* elements */ };

HA_INLINE ha_vq splat(uint64_t x)
{
    return (ha_vq){0} + x;
}

/* The words of counters (place, stream, last), last + 256, ..., in the order of elements. */
HA_INLINE void philox_group(const struct ha_dropout_mask *mask, const uint32_t place[2], ha_vq last,
                            ha_vu words[2])
{
    const ha_vq even_factor = splat(HA_PHILOX_EVEN), odd_factor = splat(HA_PHILOX_ODD);
    const ha_vq low = splat(0xffffffffu);
    ha_vq c0 = splat(place[0]), c1 = splat(place[1]), c2 = splat(mask->stream), c3 = last;
    uint32_t k0 = mask->key[0], k1 = mask->key[1];
    ha_vq first, second;

    HA_UNROLL
    for (int round = 0; round < HA_PHILOX_ROUNDS; round++) {
        ha_vq even = ha_multiply_low(c0, even_factor), odd = ha_multiply_low(c2, odd_factor);

        c0 = odd >> 32 ^ c1 ^ splat(k0);
        c1 = odd;
        c2 = even >> 32 ^ c3 ^ splat(k1);
        c3 = even;
        k0 += HA_PHILOX_KEY0;
        k1 += HA_PHILOX_KEY1;
    }
    first = (c0 & low) | c1 << 32;
    second = (c2 & low) | c3 << 32;
    words[0] = (ha_vu)HA_PAIR_LOW(first, second);
    words[1] = (ha_vu)HA_PAIR_HIGH(first, second);
}

HA_INLINE void drop_vector(float *out, const float *x, ha_vu words,
                           const struct ha_dropout_mask *mask, bool accumulate, int64_t n)
{
    ha_vi kept = words >= (ha_vu){0} + mask->threshold;
    ha_vf y = ha_load_tail(x, n, 0.0f) * ha_select(kept, ha_splat(mask->scale), ha_splat(0.0f));

    if (accumulate)
        y += ha_load_tail(out, n, 0.0f);
    ha_store_tail(out, y, n);
}

static void dropout(float *out, const float *x, const struct ha_dropout_mask *mask,
                    const uint32_t place[2], bool accumulate, int64_t n)
{
    uint64_t first[COUNTERS];
    ha_vq last;

    for (uint64_t i = 0; i < COUNTERS; i++)
        first[i] = HA_PHILOX_DROPOUT + (i << 8);
    memcpy(&last, first, sizeof(last));
    for (int64_t i = 0; i < n; i += GROUP) {
        ha_vu words[2];

        philox_group(mask, place, last, words);
        drop_vector(out + i, x + i, words[0], mask, accumulate, n - i);
        if (n - i > HA_LANES)
            drop_vector(out + i + HA_LANES, x + i + HA_LANES, words[1], mask, accumulate,
                        n - i - HA_LANES);
        last += (uint64_t)COUNTERS << 8;
    }
}

void HA_LEAF_NAME(ha_leaf_set_dropout)(struct ha_leaf *leaf)
{
    leaf->dropout = dropout;
}
