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

/* q, k, v of one fused row, each in a buffer of its own; gradients in double. */
struct problem {
    struct ha_segment segments[MAX_SEGMENTS];
    struct ha_attention shape;
    struct guarded q, k, v, dout;
    double *out, *lse, *dq, *dk, *dv;
};

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
    double top = -INFINITY, total = 0.0, delta = 0.0;

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
            p->dv[j * a->v_stride + kv * d + e] += probability * (double)dout[e];
            dp[j] += (double)dout[e] * v;
        }
        delta += probability * dp[j];
        score[j] = probability;
    }
    for (int64_t j = 0; j < a->n_tokens; j++)
        for (int64_t e = 0; e < d; e++) {
            double ds = score[j] * (dp[j] - delta) * (double)a->scale;

            p->dq[t * a->q_stride + h * d + e] +=
                ds * (double)p->k.data[j * a->k_stride + kv * d + e];
            p->dk[j * a->k_stride + kv * d + e] += ds * (double)q[e];
        }
    free(score);
    free(dp);
}

static void problem_create(struct problem *p, const struct layout *layout,
                           const struct heads *heads, struct random *random)
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
    a->q_stride = heads->n_heads * heads->head_dim + 5;
    a->k_stride = heads->n_kv_heads * heads->head_dim + 1;
    a->v_stride = heads->n_kv_heads * heads->head_dim + 2;
    a->out_stride = heads->n_heads * heads->head_dim;
    p->q = guarded_new(a->n_tokens * a->q_stride);
    p->k = guarded_new(a->n_tokens * a->k_stride);
    p->v = guarded_new(a->n_tokens * a->v_stride);
    p->dout = guarded_new(a->n_tokens * a->out_stride);
    random_fill(random, p->q.data, p->q.n, 2.0f);
    random_fill(random, p->k.data, p->k.n, 2.0f);
    random_fill(random, p->v.data, p->v.n, 1.0f);
    random_fill(random, p->dout.data, p->dout.n, 1.0f);
    p->out = doubles(p->dout.n);
    p->lse = doubles(a->n_heads * a->n_tokens);
    p->dq = doubles(p->q.n);
    p->dk = doubles(p->k.n);
    p->dv = doubles(p->v.n);
    for (int64_t s = 0; s < a->n_segments; s++)
        for (int64_t i = 0; i < p->segments[s].length; i++)
            for (int64_t h = 0; h < a->n_heads; h++)
                reference_row(p, &p->segments[s], p->segments[s].begin + i, h);
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

        problem_create(&p, &layouts[i], &head_sets[h], &random);
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
    problem_create(&p, &two, &head_sets[1], &random);
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
    problem_create(&p, &two, &head_sets[0], &random);
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
    problem_create(&p, &two, &head_sets[0], &random);
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
        const void *keys[3], *values[3];
        int64_t lengths[3], width;
        struct ha_decode_attention shape;

        problem_create(&p, &three, &head_sets[h], &random);
        width = p.shape.n_kv_heads * p.shape.head_dim;
        shape = (struct ha_decode_attention){3,
                                             p.shape.n_heads,
                                             p.shape.n_kv_heads,
                                             p.shape.head_dim,
                                             p.shape.scale,
                                             p.shape.q_stride,
                                             p.shape.out_stride,
                                             keys,
                                             values,
                                             lengths};
        for (int v = 0; v < n; v++) {
            struct guarded q = guarded_new(3 * p.shape.q_stride);
            struct guarded out = guarded_new(3 * p.shape.out_stride);
            struct guarded cache[6];

            for (int s = 0; s < 3; s++) {
                int64_t last = p.segments[s].begin + p.segments[s].length - 1;

                lengths[s] = p.segments[s].length;
                cache[2 * s] = guarded_new(lengths[s] * width);
                cache[2 * s + 1] = guarded_new(lengths[s] * width);
                for (int64_t t = 0; t < lengths[s]; t++) {
                    memcpy(cache[2 * s].data + t * width,
                           p.k.data + (p.segments[s].begin + t) * p.shape.k_stride,
                           (size_t)width * sizeof(float));
                    memcpy(cache[2 * s + 1].data + t * width,
                           p.v.data + (p.segments[s].begin + t) * p.shape.v_stride,
                           (size_t)width * sizeof(float));
                }
                keys[s] = cache[2 * s].data;
                values[s] = cache[2 * s + 1].data;
                memcpy(q.data + s * p.shape.q_stride, p.q.data + last * p.shape.q_stride,
                       (size_t)(p.shape.n_heads * p.shape.head_dim) * sizeof(float));
            }
            assert_ok(variants[v].ops->decode_attention(variants[v].backend, out.data, q.data,
                                                        &shape, &err));
            for (int s = 0; s < 3; s++) {
                int64_t last = p.segments[s].begin + p.segments[s].length - 1;

                assert_near(out.data + s * p.shape.out_stride, p.out + last * p.shape.out_stride,
                            p.shape.out_stride, 1e-6);
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
        cpu_only(families_do_not_influence_each_other),
        cpu_only(nan_shows_and_stays_in_its_family),
        cpu_only(specials_show_and_stay_in_their_family),
        cpu_only(decode_agrees_with_forward),
        cpu_only(bad_segments_are_refused),
    };

    return run_kernel_tests(tests);
}
