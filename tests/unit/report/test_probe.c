/* Tables of probes: shares, blocks, what was chosen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "common/base/buffer.h"
#include "coordinator/report/probe.h"
#include "coordinator/report/table.h"

#define LAYER(id, title, index, what, value, count)                                                \
    {                                                                                              \
        .probe = (id), .name = (title), .block = "", .layer = (index), .layers = 1,                \
        .module = (what), .norm = (value), .parameters = (count), .pairs = 16                      \
    }
#define BLOCK(id, title, kind, first, n, value, count)                                             \
    {                                                                                              \
        .probe = (id), .name = (title), .block = (kind), .layer = (first), .layers = (n),          \
        .module = "all", .norm = (value), .parameters = (count), .pairs = 16                       \
    }

static const struct ha_report_norm rows[] = {
    LAYER(3, "m", 0, "q_proj", 0.5, 4),   LAYER(3, "m", 0, "all", 1, 16),
    LAYER(3, "m", 1, "q_proj", 1.5, 4),   LAYER(3, "m", 1, "all", 3, 16),
    LAYER(3, "m", 2, "all", 4, 64),       BLOCK(3, "m", "local", 0, 1, 1, 16),
    BLOCK(3, "m", "mid", 1, 1, 3, 16),    BLOCK(3, "m", "global", 2, 1, 4, 64),
    BLOCK(3, "m", "full", 0, 3, 5.1, 96), LAYER(8, "n/mid", 0, "all", 2, 16),
    LAYER(8, "n/mid", 1, "all", 0.5, 16),
};

static const struct ha_report_norms norms = {rows, sizeof(rows) / sizeof(rows[0])};

static void near(double got, double want)
{
    if (!(fabs(got - want) < 1e-12))
        fail_msg("%.15g is not %.15g", got, want);
}

static void shares_are_of_the_layers_of_a_probe(void **state)
{
    (void)state;
    near(ha_report_norm_share(&norms, 3, "all", 1, 2, false), 7.0 / 8);
    near(ha_report_norm_share(&norms, 3, "q_proj", 1, 1, false), 0.75);
    /* 1/4, 3/4, 4/8 */
    near(ha_report_norm_share(&norms, 3, "all", 2, 1, true), 0.5 / 1.5);
    near(ha_report_norm_share(&norms, 8, "all", 0, 1, false), 0.8);
    assert_true(isnan(ha_report_norm_share(&norms, 9, "all", 0, 1, false)));
    near(ha_report_norm_value(&rows[4], true), 0.5);
}

static void expect_csv(struct ha_table *table, const char *want)
{
    struct ha_buffer out;

    ha_buffer_init(&out, 0);
    assert_int_equal(ha_table_csv(table, &out), 0);
    assert_string_equal(ha_buffer_text(&out), want);
    ha_buffer_clear(&out);
    ha_table_destroy(table);
}

static void every_layer_and_block_has_a_row(void **state)
{
    (void)state;
    expect_csv(ha_report_norm_layers(&norms),
               "Model,Layer,Block,q_proj,k_proj,v_proj,o_proj,all,Parameters,"
               "all / sqrt(parameters),Share %\n"
               "m,0,local,0.5,-,-,-,1,16,0.25,12.50\n"
               "m,1,mid,1.5,-,-,-,3,16,0.75,37.50\n"
               "m,2,global,-,-,-,-,4,64,0.5,50.00\n"
               "n/mid,0,-,-,-,-,-,2,16,0.5,80.00\n"
               "n/mid,1,-,-,-,-,-,0.5,16,0.125,20.00\n");
    expect_csv(ha_report_norm_blocks(&norms),
               "Model,Block,Layers,q_proj,k_proj,v_proj,o_proj,all,Parameters,"
               "all / sqrt(parameters),Share %\n"
               "m,local,0,-,-,-,-,1,16,0.25,12.50\n"
               "m,mid,1,-,-,-,-,3,16,0.75,37.50\n"
               "m,global,2,-,-,-,-,4,64,0.5,50.00\n"
               "m,full,0-2,-,-,-,-,5.1,96,0.52052,100.00\n");
}

static void the_long_form_has_everything(void **state)
{
    static const struct ha_report_norms one = {rows, 2};

    (void)state;
    expect_csv(ha_report_norm_long(&one),
               "probe,block,first,layers,module,norm,per_sqrt_parameters,share,parameters,pairs\n"
               "m,,0,1,q_proj,0.5,0.25,1,4,16\n"
               "m,,0,1,all,1,0.25,1,16,16\n");
}

static void choices_say_why(void **state)
{
    static const struct ha_report_choice choices[] = {
        {.cell = "m/top",
         .measure = "norm",
         .layers = "1-2",
         .count = 2,
         .share = 0.875,
         .probe = 3},
        {.cell = "o/top", .measure = "norm", .layers = "", .count = 2, .probe = 0},
    };

    (void)state;
    expect_csv(ha_report_choices(&norms, choices, 2),
               "Cell,Rule,Measure,Layers,Share %,Of equal shares %\n"
               "m/top,auto:2,norm,1-2,87.50,66.67\n"
               "o/top,auto:2,norm,not yet,-,-\n");
}

static void nothing_is_a_table_too(void **state)
{
    static const struct ha_report_norms none = {NULL, 0};
    struct ha_table *table = ha_report_norm_layers(&none);

    (void)state;
    assert_int_equal(ha_table_rows(table), 0);
    ha_table_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_of_the_layers_of_a_probe),
        cmocka_unit_test(every_layer_and_block_has_a_row),
        cmocka_unit_test(the_long_form_has_everything),
        cmocka_unit_test(choices_say_why),
        cmocka_unit_test(nothing_is_a_table_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
