#include "session_support.h"

#include <stdio.h>
#include <string.h>

#include "common/base/error.h"

struct session *session;
int64_t now = 100000;
uint64_t last_request;
char trace[8192];

/* ---- effects --------------------------------------------------------------------------------- */

static void no_reconnect(void *context)
{
    (void)context;
}

static void no_text(void *context, const char *text)
{
    (void)context;
    (void)text;
}

static void no_start(void *context, const struct attempt_id *id, const struct ha_wire_grant *grant)
{
    (void)context;
    (void)id;
    (void)grant;
}

static void no_stop(void *context, const struct attempt_id *id)
{
    (void)context;
    (void)id;
}

static void no_upload(void *context, const struct attempt_id *id, int64_t number, const char *path)
{
    (void)context;
    (void)id;
    (void)number;
    (void)path;
}

static void no_keep(void *context, const struct attempt_id *id,
                    const struct ha_wire_attempt_event *event, const char *path)
{
    (void)context;
    (void)id;
    (void)event;
    (void)path;
}

static void no_delivered(void *context, const struct attempt_id *id, int64_t number)
{
    (void)context;
    (void)id;
    (void)number;
}

static void no_forget(void *context, const struct attempt_id *id, bool failed)
{
    (void)context;
    (void)id;
    (void)failed;
}

static void no_send(void *context, const struct ha_wire_message *message)
{
    (void)context;
    (void)message;
}

const struct session_effects no_effects = {.send = no_send,
                                           .reconnect = no_reconnect,
                                           .files_endpoint = no_text,
                                           .start = no_start,
                                           .stop = no_stop,
                                           .upload = no_upload,
                                           .keep = no_keep,
                                           .delivered = no_delivered,
                                           .forget = no_forget,
                                           .note = no_text};

void say(const char *format, ...)
{
    size_t used = strlen(trace);
    va_list args;

    va_start(args, format);
    vsnprintf(trace + used, sizeof(trace) - used, format, args);
    va_end(args);
}

void say_upload(void *context, const struct attempt_id *id, int64_t number, const char *path)
{
    (void)context;
    say("upload %llu/%lld %s\n", (unsigned long long)id->job, (long long)number,
        path ? path : "again");
}

int open_session(const struct session_options *options, const struct session_effects *effects)
{
    trace[0] = '\0';
    return session_create(options, effects, NULL, now, &session, NULL);
}

int tear_down(void **state)
{
    (void)state;
    session_destroy(session);
    return 0;
}

struct attempt_id id_of(uint64_t job, uint64_t epoch)
{
    return (struct attempt_id){.job = job, .epoch = {.generation = 7, .number = epoch}};
}

void receive(struct ha_wire_message message)
{
    session_receive(session, &message, now);
}

void hello_reply(void)
{
    receive((struct ha_wire_message){
        .kind = HA_WIRE_HELLO_REPLY,
        .request_id = last_request,
        .body.hello_reply = {
            .version = "0", .name = "w1", .heartbeat_ms = BEAT, .files_endpoint = "ipc://f"}});
}

void grant(uint64_t job, uint64_t epoch)
{
    struct attempt_id id = id_of(job, epoch);

    receive((struct ha_wire_message){
        .kind = HA_WIRE_GRANT,
        .body.grant = {.job = id.job, .epoch = id.epoch, .kind = "train", .spec_json = "{}"}});
}

void list(uint64_t request, int n, const struct attempt_id *ids)
{
    struct ha_wire_job_ref refs[8];

    for (int i = 0; i < n; i++)
        refs[i] = (struct ha_wire_job_ref){.job = ids[i].job, .epoch = ids[i].epoch};
    receive(
        (struct ha_wire_message){.kind = HA_WIRE_HEARTBEAT_REPLY,
                                 .request_id = request,
                                 .body.heartbeat_reply = {.should_run = refs, .n_should_run = n}});
}

void acknowledge(uint64_t job, uint64_t epoch, uint64_t sequence)
{
    receive((struct ha_wire_message){
        .kind = HA_WIRE_REPORT_REPLY,
        .body.report_reply = {.job = job, .epoch = id_of(job, epoch).epoch, .sequence = sequence}});
}

void tick(int64_t ms)
{
    now += ms;
    session_tick(session, now);
}

void metric(uint64_t job, uint64_t epoch, const char *name, double value)
{
    const struct attempt_id id = id_of(job, epoch);
    const struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_METRIC,
                                                .event.metric = {.name = name, .value = value}};

    session_attempt_event(session, &id, &event, now);
}

void artifact(uint64_t job, uint64_t epoch, const char *name)
{
    const struct attempt_id id = id_of(job, epoch);
    const struct ha_wire_attempt_artifact file = {.cell = 1, .kind = "adapter", .name = name};

    session_attempt_artifact(session, &id, &file, name, now);
}

void uploaded(uint64_t job, uint64_t epoch, int64_t number, int64_t size)
{
    const struct attempt_id id = id_of(job, epoch);

    session_uploaded(session, &id, number, SHA, size, now);
}

void ended(uint64_t job, uint64_t epoch, enum attempt_outcome outcome, const char *reason)
{
    const struct attempt_id id = id_of(job, epoch);

    session_attempt_ended(session, &id, outcome, reason, 0, NULL, now);
}
