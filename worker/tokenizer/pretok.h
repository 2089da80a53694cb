/* pretok.h - pre-tokenizers: a text into the words that BPE sees one by one
 *
 * Split (of a regular expression or a string), ByteLevel (last only), Metaspace, Digits,
 * Sequence. */
#ifndef HA_WORKER_TOKENIZER_PRETOK_H
#define HA_WORKER_TOKENIZER_PRETOK_H

#include <stdbool.h>
#include <stddef.h>

struct ha_error;
struct ha_json;
struct ha_pretok;

/* json: the object of tokenizer.json; NULL or null: the whole text is one word. */
int ha_pretok_create(const struct ha_json *json, struct ha_pretok **ret_pretok,
                     struct ha_error *err);

void ha_pretok_destroy(struct ha_pretok *pretok);

/* Words are bytes for a byte-level vocabulary: the caller maps them (byte_alphabet.h). */
bool ha_pretok_byte_level(const struct ha_pretok *pretok);

/* Receives a word, never empty; returns 0 or a negative errno, which ends the run. */
typedef int (*ha_pretok_word)(void *context, const char *word, size_t size);

/* Split text [size > 0].  first: it is the beginning of what the user gave. */
int ha_pretok_run(struct ha_pretok *pretok, const char *text, size_t size, bool first,
                  ha_pretok_word word, void *context, struct ha_error *err);

#endif
