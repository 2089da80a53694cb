/* byte_alphabet.h - the printable characters that stand for bytes in byte-level vocabularies
 *
 * GPT-2's table: bytes that print stand for themselves (Latin-1), the others
 * are U+0100 and up in order: space is U+0120. */
#ifndef HA_WORKER_TOKENIZER_BYTE_ALPHABET_H
#define HA_WORKER_TOKENIZER_BYTE_ALPHABET_H

#include <stddef.h>
#include <stdint.h>

enum { HA_BYTE_ALPHABET_CODES = 0x144 };

/* Code point of a byte. */
uint32_t ha_byte_alphabet_code(uint8_t byte);

/* Byte of a code point; -1 when it stands for none. */
int ha_byte_alphabet_byte(uint32_t code);

/* Turn text (valid UTF-8, size bytes) into the bytes it stands for, written to out [size].
 * Returns their number, or -1 when a character stands for none. */
int64_t ha_byte_alphabet_unmap(const char *text, size_t size, char *out);

#endif
