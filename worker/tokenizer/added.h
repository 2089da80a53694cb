/* added.h - added tokens: found in the text before anything else happens
 *
 * Tokens with normalized = false are looked for in the text as it came, the
 * others in the normalised pieces between them; leftmost first, longest of
 * those. */
#ifndef HA_WORKER_TOKENIZER_ADDED_H
#define HA_WORKER_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_added;
struct ha_bytemap;
struct ha_error;
struct ha_json;
struct ha_normalizer;

/* json: the array "added_tokens"; vocab: the model's vocabulary, which gives a token that it holds
 * its id; the others are numbered from next_id on.  An id in the file that differs is refused. */
int ha_added_create(const struct ha_json *json, const struct ha_bytemap *vocab, int32_t next_id,
                    struct ha_normalizer *normalizer, struct ha_added **ret_added,
                    struct ha_error *err);

void ha_added_destroy(struct ha_added *added);

int64_t ha_added_count(const struct ha_added *added);

/* Content (zero-terminated) and id of a token, in the order of the file. */
const char *ha_added_content(const struct ha_added *added, int64_t index, size_t *ret_size);
int32_t ha_added_id(const struct ha_added *added, int64_t index);

/* Is this text the content of a special token? */
bool ha_added_is_special(const struct ha_added *added, const char *text, size_t size);

/* A piece of the text: [start, end), and its token or -1. */
struct ha_added_piece {
    size_t start, end;
    int32_t id;
};

/* A walk over the pieces of one text; begin with all zero but `normalized`, which chooses the
 * tokens that are looked for. */
struct ha_added_walk {
    bool normalized;
    size_t from;  /* where the search goes on */
    size_t given; /* end of the last piece given */
    bool held;    /* a token was found behind a plain piece that is given first */
    struct ha_added_piece token;
};

/* Next piece, in order, never an empty plain one.  False at the end. */
bool ha_added_next(struct ha_added *added, const char *text, size_t size,
                   struct ha_added_walk *walk, struct ha_added_piece *ret_piece);

#endif
