/* The process's ZeroMQ context, its keys, and the limits of its sockets. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/net_inside.h"

enum {
    DEFAULT_MAX_MESSAGE_BYTES = 8 << 20,
    DEFAULT_HIGH_WATER = 1000,
    RECONNECT_MS = 100,
    RECONNECT_MAX_MS = 10000,
    HANDSHAKE_MS = 5000,
    /* ZeroMQ's own heartbeats only find half-open connections; liveness is the
     * application's.  Each costs as much as one of ours: with 1,000 peers that shows. */
    TRANSPORT_BEAT_MS = 30000,
    TRANSPORT_TIMEOUT_MS = 30000,
    TCP_GIVE_UP_MS = 20000,
    CONNECT_GIVE_UP_MS = 10000,
    BACKLOG = 1024,
    SELF_TEST_MS = 5000
};

struct ha_net {
    void *context;
    struct ha_zap *zap;
    bool is_server, is_client;
    struct ha_curve_key server_key, client_key;
    char far_server_key[HA_CURVE_KEY_BYTES];
    char *allow_folder;
    pthread_mutex_t lock; /* guards what follows */
    struct ha_allow_list *allow_list;
    int64_t version; /* times that it was read */
    int changes;     /* inotify: of the allow-list's folder; -1 */
    struct ha_error trouble;
};

int ha_net_create(struct ha_net **ret_net, struct ha_error *err)
{
    struct ha_net *net;
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    if (ZMQ_MAKE_VERSION(major, minor, patch) < ZMQ_MAKE_VERSION(4, 3, 3))
        return ha_error_set(err, ENOTSUP,
                            "libzmq %d.%d.%d has known security faults; 4.3.3 or newer is needed",
                            major, minor, patch);
    net = ha_calloc(1, sizeof(*net));
    if (net)
        net->context = zmq_ctx_new();
    if (!net || !net->context) {
        free(net);
        return ha_error_set(err, ENOMEM, "network: out of memory");
    }
    pthread_mutex_init(&net->lock, NULL);
    net->changes = -1;
    *ret_net = net;
    return 0;
}

const char *ha_net_library(void)
{
    static char text[32];
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    (void)snprintf(text, sizeof(text), "%d.%d.%d", major, minor, patch);
    return text;
}

void ha_net_destroy(struct ha_net *net)
{
    if (!net)
        return;
    zmq_ctx_shutdown(net->context);
    ha_zap_join(net->zap);
    while (zmq_ctx_term(net->context) < 0 && errno == EINTR)
        ;
    ha_allow_list_destroy(net->allow_list);
    if (net->changes >= 0)
        close(net->changes);
    pthread_mutex_destroy(&net->lock);
    free(net->allow_folder);
    explicit_bzero(net, sizeof(*net));
    free(net);
}

bool ha_net_is_secure_server(const struct ha_net *net)
{
    return net->is_server;
}

bool ha_net_is_secure_client(const struct ha_net *net)
{
    return net->is_client;
}

/* ---- the allow-list ---------------------------------------------------------------------- */

/* Keys whose file is gone; all of them where that cannot be seen. */
static void drop_removed(struct ha_net *net)
{
    struct ha_allow_list *list = net->allow_list;
    int64_t kept = 0;

    for (int64_t i = 0; list && i < list->n_entries; i++) {
        char *path = ha_format("%s/%s.pub", net->allow_folder, list->entries[i].name);

        if (path && access(path, F_OK) == 0)
            list->entries[kept++] = list->entries[i];
        else
            free(list->entries[i].name);
        free(path);
    }
    if (list)
        list->n_entries = kept;
}

/* With the lock held. */
static int read_list(struct ha_net *net, struct ha_error *err)
{
    struct ha_allow_list *list;
    int r = ha_allow_list_load(net->allow_folder, &list, err);

    net->version++;
    if (r < 0) {
        drop_removed(net);
        return r;
    }
    ha_allow_list_destroy(net->allow_list);
    net->allow_list = list;
    return 0;
}

/* Has anything happened in the folder since this was last asked? */
static bool folder_changed(const struct ha_net *net)
{
    char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool changed = false;

    while (net->changes >= 0 && read(net->changes, events, sizeof(events)) > 0)
        changed = true;
    return changed;
}

static int watch_folder(struct ha_net *net, struct ha_error *err)
{
    if (net->changes >= 0)
        close(net->changes);
    net->changes = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (net->changes >= 0 &&
        inotify_add_watch(net->changes, net->allow_folder,
                          IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE |
                              IN_DELETE_SELF | IN_MOVE_SELF) >= 0)
        return 0;
    return ha_error_set(
        err, errno, "cannot watch the allow-list %s: %s%s", net->allow_folder, strerror(errno),
        errno == EMFILE || errno == ENOSPC ? "; raise fs.inotify.max_user_instances" : "");
}

int ha_net_keys_trouble(struct ha_net *net, struct ha_error *err)
{
    int r = 0;

    pthread_mutex_lock(&net->lock);
    if (net->trouble.code)
        r = ha_error_set(err, net->trouble.code, "%s", ha_error_text(&net->trouble));
    net->trouble.code = 0;
    pthread_mutex_unlock(&net->lock);
    return r;
}

enum ha_net_role ha_net_role_of(struct ha_net *net, const char *public_key,
                                char name[HA_NET_NAME_BYTES])
{
    const struct ha_allow_entry *entry;
    enum ha_net_role role = HA_NET_ROLE_NONE;

    name[0] = '\0';
    pthread_mutex_lock(&net->lock);
    if (folder_changed(net))
        (void)read_list(net, &net->trouble);
    entry = net->allow_list ? ha_allow_list_find(net->allow_list, public_key) : NULL;
    if (entry) {
        role = entry->role;
        (void)snprintf(name, HA_NET_NAME_BYTES, "%s", entry->name);
    }
    pthread_mutex_unlock(&net->lock);
    return role;
}

int64_t ha_net_keys_version(struct ha_net *net)
{
    int64_t version;

    pthread_mutex_lock(&net->lock);
    if (folder_changed(net))
        (void)read_list(net, &net->trouble);
    version = net->version;
    pthread_mutex_unlock(&net->lock);
    return version;
}

int ha_net_keys_fd(const struct ha_net *net)
{
    return net->changes;
}

enum ha_net_role ha_net_role_named(struct ha_net *net, const char *name)
{
    enum ha_net_role role = HA_NET_ROLE_NONE;

    pthread_mutex_lock(&net->lock);
    for (int64_t i = 0; net->allow_list && i < net->allow_list->n_entries; i++)
        if (strcmp(net->allow_list->entries[i].name, name) == 0)
            role = net->allow_list->entries[i].role;
    pthread_mutex_unlock(&net->lock);
    return role;
}

int ha_net_reload_keys(struct ha_net *net, struct ha_error *err)
{
    int r;

    pthread_mutex_lock(&net->lock);
    r = read_list(net, err);
    pthread_mutex_unlock(&net->lock);
    return r;
}

/* ---- sockets ------------------------------------------------------------------------- */

static int set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value));
}

static int set_limits(void *socket, int type, const struct ha_socket_options *options)
{
    int64_t max_bytes = options && options->max_message_bytes ? options->max_message_bytes
                                                              : DEFAULT_MAX_MESSAGE_BYTES;
    int high_water = options && options->high_water ? options->high_water : DEFAULT_HIGH_WATER;

    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_bytes, sizeof(max_bytes)) < 0 ||
        set_int(socket, ZMQ_SNDHWM, high_water) < 0 ||
        set_int(socket, ZMQ_RCVHWM, high_water) < 0 || set_int(socket, ZMQ_LINGER, 0) < 0 ||
        set_int(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) < 0 ||
        set_int(socket, ZMQ_HEARTBEAT_IVL, TRANSPORT_BEAT_MS) < 0 ||
        set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, TRANSPORT_TIMEOUT_MS) < 0 ||
        set_int(socket, ZMQ_TCP_MAXRT, TCP_GIVE_UP_MS) < 0)
        return -1;
    if (type == ZMQ_ROUTER)
        return set_int(socket, ZMQ_BACKLOG, BACKLOG) < 0 ||
                       set_int(socket, ZMQ_ROUTER_MANDATORY, 1) < 0
                   ? -1
                   : 0;
    return set_int(socket, ZMQ_RECONNECT_IVL, RECONNECT_MS) < 0 ||
                   set_int(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS) < 0 ||
                   set_int(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_GIVE_UP_MS) < 0
               ? -1
               : 0;
}

int ha_net_socket(struct ha_net *net, int type, const struct ha_socket_options *options,
                  void **ret_socket, struct ha_error *err)
{
    void *socket = zmq_socket(net->context, type);

    if (!socket || set_limits(socket, type, options) < 0) {
        int code = errno;

        if (socket)
            zmq_close(socket);
        return ha_error_set(err, code, "cannot make a socket: %s", zmq_strerror(code));
    }
    *ret_socket = socket;
    return 0;
}

int ha_net_use_server_keys(struct ha_net *net, void *socket, struct ha_error *err)
{
    if (set_int(socket, ZMQ_CURVE_SERVER, 1) < 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, net->server_key.secret_key,
                       HA_CURVE_KEY_BYTES) < 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, ha_zap_domain, strlen(ha_zap_domain)) < 0)
        return ha_error_set(err, errno, "cannot use the server's key: %s", zmq_strerror(errno));
    return 0;
}

static int use_client_keys(void *socket, const struct ha_curve_key *key, const char *server_key,
                           struct ha_error *err)
{
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_key, HA_CURVE_KEY_BYTES) < 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, key->public_key, HA_CURVE_KEY_BYTES) < 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, key->secret_key, HA_CURVE_KEY_BYTES) < 0)
        return ha_error_set(err, errno, "cannot use the key: %s", zmq_strerror(errno));
    return 0;
}

int ha_net_use_client_keys(struct ha_net *net, void *socket, struct ha_error *err)
{
    return use_client_keys(socket, &net->client_key, net->far_server_key, err);
}

/* ---- keys -------------------------------------------------------------------------------- */

int ha_net_secure_client(struct ha_net *net, const char *key_file, const char *server_public_file,
                         struct ha_error *err)
{
    struct ha_curve_key key;
    int r = ha_curve_public_load(server_public_file, net->far_server_key, NULL, err);

    if (r == 0)
        r = ha_curve_key_load(key_file, &key, err);
    if (r < 0)
        return r;
    net->client_key = key;
    net->is_client = true;
    explicit_bzero(&key, sizeof(key));
    return 0;
}

/* Wait for the fate of the probe's handshake: 0 when it was refused. */
static int read_verdict(void *monitor, struct ha_error *err)
{
    enum { REFUSED = ZMQ_EVENT_HANDSHAKE_FAILED_AUTH };
    int64_t deadline = ha_clock_boot_ms() + SELF_TEST_MS;
    uint8_t frame[256];
    uint16_t event;

    for (;;) {
        int64_t left = deadline - ha_clock_boot_ms();
        zmq_pollitem_t item = {.socket = monitor, .events = ZMQ_POLLIN};

        if (left <= 0 || (zmq_poll(&item, 1, (long)left) < 0 && errno != EINTR))
            return ha_error_set(err, ETIMEDOUT,
                                "the self-test of the key check got no answer in %d ms",
                                SELF_TEST_MS);
        if (!(item.revents & ZMQ_POLLIN))
            continue;
        if (zmq_recv(monitor, frame, sizeof(frame), ZMQ_DONTWAIT) < (int)sizeof(event))
            continue;
        memcpy(&event, frame, sizeof(event));
        (void)zmq_recv(monitor, frame, sizeof(frame), ZMQ_DONTWAIT); /* its address */
        if (event == REFUSED)
            return 0;
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            return ha_error_set(err, EACCES,
                                "a key that is in no list was let in: this libzmq does not check "
                                "keys; encrypted sockets are not opened");
    }
}

/* Knock with a key that nobody knows at a socket like the real ones. */
static int self_test(struct ha_net *net, struct ha_error *err)
{
    static const char monitor_name[] = "inproc://key-self-test";
    void *server = NULL, *probe = NULL, *monitor = NULL;
    struct ha_curve_key stranger;
    char endpoint[128];
    size_t size = sizeof(endpoint);
    int r = ha_curve_generate(&stranger, err);

    if (r == 0)
        r = ha_net_socket(net, ZMQ_ROUTER, NULL, &server, err);
    if (r == 0)
        r = ha_net_use_server_keys(net, server, err);
    if (r == 0)
        r = ha_net_socket(net, ZMQ_DEALER, NULL, &probe, err);
    if (r == 0)
        r = use_client_keys(probe, &stranger, net->server_key.public_key, err);
    if (r < 0)
        goto out;
    monitor = zmq_socket(net->context, ZMQ_PAIR);
    if (!monitor || zmq_bind(server, "tcp://127.0.0.1:*") < 0 ||
        zmq_getsockopt(server, ZMQ_LAST_ENDPOINT, endpoint, &size) < 0 ||
        zmq_socket_monitor(probe, monitor_name, ZMQ_EVENT_ALL) < 0 ||
        zmq_connect(monitor, monitor_name) < 0 || zmq_connect(probe, endpoint) < 0)
        r = ha_error_set(err, errno, "cannot test the key check: %s", zmq_strerror(errno));
    else
        r = read_verdict(monitor, err);
out:
    if (probe) {
        (void)zmq_socket_monitor(probe, NULL, 0);
        zmq_close(probe);
    }
    if (monitor)
        zmq_close(monitor);
    if (server)
        zmq_close(server);
    return r;
}

int ha_net_secure_server(struct ha_net *net, const char *key_file, const char *allow_folder,
                         struct ha_error *err)
{
    int r = ha_curve_key_load(key_file, &net->server_key, err);

    if (r < 0)
        return r;
    free(net->allow_folder);
    net->allow_folder = ha_strdup(allow_folder);
    if (!net->allow_folder)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = watch_folder(net, err);
    if (r == 0)
        r = ha_net_reload_keys(net, err);
    if (r == 0 && !net->zap)
        r = ha_zap_start(net, net->context, &net->zap, err);
    if (r == 0)
        r = self_test(net, err);
    net->is_server = r == 0;
    return r;
}
