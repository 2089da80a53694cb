/* Keys of workers: whose a name is, and what becomes of leases whose key may no longer have them.
 */
#include "support.h"

#include <errno.h>
#include <string.h>

enum { CLIENT = 1, WORKER = 2, OTHER = 3 };

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

/* A worker with one slot that holds the generate job of base. */
static struct fake_job start(struct bench *b)
{
    struct fake_job job;

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_create(b, CLIENT);
    assert_true(bench_granted(b, WORKER, &job));
    assert_false(job.train);
    return job;
}

static struct ha_wire_message hello_of(const char *name, const char *instance)
{
    return (struct ha_wire_message){.kind = HA_WIRE_HELLO,
                                    .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                   .name = name,
                                                   .instance = instance,
                                                   .machine = "m1",
                                                   .version = "1",
                                                   .slots = 1,
                                                   .backend = "cpu",
                                                   .host = "host"}};
}

static void expect_last_event(struct bench *b, const char *to, const char *reason)
{
    const struct ha_wire_message log = {.kind = HA_WIRE_LOG_REQUEST,
                                        .body.log_request = {.limit = 1000}};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &log, HA_WIRE_LOG_REPLY);
    const struct ha_wire_event_row *found = NULL;

    for (int64_t i = 0; i < reply->body.log_reply.n_events; i++) {
        if (strcmp(reply->body.log_reply.events[i].subject, "worker w1") == 0)
            found = &reply->body.log_reply.events[i];
    }
    assert_non_null(found);
    assert_string_equal(found->to, to);
    assert_string_equal(found->reason, reason);
    ha_wire_message_destroy(reply);
}

static void expect_key(struct bench *b, const char *key)
{
    const struct ha_wire_message ask = {.kind = HA_WIRE_WORKERS_REQUEST};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &ask, HA_WIRE_WORKERS_REPLY);

    assert_string_equal(reply->body.workers_reply.workers[0].key, key);
    ha_wire_message_destroy(reply);
}

static void a_name_belongs_to_the_key_that_said_it_first(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message hello = hello_of("w1", "i2");

    b->key = "node1";
    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    expect_key(b, "node1");
    b->key = "node2";
    bench_refused(b, OTHER, HA_NET_ROLE_WORKER, &hello, EACCES);
    bench_turn(b, 100000); /* also when its worker is gone */
    bench_refused(b, OTHER, HA_NET_ROLE_WORKER, &hello, EACCES);
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    bench_refused(b, OTHER, HA_NET_ROLE_WORKER, &hello, EACCES);
    bench_hello_worker(b, OTHER, "w2", "i2", 1); /* a name of its own */
    b->key = "node1"; /* a new process, and a further name of the same key */
    bench_hello_worker(b, WORKER, "w1", "i3", 1);
    bench_hello_worker(b, WORKER, "w3", "i4", 1);
    expect_key(b, "node1");
}

static void a_revoked_key_ends_its_leases_at_once(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;
    struct ha_wire_message *reply;

    b->key = "node1";
    job = start(b);
    reply = bench_beat(b, WORKER, &job, 1);
    ha_wire_message_destroy(reply);
    b->key = "node2";
    bench_hello_worker(b, OTHER, "w2", "i1", 2);
    assert_true(bench_granted(b, OTHER, &again)); /* the training */
    b->revoked = "node1";
    ha_coordinator_keys_changed(b->c);
    bench_turn(b, 1);
    expect_last_event(b, "revoked", "the key node1 of worker w1 was revoked");
    expect_key(b, "");
    bench_turn(b, 4000); /* the wait before the next attempt */
    assert_true(bench_granted(b, OTHER, &again));
    assert_int_equal(again.job, job.job);
    b->key = "node2"; /* the name is free for another key */
    bench_hello_worker(b, 7, "w1", "i9", 1);
    expect_key(b, "node2");
}

/* The key is there still, and is a reader's now, or a judge's. */
static void a_key_of_another_role_holds_no_leases(void **state)
{
    struct bench *b = *state;
    struct fake_job job;

    b->key = "node1";
    job = start(b);
    b->revoked = "node1";
    b->revoked_role = HA_NET_ROLE_WORKER;
    ha_coordinator_keys_changed(b->c);
    bench_turn(b, 1);
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    expect_key(b, "node1");
    b->revoked_role = HA_NET_ROLE_JUDGE;
    ha_coordinator_keys_changed(b->c);
    bench_turn(b, 1);
    expect_last_event(b, "revoked", "the key node1 of worker w1 was revoked");
    expect_key(b, "");
}

/* It was revoked while the coordinator did not run. */
static void a_revoked_key_is_seen_at_the_start(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;

    b->key = "node1";
    job = start(b);
    ha_wire_message_destroy(bench_beat(b, WORKER, &job, 1));
    bench_kill(b);
    b->revoked = "node1";
    bench_start(b);
    ha_coordinator_keys_changed(b->c);
    bench_turn(b, 1);
    b->key = "node2";
    bench_hello_client(b, CLIENT);
    expect_last_event(b, "revoked", "the key node1 of worker w1 was revoked");
    bench_hello_worker(b, OTHER, "w2", "i1", 2);
    bench_turn(b, 4000);
    assert_true(bench_granted(b, OTHER, &again));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_name_belongs_to_the_key_that_said_it_first),
        CASE(a_revoked_key_ends_its_leases_at_once),
        CASE(a_key_of_another_role_holds_no_leases),
        CASE(a_revoked_key_is_seen_at_the_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
