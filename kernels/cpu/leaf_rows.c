/* leaf_rows.c - sums, norms, rotations and updates of one row */
#include "kernels/cpu/leaf_parts.h"

#include <math.h>

#include "kernels/cpu/simd.h"

HA_INLINE ha_vf convert_vector(const uint16_t *in, enum ha_dtype dtype, int64_t n)
{
    ha_vh bits = {0};

    memcpy(&bits, in, (size_t)n * sizeof(*in));
    return dtype == HA_DTYPE_BF16 ? ha_from_bf16(bits) : ha_from_f16(bits);
}

static void convert(float *out, const void *in, enum ha_dtype dtype, int64_t n)
{
    const uint16_t *half = in;
    int64_t i = 0;

    if (dtype == HA_DTYPE_F32) {
        memcpy(out, in, (size_t)n * sizeof(float));
        return;
    }
    for (; i + HA_LANES <= n; i += HA_LANES)
        ha_store(out + i, convert_vector(half + i, dtype, HA_LANES));
    if (i < n)
        ha_store_tail(out + i, convert_vector(half + i, dtype, n - i), n - i);
}

static void add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void add_scaled(float *x, const float *y, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i += HA_LANES) {
        ha_vf a = ha_load_tail(x + i, n - i, 0.0f), b = ha_load_tail(y + i, n - i, 0.0f);

        ha_store_tail(x + i, a + b * scale, n - i);
    }
}

static void scale_row(float *x, float scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= scale;
}

static float dot(const float *x, const float *y, int64_t n)
{
    ha_vf sum0 = {0}, sum1 = {0};
    int64_t i = 0;

    for (; i + 2 * HA_LANES <= n; i += 2 * HA_LANES) {
        sum0 += ha_load(x + i) * ha_load(y + i);
        sum1 += ha_load(x + i + HA_LANES) * ha_load(y + i + HA_LANES);
    }
    for (; i + HA_LANES <= n; i += HA_LANES)
        sum0 += ha_load(x + i) * ha_load(y + i);
    if (i < n)
        sum1 += ha_load_tail(x + i, n - i, 0.0f) * ha_load_tail(y + i, n - i, 0.0f);
    return ha_reduce_add(sum0 + sum1);
}

/* HA_LANES keys at a time: their accumulators are transposed, then added.  `whole`: that many
 * keys of whole vectors, which the compiler then keeps in registers. */
HA_INLINE void dots_block(bool whole, float *out, const float *x, const float *rows, int64_t stride,
                          int64_t count, int64_t n)
{
    ha_vf part[HA_LANES] = {{0}}, sum;

    for (int64_t i = 0; i < n; i += HA_LANES) {
        ha_vf a = whole ? ha_load(x + i) : ha_load_tail(x + i, n - i, 0.0f);

        if (whole) {
            HA_UNROLL
            for (int r = 0; r < HA_LANES; r++)
                part[r] += a * ha_load(rows + r * stride + i);
        } else {
            for (int64_t r = 0; r < count; r++)
                part[r] += a * ha_load_tail(rows + r * stride + i, n - i, 0.0f);
        }
    }
    ha_transpose(part);
    sum = part[0];
    HA_UNROLL
    for (int i = 1; i < HA_LANES; i++)
        sum += part[i];
    ha_store_tail(out, sum, count);
}

static void dots(float *out, const float *x, const float *rows, int64_t stride, int64_t n_rows,
                 int64_t n)
{
    int64_t j = 0;

    for (; n % HA_LANES == 0 && j + HA_LANES <= n_rows; j += HA_LANES)
        dots_block(true, out + j, x, rows + j * stride, stride, HA_LANES, n);
    for (; j < n_rows; j += HA_LANES)
        dots_block(false, out + j, x, rows + j * stride, stride,
                   n_rows - j < HA_LANES ? n_rows - j : HA_LANES, n);
}

/* part[i][chain] += row[i] * weight for `width` vectors. */
HA_INLINE void mix_row(int width, ha_vf part[4][4], int chain, const float *row, float weight)
{
    HA_UNROLL
    for (int i = 0; i < width; i++)
        part[i][chain] += ha_load(row + i * HA_LANES) * weight;
}

/* Four accumulators, by row number modulo 4, for each of `width` whole vectors of columns. */
HA_INLINE void mix_whole(int width, float *out, const float *weight, const float *rows,
                         int64_t stride, int64_t n_rows)
{
    ha_vf part[4][4] = {{{0}}};
    int64_t j = 0;

    for (; j + 4 <= n_rows; j += 4) {
        HA_UNROLL
        for (int r = 0; r < 4; r++)
            mix_row(width, part, r, rows + (j + r) * stride, weight[j + r]);
    }
    HA_UNROLL
    for (int r = 0; r < 3; r++)
        if (j + r < n_rows)
            mix_row(width, part, r, rows + (j + r) * stride, weight[j + r]);
    HA_UNROLL
    for (int i = 0; i < width; i++)
        ha_store(out + i * HA_LANES, (part[i][0] + part[i][1]) + (part[i][2] + part[i][3]));
}

/* The last columns, fewer than a vector. */
HA_INLINE void mix_tail(float *out, const float *weight, const float *column, int64_t stride,
                        int64_t n_rows, int64_t left)
{
    ha_vf part[4] = {{0}};
    int64_t j = 0;

    for (; j + 4 <= n_rows; j += 4) {
        HA_UNROLL
        for (int r = 0; r < 4; r++)
            part[r] += ha_load_tail(column + (j + r) * stride, left, 0.0f) * weight[j + r];
    }
    for (int r = 0; j < n_rows; j++, r++)
        part[r] += ha_load_tail(column + j * stride, left, 0.0f) * weight[j];
    ha_store_tail(out, (part[0] + part[1]) + (part[2] + part[3]), left);
}

static void mix(float *out, const float *weight, const float *rows, int64_t stride, int64_t n_rows,
                int64_t n)
{
    int64_t i = 0;

    for (; i + 4 * HA_LANES <= n; i += 4 * HA_LANES)
        mix_whole(4, out + i, weight, rows + i, stride, n_rows);
    for (; i + HA_LANES <= n; i += HA_LANES)
        mix_whole(1, out + i, weight, rows + i, stride, n_rows);
    if (i < n)
        mix_tail(out + i, weight, rows + i, stride, n_rows, n - i);
}

HA_INLINE ha_vd to_double(ha_vf x)
{
    return __builtin_convertvector(x, ha_vd);
}

static double sum(const float *x, int64_t n)
{
    ha_vd total = {0};

    for (int64_t i = 0; i < n; i += HA_LANES)
        total += to_double(ha_load_tail(x + i, n - i, 0.0f));
    return ha_reduce_add_double(total);
}

static double sum_of_squares(const float *x, int64_t n)
{
    ha_vd total = {0};

    for (int64_t i = 0; i < n; i += HA_LANES) {
        ha_vd wide = to_double(ha_load_tail(x + i, n - i, 0.0f));

        total += wide * wide;
    }
    return ha_reduce_add_double(total);
}

static float rmsnorm(float *out, const float *x, const float *weight, float eps, int64_t n)
{
    float rstd = (float)(1.0 / sqrt(sum_of_squares(x, n) / (double)n + (double)eps));

    for (int64_t i = 0; i < n; i += HA_LANES) {
        ha_vf w = ha_load_tail(weight + i, n - i, 0.0f);

        ha_store_tail(out + i, ha_load_tail(x + i, n - i, 0.0f) * rstd * w, n - i);
    }
    return rstd;
}

/* dx = rstd (g - x rstd^2 mean(g x)) with g = weight dout. */
static void rmsnorm_backward(float *dx, const float *dout, const float *x, const float *weight,
                             float rstd, bool accumulate, int64_t n)
{
    ha_vd total = {0};
    float pull;

    for (int64_t i = 0; i < n; i += HA_LANES) {
        int64_t left = n - i;
        ha_vf g = ha_load_tail(dout + i, left, 0.0f) * ha_load_tail(weight + i, left, 0.0f);

        total += to_double(g) * to_double(ha_load_tail(x + i, left, 0.0f));
    }
    pull = (float)(ha_reduce_add_double(total) / (double)n * (double)rstd * (double)rstd);
    for (int64_t i = 0; i < n; i += HA_LANES) {
        int64_t left = n - i;
        ha_vf g = ha_load_tail(dout + i, left, 0.0f) * ha_load_tail(weight + i, left, 0.0f);
        ha_vf d = (g - ha_load_tail(x + i, left, 0.0f) * pull) * rstd;

        if (accumulate)
            d += ha_load_tail(dx + i, left, 0.0f);
        ha_store_tail(dx + i, d, left);
    }
}

static void rotate(float *lo, float *hi, const float *cosine, const float *sine, float sign,
                   int64_t n)
{
    for (int64_t i = 0; i < n; i += HA_LANES) {
        int64_t left = n - i;
        ha_vf c = ha_load_tail(cosine + i, left, 0.0f);
        ha_vf s = ha_load_tail(sine + i, left, 0.0f) * sign;
        ha_vf x = ha_load_tail(lo + i, left, 0.0f), y = ha_load_tail(hi + i, left, 0.0f);

        ha_store_tail(lo + i, x * c - y * s, left);
        ha_store_tail(hi + i, y * c + x * s, left);
    }
}

/* HA_LANES elements through plain loops of constant length: for the square root. */
HA_INLINE void adamw_block(float *param, float *m, float *v, const float *grad,
                           const struct ha_leaf_adamw *settings)
{
    for (int i = 0; i < HA_LANES; i++) {
        float g = grad[i] * settings->grad_scale;
        float root;

        m[i] += settings->blend1 * (g - m[i]);
        v[i] = settings->beta2 * v[i] + settings->blend2 * g * g;
        root = sqrtf(v[i]) * settings->root_scale + settings->eps;
        param[i] = param[i] * settings->decay - settings->step * (m[i] / root);
    }
}

static void adamw(float *param, float *m, float *v, const float *grad,
                  const struct ha_leaf_adamw *settings, int64_t n)
{
    for (int64_t i = 0; i < n; i += HA_LANES) {
        size_t bytes = (size_t)(n - i < HA_LANES ? n - i : HA_LANES) * sizeof(float);
        float p[HA_LANES] = {0}, m1[HA_LANES] = {0}, m2[HA_LANES] = {0}, g[HA_LANES] = {0};

        memcpy(p, param + i, bytes);
        memcpy(m1, m + i, bytes);
        memcpy(m2, v + i, bytes);
        memcpy(g, grad + i, bytes);
        adamw_block(p, m1, m2, g, settings);
        memcpy(param + i, p, bytes);
        memcpy(m + i, m1, bytes);
        memcpy(v + i, m2, bytes);
    }
}

void HA_LEAF_NAME(ha_leaf_set_rows)(struct ha_leaf *leaf)
{
    leaf->convert = convert;
    leaf->add = add;
    leaf->add_scaled = add_scaled;
    leaf->scale = scale_row;
    leaf->dot = dot;
    leaf->dots = dots;
    leaf->mix = mix;
    leaf->sum = sum;
    leaf->sum_of_squares = sum_of_squares;
    leaf->rmsnorm = rmsnorm;
    leaf->rmsnorm_backward = rmsnorm_backward;
    leaf->rotate = rotate;
    leaf->adamw = adamw;
}
