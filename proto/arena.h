/* arena.h - memory that is given back as a whole, with a limit */
#ifndef HA_PROTO_ARENA_H
#define HA_PROTO_ARENA_H

#include <stddef.h>

struct ha_arena_block;

struct ha_arena {
    struct ha_arena_block *blocks; /* newest first */
    size_t used_bytes;             /* handed out so far, rounded up */
    size_t limit_bytes;
    int full;    /* an allocation was refused for the limit */
    int starved; /* one failed because memory is short */
};

void ha_arena_init(struct ha_arena *arena, size_t limit_bytes);

/* Zeroed memory, aligned for any type; NULL when memory is short or the limit
 * would be passed. */
void *ha_arena_alloc(struct ha_arena *arena, size_t size);

void ha_arena_clear(struct ha_arena *arena);

#endif
