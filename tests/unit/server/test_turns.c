/* Who may ask what; turns that cannot be stored. */
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

enum { CLIENT = 1, WORKER = 2, JUDGE = 3, STRANGER = 9 };

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

static void strangers_say_hello_first(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS};

    bench_refused(b, STRANGER, HA_NET_ROLE_ADMIN, &list, EPROTO);
    bench_hello_client(b, STRANGER);
    ha_wire_message_destroy(bench_call(b, STRANGER, &list, HA_WIRE_SWEEP_LIST));
    ha_coordinator_peer_gone(b->c, STRANGER);
    bench_refused(b, STRANGER, HA_NET_ROLE_ADMIN, &list, EPROTO);
}

/* For every kind of message, the roles of keys that may send it to a peer of the
 * right kind. */
static void keys_bound_what_a_peer_may_do(void **state)
{
    struct bench *b = *state;
    enum {
        READ = 1 << HA_NET_ROLE_READ,
        SUBMIT = 1 << HA_NET_ROLE_SUBMIT,
        WORK = 1 << HA_NET_ROLE_WORKER,
        RATE = 1 << HA_NET_ROLE_JUDGE,
        ADMIN = 1 << HA_NET_ROLE_ADMIN
    };
    static const struct {
        enum ha_wire_body kind;
        uint64_t peer;
        int roles;
    } table[] = {
        {HA_WIRE_LIST_SWEEPS, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_STATUS_REQUEST, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_ANSWERS_REQUEST, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_LOG_REQUEST, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_WORKERS_REQUEST, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_METRICS_REQUEST, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_NORMS_REQUEST, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_HEALTH_REQUEST, CLIENT, READ | SUBMIT | ADMIN},
        {HA_WIRE_BACKUP, CLIENT, ADMIN},
        {HA_WIRE_GC, CLIENT, ADMIN},
        {HA_WIRE_HEARTBEAT, WORKER, WORK | RATE | ADMIN},
        {HA_WIRE_HEARTBEAT, JUDGE, WORK | RATE | ADMIN},
        {HA_WIRE_SUBMIT, CLIENT, SUBMIT | ADMIN},
        {HA_WIRE_CHANGE, CLIENT, SUBMIT | ADMIN},
        {HA_WIRE_REPORT, WORKER, WORK | ADMIN},
        {HA_WIRE_GRANT_REQUEST, WORKER, WORK | ADMIN},
        {HA_WIRE_ITEMS_REQUEST, JUDGE, RATE | ADMIN},
        {HA_WIRE_ITEMS_BEGIN, JUDGE, RATE | ADMIN},
        {HA_WIRE_JUDGE_REPLIES, JUDGE, RATE | ADMIN},
        {HA_WIRE_JUDGE_OUTCOMES, JUDGE, RATE | ADMIN},
    };

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_hello_judge(b, JUDGE, "j1", "i1");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        for (int role = HA_NET_ROLE_NONE; role <= HA_NET_ROLE_ADMIN; role++) {
            struct ha_wire_message message = {.kind = table[i].kind};
            uint64_t id = bench_send_as(b, table[i].peer, (enum ha_net_role)role, &message);
            struct ha_wire_message *reply = bench_reply(b, table[i].peer, id);
            bool refused =
                reply->kind == HA_WIRE_ERROR && reply->body.error.code == (uint32_t)EACCES;

            assert_int_equal(refused, !(table[i].roles & 1 << role));
            ha_wire_message_destroy(reply);
        }
    }
}

static void a_peer_is_what_it_said(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message submit = {.kind = HA_WIRE_SUBMIT}, report = {.kind = HA_WIRE_REPORT},
                           beat = {.kind = HA_WIRE_HEARTBEAT};

    bench_hello_worker(b, WORKER, "w1", "i1", 1);
    bench_refused(b, WORKER, HA_NET_ROLE_ADMIN, &submit, EACCES);
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &report, EACCES);
    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &beat, EACCES);
}

static void a_key_of_another_role_cannot_say_hello(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message hello = {.kind = HA_WIRE_HELLO,
                                    .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                   .name = "w1",
                                                   .instance = "i",
                                                   .machine = "m",
                                                   .slots = 1}};

    bench_refused(b, WORKER, HA_NET_ROLE_JUDGE, &hello, EACCES);
    bench_refused(b, WORKER, HA_NET_ROLE_READ, &hello, EACCES);
    hello.body.hello.name = "../w1";
    bench_refused(b, WORKER, HA_NET_ROLE_WORKER, &hello, EINVAL);
    hello.body.hello.name = "w1";
    ha_wire_message_destroy(
        bench_reply(b, WORKER, bench_send_as(b, WORKER, HA_NET_ROLE_WORKER, &hello)));
}

static void unknown_messages_are_answered(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message message = {.kind = HA_WIRE_SWEEP_LIST};

    bench_refused(b, CLIENT, HA_NET_ROLE_ADMIN, &message, ENOSYS);
}

static void a_rest_begins_when_nobody_has_asked_for_a_while(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS};

    bench_create(b, CLIENT);
    bench_turn(b, HA_COORDINATOR_REST_MS);
    assert_true(ha_coordinator_at_rest(b->c));
    ha_wire_message_destroy(bench_call(b, CLIENT, &list, HA_WIRE_SWEEP_LIST));
    bench_turn(b, HA_COORDINATOR_REST_MS - 1);
    assert_false(ha_coordinator_at_rest(b->c));
    bench_turn(b, 1);
    assert_true(ha_coordinator_at_rest(b->c));
}

/* Write nothing more than this to any file. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes == RLIM_INFINITY ? limit.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_turn_that_cannot_be_stored_did_not_happen(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS}, *reply;
    struct ha_wire_message change = {
        .kind = HA_WIRE_CHANGE, .body.change = {.key = "k", .verb = "cancel", .sweep = "demo"}};
    uint64_t first, second;

    bench_create(b, CLIENT);
    bench_expect_sweep(b, CLIENT, "running");
    signal(SIGXFSZ, SIG_IGN);
    limit_files(1024); /* every write to the log fails from now on */
    first = bench_post(b, CLIENT, HA_NET_ROLE_ADMIN, &change);
    second = bench_send(b, CLIENT, &list);
    limit_files(RLIM_INFINITY);
    reply = bench_reply(b, CLIENT, first);
    assert_int_equal(reply->kind, HA_WIRE_ERROR);
    assert_non_null(strstr(reply->body.error.text, "not stored"));
    ha_wire_message_destroy(reply);
    reply = bench_reply(b, CLIENT, second); /* the other requests of the turn, too */
    assert_int_equal(reply->kind, HA_WIRE_ERROR);
    ha_wire_message_destroy(reply);
    bench_expect_sweep(b, CLIENT, "running"); /* reading works meanwhile */
    bench_turn(b, 2000);
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "running");
    ha_wire_message_destroy(bench_call(b, CLIENT, &change, HA_WIRE_CHANGE_REPLY));
    bench_settle(b);
    bench_expect_sweep(b, CLIENT, "cancelled");
}

static void who_uploads_is_told_that_nothing_was_stored(void **state)
{
    struct bench *b = *state;

    signal(SIGXFSZ, SIG_IGN);
    limit_files(1024);
    bench_artifact(b, MODEL_DIGEST);
    limit_files(RLIM_INFINITY);
    assert_int_equal(b->stored_count, 0);
    assert_int_equal(b->not_stored_count, 1);
    bench_artifact(b, MODEL_DIGEST); /* it asks again */
    assert_int_equal(b->stored_count, 1);
    assert_int_equal(b->not_stored_count, 1);
}

static void one_bad_request_does_not_stop_the_others(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS}, *reply;
    struct ha_wire_message bad = {.kind = HA_WIRE_CHANGE,
                                  .body.change = {.key = "k", .verb = "no", .sweep = "demo"}};
    struct ha_wire_message good = {.kind = HA_WIRE_CHANGE,
                                   .body.change = {.key = "g", .verb = "pause", .sweep = "demo"}};
    uint64_t ids[3];

    bench_create(b, CLIENT);
    ids[0] = bench_post(b, CLIENT, HA_NET_ROLE_ADMIN, &good);
    ids[1] = bench_post(b, CLIENT, HA_NET_ROLE_ADMIN, &bad);
    ids[2] = bench_send(b, CLIENT, &list);
    reply = bench_reply(b, CLIENT, ids[0]);
    assert_int_equal(reply->kind, HA_WIRE_CHANGE_REPLY);
    ha_wire_message_destroy(reply);
    reply = bench_reply(b, CLIENT, ids[1]);
    assert_int_equal(reply->kind, HA_WIRE_ERROR);
    ha_wire_message_destroy(reply);
    reply = bench_reply(b, CLIENT, ids[2]);
    assert_string_equal(reply->body.sweep_list.sweeps[0].state, "paused");
    ha_wire_message_destroy(reply);
}

static void nothing_is_said_before_the_commit(void **state)
{
    struct bench *b = *state;
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS};

    bench_post(b, CLIENT, HA_NET_ROLE_ADMIN, &list);
    assert_int_equal(b->count, 0);
    bench_turn(b, 0);
    assert_int_equal(b->count, 1);
    bench_artifact(b, MODEL_DIGEST);
    assert_int_equal(b->stored_count, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(strangers_say_hello_first),
        CASE(keys_bound_what_a_peer_may_do),
        CASE(a_peer_is_what_it_said),
        CASE(a_key_of_another_role_cannot_say_hello),
        CASE(unknown_messages_are_answered),
        CASE(a_rest_begins_when_nobody_has_asked_for_a_while),
        CASE(a_turn_that_cannot_be_stored_did_not_happen),
        CASE(who_uploads_is_told_that_nothing_was_stored),
        CASE(one_bad_request_does_not_stop_the_others),
        CASE(nothing_is_said_before_the_commit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
