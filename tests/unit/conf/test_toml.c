/* TOML: order and lines, errors, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/toml.h"

static struct ha_toml *parse(const char *text)
{
    struct ha_toml *root = NULL;
    struct ha_error err = {0};
    int r = ha_toml_parse(text, strlen(text), "t.toml", &root, &err);

    if (r < 0)
        print_message("%s\n", err.text);
    assert_int_equal(r, 0);
    return root;
}

static void refused(const char *text, int code, const char *beginning)
{
    struct ha_toml *root = NULL;
    struct ha_error err = {0};

    assert_int_equal(ha_toml_parse(text, strlen(text), "t.toml", &root, &err), -code);
    assert_null(root);
    if (strncmp(err.text, beginning, strlen(beginning)) != 0)
        fail_msg("%s", err.text);
}

static void keeps_order_and_lines(void **state)
{
    struct ha_toml *root = parse("zebra = 1\n\napple = [ 1,\n  2.5 ]\n[m.b]\nx = true\n[m]\n"
                                 "a.z = 'q\\'\na.b = 1979-05-27\n[[j]]\n[[j]]\nk = {n = 1}\n");
    const struct ha_toml *m = ha_toml_get(root, "m"), *apple = ha_toml_get(root, "apple");
    const struct ha_toml *j = ha_toml_get(root, "j");

    (void)state;
    assert_int_equal(ha_toml_size(root), 4);
    assert_string_equal(ha_toml_key(ha_toml_at(root, 0)), "zebra");
    assert_string_equal(ha_toml_key(ha_toml_at(root, 1)), "apple");
    assert_string_equal(ha_toml_key(ha_toml_at(root, 2)), "m");
    assert_string_equal(ha_toml_key(ha_toml_at(root, 3)), "j");
    assert_int_equal(ha_toml_key_line(apple), 3);
    assert_int_equal(ha_toml_line(ha_toml_at(apple, 1)), 4);
    assert_true(ha_toml_real(ha_toml_at(apple, 1), 0) == 2.5);
    assert_true(ha_toml_real(ha_toml_at(apple, 0), 0) == 1.0);
    assert_int_equal(ha_toml_int(ha_toml_at(apple, 1), -1), -1);
    assert_true(ha_toml_bool(ha_toml_get(ha_toml_get(m, "b"), "x"), false));
    assert_string_equal(ha_toml_string(ha_toml_get(ha_toml_get(m, "a"), "z"), ""), "q\\");
    assert_int_equal(ha_toml_key_line(ha_toml_get(ha_toml_get(m, "a"), "b")), 9);
    assert_int_equal(ha_toml_type(ha_toml_get(ha_toml_get(m, "a"), "b")), HA_TOML_TIME);
    assert_int_equal(ha_toml_size(j), 2);
    assert_int_equal(ha_toml_line(ha_toml_at(j, 1)), 11);
    assert_int_equal(ha_toml_int(ha_toml_get(ha_toml_get(ha_toml_at(j, 1), "k"), "n"), 0), 1);
    assert_null(ha_toml_at(j, 2));
    assert_null(ha_toml_get(NULL, "x"));
    assert_string_equal(ha_toml_string(NULL, "other"), "other");
    assert_string_equal(ha_toml_type_name(apple), "an array");
    ha_toml_destroy(root);
    ha_toml_destroy(NULL);
}

static void names_file_and_line(void **state)
{
    struct ha_toml *root = NULL;
    struct ha_error err = {0};

    (void)state;
    refused("a = 1\nb = = 2\n", EINVAL, "t.toml:2: ");
    refused("a = 1\na = 2\n", EINVAL, "t.toml:2: ");
    refused("a = \"\xff\"\n", EINVAL, "t.toml:1: ");
    refused("[a\n", EINVAL, "t.toml:1: ");
    assert_int_equal(ha_toml_load("/nonexistent/x.toml", &root, &err), -ENOENT);
    assert_string_equal(err.text, "/nonexistent/x.toml: No such file or directory");
    assert_true(ha_toml_load("/tmp", &root, &err) < 0);
}

/* Where toml++ 3.3 asks whether a character outside ASCII is white space. */
static void reads_characters_outside_ascii(void **state)
{
    struct ha_toml *root;

    (void)state;
    refused("a = 1\n\xc3\xa9 = 1\n", EINVAL, "t.toml:2: ");
    refused("a = 1 \xe3\x82\xa2\n", EINVAL, "t.toml:1: ");
    refused("a = +'\xef\xb3\xbfl", EINVAL, "t.toml:1: ");
    refused("a = \"\"\"x \\  \n \xff\"\"\"\n", EINVAL, "t.toml:2: ");
    refused("a = \"\"\"\\\xc3\xa9\"\"\"\n", EINVAL, "t.toml:1: ");
    refused("a = \"\"\"\\", EINVAL, "t.toml:1: ");
    refused("a = \"\\", EINVAL, "t.toml:1: ");
    root = parse("\xef\xbb\xbf# \xc3\xa9\n'\xc3\xa9' = '\xc3\xa9' # \xc3\xa9\n"
                 "b = \"\"\"\\\\\xc3\xa9\\\n x\xc3\xa9\"\"\"\"\nc = '''\\\xc3\xa9'''\n"
                 "d = \"\"\"x\\\n \xc3\xa9\\\n\n\t\xf0\x9f\x8e\xa9!\"\"\" # 1\ne = 5\n");
    assert_string_equal(ha_toml_string(ha_toml_get(root, "\xc3\xa9"), ""), "\xc3\xa9");
    assert_string_equal(ha_toml_string(ha_toml_get(root, "b"), ""), "\\\xc3\xa9x\xc3\xa9\"");
    assert_string_equal(ha_toml_string(ha_toml_get(root, "c"), ""), "\\\xc3\xa9");
    assert_string_equal(ha_toml_string(ha_toml_get(root, "d"), ""), "x\xc3\xa9\xf0\x9f\x8e\xa9!");
    assert_int_equal(ha_toml_line(ha_toml_get(root, "e")), 10);
    ha_toml_destroy(root);
}

/* Depth that would end in the recursion of a destructor is an error instead. */
static void bounds_depth(void **state)
{
    struct ha_buffer text;

    (void)state;
    ha_buffer_init(&text, 0);
    assert_int_equal(ha_buffer_append_text(&text, "s = \"\"\"a.b\n\"\"\" # a.b\na"), 0);
    for (int i = 0; i < 200000; i++)
        assert_int_equal(ha_buffer_append_text(&text, ".a"), 0);
    assert_int_equal(ha_buffer_append_text(&text, " = 1\n"), 0);
    refused(ha_buffer_text(&text), EINVAL, "t.toml:3: a key of too many parts");
    ha_buffer_reset(&text);
    assert_int_equal(ha_buffer_append_text(&text, "a = "), 0);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(ha_buffer_append_text(&text, "["), 0);
    refused(ha_buffer_text(&text), EINVAL, "t.toml:1: ");
    ha_buffer_reset(&text);
    assert_int_equal(ha_buffer_append_text(&text, "s = '"), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(ha_buffer_append_text(&text, "."), 0);
    assert_int_equal(ha_buffer_append_text(&text, "'\n"), 0);
    ha_toml_destroy(parse(ha_buffer_text(&text)));
    ha_buffer_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_order_and_lines),
        cmocka_unit_test(names_file_and_line),
        cmocka_unit_test(reads_characters_outside_ascii),
        cmocka_unit_test(bounds_depth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
