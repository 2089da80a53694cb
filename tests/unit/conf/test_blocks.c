/* Blocks of layers: the paper's Table 4 from the models' own config.json, and lists of layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

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
    expect_list("auto:4", 28, "!\"auto:4\" is not built yet");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_table_4),
        cmocka_unit_test(gives_table_4_from_configs),
        cmocka_unit_test(covers_every_depth),
        cmocka_unit_test(parses_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
