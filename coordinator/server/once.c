/* once.c - requests that change something are done once per key (inside.h) */
#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/hash.h"
#include "common/base/utf8.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/request.h"

enum { BODY_BYTES = 16 << 20 };

/* The body without its request id, which differs between repetitions. */
int ha_server_once_hash(const struct ha_wire_message *message, char ret_hex[65],
                        struct ha_error *err)
{
    struct ha_wire_message copy = *message;
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_buffer bytes;
    int r;

    copy.request_id = 0;
    ha_buffer_init(&bytes, BODY_BYTES);
    r = ha_wire_encode(&copy, &bytes, err);
    if (r == 0) {
        ha_sha256(ha_buffer_text(&bytes), bytes.size, digest);
        ha_sha256_hex(digest, ret_hex);
    }
    ha_buffer_clear(&bytes);
    return r;
}

/* The stored reply becomes this request's: sent as it is, with a new id. */
static int send_again(struct ha_request *q, const struct ha_buffer *stored, struct ha_error *err)
{
    struct ha_wire_message *reply;
    int r =
        ha_wire_decode(ha_buffer_text(stored), stored->size, &ha_wire_default_limits, &reply, err);

    if (r < 0)
        return r;
    reply->request_id = q->message->request_id;
    r = ha_server_hold(q->c, q->origin->peer, reply, err);
    ha_wire_message_destroy(reply);
    q->deferred = true; /* nothing more is to be sent */
    return r < 0 ? r : 1;
}

/* A request that is worked on is answered where it was asked last. */
static int join(struct ha_request *q, const char *key, struct ha_error *err)
{
    struct ha_chore *chore = ha_chore_of_key(q->c, key);

    if (!chore)
        return 0;
    if (strcmp(chore->waiter->client, q->origin->key) != 0 ||
        strcmp(chore->waiter->hash, q->hash) != 0)
        return ha_error_set(err, EEXIST, "the request key %s was used for another request", key);
    chore->waiter->peer = q->origin->peer;
    chore->waiter->request_id = q->message->request_id;
    q->deferred = true;
    return 1;
}

void ha_server_waiter(const struct ha_request *q, const char *key, struct ha_waiter *w)
{
    *w = (struct ha_waiter){.peer = q->origin->peer, .request_id = q->message->request_id};
    ha_utf8_copy(w->key, sizeof w->key, key);
    ha_utf8_copy(w->client, sizeof w->client, q->origin->key);
    memcpy(w->hash, q->hash, sizeof w->hash);
}

int ha_server_once(struct ha_request *q, const char *key, struct ha_error *err)
{
    struct ha_buffer stored;
    int r;

    if (!key[0])
        return ha_error_set(err, EINVAL, "a request that changes something needs a key");
    if (strlen(key) >= HA_SERVER_KEY_BYTES)
        return ha_error_set(err, EINVAL, "a request key has at most %d bytes",
                            HA_SERVER_KEY_BYTES - 1);
    r = ha_server_once_hash(q->message, q->hash, err);
    if (r < 0)
        return r;
    ha_buffer_init(&stored, BODY_BYTES);
    r = ha_store_request_find(q->c->store, key, q->origin->key, q->hash, &stored, err);
    if (r == 1)
        r = send_again(q, &stored, err);
    else if (r == 0)
        r = join(q, key, err);
    ha_buffer_clear(&stored);
    return r;
}

int ha_server_once_store(struct ha_coordinator *c, const char *key, const char *client,
                         const char *hash, const struct ha_wire_message *reply,
                         struct ha_error *err)
{
    struct ha_wire_message copy = *reply;
    struct ha_buffer bytes;
    int r;

    copy.protocol = HA_WIRE_PROTOCOL;
    copy.request_id = 0;
    ha_buffer_init(&bytes, BODY_BYTES);
    r = ha_wire_encode(&copy, &bytes, err);
    if (r == 0)
        r = ha_store_request_add(c->store, key, client, hash, ha_buffer_text(&bytes), bytes.size,
                                 c->wall_ms, err);
    ha_buffer_clear(&bytes);
    return r;
}
