/* net_inside.h - what the files of this folder share about ZeroMQ */
#ifndef HA_COMMON_NET_NET_INSIDE_H
#define HA_COMMON_NET_NET_INSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/net/curve.h"
#include "common/net/socket.h"

enum { HA_NET_NAME_BYTES = 65 };

/* Should a socket on this endpoint be encrypted? */
bool ha_endpoint_uses_keys(const char *endpoint, bool insecure_loopback);

/* Make a socket of this ZeroMQ type with the limits of the project. */
int ha_net_socket(struct ha_net *net, int type, const struct ha_socket_options *options,
                  void **ret_socket, struct ha_error *err);

/* Give a socket the keys of a server, or of a client. */
int ha_net_use_server_keys(struct ha_net *net, void *socket, struct ha_error *err);
int ha_net_use_client_keys(struct ha_net *net, void *socket, struct ha_error *err);

bool ha_net_is_secure_server(const struct ha_net *net);
bool ha_net_is_secure_client(const struct ha_net *net);

/* Look a public key up in the allow-list that is in force; from any thread.
 * NONE when it is not there, and then name is "". */
enum ha_net_role ha_net_role_of(struct ha_net *net, const char *public_key,
                                char name[HA_NET_NAME_BYTES]);

/* ---- the thread that answers handshakes (zap.c) --------------------------------------- */

struct ha_zap;

/* Serve ZAP on this context, asking ha_net_role_of. */
int ha_zap_start(struct ha_net *net, void *context, struct ha_zap **ret_zap, struct ha_error *err);

/* Wait for the thread; the context must have been shut down. */
void ha_zap_join(struct ha_zap *zap);

/* The domain that encrypted servers ask in. */
extern const char ha_zap_domain[];

#endif
