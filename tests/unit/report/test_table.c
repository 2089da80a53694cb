#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>

#include "common/base/buffer.h"
#include "coordinator/report/table.h"

static struct ha_table *sample(void)
{
    struct ha_table *table = ha_table_create("Title");

    ha_table_column_text(table, "Name");
    ha_table_column_number(table, "Mean");
    ha_table_text(table, "a|b, \"c\"");
    ha_table_real(table, 1.23456, 3);
    ha_table_text(table, "\xc3\xa9");
    ha_table_real(table, NAN, 3);
    ha_table_note(table, "A note of %d.", 1);
    return table;
}

static void three_forms(void **state)
{
    struct ha_table *table = sample();
    struct ha_buffer out;

    (void)state;
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_table_rows(table), 2);
    assert_int_equal(ha_table_markdown(table, &out), 0);
    assert_string_equal(ha_buffer_text(&out), "**Title**\n\n| Name | Mean |\n|---|---:|\n"
                                              "| a\\|b, \"c\" | 1.235 |\n| \xc3\xa9 | - |\n"
                                              "\nA note of 1.\n\n");
    ha_buffer_reset(&out);
    assert_int_equal(ha_table_csv(table, &out), 0);
    assert_string_equal(ha_buffer_text(&out), "Name,Mean\n\"a|b, \"\"c\"\"\",1.235\n\xc3\xa9,-\n");
    ha_buffer_reset(&out);
    assert_int_equal(ha_table_plain(table, &out), 0);
    assert_string_equal(ha_buffer_text(&out), "Title\nName       Mean\na|b, \"c\"  1.235\n"
                                              "\xc3\xa9             -\nA note of 1.\n");
    ha_buffer_clear(&out);
    ha_table_destroy(table);
}

static void short_rows_and_failures(void **state)
{
    struct ha_table *table = ha_table_create("");
    struct ha_buffer out;

    (void)state;
    ha_buffer_init(&out, 0);
    ha_table_column_text(table, "A");
    ha_table_column_text(table, "B");
    ha_table_text(table, "x");
    ha_table_end_row(table);
    ha_table_end_row(table);
    assert_int_equal(ha_table_rows(table), 1);
    for (int i = 0; i < 100; i++)
        ha_table_column_text(table, "too many");
    assert_true(ha_table_csv(table, &out) < 0);
    assert_true(ha_table_csv(NULL, &out) < 0);
    ha_table_text(NULL, "ignored");
    ha_buffer_clear(&out);
    ha_table_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_forms),
        cmocka_unit_test(short_rows_and_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
