/* buffer.h - a growing byte string with a limit
 *
 * Invariants: size <= capacity <= limit; when data is not NULL, data[size] is
 * a zero byte that does not count, so that text can be used as a C string.
 * A failed append leaves the buffer as it was. */
#ifndef HA_COMMON_BASE_BUFFER_H
#define HA_COMMON_BASE_BUFFER_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct ha_buffer {
    char *data;
    size_t size;
    size_t capacity;
    size_t limit; /* bytes; appending past it gives -EMSGSIZE */
};

/* An empty buffer; allocates nothing.  limit 0 means SIZE_MAX / 2. */
void ha_buffer_init(struct ha_buffer *buffer, size_t limit);

/* Frees the bytes and leaves an empty buffer with the same limit. */
void ha_buffer_clear(struct ha_buffer *buffer);

/* Forgets the bytes and keeps the memory. */
void ha_buffer_reset(struct ha_buffer *buffer);

/* Returns 0, -ENOMEM or -EMSGSIZE. */
int ha_buffer_append(struct ha_buffer *buffer, const void *bytes, size_t size);
int ha_buffer_append_text(struct ha_buffer *buffer, const char *text);
int ha_buffer_printf(struct ha_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int ha_buffer_vprintf(struct ha_buffer *buffer, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

/* Room for size more bytes (and the zero byte) without a further allocation. */
int ha_buffer_reserve(struct ha_buffer *buffer, size_t size);

/* Keep the first size bytes; size is not above what there is. */
void ha_buffer_truncate(struct ha_buffer *buffer, size_t size);

/* Remove the first size bytes. */
void ha_buffer_consume(struct ha_buffer *buffer, size_t size);

/* The text ("" when empty); owned by the buffer. */
const char *ha_buffer_text(const struct ha_buffer *buffer);

/* The bytes as a zero-terminated string that the caller frees; the buffer is
 * empty afterwards.  NULL when memory is short. */
char *ha_buffer_detach(struct ha_buffer *buffer);

#endif
