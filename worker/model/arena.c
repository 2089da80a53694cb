#include "worker/model/arena.h"

enum { ALIGNMENT = 256 };

void *ha_arena_take(struct ha_arena *arena, int64_t rows, int64_t cols, size_t element_bytes)
{
    size_t at = arena->bytes, bytes;

    if (__builtin_mul_overflow((size_t)rows, (size_t)cols, &bytes) ||
        __builtin_mul_overflow(bytes, element_bytes, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)ALIGNMENT - 1, &bytes) ||
        __builtin_add_overflow(at, bytes / ALIGNMENT * ALIGNMENT, &arena->bytes) ||
        arena->bytes > (size_t)INT64_MAX)
        arena->overflow = true;
    return arena->base && !arena->overflow ? arena->base + at : NULL;
}
