/* bpe.h - byte pair encoding: a word into ids
 *
 * The word's characters are looked up in the vocabulary (unknown ones become
 * byte tokens or the unknown token), then the pair with the lowest merge rank,
 * leftmost among equals, is merged until none is left. */
#ifndef HA_WORKER_TOKENIZER_BPE_H
#define HA_WORKER_TOKENIZER_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_bpe;
struct ha_bytemap;
struct ha_error;
struct ha_ids;
struct ha_json;

/* model: the object "model" of tokenizer.json.  byte_level: words are raw bytes, the vocabulary is
 * written in the byte alphabet. */
int ha_bpe_create(const struct ha_json *model, bool byte_level, struct ha_bpe **ret_bpe,
                  struct ha_error *err);

void ha_bpe_destroy(struct ha_bpe *bpe);

/* Pieces as the file writes them -> id. */
const struct ha_bytemap *ha_bpe_vocab(const struct ha_bpe *bpe);

/* Bytes of a word that this piece of the vocabulary stands for. */
uint32_t ha_bpe_piece_bytes(const struct ha_bpe *bpe, const char *piece, uint32_t size);

/* Append the ids of a word (size > 0).  Returns 0 or -ENOMEM. */
int ha_bpe_encode(struct ha_bpe *bpe, const char *word, size_t size, struct ha_ids *ids);

#endif
