/* Copies of the database while turns go on, and what is kept for them. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/path.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/backup.h"

enum { CLIENT = 1, WORKER = 2, OTHER = 3 };

static const char *const key = "0123456789abcdef", *const other_key = "fedcba9876543210";

static int finished; /* copies */

static int setup(void **state)
{
    static struct bench b;

    finished = 0;
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

static struct ha_wire_message request(const char *name, bool end)
{
    return (struct ha_wire_message){.kind = HA_WIRE_BACKUP,
                                    .body.backup = {.key = name, .end = end}};
}

/* Ask, and compare the state. */
static void expect(struct bench *b, const char *name, bool end, const char *state)
{
    struct ha_wire_message message = request(name, end), *reply;

    reply = bench_call(b, CLIENT, &message, HA_WIRE_BACKUP_REPLY);
    assert_string_equal(reply->body.backup_reply.state, state);
    ha_wire_message_destroy(reply);
}

/* Until the copy is made, and what the thread that hashes would say. */
static void finish_copy(struct bench *b)
{
    finished++;
    for (int i = 0; i < 10000 && b->snapshots < finished; i++)
        bench_turn(b, 0);
    assert_int_equal(b->snapshots, finished);
    ha_coordinator_snapshot(b->c, b->snapshot_number, TRAIN_DIGEST, 4096, NULL);
}

static void a_copy_is_the_database_at_its_end(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = request(key, false), *reply;
    struct ha_store_facts facts;
    struct ha_store *copy;
    struct ha_error err = {0};

    reply = bench_call(b, CLIENT, &message, HA_WIRE_BACKUP_REPLY);
    assert_string_equal(reply->body.backup_reply.state, "copying");
    ha_wire_message_destroy(reply);
    bench_create(b, CLIENT); /* while it is copied */
    finish_copy(b);
    reply = bench_call(b, CLIENT, &message, HA_WIRE_BACKUP_REPLY);
    assert_string_equal(reply->body.backup_reply.state, "ready");
    assert_string_equal(reply->body.backup_reply.sha256, TRAIN_DIGEST);
    assert_int_equal(reply->body.backup_reply.size, 4096);
    assert_true(reply->body.backup_reply.total > 0);
    assert_int_equal(reply->body.backup_reply.done, reply->body.backup_reply.total);
    ha_wire_message_destroy(reply);
    if (ha_store_open_copy(b->snapshot_path, &copy, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(ha_store_check_whole(copy, &err), 0);
    assert_int_equal(ha_store_facts(copy, &facts, &err), 0);
    assert_int_equal(facts.generation, ha_store_generation(b->store));
    assert_true(facts.artifacts <= 2);
    ha_store_close(copy);
    expect(b, key, true, "ended");
    bench_turn(b, 0);
    assert_int_equal(b->snapshots_ended, 1);
}

static void what_is_asked_for_is_bounded(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = request("short", false);

    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, EINVAL);
    message = request(key, false);
    bench_refused(b, CLIENT, HA_NET_ROLE_SUBMIT, &message, EACCES);
    bench_refused(b, CLIENT, HA_NET_ROLE_READ, &message, EACCES);
    expect(b, key, false, "copying");
    message = request(other_key, false);
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, EBUSY);
    expect(b, other_key, true, "ended"); /* not this one's */
    finish_copy(b);
    expect(b, key, false, "ready");
    expect(b, key, true, "ended");
    bench_turn(b, 0);
    expect(b, other_key, false, "copying");
}

static void a_failure_is_told(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = request(key, false), *reply;
    struct ha_error why = {0};

    expect(b, key, false, "copying");
    for (int i = 0; i < 10000 && b->snapshots == 0; i++)
        bench_turn(b, 0);
    ha_error_set(&why, ENOSPC, "the disk is full");
    ha_coordinator_snapshot(b->c, b->snapshot_number, "", 0, &why);
    reply = bench_call(b, CLIENT, &message, HA_WIRE_BACKUP_REPLY);
    assert_string_equal(reply->body.backup_reply.state, "failed");
    assert_string_equal(reply->body.backup_reply.error, "the disk is full");
    ha_wire_message_destroy(reply);
    assert_false(ha_path_exists(b->snapshot_path)); /* it takes no room */
}

static void one_that_nobody_asks_for_ends(void **state)
{
    struct bench *b = *state;

    expect(b, key, false, "copying");
    finish_copy(b);
    bench_turn(b, 300000);
    expect(b, key, false, "ready");
    bench_turn(b, 590000);
    assert_int_equal(b->snapshots_ended, 0);
    bench_turn(b, 20000);
    assert_int_equal(b->snapshots_ended, 1);
    /* A late end of the hashing belongs to nobody: its file goes. */
    ha_coordinator_snapshot(b->c, b->snapshot_number, TRAIN_DIGEST, 1, NULL);
    assert_int_equal(b->snapshots_ended, 2);
}

/* Of a training: two checkpoints push the first one out. */
static void checkpoint(struct bench *b, struct fake_job *job, int64_t step, const char *sha256)
{
    struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                          .event.artifact = {.cell = job->cell,
                                                             .kind = "checkpoint",
                                                             .name = "state.safetensors",
                                                             .sha256 = sha256,
                                                             .size = 10,
                                                             .step = step}};

    bench_artifact(b, sha256);
    ha_wire_message_destroy(bench_report(b, WORKER, job, &event, 1));
}

static void what_the_copy_names_is_kept(void **state)
{
    struct bench *b = *state;
    struct fake_job base, job;

    bench_hello_worker(b, WORKER, "w1", "i1", 2);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, WORKER, &base));
    assert_true(bench_granted(b, WORKER, &job));
    assert_true(job.train);
    checkpoint(b, &job, 1, DIGEST("11"));
    expect(b, key, false, "copying");
    finish_copy(b);
    checkpoint(b, &job, 2, DIGEST("12"));
    checkpoint(b, &job, 3, DIGEST("13"));
    checkpoint(b, &job, 4, DIGEST("14"));
    assert_int_equal(b->orphan_count, 0); /* two of them are orphans */
    bench_artifact(b, DIGEST("12"));      /* one comes again */
    expect(b, key, true, "ended");
    bench_turn(b, 0);
    assert_int_equal(b->orphan_count, 1);
    assert_string_equal(b->orphans[0], DIGEST("11"));
    /* Without a backup they go at once. */
    checkpoint(b, &job, 5, DIGEST("15"));
    assert_int_equal(b->orphan_count, 2);
}

/* The process is killed: nothing of the backup is known any more, and the client that
 * asks on sees another copy. */
static void a_restart_ends_it(void **state)
{
    struct bench *b = *state;

    expect(b, key, false, "copying");
    finish_copy(b);
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    expect(b, key, false, "copying");
    finish_copy(b);
    expect(b, key, false, "ready");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_copy_is_the_database_at_its_end),
        CASE(what_is_asked_for_is_bounded),
        CASE(a_failure_is_told),
        CASE(one_that_nobody_asks_for_ends),
        CASE(what_the_copy_names_is_kept),
        CASE(a_restart_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
