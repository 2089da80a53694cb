#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/daemon/session_inside.h"

/* ---- life ------------------------------------------------------------------------------ */

void session_free_attempt(struct attempt *attempt)
{
    ha_wire_message_destroy(attempt->grant);
    reports_clear(&attempt->reports);
    free(attempt->stop_reason);
    free(attempt->failure);
    free(attempt->end_reason);
    session_gang_clear(attempt);
    free(attempt);
}

struct attempt *session_find(const struct session *session, const struct attempt_id *id)
{
    for (struct attempt *attempt = session->attempts; attempt; attempt = attempt->next) {
        if (attempt_id_equal(&attempt->id, id))
            return attempt;
    }
    return NULL;
}

const struct finished *session_find_finished(const struct session *session,
                                             const struct attempt_id *id)
{
    int64_t n = session->n_finished < SESSION_REMEMBERED ? session->n_finished : SESSION_REMEMBERED;

    for (int64_t i = 0; i < n; i++) {
        if (attempt_id_equal(&session->finished[i].id, id))
            return &session->finished[i];
    }
    return NULL;
}

int64_t session_count(const struct session *session, enum attempt_state state)
{
    int64_t n = 0;

    for (const struct attempt *attempt = session->attempts; attempt; attempt = attempt->next)
        n += attempt->state == state;
    return n;
}

void session_set_text(char **text, const char *value)
{
    char *copy = ha_strdup(value);

    if (!copy)
        return; /* the older text, or none, will have to do */
    free(*text);
    *text = copy;
}

/* ---- attempts ------------------------------------------------------------------------------ */

static void start_waiting(struct session *session, int64_t now_ms)
{
    for (struct attempt *attempt = session->attempts; attempt; attempt = attempt->next) {
        struct ha_wire_message *grant = attempt->grant;

        if (attempt->state != WAITING)
            continue;
        if (session_count(session, RUNNING) >= session->options.slots)
            return;
        attempt->state = RUNNING;
        attempt->progress_ms = attempt->started_ms = now_ms;
        attempt->time_limit_ms = grant->body.grant.time_limit_s * 1000;
        attempt->grant = NULL;
        session->effects.start(session->context, &attempt->id, &grant->body.grant);
        ha_wire_message_destroy(grant);
    }
}

void session_add_attempt(struct session *session, const struct attempt_id *id,
                         const struct ha_wire_message *grant, int64_t now_ms)
{
    struct attempt *attempt = ha_calloc(1, sizeof(*attempt));
    struct ha_error err = {0};

    if (!attempt || session_gang_begin(attempt, &grant->body.grant.gang) < 0 ||
        ha_wire_copy(grant, &attempt->grant, NULL, &err) < 0) {
        session_note(session, "job %llu cannot be taken: %s", (unsigned long long)id->job,
                     err.text[0] ? err.text : "out of memory");
        if (attempt)
            session_gang_clear(attempt);
        free(attempt);
        return; /* the coordinator lists it again with the next heartbeat */
    }
    attempt->id = *id;
    attempt->since = session->next_request;
    attempt->log_number = -1;
    (void)snprintf(attempt->phase, sizeof(attempt->phase), "%s", "fetch");
    reports_init(&attempt->reports);
    *session->last = attempt;
    session->last = &attempt->next;
    if (session->draining)
        session_stop(session, attempt, "the worker is leaving", now_ms);
    else
        start_waiting(session, now_ms);
}

const char *session_outcome_name(enum attempt_outcome outcome)
{
    static const char *const names[] = {[ATTEMPT_DONE] = "done",
                                        [ATTEMPT_STOPPED] = "stopped",
                                        [ATTEMPT_FAILED] = "failed",
                                        [ATTEMPT_REFUSED] = "refused"};

    return names[outcome];
}

/* What was kept of its end, instead of the one that was assumed. */
static void recover_end(struct attempt *attempt, const struct ha_wire_attempt_end *end)
{
    attempt->outcome = ATTEMPT_FAILED;
    for (int i = ATTEMPT_DONE; i <= ATTEMPT_REFUSED; i++) {
        if (strcmp(end->outcome, session_outcome_name((enum attempt_outcome)i)) == 0)
            attempt->outcome = (enum attempt_outcome)i;
    }
    attempt->exit_code = end->exit_code;
    attempt->limited = strcmp(end->cause, "time_limit") == 0;
    attempt->starved = strcmp(end->cause, "memory") == 0;
    attempt->cut_short = false;
    session_set_text(&attempt->end_reason, end->reason);
    session_gang_keep_log(attempt, &end->log);
}

static int recover_event(struct attempt *attempt, const struct session_kept *kept,
                         struct ha_error *err)
{
    const struct ha_wire_attempt_event *event = kept->event;
    int64_t number;
    int r;

    if (event->kind == HA_WIRE_ATTEMPT_EVENT_END) {
        recover_end(attempt, &event->event.end);
        return 0;
    }
    if (event->kind != HA_WIRE_ATTEMPT_EVENT_ARTIFACT)
        return reports_add(&attempt->reports, event, err);
    r = reports_add_artifact(&attempt->reports, &event->event.artifact, &number, err);
    if (r == 0 && strcmp(event->event.artifact.kind, "log") == 0)
        attempt->log_number = number;
    return r;
}

int session_recover(struct session *session, const struct attempt_id *id,
                    const struct session_kept *kept, int64_t n_kept, int64_t now_ms,
                    struct ha_error *err)
{
    struct attempt *attempt = ha_calloc(1, sizeof(*attempt));
    int64_t number = 0;
    int r = 0;

    if (!attempt)
        return ha_error_set(err, ENOMEM, "out of memory");
    attempt->id = *id;
    attempt->state = ENDED;
    attempt->since = session->next_request;
    attempt->recovered = attempt->asks = attempt->cut_short = true;
    attempt->outcome = ATTEMPT_STOPPED;
    attempt->log_number = -1;
    reports_init(&attempt->reports);
    session_set_text(&attempt->end_reason, "its worker's daemon died, and it with it");
    for (int64_t i = 0; r == 0 && i < n_kept; i++)
        r = recover_event(attempt, &kept[i], err);
    if (r < 0) {
        session_free_attempt(attempt);
        return r;
    }
    *session->last = attempt;
    session->last = &attempt->next;
    for (int64_t i = 0; i < n_kept; i++) {
        if (kept[i].event->kind == HA_WIRE_ATTEMPT_EVENT_ARTIFACT)
            session->effects.upload(session->context, id, number++, kept[i].path);
    }
    session_finish(session, attempt, now_ms);
    return 0;
}

void session_forget(struct session *session, struct attempt *attempt)
{
    struct attempt **at = &session->attempts;
    bool failed = attempt->failure || attempt->outcome == ATTEMPT_FAILED ||
                  attempt->outcome == ATTEMPT_REFUSED;

    session->finished[session->n_finished++ % SESSION_REMEMBERED] =
        (struct finished){.id = attempt->id, .next_sequence = attempt->reports.sequence};
    if (attempt->state == ENDED)
        session->effects.forget(session->context, &attempt->id,
                                failed && (!attempt->over || attempt->gang.parts > 1));
    while (*at != attempt)
        at = &(*at)->next;
    *at = attempt->next;
    session_free_attempt(attempt);
    session->last = &session->attempts;
    while (*session->last)
        session->last = &(*session->last)->next;
}

void session_end_epoch(struct session *session, struct attempt *attempt, const char *reason)
{
    if (attempt->over)
        return;
    session_note(
        session, "job %llu: %s%s", (unsigned long long)attempt->id.job, reason,
        attempt->recovered ? "; what an earlier process of this worker had of it is dropped" : "");
    attempt->over = true;
    reports_clear(&attempt->reports);
    if (attempt->state != RUNNING) {
        session_forget(session, attempt);
    } else if (attempt->gang.parts > 1) { /* the others are told the same */
        attempt->stopping = true;
        session->effects.gang(session->context, &attempt->id, NULL);
    } else if (!attempt->stopping) {
        attempt->stopping = true;
        session->effects.stop(session->context, &attempt->id);
    }
}

const char *session_cause(const struct attempt *attempt)
{
    bool stopped = !attempt->failure && attempt->outcome == ATTEMPT_STOPPED;
    bool starved = !attempt->failure && attempt->outcome == ATTEMPT_FAILED && attempt->starved;

    return stopped && attempt->limited     ? "time_limit"
           : stopped && attempt->cut_short ? "lost"
           : starved                       ? "memory"
                                           : "";
}

static struct ha_wire_attempt_event end_event(const struct attempt *attempt)
{
    bool alone = attempt->gang.parts <= 1; /* else each part tells of its own */

    return (struct ha_wire_attempt_event){
        .kind = HA_WIRE_ATTEMPT_EVENT_END,
        .event.end = {
            .outcome = session_outcome_name(attempt->failure ? ATTEMPT_FAILED : attempt->outcome),
            .reason = attempt->failure ? attempt->failure : attempt->end_reason,
            .exit_code = attempt->exit_code,
            .cause = session_cause(attempt),
            .log = alone ? session_gang_log(attempt) : (struct ha_wire_rank_log){"", ""}}};
}

void session_finish(struct session *session, struct attempt *attempt, int64_t now_ms)
{
    struct ha_wire_attempt_event event;
    struct ha_error err = {0};

    if (attempt->state == ENDED && !attempt->end_queued && !session_gang_holds_end(attempt) &&
        !reports_artifact_waits(&attempt->reports)) {
        event = end_event(attempt);
        if (reports_add(&attempt->reports, &event, &err) < 0) {
            session_note(session, "job %llu: its end cannot be reported yet: %s",
                         (unsigned long long)attempt->id.job, err.text);
            return;
        }
        attempt->end_queued = true;
    }
    session_send_reports(session, attempt, now_ms);
}

void session_fail(struct session *session, struct attempt *attempt, const char *reason,
                  int64_t now_ms)
{
    session_note(session, "job %llu: %s", (unsigned long long)attempt->id.job, reason);
    if (!attempt->failure)
        session_set_text(&attempt->failure, reason);
    session_stop(session, attempt, reason, now_ms);
    session_finish(session, attempt, now_ms);
}

/* The words for an end that somebody asked for: a process that had to be killed
 * after its grace time did not fail. */
static void set_end(struct attempt *attempt, enum attempt_outcome outcome, const char *reason)
{
    char *both;

    attempt->starved = outcome == ATTEMPT_STARVED;
    attempt->outcome = attempt->starved ? ATTEMPT_FAILED : outcome;
    if (!attempt->stop_reason || outcome == ATTEMPT_DONE || outcome == ATTEMPT_REFUSED) {
        session_set_text(&attempt->end_reason, reason);
        return;
    }
    attempt->outcome = ATTEMPT_STOPPED;
    both = ha_format("%s (%s)", attempt->stop_reason, reason);
    session_set_text(&attempt->end_reason, both ? both : attempt->stop_reason);
    free(both);
}

void session_stop(struct session *session, struct attempt *attempt, const char *reason,
                  int64_t now_ms)
{
    if (attempt->stopping || attempt->state == ENDED)
        return;
    attempt->stopping = true;
    session_set_text(&attempt->stop_reason, reason);
    if (attempt->state == RUNNING) {
        session->effects.stop(session->context, &attempt->id);
        return;
    }
    attempt->state = ENDED; /* it never ran */
    set_end(attempt, ATTEMPT_STOPPED, "before it was started");
    if (attempt->over)
        return;
    session_gang_send(session, attempt);
    session_finish(session, attempt, now_ms);
}

static void keep_artifact(struct session *session, const struct attempt *attempt,
                          const struct ha_wire_attempt_artifact *artifact, const char *path)
{
    const struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                                .event.artifact = *artifact};

    session->effects.keep(session->context, &attempt->id, &event, path);
}

void session_attempt_ended(struct session *session, const struct attempt_id *id,
                           enum attempt_outcome outcome, const char *reason, int32_t exit_code,
                           const char *log_path, int64_t now_ms)
{
    const struct ha_wire_attempt_artifact log = {.kind = "log", .name = "attempt.log"};
    struct attempt *attempt = session_find(session, id);
    struct ha_wire_attempt_event event;
    struct ha_error err = {0};

    if (!attempt || attempt->state != RUNNING)
        return;
    attempt->state = ENDED;
    attempt->exit_code = exit_code;
    set_end(attempt, outcome, reason);
    if (attempt->over) {
        session_forget(session, attempt);
    } else if (attempt->gang.part > 0) {
        session_gang_send(session, attempt);
    } else {
        if (log_path &&
            reports_add_artifact(&attempt->reports, &log, &attempt->log_number, &err) == 0) {
            keep_artifact(session, attempt, &log, log_path);
            session->effects.upload(session->context, id, attempt->log_number, log_path);
        }
        event = end_event(attempt);
        session->effects.keep(session->context, id, &event, NULL);
        session_gang_send(session, attempt);
        session_finish(session, attempt, now_ms);
    }
    start_waiting(session, now_ms);
}

void session_attempt_phase(struct session *session, const struct attempt_id *id, const char *phase,
                           int64_t now_ms)
{
    struct attempt *attempt = session_find(session, id);

    if (!attempt)
        return;
    (void)snprintf(attempt->phase, sizeof(attempt->phase), "%s", phase);
    attempt->progress = (struct attempt_progress){0};
    attempt->progress_ms = now_ms;
}

void session_attempt_progress(struct session *session, const struct attempt_id *id,
                              const struct attempt_progress *progress, int64_t now_ms)
{
    struct attempt *attempt = session_find(session, id);

    if (!attempt)
        return;
    attempt->progress = *progress;
    attempt->progress_ms = now_ms;
}

void session_attempt_event(struct session *session, const struct attempt_id *id,
                           const struct ha_wire_attempt_event *event, int64_t now_ms)
{
    struct attempt *attempt = session_find(session, id);
    struct ha_error err = {0};

    if (!attempt || attempt->over || attempt->rejected)
        return;
    attempt->progress_ms = now_ms;
    if (reports_add(&attempt->reports, event, &err) < 0) {
        session_fail(session, attempt, ha_error_text(&err), now_ms);
        return;
    }
    session->effects.keep(session->context, id, event, NULL);
    session_send_reports(session, attempt, now_ms);
}

void session_attempt_artifact(struct session *session, const struct attempt_id *id,
                              const struct ha_wire_attempt_artifact *artifact, const char *path,
                              int64_t now_ms)
{
    struct attempt *attempt = session_find(session, id);
    struct ha_error err = {0};
    int64_t number;

    if (!attempt || attempt->over || attempt->rejected)
        return;
    attempt->progress_ms = now_ms;
    if (reports_add_artifact(&attempt->reports, artifact, &number, &err) < 0) {
        session_fail(session, attempt, ha_error_text(&err), now_ms);
        return;
    }
    keep_artifact(session, attempt, artifact, path);
    session->effects.upload(session->context, id, number, path);
}

void session_uploaded(struct session *session, const struct attempt_id *id, int64_t number,
                      const char *sha256, int64_t size, int64_t now_ms)
{
    struct attempt *attempt = session_find(session, id);

    if (!attempt || attempt->over)
        return;
    if (reports_artifact_ready(&attempt->reports, number, sha256, size) == -ENOMEM)
        session_fail(session, attempt, "the daemon is out of memory", now_ms);
    else
        session_finish(session, attempt, now_ms);
}

void session_upload_failed(struct session *session, const struct attempt_id *id, int64_t number,
                           const char *reason, int64_t now_ms)
{
    struct attempt *attempt = session_find(session, id);

    if (!attempt || attempt->over)
        return;
    reports_drop_artifact(&attempt->reports, number);
    if (number != attempt->log_number) {
        session_fail(session, attempt, reason, now_ms);
        return;
    }
    session_note(session, "job %llu: its log is lost: %s", (unsigned long long)attempt->id.job,
                 reason);
    session_finish(session, attempt, now_ms);
}
