/* optimizer.c - gradient norm and AdamW */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <math.h>

#include "common/base/error.h"

enum { TILE = 16384 }; /* elements */

struct squares {
    const struct ha_leaf *leaf;
    const float *x;
    int64_t n;
    double *part; /* of each tile */
};

static void sum_tile(const void *context, int64_t tile, void *scratch)
{
    const struct squares *s = context;

    (void)scratch;
    s->part[tile] =
        s->leaf->sum_of_squares(s->x + tile * TILE, ha_cpu_min(TILE, s->n - tile * TILE));
}

int64_t ha_cpu_squares_bytes(int64_t n)
{
    return ha_cpu_ceil_div(n, TILE) * (int64_t)sizeof(double);
}

int ha_cpu_op_sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                             struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    int64_t tiles = ha_cpu_ceil_div(n, TILE);
    double *part, total = 0.0;
    int rc = ha_cpu_work(cpu, (size_t)ha_cpu_squares_bytes(n), err);

    if (rc < 0)
        return rc;
    part = (double *)(void *)cpu->work;
    ha_cpu_for_tiles(cpu, tiles, HA_CPU_ELEMENT_WORK * (double)n, sum_tile,
                     &(struct squares){&cpu->leaf, x, n, part});
    for (int64_t i = 0; i < tiles; i++)
        total += part[i];
    *sum += total;
    return 0;
}

struct addition {
    float *sum;
    const float *x;
    int64_t n;
};

static void add_tile(const void *context, int64_t tile, void *scratch)
{
    const struct addition *a = context;
    int64_t at = tile * TILE, n = ha_cpu_min(TILE, a->n - at);

    (void)scratch;
    for (int64_t i = at; i < at + n; i++)
        a->sum[i] += a->x[i];
}

int ha_cpu_op_add(struct ha_backend *backend, float *sum, const float *x, int64_t n,
                  struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);

    (void)err;
    ha_cpu_for_tiles(cpu, ha_cpu_ceil_div(n, TILE), HA_CPU_ELEMENT_WORK * (double)n, add_tile,
                     &(struct addition){sum, x, n});
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

struct update {
    const struct ha_leaf *leaf;
    const struct ha_leaf_adamw *settings;
    float *param, *m, *v;
    const float *grad;
    int64_t n;
};

static void update_tile(const void *context, int64_t tile, void *scratch)
{
    const struct update *u = context;
    int64_t at = tile * TILE;

    (void)scratch;
    u->leaf->adamw(u->param + at, u->m + at, u->v + at, u->grad + at, u->settings,
                   ha_cpu_min(TILE, u->n - at));
}

int ha_cpu_op_adamw(struct ha_backend *backend, float *param, float *m, float *v, const float *grad,
                    int64_t n, const double *grad_square_sum, const struct ha_adamw *settings,
                    struct ha_error *err)
{
    struct ha_cpu *cpu = ha_cpu_of(backend);
    double step = (double)settings->step;
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
    ha_cpu_for_tiles(cpu, ha_cpu_ceil_div(n, TILE), HA_CPU_ELEMENT_WORK * (double)n, update_tile,
                     &(struct update){&cpu->leaf, &leaf, param, m, v, grad, n});
    return 0;
}
