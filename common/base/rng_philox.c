#include "common/base/rng_philox.h"

double ha_philox_uniform(uint64_t seed, enum ha_philox_use use, uint64_t item, uint32_t position)
{
    return (double)ha_philox_bits(seed, use, item, position) * 0x1p-53;
}
