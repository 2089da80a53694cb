#include "worker/tokenizer/decode.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "common/conf/json.h"
#include "worker/tokenizer/byte_alphabet.h"

enum stage_kind {
    STAGE_BYTE_LEVEL, /* all pieces become one text */
    STAGE_REPLACE,
    STAGE_BYTE_FALLBACK,
    STAGE_FUSE, /* all pieces become one text */
    STAGE_STRIP,
    STAGE_METASPACE,
};

struct stage {
    enum stage_kind kind;
    char *pattern, *content; /* Replace; Strip and Metaspace: content is their character */
    size_t pattern_size, content_size;
    int64_t start; /* Strip: characters from the start */
    bool never;    /* Metaspace: prepend_scheme "never" */
    bool fused;    /* what comes in are parts of one text */
};

struct ha_tokenizer_decoder {
    struct stage *stages;
    int64_t n_stages, capacity;
    bool spaced; /* no decoder at all */
};

struct stage_state {
    struct ha_buffer held; /* ByteLevel: a cut character; ByteFallback: the run of bytes; others:
                            * scratch */
    int64_t seen;          /* Strip: characters taken from the start; Metaspace: pieces */
    bool past_start;       /* Strip: something else than its character has come */
};

struct ha_decoding {
    const struct ha_tokenizer_decoder *decoder;
    struct stage_state *states; /* [n_stages] */
    struct ha_buffer *out;      /* of the call in progress */
    bool begun;
};

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* ---- from tokenizer.json ---- */

static int copy_text(const struct ha_json *json, const char *what, char **ret_text,
                     size_t *ret_size, struct ha_error *err)
{
    *ret_size = ha_json_string_size(json);
    if (*ret_size == 0 && !ha_json_is(json, HA_JSON_STRING))
        return ha_error_set(err, ENOTSUP, "decoder: %s is not a string", what);
    *ret_text = ha_strndup(ha_json_string(json, ""), *ret_size);
    return *ret_text ? 0 : ha_error_set(err, ENOMEM, "no memory for a decoder");
}

static int fill_replace(const struct ha_json *json, struct stage *stage, struct ha_error *err)
{
    int r = copy_text(ha_json_get(ha_json_get(json, "pattern"), "String"),
                      "the pattern of Replace (a regular expression is not supported)",
                      &stage->pattern, &stage->pattern_size, err);

    if (r == 0 && stage->pattern_size == 0)
        r = ha_error_set(err, ENOTSUP, "decoder: Replace of an empty pattern is not supported");
    if (r == 0)
        r = copy_text(ha_json_get(json, "content"), "content", &stage->content,
                      &stage->content_size, err);
    return r;
}

static int fill_strip(const struct ha_json *json, struct stage *stage, struct ha_error *err)
{
    int64_t stop = ha_json_int(ha_json_get(json, "stop"), 0);
    int r = copy_text(ha_json_get(json, "content"), "content", &stage->content,
                      &stage->content_size, err);

    stage->start = ha_json_int(ha_json_get(json, "start"), 0);
    if (r == 0 &&
        (stage->content_size == 0 ||
         ha_utf8_decode(stage->content, stage->content_size, NULL) != stage->content_size ||
         stage->start < 0 || stop < 0))
        r = ha_error_set(err, EINVAL, "decoder: Strip needs one character and counts from 0");
    /* The library fails on a piece with fewer characters than it strips from the end. */
    if (r == 0 && stop > 0)
        r = ha_error_set(err, ENOTSUP, "decoder: Strip with stop = %lld is not supported",
                         (long long)stop);
    return r;
}

static int fill_metaspace(const struct ha_json *json, struct stage *stage, struct ha_error *err)
{
    stage->never =
        strcmp(ha_json_string(ha_json_get(json, "prepend_scheme"), "always"), "never") == 0;
    return copy_text(ha_json_get(json, "replacement"), "replacement", &stage->content,
                     &stage->content_size, err);
}

static int fill_stage(const struct ha_json *json, struct stage *stage, struct ha_error *err)
{
    static const struct {
        const char *name;
        enum stage_kind kind;
        int (*fill)(const struct ha_json *, struct stage *, struct ha_error *);
    } kinds[] = {
        {"ByteLevel", STAGE_BYTE_LEVEL, NULL},       {"Replace", STAGE_REPLACE, fill_replace},
        {"ByteFallback", STAGE_BYTE_FALLBACK, NULL}, {"Fuse", STAGE_FUSE, NULL},
        {"Strip", STAGE_STRIP, fill_strip},          {"Metaspace", STAGE_METASPACE, fill_metaspace},
    };
    const char *type = ha_json_string(ha_json_get(json, "type"), "");

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(type, kinds[i].name) == 0) {
            stage->kind = kinds[i].kind;
            if (stage->fused && stage->kind != STAGE_STRIP && stage->kind != STAGE_FUSE)
                return ha_error_set(err, ENOTSUP,
                                    "decoder: %s behind ByteLevel or Fuse is not supported", type);
            return kinds[i].fill ? kinds[i].fill(json, stage, err) : 0;
        }
    return ha_error_set(err, ENOTSUP, "decoder of type \"%s\" is not supported", type);
}

static int add_stages(struct ha_tokenizer_decoder *d, const struct ha_json *json,
                      struct ha_error *err)
{
    const struct ha_json *list = ha_json_get(json, "decoders");
    struct stage *stage;
    int r = 0;

    if (strcmp(ha_json_string(ha_json_get(json, "type"), ""), "Sequence") == 0) {
        for (int64_t i = 0; i < ha_json_size(list) && r == 0; i++)
            r = add_stages(d, ha_json_at(list, i), err);
        return r;
    }
    if (ha_grow((void **)&d->stages, &d->capacity, d->n_stages + 1, sizeof(*d->stages)) < 0)
        return ha_error_set(err, ENOMEM, "no memory for a decoder");
    stage = &d->stages[d->n_stages++];
    *stage = (struct stage){0};
    if (d->n_stages > 1)
        stage->fused =
            stage[-1].fused || stage[-1].kind == STAGE_FUSE || stage[-1].kind == STAGE_BYTE_LEVEL;
    return fill_stage(json, stage, err);
}

int ha_tokenizer_decoder_create(const struct ha_json *json,
                                struct ha_tokenizer_decoder **ret_decoder, struct ha_error *err)
{
    struct ha_tokenizer_decoder *d = calloc(1, sizeof(*d));
    int r = 0;

    if (!d)
        return ha_error_set(err, ENOMEM, "no memory for a decoder");
    if (json && !ha_json_is(json, HA_JSON_NULL))
        r = add_stages(d, json, err);
    else
        d->spaced = true;
    if (r < 0) {
        ha_tokenizer_decoder_destroy(d);
        return r;
    }
    *ret_decoder = d;
    return 0;
}

void ha_tokenizer_decoder_destroy(struct ha_tokenizer_decoder *d)
{
    if (!d)
        return;
    for (int64_t i = 0; i < d->n_stages; i++) {
        free(d->stages[i].pattern);
        free(d->stages[i].content);
    }
    free(d->stages);
    free(d);
}

/* ---- one decoding ---- */

int ha_decoding_create(const struct ha_tokenizer_decoder *decoder,
                       struct ha_decoding **ret_decoding, struct ha_error *err)
{
    struct ha_decoding *d = calloc(1, sizeof(*d));

    if (d)
        d->states = ha_calloc(decoder->n_stages, sizeof(*d->states));
    if (!d || !d->states) {
        free(d);
        return ha_error_set(err, ENOMEM, "no memory to decode");
    }
    d->decoder = decoder;
    for (int64_t i = 0; i < decoder->n_stages; i++)
        ha_buffer_init(&d->states[i].held, 0);
    *ret_decoding = d;
    return 0;
}

void ha_decoding_destroy(struct ha_decoding *d)
{
    if (!d)
        return;
    for (int64_t i = 0; i < d->decoder->n_stages; i++)
        ha_buffer_clear(&d->states[i].held);
    free(d->states);
    free(d);
}

static int feed(struct ha_decoding *d, int64_t index, const char *piece, size_t size);

/* Hand text to the stage behind `index`. */
static int pass(struct ha_decoding *d, int64_t index, const char *text, size_t size)
{
    return feed(d, index + 1, text, size);
}

/* Whole characters of held go on; what is not UTF-8 becomes U+FFFD; a cut character stays unless
 * this is the end. */
static int pass_valid(struct ha_decoding *d, int64_t index, bool end)
{
    struct ha_buffer *held = &d->states[index].held;
    size_t done = 0;
    int r = 0;

    while (done < held->size && r == 0) {
        size_t valid = ha_utf8_valid(held->data + done, held->size - done), n;
        bool cut;

        if (valid > 0)
            r = pass(d, index, held->data + done, valid);
        done += valid;
        if (r < 0 || done == held->size)
            break;
        n = ha_utf8_broken(held->data + done, held->size - done, &cut);
        if (cut && !end)
            break;
        r = pass(d, index, replacement, sizeof(replacement) - 1);
        done += n;
    }
    ha_buffer_consume(held, done);
    return r;
}

static int feed_byte_level(struct ha_decoding *d, int64_t index, const char *piece, size_t size)
{
    struct ha_buffer *held = &d->states[index].held;
    int64_t n;
    int r = ha_buffer_reserve(held, size);

    if (r < 0)
        return r;
    n = ha_byte_alphabet_unmap(piece, size, held->data + held->size);
    if (n < 0 && size > 0)
        memcpy(held->data + held->size, piece, size);
    held->size += n < 0 ? size : (size_t)n;
    held->data[held->size] = '\0';
    return pass_valid(d, index, false);
}

static int feed_replace(struct ha_decoding *d, int64_t index, const char *piece, size_t size)
{
    const struct stage *stage = &d->decoder->stages[index];
    struct ha_buffer *out = &d->states[index].held;
    size_t begin = 0;
    int r = 0;

    ha_buffer_reset(out);
    while (r == 0 && begin < size) {
        const char *found =
            memmem(piece + begin, size - begin, stage->pattern, stage->pattern_size);

        if (!found)
            break;
        r = ha_buffer_append(out, piece + begin, (size_t)(found - piece) - begin);
        if (r == 0)
            r = ha_buffer_append(out, stage->content, stage->content_size);
        begin = (size_t)(found - piece) + stage->pattern_size;
    }
    if (r == 0)
        r = ha_buffer_append(out, piece + begin, size - begin);
    return r < 0 ? r : pass(d, index, ha_buffer_text(out), out->size);
}

/* Value of "<0x41>"; -1 for another piece.  Rust's parser takes a plus sign for a digit. */
static int byte_of(const char *piece, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    int value = 0;

    if (size != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>')
        return -1;
    for (int i = piece[3] == '+' ? 4 : 3; i < 5; i++) {
        const char *digit = piece[i] ? strchr(digits, piece[i] | 0x20) : NULL;

        if (!digit || piece[i] < '0')
            return -1;
        value = value * 16 + (int)(digit - digits);
    }
    return value;
}

/* A run of byte tokens is one piece when all of it is UTF-8, else one U+FFFD for each. */
static int end_run(struct ha_decoding *d, int64_t index)
{
    struct ha_buffer *held = &d->states[index].held;
    int r = 0;

    if (held->size == 0)
        return 0;
    if (ha_utf8_valid(held->data, held->size) == held->size) {
        r = pass(d, index, held->data, held->size);
    } else {
        for (size_t i = 0; i < held->size && r == 0; i++)
            r = pass(d, index, replacement, sizeof(replacement) - 1);
    }
    ha_buffer_reset(held);
    return r;
}

static int feed_byte_fallback(struct ha_decoding *d, int64_t index, const char *piece, size_t size)
{
    int byte = byte_of(piece, size), r;

    if (byte >= 0) {
        char c = (char)byte;

        return ha_buffer_append(&d->states[index].held, &c, 1);
    }
    r = end_run(d, index);
    return r < 0 ? r : pass(d, index, piece, size);
}

static int feed_strip(struct ha_decoding *d, int64_t index, const char *piece, size_t size)
{
    const struct stage *stage = &d->decoder->stages[index];
    struct stage_state *state = &d->states[index];

    if (!stage->fused) {
        state->seen = 0;
        state->past_start = false;
    }
    while (!state->past_start && size > 0) {
        if (state->seen < stage->start && size >= stage->content_size &&
            memcmp(piece, stage->content, stage->content_size) == 0) {
            state->seen++;
            piece += stage->content_size;
            size -= stage->content_size;
        } else {
            state->past_start = true;
        }
    }
    return pass(d, index, piece, size);
}

static int feed_metaspace(struct ha_decoding *d, int64_t index, const char *piece, size_t size)
{
    const struct stage *stage = &d->decoder->stages[index];
    struct stage_state *state = &d->states[index];
    const bool drop = state->seen++ == 0 && !stage->never;
    struct ha_buffer *out = &state->held;
    int r = 0;

    ha_buffer_reset(out);
    for (size_t i = 0; i < size && r == 0;) {
        size_t n = ha_utf8_decode(piece + i, size - i, NULL);

        n = n > 0 ? n : 1;
        if (n != stage->content_size || memcmp(piece + i, stage->content, n) != 0)
            r = ha_buffer_append(out, piece + i, n);
        else if (!drop)
            r = ha_buffer_append(out, " ", 1);
        i += n;
    }
    return r < 0 ? r : pass(d, index, ha_buffer_text(out), out->size);
}

static int feed(struct ha_decoding *d, int64_t index, const char *piece, size_t size)
{
    if (index == d->decoder->n_stages)
        return ha_buffer_append(d->out, piece, size);
    switch (d->decoder->stages[index].kind) {
    case STAGE_BYTE_LEVEL:
        return feed_byte_level(d, index, piece, size);
    case STAGE_REPLACE:
        return feed_replace(d, index, piece, size);
    case STAGE_BYTE_FALLBACK:
        return feed_byte_fallback(d, index, piece, size);
    case STAGE_STRIP:
        return feed_strip(d, index, piece, size);
    case STAGE_METASPACE:
        return feed_metaspace(d, index, piece, size);
    case STAGE_FUSE:
        break;
    }
    return pass(d, index, piece, size);
}

int ha_decoding_push(struct ha_decoding *d, const char *piece, size_t size, struct ha_buffer *out)
{
    int r = 0;

    d->out = out;
    if (d->decoder->spaced && d->begun)
        r = ha_buffer_append(out, " ", 1);
    d->begun = true;
    return r < 0 ? r : feed(d, 0, piece, size);
}

int ha_decoding_finish(struct ha_decoding *d, struct ha_buffer *out)
{
    int r = 0;

    d->out = out;
    for (int64_t i = 0; i < d->decoder->n_stages && r == 0; i++) {
        if (d->decoder->stages[i].kind == STAGE_BYTE_LEVEL)
            r = pass_valid(d, i, true);
        else if (d->decoder->stages[i].kind == STAGE_BYTE_FALLBACK)
            r = end_run(d, i);
    }
    for (int64_t i = 0; i < d->decoder->n_stages; i++) {
        ha_buffer_reset(&d->states[i].held);
        d->states[i].seen = 0;
        d->states[i].past_start = false;
    }
    d->begun = false;
    return r;
}
