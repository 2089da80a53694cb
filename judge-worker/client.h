/* client.h - HTTP calls to evaluators (libcurl behind the project's loop)
 *
 * One thread, one multi handle; sockets and timers are the loop's.  The caller
 * bounds how many calls are in flight; nothing queues in here.
 *
 * A body is sent at most once per call.  libcurl by itself sends a POST again
 * when a reused connection dies before a reply; here the body comes from a
 * callback that cannot go back, so that this becomes a call of unknown outcome,
 * which the caller decides about.  Redirects are not followed, certificates are
 * always checked, replies are cut off at a limit while they arrive. */
#ifndef HA_JUDGE_WORKER_CLIENT_H
#define HA_JUDGE_WORKER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "judge-worker/classify.h"

struct ha_error;
struct ha_judge_client;
struct ha_loop;

/* Texts are borrowed until the call's function has run. */
struct ha_judge_call {
    const char *url;
    const char *body;
    size_t body_size;
    const char *key;     /* NULL: none is sent */
    bool api_key_header; /* "api-key: K" instead of "Authorization: Bearer K" */
    int64_t timeout_ms, connect_timeout_ms;
    const char *ca_file; /* NULL: SSL_CERT_FILE, CURL_CA_BUNDLE, or the system's */
    const char *proxy;   /* NULL: the environment's; none for loopback hosts */
};

struct ha_judge_response {
    enum ha_judge_transport transport;
    char text[300];         /* why a transport did not end well; "" otherwise */
    int http_status;        /* 0: none came */
    char *body;             /* may be changed by the function; gone after it */
    size_t body_size;       /* also of a reply that was cut off */
    int64_t retry_after_ms; /* -1: not said */
    int64_t latency_ms;
};

typedef void (*ha_judge_call_fn)(void *context, struct ha_judge_response *response);

/* max_reply_bytes: of a body.  -ENOTSUP when this libcurl resolves names without threads (it would
 * block the loop) or cannot do TLS. */
int ha_judge_client_create(struct ha_loop *loop, size_t max_reply_bytes,
                           struct ha_judge_client **ret_client, struct ha_error *err);

/* Calls in flight are broken off; their functions do not run. */
void ha_judge_client_destroy(struct ha_judge_client *client);

/* Begin a call.  fn runs once, in a later turn of the loop. */
int ha_judge_client_send(struct ha_judge_client *client, const struct ha_judge_call *call,
                         ha_judge_call_fn fn, void *context, struct ha_error *err);

int64_t ha_judge_client_in_flight(const struct ha_judge_client *client);

#endif
