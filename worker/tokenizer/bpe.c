#include "worker/tokenizer/bpe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "common/conf/json.h"
#include "worker/tokenizer/byte_alphabet.h"
#include "worker/tokenizer/bytemap.h"
#include "worker/tokenizer/merges.h"
#include "worker/tokenizer/tokenizer.h"

enum {
    ID_LIMIT = 1 << 24,      /* ids of a vocabulary are below it */
    CACHED_WORD_BYTES = 256, /* longer words are not kept */
    CACHE_ENTRIES = 1 << 18, /* then the cache begins anew */
    BORDER_BITS = 20,        /* see borders */
    PLANE_CODES = 0x10000,
};

/* Ids of a cached word: ids.data[offset .. offset + count). */
struct span {
    int64_t offset;
    int32_t count;
};

struct ha_bpe {
    struct ha_bytemap vocab;
    struct ha_bytemap raw; /* byte_level and ignore_merges: pieces as raw bytes */
    struct ha_merges merges;
    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    int32_t unk_id;           /* -1: unknown characters vanish */
    int32_t byte_token[256];  /* "<0x00>" ... of byte_fallback; -1 */
    int32_t alphabet_id[256]; /* byte_level: id of a byte's character; -1 */
    int32_t *plane_id;        /* [PLANE_CODES] id of a character of the first plane; -1 */

    /* Characters a, b that some merge joins across its border, as bits at a hash of (a, b); a bit
     * set for nothing does no harm.  Where the bit is not set no merge can cross between the two
     * (when both are in the vocabulary, so that each is a symbol), and a long word falls apart into
     * short ones that the cache knows.  NULL: not to be used. */
    uint64_t *borders;

    struct ha_bytemap cache; /* word -> index of spans */
    struct span *spans;
    int64_t span_capacity;
    struct ha_ids cached;

    struct ha_ids symbols; /* scratch */
    struct ha_merge_scratch scratch;
};

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for the vocabulary");
}

static int read_vocab(struct ha_bpe *bpe, const struct ha_json *json, struct ha_error *err)
{
    void *iterator = NULL;
    const char *piece;
    struct ha_json *value;

    if (!ha_json_is(json, HA_JSON_OBJECT) || ha_json_size(json) == 0)
        return ha_error_set(err, EINVAL, "model.vocab is missing or empty");
    while (ha_json_next(json, &iterator, &piece, &value)) {
        int64_t id = ha_json_int(value, -1);

        if (id < 0 || id >= ID_LIMIT)
            return ha_error_set(err, EINVAL, "model.vocab: the id of \"%s\" is not from 0 to %d",
                                piece, ID_LIMIT - 1);
        if (ha_bytemap_put(&bpe->vocab, piece, strlen(piece), (int32_t)id) < 0)
            return no_memory(err);
    }
    return 0;
}

static int32_t find(const struct ha_bpe *bpe, const char *text, size_t size)
{
    return ha_bytemap_get(&bpe->vocab, text, size);
}

struct halves {
    const char *left, *right;
    size_t left_size, right_size;
};

/* A merge is "left right" or ["left", "right"]. */
static bool read_halves(const struct ha_json *json, struct halves *halves)
{
    const char *text = ha_json_string(json, NULL), *space;
    size_t size = ha_json_string_size(json);

    if (!text) {
        const struct ha_json *left = ha_json_at(json, 0), *right = ha_json_at(json, 1);

        *halves = (struct halves){ha_json_string(left, NULL), ha_json_string(right, NULL),
                                  ha_json_string_size(left), ha_json_string_size(right)};
        return ha_json_size(json) == 2 && halves->left && halves->right;
    }
    space = memchr(text, ' ', size);
    if (!space || memchr(space + 1, ' ', size - (size_t)(space - text) - 1))
        return false;
    *halves =
        (struct halves){text, space + 1, (size_t)(space - text), size - (size_t)(space - text) - 1};
    return true;
}

static uint64_t border_bit(uint32_t left, uint32_t right)
{
    return ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - BORDER_BITS);
}

static bool is_byte_token(const char *text, size_t size)
{
    return size == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>';
}

/* Note the characters on both sides of a merge's border. */
static void note_border(struct ha_bpe *bpe, const struct halves *h)
{
    uint32_t left = 0, right = 0;
    size_t at = h->left_size;
    uint64_t bit;

    if (!bpe->borders)
        return;
    while (at > 0 && ((uint8_t)h->left[--at] & 0xc0) == 0x80)
        ;
    if (ha_utf8_decode(h->left + at, h->left_size - at, &left) == 0 ||
        ha_utf8_decode(h->right, h->right_size, &right) == 0) {
        free(bpe->borders);
        bpe->borders = NULL;
        return;
    }
    bit = border_bit(left, right);
    bpe->borders[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static int read_merge(struct ha_bpe *bpe, const struct ha_json *json, int64_t rank, char **joined,
                      int64_t *joined_capacity, struct ha_error *err)
{
    struct halves h;
    int32_t left, right, id;

    if (!read_halves(json, &h))
        return ha_error_set(err, EINVAL, "model.merges[%lld] is not a pair", (long long)rank);
    if (ha_grow((void **)joined, joined_capacity, (int64_t)(h.left_size + h.right_size) + 1, 1) < 0)
        return no_memory(err);
    memcpy(*joined, h.left, h.left_size);
    memcpy(*joined + h.left_size, h.right, h.right_size);
    left = find(bpe, h.left, h.left_size);
    right = find(bpe, h.right, h.right_size);
    id = find(bpe, *joined, h.left_size + h.right_size);
    if (left < 0 || right < 0 || id < 0)
        return ha_error_set(err, EINVAL,
                            "model.merges[%lld] names a piece that is not in the "
                            "vocabulary",
                            (long long)rank);
    ha_merges_put(&bpe->merges, left, right, (uint32_t)rank, id);
    note_border(bpe, &h);
    return 0;
}

static int read_merges(struct ha_bpe *bpe, const struct ha_json *json, struct ha_error *err)
{
    int64_t n = ha_json_size(json), rank = 0, capacity = 0;
    char *joined = NULL;
    int r = 0;

    if (!ha_json_is(json, HA_JSON_ARRAY))
        return ha_error_set(err, EINVAL, "model.merges is missing");
    if (n >= INT32_MAX || ha_merges_create(&bpe->merges, n) < 0)
        return no_memory(err);
    if (!bpe->byte_level)
        bpe->borders = ha_calloc((1 << BORDER_BITS) / 64, sizeof(*bpe->borders));
    for (int64_t i = 0; i < n && r == 0; i++) {
        const struct ha_json *merge = ha_json_at(json, i);

        if (strncmp(ha_json_string(merge, ""), "#version", 8) != 0)
            r = read_merge(bpe, merge, rank++, &joined, &capacity, err);
    }
    free(joined);
    return r;
}

static int refuse_unsupported(const struct ha_json *model, struct ha_error *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = ha_json_string(ha_json_get(model, "type"), "BPE");

    if (strcmp(type, "BPE") != 0)
        return ha_error_set(err, ENOTSUP, "model of type \"%s\" is not supported", type);
    if (ha_json_real(ha_json_get(model, "dropout"), 0) != 0)
        return ha_error_set(err, ENOTSUP, "model.dropout is not supported");
    for (int i = 0; i < 2; i++)
        if (ha_json_string(ha_json_get(model, affixes[i]), "")[0])
            return ha_error_set(err, ENOTSUP, "model.%s is not supported", affixes[i]);
    return 0;
}

/* Look-up tables of single characters, byte tokens and raw pieces. */
static int make_tables(struct ha_bpe *bpe, struct ha_error *err)
{
    bpe->plane_id = ha_calloc(PLANE_CODES, sizeof(*bpe->plane_id));
    if (!bpe->plane_id)
        return no_memory(err);
    for (uint32_t code = 0; code < PLANE_CODES; code++)
        bpe->plane_id[code] = -1;
    for (int64_t i = 0; i < bpe->vocab.count; i++) {
        const struct ha_bytemap_entry *e = &bpe->vocab.entries[i];
        uint32_t code = 0;

        if (e->size > 0 &&
            ha_utf8_decode(ha_bytemap_key(&bpe->vocab, i), e->size, &code) == e->size &&
            code < PLANE_CODES)
            bpe->plane_id[code] = e->value;
    }
    for (int byte = 0; byte < 256; byte++) {
        char name[8];

        (void)snprintf(name, sizeof(name), "<0x%02X>", (unsigned)byte & 0xffu);
        bpe->byte_token[byte] = bpe->byte_fallback ? find(bpe, name, strlen(name)) : -1;
        bpe->alphabet_id[byte] = bpe->plane_id[ha_byte_alphabet_code((uint8_t)byte)];
    }
    return 0;
}

static int make_raw_pieces(struct ha_bpe *bpe, struct ha_error *err)
{
    char *raw = NULL;
    int64_t capacity = 0;
    int r = 0;

    for (int64_t i = 0; i < bpe->vocab.count && r == 0; i++) {
        const struct ha_bytemap_entry *e = &bpe->vocab.entries[i];
        int64_t n;

        r = ha_grow((void **)&raw, &capacity, (int64_t)e->size + 1, 1);
        if (r < 0)
            break;
        n = ha_byte_alphabet_unmap(ha_bytemap_key(&bpe->vocab, i), e->size, raw);
        if (n >= 0)
            r = ha_bytemap_put(&bpe->raw, raw, (size_t)n, e->value);
    }
    free(raw);
    return r < 0 ? no_memory(err) : 0;
}

static int read_unk(struct ha_bpe *bpe, const struct ha_json *json, struct ha_error *err)
{
    const char *unk = ha_json_string(json, NULL);

    bpe->unk_id = unk ? find(bpe, unk, ha_json_string_size(json)) : -1;
    if (unk && bpe->unk_id < 0)
        return ha_error_set(err, EINVAL, "model.unk_token \"%s\" is not in the vocabulary", unk);
    return 0;
}

int ha_bpe_create(const struct ha_json *model, bool byte_level, struct ha_bpe **ret_bpe,
                  struct ha_error *err)
{
    struct ha_bpe *bpe;
    int r = refuse_unsupported(model, err);

    if (r < 0)
        return r;
    bpe = calloc(1, sizeof(*bpe));
    if (!bpe)
        return no_memory(err);
    bpe->byte_level = byte_level;
    bpe->byte_fallback = ha_json_bool(ha_json_get(model, "byte_fallback"), false);
    bpe->fuse_unk = ha_json_bool(ha_json_get(model, "fuse_unk"), false);
    bpe->ignore_merges = ha_json_bool(ha_json_get(model, "ignore_merges"), false);
    r = read_vocab(bpe, ha_json_get(model, "vocab"), err);
    if (r == 0)
        r = read_merges(bpe, ha_json_get(model, "merges"), err);
    if (r == 0)
        r = read_unk(bpe, ha_json_get(model, "unk_token"), err);
    if (r == 0)
        r = make_tables(bpe, err);
    if (r == 0 && bpe->byte_level && bpe->ignore_merges)
        r = make_raw_pieces(bpe, err);
    if (r < 0) {
        ha_bpe_destroy(bpe);
        return r;
    }
    *ret_bpe = bpe;
    return 0;
}

void ha_bpe_destroy(struct ha_bpe *bpe)
{
    if (!bpe)
        return;
    ha_bytemap_clear(&bpe->vocab);
    ha_bytemap_clear(&bpe->raw);
    ha_bytemap_clear(&bpe->cache);
    ha_merges_clear(&bpe->merges);
    free(bpe->plane_id);
    free(bpe->borders);
    free(bpe->spans);
    ha_ids_clear(&bpe->cached);
    ha_ids_clear(&bpe->symbols);
    ha_merge_scratch_clear(&bpe->scratch);
    free(bpe);
}

const struct ha_bytemap *ha_bpe_vocab(const struct ha_bpe *bpe)
{
    return &bpe->vocab;
}

uint32_t ha_bpe_piece_bytes(const struct ha_bpe *bpe, const char *piece, uint32_t size)
{
    uint32_t bytes = 0;

    if (bpe->byte_fallback && is_byte_token(piece, size))
        return 1;
    if (!bpe->byte_level)
        return size;
    /* A byte is one character of the alphabet. */
    for (uint32_t i = 0; i < size; i++)
        bytes += ((uint8_t)piece[i] & 0xc0) != 0x80;
    return bytes;
}

/* Id of one character, or -1. */
static int32_t char_id(const struct ha_bpe *bpe, const char *text, size_t size, uint32_t code)
{
    return code < PLANE_CODES ? bpe->plane_id[code] : find(bpe, text, size);
}

/* The unknown token that waits until a known character, or the end, shows whether more of it
 * follow. */
struct unknown {
    bool waiting;
};

static int settle(struct ha_bpe *bpe, struct unknown *unknown)
{
    if (!unknown->waiting)
        return 0;
    unknown->waiting = false;
    return ha_ids_append(&bpe->symbols, bpe->unk_id);
}

/* A character that the vocabulary does not have: its bytes' tokens, else the unknown token.  As in
 * the library, byte tokens do not settle an unknown one that waits. */
static int add_unknown(struct ha_bpe *bpe, const char *text, size_t size, struct unknown *unknown)
{
    bool all = bpe->byte_fallback;
    int r = 0;

    for (size_t i = 0; i < size; i++)
        all = all && bpe->byte_token[(uint8_t)text[i]] >= 0;
    if (all) {
        for (size_t i = 0; i < size && r == 0; i++)
            r = ha_ids_append(&bpe->symbols, bpe->byte_token[(uint8_t)text[i]]);
        return r;
    }
    if (bpe->unk_id < 0)
        return 0;
    if (unknown->waiting && !bpe->fuse_unk)
        r = settle(bpe, unknown);
    unknown->waiting = true;
    return r;
}

static int add_byte(struct ha_bpe *bpe, uint8_t byte, struct unknown *unknown)
{
    char text[4];
    int r;

    if (bpe->alphabet_id[byte] < 0)
        return add_unknown(bpe, text, ha_utf8_encode(ha_byte_alphabet_code(byte), text), unknown);
    r = settle(bpe, unknown);
    return r < 0 ? r : ha_ids_append(&bpe->symbols, bpe->alphabet_id[byte]);
}

static int add_char(struct ha_bpe *bpe, const char *text, size_t size, uint32_t code,
                    struct unknown *unknown)
{
    int32_t id = char_id(bpe, text, size, code);
    int r;

    if (id < 0)
        return add_unknown(bpe, text, size, unknown);
    r = settle(bpe, unknown);
    return r < 0 ? r : ha_ids_append(&bpe->symbols, id);
}

static int fill_symbols(struct ha_bpe *bpe, const char *word, size_t size)
{
    struct unknown unknown = {false};
    int r = 0;

    bpe->symbols.count = 0;
    if (bpe->byte_level) {
        for (size_t i = 0; i < size && r == 0; i++)
            r = add_byte(bpe, (uint8_t)word[i], &unknown);
    } else {
        for (size_t i = 0; i < size && r == 0;) {
            uint32_t code = 0;
            size_t n = ha_utf8_decode(word + i, size - i, &code);

            r = n > 0 ? add_char(bpe, word + i, n, code, &unknown) : -EILSEQ;
            i += n;
        }
    }
    return r < 0 ? r : settle(bpe, &unknown);
}

static int append_all(struct ha_ids *ids, const int32_t *from, int64_t n)
{
    if (ha_grow((void **)&ids->data, &ids->capacity, ids->count + n, sizeof(*ids->data)) < 0)
        return -ENOMEM;
    if (n > 0)
        memcpy(ids->data + ids->count, from, (size_t)n * sizeof(*from));
    ids->count += n;
    return 0;
}

static int keep(struct ha_bpe *bpe, const char *word, size_t size)
{
    struct span span = {bpe->cached.count, (int32_t)bpe->symbols.count};

    if (bpe->cache.count >= CACHE_ENTRIES) {
        ha_bytemap_reset(&bpe->cache);
        bpe->cached.count = span.offset = 0;
    }
    if (ha_grow((void **)&bpe->spans, &bpe->span_capacity, bpe->cache.count + 1,
                sizeof(*bpe->spans)) < 0)
        return -ENOMEM;
    bpe->spans[bpe->cache.count] = span;
    if (append_all(&bpe->cached, bpe->symbols.data, bpe->symbols.count) < 0)
        return -ENOMEM;
    return ha_bytemap_put(&bpe->cache, word, size, (int32_t)bpe->cache.count);
}

static int encode_short(struct ha_bpe *bpe, const char *word, size_t size, struct ha_ids *ids)
{
    int32_t known = size < CACHED_WORD_BYTES ? ha_bytemap_get(&bpe->cache, word, size) : -1;
    int r;

    if (known >= 0 && bpe->spans[known].count == 0)
        return 0;
    if (known >= 0)
        return append_all(ids, bpe->cached.data + bpe->spans[known].offset,
                          bpe->spans[known].count);
    r = fill_symbols(bpe, word, size);
    if (r == 0)
        r = ha_merges_apply(&bpe->merges, &bpe->scratch, bpe->symbols.data, &bpe->symbols.count);
    if (r == 0 && size < CACHED_WORD_BYTES)
        r = keep(bpe, word, size);
    return r < 0 ? r : append_all(ids, bpe->symbols.data, bpe->symbols.count);
}

/* Cut the word where no merge can cross, between two characters of the vocabulary. */
static int encode_in_parts(struct ha_bpe *bpe, const char *word, size_t size, struct ha_ids *ids)
{
    size_t begin = 0;
    uint32_t previous = 0;
    bool previous_known = false;
    int r = 0;

    for (size_t i = 0; i < size && r == 0;) {
        uint32_t code = 0;
        size_t n = ha_utf8_decode(word + i, size - i, &code);
        bool known = n > 0 && char_id(bpe, word + i, n, code) >= 0;
        uint64_t bit = border_bit(previous, code);

        if (n == 0)
            return -EILSEQ;
        if (known && previous_known && !(bpe->borders[bit / 64] >> (bit % 64) & 1)) {
            r = encode_short(bpe, word + begin, i - begin, ids);
            begin = i;
        }
        previous = code;
        previous_known = known;
        i += n;
    }
    return r < 0 ? r : encode_short(bpe, word + begin, size - begin, ids);
}

int ha_bpe_encode(struct ha_bpe *bpe, const char *word, size_t size, struct ha_ids *ids)
{
    if (bpe->ignore_merges) {
        int32_t id = ha_bytemap_get(bpe->byte_level ? &bpe->raw : &bpe->vocab, word, size);

        if (id >= 0)
            return ha_ids_append(ids, id);
    }
    if (bpe->borders)
        return encode_in_parts(bpe, word, size, ids);
    return encode_short(bpe, word, size, ids);
}
