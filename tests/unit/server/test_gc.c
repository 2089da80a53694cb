/* What nothing needs goes, and nothing else; also when the process is killed between. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "common/base/path.h"
#include "common/io/file.h"
#include "coordinator/store/artifact.h"

enum { CLIENT = 1, WORKER = 2, JUDGE = 3, DAY = 86400000 };

#define STRAY DIGEST("77")
#define LONE DIGEST("99")

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

struct found {
    int64_t artifacts, bytes;
    char sha256[16][65];
    char why[16][64];
};

/* All slices of one run. */
static struct found collect(struct bench *b, bool dry_run, int64_t older_ms)
{
    struct ha_wire_message message = {.kind = HA_WIRE_GC};
    struct found found = {0};
    char phase[32] = "", after[80] = "";

    do {
        struct ha_wire_message *reply;
        const struct ha_wire_gc_reply *gc;

        message.body.gc = (struct ha_wire_gc){
            .dry_run = dry_run, .older_ms = older_ms, .phase = phase, .after = after};
        reply = bench_call(b, CLIENT, &message, HA_WIRE_GC_REPLY);
        gc = &reply->body.gc_reply;
        for (int64_t i = 0; i < gc->n_sha256; i++) {
            assert_true(found.artifacts + i < 16);
            snprintf(found.sha256[found.artifacts + i], 65, "%s", gc->sha256[i]);
            snprintf(found.why[found.artifacts + i], 64, "%s", gc->why[i]);
        }
        found.artifacts += gc->artifacts;
        found.bytes += gc->bytes;
        snprintf(phase, sizeof phase, "%s", gc->phase);
        snprintf(after, sizeof after, "%s", gc->after);
        ha_wire_message_destroy(reply);
    } while (phase[0]);
    return found;
}

/* A client that was silent for so long says hello again. */
static void pass(struct bench *b, int64_t ms)
{
    bench_turn(b, ms);
    bench_hello_client(b, CLIENT);
}

static bool there(struct bench *b, const char *sha256)
{
    int r = ha_store_artifact_find(b->store, sha256, NULL, NULL);

    assert_true(r >= 0);
    return r == 1;
}

static void make_file(struct bench *b, const char *sha256, int64_t age_s)
{
    char path[256];
    struct timespec times[2] = {{.tv_sec = b->wall_ms / 1000 - age_s},
                                {.tv_sec = b->wall_ms / 1000 - age_s}};

    snprintf(path, sizeof path, "%s/artifacts/%.2s", b->dir, sha256);
    assert_int_equal(ha_path_make_dirs(path, 0700, NULL), 0);
    snprintf(path, sizeof path, "%s/artifacts/%.2s/%s", b->dir, sha256, sha256);
    assert_int_equal(ha_file_write(path, "x", 1, 0600, NULL), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void report(struct bench *b, struct fake_job *job, const char *kind, const char *sha256,
                   int64_t step)
{
    struct ha_wire_attempt_event event = {
        .kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
        .event.artifact = {.cell = strcmp(kind, "log") == 0 ? 0 : job->cell,
                           .kind = kind,
                           .name = "file",
                           .sha256 = sha256,
                           .size = 10,
                           .step = step}};

    bench_artifact(b, sha256);
    ha_wire_message_destroy(bench_report(b, WORKER, job, &event, 1));
}

static void uploads_that_nothing_names(void **state)
{
    struct bench *b = *state;
    struct found found;

    bench_create(b, CLIENT); /* its files are named */
    bench_artifact(b, LONE);
    found = collect(b, false, 0);
    assert_int_equal(found.artifacts, 0); /* it may belong to a submit under way */
    pass(b, 2 * (int64_t)DAY);
    found = collect(b, true, 0);
    assert_int_equal(found.artifacts, 1);
    assert_string_equal(found.sha256[0], LONE);
    assert_true(there(b, LONE));
    bench_artifact(b, LONE); /* uploaded again: as good as new */
    assert_int_equal(collect(b, true, 0).artifacts, 0);
    pass(b, 2 * (int64_t)DAY);
    assert_int_equal(collect(b, false, 0).artifacts, 1);
    assert_int_equal(b->orphan_count, 1);
    assert_false(there(b, LONE));
    assert_true(there(b, TRAIN_DIGEST));
    assert_true(there(b, EVAL_DIGEST));
}

static void what_a_sweep_that_goes_on_needs_stays(void **state)
{
    struct bench *b = *state;
    struct fake_job base, job, next;
    struct found found;

    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, WORKER, &base));
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
    report(b, &job, "checkpoint", DIGEST("21"), 1);
    report(b, &job, "log", DIGEST("22"), 0);
    bench_turn(b, 30000);
    assert_int_equal(collect(b, false, 3600000).artifacts, 0);
    bench_do_job(b, WORKER, &job, 0); /* its adapter too */
    assert_true(bench_granted(b, WORKER, &next));
    found = collect(b, true, 3600000);
    assert_int_equal(found.artifacts, 0); /* done less than an hour ago */
    for (int i = 0; i < 400; i++) {       /* the worker goes on beating */
        bench_turn(b, 10000);
        ha_wire_message_destroy(bench_beat(b, WORKER, &next, 1));
    }
    bench_hello_client(b, CLIENT);
    found = collect(b, false, 3600000);
    assert_int_equal(found.artifacts, 2);
    assert_string_equal(found.sha256[0], DIGEST("21"));
    assert_string_equal(found.sha256[1], DIGEST("22"));
    assert_non_null(strstr(found.why[0], "checkpoint"));
    assert_non_null(strstr(found.why[1], "log"));
    assert_true(there(b, ADAPTER_DIGEST));
    assert_true(there(b, CONFIG_DIGEST));
    assert_int_equal(collect(b, false, 3600000).artifacts, 0);
}

/* Killed before the turn was durable: nothing happened.  Killed after it, with the
 * file still there: the next run finds a file without a row. */
static void a_kill_in_between_loses_nothing(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = {.kind = HA_WIRE_GC};
    struct found found;

    bench_artifact(b, LONE);
    make_file(b, LONE, 5 * DAY / 1000);
    pass(b, 2 * (int64_t)DAY);
    bench_post(b, CLIENT, HA_NET_ROLE_ADMIN, &message);
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    assert_true(there(b, LONE));
    assert_int_equal(b->orphan_count, 0);

    bench_send(b, CLIENT, &message); /* durable; whoever removes the file is killed */
    assert_int_equal(b->orphan_count, 1);
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    assert_false(there(b, LONE));
    found = collect(b, false, 0);
    assert_int_equal(found.artifacts, 1);
    assert_string_equal(found.sha256[0], LONE);
    assert_non_null(strstr(found.why[0], "no row"));
    assert_int_equal(b->orphan_count, 2);
}

static void files_without_a_row(void **state)
{
    struct bench *b = *state;
    struct found found;
    char path[256];

    bench_create(b, CLIENT);
    make_file(b, STRAY, 2 * DAY / 1000);
    make_file(b, LONE, 60); /* an upload whose row is about to be made */
    make_file(b, TRAIN_DIGEST, 9 * DAY / 1000);
    snprintf(path, sizeof path, "%s/artifacts/77/note.txt", b->dir);
    assert_int_equal(ha_file_write(path, "x", 1, 0600, NULL), 0);
    found = collect(b, true, 0);
    assert_int_equal(found.artifacts, 1);
    assert_string_equal(found.sha256[0], STRAY);
    assert_int_equal(b->orphan_count, 0);
    found = collect(b, false, 0);
    assert_int_equal(found.artifacts, 1);
    assert_int_equal(b->orphan_count, 1);
    assert_string_equal(b->orphans[0], STRAY);
}

static void what_is_asked_is_bounded(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = {.kind = HA_WIRE_GC, .body.gc = {.older_ms = 1000}};

    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, EINVAL);
    message.body.gc = (struct ha_wire_gc){.phase = "everything"};
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, EINVAL);
    message.body.gc = (struct ha_wire_gc){.phase = "strays", .after = "../.."};
    ha_wire_message_destroy(bench_call(b, CLIENT, &message, HA_WIRE_GC_REPLY)); /* folder 00 */
    message.body.gc = (struct ha_wire_gc){.phase = "strays", .after = "256"};
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, EINVAL);
    message.body.gc = (struct ha_wire_gc){.phase = ""};
    bench_refused(b, CLIENT, HA_NET_ROLE_SUBMIT, &message, EACCES);
    bench_refused(b, CLIENT, HA_NET_ROLE_READ, &message, EACCES);
}

/* ---- the limit of a sweep ---------------------------------------------------------- */

static int64_t stored(struct bench *b)
{
    int64_t bytes;

    assert_int_equal(ha_store_stored_bytes(b->store, 1, 0, &bytes, NULL, NULL), 0);
    return bytes;
}

/* The sweep may store 5,000 bytes more than its grid; two attempts under way are some 1,000 of it.
 */
static void limited(struct bench *b, struct fake_job *base, struct fake_job *job)
{
    bench_create(b, CLIENT);
    b->max_sweep_bytes = stored(b) + 5000;
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    bench_settle(b);
    assert_true(bench_granted(b, WORKER, base));
    assert_true(bench_granted(b, WORKER, job));
}

static void a_sweep_stores_no_more_than_it_may(void **state)
{
    struct bench *b = *state;
    struct fake_job base, job;
    struct ha_wire_message *status;
    const struct ha_wire_stage_row *stage;

    limited(b, &base, &job);
    report(b, &job, "checkpoint", DIGEST("31"), 1);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "running", NULL);
    {
        struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                              .event.artifact = {.cell = job.cell,
                                                                 .kind = "checkpoint",
                                                                 .name = "file",
                                                                 .sha256 = DIGEST("32"),
                                                                 .size = 5000,
                                                                 .step = 2}};

        bench_artifact(b, DIGEST("32"));
        ha_wire_message_destroy(bench_report(b, WORKER, &job, &event, 1));
    }
    status = bench_status(b, CLIENT, "demo");
    stage = bench_stage(status, "tiny/mid", "train");
    assert_string_equal(stage->state, "failed");
    assert_non_null(strstr(stage->reason, "max_sweep_size"));
    ha_wire_message_destroy(status);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "leased", NULL); /* others go on */
}

/* The failure of a cell whose sweep is full says so. */
static void expect_full(struct bench *b, const char *cell, const char *stage)
{
    struct ha_wire_message *status = bench_status(b, CLIENT, "demo");
    const struct ha_wire_stage_row *row = bench_stage(status, cell, stage);

    assert_string_equal(row->state, "failed");
    assert_non_null(strstr(row->reason, "max_sweep_size"));
    ha_wire_message_destroy(status);
}

static void answer(struct bench *b, struct fake_job *job, int prompt, size_t bytes)
{
    char text[5000] = "";
    struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ANSWER,
                                          .event.answer = {.cell = job->cell,
                                                           .prompt = (uint32_t)prompt,
                                                           .prompt_text = "question",
                                                           .text = "answer",
                                                           .raw = text,
                                                           .finish = "eos"}};

    assert_true(bytes < sizeof text);
    memset(text, 'x', bytes);
    ha_wire_message_destroy(bench_report(b, WORKER, job, &event, 1));
}

static void rows_count_too(void **state)
{
    struct bench *b = *state;
    struct fake_job base, job;
    struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_METRIC};

    limited(b, &base, &job);
    for (int i = 0; i < 10; i++) /* the first one is stored */
        answer(b, &base, 0, 1500);
    bench_expect_stage(b, CLIENT, "tiny/base", "generate", "running", NULL);
    answer(b, &base, 1, 2500);
    expect_full(b, "tiny/base", "generate");
    /* What is left is used up by the training's metrics, and what is left is remembered. */
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    for (uint64_t step = 1; step <= 40; step++) {
        event.event.metric = (struct ha_wire_attempt_metric){
            .cell = job.cell, .step = step, .name = "loss", .value = 1};
        ha_wire_message_destroy(bench_report(b, WORKER, &job, &event, 1));
    }
    expect_full(b, "tiny/mid", "train");
}

static void replies_count_and_stop_the_calls(void **state)
{
    struct bench *b = *state;
    struct fake_item items[4];
    struct fake_job base, job;
    struct ha_wire_message *status;
    const struct ha_wire_stage_row *stage;
    int64_t bytes;

    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, WORKER, &base));
    assert_true(bench_granted(b, WORKER, &job));
    bench_hello_judge(b, JUDGE, "j1", "i1");
    bench_do_job(b, WORKER, &base, 3);
    bench_do_job(b, WORKER, &job, 0);
    assert_true(bench_granted(b, WORKER, &job));
    bench_do_job(b, WORKER, &job, 3);
    assert_int_equal(bench_items(b, JUDGE, items, 4), 4);
    assert_true(bench_begin(b, JUDGE, &items[0], 0));
    assert_int_equal(ha_store_stored_bytes(b->store, 1, 0, &bytes, NULL, NULL), 0);
    answer(b, &base, 0, 10); /* of a job that is done: nothing is stored */
    assert_false(bench_raw(b, JUDGE, &items[0], 0));
    {
        int64_t with_reply;

        assert_int_equal(ha_store_stored_bytes(b->store, 1, 0, &with_reply, NULL, NULL), 0);
        assert_int_equal(with_reply, bytes + 3); /* its row was counted when it was begun */
    }
    assert_false(bench_outcome(b, JUDGE, &items[0], "scored", ""));
    b->max_sweep_bytes = bytes; /* now it is full */
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    for (int i = 1; i < 4; i++)
        assert_false(bench_begin(b, JUDGE, &items[i], 0));
    assert_int_equal(bench_items(b, JUDGE, items, 4), 0);
    status = bench_status(b, CLIENT, "demo");
    stage = bench_stage(status, "tiny/base", "judge:q");
    assert_non_null(strstr(stage->reason, "may store no more"));
    ha_wire_message_destroy(status);
}

static int64_t count(struct bench *b, const char *sql)
{
    char path[128];
    sqlite3_stmt *statement;
    sqlite3 *db;
    int64_t n;

    bench_kill(b);
    snprintf(path, sizeof path, "%s/coordinator.db", b->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    n = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    bench_start(b);
    bench_hello_client(b, CLIENT);
    return n;
}

/* What is counted as it is written is what counting all of it would find. */
static void expect_counted(struct bench *b)
{
    int64_t all = stored(b);

    assert_int_equal(
        all,
        count(b, "SELECT (SELECT stored_bytes + length(toml) + length(overrides) FROM sweep)"
                 " + (SELECT sum(100 + length(name)) FROM cell)"
                 " + (SELECT sum(length(json)) FROM setting)"
                 " + 700 * (SELECT count(*) FROM stage) + 200 * (SELECT count(*) FROM attempt)"
                 " + (SELECT sum(100 + length(reason)) FROM event WHERE sweep = 1)"
                 " + 150 * (SELECT count(*) FROM item) + 200 * (SELECT count(*) FROM judge_call)"
                 " + ifnull((SELECT sum(64 + length(name)) FROM metric), 0)"
                 " + ifnull((SELECT sum(200 + length(text) + length(raw)) FROM answer), 0)"
                 " + ifnull((SELECT sum(length(text)) FROM prompt), 0)"
                 " + ifnull((SELECT sum(length(raw)) FROM judge_raw), 0)"
                 " + ifnull((SELECT sum(40 + length(reason)) FROM score), 0)"));
}

static void change(struct bench *b, const char *key, const char *verb)
{
    struct ha_wire_message message = {.kind = HA_WIRE_CHANGE,
                                      .body.change = {.key = key, .verb = verb, .sweep = "demo"}};

    ha_wire_message_destroy(bench_call(b, CLIENT, &message, HA_WIRE_CHANGE_REPLY));
    bench_settle(b);
}

static void all_that_grows_is_counted(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    int64_t before;

    bench_create(b, CLIENT);
    expect_counted(b);
    before = stored(b);
    assert_true(before > 2 * HA_ROW_CELL + 5 * HA_ROW_STAGE);
    change(b, "c1", "cancel");
    change(b, "c2", "retry");
    assert_true(stored(b) >= before + 10 * HA_ROW_EVENT);
    expect_counted(b);
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    while (bench_granted(b, WORKER, &job))
        bench_do_job(b, WORKER, &job, 3);
    assert_int_equal(bench_judge_all(b, JUDGE), 6);
    bench_settle(b);
    expect_counted(b);
}

static void expect_too_large(struct bench *b, int64_t most, const char *text)
{
    struct ha_wire_message *reply;

    b->max_sweep_bytes = most;
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    reply = bench_submit_any(b, CLIENT, "key1", bench_grid, false);
    assert_int_equal(reply->kind, HA_WIRE_ERROR);
    assert_int_equal(reply->body.error.code, EFBIG);
    assert_non_null(strstr(reply->body.error.text, "max_sweep_size"));
    if (!strstr(reply->body.error.text, text))
        fail_msg("%s", reply->body.error.text);
    ha_wire_message_destroy(reply);
}

static void grids_above_the_limit_are_not_submitted(void **state)
{
    struct bench *b = *state;

    expect_too_large(b, 10, "files and rows have 1 KiB");
    expect_too_large(b, 2000, "new cells need 3 KiB");
    b->max_sweep_bytes = 20000;
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_create(b, CLIENT);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(uploads_that_nothing_names),
        CASE(what_a_sweep_that_goes_on_needs_stays),
        CASE(a_kill_in_between_loses_nothing),
        CASE(files_without_a_row),
        CASE(what_is_asked_is_bounded),
        CASE(a_sweep_stores_no_more_than_it_may),
        CASE(rows_count_too),
        CASE(replies_count_and_stop_the_calls),
        CASE(all_that_grows_is_counted),
        CASE(grids_above_the_limit_are_not_submitted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
