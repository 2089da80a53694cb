#include "common/base/buffer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ha_buffer_init(struct ha_buffer *buffer, size_t limit)
{
    *buffer = (struct ha_buffer){.limit = limit ? limit : SIZE_MAX / 2};
}

void ha_buffer_clear(struct ha_buffer *buffer)
{
    free(buffer->data);
    ha_buffer_init(buffer, buffer->limit);
}

void ha_buffer_reset(struct ha_buffer *buffer)
{
    ha_buffer_truncate(buffer, 0);
}

void ha_buffer_truncate(struct ha_buffer *buffer, size_t size)
{
    buffer->size = size;
    if (buffer->data)
        buffer->data[size] = '\0';
}

int ha_buffer_reserve(struct ha_buffer *buffer, size_t size)
{
    size_t limit = buffer->limit ? buffer->limit : SIZE_MAX / 2;
    size_t capacity = buffer->capacity ? buffer->capacity : 64;
    char *data;

    if (size > limit - buffer->size)
        return -EMSGSIZE;
    if (buffer->data && buffer->size + size <= buffer->capacity)
        return 0;
    while (capacity < buffer->size + size)
        capacity = capacity > limit / 2 ? limit : capacity * 2;
    data = realloc(buffer->data, capacity + 1);
    if (!data)
        return -ENOMEM;
    data[buffer->size] = '\0';
    buffer->data = data;
    buffer->capacity = capacity;
    return 0;
}

int ha_buffer_append(struct ha_buffer *buffer, const void *bytes, size_t size)
{
    int r = ha_buffer_reserve(buffer, size);

    if (r < 0)
        return r;
    if (size > 0)
        memcpy(buffer->data + buffer->size, bytes, size);
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return 0;
}

int ha_buffer_append_text(struct ha_buffer *buffer, const char *text)
{
    return ha_buffer_append(buffer, text, strlen(text));
}

int ha_buffer_vprintf(struct ha_buffer *buffer, const char *format, va_list args)
{
    va_list again;
    int n, r;

    va_copy(again, args);
    n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0)
        return -EINVAL;
    r = ha_buffer_reserve(buffer, (size_t)n);
    if (r < 0)
        return r;
    (void)vsnprintf(buffer->data + buffer->size, (size_t)n + 1, format, args);
    buffer->size += (size_t)n;
    return 0;
}

int ha_buffer_printf(struct ha_buffer *buffer, const char *format, ...)
{
    va_list args;
    int r;

    va_start(args, format);
    r = ha_buffer_vprintf(buffer, format, args);
    va_end(args);
    return r;
}

void ha_buffer_consume(struct ha_buffer *buffer, size_t size)
{
    if (size >= buffer->size) {
        ha_buffer_reset(buffer);
        return;
    }
    memmove(buffer->data, buffer->data + size, buffer->size - size + 1);
    buffer->size -= size;
}

const char *ha_buffer_text(const struct ha_buffer *buffer)
{
    return buffer->data ? buffer->data : "";
}

char *ha_buffer_detach(struct ha_buffer *buffer)
{
    char *data;

    if (ha_buffer_reserve(buffer, 0) < 0)
        return NULL;
    data = buffer->data;
    ha_buffer_init(buffer, buffer->limit);
    return data;
}
