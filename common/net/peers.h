/* peers.h - the connections of a server, and what waits to be sent to them */
#ifndef HA_COMMON_NET_PEERS_H
#define HA_COMMON_NET_PEERS_H

#include <stdint.h>

#include "common/net/curve.h"
#include "common/net/socket.h"

struct peer_message {
    struct peer_message *next;
    size_t size;
    uint8_t data[];
};

struct peer {
    struct peer *next;      /* of one bucket */
    struct peer *next_late; /* of those with a queue */
    ha_peer id;
    char key[HA_CURVE_KEY_BYTES]; /* "" when the connection is not encrypted */
    int64_t heard_ms;
    int64_t second_ms, in_second; /* when the running second began, and its messages */
    struct peer_message *first, **last;
    int64_t n_messages;
    size_t queued_bytes;
};

struct peer_table {
    struct peer **buckets;
    int64_t n_buckets, n_peers;
    struct peer *late; /* peers with a queue, in no order */
};

int peer_table_init(struct peer_table *table);
void peer_table_clear(struct peer_table *table);

/* NULL when there is none. */
struct peer *peer_find(const struct peer_table *table, ha_peer id);

/* Find or add; NULL when memory is short. */
struct peer *peer_add(struct peer_table *table, ha_peer id);

void peer_remove(struct peer_table *table, struct peer *peer);

/* Forget peers without a queue that were not heard since before_ms. */
void peer_forget_silent(struct peer_table *table, int64_t before_ms);

/* Append a copy of a message.  Returns 0 or -ENOMEM. */
int peer_queue(struct peer_table *table, struct peer *peer, const void *data, size_t size);

/* Drop the first message. */
void peer_unqueue(struct peer_table *table, struct peer *peer);

#endif
