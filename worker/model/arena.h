/* arena.h - one block of backend memory cut into pieces, for this folder only
 *
 * The same laying-out code runs twice: with base NULL it only adds up the sizes,
 * then, with the allocated block, it gives out the pieces. */
#ifndef HA_WORKER_MODEL_ARENA_H
#define HA_WORKER_MODEL_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_arena {
    char *base;
    size_t bytes;  /* given out so far */
    bool overflow; /* more than can be addressed */
};

/* rows * cols elements, 256-byte aligned; NULL without a base. */
void *ha_arena_take(struct ha_arena *arena, int64_t rows, int64_t cols, size_t element_bytes);

#endif
