#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "judge-worker/session_inside.h"

enum {
    HEARTBEAT_MS = 5000, /* until the coordinator says another */
    HELLO_MS = 1000,     /* between hellos that are not answered */
    REFUSED_MS = 10000,  /* after one that was refused */
    ANSWER_MS = 10000,   /* a request without answer is sent again */
    ERROR_MS = 2000,     /* the same after an error */
    SILENT_BEATS = 3     /* heartbeats without any answer until the connection is opened anew */
};

/* ---- small things --------------------------------------------------------------------- */

void session_note(struct ha_judge_session *session, enum ha_log_level level, const char *format,
                  ...)
{
    char text[700];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    session->effects.note(session->context, level, text);
}

uint64_t session_send(struct ha_judge_session *session, struct ha_wire_message *message)
{
    message->protocol = HA_WIRE_PROTOCOL;
    message->request_id = session->next_request++;
    session->effects.send(session->context, message);
    return message->request_id;
}

bool session_may_ask(const struct ha_judge_session *session, enum request_kind kind, int64_t now_ms)
{
    const struct ask *ask = &session->asks[kind];

    return session->known && ask->request_id == 0 && now_ms >= ask->not_before_ms;
}

void session_ask(struct ha_judge_session *session, enum request_kind kind,
                 struct ha_wire_message *message, int64_t now_ms)
{
    session->asks[kind].request_id = session_send(session, message);
    session->asks[kind].sent_ms = now_ms;
}

/* ---- life -------------------------------------------------------------------------------- */

int ha_judge_session_create(const struct ha_judge_session_options *options,
                            const struct ha_judge_effects *effects, void *context, int64_t now_ms,
                            struct ha_judge_session **ret_session, struct ha_error *err)
{
    struct ha_judge_session *session = calloc(1, sizeof *session);

    if (!session)
        return ha_error_set(err, ENOMEM, "no memory for a session");
    session->options = *options;
    session->effects = *effects;
    session->context = context;
    session->next_request = 1;
    session->heartbeat_ms = HEARTBEAT_MS;
    session->next_beat_ms = now_ms;
    session->heard_ms = now_ms;
    session->last_item = &session->items;
    session->last_delivery = &session->deliveries;
    *ret_session = session;
    return 0;
}

void ha_judge_session_destroy(struct ha_judge_session *session)
{
    if (!session)
        return;
    while (session->items)
        items_remove(session, session->items);
    delivery_clear(session);
    ha_judge_table_clear(&session->table);
    free(session);
}

/* ---- connection ----------------------------------------------------------------------------- */

static void say_hello(struct ha_judge_session *session, int64_t now_ms)
{
    const struct ha_judge_session_options *o = &session->options;
    struct ha_wire_message message = {.kind = HA_WIRE_HELLO,
                                      .body.hello = {.role = HA_WIRE_ROLE_JUDGE,
                                                     .name = o->name,
                                                     .instance = o->instance,
                                                     .machine = o->machine,
                                                     .version = o->version,
                                                     .slots = (uint32_t)o->concurrency,
                                                     .backend = "",
                                                     .pid = o->pid,
                                                     .host = o->host}};

    session->hello_request = session_send(session, &message);
    session->next_beat_ms = now_ms + HELLO_MS;
}

static void beat(struct ha_judge_session *session, int64_t now_ms)
{
    int64_t room = session->options.concurrency - session->n_items;
    struct ha_wire_message message = {
        .kind = HA_WIRE_HEARTBEAT,
        .body.heartbeat = {.free_slots = room > 0 ? (uint32_t)room : 0,
                           .draining = session->draining}};

    session->beat_request = session_send(session, &message);
    session->next_beat_ms = now_ms + session->heartbeat_ms;
}

/* Nobody answers any more, or the coordinator does not know us: begin with a
 * hello.  What was asked is asked again after it. */
static void forget_connection(struct ha_judge_session *session, int64_t now_ms)
{
    session->known = false;
    session->grant_lost = true;
    session->next_beat_ms = now_ms;
    for (int kind = 0; kind < ASKS; kind++)
        session->asks[kind].request_id = 0;
    items_begin_lost(session);
    delivery_lost(session, ASK_REPLIES);
    delivery_lost(session, ASK_OUTCOMES);
}

void session_pump(struct ha_judge_session *session, int64_t now_ms)
{
    if (session->draining)
        items_release(session);
    delivery_send(session, now_ms);
    if (session->known && !session->draining) {
        items_request(session, now_ms);
        items_begin(session, now_ms);
    }
}

/* A request ended without the answer that it is for. */
static void ask_lost(struct ha_judge_session *session, enum request_kind kind)
{
    if (kind == ASK_ITEMS)
        session->grant_lost = true;
    else if (kind == ASK_BEGIN)
        items_begin_lost(session);
    else
        delivery_lost(session, kind);
}

static void repeat_unanswered(struct ha_judge_session *session, int64_t now_ms)
{
    for (int kind = 0; kind < ASKS; kind++) {
        struct ask *ask = &session->asks[kind];

        if (now_ms >= ask->not_before_ms)
            ask->not_before_ms = 0;
        if (ask->request_id == 0 || now_ms < ask->sent_ms + ANSWER_MS)
            continue;
        ask->request_id = 0;
        ask_lost(session, (enum request_kind)kind);
    }
}

void ha_judge_session_tick(struct ha_judge_session *session, int64_t now_ms)
{
    int64_t silence = SILENT_BEATS * session->heartbeat_ms;

    if (now_ms >= session->next_beat_ms && now_ms - session->heard_ms >= silence) {
        if (session->known)
            session_note(session, HA_LOG_WARNING,
                         "the coordinator is silent; replies are kept until it is back");
        session->heard_ms = now_ms;
        forget_connection(session, now_ms);
        session->effects.reconnect(session->context);
    }
    if (now_ms >= session->next_beat_ms) {
        if (session->known)
            beat(session, now_ms);
        else
            say_hello(session, now_ms);
    }
    repeat_unanswered(session, now_ms);
    session_pump(session, now_ms);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When a request of this kind goes that wants to go at want_ms. */
static int64_t ask_ms(const struct ask *ask, int64_t want_ms)
{
    if (ask->request_id != 0)
        return ask->sent_ms + ANSWER_MS;
    return want_ms < ask->not_before_ms ? ask->not_before_ms : want_ms;
}

int64_t ha_judge_session_next_ms(const struct ha_judge_session *session)
{
    int64_t next = session->next_beat_ms;

    if (!session->known)
        return next;
    for (int kind = ASK_REPLIES; kind < ASKS; kind++) {
        if (session->asks[kind].request_id != 0 || session->asks[kind].not_before_ms != 0)
            next = least(next, ask_ms(&session->asks[kind], 0));
    }
    if (session->draining)
        return next;
    next = least(next, ask_ms(&session->asks[ASK_ITEMS], session->next_poll_ms));
    return least(next, ask_ms(&session->asks[ASK_BEGIN], session->next_send_ms));
}

/* ---- what the coordinator says --------------------------------------------------------------- */

static void take_hello(struct ha_judge_session *session, const struct ha_wire_message *message,
                       int64_t now_ms)
{
    const struct ha_wire_hello_reply *reply = &message->body.hello_reply;

    if (message->request_id != session->hello_request)
        return;
    if (!session->known)
        session_note(session, HA_LOG_INFO, "connected to coordinator %s as %s", reply->version,
                     reply->name);
    session->known = true;
    session->last_note[0] = '\0';
    if (reply->heartbeat_ms > 0)
        session->heartbeat_ms = reply->heartbeat_ms;
    session->next_beat_ms = now_ms;
    session->next_poll_ms = now_ms;
}

static void note_error(struct ha_judge_session *session, const char *text)
{
    char cut[sizeof session->last_note];

    snprintf(cut, sizeof cut, "%s", text);
    if (strcmp(cut, session->last_note) == 0)
        return;
    memcpy(session->last_note, cut, sizeof cut);
    session_note(session, HA_LOG_ERROR, "the coordinator refuses: %s", text);
}

static void take_error(struct ha_judge_session *session, const struct ha_wire_message *message,
                       int64_t now_ms)
{
    const struct ha_wire_error *error = &message->body.error;

    if (error->code == EPROTO) {
        if (session->known)
            forget_connection(session, now_ms);
        return;
    }
    note_error(session, error->text);
    if (message->request_id == session->hello_request && !session->known)
        session->next_beat_ms = now_ms + REFUSED_MS;
    for (int kind = 0; kind < ASKS; kind++) {
        struct ask *ask = &session->asks[kind];

        if (ask->request_id != message->request_id || ask->request_id == 0)
            continue;
        ask->request_id = 0;
        ask->not_before_ms = now_ms + ERROR_MS;
        ask_lost(session, (enum request_kind)kind);
    }
}

/* The request of this kind that a message answers is no longer open. */
static bool answers(struct ha_judge_session *session, enum request_kind kind,
                    const struct ha_wire_message *message)
{
    struct ask *ask = &session->asks[kind];

    if (message->request_id == 0 || ask->request_id != message->request_id)
        return false;
    ask->request_id = 0;
    return true;
}

void ha_judge_session_receive(struct ha_judge_session *session,
                              const struct ha_wire_message *message, int64_t now_ms)
{
    session->heard_ms = now_ms;
    switch (message->kind) {
    case HA_WIRE_HELLO_REPLY:
        take_hello(session, message, now_ms);
        break;
    case HA_WIRE_ERROR:
        take_error(session, message, now_ms);
        break;
    case HA_WIRE_ITEMS_GRANT:
        if (answers(session, ASK_ITEMS, message))
            items_take_grant(session, &message->body.items_grant, now_ms);
        break;
    case HA_WIRE_ITEMS_BEGIN_REPLY:
        if (answers(session, ASK_BEGIN, message))
            items_begun(session, &message->body.items_begin_reply, now_ms);
        break;
    case HA_WIRE_JUDGE_ACK:
        if (answers(session, ASK_REPLIES, message))
            delivery_acknowledged(session, ASK_REPLIES, &message->body.judge_ack, now_ms);
        else if (answers(session, ASK_OUTCOMES, message))
            delivery_acknowledged(session, ASK_OUTCOMES, &message->body.judge_ack, now_ms);
        break;
    default:
        break;
    }
    session_pump(session, now_ms);
}

void ha_judge_session_drain(struct ha_judge_session *session, int64_t now_ms)
{
    if (session->draining)
        return;
    session->draining = true;
    if (session->known)
        session->next_beat_ms = now_ms; /* the coordinator hears of it */
    session_pump(session, now_ms);
}

int64_t ha_judge_session_in_flight(const struct ha_judge_session *session)
{
    return session->n_sending;
}

bool ha_judge_session_is_empty(const struct ha_judge_session *session)
{
    return session->n_items == 0 && session->n_deliveries == 0;
}
