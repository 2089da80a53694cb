#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "common/base/buffer.h"

static void grows_and_keeps_text(void **state)
{
    struct ha_buffer buffer;

    (void)state;
    ha_buffer_init(&buffer, 0);
    assert_string_equal(ha_buffer_text(&buffer), "");
    for (int i = 0; i < 1000; i++)
        assert_int_equal(ha_buffer_printf(&buffer, "%03d,", i), 0);
    assert_int_equal(buffer.size, 4000);
    assert_memory_equal(ha_buffer_text(&buffer) + 4 * 999, "999,", 5);
    ha_buffer_consume(&buffer, 3996);
    assert_string_equal(ha_buffer_text(&buffer), "999,");
    ha_buffer_clear(&buffer);
    assert_null(buffer.data);
}

static void limit_leaves_it_unchanged(void **state)
{
    struct ha_buffer buffer;
    char *text;

    (void)state;
    ha_buffer_init(&buffer, 5);
    assert_int_equal(ha_buffer_append_text(&buffer, "hello"), 0);
    assert_int_equal(ha_buffer_append_text(&buffer, "!"), -EMSGSIZE);
    text = ha_buffer_detach(&buffer);
    assert_string_equal(text, "hello");
    free(text);
    text = ha_buffer_detach(&buffer);
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_keeps_text),
        cmocka_unit_test(limit_leaves_it_unchanged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
