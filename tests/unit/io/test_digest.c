#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "common/io/digest.h"
#include "common/io/file.h"

static void put(const char *dir, const char *name, const char *text)
{
    char *path = ha_path_join(dir, name);

    assert_int_equal(ha_file_write(path, text, strlen(text), 0644, NULL), 0);
    free(path);
}

static void digests_follow_the_bytes(void **state)
{
    char dir[] = "/tmp/ha-test-digest-XXXXXX", model[3][HA_SHA256_HEX_BYTES];
    char tokenizer[3][HA_SHA256_HEX_BYTES], *cache;
    struct ha_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    cache = ha_path_join(dir, "cache");
    assert_int_equal(ha_digest_model(dir, cache, model[0], tokenizer[0], &err), -ENOENT);
    put(dir, "config.json", "{}");
    assert_int_equal(ha_digest_model(dir, cache, model[0], tokenizer[0], &err), -ENOENT);
    assert_non_null(strstr(err.text, "safetensors"));
    put(dir, "model.safetensors", "weights");
    put(dir, "tokenizer.json", "{}");
    put(dir, "README.md", "not hashed");
    assert_int_equal(ha_digest_model(dir, cache, model[0], tokenizer[0], &err), 0);
    /* Again, now from the cache, and without one. */
    assert_int_equal(ha_digest_model(dir, cache, model[1], tokenizer[1], &err), 0);
    assert_int_equal(ha_digest_model(dir, NULL, model[2], tokenizer[2], &err), 0);
    assert_string_equal(model[0], model[1]);
    assert_string_equal(model[0], model[2]);
    assert_string_equal(tokenizer[0], tokenizer[2]);
    put(dir, "README.md", "changed");
    put(dir, "tokenizer.json", "[]");
    assert_int_equal(ha_digest_model(dir, cache, model[1], tokenizer[1], &err), 0);
    assert_string_equal(model[0], model[1]);
    assert_string_not_equal(tokenizer[0], tokenizer[1]);
    put(dir, "model.safetensors", "weightz");
    assert_int_equal(ha_digest_model(dir, cache, model[1], tokenizer[1], &err), 0);
    assert_string_not_equal(model[0], model[1]);
    free(cache);
    assert_int_equal(ha_path_remove_tree(dir, NULL), 0);
}

static void a_broken_cache_is_ignored(void **state)
{
    char dir[] = "/tmp/ha-test-digest-XXXXXX", with[HA_SHA256_HEX_BYTES];
    char without[HA_SHA256_HEX_BYTES], *cache, *path;

    (void)state;
    assert_non_null(mkdtemp(dir));
    cache = ha_path_join(dir, "cache");
    path = ha_path_join(dir, "file");
    put(dir, "file", "text");
    put(dir, "cache", "zzzz\n\n short");
    assert_int_equal(ha_digest_file(path, cache, with, NULL), 0);
    assert_int_equal(ha_digest_file(path, NULL, without, NULL), 0);
    assert_string_equal(with, without);
    assert_int_equal(ha_digest_file("/nowhere/file", NULL, with, NULL), -ENOENT);
    free(cache);
    free(path);
    assert_int_equal(ha_path_remove_tree(dir, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_follow_the_bytes),
        cmocka_unit_test(a_broken_cache_is_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
