/* What a session has kept outlives its process: what is given to be kept, and how the next
 * process tells it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "session_support.h"

static int64_t n_kept, n_delivered;
static char last_cause[32];

static void say_report(const struct ha_wire_report *report)
{
    say("report %llu #%llu", (unsigned long long)report->job, (unsigned long long)report->sequence);
    for (int64_t i = 0; i < report->n_events; i++) {
        const struct ha_wire_attempt_event *event = &report->events[i];

        if (event->kind == HA_WIRE_ATTEMPT_EVENT_METRIC) {
            say(" %s=%g", event->event.metric.name, event->event.metric.value);
        } else if (event->kind == HA_WIRE_ATTEMPT_EVENT_ARTIFACT) {
            say(" file:%s:%lld", event->event.artifact.name, (long long)event->event.artifact.size);
        } else {
            say(" end:%s:%s", event->event.end.outcome, event->event.end.reason);
            (void)snprintf(last_cause, sizeof last_cause, "%s", event->event.end.cause);
        }
    }
    say("\n");
}

static void on_send(void *context, const struct ha_wire_message *message)
{
    (void)context;
    last_request = message->request_id;
    if (message->kind == HA_WIRE_REPORT) {
        say_report(&message->body.report);
        return;
    }
    say("%s", message->kind == HA_WIRE_HELLO ? "hello" : "beat");
    for (int64_t i = 0; message->kind == HA_WIRE_HELLO && i < message->body.hello.n_kept; i++)
        say(" kept %llu", (unsigned long long)message->body.hello.kept[i].job);
    for (int64_t i = 0; message->kind != HA_WIRE_HELLO && i < message->body.heartbeat.n_running;
         i++)
        say(" %llu:%s", (unsigned long long)message->body.heartbeat.running[i].job,
            message->body.heartbeat.running[i].phase);
    say("\n");
}

static void on_start(void *context, const struct attempt_id *id, const struct ha_wire_grant *grant)
{
    (void)context;
    (void)grant;
    say("start %llu\n", (unsigned long long)id->job);
}

static void on_forget(void *context, const struct attempt_id *id, bool failed)
{
    (void)context;
    say("forget %llu.%llu%s\n", (unsigned long long)id->job, (unsigned long long)id->epoch.number,
        failed ? " failed" : "");
}

static void on_keep(void *context, const struct attempt_id *id,
                    const struct ha_wire_attempt_event *event, const char *path)
{
    (void)context;
    (void)id;
    (void)event;
    (void)path;
    n_kept++;
}

static void on_delivered(void *context, const struct attempt_id *id, int64_t number)
{
    (void)context;
    (void)id;
    n_delivered = number;
}

static void on_stop(void *context, const struct attempt_id *id)
{
    (void)context;
    say("stop %llu\n", (unsigned long long)id->job);
}

static int set_up(void **state)
{
    const struct session_options options = {.name = "w1",
                                            .instance = "i",
                                            .machine = "m",
                                            .version = "0",
                                            .backend = "cpu",
                                            .host = "h",
                                            .slots = 2,
                                            .heartbeat_ms = BEAT};

    struct session_effects effects = no_effects;

    (void)state;
    effects.send = on_send;
    effects.stop = on_stop;
    effects.start = on_start;
    effects.upload = say_upload;
    effects.keep = on_keep;
    effects.delivered = on_delivered;
    effects.forget = on_forget;
    n_kept = n_delivered = 0;
    return open_session(&options, &effects);
}

/* ---- what attempts say ------------------------------------------------------------------ */

/* ---- tests --------------------------------------------------------------------------------- */

static void keeps_all_until_it_is_delivered(void **state)
{
    (void)state;
    tick(0);
    hello_reply();
    grant(1, 1);
    metric(1, 1, "a", 1);
    metric(1, 1, "b", 2);
    artifact(1, 1, "weights");
    metric(1, 1, "c", 3);
    assert_int_equal(n_kept, 4);
    acknowledge(1, 1, 1);
    assert_int_equal(n_delivered, 1);
    acknowledge(1, 1, 2); /* b and c; the file is not uploaded */
    assert_int_equal(n_delivered, 2);
    uploaded(1, 1, 0, 20);
    acknowledge(1, 1, 3);
    assert_int_equal(n_delivered, 4);
    ended(1, 1, ATTEMPT_DONE, "exit code 0");
    assert_int_equal(n_kept, 5);
}

static void uploads_the_log_before_the_end(void **state)
{
    const struct attempt_id id = id_of(1, 1);

    (void)state;
    tick(0);
    hello_reply();
    grant(1, 1);
    trace[0] = '\0';
    session_attempt_ended(session, &id, ATTEMPT_FAILED, "exit code 1", 1, "log", now);
    EXPECT("upload 1/0 log\n");
    assert_int_equal(n_kept, 2);                         /* the log and the end */
    session_upload_failed(session, &id, 0, "gone", now); /* it is only the log */
    EXPECT("report 1 #1 end:failed:exit code 1\n");
}

static const struct ha_wire_attempt_event
    kept_metric = {.kind = HA_WIRE_ATTEMPT_EVENT_METRIC, .event.metric = {.name = "a", .value = 1}},
    kept_file = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                 .event.artifact = {.cell = 1, .kind = "adapter", .name = "weights"}},
    kept_log = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                .event.artifact = {.kind = "log", .name = "attempt.log"}},
    kept_end = {.kind = HA_WIRE_ATTEMPT_EVENT_END,
                .event.end = {.outcome = "done", .reason = "exit code 0", .cause = ""}};

static void tells_what_an_earlier_process_kept(void **state)
{
    const struct attempt_id id = id_of(1, 4);
    const struct session_kept kept[] = {
        {&kept_metric, NULL}, {&kept_file, "weights"}, {&kept_log, "log"}, {&kept_end, NULL}};

    (void)state;
    assert_int_equal(session_recover(session, &id, kept, 4, now, NULL), 0);
    EXPECT("upload 1/0 weights\nupload 1/1 log\n");
    tick(0);
    hello_reply();
    EXPECT("hello kept 1\nbeat 1:upload\nreport 1 #1\n");
    tick(2 * BEAT); /* the question was lost */
    EXPECT("report 1 #1\nbeat 1:upload\n");
    list(last_request, 1, &id);
    acknowledge(1, 4, 7); /* seven reports were taken from the earlier process */
    EXPECT("report 1 #8 a=1\n");
    uploaded(1, 4, 0, 20);
    session_upload_failed(session, &id, 1, "no log", now);
    acknowledge(1, 4, 8);
    EXPECT("report 1 #9 file:weights:20 end:done:exit code 0\n");
    assert_int_equal(n_kept, 0); /* it is kept already */
    acknowledge(1, 4, 9);
    EXPECT("forget 1.4\n");
}

static void drops_what_was_kept_when_the_lease_is_over(void **state)
{
    const struct attempt_id id = id_of(1, 4);
    const struct session_kept kept[] = {{&kept_metric, NULL}, {&kept_end, NULL}};

    (void)state;
    assert_int_equal(session_recover(session, &id, kept, 2, now, NULL), 0);
    tick(0);
    hello_reply();
    EXPECT("hello kept 1\nbeat 1:upload\nreport 1 #1\n");
    receive((struct ha_wire_message){
        .kind = HA_WIRE_REPORT_REPLY,
        .body.report_reply = {.job = 1, .epoch = id.epoch, .sequence = 0, .stale = true}});
    EXPECT("forget 1.4\n");
    assert_true(session_is_empty(session));
}

/* Whoever has the name has the leases: what runs is stopped, what was kept waits. */
static void stops_when_another_has_its_name(void **state)
{
    const struct attempt_id id = id_of(1, 4);
    const struct session_kept kept = {&kept_metric, NULL};

    (void)state;
    assert_int_equal(session_recover(session, &id, &kept, 1, now, NULL), 0);
    tick(0);
    hello_reply();
    grant(2, 5);
    trace[0] = '\0';
    for (int i = 0; i < 2; i++) {
        receive((struct ha_wire_message){
            .kind = HA_WIRE_ERROR,
            .request_id = last_request,
            .body.error = {.code = i == 0 ? EPROTO : EADDRINUSE, .text = "another process"}});
    }
    EXPECT("hello kept 1\nstop 2\n");
    assert_false(session_is_empty(session));
}

static void an_attempt_that_died_with_its_daemon_is_lost(void **state)
{
    const struct attempt_id id = id_of(1, 4);
    const struct session_kept kept = {&kept_metric, NULL};

    (void)state;
    assert_int_equal(session_recover(session, &id, &kept, 1, now, NULL), 0);
    tick(0);
    hello_reply();
    acknowledge(1, 4, 1);
    EXPECT("hello kept 1\nbeat 1:upload\nreport 1 #1\n"
           "report 1 #2 a=1 end:stopped:its worker's daemon died, and it with it\n");
    assert_string_equal(last_cause, "lost");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(keeps_all_until_it_is_delivered),
        TEST(uploads_the_log_before_the_end),
        TEST(tells_what_an_earlier_process_kept),
        TEST(drops_what_was_kept_when_the_lease_is_over),
        TEST(stops_when_another_has_its_name),
        TEST(an_attempt_that_died_with_its_daemon_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
