#include "coordinator/report/stats.h"

#include <math.h>
#include <stdlib.h>

double ha_stats_mean(const double *values, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += values[i];
    return n > 0 ? sum / (double)n : NAN;
}

double ha_stats_std(const double *values, int64_t n)
{
    double mean = ha_stats_mean(values, n), sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return n > 1 ? sqrt(sum / (double)(n - 1)) : NAN;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double ha_stats_median(double *values, int64_t n)
{
    if (n <= 0)
        return NAN;
    qsort(values, (size_t)n, sizeof(values[0]), ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

struct ha_summary ha_stats_summary(double *values, int64_t n)
{
    struct ha_summary summary = {.n = n};

    summary.mean = ha_stats_mean(values, n);
    summary.std = ha_stats_std(values, n);
    summary.median = ha_stats_median(values, n);
    return summary;
}
