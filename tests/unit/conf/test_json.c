/* JSON values: what is refused, accessors with defaults, order, dumps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/conf/json.h"

static struct ha_json *parse(const char *text)
{
    struct ha_json *json = NULL;
    struct ha_error err = {0};
    int r = ha_json_parse(text, strlen(text), "t.json", &json, &err);

    if (r < 0)
        print_message("%s\n", err.text);
    assert_int_equal(r, 0);
    return json;
}

static void accessors_default(void **state)
{
    struct ha_json *json = parse("{\"b\": true, \"i\": -7, \"r\": 1.5, \"s\": \"a\\u0000b\","
                                 " \"n\": null, \"a\": [1, 2.0]}");
    const struct ha_json *array = ha_json_get(json, "a");

    (void)state;
    assert_true(ha_json_bool(ha_json_get(json, "b"), false));
    assert_int_equal(ha_json_int(ha_json_get(json, "i"), 0), -7);
    assert_true(ha_json_real(ha_json_get(json, "r"), 0) == 1.5);
    assert_true(ha_json_real(ha_json_get(json, "i"), 0) == -7.0);
    assert_int_equal(ha_json_int(ha_json_get(json, "r"), 42), 42);
    assert_int_equal(ha_json_int(ha_json_at(array, 1), 42), 42);
    assert_int_equal(ha_json_string_size(ha_json_get(json, "s")), 3);
    assert_memory_equal(ha_json_string(ha_json_get(json, "s"), ""), "a\0b", 4);
    assert_int_equal(ha_json_type(ha_json_get(json, "n")), HA_JSON_NULL);
    assert_true(ha_json_is(ha_json_get(json, "n"), HA_JSON_NULL));
    assert_false(ha_json_is(ha_json_get(json, "absent"), HA_JSON_NULL));
    assert_null(ha_json_get(ha_json_get(ha_json_get(json, "absent"), "x"), "y"));
    assert_null(ha_json_at(array, 2));
    assert_null(ha_json_at(array, -1));
    assert_int_equal(ha_json_size(array), 2);
    assert_int_equal(ha_json_size(json), 6);
    assert_int_equal(ha_json_size(NULL), 0);
    assert_string_equal(ha_json_string(array, "other"), "other");
    assert_true(ha_json_bool(NULL, true));
    ha_json_destroy(json);
    ha_json_destroy(NULL);
}

static void integers_beyond_64_bits_are_reals(void **state)
{
    struct ha_json *json = parse("[9223372036854775807, -9223372036854775808, 9223372036854775808,"
                                 " -1000000000000000019884624838656,"
                                 " \"\\\"1000000000000000000000\", 123456789012345678901.5]");

    (void)state;
    assert_true(ha_json_int(ha_json_at(json, 0), 0) == INT64_MAX);
    assert_true(ha_json_int(ha_json_at(json, 1), 0) == INT64_MIN);
    assert_true(ha_json_is(ha_json_at(json, 2), HA_JSON_REAL));
    assert_true(ha_json_real(ha_json_at(json, 2), 0) == 9223372036854775808.0);
    assert_true(ha_json_real(ha_json_at(json, 3), 0) == -1e30);
    assert_string_equal(ha_json_string(ha_json_at(json, 4), ""), "\"1000000000000000000000");
    assert_true(ha_json_real(ha_json_at(json, 5), 0) == 123456789012345678901.5);
    ha_json_destroy(json);
}

static void order_and_dumps(void **state)
{
    struct ha_json *json = parse("{\"z\": 1, \"a\": {\"y\": 0.1, \"b\": \"\u00e9\"}, \"m\": []}");
    const char *key, *expected[] = {"z", "a", "m"};
    struct ha_json *value;
    void *iterator = NULL;
    char *text;
    int n = 0;

    (void)state;
    while (ha_json_next(json, &iterator, &key, &value))
        assert_string_equal(key, expected[n++]);
    assert_int_equal(n, 3);
    text = ha_json_dump(json, HA_JSON_COMPACT);
    assert_string_equal(text,
                        "{\"z\":1,\"a\":{\"y\":0.10000000000000001,\"b\":\"\u00e9\"},\"m\":[]}");
    free(text);
    text = ha_json_dump(json, HA_JSON_CANONICAL);
    assert_string_equal(text,
                        "{\"a\":{\"b\":\"\u00e9\",\"y\":0.10000000000000001},\"m\":[],\"z\":1}");
    free(text);
    text = ha_json_dump(ha_json_get(json, "z"), HA_JSON_PRETTY);
    assert_string_equal(text, "1");
    free(text);
    assert_null(ha_json_dump(NULL, HA_JSON_COMPACT));
    ha_json_destroy(json);
}

static void refusals_name_the_place(void **state)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"{\"a\": 1,\n \"a\": 2}", "t.json:2:"},
        {"{\"a\": 1} x", "t.json:1:"},
        {"", "t.json:1:"},
        {"[1, 2", "t.json:1:"},
        {"{\"a\\u0000\": 1}", "NUL"},
        {"\"\xff\"", "0xff"},
        {"[1e999]", "overflow"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_json *json = (struct ha_json *)(uintptr_t)1;
        struct ha_error err = {0};

        assert_int_equal(ha_json_parse(cases[i].text, strlen(cases[i].text), "t.json", &json, &err),
                         -EINVAL);
        assert_ptr_equal(json, (struct ha_json *)(uintptr_t)1);
        if (!strstr(err.text, cases[i].part))
            fail_msg("\"%s\" is not in \"%s\"", cases[i].part, err.text);
    }
}

static void depth_is_bounded(void **state)
{
    char text[2 * 513 + 1];
    struct ha_json *json = NULL;
    struct ha_error err = {0};

    (void)state;
    memset(text, '[', 513);
    memset(text + 513, ']', 513);
    assert_int_equal(ha_json_parse(text, 2 * 513, "t", &json, &err), -EINVAL);
    assert_string_equal(err.text, "t:1:513: nested deeper than 512 levels");
    assert_int_equal(ha_json_parse(text + 1, 2 * 512, "t", &json, &err), 0);
    ha_json_destroy(json);
    json = parse("\"[[\\\"[[\"");
    assert_string_equal(ha_json_string(json, ""), "[[\"[[");
    ha_json_destroy(json);
}

static void building(void **state)
{
    struct ha_json *object = ha_json_new_object(), *array = ha_json_new_array();
    char *text;

    (void)state;
    assert_int_equal(ha_json_append(array, ha_json_new_int(INT64_MIN)), 0);
    assert_int_equal(ha_json_append(array, ha_json_new_real(NAN)), 0);
    assert_int_equal(ha_json_append(array, ha_json_new_bool(false)), 0);
    assert_int_equal(ha_json_append(array, ha_json_new_string_n("a\0b", 3)), 0);
    assert_int_equal(ha_json_append(array, ha_json_new_null()), 0);
    assert_int_equal(ha_json_append(array, NULL), -ENOMEM);
    assert_null(ha_json_new_string("\xff"));
    assert_int_equal(ha_json_set(object, "k", array), 0);
    assert_int_equal(ha_json_set(object, "k2", ha_json_new_string("v")), 0);
    text = ha_json_dump(object, HA_JSON_COMPACT);
    assert_string_equal(
        text, "{\"k\":[-9223372036854775808,null,false,\"a\\u0000b\",null],\"k2\":\"v\"}");
    free(text);
    ha_json_destroy(object);
}

static void files_are_bounded(void **state)
{
    char path[] = "/tmp/ha_test_json_XXXXXX";
    int fd = mkstemp(path);
    struct ha_json *json = NULL;
    struct ha_error err = {0};

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "[1,2]", 5), 5);
    (void)close(fd);
    assert_int_equal(ha_json_load(path, 5, &json, &err), 0);
    assert_int_equal(ha_json_size(json), 2);
    ha_json_destroy(json);
    assert_int_equal(ha_json_load(path, 4, &json, &err), -EFBIG);
    (void)unlink(path);
    assert_int_equal(ha_json_load(path, 4, &json, &err), -ENOENT);
    assert_non_null(strstr(err.text, path));
    assert_true(ha_json_load("/tmp", 4, &json, &err) < 0);
}

static void plain_text_can_be_copied(void **state)
{
    static const char *const plain[] = {
        "{}",           " [ ] ",
        "[[],{}]",      "{\"a\": [1, -0, 0.5, 1e5, 2E-3, true, false, null]}\n",
        "\"\\\"\\\\\"", "{\"a\":{\"b\":\"\xc3\xa9\"},\"c\":[[1],2]}",
        "-12.5e+10"};
    static const char *const other[] = {"",
                                        " ",
                                        "{",
                                        "]",
                                        "[1,]",
                                        "[,1]",
                                        "[1 2]",
                                        "{\"a\"}",
                                        "{\"a\":}",
                                        "{\"a\":1,}",
                                        "{a:1}",
                                        "[1}",
                                        "{\"a\":1]",
                                        "01",
                                        "+1",
                                        "1.",
                                        ".5",
                                        "1e",
                                        "--1",
                                        "tru",
                                        "nul",
                                        "\"a",
                                        "\"\n\"",
                                        "\"\\n\"",
                                        "\"\\u0041\"",
                                        "\"\xff\"",
                                        "1 1",
                                        "{} {}",
                                        "[\"a\":1]",
                                        "NaN",
                                        "1e999",
                                        "12345678901234567890"};
    char deep[400];

    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        struct ha_json *json;

        assert_true(ha_json_is_plain(plain[i], strlen(plain[i])));
        assert_int_equal(ha_json_parse(plain[i], strlen(plain[i]), "", &json, NULL), 0);
        ha_json_destroy(json);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_false(ha_json_is_plain(other[i], strlen(other[i])));
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    assert_true(ha_json_is_plain(deep + 136, 128));
    assert_false(ha_json_is_plain(deep + 135, 130));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accessors_default), cmocka_unit_test(integers_beyond_64_bits_are_reals),
        cmocka_unit_test(order_and_dumps),   cmocka_unit_test(refusals_name_the_place),
        cmocka_unit_test(depth_is_bounded),  cmocka_unit_test(building),
        cmocka_unit_test(files_are_bounded), cmocka_unit_test(plain_text_can_be_copied),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
