#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* Every sync of the program comes here: the folders, in their order. */
static char synced[8][64];
static int synced_count;

int fsync(int fd)
{
    char link[32];
    ssize_t n;

    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, synced[synced_count], sizeof synced[0] - 1);
    assert_true(n > 0);
    synced[synced_count++][n] = '\0';
    return 0;
}

static void expect_synced(const char *root, const char *const *names, int count)
{
    assert_int_equal(synced_count, count);
    for (int i = 0; i < count; i++) {
        assert_memory_equal(synced[i], root, strlen(root));
        assert_string_equal(synced[i] + strlen(root), names[i]);
    }
    synced_count = 0;
}

/* Somebody made folders and was killed before he synced them. */
static void makes_names_durable_that_were_there(void **state)
{
    char root[] = "/tmp/ha-test-path-XXXXXX", a[64], deep[64];
    struct ha_error err = {0};

    (void)state;
    assert_non_null(mkdtemp(root));
    (void)snprintf(a, sizeof a, "%s/a", root);
    (void)snprintf(deep, sizeof deep, "%s/a/b", root);
    assert_int_equal(mkdir(a, 0700), 0);
    synced_count = 0;
    assert_int_equal(ha_path_make_dirs(deep, 0700, &err), 0);
    expect_synced(root, (const char *const[]){"/a"}, 1); /* for the name b, which it made */
    assert_int_equal(ha_path_make_dirs(deep, 0700, &err), 0);
    expect_synced(root, NULL, 0);
    assert_int_equal(ha_path_make_durable(deep, 0700, &err), 0);
    assert_string_equal(synced[0], "/");
    assert_string_equal(synced[1], "/tmp");
    memmove(synced, synced + 2, sizeof synced - 2 * sizeof synced[0]);
    synced_count -= 2;
    expect_synced(root, (const char *const[]){"", "/a"}, 2);
    assert_int_equal(ha_path_remove_tree(root, &err), 0);
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
        cmocka_unit_test(makes_names_durable_that_were_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
