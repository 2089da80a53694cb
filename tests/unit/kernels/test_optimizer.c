#include "tests/unit/kernels/support.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* torch.optim.AdamW in double. */
static void reference_step(double *p, double *m, double *v, const float *grad, int64_t n,
                           double factor, const struct ha_adamw *s)
{
    for (int64_t i = 0; i < n; i++) {
        double g = (double)grad[i] * factor;

        p[i] *= 1.0 - s->lr * s->weight_decay;
        m[i] = s->beta1 * m[i] + (1.0 - s->beta1) * g;
        v[i] = s->beta2 * v[i] + (1.0 - s->beta2) * g * g;
        p[i] -= s->lr / (1.0 - pow(s->beta1, (double)s->step)) * m[i] /
                (sqrt(v[i]) / sqrt(1.0 - pow(s->beta2, (double)s->step)) + s->eps);
    }
}

/* Ten steps, with and without clipping, sizes beside the tile. */
static void follows_torch(void **state)
{
    static const int64_t sizes[] = {1, 17, 16384, 40001};
    struct variant variants[MAX_VARIANTS];
    int count = variants_open(variants);
    struct random random = {41};

    (void)state;
    for (size_t k = 0; k < 4; k++) {
        int64_t n = sizes[k];
        struct guarded grad = guarded_new(n), start = guarded_new(n), first = {0};
        double *p = calloc((size_t)n, sizeof(*p)), *m = calloc((size_t)n, sizeof(*m));
        double *v = calloc((size_t)n, sizeof(*v)), square = 0.0;
        struct ha_adamw settings = {1e-3, 0.9, 0.999, 1e-8, 0.1, k % 2 ? 0.0 : 0.5, 1};

        random_fill(&random, grad.data, n, 0.1f);
        random_fill(&random, start.data, n, 1.0f);
        for (int64_t i = 0; i < n; i++) {
            p[i] = (double)start.data[i];
            square += (double)grad.data[i] * (double)grad.data[i];
        }
        for (settings.step = 1; settings.step <= 10; settings.step++)
            reference_step(p, m, v, grad.data, n,
                           settings.max_grad_norm > 0.0
                               ? fmin(1.0, settings.max_grad_norm / (sqrt(square) + 1e-6))
                               : 1.0,
                           &settings);
        for (int b = 0; b < count; b++) {
            struct guarded param = guarded_copy(start), m1 = guarded_new(n), m2 = guarded_new(n);
            double sum = 1.0;

            assert_ok(
                variants[b].ops->sum_of_squares(variants[b].backend, &sum, grad.data, n, &err));
            assert_true(fabs(sum - 1.0 - square) <= 1e-12 * (1.0 + square));
            sum -= 1.0;
            for (settings.step = 1; settings.step <= 10; settings.step++)
                assert_ok(variants[b].ops->adamw(variants[b].backend, param.data, m1.data, m2.data,
                                                 grad.data, n, &sum, &settings, &err));
            assert_near_f32(param.data, p, n, 1.2e-6);
            assert_near_f32(m1.data, m, n, 1e-7);
            assert_near_f32(m2.data, v, n, 1e-7);
            guarded_free(m1);
            guarded_free(m2);
            if (variants[b].threads == 1) {
                if (first.data)
                    guarded_free(first);
                first = param;
            } else {
                assert_same_bits(param.data, first.data, n);
                guarded_free(param);
            }
        }
        guarded_free(first);
        guarded_free(grad);
        guarded_free(start);
        free(p);
        free(m);
        free(v);
    }
    variants_close(variants, count);
}

/* A gradient of 0 leaves the parameter where decay puts it. */
static void zero_gradient_only_decays(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (int b = 0; b < n; b++) {
        float param = 2.0f, m = 0.0f, v = 0.0f, grad = 0.0f;
        double square = 0.0;
        struct ha_adamw settings = {0.5, 0.9, 0.999, 1e-8, 0.25, 1.0, 1};

        assert_ok(variants[b].ops->adamw(variants[b].backend, &param, &m, &v, &grad, 1, &square,
                                         &settings, &err));
        assert_true(param == 1.75f && m == 0.0f && v == 0.0f);
    }
    variants_close(variants, n);
}

static void nan_norm_shows(void **state)
{
    struct variant variants[MAX_VARIANTS];
    int n = variants_open(variants);

    (void)state;
    for (int b = 0; b < n; b++) {
        float param[2] = {1, 1}, m[2] = {0}, v[2] = {0}, grad[2] = {1, NAN};
        double square = 0.0;
        struct ha_adamw settings = {1e-3, 0.9, 0.999, 1e-8, 0.0, 1.0, 1};
        struct ha_error why;

        assert_ok(variants[b].ops->sum_of_squares(variants[b].backend, &square, grad, 2, &err));
        assert_true(isnan(square));
        assert_ok(variants[b].ops->adamw(variants[b].backend, param, m, v, grad, 2, &square,
                                         &settings, &err));
        assert_true(isnan(param[0]) && isnan(param[1]));
        settings.step = 0;
        assert_int_equal(variants[b].ops->adamw(variants[b].backend, param, m, v, grad, 2, &square,
                                                &settings, &why),
                         -EINVAL);
    }
    variants_close(variants, n);
}

/* One addition an element, whatever the size and the threads. */
static void adds_element_by_element(void **state)
{
    static const int64_t sizes[] = {1, 19, 4096, 40001};
    struct variant variants[MAX_VARIANTS];
    int count = variants_open(variants);
    struct random random = {43};

    (void)state;
    for (size_t k = 0; k < 4; k++) {
        int64_t n = sizes[k];
        struct guarded a = guarded_new(n), b = guarded_new(n), want = guarded_new(n);

        random_fill(&random, a.data, n, 1.0f);
        random_fill(&random, b.data, n, 1e3f);
        for (int64_t i = 0; i < n; i++)
            want.data[i] = a.data[i] + b.data[i];
        for (int v = 0; v < count; v++) {
            struct guarded sum = guarded_copy(a);

            assert_ok(variants[v].ops->add(variants[v].backend, sum.data, b.data, n, &err));
            assert_same_bits(sum.data, want.data, n);
            guarded_free(sum);
        }
        guarded_free(a);
        guarded_free(b);
        guarded_free(want);
    }
    variants_close(variants, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        both(follows_torch),
        both(zero_gradient_only_decays),
        both(nan_norm_shows),
        both(adds_element_by_element),
    };

    return run_kernel_tests(tests);
}
