#include "common/net/peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

enum { FIRST_BUCKETS = 64 };

int peer_table_init(struct peer_table *table)
{
    *table = (struct peer_table){.n_buckets = FIRST_BUCKETS};
    table->buckets = ha_calloc(FIRST_BUCKETS, sizeof(*table->buckets));
    return table->buckets ? 0 : -ENOMEM;
}

static struct peer **bucket_of(const struct peer_table *table, ha_peer id)
{
    return &table->buckets[(id * 0x9e3779b97f4a7c15u >> 20) % (uint64_t)table->n_buckets];
}

struct peer *peer_find(const struct peer_table *table, ha_peer id)
{
    for (struct peer *peer = *bucket_of(table, id); peer; peer = peer->next) {
        if (peer->id == id)
            return peer;
    }
    return NULL;
}

/* Double the buckets; staying as it was is legal. */
static void spread(struct peer_table *table)
{
    struct peer_table wide = *table;

    wide.n_buckets *= 2;
    wide.buckets = ha_calloc(wide.n_buckets, sizeof(*wide.buckets));
    if (!wide.buckets)
        return;
    for (int64_t i = 0; i < table->n_buckets; i++) {
        for (struct peer *peer = table->buckets[i], *next; peer; peer = next) {
            struct peer **bucket = bucket_of(&wide, peer->id);

            next = peer->next;
            peer->next = *bucket;
            *bucket = peer;
        }
    }
    free(table->buckets);
    *table = wide;
}

struct peer *peer_add(struct peer_table *table, ha_peer id)
{
    struct peer *peer = peer_find(table, id), **bucket;

    if (peer)
        return peer;
    peer = ha_calloc(1, sizeof(*peer));
    if (!peer)
        return NULL;
    if (table->n_peers >= 2 * table->n_buckets)
        spread(table);
    peer->id = id;
    peer->last = &peer->first;
    bucket = bucket_of(table, id);
    peer->next = *bucket;
    *bucket = peer;
    table->n_peers++;
    return peer;
}

int peer_queue(struct peer_table *table, struct peer *peer, const void *data, size_t size)
{
    struct peer_message *message = malloc(sizeof(*message) + size);

    if (!message)
        return -ENOMEM;
    message->next = NULL;
    message->size = size;
    memcpy(message->data, data, size);
    if (!peer->first) {
        peer->next_late = table->late;
        table->late = peer;
    }
    *peer->last = message;
    peer->last = &message->next;
    peer->n_messages++;
    peer->queued_bytes += size;
    return 0;
}

void peer_unqueue(struct peer_table *table, struct peer *peer)
{
    struct peer_message *message = peer->first;

    peer->first = message->next;
    peer->n_messages--;
    peer->queued_bytes -= message->size;
    free(message);
    if (peer->first)
        return;
    peer->last = &peer->first;
    for (struct peer **at = &table->late; *at; at = &(*at)->next_late) {
        if (*at == peer) {
            *at = peer->next_late;
            break;
        }
    }
}

void peer_remove(struct peer_table *table, struct peer *peer)
{
    while (peer->first)
        peer_unqueue(table, peer);
    for (struct peer **at = bucket_of(table, peer->id); *at; at = &(*at)->next) {
        if (*at == peer) {
            *at = peer->next;
            break;
        }
    }
    table->n_peers--;
    free(peer);
}

void peer_forget_silent(struct peer_table *table, int64_t before_ms)
{
    for (int64_t i = 0; i < table->n_buckets; i++) {
        for (struct peer *peer = table->buckets[i], *next; peer; peer = next) {
            next = peer->next;
            if (!peer->first && peer->heard_ms < before_ms)
                peer_remove(table, peer);
        }
    }
}

void peer_table_clear(struct peer_table *table)
{
    for (int64_t i = 0; i < table->n_buckets && table->buckets; i++) {
        while (table->buckets[i])
            peer_remove(table, table->buckets[i]);
    }
    free(table->buckets);
    table->buckets = NULL;
}
