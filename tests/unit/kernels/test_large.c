/* One layer's operations and the head at the shapes of the four reference models,
 * random bf16 weights, a handful of tokens; sampled elements against double. */
#include "tests/unit/kernels/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct model {
    const char *name;
    int64_t hidden, inter, n_heads, n_kv_heads, head_dim, vocabulary;
};

static const struct model models[] = {
    {"Llama-2-7B", 4096, 11008, 32, 32, 128, 32000},
    {"Llama-3.1-8B", 4096, 14336, 32, 8, 128, 128256},
    {"Qwen2.5-7B", 3584, 18944, 28, 4, 128, 152064},
    {"Qwen3-8B", 4096, 12288, 32, 8, 128, 151936},
};

enum { TOKENS = 9, SAMPLES = 40 };

static const struct ha_segment segments[] = {{0, 4, 0, 0}, {4, 3, 0, 4}, {7, 2, 0, 4}};

struct run {
    struct ha_backend *backend;
    const struct ha_ops *ops;
    struct random random;
};

static float widen(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;

    memcpy(&value, &wide, sizeof(value));
    return value;
}

/* Values of about +-0.03: sign, exponent and mantissa from cheap random bits. */
static uint16_t *random_weight(struct run *run, int64_t n)
{
    uint16_t *weight = malloc((size_t)n * sizeof(*weight));
    uint64_t bits = (uint64_t)random_below(&run->random, INT64_MAX) | 1;

    assert_non_null(weight);
    for (int64_t i = 0; i < n; i++) {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        weight[i] = (uint16_t)((bits >> 60 & 8) << 12 | (0x3c00 + (bits >> 40 & 0x1ff)));
    }
    return weight;
}

/* y (TOKENS, out) = x W^T and dx (TOKENS, in) = y W, both sampled. */
static void linear(struct run *run, const float *x, int64_t in, float *y, int64_t out)
{
    uint16_t *weight = random_weight(run, in * out);
    struct guarded dx = guarded_new(TOKENS * in);
    struct ha_matrix w = matrix_of(weight, HA_DTYPE_BF16, out, in, in);
    struct guarded copy = guarded_new(TOKENS * in);
    struct ha_matrix a = matrix_of(copy.data, HA_DTYPE_F32, TOKENS, in, in);
    struct ha_matrix c = matrix_of(y, HA_DTYPE_F32, TOKENS, out, out);
    struct ha_matrix d = matrix_of(dx.data, HA_DTYPE_F32, TOKENS, in, in);

    memcpy(copy.data, x, (size_t)(TOKENS * in) * sizeof(float));
    assert_ok(run->ops->gemm(run->backend, &c, &a, false, &w, true, 1.0f, 0.0f, &err));
    assert_ok(run->ops->gemm(run->backend, &d, &c, false, &w, false, 1.0f, 0.0f, &err));
    for (int s = 0; s < SAMPLES; s++) {
        int64_t t = random_below(&run->random, TOKENS), i = random_below(&run->random, in);
        int64_t o = s == 0 ? out - 1 : random_below(&run->random, out);
        double sum = 0.0, size = 0.0;

        for (int64_t j = 0; j < in; j++) {
            double term = (double)x[t * in + j] * (double)widen(weight[o * in + j]);

            sum += term;
            size += fabs(term);
        }
        assert_true(fabs(sum - (double)y[t * out + o]) <= 1e-6 * size);
        sum = size = 0.0;
        for (int64_t j = 0; j < out; j++) {
            double term = (double)y[t * out + j] * (double)widen(weight[j * in + i]);

            sum += term;
            size += fabs(term);
        }
        assert_true(fabs(sum - (double)dx.data[t * in + i]) <= 1e-6 * size);
    }
    guarded_free(dx);
    guarded_free(copy);
    free(weight);
}

/* Attention at real width: the rows of probabilities must sum to one, so with v of
 * ones the output is one, and shifting v by a constant moves no gradient of q. */
static void attention(struct run *run, const struct model *m, const float *q, const float *k)
{
    int64_t q_width = m->n_heads * m->head_dim, k_width = m->n_kv_heads * m->head_dim;
    struct ha_attention shape = {.n_tokens = TOKENS,
                                 .n_heads = m->n_heads,
                                 .n_kv_heads = m->n_kv_heads,
                                 .head_dim = m->head_dim,
                                 .scale = 1.0f / sqrtf((float)m->head_dim),
                                 .q_stride = q_width,
                                 .k_stride = k_width,
                                 .v_stride = k_width,
                                 .out_stride = q_width,
                                 .segments = segments,
                                 .n_segments = 3};
    struct guarded v = guarded_new(TOKENS * k_width), out = guarded_new(TOKENS * q_width);
    struct guarded lse = guarded_new(m->n_heads * TOKENS), dq = guarded_new(TOKENS * q_width);
    struct guarded dk = guarded_new(TOKENS * k_width), dv = guarded_new(TOKENS * k_width);

    for (int64_t i = 0; i < v.n; i++)
        v.data[i] = 1.0f;
    assert_ok(
        run->ops->attention_forward(run->backend, out.data, lse.data, q, k, v.data, &shape, &err));
    assert_ok(run->ops->attention_backward(run->backend, dq.data, dk.data, dv.data, q, out.data,
                                           lse.data, q, k, v.data, &shape, &err));
    for (int64_t i = 0; i < out.n; i++)
        assert_true(fabsf(out.data[i] - 1.0f) < 1e-6f && fabsf(dq.data[i]) < 1e-3f);
    guarded_free(v);
    guarded_free(out);
    guarded_free(lse);
    guarded_free(dq);
    guarded_free(dk);
    guarded_free(dv);
}

static void layer(struct run *run, const struct model *m)
{
    int64_t q_width = m->n_heads * m->head_dim, k_width = m->n_kv_heads * m->head_dim;
    struct guarded x = guarded_new(TOKENS * m->hidden), y = guarded_new(TOKENS * m->hidden);
    struct guarded q = guarded_new(TOKENS * q_width), k = guarded_new(TOKENS * k_width);
    struct guarded gate = guarded_new(TOKENS * m->inter), up = guarded_new(TOKENS * m->inter);
    struct guarded norm = guarded_new(m->hidden);

    random_fill(&run->random, x.data, x.n, 1.0f);
    random_fill(&run->random, norm.data, norm.n, 1.0f);
    assert_ok(run->ops->rmsnorm_forward(run->backend, x.data, NULL, x.data, norm.data, HA_DTYPE_F32,
                                        1e-5f, TOKENS, 1, m->hidden, m->hidden, m->hidden, &err));
    linear(run, x.data, m->hidden, q.data, q_width);
    linear(run, x.data, m->hidden, k.data, k_width);
    attention(run, m, q.data, k.data);
    linear(run, q.data, q_width, y.data, m->hidden);
    linear(run, x.data, m->hidden, gate.data, m->inter);
    linear(run, x.data, m->hidden, up.data, m->inter);
    assert_ok(run->ops->swiglu_forward(run->backend, up.data, gate.data, up.data, TOKENS, m->inter,
                                       m->inter, m->inter, &err));
    linear(run, up.data, m->inter, y.data, m->hidden);
    guarded_free(x);
    guarded_free(y);
    guarded_free(q);
    guarded_free(k);
    guarded_free(gate);
    guarded_free(up);
    guarded_free(norm);
}

/* One row of the head, in double; the gradient at a sampled place. */
static void check_head_row(struct run *run, const struct model *m, const float *hidden,
                           const uint16_t *weight, int32_t target, float logp, const float *dhidden)
{
    double *z = malloc((size_t)m->vocabulary * sizeof(*z)), sum = 0.0, gradient = 0.0;
    int64_t place = random_below(&run->random, m->hidden);

    assert_non_null(z);
    for (int64_t v = 0; v < m->vocabulary; v++) {
        z[v] = 0.0;
        for (int64_t j = 0; j < m->hidden; j++)
            z[v] += (double)hidden[j] * (double)widen(weight[v * m->hidden + j]);
        sum += exp(z[v]);
    }
    for (int64_t v = 0; v < m->vocabulary; v++)
        gradient +=
            ((v == target) - exp(z[v]) / sum) * (double)widen(weight[v * m->hidden + place]);
    assert_true(fabs(z[target] - log(sum) - (double)logp) < 1e-5);
    assert_true(fabs(gradient - (double)dhidden[place]) < 1e-6);
    free(z);
}

static void head(struct run *run, const struct model *m)
{
    uint16_t *weight = random_weight(run, m->vocabulary * m->hidden);
    struct guarded hidden = guarded_new(TOKENS * m->hidden);
    struct guarded dhidden = guarded_new(TOKENS * m->hidden), logp = guarded_new(TOKENS);
    int32_t targets[TOKENS];
    struct ha_head call = {
        .hidden = hidden.data,
        .hidden_stride = m->hidden,
        .weight = matrix_of(weight, HA_DTYPE_BF16, m->vocabulary, m->hidden, m->hidden),
        .targets = targets,
        .n_rows = TOKENS,
        .width = m->hidden,
        .logp = logp.data,
        .dhidden = dhidden.data};

    random_fill(&run->random, hidden.data, hidden.n, 1.0f);
    for (int i = 0; i < TOKENS; i++)
        targets[i] = (int32_t)(i ? random_below(&run->random, m->vocabulary) : m->vocabulary - 1);
    assert_ok(run->ops->head(run->backend, &call, &err));
    check_head_row(run, m, hidden.data, weight, targets[0], logp.data[0], dhidden.data);
    guarded_free(hidden);
    guarded_free(dhidden);
    guarded_free(logp);
    free(weight);
}

static void real_shapes(void **state)
{
    const struct model *m = *state;
    struct ha_backend_options options = {"cpu", 0, 0, (int64_t)256 << 20};
    struct run run = {.random = {51}};

    assert_ok(ha_backend_open(&options, &run.backend, &err));
    run.ops = ha_backend_ops(run.backend);
    layer(&run, m);
    head(&run, m);
    assert_true(ha_backend_flops(run.backend) > 0.0);
    ha_backend_close(run.backend);
}

int main(void)
{
    struct CMUnitTest tests[4];

    for (int i = 0; i < 4; i++)
        tests[i] = (struct CMUnitTest){.name = models[i].name,
                                       .test_func = real_shapes,
                                       .initial_state = (void *)(uintptr_t)&models[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
