#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "judge-worker/limits.h"
#include "judge-worker/retry_after.h"

static int64_t end_call(struct ha_judge_limits *limits, enum ha_judge_class class,
                        int64_t retry_after_ms, int64_t now)
{
    const struct ha_judge_ending ending = {
        .class = class, .tokens_used = -1, .retry_after_ms = retry_after_ms, .random = 0.5};

    return ha_judge_limits_end(limits, &ending, now);
}

/* Calls that may go now, at once. */
static int admitted(struct ha_judge_limits *limits, int64_t now)
{
    int n = 0;

    while (n < 10000 && ha_judge_limits_admit(limits, 100, now) == 0)
        n++;
    return n;
}

static void starts_slowly_and_doubles_each_round(void **state)
{
    struct ha_judge_limits limits;
    int64_t now = 1000;

    (void)state;
    ha_judge_limits_init(&limits, 256, 0, 0, false, now);
    for (int width = 8; width <= 256; width *= 2) {
        assert_int_equal(admitted(&limits, now), width);
        assert_int_equal(ha_judge_limits_admit(&limits, 100, now), INT64_MAX);
        now += 50;
        for (int i = 0; i < width; i++)
            assert_int_equal(end_call(&limits, HA_JUDGE_CLASS_REPLY, -1, now), 0);
    }
    assert_int_equal(admitted(&limits, now), 256);
}

static void cuts_once_per_burst(void **state)
{
    struct ha_judge_limits limits;
    int64_t now = 1000;

    (void)state;
    ha_judge_limits_init(&limits, 8, 0, 0, false, now);
    assert_int_equal(admitted(&limits, now), 8);
    for (int i = 0; i < 8; i++)
        assert_true(end_call(&limits, HA_JUDGE_CLASS_RPM, 3000, now) >= 3000);
    assert_true(limits.width > 5.5 && limits.width < 5.7);
    assert_int_equal(ha_judge_limits_admit(&limits, 100, now), 3000);
    assert_int_equal(admitted(&limits, now + 3000), 5);
}

static void never_shrinks_on_server_errors(void **state)
{
    struct ha_judge_limits limits;

    (void)state;
    ha_judge_limits_init(&limits, 8, 0, 0, false, 0);
    assert_int_equal(admitted(&limits, 0), 8);
    for (int i = 0; i < 8; i++)
        assert_true(end_call(&limits, HA_JUDGE_CLASS_TRANSIENT, -1, 10) > 0);
    assert_int_equal(admitted(&limits, 10), 8);
}

static void probes_alone_when_a_person_is_needed(void **state)
{
    struct ha_judge_limits limits;
    int64_t now = 0, wait = 0, before;

    (void)state;
    ha_judge_limits_init(&limits, 8, 0, 0, false, now);
    assert_int_equal(admitted(&limits, now), 8);
    for (int i = 0; i < 8; i++)
        wait = end_call(&limits, HA_JUDGE_CLASS_CONFIG, -1, now);
    for (int i = 0; i < 10; i++) {
        before = wait;
        now += 60000;
        assert_int_equal(admitted(&limits, now), 1);
        wait = end_call(&limits, HA_JUDGE_CLASS_CONFIG, -1, now);
        assert_true(wait >= before && wait <= 60000);
    }
    now += 60000;
    assert_int_equal(admitted(&limits, now), 1);
    end_call(&limits, HA_JUDGE_CLASS_REPLY, -1, now);
    assert_int_equal(admitted(&limits, now), 2);
}

static void keeps_rates(void **state)
{
    struct ha_judge_limits limits;
    int64_t requests = 0, tokens = 0;

    (void)state;
    ha_judge_limits_init(&limits, 1000, 600, 0, true, 0);
    for (int64_t now = 0; now <= 60000; now += 10) {
        while (ha_judge_limits_admit(&limits, 100, now) == 0) {
            requests++;
            end_call(&limits, HA_JUDGE_CLASS_REPLY, -1, now);
        }
    }
    assert_in_range(requests, 600, 611);
    ha_judge_limits_init(&limits, 1000, 0, 60000, false, 0);
    for (int64_t now = 0; now <= 60000; now += 10) {
        while (ha_judge_limits_admit(&limits, 1000, now) == 0) {
            const struct ha_judge_ending ending = {.class = HA_JUDGE_CLASS_REPLY,
                                                   .tokens_reserved = 1000,
                                                   .tokens_used = 1500,
                                                   .retry_after_ms = -1};

            tokens += 1500;
            ha_judge_limits_end(&limits, &ending, now);
        }
    }
    assert_in_range(tokens, 57000, 64000);
}

static void lets_a_call_larger_than_the_bucket_pass(void **state)
{
    struct ha_judge_limits limits;

    (void)state;
    ha_judge_limits_init(&limits, 8, 0, 6000, true, 0);
    assert_int_equal(ha_judge_limits_admit(&limits, 5000, 0), 0);
    assert_in_range(ha_judge_limits_admit(&limits, 5000, 1), 40000, 60000);
}

static void reads_retry_after(void **state)
{
    static const struct {
        const char *value;
        int64_t ms;
    } rows[] = {
        {"3", 3000},
        {"0.5", 500},
        {" 7 ", 7000},
        {"1m30s", 90000},
        {"500ms", 500},
        {"6m0s", 360000},
        {"-5", 0},
        {"Thu, 01 Jan 1970 00:00:10 GMT", 9000},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"1970-01-01T00:01:01Z", 60000},
        {"999999", 604800000},
        {"9999999999999999999", -1},
        {"", -1},
        {"soon", -1},
        {"1.2.3", -1},
        {"5 apples", -1},
        {"1e9", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(ha_judge_retry_after(rows[i].value, 1000), rows[i].ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_slowly_and_doubles_each_round),
        cmocka_unit_test(cuts_once_per_burst),
        cmocka_unit_test(never_shrinks_on_server_errors),
        cmocka_unit_test(probes_alone_when_a_person_is_needed),
        cmocka_unit_test(keeps_rates),
        cmocka_unit_test(lets_a_call_larger_than_the_bucket_pass),
        cmocka_unit_test(reads_retry_after),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
