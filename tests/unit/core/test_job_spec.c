#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/core/job_spec.h"

static void expect_path(char *path, const char *expected)
{
    assert_non_null(path);
    assert_string_equal(path, expected);
    free(path);
}

static void paths_of_inputs(void **state)
{
    (void)state;
    expect_path(ha_spec_data_path("train", 0, "data/a.jsonl"), "inputs/data/train-0.jsonl");
    expect_path(ha_spec_data_path("eval", 2, "/x.y/train.jsonl.gz"), "inputs/data/eval-2.jsonl.gz");
    expect_path(ha_spec_data_path("eval", 2, "d/b.gz"), "inputs/data/eval-2.gz");
    expect_path(ha_spec_data_path("eval", 2, "a.b/rows"), "inputs/data/eval-2");
    expect_path(ha_spec_data_path("eval", 2, "rows.js/../n"), "inputs/data/eval-2");
    expect_path(ha_spec_data_path("eval", 2, "rows.j on"), "inputs/data/eval-2.jon");
    expect_path(ha_spec_adapter_path(7, NULL), "inputs/adapter/7");
    expect_path(ha_spec_adapter_path(7, "adapter_config.json"),
                "inputs/adapter/7/adapter_config.json");
    expect_path(ha_spec_checkpoint_path(7), "inputs/checkpoint/7");
    expect_path(ha_spec_reference_path(), "inputs/reference");
}

static struct ha_spec example(const struct ha_spec_cell *cells, int64_t count)
{
    static const char *const train[] = {"inputs/data/train-0.jsonl"};
    static const char *const eval[] = {"inputs/data/eval-0.jsonl", "inputs/data/eval-1.jsonl"};

    return (struct ha_spec){.kind = HA_STAGE_TRAIN,
                            .sweep = "demo",
                            .job = 12,
                            .model_name = "tiny",
                            .model_path = "/models/tiny",
                            .hub_id = "",
                            .prompt_template = "hh",
                            .train = train,
                            .train_count = 1,
                            .eval = eval,
                            .eval_count = 2,
                            .cells = cells,
                            .cell_count = count};
}

static void the_form_of_the_contract(void **state)
{
    struct ha_spec_cell cells[] = {{.id = 3,
                                    .name = "tiny/mid",
                                    .layers = "2-3,5",
                                    .settings = "{\"train\":{\"beta\":0.5}}",
                                    .checkpoint = "inputs/checkpoint/3"},
                                   {.id = 4,
                                    .name = "tiny/base",
                                    .layers = "",
                                    .settings = "{\"train\":{\"beta\":0.25}}",
                                    .adapter = "inputs/adapter/4"}};
    struct ha_spec_skip skip[] = {{3, 0, 0}, {3, 7, 1}, {4, 2, 0}};
    struct ha_spec spec = example(cells, 2);
    char *text = NULL;

    (void)state;
    spec.skip = skip;
    spec.skip_count = 3;
    spec.time_alone_steps = 2;
    spec.ranks = 4;
    assert_int_equal(ha_spec_json(&spec, &text, NULL), 0);
    assert_string_equal(
        text, "{\"kind\":\"train\",\"sweep\":\"demo\",\"job\":12,"
              "\"model\":{\"name\":\"tiny\",\"path\":\"/models/tiny\",\"hub_id\":\"\","
              "\"template\":\"hh\"},\"data\":{\"train\":[\"inputs/data/train-0.jsonl\"],"
              "\"eval\":[\"inputs/data/eval-0.jsonl\",\"inputs/data/eval-1.jsonl\"]},"
              "\"threads\":0,\"backend\":\"auto\","
              "\"ranks\":4,\"time_alone_steps\":2,\"reference\":null,"
              "\"skip_answers\":{\"3\":[[0,0],[7,1]],\"4\":[[2,0]]},"
              "\"settings\":{\"train\":{\"beta\":0.5}},"
              "\"cells\":[{\"settings\":{},\"layers\":[2,3,5],\"id\":3,\"name\":\"tiny/mid\","
              "\"adapter\":null,\"checkpoint\":\"inputs/checkpoint/3\"},"
              "{\"settings\":{\"train\":{\"beta\":0.25}},\"layers\":[],\"id\":4,"
              "\"name\":\"tiny/base\",\"adapter\":\"inputs/adapter/4\",\"checkpoint\":null}]}");
    free(text);
}

static void bad_rows_are_named(void **state)
{
    struct ha_spec_cell cell = {.id = 3, .name = "tiny/mid", .layers = "", .settings = "{"};
    struct ha_spec spec = example(&cell, 1);
    struct ha_error err = {0};
    char *text = NULL;

    (void)state;
    assert_true(ha_spec_json(&spec, &text, &err) < 0);
    assert_non_null(strstr(err.text, "tiny/mid"));
    cell.settings = "[1]";
    assert_true(ha_spec_json(&spec, &text, &err) < 0);
    cell.settings = "{}";
    cell.layers = "x";
    assert_true(ha_spec_json(&spec, &text, &err) < 0);
    assert_non_null(strstr(err.text, "tiny/mid"));
    assert_null(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_of_inputs),
        cmocka_unit_test(the_form_of_the_contract),
        cmocka_unit_test(bad_rows_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
