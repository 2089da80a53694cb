#include "proto/arena.h"

#include <stdlib.h>

enum { ALIGN = 16, FIRST_BLOCK_BYTES = 4096, LARGEST_STEP_BYTES = 1 << 20 };

struct ha_arena_block {
    struct ha_arena_block *next;
    size_t size, used; /* of the bytes behind this head */
};

_Static_assert(sizeof(struct ha_arena_block) <= 2 * ALIGN, "head fits its room");

void ha_arena_init(struct ha_arena *arena, size_t limit_bytes)
{
    *arena = (struct ha_arena){.limit_bytes = limit_bytes};
}

static struct ha_arena_block *add_block(struct ha_arena *arena, size_t need)
{
    size_t size = arena->blocks ? arena->blocks->size * 2 : FIRST_BLOCK_BYTES;
    struct ha_arena_block *block;

    if (size > LARGEST_STEP_BYTES)
        size = LARGEST_STEP_BYTES;
    if (size < need)
        size = need;
    block = calloc(1, 2 * ALIGN + size);
    if (!block)
        return NULL;
    block->size = size;
    block->next = arena->blocks;
    arena->blocks = block;
    return block;
}

void *ha_arena_alloc(struct ha_arena *arena, size_t size)
{
    struct ha_arena_block *block = arena->blocks;
    size_t need = (size + ALIGN - 1) / ALIGN * ALIGN;

    if (need < size || need > arena->limit_bytes - arena->used_bytes) {
        arena->full = 1;
        return NULL;
    }
    if (!block || block->size - block->used < need)
        block = add_block(arena, need);
    if (!block) {
        arena->starved = 1;
        return NULL;
    }
    block->used += need;
    arena->used_bytes += need;
    return (char *)block + 2 * ALIGN + block->used - need;
}

void ha_arena_clear(struct ha_arena *arena)
{
    while (arena->blocks) {
        struct ha_arena_block *next = arena->blocks->next;

        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used_bytes = 0;
    arena->full = 0;
    arena->starved = 0;
}
