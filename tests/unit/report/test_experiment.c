/* The tables over a small experiment whose answers are known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "common/base/buffer.h"
#include "coordinator/report/experiment.h"
#include "coordinator/report/table.h"

static const char *const dimensions[HA_REPORT_DIMENSIONS] = {
    "d0", "d1", "d2",  "d3",  "d4",  "d5",  "d6",  "d7",
    "d8", "d9", "d10", "d11", "d12", "d13", "d14", "Overall"};

static const struct ha_report_model models[] = {{"m1", 6}, {"m2", 7}};

static const struct ha_report_cell cells[] = {
    {.model = 0, .strategy = "base", .name = "m1/base", .layers = "", .expected = 2},
    {.model = 0, .strategy = "mid", .name = "m1/mid", .layers = "2-3", .expected = 2},
    {.model = 1, .strategy = "base", .name = "m2/base", .layers = "", .expected = 2},
    {.model = 1, .strategy = "mid", .name = "m2/mid", .layers = "3-4", .expected = 2},
};

static struct ha_report_scores scores[] = {
    {.cell = 0, .prompt = 0}, {.cell = 0, .prompt = 1}, {.cell = 1, .prompt = 0},
    {.cell = 1, .prompt = 1}, {.cell = 2, .prompt = 0}, {.cell = 2, .prompt = 1},
};

static struct ha_experiment experiment(void)
{
    static const uint8_t overall[] = {1, 2, 4, 5, 3, 3};

    for (size_t i = 0; i < sizeof(scores) / sizeof(scores[0]); i++) {
        memset(scores[i].values, 1 + (int)i % 5, sizeof(scores[i].values));
        scores[i].values[HA_REPORT_DIMENSIONS - 1] = overall[i];
    }
    return (struct ha_experiment){.dimensions = dimensions,
                                  .overall = HA_REPORT_DIMENSIONS - 1,
                                  .models = models,
                                  .n_models = 2,
                                  .cells = cells,
                                  .n_cells = 4,
                                  .scores = scores,
                                  .n_scores = 6,
                                  .label = "Not a language model."};
}

/* Renders as CSV into out and ends the table. */
static const char *csv(struct ha_table *table, struct ha_buffer *out)
{
    ha_buffer_reset(out);
    assert_int_equal(ha_table_csv(table, out), 0);
    ha_table_destroy(table);
    return ha_buffer_text(out);
}

static void strategies_pool_models(void **state)
{
    struct ha_experiment e = experiment();
    struct ha_buffer out;

    (void)state;
    ha_buffer_init(&out, 0);
    assert_string_equal(csv(ha_report_strategies(&e), &out),
                        "Strategy,Mean,Std,Median,Count,Mean of model means\n"
                        "base,2.250,0.957,2.500,4/4,2.250\nmid,4.500,0.707,4.500,2/4,-\n");
    ha_buffer_clear(&out);
}

/* Two samples of a prompt are one value, their mean; the other prompt has lost one. */
static void samples_make_no_larger_n(void **state)
{
    static const uint8_t overall[] = {1, 4, 5};
    struct ha_report_scores sampled[3] = {
        {.cell = 0, .prompt = 0}, {.cell = 0, .prompt = 0}, {.cell = 0, .prompt = 1}};
    struct ha_experiment e = experiment();
    struct ha_summary summary;
    int64_t expected = 0;

    (void)state;
    for (int i = 0; i < 3; i++)
        sampled[i].values[HA_REPORT_DIMENSIONS - 1] = overall[i];
    e.scores = sampled;
    e.n_scores = 3;
    assert_int_equal(ha_report_summary(&e, 0, NULL, e.overall, &summary, &expected), 0);
    assert_int_equal(summary.n, 2);
    assert_int_equal(expected, 2);
    assert_true(summary.mean == (2.5 + 5) / 2);
    assert_true(summary.median == 3.75);
}

static void ranking_puts_unscored_last(void **state)
{
    struct ha_experiment e = experiment();
    struct ha_buffer out;

    (void)state;
    ha_buffer_init(&out, 0);
    assert_string_equal(csv(ha_report_ranking(&e, 0), &out),
                        "Rank,Model,Strategy,Cell,Mean,Count\n1,m1,mid,m1/mid,4.500,2/2\n"
                        "2,m2,base,m2/base,3.000,2/2\n3,m1,base,m1/base,1.500,2/2\n"
                        "4,m2,mid,m2/mid,-,0/2\n");
    assert_int_equal(strlen(csv(ha_report_ranking(&e, 1), &out)),
                     strlen("Rank,Model,Strategy,Cell,Mean,Count\n1,m1,mid,m1/mid,4.500,2/2\n"));
    ha_buffer_clear(&out);
}

static void blocks_and_label(void **state)
{
    struct ha_experiment e = experiment();
    struct ha_table *table = ha_report_cells(&e, 0);
    struct ha_buffer out;

    (void)state;
    ha_buffer_init(&out, 0);
    assert_string_equal(csv(ha_report_blocks(&e), &out),
                        "Model,Total Layers,Local Block,Intermediate Block,Global Block\n"
                        "m1,6,-,2-3,-\nm2,7,-,3-4,-\n");
    ha_buffer_reset(&out);
    assert_int_equal(ha_table_markdown(table, &out), 0);
    assert_non_null(strstr(ha_buffer_text(&out), "Not a language model."));
    ha_table_destroy(table);
    assert_int_equal(ha_table_rows(table = ha_report_long(&e)), (4 + 2) * 16);
    ha_table_destroy(table);
    assert_int_equal(ha_table_rows(table = ha_report_dimensions(&e, 1)), 2);
    ha_table_destroy(table);
    ha_buffer_clear(&out);
}

static void empty_experiment(void **state)
{
    struct ha_experiment e = {.dimensions = dimensions, .overall = 15, .label = ""};
    struct ha_table *table = ha_report_strategies(&e);

    (void)state;
    assert_int_equal(ha_table_rows(table), 0);
    ha_table_destroy(table);
    ha_table_destroy(ha_report_ranking(&e, 10));
    ha_table_destroy(ha_report_missing_table(&e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strategies_pool_models),     cmocka_unit_test(samples_make_no_larger_n),
        cmocka_unit_test(ranking_puts_unscored_last), cmocka_unit_test(blocks_and_label),
        cmocka_unit_test(empty_experiment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
