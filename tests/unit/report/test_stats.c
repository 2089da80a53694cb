/* Against SciPy's values for two lists of thirty scores. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>

#include "coordinator/report/stats.h"

static void near(double value, double want)
{
    assert_true(fabs(value - want) <= 1e-9 * (1 + fabs(want)));
}

static void thirty_scores(void **state)
{
    double a[] = {5, 5, 4, 4, 2, 5, 4, 3, 5, 4, 4, 1, 3, 5, 4,
                  3, 4, 5, 2, 4, 5, 3, 4, 5, 2, 4, 4, 3, 5, 4};
    double b[] = {3, 5, 3, 3, 2, 4, 4, 4, 5, 3, 4, 3, 2, 3, 4,
                  3, 3, 5, 1, 4, 2, 3, 5, 4, 2, 4, 1, 3, 4, 4};
    struct ha_summary summary;

    (void)state;
    summary = ha_stats_summary(a, 30);
    near(summary.mean, 115.0 / 30);
    assert_true(fabs(summary.std - 1.085431) < 5e-7);
    near(summary.median, 4);
    summary = ha_stats_summary(b, 30);
    near(summary.mean, 100.0 / 30);
    assert_true(fabs(summary.std - 1.093345) < 5e-7);
    near(summary.median, 3);
}

static void few_values(void **state)
{
    double one[] = {2}, even[] = {4, 1, 3, 2};

    (void)state;
    assert_true(isnan(ha_stats_mean(one, 0)));
    assert_true(isnan(ha_stats_median(one, 0)));
    assert_true(isnan(ha_stats_std(one, 1)));
    near(ha_stats_mean(one, 1), 2);
    near(ha_stats_median(even, 4), 2.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thirty_scores),
        cmocka_unit_test(few_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
