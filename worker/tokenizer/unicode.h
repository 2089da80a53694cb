/* unicode.h - where the `tokenizers` library's Unicode differs from PCRE2's and utf8proc's
 *
 * Ranges are sorted and do not touch. */
#ifndef HA_WORKER_TOKENIZER_UNICODE_H
#define HA_WORKER_TOKENIZER_UNICODE_H

#include <stdint.h>

struct ha_unicode_range {
    uint32_t first, last;
};

/* \p{L} and \p{N} of the library beyond those of Unicode 14. */
extern const struct ha_unicode_range ha_unicode_letters[];
extern const int64_t ha_unicode_letters_count;
extern const struct ha_unicode_range ha_unicode_numbers[];
extern const int64_t ha_unicode_numbers_count;

/* Code points that the library's normal forms leave alone: no decomposition, class 0. */
extern const struct ha_unicode_range ha_unicode_inert[];
extern const int64_t ha_unicode_inert_count;

#endif
