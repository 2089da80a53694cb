#include "common/net/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <zmq.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/faults.h"
#include "common/net/loop.h"
#include "common/net/loop_source.h"
#include "common/net/net_inside.h"

enum { DEFAULT_MESSAGES_PER_TURN = 256 };

struct ha_client {
    struct ha_net *net;
    struct ha_loop *loop;
    char *endpoint;
    struct ha_socket_options options;
    ha_client_fn fn;
    void *context;
    void *socket;
    struct ha_loop_source *source;
    struct ha_net_faults *faults; /* NULL but in tests */
    bool draining, dead;          /* destroyed by its own callback: freed when that returns */
};

static bool client_ready(void *context)
{
    struct ha_client *client = context;
    int events = 0;
    size_t size = sizeof(events);

    return zmq_getsockopt(client->socket, ZMQ_EVENTS, &events, &size) == 0 &&
           (events & ZMQ_POLLIN) != 0;
}

/* Read one message and hand it on.  False when there is none. */
static bool read_one(struct ha_client *client)
{
    zmq_msg_t message;
    bool whole = true;

    zmq_msg_init(&message);
    if (zmq_msg_recv(&message, client->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&message);
        return false;
    }
    while (zmq_msg_more(&message)) { /* not ours: messages have one frame */
        whole = false;
        if (zmq_msg_recv(&message, client->socket, ZMQ_DONTWAIT) < 0)
            break;
    }
    if (whole && client->faults)
        ha_net_faults_take(client->faults, false, zmq_msg_data(&message), zmq_msg_size(&message));
    else if (whole)
        client->fn(client->context, zmq_msg_data(&message), zmq_msg_size(&message));
    zmq_msg_close(&message);
    return true;
}

static bool client_drain(void *context)
{
    struct ha_client *client = context;
    bool more = true;

    client->draining = true;
    for (int i = 0; i < client->options.messages_per_turn && more; i++)
        more = read_one(client) && !client->dead;
    client->draining = false;
    if (client->dead)
        free(client);
    return more;
}

static const struct ha_loop_source_ops client_ops = {.ready = client_ready, .drain = client_drain};

static int send_now(struct ha_client *client, const void *data, size_t size)
{
    if (zmq_send(client->socket, data, size, ZMQ_DONTWAIT) >= 0)
        return 0;
    return errno == EINTR ? -EAGAIN : -errno;
}

/* A message that the faults of a test let through. */
static void pass(void *context, bool out, const void *data, size_t size)
{
    struct ha_client *client = context;

    if (out)
        (void)send_now(client, data, size);
    else
        client->fn(client->context, data, size);
}

static void close_connection(struct ha_client *client)
{
    ha_loop_source_destroy(client->source);
    client->source = NULL;
    if (client->socket)
        zmq_close(client->socket);
    client->socket = NULL;
    ha_net_faults_drop(client->faults);
}

static int open_connection(struct ha_client *client, void **ret_socket,
                           struct ha_loop_source **ret_source, struct ha_error *err)
{
    void *socket;
    int fd, r = ha_net_socket(client->net, ZMQ_DEALER, &client->options, &socket, err);
    size_t size = sizeof(fd);

    if (r < 0)
        return r;
    if (ha_endpoint_uses_keys(client->endpoint, client->options.insecure_loopback))
        r = ha_net_use_client_keys(client->net, socket, err);
    if (r == 0 && (zmq_connect(socket, client->endpoint) < 0 ||
                   zmq_getsockopt(socket, ZMQ_FD, &fd, &size) < 0))
        r = ha_error_set(err, errno, "cannot connect to %s: %s", client->endpoint,
                         zmq_strerror(errno));
    if (r == 0)
        r = ha_loop_source_create(client->loop, fd, &client_ops, client, ret_source, err);
    if (r < 0) {
        zmq_close(socket);
        return r;
    }
    *ret_socket = socket;
    return 0;
}

int ha_client_create(struct ha_net *net, struct ha_loop *loop, const char *endpoint,
                     const struct ha_socket_options *options, ha_client_fn fn, void *context,
                     struct ha_client **ret_client, struct ha_error *err)
{
    struct ha_client *client;
    int r = ha_endpoint_check(endpoint, ha_net_is_secure_client(net),
                              options && options->insecure_loopback, err);

    if (r < 0)
        return r;
    client = ha_calloc(1, sizeof(*client));
    if (!client)
        return ha_error_set(err, ENOMEM, "out of memory");
    *client = (struct ha_client){.net = net, .loop = loop, .fn = fn, .context = context};
    if (options)
        client->options = *options;
    if (client->options.messages_per_turn == 0)
        client->options.messages_per_turn = DEFAULT_MESSAGES_PER_TURN;
    client->endpoint = ha_strdup(endpoint);
    r = client->endpoint ? ha_net_faults_create(loop, pass, client, &client->faults, err)
                         : ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = open_connection(client, &client->socket, &client->source, err);
    if (r < 0) {
        ha_client_destroy(client);
        return r;
    }
    *ret_client = client;
    return 0;
}

void ha_client_destroy(struct ha_client *client)
{
    if (!client)
        return;
    close_connection(client);
    ha_net_faults_destroy(client->faults);
    client->faults = NULL;
    free(client->endpoint);
    client->endpoint = NULL;
    client->dead = true;
    if (!client->draining)
        free(client);
}

int ha_client_send(struct ha_client *client, const void *data, size_t size)
{
    if (!client->faults)
        return send_now(client, data, size);
    ha_net_faults_take(client->faults, true, data, size);
    return 0;
}

int ha_client_reopen(struct ha_client *client, struct ha_error *err)
{
    struct ha_loop_source *source = NULL;
    void *socket = NULL;
    int r = open_connection(client, &socket, &source, err);

    if (r < 0)
        return r;
    close_connection(client);
    client->socket = socket;
    client->source = source;
    return 0;
}
