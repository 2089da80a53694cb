/* request.h - replies to requests that change something, by idempotency key
 *
 * The same key with the same body is answered with the stored reply; with
 * another body it is refused.  Replies are opaque bytes. */
#ifndef HA_COORDINATOR_STORE_REQUEST_H
#define HA_COORDINATOR_STORE_REQUEST_H

#include <stddef.h>
#include <stdint.h>

struct ha_buffer;
struct ha_error;
struct ha_store;

enum { HA_REQUEST_KEPT_MS = 7 * 24 * 3600 * 1000 };

/* Returns 1 (ret_reply holds the reply), 0 (unknown key) or -EEXIST (another
 * client or body used the key). */
int ha_store_request_find(struct ha_store *store, const char *key, const char *client,
                          const char *body_sha256, struct ha_buffer *ret_reply,
                          struct ha_error *err);

int ha_store_request_add(struct ha_store *store, const char *key, const char *client,
                         const char *body_sha256, const void *reply, size_t reply_bytes,
                         int64_t now_ms, struct ha_error *err);

/* Forget what is older than HA_REQUEST_KEPT_MS. */
int ha_store_request_prune(struct ha_store *store, int64_t now_ms, struct ha_error *err);

#endif
