/* Rows that make no sense: what they concern is held with its reason, the start goes on, and the
 * rest of the sweep, and other sweeps, too. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/server/support.h"

enum { CLIENT = 1, WORKER = 2 };

static int setup(void **state)
{
    static struct bench b;

    bench_open(&b);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    bench_close(*state);
    return 0;
}

/* While no coordinator has it. */
static void run_sql(const struct bench *b, const char *sql)
{
    char path[96], *message = NULL;
    sqlite3 *db;

    snprintf(path, sizeof path, "%s/coordinator.db", b->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    assert_true(sqlite3_changes(db) > 0);
    sqlite3_close(db);
}

static void damage(struct bench *b, const char *sql)
{
    bench_hello_client(b, CLIENT);
    bench_create(b, CLIENT);
    bench_kill(b);
    run_sql(b, sql);
    bench_start(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_settle(b);
}

#define OF_MID "UPDATE cell SET setting = 999 WHERE name = 'tiny/mid';"

static void finish_base(struct bench *b)
{
    struct fake_job job;

    assert_true(bench_granted(b, WORKER, &job));
    assert_false(job.train);
    bench_do_job(b, WORKER, &job, 3);
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "done", NULL);
}

/* base is answered; mid's training is held and given to nobody, until its rows are mended. */
static void expect_held(struct bench *b, const char *why)
{
    struct ha_wire_message retry = {
        .kind = HA_WIRE_CHANGE,
        .body.change = {.key = "again", .verb = "retry", .sweep = "demo", .cell = "tiny/mid"}};
    struct fake_job job;

    finish_base(b);
    assert_false(bench_granted(b, WORKER, &job));
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready", why);
    bench_kill(b);
    run_sql(b,
            "UPDATE setting SET json = (SELECT json FROM setting WHERE id <> 999) WHERE id = 999");
    bench_start(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    ha_wire_message_destroy(bench_call(b, CLIENT, &retry, HA_WIRE_CHANGE_REPLY));
    bench_settle(b);
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
    bench_do_job(b, WORKER, &job, 0);
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "done", NULL);
}

static void settings_that_cannot_be_read(void **state)
{
    struct bench *b = *state;

    damage(b, "INSERT INTO setting VALUES (999, 'x', '{\"train\": ');" OF_MID);
    expect_held(b,
                "held: settings: tiny/mid:1:10: not valid JSON: unexpected token near end of file");
}

static void settings_that_are_no_object(void **state)
{
    struct bench *b = *state;

    damage(b, "INSERT INTO setting VALUES (999, 'x', '7');" OF_MID);
    expect_held(b, "held: the settings of cell tiny/mid are not an object");
}

static void a_grid_that_cannot_be_read(void **state)
{
    struct bench *b = *state;

    damage(b, "UPDATE sweep SET toml = '[sweep'");
    finish_base(b);
}

/* The start cut its expansion off, and it cannot go on: the sweep stops, and says why. */
static void a_grid_that_cannot_be_read_on(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message *status;
    struct fake_job job;

    damage(b, "UPDATE sweep SET toml = '[sweep', expanding = 1");
    assert_false(bench_granted(b, WORKER, &job));
    status = bench_status(b, CLIENT, "demo");
    assert_string_equal(status->body.status_reply.sweep.state, "paused");
    assert_non_null(strstr(status->body.status_reply.sweep.reason, "grid.toml:1: "));
    ha_wire_message_destroy(status);
}

static void a_judge_that_cannot_be_read(void **state)
{
    struct bench *b = *state;

    damage(b, "UPDATE judge SET settings = '{'");
    finish_base(b);
}

static void a_summary_that_cannot_be_read(void **state)
{
    struct bench *b = *state;

    damage(b, "UPDATE result SET summary = '{'");
    finish_base(b);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(settings_that_cannot_be_read), CASE(settings_that_are_no_object),
        CASE(a_grid_that_cannot_be_read),   CASE(a_grid_that_cannot_be_read_on),
        CASE(a_judge_that_cannot_be_read),  CASE(a_summary_that_cannot_be_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
