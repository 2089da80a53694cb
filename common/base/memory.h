/* memory.h - allocation with checked sizes
 *
 * All of them return NULL when memory is short or the size overflows; the
 * caller frees with free(). */
#ifndef HA_COMMON_BASE_MEMORY_H
#define HA_COMMON_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* count zeroed elements of element_bytes each; never NULL for count = 0 when
 * memory is there. */
void *ha_calloc(int64_t count, size_t element_bytes);

/* Resize to count elements; the new part is not zeroed; old stays valid when
 * NULL is returned. */
void *ha_realloc(void *old, int64_t count, size_t element_bytes);

/* Make room for at least need elements in a growing array: at least doubles
 * *capacity.  Returns 0 or -ENOMEM (array and capacity unchanged). */
int ha_grow(void **array, int64_t *capacity, int64_t need, size_t element_bytes);

/* 64-byte aligned and zeroed: for numeric arrays. */
void *ha_calloc_aligned(int64_t count, size_t element_bytes);

/* A copy of text; NULL for NULL. */
char *ha_strdup(const char *text);

/* A zero-terminated copy of size bytes. */
char *ha_strndup(const char *bytes, size_t size);

/* printf into new memory. */
char *ha_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
