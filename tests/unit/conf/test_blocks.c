/* Blocks of layers: the paper's Table 4 from the models' own config.json, and lists of layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/blocks.h"
#include "common/conf/json.h"

static void expect_block(const char *strategy, int64_t total, const char *want)
{
    struct ha_layers layers = {0};
    struct ha_error err = {0};
    char *text;

    assert_int_equal(ha_layers_of(strategy, NULL, total, &layers, &err), 0);
    text = ha_layers_text(&layers);
    assert_string_equal(text, want);
    free(text);
    ha_layers_clear(&layers);
}

static const struct {
    const char *folder;
    int64_t layers;
    const char *local, *mid, *global;
} table_4[] = {
    {"llama-2-7b-hf", 32, "0-10", "11-21", "22-31"},
    {"llama-3.1-8b-instruct", 32, "0-10", "11-21", "22-31"},
    {"qwen3-8b", 36, "0-11", "12-23", "24-35"},
    {"qwen2.5-7b-instruct", 28, "0-9", "10-18", "19-27"},
};

static void expect_row(size_t row, int64_t layers)
{
    assert_int_equal(layers, table_4[row].layers);
    expect_block("local", layers, table_4[row].local);
    expect_block("mid", layers, table_4[row].mid);
    expect_block("global", layers, table_4[row].global);
}

static void gives_table_4(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++)
        expect_row(i, table_4[i].layers);
}

static void gives_table_4_from_configs(void **state)
{
    const char *data = getenv("HA_TEST_DATA");

    (void)state;
    if (!data) {
        print_message("HA_TEST_DATA is not set: the models' config.json are skipped\n");
        skip();
    }
    for (size_t i = 0; i < 4; i++) {
        struct ha_json *json = NULL;
        struct ha_error err = {0};
        char path[4096];

        (void)snprintf(path, sizeof(path), "%s/configs/%s/config.json", data, table_4[i].folder);
        assert_int_equal(ha_json_load(path, 1 << 20, &json, &err), 0);
        expect_row(i, ha_json_int(ha_json_get(json, "num_hidden_layers"), 0));
        ha_json_destroy(json);
    }
}

static void covers_every_depth(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= 130; n++) {
        static const char *const names[] = {"local", "mid", "global"};
        int64_t at = 0, first, end, sizes[3];

        for (int i = 0; i < 3; i++) {
            assert_true(ha_blocks_range(names[i], n, &first, &end));
            assert_int_equal(first, at);
            sizes[i] = end - first;
            at = end;
        }
        assert_int_equal(at, n);
        assert_true(sizes[0] >= sizes[1] && sizes[1] >= sizes[2] && sizes[0] - sizes[2] <= 1);
    }
    expect_block("full", 7, "0-6");
    expect_block("base", 7, "none");
}

static void expect_list(const char *text, int64_t total, const char *want)
{
    struct ha_layers layers = {0};
    struct ha_error err = {0};
    int r = ha_layers_parse(text, total, &layers, &err);
    char *shown;

    if (want[0] == '!') {
        assert_true(r < 0);
        assert_null(layers.items);
        assert_non_null(strstr(err.text, want + 1));
        return;
    }
    assert_int_equal(r, 0);
    shown = ha_layers_text(&layers);
    assert_string_equal(shown, want);
    free(shown);
    ha_layers_clear(&layers);
}

static void parses_lists(void **state)
{
    (void)state;
    expect_list("18-27", 28, "18-27");
    expect_list("18,20", 28, "18,20");
    expect_list(" 5 , 0 - 2 ", 0, "0-2,5");
    expect_list("7", 8, "7");
    expect_list("18-28", 28, "!layer 28 does not exist; the last one is 27");
    expect_list("3,1-4", 28, "!layer 3 is listed twice");
    expect_list("4-1", 28, "!run backwards");
    expect_list("", 28, "!no layers");
    expect_list("1,", 28, "!not a list of layers");
    expect_list("a", 28, "!not a list of layers");
    expect_list("1-", 28, "!not a list of layers");
    expect_list("-1", 28, "!not a list of layers");
    expect_list("99999999999999999999", 0, "!does not exist");
    expect_list("auto:4", 28, "!not a list of layers");
}

static void expect_rule(const char *text, int64_t total, const char *want)
{
    struct ha_error err = {0};
    int64_t count = -1;
    int r = ha_layers_parse_auto(text, total, &count, &err);

    assert_true(ha_layers_are_auto(text));
    assert_int_equal(r, want ? -EINVAL : 0);
    if (want)
        assert_non_null(strstr(err.text, want));
    assert_int_equal(count, want ? -1 : 4);
}

static void parses_rules(void **state)
{
    struct ha_layers layers = {0};
    struct ha_error err = {0};

    (void)state;
    expect_rule("auto:4", 0, NULL);
    expect_rule("auto:4", 4, NULL);
    expect_rule("auto:4", 3, "asks for more than the model's 3 layers");
    expect_rule("auto:0", 0, "at least one layer");
    expect_rule("auto:", 0, "is no rule; write \"auto:8\"");
    expect_rule("auto:-1", 0, "is no rule");
    expect_rule("auto:4,5", 0, "is no rule");
    expect_rule("auto", 0, "is no rule");
    assert_false(ha_layers_are_auto(NULL));
    assert_false(ha_layers_are_auto("0-3"));
    assert_int_equal(ha_layers_of("top", "auto:3", 3, &layers, &err), 0);
    assert_int_equal(layers.count, 0);
    assert_true(ha_layers_of("top", "auto:4", 3, &layers, &err) < 0);
}

static void expect_choice(const double *values, int64_t total, int64_t count, int64_t want_first,
                          double want_share)
{
    struct ha_error err = {0};
    int64_t first = -1;
    double share = -1;

    assert_int_equal(ha_layers_choose(values, total, count, &first, &share, &err), 0);
    assert_int_equal(first, want_first);
    assert_true(fabs(share - want_share) < 1e-15);
}

static void chooses_the_largest_share(void **state)
{
    static const double rising[] = {1, 2, 3, 4}, hill[] = {1, 5, 5, 1, 5, 5}, none[4] = {0};
    /* 0.1 + 0.2 in another order is another number: windows of equal layers must still tie. */
    static const double equal[] = {0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3};
    static const double wrong[] = {1, NAN, 1}, negative[] = {1, -1, 1}, huge[] = {INFINITY, 1, 1};
    struct ha_error err = {0};
    int64_t first = -1;
    double share = -1;

    (void)state;
    expect_choice(rising, 4, 1, 3, 0.4);
    expect_choice(rising, 4, 2, 2, 0.7);
    expect_choice(rising, 4, 4, 0, 1);
    expect_choice(hill, 6, 2, 1, 10.0 / 22); /* the lowest of equal ones */
    expect_choice(none, 4, 2, 0, 0);
    expect_choice(equal, 9, 3, 0, 0.6 / 1.8);
    assert_int_equal(ha_layers_choose(rising, 4, 5, &first, &share, &err), -EINVAL);
    assert_int_equal(ha_layers_choose(rising, 4, 0, &first, &share, &err), -EINVAL);
    assert_int_equal(ha_layers_choose(wrong, 3, 1, &first, &share, &err), -EINVAL);
    assert_int_equal(ha_layers_choose(negative, 3, 1, &first, &share, &err), -EINVAL);
    assert_string_equal(err.text, "the norm of layer 1 is no norm: -1");
    assert_int_equal(ha_layers_choose(huge, 3, 1, &first, &share, &err), -EINVAL);
    assert_int_equal(first, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_table_4),      cmocka_unit_test(gives_table_4_from_configs),
        cmocka_unit_test(covers_every_depth), cmocka_unit_test(parses_lists),
        cmocka_unit_test(parses_rules),       cmocka_unit_test(chooses_the_largest_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
