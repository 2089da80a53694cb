#include "coordinator/hactl/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "common/net/socket.h"

enum { HELLO_MS = 3000, CALL_MS = 30000, REPEAT_MS = 2000, UNDER_WAY = 2, HELLOS = 10 };

/* A request whose reply is waited for, and the reply. */
struct asked {
    uint64_t id; /* 0: none */
    struct ha_buffer frame;
    struct ha_wire_message *reply;
};

struct channel {
    struct ha_client *client;
    struct asked asked[UNDER_WAY];
};

struct ha_link {
    struct ha_net *net;
    struct ha_loop *loop;
    struct channel control, files;
    struct ha_link_options options;
    char *endpoint, *files_endpoint, *version;
    uint64_t next_request;
};

static struct asked *find(struct channel *channel, uint64_t id)
{
    for (int i = 0; i < UNDER_WAY; i++)
        if (channel->asked[i].id == id)
            return &channel->asked[i];
    return NULL;
}

/* Its reply, if it came, is somebody else's by now, or nobody's. */
static void forget(struct asked *asked)
{
    ha_buffer_clear(&asked->frame);
    ha_wire_message_destroy(asked->reply);
    *asked = (struct asked){0};
}

static void on_message(void *context, const void *data, size_t size)
{
    struct channel *channel = context;
    struct ha_wire_message *message;
    struct asked *asked;

    if (ha_wire_decode(data, size, &ha_wire_default_limits, &message, NULL) < 0)
        return;
    /* Late replies of calls that gave up, and pushes, are not for anyone. */
    asked = message->request_id == 0 ? NULL : find(channel, message->request_id);
    if (!asked || asked->reply) {
        ha_wire_message_destroy(message);
        return;
    }
    asked->reply = message;
}

static int send_frame(struct ha_link *link, struct channel *channel, const struct asked *asked,
                      struct ha_error *err)
{
    int r = ha_client_send(channel->client, asked->frame.data, asked->frame.size);

    if (r < 0 && r != -EAGAIN)
        return ha_error_set(err, -r, "cannot send to %s: %s", link->endpoint, strerror(-r));
    return 0;
}

static int send_on(struct ha_link *link, struct channel *channel, struct ha_wire_message *request,
                   struct asked **ret_asked, struct ha_error *err)
{
    struct asked *asked = find(channel, 0);
    int r;

    if (!asked)
        return ha_error_set(err, EBUSY, "hactl: too many requests at once");
    ha_buffer_init(&asked->frame, ha_wire_default_limits.frame_bytes);
    request->protocol = HA_WIRE_PROTOCOL;
    request->request_id = asked->id = ++link->next_request;
    r = ha_wire_encode(request, &asked->frame, err);
    if (r == 0)
        r = send_frame(link, channel, asked, err);
    if (r < 0)
        forget(asked);
    else
        *ret_asked = asked;
    return r;
}

/* Waits for the reply; repeats the frame meanwhile. */
static int await(struct ha_link *link, struct channel *channel, const struct asked *asked,
                 int64_t timeout_ms, struct ha_error *err)
{
    int64_t end = ha_clock_boot_ms() + timeout_ms, repeat = ha_clock_boot_ms() + REPEAT_MS;

    while (!asked->reply) {
        int64_t now = ha_clock_boot_ms(), wait;
        int r = 0;

        if (now >= end)
            return ha_error_set(
                err, ENOTCONN,
                "no coordinator answers at %s; is it running? (see --connect, --dir)",
                link->endpoint);
        if (now >= repeat) {
            r = send_frame(link, channel, asked, err);
            repeat = now + REPEAT_MS;
        }
        wait = (repeat < end ? repeat : end) - now;
        if (r == 0)
            r = ha_loop_turn(link->loop, wait > 100 ? 100 : wait, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int wait_on(struct ha_link *link, struct channel *channel, struct asked *asked,
                   enum ha_wire_body kind, int64_t timeout_ms, struct ha_wire_message **ret_reply,
                   struct ha_error *err)
{
    int r = await(link, channel, asked, timeout_ms, err);

    if (r == 0 && asked->reply->kind == kind) {
        *ret_reply = asked->reply;
        asked->reply = NULL;
    } else if (r == 0 && asked->reply->kind == HA_WIRE_ERROR) {
        r = ha_error_set(err, (int)asked->reply->body.error.code, "%s",
                         asked->reply->body.error.text);
    } else if (r == 0) {
        r = ha_error_set(err, EBADMSG, "%s answers %s where %s was expected", link->endpoint,
                         ha_wire_body_name(asked->reply->kind), ha_wire_body_name(kind));
    }
    forget(asked);
    return r;
}

static int call_on(struct ha_link *link, struct channel *channel, struct ha_wire_message *request,
                   enum ha_wire_body kind, int64_t timeout_ms, struct ha_wire_message **ret_reply,
                   struct ha_error *err)
{
    struct asked *asked;
    int r = send_on(link, channel, request, &asked, err);

    return r < 0 ? r : wait_on(link, channel, asked, kind, timeout_ms, ret_reply, err);
}

static int say_hello(struct ha_link *link, int64_t timeout_ms, struct ha_error *err)
{
    char host[256] = "", instance[HA_LINK_KEY_BYTES];
    struct ha_wire_message request = {.kind = HA_WIRE_HELLO}, *reply;
    int r = ha_link_new_key(instance, err);

    if (r < 0)
        return r;
    (void)gethostname(host, sizeof(host) - 1);
    request.body.hello = (struct ha_wire_hello){.role = HA_WIRE_ROLE_CLIENT,
                                                .instance = instance,
                                                .version = HA_VERSION,
                                                .pid = getpid(),
                                                .host = host};
    r = call_on(link, &link->control, &request, HA_WIRE_HELLO_REPLY, timeout_ms, &reply, err);
    if (r < 0)
        return r;
    if (!link->version)
        link->version = ha_strdup(reply->body.hello_reply.version);
    if (!link->files_endpoint)
        link->files_endpoint = ha_strdup(reply->body.hello_reply.files_endpoint);
    ha_wire_message_destroy(reply);
    if (!link->version || !link->files_endpoint)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    return 0;
}

static int connect_channel(struct ha_link *link, const char *endpoint, struct channel *channel,
                           struct ha_error *err)
{
    struct ha_socket_options options = {.insecure_loopback = link->options.insecure_loopback};

    return ha_client_create(link->net, link->loop, endpoint, &options, on_message, channel,
                            &channel->client, err);
}

int ha_link_open(const struct ha_link_options *options, struct ha_link **ret_link,
                 struct ha_error *err)
{
    struct ha_link *link = ha_calloc(1, sizeof(*link));
    int r;

    if (!link)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    link->options = *options;
    link->endpoint = ha_strdup(options->endpoint);
    link->files_endpoint = ha_strdup(options->files_endpoint);
    if (!link->endpoint || (options->files_endpoint && !link->files_endpoint)) {
        r = ha_error_set(err, ENOMEM, "hactl: out of memory");
        goto fail;
    }
    r = ha_loop_create(&link->loop, err);
    if (r == 0)
        r = ha_net_create(&link->net, err);
    if (r == 0 && options->key_file)
        r = ha_net_secure_client(link->net, options->key_file, options->server_key_file, err);
    if (r == 0)
        r = connect_channel(link, link->endpoint, &link->control, err);
    if (r == 0)
        r = say_hello(link, options->hello_timeout_ms > 0 ? options->hello_timeout_ms : HELLO_MS,
                      err);
    if (r == 0) {
        *ret_link = link;
        return 0;
    }
fail:
    ha_link_close(link);
    return r;
}

void ha_link_close(struct ha_link *link)
{
    if (!link)
        return;
    ha_client_destroy(link->control.client);
    ha_client_destroy(link->files.client);
    for (int i = 0; i < UNDER_WAY; i++) {
        forget(&link->control.asked[i]);
        forget(&link->files.asked[i]);
    }
    ha_net_destroy(link->net);
    ha_loop_destroy(link->loop);
    free(link->endpoint);
    free(link->files_endpoint);
    free(link->version);
    free(link);
}

int ha_link_call(struct ha_link *link, struct ha_wire_message *request, enum ha_wire_body kind,
                 int64_t timeout_ms, struct ha_wire_message **ret_reply, struct ha_error *err)
{
    int r;

    if (timeout_ms == 0)
        timeout_ms = CALL_MS;
    r = call_on(link, &link->control, request, kind, timeout_ms, ret_reply, err);
    /* A coordinator that was restarted, maybe more than once, does not know this connection. */
    for (int i = 0; r == -EPROTO && i < HELLOS; i++) {
        r = say_hello(link, timeout_ms, err);
        if (r == 0)
            r = call_on(link, &link->control, request, kind, timeout_ms, ret_reply, err);
    }
    return r;
}

int ha_link_send(struct ha_link *link, struct ha_wire_message *request, uint64_t *ret_id,
                 struct ha_error *err)
{
    struct asked *asked;
    int r = send_on(link, &link->control, request, &asked, err);

    if (r == 0)
        *ret_id = asked->id;
    return r;
}

int ha_link_wait(struct ha_link *link, uint64_t id, enum ha_wire_body kind,
                 struct ha_wire_message **ret_reply, struct ha_error *err)
{
    struct asked *asked = id == 0 ? NULL : find(&link->control, id);

    if (!asked)
        return ha_error_set(err, EINVAL, "hactl: this request is not under way");
    return wait_on(link, &link->control, asked, kind, CALL_MS, ret_reply, err);
}

void ha_link_drop(struct ha_link *link, uint64_t id)
{
    struct asked *asked = id == 0 ? NULL : find(&link->control, id);

    if (asked)
        forget(asked);
}

int ha_link_files_call(struct ha_link *link, struct ha_wire_message *request,
                       enum ha_wire_body kind, struct ha_wire_message **ret_reply,
                       struct ha_error *err)
{
    int r;

    if (!link->files.client) {
        if (!link->files_endpoint[0])
            return ha_error_set(err, EACCES, "the coordinator at %s offers this client no files",
                                link->endpoint);
        r = connect_channel(link, link->files_endpoint, &link->files, err);
        if (r < 0)
            return r;
    }
    return call_on(link, &link->files, request, kind, CALL_MS, ret_reply, err);
}

const char *ha_link_version(const struct ha_link *link)
{
    return link->version;
}

int ha_link_new_key(char key[HA_LINK_KEY_BYTES], struct ha_error *err)
{
    uint8_t bytes[(HA_LINK_KEY_BYTES - 1) / 2];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return ha_error_set(err, errno ? errno : EIO, "no random bytes: %s", strerror(errno));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        key[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        key[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    key[HA_LINK_KEY_BYTES - 1] = '\0';
    return 0;
}
