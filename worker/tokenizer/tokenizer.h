/* tokenizer.h - text <-> token ids, as the Hugging Face `tokenizers` library
 *
 * Reads tokenizer.json and tokenizer_config.json of a model directory.  Ids
 * and texts equal the library's on every valid UTF-8 string; what this code
 * does not have (a normalizer, a model type ...) is refused at load by name.
 *
 * A tokenizer keeps a cache of the words it has seen and is therefore for one
 * thread at a time. */
#ifndef HA_WORKER_TOKENIZER_TOKENIZER_H
#define HA_WORKER_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_error;
struct ha_tokenizer;

/* A growing array of ids; start with {0}, end with ha_ids_clear. */
struct ha_ids {
    int32_t *data;
    int64_t count;
    int64_t capacity;
};

void ha_ids_clear(struct ha_ids *ids);

/* Returns 0 or -ENOMEM. */
int ha_ids_append(struct ha_ids *ids, int32_t id);

int ha_tokenizer_load(const char *model_dir, struct ha_tokenizer **ret_tokenizer,
                      struct ha_error *err);

void ha_tokenizer_destroy(struct ha_tokenizer *tokenizer);

/* Append the ids of size bytes of text to ids.  add_special: let the post-processor add what the
 * model wants (BOS ...), as tokenizer(text) does.  Added tokens in the text (EOS written out ...)
 * are recognised in both cases.  -EILSEQ when text is not UTF-8 (the error names the byte);
 * ids is then unchanged. */
int ha_tokenizer_encode(struct ha_tokenizer *tokenizer, const char *text, size_t size,
                        bool add_special, struct ha_ids *ids, struct ha_error *err);

/* Text of n ids, zero-terminated, that the caller frees; ret_size (may be NULL) is its length.
 * skip_special leaves out special tokens.  Ids without a token are passed over, as the library
 * does. */
int ha_tokenizer_decode(const struct ha_tokenizer *tokenizer, const int32_t *ids, int64_t n,
                        bool skip_special, char **ret_text, size_t *ret_size, struct ha_error *err);

/* -1 when there is none. */
int32_t ha_tokenizer_token_to_id(const struct ha_tokenizer *tokenizer, const char *token);

/* The piece as it stands in the vocabulary; NULL when there is none. */
const char *ha_tokenizer_id_to_token(const struct ha_tokenizer *tokenizer, int32_t id);

/* Bytes of normalised text that the id stands for in ids of encode: where the text of a part of
 * the ids ends.  0 for an id without a token. */
int64_t ha_tokenizer_id_bytes(const struct ha_tokenizer *tokenizer, int32_t id);

/* Largest id + 1, added tokens included: no id of encode is larger.  The model's embedding may
 * have more rows. */
int64_t ha_tokenizer_vocab_size(const struct ha_tokenizer *tokenizer);

bool ha_tokenizer_is_special(const struct ha_tokenizer *tokenizer, int32_t id);

/* From tokenizer_config.json; -1 / NULL when the tokenizer has none (Qwen has no BOS). */
int32_t ha_tokenizer_bos_id(const struct ha_tokenizer *tokenizer);
int32_t ha_tokenizer_eos_id(const struct ha_tokenizer *tokenizer);
const char *ha_tokenizer_bos_text(const struct ha_tokenizer *tokenizer);
const char *ha_tokenizer_eos_text(const struct ha_tokenizer *tokenizer);

/* The pad token, or EOS where there is no pad token. */
int32_t ha_tokenizer_pad_id(const struct ha_tokenizer *tokenizer);

/* The chat template, a Jinja program, from chat_template.jinja or else tokenizer_config.json (of
 * several the one named "default"); NULL when there is none. */
const char *ha_tokenizer_chat_template(const struct ha_tokenizer *tokenizer);

/* Decoding while ids arrive, for generation.  The texts of all pushes and of the finish, joined,
 * equal ha_tokenizer_decode of all ids.  Bytes that are not yet a whole character, and runs of
 * byte tokens that may still turn out not to be UTF-8, are held back. */
struct ha_tokenizer_stream;

/* tokenizer must outlive the stream. */
int ha_tokenizer_stream_create(const struct ha_tokenizer *tokenizer, bool skip_special,
                               struct ha_tokenizer_stream **ret_stream, struct ha_error *err);

void ha_tokenizer_stream_destroy(struct ha_tokenizer_stream *stream);

/* ret_text: the new text, "" when nothing can be said yet; valid until the next call. */
int ha_tokenizer_stream_push(struct ha_tokenizer_stream *stream, int32_t id, const char **ret_text,
                             size_t *ret_size, struct ha_error *err);

/* What is still held back (as U+FFFD where it is not UTF-8); the stream begins anew. */
int ha_tokenizer_stream_finish(struct ha_tokenizer_stream *stream, const char **ret_text,
                               size_t *ret_size, struct ha_error *err);

#endif
