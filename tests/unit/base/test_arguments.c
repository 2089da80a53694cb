#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/fold.h"
#include "common/base/arguments.h"

static const struct ha_option options[] = {
    {"set", "KEY=VALUE", "a value"},
    {"json", NULL, "a switch"},
    {"limit", "N", "a number"},
};

static const struct ha_command command = {.name = "test",
                                          .synopsis = "A [B]",
                                          .options = options,
                                          .n_options = 3,
                                          .min_positional = 1,
                                          .max_positional = 2};

static int parse(int argc, const char *const *argv, struct ha_arguments **ret, struct ha_error *err)
{
    return ha_arguments_parse(&command, argc, argv, 0, ret, err);
}

static void options_and_positionals_mix(void **state)
{
    const char *const argv[] = {"one",     "--set", "a=1", "--json", "--set=b=2",
                                "--limit", "7",     "--",  "--two"};
    struct ha_arguments *a;
    const char *const *sets;
    int64_t n;

    (void)state;
    assert_int_equal(parse(9, argv, &a, NULL), 0);
    assert_string_equal(ha_arguments_at(a, 0, ""), "one");
    assert_string_equal(ha_arguments_at(a, 1, ""), "--two");
    assert_string_equal(ha_arguments_at(a, 2, "none"), "none");
    assert_true(ha_arguments_given(a, "json"));
    assert_false(ha_arguments_help(a));
    sets = ha_arguments_values(a, "set", &n);
    assert_int_equal(n, 2);
    assert_string_equal(sets[0], "a=1");
    assert_string_equal(sets[1], "b=2");
    assert_string_equal(ha_arguments_value(a, "set", ""), "b=2");
    assert_int_equal(ha_arguments_int(a, "limit", 0, 1, &n, NULL), 0);
    assert_int_equal(n, 7);
    assert_int_equal(ha_arguments_int(a, "limit", 8, 1, &n, NULL), -EINVAL);
    ha_arguments_destroy(a);
}

static void values_of_several_options_stay(void **state)
{
    const char *const argv[] = {"one", "--set", "a", "--limit", "1", "--set=b", "--limit=2"};
    const char *const *sets, *const *limits;
    struct ha_arguments *a;
    int64_t n_sets, n_limits, none;

    (void)state;
    assert_int_equal(parse(7, argv, &a, NULL), 0);
    sets = ha_arguments_values(a, "set", &n_sets);
    limits = ha_arguments_values(a, "limit", &n_limits);
    (void)ha_arguments_values(a, "json", &none);
    assert_int_equal(n_sets, 2);
    assert_int_equal(n_limits, 2);
    assert_int_equal(none, 0);
    assert_string_equal(sets[0], "a");
    assert_string_equal(sets[1], "b");
    assert_string_equal(limits[0], "1");
    assert_string_equal(limits[1], "2");
    ha_arguments_destroy(a);
}

static void mistakes_are_named(void **state)
{
    static const char *const cases[][3] = {
        {"one", "--bogus", NULL}, {"one", "--set", NULL},  {"one", "--json=1", NULL},
        {NULL, NULL, NULL},       {"one", "two", "three"},
    };
    static const char *const texts[] = {"--bogus", "needs a value", "takes no value", "needs A",
                                        "three"};
    struct ha_arguments *a = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ha_error err = {0};
        const char *argv[3];
        int argc = 0;

        while (argc < 3 && cases[i][argc]) {
            argv[argc] = cases[i][argc];
            argc++;
        }
        assert_int_equal(parse(argc, argv, &a, &err), -EINVAL);
        assert_non_null(strstr(err.text, texts[i]));
    }
    assert_null(a);
}

static void help_needs_no_arguments(void **state)
{
    const char *const argv[] = {"--help"};
    struct ha_arguments *a;

    (void)state;
    assert_int_equal(parse(1, argv, &a, NULL), 0);
    assert_true(ha_arguments_help(a));
    ha_arguments_destroy(a);
    ha_arguments_destroy(NULL);
}

/* What is read from the folded lines is the text. */
static void long_text_is_folded_at_spaces(void **state)
{
    static const struct {
        const char *text;
        int width;
        const char *lines[4];
    } cases[] = {
        {"", 10, {""}},
        {"fits", 4, {"fits"}},
        {"one two three", 7, {"one two", "three"}},
        {"one two  three", 6, {"one", "two", "three"}},
        {"incomprehensible word", 5, {"incomprehensible", "word"}},
        {"a b", 0, {"a", "b"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text = cases[i].text;

        for (int line = 0; line < 4 && cases[i].lines[line]; line++) {
            int n = ha_fold(text, cases[i].width);

            assert_int_equal(n, strlen(cases[i].lines[line]));
            assert_memory_equal(text, cases[i].lines[line], (size_t)n);
            text = ha_fold_next(text, n);
        }
        assert_string_equal(text, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_positionals_mix),
        cmocka_unit_test(values_of_several_options_stay),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(help_needs_no_arguments),
        cmocka_unit_test(long_text_is_folded_at_spaces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
