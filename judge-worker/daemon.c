#include "judge-worker/daemon.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/conf/daemon.h"
#include "common/conf/sweep.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/net/socket.h"
#include "common/proc/notify.h"
#include "judge-worker/client.h"
#include "judge-worker/key.h"
#include "judge-worker/profile.h"
#include "judge-worker/request.h"
#include "judge-worker/session.h"
#include "judge-worker/spool.h"
#include "judge-worker/url.h"

enum {
    DELIVERY_MS = 5000, /* after the last reply, for the coordinator to take it */
    ORPHAN_MS = 1000,   /* the same when whoever started us is gone */
    NAME_BYTES = 128,
    INSTANCE_BYTES = 33
};

struct daemon {
    const struct ha_judge_config *config;
    struct ha_loop *loop;
    struct ha_net *net;
    struct ha_client *coordinator;
    struct ha_judge_client *http;
    struct ha_judge_spool *spool;
    struct ha_judge_session *session;
    struct ha_loop_timer *timer;
    struct ha_loop_fd *watch;
    struct flight *flights; /* calls that are being made */
    struct ha_buffer frame;

    bool dirty;  /* replies came in this turn */
    bool orphan; /* whoever started us is gone */
    int64_t stop_ms,
        landed_ms; /* when it was asked to stop, when the last call ended; 0: not yet */
    int result;
    struct ha_error *err;

    char name[NAME_BYTES], host[NAME_BYTES], machine[NAME_BYTES], instance[INSTANCE_BYTES];
};

/* One call to an evaluator. */
struct flight {
    struct daemon *daemon;
    struct flight *next, **link;
    void *handle; /* the session's */
    char *host, *key;
};

/* The loop ends with this error. */
static void fail(struct daemon *d, int r)
{
    d->result = r;
    ha_loop_stop(d->loop);
}

/* ---- effects of the session --------------------------------------------------------------- */

static void effect_send(void *context, const struct ha_wire_message *message)
{
    struct ha_wire_message stamped = *message;
    struct daemon *d = context;
    struct ha_error err;

    ha_buffer_reset(&d->frame);
    if (message->kind == HA_WIRE_HEARTBEAT)
        stamped.body.heartbeat.wall_ms = ha_clock_wall_ms();
    if (ha_wire_encode(&stamped, &d->frame, &err) < 0) {
        ha_log_error("%s cannot be sent: %s", ha_wire_body_name(message->kind),
                     ha_error_text(&err));
        return;
    }
    (void)ha_client_send(d->coordinator, d->frame.data, d->frame.size); /* it is repeated */
}

static void effect_reconnect(void *context)
{
    struct daemon *d = context;
    struct ha_error err;

    if (ha_client_reopen(d->coordinator, &err) < 0)
        ha_log_error("%s: %s", d->config->coordinator, ha_error_text(&err));
}

static void flight_end(struct flight *flight)
{
    if (flight->link) {
        *flight->link = flight->next;
        if (flight->next)
            flight->next->link = flight->link;
    }
    ha_judge_key_destroy(flight->key);
    free(flight->host);
    free(flight);
}

/* Servers echo keys in their errors: none leaves this function. */
static void on_replied(void *context, struct ha_judge_response *response)
{
    struct flight *flight = context;
    struct daemon *d = flight->daemon;

    HA_CRASH_POINT("judge.after_reply");
    if (response->body)
        ha_judge_key_hide(flight->key, response->body, response->body_size);
    ha_judge_key_hide(flight->key, response->text, strlen(response->text));
    ha_judge_session_replied(d->session, flight->handle, response, flight->host,
                             ha_loop_now_ms(d->loop));
    flight_end(flight);
}

static int effect_call(void *context, void *handle, const struct ha_sweep_judge *judge,
                       const struct ha_judge_request *request, struct ha_error *err)
{
    struct daemon *d = context;
    struct flight *flight = calloc(1, sizeof *flight);
    struct ha_judge_call call = {.url = request->url,
                                 .body = request->body,
                                 .body_size = request->body_size,
                                 .timeout_ms = judge->timeout_s * 1000,
                                 .connect_timeout_ms = judge->connect_timeout_s * 1000,
                                 .ca_file = judge->ca_file,
                                 .proxy = judge->proxy};
    int r;

    HA_CRASH_POINT("judge.before_call");
    if (!flight)
        return ha_error_set(err, ENOMEM, "no memory for a call");
    flight->daemon = d;
    flight->handle = handle;
    r = ha_judge_url_host(request->url, &flight->host, err);
    if (r == 0)
        r = ha_judge_key_find(judge, d->config, &flight->key, err);
    if (r == 0) {
        call.key = flight->key;
        call.api_key_header = ha_judge_profile_find(judge->provider)->api_key_header;
        r = ha_judge_client_send(d->http, &call, on_replied, flight, err);
    }
    if (r < 0) {
        flight_end(flight);
        return r;
    }
    flight->next = d->flights;
    flight->link = &d->flights;
    if (flight->next)
        flight->next->link = &flight->next;
    d->flights = flight;
    return 0;
}

static int effect_keep(void *context, const struct ha_judge_record *record, struct ha_error *err)
{
    struct daemon *d = context;

    int r = ha_judge_spool_add(d->spool, record, err);

    HA_CRASH_POINT("judge.after_spool");
    d->dirty = true;
    return r;
}

static void effect_drop(void *context, uint64_t call)
{
    struct daemon *d = context;

    HA_CRASH_POINT("judge.before_drop");
    ha_judge_spool_drop(d->spool, call);
}

static double effect_random(void *context)
{
    uint64_t bits = 0;

    (void)context;
    if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) < 0)
        return 0.5;
    return (double)(bits >> 11) * 0x1p-53;
}

static void effect_note(void *context, enum ha_log_level level, const char *text)
{
    (void)context;
    ha_log(level, "%s", text);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void on_message(void *context, const void *data, size_t size)
{
    struct daemon *d = context;
    struct ha_wire_message *message;
    struct ha_error err;

    if (ha_wire_decode(data, size, &ha_wire_default_limits, &message, &err) < 0) {
        ha_log_warning("a message of the coordinator cannot be read: %s", ha_error_text(&err));
        return;
    }
    ha_judge_session_receive(d->session, message, ha_loop_now_ms(d->loop));
    ha_wire_message_destroy(message);
}

static void on_timer(void *context)
{
    struct daemon *d = context;

    ha_judge_session_tick(d->session, ha_loop_now_ms(d->loop));
}

static void ask_to_stop(struct daemon *d, const char *why)
{
    if (d->stop_ms != 0) {
        ha_loop_stop(d->loop);
        return;
    }
    d->stop_ms = ha_loop_now_ms(d->loop);
    ha_notify("STOPPING=1");
    ha_log_info("%s: %lld calls in flight are waited for", why,
                (long long)ha_judge_session_in_flight(d->session));
    ha_judge_session_drain(d->session, d->stop_ms);
}

static void on_signal(void *context, int signal)
{
    ask_to_stop(context, signal == SIGTERM ? "asked to stop (SIGTERM)" : "interrupted (SIGINT)");
}

static void on_watch(void *context, int fd, unsigned events)
{
    struct daemon *d = context;
    char byte;

    (void)events;
    if (read(fd, &byte, 1) > 0)
        return;
    ha_loop_fd_end(d->watch);
    d->watch = NULL;
    d->orphan = true;
    if (d->stop_ms == 0)
        ask_to_stop(d, "the program that started this one is gone");
}

/* When an end that was asked for comes, whatever is still open; INT64_MAX: not asked. */
static int64_t end_ms(struct daemon *d, int64_t now)
{
    int64_t grace = d->config->stop_grace_s * 1000;

    if (d->stop_ms == 0)
        return INT64_MAX;
    if (ha_judge_session_in_flight(d->session) > 0)
        return d->stop_ms + grace;
    if (d->landed_ms == 0)
        d->landed_ms = now;
    return d->landed_ms + (d->orphan ? ORPHAN_MS : DELIVERY_MS);
}

static void on_turn_end(void *context)
{
    struct daemon *d = context;
    int64_t now = ha_loop_now_ms(d->loop), end, next;
    int r;

    if (d->dirty) {
        d->dirty = false;
        r = ha_judge_spool_sync(d->spool, d->err);
        if (r < 0) {
            fail(d, r);
            return;
        }
        HA_CRASH_POINT("judge.after_sync");
        ha_judge_session_synced(d->session, now);
    }
    end = end_ms(d, now);
    if (end != INT64_MAX && (now >= end || ha_judge_session_is_empty(d->session))) {
        if (!ha_judge_session_is_empty(d->session))
            ha_log_warning("%lld calls end without reply, %lld replies stay in the spool",
                           (long long)ha_judge_session_in_flight(d->session),
                           (long long)ha_judge_spool_count(d->spool));
        ha_loop_stop(d->loop);
        return;
    }
    /* Calls that could not be made have ended in this turn: they are read at once. */
    next = d->dirty ? now : ha_judge_session_next_ms(d->session);
    ha_loop_timer_set(d->timer, next < end ? next : end);
}

/* ---- life
 * -------------------------------------------------------------------------------------------- */

static void read_machine(struct daemon *d)
{
    char *text = NULL;
    size_t size;

    snprintf(d->machine, sizeof d->machine, "%s", d->host);
    if (ha_file_read("/etc/machine-id", sizeof d->machine - 1, &text, &size, NULL) < 0)
        return;
    text[strcspn(text, "\r\n")] = '\0';
    if (text[0])
        snprintf(d->machine, sizeof d->machine, "%s", text);
    free(text);
}

static int introduce(struct daemon *d, struct ha_error *err)
{
    uint64_t bits[2];

    if (gethostname(d->host, sizeof d->host - 1) < 0)
        snprintf(d->host, sizeof d->host, "localhost");
    if (getrandom(bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        return ha_error_set(err, EIO, "no random numbers from the kernel");
    snprintf(d->instance, sizeof d->instance, "%016llx%016llx", (unsigned long long)bits[0],
             (unsigned long long)bits[1]);
    snprintf(d->name, sizeof d->name, "%s", d->config->name ? d->config->name : d->host);
    read_machine(d);
    return 0;
}

static int restore(void *context, const struct ha_judge_record *record, struct ha_error *err)
{
    struct daemon *d = context;

    d->dirty = true;
    return ha_judge_session_restore(d->session, record, err);
}

static int open_session(struct daemon *d, struct ha_error *err)
{
    static const struct ha_judge_effects effects = {.send = effect_send,
                                                    .reconnect = effect_reconnect,
                                                    .call = effect_call,
                                                    .keep = effect_keep,
                                                    .drop = effect_drop,
                                                    .random = effect_random,
                                                    .note = effect_note};
    const struct ha_judge_session_options options = {.name = d->name,
                                                     .instance = d->instance,
                                                     .machine = d->machine,
                                                     .version = HA_VERSION,
                                                     .host = d->host,
                                                     .pid = getpid(),
                                                     .concurrency = d->config->concurrency};
    char *note = NULL;
    int r;

    r = ha_judge_session_create(&options, &effects, d, ha_loop_now_ms(d->loop), &d->session, err);
    if (r == 0)
        r = ha_judge_spool_open(d->config->spool, restore, d, &d->spool, &note, err);
    if (note)
        ha_log_error("%s", note);
    free(note);
    if (r == 0 && ha_judge_spool_count(d->spool) > 0)
        ha_log_info("%lld replies of the spool are offered again",
                    (long long)ha_judge_spool_count(d->spool));
    return r;
}

static int connect_coordinator(struct daemon *d, struct ha_error *err)
{
    const struct ha_judge_config *c = d->config;
    const struct ha_socket_options options = {.insecure_loopback = c->insecure_loopback};
    bool secure = c->key_file && c->server_key_file;
    int r = ha_endpoint_check(c->coordinator, secure, c->insecure_loopback, err);

    if (r == 0)
        r = ha_net_create(&d->net, err);
    if (r == 0 && secure)
        r = ha_net_secure_client(d->net, c->key_file, c->server_key_file, err);
    if (r == 0)
        r = ha_client_create(d->net, d->loop, c->coordinator, &options, on_message, d,
                             &d->coordinator, err);
    return r;
}

static int start(struct daemon *d, int watch_fd, struct ha_error *err)
{
    int r = introduce(d, err);

    if (r == 0)
        r = ha_loop_create(&d->loop, err);
    if (r == 0)
        r = ha_loop_on_signal(d->loop, SIGTERM, on_signal, d, err);
    if (r == 0)
        r = ha_loop_on_signal(d->loop, SIGINT, on_signal, d, err);
    if (r == 0)
        r = ha_loop_timer_create(d->loop, on_timer, d, &d->timer, err);
    if (r == 0)
        r = open_session(d, err);
    if (r == 0)
        r = ha_judge_client_create(d->loop, (size_t)d->config->max_reply_bytes, &d->http, err);
    if (r == 0)
        r = connect_coordinator(d, err);
    if (r == 0 && watch_fd >= 0)
        r = ha_loop_watch_fd(d->loop, watch_fd, HA_LOOP_READ, on_watch, d, &d->watch, err);
    return r;
}

static void end(struct daemon *d)
{
    ha_loop_fd_end(d->watch);
    ha_judge_client_destroy(d->http);
    while (d->flights)
        flight_end(d->flights);
    ha_judge_session_destroy(d->session);
    ha_judge_spool_close(d->spool);
    ha_client_destroy(d->coordinator);
    ha_net_destroy(d->net);
    ha_loop_timer_destroy(d->timer);
    ha_loop_destroy(d->loop);
    ha_buffer_clear(&d->frame);
}

int ha_judge_daemon_run(const struct ha_judge_config *config, int watch_fd, struct ha_error *err)
{
    struct daemon d = {.config = config, .err = err};
    int r;

    ha_buffer_init(&d.frame, 0);
    r = start(&d, watch_fd, err);
    if (r == 0) {
        ha_notify("READY=1");
        ha_log_info("judge worker %s " HA_VERSION ", coordinator %s", d.name, config->coordinator);
        ha_loop_on_turn_end(d.loop, on_turn_end, &d);
        ha_judge_session_tick(d.session, ha_loop_now_ms(d.loop));
        ha_loop_timer_set_after(d.timer, 0);
        r = ha_loop_run(d.loop, err);
    }
    if (r == 0)
        r = d.result;
    end(&d);
    return r;
}
