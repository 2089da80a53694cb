/* A model is taken from below model_roots only, whatever path a grid names and wherever links lead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/settings.h"
#include "common/io/file.h"
#include "worker/daemon/model_find.h"

static char folder[] = "/tmp/ha-model-find-XXXXXX", real[4096];

static char *place(const char *name)
{
    return ha_format("%s/%s", real, name);
}

static void put_model(const char *name)
{
    char *path = place(name), *config = ha_path_join(path, "config.json");

    assert_int_equal(ha_path_make_dirs(path, 0700, NULL), 0);
    assert_int_equal(ha_file_write(config, "{}", 2, 0600, NULL), 0);
    free(config);
    free(path);
}

static void put_link(const char *to, const char *name)
{
    char *target = place(to), *path = place(name);

    assert_int_equal(symlink(target, path), 0);
    free(target);
    free(path);
}

/* Below its roots "roots" and "more" are one's own models; "outside" and "roots2" are others'. */
static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_non_null(realpath(folder, real));
    put_model("roots/a");
    put_model("roots/org/b");
    put_model("more/c");
    put_model("outside/secret");
    put_model("roots2/d");
    put_link("outside/secret", "roots/escape");
    put_link("outside", "roots/away");
    put_link("roots/a", "roots/alias");
    put_link("roots/a", "outside/inward");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return ha_path_remove_tree(folder, NULL);
}

/* name: below the test's folder when it begins with %, else as the wire has it. */
static int find(const char *name, const char *digest, char **ret_path, struct ha_error *err)
{
    char *items[] = {place("roots"), place("more")};
    struct ha_text_list roots = {.items = items, .count = 2};
    char *path = name[0] == '%' ? place(name + 1) : ha_strdup(name), *cache = place("cache");
    int r = model_find(&roots, path, digest, cache, ret_path, err);

    free(items[0]);
    free(items[1]);
    free(path);
    free(cache);
    return r;
}

static void expect(const char *name, const char *found)
{
    struct ha_error err = {0};
    char *path = NULL, *want = place(found);

    if (find(name, "", &path, &err) < 0)
        fail_msg("%s: %s", name, err.text);
    assert_string_equal(path, want);
    free(path);
    free(want);
}

static void refuse(const char *name)
{
    struct ha_error err = {0};
    char *path = NULL;
    int r = find(name, "", &path, &err);

    if (r != -ENOENT)
        fail_msg("%s: %d %s", name, r, path ? path : "");
    assert_null(path);
    assert_non_null(err.text[0] ? &err : NULL);
}

static void finds_what_is_below_a_root(void **state)
{
    (void)state;
    expect("%roots/a", "roots/a");
    expect("%more/c", "more/c");
    expect("a", "roots/a");
    expect("c", "more/c");
    expect("/elsewhere/at/submit/org/b", "roots/org/b");
    expect("%outside/a", "roots/a"); /* by its end */
    expect("%roots/alias", "roots/a");
    expect("%outside/inward", "roots/a"); /* it is seen where it really lies */
    expect("%roots/org/../a", "roots/a");
}

static void refuses_what_lies_elsewhere(void **state)
{
    (void)state;
    refuse("");
    refuse("%outside/secret");
    refuse("%roots/escape");
    refuse("%roots/away/secret");
    refuse("%roots/../outside/secret");
    refuse("../outside/secret");
    refuse("a/../../outside/secret");
    refuse("../../../../../../../../etc");
    refuse("/");
    refuse("..");
    refuse("%roots2/d"); /* its name begins as a root's does */
    refuse("%roots/nothing");
}

static void another_content_is_another_model(void **state)
{
    static const char digest[] = "00000000000000000000000000000000000000000000000000000000000000ff";
    struct ha_error err = {0};
    char *path = NULL;

    (void)state;
    assert_true(find("%roots/a", digest, &path, &err) < 0);
    assert_null(path);
    /* Not even its content is looked at elsewhere. */
    assert_int_equal(find("%roots/escape", digest, &path, &err), -ENOENT);
    assert_null(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_is_below_a_root),
        cmocka_unit_test(refuses_what_lies_elsewhere),
        cmocka_unit_test(another_content_is_another_model),
    };

    return cmocka_run_group_tests_name("model_find", tests, set_up, tear_down);
}
