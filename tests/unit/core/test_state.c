#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "coordinator/core/order.h"
#include "coordinator/core/state.h"

static void names_are_read_back(void **state)
{
    (void)state;
    for (int i = 0; i < HA_JOB_STATES; i++) {
        enum ha_job_state parsed;

        assert_true(ha_job_state_parse(ha_job_state_name((enum ha_job_state)i), &parsed));
        assert_int_equal(parsed, i);
    }
    for (int i = 0; i < HA_STAGE_STATES; i++) {
        enum ha_stage_state parsed;

        assert_true(ha_stage_state_parse(ha_stage_state_name((enum ha_stage_state)i), &parsed));
        assert_int_equal(parsed, i);
    }
    for (int i = 0; i < HA_ITEM_STATES; i++) {
        enum ha_item_state parsed;

        assert_true(ha_item_state_parse(ha_item_state_name((enum ha_item_state)i), &parsed));
        assert_int_equal(parsed, i);
    }
}

static void other_names_are_refused(void **state)
{
    enum ha_job_state job;
    enum ha_stage_kind kind;

    (void)state;
    assert_false(ha_job_state_parse("Ready", &job));
    assert_false(ha_job_state_parse("", &job));
    assert_false(ha_stage_kind_parse("probes", &kind));
}

static void final_jobs_stay_final(void **state)
{
    (void)state;
    for (int to = 0; to < HA_JOB_STATES; to++) {
        assert_false(ha_job_may(HA_JOB_DONE, (enum ha_job_state)to));
        assert_false(ha_job_may(HA_JOB_FAILED, (enum ha_job_state)to));
        assert_false(ha_job_may(HA_JOB_CANCELLED, (enum ha_job_state)to));
    }
    assert_true(ha_job_final(HA_JOB_DONE));
    assert_false(ha_job_final(HA_JOB_HELD));
}

static void every_open_job_can_be_cancelled(void **state)
{
    (void)state;
    for (int from = 0; from < HA_JOB_STATES; from++) {
        if (!ha_job_final((enum ha_job_state)from))
            assert_true(ha_job_may((enum ha_job_state)from, HA_JOB_CANCELLED));
    }
}

static void changes_of_jobs(void **state)
{
    (void)state;
    assert_true(ha_job_may(HA_JOB_WAITING, HA_JOB_READY));
    assert_false(ha_job_may(HA_JOB_WAITING, HA_JOB_LEASED));
    assert_true(ha_job_may(HA_JOB_READY, HA_JOB_LEASED));
    assert_true(ha_job_may(HA_JOB_READY, HA_JOB_RUNNING)); /* a lost attempt came back */
    assert_true(ha_job_may(HA_JOB_RUNNING, HA_JOB_READY));
    assert_false(ha_job_may(HA_JOB_HELD, HA_JOB_LEASED));
}

static void changes_of_attempts_and_items(void **state)
{
    (void)state;
    assert_true(ha_attempt_may(HA_ATTEMPT_STATE_LOST, HA_ATTEMPT_STATE_RUNNING));
    assert_false(ha_attempt_may(HA_ATTEMPT_STATE_ENDED, HA_ATTEMPT_STATE_RUNNING));
    assert_true(ha_item_may(HA_ITEM_READY, HA_ITEM_SCORED)); /* a late reply */
    assert_false(ha_item_may(HA_ITEM_SCORED, HA_ITEM_READY));
    assert_false(ha_item_may(HA_ITEM_BLOCKED, HA_ITEM_LEASED));
}

static void turns_group_by_prompt(void **state)
{
    int64_t a = ha_order_turn(42, "m", 3, "m/base", 0, 0);
    int64_t b = ha_order_turn(42, "m", 3, "m/mid", 0, 0);

    (void)state;
    assert_true(a >= 0 && b >= 0);
    assert_int_equal(a >> 24, b >> 24);
    assert_int_not_equal(a, b);
    assert_int_not_equal(a >> 24, ha_order_turn(42, "m", 4, "m/base", 0, 0) >> 24);
    assert_int_not_equal(a >> 24, ha_order_turn(42, "n", 3, "n/base", 0, 0) >> 24);
    assert_int_not_equal(a >> 24, ha_order_turn(43, "m", 3, "m/base", 0, 0) >> 24);
    assert_int_equal(a, ha_order_turn(42, "m", 3, "m/base", 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read_back),   cmocka_unit_test(other_names_are_refused),
        cmocka_unit_test(final_jobs_stay_final), cmocka_unit_test(every_open_job_can_be_cancelled),
        cmocka_unit_test(changes_of_jobs),       cmocka_unit_test(changes_of_attempts_and_items),
        cmocka_unit_test(turns_group_by_prompt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
