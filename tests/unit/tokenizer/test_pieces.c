/* What the golden files do not show: refusals by name, borders, the parts' own interfaces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "worker/tokenizer/byte_alphabet.h"
#include "worker/tokenizer/bytemap.h"
#include "worker/tokenizer/merges.h"
#include "worker/tokenizer/regex.h"
#include "worker/tokenizer/tokenizer.h"

#define DEMO HA_SOURCE_ROOT "/deploy/demo/models/"

static void regex_refusals(void **state)
{
    static const char *const refused[] = {
        "\\w+", "\\d",     "a\\b",  "^a",      "a$",    "[[a]]", "[a&&b]", "\\p{Lu}", "[\\P{L}]",
        "(?x)", "(?<n>a)", "a{,3}", "a{2,3}+", "a{2}?", "\\v",   "[\\S]",  "[]a]",    "(?",
    };
    static const char *const broken[] = {"(", "a)", "[a", "*a"};
    struct ha_regex *regex = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct ha_error err = {0};

        assert_int_equal(ha_regex_create(refused[i], &regex, &err), -ENOTSUP);
        assert_non_null(strstr(err.text, refused[i]));
    }
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
        assert_true(ha_regex_create(broken[i], &regex, NULL) < 0);
}

static void regex_walk(void **state)
{
    struct ha_regex_walk walk = {0, SIZE_MAX};
    struct ha_regex *regex = NULL;
    size_t start, end, spans[4][2], n = 0;
    static const size_t expected[4][2] = {{0, 0}, {1, 3}, {5, 5}, {6, 6}};
    const char *text = "axx\xc3\xa9"
                       "b";

    (void)state;
    assert_int_equal(ha_regex_create("x*", &regex, NULL), 0);
    while (n < 4 && ha_regex_next(regex, text, strlen(text), &walk, &start, &end, NULL) > 0) {
        spans[n][0] = start;
        spans[n++][1] = end;
    }
    assert_int_equal(n, 4);
    assert_memory_equal(spans, expected, sizeof(spans));
    assert_int_equal(ha_regex_next(regex, text, strlen(text), &walk, &start, &end, NULL), 0);
    ha_regex_destroy(regex);
}

/* A megabyte of what makes backtracking engines run out of stack. */
static void regex_long_text(void **state)
{
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES);
    struct ha_regex_walk walk = {0, SIZE_MAX};
    struct ha_regex *regex = NULL;
    size_t start, end;

    (void)state;
    assert_non_null(text);
    memset(text, ' ', BYTES);
    assert_int_equal(ha_regex_create("(?:a| )+(?!\\S)|\\s+", &regex, NULL), 0);
    assert_int_equal(ha_regex_next(regex, text, BYTES, &walk, &start, &end, NULL), 1);
    assert_int_equal(start, 0);
    assert_int_equal(end, BYTES);
    ha_regex_destroy(regex);
    free(text);
}

static void alphabet(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        uint32_t code = ha_byte_alphabet_code((uint8_t)byte);

        assert_true(code > 0x20 && code < HA_BYTE_ALPHABET_CODES);
        assert_int_equal(ha_byte_alphabet_byte(code), byte);
    }
    assert_int_equal(ha_byte_alphabet_code(' '), 0x120);
    assert_int_equal(ha_byte_alphabet_byte(' '), -1);
    assert_int_equal(ha_byte_alphabet_byte(0x144), -1);
}

static void bytemap(void **state)
{
    struct ha_bytemap map = {0};
    char key[16];

    (void)state;
    assert_int_equal(ha_bytemap_get(&map, "a", 1), -1);
    for (int32_t i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof(key), "%d", i);
        assert_int_equal(ha_bytemap_put(&map, key, strlen(key), i), 0);
    }
    assert_int_equal(ha_bytemap_put(&map, "", 0, 7), 0);
    assert_int_equal(ha_bytemap_put(&map, "a\0b", 3, 8), 0);
    assert_int_equal(ha_bytemap_put(&map, "42", 2, -5), 0);
    for (int32_t i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof(key), "%d", i);
        assert_int_equal(ha_bytemap_get(&map, key, strlen(key)), i == 42 ? -5 : i);
    }
    assert_int_equal(ha_bytemap_get(&map, "", 0), 7);
    assert_int_equal(ha_bytemap_get(&map, "a\0b", 3), 8);
    assert_int_equal(ha_bytemap_get(&map, "a\0c", 3), -1);
    assert_int_equal(map.count, 5002);
    ha_bytemap_reset(&map);
    assert_int_equal(ha_bytemap_get(&map, "42", 2), -1);
    ha_bytemap_clear(&map);
}

/* Short words are scanned and long ones use a heap: both must merge alike.  A long word of chunks
 * that cannot merge with each other is compared with its chunks. */
static void scan_and_heap_agree(void **state)
{
    enum { CHUNKS = 40, LENGTH = 9, SYMBOLS = 5, SEPARATOR = 99 };
    struct ha_merge_scratch scratch = {0};
    struct ha_merges merges = {0};
    int32_t whole[CHUNKS * (LENGTH + 1)];
    int64_t n_whole = 0, at = 0;
    int32_t chunks[CHUNKS][LENGTH];
    uint32_t chance = 1;

    (void)state;
    assert_int_equal(ha_merges_create(&merges, SYMBOLS * SYMBOLS + SYMBOLS), 0);
    for (int32_t a = 0; a < SYMBOLS; a++)
        for (int32_t b = 0; b < SYMBOLS; b++)
            ha_merges_put(&merges, a, b, (uint32_t)((a * 7 + b * 11) % 25), 5 + a * SYMBOLS + b);
    for (int32_t a = 0; a < SYMBOLS; a++)
        ha_merges_put(&merges, 5 + a, a, 30 + (uint32_t)a, 50 + a);
    for (int c = 0; c < CHUNKS; c++) {
        for (int i = 0; i < LENGTH; i++) {
            chance = chance * 1664525u + 1013904223u;
            whole[n_whole++] = chunks[c][i] = (int32_t)(chance >> 24) % SYMBOLS;
        }
        whole[n_whole++] = SEPARATOR;
    }
    assert_int_equal(ha_merges_apply(&merges, &scratch, whole, &n_whole), 0);
    for (int c = 0; c < CHUNKS; c++) {
        int64_t n = LENGTH;

        assert_int_equal(ha_merges_apply(&merges, &scratch, chunks[c], &n), 0);
        assert_memory_equal(whole + at, chunks[c], (size_t)n * sizeof(int32_t));
        assert_int_equal(whole[at + n], SEPARATOR);
        at += n + 1;
    }
    assert_int_equal(at, n_whole);
    ha_merge_scratch_clear(&scratch);
    ha_merges_clear(&merges);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char *path = ha_path_join(dir, name);
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    free(path);
}

#define MODEL                                                                                      \
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a " \
    "b\"]}"

static void load_refusals(void **state)
{
    static const struct {
        const char *tokenizer, *config, *part;
    } cases[] = {
        {"{}", "{}", "\"model\" is missing"},
        {"[", "{}", "tokenizer.json:1:"},
        {"{\"model\": {\"type\": \"Unigram\"}}", "{}", "\"Unigram\""},
        {"{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}", "{}", "id of \"a\""},
        {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}", "{}", "merges[0]"},
        {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}", "{}", "merges[0]"},
        {"{\"model\": {\"vocab\": {\"a\": 0}}}", "{}", "merges"},
        {"{\"model\": {\"dropout\": 0.1, \"vocab\": {\"a\": 0}, \"merges\": []}}", "{}", "dropout"},
        {"{\"model\": {\"end_of_word_suffix\": \"x\"}}", "{}", "end_of_word_suffix"},
        {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"unk_token\": \"u\"}}", "{}",
         "\"u\""},
        {"{\"normalizer\": {\"type\": \"Lowercase\"}, " MODEL "}", "{}", "\"Lowercase\""},
        {"{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"a\"}}, " MODEL "}",
         "{}", "Replace"},
        {"{\"pre_tokenizer\": {\"type\": \"Punctuation\"}, " MODEL "}", "{}", "\"Punctuation\""},
        {"{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
         "\"ByteLevel\"}, "
         "{\"type\": \"Digits\"}]}, " MODEL "}",
         "{}", "behind ByteLevel"},
        {"{\"post_processor\": {\"type\": \"BertProcessing\"}, " MODEL "}", "{}", "BertProcessing"},
        {"{\"decoder\": {\"type\": \"CTC\"}, " MODEL "}", "{}", "\"CTC\""},
        {"{\"added_tokens\": [{\"id\": 9, \"content\": \"x\"}], " MODEL "}", "{}", "id 9"},
        {"{" MODEL "}", "{\"eos_token\": \"nowhere\"}", "eos_token \"nowhere\""},
        {"{" MODEL "}", "{\"eos_token\": 5}", "eos_token"},
        {"{" MODEL "}", "{\"added_tokens_decoder\": {\"7\": {\"content\": \"x\"}}}", "token 7"},
        {"{" MODEL "}", "{\"tokenizer_class\": \"LlamaTokenizer\", \"add_bos_token\": true}",
         "add_bos_token"},
    };
    char dir[] = "/tmp/ha_test_tokenizer_XXXXXX";
    struct ha_tokenizer *t = NULL;
    struct ha_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(ha_tokenizer_load(dir, &t, &err), -ENOENT);
    assert_non_null(strstr(err.text, "tokenizer.json"));
    write_text(dir, "tokenizer.json", "{" MODEL "}");
    assert_int_equal(ha_tokenizer_load(dir, &t, &err), -ENOENT);
    assert_non_null(strstr(err.text, "tokenizer_config.json"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_text(dir, "tokenizer.json", cases[i].tokenizer);
        write_text(dir, "tokenizer_config.json", cases[i].config);
        assert_true(ha_tokenizer_load(dir, &t, &err) < 0);
        assert_null(t);
        if (!strstr(err.text, cases[i].part) || !strstr(err.text, dir))
            fail_msg("%s: \"%s\" does not say \"%s\"", dir, err.text, cases[i].part);
    }
    assert_int_equal(ha_path_remove_tree(dir, NULL), 0);
}

static void invalid_text(void **state)
{
    struct ha_tokenizer *t = NULL;
    struct ha_ids ids = {0};
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_tokenizer_load(DEMO "qwen3-demo", &t, &err), 0);
    assert_int_equal(ha_ids_append(&ids, 5), 0);
    assert_int_equal(ha_tokenizer_encode(t, "ab\xff", 3, true, &ids, &err), -EILSEQ);
    assert_string_equal(err.text, "the text is not UTF-8 at byte 2 (0xff)");
    assert_int_equal(ids.count, 1);
    assert_int_equal(ha_tokenizer_encode(t, "", 0, true, &ids, &err), 0);
    assert_int_equal(ids.count, 1);
    ha_ids_clear(&ids);
    ha_tokenizer_destroy(t);
}

/* id_bytes of all ids of a text add up to the text (byte-level, without normalisation). */
static void bytes_of_ids(void **state)
{
    const char *text = "Plain, caf\xc3\xa9 \xf0\x9f\x98\x80 12<|eot_id|>\n x";
    struct ha_tokenizer *t = NULL;
    struct ha_ids ids = {0};
    int64_t bytes = 0;

    (void)state;
    assert_int_equal(ha_tokenizer_load(DEMO "llama-3.1-demo", &t, NULL), 0);
    assert_int_equal(ha_tokenizer_encode(t, text, strlen(text), false, &ids, NULL), 0);
    for (int64_t i = 0; i < ids.count; i++)
        bytes += ha_tokenizer_id_bytes(t, ids.data[i]);
    assert_int_equal(bytes, strlen(text));
    assert_int_equal(ha_tokenizer_id_bytes(t, -1), 0);
    assert_int_equal(ha_tokenizer_id_bytes(t, (int32_t)ha_tokenizer_vocab_size(t)), 0);
    assert_null(ha_tokenizer_id_to_token(t, (int32_t)ha_tokenizer_vocab_size(t)));
    assert_int_equal(ha_tokenizer_token_to_id(t, "no such token"), -1);
    assert_string_equal(ha_tokenizer_id_to_token(t, ha_tokenizer_eos_id(t)),
                        ha_tokenizer_eos_text(t));
    assert_true(ha_tokenizer_is_special(t, ha_tokenizer_eos_id(t)));
    ha_ids_clear(&ids);
    ha_tokenizer_destroy(t);
}

/* A character that comes byte by byte is held back until it is whole. */
static void stream_holds_back(void **state)
{
    struct ha_tokenizer_stream *stream = NULL;
    struct ha_tokenizer *t = NULL;
    struct ha_ids ids = {0};
    const char *text;
    size_t size;

    (void)state;
    assert_int_equal(ha_tokenizer_load(DEMO "llama-2-demo", &t, NULL), 0);
    assert_int_equal(ha_tokenizer_encode(t, "\xf0\x9f\x98\x80", 4, false, &ids, NULL), 0);
    assert_int_equal(ids.count, 5); /* the space in front, and four bytes */
    assert_int_equal(ha_tokenizer_stream_create(t, true, &stream, NULL), 0);
    for (int64_t i = 0; i < 4; i++) {
        assert_int_equal(ha_tokenizer_stream_push(stream, ids.data[i], &text, &size, NULL), 0);
        assert_int_equal(size, 0);
    }
    assert_int_equal(ha_tokenizer_stream_finish(stream, &text, &size, NULL), 0);
    assert_string_equal(text, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    for (int64_t i = 0; i < 5; i++)
        assert_int_equal(ha_tokenizer_stream_push(stream, ids.data[i], &text, &size, NULL), 0);
    assert_int_equal(ha_tokenizer_stream_finish(stream, &text, &size, NULL), 0);
    assert_string_equal(text, "\xf0\x9f\x98\x80");
    ha_tokenizer_stream_destroy(stream);
    ha_ids_clear(&ids);
    ha_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regex_refusals),  cmocka_unit_test(regex_walk),
        cmocka_unit_test(regex_long_text), cmocka_unit_test(alphabet),
        cmocka_unit_test(bytemap),         cmocka_unit_test(scan_and_heap_agree),
        cmocka_unit_test(load_refusals),   cmocka_unit_test(invalid_text),
        cmocka_unit_test(bytes_of_ids),    cmocka_unit_test(stream_holds_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
