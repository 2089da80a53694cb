/* simd.h - vectors of the instruction set that the including file is compiled for
 *
 * GCC and clang vector extensions; intrinsics only for loads and stores under a
 * mask and for wide products.  Loads and stores take any float address; the tail of a row is loaded
 * into a whole vector filled up with a value, so that every element is computed the same way. */
#ifndef HA_KERNELS_CPU_SIMD_H
#define HA_KERNELS_CPU_SIMD_H

#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { HA_LANES = 16 };
#elif defined(__AVX2__)
enum { HA_LANES = 8 };
#else
enum { HA_LANES = 4 };
#endif

#ifdef __clang__
#define HA_UNROLL _Pragma("unroll")
#else
#define HA_UNROLL _Pragma("GCC unroll 32")
#endif

#define HA_INLINE static inline __attribute__((always_inline, unused))

typedef float ha_vf __attribute__((vector_size(HA_LANES * 4)));
typedef int32_t ha_vi __attribute__((vector_size(HA_LANES * 4)));
typedef uint32_t ha_vu __attribute__((vector_size(HA_LANES * 4)));
typedef uint64_t ha_vq __attribute__((vector_size(HA_LANES * 4))); /* half as many lanes */
typedef uint16_t ha_vh __attribute__((vector_size(HA_LANES * 2)));
typedef double ha_vd __attribute__((vector_size(HA_LANES * 8)));

HA_INLINE ha_vf ha_load(const float *p)
{
    ha_vf v;

    memcpy(&v, p, sizeof(v));
    return v;
}

HA_INLINE void ha_store(float *p, ha_vf v)
{
    memcpy(p, &v, sizeof(v));
}

HA_INLINE ha_vf ha_splat(float x)
{
    return x - (ha_vf){0}; /* not 0 + x: that would lose the sign of -0 */
}

/* a where the mask is all ones, b where it is 0. */
HA_INLINE ha_vf ha_select(ha_vi mask, ha_vf a, ha_vf b)
{
    return (ha_vf)(((ha_vi)a & mask) | ((ha_vi)b & ~mask));
}

/* ha_load_tail: the first n elements, at most HA_LANES, the rest is `fill`;
 * ha_store_tail stores as many.  Nothing behind them is touched. */
#if defined(__AVX512F__)

HA_INLINE __mmask16 ha_tail_mask(int64_t n)
{
    return (__mmask16)((1u << n) - 1);
}

HA_INLINE ha_vf ha_load_tail(const float *p, int64_t n, float fill)
{
    if (n >= HA_LANES)
        return ha_load(p);
    return (ha_vf)_mm512_mask_loadu_ps((__m512)ha_splat(fill), ha_tail_mask(n), p);
}

HA_INLINE void ha_store_tail(float *p, ha_vf v, int64_t n)
{
    if (n >= HA_LANES)
        ha_store(p, v);
    else
        _mm512_mask_storeu_ps(p, ha_tail_mask(n), (__m512)v);
}

#elif defined(__AVX2__)

HA_INLINE ha_vi ha_tail_mask(int64_t n)
{
    const ha_vi lane = {0, 1, 2, 3, 4, 5, 6, 7};

    return lane < (ha_vi){0} + (int32_t)n;
}

HA_INLINE ha_vf ha_load_tail(const float *p, int64_t n, float fill)
{
    ha_vi mask;

    if (n >= HA_LANES)
        return ha_load(p);
    mask = ha_tail_mask(n);
    return ha_select(mask, (ha_vf)_mm256_maskload_ps(p, (__m256i)mask), ha_splat(fill));
}

HA_INLINE void ha_store_tail(float *p, ha_vf v, int64_t n)
{
    if (n >= HA_LANES)
        ha_store(p, v);
    else
        _mm256_maskstore_ps(p, (__m256i)ha_tail_mask(n), (__m256)v);
}

#else

HA_INLINE ha_vf ha_load_tail(const float *p, int64_t n, float fill)
{
    ha_vf v = ha_splat(fill);

    if (n >= HA_LANES)
        return ha_load(p);
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
}

HA_INLINE void ha_store_tail(float *p, ha_vf v, int64_t n)
{
    if (n >= HA_LANES)
        ha_store(p, v);
    else
        memcpy(p, &v, (size_t)n * sizeof(float));
}

#endif

HA_INLINE ha_vf ha_max(ha_vf a, ha_vf b)
{
    return ha_select(a > b, a, b);
}

/* Lanes added pairwise. */
HA_INLINE float ha_reduce_add(ha_vf v)
{
    float lane[HA_LANES];

    memcpy(lane, &v, sizeof(lane));
    for (int width = HA_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

HA_INLINE double ha_reduce_add_double(ha_vd v)
{
    double lane[HA_LANES];

    memcpy(lane, &v, sizeof(lane));
    for (int width = HA_LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

/* HA_PAIR_...: the 64-bit lanes of the first or the second half of two vectors, in turn. */
#if defined(__AVX512F__)
#define HA_PAIR_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HA_PAIR_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define HA_INTERLEAVE_LOW(a, b)                                                                    \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HA_INTERLEAVE_HIGH(a, b)                                                                   \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX2__)
#define HA_PAIR_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HA_PAIR_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define HA_INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HA_INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define HA_PAIR_LOW(a, b) __builtin_shufflevector(a, b, 0, 2)
#define HA_PAIR_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#define HA_INTERLEAVE_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HA_INTERLEAVE_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

/* Products of the low halves of 64-bit lanes; what their high halves hold does not matter. */
HA_INLINE ha_vq ha_multiply_low(ha_vq a, ha_vq b)
{
#if defined(__AVX512F__)
    return (ha_vq)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (ha_vq)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (ha_vq)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* Rows become columns: log2(lanes) rounds of interleaving rows half the block apart. */
HA_INLINE void ha_transpose(ha_vf row[HA_LANES])
{
    HA_UNROLL
    for (int round = 1; round < HA_LANES; round *= 2) {
        ha_vf next[HA_LANES];

        HA_UNROLL
        for (int i = 0; i < HA_LANES / 2; i++) {
            next[2 * i] = HA_INTERLEAVE_LOW(row[i], row[i + HA_LANES / 2]);
            next[2 * i + 1] = HA_INTERLEAVE_HIGH(row[i], row[i + HA_LANES / 2]);
        }
        HA_UNROLL
        for (int i = 0; i < HA_LANES; i++)
            row[i] = next[i];
    }
}

/* exp(x), about 1 ulp; infinity above 88.73, gradual underflow, NaN stays NaN.
 * x = n ln 2 + r, polynomial of Cephes' expf for exp(r), 2^n in two factors so
 * that neither over- nor underflows before the product does. */
HA_INLINE ha_vf ha_exp(ha_vf x)
{
    const ha_vf low = ha_splat(-104.0f), high = ha_splat(89.0f);
    const ha_vf magic = ha_splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    ha_vf clamped = ha_select(x < low, low, ha_select(x > high, high, x));
    ha_vf shifted = clamped * 1.44269504088896341f + magic;
    ha_vf n = shifted - magic;
    ha_vi whole = (ha_vi)shifted - (ha_vi)magic;
    ha_vi half = whole >> 1;
    ha_vf r = clamped - n * 0.693359375f;
    ha_vf y;

    r = r - n * -2.12194440e-4f;
    y = ha_splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    y = y * (ha_vf)((half + 127) << 23);
    return y * (ha_vf)((whole - half + 127) << 23);
}

HA_INLINE ha_vf ha_from_bf16(ha_vh bits)
{
    return (ha_vf)(__builtin_convertvector(bits, ha_vu) << 16);
}

/* The exponent is moved from bias 15 to 127 by a multiplication, which makes
 * subnormal halves right as well; infinity and NaN get their exponent set. */
HA_INLINE ha_vf ha_from_f16(ha_vh bits)
{
    ha_vu wide = __builtin_convertvector(bits, ha_vu);
    ha_vu magnitude = (wide & 0x7fff) << 13;
    ha_vf value = (ha_vf)magnitude * 0x1p112f;
    ha_vu special = (ha_vu)(magnitude >= (0x7c00u << 13)) & 0x7f800000u;

    return (ha_vf)((ha_vu)value | special | ((wide & 0x8000) << 16));
}

#endif
