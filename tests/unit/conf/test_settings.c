/* The mechanism of settings: numbers as text, nearest keys, one row after another through text
 * and JSON and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/sweep.h"

static void writes_reals(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{1e-5, "1e-5"},
                 {0.1, "0.1"},
                 {1e-4, "1e-4"},
                 {0.05, "0.05"},
                 {2.5e-6, "2.5e-6"},
                 {32, "32"},
                 {0, "0"},
                 {-0.5, "-0.5"},
                 {1e300, "1e300"},
                 {0.999, "0.999"},
                 {123456.75, "123456.75"}};
    char text[HA_REAL_TEXT_BYTES];
    uint64_t x = 88172645463325252u;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(ha_real_text(cases[i].value, text), cases[i].text);
    for (int i = 0; i < 20000; i++) {
        double value;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(&value, &x, sizeof(value));
        if (isfinite(value))
            assert_true(strtod(ha_real_text(value, text), NULL) == value);
    }
}

static void finds_the_nearest_key(void **state)
{
    static const char *const keys[] = {"learning_rate", "batch_size", "beta", "beta1", "eps"};

    (void)state;
    assert_string_equal(ha_settings_nearest("learnig_rate", keys, 5), "learning_rate");
    assert_string_equal(ha_settings_nearest("leraning_rate", keys, 5), "learning_rate");
    assert_string_equal(ha_settings_nearest("bta", keys, 5), "beta");
    assert_string_equal(ha_settings_nearest("batchsize", keys, 5), "batch_size");
    assert_null(ha_settings_nearest("x", keys, 5));
    assert_null(ha_settings_nearest("completely_different", keys, 5));
}

static const struct ha_section *const sections[] = {
    &ha_sweep_general_section,  &ha_sweep_model_section,    &ha_sweep_strategies_section,
    &ha_sweep_strategy_section, &ha_sweep_data_section,     &ha_sweep_train_section,
    &ha_sweep_generate_section, &ha_sweep_judge_section,    &ha_sweep_resources_section,
    &ha_sweep_retry_section,    &ha_sweep_schedule_section, &ha_sweep_notify_section};

enum { SECTIONS = sizeof(sections) / sizeof(sections[0]) };

/* What a row must have for the rest of the code to be right. */
static void tables_are_sound(void **state)
{
    (void)state;
    for (int i = 0; i < SECTIONS; i++) {
        assert_true(sections[i]->count <= 64);
        for (int64_t j = 0; j < sections[i]->count; j++) {
            const struct ha_setting *row = &sections[i]->rows[j];

            assert_true(row->offset >= sizeof(uint64_t) && row->offset < sections[i]->bytes);
            assert_true(row->help && row->help[0]);
            assert_false(row->required && row->otherwise);
            assert_true(row->type != HA_SETTING_CHOICE || row->choices);
            assert_ptr_equal(ha_section_find(sections[i], row->key), row);
            for (int64_t k = 0; k < j; k++)
                assert_true(sections[i]->rows[k].offset != row->offset);
        }
    }
}

/* Every default survives text and JSON. */
static void round_trips(void **state)
{
    (void)state;
    for (int i = 0; i < SECTIONS; i++) {
        const struct ha_section *section = sections[i];
        void *a = calloc(1, section->bytes), *b = calloc(1, section->bytes);
        void *c = calloc(1, section->bytes);
        struct ha_error err = {0};
        struct ha_json *json, *again;
        char *x, *y;

        assert_int_equal(ha_section_init(section, a, &err), 0);
        assert_int_equal(ha_section_copy(section, a, c, &err), 0);
        for (int64_t j = 0; j < section->count; j++) {
            const struct ha_setting *row = &section->rows[j];
            char *text = ha_section_text(row, a);

            if (ha_section_has(section, row, a) && row->type != HA_SETTING_OBJECT) {
                assert_int_equal(ha_section_set(section, row, text, "test", b, &err), 0);
                assert_true(ha_section_given(section, row, b));
            }
            free(text);
        }
        json = ha_section_json(section, a, 0);
        again = ha_section_json(section, b, 0);
        x = ha_json_dump(json, HA_JSON_CANONICAL);
        y = ha_json_dump(again, HA_JSON_CANONICAL);
        assert_string_equal(x, y);
        ha_section_clear(section, b);
        assert_int_equal(ha_section_from_json(section, json, "test", b, &err), 0);
        free(y);
        ha_json_destroy(again);
        again = ha_section_json(section, c, 0);
        y = ha_json_dump(again, HA_JSON_CANONICAL);
        assert_string_equal(x, y);
        free(x);
        free(y);
        ha_json_destroy(json);
        ha_json_destroy(again);
        ha_section_clear(section, a);
        ha_section_clear(section, b);
        ha_section_clear(section, c);
        free(a);
        free(b);
        free(c);
    }
}

static void expect_set(const char *key, const char *text, const char *want)
{
    const struct ha_section *section = &ha_sweep_judge_section;
    const struct ha_setting *row = ha_section_find(section, key);
    struct ha_sweep_judge judge;
    struct ha_error err = {0};
    int r;
    char *shown;

    assert_int_equal(ha_section_init(section, &judge, &err), 0);
    r = ha_section_set(section, row, text, "--set judge.x", &judge, &err);
    if (want[0] == '!') {
        assert_true(r < 0);
        assert_string_equal(err.text, want + 1);
    } else {
        assert_int_equal(r, 0);
        shown = ha_section_text(row, &judge);
        assert_string_equal(shown, want);
        free(shown);
    }
    ha_section_clear(section, &judge);
}

static void sets_from_text(void **state)
{
    (void)state;
    expect_set("timeout", "90s", "90s");
    expect_set("timeout", "120", "2m");
    expect_set("timeout", "2h", "2h");
    expect_set("timeout", "2w",
               "!--set judge.x must be a duration (\"90s\", \"10m\", \"2h\", "
               "\"1d\" or seconds) from 1 to 86400, not \"2w\"");
    expect_set("timeout", "99999999999999999999s",
               "!--set judge.x must be a duration (\"90s\", "
               "\"10m\", \"2h\", \"1d\" or seconds) from 1 to "
               "86400, not \"99999999999999999999s\"");
    expect_set("model", "gpt \"x\"", "gpt \"x\"");
    expect_set("model", "\"a\\tb\"", "a\tb");
    expect_set("extra", "{b = 1, a = {c = [true, 'x']}}", "{\"a\":{\"c\":[true,\"x\"]},\"b\":1}");
    expect_set("extra", "{\"k\": 1.5}", "{\"k\":1.5}");
    expect_set("extra", "3", "!--set judge.x must be a table, not 3");
    expect_set("concurrency", "x", "!--set judge.x must be an integer from 1 to 4096, not \"x\"");
    expect_set("concurrency", "1.5", "!--set judge.x must be an integer from 1 to 4096, not 1.5");
    expect_set("concurrency", "4097", "!--set judge.x must be an integer from 1 to 4096, not 4097");
    expect_set("price_input", "nan", "!--set judge.x must be a number of at least 0, not \"nan\"");
    expect_set("price_input", "0.25", "0.25");
    expect_set("price_input", "-0.0", "0");
    expect_set("model", "\"[a\\u007fb\"", "\"[a\\u007fb\"");
    expect_set("model", "a\xff", "!--set judge.x must be UTF-8");
    expect_set("prompt", "own", "!--set judge.x must be one of paper|guarded, not \"own\"");
}

static void prints_with_sources(void **state)
{
    struct ha_sweep_train train;
    struct ha_error err = {0};
    struct ha_buffer out;

    (void)state;
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_section_init(&ha_sweep_train_section, &train, &err), 0);
    assert_int_equal(ha_section_set(&ha_sweep_train_section,
                                    ha_section_find(&ha_sweep_train_section, "beta"), "0.5", "",
                                    &train, &err),
                     0);
    assert_int_equal(ha_section_print(&ha_sweep_train_section, &train, &out), 0);
    assert_non_null(strstr(ha_buffer_text(&out), "learning_rate = 1e-5"));
    assert_non_null(strstr(ha_buffer_text(&out), "# paper; of the first step"));
    assert_non_null(strstr(ha_buffer_text(&out), "# user; temperature of the DPO loss"));
    assert_non_null(strstr(ha_buffer_text(&out), "checkpoint_every = \"10m\""));
    ha_buffer_clear(&out);
    ha_section_clear(&ha_sweep_train_section, &train);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_reals),     cmocka_unit_test(finds_the_nearest_key),
        cmocka_unit_test(tables_are_sound), cmocka_unit_test(round_trips),
        cmocka_unit_test(sets_from_text),   cmocka_unit_test(prints_with_sources),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
