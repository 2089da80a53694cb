#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "worker/attempt/answer_text.h"

static const char *const stops[] = {"\n\nHuman:", "END", ""};

static size_t stop_of(const char *text, size_t from)
{
    return ha_answer_stop(text, strlen(text), from, stops, 3);
}

static void the_earliest_stop_counts(void **state)
{
    (void)state;
    assert_int_equal(stop_of("yes", 0), 3);
    assert_int_equal(stop_of("yes\n\nHuman: no END", 0), 3);
    assert_int_equal(stop_of("yes END\n\nHuman:", 0), 4);
    assert_int_equal(stop_of("\n\nHuman:", 0), 0);
    assert_int_equal(stop_of("\n\nHuman", 0), 7);
    assert_int_equal(stop_of("", 0), 0);
}

static void the_search_begins_where_it_is_told(void **state)
{
    (void)state;
    assert_int_equal(stop_of("END END", 1), 4);
    assert_int_equal(stop_of("END", 1), 3);
    assert_int_equal(stop_of("END", 3), 3);
    assert_int_equal(ha_answer_stop("END", 3, 0, NULL, 0), 3);
}

static void stops_lie_behind_zero_bytes(void **state)
{
    static const char text[] = "a\0b END";

    (void)state;
    assert_int_equal(ha_answer_stop(text, sizeof(text) - 1, 0, stops, 3), 4);
}

static void cut_with(const char *raw, bool thoughts_cut, const char *want)
{
    size_t begin = 99, size = 99;

    ha_answer_cut(raw, strlen(raw), stops, 3, thoughts_cut, &begin, &size);
    assert_int_equal(size, strlen(want));
    assert_memory_equal(raw + begin, want, size);
}

static void cut_is(const char *raw, const char *want)
{
    cut_with(raw, false, want);
}

static void answers_lose_their_thoughts(void **state)
{
    (void)state;
    cut_is("<think>a</think> b", "<think>a</think> b");
    cut_with("<think>\na\n</think>\n\nb ", true, "b");
    cut_with("a</think>b<think>c</think> d", true, "d");
    cut_with("b <think> cut by the limit", true, "b");
    cut_with("<think> cut by the limit", true, "");
    cut_with("<think>a</think>", true, "");
    cut_with("<think>a END b</think> c", true, "");
    cut_with("no thought", true, "no thought");
    cut_with("", true, "");
}

static void answers_lose_stop_and_outer_space(void **state)
{
    (void)state;
    cut_is(" Hello there. \n\n\nHuman: and", "Hello there.");
    cut_is("Hello\n", "Hello");
    cut_is(" \t\r\n\v\f", "");
    cut_is("", "");
    cut_is("END", "");
    cut_is(" a b ", "a b");
    cut_is("\xc2\xa0x\xc2\xa0", "\xc2\xa0x\xc2\xa0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_earliest_stop_counts),
        cmocka_unit_test(the_search_begins_where_it_is_told),
        cmocka_unit_test(stops_lie_behind_zero_bytes),
        cmocka_unit_test(answers_lose_stop_and_outer_space),
        cmocka_unit_test(answers_lose_their_thoughts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
