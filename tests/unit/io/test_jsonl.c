/* JSON Lines: plain and gzip give the same lines; every damage is one line with its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/io/jsonl.h"

static char dir[] = "/tmp/ha_test_jsonl_XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

static char *put(const char *name, const void *bytes, size_t size)
{
    char *path = ha_path_join(dir, name);
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* Gzip text into out; returns its size. */
static size_t pack(const void *text, size_t size, uint8_t *out, size_t room)
{
    z_stream z = {0};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)text;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(deflateEnd(&z), Z_OK);
    return room - z.avail_out;
}

/* All values of a file are 0, 1, 2 ...; returns their number or the error. */
static int64_t read_numbers(const char *path, size_t limit, struct ha_error *err)
{
    struct ha_jsonl *reader;
    struct ha_json *json;
    int64_t n = 0;
    int r = ha_jsonl_open(path, limit, &reader, err);

    if (r < 0)
        return r;
    while ((r = ha_jsonl_next(reader, &json, err)) > 0) {
        assert_int_equal(ha_json_int(json, -1), n);
        n++;
        ha_json_destroy(json);
    }
    ha_jsonl_close(reader);
    return r < 0 ? r : n;
}

static void lines_plain_and_packed(void **state)
{
    static const char text[] = "0\n\n  \t\r\n1\r\n 2 \n3";
    uint8_t packed[512], digest[HA_SHA256_BYTES], expected[HA_SHA256_BYTES];
    size_t first = pack(text, 5, packed, sizeof(packed));
    size_t size = first + pack(text + 5, sizeof(text) - 6, packed + first, sizeof(packed) - first);
    char *plain = put("plain.jsonl", text, sizeof(text) - 1);
    char *gzip = put("two-members.gz", packed, size);
    struct ha_jsonl *reader;
    const char *line;
    size_t n;

    (void)state;
    assert_int_equal(read_numbers(plain, 0, NULL), 4);
    assert_int_equal(read_numbers(gzip, 0, NULL), 4);
    assert_int_equal(ha_jsonl_open(gzip, 0, &reader, NULL), 0);
    assert_int_equal(ha_jsonl_next_line(reader, &line, &n, NULL), 1);
    assert_int_equal(ha_jsonl_line(reader), 1);
    assert_int_equal(ha_jsonl_next_line(reader, &line, &n, NULL), 1);
    assert_int_equal(ha_jsonl_line(reader), 4);
    while (ha_jsonl_next_line(reader, &line, &n, NULL) > 0)
        ;
    ha_jsonl_digest(reader, digest);
    ha_sha256(packed, size, expected);
    assert_memory_equal(digest, expected, sizeof(digest));
    ha_jsonl_close(reader);
    free(plain);
    free(gzip);
}

/* More than the blocks that are read at once, and output that waits inside zlib. */
static void many_lines(void **state)
{
    enum { LINES = 60000 };
    char *text = malloc(LINES * 8), *path;
    uint8_t *packed = malloc(LINES * 8);
    size_t size = 0;

    (void)state;
    assert_non_null(text);
    assert_non_null(packed);
    for (int i = 0; i < LINES; i++)
        size += (size_t)snprintf(text + size, 8, "%d\n", i);
    path = put("many.jsonl", text, size);
    assert_int_equal(read_numbers(path, 0, NULL), LINES);
    free(path);
    size = pack(text, size, packed, LINES * 8);
    path = put("many.jsonl.gz", packed, size);
    assert_int_equal(read_numbers(path, 0, NULL), LINES);
    free(path);
    free(packed);
    free(text);
}

static void damage_is_named(void **state)
{
    static const char numbers[] = "0\n1\n2\n";
    uint8_t packed[256];
    size_t size = pack(numbers, sizeof(numbers) - 1, packed, sizeof(packed));
    struct {
        const char *name;
        const void *bytes;
        size_t size;
        int code;
        const char *part;
    } cases[] = {
        {"json.jsonl", "0\n{\"a\" 1}\n", 11, -EINVAL, "json.jsonl:2:"},
        {"long.jsonl", "0\n123456789012\n", 15, -EMSGSIZE, "long.jsonl:2: longer than 10 bytes"},
        {"not.gz", "0\n1\n", 4, -EINVAL, "not.gz: not a gzip file"},
        {"cut.gz", packed, size - 9, -EINVAL, "the gzip data is cut off"},
        {"head.gz", packed, 3, -EINVAL, "the gzip data is cut off"},
        {"tail.gz", packed, size, 3, NULL},
        {"empty.jsonl", "", 0, 0, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_error err = {0};
        char *path = put(cases[i].name, cases[i].bytes, cases[i].size);

        assert_int_equal(read_numbers(path, 10, &err), cases[i].code);
        if (cases[i].part && !strstr(err.text, cases[i].part))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].part);
        free(path);
    }
    packed[12] ^= 0x55;
    for (int i = 0; i < 2; i++) {
        struct ha_error err = {0};
        char *path = put("damaged.gz", packed, size);

        assert_int_equal(read_numbers(path, 10, &err), -EINVAL);
        free(path);
        memset(packed + size, 'x', 20); /* garbage behind a good member */
        packed[12] ^= 0x55;
        size += 20;
    }
    assert_int_equal(read_numbers("/nowhere/x.jsonl", 0, NULL), -ENOENT);
    assert_int_equal(read_numbers("/tmp", 0, NULL), -EISDIR);
}

/* 64 MiB of one line behind 64 KiB of gzip: refused at the limit, not after. */
static void bomb_is_bounded(void **state)
{
    enum { BYTES = 64 << 20, ROOM = 1 << 20 };
    char *text = calloc(1, BYTES), *path;
    uint8_t *packed = malloc(ROOM);
    struct ha_error err = {0};

    (void)state;
    assert_non_null(text);
    assert_non_null(packed);
    path = put("bomb.gz", packed, pack(text, BYTES, packed, ROOM));
    assert_int_equal(read_numbers(path, 1 << 16, &err), -EMSGSIZE);
    free(path);
    free(packed);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_plain_and_packed),
        cmocka_unit_test(many_lines),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(bomb_is_bounded),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
