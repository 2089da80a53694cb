#include "worker/tokenizer/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "worker/tokenizer/bytemap.h"
#include "worker/tokenizer/internal.h"

void ha_ids_clear(struct ha_ids *ids)
{
    free(ids->data);
    *ids = (struct ha_ids){0};
}

int ha_ids_append(struct ha_ids *ids, int32_t id)
{
    if (ids->count == ids->capacity &&
        ha_grow((void **)&ids->data, &ids->capacity, ids->count + 1, sizeof(*ids->data)) < 0)
        return -ENOMEM;
    ids->data[ids->count++] = id;
    return 0;
}

/* ---- encode ---- */

struct encoding {
    struct ha_tokenizer *tokenizer;
    struct ha_ids *ids;
    struct ha_error *err;
};

static int take_word(void *context, const char *word, size_t size)
{
    struct encoding *e = context;
    int r = ha_bpe_encode(e->tokenizer->bpe, word, size, e->ids);

    return r < 0 ? ha_error_set(e->err, -r, "no memory to encode a word of %zu bytes", size) : 0;
}

static int take_id(struct encoding *e, int32_t id)
{
    if (ha_ids_append(e->ids, id) < 0)
        return ha_error_set(e->err, ENOMEM, "no memory for %lld ids", (long long)e->ids->count);
    return 0;
}

/* A piece between added tokens that are not normalised: normalise it, find the added tokens that
 * are, and split the rest into words. */
static int encode_piece(struct encoding *e, const char *text, size_t size, bool first)
{
    struct ha_added_walk walk = {.normalized = true};
    struct ha_added_piece piece;
    int r = ha_normalizer_run(e->tokenizer->normalizer, text, size, &text, &size, e->err);

    while (r == 0 && ha_added_next(e->tokenizer->added, text, size, &walk, &piece)) {
        if (piece.id >= 0)
            r = take_id(e, piece.id);
        else
            r = ha_pretok_run(e->tokenizer->pretok, text + piece.start, piece.end - piece.start,
                              first && piece.start == 0, take_word, e, e->err);
    }
    return r;
}

static int encode_text(struct encoding *e, const char *text, size_t size)
{
    struct ha_added_walk walk = {.normalized = false};
    struct ha_added_piece piece;
    int r = 0;

    while (r == 0 && ha_added_next(e->tokenizer->added, text, size, &walk, &piece)) {
        if (piece.id >= 0)
            r = take_id(e, piece.id);
        else
            r = encode_piece(e, text + piece.start, piece.end - piece.start, piece.start == 0);
    }
    return r;
}

int ha_tokenizer_encode(struct ha_tokenizer *tokenizer, const char *text, size_t size,
                        bool add_special, struct ha_ids *ids, struct ha_error *err)
{
    const struct ha_template *template = &tokenizer->template;
    struct encoding e = {tokenizer, ids, err};
    size_t valid = ha_utf8_valid(text, size);
    int64_t count = ids->count;
    int r = 0;

    if (valid < size)
        return ha_error_set(err, EILSEQ, "the text is not UTF-8 at byte %zu (0x%02x)", valid,
                            (unsigned)text[valid] & 0xffu);
    for (int64_t i = 0; i < template->before.count && add_special && r == 0; i++)
        r = take_id(&e, template->before.data[i]);
    if (r == 0)
        r = encode_text(&e, text, size);
    for (int64_t i = 0; i < template->behind.count && add_special && r == 0; i++)
        r = take_id(&e, template->behind.data[i]);
    if (r < 0)
        ids->count = count;
    return r;
}

/* ---- decode ---- */

struct ha_tokenizer_stream {
    const struct ha_tokenizer *tokenizer;
    struct ha_decoding *decoding;
    struct ha_buffer text;
    bool skip_special;
};

int ha_tokenizer_stream_create(const struct ha_tokenizer *tokenizer, bool skip_special,
                               struct ha_tokenizer_stream **ret_stream, struct ha_error *err)
{
    struct ha_tokenizer_stream *stream = calloc(1, sizeof(*stream));
    int r;

    if (!stream)
        return ha_error_set(err, ENOMEM, "no memory to decode");
    r = ha_decoding_create(tokenizer->decoder, &stream->decoding, err);
    if (r < 0) {
        free(stream);
        return r;
    }
    stream->tokenizer = tokenizer;
    stream->skip_special = skip_special;
    ha_buffer_init(&stream->text, 0);
    *ret_stream = stream;
    return 0;
}

void ha_tokenizer_stream_destroy(struct ha_tokenizer_stream *stream)
{
    if (!stream)
        return;
    ha_decoding_destroy(stream->decoding);
    ha_buffer_clear(&stream->text);
    free(stream);
}

/* Append what id adds to stream->text. */
static int push(struct ha_tokenizer_stream *stream, int32_t id, struct ha_error *err)
{
    const struct ha_tokenizer *t = stream->tokenizer;
    const struct ha_piece *piece = id >= 0 && id < t->n_pieces ? &t->pieces[id] : NULL;
    int r = 0;

    if (piece && piece->text && !(stream->skip_special && piece->special))
        r = ha_decoding_push(stream->decoding, piece->text, piece->size, &stream->text);
    return r < 0 ? ha_error_set(err, -r, "no memory to decode") : 0;
}

static int finish(struct ha_tokenizer_stream *stream, struct ha_error *err)
{
    int r = ha_decoding_finish(stream->decoding, &stream->text);

    return r < 0 ? ha_error_set(err, -r, "no memory to decode") : 0;
}

int ha_tokenizer_stream_push(struct ha_tokenizer_stream *stream, int32_t id, const char **ret_text,
                             size_t *ret_size, struct ha_error *err)
{
    int r;

    ha_buffer_reset(&stream->text);
    r = push(stream, id, err);
    if (r < 0)
        return r;
    *ret_text = ha_buffer_text(&stream->text);
    *ret_size = stream->text.size;
    return 0;
}

int ha_tokenizer_stream_finish(struct ha_tokenizer_stream *stream, const char **ret_text,
                               size_t *ret_size, struct ha_error *err)
{
    int r;

    ha_buffer_reset(&stream->text);
    r = finish(stream, err);
    if (r < 0)
        return r;
    *ret_text = ha_buffer_text(&stream->text);
    *ret_size = stream->text.size;
    return 0;
}

int ha_tokenizer_decode(const struct ha_tokenizer *tokenizer, const int32_t *ids, int64_t n,
                        bool skip_special, char **ret_text, size_t *ret_size, struct ha_error *err)
{
    struct ha_tokenizer_stream *stream;
    size_t size;
    char *text;
    int r = ha_tokenizer_stream_create(tokenizer, skip_special, &stream, err);

    if (r < 0)
        return r;
    for (int64_t i = 0; i < n && r == 0; i++)
        r = push(stream, ids[i], err);
    if (r == 0)
        r = finish(stream, err);
    size = stream->text.size;
    text = r == 0 ? ha_buffer_detach(&stream->text) : NULL;
    ha_tokenizer_stream_destroy(stream);
    if (r < 0)
        return r;
    if (!text)
        return ha_error_set(err, ENOMEM, "no memory to decode");
    *ret_text = text;
    if (ret_size)
        *ret_size = size;
    return 0;
}

/* ---- the vocabulary ---- */

int32_t ha_tokenizer_token_to_id(const struct ha_tokenizer *t, const char *token)
{
    for (int64_t i = 0; i < ha_added_count(t->added); i++) {
        size_t size;
        const char *content = ha_added_content(t->added, i, &size);

        if (strlen(content) == size && strcmp(content, token) == 0)
            return ha_added_id(t->added, i);
    }
    return ha_bytemap_get(ha_bpe_vocab(t->bpe), token, strlen(token));
}

const char *ha_tokenizer_id_to_token(const struct ha_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_pieces ? t->pieces[id].text : NULL;
}

int64_t ha_tokenizer_id_bytes(const struct ha_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_pieces ? t->pieces[id].bytes : 0;
}

int64_t ha_tokenizer_vocab_size(const struct ha_tokenizer *t)
{
    return t->n_pieces;
}

bool ha_tokenizer_is_special(const struct ha_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_pieces && t->pieces[id].special;
}

int32_t ha_tokenizer_bos_id(const struct ha_tokenizer *t)
{
    return t->bos_id;
}

int32_t ha_tokenizer_eos_id(const struct ha_tokenizer *t)
{
    return t->eos_id;
}

const char *ha_tokenizer_bos_text(const struct ha_tokenizer *t)
{
    return t->bos_text;
}

const char *ha_tokenizer_eos_text(const struct ha_tokenizer *t)
{
    return t->eos_text;
}

int32_t ha_tokenizer_pad_id(const struct ha_tokenizer *t)
{
    return t->pad_id;
}

const char *ha_tokenizer_chat_template(const struct ha_tokenizer *t)
{
    return t->chat_template;
}
