/* optimizer.c - gradient norm and AdamW */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <math.h>

#include "common/base/error.h"

enum { TILE = 16384 }; /* elements */

int ha_cpu_op_sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                             struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int64_t tiles = ha_cpu_ceil_div(n, TILE);
    double *part, total = 0.0;
    int rc = ha_cpu_work(cpu, (size_t)tiles * sizeof(double), err);

    if (rc < 0)
        return rc;
    part = (double *)(void *)cpu->work;
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n, 1))
    for (int64_t i = 0; i < tiles; i++)
        part[i] = cpu->leaf.sum_of_squares(x + i * TILE, ha_cpu_min(TILE, n - i * TILE));
    for (int64_t i = 0; i < tiles; i++)
        total += part[i];
    *sum += total;
    return 0;
}

/* A NaN norm gives a NaN factor: a diverged cell must show. */
static double clip_factor(const double *square_sum, double limit)
{
    double factor;

    if (limit <= 0.0)
        return 1.0;
    factor = limit / (sqrt(*square_sum) + 1e-6);
    return factor > 1.0 ? 1.0 : factor;
}

int ha_cpu_op_adamw(struct ha_backend *backend, float *param, float *m, float *v, const float *grad,
                    int64_t n, const double *grad_square_sum, const struct ha_adamw *settings,
                    struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    double step = (double)settings->step;
    int64_t tiles = ha_cpu_ceil_div(n, TILE);
    struct ha_leaf_adamw leaf;

    if (settings->step < 1)
        return ha_error_set(err, EINVAL, "AdamW: step %lld; the first is 1",
                            (long long)settings->step);
    leaf.grad_scale = (float)clip_factor(grad_square_sum, settings->max_grad_norm);
    leaf.decay = (float)(1.0 - settings->lr * settings->weight_decay);
    leaf.beta2 = (float)settings->beta2;
    leaf.blend1 = (float)(1.0 - settings->beta1);
    leaf.blend2 = (float)(1.0 - settings->beta2);
    leaf.root_scale = (float)(1.0 / sqrt(1.0 - pow(settings->beta2, step)));
    leaf.step = (float)(settings->lr / (1.0 - pow(settings->beta1, step)));
    leaf.eps = (float)settings->eps;
#pragma omp parallel for num_threads(cpu->threads) if (ha_cpu_parallel_rows(cpu, n, 1))
    for (int64_t i = 0; i < tiles; i++) {
        int64_t at = i * TILE;

        cpu->leaf.adamw(param + at, m + at, v + at, grad + at, &leaf, ha_cpu_min(TILE, n - at));
    }
    return 0;
}
