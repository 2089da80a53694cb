/* NaN and infinity as ops.h has them: they show in the results that are computed from
 * them and change no bit of any other.  The operations with a whole reference of their
 * own (gemm, attention) have more of this in their files. */
#include "tests/unit/kernels/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 5, COLS = 12, VOCAB = 40, MAX_OUT = ROWS * VOCAB };

static const float specials[] = {NAN, INFINITY, -INFINITY};

static struct guarded filled(uint64_t seed, int64_t n)
{
    struct random random = {seed};
    struct guarded x = guarded_new(n);

    random_fill(&random, x.data, n, 1.0f);
    return x;
}

/* One operation on input x (ROWS, COLS) that makes n_out values. */
struct operation {
    const char *name;
    int64_t n_out;
    void (*run)(const struct variant *variant, float *out, const float *x);
    /* Whether out[i] is computed from x[row, col]. */
    bool (*touched)(int64_t i, int64_t row, int64_t col);
};

static void add_bias(const struct variant *v, float *out, const float *x)
{
    struct guarded bias = filled(1, COLS);

    memcpy(out, x, ROWS * COLS * sizeof(float));
    assert_ok(v->ops->add_bias(v->backend, out, bias.data, HA_DTYPE_F32, ROWS, COLS, COLS, &err));
    guarded_free(bias);
}

/* x is the bias' row 0; added to ones. */
static void take_bias(const struct variant *v, float *out, const float *x)
{
    for (int i = 0; i < ROWS * COLS; i++)
        out[i] = 1.0f;
    assert_ok(v->ops->add_bias(v->backend, out, x, HA_DTYPE_F32, ROWS, COLS, COLS, &err));
}

static const int32_t ids[ROWS] = {2, 0, 2, 4, 1};
static const int64_t places[ROWS] = {2, 0, 2, 4, 1};

static void embed(const struct variant *v, float *out, const float *x)
{
    struct guarded table = guarded_new(ROWS * COLS);
    struct ha_matrix matrix = matrix_of(table.data, HA_DTYPE_F32, ROWS, COLS, COLS);

    memcpy(table.data, x, ROWS * COLS * sizeof(float));
    assert_ok(v->ops->embed_forward(v->backend, out, &matrix, ids, ROWS, &err));
    guarded_free(table);
}

static void gather(const struct variant *v, float *out, const float *x)
{
    assert_ok(v->ops->gather_rows(v->backend, out, x, places, ROWS, COLS, &err));
}

static void scatter(const struct variant *v, float *out, const float *x)
{
    static const float coefficient[ROWS] = {1, -2, 0.5f, 3, 1};

    for (int i = 0; i < ROWS * COLS; i++)
        out[i] = 0.25f;
    assert_ok(v->ops->scatter_rows_add(v->backend, out, x, places, coefficient, ROWS, COLS, &err));
}

/* Three heads of width 4. */
static void rope(const struct variant *v, float *out, const float *x)
{
    static const float table[4] = {0.6f, -0.28f, 0.8f, 0.96f};
    static const int32_t positions[ROWS] = {0};

    memcpy(out, x, ROWS * COLS * sizeof(float));
    assert_ok(v->ops->rope(v->backend, out, table, positions, ROWS, 3, 4, COLS, false, &err));
}

static void swiglu_gate(const struct variant *v, float *out, const float *x)
{
    struct guarded up = filled(2, ROWS * COLS);

    assert_ok(v->ops->swiglu_forward(v->backend, out, x, up.data, ROWS, COLS, COLS, COLS, &err));
    guarded_free(up);
}

static void swiglu_up(const struct variant *v, float *out, const float *x)
{
    struct guarded gate = filled(3, ROWS * COLS);

    assert_ok(v->ops->swiglu_forward(v->backend, out, gate.data, x, ROWS, COLS, COLS, COLS, &err));
    guarded_free(gate);
}

static void swiglu_dout(const struct variant *v, float *out, const float *x)
{
    struct guarded gate = filled(3, ROWS * COLS), up = filled(2, ROWS * COLS);
    struct guarded dgate = guarded_new(ROWS * COLS);

    assert_ok(v->ops->swiglu_backward(v->backend, dgate.data, out, x, gate.data, up.data, ROWS,
                                      COLS, COLS, COLS, &err));
    guarded_free(gate);
    guarded_free(up);
    guarded_free(dgate);
}

/* Kept or dropped: 0 times infinity is no number. */
static void dropout(const struct variant *v, float *out, const float *x)
{
    static const uint32_t addresses[2 * ROWS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct ha_dropout settings = {0.5, 1, 2, addresses};

    assert_ok(v->ops->dropout(v->backend, out, x, &settings, ROWS, COLS, COLS, COLS, false, &err));
}

static void logits(const struct variant *v, float *out, const float *x)
{
    struct guarded weight = filled(4, VOCAB * COLS);
    struct ha_matrix matrix = matrix_of(weight.data, HA_DTYPE_F32, VOCAB, COLS, COLS);

    assert_ok(v->ops->logits(v->backend, out, x, &matrix, ROWS, COLS, &err));
    guarded_free(weight);
}

/* out: log-probs, then the gradients. */
static void head(const struct variant *v, float *out, const float *x)
{
    struct guarded weight = filled(4, VOCAB * COLS);
    struct ha_head head = {.hidden = x,
                           .hidden_stride = COLS,
                           .weight = matrix_of(weight.data, HA_DTYPE_F32, VOCAB, COLS, COLS),
                           .targets = ids,
                           .n_rows = ROWS,
                           .width = COLS,
                           .logp = out,
                           .dhidden = out + ROWS};

    assert_ok(v->ops->head(v->backend, &head, &err));
    guarded_free(weight);
}

/* x holds the keys of five sequences of one key-value head of width 4 and length 3. */
static void decode(const struct variant *v, float *out, const float *x, bool as_values)
{
    struct guarded q = filled(5, ROWS * 8), other = filled(6, ROWS * COLS);
    struct ha_kv_rows caches[ROWS];
    int32_t positions[ROWS];
    struct ha_decode_attention shape = {.n_rows = ROWS,
                                        .n_heads = 2,
                                        .n_kv_heads = 1,
                                        .head_dim = 4,
                                        .scale = 0.5f,
                                        .q_stride = 8,
                                        .out_stride = 8,
                                        .caches = caches,
                                        .positions = positions,
                                        .max_keys = 3};

    for (int i = 0; i < ROWS; i++) {
        float *own = (float *)(uintptr_t)x + i * COLS, *others = other.data + i * COLS;

        positions[i] = 2;
        caches[i] = (struct ha_kv_rows){as_values ? others : own, as_values ? own : others, 0};
    }
    assert_ok(v->ops->decode_attention(v->backend, out, q.data, &shape, &err));
    guarded_free(q);
    guarded_free(other);
}

static void decode_values(const struct variant *v, float *out, const float *x)
{
    decode(v, out, x, true);
}

static bool same_place(int64_t i, int64_t row, int64_t col)
{
    return i == row * COLS + col;
}

static bool column_of_row_0(int64_t i, int64_t row, int64_t col)
{
    return row == 0 && i % COLS == col;
}

static bool picked(int64_t i, int64_t row, int64_t col)
{
    return i % COLS == col && places[i / COLS] == row;
}

static bool scattered(int64_t i, int64_t row, int64_t col)
{
    return i % COLS == col && i / COLS == places[row];
}

static bool turned(int64_t i, int64_t row, int64_t col)
{
    return i / COLS == row && i % COLS / 4 == col / 4 && i % 2 == col % 2;
}

static bool logits_of_row(int64_t i, int64_t row, int64_t col)
{
    (void)col;
    return i / VOCAB == row;
}

static bool head_of_row(int64_t i, int64_t row, int64_t col)
{
    (void)col;
    return i < ROWS ? i == row : (i - ROWS) / COLS == row;
}

/* Both heads, at the value's own place. */
static bool attended(int64_t i, int64_t row, int64_t col)
{
    return i / 8 == row && i % 4 == col % 4;
}

static const struct operation operations[] = {
    {"add_bias", ROWS *COLS, add_bias, same_place},
    {"add_bias: bias", ROWS *COLS, take_bias, column_of_row_0},
    {"embed_forward", ROWS *COLS, embed, picked},
    {"gather_rows", ROWS *COLS, gather, picked},
    {"scatter_rows_add", ROWS *COLS, scatter, scattered},
    {"rope", ROWS *COLS, rope, turned},
    {"swiglu_forward: gate", ROWS *COLS, swiglu_gate, same_place},
    {"swiglu_forward: up", ROWS *COLS, swiglu_up, same_place},
    {"swiglu_backward: dout", ROWS *COLS, swiglu_dout, same_place},
    {"dropout", ROWS *COLS, dropout, same_place},
    {"logits", ROWS *VOCAB, logits, logits_of_row},
    {"head", ROWS + ROWS *COLS, head, head_of_row},
    {"decode_attention: values", ROWS * 8, decode_values, attended},
};

static void try_place(const struct variant *variant, const struct operation *operation,
                      struct guarded x, struct guarded clean, int64_t row, int64_t col)
{
    float kept = x.data[row * COLS + col];

    for (size_t s = 0; s < sizeof(specials) / sizeof(specials[0]); s++) {
        struct guarded out = guarded_new(operation->n_out);

        x.data[row * COLS + col] = specials[s];
        operation->run(variant, out.data, x.data);
        for (int64_t i = 0; i < out.n; i++) {
            bool touched = operation->touched(i, row, col);
            bool right = !touched ? memcmp(&out.data[i], &clean.data[i], sizeof(float)) == 0
                         : isnan(specials[s]) ? isnan(out.data[i])
                                              : !isfinite(out.data[i]);

            if (!right)
                fail_msg("%s: %g at (%d, %d) made element %d %g", operation->name,
                         (double)specials[s], (int)row, (int)col, (int)i, (double)out.data[i]);
        }
        guarded_free(out);
    }
    x.data[row * COLS + col] = kept;
}

static void specials_show_and_stay(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (size_t o = 0; o < sizeof(operations) / sizeof(operations[0]); o++)
        for (int v = 0; v < n; v++) {
            struct guarded x = filled(9, ROWS * COLS);
            struct guarded clean = guarded_new(operations[o].n_out);

            operations[o].run(&variants[v], clean.data, x.data);
            for (int64_t row = 0; row < ROWS; row++)
                for (int64_t col = 0; col < COLS; col += 5)
                    try_place(&variants[v], &operations[o], x, clean, row, col);
            guarded_free(x);
            guarded_free(clean);
        }
    variants_close(variants, n);
}

/* An infinite element leaves nothing of its row: rsqrt(inf) = 0, and inf * 0 is no number. */
static void rmsnorm_of_infinity(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (int v = 0; v < n; v++) {
        struct guarded x = filled(9, ROWS * COLS), w = filled(2, COLS);
        struct guarded clean = guarded_new(ROWS * COLS), out = guarded_new(ROWS * COLS);
        struct guarded rstd = guarded_new(ROWS), dx = guarded_new(ROWS * COLS);

        for (int sign = -1; sign <= 1; sign += 2) {
            x.data[2 * COLS + 7] = 0.5f;
            assert_ok(variants[v].ops->rmsnorm_forward(variants[v].backend, clean.data, NULL,
                                                       x.data, w.data, HA_DTYPE_F32, 1e-5f, ROWS, 1,
                                                       COLS, COLS, COLS, &err));
            x.data[2 * COLS + 7] = (float)sign * INFINITY;
            assert_ok(variants[v].ops->rmsnorm_forward(variants[v].backend, out.data, rstd.data,
                                                       x.data, w.data, HA_DTYPE_F32, 1e-5f, ROWS, 1,
                                                       COLS, COLS, COLS, &err));
            assert_true(rstd.data[2] == 0.0f && rstd.data[1] > 0.0f);
            assert_ok(variants[v].ops->rmsnorm_backward(variants[v].backend, dx.data, w.data,
                                                        x.data, rstd.data, w.data, HA_DTYPE_F32, 1,
                                                        1, COLS, COLS, COLS, COLS, false, &err));
            for (int i = 0; i < ROWS * COLS; i++) {
                if (i / COLS != 2)
                    assert_true(out.data[i] == clean.data[i]);
                else
                    assert_true(i % COLS == 7 ? isnan(out.data[i]) : out.data[i] == 0.0f);
            }
            for (int i = 0; i < COLS; i++)
                assert_true(isfinite(dx.data[i]));
        }
        guarded_free(x);
        guarded_free(w);
        guarded_free(clean);
        guarded_free(out);
        guarded_free(rstd);
        guarded_free(dx);
    }
    variants_close(variants, n);
}

/* A key's score may be infinite either way: with +inf the softmax is no number, with -inf
 * the key has no weight.  Other sequences do not notice. */
static void decode_of_infinite_keys(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (int v = 0; v < n; v++) {
        struct guarded x = filled(9, ROWS * COLS), q = filled(5, ROWS * 8);
        struct guarded clean = guarded_new(ROWS * 8), out = guarded_new(ROWS * 8);

        decode(&variants[v], clean.data, x.data, false);
        for (size_t s = 0; s < 3; s++) {
            x.data[2 * COLS + 5] = specials[s];
            decode(&variants[v], out.data, x.data, false);
            for (int i = 0; i < ROWS * 8; i++) {
                float score = specials[s] * q.data[2 * 8 + (i % 8 / 4) * 4 + 1];

                if (i / 8 != 2)
                    assert_true(out.data[i] == clean.data[i]);
                else
                    assert_true(score == -INFINITY ? isfinite(out.data[i]) : isnan(out.data[i]));
            }
        }
        guarded_free(x);
        guarded_free(q);
        guarded_free(clean);
        guarded_free(out);
    }
    variants_close(variants, n);
}

/* An infinite gradient clips every other to nothing and is itself no number then. */
static void optimizer_of_infinity(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (int b = 0; b < n; b++) {
        struct guarded param = guarded_new(3), m = guarded_new(3), v = guarded_new(3);
        struct guarded grad = guarded_new(3);
        struct ha_adamw settings = {0.5, 0.9, 0.999, 1e-8, 0.25, 1.0, 1};
        double square = 0.0;

        for (int i = 0; i < 3; i++) {
            param.data[i] = 2.0f;
            grad.data[i] = i == 1 ? -INFINITY : 1.0f;
        }
        assert_ok(
            variants[b].ops->sum_of_squares(variants[b].backend, &square, grad.data, 3, &err));
        assert_true(square == (double)INFINITY);
        assert_ok(variants[b].ops->adamw(variants[b].backend, param.data, m.data, v.data, grad.data,
                                         3, &square, &settings, &err));
        assert_true(param.data[0] == 1.75f && isnan(param.data[1]) && param.data[2] == 1.75f);
        guarded_free(param);
        guarded_free(m);
        guarded_free(v);
        guarded_free(grad);
    }
    variants_close(variants, n);
}

/* The largest logit is looked for among the numbers, an infinity included. */
static void argmax_passes_over_nan(void **state)
{
    enum { VALUES = 6 };
    static const float rows[4][VALUES] = {{1, NAN, 3, NAN, 2, 3},
                                          {NAN, -INFINITY, -2, NAN, -1, NAN},
                                          {0, INFINITY, NAN, INFINITY, 5, 1},
                                          {NAN, NAN, NAN, NAN, NAN, NAN}};
    static const int32_t expected[4] = {2, 4, 1, 0};
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (int v = 0; v < n; v++) {
        for (int i = 0; i < 4; i++) {
            struct guarded one = guarded_new(1), weight = guarded_new(VALUES);
            struct guarded logp = guarded_new(1), argmax = guarded_new(1);
            struct ha_head head = {.hidden = one.data,
                                   .hidden_stride = 1,
                                   .weight = matrix_of(weight.data, HA_DTYPE_F32, VALUES, 1, 1),
                                   .targets = ids,
                                   .n_rows = 1,
                                   .width = 1,
                                   .logp = logp.data,
                                   .argmax = (int32_t *)(void *)argmax.data};
            int32_t found;

            one.data[0] = 1;
            memcpy(weight.data, rows[i], sizeof(rows[i]));
            assert_ok(variants[v].ops->head(variants[v].backend, &head, &err));
            memcpy(&found, argmax.data, sizeof(found));
            assert_int_equal(found, expected[i]);
            guarded_free(one);
            guarded_free(weight);
            guarded_free(logp);
            guarded_free(argmax);
        }
    }
    variants_close(variants, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        both(specials_show_and_stay),      both(rmsnorm_of_infinity),
        cpu_only(decode_of_infinite_keys), both(optimizer_of_infinity),
        cpu_only(argmax_passes_over_nan),
    };

    return run_kernel_tests(tests);
}
