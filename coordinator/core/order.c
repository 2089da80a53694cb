#include "coordinator/core/order.h"

#include <string.h>

#include "common/base/hash.h"

static void add_int(struct ha_sha256 *hash, int64_t value)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)value >> (8 * i));
    ha_sha256_update(hash, bytes, sizeof bytes);
}

static uint64_t finish(struct ha_sha256 *hash)
{
    uint8_t digest[HA_SHA256_BYTES];
    uint64_t value = 0;

    ha_sha256_final(hash, digest);
    for (int i = 0; i < 8; i++)
        value = value << 8 | digest[i];
    return value;
}

int64_t ha_order_turn(int64_t seed, const char *model, int64_t prompt, const char *cell,
                      int64_t sample, int64_t judge_sample)
{
    struct ha_sha256 hash;
    uint64_t block, place;

    ha_sha256_init(&hash);
    add_int(&hash, seed);
    add_int(&hash, prompt);
    ha_sha256_update(&hash, model, strlen(model) + 1);
    block = finish(&hash) >> 25;
    ha_sha256_init(&hash);
    add_int(&hash, seed);
    add_int(&hash, prompt);
    add_int(&hash, sample);
    add_int(&hash, judge_sample);
    ha_sha256_update(&hash, cell, strlen(cell) + 1);
    place = finish(&hash) >> 40;
    return (int64_t)(block << 24 | place);
}
