/* Change "set" of a large grid: read over many turns, stored in one, answered once. */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "coordinator/store/db.h"
#include "coordinator/store/sweep.h"

enum { CLIENT = 1, OTHER = 2, SEEDS = 400 };

/* A sweep of SEEDS + 1 cells, and a step per turn from then on. */
static int setup(void **state)
{
    static struct bench b;
    char *large = bench_replicated(SEEDS, "");

    bench_open(&b);
    bench_hello_client(&b, CLIENT);
    ha_wire_message_destroy(bench_submit(&b, CLIENT, "submit", large, false));
    bench_settle(&b);
    b.slice_us = 1;
    bench_restart(&b);
    bench_hello_client(&b, CLIENT);
    bench_hello_client(&b, OTHER);
    free(large);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    return 0;
}

static uint64_t ask(struct bench *b, uint64_t peer, const char *key, const char *setting)
{
    struct ha_wire_message message = {
        .kind = HA_WIRE_CHANGE,
        .body.change = {
            .key = key, .verb = "set", .sweep = "demo", .settings = &setting, .n_settings = 1}};

    return bench_send(b, peer, &message);
}

static uint64_t ask_to(struct bench *b, const char *verb)
{
    struct ha_wire_message message = {.kind = HA_WIRE_CHANGE,
                                      .body.change = {.key = verb, .verb = verb, .sweep = "demo"}};

    return bench_send(b, OTHER, &message);
}

static int read_sweep(void *context, const struct ha_sweep_row *row)
{
    struct ha_sweep_row *kept = context;

    *kept = *row;
    return 1;
}

static void expect_sweep(struct bench *b, int64_t priority, int64_t max_attempts)
{
    struct ha_sweep_row row;

    assert_int_equal(ha_store_sweep_each(b->store, 0, "demo", read_sweep, &row, NULL), 0);
    assert_int_equal(row.priority, priority);
    assert_int_equal(row.max_attempts, max_attempts);
    assert_int_equal(row.cells, SEEDS + 1);
    assert_int_equal(row.version, 1);
}

static void expect_done(struct bench *b, uint64_t peer, uint64_t id)
{
    struct ha_wire_message *reply = bench_wait(b, peer, id);

    if (reply->kind == HA_WIRE_ERROR)
        fail_msg("%s", reply->body.error.text);
    assert_int_equal(reply->kind, HA_WIRE_CHANGE_REPLY);
    assert_int_equal(reply->body.change_reply.changed, 1);
    ha_wire_message_destroy(reply);
}

static void expect_error(struct bench *b, uint64_t peer, uint64_t id, uint32_t code,
                         const char *text)
{
    struct ha_wire_message *reply = bench_wait(b, peer, id);

    assert_int_equal(reply->kind, HA_WIRE_ERROR);
    assert_int_equal(reply->body.error.code, code);
    if (!strstr(reply->body.error.text, text))
        fail_msg("%s", reply->body.error.text);
    ha_wire_message_destroy(reply);
}

/* Lines of the history that say "set". */
static void expect_history(struct bench *b, int64_t count)
{
    int64_t found;

    assert_int_equal(
        ha_db_int(b->store, &found, NULL, "SELECT count(*) FROM event WHERE after = 'set'", ""), 1);
    assert_int_equal(found, count);
}

static void others_are_heard_while_it_reads(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS};
    uint64_t id = ask(b, CLIENT, "k", "priority=7");

    for (int i = 0; i < 5; i++) {
        ha_wire_message_destroy(bench_call(b, OTHER, &list, HA_WIRE_SWEEP_LIST));
        assert_null(bench_reply(b, CLIENT, id));
        expect_sweep(b, 0, 3); /* nothing of it */
    }
    expect_done(b, CLIENT, id);
    expect_sweep(b, 7, 3);                                     /* all of it */
    expect_done(b, CLIENT, ask(b, CLIENT, "k", "priority=7")); /* the stored reply */
    expect_error(b, CLIENT, ask(b, CLIENT, "k", "priority=8"), EEXIST, "another request");
    bench_settle(b);
    expect_sweep(b, 7, 3);
    expect_history(b, 1);
}

/* Who asks again is answered once, wherever it asked last. */
static void it_is_asked_again_while_it_reads(void **state)
{
    struct bench *b = *state;
    uint64_t first = ask(b, CLIENT, "k", "priority=7"), second;

    bench_turn(b, 0);
    second = ask(b, OTHER, "k", "priority=7");
    expect_done(b, OTHER, second);
    bench_settle(b);
    assert_null(bench_reply(b, CLIENT, first));
    expect_history(b, 1);
}

static void killed_in_the_middle_it_did_not_happen(void **state)
{
    struct bench *b = *state;

    ask(b, CLIENT, "k", "priority=7");
    for (int turns = 1; turns < 20; turns += 5) {
        for (int i = 0; i < turns; i++)
            bench_turn(b, 0);
        bench_restart(b);
        bench_hello_client(b, CLIENT);
        if (turns < 12) { /* 64 of 800 points a turn */
            expect_sweep(b, 0, 3);
            expect_history(b, 0);
        }
        ask(b, CLIENT, "k", "priority=7");
    }
    bench_settle(b);
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    expect_done(b, CLIENT, ask(b, CLIENT, "k", "priority=7"));
    expect_sweep(b, 7, 3);
    expect_history(b, 1);
}

static void two_at_once_both_count(void **state)
{
    struct bench *b = *state;
    uint64_t first = ask(b, CLIENT, "k1", "priority=7"), second;

    bench_turn(b, 0);
    second = ask(b, OTHER, "k2", "retry.max_attempts=9");
    expect_done(b, CLIENT, first);
    expect_done(b, OTHER, second);
    expect_sweep(b, 7, 9);
    expect_history(b, 2);
}

static void a_cancel_meanwhile_wins(void **state)
{
    struct bench *b = *state;
    uint64_t set = ask(b, CLIENT, "k", "priority=7"), cancel = ask_to(b, "cancel");

    ha_wire_message_destroy(bench_wait(b, OTHER, cancel));
    expect_error(b, CLIENT, set, EINVAL, "cancelled");
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "cancelled");
    expect_sweep(b, 0, 3);
    expect_history(b, 0);
}

static void another_change_meanwhile_is_named(void **state)
{
    struct bench *b = *state;
    uint64_t set = ask(b, CLIENT, "k", "priority=7"), retry = ask_to(b, "retry");

    ha_wire_message_destroy(bench_wait(b, OTHER, retry));
    expect_error(b, CLIENT, set, EBUSY, "being changed just now");
    bench_settle(b);
    expect_sweep(b, 0, 3);
    expect_done(b, CLIENT, ask(b, CLIENT, "k", "priority=7")); /* a refusal is not kept */
    expect_sweep(b, 7, 3);
}

static void what_the_grid_does_not_take_is_refused(void **state)
{
    struct bench *b = *state;

    expect_error(b, CLIENT, ask(b, CLIENT, "k", "resources.gpus=64"), EINVAL,
                 "gradient_accumulation");
    bench_settle(b);
    expect_sweep(b, 0, 3);
    expect_history(b, 0);
}

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes == RLIM_INFINITY ? limit.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The turn that stores it fails: it is done again, and answered then. */
static void a_turn_that_cannot_be_stored_is_done_again(void **state)
{
    struct bench *b = *state;
    uint64_t id = ask(b, CLIENT, "k", "priority=7");

    signal(SIGXFSZ, SIG_IGN);
    limit_files(1024); /* every write to the log fails */
    for (int i = 0; i < 20; i++)
        bench_turn(b, 2000);
    assert_null(bench_reply(b, CLIENT, id));
    limit_files(RLIM_INFINITY);
    expect_sweep(b, 0, 3);
    bench_turn(b, 2000);
    expect_done(b, CLIENT, id);
    expect_sweep(b, 7, 3);
    expect_history(b, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(others_are_heard_while_it_reads),
        CASE(it_is_asked_again_while_it_reads),
        CASE(killed_in_the_middle_it_did_not_happen),
        CASE(two_at_once_both_count),
        CASE(a_cancel_meanwhile_wins),
        CASE(another_change_meanwhile_is_named),
        CASE(what_the_grid_does_not_take_is_refused),
        CASE(a_turn_that_cannot_be_stored_is_done_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
