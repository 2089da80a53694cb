/* What a worker tells of its ranks of a gang, until somebody has heard it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "session_support.h"

static struct attempt_id job = {.job = 5, .epoch = {.generation = 7, .number = 1}};

static void on_send(void *context, const struct ha_wire_message *message)
{
    const struct ha_wire_gang_state *state = &message->body.gang_state;
    const struct ha_wire_attempt_end *end =
        message->kind == HA_WIRE_REPORT ? &message->body.report.events[0].event.end : NULL;

    (void)context;
    last_request = message->request_id;
    if (message->kind == HA_WIRE_REPORT)
        say("end %s%s\n", end->outcome, end->log.path ? end->log.tail : "");
    if (message->kind != HA_WIRE_GANG_STATE)
        return;
    say("gang");
    for (int64_t i = 0; i < state->n_ready; i++)
        say(" %u", state->ready[i]);
    say("%s%s", state->id[0] ? " id " : "", state->id);
    if (state->ended)
        say(" %s%s%s%s: %s", state->outcome, state->followed ? " following" : "",
            state->cause[0] ? " of " : "", state->cause, state->reason);
    for (int64_t i = 0; i < state->n_counts; i++)
        say(" %u:%lld", state->counts[i].rank, (long long)state->counts[i].started);
    if (state->log.path && state->log.path[0])
        say(" log %s (%s)", state->log.path, state->log.tail);
    say("\n");
}

static void on_start(void *context, const struct attempt_id *id, const struct ha_wire_grant *grant)
{
    (void)context;
    (void)id;
    say("start %u of %u\n", grant->gang.part, grant->gang.parts);
}

static void on_stop(void *context, const struct attempt_id *id)
{
    (void)context;
    (void)id;
    say("stop\n");
}

static void on_gang(void *context, const struct attempt_id *id, const char *comm_id)
{
    (void)context;
    (void)id;
    say("%s %s\n", comm_id ? "go" : "give up", comm_id ? comm_id : "");
}

static void on_forget(void *context, const struct attempt_id *id, bool failed)
{
    (void)context;
    (void)id;
    say("forget%s\n", failed ? ", keep its folder" : "");
}

static int set_up(void **state)
{
    const struct session_options options = {.name = "w1",
                                            .instance = "i",
                                            .machine = "m",
                                            .version = "0",
                                            .backend = "cpu",
                                            .host = "h",
                                            .slots = 1,
                                            .heartbeat_ms = BEAT,
                                            .stall_load_ms = 5000,
                                            .stall_step_ms = 5000};

    struct session_effects effects = no_effects;

    (void)state;
    effects.send = on_send;
    effects.start = on_start;
    effects.stop = on_stop;
    effects.forget = on_forget;
    effects.gang = on_gang;
    if (open_session(&options, &effects) < 0)
        return -1;
    tick(0);
    hello_reply();
    trace[0] = '\0';
    return 0;
}

static void begin(uint32_t part, uint32_t parts)
{
    receive((struct ha_wire_message){.kind = HA_WIRE_GRANT,
                                     .body.grant = {.job = job.job,
                                                    .epoch = job.epoch,
                                                    .kind = "train",
                                                    .spec_json = "{}",
                                                    .gang = {part, parts, .first_rank = 2 * part,
                                                             .ranks = 2, .world = 2 * parts}}});
    trace[0] = '\0';
}

static void order(enum ha_wire_gang_step step, const char *id)
{
    receive((struct ha_wire_message){
        .kind = HA_WIRE_GANG_ORDER,
        .body.gang_order = {
            .job = job.job, .epoch = job.epoch, .step = step, .id = id, .reason = ""}});
}

/* A heartbeat, and its answer: the attempt is listed. */
static void beat(void)
{
    tick(BEAT);
    list(last_request, 1, &job);
}

static void says_who_is_ready_until_go(void **state)
{
    (void)state;
    begin(0, 2);
    beat();
    EXPECT("gang\n");
    session_gang_ready(session, &job, 1, "");
    EXPECT("gang 1\n");
    session_gang_ready(session, &job, 0, "abc");
    EXPECT("gang 1 0 id abc\n");
    order(HA_WIRE_GANG_WAIT, "");
    session_attempt_phase(session, &job, "load", now);
    for (int i = 0; i < 20; i++) /* the others take their time: nothing stalls here */
        beat();
    assert_non_null(strstr(trace, "gang 1 0 id abc\n"));
    assert_null(strstr(trace, "stop"));
    trace[0] = '\0';
    order(HA_WIRE_GANG_GO, "abc");
    EXPECT("go abc\n");
    order(HA_WIRE_GANG_GO, "abc"); /* it came twice */
    beat();
    EXPECT("");
    for (int i = 0; i < 6; i++) /* but now it does */
        beat();
    EXPECT("stop\n");
}

static void the_first_part_ends_when_it_is_settled(void **state)
{
    const struct ha_wire_rank_count counts[] = {{.rank = 0, .started = 17, .finished = 16}};
    const struct ha_wire_rank_log log = {.path = "/w/5/attempt.log", .tail = ""};

    (void)state;
    begin(0, 2);
    order(HA_WIRE_GANG_GO, "abc");
    order(HA_WIRE_GANG_ABORT, "");
    order(HA_WIRE_GANG_ABORT, "");
    EXPECT("go abc\ngive up \n");
    order(HA_WIRE_GANG_SETTLED, ""); /* too early: it has not ended */
    session_gang_ended(session, &job, true, counts, 1, &log);
    session_attempt_ended(session, &job, ATTEMPT_FAILED, "exit code 1", 1, NULL, now);
    EXPECT("gang failed following: exit code 1 0:17 log /w/5/attempt.log ()\n");
    beat();
    EXPECT("gang failed following: exit code 1 0:17 log /w/5/attempt.log ()\n");
    order(HA_WIRE_GANG_SETTLED, "");
    EXPECT("end failed\n");
}

static void other_parts_end_with_the_attempt(void **state)
{
    (void)state;
    begin(1, 2);
    order(HA_WIRE_GANG_GO, "abc");
    session_gang_ended(session, &job, false, NULL, 0, &(struct ha_wire_rank_log){"", ""});
    session_attempt_ended(session, &job, ATTEMPT_DONE, "exit code 0", 0, "attempt.log", now);
    EXPECT("go abc\ngang done: exit code 0\n");
    beat();
    EXPECT("gang done: exit code 0\n");
    order(HA_WIRE_GANG_SETTLED, "");
    EXPECT("");
    order(HA_WIRE_GANG_STALE, "");
    EXPECT("forget\n");
    assert_true(session_is_empty(session));
}

static void what_runs_of_an_old_gang_gives_up(void **state)
{
    (void)state;
    begin(1, 2);
    order(HA_WIRE_GANG_STALE, "");
    EXPECT("give up \n");
    session_attempt_ended(session, &job, ATTEMPT_FAILED, "exit code 1", 1, NULL, now);
    EXPECT("forget, keep its folder\n");
}

/* What it printed is told, and lies there as long as that of any attempt that failed. */
static void another_part_tells_its_log(void **state)
{
    (void)state;
    begin(1, 2);
    order(HA_WIRE_GANG_GO, "abc");
    session_gang_ended(session, &job, false, NULL, 0,
                       &(struct ha_wire_rank_log){"/w/5/attempt-1.log", "no room"});
    session_attempt_ended(session, &job, ATTEMPT_FAILED, "exit code 1", 1, NULL, now);
    EXPECT("go abc\ngang failed: exit code 1 log /w/5/attempt-1.log (no room)\n");
    order(HA_WIRE_GANG_STALE, "");
    EXPECT("forget, keep its folder\n");
}

/* Whichever part it is; but not where it was asked to end, or fails for another reason. */
static void memory_that_ran_out_is_told(void **state)
{
    const struct ha_wire_rank_log none = {"", ""};

    (void)state;
    for (uint32_t part = 0; part < 2; part++) {
        job.epoch.number++;
        begin(part, 2);
        order(HA_WIRE_GANG_GO, "abc");
        session_gang_ended(session, &job, false, NULL, 0, &none);
        session_attempt_ended(session, &job, ATTEMPT_STARVED, "exit code 79", 79, NULL, now);
        EXPECT("go abc\ngang failed of memory: exit code 79\n");
        beat();
        EXPECT("gang failed of memory: exit code 79\n");
        order(HA_WIRE_GANG_STALE, "");
        EXPECT("forget, keep its folder\n");
    }
    job.epoch.number++;
    begin(1, 2);
    session_drain(session, now);
    session_attempt_ended(session, &job, ATTEMPT_STARVED, "exit code 79", 79, NULL, now);
    EXPECT("stop\ngang\ngang stopped: the worker is leaving (exit code 79)\n");
}

/* Of one worker, the end is an end as any. */
static void a_gang_of_one_worker_reports_at_once(void **state)
{
    (void)state;
    begin(0, 1);
    session_gang_ready(session, &job, 0, "abc");
    order(HA_WIRE_GANG_GO, "abc");
    session_gang_ended(session, &job, false, NULL, 0,
                       &(struct ha_wire_rank_log){"/w/5/attempt-1.log", ", no room"});
    session_attempt_ended(session, &job, ATTEMPT_FAILED, "rank 1 of 2", 1, NULL, now);
    EXPECT("gang 0 id abc\ngo abc\nend failed, no room\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(says_who_is_ready_until_go),           TEST(the_first_part_ends_when_it_is_settled),
        TEST(other_parts_end_with_the_attempt),     TEST(what_runs_of_an_old_gang_gives_up),
        TEST(a_gang_of_one_worker_reports_at_once), TEST(another_part_tells_its_log),
        TEST(memory_that_ran_out_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
