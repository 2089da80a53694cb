#include "judge-worker/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "judge-worker/retry_after.h"
#include "judge-worker/url.h"

enum {
    HEADER_BYTES = 65536,   /* of a reply, all together */
    IDLE_CONNECTION_S = 30, /* below the idle limit of every balancer we know */
    CONNECTION_AGE_S = 600  /* then the name is resolved and the certificate checked anew */
};

struct transfer {
    struct ha_judge_client *client;
    struct transfer *next, **link; /* in client->transfers */
    CURL *easy;
    struct curl_slist *headers;
    const char *body;
    size_t body_size, body_sent;
    struct ha_buffer reply;
    size_t header_bytes;
    bool too_long;
    int64_t retry_after_ms;
    bool exact_retry_after; /* from retry-after-ms */
    char error[CURL_ERROR_SIZE];
    ha_judge_call_fn fn;
    void *context;
};

/* A socket of libcurl and its watch. */
struct watched {
    struct ha_judge_client *client;
    struct ha_loop_fd *watch;
};

struct ha_judge_client {
    struct ha_loop *loop;
    CURLM *multi;
    struct ha_loop_timer *timer;
    struct transfer *transfers;
    int64_t in_flight;
    size_t max_reply_bytes;
};

/* ---- callbacks of one transfer ---------------------------------------------------- */

static size_t on_read(char *out, size_t size, size_t count, void *context)
{
    struct transfer *t = context;
    size_t n = size * count;

    if (n > t->body_size - t->body_sent)
        n = t->body_size - t->body_sent;
    memcpy(out, t->body + t->body_sent, n);
    t->body_sent += n;
    return n;
}

/* A body is sent once: no way back. */
static int on_seek(void *context, curl_off_t offset, int origin)
{
    (void)context;
    (void)offset;
    (void)origin;
    return CURL_SEEKFUNC_FAIL;
}

static size_t on_write(char *bytes, size_t size, size_t count, void *context)
{
    struct transfer *t = context;
    size_t n = size * count, room = t->client->max_reply_bytes - t->reply.size;

    if (ha_buffer_append(&t->reply, bytes, n < room ? n : room) < 0)
        return 0;
    t->too_long = n > room;
    return t->too_long ? 0 : n;
}

/* The value of a header line with this name, or NULL. */
static const char *header_value(const char *line, size_t size, const char *name)
{
    size_t length = strlen(name);

    return size > length && line[length] == ':' && strncasecmp(line, name, length) == 0
               ? line + length + 1
               : NULL;
}

static size_t on_header(char *line, size_t size, size_t count, void *context)
{
    struct transfer *t = context;
    size_t n = size * count;
    char copy[128];
    const char *value;
    int64_t wait;

    t->header_bytes += n;
    if (t->header_bytes > HEADER_BYTES) {
        t->too_long = true;
        return 0;
    }
    if (n >= sizeof copy)
        return n;
    memcpy(copy, line, n);
    copy[n] = '\0';
    if ((value = header_value(copy, n, "retry-after-ms")) != NULL) {
        char text[140];

        snprintf(text, sizeof text, "%.*sms", (int)strcspn(value, "\r\n"), value);
        wait = ha_judge_retry_after(text, ha_clock_wall_ms());
        if (wait >= 0) {
            t->retry_after_ms = wait;
            t->exact_retry_after = true;
        }
    } else if (!t->exact_retry_after && (value = header_value(copy, n, "retry-after")) != NULL) {
        t->retry_after_ms = ha_judge_retry_after(value, ha_clock_wall_ms());
    }
    return n;
}

/* ---- the end of a transfer ----------------------------------------------------------- */

static enum ha_judge_transport transport_of(CURLcode code, const struct transfer *t)
{
    switch (code) {
    case CURLE_OK:
        return HA_JUDGE_TRANSPORT_DONE;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_NOTFOUND:
        return HA_JUDGE_TRANSPORT_CONFIG;
    default:
        if (t->too_long)
            return HA_JUDGE_TRANSPORT_TOO_LONG;
        return t->body_sent > 0 ? HA_JUDGE_TRANSPORT_UNKNOWN : HA_JUDGE_TRANSPORT_NOT_SENT;
    }
}

static void transfer_destroy(struct transfer *t)
{
    if (!t)
        return;
    if (t->link) {
        *t->link = t->next;
        if (t->next)
            t->next->link = t->link;
        t->client->in_flight--;
        curl_multi_remove_handle(t->client->multi, t->easy);
    }
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    ha_buffer_clear(&t->reply);
    free(t);
}

static void finish(struct transfer *t, CURLcode code)
{
    struct ha_judge_response response = {.transport = transport_of(code, t),
                                         .body = t->reply.data,
                                         .body_size = t->reply.size,
                                         .retry_after_ms = t->retry_after_ms};
    curl_off_t total_us = 0;
    long status = 0;

    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    response.http_status = (int)status;
    response.latency_ms = total_us / 1000;
    if (response.transport == HA_JUDGE_TRANSPORT_TOO_LONG)
        snprintf(response.text, sizeof response.text, "over %zu bytes", t->client->max_reply_bytes);
    else if (code == CURLE_SEND_FAIL_REWIND)
        snprintf(response.text, sizeof response.text,
                 "the connection ended after the request went out");
    else if (code != CURLE_OK)
        snprintf(response.text, sizeof response.text, "%.250s",
                 t->error[0] ? t->error : curl_easy_strerror(code));
    for (char *at = response.text; *at; at++) {
        if (*at < ' ' || *at > '~')
            *at = '?';
    }
    t->fn(t->context, &response);
    transfer_destroy(t);
}

/* Every transfer that has ended.  Their functions may begin new ones. */
static void reap(struct ha_judge_client *client)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        char *transfer = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        finish((struct transfer *)(void *)transfer, message->data.result);
    }
}

/* ---- libcurl's sockets and timer in our loop -------------------------------------------- */

static void act(struct ha_judge_client *client, curl_socket_t fd, int mask)
{
    int running;

    curl_multi_socket_action(client->multi, fd, mask, &running);
    reap(client);
}

static void on_fd(void *context, int fd, unsigned events)
{
    struct watched *watched = context;
    int mask = (events & HA_LOOP_READ ? CURL_CSELECT_IN : 0) |
               (events & HA_LOOP_WRITE ? CURL_CSELECT_OUT : 0);

    act(watched->client, fd, mask);
}

static void on_timer(void *context)
{
    act(context, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *context)
{
    struct ha_judge_client *client = context;

    (void)multi;
    if (timeout_ms < 0)
        ha_loop_timer_unset(client->timer);
    else
        ha_loop_timer_set_after(client->timer, timeout_ms);
    return 0;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *assigned)
{
    struct ha_judge_client *client = context;
    struct watched *watched = assigned;
    unsigned interest =
        (what & CURL_POLL_IN ? HA_LOOP_READ : 0U) | (what & CURL_POLL_OUT ? HA_LOOP_WRITE : 0U);

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watched)
            ha_loop_fd_end(watched->watch);
        free(watched);
        curl_multi_assign(client->multi, fd, NULL);
        return 0;
    }
    if (watched)
        return ha_loop_fd_set_interest(watched->watch, interest, NULL) < 0 ? -1 : 0;
    watched = calloc(1, sizeof *watched);
    if (!watched)
        return -1;
    watched->client = client;
    if (ha_loop_watch_fd(client->loop, fd, interest, on_fd, watched, &watched->watch, NULL) < 0) {
        free(watched);
        return -1;
    }
    curl_multi_assign(client->multi, fd, watched);
    return 0;
}

/* ---- life ---------------------------------------------------------------------------------- */

static int check_curl(struct ha_error *err)
{
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

    if (!(info->features & CURL_VERSION_ASYNCHDNS))
        return ha_error_set(err, ENOTSUP,
                            "libcurl %s resolves names without threads; it cannot be used here",
                            info->version);
    if (!(info->features & CURL_VERSION_SSL))
        return ha_error_set(err, ENOTSUP, "libcurl %s was built without TLS", info->version);
    return 0;
}

int ha_judge_client_create(struct ha_loop *loop, size_t max_reply_bytes,
                           struct ha_judge_client **ret_client, struct ha_error *err)
{
    struct ha_judge_client *client;
    int r;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return ha_error_set(err, ENOTSUP, "libcurl cannot be initialised");
    r = check_curl(err);
    if (r < 0)
        return r;
    client = calloc(1, sizeof *client);
    if (!client)
        return ha_error_set(err, ENOMEM, "no memory for the evaluator's client");
    client->loop = loop;
    client->max_reply_bytes = max_reply_bytes;
    client->multi = curl_multi_init();
    if (!client->multi) {
        ha_judge_client_destroy(client);
        return ha_error_set(err, ENOMEM, "no memory for libcurl");
    }
    r = ha_loop_timer_create(loop, on_timer, client, &client->timer, err);
    if (r < 0) {
        ha_judge_client_destroy(client);
        return r;
    }
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    *ret_client = client;
    return 0;
}

void ha_judge_client_destroy(struct ha_judge_client *client)
{
    if (!client)
        return;
    while (client->transfers)
        transfer_destroy(client->transfers);
    if (client->multi)
        curl_multi_cleanup(client->multi);
    ha_loop_timer_destroy(client->timer);
    free(client);
}

int64_t ha_judge_client_in_flight(const struct ha_judge_client *client)
{
    return client->in_flight;
}

/* ---- beginning a transfer -------------------------------------------------------------------- */

static int add_header(struct transfer *t, const char *text)
{
    struct curl_slist *list = curl_slist_append(t->headers, text);

    if (!list)
        return -ENOMEM;
    t->headers = list;
    return 0;
}

static int add_headers(struct transfer *t, const struct ha_judge_call *call)
{
    char *key = NULL;
    int r = add_header(t, "Content-Type: application/json");

    if (r == 0)
        r = add_header(t, "Accept: application/json");
    if (r == 0)
        r = add_header(t, "Expect:");
    if (r == 0 && call->key) {
        key = ha_format("%s%s", call->api_key_header ? "api-key: " : "Authorization: Bearer ",
                        call->key);
        r = key ? add_header(t, key) : -ENOMEM;
        if (key)
            explicit_bzero(key, strlen(key));
        free(key);
    }
    return r;
}

static const char *ca_file(const struct ha_judge_call *call)
{
    const char *file = call->ca_file ? call->ca_file : getenv("SSL_CERT_FILE");

    return file && *file ? file : getenv("CURL_CA_BUNDLE");
}

static void set_connection(CURL *easy, const struct ha_judge_call *call)
{
    const char *ca = ca_file(call);
    char *host = NULL;

    curl_easy_setopt(easy, CURLOPT_URL, call->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR,
                     strncmp(call->url, "https://", 8) == 0 ? "https" : "http");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)IDLE_CONNECTION_S);
    curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, (long)CONNECTION_AGE_S);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)call->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (ca)
        curl_easy_setopt(easy, CURLOPT_CAINFO, ca);
    if (call->proxy)
        curl_easy_setopt(easy, CURLOPT_PROXY, call->proxy);
    else if (ha_judge_url_host(call->url, &host, NULL) == 0 && ha_judge_host_is_loopback(host))
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    free(host);
}

static void set_transfer(struct transfer *t)
{
    CURL *easy = t->easy;

    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body_size);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(easy, CURLOPT_READDATA, t);
    curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(easy, CURLOPT_SEEKDATA, t);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
}

int ha_judge_client_send(struct ha_judge_client *client, const struct ha_judge_call *call,
                         ha_judge_call_fn fn, void *context, struct ha_error *err)
{
    struct transfer *t = calloc(1, sizeof *t);
    int r = t ? 0 : -ENOMEM;

    if (t) {
        t->client = client;
        t->body = call->body;
        t->body_size = call->body_size;
        t->retry_after_ms = -1;
        t->fn = fn;
        t->context = context;
        ha_buffer_init(&t->reply, 0);
        t->easy = curl_easy_init();
        r = t->easy ? add_headers(t, call) : -ENOMEM;
    }
    if (r == 0) {
        set_connection(t->easy, call);
        set_transfer(t);
        r = curl_multi_add_handle(client->multi, t->easy) == CURLM_OK ? 0 : -ENOMEM;
    }
    if (r < 0) {
        transfer_destroy(t);
        return ha_error_set(err, -r, "no memory for a call to the evaluator");
    }
    t->next = client->transfers;
    t->link = &client->transfers;
    if (t->next)
        t->next->link = &t->next;
    client->transfers = t;
    client->in_flight++;
    return 0;
}
