#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/net/loop.h"
#include "common/net/socket.h"

enum { WAIT_MS = 5000 };

static struct ha_net *net;
static struct ha_loop *loop;
static char *folder;

/* What the server and the client last saw. */
static struct {
    int n;
    ha_peer peer;
    enum ha_net_role role;
    char name[65];
    char data[64];
    size_t size;
    bool echo;
} served;
static struct {
    int n;
    char data[64];
    size_t size;
} answered;

static struct ha_server *server;

static void serve(void *context, const struct ha_server_message *message)
{
    (void)context;
    served.n++;
    served.peer = message->peer;
    served.role = message->role;
    served.size = message->size;
    (void)snprintf(served.name, sizeof(served.name), "%s", message->name);
    memcpy(served.data, message->data, message->size < 64 ? message->size : 64);
    if (served.echo)
        assert_int_equal(ha_server_send(server, message->peer, message->data, message->size), 0);
}

static const struct ha_server_handlers handlers = {.message = serve};

static void answer(void *context, const void *data, size_t size)
{
    (void)context;
    answered.n++;
    answered.size = size;
    memcpy(answered.data, data, size < 64 ? size : 64);
}

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-net-XXXXXX";
    struct ha_error err = {0};

    (void)state;
    memset(&served, 0, sizeof(served));
    memset(&answered, 0, sizeof(answered));
    server = NULL;
    folder = ha_strdup(mkdtemp(name));
    return ha_net_create(&net, &err) < 0 || ha_loop_create(&loop, &err) < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    ha_server_destroy(server);
    ha_loop_destroy(loop);
    ha_net_destroy(net);
    ha_path_remove_tree(folder, NULL);
    free(folder);
    return 0;
}

static void open_server(const char *endpoint, const struct ha_socket_options *options)
{
    struct ha_error err = {0};

    if (ha_server_create(net, loop, endpoint, options, &handlers, &server, &err) < 0)
        fail_msg("%s", err.text);
}

static struct ha_client *open_client(const char *endpoint, const struct ha_socket_options *options)
{
    struct ha_client *client;
    struct ha_error err = {0};

    if (ha_client_create(net, loop, endpoint, options, answer, NULL, &client, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

static char *ipc_endpoint(void)
{
    return ha_format("ipc://%s/s", folder);
}

/* Turn until *counter reaches at_least. */
static void run_until(const int *counter, int at_least)
{
    int64_t deadline = ha_clock_boot_ms() + WAIT_MS;

    while (*counter < at_least) {
        assert_int_equal(ha_loop_turn(loop, 50, NULL), 0);
        if (ha_clock_boot_ms() > deadline)
            fail_msg("nothing came in %d ms", WAIT_MS);
    }
}

static void run_for(int64_t ms)
{
    int64_t deadline = ha_clock_boot_ms() + ms;

    while (ha_clock_boot_ms() < deadline)
        assert_int_equal(ha_loop_turn(loop, 10, NULL), 0);
}

static void exchange(const char *endpoint, const struct ha_socket_options *options)
{
    struct ha_client *client;

    served.echo = true;
    open_server(endpoint, options);
    client = open_client(ha_server_endpoint(server), options);
    assert_int_equal(ha_client_send(client, "hello", 5), 0);
    run_until(&answered.n, 1);
    assert_int_equal(answered.size, 5);
    assert_memory_equal(answered.data, "hello", 5);
    assert_string_equal(served.name, "local");
    assert_int_equal(served.role, HA_NET_ROLE_ADMIN);
    ha_client_destroy(client);
}

static void exchanges_over_ipc(void **state)
{
    char *endpoint = ipc_endpoint();

    (void)state;
    exchange(endpoint, NULL);
    free(endpoint);
}

static void exchanges_over_open_loopback(void **state)
{
    const struct ha_socket_options options = {.insecure_loopback = true};

    (void)state;
    exchange("tcp://127.0.0.1:*", &options);
}

static void expect_endpoint(const char *endpoint, bool secure, bool loopback, int want,
                            const char *says)
{
    struct ha_error err = {0};

    assert_int_equal(ha_endpoint_check(endpoint, secure, loopback, &err), want);
    if (says && !strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void checks_endpoints(void **state)
{
    char *longest = ha_format("ipc:///%0106d", 1), *longer = ha_format("ipc:///%0107d", 1);

    (void)state;
    expect_endpoint(longest, false, false, 0, NULL);
    expect_endpoint(longer, false, false, -ENAMETOOLONG, "108 bytes, a socket's may have 107");
    expect_endpoint("ipc://", false, false, -EINVAL, "no path");
    expect_endpoint("tcp://host:1", false, false, -EACCES, "needs keys");
    expect_endpoint("tcp://host:1", false, true, -EACCES, "needs keys");
    expect_endpoint("tcp://127.0.0.1:1", false, false, -EACCES, "--insecure-loopback");
    expect_endpoint("tcp://127.0.0.1:1", false, true, 0, NULL);
    expect_endpoint("tcp://localhost:1", false, true, 0, NULL);
    expect_endpoint("tcp://[::1]:1", false, true, 0, NULL);
    expect_endpoint("tcp://127.0.0.1.example.org:1", false, true, -EACCES, "needs keys");
    expect_endpoint("tcp://*:1", false, true, -EACCES, "needs keys");
    expect_endpoint("tcp://*:1", true, false, 0, NULL);
    expect_endpoint("tcp://host", true, false, -EINVAL, "HOST:PORT");
    expect_endpoint("tcp://host:99999", true, false, -EINVAL, "HOST:PORT");
    expect_endpoint("tcp://:1", true, false, -EINVAL, "HOST:PORT");
    expect_endpoint("udp://host:1", true, false, -EINVAL, "not an endpoint");
    free(longest);
    free(longer);
}

static void names_an_address_in_use(void **state)
{
    const struct ha_socket_options options = {.insecure_loopback = true};
    struct ha_server *second;
    struct ha_error err = {0};

    (void)state;
    open_server("tcp://127.0.0.1:*", &options);
    assert_int_equal(
        ha_server_create(net, loop, ha_server_endpoint(server), &options, &handlers, &second, &err),
        -EADDRINUSE);
    assert_non_null(strstr(err.text, ha_server_endpoint(server)));
    assert_non_null(strstr(err.text, "in use"));
}

static void tells_that_a_peer_is_gone(void **state)
{
    char *endpoint = ipc_endpoint();
    struct ha_client *client;
    int64_t deadline = ha_clock_boot_ms() + WAIT_MS;

    (void)state;
    open_server(endpoint, NULL);
    assert_int_equal(ha_server_send(server, 77, "x", 1), -EHOSTUNREACH);
    client = open_client(endpoint, NULL);
    ha_client_send(client, "hello", 5);
    run_until(&served.n, 1);
    assert_int_equal(ha_server_send(server, served.peer, "x", 1), 0);
    ha_client_destroy(client);
    while (ha_server_send(server, served.peer, "x", 1) == 0) {
        run_for(10);
        assert_true(ha_clock_boot_ms() < deadline);
    }
    assert_int_equal(ha_server_send(server, served.peer, "x", 1), -EHOSTUNREACH);
    free(endpoint);
}

static void reopens_a_connection(void **state)
{
    char *endpoint = ipc_endpoint();
    struct ha_client *client;
    ha_peer before;

    (void)state;
    served.echo = true;
    open_server(endpoint, NULL);
    client = open_client(endpoint, NULL);
    ha_client_send(client, "one", 3);
    run_until(&answered.n, 1);
    before = served.peer;
    assert_int_equal(ha_client_reopen(client, NULL), 0);
    ha_client_send(client, "two", 3);
    run_until(&answered.n, 2);
    assert_memory_equal(answered.data, "two", 3);
    assert_true(served.peer != before);
    ha_client_destroy(client);
    free(endpoint);
}

static void connects_to_a_server_that_comes_later(void **state)
{
    char *endpoint = ipc_endpoint();
    struct ha_client *client = open_client(endpoint, NULL);

    (void)state;
    served.echo = true;
    ha_client_send(client, "early", 5);
    run_for(20);
    open_server(endpoint, NULL);
    run_until(&answered.n, 1);
    ha_server_destroy(server);
    server = NULL;
    run_for(20);
    open_server(endpoint, NULL);
    ha_client_send(client, "again", 5);
    run_until(&answered.n, 2);
    ha_client_destroy(client);
    free(endpoint);
}

static void drops_oversized_messages(void **state)
{
    const struct ha_socket_options small = {.max_message_bytes = 1000};
    char *endpoint = ipc_endpoint(), big[2000] = {0};
    struct ha_client *client;

    (void)state;
    open_server(endpoint, &small);
    client = open_client(endpoint, NULL);
    ha_client_send(client, "a", 1);
    run_until(&served.n, 1);
    ha_client_send(client, big, sizeof(big));
    run_for(50);
    assert_int_equal(served.n, 1);
    ha_client_send(client, big, 1000);
    run_until(&served.n, 2);
    assert_int_equal(served.size, 1000);
    ha_client_destroy(client);
    free(endpoint);
}

/* A peer of plain ZeroMQ that connects, speaks and never reads. */
static void *mute_peer(const char *endpoint, const char *routing_id)
{
    static void *context;
    int one = 1, zero = 0;
    void *socket;

    if (!endpoint) {
        zmq_ctx_term(context);
        context = NULL;
        return NULL;
    }
    context = zmq_ctx_new();
    socket = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &one, sizeof(one));
    zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof(zero));
    if (routing_id)
        zmq_setsockopt(socket, ZMQ_ROUTING_ID, routing_id, strlen(routing_id));
    zmq_connect(socket, endpoint);
    zmq_send(socket, "hello", 5, 0);
    return socket;
}

static void bounds_the_queue_of_a_peer_that_does_not_read(void **state)
{
    const struct ha_socket_options options = {.high_water = 1, .queue_messages = 10};
    char *endpoint = ipc_endpoint();
    static char message[100000];
    void *mute;
    int sent = 0, received = 0, r;

    (void)state;
    open_server(endpoint, &options);
    mute = mute_peer(endpoint, NULL);
    run_until(&served.n, 1);
    while ((r = ha_server_send(server, served.peer, message, sizeof(message))) == 0 && sent < 1000)
        sent++;
    assert_int_equal(r, -ENOBUFS);
    assert_true(sent >= 10);
    /* When it reads at last, nothing of what was accepted is missing. */
    for (int64_t deadline = ha_clock_boot_ms() + WAIT_MS; received < sent;) {
        assert_true(ha_clock_boot_ms() < deadline);
        if (zmq_recv(mute, message, sizeof(message), ZMQ_DONTWAIT) >= 0)
            received++;
        else
            run_for(5);
    }
    assert_int_equal(ha_server_send(server, served.peer, message, 1), 0);
    zmq_close(mute);
    mute_peer(NULL, NULL);
    free(endpoint);
}

static void refuses_chosen_routing_ids(void **state)
{
    char *endpoint = ipc_endpoint();
    void *peer;

    (void)state;
    open_server(endpoint, NULL);
    peer = mute_peer(endpoint, "worker-1");
    run_for(100);
    assert_int_equal(served.n, 0);
    assert_int_equal(ha_server_refused(server), 1);
    zmq_close(peer);
    mute_peer(NULL, NULL);
    free(endpoint);
}

static struct ha_client *one_shot;

static void destroy_in_callback(void *context, const void *data, size_t size)
{
    (void)context;
    (void)data;
    (void)size;
    answered.n++;
    ha_client_destroy(one_shot);
}

static void serve_and_close(void *context, const struct ha_server_message *message)
{
    (void)context;
    (void)message;
    served.n++;
    ha_server_destroy(server);
    server = NULL;
}

static void lets_sockets_end_in_their_callbacks(void **state)
{
    const struct ha_server_handlers closing = {.message = serve_and_close};
    char *endpoint = ipc_endpoint();

    (void)state;
    served.echo = true;
    open_server(endpoint, NULL);
    assert_int_equal(
        ha_client_create(net, loop, endpoint, NULL, destroy_in_callback, NULL, &one_shot, NULL), 0);
    ha_client_send(one_shot, "a", 1);
    ha_client_send(one_shot, "b", 1);
    run_until(&answered.n, 1);
    run_for(20);
    assert_int_equal(answered.n, 1);
    ha_server_destroy(server);

    assert_int_equal(ha_server_create(net, loop, endpoint, NULL, &closing, &server, NULL), 0);
    one_shot = open_client(endpoint, NULL);
    served.n = 0;
    ha_client_send(one_shot, "a", 1);
    run_until(&served.n, 1);
    ha_client_destroy(one_shot);
    free(endpoint);
}

static void shares_turns(void **state)
{
    const struct ha_socket_options options = {.messages_per_turn = 3};
    char *endpoint = ipc_endpoint();
    struct ha_client *client;

    (void)state;
    open_server(endpoint, &options);
    client = open_client(endpoint, NULL);
    ha_client_send(client, "first", 5);
    run_until(&served.n, 1);
    for (int i = 0; i < 7; i++)
        ha_client_send(client, "more", 4);
    usleep(100000); /* all of it has arrived */
    served.n = 0;
    assert_int_equal(ha_loop_turn(loop, 100, NULL), 0);
    assert_int_equal(served.n, 3);
    assert_true(ha_loop_input_pending(loop));
    assert_int_equal(ha_loop_turn(loop, -1, NULL), 0);
    assert_int_equal(ha_loop_turn(loop, -1, NULL), 0);
    assert_int_equal(served.n, 7);
    assert_false(ha_loop_input_pending(loop));
    ha_client_destroy(client);
    free(endpoint);
}

static void bounds_the_peers_it_knows(void **state)
{
    const struct ha_socket_options options = {.max_peers = 2};
    char *endpoint = ipc_endpoint();
    struct ha_client *clients[3];

    (void)state;
    open_server(endpoint, &options);
    for (int i = 0; i < 3; i++) {
        clients[i] = open_client(endpoint, NULL);
        ha_client_send(clients[i], "hello", 5);
        run_for(200);
    }
    assert_int_equal(served.n, 2);
    assert_int_equal(ha_server_refused(server), 1);
    ha_client_send(clients[0], "again", 5); /* who is known goes on */
    run_until(&served.n, 3);
    for (int i = 0; i < 3; i++)
        ha_client_destroy(clients[i]);
    free(endpoint);
}

static void bounds_the_messages_of_a_second(void **state)
{
    const struct ha_socket_options options = {.max_per_second = 5};
    char *endpoint = ipc_endpoint();
    struct ha_client *fast, *slow;

    (void)state;
    open_server(endpoint, &options);
    fast = open_client(endpoint, NULL);
    slow = open_client(endpoint, NULL);
    for (int i = 0; i < 20; i++)
        ha_client_send(fast, "now", 3);
    run_for(300);
    assert_int_equal(served.n, 5);
    assert_int_equal(ha_server_refused(server), 15);
    ha_client_send(slow, "me too", 6); /* another's haste is not its own */
    run_until(&served.n, 6);
    run_for(1100);
    ha_client_send(fast, "now", 3);
    run_until(&served.n, 7);
    ha_client_destroy(fast);
    ha_client_destroy(slow);
    free(endpoint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(exchanges_over_ipc),
        TEST(exchanges_over_open_loopback),
        TEST(checks_endpoints),
        TEST(names_an_address_in_use),
        TEST(tells_that_a_peer_is_gone),
        TEST(reopens_a_connection),
        TEST(connects_to_a_server_that_comes_later),
        TEST(drops_oversized_messages),
        TEST(bounds_the_queue_of_a_peer_that_does_not_read),
        TEST(refuses_chosen_routing_ids),
        TEST(lets_sockets_end_in_their_callbacks),
        TEST(shares_turns),
        TEST(bounds_the_peers_it_knows),
        TEST(bounds_the_messages_of_a_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
