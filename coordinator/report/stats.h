/* stats.h - descriptive statistics of the report
 *
 * Pure functions.  Sums are in double and in the order given.  A statistic
 * that does not exist for so few values is NaN. */
#ifndef HA_COORDINATOR_REPORT_STATS_H
#define HA_COORDINATOR_REPORT_STATS_H

#include <stdint.h>

/* Descriptive statistics of n values; NaN where they do not exist. */
struct ha_summary {
    int64_t n;
    double mean;
    double std;    /* with n - 1; NaN for n < 2 */
    double median; /* the mean of the middle two for even n */
};

double ha_stats_mean(const double *values, int64_t n);

/* Two passes: sum((x - mean)^2) / (n - 1). */
double ha_stats_std(const double *values, int64_t n);

/* The values are put in order in place. */
double ha_stats_median(double *values, int64_t n);

/* The values are put in order in place. */
struct ha_summary ha_stats_summary(double *values, int64_t n);

#endif
