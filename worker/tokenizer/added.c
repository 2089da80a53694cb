#include "worker/tokenizer/added.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "common/conf/json.h"
#include "worker/tokenizer/bytemap.h"
#include "worker/tokenizer/normalize.h"
#include "worker/tokenizer/regex.h"

struct token {
    char *content;
    size_t size;
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
};

/* A byte trie; node 0 is the root.  Children of a node are a list. */
struct node {
    int32_t child, sibling; /* 0: none */
    int32_t token;          /* -1: no token ends here */
    uint8_t byte;
};

struct trie {
    struct node *nodes;
    int64_t count, capacity;
    bool begins[256]; /* first bytes of the tokens */
};

struct ha_added {
    struct token *tokens;
    int64_t count, capacity;
    struct trie plain, normalized;
    struct ha_bytemap specials;
    struct ha_regex *word; /* one character of a word; only where a token has single_word */
};

static int new_node(struct trie *trie, uint8_t byte)
{
    if (trie->count >= INT32_MAX ||
        ha_grow((void **)&trie->nodes, &trie->capacity, trie->count + 1, sizeof(*trie->nodes)) < 0)
        return -ENOMEM;
    trie->nodes[trie->count] = (struct node){.token = -1, .byte = byte};
    return (int)trie->count++;
}

static int32_t find_child(const struct trie *trie, int32_t node, uint8_t byte)
{
    int32_t child = trie->nodes[node].child;

    while (child && trie->nodes[child].byte != byte)
        child = trie->nodes[child].sibling;
    return child;
}

static int trie_add(struct trie *trie, const char *text, size_t size, int32_t token)
{
    int32_t node = 0;

    if (trie->count == 0 && new_node(trie, 0) < 0)
        return -ENOMEM;
    trie->begins[(uint8_t)text[0]] = true;
    for (size_t i = 0; i < size; i++) {
        int32_t child = find_child(trie, node, (uint8_t)text[i]);

        if (!child) {
            child = new_node(trie, (uint8_t)text[i]);
            if (child < 0)
                return -ENOMEM;
            trie->nodes[child].sibling = trie->nodes[node].child;
            trie->nodes[node].child = child;
        }
        node = child;
    }
    /* Of two equal patterns the first wins. */
    if (trie->nodes[node].token < 0)
        trie->nodes[node].token = token;
    return 0;
}

/* Longest token that begins at text, or -1. */
static int32_t trie_match(const struct trie *trie, const char *text, size_t size, size_t *ret_size)
{
    int32_t node = 0, best = -1;

    for (size_t i = 0; i < size; i++) {
        node = find_child(trie, node, (uint8_t)text[i]);
        if (!node)
            break;
        if (trie->nodes[node].token >= 0) {
            best = trie->nodes[node].token;
            *ret_size = i + 1;
        }
    }
    return best;
}

static int read_token(const struct ha_json *json, const struct ha_bytemap *vocab, int32_t *next_id,
                      struct token *token, struct ha_error *err)
{
    const struct ha_json *content = ha_json_get(json, "content");
    const char *text = ha_json_string(content, NULL);
    int64_t id = ha_json_int(ha_json_get(json, "id"), -1);

    token->size = ha_json_string_size(content);
    if (!text || token->size == 0)
        return ha_error_set(err, EINVAL, "an added token has no content");
    token->content = ha_strndup(text, token->size);
    if (!token->content)
        return ha_error_set(err, ENOMEM, "no memory for the added tokens");
    token->special = ha_json_bool(ha_json_get(json, "special"), false);
    token->single_word = ha_json_bool(ha_json_get(json, "single_word"), false);
    token->lstrip = ha_json_bool(ha_json_get(json, "lstrip"), false);
    token->rstrip = ha_json_bool(ha_json_get(json, "rstrip"), false);
    token->normalized = ha_json_bool(ha_json_get(json, "normalized"), true);
    token->id = ha_bytemap_get(vocab, text, token->size);
    if (token->id < 0)
        token->id = (*next_id)++;
    if (id != token->id)
        return ha_error_set(err, ENOTSUP,
                            "added token \"%s\" has id %" PRId64
                            ", but the library would give it %" PRId32,
                            text, id, token->id);
    return 0;
}

static int index_token(struct ha_added *added, int32_t index, struct ha_normalizer *normalizer,
                       struct ha_error *err)
{
    const struct token *token = &added->tokens[index];
    const char *text = token->content;
    size_t size = token->size;
    int r;

    if (token->normalized) {
        r = ha_normalizer_run(normalizer, text, size, &text, &size, err);
        if (r < 0)
            return r;
        if (size == 0)
            return ha_error_set(err, ENOTSUP, "added token \"%s\" is empty when normalised",
                                token->content);
    }
    r = trie_add(token->normalized ? &added->normalized : &added->plain, text, size, index);
    if (r == 0 && token->special)
        r = ha_bytemap_put(&added->specials, token->content, token->size, 1);
    if (r < 0)
        return ha_error_set(err, ENOMEM, "no memory for the added tokens");
    return 0;
}

static int check_new(const struct ha_added *added, const struct token *token, struct ha_error *err)
{
    for (int64_t i = 0; i < added->count; i++)
        if (added->tokens[i].id == token->id)
            return ha_error_set(err, EINVAL, "added token \"%s\" occurs twice", token->content);
    return 0;
}

/* Special tokens stand before the others among equal patterns, as in the library. */
static int index_all(struct ha_added *added, struct ha_normalizer *normalizer, struct ha_error *err)
{
    bool words = false;
    int r = 0;

    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < added->count && r == 0; i++)
            if (added->tokens[i].special == (pass == 0))
                r = index_token(added, (int32_t)i, normalizer, err);
    for (int64_t i = 0; i < added->count; i++)
        words |= added->tokens[i].single_word;
    if (r == 0 && words)
        r = ha_regex_create_native("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]",
                                   &added->word, err);
    return r;
}

int ha_added_create(const struct ha_json *json, const struct ha_bytemap *vocab, int32_t next_id,
                    struct ha_normalizer *normalizer, struct ha_added **ret_added,
                    struct ha_error *err)
{
    struct ha_added *added = calloc(1, sizeof(*added));
    int r = 0;

    if (!added)
        return ha_error_set(err, ENOMEM, "no memory for the added tokens");
    for (int64_t i = 0; i < ha_json_size(json) && r == 0; i++) {
        struct token token = {0};

        r = read_token(ha_json_at(json, i), vocab, &next_id, &token, err);
        if (r == 0)
            r = check_new(added, &token, err);
        if (r == 0 &&
            ha_grow((void **)&added->tokens, &added->capacity, added->count + 1, sizeof(token)) < 0)
            r = ha_error_set(err, ENOMEM, "no memory for the added tokens");
        if (r < 0)
            free(token.content);
        else
            added->tokens[added->count++] = token;
    }
    if (r == 0)
        r = index_all(added, normalizer, err);
    if (r < 0) {
        ha_added_destroy(added);
        return r;
    }
    *ret_added = added;
    return 0;
}

void ha_added_destroy(struct ha_added *added)
{
    if (!added)
        return;
    for (int64_t i = 0; i < added->count; i++)
        free(added->tokens[i].content);
    free(added->tokens);
    free(added->plain.nodes);
    free(added->normalized.nodes);
    ha_bytemap_clear(&added->specials);
    ha_regex_destroy(added->word);
    free(added);
}

int64_t ha_added_count(const struct ha_added *added)
{
    return added->count;
}

const char *ha_added_content(const struct ha_added *added, int64_t index, size_t *ret_size)
{
    *ret_size = added->tokens[index].size;
    return added->tokens[index].content;
}

int32_t ha_added_id(const struct ha_added *added, int64_t index)
{
    return added->tokens[index].id;
}

bool ha_added_is_special(const struct ha_added *added, const char *text, size_t size)
{
    return ha_bytemap_get(&added->specials, text, size) >= 0;
}

/* Start of the character that ends at `end`. */
static size_t char_before(const char *text, size_t end)
{
    size_t start = end - 1;

    while (start > 0 && ((uint8_t)text[start] & 0xc0) == 0x80)
        start--;
    return start;
}

static bool is_word(struct ha_added *added, const char *text, size_t size)
{
    struct ha_regex_walk walk = {0, SIZE_MAX};
    size_t start, end;

    return ha_regex_next(added->word, text, size, &walk, &start, &end, NULL) > 0;
}

static bool stands_alone(struct ha_added *added, const char *text, size_t size, size_t start,
                         size_t end)
{
    if (start > 0) {
        size_t before = char_before(text, start);

        if (is_word(added, text + before, start - before))
            return false;
    }
    if (end == size)
        return true;
    return !is_word(added, text + end, ha_utf8_decode(text + end, size - end, NULL));
}

/* Unicode's White_Space. */
static bool is_space(uint32_t code)
{
    return (code >= 0x9 && code <= 0xd) || code == 0x20 || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

static size_t without_spaces_before(const char *text, size_t start)
{
    while (start > 0) {
        size_t before = char_before(text, start);
        uint32_t code = 0;

        (void)ha_utf8_decode(text + before, start - before, &code);
        if (!is_space(code))
            break;
        start = before;
    }
    return start;
}

static size_t with_spaces_after(const char *text, size_t size, size_t end)
{
    while (end < size) {
        uint32_t code = 0;
        size_t n = ha_utf8_decode(text + end, size - end, &code);

        if (!is_space(code))
            break;
        end += n;
    }
    return end;
}

/* Next token at or behind walk->from; its piece, with the spaces that it takes. */
static bool find_token(struct ha_added *added, const char *text, size_t size,
                       struct ha_added_walk *walk, struct ha_added_piece *ret_piece)
{
    const struct trie *trie = walk->normalized ? &added->normalized : &added->plain;

    if (trie->count == 0)
        return false;
    for (size_t at = walk->from; at < size;) {
        const struct token *token;
        size_t n = 0, start = at;
        int32_t index;

        if (!trie->begins[(uint8_t)text[at]]) {
            at++;
            continue;
        }
        index = trie_match(trie, text + at, size - at, &n);
        if (index < 0) {
            at++;
            continue;
        }
        token = &added->tokens[index];
        at = walk->from = start + n;
        if (token->single_word && !stands_alone(added, text, size, start, start + n))
            continue;
        if (token->lstrip) {
            start = without_spaces_before(text, start);
            /* Spaces that the token before has taken stay with it. */
            if (start < walk->given)
                start = walk->given;
        }
        *ret_piece = (struct ha_added_piece){
            start, token->rstrip ? with_spaces_after(text, size, at) : at, token->id};
        return true;
    }
    return false;
}

bool ha_added_next(struct ha_added *added, const char *text, size_t size,
                   struct ha_added_walk *walk, struct ha_added_piece *ret_piece)
{
    if (!walk->held && find_token(added, text, size, walk, &walk->token)) {
        walk->held = true;
        if (walk->given < walk->token.start) {
            *ret_piece = (struct ha_added_piece){walk->given, walk->token.start, -1};
            return true;
        }
    }
    if (walk->held) {
        walk->held = false;
        *ret_piece = walk->token;
        walk->given = walk->token.end;
        return true;
    }
    if (walk->given >= size)
        return false;
    *ret_piece = (struct ha_added_piece){walk->given, size, -1};
    walk->given = walk->from = size;
    return true;
}
