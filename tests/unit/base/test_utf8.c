/* UTF-8: every code point round trips, the classic invalid forms are refused, and broken bytes are
 * measured as Unicode's maximal subparts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/utf8.h"

static void every_code_point(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        char bytes[4];
        size_t n = ha_utf8_encode(code, bytes);
        uint32_t back = 0;

        if (code >= 0xd800 && code < 0xe000) {
            assert_int_equal(ha_utf8_decode(bytes, n, &back), 0);
            continue;
        }
        assert_int_equal(ha_utf8_decode(bytes, n, &back), n);
        assert_int_equal(back, code);
        assert_int_equal(ha_utf8_decode(bytes, n - 1, &back), 0);
    }
}

static void valid_beginning(void **state)
{
    static const struct {
        const char *text;
        size_t valid;
    } cases[] = {
        {"", 0},
        {"plain ascii text", 16},
        {"12345678\xc3\xa9", 10},
        {"1234567\xc3", 7},
        {"\xc0\x80", 0},             /* overlong */
        {"ab\xe0\x9f\xbf", 2},       /* overlong */
        {"\xed\xa0\x80", 0},         /* surrogate */
        {"\xf4\x90\x80\x80", 0},     /* above U+10FFFF */
        {"\xf0\x9f\x98\x80\xff", 4}, /* no such byte */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(ha_utf8_valid(cases[i].text, strlen(cases[i].text)), cases[i].valid);
}

static void broken_parts(void **state)
{
    static const struct {
        const char *text;
        size_t n;
        bool cut;
    } cases[] = {
        {"\xff", 1, false},         {"\x80", 1, false},     {"\xe2\x82", 2, true},
        {"\xe2\x82x", 2, false},    {"\xe2x", 1, false},    {"\xf0\x9f\x98", 3, true},
        {"\xed\xa0\x80", 1, false}, {"\xc0\x80", 1, false}, {"\xf4\x90", 1, false},
        {"\xf0", 1, true},          {"\xe0\x9f", 1, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool cut = !cases[i].cut;

        assert_int_equal(ha_utf8_broken(cases[i].text, strlen(cases[i].text), &cut), cases[i].n);
        assert_int_equal(cut, cases[i].cut);
    }
}

static void copies_are_cut_between_characters(void **state)
{
    char to[6];

    (void)state;
    assert_string_equal(ha_utf8_copy(to, sizeof to, "abc"), "abc");
    assert_string_equal(ha_utf8_copy(to, sizeof to, "abcd\xc3\xa9"), "abcd");
    assert_string_equal(ha_utf8_copy(to, sizeof to, "abc\xc3\xa9"), "abc\xc3\xa9");
    assert_string_equal(ha_utf8_copy(to, sizeof to, "a\xff\xc3"), "a??");
    assert_string_equal(ha_utf8_copy(to, 1, "abc"), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point),
        cmocka_unit_test(valid_beginning),
        cmocka_unit_test(broken_parts),
        cmocka_unit_test(copies_are_cut_between_characters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
