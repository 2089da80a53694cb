/* regex.h - the regular expressions of tokenizer.json
 *
 * The library uses Oniguruma with Unicode 16; here PCRE2 does the matching.
 * The pattern is translated: white space is spelled out, letters and numbers
 * get the code points that an older PCRE2 does not know, and what the two
 * engines understand differently is refused by name. */
#ifndef HA_WORKER_TOKENIZER_REGEX_H
#define HA_WORKER_TOKENIZER_REGEX_H

#include <stddef.h>

struct ha_buffer;
struct ha_error;
struct ha_regex;

/* pattern: zero-terminated, in the syntax of tokenizer.json. */
int ha_regex_create(const char *pattern, struct ha_regex **ret_regex, struct ha_error *err);

/* The same for a pattern in PCRE2's own syntax. */
int ha_regex_create_native(const char *pattern, struct ha_regex **ret_regex, struct ha_error *err);

void ha_regex_destroy(struct ha_regex *regex);

/* A walk over the matches in one text; begin with {0, SIZE_MAX}. */
struct ha_regex_walk {
    size_t from;       /* where the next search begins */
    size_t last_match; /* end of the last match; SIZE_MAX before the first */
};

/* Next match in text [size] (valid UTF-8; nothing outside it is seen).  Empty matches count, but
 * not right behind a match.  Returns 1, 0 when there is none, or a negative errno. */
int ha_regex_next(struct ha_regex *regex, const char *text, size_t size, struct ha_regex_walk *walk,
                  size_t *ret_start, size_t *ret_end, struct ha_error *err);

/* Append the translation to PCRE2's syntax. */
int ha_regex_translate(const char *pattern, struct ha_buffer *native, struct ha_error *err);

#endif
