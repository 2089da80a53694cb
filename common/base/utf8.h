/* utf8.h - UTF-8, byte by byte
 *
 * Valid means: no overlong form, no surrogate, nothing above U+10FFFF, no cut
 * sequence. */
#ifndef HA_COMMON_BASE_UTF8_H
#define HA_COMMON_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes 1..4 of the valid character that bytes [size] begins with and its code point (ret_code
 * may be NULL); 0 when it begins with none. */
size_t ha_utf8_decode(const char *bytes, size_t size, uint32_t *ret_code);

/* Write a code point (a scalar value) as 1..4 bytes; returns their number. */
size_t ha_utf8_encode(uint32_t code, char bytes[4]);

/* Length of the valid beginning; size when all of it is valid. */
size_t ha_utf8_valid(const char *bytes, size_t size);

/* Length 1..3 of the longest beginning of bytes that could have begun a character, when bytes
 * [size > 0] does not begin with a valid one: what one U+FFFD stands for (Unicode's "maximal
 * subpart").  *ret_cut: the bytes end there, so that more of them might complete the character. */
size_t ha_utf8_broken(const char *bytes, size_t size, bool *ret_cut);

/* Copy text into to [size > 0], cut at the border of a character; bytes that are not UTF-8
 * become '?'.  Returns to. */
const char *ha_utf8_copy(char *to, size_t size, const char *text);

#endif
