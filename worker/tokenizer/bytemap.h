/* bytemap.h - byte strings -> int32, for vocabularies and caches
 *
 * Keys are copied, each followed by a zero byte; entries are numbered 0 .. count - 1 in the order
 * of their first insertion and are never removed one by one. */
#ifndef HA_WORKER_TOKENIZER_BYTEMAP_H
#define HA_WORKER_TOKENIZER_BYTEMAP_H

#include <stddef.h>
#include <stdint.h>

struct ha_bytemap_entry {
    uint64_t hash;
    size_t offset; /* of the key in bytes */
    uint32_t size;
    int32_t value;
};

/* Empty when all zero. */
struct ha_bytemap {
    struct ha_bytemap_entry *entries; /* [count] */
    int64_t count, entry_capacity;
    int64_t *slots; /* [slot_count], a power of two: entry + 1, or 0 */
    int64_t slot_count;
    char *bytes;
    int64_t bytes_used, bytes_capacity;
};

void ha_bytemap_clear(struct ha_bytemap *map);

/* Forget the entries and keep the memory. */
void ha_bytemap_reset(struct ha_bytemap *map);

/* Set key -> value, replacing an older value.  Keys are below 4 GiB.  Returns 0 or -ENOMEM. */
int ha_bytemap_put(struct ha_bytemap *map, const char *key, size_t size, int32_t value);

/* The value, or -1. */
int32_t ha_bytemap_get(const struct ha_bytemap *map, const char *key, size_t size);

/* Key of an entry, zero-terminated; valid until the next put. */
const char *ha_bytemap_key(const struct ha_bytemap *map, int64_t entry);

#endif
