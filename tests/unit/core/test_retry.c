#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/buffer.h"
#include "coordinator/core/retry.h"

static const struct ha_retry_policy policy = {.max_attempts = 3};

static void decisions(void **state)
{
    static const struct {
        struct ha_retry_counts before;
        enum ha_outcome outcome;
        enum ha_stop stop;
        bool started, progress;
        enum ha_retry_verdict verdict;
        struct ha_retry_counts after;
    } table[] = {
        {{0, 0}, HA_OUTCOME_FAILED, HA_STOP_NONE, true, false, HA_RETRY_AGAIN, {1, 0}},
        {{1, 3}, HA_OUTCOME_FAILED, HA_STOP_NONE, true, true, HA_RETRY_AGAIN, {2, 0}},
        {{2, 0}, HA_OUTCOME_FAILED, HA_STOP_NONE, true, true, HA_RETRY_FAIL, {3, 0}},
        {{0, 0}, HA_OUTCOME_REFUSED, HA_STOP_NONE, true, true, HA_RETRY_FAIL, {0, 0}},
        {{0, 3}, HA_OUTCOME_LOST, HA_STOP_NONE, true, true, HA_RETRY_AGAIN, {0, 0}},
        {{0, 0}, HA_OUTCOME_LOST, HA_STOP_NONE, true, false, HA_RETRY_AGAIN, {1, 1}},
        {{2, 0}, HA_OUTCOME_LOST, HA_STOP_NONE, true, false, HA_RETRY_FAIL, {3, 1}},
        {{2, 0}, HA_OUTCOME_LOST, HA_STOP_NONE, false, false, HA_RETRY_AGAIN, {2, 0}},
        {{0, 4}, HA_OUTCOME_LOST, HA_STOP_NONE, true, true, HA_RETRY_AGAIN, {0, 0}},
        {{2, 4}, HA_OUTCOME_LOST, HA_STOP_NONE, true, false, HA_RETRY_HOLD, {3, 5}},
        {{1, 4}, HA_OUTCOME_STOPPED, HA_STOP_NONE, true, false, HA_RETRY_AGAIN, {1, 0}},
        {{1, 4}, HA_OUTCOME_STOPPED, HA_STOP_PAUSE, true, false, HA_RETRY_AGAIN, {1, 0}},
        {{2, 0}, HA_OUTCOME_STOPPED, HA_STOP_CELL, true, false, HA_RETRY_AGAIN, {2, 0}},
        {{1, 4}, HA_OUTCOME_STOPPED, HA_STOP_DRAIN, true, true, HA_RETRY_AGAIN, {1, 0}},
        {{1, 0}, HA_OUTCOME_STOPPED, HA_STOP_DRAIN, true, false, HA_RETRY_AGAIN, {2, 0}},
        {{2, 0}, HA_OUTCOME_STOPPED, HA_STOP_PREEMPT, false, false, HA_RETRY_AGAIN, {2, 0}},
        {{2, 0}, HA_OUTCOME_STOPPED, HA_STOP_LIMIT, true, false, HA_RETRY_FAIL, {3, 0}},
        {{2, 0}, HA_OUTCOME_STOPPED, HA_STOP_LIMIT, true, true, HA_RETRY_AGAIN, {2, 0}},
        {{0, 4}, HA_OUTCOME_STOPPED, HA_STOP_GAP, true, true, HA_RETRY_AGAIN, {0, 0}},
        {{0, 0}, HA_OUTCOME_STOPPED, HA_STOP_GAP, true, false, HA_RETRY_AGAIN, {1, 0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct ha_retry_decision d =
            ha_retry_decide(&policy, table[i].before, table[i].outcome, table[i].stop,
                            table[i].started, table[i].progress, 7);

        assert_int_equal(d.verdict, table[i].verdict);
        assert_int_equal(d.counts.crashes, table[i].after.crashes);
        assert_int_equal(d.counts.losses, table[i].after.losses);
        if (table[i].outcome == HA_OUTCOME_FAILED && d.verdict == HA_RETRY_AGAIN)
            assert_true(d.delay_ms > 0);
        if (table[i].outcome == HA_OUTCOME_LOST)
            assert_int_equal(d.delay_ms, 0);
    }
}

static void wait_when_lost_holds(void **state)
{
    struct ha_retry_policy wait = {.max_attempts = 3, .wait_when_lost = true};
    struct ha_retry_decision d = ha_retry_decide(&wait, (struct ha_retry_counts){0, 0},
                                                 HA_OUTCOME_LOST, HA_STOP_NONE, true, true, 1);

    (void)state;
    assert_int_equal(d.verdict, HA_RETRY_HOLD);
    d = ha_retry_decide(&wait, (struct ha_retry_counts){0, 0}, HA_OUTCOME_LOST, HA_STOP_NONE, false,
                        false, 1);
    assert_int_equal(d.verdict, HA_RETRY_AGAIN);
}

static void backoff_doubles_with_a_known_jitter(void **state)
{
    int64_t base = HA_RETRY_BASE_MS;

    (void)state;
    for (int64_t count = 1; count < 40; count++) {
        for (uint64_t seed = 0; seed < 20; seed++) {
            int64_t delay = ha_retry_backoff_ms(count, seed);

            assert_in_range(delay, base * 3 / 4, base * 5 / 4);
            assert_int_equal(delay, ha_retry_backoff_ms(count, seed));
        }
        base = base * 2 > HA_RETRY_MAX_MS ? HA_RETRY_MAX_MS : base * 2;
    }
    assert_int_not_equal(ha_retry_backoff_ms(5, 1), ha_retry_backoff_ms(5, 2));
}

static void reasons_are_sentences(void **state)
{
    struct ha_retry_decision d = {.verdict = HA_RETRY_FAIL, .counts = {.crashes = 3}};
    struct ha_buffer text;

    (void)state;
    ha_buffer_init(&text, 0);
    assert_int_equal(ha_retry_reason(&policy, &d, HA_OUTCOME_FAILED, "exit code 1", &text), 0);
    assert_string_equal(ha_buffer_text(&text),
                        "3 of 3 attempts are used up; last crash: exit code 1");
    ha_buffer_reset(&text);
    d.verdict = HA_RETRY_AGAIN;
    assert_int_equal(
        ha_retry_reason(&policy, &d, HA_OUTCOME_FAILED, "killed by signal 9 (SIGKILL)", &text), 0);
    assert_string_equal(ha_buffer_text(&text), "crash: killed by signal 9 (SIGKILL)");
    ha_buffer_reset(&text);
    assert_int_equal(ha_retry_reason(&policy, &d, HA_OUTCOME_REFUSED, "no such file", &text), 0);
    assert_string_equal(ha_buffer_text(&text), "no such file");
    ha_buffer_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions),
        cmocka_unit_test(wait_when_lost_holds),
        cmocka_unit_test(backoff_doubles_with_a_known_jitter),
        cmocka_unit_test(reasons_are_sentences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
