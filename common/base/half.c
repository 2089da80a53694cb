#include "common/base/half.h"

#include <string.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

float ha_half_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1f;
    uint32_t mantissa = bits & 0x3ffu;

    if (exponent == 0)
        return float_of(bits_of((float)mantissa * 0x1p-24f) | sign);
    return float_of(sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | mantissa << 13);
}

float ha_half_from_bf16(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t ha_half_to_f16(float value)
{
    uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    uint32_t sign = bits >> 16 & 0x8000u;

    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) /* 65536; what rounds up to it carries into the exponent below */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Below 2^-14: adding 0.5 leaves the value in units of 2^-24, rounded by the addition. */
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    }
    magnitude += 0xfffu + (magnitude >> 13 & 1); /* to nearest, ties to even */
    return (uint16_t)(sign | ((magnitude - 0x38000000u) >> 13));
}

uint16_t ha_half_to_bf16(float value)
{
    uint32_t bits = bits_of(value);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
