#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "coordinator/core/lease.h"

static const struct ha_lease_rules rules = {
    .heartbeat_ms = 5000, .late_ms = 15000, .lost_ms = 60000};

static void epochs_are_equal_or_not(void **state)
{
    (void)state;
    assert_true(ha_epoch_equal((struct ha_epoch){7, 1}, (struct ha_epoch){7, 1}));
    assert_false(ha_epoch_equal((struct ha_epoch){7, 1}, (struct ha_epoch){7, 2}));
    assert_false(ha_epoch_equal((struct ha_epoch){7, 2}, (struct ha_epoch){8, 2}));
}

static void silence_makes_late_then_lost(void **state)
{
    static const struct {
        int64_t silent_ms;
        enum ha_liveness liveness;
    } table[] = {{0, HA_ALIVE},    {14999, HA_ALIVE}, {15000, HA_LATE},
                 {59999, HA_LATE}, {60000, HA_LOST},  {1000000, HA_LOST}};

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        assert_int_equal(ha_lease_liveness(&rules, 1000, 1000 + table[i].silent_ms),
                         table[i].liveness);
}

static void who_rests_is_not_late(void **state)
{
    struct ha_lease_rules close = {.heartbeat_ms = 5000, .late_ms = 6000, .lost_ms = 60000};

    (void)state;
    assert_int_equal(ha_lease_rest_ms(&rules), 7000);
    assert_int_equal(ha_lease_liveness(&rules, 0, 2 * ha_lease_rest_ms(&rules)), HA_ALIVE);
    assert_int_equal(ha_lease_rest_ms(&close), 5000);
}

static void lost_needs_three_missed_heartbeats(void **state)
{
    struct ha_lease_rules slow = {.heartbeat_ms = 30000, .late_ms = 15000, .lost_ms = 60000};

    (void)state;
    assert_int_equal(ha_lease_liveness(&slow, 0, 60000), HA_LATE);
    assert_int_equal(ha_lease_liveness(&slow, 0, 89999), HA_LATE);
    assert_int_equal(ha_lease_liveness(&slow, 0, 90000), HA_LOST);
}

static void a_long_turn_renews(void **state)
{
    (void)state;
    assert_false(ha_lease_renew(&rules, 100, 5100));
    assert_true(ha_lease_renew(&rules, 100, 5101));
}

static void hello_decisions(void **state)
{
    struct ha_lease_holder holder = {"m1", "a", HA_ALIVE};

    (void)state;
    assert_int_equal(ha_lease_hello(NULL, "m1", "a"), HA_HELLO_NEW);
    assert_int_equal(ha_lease_hello(&holder, "m1", "a"), HA_HELLO_SAME);
    assert_int_equal(ha_lease_hello(&holder, "m1", "b"), HA_HELLO_VOIDS);
    assert_int_equal(ha_lease_hello(&holder, "m2", "b"), HA_HELLO_REFUSED);
    holder.liveness = HA_LATE;
    assert_int_equal(ha_lease_hello(&holder, "m2", "b"), HA_HELLO_REFUSED);
    holder.liveness = HA_LOST;
    assert_int_equal(ha_lease_hello(&holder, "m2", "b"), HA_HELLO_VOIDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epochs_are_equal_or_not),
        cmocka_unit_test(silence_makes_late_then_lost),
        cmocka_unit_test(who_rests_is_not_late),
        cmocka_unit_test(lost_needs_three_missed_heartbeats),
        cmocka_unit_test(a_long_turn_renews),
        cmocka_unit_test(hello_decisions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
