/* leaf_exp.c - rows of exponentials: softmax, SwiGLU, the output head */
#include "kernels/cpu/leaf_parts.h"

#include <math.h>

#include "kernels/cpu/simd.h"

/* Vectors summed in f32 before the sum moves on to double. */
enum { BLOCK = 32 * HA_LANES };

/* Round to nearest even; a NaN stays one. */
static void round_bf16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits, rounded;

        memcpy(&bits, x + i, sizeof(bits));
        rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
        rounded = (bits & 0x7fffffff) > 0x7f800000 ? (bits | 0x400000) & 0xffff0000u : rounded;
        memcpy(x + i, &rounded, sizeof(rounded));
    }
}

static float largest(const float *x, int64_t n)
{
    const float lowest = -INFINITY;
    ha_vf best = ha_splat(lowest);
    float lane[HA_LANES], top = lowest;

    for (int64_t i = 0; i < n; i += HA_LANES)
        best = ha_max(ha_load_tail(x + i, n - i, lowest), best);
    memcpy(lane, &best, sizeof(lane));
    for (int j = 0; j < HA_LANES; j++)
        top = lane[j] > top ? lane[j] : top;
    return top;
}

static float exp_row(float *p, const float *s, float scale, float shift, int64_t n)
{
    ha_vf total = {0};

    for (int64_t i = 0; i < n; i += HA_LANES) {
        ha_vf e = ha_exp(ha_load_tail(s + i, n - i, 0.0f) * scale - shift);

        ha_store_tail(p + i, e, n - i);
        total += ha_load_tail(p + i, n - i, 0.0f); /* nothing of what lies past the end */
    }
    return ha_reduce_add(total);
}

static void softmax_backward(float *ds, float *p, const float *dp, float scale, float shift,
                             float delta, int64_t n)
{
    for (int64_t i = 0; i < n; i += HA_LANES) {
        int64_t left = n - i;
        ha_vf e = ha_exp(ha_load_tail(p + i, left, 0.0f) * scale - shift);
        ha_vf d = ha_load_tail(dp + i, left, 0.0f);

        ha_store_tail(p + i, e, left);
        ha_store_tail(ds + i, e * (d - delta) * scale, left);
    }
}

static double exp_sum(const float *x, float scale, float shift, int64_t n)
{
    double total = 0.0;

    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK;
        ha_vf part = {0};

        for (int64_t j = i; j < end; j += HA_LANES)
            part += ha_exp((ha_load_tail(x + j, end - j, -INFINITY) - shift) * scale);
        total += (double)ha_reduce_add(part);
    }
    return total;
}

HA_INLINE ha_vf exp_moment_vector(ha_vf x, float shift)
{
    ha_vf d = x - shift;
    ha_vf e = ha_exp(d);

    return ha_select(e == 0.0f, (ha_vf){0}, e * d);
}

static double exp_moment(const float *x, float shift, int64_t n)
{
    double total = 0.0;

    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t end = n - i < BLOCK ? n : i + BLOCK;
        ha_vf part = {0};

        for (int64_t j = i; j < end; j += HA_LANES)
            part += exp_moment_vector(ha_load_tail(x + j, end - j, -INFINITY), shift);
        total += (double)ha_reduce_add(part);
    }
    return total;
}

static void negative_exp(float *x, float shift, int64_t n)
{
    for (int64_t i = 0; i < n; i += HA_LANES) {
        int64_t left = n - i;

        ha_store_tail(x + i, -ha_exp(ha_load_tail(x + i, left, 0.0f) - shift), left);
    }
}

/* sigmoid(x) and 1 - sigmoid(x), both without cancellation or overflow. */
HA_INLINE ha_vf sigmoid(ha_vf x, ha_vf *ret_rest)
{
    ha_vi positive = x >= 0.0f;
    ha_vf e = ha_exp(ha_select(positive, -x, x));
    ha_vf high = 1.0f / (1.0f + e), low = e * high;

    *ret_rest = ha_select(positive, low, high);
    return ha_select(positive, high, low);
}

static void swiglu(float *out, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i += HA_LANES) {
        int64_t left = n - i;
        ha_vf g = ha_load_tail(gate + i, left, 0.0f), u = ha_load_tail(up + i, left, 0.0f);
        ha_vf rest;

        ha_store_tail(out + i, g * sigmoid(g, &rest) * u, left);
    }
}

/* d silu(g)/dg = s (1 + g (1 - s)), s = sigmoid(g). */
static void swiglu_backward(float *dgate, float *dup, const float *dout, const float *gate,
                            const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i += HA_LANES) {
        int64_t left = n - i;
        ha_vf g = ha_load_tail(gate + i, left, 0.0f), u = ha_load_tail(up + i, left, 0.0f);
        ha_vf d = ha_load_tail(dout + i, left, 0.0f), rest;
        ha_vf s = sigmoid(g, &rest);

        ha_store_tail(dgate + i, d * u * (s * (1.0f + g * rest)), left);
        ha_store_tail(dup + i, d * (g * s), left);
    }
}

void HA_LEAF_NAME(ha_leaf_set_exp)(struct ha_leaf *leaf)
{
    leaf->round_bf16 = round_bf16;
    leaf->largest = largest;
    leaf->exp_row = exp_row;
    leaf->softmax_backward = softmax_backward;
    leaf->exp_sum = exp_sum;
    leaf->exp_moment = exp_moment;
    leaf->negative_exp = negative_exp;
    leaf->swiglu = swiglu;
    leaf->swiglu_backward = swiglu_backward;
}
