/* memory_use.h - how much memory there is and how much this process has */
#ifndef HA_COMMON_BASE_MEMORY_USE_H
#define HA_COMMON_BASE_MEMORY_USE_H

#include <stdint.h>

struct ha_error;

/* Bytes of memory that are this process's own (RssAnon: heap, stacks, no mapped
 * files) now; 0 where the system does not say. */
int64_t ha_memory_anonymous(void);

/* Raise *peak to it. */
void ha_memory_sample(int64_t *peak);

/* Bytes that this process may use at most: the machine's memory, or what its
 * control group is limited to.  Not what is free.  0 where the system does not say. */
int64_t ha_memory_total(void);

/* "24GiB", "1.5 GiB", "512MiB", "16GB" (10^9), "4096" -> bytes, at least 1.  Returns
 * 0 or -EINVAL; what begins the error. */
int ha_memory_parse(const char *what, const char *text, int64_t *ret_bytes, struct ha_error *err);

/* "18.2 GiB", "512 MiB", "3 KiB". */
enum { HA_MEMORY_TEXT_BYTES = 32 };
const char *ha_memory_text(int64_t bytes, char text[HA_MEMORY_TEXT_BYTES]);

#endif
