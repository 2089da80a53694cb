#include "worker/tokenizer/bytemap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

static uint64_t hash_bytes(const char *key, size_t size)
{
    uint64_t hash = UINT64_C(0x9e3779b97f4a7c15) ^ size, word;

    for (; size >= sizeof(word); key += sizeof(word), size -= sizeof(word)) {
        memcpy(&word, key, sizeof(word));
        hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    word = 0;
    if (size > 0)
        memcpy(&word, key, size);
    hash = (hash ^ word) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 29;
}

void ha_bytemap_clear(struct ha_bytemap *map)
{
    free(map->entries);
    free(map->slots);
    free(map->bytes);
    *map = (struct ha_bytemap){0};
}

void ha_bytemap_reset(struct ha_bytemap *map)
{
    map->count = 0;
    map->bytes_used = 0;
    if (map->slots)
        memset(map->slots, 0, (size_t)map->slot_count * sizeof(*map->slots));
}

/* The slot that holds the key, or the free one where it belongs. */
static int64_t find_slot(const struct ha_bytemap *map, const char *key, size_t size, uint64_t hash)
{
    uint64_t mask = (uint64_t)map->slot_count - 1, at = hash & mask;

    for (; map->slots[at]; at = (at + 1) & mask) {
        const struct ha_bytemap_entry *e = &map->entries[map->slots[at] - 1];

        if (e->hash == hash && e->size == size &&
            (size == 0 || memcmp(map->bytes + e->offset, key, size) == 0))
            break;
    }
    return (int64_t)at;
}

static int grow_slots(struct ha_bytemap *map)
{
    int64_t count = map->slot_count ? map->slot_count * 2 : 64;
    int64_t *slots = ha_calloc(count, sizeof(*slots));
    uint64_t mask = (uint64_t)count - 1;

    if (!slots)
        return -ENOMEM;
    for (int64_t i = 0; i < map->count; i++) {
        uint64_t at = map->entries[i].hash & mask;

        while (slots[at])
            at = (at + 1) & mask;
        slots[at] = i + 1;
    }
    free(map->slots);
    map->slots = slots;
    map->slot_count = count;
    return 0;
}

int ha_bytemap_put(struct ha_bytemap *map, const char *key, size_t size, int32_t value)
{
    uint64_t hash = hash_bytes(key, size);
    int64_t slot, need;

    if (size >= UINT32_MAX)
        return -ENOMEM;
    if (map->count >= map->slot_count / 2 && grow_slots(map) < 0)
        return -ENOMEM;
    slot = find_slot(map, key, size, hash);
    if (map->slots[slot]) {
        map->entries[map->slots[slot] - 1].value = value;
        return 0;
    }
    need = map->bytes_used + (int64_t)size + 1;
    if (ha_grow((void **)&map->bytes, &map->bytes_capacity, need, 1) < 0 ||
        ha_grow((void **)&map->entries, &map->entry_capacity, map->count + 1,
                sizeof(*map->entries)) < 0)
        return -ENOMEM;
    if (size > 0)
        memcpy(map->bytes + map->bytes_used, key, size);
    map->bytes[need - 1] = '\0';
    map->entries[map->count] =
        (struct ha_bytemap_entry){hash, (size_t)map->bytes_used, (uint32_t)size, value};
    map->bytes_used = need;
    map->slots[slot] = ++map->count;
    return 0;
}

int32_t ha_bytemap_get(const struct ha_bytemap *map, const char *key, size_t size)
{
    int64_t slot;

    if (map->count == 0)
        return -1;
    slot = find_slot(map, key, size, hash_bytes(key, size));
    return map->slots[slot] ? map->entries[map->slots[slot] - 1].value : -1;
}

const char *ha_bytemap_key(const struct ha_bytemap *map, int64_t entry)
{
    return map->bytes + map->entries[entry].offset;
}
