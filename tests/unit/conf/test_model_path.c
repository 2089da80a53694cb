/* Finding a model's folder: beside the grid, or in the Hugging Face cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/model_path.h"

static char root[] = "/tmp/ha-test-model-path-XXXXXX";

static void make_dir(const char *name)
{
    char *path = ha_path_join(root, name);

    assert_int_equal(ha_path_make_dirs(path, 0700, NULL), 0);
    free(path);
}

static void write_file(const char *name, const char *text)
{
    char *path = ha_path_join(root, name);
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    free(path);
}

static void expect(const char *path, const char *revision, const char *want)
{
    struct ha_error err = {0};
    char *dir = NULL, *whole;
    int r = ha_model_path_resolve(root, path, revision, &dir, &err);

    if (want[0] == '!') {
        assert_int_equal(r, -err.code);
        assert_true(r < 0);
        assert_null(dir);
        if (!strstr(err.text, want + 1))
            fail_msg("%s", err.text);
        return;
    }
    assert_int_equal(r, 0);
    whole = ha_path_join(root, want);
    assert_string_equal(dir, whole);
    free(whole);
    free(dir);
}

static void finds_models(void **state)
{
    char *hub = ha_path_join(root, "cache");

    (void)state;
    make_dir("models/tiny");
    make_dir("cache/models--org--name/refs");
    make_dir("cache/models--org--name/snapshots/abc123");
    make_dir("cache/models--org--name/snapshots/def456");
    write_file("cache/models--org--name/refs/main", "abc123\n");
    write_file("cache/models--org--name/refs/v2", "def456");
    write_file("cache/models--org--name/refs/evil", "../../../x");
    assert_int_equal(setenv("HF_HUB_CACHE", hub, 1), 0);
    expect("models/tiny", NULL, "models/tiny");
    expect("org/name", NULL, "cache/models--org--name/snapshots/abc123");
    expect("org/name", "v2", "cache/models--org--name/snapshots/def456");
    expect("org/name", "def456", "cache/models--org--name/snapshots/def456");
    expect("org/name", "v3", "!revision v3 is not in the Hugging Face cache");
    expect("org/name", "evil", "!revision evil is not in");
    expect("org/name", "../x", "!\"../x\" is no revision");
    expect("org/other", NULL, "!neither a folder nor in the Hugging Face cache");
    expect("models/x/y", NULL, "!does not exist");
    assert_int_equal(unsetenv("HF_HUB_CACHE"), 0);
    assert_int_equal(ha_path_remove_tree(root, NULL), 0);
    free(hub);
}

static void knows_hub_ids(void **state)
{
    (void)state;
    assert_true(ha_model_path_is_hub_id("meta-llama/Llama-3.1-8B"));
    assert_false(ha_model_path_is_hub_id("./x"));
    assert_false(ha_model_path_is_hub_id("../x"));
    assert_false(ha_model_path_is_hub_id("a/b/c"));
    assert_false(ha_model_path_is_hub_id("/a"));
    assert_false(ha_model_path_is_hub_id("a/"));
    assert_false(ha_model_path_is_hub_id("a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_models),
        cmocka_unit_test(knows_hub_ids),
    };

    assert_non_null(mkdtemp(root));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
