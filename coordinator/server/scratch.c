/* scratch.c - memory of one reply (inside.h) */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/server/inside.h"

const void *ha_scratch_copy(struct ha_arena *arena, const void *data, size_t size)
{
    char *copy = ha_arena_alloc(arena, size + 1);

    if (copy && size > 0)
        memcpy(copy, data, size);
    return copy;
}

const char *ha_scratch_text(struct ha_arena *arena, const char *text)
{
    return ha_scratch_copy(arena, text, strlen(text));
}

const char *ha_scratch_format(struct ha_arena *arena, const char *format, ...)
{
    va_list args;
    char *text;
    int size;

    va_start(args, format);
    size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    text = size < 0 ? NULL : ha_arena_alloc(arena, (size_t)size + 1);
    if (!text)
        return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)size + 1, format, args);
    va_end(args);
    return text;
}

/* Room doubles whenever the count is a power of two, so it needs no field. */
void *ha_scratch_grow(struct ha_arena *arena, void *array_pointer, int64_t *count,
                      size_t element_bytes)
{
    char **array = array_pointer;

    if (*count < 0 || *count > (1 << 28))
        return NULL;
    if ((*count & (*count - 1)) == 0) {
        size_t room = *count == 0 ? 1 : (size_t)*count * 2;
        char *larger = ha_arena_alloc(arena, room * element_bytes);

        if (!larger)
            return NULL;
        if (*count > 0)
            memcpy(larger, *array, (size_t)*count * element_bytes);
        *array = larger;
    }
    return *array + (size_t)(*count)++ * element_bytes;
}
