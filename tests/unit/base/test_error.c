#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "common/base/error.h"

static void one_line_with_prefix(void **state)
{
    struct ha_error err = {0};

    (void)state;
    assert_string_equal(ha_error_text(&err), "no error");
    assert_int_equal(ha_error_set(&err, EINVAL, "bad\nvalue %d", 7), -EINVAL);
    assert_int_equal(ha_error_prefix(&err, "grid.toml:%d", 3), -EINVAL);
    assert_string_equal(ha_error_text(&err), "grid.toml:3: bad?value 7");
    assert_int_equal(ha_error_set(NULL, ENOENT, "x"), -ENOENT);
    /* An errno that nobody set is still an error. */
    assert_int_equal(ha_error_set(&err, 0, "x"), -EIO);
    assert_int_equal(err.code, EIO);
}

static void long_text_is_cut(void **state)
{
    struct ha_error err = {0};
    char text[2000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)ha_error_set(&err, EIO, "%s", text);
    assert_int_equal(strlen(err.text), HA_ERROR_TEXT_BYTES - 1);
    (void)ha_error_prefix(&err, "%s", text);
    assert_int_equal(strlen(err.text), HA_ERROR_TEXT_BYTES - 1);
}

/* So that it may be sent and stored. */
static void text_is_utf8(void **state)
{
    struct ha_error err = {0};
    char text[HA_ERROR_TEXT_BYTES + 1];

    (void)state;
    (void)ha_error_set(&err, EIO, "a\xff\xc3\xa9\x80");
    assert_string_equal(err.text, "a?\xc3\xa9?");
    memset(text, 'x', sizeof(text));
    memcpy(text + HA_ERROR_TEXT_BYTES - 2, "\xc3\xa9", 3);
    (void)ha_error_set(&err, EIO, "%s", text);
    assert_int_equal(strlen(err.text), HA_ERROR_TEXT_BYTES - 1);
    assert_int_equal(err.text[HA_ERROR_TEXT_BYTES - 2], '?');
    (void)ha_error_prefix(&err, "\xe6\xbc\xa2");
    assert_string_equal(err.text + HA_ERROR_TEXT_BYTES - 3, "xx");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_line_with_prefix),
        cmocka_unit_test(long_text_is_cut),
        cmocka_unit_test(text_is_utf8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
