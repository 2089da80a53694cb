#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/daemon/session_inside.h"

enum {
    SILENT_MAX = 3,      /* unanswered heartbeats before the connection is opened anew */
    REFUSED_MS = 10000,  /* until the next hello after one was refused */
    REPORT_EVENTS = 512, /* in one report */
    REPORT_BYTES = 1 << 20
};

/* ---- life ---------------------------------------------------------------------------- */

bool attempt_id_equal(const struct attempt_id *a, const struct attempt_id *b)
{
    return a->job == b->job && a->epoch.generation == b->epoch.generation &&
           a->epoch.number == b->epoch.number;
}

int session_create(const struct session_options *options, const struct session_effects *effects,
                   void *context, int64_t now_ms, struct session **ret_session,
                   struct ha_error *err)
{
    struct session *session = ha_calloc(1, sizeof(*session));
    struct session_options *own;

    if (!session)
        return ha_error_set(err, ENOMEM, "out of memory");
    *session = (struct session){.options = *options,
                                .effects = *effects,
                                .context = context,
                                .next_request = 1,
                                .next_beat_ms = now_ms};
    session->last = &session->attempts;
    own = &session->options;
    own->name = ha_strdup(options->name);
    own->instance = ha_strdup(options->instance);
    own->machine = ha_strdup(options->machine);
    own->version = ha_strdup(options->version);
    own->backend = ha_strdup(options->backend);
    own->host = ha_strdup(options->host);
    if (!own->name || !own->instance || !own->machine || !own->version || !own->backend ||
        !own->host) {
        session_destroy(session);
        return ha_error_set(err, ENOMEM, "out of memory");
    }
    *ret_session = session;
    return 0;
}

void session_destroy(struct session *session)
{
    if (!session)
        return;
    while (session->attempts) {
        struct attempt *next = session->attempts->next;

        session_free_attempt(session->attempts);
        session->attempts = next;
    }
    free((char *)(uintptr_t)session->options.name);
    free((char *)(uintptr_t)session->options.instance);
    free((char *)(uintptr_t)session->options.machine);
    free((char *)(uintptr_t)session->options.version);
    free((char *)(uintptr_t)session->options.backend);
    free((char *)(uintptr_t)session->options.host);
    free(session->last_note);
    free(session);
}

/* ---- small things ----------------------------------------------------------------------- */

void session_note(struct session *session, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    session->effects.note(session->context, text);
}

uint64_t session_send(struct session *session, struct ha_wire_message *message)
{
    message->protocol = HA_WIRE_PROTOCOL;
    message->request_id = session->next_request++;
    session->effects.send(session->context, message);
    return message->request_id;
}

static struct attempt *find_wire(const struct session *session, uint64_t job,
                                 const struct ha_wire_epoch *epoch)
{
    const struct attempt_id id = {.job = job, .epoch = *epoch};

    return session_find(session, &id);
}

/* ---- what the coordinator says about attempts ------------------------------------------------ */

/* An attempt that we had, but whose end the coordinator does not know. */
static void report_lost(struct session *session, const struct finished *finished)
{
    struct ha_wire_attempt_event end = {
        .kind = HA_WIRE_ATTEMPT_EVENT_END,
        .event.end = {.outcome = "failed",
                      .reason = "the worker does not have this attempt any more"}};
    struct ha_wire_message message = {.kind = HA_WIRE_REPORT,
                                      .body.report = {.job = finished->id.job,
                                                      .epoch = finished->id.epoch,
                                                      .sequence = finished->next_sequence,
                                                      .events = &end,
                                                      .n_events = 1}};

    session_send(session, &message);
}

/* A newer lease of a job ends whatever we have of an older one. */
static void end_older(struct session *session, const struct attempt_id *id)
{
    for (struct attempt *attempt = session->attempts, *next; attempt; attempt = next) {
        next = attempt->next;
        if (attempt->id.job == id->job && !attempt_id_equal(&attempt->id, id))
            session_end_epoch(session, attempt, "a newer lease of this job came");
    }
}

static void take_grant(struct session *session, const struct ha_wire_message *message,
                       int64_t now_ms)
{
    const struct attempt_id id = {.job = message->body.grant.job,
                                  .epoch = message->body.grant.epoch};

    if (session_find(session, &id) || session_find_finished(session, &id))
        return;
    end_older(session, &id);
    session_add_attempt(session, &id, message, now_ms);
}

static bool is_listed(const struct ha_wire_heartbeat_reply *reply, const struct attempt_id *id)
{
    for (int64_t i = 0; i < reply->n_should_run; i++) {
        const struct attempt_id listed = {.job = reply->should_run[i].job,
                                          .epoch = reply->should_run[i].epoch};

        if (attempt_id_equal(&listed, id))
            return true;
    }
    return false;
}

static void ask_for(struct session *session, const struct ha_wire_job_ref *ref)
{
    const struct attempt_id id = {.job = ref->job, .epoch = ref->epoch};
    const struct finished *finished = session_find_finished(session, &id);
    struct ha_wire_message message = {.kind = HA_WIRE_GRANT_REQUEST,
                                      .body.grant_request = {.job = ref->job, .epoch = ref->epoch}};

    if (session_find(session, &id))
        return;
    if (finished)
        report_lost(session, finished);
    else
        session_send(session, &message);
}

/* Only the answer to our last heartbeat counts, and only for attempts that it
 * listed: a late or repeated one knows nothing of newer leases. */
static void take_heartbeat_reply(struct session *session, const struct ha_wire_message *message)
{
    const struct ha_wire_heartbeat_reply *reply = &message->body.heartbeat_reply;

    if (message->request_id != session->heartbeat_request)
        return;
    session->rest_ms = reply->rest_ms;
    for (struct attempt *attempt = session->attempts, *next; attempt; attempt = next) {
        next = attempt->next;
        if (attempt->since <= message->request_id && !is_listed(reply, &attempt->id))
            session_end_epoch(session, attempt,
                              "the coordinator does not list this attempt any more");
    }
    for (int64_t i = 0; i < reply->n_should_run; i++)
        ask_for(session, &reply->should_run[i]);
}

static void take_report_reply(struct session *session, const struct ha_wire_report_reply *reply,
                              int64_t now_ms)
{
    struct attempt *attempt = find_wire(session, reply->job, &reply->epoch);
    bool ended = false;
    int64_t number;

    if (!attempt || attempt->over)
        return;
    if (reply->stale) {
        session_end_epoch(session, attempt, "its lease is over");
        return;
    }
    if (attempt->asks) {
        attempt->asks = false;
        attempt->reports.sequence = reply->sequence + 1;
        session_send_reports(session, attempt, now_ms);
        return;
    }
    for (int64_t i = 0; i < reply->n_missing; i++) {
        while (reports_artifact_missing(&attempt->reports, reply->missing[i], &number)) {
            attempt->blocked = attempt->reports.on_its_way;
            session->effects.upload(session->context, &attempt->id, number, NULL);
        }
    }
    if (!reports_acknowledge(&attempt->reports, reply->sequence, &ended))
        return;
    if (ended) {
        session_forget(session, attempt);
        return;
    }
    session->effects.delivered(session->context, &attempt->id, reports_oldest(&attempt->reports));
    session_send_reports(session, attempt, now_ms);
}

static void take_revoke(struct session *session, const struct ha_wire_revoke *revoke,
                        int64_t now_ms)
{
    struct attempt *attempt = find_wire(session, revoke->job, &revoke->epoch);

    if (!attempt)
        return;
    session_note(session, "job %llu is to be stopped: %s", (unsigned long long)revoke->job,
                 revoke->reason);
    session_stop(session, attempt, revoke->reason, now_ms);
}

/* ---- the connection -------------------------------------------------------------------------- */

/* NULL, also when memory is short: what is not listed is computed again. */
static struct ha_wire_job_ref *list_recovered(const struct session *session, int64_t *ret_n)
{
    struct ha_wire_job_ref *refs = ha_calloc(session_count(session, ENDED), sizeof(*refs));

    for (const struct attempt *a = session->attempts; refs && a; a = a->next) {
        if (a->recovered && !a->over)
            refs[(*ret_n)++] = (struct ha_wire_job_ref){.job = a->id.job, .epoch = a->id.epoch};
    }
    return refs;
}

static void send_hello(struct session *session, int64_t now_ms)
{
    const struct session_options *options = &session->options;
    struct ha_wire_message message = {
        .kind = HA_WIRE_HELLO,
        .body.hello = {.role = HA_WIRE_ROLE_WORKER,
                       .name = options->name,
                       .instance = options->instance,
                       .machine = options->machine,
                       .version = options->version,
                       .slots = options->slots,
                       .backend = options->backend,
                       .pid = options->pid,
                       .host = options->host,
                       .memory_bytes = options->memory_bytes,
                       .cpus = options->cpus,
                       .gpus = options->gpus,
                       .host_memory_bytes = options->host_memory_bytes,
                       .gpu_memory_bytes = options->gpu_memory_bytes}};

    if (options->labels) {
        message.body.hello.labels = (const char **)(void *)options->labels->items;
        message.body.hello.n_labels = options->labels->count;
    }

    message.body.hello.kept = list_recovered(session, &message.body.hello.n_kept);
    session->known = false;
    session->rest_ms = 0;
    session->unanswered++;
    session->hello_request = session_send(session, &message);
    session->next_beat_ms = now_ms + options->heartbeat_ms;
    free(message.body.hello.kept);
}

int session_describe(struct session *session, const char *backend, int64_t memory_bytes,
                     uint32_t gpus, int64_t gpu_memory_bytes, int64_t now_ms)
{
    struct session_options *own = &session->options;
    char *copy = ha_strdup(backend);

    if (!copy)
        return -ENOMEM;
    free((char *)(uintptr_t)own->backend);
    own->backend = copy;
    own->memory_bytes = memory_bytes;
    own->gpus = gpus;
    own->gpu_memory_bytes = gpu_memory_bytes;
    send_hello(session, now_ms);
    return 0;
}

static void send_heartbeat(struct session *session, int64_t now_ms)
{
    int64_t n = 0, room = session_count(session, WAITING) + session_count(session, RUNNING) +
                          session_count(session, ENDED);
    int64_t busy = session_count(session, WAITING) + session_count(session, RUNNING);
    struct ha_wire_running *running = ha_calloc(room, sizeof(*running));
    struct ha_wire_message message = {.kind = HA_WIRE_HEARTBEAT};

    session->next_beat_ms =
        now_ms + (session->rest_ms > 0 && !session->attempts ? session->rest_ms
                                                             : session->options.heartbeat_ms);
    if (!running)
        return; /* better none than one that seems to have lost its attempts */
    for (const struct attempt *attempt = session->attempts; attempt; attempt = attempt->next) {
        if (attempt->over)
            continue;
        session_gang_send(session, attempt);
        running[n++] =
            (struct ha_wire_running){.job = attempt->id.job,
                                     .epoch = attempt->id.epoch,
                                     .phase = attempt->state == ENDED ? "upload" : attempt->phase,
                                     .step = attempt->progress.step,
                                     .steps = attempt->progress.steps,
                                     .tokens_per_second = attempt->progress.tokens_per_second,
                                     .utilisation = attempt->progress.utilisation};
    }
    message.body.heartbeat.draining = session->draining;
    message.body.heartbeat.running = running;
    message.body.heartbeat.n_running = n;
    if (!session->draining && busy < session->options.slots)
        message.body.heartbeat.free_slots = session->options.slots - (uint32_t)busy;
    session->unanswered++;
    session->heartbeat_request = session_send(session, &message);
    free(running);
}

void session_send_reports(struct session *session, struct attempt *attempt, int64_t now_ms)
{
    struct ha_wire_attempt_event *events;
    struct ha_wire_message message = {
        .kind = HA_WIRE_REPORT,
        .body.report = {.job = attempt->id.job, .epoch = attempt->id.epoch}};

    if (!session->known || attempt->over ||
        ((attempt->reports.on_its_way || attempt->asks) && !attempt->blocked &&
         now_ms < attempt->sent_ms + SESSION_RESEND_BEATS * session->options.heartbeat_ms))
        return;
    if (attempt->asks) { /* an empty report changes nothing, and its answer tells the number */
        message.body.report.sequence = 1;
        attempt->sent_ms = now_ms;
        session_send(session, &message);
        return;
    }
    events = ha_calloc(REPORT_EVENTS, sizeof(*events));
    if (events && reports_next(&attempt->reports, events, REPORT_EVENTS, REPORT_BYTES,
                               &message.body.report.n_events)) {
        message.body.report.sequence = attempt->reports.sequence;
        message.body.report.events = events;
        attempt->sent_ms = now_ms;
        attempt->blocked = false;
        attempt->report_request = session_send(session, &message);
    } else {
        attempt->blocked = attempt->reports.on_its_way;
    }
    free(events);
}

static void take_hello_reply(struct session *session, const struct ha_wire_message *message,
                             int64_t now_ms)
{
    const struct ha_wire_hello_reply *reply = &message->body.hello_reply;

    if (session->known || message->request_id != session->hello_request)
        return;
    session->known = true;
    free(session->last_note);
    session->last_note = NULL;
    if (reply->heartbeat_ms > 0)
        session->options.heartbeat_ms = reply->heartbeat_ms;
    if (reply->files_endpoint[0])
        session->effects.files_endpoint(session->context, reply->files_endpoint);
    session_note(session, "the coordinator (version %s) knows this worker as %s", reply->version,
                 reply->name);
    send_heartbeat(session, now_ms);
    for (struct attempt *attempt = session->attempts; attempt; attempt = attempt->next) {
        attempt->sent_ms = now_ms - SESSION_RESEND_BEATS * session->options.heartbeat_ms;
        session_send_reports(session, attempt, now_ms);
    }
}

/* A report that will never be taken must not hold up the rest for ever: the
 * attempt fails, and its end takes the place of what was wrong. */
static void reject(struct session *session, struct attempt *attempt, const char *text,
                   int64_t now_ms)
{
    if (attempt->rejected) {
        session_end_epoch(session, attempt, "the coordinator does not take its end either");
        return;
    }
    attempt->rejected = true;
    reports_clear(&attempt->reports);
    session->effects.delivered(session->context, &attempt->id, attempt->reports.n_added);
    attempt->end_queued = false;
    session_fail(session, attempt, text, now_ms);
}

/* Whoever has the name has the leases.  What an earlier process left is kept: it may have had
 * them. */
static void lose_name(struct session *session)
{
    for (struct attempt *attempt = session->attempts, *next; attempt; attempt = next) {
        next = attempt->next;
        if (!attempt->recovered)
            session_end_epoch(session, attempt, "another process has this worker's name");
    }
}

static void take_error(struct session *session, const struct ha_wire_message *message,
                       int64_t now_ms)
{
    const struct ha_wire_error *error = &message->body.error;
    bool about_hello = message->request_id == session->hello_request;

    if (error->code == EPROTO && !about_hello) {
        if (session->known)
            send_hello(session, now_ms);
        return;
    }
    for (struct attempt *attempt = session->attempts; attempt && error->code == EINVAL;
         attempt = attempt->next) {
        if (attempt->report_request == message->request_id && attempt->reports.on_its_way) {
            reject(session, attempt, error->text, now_ms);
            return;
        }
    }
    if (about_hello)
        session->next_beat_ms = now_ms + REFUSED_MS;
    if (about_hello && error->code == EADDRINUSE)
        lose_name(session);
    if (session->last_note && strcmp(session->last_note, error->text) == 0)
        return;
    session_set_text(&session->last_note, error->text);
    session_note(session, "the coordinator refuses%s: %s", about_hello ? " this worker" : "",
                 error->text);
}

void session_receive(struct session *session, const struct ha_wire_message *message, int64_t now_ms)
{
    session->unanswered = 0;
    switch (message->kind) {
    case HA_WIRE_HELLO_REPLY:
        take_hello_reply(session, message, now_ms);
        break;
    case HA_WIRE_HEARTBEAT_REPLY:
        take_heartbeat_reply(session, message);
        break;
    case HA_WIRE_GRANT:
        take_grant(session, message, now_ms);
        break;
    case HA_WIRE_REVOKE:
        take_revoke(session, &message->body.revoke, now_ms);
        break;
    case HA_WIRE_REPORT_REPLY:
        take_report_reply(session, &message->body.report_reply, now_ms);
        break;
    case HA_WIRE_GANG_ORDER:
        session_gang_take_order(session, &message->body.gang_order, now_ms);
        break;
    case HA_WIRE_ERROR:
        take_error(session, message, now_ms);
        break;
    default: /* of a newer coordinator: nothing we wait for */
        break;
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

/* The longest silence in an attempt's phase; 0: none is too long.  Fetching is the daemon's own
 * work, which waits for a coordinator that is away; every other phase has a limit. */
static int64_t stall_ms(const struct session *session, const struct attempt *attempt)
{
    const struct session_options *options = &session->options;

    if (attempt->state != RUNNING || attempt->stopping || session_gang_waits(attempt) ||
        strcmp(attempt->phase, "fetch") == 0)
        return 0;
    if (strcmp(attempt->phase, "load") == 0)
        return options->stall_load_ms;
    return strcmp(attempt->phase, "generate") == 0 ? options->stall_generate_ms
                                                   : options->stall_step_ms;
}

/* When an attempt is asked to stop so that it has written its checkpoint by its time
 * limit; 0: never. */
static int64_t limit_at_ms(const struct session *session, const struct attempt *attempt)
{
    int64_t limit_ms = attempt->time_limit_ms, grace_ms = session->options.stop_grace_ms;

    if (limit_ms == 0 || attempt->state != RUNNING || attempt->stopping || attempt->gang.part > 0)
        return 0; /* part 0 stops all of a gang */
    return attempt->started_ms + limit_ms - (grace_ms < limit_ms / 4 ? grace_ms : limit_ms / 4);
}

static void stop_at_limit(struct session *session, struct attempt *attempt, int64_t now_ms)
{
    char reason[96];

    (void)snprintf(reason, sizeof(reason), "its time limit of %lld s",
                   (long long)(attempt->time_limit_ms / 1000));
    attempt->limited = true;
    session_note(session, "job %llu is stopped: %s", (unsigned long long)attempt->id.job, reason);
    session_stop(session, attempt, reason, now_ms);
}

void session_tick(struct session *session, int64_t now_ms)
{
    for (struct attempt *attempt = session->attempts; attempt; attempt = attempt->next) {
        int64_t limit = stall_ms(session, attempt), at = limit_at_ms(session, attempt);
        char reason[128];

        if (at != 0 && now_ms >= at)
            stop_at_limit(session, attempt, now_ms);
        if (limit > 0 && now_ms >= attempt->progress_ms + limit) {
            (void)snprintf(reason, sizeof(reason), "no progress for %lld s in phase %s",
                           (long long)(limit / 1000), attempt->phase);
            session_fail(session, attempt, reason, now_ms);
        }
        if (attempt->reports.on_its_way || attempt->asks)
            session_finish(session, attempt, now_ms);
    }
    if (now_ms < session->next_beat_ms)
        return;
    if (session->unanswered >= SILENT_MAX) {
        session_note(session, "the coordinator is silent; connecting again");
        session->unanswered = 0;
        session->known = false;
        session->effects.reconnect(session->context);
    }
    if (session->known)
        send_heartbeat(session, now_ms);
    else
        send_hello(session, now_ms);
}

int64_t session_next_ms(const struct session *session)
{
    int64_t next = session->next_beat_ms;

    for (const struct attempt *attempt = session->attempts; attempt; attempt = attempt->next) {
        int64_t limit = stall_ms(session, attempt);
        int64_t resend = attempt->sent_ms + SESSION_RESEND_BEATS * session->options.heartbeat_ms;
        int64_t at = limit_at_ms(session, attempt);

        if (at != 0 && at < next)
            next = at;
        if (limit > 0 && attempt->progress_ms + limit < next)
            next = attempt->progress_ms + limit;
        if (session->known && (attempt->reports.on_its_way || attempt->asks) && !attempt->blocked &&
            resend < next)
            next = resend;
    }
    return next;
}

/* ---- leaving --------------------------------------------------------------------------------- */

void session_drain(struct session *session, int64_t now_ms)
{
    if (session->draining)
        return;
    session->draining = true;
    for (struct attempt *attempt = session->attempts; attempt; attempt = attempt->next)
        session_stop(session, attempt, "the worker is leaving", now_ms);
    if (session->known)
        send_heartbeat(session, now_ms);
}

bool session_is_empty(const struct session *session)
{
    return !session->attempts;
}
