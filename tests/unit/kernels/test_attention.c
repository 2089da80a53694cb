#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SEGMENTS = 8 };

/* One packed case: lengths, and for each segment the segment it sees first (-1: none). */
struct layout {
    int64_t n_segments;
    int64_t length[MAX_SEGMENTS];
    int prefix[MAX_SEGMENTS];
};

struct heads {
    int64_t n_heads, n_kv_heads, head_dim;
};

static const struct layout layouts[] = {
    {1, {1}, {-1}},
    {2, {3, 17}, {-1, -1}},
    {3, {33, 5, 65}, {-1, 0, 0}},
    {6, {7, 0, 4, 100, 3, 130}, {-1, 0, 0, -1, 3, 3}},
    {4, {2, 300, 1, 97}, {-1, 0, 1, 1}},
};

static const struct heads head_sets[] = {
    {1, 1, 16}, {4, 2, 24}, {4, 1, 64}, {7, 1, 128}, {4, 4, 40}};

/* What a GPU's tensor cores do, where strides are whole pieces of 16 bytes. */
static const struct heads tensor_sets[] = {
    {1, 1, 64}, {2, 2, 96}, {4, 2, 128}, {6, 2, 64}, {3, 1, 128}};

/* q, k, v of one fused row, each in a buffer of its own; gradients in double.  Beside each result
 * stands what bf16 may cost a GPU: it rounds what it stores, and probabilities and the gradients
 * of scores before they are multiplied with values, keys and queries. */
struct problem {
    struct ha_segment segments[MAX_SEGMENTS];
    struct ha_attention shape;
    struct guarded q, k, v, dout;
    double *out, *lse, *dq, *dk, *dv;
    double *out_limit, *dq_limit, *dk_limit, *dv_limit;
};

static const double BF16_ROUNDING = 0x1p-8;

static double *doubles(int64_t n)
{
    double *x = calloc((size_t)n, sizeof(*x));

    assert_non_null(x);
    return x;
}

/* True when token t sees key j. */
static bool sees(const struct problem *p, const struct ha_segment *s, int64_t t, int64_t j)
{
    (void)p;
    return (j >= s->prefix_begin && j < s->prefix_begin + s->prefix_length) ||
           (j >= s->begin && j <= t);
}

/* Forward and backward for one query of one head, straight from the definition. */
static void reference_row(struct problem *p, const struct ha_segment *s, int64_t t, int64_t h)
{
    const struct ha_attention *a = &p->shape;
    int64_t kv = h / (a->n_heads / a->n_kv_heads), d = a->head_dim;
    const float *q = p->q.data + t * a->q_stride + h * d;
    const float *dout = p->dout.data + t * a->out_stride + h * d;
    double *score = doubles(a->n_tokens), *dp = doubles(a->n_tokens);
    double top = -INFINITY, total = 0.0, delta = 0.0, delta_limit = 0.0;

    for (int64_t j = 0; j < a->n_tokens; j++) {
        score[j] = -INFINITY;
        if (!sees(p, s, t, j))
            continue;
        score[j] = 0.0;
        for (int64_t e = 0; e < d; e++)
            score[j] += (double)q[e] * (double)p->k.data[j * a->k_stride + kv * d + e];
        score[j] *= (double)a->scale;
        top = fmax(top, score[j]);
    }
    for (int64_t j = 0; j < a->n_tokens; j++)
        total += exp(score[j] - top);
    p->lse[h * a->n_tokens + t] = top + log(total);
    for (int64_t j = 0; j < a->n_tokens; j++) {
        double probability = exp(score[j] - top) / total;

        for (int64_t e = 0; e < d; e++) {
            double v = (double)p->v.data[j * a->v_stride + kv * d + e];

            p->out[t * a->out_stride + h * d + e] += probability * v;
            p->out_limit[t * a->out_stride + h * d + e] += BF16_ROUNDING * probability * fabs(v);
            p->dv[j * a->v_stride + kv * d + e] += probability * (double)dout[e];
            p->dv_limit[j * a->v_stride + kv * d + e] +=
                BF16_ROUNDING * probability * fabs((double)dout[e]);
            dp[j] += (double)dout[e] * v;
        }
        delta += probability * dp[j];
        score[j] = probability;
    }
    for (int64_t e = 0; e < d; e++) {
        int64_t at = t * a->out_stride + h * d + e;

        p->out_limit[at] += BF16_ROUNDING * fabs(p->out[at]);
        delta_limit += p->out_limit[at] * fabs((double)dout[e]); /* made of the rounded output */
    }
    for (int64_t j = 0; j < a->n_tokens; j++)
        for (int64_t e = 0; e < d; e++) {
            double ds = score[j] * (dp[j] - delta) * (double)a->scale;
            double limit = BF16_ROUNDING * fabs(ds) + score[j] * delta_limit * (double)a->scale;
            double k = (double)p->k.data[j * a->k_stride + kv * d + e];

            p->dq[t * a->q_stride + h * d + e] += ds * k;
            p->dq_limit[t * a->q_stride + h * d + e] += limit * fabs(k);
            p->dk[j * a->k_stride + kv * d + e] += ds * (double)q[e];
            p->dk_limit[j * a->k_stride + kv * d + e] += limit * fabs((double)q[e]);
        }
    free(score);
    free(dp);
}

static void add_storing(double *limit, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        limit[i] += BF16_ROUNDING * fabs(x[i]);
}

/* Strides of odd lengths, or of whole pieces; queries of a scale that spreads attention, or one
 * that lets single keys win. */
static void problem_create_with(struct problem *p, const struct layout *layout,
                                const struct heads *heads, struct random *random, bool whole,
                                float query_scale)
{
    struct ha_attention *a = &p->shape;

    memset(p, 0, sizeof(*p));
    *a = (struct ha_attention){.n_heads = heads->n_heads,
                               .n_kv_heads = heads->n_kv_heads,
                               .head_dim = heads->head_dim,
                               .scale = 1.0f / sqrtf((float)heads->head_dim),
                               .segments = p->segments,
                               .n_segments = layout->n_segments};
    for (int64_t s = 0; s < layout->n_segments; s++) {
        struct ha_segment *segment = &p->segments[s];

        segment->begin = a->n_tokens;
        segment->length = layout->length[s];
        a->n_tokens += layout->length[s];
        if (layout->prefix[s] >= 0) {
            segment->prefix_begin = p->segments[layout->prefix[s]].begin;
            segment->prefix_length = p->segments[layout->prefix[s]].length;
        }
    }
    a->q_stride = heads->n_heads * heads->head_dim + (whole ? 24 : 5);
    a->k_stride = heads->n_kv_heads * heads->head_dim + (whole ? 8 : 1);
    a->v_stride = heads->n_kv_heads * heads->head_dim + (whole ? 16 : 2);
    a->out_stride = heads->n_heads * heads->head_dim;
    p->q = guarded_new(a->n_tokens * a->q_stride);
    p->k = guarded_new(a->n_tokens * a->k_stride);
    p->v = guarded_new(a->n_tokens * a->v_stride);
    p->dout = guarded_new(a->n_tokens * a->out_stride);
    random_fill(random, p->q.data, p->q.n, query_scale);
    random_fill(random, p->k.data, p->k.n, 2.0f);
    random_fill(random, p->v.data, p->v.n, 1.0f);
    random_fill(random, p->dout.data, p->dout.n, 1.0f);
    p->out = doubles(p->dout.n);
    p->lse = doubles(a->n_heads * a->n_tokens);
    p->dq = doubles(p->q.n);
    p->dk = doubles(p->k.n);
    p->dv = doubles(p->v.n);
    p->out_limit = doubles(p->dout.n);
    p->dq_limit = doubles(p->q.n);
    p->dk_limit = doubles(p->k.n);
    p->dv_limit = doubles(p->v.n);
    for (int64_t s = 0; s < a->n_segments; s++)
        for (int64_t i = 0; i < p->segments[s].length; i++)
            for (int64_t h = 0; h < a->n_heads; h++)
                reference_row(p, &p->segments[s], p->segments[s].begin + i, h);
    add_storing(p->dq_limit, p->dq, p->q.n);
    add_storing(p->dk_limit, p->dk, p->k.n);
    add_storing(p->dv_limit, p->dv, p->v.n);
}

/* Set number `set` of the running test's kind. */
static void problem_create(struct problem *p, const struct layout *layout, size_t set,
                           struct random *random)
{
    problem_create_with(p, layout, device_mode() ? &tensor_sets[set] : &head_sets[set], random,
                        device_mode(), 2.0f);
}

static void problem_destroy(struct problem *p)
{
    guarded_free(p->q);
    guarded_free(p->k);
    guarded_free(p->v);
    guarded_free(p->dout);
    free(p->out);
    free(p->lse);
    free(p->dq);
    free(p->dk);
    free(p->dv);
    free(p->out_limit);
    free(p->dq_limit);
    free(p->dk_limit);
    free(p->dv_limit);
}

enum { OUT, LSE, DQ, DK, DV, N_RESULTS };

static void run(const struct variant *variant, const struct problem *p,
                struct guarded result[N_RESULTS])
{
    result[OUT] = guarded_new(p->dout.n);
    result[LSE] = guarded_new(p->shape.n_heads * p->shape.n_tokens);
    result[DQ] = guarded_new(p->q.n);
    result[DK] = guarded_new(p->k.n);
    result[DV] = guarded_new(p->v.n);
    assert_ok(variant->ops->attention_forward(variant->backend, result[OUT].data, result[LSE].data,
                                              p->q.data, p->k.data, p->v.data, &p->shape, &err));
    assert_ok(variant->ops->attention_backward(
        variant->backend, result[DQ].data, result[DK].data, result[DV].data, p->dout.data,
        result[OUT].data, result[LSE].data, p->q.data, p->k.data, p->v.data, &p->shape, &err));
}

static void results_free(struct guarded result[N_RESULTS])
{
    for (int i = 0; i < N_RESULTS; i++)
        guarded_free(result[i]);
}

/* Within what bf16 costs and a twentieth of it, which is far more than f32 does. */
static void assert_within(const float *got, const double *want, const double *limit, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= 1.05 * limit[i] + 1e-6))
            fail_msg("element %lld is %.9g, expected %.9g (limit %g)", (long long)i, (double)got[i],
                     want[i], limit[i]);
}

static void case_within_bf16(const struct variant *variant, const struct layout *layout,
                             const struct heads *heads, bool whole, float query_scale)
{
    struct random random = {16};
    struct guarded result[N_RESULTS];
    struct problem p;

    problem_create_with(&p, layout, heads, &random, whole, query_scale);
    run(variant, &p, result);
    assert_within(result[OUT].data, p.out, p.out_limit, result[OUT].n);
    assert_near_f32(result[LSE].data, p.lse, result[LSE].n, 1e-6);
    assert_within(result[DQ].data, p.dq, p.dq_limit, result[DQ].n);
    assert_within(result[DK].data, p.dk, p.dk_limit, result[DK].n);
    assert_within(result[DV].data, p.dv, p.dv_limit, result[DV].n);
    results_free(result);
    problem_destroy(&p);
}

/* On a GPU: by the kernels for tensor cores, and by the plain ones for other widths and strides. */
static void agrees_with_double_within_bf16(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        case_within_bf16(&variants[0], &layouts[i], &tensor_sets[i], true, i % 2 ? 8.0f : 2.0f);
        if (i < 3)
            case_within_bf16(&variants[0], &layouts[i], &head_sets[i], false, 2.0f);
    }
    case_within_bf16(&variants[0], &layouts[2], &head_sets[3], false, 2.0f);
    variants_close(variants, n);
}

static void agrees_with_double(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {11};

    (void)state;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        size_t h = i % (sizeof(head_sets) / sizeof(head_sets[0]));
        struct guarded first[N_RESULTS] = {{0}};
        struct problem p;

        problem_create(&p, &layouts[i], h, &random);
        for (int v = 0; v < n; v++) {
            struct guarded result[N_RESULTS];

            run(&variants[v], &p, result);
            assert_near(result[OUT].data, p.out, result[OUT].n, 2e-6);
            assert_near_f32(result[LSE].data, p.lse, result[LSE].n, 1e-6);
            assert_near(result[DQ].data, p.dq, result[DQ].n, 3e-6);
            assert_near(result[DK].data, p.dk, result[DK].n, 3e-6);
            assert_near(result[DV].data, p.dv, result[DV].n, 3e-6);
            if (variants[v].threads == 1) {
                if (first[0].data)
                    results_free(first);
                memcpy(first, result, sizeof(first));
                continue;
            }
            for (int r = 0; r < N_RESULTS; r++)
                assert_same_bits(result[r].data, first[r].data, first[r].n);
            results_free(result);
        }
        results_free(first);
        problem_destroy(&p);
    }
    variants_close(variants, n);
}

/* A pair's results do not depend on what else is in the pack. */
static void families_do_not_influence_each_other(void **state)
{
    static const struct layout two = {6, {40, 9, 12, 120, 30, 7}, {-1, 0, 0, -1, 3, 3}};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {12};
    struct problem p;
    struct problem tail;
    int64_t begin;

    (void)state;
    problem_create(&p, &two, 1, &random);
    begin = p.segments[3].begin;
    tail = p;
    tail.shape.segments = tail.segments;
    tail.shape.n_segments = 3;
    tail.shape.n_tokens -= begin;
    for (int i = 0; i < 3; i++) {
        tail.segments[i] = p.segments[i + 3];
        tail.segments[i].begin -= begin;
        if (i > 0)
            tail.segments[i].prefix_begin -= begin;
    }
    tail.q.data += begin * p.shape.q_stride;
    tail.k.data += begin * p.shape.k_stride;
    tail.v.data += begin * p.shape.v_stride;
    tail.dout.data += begin * p.shape.out_stride;
    tail.q.n -= begin * p.shape.q_stride;
    tail.k.n -= begin * p.shape.k_stride;
    tail.v.n -= begin * p.shape.v_stride;
    tail.dout.n -= begin * p.shape.out_stride;
    for (int v = 0; v < n; v++) {
        struct guarded all[N_RESULTS], part[N_RESULTS];

        if (variants[v].threads != 1)
            continue;
        run(&variants[v], &p, all);
        run(&variants[v], &tail, part);
        for (int r = 0; r < N_RESULTS; r++)
            if (r != LSE)
                assert_same_bits(part[r].data, all[r].data + all[r].n - part[r].n, part[r].n);
        results_free(all);
        results_free(part);
    }
    problem_destroy(&p);
    variants_close(variants, n);
}

static void nan_shows_and_stays_in_its_family(void **state)
{
    static const struct layout two = {3, {40, 120, 3}, {-1, -1, 1}};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {13};
    struct problem p;

    (void)state;
    problem_create(&p, &two, 0, &random);
    p.k.data[41 * p.shape.k_stride] = NAN;
    for (int v = 0; v < n; v++) {
        struct guarded result[N_RESULTS];

        run(&variants[v], &p, result);
        for (int64_t t = 0; t < p.shape.n_tokens; t++) {
            if (t >= 42)
                assert_true(isnan(result[OUT].data[t * p.shape.out_stride]));
            else if (t < 40)
                assert_true(isfinite(result[OUT].data[t * p.shape.out_stride]) &&
                            isfinite(result[DK].data[t * p.shape.k_stride]) &&
                            isfinite(result[DQ].data[t * p.shape.q_stride]));
        }
        results_free(result);
    }
    problem_destroy(&p);
    variants_close(variants, n);
}

/* Rows [0, 40) of a result have the bits of the clean run, and some row after them is no
 * finite number. */
static bool stays_behind_row_40(const struct problem *p, const struct guarded clean[N_RESULTS],
                                const struct guarded got[N_RESULTS])
{
    const int64_t strides[N_RESULTS] = {p->shape.out_stride, 0, p->shape.q_stride,
                                        p->shape.k_stride, p->shape.v_stride};
    bool shown = false;

    for (int r = 0; r < N_RESULTS; r++) {
        int64_t first = 40 * strides[r];

        if (r == LSE) /* one head: a row of tokens */
            first = 40;
        assert_same_bits(got[r].data, clean[r].data, first);
        for (int64_t i = first; i < got[r].n; i++)
            shown = shown || !isfinite(got[r].data[i]);
    }
    return shown;
}

static void specials_show_and_stay_in_their_family(void **state)
{
    static const struct layout two = {3, {40, 120, 3}, {-1, -1, 1}};
    static const float specials[] = {NAN, INFINITY, -INFINITY};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {15};
    struct problem p;

    (void)state;
    problem_create(&p, &two, 0, &random);
    for (int v = 0; v < n; v++) {
        float *const poisoned[] = {
            p.q.data + 77 * p.shape.q_stride, p.k.data + 41 * p.shape.k_stride,
            p.v.data + 41 * p.shape.v_stride, p.dout.data + 161 * p.shape.out_stride};
        struct guarded clean[N_RESULTS], got[N_RESULTS];

        run(&variants[v], &p, clean);
        for (size_t i = 0; i < sizeof(poisoned) / sizeof(poisoned[0]); i++)
            for (size_t s = 0; s < 3; s++) {
                float kept = *poisoned[i];

                *poisoned[i] = specials[s];
                run(&variants[v], &p, got);
                assert_true(stays_behind_row_40(&p, clean, got));
                *poisoned[i] = kept;
                results_free(got);
            }
        results_free(clean);
    }
    problem_destroy(&p);
    variants_close(variants, n);
}

static void decode_agrees_with_forward(void **state)
{
    static const struct layout three = {3, {1, 33, 300}, {-1, -1, -1}};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {14};

    (void)state;
    for (size_t h = 0; h < sizeof(head_sets) / sizeof(head_sets[0]); h++) {
        struct problem p;
        struct ha_kv_rows caches[3];
        int32_t positions[3];
        int64_t width;
        struct ha_decode_attention shape;

        problem_create(&p, &three, h, &random);
        width = p.shape.n_kv_heads * p.shape.head_dim;
        shape = (struct ha_decode_attention){.n_rows = 3,
                                             .n_heads = p.shape.n_heads,
                                             .n_kv_heads = p.shape.n_kv_heads,
                                             .head_dim = p.shape.head_dim,
                                             .scale = p.shape.scale,
                                             .q_stride = p.shape.q_stride,
                                             .out_stride = p.shape.out_stride,
                                             .caches = caches,
                                             .positions = positions,
                                             .max_keys = 301};
        for (int v = 0; v < n; v++) {
            struct guarded q = guarded_new(3 * p.shape.q_stride);
            struct guarded out = guarded_new(3 * p.shape.out_stride);
            struct guarded cache[6];

            for (int s = 0; s < 3; s++) {
                int64_t length = p.segments[s].length, last = p.segments[s].begin + length - 1;

                positions[s] = (int32_t)(length - 1);
                cache[2 * s] = guarded_new(length * width);
                cache[2 * s + 1] = guarded_new(length * width);
                for (int64_t t = 0; t < length; t++) {
                    memcpy(cache[2 * s].data + t * width,
                           p.k.data + (p.segments[s].begin + t) * p.shape.k_stride,
                           (size_t)width * sizeof(float));
                    memcpy(cache[2 * s + 1].data + t * width,
                           p.v.data + (p.segments[s].begin + t) * p.shape.v_stride,
                           (size_t)width * sizeof(float));
                }
                caches[s] = (struct ha_kv_rows){cache[2 * s].data, cache[2 * s + 1].data, 0};
                memcpy(q.data + s * p.shape.q_stride, p.q.data + last * p.shape.q_stride,
                       (size_t)(p.shape.n_heads * p.shape.head_dim) * sizeof(float));
            }
            assert_ok(variants[v].ops->decode_attention(variants[v].backend, out.data, q.data,
                                                        &shape, &err));
            for (int s = 0; s < 3; s++) {
                int64_t last = p.segments[s].begin + p.segments[s].length - 1;

                if (device_mode())
                    assert_within(out.data + s * p.shape.out_stride,
                                  p.out + last * p.shape.out_stride,
                                  p.out_limit + last * p.shape.out_stride, p.shape.out_stride);
                else
                    assert_near(out.data + s * p.shape.out_stride,
                                p.out + last * p.shape.out_stride, p.shape.out_stride, 1e-6);
            }
            for (int i = 0; i < 6; i++)
                guarded_free(cache[i]);
            guarded_free(q);
            guarded_free(out);
        }
        problem_destroy(&p);
    }
    variants_close(variants, n);
}

/* ---- decoding on a GPU ---- */

/* A batch over caches of one buffer each for keys and values; row i has lengths[i] keys from
 * their begin. */
struct decoding {
    struct ha_decode_attention shape;
    struct ha_kv_rows caches[64];
    int32_t positions[64];
    struct guarded q, k, v;
};

static void decoding_create(struct decoding *d, const struct heads *heads, int64_t n_rows,
                            const int64_t *lengths, bool whole, struct random *random)
{
    int64_t width = heads->n_kv_heads * heads->head_dim, longest = 0;

    d->shape = (struct ha_decode_attention){
        .n_rows = n_rows,
        .n_heads = heads->n_heads,
        .n_kv_heads = heads->n_kv_heads,
        .head_dim = heads->head_dim,
        .scale = 1.0f / sqrtf((float)heads->head_dim),
        .q_stride = heads->n_heads * heads->head_dim + (whole ? 8 : 3),
        .out_stride = heads->n_heads * heads->head_dim,
        .caches = d->caches,
        .positions = d->positions,
    };
    for (int64_t i = 0; i < n_rows; i++)
        longest = lengths[i] > longest ? lengths[i] : longest;
    d->shape.max_keys = longest;
    d->q = guarded_new(n_rows * d->shape.q_stride);
    d->k = guarded_new(longest * width);
    d->v = guarded_new(longest * width);
    random_fill(random, d->q.data, d->q.n, 4.0f);
    random_fill(random, d->k.data, d->k.n, 2.0f);
    random_fill(random, d->v.data, d->v.n, 1.0f);
    for (int64_t i = 0; i < n_rows; i++) {
        d->caches[i] = (struct ha_kv_rows){d->k.data, d->v.data, 0};
        d->positions[i] = (int32_t)(lengths[i] - 1);
    }
}

static void decoding_destroy(struct decoding *d)
{
    guarded_free(d->q);
    guarded_free(d->k);
    guarded_free(d->v);
}

/* One head of one row against the definition. */
static void check_decoded(const struct decoding *d, const float *out, int64_t row, int64_t head)
{
    const struct ha_decode_attention *a = &d->shape;
    int64_t width = a->head_dim, stride = a->n_kv_heads * width;
    int64_t at = head / (a->n_heads / a->n_kv_heads) * width, n = d->positions[row] + 1;
    const float *q = d->q.data + row * a->q_stride + head * width;
    double *weight = doubles(n), *want = doubles(width), *limit = doubles(width);
    double top = -INFINITY, total = 0.0;

    for (int64_t j = 0; j < n; j++) {
        for (int64_t e = 0; e < width; e++)
            weight[j] += (double)q[e] * (double)d->k.data[j * stride + at + e];
        weight[j] *= (double)a->scale;
        top = fmax(top, weight[j]);
    }
    for (int64_t j = 0; j < n; j++)
        total += exp(weight[j] - top);
    for (int64_t j = 0; j < n; j++)
        for (int64_t e = 0; e < width; e++) {
            double part = exp(weight[j] - top) / total * (double)d->v.data[j * stride + at + e];

            want[e] += part;
            limit[e] += BF16_ROUNDING * fabs(part);
        }
    add_storing(limit, want, width);
    assert_within(out + row * a->out_stride + head * width, want, limit, width);
    free(weight);
    free(want);
    free(limit);
}

static void check_decoding(const struct variant *variant, const struct heads *heads, int64_t n_rows,
                           const int64_t *lengths, bool whole)
{
    struct random random = {17};
    struct decoding d;
    struct guarded out;

    decoding_create(&d, heads, n_rows, lengths, whole, &random);
    out = guarded_new(n_rows * d.shape.out_stride);
    assert_ok(variant->ops->decode_attention(variant->backend, out.data, d.q.data, &d.shape, &err));
    for (int64_t row = 0; row < n_rows; row++)
        for (int64_t head = 0; head < heads->n_heads; head++)
            check_decoded(&d, out.data, row, head);
    guarded_free(out);
    decoding_destroy(&d);
}

/* Groups over 16 heads, lengths around tiles and chunks, a width and a stride for the plain
 * kernel. */
static void decode_of_other_heads(void **state)
{
    static const int64_t lengths[] = {1, 31, 32, 129, 511, 512, 513, 1090};
    static const int64_t short_ones[] = {1, 40};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    check_decoding(&variants[0], &(struct heads){20, 1, 64}, 8, lengths, true);
    check_decoding(&variants[0], &(struct heads){3, 3, 96}, 2, lengths + 5, true);
    check_decoding(&variants[0], &(struct heads){7, 1, 128}, 2, lengths + 6, true);
    check_decoding(&variants[0], &(struct heads){4, 2, 40}, 2, short_ones, true);
    check_decoding(&variants[0], &(struct heads){2, 1, 64}, 2, short_ones, false);
    variants_close(variants, n);
}

/* Of three chunks of values the second takes back what the first gives, all keys being alike: the
 * third is what is left where chunks are joined in order, and is lost in another. */
static void make_order_matter(struct decoding *d, int64_t chunk)
{
    int64_t width = d->shape.n_kv_heads * d->shape.head_dim;

    memset(d->k.data, 0, (size_t)d->k.n * sizeof(float));
    for (int64_t i = 0; i < chunk * width; i++) {
        d->v.data[i] *= 0x1p17f;
        d->v.data[i + chunk * width] = -d->v.data[i];
    }
}

/* A long sequence alone is shared among blocks; beside many others it is not.  How many keys it
 * might have changes nothing either. */
static void decode_has_the_same_bits_in_any_batch(void **state)
{
    enum { ROWS = 56 };
    static const struct heads heads = {10, 5, 64};
    int64_t lengths[ROWS];
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {18};
    struct decoding d;
    struct guarded all, alone;

    (void)state;
    for (int64_t i = 0; i < ROWS; i++)
        lengths[i] = i == 0 ? 1100 : 1 + i % 3;
    decoding_create(&d, &heads, ROWS, lengths, true, &random);
    make_order_matter(&d, 512);
    all = guarded_new(ROWS * d.shape.out_stride);
    alone = guarded_new(d.shape.out_stride);
    assert_ok(
        variants[0].ops->decode_attention(variants[0].backend, all.data, d.q.data, &d.shape, &err));
    d.shape.n_rows = 1;
    assert_ok(variants[0].ops->decode_attention(variants[0].backend, alone.data, d.q.data, &d.shape,
                                                &err));
    assert_same_bits(all.data, alone.data, d.shape.out_stride);
    d.shape.max_keys = 5000;
    assert_ok(variants[0].ops->decode_attention(variants[0].backend, alone.data, d.q.data, &d.shape,
                                                &err));
    assert_same_bits(all.data, alone.data, d.shape.out_stride);
    guarded_free(all);
    guarded_free(alone);
    decoding_destroy(&d);
    variants_close(variants, n);
}

/* New keys and values come to their positions in a layer, and nothing else changes. */
static void append_puts_rows_in_their_places(void **state)
{
    enum { ROWS = 3, ROOM = 5, LAYERS = 3, LAYER = 1 };
    static const int64_t widths[] = {5, 64};
    static const int32_t positions[ROWS] = {0, ROOM - 1, 2};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct random random = {19};

    (void)state;
    for (size_t w = 0; w < sizeof(widths) / sizeof(widths[0]); w++) {
        int64_t width = widths[w], stride = 2 * width, layer = ROOM * width, at = LAYER * layer;
        struct guarded rows = guarded_new(ROWS * stride), caches[2 * ROWS];
        struct ha_kv_rows where[ROWS];

        random_fill(&random, rows.data, rows.n, 1.0f);
        for (int i = 0; i < 2 * ROWS; i++)
            caches[i] = guarded_new(LAYERS * layer);
        for (int i = 0; i < ROWS; i++)
            where[i] = (struct ha_kv_rows){caches[2 * i].data, caches[2 * i + 1].data, layer};
        for (int v = 0; v < n; v++) {
            for (int i = 0; i < 2 * ROWS; i++)
                memset(caches[i].data, 0, (size_t)caches[i].n * sizeof(float));
            assert_ok(variants[v].ops->kv_append(variants[v].backend, where, positions, LAYER,
                                                 rows.data, rows.data + width, ROWS, width, stride,
                                                 &err));
            for (int i = 0; i < 2 * ROWS; i++)
                for (int64_t e = 0; e < LAYERS * layer; e++) {
                    int64_t col = e - at - positions[i / 2] * width;
                    bool new = col >= 0 && col < width;

                    assert_true(caches[i].data[e] ==
                                (new ? rows.data[i / 2 * stride + i % 2 * width + col] : 0.0f));
                }
        }
        for (int i = 0; i < 2 * ROWS; i++)
            guarded_free(caches[i]);
        guarded_free(rows);
    }
    variants_close(variants, n);
}

static void wide_heads_are_refused(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    struct ha_segment segment = {0, 1, 0, 0};
    struct ha_attention shape = {1, 1, 1, 513, 1.0f, 513, 513, 513, 513, &segment, 1};
    struct guarded x = guarded_new(513);
    struct ha_error err;

    (void)state;
    assert_int_equal(variants[0].ops->attention_forward(variants[0].backend, x.data, NULL, x.data,
                                                        x.data, x.data, &shape, &err),
                     -ENOTSUP);
    assert_non_null(strstr(err.text, "513"));
    guarded_free(x);
    variants_close(variants, n);
}

static void bad_segments_are_refused(void **state)
{
    static const struct ha_segment bad[][2] = {
        {{0, 3, 0, 0}, {4, 4, 0, 0}},  /* a gap */
        {{0, 3, 0, 0}, {3, 6, 0, 0}},  /* past the end */
        {{0, 3, 0, 0}, {3, 4, 0, 0}},  /* not all tokens */
        {{0, 3, 0, 0}, {3, 5, 1, 3}},  /* a prefix longer than its segment */
        {{0, 3, 0, 0}, {3, 5, 3, 2}},  /* a prefix that is the segment itself */
        {{0, 3, 0, 0}, {3, 5, 0, -1}}, /* a negative prefix */
    };
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);
    float x[8 * 16] = {0};
    struct ha_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ha_attention shape = {8, 1, 1, 16, 0.25f, 16, 16, 16, 16, bad[i], 2};

        assert_int_equal(
            variants[0].ops->attention_forward(variants[0].backend, x, NULL, x, x, x, &shape, &err),
            -EINVAL);
    }
    variants_close(variants, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cpu_only(agrees_with_double),
        device_only(agrees_with_double_within_bf16),
        both(families_do_not_influence_each_other),
        both(nan_shows_and_stays_in_its_family),
        both(specials_show_and_stay_in_their_family),
        both(decode_agrees_with_forward),
        both(append_puts_rows_in_their_places),
        device_only(decode_has_the_same_bits_in_any_batch),
        device_only(decode_of_other_heads),
        device_only(wide_heads_are_refused),
        both(bad_segments_are_refused),
    };

    return run_kernel_tests(tests);
}
