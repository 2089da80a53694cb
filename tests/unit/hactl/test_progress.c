#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>

#include "coordinator/hactl/progress.h"
#include "tests/unit/hactl/sample.h"

static void counts_and_remaining_time(void **state)
{
    struct ha_progress p = ha_progress_of(&sample_status);

    (void)state;
    assert_int_equal(p.stages, 5);
    assert_int_equal(p.complete, 1);
    assert_int_equal(p.final, 3);
    assert_int_equal(p.failed, 1);
    assert_int_equal(p.answers, 60);
    assert_int_equal(p.scores, 30);
    assert_int_equal(p.scores_total, 120);
    /* done, half, failed, cancelled, waiting */
    assert_true(fabs(p.fraction - 3.5 / 5) < 1e-12);
    /* Half a judge stage took 6 s: one and a half are left, one runs now. */
    assert_int_equal(p.remaining_ms, 18000);
    assert_false(p.at_least);
}

static void says_what_the_remaining_time_lacks(void **state)
{
    struct ha_wire_stage_row stages[] = {sample_base[0], sample_base[1]};
    struct ha_wire_cell_row cell = sample_cells[0];
    const struct ha_wire_cell_row *rows[] = {&cell};
    struct ha_status status = {.head = &sample_head, .cells = rows, .n_cells = 1};
    struct ha_progress p;

    (void)state;
    cell.stages = stages;
    stages[0].finished_ms = 0;
    stages[0].state = "running";
    stages[0].done = 20;
    stages[1].state = "ready";
    stages[1].done = stages[1].started_ms = 0;
    p = ha_progress_of(&status);
    /* A third took 12 s; nothing is known of the judge. */
    assert_int_equal(p.remaining_ms, 24000);
    assert_true(p.at_least);
    stages[0].done = stages[0].started_ms = 0;
    p = ha_progress_of(&status);
    assert_int_equal(p.remaining_ms, -1);
}

static void durations(void **state)
{
    char text[HA_DURATION_BYTES];

    (void)state;
    assert_string_equal(ha_duration_text(-1, text), "-");
    assert_string_equal(ha_duration_text(1499, text), "1 s");
    assert_string_equal(ha_duration_text(200000, text), "3 min 20 s");
    assert_string_equal(ha_duration_text(7500000, text), "2 h 05 min");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_and_remaining_time),
        cmocka_unit_test(says_what_the_remaining_time_lacks),
        cmocka_unit_test(durations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
