/* What records of finished work say of workers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "coordinator/core/speed.h"

static void add(struct ha_speed *speed, enum ha_stage_kind kind, double flops, double seconds,
                int64_t cells)
{
    ha_speed_add(speed, &(struct ha_speed_record){.kind = kind,
                                                  .flops = flops,
                                                  .flops_plain = 4 * flops,
                                                  .seconds = seconds,
                                                  .cells_in_job = cells});
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

static void the_newest_weigh_most(void **state)
{
    struct ha_speed speed = {0};

    (void)state;
    assert_true(ha_speed_of(&speed, HA_STAGE_TRAIN) == 0);
    add(&speed, HA_STAGE_TRAIN, 1e12, 10, 4);
    assert_true(near(ha_speed_of(&speed, HA_STAGE_TRAIN), 1e11));
    assert_true(near(ha_speed_of(&speed, HA_STAGE_GENERATE), 1e11)); /* for want of its own */
    add(&speed, HA_STAGE_GENERATE, 1e10, 1, 1);
    assert_true(near(ha_speed_of(&speed, HA_STAGE_GENERATE), 1e10));
    assert_true(near(ha_speed_of(&speed, HA_STAGE_TRAIN), 1e11));
    for (int i = 0; i < 200; i++)
        add(&speed, HA_STAGE_TRAIN, 2e12, 10, 4);
    assert_true(near(ha_speed_of(&speed, HA_STAGE_TRAIN), 2e11));
}

static void nonsense_is_passed_over(void **state)
{
    struct ha_speed speed = {0};

    (void)state;
    add(&speed, HA_STAGE_TRAIN, NAN, 1, 1);
    add(&speed, HA_STAGE_TRAIN, -1, 1, 1);
    add(&speed, HA_STAGE_GENERATE, 1, 0, 1);
    add(&speed, HA_STAGE_GENERATE, 1, INFINITY, 1);
    add(&speed, HA_STAGE_PROBE, 1, 1, 1);
    add(&speed, HA_STAGE_JUDGE, 1, 1, 1);
    assert_true(ha_speed_of(&speed, HA_STAGE_TRAIN) == 0);
    add(&speed, HA_STAGE_GENERATE, 1, 1, 0);
    assert_true(speed.n == 0);
    assert_true(ha_speed_of(&speed, HA_STAGE_GENERATE) == 1);
}

static void gaps_are_filled(void **state)
{
    double speeds[4] = {0, 2, 0, 4}, none[2] = {0, 0};

    (void)state;
    assert_true(ha_speed_fill(speeds, 4));
    assert_true(speeds[0] == 3 && speeds[1] == 2 && speeds[2] == 3 && speeds[3] == 4);
    assert_false(ha_speed_fill(none, 2));
    assert_true(none[0] == 0 && none[1] == 0);
    assert_false(ha_speed_fill(none, 0));
}

/* Records of a worker that needs `cost` for each variant and `shared` for each queue. */
static void answer(struct ha_speed *speed, double cost, double shared, int64_t cells)
{
    for (int64_t i = 0; i < cells; i++)
        add(speed, HA_STAGE_GENERATE, 1e9, cost + shared / (double)cells, cells);
}

static void sharing_is_fitted(void **state)
{
    struct ha_speed a = {0}, b = {0}, c = {0};
    const struct ha_speed *all[] = {&a, &b, &c};

    (void)state;
    assert_true(ha_speed_sharing(all, 0) < 0);
    answer(&a, 8, 2, 4);
    assert_true(ha_speed_sharing(all, 3) < 0); /* jobs of one size say nothing */
    answer(&a, 8, 2, 1);
    assert_true(near(ha_speed_sharing(all, 3), 0.25));
    answer(&b, 80, 20, 5); /* ten times slower, the same sharing */
    answer(&b, 80, 20, 1);
    answer(&c, 3, 3, 5); /* one size: its speed is no matter */
    assert_true(near(ha_speed_sharing(all, 3), 0.25));
}

static void sharing_is_bounded(void **state)
{
    struct ha_speed a = {0};
    const struct ha_speed *all[] = {&a};

    (void)state;
    answer(&a, 1, 0, 4);
    add(&a, HA_STAGE_GENERATE, 1e9, 0.5, 1); /* faster alone */
    assert_true(ha_speed_sharing(all, 1) == 0);
    a = (struct ha_speed){0};
    answer(&a, 0.001, 9, 4);
    answer(&a, 0.001, 9, 1);
    assert_true(ha_speed_sharing(all, 1) == 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_weigh_most), cmocka_unit_test(nonsense_is_passed_over),
        cmocka_unit_test(gaps_are_filled),       cmocka_unit_test(sharing_is_fitted),
        cmocka_unit_test(sharing_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
