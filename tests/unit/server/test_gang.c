/* A gang over two workers: ready, go, give up, end; every word lost or said twice, and the
 * coordinator started anew between any two of them. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENT = 1, ONE = 2, TWO = 3, BEAT_MS = 5000 };

#define GRID(strategies, fuse)                                                                     \
    "[sweep]\nname = \"demo\"\n[[model]]\npath = \"tiny\"\n"                                       \
    "[strategies]\nuse = [" strategies "]\n"                                                       \
    "[data]\ntrain = [\"train.jsonl\"]\neval = [\"eval.jsonl.gz\"]\n"                              \
    "eval_samples = 3\n[resources]\ngpus = 2\nnodes = 2\n"                                         \
    "[schedule]\nfuse = \"" fuse "\"\n"

static char id[257], other_id[257];

static void hello(struct bench *b, uint64_t peer, const char *name, const char *instance)
{
    struct ha_wire_message message = {.kind = HA_WIRE_HELLO,
                                      .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                                                     .name = name,
                                                     .instance = instance,
                                                     .machine = "machine",
                                                     .version = "test",
                                                     .slots = 1,
                                                     .gpus = 1,
                                                     .backend = "cpu",
                                                     .host = "host"}};

    ha_wire_message_destroy(bench_call(b, peer, &message, HA_WIRE_HELLO_REPLY));
}

static int open_with(void **state, const char *grid)
{
    static struct bench b;

    memset(id, 'a', 256);
    memset(other_id, 'b', 256);
    bench_open(&b);
    bench_hello_client(&b, CLIENT);
    hello(&b, ONE, "w1", "i1");
    hello(&b, TWO, "w2", "i2");
    ha_wire_message_destroy(bench_submit(&b, CLIENT, "key", grid, false));
    bench_settle(&b);
    *state = &b;
    return 0;
}

static int setup(void **state)
{
    return open_with(state, GRID("\"mid\"", "never"));
}

static int setup_two(void **state)
{
    return open_with(state, GRID("\"mid\", \"full\"", "always"));
}

static int teardown(void **state)
{
    bench_close(*state);
    return 0;
}

/* Both have their part; which has rank 0?  The other's peer is in *ret_other. */
static uint64_t begin(struct bench *b, struct fake_job *job, uint64_t *ret_other)
{
    uint64_t first = 0;

    *ret_other = 0;
    for (uint64_t peer = ONE; peer <= TWO; peer++) {
        struct ha_wire_message *push = bench_push(b, peer, HA_WIRE_GRANT);
        const struct ha_wire_gang *gang;

        assert_non_null(push);
        gang = &push->body.grant.gang;
        assert_int_equal(gang->parts, 2);
        assert_int_equal(gang->world, 2);
        assert_int_equal(gang->ranks, 1);
        assert_int_equal(gang->first_rank, gang->part);
        assert_non_null(strstr(push->body.grant.spec_json, "\"ranks\""));
        if (gang->part == 0)
            first = peer;
        else
            *ret_other = peer;
        *job = (struct fake_job){.job = push->body.grant.job, .epoch = push->body.grant.epoch};
        ha_wire_message_destroy(push);
    }
    assert_true(first && *ret_other);
    return first;
}

static struct ha_wire_gang_state state_of(const struct fake_job *job, uint32_t *rank,
                                          const char *comm_id)
{
    return (struct ha_wire_gang_state){.job = job->job,
                                       .epoch = job->epoch,
                                       .ready = rank,
                                       .n_ready = rank ? 1 : 0,
                                       .id = comm_id,
                                       .outcome = "",
                                       .reason = "",
                                       .cause = ""};
}

/* Tell a state; the step of the answer, whose id is rank 0's where it is GO. */
static enum ha_wire_gang_step tell(struct bench *b, uint64_t peer,
                                   const struct ha_wire_gang_state *told)
{
    const struct ha_wire_message message = {.kind = HA_WIRE_GANG_STATE, .body.gang_state = *told};
    struct ha_wire_message *reply = bench_call(b, peer, &message, HA_WIRE_GANG_ORDER);
    enum ha_wire_gang_step step = reply->body.gang_order.step;

    if (step == HA_WIRE_GANG_GO)
        assert_string_equal(reply->body.gang_order.id, id);
    ha_wire_message_destroy(reply);
    return step;
}

static enum ha_wire_gang_step ready(struct bench *b, uint64_t peer, const struct fake_job *job,
                                    uint32_t rank)
{
    const struct ha_wire_gang_state told = state_of(job, &rank, rank == 0 ? id : "");

    return tell(b, peer, &told);
}

static enum ha_wire_gang_step ended(struct bench *b, uint64_t peer, const struct fake_job *job,
                                    const char *outcome, bool followed, const char *reason)
{
    struct ha_wire_gang_state told = state_of(job, NULL, "");

    told.ended = true;
    told.outcome = outcome;
    told.followed = followed;
    told.reason = reason;
    return tell(b, peer, &told);
}

/* The step that was pushed to a peer; -1: none was. */
static int pushed(struct bench *b, uint64_t peer)
{
    struct ha_wire_message *push = bench_push(b, peer, HA_WIRE_GANG_ORDER);
    int step = push ? (int)push->body.gang_order.step : -1;

    ha_wire_message_destroy(push);
    return step;
}

static void go(struct bench *b, uint64_t first, uint64_t second, const struct fake_job *job)
{
    assert_int_equal(ready(b, first, job, 0), HA_WIRE_GANG_WAIT);
    assert_int_equal(ready(b, second, job, 1), HA_WIRE_GANG_GO);
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_GO);
}

static void all_are_ready_then_go(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);
    struct ha_wire_message wrong = {.kind = HA_WIRE_GANG_STATE};
    uint32_t rank = 0;

    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_WAIT);
    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_WAIT); /* twice */
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "leased",
                       second == TWO
                           ? "its ranks come together; not ready yet: rank 1 (worker w2)"
                           : "its ranks come together; not ready yet: rank 1 (worker w1)");
    wrong.body.gang_state = state_of(&job, &rank, other_id);
    bench_refused(b, first, HA_NET_ROLE_WORKER, &wrong, EEXIST); /* one id for each attempt */
    wrong.body.gang_state = state_of(&job, &rank, "");
    bench_refused(b, second, HA_NET_ROLE_WORKER, &wrong, EINVAL); /* not its rank */
    assert_int_equal(ready(b, second, &job, 1), HA_WIRE_GANG_GO);
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_GO);
    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_GO); /* it was lost */
    wrong.body.gang_state = state_of(&job, &rank, other_id);
    bench_refused(b, first, HA_NET_ROLE_WORKER, &wrong, EEXIST);
    bench_end(b, first, &job, "refused", "bad data");
    assert_int_equal(ready(b, second, &job, 1), HA_WIRE_GANG_STALE);
    assert_int_equal(pushed(b, second), HA_WIRE_GANG_STALE);
}

static void restart(struct bench *b)
{
    bench_restart(b);
    bench_hello_client(b, CLIENT);
    hello(b, ONE, "w1", "i1");
    hello(b, TWO, "w2", "i2");
}

static void a_restart_forgets_nothing_that_matters(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);

    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_WAIT);
    restart(b); /* before all are ready: each says again what it is */
    assert_int_equal(ready(b, second, &job, 1), HA_WIRE_GANG_WAIT);
    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_GO);
    restart(b); /* after GO, which one of them did not get */
    assert_int_equal(ready(b, second, &job, 1), HA_WIRE_GANG_GO);
    assert_int_equal(ended(b, second, &job, "failed", false, "out of luck"), HA_WIRE_GANG_WAIT);
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_ABORT);
    restart(b); /* and between two ends */
    assert_int_equal(ended(b, first, &job, "failed", true, "others failed"), HA_WIRE_GANG_WAIT);
    assert_int_equal(ended(b, second, &job, "failed", false, "out of luck"), HA_WIRE_GANG_WAIT);
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_SETTLED);
    bench_end(b, first, &job, "failed", "others failed");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready",
                       "retry in 3 s after crash: worker w2: out of luck");
}

static void one_fails_and_all_begin_anew(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;
    uint64_t second, first = begin(b, &job, &second);

    go(b, first, second, &job);
    assert_int_equal(ended(b, second, &job, "failed", false, "rank 1: killed"), HA_WIRE_GANG_WAIT);
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_ABORT);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "leased",
                       "one of its ranks has failed, and the others give up");
    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_ABORT); /* it was lost */
    assert_int_equal(ended(b, first, &job, "failed", true, "rank 0: rank 1 is gone"),
                     HA_WIRE_GANG_SETTLED);
    bench_end(b, first, &job, "failed", "rank 0: rank 1 is gone");
    assert_int_equal(pushed(b, second), HA_WIRE_GANG_STALE);
    bench_turn(b, 5000); /* its wait is over */
    bench_settle(b);
    first = begin(b, &again, &second);
    assert_int_equal(again.epoch.number, job.epoch.number + 1);
    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_STALE); /* late */
    go(b, first, second, &again);
}

/* The second part's memory runs out; the first one follows. */
static void starve(struct bench *b, uint64_t first, uint64_t second, struct fake_job *job)
{
    struct ha_wire_gang_state told = state_of(job, NULL, "");

    go(b, first, second, job);
    told.ended = true;
    told.outcome = "failed";
    told.reason = "rank 1 of 2 (exit code 79)";
    told.cause = "memory";
    assert_int_equal(tell(b, second, &told), HA_WIRE_GANG_WAIT);
    assert_int_equal(tell(b, second, &told), HA_WIRE_GANG_WAIT); /* twice */
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_ABORT);
    assert_int_equal(ended(b, first, job, "failed", true, "rank 0: rank 1 is gone"),
                     HA_WIRE_GANG_SETTLED);
    bench_end(b, first, job, "failed", "rank 0: rank 1 is gone");
    assert_int_equal(pushed(b, second), HA_WIRE_GANG_STALE);
}

#define STARVED(worker)                                                                            \
    "memory ran out, which the plan did not foresee: worker " worker                               \
    ": rank 1 of 2 (exit code 79); set train.memory_limit to less than was there, or ask for "     \
    "more "                                                                                        \
    "with resources.min_gpu_memory or host_memory, then hactl retry"

static void memory_that_ran_out_ends_a_single_cell(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);

    starve(b, first, second, &job);
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "failed",
                       second == ONE ? STARVED("w1") : STARVED("w2"));
}

/* As of a single process: each by itself, and no further attempt of both. */
static void memory_that_ran_out_splits_a_gang_at_once(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;
    uint64_t second, first = begin(b, &job, &second);

    starve(b, first, second, &job);
    bench_settle(b);
    first = begin(b, &again, &second);
    assert_int_not_equal(again.job, job.job);
    starve(b, first, second, &again);
    bench_settle(b);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "failed",
                       second == ONE ? STARVED("w1") : STARVED("w2"));
    begin(b, &job, &second); /* the other one goes on */
    assert_int_not_equal(again.job, job.job);
}

/* A worker of before the cause was told in a part's state: as ever. */
static void the_first_part_may_tell_memory_in_its_report(void **state)
{
    struct ha_wire_attempt_event end = {
        .kind = HA_WIRE_ATTEMPT_EVENT_END,
        .event.end = {.outcome = "failed", .reason = "rank 0 of 2", .cause = "memory"}};
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);

    go(b, first, second, &job);
    assert_int_equal(ended(b, first, &job, "failed", false, "rank 0 of 2"), HA_WIRE_GANG_WAIT);
    assert_int_equal(pushed(b, second), HA_WIRE_GANG_ABORT);
    assert_int_equal(ended(b, second, &job, "failed", true, "rank 1"), HA_WIRE_GANG_WAIT);
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_SETTLED);
    ha_wire_message_destroy(bench_report(b, first, &job, &end, 1));
    bench_settle(b);
    bench_expect_stage(
        b, CLIENT, "tiny/mid", "train", "failed",
        first == ONE ? "memory ran out, which the plan did not foresee: worker w1: rank 0 of 2; "
                       "set train.memory_limit to less than was there, or ask for more with "
                       "resources.min_gpu_memory or host_memory, then hactl retry"
                     : "memory ran out, which the plan did not foresee: worker w2: rank 0 of 2; "
                       "set train.memory_limit to less than was there, or ask for more with "
                       "resources.min_gpu_memory or host_memory, then hactl retry");
}

static void a_worker_that_is_lost_ends_it_for_all(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;
    uint64_t second, first = begin(b, &job, &second);

    go(b, first, second, &job);
    for (int i = 0; i < 14; i++) { /* the second one is silent */
        ha_wire_message_destroy(bench_beat(b, first, &job, 1));
        bench_turn(b, BEAT_MS);
    }
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_STALE);
    assert_int_equal(pushed(b, first), -1);
    hello(b, second, second == ONE ? "w1" : "w2", "i9");
    ha_wire_message_destroy(bench_beat(b, second, NULL, 0));
    bench_settle(b);
    first = begin(b, &again, &second);
    assert_int_equal(again.epoch.number, job.epoch.number + 1);
}

/* A rank crashed, and then the other worker is lost, too: the crash was first. */
static void a_crash_before_a_loss_is_charged(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);

    go(b, first, second, &job);
    assert_int_equal(ended(b, first, &job, "failed", false, "rank 0: killed"), HA_WIRE_GANG_WAIT);
    assert_int_equal(pushed(b, second), HA_WIRE_GANG_ABORT);
    hello(b, second, second == ONE ? "w1" : "w2", "i9"); /* its daemon was started anew */
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_STALE);
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready",
                       first == ONE ? "retry in 3 s after crash: worker w1: rank 0: killed"
                                    : "retry in 3 s after crash: worker w2: rank 0: killed");
}

/* Words about others, and then the worker that they were about is found lost: nothing is charged.
 */
static void a_loss_that_others_followed_is_not_charged(void **state)
{
    struct bench *b = *state;
    struct fake_job job, again;
    uint64_t second, first = begin(b, &job, &second);

    go(b, first, second, &job);
    assert_int_equal(ended(b, first, &job, "failed", true, "rank 0: NCCL: remote process exited"),
                     HA_WIRE_GANG_WAIT);
    hello(b, second, second == ONE ? "w1" : "w2", "i9");
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_STALE);
    bench_settle(b);
    begin(b, &again, &second); /* at once: a crash would have to wait */
    assert_int_equal(again.epoch.number, job.epoch.number + 1);
}

static int64_t lines_with(struct bench *b, const char *text)
{
    const struct ha_wire_message ask = {.kind = HA_WIRE_LOG_REQUEST,
                                        .body.log_request = {.sweep = "demo"}};
    struct ha_wire_message *reply = bench_call(b, CLIENT, &ask, HA_WIRE_LOG_REPLY);
    int64_t n = 0;

    for (int64_t i = 0; i < reply->body.log_reply.n_events; i++)
        n += strstr(reply->body.log_reply.events[i].reason, text) != NULL;
    ha_wire_message_destroy(reply);
    return n;
}

/* Of whichever part, once, and as text that does nothing to a terminal. */
static void what_the_failed_rank_printed_is_kept(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);
    struct ha_wire_gang_state told = state_of(&job, NULL, "");

    go(b, first, second, &job);
    told.ended = true;
    told.outcome = "failed";
    told.reason = "rank 1: no room";
    told.log = (struct ha_wire_rank_log){"/work/5/attempt-1.log", "step 7\n\033[2Jno room"};
    assert_int_equal(tell(b, second, &told), HA_WIRE_GANG_WAIT);
    assert_int_equal(tell(b, second, &told), HA_WIRE_GANG_WAIT); /* twice */
    restart(b);
    assert_int_equal(tell(b, second, &told), HA_WIRE_GANG_WAIT); /* and to another coordinator */
    assert_int_equal(
        lines_with(b, second == TWO
                          ? "worker w2 (host): /work/5/attempt-1.log\nstep 7\n?[2Jno room"
                          : "worker w1 (host): /work/5/attempt-1.log\nstep 7\n?[2Jno room"),
        1);
    assert_int_equal(lines_with(b, "attempt-1.log"), 1);
}

static void who_is_not_ready_in_time_is_named(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);

    assert_int_equal(ready(b, first, &job, 0), HA_WIRE_GANG_WAIT);
    for (int i = 0; i < 121; i++) {
        ha_wire_message_destroy(bench_beat(b, first, &job, 1));
        ha_wire_message_destroy(bench_beat(b, second, &job, 1));
        bench_turn(b, BEAT_MS);
    }
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_ABORT);
    assert_int_equal(pushed(b, second), HA_WIRE_GANG_ABORT);
    assert_int_equal(ended(b, first, &job, "failed", true, "given up"), HA_WIRE_GANG_WAIT);
    for (int i = 0; i < 5; i++) { /* the second one never ends */
        ha_wire_message_destroy(bench_beat(b, first, &job, 1));
        ha_wire_message_destroy(bench_beat(b, second, &job, 1));
        bench_turn(b, BEAT_MS);
    }
    assert_int_equal(pushed(b, first), HA_WIRE_GANG_SETTLED);
    bench_end(b, first, &job, "failed", "given up");
    bench_expect_stage(b, CLIENT, "tiny/mid", "train", "ready",
                       second == TWO ? "retry in 3 s after crash: a gang of 2 ranks: not ready "
                                       "within 600 s: worker w2: rank 1"
                                     : "retry in 3 s after crash: a gang of 2 ranks: not ready "
                                       "within 600 s: worker w1: rank 1");
}

/* The first part's worker says nothing at all any more, but lives. */
static void nobody_waits_for_the_first_part_for_ever(void **state)
{
    struct bench *b = *state;
    struct fake_job job;
    uint64_t second, first = begin(b, &job, &second);

    go(b, first, second, &job);
    assert_int_equal(ended(b, second, &job, "failed", false, "rank 1: killed"), HA_WIRE_GANG_WAIT);
    for (int i = 0; i < 9; i++) {
        ha_wire_message_destroy(bench_beat(b, first, &job, 1));
        ha_wire_message_destroy(bench_beat(b, second, &job, 1));
        bench_turn(b, BEAT_MS);
    }
    assert_int_equal(ended(b, second, &job, "failed", false, "rank 1: killed"), HA_WIRE_GANG_STALE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_are_ready_then_go, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restart_forgets_nothing_that_matters, setup, teardown),
        cmocka_unit_test_setup_teardown(one_fails_and_all_begin_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_that_ran_out_ends_a_single_cell, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_that_ran_out_splits_a_gang_at_once, setup_two,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_first_part_may_tell_memory_in_its_report, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_worker_that_is_lost_ends_it_for_all, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crash_before_a_loss_is_charged, setup, teardown),
        cmocka_unit_test_setup_teardown(a_loss_that_others_followed_is_not_charged, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_the_failed_rank_printed_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_not_ready_in_time_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_for_the_first_part_for_ever, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
