/* decode.h - decoders: pieces back into text, one piece at a time
 *
 * ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence.  A
 * decoder is a chain of stages; each takes a piece and hands what it makes of
 * it to the next, holding back what later pieces may change. */
#ifndef HA_WORKER_TOKENIZER_DECODE_H
#define HA_WORKER_TOKENIZER_DECODE_H

#include <stddef.h>

struct ha_buffer;
struct ha_tokenizer_decoder;
struct ha_decoding;
struct ha_error;
struct ha_json;

/* json: the object "decoder"; NULL or null: pieces are joined with a space between them. */
int ha_tokenizer_decoder_create(const struct ha_json *json,
                                struct ha_tokenizer_decoder **ret_decoder, struct ha_error *err);

void ha_tokenizer_decoder_destroy(struct ha_tokenizer_decoder *decoder);

/* The state of one decoding; the decoder must outlive it. */
int ha_decoding_create(const struct ha_tokenizer_decoder *decoder,
                       struct ha_decoding **ret_decoding, struct ha_error *err);

void ha_decoding_destroy(struct ha_decoding *decoding);

/* Append to out what can be said after this piece.  Returns 0, -ENOMEM or -EMSGSIZE. */
int ha_decoding_push(struct ha_decoding *decoding, const char *piece, size_t size,
                     struct ha_buffer *out);

/* Append what was held back; the decoding begins anew. */
int ha_decoding_finish(struct ha_decoding *decoding, struct ha_buffer *out);

#endif
