#include "common/base/memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns false when count * element_bytes does not fit. */
static int total_bytes(int64_t count, size_t element_bytes, size_t *ret_bytes)
{
    if (count < 0)
        return 0;
    return !__builtin_mul_overflow((size_t)count, element_bytes, ret_bytes) &&
           *ret_bytes <= PTRDIFF_MAX;
}

void *ha_calloc(int64_t count, size_t element_bytes)
{
    size_t bytes;

    if (!total_bytes(count, element_bytes, &bytes))
        return NULL;
    return calloc(1, bytes ? bytes : 1);
}

void *ha_realloc(void *old, int64_t count, size_t element_bytes)
{
    size_t bytes;

    if (!total_bytes(count, element_bytes, &bytes))
        return NULL;
    return realloc(old, bytes ? bytes : 1);
}

int ha_grow(void **array, int64_t *capacity, int64_t need, size_t element_bytes)
{
    int64_t grown = *capacity < 8 ? 8 : *capacity;
    void *moved;

    if (need <= *capacity)
        return 0;
    while (grown < need) {
        if (grown > INT64_MAX / 2)
            return -ENOMEM;
        grown *= 2;
    }
    moved = ha_realloc(*array, grown, element_bytes);
    if (!moved)
        return -ENOMEM;
    *array = moved;
    *capacity = grown;
    return 0;
}

void *ha_calloc_aligned(int64_t count, size_t element_bytes)
{
    size_t bytes;
    void *memory;

    if (!total_bytes(count, element_bytes, &bytes) || bytes > PTRDIFF_MAX - 64)
        return NULL;
    bytes = (bytes + 63) / 64 * 64;
    memory = aligned_alloc(64, bytes ? bytes : 64);
    if (memory)
        memset(memory, 0, bytes ? bytes : 64);
    return memory;
}

char *ha_strdup(const char *text)
{
    return text ? strdup(text) : NULL;
}

char *ha_strndup(const char *bytes, size_t size)
{
    char *copy = size < SIZE_MAX ? malloc(size + 1) : NULL;

    if (!copy)
        return NULL;
    if (size > 0)
        memcpy(copy, bytes, size);
    copy[size] = '\0';
    return copy;
}

char *ha_format(const char *format, ...)
{
    va_list args;
    char *text = NULL;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    return text;
}
