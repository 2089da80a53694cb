/* jsonl.h - JSON Lines, plain or gzip, one line at a time
 *
 * A file is gzip when it begins with the two bytes 1f 8b, whatever its name;
 * a name ending in .gz that does not is refused.  Several gzip members in one
 * file are read as one text.  Lines of white space are passed over.
 *
 * Errors read "FILE:LINE: ..." (lines count from 1).  After an error the
 * reader may only be closed. */
#ifndef HA_COMMON_IO_JSONL_H
#define HA_COMMON_IO_JSONL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/hash.h"

struct ha_error;
struct ha_json;
struct ha_jsonl;

enum { HA_JSONL_LINE_BYTES = 16 << 20 }; /* default limit of one line */

/* path "-" is standard input.  line_limit_bytes 0: HA_JSONL_LINE_BYTES. */
int ha_jsonl_open(const char *path, size_t line_limit_bytes, struct ha_jsonl **ret_reader,
                  struct ha_error *err);

void ha_jsonl_close(struct ha_jsonl *reader);

/* The next line that is not blank, without its newline; valid until the next call.
 * Returns 1, 0 at the end, or a negative errno: -EINVAL damaged or cut gzip, -EMSGSIZE line
 * longer than the limit, or what read(2) gave. */
int ha_jsonl_next_line(struct ha_jsonl *reader, const char **ret_line, size_t *ret_size,
                       struct ha_error *err);

/* The next value, which the caller destroys.  Returns 1, 0 or a negative errno. */
int ha_jsonl_next(struct ha_jsonl *reader, struct ha_json **ret_json, struct ha_error *err);

/* Line number of what was read last; 0 before. */
int64_t ha_jsonl_line(const struct ha_jsonl *reader);

/* SHA-256 of the file's bytes as they are stored (compressed or not); valid once a read has
 * returned 0. */
void ha_jsonl_digest(const struct ha_jsonl *reader, uint8_t digest[HA_SHA256_BYTES]);

#endif
