/* Every backward operation against finite differences of its own forward: the
 * derivative of sum(weight * output) along random directions and single inputs. */
#include "tests/unit/kernels/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INPUTS = 3, DIRECTIONS = 6, ELEMENTS = 8 };
#define STEP 4e-3
#define TOLERANCE 2e-3

/* One operation at one shape.  forward fills `out` from `in`; backward fills d of every
 * input from `weight`, the gradient of the objective by `out`. */
struct problem {
    const struct variant *variant;
    struct guarded in[MAX_INPUTS], d[MAX_INPUTS], out, weight, saved;
    int n_inputs;
    int64_t rows, cols, depth;
    struct ha_attention attention;
    struct ha_segment segments[4];
    const int64_t *index;
    const int32_t *ids;
    void (*forward)(struct problem *p);
    void (*backward)(struct problem *p);
};

static void problem_create(struct problem *p, struct random *random, const int64_t *sizes,
                           int n_inputs, int64_t n_out, int64_t n_saved)
{
    p->n_inputs = n_inputs;
    for (int i = 0; i < n_inputs; i++) {
        p->in[i] = guarded_new(sizes[i]);
        p->d[i] = guarded_new(sizes[i]);
        random_fill(random, p->in[i].data, sizes[i], 1.5f);
    }
    p->out = guarded_new(n_out);
    p->weight = guarded_new(n_out);
    p->saved = guarded_new(n_saved);
    random_fill(random, p->weight.data, n_out, 1.0f);
}

static void problem_destroy(struct problem *p)
{
    for (int i = 0; i < p->n_inputs; i++) {
        guarded_free(p->in[i]);
        guarded_free(p->d[i]);
    }
    guarded_free(p->out);
    guarded_free(p->weight);
    guarded_free(p->saved);
}

static double objective(struct problem *p)
{
    double sum = 0;

    p->forward(p);
    for (int64_t i = 0; i < p->out.n; i++)
        sum += (double)p->weight.data[i] * (double)p->out.data[i];
    return sum;
}

/* Moves input `which` by +-STEP along the direction. */
static double difference(struct problem *p, int which, const float *direction)
{
    struct guarded in = p->in[which], kept = guarded_copy(in);
    double plus, minus;

    for (int64_t i = 0; i < in.n; i++)
        in.data[i] = kept.data[i] + (float)STEP * direction[i];
    plus = objective(p);
    for (int64_t i = 0; i < in.n; i++)
        in.data[i] = kept.data[i] - (float)STEP * direction[i];
    minus = objective(p);
    memcpy(in.data, kept.data, (size_t)in.n * sizeof(float));
    guarded_free(kept);
    return (plus - minus) / (2 * STEP);
}

static void check_direction(struct problem *p, const char *name, int which, const float *direction,
                            double least)
{
    double along = 0, square = 0, found;

    for (int64_t i = 0; i < p->in[which].n; i++) {
        double part = (double)p->d[which].data[i] * (double)direction[i];

        along += part;
        square += part * part;
    }
    found = difference(p, which, direction);
    if (!(fabs(found - along) <= TOLERANCE * (sqrt(square) + least)))
        fail_msg("%s: input %d: the difference is %.9g, the derivative %.9g", name, which, found,
                 along);
}

static void check(struct problem *p, struct random *random, const char *name)
{
    p->forward(p);
    p->backward(p);
    for (int which = 0; which < p->n_inputs; which++) {
        int64_t n = p->in[which].n;
        float *direction = calloc((size_t)n, sizeof(*direction));
        double largest = 0;

        assert_non_null(direction);
        for (int64_t i = 0; i < n; i++)
            largest = fmax(largest, fabs((double)p->d[which].data[i]));
        assert_true(largest > 0 && isfinite(largest));
        for (int k = 0; k < DIRECTIONS; k++) {
            random_fill(random, direction, n, 1.0f);
            check_direction(p, name, which, direction, largest);
        }
        memset(direction, 0, (size_t)n * sizeof(*direction));
        for (int k = 0; k < ELEMENTS; k++) {
            int64_t at = random_below(random, n);

            direction[at] = 1;
            check_direction(p, name, which, direction, largest);
            direction[at] = 0;
        }
        free(direction);
    }
}

/* ---- the operations ---- */

/* y = x W^T, x (rows, depth), W (cols, depth). */
static void linear_forward(struct problem *p)
{
    struct ha_matrix y = matrix_of(p->out.data, HA_DTYPE_F32, p->rows, p->cols, p->cols);
    struct ha_matrix x = matrix_of(p->in[0].data, HA_DTYPE_F32, p->rows, p->depth, p->depth);
    struct ha_matrix w = matrix_of(p->in[1].data, HA_DTYPE_F32, p->cols, p->depth, p->depth);

    assert_ok(p->variant->ops->gemm(p->variant->backend, &y, &x, false, &w, true, 1, 0, &err));
}

static void linear_backward(struct problem *p)
{
    struct ha_matrix dy = matrix_of(p->weight.data, HA_DTYPE_F32, p->rows, p->cols, p->cols);
    struct ha_matrix x = matrix_of(p->in[0].data, HA_DTYPE_F32, p->rows, p->depth, p->depth);
    struct ha_matrix w = matrix_of(p->in[1].data, HA_DTYPE_F32, p->cols, p->depth, p->depth);
    struct ha_matrix dx = matrix_of(p->d[0].data, HA_DTYPE_F32, p->rows, p->depth, p->depth);
    struct ha_matrix dw = matrix_of(p->d[1].data, HA_DTYPE_F32, p->cols, p->depth, p->depth);

    assert_ok(p->variant->ops->gemm(p->variant->backend, &dx, &dy, false, &w, false, 1, 0, &err));
    assert_ok(p->variant->ops->gemm(p->variant->backend, &dw, &dy, true, &x, false, 1, 0, &err));
}

static float frozen_weight[129];

static void rmsnorm_forward(struct problem *p)
{
    int64_t width = p->depth * p->cols;

    assert_ok(p->variant->ops->rmsnorm_forward(p->variant->backend, p->out.data, p->saved.data,
                                               p->in[0].data, frozen_weight, HA_DTYPE_F32, 0.05f,
                                               p->rows, p->depth, p->cols, width, width, &err));
}

static void rmsnorm_backward(struct problem *p)
{
    int64_t width = p->depth * p->cols;

    assert_ok(p->variant->ops->rmsnorm_backward(
        p->variant->backend, p->d[0].data, p->weight.data, p->in[0].data, p->saved.data,
        frozen_weight, HA_DTYPE_F32, p->rows, p->depth, p->cols, width, width, width, false, &err));
}

static const float turns[2][4] = {{0.6f, -0.28f, 0.8f, 0.96f}, {1.0f, 0.0f, 0.0f, 1.0f}};
static const int32_t positions[3] = {0, 1, 0};

/* Three tokens of two heads of width 4. */
static void rope(struct problem *p, struct guarded to, struct guarded from, bool inverse)
{
    memcpy(to.data, from.data, (size_t)from.n * sizeof(float));
    assert_ok(p->variant->ops->rope(p->variant->backend, to.data, turns[0], positions, 3, 2, 4, 8,
                                    inverse, &err));
}

static void rope_forward(struct problem *p)
{
    rope(p, p->out, p->in[0], false);
}

static void rope_backward(struct problem *p)
{
    rope(p, p->d[0], p->weight, true);
}

static void attention_forward(struct problem *p)
{
    assert_ok(p->variant->ops->attention_forward(p->variant->backend, p->out.data, p->saved.data,
                                                 p->in[0].data, p->in[1].data, p->in[2].data,
                                                 &p->attention, &err));
}

static void attention_backward(struct problem *p)
{
    assert_ok(p->variant->ops->attention_backward(
        p->variant->backend, p->d[0].data, p->d[1].data, p->d[2].data, p->weight.data, p->out.data,
        p->saved.data, p->in[0].data, p->in[1].data, p->in[2].data, &p->attention, &err));
}

static void swiglu_forward(struct problem *p)
{
    assert_ok(p->variant->ops->swiglu_forward(p->variant->backend, p->out.data, p->in[0].data,
                                              p->in[1].data, p->rows, p->cols, p->cols, p->cols,
                                              &err));
}

static void swiglu_backward(struct problem *p)
{
    assert_ok(p->variant->ops->swiglu_backward(p->variant->backend, p->d[0].data, p->d[1].data,
                                               p->weight.data, p->in[0].data, p->in[1].data,
                                               p->rows, p->cols, p->cols, p->cols, &err));
}

static const uint32_t mask_places[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};

/* The mask and 1 / (1 - p) by the same call both ways. */
static void drop(struct problem *p, struct guarded to, struct guarded from)
{
    struct ha_dropout dropout = {0.4, 17, 3, mask_places};

    assert_ok(p->variant->ops->dropout(p->variant->backend, to.data, from.data, &dropout, p->rows,
                                       p->cols, p->cols, p->cols, false, &err));
}

static void dropout_forward(struct problem *p)
{
    drop(p, p->out, p->in[0]);
}

static void dropout_backward(struct problem *p)
{
    drop(p, p->d[0], p->weight);
}

static void gather_forward(struct problem *p)
{
    assert_ok(p->variant->ops->gather_rows(p->variant->backend, p->out.data, p->in[0].data,
                                           p->index, p->rows, p->cols, &err));
}

static void gather_backward(struct problem *p)
{
    static const float ones[5] = {1, 1, 1, 1, 1};

    memset(p->d[0].data, 0, (size_t)p->d[0].n * sizeof(float));
    assert_ok(p->variant->ops->scatter_rows_add(p->variant->backend, p->d[0].data, p->weight.data,
                                                p->index, ones, p->rows, p->cols, &err));
}

static float frozen_head[70 * 9];

/* out = the log-probs; saved = d logp / d hidden. */
static void head_forward(struct problem *p)
{
    struct ha_head head = {.hidden = p->in[0].data,
                           .hidden_stride = p->cols,
                           .weight = matrix_of(frozen_head, HA_DTYPE_F32, 70, p->cols, p->cols),
                           .targets = p->ids,
                           .n_rows = p->rows,
                           .width = p->cols,
                           .logp = p->out.data,
                           .dhidden = p->saved.data};

    assert_ok(p->variant->ops->head(p->variant->backend, &head, &err));
}

static void head_backward(struct problem *p)
{
    for (int64_t i = 0; i < p->d[0].n; i++)
        p->d[0].data[i] = p->weight.data[i / p->cols] * p->saved.data[i];
}

/* ---- the tests ---- */

static void each_variant(struct problem *p, struct random *random, const char *name)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    for (int v = 0; v < n; v++) {
        p->variant = &variants[v];
        check(p, random, name);
    }
    variants_close(variants, n);
    problem_destroy(p);
}

static void linear(void **state)
{
    struct problem p = {
        .rows = 7, .cols = 33, .depth = 19, .forward = linear_forward, .backward = linear_backward};
    struct random random = {51};

    (void)state;
    problem_create(&p, &random, (const int64_t[]){7 * 19, 33 * 19}, 2, 7 * 33, 1);
    each_variant(&p, &random, "gemm");
}

static void rmsnorm(void **state)
{
    static const int64_t shapes[][3] = {{5, 1, 129}, {3, 4, 17}, {1, 1, 1}};
    struct random random = {52};

    (void)state;
    random_fill(&random, frozen_weight, 129, 1.0f);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        int64_t rows = shapes[i][0], groups = shapes[i][1], cols = shapes[i][2];
        struct problem p = {.rows = rows,
                            .depth = groups,
                            .cols = cols,
                            .forward = rmsnorm_forward,
                            .backward = rmsnorm_backward};
        int64_t n = rows * groups * cols;

        problem_create(&p, &random, &n, 1, n, rows * groups);
        if (n == 1)
            p.in[0].data[0] = 0.2f; /* where eps matters */
        each_variant(&p, &random, "rmsnorm");
    }
}

static void rotation(void **state)
{
    struct problem p = {.forward = rope_forward, .backward = rope_backward};
    struct random random = {53};

    (void)state;
    problem_create(&p, &random, (const int64_t[]){24}, 1, 24, 1);
    each_variant(&p, &random, "rope");
}

/* Two answers behind a shared prompt and a text by itself; query heads share keys. */
static void attention(void **state)
{
    static const struct ha_segment segments[] = {
        {0, 9, 0, 0}, {9, 5, 0, 9}, {14, 1, 0, 9}, {15, 20, 0, 0}};
    static const int64_t heads[][3] = {{4, 2, 8}, {3, 1, 16}, {2, 2, 24}};
    struct random random = {54};

    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        int64_t q = heads[i][0] * heads[i][2], kv = heads[i][1] * heads[i][2], tokens = 35;
        struct problem p = {.forward = attention_forward, .backward = attention_backward};

        memcpy(p.segments, segments, sizeof(segments));
        p.attention = (struct ha_attention){.n_tokens = tokens,
                                            .n_heads = heads[i][0],
                                            .n_kv_heads = heads[i][1],
                                            .head_dim = heads[i][2],
                                            .scale = 1.0f / sqrtf((float)heads[i][2]),
                                            .q_stride = q,
                                            .k_stride = kv,
                                            .v_stride = kv,
                                            .out_stride = q,
                                            .segments = p.segments,
                                            .n_segments = 4};
        problem_create(&p, &random, (const int64_t[]){tokens * q, tokens * kv, tokens * kv}, 3,
                       tokens * q, heads[i][0] * tokens);
        each_variant(&p, &random, "attention");
    }
}

static void dropout(void **state)
{
    struct problem p = {
        .rows = 5, .cols = 37, .forward = dropout_forward, .backward = dropout_backward};
    struct random random = {58};

    (void)state;
    problem_create(&p, &random, (const int64_t[]){5 * 37}, 1, 5 * 37, 1);
    each_variant(&p, &random, "dropout");
}

static void swiglu(void **state)
{
    struct problem p = {
        .rows = 5, .cols = 37, .forward = swiglu_forward, .backward = swiglu_backward};
    struct random random = {55};

    (void)state;
    problem_create(&p, &random, (const int64_t[]){5 * 37, 5 * 37}, 2, 5 * 37, 1);
    each_variant(&p, &random, "swiglu");
}

/* A row that is gathered twice takes both gradients. */
static void gather_and_scatter(void **state)
{
    static const int64_t index[5] = {3, 0, 3, 6, 1};
    struct problem p = {.rows = 5,
                        .cols = 13,
                        .index = index,
                        .forward = gather_forward,
                        .backward = gather_backward};
    struct random random = {56};

    (void)state;
    problem_create(&p, &random, (const int64_t[]){7 * 13}, 1, 5 * 13, 1);
    each_variant(&p, &random, "gather_rows");
}

static void head(void **state)
{
    static const int32_t targets[6] = {0, 69, 5, 5, 33, 12};
    struct problem p = {
        .rows = 6, .cols = 9, .ids = targets, .forward = head_forward, .backward = head_backward};
    struct random random = {57};

    (void)state;
    random_fill(&random, frozen_head, 70 * 9, 0.7f);
    problem_create(&p, &random, (const int64_t[]){6 * 9}, 1, 6, 6 * 9);
    each_variant(&p, &random, "head");
}

/* The comparison tells a derivative that is 1 % off. */
static void wrong_derivative(struct problem *p)
{
    swiglu_backward(p);
    for (int64_t i = 0; i < p->d[1].n; i++)
        p->d[1].data[i] *= 1.01f;
}

static void a_wrong_derivative_is_told(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants), told = 0;
    struct problem p = {.variant = variants, .rows = 5, .cols = 37, .forward = swiglu_forward};
    struct random random = {58};

    (void)state;
    problem_create(&p, &random, (const int64_t[]){5 * 37, 5 * 37}, 2, 5 * 37, 1);
    p.forward(&p);
    wrong_derivative(&p);
    for (int64_t at = 0; at < p.in[1].n; at++) {
        float direction[5 * 37] = {0};

        direction[at] = 1;
        told += fabs(difference(&p, 1, direction) - (double)p.d[1].data[at]) >
                TOLERANCE * fabs((double)p.d[1].data[at]);
    }
    assert_true(told > 150);
    problem_destroy(&p);
    variants_close(variants, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cpu_only(linear),    cpu_only(rmsnorm), cpu_only(rotation),
        cpu_only(attention), cpu_only(swiglu),  cpu_only(gather_and_scatter),
        cpu_only(head),      cpu_only(dropout), cpu_only(a_wrong_derivative_is_told),
    };

    return run_kernel_tests(tests);
}
