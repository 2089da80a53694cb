/* ROUTER gives each connection an id of a zero byte and four more; a peer that
 * chose its own id (which cannot begin with a zero) is not one of ours. */
#include "common/net/socket.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "common/net/loop_source.h"
#include "common/net/net_inside.h"
#include "common/net/peers.h"

enum {
    ID_BYTES = 5,
    DEFAULT_MESSAGES_PER_TURN = 256,
    DEFAULT_QUEUE_MESSAGES = 1000,
    DEFAULT_QUEUE_BYTES = 64 << 20,
    RETRY_MS = 20,       /* full peers are tried again this often */
    FORGET_MS = 3600000, /* a connection that said nothing for so long is not remembered */
    FORGET_EVERY_MS = 60000,
    FULL_EVERY_MS = 1000,
    FORGET_FULL_MS = 60000 /* the same when there is no place for another */
};

struct ha_server {
    struct ha_net *net;
    struct ha_socket_options options;
    struct ha_server_handlers handlers;
    void *socket;
    struct ha_loop *loop;
    struct ha_loop_source *source;
    struct ha_loop_timer *retry, *forget;
    char endpoint[256];
    bool has_keys;
    bool busy, dead; /* destroyed by its own callback: freed when that returns */
    atomic_int_least64_t n_refused;
    struct peer_table peers;
    int64_t full_ms; /* when there was no place for another, and silent ones were looked for */
};

static ha_peer peer_of(const uint8_t id[ID_BYTES])
{
    uint32_t number;

    memcpy(&number, id + 1, sizeof(number));
    return (ha_peer)1 << 32 | number;
}

static void id_of(ha_peer peer, uint8_t id[ID_BYTES])
{
    uint32_t number = (uint32_t)peer;

    id[0] = 0;
    memcpy(id + 1, &number, sizeof(number));
}

/* ---- receiving -------------------------------------------------------------------------- */

static bool server_ready(void *context)
{
    struct ha_server *server = context;
    int events = 0;
    size_t size = sizeof(events);

    return zmq_getsockopt(server->socket, ZMQ_EVENTS, &events, &size) == 0 &&
           (events & ZMQ_POLLIN) != 0;
}

/* Who sent this message?  False when it may not be taken. */
static bool identify(struct ha_server *server, zmq_msg_t *message, struct peer *peer,
                     char name[HA_NET_NAME_BYTES], enum ha_net_role *ret_role)
{
    const char *key;

    if (!server->has_keys) {
        memcpy(name, "local", sizeof("local"));
        *ret_role = HA_NET_ROLE_ADMIN;
        return true;
    }
    key = zmq_msg_gets(message, "User-Id");
    if (!key || strlen(key) >= sizeof(peer->key))
        return false;
    (void)snprintf(peer->key, sizeof(peer->key), "%s", key);
    *ret_role = ha_net_role_of(server->net, key, name);
    return *ret_role != HA_NET_ROLE_NONE;
}

/* NULL: there are as many peers as may be. */
static struct peer *find_or_add(struct ha_server *server, ha_peer id)
{
    struct peer *peer = peer_find(&server->peers, id);
    int64_t most = server->options.max_peers, now = ha_loop_now_ms(server->loop);

    if (peer)
        return peer;
    /* Looking through all of them costs more than the message of a stranger may. */
    if (most > 0 && server->peers.n_peers >= most && now - server->full_ms >= FULL_EVERY_MS) {
        server->full_ms = now;
        peer_forget_silent(&server->peers, now - FORGET_FULL_MS);
    }
    return most > 0 && server->peers.n_peers >= most ? NULL : peer_add(&server->peers, id);
}

static bool is_too_fast(const struct ha_server *server, struct peer *peer)
{
    int64_t now = ha_loop_now_ms(server->loop);

    if (peer->in_second == 0 || now - peer->second_ms >= 1000) {
        peer->second_ms = now;
        peer->in_second = 0;
    }
    return ++peer->in_second > server->options.max_per_second && server->options.max_per_second > 0;
}

static void take(struct ha_server *server, const uint8_t *id, size_t id_size, zmq_msg_t *message)
{
    char name[HA_NET_NAME_BYTES];
    enum ha_net_role role;
    struct peer *peer;

    if (id_size != ID_BYTES || id[0] != 0) {
        server->n_refused++;
        return;
    }
    peer = find_or_add(server, peer_of(id));
    if (!peer || is_too_fast(server, peer)) {
        server->n_refused++;
        return;
    }
    peer->heard_ms = ha_loop_now_ms(server->loop);
    if (!identify(server, message, peer, name, &role)) {
        server->n_refused++;
        return;
    }
    server->handlers.message(server->handlers.context,
                             &(struct ha_server_message){.peer = peer->id,
                                                         .name = name,
                                                         .role = role,
                                                         .data = zmq_msg_data(message),
                                                         .size = zmq_msg_size(message)});
}

/* Read one message and hand it on.  False when there is none. */
static bool read_one(struct ha_server *server)
{
    zmq_msg_t id, message;
    int n = 0;

    zmq_msg_init(&id);
    zmq_msg_init(&message);
    if (zmq_msg_recv(&id, server->socket, ZMQ_DONTWAIT) >= 0) {
        zmq_msg_t *last = &id;

        for (n = 1; zmq_msg_more(last); n++) {
            last = &message;
            if (zmq_msg_recv(&message, server->socket, ZMQ_DONTWAIT) < 0)
                break;
        }
        if (n == 2)
            take(server, zmq_msg_data(&id), zmq_msg_size(&id), &message);
    }
    zmq_msg_close(&message);
    zmq_msg_close(&id);
    return n > 0;
}

static void free_server(struct ha_server *server)
{
    peer_table_clear(&server->peers);
    free(server);
}

/* The end of a stretch that calls back. */
static void leave(struct ha_server *server)
{
    server->busy = false;
    if (server->dead)
        free_server(server);
}

static bool server_drain(void *context)
{
    struct ha_server *server = context;
    int64_t turn_ns = server->options.turn_us * 1000;
    int64_t begin_ns = turn_ns > 0 ? ha_clock_work_ns() : 0;
    bool more = true, late = false;

    server->busy = true;
    for (int i = 0; i < server->options.messages_per_turn && more && !late; i++) {
        more = read_one(server) && !server->dead;
        late = turn_ns > 0 && ha_clock_work_ns() - begin_ns >= turn_ns;
    }
    leave(server);
    return more;
}

static const struct ha_loop_source_ops server_ops = {.ready = server_ready, .drain = server_drain};

/* ---- sending ------------------------------------------------------------------------------ */

/* Returns 0, -EAGAIN or -EHOSTUNREACH. */
static int send_now(struct ha_server *server, ha_peer peer, const void *data, size_t size)
{
    uint8_t id[ID_BYTES];
    int r;

    id_of(peer, id);
    do
        r = zmq_send(server->socket, id, ID_BYTES, ZMQ_SNDMORE | ZMQ_DONTWAIT);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return errno == EAGAIN ? -EAGAIN : -EHOSTUNREACH;
    do
        r = zmq_send(server->socket, data, size, ZMQ_DONTWAIT);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -EHOSTUNREACH : 0;
}

/* May anything be sent to this peer? */
static bool still_allowed(struct ha_server *server, const struct peer *peer)
{
    char name[HA_NET_NAME_BYTES];

    return !server->has_keys || ha_net_role_of(server->net, peer->key, name) != HA_NET_ROLE_NONE;
}

int ha_server_send(struct ha_server *server, ha_peer id, const void *data, size_t size)
{
    struct peer *peer = peer_find(&server->peers, id);
    int r = -EAGAIN;

    if (!peer)
        return -EHOSTUNREACH;
    if (!still_allowed(server, peer))
        return -EACCES;
    if (!peer->first)
        r = send_now(server, id, data, size);
    if (r == -EHOSTUNREACH)
        peer_remove(&server->peers, peer);
    if (r != -EAGAIN)
        return r;
    if (peer->n_messages >= server->options.queue_messages ||
        peer->queued_bytes + size > (size_t)server->options.queue_bytes)
        return -ENOBUFS;
    r = peer_queue(&server->peers, peer, data, size);
    if (r == 0 && !ha_loop_timer_is_set(server->retry))
        ha_loop_timer_set_after(server->retry, RETRY_MS);
    return r;
}

/* Send what waits for a peer.  False when the peer is gone. */
static bool flush(struct ha_server *server, struct peer *peer)
{
    int r = 0;

    while (peer->first && r == 0) {
        r = still_allowed(server, peer)
                ? send_now(server, peer->id, peer->first->data, peer->first->size)
                : -EHOSTUNREACH;
        if (r == 0)
            peer_unqueue(&server->peers, peer);
    }
    return r != -EHOSTUNREACH;
}

static void retry_late_peers(void *context)
{
    struct ha_server *server = context;
    struct peer *peer = server->peers.late;

    while (peer) {
        struct peer *next = peer->next_late;

        if (!flush(server, peer)) {
            ha_peer id = peer->id;

            peer_remove(&server->peers, peer);
            server->busy = true;
            if (server->handlers.gone)
                server->handlers.gone(server->handlers.context, id);
            if (server->dead) {
                leave(server);
                return;
            }
            server->busy = false;
            break; /* the callback may have changed the list: the rest later */
        }
        peer = next;
    }
    if (server->peers.late)
        ha_loop_timer_set_after(server->retry, RETRY_MS);
}

static void forget_silent_peers(void *context)
{
    struct ha_server *server = context;

    peer_forget_silent(&server->peers, ha_loop_now_ms(server->loop) - FORGET_MS);
    ha_loop_timer_set_after(server->forget, FORGET_EVERY_MS);
}

/* ---- life ---------------------------------------------------------------------------------- */

static int bind_server(struct ha_server *server, const char *endpoint, struct ha_error *err)
{
    size_t size = sizeof(server->endpoint);

    if (zmq_bind(server->socket, endpoint) < 0) {
        int code = errno;

        if (code == EADDRINUSE)
            return ha_error_set(err, code,
                                "%s is in use by another program; stop it or choose another "
                                "address",
                                endpoint);
        return ha_error_set(err, code, "cannot listen on %s: %s", endpoint, zmq_strerror(code));
    }
    if (zmq_getsockopt(server->socket, ZMQ_LAST_ENDPOINT, server->endpoint, &size) < 0)
        return ha_error_set(err, errno, "%s: %s", endpoint, zmq_strerror(errno));
    return 0;
}

static void set_options(struct ha_server *server, const struct ha_socket_options *options)
{
    struct ha_socket_options *own = &server->options;

    if (options)
        *own = *options;
    if (own->queue_messages == 0)
        own->queue_messages = DEFAULT_QUEUE_MESSAGES;
    if (own->queue_bytes == 0)
        own->queue_bytes = DEFAULT_QUEUE_BYTES;
    if (own->messages_per_turn == 0)
        own->messages_per_turn = DEFAULT_MESSAGES_PER_TURN;
}

static int open_server(struct ha_server *server, const char *endpoint, struct ha_error *err)
{
    int fd, r = ha_net_socket(server->net, ZMQ_ROUTER, &server->options, &server->socket, err);
    size_t size = sizeof(fd);

    server->has_keys = ha_endpoint_uses_keys(endpoint, server->options.insecure_loopback);
    if (r == 0 && server->has_keys)
        r = ha_net_use_server_keys(server->net, server->socket, err);
    if (r == 0)
        r = bind_server(server, endpoint, err);
    if (r == 0 && zmq_getsockopt(server->socket, ZMQ_FD, &fd, &size) < 0)
        r = ha_error_set(err, errno, "%s: %s", endpoint, zmq_strerror(errno));
    if (r == 0)
        r = ha_loop_timer_create(server->loop, retry_late_peers, server, &server->retry, err);
    if (r == 0)
        r = ha_loop_timer_create(server->loop, forget_silent_peers, server, &server->forget, err);
    if (r == 0)
        r = ha_loop_source_create(server->loop, fd, &server_ops, server, &server->source, err);
    if (r == 0)
        ha_loop_timer_set_after(server->forget, FORGET_EVERY_MS);
    return r;
}

int ha_server_create(struct ha_net *net, struct ha_loop *loop, const char *endpoint,
                     const struct ha_socket_options *options,
                     const struct ha_server_handlers *handlers, struct ha_server **ret_server,
                     struct ha_error *err)
{
    struct ha_server *server;
    int r = ha_endpoint_check(endpoint, ha_net_is_secure_server(net),
                              options && options->insecure_loopback, err);

    if (r < 0)
        return r;
    server = ha_calloc(1, sizeof(*server));
    if (!server)
        return ha_error_set(err, ENOMEM, "out of memory");
    *server = (struct ha_server){.net = net, .loop = loop, .handlers = *handlers};
    set_options(server, options);
    if (peer_table_init(&server->peers) < 0)
        r = ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = open_server(server, endpoint, err);
    if (r < 0) {
        ha_server_destroy(server);
        return r;
    }
    *ret_server = server;
    return 0;
}

void ha_server_destroy(struct ha_server *server)
{
    if (!server)
        return;
    ha_loop_source_destroy(server->source);
    ha_loop_timer_destroy(server->retry);
    ha_loop_timer_destroy(server->forget);
    if (server->socket)
        zmq_close(server->socket);
    server->dead = true;
    if (!server->busy)
        free_server(server);
}

const char *ha_server_endpoint(const struct ha_server *server)
{
    return server->endpoint;
}

int64_t ha_server_refused(const struct ha_server *server)
{
    return server->n_refused;
}
