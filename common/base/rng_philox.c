#include "common/base/rng_philox.h"

double ha_philox_uniform(uint64_t seed, enum ha_philox_use use, uint64_t item, uint32_t position)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)item, (uint32_t)(item >> 32), position, (uint32_t)use};
    uint32_t words[4];

    ha_philox(key, counter, words);
    return (double)((uint64_t)words[0] << 21 | words[1] >> 11) * 0x1p-53;
}
