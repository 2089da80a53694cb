/* optimizer.c - host part of the gradient norm and AdamW */
#include <errno.h>
#include <math.h>

#include "common/base/error.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.h"

int ha_cuda_op_sum_of_squares(struct ha_backend *backend, double *sum, const float *x, int64_t n,
                              struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    void *partial;
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n == 0)
        return rc;
    rc = ha_cuda_scratch(cuda, HA_CUDA_SCRATCH_REDUCE,
                         (size_t)ha_cuda_square_parts(n) * sizeof(double), &partial, err);
    if (rc < 0)
        return rc;
    return ha_cuda_check(cuda, ha_cuda_launch_square_sum(cuda->stream, sum, partial, x, n),
                         "sum_of_squares", err);
}

int ha_cuda_op_add(struct ha_backend *backend, float *sum, const float *x, int64_t n,
                   struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0 || n == 0)
        return rc;
    return ha_cuda_check(cuda, ha_cuda_launch_add(cuda->stream, sum, x, n), "add", err);
}

int ha_cuda_op_adamw(struct ha_backend *backend, float *param, float *m, float *v,
                     const float *grad, int64_t n, const double *grad_square_sum,
                     const struct ha_adamw *settings, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    double step = (double)settings->step;
    struct ha_cuda_adamw s;
    int rc = ha_cuda_enter(cuda, err);

    if (rc < 0)
        return rc;
    if (settings->step < 1)
        return ha_error_set(err, EINVAL, "AdamW: step %lld; the first is 1",
                            (long long)settings->step);
    if (n == 0)
        return 0;
    s.max_grad_norm = settings->max_grad_norm;
    s.decay = (float)(1.0 - settings->lr * settings->weight_decay);
    s.beta2 = (float)settings->beta2;
    s.blend1 = (float)(1.0 - settings->beta1);
    s.blend2 = (float)(1.0 - settings->beta2);
    s.root_scale = (float)(1.0 / sqrt(1.0 - pow(settings->beta2, step)));
    s.step = (float)(settings->lr / (1.0 - pow(settings->beta1, step)));
    s.eps = (float)settings->eps;
    return ha_cuda_check(
        cuda, ha_cuda_launch_adamw(cuda->stream, param, m, v, grad, n, grad_square_sum, &s),
        "adamw", err);
}
