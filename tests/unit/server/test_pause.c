/* What people hold back: sweeps, rows and columns; what runs, waits, and is judged. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { CLIENT = 1, WORKER = 2, OTHER = 3, JUDGE = 4 };

static int setup(void **state)
{
    static struct bench b;

    bench_open(&b);
    bench_hello_client(&b, CLIENT);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    return 0;
}

static struct ha_wire_message message_of(const char *verb, const char *model, const char *strategy)
{
    static char key[16];
    static int count;

    snprintf(key, sizeof key, "key%d", count++);
    return (struct ha_wire_message){.kind = HA_WIRE_CHANGE,
                                    .body.change = {.key = key,
                                                    .verb = verb,
                                                    .sweep = "demo",
                                                    .model = model,
                                                    .strategy = strategy,
                                                    .reason = "why not"}};
}

static int64_t send_change(struct bench *b, const struct ha_wire_message *message)
{
    struct ha_wire_message *reply = bench_call(b, CLIENT, message, HA_WIRE_CHANGE_REPLY);
    int64_t changed = reply->body.change_reply.changed;

    ha_wire_message_destroy(reply);
    bench_settle(b);
    return changed;
}

static int64_t change(struct bench *b, const char *verb, const char *model, const char *strategy)
{
    struct ha_wire_message message = message_of(verb, model, strategy);

    return send_change(b, &message);
}

/* The reason of a stage begins so. */
static void expect_reason(struct bench *b, const char *cell, const char *stage, const char *reason)
{
    struct ha_wire_message *status = bench_status(b, CLIENT, "demo");
    const struct ha_wire_stage_row *row = bench_stage(status, cell, stage);

    if (strncmp(row->reason, reason, strlen(reason)) != 0)
        fail_msg("%s %s: \"%s\", not \"%s\"", cell, stage, row->reason, reason);
    ha_wire_message_destroy(status);
}

static bool revoked(struct bench *b, uint64_t peer, const char *reason)
{
    struct ha_wire_message *push = bench_push(b, peer, HA_WIRE_REVOKE);

    if (!push)
        return false;
    assert_string_equal(push->body.revoke.reason, reason);
    ha_wire_message_destroy(push);
    return true;
}

static void submit_fused(struct bench *b)
{
    struct ha_wire_message *reply = bench_submit(b, CLIENT, "k1", bench_fused_grid(), false);

    assert_string_equal(reply->body.submit_reply.outcome, "created");
    ha_wire_message_destroy(reply);
    bench_settle(b);
}

static void a_paused_sweep_waits(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_create(b, CLIENT);
    assert_int_equal(change(b, "pause", "", ""), 1);
    assert_int_equal(change(b, "pause", "", ""), 0);
    bench_expect_sweep(b, CLIENT, "paused");
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_false(bench_granted(b, WORKER, &job));
    expect_reason(b, "tiny/mid", "train", "held by local since ");
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i2", 1);
    assert_false(bench_granted(b, WORKER, &job));
    assert_int_equal(change(b, "resume", "", ""), 1);
    bench_expect_sweep(b, CLIENT, "running");
    assert_true(bench_granted(b, WORKER, &job));
}

static void what_runs_stops_at_a_checkpoint(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_true(bench_granted(b, WORKER, &job));
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    assert_int_equal(change(b, "pause", "", ""), 1);
    assert_true(revoked(b, WORKER, "paused by local: why not"));
    expect_reason(b, "tiny/base", "generate", "stopping at a checkpoint: paused by local: why not");
    /* The word is repeated until the attempt ends. */
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    assert_true(revoked(b, WORKER, "paused by local: why not"));
    bench_end(b, WORKER, &job, "stopped", "paused (checkpoint)");
    assert_false(bench_granted(b, WORKER, &again));
    expect_reason(b, "tiny/base", "generate", "held by local since ");
    assert_int_equal(change(b, "resume", "", ""), 1);
    assert_true(bench_granted(b, WORKER, &again));
    assert_int_equal(again.job, job.job);
    assert_false(revoked(b, WORKER, ""));
}

static void what_may_finish_goes_on(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct ha_wire_message message = message_of("pause", "", "");

    message.body.change.finish = true;
    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(send_change(b, &message), 1);
    assert_false(revoked(b, WORKER, ""));
    bench_do_job(b, WORKER, &job, 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
    assert_false(bench_granted(b, WORKER, &job));
}

static void a_column_waits_and_the_others_go_on(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_create(b, CLIENT);
    assert_int_equal(change(b, "pause", "", "mid"), 1);
    bench_expect_sweep(b, CLIENT, "running");
    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    assert_true(bench_granted(b, WORKER, &job));
    bench_do_job(b, WORKER, &job, 3);
    assert_false(bench_granted(b, WORKER, &job));
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
    expect_reason(b, "tiny/mid", "train", "held by local since ");
    assert_int_equal(change(b, "resume", "tiny", "base"), 0); /* not what is paused */
    assert_int_equal(change(b, "resume", "", ""), 1);         /* all within the sweep */
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
}

static void a_row_waits(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_create(b, CLIENT);
    assert_int_equal(change(b, "pause", "tiny", ""), 1);
    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    assert_false(bench_granted(b, WORKER, &job));
    bench_expect_sweep(b, CLIENT, "running");
    assert_int_equal(change(b, "resume", "tiny", ""), 1);
    assert_true(bench_granted(b, WORKER, &job));
}

static void names_are_checked(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message model = message_of("pause", "huge", "");
    struct ha_wire_message strategy = message_of("pause", "tiny", "odd");

    bench_create(b, CLIENT);
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &model, ENOENT);
    strategy.body.change.key = "other";
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &strategy, ENOENT);
}

/* Four cells train in one job: one column leaves it, the others take it up again. */
static void a_column_leaves_a_job_of_several_cells(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;
    int found = 0;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    submit_fused(b);
    assert_true(bench_granted(b, WORKER, &job));
    assert_int_equal(job.n_cells, 4);
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    assert_int_equal(change(b, "pause", "", "global"), 1);
    assert_true(revoked(b, WORKER, "paused by local: why not"));
    bench_end(b, WORKER, &job, "stopped", "paused (checkpoint)");
    while (bench_granted(b, WORKER, &again)) {
        if (again.train)
            assert_int_equal(again.n_cells, 3);
        found += again.train;
        bench_do_job(b, WORKER, &again, 3);
    }
    assert_int_equal(found, 1);
    expect_reason(b, "tiny/global", "train", "held by local since ");
    bench_expect_stage(b, CLIENT, "tiny/full", "generate", "done", NULL);
    assert_int_equal(change(b, "resume", "", "global"), 1);
    assert_true(bench_granted(b, WORKER, &again));
    assert_int_equal(again.n_cells, 1);
    bench_do_job(b, WORKER, &again, 3);
    while (bench_granted(b, WORKER, &again))
        bench_do_job(b, WORKER, &again, 3);
    bench_expect_stage(b, CLIENT, "tiny/global", "generate", "done", NULL);
}

/* A worker that was silent comes back with an attempt that is held by now. */
static void an_attempt_that_comes_back_is_told(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_true(bench_granted(b, WORKER, &job));
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    for (int i = 0; i < 40; i++)
        bench_turn(b, 2000);
    assert_int_equal(change(b, "pause", "", ""), 1);
    assert_false(revoked(b, WORKER, ""));
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    bench_settle(b);
    assert_true(revoked(b, WORKER, "paused by local: why not"));
}

static void judging_stops_too(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    struct fake_item items[8];

    bench_create(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    assert_int_equal(bench_items(b, JUDGE, items, 2), 2);
    assert_int_equal(change(b, "pause", "", ""), 1);
    /* Leased and not sent: not sent.  Then nothing is given out. */
    assert_false(bench_begin(b, JUDGE, &items[0], 0));
    assert_false(bench_begin(b, JUDGE, &items[1], 0));
    assert_int_equal(bench_items(b, JUDGE, items, 8), 0);
    expect_reason(b, "tiny/mid", "judge:q", "held by local since ");
    assert_int_equal(change(b, "resume", "", ""), 1);
    /* Of a column: the other's answers are still scored. */
    assert_int_equal(change(b, "pause", "", "mid"), 1);
    assert_int_equal(bench_judge_all(b, JUDGE), 3);
    bench_expect_stage(b, CLIENT, "tiny/base", "judge:q", "done", NULL);
    assert_int_equal(change(b, "resume", "", "mid"), 1);
    assert_int_equal(bench_judge_all(b, JUDGE), 3);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "done");
    assert_int_equal(change(b, "pause", "", ""), 0); /* nothing is left */
}

static void submit_and_retry_leave_it_paused(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message *reply;
    struct fake_job job;
    char grid[1024];

    bench_create(b, CLIENT);
    assert_int_equal(change(b, "pause", "", ""), 1);
    snprintf(grid, sizeof grid, "%s[retry]\nmax_attempts = 5\n", bench_grid);
    reply = bench_submit(b, CLIENT, "again", grid, false);
    ha_wire_message_destroy(reply);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "paused");
    change(b, "retry", "", "");
    bench_expect_sweep(b, CLIENT, "paused");
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    assert_false(bench_granted(b, WORKER, &job));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_paused_sweep_waits),
        CASE(what_runs_stops_at_a_checkpoint),
        CASE(what_may_finish_goes_on),
        CASE(a_column_waits_and_the_others_go_on),
        CASE(a_row_waits),
        CASE(names_are_checked),
        CASE(a_column_leaves_a_job_of_several_cells),
        CASE(an_attempt_that_comes_back_is_told),
        CASE(judging_stops_too),
        CASE(submit_and_retry_leave_it_paused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
