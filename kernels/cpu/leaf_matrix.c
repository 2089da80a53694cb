/* leaf_matrix.c - packing and the register tile of the matrix product
 *
 * A register tile is HA_MR rows by two vectors of columns.  Each element of c is
 * one chain of multiply-adds in the order of p, whatever the numbers of rows and
 * columns are: that is what makes results independent of how rows are grouped. */
#include "kernels/cpu/leaf_parts.h"

#include "kernels/cpu/simd.h"

enum {
    HA_MR = HA_LANES == 16 ? 12 : 6, /* accumulators: 2 * MR vectors of 32 or 16 registers */
    HA_NR = 2 * HA_LANES,
};

HA_INLINE ha_vf load_typed(const void *in, enum ha_dtype dtype, int64_t at)
{
    ha_vh bits;

    if (dtype == HA_DTYPE_F32)
        return ha_load((const float *)in + at);
    memcpy(&bits, (const uint16_t *)in + at, sizeof(bits));
    return dtype == HA_DTYPE_BF16 ? ha_from_bf16(bits) : ha_from_f16(bits);
}

/* The first n elements, at most HA_LANES, the rest is 0. */
HA_INLINE ha_vf load_typed_tail(const void *in, enum ha_dtype dtype, int64_t at, int64_t n)
{
    ha_vh bits = {0};

    if (dtype == HA_DTYPE_F32)
        return ha_load_tail((const float *)in + at, n, 0.0f);
    if (n >= HA_LANES)
        return load_typed(in, dtype, at);
    memcpy(&bits, (const uint16_t *)in + at, (size_t)n * sizeof(uint16_t));
    return dtype == HA_DTYPE_BF16 ? ha_from_bf16(bits) : ha_from_f16(bits);
}

/* HA_LANES of depth of HA_MR rows, transposed in registers; n of them are stored. */
HA_INLINE void pack_a_block(float *out, const float *a, int64_t stride, int64_t rows, int64_t n)
{
    float columns[HA_LANES * HA_MR + HA_LANES];
    ha_vf row[HA_LANES];

    HA_UNROLL
    for (int i = 0; i < HA_LANES; i++)
        row[i] = i < rows ? ha_load_tail(a + i * stride, n, 0.0f) : (ha_vf){0};
    ha_transpose(row);
    /* A vector is longer than a column of HA_MR: the next one overwrites the rest. */
    HA_UNROLL
    for (int i = 0; i < HA_LANES; i++)
        ha_store(columns + i * HA_MR, row[i]);
    memcpy(out, columns, (size_t)(n * HA_MR) * sizeof(float));
}

HA_INLINE void pack_a_rows(float *out, const float *a, int64_t stride, int64_t rows, int64_t depth)
{
    int64_t p = 0;

    for (; p + HA_LANES < depth && rows == HA_MR; p += HA_LANES) {
        ha_vf row[HA_LANES];

        HA_UNROLL
        for (int i = 0; i < HA_LANES; i++)
            row[i] = i < (int)HA_MR ? ha_load(a + i * stride + p) : (ha_vf){0};
        ha_transpose(row);
        HA_UNROLL
        for (int i = 0; i < HA_LANES; i++)
            ha_store(out + (p + i) * HA_MR, row[i]);
    }
    for (; p < depth; p += HA_LANES)
        pack_a_block(out + p * HA_MR, a + p, stride, rows,
                     depth - p < HA_LANES ? depth - p : HA_LANES);
}

/* For an instruction set whose vectors are shorter than a column. */
HA_INLINE void pack_a_scalar(float *out, const float *a, int64_t stride, int64_t rows,
                             int64_t depth)
{
    for (int64_t p = 0; p < depth; p++)
        for (int64_t i = 0; i < HA_MR; i++)
            out[p * HA_MR + i] = i < rows ? a[i * stride + p] : 0.0f;
}

HA_INLINE void pack_a_columns(float *out, const float *a, int64_t stride, int64_t rows,
                              int64_t depth)
{
    for (int64_t p = 0; p < depth; p++) {
        if (rows == HA_MR)
            memcpy(out + p * HA_MR, a + p * stride, HA_MR * sizeof(float));
        else
            for (int64_t i = 0; i < HA_MR; i++)
                out[p * HA_MR + i] = i < rows ? a[p * stride + i] : 0.0f;
    }
}

static void pack_a(float *out, const float *a, int64_t stride, bool transpose, int64_t rows,
                   int64_t depth)
{
    if (transpose)
        pack_a_columns(out, a, stride, rows, depth);
    else if ((int)HA_MR > (int)HA_LANES)
        pack_a_scalar(out, a, stride, rows, depth);
    else
        pack_a_rows(out, a, stride, rows, depth);
}

/* A strip of b: HA_LANES rows of `depth` <= STRIP elements in f32, read row by row, as
 * memory likes it.  The same part of the next slice is asked for on the way. */
enum { STRIP = 256, STRIP_STRIDE = STRIP + 16, LINE = 64 };

HA_INLINE void load_strip(float *strip, const void *b, enum ha_dtype dtype, int64_t stride,
                          int64_t rows, int64_t depth)
{
    int64_t element = dtype == HA_DTYPE_F32 ? 4 : 2;

    for (int64_t j = 0; j < HA_LANES; j++) {
        float *to = strip + j * STRIP_STRIDE;
        const char *row = (const char *)b + j * stride * element;
        int64_t p = 0;

        if (j >= rows) {
            memset(to, 0, STRIP_STRIDE * sizeof(float));
            continue;
        }
        for (; p + HA_LANES <= depth; p += HA_LANES)
            ha_store(to + p, load_typed(row, dtype, p));
        if (p < depth)
            ha_store(to + p, load_typed_tail(row, dtype, p, depth - p));
        for (int64_t at = depth * element; at < 2 * depth * element; at += LINE)
            __builtin_prefetch(row + at);
    }
}

HA_INLINE void pack_strip(float *out, const float *strip, int64_t depth)
{
    int64_t p = 0;

    for (; p < depth; p += HA_LANES) {
        ha_vf row[HA_LANES];

        HA_UNROLL
        for (int j = 0; j < HA_LANES; j++)
            row[j] = ha_load(strip + j * STRIP_STRIDE + p);
        ha_transpose(row);
        HA_UNROLL
        for (int j = 0; j < HA_LANES; j++)
            if (p + j < depth)
                ha_store(out + (p + j) * HA_NR, row[j]);
    }
}

HA_INLINE void pack_b_transposed(float *out, const void *b, enum ha_dtype dtype, int64_t stride,
                                 int64_t depth, int64_t cols)
{
    int64_t element = dtype == HA_DTYPE_F32 ? 4 : 2;
    float strip[HA_LANES * STRIP_STRIDE];

    for (int64_t j = 0; j < HA_NR; j += HA_LANES)
        for (int64_t p = 0; p < depth; p += STRIP) {
            int64_t n = depth - p < STRIP ? depth - p : STRIP;

            load_strip(strip, (const char *)b + (j * stride + p) * element, dtype, stride, cols - j,
                       n);
            pack_strip(out + p * HA_NR + j, strip, n);
        }
}

HA_INLINE void pack_b_plain(float *out, const void *b, enum ha_dtype dtype, int64_t stride,
                            int64_t depth, int64_t cols)
{
    for (int64_t p = 0; p < depth; p++) {
        if (cols == HA_NR) {
            ha_store(out + p * HA_NR, load_typed(b, dtype, p * stride));
            ha_store(out + p * HA_NR + HA_LANES, load_typed(b, dtype, p * stride + HA_LANES));
            continue;
        }
        for (int64_t j = 0; j < HA_NR; j += HA_LANES)
            ha_store(out + p * HA_NR + j,
                     cols > j ? load_typed_tail(b, dtype, p * stride + j, cols - j) : (ha_vf){0});
    }
}

/* One copy of the loops for each dtype. */
static void pack_b(float *out, const void *b, enum ha_dtype dtype, int64_t stride, bool transpose,
                   int64_t depth, int64_t cols)
{
    switch (dtype) {
    case HA_DTYPE_F32:
        if (transpose)
            pack_b_transposed(out, b, HA_DTYPE_F32, stride, depth, cols);
        else
            pack_b_plain(out, b, HA_DTYPE_F32, stride, depth, cols);
        break;
    case HA_DTYPE_BF16:
        if (transpose)
            pack_b_transposed(out, b, HA_DTYPE_BF16, stride, depth, cols);
        else
            pack_b_plain(out, b, HA_DTYPE_BF16, stride, depth, cols);
        break;
    case HA_DTYPE_F16:
        if (transpose)
            pack_b_transposed(out, b, HA_DTYPE_F16, stride, depth, cols);
        else
            pack_b_plain(out, b, HA_DTYPE_F16, stride, depth, cols);
        break;
    }
}

/* The first n elements of a vector of c, at most HA_LANES. */
HA_INLINE void store_part(float *c, ha_vf sum, int64_t n, float alpha, float beta)
{
    if (beta == 0.0f)
        ha_store_tail(c, sum * alpha, n);
    else
        ha_store_tail(c, sum * alpha + ha_load_tail(c, n, 0.0f) * beta, n);
}

/* `height` and `vectors` are constants at every call: the compiler makes one copy for each. */
HA_INLINE void multiply_size(int height, int vectors, float *c, int64_t c_stride, const float *a,
                             const float *b, int64_t depth, int64_t rows, int64_t cols, float alpha,
                             float beta)
{
    ha_vf first[HA_MR], second[HA_MR];

    HA_UNROLL
    for (int i = 0; i < height; i++)
        first[i] = second[i] = (ha_vf){0};
    for (int64_t p = 0; p < depth; p++) {
        ha_vf b0 = ha_load(b + p * HA_NR), b1 = ha_load(b + p * HA_NR + HA_LANES);

        HA_UNROLL
        for (int i = 0; i < height; i++) {
            ha_vf x = ha_splat(a[p * HA_MR + i]);

            first[i] += x * b0;
            if (vectors == 2)
                second[i] += x * b1;
        }
    }
    HA_UNROLL
    for (int i = 0; i < height; i++) {
        if (i >= rows)
            return;
        store_part(c + i * c_stride, first[i], cols, alpha, beta);
        if (vectors == 2)
            store_part(c + i * c_stride + HA_LANES, second[i], cols - HA_LANES, alpha, beta);
    }
}

HA_INLINE void multiply_vectors(int vectors, float *c, int64_t c_stride, const float *a,
                                const float *b, int64_t depth, int64_t rows, int64_t cols,
                                float alpha, float beta)
{
    if (rows == 1)
        multiply_size(1, vectors, c, c_stride, a, b, depth, rows, cols, alpha, beta);
    else if (rows == 2)
        multiply_size(2, vectors, c, c_stride, a, b, depth, rows, cols, alpha, beta);
    else if (rows <= 4)
        multiply_size(4, vectors, c, c_stride, a, b, depth, rows, cols, alpha, beta);
    else if (rows <= 6)
        multiply_size(6, vectors, c, c_stride, a, b, depth, rows, cols, alpha, beta);
#if defined(__AVX512F__)
    else if (rows <= 8)
        multiply_size(8, vectors, c, c_stride, a, b, depth, rows, cols, alpha, beta);
    else
        multiply_size(12, vectors, c, c_stride, a, b, depth, rows, cols, alpha, beta);
#endif
}

static void multiply(float *c, int64_t c_stride, const float *a, const float *b, int64_t depth,
                     int64_t rows, int64_t cols, float alpha, float beta)
{
    if (cols > HA_LANES)
        multiply_vectors(2, c, c_stride, a, b, depth, rows, cols, alpha, beta);
    else
        multiply_vectors(1, c, c_stride, a, b, depth, rows, cols, alpha, beta);
}

void HA_LEAF_NAME(ha_leaf_set_matrix)(struct ha_leaf *leaf)
{
    leaf->mr = HA_MR;
    leaf->nr = HA_NR;
    leaf->pack_a = pack_a;
    leaf->pack_b = pack_b;
    leaf->multiply = multiply;
}
