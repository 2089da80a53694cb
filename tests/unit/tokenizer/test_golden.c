/* The tokenizer against what the `tokenizers` library gave (tests/golden/tokenizers): every part of
 * a tokenizer.json alone, the demo models, and the published tokenizers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/jsonl.h"
#include "worker/tokenizer/tokenizer.h"

static int failures;

static void write_file(const char *dir, const char *name, const char *text, size_t size)
{
    char *path = ha_path_join(dir, name);
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    free(path);
}

static struct ha_tokenizer *load(const char *dir)
{
    struct ha_tokenizer *tokenizer = NULL;
    struct ha_error err = {0};

    if (ha_tokenizer_load(dir, &tokenizer, &err) < 0)
        fail_msg("%s", err.text);
    return tokenizer;
}

static struct ha_ids ids_of(const struct ha_json *list)
{
    struct ha_ids ids = {0};

    for (int64_t i = 0; i < ha_json_size(list); i++)
        assert_int_equal(ha_ids_append(&ids, (int32_t)ha_json_int(ha_json_at(list, i), -1)), 0);
    return ids;
}

static void wrong(const char *name, const char *what, const struct ha_json *about)
{
    char *text = ha_json_dump(about, HA_JSON_COMPACT);

    print_message("%s: %s: %.300s\n", name, what, text);
    free(text);
    failures++;
}

static void check_encode(struct ha_tokenizer *t, const char *name, const struct ha_json *text,
                         const struct ha_json *expected, bool add_special)
{
    struct ha_ids want = ids_of(expected), ids = {0};
    struct ha_error err = {0};

    assert_int_equal(ha_tokenizer_encode(t, ha_json_string(text, ""), ha_json_string_size(text),
                                         add_special, &ids, &err),
                     0);
    if (ids.count != want.count ||
        (ids.count > 0 && memcmp(ids.data, want.data, (size_t)ids.count * sizeof(int32_t)) != 0))
        wrong(name, add_special ? "encode" : "encode without special", text);
    ha_ids_clear(&ids);
    ha_ids_clear(&want);
}

/* The stream must give the same text in pieces, each of them UTF-8 by itself. */
static void check_stream(const struct ha_tokenizer *t, const char *name, const struct ha_ids *ids,
                         bool skip, const struct ha_json *expected)
{
    struct ha_tokenizer_stream *stream = NULL;
    struct ha_buffer all;

    ha_buffer_init(&all, 0);
    assert_int_equal(ha_tokenizer_stream_create(t, skip, &stream, NULL), 0);
    for (int64_t i = 0; i <= ids->count; i++) {
        const char *text;
        size_t size;
        struct ha_json *part;

        if (i < ids->count)
            assert_int_equal(ha_tokenizer_stream_push(stream, ids->data[i], &text, &size, NULL), 0);
        else
            assert_int_equal(ha_tokenizer_stream_finish(stream, &text, &size, NULL), 0);
        assert_int_equal(ha_buffer_append(&all, text, size), 0);
        part = ha_json_new_string_n(text, size);
        assert_non_null(part);
        ha_json_destroy(part);
    }
    if (all.size != ha_json_string_size(expected) ||
        memcmp(ha_buffer_text(&all), ha_json_string(expected, ""), all.size) != 0)
        wrong(name, "stream", expected);
    ha_tokenizer_stream_destroy(stream);
    ha_buffer_clear(&all);
}

static void check_decode(const struct ha_tokenizer *t, const char *name, const struct ha_json *list,
                         bool skip, const struct ha_json *expected)
{
    struct ha_ids ids = ids_of(list);
    struct ha_error err = {0};
    size_t size;
    char *text;

    assert_int_equal(ha_tokenizer_decode(t, ids.data, ids.count, skip, &text, &size, &err), 0);
    if (size != ha_json_string_size(expected) ||
        memcmp(text, ha_json_string(expected, ""), size) != 0)
        wrong(name, skip ? "decode without special" : "decode", list);
    check_stream(t, name, &ids, skip, expected);
    free(text);
    ha_ids_clear(&ids);
}

/* A copy of base with the keys of changes replaced, as text. */
static char *changed(const struct ha_json *base, const struct ha_json *changes)
{
    struct ha_json *copy = NULL, *value;
    char *text = ha_json_dump(base, HA_JSON_COMPACT);
    const char *key;
    void *iterator = NULL;

    assert_int_equal(ha_json_parse(text, strlen(text), "base", &copy, NULL), 0);
    free(text);
    while (ha_json_next(changes, &iterator, &key, &value)) {
        struct ha_json *part = NULL;

        text = ha_json_dump(value, HA_JSON_COMPACT);
        assert_int_equal(ha_json_parse(text, strlen(text), key, &part, NULL), 0);
        assert_int_equal(ha_json_set(copy, key, part), 0);
        free(text);
    }
    text = ha_json_dump(copy, HA_JSON_COMPACT);
    ha_json_destroy(copy);
    return text;
}

static void check_case(const char *dir, const struct ha_json *all, const struct ha_json *c)
{
    const struct ha_json *texts = ha_json_get(all, "texts"), *ids = ha_json_get(c, "ids");
    const struct ha_json *plain = ha_json_get(c, "ids_without_special");
    const struct ha_json *decode = ha_json_get(c, "decode");
    const char *name = ha_json_string(ha_json_get(c, "name"), "");
    char *text = changed(ha_json_get(all, "base"), ha_json_get(c, "changes"));
    struct ha_tokenizer *t;

    write_file(dir, "tokenizer.json", text, strlen(text));
    free(text);
    t = load(dir);
    for (int64_t i = 0; i < ha_json_size(texts); i++) {
        check_encode(t, name, ha_json_at(texts, i), ha_json_at(ids, i), true);
        check_encode(t, name, ha_json_at(texts, i), ha_json_at(plain ? plain : ids, i), false);
    }
    for (int64_t i = 0; i < ha_json_size(decode); i++) {
        const struct ha_json *item = ha_json_at(decode, i);

        check_decode(t, name, ha_json_at(item, 0), false, ha_json_at(item, 1));
        check_decode(t, name, ha_json_at(item, 0), true, ha_json_at(item, 2));
    }
    ha_tokenizer_destroy(t);
}

static void every_part(void **state)
{
    char dir[] = "/tmp/ha_test_tokenizer_XXXXXX";
    struct ha_json *all = NULL;
    struct ha_error err = {0};
    const struct ha_json *cases;

    (void)state;
    failures = 0;
    assert_non_null(mkdtemp(dir));
    write_file(dir, "tokenizer_config.json", "{}", 2);
    assert_int_equal(
        ha_json_load(HA_SOURCE_ROOT "/tests/golden/tokenizers/parts.json", 16 << 20, &all, &err),
        0);
    cases = ha_json_get(all, "cases");
    assert_true(ha_json_size(cases) > 60);
    for (int64_t i = 0; i < ha_json_size(cases); i++)
        check_case(dir, all, ha_json_at(cases, i));
    ha_json_destroy(all);
    assert_int_equal(ha_path_remove_tree(dir, &err), 0);
    assert_int_equal(failures, 0);
}

/* One line of tokenizer.jsonl or official.jsonl. */
static void check_line(struct ha_tokenizer *t, const char *name, const struct ha_json *line)
{
    const struct ha_json *ids = ha_json_get(line, "ids");

    if (ha_json_get(line, "text"))
        check_encode(t, name, ha_json_get(line, "text"), ids, true);
    check_decode(t, name, ids, false, ha_json_get(line, "decoded"));
    check_decode(t, name, ids, true, ha_json_get(line, "decoded_no_special"));
}

static void demo_models(void **state)
{
    static const char *const names[] = {"llama-2-demo", "llama-3.1-demo", "qwen2.5-demo",
                                        "qwen3-demo"};

    (void)state;
    failures = 0;
    for (int i = 0; i < 4; i++) {
        char *dir = ha_format(HA_SOURCE_ROOT "/deploy/demo/models/%s", names[i]);
        char *path = ha_format(HA_SOURCE_ROOT "/tests/golden/%s/tokenizer.jsonl", names[i]);
        struct ha_tokenizer *t = load(dir);
        struct ha_jsonl *reader;
        struct ha_json *line;
        int seen = 0;

        assert_int_equal(ha_jsonl_open(path, 0, &reader, NULL), 0);
        while (ha_jsonl_next(reader, &line, NULL) > 0) {
            if (ha_json_get(line, "ids")) {
                check_line(t, names[i], line);
                seen++;
            }
            ha_json_destroy(line);
        }
        assert_true(seen > 40);
        ha_jsonl_close(reader);
        ha_tokenizer_destroy(t);
        free(path);
        free(dir);
    }
    assert_int_equal(failures, 0);
}

/* Copy a file of the data folder, decompressed when it is packed. */
static void unpack(const char *from_dir, const char *name, const char *dir)
{
    char *path = ha_format("%s/%s", from_dir, name), block[65536];
    struct ha_buffer text;
    gzFile in = gzopen(path, "rb");
    int n;

    if (!in) {
        free(path);
        path = ha_format("%s/%s.gz", from_dir, name);
        in = gzopen(path, "rb");
    }
    assert_non_null(in);
    ha_buffer_init(&text, 0);
    while ((n = gzread(in, block, sizeof(block))) > 0)
        assert_int_equal(ha_buffer_append(&text, block, (size_t)n), 0);
    assert_int_equal(n, 0);
    (void)gzclose(in);
    write_file(dir, name, text.data, text.size);
    ha_buffer_clear(&text);
    free(path);
}

static void published(void **state)
{
    static const struct {
        const char *name, *eos;
        int64_t vocab_size;
        int bos, pad;
    } models[] = {
        {"llama-2", "</s>", 32000, 1, 2},
        {"llama-3.1", "<|eot_id|>", 128256, 128000, 128009},
        {"qwen3", "<|im_end|>", 151669, -1, 151643},
    };
    const char *data = getenv("HA_TEST_DATA");

    (void)state;
    if (!data) {
        print_message("HA_TEST_DATA is not set: the published tokenizers are not tried\n");
        skip();
    }
    failures = 0;
    for (int i = 0; i < 3; i++) {
        char dir[] = "/tmp/ha_test_tokenizer_XXXXXX";
        char *from = ha_format("%s/tokenizers/%s", data, models[i].name);
        struct ha_tokenizer *t;
        struct ha_jsonl *reader;
        struct ha_json *line;

        assert_non_null(mkdtemp(dir));
        unpack(from, "tokenizer.json", dir);
        unpack(from, "tokenizer_config.json", dir);
        t = load(dir);
        assert_int_equal(ha_tokenizer_vocab_size(t), models[i].vocab_size);
        assert_string_equal(ha_tokenizer_eos_text(t), models[i].eos);
        assert_int_equal(ha_tokenizer_bos_id(t), models[i].bos);
        assert_int_equal(ha_tokenizer_pad_id(t), models[i].pad);
        assert_non_null(ha_tokenizer_chat_template(t));
        assert_int_equal(ha_jsonl_open(HA_SOURCE_ROOT "/tests/golden/tokenizers/official.jsonl", 0,
                                       &reader, NULL),
                         0);
        while (ha_jsonl_next(reader, &line, NULL) > 0) {
            if (strcmp(ha_json_string(ha_json_get(line, "tokenizer"), ""), models[i].name) == 0)
                check_line(t, models[i].name, line);
            ha_json_destroy(line);
        }
        ha_jsonl_close(reader);
        ha_tokenizer_destroy(t);
        assert_int_equal(ha_path_remove_tree(dir, NULL), 0);
        free(from);
    }
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part),
        cmocka_unit_test(demo_models),
        cmocka_unit_test(published),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
