/* normalize.h - normalizers: NFC, NFD, NFKC, NFKD, Prepend, Replace (of a string), Sequence */
#ifndef HA_WORKER_TOKENIZER_NORMALIZE_H
#define HA_WORKER_TOKENIZER_NORMALIZE_H

#include <stddef.h>

struct ha_error;
struct ha_json;
struct ha_normalizer;

/* json: the object of tokenizer.json; NULL or null gives a normalizer that changes nothing. */
int ha_normalizer_create(const struct ha_json *json, struct ha_normalizer **ret_normalizer,
                         struct ha_error *err);

void ha_normalizer_destroy(struct ha_normalizer *normalizer);

/* Normalise text [size] (valid UTF-8).  The result is text itself where nothing changes, else it
 * belongs to the normalizer and is valid until the next run. */
int ha_normalizer_run(struct ha_normalizer *normalizer, const char *text, size_t size,
                      const char **ret_text, size_t *ret_size, struct ha_error *err);

#endif
