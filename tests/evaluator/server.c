#include "tests/evaluator/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/net/loop.h"
#include "tests/evaluator/misbehave.h"
#include "tests/evaluator/question.h"

enum { REQUEST_BYTES = 8 << 20, CONNECTIONS = 4096, SLOW_MS = 5000, SHORT_BYTES = 64 };

struct exchange {
    struct ha_evaluator_server *server;
    struct MHD_Connection *connection;
    struct exchange *next, **link; /* among the suspended ones */
    struct ha_loop_timer *timer;
    struct ha_buffer request;
    struct ha_evaluator_reply reply;
    bool answered; /* reply is made */
    bool waited;
};

struct ha_evaluator_server {
    struct ha_loop *loop;
    struct ha_evaluator_options options;
    struct MHD_Daemon *daemon;
    struct ha_loop_fd *watch;
    struct ha_loop_timer *timer;
    struct exchange *suspended;
    int64_t requests;
    int port;
    bool ending;
};

/* ---- libmicrohttpd in our loop ------------------------------------------------------- */

static void run(struct ha_evaluator_server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout;

    MHD_run(server->daemon);
    if (MHD_get_timeout(server->daemon, &timeout) == MHD_YES)
        ha_loop_timer_set_after(server->timer, (int64_t)timeout);
    else
        ha_loop_timer_unset(server->timer);
}

static void on_fd(void *context, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    run(context);
}

static void on_timer(void *context)
{
    run(context);
}

/* ---- waiting --------------------------------------------------------------------------- */

static void resume(struct exchange *x)
{
    *x->link = x->next;
    if (x->next)
        x->next->link = x->link;
    x->link = NULL;
    x->waited = true;
    MHD_resume_connection(x->connection);
}

static void on_waited(void *context)
{
    struct exchange *x = context;
    struct ha_evaluator_server *server = x->server;

    resume(x);
    run(server);
}

/* Let the connection rest for this long; -1: for ever. */
static int suspend(struct exchange *x, int64_t ms)
{
    struct ha_evaluator_server *server = x->server;

    if (ms >= 0) {
        int r = ha_loop_timer_create(server->loop, on_waited, x, &x->timer, NULL);

        if (r < 0)
            return r;
        ha_loop_timer_set_after(x->timer, ms);
    }
    x->next = server->suspended;
    x->link = &server->suspended;
    if (x->next)
        x->next->link = &x->next;
    server->suspended = x;
    MHD_suspend_connection(x->connection);
    return 0;
}

/* ---- one request -------------------------------------------------------------------------- */

static const struct ha_evaluator_way *choose_way(const struct ha_evaluator_server *server)
{
    for (int i = 0; i < server->options.n_rules; i++) {
        if (server->requests % server->options.rules[i].every == 0)
            return server->options.rules[i].way;
    }
    return NULL;
}

static void record(const struct exchange *x, const struct ha_evaluator_way *way)
{
    const struct ha_evaluator_server *server = x->server;
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];

    if (!server->options.record)
        return;
    ha_sha256(x->request.data, x->request.size, digest);
    fprintf(server->options.record, "%lld %s %s\n", (long long)server->requests,
            ha_sha256_hex(digest, hex), way ? ha_evaluator_way_name(way) : "ok");
    fflush(server->options.record);
}

static int refuse(struct exchange *x, int status, const char *why)
{
    x->reply = (struct ha_evaluator_reply){.status = status, .content_type = "application/json"};
    ha_buffer_init(&x->reply.body, 0);
    return ha_buffer_printf(&x->reply.body,
                            "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\","
                            "\"code\":null}}",
                            why);
}

/* The whole request is here: make its reply. */
static int answer(struct exchange *x)
{
    struct ha_evaluator_score scores[HA_DIMENSIONS];
    const struct ha_evaluator_way *way;
    struct ha_evaluator_question question;
    struct ha_error err;
    int r;

    x->server->requests++;
    way = choose_way(x->server);
    record(x, way);
    r = ha_evaluator_question_read(ha_buffer_text(&x->request), x->request.size, &question, &err);
    if (r == -ENOMEM)
        return r;
    if (r < 0)
        return refuse(x, 400, "the request is not a judge's question");
    r = ha_evaluator_scores(question.prompt, question.answer, scores);
    if (r == 0)
        r = ha_evaluator_reply_make(way, scores, question.tokens, &x->reply);
    ha_evaluator_question_clear(&question);
    return r;
}

static ssize_t send_body(void *context, uint64_t position, char *out, size_t max)
{
    struct exchange *x = context;
    const struct ha_buffer *body = &x->reply.body;
    size_t n;

    if (position < body->size) {
        n = body->size - (size_t)position < max ? body->size - (size_t)position : max;
        memcpy(out, body->data + position, n);
        return (ssize_t)n;
    }
    if (x->reply.wire == HA_EVALUATOR_SHORT)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    memset(out, ' ', max);
    return (ssize_t)max;
}

/* Closing with a linger time of zero sends a reset. */
static void arm_reset(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    const struct linger linger = {.l_onoff = 1};

    if (info)
        setsockopt(info->connect_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static enum MHD_Result reply_now(struct exchange *x)
{
    const struct ha_buffer *body = &x->reply.body;
    struct MHD_Response *response;
    enum MHD_Result result;

    if (x->reply.wire == HA_EVALUATOR_RESET) {
        arm_reset(x->connection);
        return MHD_NO;
    }
    if (x->reply.spaces > 0 || x->reply.wire == HA_EVALUATOR_SHORT)
        response = MHD_create_response_from_callback(
            body->size + (uint64_t)(x->reply.spaces > 0 ? (size_t)x->reply.spaces : SHORT_BYTES),
            65536, send_body, x, NULL);
    else
        response = MHD_create_response_from_buffer(body->size, body->data, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", x->reply.content_type);
    if (x->reply.retry_after[0])
        MHD_add_response_header(response, "Retry-After", x->reply.retry_after);
    result = MHD_queue_response(x->connection, (unsigned)x->reply.status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result begin(struct ha_evaluator_server *server, struct MHD_Connection *connection,
                             void **context)
{
    struct exchange *x = calloc(1, sizeof *x);

    if (!x)
        return MHD_NO;
    x->server = server;
    x->connection = connection;
    ha_buffer_init(&x->request, REQUEST_BYTES);
    *context = x;
    return MHD_YES;
}

static int make_reply(struct exchange *x, const char *method, const char *url)
{
    size_t length = strlen(url), path = strlen("/chat/completions");

    if (length < path || strcmp(url + length - path, "/chat/completions") != 0)
        return refuse(x, 404, "this server knows /v1/chat/completions only");
    if (strcmp(method, "POST") != 0)
        return refuse(x, 405, "POST it");
    return answer(x);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **request)
{
    struct ha_evaluator_server *server = context;
    struct exchange *x = *request;
    int64_t wait;

    (void)version;
    if (!x)
        return begin(server, connection, request);
    if (*size > 0) {
        if (ha_buffer_append(&x->request, data, *size) < 0)
            return MHD_NO;
        *size = 0;
        return MHD_YES;
    }
    if (!x->answered) {
        x->answered = true;
        if (make_reply(x, method, url) < 0)
            return MHD_NO;
    }
    wait = server->options.latency_ms + (x->reply.wire == HA_EVALUATOR_SLOW ? SLOW_MS : 0);
    if (x->reply.wire == HA_EVALUATOR_HANG)
        wait = -1;
    if (wait != 0 && !x->waited && !server->ending)
        return suspend(x, wait) < 0 ? MHD_NO : MHD_YES;
    return reply_now(x);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code)
{
    struct exchange *x = *request;

    (void)context;
    (void)connection;
    (void)code;
    if (!x)
        return;
    ha_loop_timer_destroy(x->timer);
    ha_buffer_clear(&x->request);
    ha_buffer_clear(&x->reply.body);
    free(x);
    *request = NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static int start(struct ha_evaluator_server *server, struct ha_error *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)server->options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const union MHD_DaemonInfo *info;

    errno = 0;
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, (uint16_t)server->options.port, NULL, NULL,
        on_request, server, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)131072,
        MHD_OPTION_LISTEN_BACKLOG_SIZE, (unsigned)CONNECTIONS, MHD_OPTION_END);
    if (!server->daemon)
        return ha_error_set(err, errno ? errno : EADDRINUSE,
                            "127.0.0.1:%d cannot be listened at: %s", server->options.port,
                            strerror(errno ? errno : EADDRINUSE));
    info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT);
    server->port = info ? info->port : server->options.port;
    info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return ha_error_set(err, ENOTSUP, "libmicrohttpd was built without epoll");
    return ha_loop_watch_fd(server->loop, info->epoll_fd, HA_LOOP_READ, on_fd, server,
                            &server->watch, err);
}

int ha_evaluator_server_create(struct ha_loop *loop, const struct ha_evaluator_options *options,
                               struct ha_evaluator_server **ret_server, struct ha_error *err)
{
    struct ha_evaluator_server *server = calloc(1, sizeof *server);
    int r;

    if (!server)
        return ha_error_set(err, ENOMEM, "out of memory");
    server->loop = loop;
    server->options = *options;
    r = ha_loop_timer_create(loop, on_timer, server, &server->timer, err);
    if (r == 0)
        r = start(server, err);
    if (r < 0) {
        ha_evaluator_server_destroy(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

void ha_evaluator_server_destroy(struct ha_evaluator_server *server)
{
    if (!server)
        return;
    server->ending = true;
    ha_loop_fd_end(server->watch);
    while (server->suspended)
        resume(server->suspended);
    if (server->daemon) {
        MHD_run(server->daemon);
        MHD_stop_daemon(server->daemon);
    }
    ha_loop_timer_destroy(server->timer);
    free(server);
}

int ha_evaluator_server_port(const struct ha_evaluator_server *server)
{
    return server->port;
}
