/* socket.h - the sockets of the project: one server kind, one client kind
 *
 * A server is a ROUTER, a client is a DEALER; a message is one frame.  Sends
 * never block.  Nothing here says whether a message arrived: requests are
 * repeated by whoever wants an answer.
 *
 * Endpoints: ipc://PATH (PATH at most 107 bytes, in a folder that only the
 * owner can enter), tcp://HOST:PORT (HOST * binds all interfaces, PORT 0 any
 * free port) and inproc://NAME (tests).  tcp:// is encrypted and checked
 * against an allow-list, or, for loopback addresses only and when
 * insecure_loopback is said, neither. */
#ifndef HA_COMMON_NET_SOCKET_H
#define HA_COMMON_NET_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/net/curve.h"

struct ha_error;
struct ha_loop;

/* ---- the process's part -------------------------------------------------------- */

struct ha_net;

/* One per process.  -ENOTSUP when libzmq is older than 4.3.3. */
int ha_net_create(struct ha_net **ret_net, struct ha_error *err);

/* "4.3.4" */
const char *ha_net_library(void);

/* All sockets must be gone. */
void ha_net_destroy(struct ha_net *net);

/* Make this process a server of encrypted sockets: load its key and the
 * allow-list, start the thread that checks every handshake against it, and see
 * that a random key is refused.  Before any tcp:// server without
 * insecure_loopback.  The paths are kept for ha_net_reload_keys. */
int ha_net_secure_server(struct ha_net *net, const char *key_file, const char *allow_folder,
                         struct ha_error *err);

/* Read the allow-list again.  That happens by itself before the first message or
 * handshake after a file of the folder changed, so that a key that was removed is
 * refused from then on, also on open connections; this is for folders on disks of
 * other machines, whose changes nobody tells us.  On error the keys of the old list
 * whose files are still there stay in force. */
int ha_net_reload_keys(struct ha_net *net, struct ha_error *err);

/* Rises whenever the list was read, which this does where its folder changed; 0: there is none. */
int64_t ha_net_keys_version(struct ha_net *net);

/* Readable when the folder changed, until the list is read again; -1: nobody tells us. */
int ha_net_keys_fd(const struct ha_net *net);

/* The role of the key of this name; NONE when it is not in the list. */
enum ha_net_role ha_net_role_named(struct ha_net *net, const char *name);

/* What was wrong when the list was last read by itself, told once: 0 when nothing was. */
int ha_net_keys_trouble(struct ha_net *net, struct ha_error *err);

/* Be a client of encrypted servers: own key file and the server's public file. */
int ha_net_secure_client(struct ha_net *net, const char *key_file, const char *server_public_file,
                         struct ha_error *err);

/* ---- limits ---------------------------------------------------------------------- */

struct ha_socket_options {
    bool insecure_loopback;    /* tcp:// to or on loopback addresses without keys */
    int64_t max_message_bytes; /* longer ones end the connection; 0: 8 MiB */
    int high_water;            /* messages per peer inside libzmq, each way; 0: 1,000 */
    int64_t queue_messages;    /* server: further ones per peer; 0: 1,000 */
    int64_t queue_bytes;       /* server: their bytes per peer; 0: 64 MiB */
    int messages_per_turn;     /* read in one turn; 0: 256 */
    int64_t turn_us;           /* server: after which no further one is read in it; 0: any */
    int64_t max_peers;         /* server: messages of further ones are refused; 0: any number */
    int64_t max_per_second;    /* server: messages of one peer; further ones are refused; 0: any */
};

/* Check an endpoint without opening it: form, length, and that tcp:// has keys
 * or is loopback with insecure_loopback. */
int ha_endpoint_check(const char *endpoint, bool secure, bool insecure_loopback,
                      struct ha_error *err);

/* ---- server ------------------------------------------------------------------------ */

struct ha_server;

/* A peer is a connection, not an identity: never 0, new with every connection. */
typedef uint64_t ha_peer;

struct ha_server_message {
    ha_peer peer;
    const char *name; /* of the key in the allow-list; "local" on ipc, inproc and open loopback */
    enum ha_net_role role; /* ADMIN for "local" */
    const void *data;      /* valid during the call */
    size_t size;
};

struct ha_server_handlers {
    void (*message)(void *context, const struct ha_server_message *message);
    void (*gone)(void *context, ha_peer peer); /* a send found the peer gone; may be NULL */
    void *context;
};

/* Bind.  Returns 0, -EADDRINUSE, -EACCES (tcp:// without keys), -EINVAL
 * (endpoint) and others; the text names the endpoint.  options may be NULL. */
int ha_server_create(struct ha_net *net, struct ha_loop *loop, const char *endpoint,
                     const struct ha_socket_options *options,
                     const struct ha_server_handlers *handlers, struct ha_server **ret_server,
                     struct ha_error *err);
void ha_server_destroy(struct ha_server *server);

/* The endpoint with the port that was chosen.  Owned by server. */
const char *ha_server_endpoint(const struct ha_server *server);

/* Send or queue a copy.  Returns 0, -EHOSTUNREACH (the peer is gone), -ENOBUFS
 * (its queue is full: it does not read), -EACCES (its key was revoked) or
 * -ENOMEM. */
int ha_server_send(struct ha_server *server, ha_peer peer, const void *data, size_t size);

/* Messages refused because their key is not in the allow-list (any more), because
 * the peer chose its own routing id, or for max_peers and max_per_second: they are
 * dropped, and whoever wants an answer asks again.  From any thread. */
int64_t ha_server_refused(const struct ha_server *server);

/* ---- client ------------------------------------------------------------------------ */

struct ha_client;

typedef void (*ha_client_fn)(void *context, const void *data, size_t size);

/* Connect; goes on trying for ever, with 100 ms to 10 s between attempts, also
 * when nothing listens there.  options may be NULL. */
int ha_client_create(struct ha_net *net, struct ha_loop *loop, const char *endpoint,
                     const struct ha_socket_options *options, ha_client_fn fn, void *context,
                     struct ha_client **ret_client, struct ha_error *err);
void ha_client_destroy(struct ha_client *client);

/* Returns 0, -EAGAIN (too much is unsent) or -ENOMEM. */
int ha_client_send(struct ha_client *client, const void *data, size_t size);

/* Close the connection, drop what is unsent, and connect anew: for a server
 * that is silent. */
int ha_client_reopen(struct ha_client *client, struct ha_error *err);

#endif
