#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/path.h"

static void expect_text(char *text, const char *want)
{
    assert_string_equal(text, want);
    free(text);
}

static void joins_and_splits(void **state)
{
    (void)state;
    expect_text(ha_path_join("a", "b"), "a/b");
    expect_text(ha_path_join("a/", "b"), "a/b");
    expect_text(ha_path_join("a", "/b"), "/b");
    expect_text(ha_path_join("", "b"), "b");
    expect_text(ha_path_dirname("/x"), "/");
    expect_text(ha_path_dirname("x"), ".");
    expect_text(ha_path_dirname("a/b/c"), "a/b");
    assert_string_equal(ha_path_basename("a/b"), "b");
}

static void makes_and_removes_trees(void **state)
{
    char root[] = "/tmp/ha-test-path-XXXXXX";
    char *deep;
    struct ha_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(root));
    deep = ha_path_join(root, "a/b/c");
    assert_int_equal(ha_path_make_dirs(deep, 0700, &err), 0);
    assert_int_equal(ha_path_make_dirs(deep, 0700, &err), 0);
    assert_true(ha_path_is_dir(deep));
    assert_int_equal(ha_path_remove_tree(root, &err), 0);
    assert_false(ha_path_exists(root));
    assert_int_equal(ha_path_remove_tree(root, &err), 0);
    free(deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_and_splits),
        cmocka_unit_test(makes_and_removes_trees),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
