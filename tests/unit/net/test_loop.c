#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/net/loop.h"

static struct ha_loop *loop;
static char trace[64]; /* what was called, in order */

static void note(char what)
{
    size_t n = strlen(trace);

    trace[n] = what;
    trace[n + 1] = '\0';
}

static int make_loop(void **state)
{
    struct ha_error err = {0};

    (void)state;
    trace[0] = '\0';
    return ha_loop_create(&loop, &err);
}

static int end_loop(void **state)
{
    (void)state;
    ha_loop_destroy(loop);
    return 0;
}

static void turn(int64_t wait_ms)
{
    struct ha_error err = {0};

    if (ha_loop_turn(loop, wait_ms, &err) < 0)
        fail_msg("%s", err.text);
}

/* ---- timers ---------------------------------------------------------------------------- */

static void note_it(void *context)
{
    note(*(const char *)context);
}

static struct ha_loop_timer *make_timer(const char *name)
{
    struct ha_loop_timer *timer;

    assert_int_equal(ha_loop_timer_create(loop, note_it, (void *)(uintptr_t)name, &timer, NULL), 0);
    return timer;
}

static void orders_timers_by_time_then_by_setting(void **state)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    static const int64_t before_now[] = {5, 9, 5, 1, 9, 3, 5, 9};
    struct ha_loop_timer *timers[8];
    int64_t now = ha_loop_now_ms(loop);

    (void)state;
    for (int i = 0; i < 8; i++) {
        timers[i] = make_timer(names[i]);
        ha_loop_timer_set(timers[i], now - before_now[i]);
    }
    ha_loop_timer_set(timers[1], now - 9); /* set again: behind the others of its time */
    ha_loop_timer_unset(timers[5]);
    assert_false(ha_loop_timer_is_set(timers[5]));
    turn(0);
    assert_string_equal(trace, "ehbacgd");
    for (int i = 0; i < 8; i++)
        ha_loop_timer_destroy(timers[i]);
}

static void waits_for_the_next_timer(void **state)
{
    struct ha_loop_timer *timer = make_timer("t");
    int64_t start = ha_clock_boot_ms();

    (void)state;
    ha_loop_timer_set_after(timer, 30);
    while (trace[0] == '\0')
        turn(-1);
    assert_in_range(ha_clock_boot_ms() - start, 29, 1000);
    assert_true(ha_loop_now_ms(loop) >= start + 30);
    ha_loop_timer_destroy(timer);
}

static struct ha_loop_timer *again;

static void set_again(void *context)
{
    (void)context;
    note('x');
    ha_loop_timer_set(again, 0);
}

static void rests_before_the_next_turn(void **state)
{
    int64_t begin_ms = ha_clock_boot_ms();

    (void)state;
    ha_loop_rest(loop, 20);
    turn(50);
    assert_true(ha_clock_boot_ms() - begin_ms >= 19);
    ha_loop_rest(loop, 60000);
    turn(0); /* no longer than the turn may wait */
    assert_true(ha_clock_boot_ms() - begin_ms < 30000);
    ha_loop_rest(loop, 60000);
    ha_loop_stop(loop);
    turn(-1);
    assert_true(ha_clock_boot_ms() - begin_ms < 30000);
}

static void ends_a_turn_though_a_timer_sets_itself(void **state)
{
    (void)state;
    assert_int_equal(ha_loop_timer_create(loop, set_again, NULL, &again, NULL), 0);
    ha_loop_timer_set(again, 0);
    turn(0);
    turn(-1);
    assert_string_equal(trace, "xx");
    ha_loop_timer_destroy(again);
}

static void destroy_self(void *context)
{
    struct ha_loop_timer **timer = context;

    note('d');
    ha_loop_timer_destroy(*timer);
}

static void lets_a_timer_end_itself(void **state)
{
    struct ha_loop_timer *timer;

    (void)state;
    assert_int_equal(ha_loop_timer_create(loop, destroy_self, &timer, &timer, NULL), 0);
    ha_loop_timer_set(timer, 0);
    turn(0);
    turn(0);
    assert_string_equal(trace, "d");
}

static void keeps_many_timers_in_order(void **state)
{
    enum { N = 2000 };
    static struct ha_loop_timer *timers[N];
    static char name[] = "";
    uint32_t random = 1;

    (void)state;
    for (int i = 0; i < N; i++) {
        assert_int_equal(ha_loop_timer_create(loop, note_it, name, &timers[i], NULL), 0);
        random = random * 1664525 + 1013904223;
        ha_loop_timer_set(timers[i], (int64_t)(random >> 8) % 500);
    }
    for (int i = 0; i < N; i += 3)
        ha_loop_timer_destroy(timers[i]);
    turn(0);
    for (int i = 0; i < N; i++) {
        if (i % 3 == 0)
            continue;
        assert_false(ha_loop_timer_is_set(timers[i]));
        ha_loop_timer_destroy(timers[i]);
    }
}

/* ---- descriptors ------------------------------------------------------------------------- */

struct reading {
    struct ha_loop_fd *watch;
    bool end_it;
};

static void read_byte(void *context, int fd, unsigned events)
{
    struct reading *reading = context;
    char byte;

    assert_true((events & HA_LOOP_READ) != 0);
    if (read(fd, &byte, 1) == 1)
        note(byte);
    else
        note('!');
    if (reading->end_it)
        ha_loop_fd_end(reading->watch);
}

static void watches_descriptors(void **state)
{
    struct reading reading = {0};
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(
        ha_loop_watch_fd(loop, ends[0], HA_LOOP_READ, read_byte, &reading, &reading.watch, NULL),
        0);
    turn(0);
    assert_string_equal(trace, "");
    assert_int_equal(write(ends[1], "ab", 2), 2);
    turn(-1);
    turn(-1);
    assert_string_equal(trace, "ab");
    assert_int_equal(ha_loop_fd_set_interest(reading.watch, 0, NULL), 0);
    assert_int_equal(write(ends[1], "c", 1), 1);
    turn(0);
    assert_string_equal(trace, "ab");
    assert_int_equal(ha_loop_fd_set_interest(reading.watch, HA_LOOP_READ, NULL), 0);
    turn(-1);
    assert_string_equal(trace, "abc");
    close(ends[1]);
    reading.end_it = true;
    turn(-1);
    turn(0);
    assert_string_equal(trace, "abc!");
    close(ends[0]);
}

static void end_both(void *context, int fd, unsigned events)
{
    struct ha_loop_fd **watches = context;

    (void)fd;
    (void)events;
    note('1');
    ha_loop_fd_end(watches[0]);
    ha_loop_fd_end(watches[1]);
}

static void calls_no_watch_that_ended_in_the_same_turn(void **state)
{
    struct ha_loop_fd *watches[2];
    int a[2], b[2];

    (void)state;
    assert_int_equal(pipe(a), 0);
    assert_int_equal(pipe(b), 0);
    assert_int_equal(write(a[1], "x", 1) + write(b[1], "x", 1), 2);
    assert_int_equal(
        ha_loop_watch_fd(loop, a[0], HA_LOOP_READ, end_both, watches, &watches[0], NULL), 0);
    assert_int_equal(
        ha_loop_watch_fd(loop, b[0], HA_LOOP_READ, end_both, watches, &watches[1], NULL), 0);
    turn(-1);
    turn(0);
    assert_string_equal(trace, "1");
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

/* ---- posts, signals, turn end, stop ----------------------------------------------------- */

static void *post_from_thread(void *context)
{
    (void)context;
    for (int i = 0; i < 10; i++)
        ha_loop_post(loop, note_it, (void *)(uintptr_t) & "0123456789"[i]);
    return NULL;
}

static void runs_posted_calls_in_order(void **state)
{
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, post_from_thread, NULL), 0);
    while (strlen(trace) < 10)
        turn(-1);
    pthread_join(thread, NULL);
    assert_string_equal(trace, "0123456789");
    ha_loop_post(loop, note_it, (void *)(uintptr_t) "dropped");
}

static void note_signal(void *context, int signal)
{
    (void)context;
    note(signal == SIGUSR1 ? '1' : '2');
}

static void takes_signals_as_input(void **state)
{
    (void)state;
    assert_int_equal(ha_loop_on_signal(loop, SIGUSR1, note_signal, NULL, NULL), 0);
    assert_int_equal(ha_loop_on_signal(loop, SIGUSR2, note_signal, NULL, NULL), 0);
    raise(SIGUSR2);
    turn(-1);
    raise(SIGUSR1);
    turn(-1);
    assert_string_equal(trace, "21");
}

static void stop(void *context)
{
    (void)context;
    note('t');
    ha_loop_stop(loop);
}

static void ends_each_turn_with_the_hook(void **state)
{
    struct ha_loop_timer *timer;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_loop_timer_create(loop, stop, NULL, &timer, &err), 0);
    ha_loop_timer_set(timer, 0);
    ha_loop_on_turn_end(loop, note_it, (void *)(uintptr_t) "e");
    assert_int_equal(ha_loop_run(loop, &err), 0);
    assert_string_equal(trace, "te");
    ha_loop_timer_destroy(timer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_loop, end_loop)
        TEST(orders_timers_by_time_then_by_setting),
        TEST(waits_for_the_next_timer),
        TEST(rests_before_the_next_turn),
        TEST(ends_a_turn_though_a_timer_sets_itself),
        TEST(lets_a_timer_end_itself),
        TEST(keeps_many_timers_in_order),
        TEST(watches_descriptors),
        TEST(calls_no_watch_that_ended_in_the_same_turn),
        TEST(runs_posted_calls_in_order),
        TEST(takes_signals_as_input),
        TEST(ends_each_turn_with_the_hook),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
