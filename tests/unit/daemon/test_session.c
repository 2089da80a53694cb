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

static void say_event(const struct ha_wire_attempt_event *event)
{
    switch (event->kind) {
    case HA_WIRE_ATTEMPT_EVENT_METRIC:
        say(" %s=%g", event->event.metric.name, event->event.metric.value);
        break;
    case HA_WIRE_ATTEMPT_EVENT_ARTIFACT:
        say(" file:%s:%lld", event->event.artifact.name, (long long)event->event.artifact.size);
        break;
    case HA_WIRE_ATTEMPT_EVENT_CELL:
        say(" cell%llu", (unsigned long long)event->event.cell.cell);
        break;
    case HA_WIRE_ATTEMPT_EVENT_END:
        say(" end:%s:%s", event->event.end.outcome, event->event.end.reason);
        if (event->event.end.cause && event->event.end.cause[0])
            say(" for %s", event->event.end.cause);
        break;
    default:
        say(" ?");
    }
}

static void on_send(void *context, const struct ha_wire_message *message)
{
    (void)context;
    last_request = message->request_id;
    switch (message->kind) {
    case HA_WIRE_HELLO:
        say("hello %s%s%s\n", message->body.hello.name,
            message->body.hello.gpus > 0 ? " with " : "",
            message->body.hello.gpus > 0 ? message->body.hello.backend : "");
        break;
    case HA_WIRE_HEARTBEAT:
        say("beat free %u%s", message->body.heartbeat.free_slots,
            message->body.heartbeat.draining ? " draining" : "");
        for (int64_t i = 0; i < message->body.heartbeat.n_running; i++)
            say(" %llu:%s:%lld", (unsigned long long)message->body.heartbeat.running[i].job,
                message->body.heartbeat.running[i].phase,
                (long long)message->body.heartbeat.running[i].step);
        say("\n");
        break;
    case HA_WIRE_REPORT:
        say("report %llu #%llu", (unsigned long long)message->body.report.job,
            (unsigned long long)message->body.report.sequence);
        for (int64_t i = 0; i < message->body.report.n_events; i++)
            say_event(&message->body.report.events[i]);
        say("\n");
        break;
    case HA_WIRE_GRANT_REQUEST:
        say("ask %llu\n", (unsigned long long)message->body.grant_request.job);
        break;
    default:
        say("%s\n", ha_wire_body_name(message->kind));
    }
}

static void on_reconnect(void *context)
{
    (void)context;
    say("reconnect\n");
}

static void on_files_endpoint(void *context, const char *endpoint)
{
    (void)context;
    say("files %s\n", endpoint);
}

static void on_start(void *context, const struct attempt_id *id, const struct ha_wire_grant *grant)
{
    (void)context;
    say("start %llu.%llu %s\n", (unsigned long long)id->job, (unsigned long long)id->epoch.number,
        grant->kind);
}

static void on_stop(void *context, const struct attempt_id *id)
{
    (void)context;
    say("stop %llu.%llu\n", (unsigned long long)id->job, (unsigned long long)id->epoch.number);
}

static void on_forget(void *context, const struct attempt_id *id, bool failed)
{
    (void)context;
    say("forget %llu.%llu%s\n", (unsigned long long)id->job, (unsigned long long)id->epoch.number,
        failed ? " failed" : "");
}

static struct session_effects effects;

static int set_up(void **state)
{
    const struct session_options options = {.name = "w1",
                                            .instance = "i",
                                            .machine = "m",
                                            .version = "0",
                                            .backend = "cpu",
                                            .host = "h",
                                            .slots = 2,
                                            .heartbeat_ms = BEAT,
                                            .stall_load_ms = 60000,
                                            .stall_step_ms = 30000,
                                            .stall_generate_ms = 45000};

    (void)state;
    effects = no_effects;
    effects.send = on_send;
    effects.reconnect = on_reconnect;
    effects.files_endpoint = on_files_endpoint;
    effects.start = on_start;
    effects.stop = on_stop;
    effects.upload = say_upload;
    effects.forget = on_forget;
    return open_session(&options, &effects);
}

/* ---- what the coordinator says -------------------------------------------------------- */

static void refuse(uint64_t request, uint32_t code)
{
    receive((struct ha_wire_message){
        .kind = HA_WIRE_ERROR, .request_id = request, .body.error = {.code = code, .text = "no"}});
}

static void connect_it(void)
{
    tick(0);
    hello_reply();
    EXPECT("hello w1\nfiles ipc://f\nbeat free 2\n");
}

/* ---- what attempts say ------------------------------------------------------------------ */

static void cell(uint64_t job, uint64_t epoch, uint64_t number)
{
    const struct attempt_id id = id_of(job, epoch);
    const struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_CELL,
                                                .event.cell = {.cell = number, .done = true}};

    session_attempt_event(session, &id, &event, now);
}

/* ---- the connection ----------------------------------------------------------------------- */

static void greets_and_beats(void **state)
{
    (void)state;
    connect_it();
    assert_int_equal(session_next_ms(session), now + BEAT);
    tick(BEAT - 1);
    EXPECT("");
    tick(1);
    EXPECT("beat free 2\n");
}

/* As long as the coordinator says so, and there is nothing to do. */
static void beats_less_often_when_told_to(void **state)
{
    (void)state;
    connect_it();
    tick(BEAT);
    receive((struct ha_wire_message){.kind = HA_WIRE_HEARTBEAT_REPLY,
                                     .request_id = last_request,
                                     .body.heartbeat_reply = {.rest_ms = 3 * BEAT}});
    tick(BEAT);
    EXPECT("beat free 2\nbeat free 2\n");
    assert_int_equal(session_next_ms(session), now + 3 * BEAT);
    grant(1, 1);
    tick(3 * BEAT);
    EXPECT("start 1.1 train\nbeat free 1 1:fetch:0\n");
    assert_int_equal(session_next_ms(session), now + BEAT);
}

static void opens_a_silent_connection_anew(void **state)
{
    (void)state;
    connect_it();
    list(last_request, 0, NULL);
    for (int i = 0; i < 3; i++)
        tick(BEAT);
    EXPECT("beat free 2\nbeat free 2\nbeat free 2\n");
    tick(BEAT);
    EXPECT("reconnect\nhello w1\n");
    for (int i = 0; i < 3; i++)
        tick(BEAT);
    EXPECT("hello w1\nhello w1\nreconnect\nhello w1\n");
    hello_reply();
    EXPECT("files ipc://f\nbeat free 2\n");
}

static void greets_again_when_told_to(void **state)
{
    (void)state;
    connect_it();
    tick(BEAT);
    refuse(last_request, EPROTO);
    EXPECT("beat free 2\nhello w1\n");
    refuse(last_request - 1, EPROTO); /* of another message on its way: once is enough */
    EXPECT("");
    hello_reply();
    EXPECT("files ipc://f\nbeat free 2\n");
}

/* Attempts go on; what they tell waits for the reply. */
static void greets_again_with_other_devices(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    EXPECT("start 1.1 train\n");
    assert_int_equal(session_describe(session, "cuda: fake", 0, 1, 1 << 30, now), 0);
    EXPECT("hello w1 with cuda: fake\n");
    metric(1, 1, "loss", 0.5);
    EXPECT("");
    hello_reply();
    EXPECT("files ipc://f\nbeat free 1 1:fetch:0\nreport 1 #1 loss=0.5\n");
}

static void waits_when_it_is_refused(void **state)
{
    (void)state;
    tick(0);
    refuse(last_request, EBUSY);
    tick(9999);
    EXPECT("hello w1\n");
    tick(1);
    EXPECT("hello w1\n");
}

/* ---- leases ---------------------------------------------------------------------------------- */

static void runs_what_it_is_granted_within_its_slots(void **state)
{
    const struct attempt_progress progress = {4, 9, 100, 0.5};
    struct attempt_id first = id_of(1, 1);

    (void)state;
    connect_it();
    grant(1, 1);
    grant(1, 1);
    grant(2, 2);
    grant(3, 3);
    EXPECT("start 1.1 train\nstart 2.2 train\n");
    session_attempt_phase(session, &first, "step", now);
    session_attempt_progress(session, &first, &progress, now);
    tick(BEAT);
    EXPECT("beat free 0 1:step:4 2:fetch:0 3:fetch:0\n");
    ended(1, 1, ATTEMPT_DONE, "exit code 0");
    EXPECT("report 1 #1 end:done:exit code 0\nstart 3.3 train\n");
    grant(1, 1); /* once more, late: it is not run again */
    acknowledge(1, 1, 1);
    grant(1, 1);
    EXPECT("forget 1.1\n");
}

static void stops_what_is_not_listed(void **state)
{
    struct attempt_id two = id_of(2, 2);
    uint64_t early;

    (void)state;
    connect_it();
    early = last_request;
    grant(1, 1);
    grant(2, 2);
    list(early, 0, NULL); /* of a heartbeat that knew neither */
    EXPECT("start 1.1 train\nstart 2.2 train\n");
    tick(BEAT);
    EXPECT("beat free 0 1:fetch:0 2:fetch:0\n");
    list(early, 0, NULL); /* not of the last heartbeat */
    EXPECT("");
    list(last_request, 1, &two);
    EXPECT("stop 1.1\n");
    metric(1, 1, "loss", 1);
    ended(1, 1, ATTEMPT_STOPPED, "exit code 75");
    EXPECT("forget 1.1\n");
}

static void asks_for_what_it_lacks(void **state)
{
    struct attempt_id ids[] = {id_of(5, 1), id_of(6, 1)};

    (void)state;
    connect_it();
    list(last_request, 1, ids);
    EXPECT("ask 5\n");
    grant(5, 1);
    ended(5, 1, ATTEMPT_DONE, "exit code 0");
    acknowledge(5, 1, 1);
    EXPECT("start 5.1 train\nreport 5 #1 end:done:exit code 0\nforget 5.1\n");
    tick(BEAT);
    list(last_request, 2, ids);
    EXPECT("beat free 2\n"
           "report 5 #2 end:failed:the worker does not have this attempt any more\n"
           "ask 6\n");
}

static void lets_a_newer_lease_win(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    grant(2, 2);
    grant(1, 3);
    EXPECT("start 1.1 train\nstart 2.2 train\nstop 1.1\n");
    ended(1, 1, ATTEMPT_FAILED, "killed by signal 9 (SIGKILL)");
    EXPECT("forget 1.1\nstart 1.3 train\n");
}

static void stops_on_a_stale_answer(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    metric(1, 1, "loss", 0.5);
    receive((struct ha_wire_message){
        .kind = HA_WIRE_REPORT_REPLY,
        .body.report_reply = {.job = 1, .epoch = id_of(1, 1).epoch, .stale = true}});
    EXPECT("start 1.1 train\nreport 1 #1 loss=0.5\nstop 1.1\n");
    metric(1, 1, "loss", 0.4);
    tick(BEAT);
    EXPECT("beat free 1\n");
    ended(1, 1, ATTEMPT_FAILED, "killed by signal 9 (SIGKILL)");
    EXPECT("forget 1.1\n");
}

static void stops_with_a_checkpoint_when_revoked(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    receive((struct ha_wire_message){
        .kind = HA_WIRE_REVOKE,
        .body.revoke = {.job = 1, .epoch = id_of(1, 1).epoch, .reason = "cancelled by anna"}});
    artifact(1, 1, "checkpoint");
    ended(1, 1, ATTEMPT_FAILED, "killed by signal 9 (SIGKILL)");
    EXPECT("start 1.1 train\nstop 1.1\nupload 1/0 checkpoint\n");
    uploaded(1, 1, 0, 10);
    EXPECT("report 1 #1 file:checkpoint:10 "
           "end:stopped:cancelled by anna (killed by signal 9 (SIGKILL))\n");
}

static void tells_that_memory_ran_out(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    grant(2, 2);
    ended(1, 1, ATTEMPT_STARVED, "exit code 79");
    EXPECT("start 1.1 train\nstart 2.2 train\nreport 1 #1 end:failed:exit code 79 for memory\n");
    ended(2, 2, ATTEMPT_FAILED, "exit code 1");
    EXPECT("report 2 #1 end:failed:exit code 1\n");
}

/* ---- reports -------------------------------------------------------------------------------- */

static void sends_one_report_at_a_time(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    metric(1, 1, "a", 1);
    metric(1, 1, "b", 2);
    metric(1, 1, "c", 3);
    EXPECT("start 1.1 train\nreport 1 #1 a=1\n");
    tick(BEAT);
    tick(BEAT);
    list(last_request, 1, (struct attempt_id[]){id_of(1, 1)});
    EXPECT("beat free 1 1:fetch:0\nreport 1 #1 a=1\nbeat free 1 1:fetch:0\n");
    acknowledge(1, 1, 0);
    acknowledge(1, 2, 1);
    EXPECT("");
    acknowledge(1, 1, 1);
    acknowledge(1, 1, 1);
    EXPECT("report 1 #2 b=2 c=3\n");
    refuse(last_request, EPROTO);
    hello_reply();
    EXPECT("hello w1\nfiles ipc://f\nbeat free 1 1:fetch:0\nreport 1 #2 b=2 c=3\n");
    acknowledge(1, 1, 2);
    EXPECT("");
}

static void keeps_reports_while_nobody_answers(void **state)
{
    (void)state;
    tick(0);
    hello_reply();
    grant(1, 1);
    for (int i = 0; i < 5; i++)
        tick(BEAT);
    trace[0] = '\0';
    metric(1, 1, "a", 1); /* the connection is not known */
    metric(1, 1, "b", 2);
    EXPECT("");
    hello_reply();
    EXPECT("files ipc://f\nbeat free 1 1:fetch:0\nreport 1 #1 a=1 b=2\n");
}

static void holds_ends_back_until_files_are_uploaded(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    artifact(1, 1, "config");
    artifact(1, 1, "weights");
    metric(1, 1, "a", 1);
    cell(1, 1, 9);
    metric(1, 1, "b", 2);
    EXPECT("start 1.1 train\nupload 1/0 config\nupload 1/1 weights\nreport 1 #1 a=1\n");
    acknowledge(1, 1, 1);
    EXPECT("");
    uploaded(1, 1, 1, 20);
    EXPECT("report 1 #2 file:weights:20\n");
    uploaded(1, 1, 0, 10);
    ended(1, 1, ATTEMPT_DONE, "exit code 0");
    acknowledge(1, 1, 2);
    EXPECT("report 1 #3 file:config:10 cell9 b=2 end:done:exit code 0\n");
    acknowledge(1, 1, 3);
    EXPECT("forget 1.1\n");
}

static void uploads_again_what_is_missing(void **state)
{
    const char *missing[] = {SHA};

    (void)state;
    connect_it();
    grant(1, 1);
    artifact(1, 1, "weights");
    uploaded(1, 1, 0, 20);
    EXPECT("start 1.1 train\nupload 1/0 weights\nreport 1 #1 file:weights:20\n");
    receive((struct ha_wire_message){
        .kind = HA_WIRE_REPORT_REPLY,
        .body.report_reply = {
            .job = 1, .epoch = id_of(1, 1).epoch, .missing = missing, .n_missing = 1}});
    EXPECT("upload 1/0 again\n");
    tick(2 * BEAT);
    EXPECT("beat free 1 1:fetch:0\n");
    uploaded(1, 1, 0, 20);
    EXPECT("report 1 #1 file:weights:20\n");
}

static void fails_when_a_file_cannot_be_read(void **state)
{
    const struct attempt_id id = id_of(1, 1);

    (void)state;
    connect_it();
    grant(1, 1);
    artifact(1, 1, "weights");
    cell(1, 1, 9);
    session_upload_failed(session, &id, 0, "cannot read weights", now);
    EXPECT("start 1.1 train\nupload 1/0 weights\nstop 1.1\n");
    ended(1, 1, ATTEMPT_STOPPED, "exit code 75");
    EXPECT("report 1 #1 end:failed:cannot read weights\n");
    acknowledge(1, 1, 1);
    EXPECT("forget 1.1 failed\n");
}

static void fails_when_a_report_is_found_wrong(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    metric(1, 1, "a", 1);
    refuse(last_request, ENOSPC); /* may heal: it is sent again in time */
    EXPECT("start 1.1 train\nreport 1 #1 a=1\n");
    refuse(last_request, EINVAL);
    metric(1, 1, "b", 2);
    EXPECT("stop 1.1\n");
    ended(1, 1, ATTEMPT_STOPPED, "exit code 75");
    EXPECT("report 1 #1 end:failed:no\n");
    refuse(last_request, EINVAL);
    EXPECT("forget 1.1\n");
    assert_true(session_is_empty(session));
}

/* ---- time and leaving ------------------------------------------------------------------------ */

static void ends_a_stuck_attempt(void **state)
{
    static const struct {
        const char *phase;
        int beats;
    } phases[] = {{"load", 60},  {"step", 30},     {"evaluate", 30},          {"measure", 30},
                  {"probe", 30}, {"generate", 45}, {"of a later version", 30}};

    (void)state;
    connect_it();
    for (uint64_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        const struct attempt_id id = id_of(i + 1, 1);
        char want[160];

        grant(i + 1, 1);
        session_attempt_phase(session, &id, phases[i].phase, now);
        trace[0] = '\0';
        for (int k = 1; k < phases[i].beats; k++) {
            tick(BEAT);
            list(last_request, 1, &id);
        }
        assert_null(strstr(trace, "stop"));
        tick(BEAT);
        assert_non_null(strstr(trace, "stop "));
        trace[0] = '\0';
        ended(i + 1, 1, ATTEMPT_FAILED, "killed by signal 9 (SIGKILL)");
        snprintf(want, sizeof want, "report %d #1 end:failed:no progress for %d s in phase %s\n",
                 (int)i + 1, phases[i].beats, phases[i].phase);
        assert_string_equal(trace, want);
        acknowledge(i + 1, 1, 1);
    }
}

/* The daemon's own work waits for a coordinator that is away. */
static void fetching_is_never_stuck(void **state)
{
    const struct attempt_id id = id_of(1, 1);

    (void)state;
    connect_it();
    grant(1, 1);
    for (int k = 0; k < 1000; k++) {
        trace[0] = '\0';
        tick(BEAT);
        list(last_request, 1, &id);
        assert_null(strstr(trace, "stop"));
    }
}

static void drains(void **state)
{
    (void)state;
    connect_it();
    grant(1, 1);
    grant(2, 2);
    grant(3, 3);
    trace[0] = '\0';
    session_drain(session, now);
    session_drain(session, now);
    EXPECT("stop 1.1\nstop 2.2\n"
           "report 3 #1 end:stopped:the worker is leaving (before it was started)\n"
           "beat free 0 draining 1:fetch:0 2:fetch:0 3:upload:0\n");
    grant(4, 4);
    EXPECT("report 4 #1 end:stopped:the worker is leaving (before it was started)\n");
    ended(1, 1, ATTEMPT_STOPPED, "exit code 75");
    ended(2, 2, ATTEMPT_DONE, "exit code 0");
    EXPECT("report 1 #1 end:stopped:the worker is leaving (exit code 75)\n"
           "report 2 #1 end:done:exit code 0\n");
    for (uint64_t job = 1; job <= 4; job++) {
        assert_false(session_is_empty(session));
        acknowledge(job, job, 1);
    }
    assert_true(session_is_empty(session));
}

/* ---- a lossy, repeating network ------------------------------------------------------------ */

static uint32_t seed;

static uint32_t dice(uint32_t sides)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 16) % sides;
}

/* A coordinator that takes each report once, in order. */
static struct {
    uint64_t taken; /* last sequence */
    int next_value; /* metrics come as 0, 1, 2 ... */
    bool ended;
    struct ha_wire_message *inbox[64]; /* on their way to it */
    int n_inbox;
} far;

static void far_send(void *context, const struct ha_wire_message *message)
{
    (void)context;
    for (int copies = dice(4) == 0 ? 0 : 1 + (dice(5) == 0); copies > 0; copies--) {
        if (far.n_inbox < 64)
            assert_int_equal(ha_wire_copy(message, &far.inbox[far.n_inbox++], NULL, NULL), 0);
    }
}

static void far_take(const struct ha_wire_report *report)
{
    assert_true(report->sequence <= far.taken + 1);
    if (report->sequence != far.taken + 1)
        return;
    far.taken = report->sequence;
    for (int64_t i = 0; i < report->n_events; i++) {
        const struct ha_wire_attempt_event *event = &report->events[i];

        assert_false(far.ended);
        if (event->kind == HA_WIRE_ATTEMPT_EVENT_METRIC)
            assert_int_equal((int)event->event.metric.value, far.next_value++);
        far.ended = far.ended || event->kind == HA_WIRE_ATTEMPT_EVENT_END;
    }
}

/* Handle one message that has arrived, and answer, perhaps. */
static void far_turn(void)
{
    struct ha_wire_message *message, answer = {0};
    struct ha_wire_job_ref ref = {.job = 1, .epoch = id_of(1, 1).epoch};

    if (far.n_inbox == 0)
        return;
    message = far.inbox[0];
    memmove(far.inbox, far.inbox + 1, (size_t)--far.n_inbox * sizeof(far.inbox[0]));
    answer.request_id = message->request_id;
    if (message->kind == HA_WIRE_HELLO) {
        answer.kind = HA_WIRE_HELLO_REPLY;
        answer.body.hello_reply = (struct ha_wire_hello_reply){
            .heartbeat_ms = BEAT, .version = "", .name = "", .files_endpoint = ""};
    } else if (message->kind == HA_WIRE_HEARTBEAT) {
        answer.kind = HA_WIRE_HEARTBEAT_REPLY;
        answer.body.heartbeat_reply.should_run = &ref;
        answer.body.heartbeat_reply.n_should_run = !far.ended;
    } else if (message->kind == HA_WIRE_REPORT) {
        far_take(&message->body.report);
        answer.kind = HA_WIRE_REPORT_REPLY;
        answer.body.report_reply =
            (struct ha_wire_report_reply){.job = 1, .epoch = ref.epoch, .sequence = far.taken};
    } else if (message->kind == HA_WIRE_GRANT_REQUEST) {
        answer.kind = HA_WIRE_GRANT;
        answer.body.grant = (struct ha_wire_grant){
            .job = 1, .epoch = ref.epoch, .kind = "train", .spec_json = "{}"};
    }
    ha_wire_message_destroy(message);
    for (int copies = dice(4) == 0 ? 0 : 1 + (dice(5) == 0); copies > 0; copies--)
        session_receive(session, &answer, now);
}

static void delivers_everything_once_over_a_bad_network(void **state)
{
    enum { EVENTS = 100 };
    struct session_effects bad = effects;

    (void)state;
    bad.send = far_send;
    for (int round = 0; round < 50; round++) {
        const struct session_options options = {.name = "w1",
                                                .instance = "i",
                                                .machine = "m",
                                                .version = "0",
                                                .backend = "cpu",
                                                .host = "h",
                                                .slots = 1,
                                                .heartbeat_ms = BEAT};
        int produced = 0;
        bool done = false;

        session_destroy(session);
        assert_int_equal(session_create(&options, &bad, NULL, now, &session, NULL), 0);
        memset(&far, 0, sizeof(far));
        seed = (uint32_t)round;
        trace[0] = '\0';
        for (int turn = 0; turn < 20000 && !(done && session_is_empty(session)); turn++) {
            tick(dice(200));
            far_turn();
            if (!strstr(trace, "start 1.1") || done)
                continue;
            if (produced < EVENTS) {
                if (dice(3) == 0)
                    metric(1, 1, "n", produced++);
            } else {
                ended(1, 1, ATTEMPT_DONE, "exit code 0");
                done = true;
            }
        }
        assert_int_equal(far.next_value, EVENTS);
        assert_true(far.ended);
        assert_true(session_is_empty(session));
        assert_null(strstr(trace, "stop"));
        while (far.n_inbox > 0)
            ha_wire_message_destroy(far.inbox[--far.n_inbox]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(greets_and_beats),
        TEST(beats_less_often_when_told_to),
        TEST(opens_a_silent_connection_anew),
        TEST(greets_again_when_told_to),
        TEST(greets_again_with_other_devices),
        TEST(waits_when_it_is_refused),
        TEST(runs_what_it_is_granted_within_its_slots),
        TEST(stops_what_is_not_listed),
        TEST(asks_for_what_it_lacks),
        TEST(lets_a_newer_lease_win),
        TEST(stops_on_a_stale_answer),
        TEST(stops_with_a_checkpoint_when_revoked),
        TEST(tells_that_memory_ran_out),
        TEST(sends_one_report_at_a_time),
        TEST(keeps_reports_while_nobody_answers),
        TEST(holds_ends_back_until_files_are_uploaded),
        TEST(uploads_again_what_is_missing),
        TEST(fails_when_a_file_cannot_be_read),
        TEST(fails_when_a_report_is_found_wrong),
        TEST(ends_a_stuck_attempt),
        TEST(fetching_is_never_stuck),
        TEST(drains),
        TEST(delivers_everything_once_over_a_bad_network),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
