/* The time limit of an attempt: asked to stop so early that its checkpoint is written by then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/error.h"
#include "session_support.h"

static int stops;
static char cause[32], outcome[32];

static void on_send(void *context, const struct ha_wire_message *message)
{
    (void)context;
    last_request = message->request_id;
    if (message->kind != HA_WIRE_REPORT)
        return;
    for (int64_t i = 0; i < message->body.report.n_events; i++) {
        const struct ha_wire_attempt_event *event = &message->body.report.events[i];

        if (event->kind != HA_WIRE_ATTEMPT_EVENT_END)
            continue;
        strncpy(outcome, event->event.end.outcome, sizeof outcome - 1);
        strncpy(cause, event->event.end.cause, sizeof cause - 1);
    }
}

static void on_stop(void *context, const struct attempt_id *id)
{
    (void)context;
    (void)id;
    stops++;
}

/* The second at which an attempt with this limit is asked to stop, when SIGTERM and SIGKILL are
 * so far apart; -1: it is not within a minute. */
static int stopped_after(int64_t limit_s, int64_t grace_ms, enum attempt_outcome ends_as)
{
    struct session_options options = {.name = "w1",
                                      .instance = "i",
                                      .machine = "m",
                                      .version = "0",
                                      .backend = "cpu",
                                      .host = "h",
                                      .slots = 1,
                                      .heartbeat_ms = 3600000,
                                      .stop_grace_ms = grace_ms};
    struct attempt_id id = {.job = 1, .epoch = {.generation = 7, .number = 1}};
    struct ha_wire_message reply = {
        .kind = HA_WIRE_HELLO_REPLY,
        .body.hello_reply = {.version = "0", .name = "w1", .files_endpoint = ""}};
    struct ha_wire_message given = {
        .kind = HA_WIRE_GRANT,
        .body.grant = {.job = 1, .epoch = id.epoch, .kind = "train", .time_limit_s = limit_s}};
    struct session_effects effects = no_effects;
    int second = 0;

    effects.send = on_send;
    effects.stop = on_stop;
    now = 0;
    stops = 0;
    cause[0] = outcome[0] = '\0';
    assert_int_equal(open_session(&options, &effects), 0);
    tick(0);
    reply.request_id = last_request;
    receive(reply);
    receive(given);
    while (stops == 0 && second < 60) {
        if (limit_s > 0)
            assert_true(session_next_ms(session) <= limit_s * 1000);
        tick(BEAT);
        second++;
    }
    session_attempt_ended(session, &id, ends_as, "exit code 75", 75, NULL, now);
    session_destroy(session);
    return stops ? second : -1;
}

static void the_checkpoint_has_time(void **state)
{
    (void)state;
    assert_int_equal(stopped_after(20, 60000, ATTEMPT_STOPPED), 15); /* at most a quarter */
    assert_string_equal(outcome, "stopped");
    assert_string_equal(cause, "time_limit");
    assert_int_equal(stopped_after(40, 2000, ATTEMPT_STOPPED), 38);
    assert_int_equal(stopped_after(0, 2000, ATTEMPT_STOPPED), -1);
    assert_string_equal(cause, "");
}

static void what_ends_well_is_not_limited(void **state)
{
    (void)state;
    assert_int_equal(stopped_after(20, 60000, ATTEMPT_DONE), 15); /* it was just done */
    assert_string_equal(outcome, "done");
    assert_string_equal(cause, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checkpoint_has_time),
        cmocka_unit_test(what_ends_well_is_not_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
