/* Amounts of memory as text, and what the system says about this process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory_use.h"

static void amounts(void **state)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {
        {"1", 1},
        {"4096B", 4096},
        {"3KiB", 3072},
        {"512MiB", INT64_C(512) << 20},
        {"24GiB", INT64_C(24) << 30},
        {"1.5 GiB", INT64_C(3) << 29},
        {"16GB", INT64_C(16000000000)},
        {"2TiB", INT64_C(1) << 41},
    };
    static const char *const bad[] = {"",       "GiB",   "0",   "-1GiB", "+1",  "24gib",  "24 GiBs",
                                      "0x10KB", "1e400", "nan", "inf",   "0.5", "9e9TiB", " 1"};
    struct ha_error err;
    int64_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(ha_memory_parse("x", good[i].text, &bytes, &err), 0);
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ha_memory_parse("--memory", bad[i], &bytes, &err), -EINVAL);
        assert_non_null(strstr(ha_error_text(&err), "--memory"));
    }
}

static void texts(void **state)
{
    char text[HA_MEMORY_TEXT_BYTES];

    (void)state;
    assert_string_equal(ha_memory_text(INT64_C(18) << 30, text), "18.0 GiB");
    assert_string_equal(ha_memory_text(INT64_C(512) << 20, text), "512 MiB");
    assert_string_equal(ha_memory_text(1025, text), "2 KiB");
    assert_string_equal(ha_memory_text(INT64_MAX, text), "8589934592.0 GiB");
}

/* What is touched shows, what is given back does not. */
static void anonymous_memory(void **state)
{
    size_t size = (size_t)32 << 20;
    int64_t before = ha_memory_anonymous(), with, after;
    char *block = malloc(size);

    (void)state;
    assert_non_null(block);
    memset(block, 1, size);
    with = ha_memory_anonymous();
    assert_int_equal(block[size / 2], 1);
    free(block);
    after = ha_memory_anonymous();
    assert_true(before > 0 && with - before > (int64_t)size * 9 / 10);
#ifndef __SANITIZE_ADDRESS__
    assert_true(with - after > (int64_t)size * 9 / 10);
#endif
    assert_true(after > 0 && ha_memory_total() > with);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(amounts),
        cmocka_unit_test(texts),
        cmocka_unit_test(anonymous_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
