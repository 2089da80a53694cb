#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/buffer.h"
#include "coordinator/core/resubmit.h"

static struct ha_resubmit_cell cell(const char *settings)
{
    return (struct ha_resubmit_cell){.settings = settings,
                                     .layers = "2-3",
                                     .model_digest = "m",
                                     .tokenizer_digest = "t",
                                     .data_digest = "d"};
}

static void expect(const struct ha_resubmit_cell *before, const struct ha_resubmit_cell *after,
                   const char *sentence)
{
    struct ha_buffer text;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_resubmit_difference(before, after, &text, NULL), 0);
    assert_string_equal(ha_buffer_text(&text), sentence);
    ha_buffer_clear(&text);
}

static void names_the_setting(void **state)
{
    struct ha_resubmit_cell a =
        cell("{\"train\":{\"checkpoint_every\":600,\"beta\":0.125,\"epochs\":1}}");
    struct ha_resubmit_cell b =
        cell("{\"train\":{\"checkpoint_every\":60,\"beta\":0.5,\"epochs\":2}}");

    (void)state;
    expect(&a, &b, "train.beta (0.125 -> 0.5)");
    a.settings = "{\"train\":{\"epochs\":2}}";
    expect(&a, &b, "train.beta (unset -> 0.5)");
}

static void names_what_is_no_setting(void **state)
{
    struct ha_resubmit_cell a = cell("{\"data\":{\"seed\":1}}"), b = a;

    (void)state;
    b.layers = "2-4";
    expect(&a, &b, "layers (2-3 -> 2-4)");
    b = a;
    b.model_digest = "x";
    expect(&a, &b, "the model's files");
    b = a;
    b.tokenizer_digest = "x";
    expect(&a, &b, "the tokenizer's files");
    b = a;
    b.data_digest = "x";
    expect(&a, &b, "the data files");
    expect(&a, &a, "the form of the keys");
}

static void judges(void **state)
{
    struct ha_buffer text;

    (void)state;
    ha_buffer_init(&text, 0);
    assert_int_equal(ha_resubmit_judge_difference("judge.q", "{\"concurrency\":1,\"model\":\"a\"}",
                                                  "{\"concurrency\":2,\"model\":\"b\"}", &text,
                                                  NULL),
                     0);
    assert_string_equal(ha_buffer_text(&text), "judge.q.model (\"a\" -> \"b\")");
    ha_buffer_clear(&text);
}

static void unreadable_settings(void **state)
{
    struct ha_resubmit_cell a = cell("{"), b = cell("{}");
    struct ha_buffer text;

    (void)state;
    ha_buffer_init(&text, 0);
    assert_true(ha_resubmit_difference(&a, &b, &text, NULL) < 0);
    assert_true(ha_resubmit_difference(&b, &a, &text, NULL) < 0);
    ha_buffer_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_the_setting),
        cmocka_unit_test(names_what_is_no_setting),
        cmocka_unit_test(judges),
        cmocka_unit_test(unreadable_settings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
