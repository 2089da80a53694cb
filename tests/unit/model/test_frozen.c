/* The factors of frozen weights' gradients: against differences of the weights themselves, and
 * against the gradient of B of an adapter whose A is the identity, which is the same matrix. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

enum { N_PAIRS = 8, VOCAB = 53, N_MODULES = HA_MODULE_O + 1 };

static const enum ha_model_family families[] = {HA_FAMILY_LLAMA, HA_FAMILY_QWEN2, HA_FAMILY_QWEN3};

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_pack_pair *pairs;
    int32_t *ids;
    struct ha_pack *pack;
    float *coefficient;
};

static void set_up(struct fixture *fixture, enum ha_model_family family)
{
    struct ha_model_config config = small_config(family);
    struct random random = {99};

    fixture->backend = open_cpu(1);
    small_model_open(&fixture->small, fixture->backend, &config, HA_DTYPE_F32, 7);
    fixture->pairs = random_pairs(N_PAIRS, VOCAB, 11, &fixture->ids);
    assert_ok(ha_pack_create_pairs(fixture->pairs, NULL, N_PAIRS, true, &fixture->pack, &err));
    fixture->coefficient = ha_calloc(fixture->pack->n_rows, sizeof(float));
    assert_non_null(fixture->coefficient);
    for (int64_t i = 0; i < fixture->pack->n_rows; i++)
        fixture->coefficient[i] = random_uniform(&random);
}

static void tear_down(struct fixture *fixture)
{
    free(fixture->coefficient);
    ha_pack_destroy(fixture->pack);
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
    free(fixture->pairs);
    free(fixture->ids);
}

static struct ha_pass *make_pass(const struct fixture *fixture, int64_t lowest, int64_t max_rank)
{
    struct ha_pass_limits limits = {.max_tokens = fixture->pack->n_tokens,
                                    .max_rows = fixture->pack->n_rows,
                                    .max_rank = max_rank,
                                    .lowest_layer = lowest};
    struct ha_pass *pass = NULL;

    assert_ok(ha_pass_create(fixture->small.model, &limits, &pass, &err));
    return pass;
}

static const struct ha_matrix *weight_of(const struct fixture *fixture, int64_t layer, int module)
{
    return &fixture->small.weights.layers[layer].linear[module];
}

/* dW of one weight, and which weights were shown in which order. */
struct taken {
    int64_t layer;
    enum ha_module module;
    double *dw; /* (out, in) */
    int64_t calls;
    int64_t layers[64];
    enum ha_module modules[64];
};

static int take(void *user, int64_t layer, enum ha_module module, const struct ha_matrix *dy,
                const struct ha_matrix *x, struct ha_error *err)
{
    struct taken *taken = user;
    const float *dys = dy->data, *xs = x->data;

    (void)err;
    assert_true(taken->calls < 64);
    taken->layers[taken->calls] = layer;
    taken->modules[taken->calls++] = module;
    assert_int_equal(dy->rows, x->rows);
    if (layer != taken->layer || module != taken->module)
        return 0;
    for (int64_t t = 0; t < dy->rows; t++)
        for (int64_t o = 0; o < dy->cols; o++)
            for (int64_t i = 0; i < x->cols; i++)
                taken->dw[o * x->cols + i] +=
                    (double)dys[t * dy->stride + o] * (double)xs[t * x->stride + i];
    return 0;
}

/* The caller frees it. */
static double *gradient_of(const struct fixture *fixture, struct ha_pass *pass, int64_t layer,
                           int module, struct taken *ret_taken)
{
    const struct ha_matrix *weight = weight_of(fixture, layer, module);
    struct ha_pass_rows rows;

    *ret_taken =
        (struct taken){.layer = layer,
                       .module = (enum ha_module)module,
                       .dw = ha_calloc(weight->rows * weight->cols, sizeof(*ret_taken->dw))};
    assert_non_null(ret_taken->dw);
    assert_ok(ha_pass_forward(pass, fixture->pack, NULL, true, &rows, &err));
    assert_ok(ha_pass_backward_frozen(pass, fixture->coefficient, take, ret_taken, &err));
    return ret_taken->dw;
}

static double weighted_sum(const struct fixture *fixture, struct ha_pass *pass)
{
    struct ha_pass_rows rows;
    double sum = 0;

    assert_ok(ha_pass_forward(pass, fixture->pack, NULL, false, &rows, &err));
    for (int64_t i = 0; i < rows.n_rows; i++)
        sum += (double)rows.logp[i] * (double)fixture->coefficient[i];
    return sum;
}

/* The derivative along a random direction of W, by central differences. */
static void check_difference(const struct fixture *fixture, struct ha_pass *pass, int64_t layer,
                             int module)
{
    const struct ha_matrix *weight = weight_of(fixture, layer, module);
    int64_t n = weight->rows * weight->cols;
    float *w = weight->data, *kept = ha_calloc(n, sizeof(float));
    double step = 1e-3, expected = 0, norm = 0, sums[2];
    struct taken taken;
    double *dw = gradient_of(fixture, pass, layer, module, &taken);

    assert_non_null(kept);
    memcpy(kept, w, (size_t)n * sizeof(float));
    for (int side = 0; side < 2; side++) {
        struct random random = {(uint64_t)(layer * N_MODULES + module)};

        for (int64_t i = 0; i < n; i++) {
            float direction = random_uniform(&random);

            w[i] = kept[i] + (side ? -1.0f : 1.0f) * (float)step * direction;
            expected += side ? 0 : dw[i] * (double)direction;
            norm += side ? 0 : dw[i] * dw[i] / 3;
        }
        sums[side] = weighted_sum(fixture, pass);
        memcpy(w, kept, (size_t)n * sizeof(float));
    }
    assert_true(norm > 0);
    /* Rounding of the sums and the third derivative leave about 1e-3. */
    assert_true(fabs((sums[0] - sums[1]) / (2 * step) - expected) <= 5e-3 * sqrt(norm) + 1e-3);
    free(dw);
    free(kept);
}

static void factors_match_differences(void **state)
{
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct fixture fixture;
        struct ha_pass *pass;

        set_up(&fixture, families[f]);
        pass = make_pass(&fixture, 0, 0);
        for (int64_t layer = 0; layer < fixture.small.config.n_layers; layer++)
            for (int module = 0; module < N_MODULES; module++)
                check_difference(&fixture, pass, layer, module);
        ha_pass_destroy(pass);
        tear_down(&fixture);
    }
}

/* dB of y = W x + B (I x) at B = 0. */
static float *identity_gradient(const struct fixture *fixture, int64_t layer, int module)
{
    const struct ha_matrix *weight = weight_of(fixture, layer, module);
    struct ha_adapter *adapter = random_adapter(fixture->backend, &fixture->small.config, layer,
                                                layer, 1U << module, weight->cols, 0.0f, 3);
    const struct ha_lora *lora = ha_adapter_lora(adapter, layer, (enum ha_module)module);
    int64_t n = ha_adapter_n_params(adapter), n_b = weight->rows * weight->cols;
    struct ha_pass *pass = make_pass(fixture, layer, weight->cols);
    float *gradient = ha_calloc(n, sizeof(float)), *db = ha_calloc(n_b, sizeof(float));
    struct ha_pass_rows rows;

    assert_non_null(gradient);
    assert_non_null(db);
    for (int64_t i = 0; i < weight->cols * weight->cols; i++)
        ha_adapter_params(adapter)[lora->a_offset + i] = i % (weight->cols + 1) == 0 ? 1.0f : 0.0f;
    assert_ok(ha_pass_forward(pass, fixture->pack, adapter, true, &rows, &err));
    assert_ok(ha_pass_backward(pass, adapter, fixture->coefficient, gradient, &err));
    for (int64_t i = 0; i < n_b; i++)
        db[i] = gradient[lora->b_offset + i] / ha_adapter_scale(adapter);
    free(gradient);
    ha_pass_destroy(pass);
    ha_adapter_destroy(adapter);
    return db;
}

static void factors_are_the_gradient_of_b(void **state)
{
    (void)state;
    for (size_t f = 0; f < 3; f++) {
        struct fixture fixture;
        struct ha_pass *pass;

        set_up(&fixture, families[f]);
        pass = make_pass(&fixture, 0, 0);
        for (int64_t layer = 0; layer < fixture.small.config.n_layers; layer += 3) {
            for (int module = 0; module < N_MODULES; module++) {
                const struct ha_matrix *weight = weight_of(&fixture, layer, module);
                int64_t n = weight->rows * weight->cols;
                struct taken taken;
                double *dw = gradient_of(&fixture, pass, layer, module, &taken);
                float *db = identity_gradient(&fixture, layer, module);
                double gap = 0, norm = 0;

                for (int64_t i = 0; i < n; i++) {
                    gap += (dw[i] - (double)db[i]) * (dw[i] - (double)db[i]);
                    norm += dw[i] * dw[i];
                }
                assert_true(norm > 0);
                assert_true(sqrt(gap / norm) <= 1e-6);
                free(db);
                free(dw);
            }
        }
        ha_pass_destroy(pass);
        tear_down(&fixture);
    }
}

/* o, q, k, v of each layer, from the last down to the lowest one. */
static void layers_are_shown_once(void **state)
{
    static const enum ha_module order[N_MODULES] = {HA_MODULE_O, HA_MODULE_Q, HA_MODULE_K,
                                                    HA_MODULE_V};
    struct fixture fixture;
    struct ha_pass *pass;
    struct taken taken;

    (void)state;
    set_up(&fixture, HA_FAMILY_QWEN3);
    pass = make_pass(&fixture, 1, 0);
    free(gradient_of(&fixture, pass, 1, HA_MODULE_Q, &taken));
    assert_int_equal(taken.calls, 3 * N_MODULES);
    for (int64_t i = 0; i < taken.calls; i++) {
        assert_int_equal(taken.layers[i], 3 - i / N_MODULES);
        assert_int_equal(taken.modules[i], order[i % N_MODULES]);
    }
    ha_pass_destroy(pass);
    tear_down(&fixture);
}

static int refuse(void *user, int64_t layer, enum ha_module module, const struct ha_matrix *dy,
                  const struct ha_matrix *x, struct ha_error *err)
{
    (void)user;
    (void)module;
    (void)dy;
    (void)x;
    return layer == 2 ? ha_error_set(err, ECANCELED, "enough") : 0;
}

static void refusals_come_back(void **state)
{
    struct ha_error refusal = {0};
    struct ha_pass_rows rows;
    struct fixture fixture;
    struct ha_pass *pass;

    (void)state;
    set_up(&fixture, HA_FAMILY_LLAMA);
    pass = make_pass(&fixture, 0, 0);
    assert_int_equal(ha_pass_backward_frozen(pass, fixture.coefficient, refuse, NULL, &refusal),
                     -EINVAL); /* no head call */
    assert_ok(ha_pass_forward(pass, fixture.pack, NULL, true, &rows, &err));
    assert_int_equal(ha_pass_backward_frozen(pass, fixture.coefficient, refuse, NULL, &refusal),
                     -ECANCELED);
    ha_pass_destroy(pass);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_match_differences),
        cmocka_unit_test(factors_are_the_gradient_of_b),
        cmocka_unit_test(layers_are_shown_once),
        cmocka_unit_test(refusals_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
