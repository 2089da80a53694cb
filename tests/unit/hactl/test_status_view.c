#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/hactl/status_json.h"
#include "coordinator/hactl/status_view.h"
#include "tests/unit/hactl/sample.h"

/* Each cell is a page of its own, of another part. */
static struct ha_json *json_of(const struct ha_status *status)
{
    struct ha_status_json written;
    struct ha_json *json = NULL;
    struct ha_error err = {0};

    ha_status_json_init(&written);
    for (int64_t i = status->n_cells - 1; i >= 0; i--)
        assert_int_equal(ha_status_json_add(&written, i < 2 ? (int)i : 2, status->cells[i], 1,
                                            status->head->now_ms),
                         0);
    assert_int_equal(ha_status_json_end(&written, status->head), 0);
    for (int i = 0; i < HA_FETCH_PARTS; i++)
        assert_int_equal(
            ha_buffer_append(&written.head, written.parts[i].data, written.parts[i].size), 0);
    assert_int_equal(ha_buffer_append_text(&written.head, ha_buffer_text(&written.tail)), 0);
    if (ha_json_parse(ha_buffer_text(&written.head), written.head.size, "status", &json, &err) < 0)
        fail_msg("%s", ha_error_text(&err));
    ha_status_json_clear(&written);
    return json;
}

static void text_says_what_stands_still(void **state)
{
    struct ha_view_style style = {0};
    struct ha_buffer out;
    const char *text;

    (void)state;
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_status_view(&sample_status, &style, &out), 0);
    text = ha_buffer_text(&out);
    assert_non_null(strstr(text, "s: running, 2 cells, 1 of 5 stages done"));
    assert_non_null(strstr(text, "[######......] 30/60"));
    assert_non_null(strstr(text, "m/mid train failed: the loss is not finite"));
    assert_non_null(strstr(text, "Not a language model."));
    assert_null(strchr(text, '\033'));
    ha_buffer_reset(&out);
    style.summary = true;
    assert_int_equal(ha_status_view(&sample_status, &style, &out), 0);
    assert_null(strstr(ha_buffer_text(&out), "30/60 "));
    ha_buffer_clear(&out);
}

static void a_paused_sweep_says_why(void **state)
{
    const struct ha_view_style style = {.width = 100};
    struct ha_wire_status_reply head = *sample_status.head;
    struct ha_status status = sample_status;
    struct ha_buffer out;

    (void)state;
    head.sweep.state = "paused";
    head.sweep.reason = "grid.toml:1: it cannot be read";
    status.head = &head;
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_status_view(&status, &style, &out), 0);
    assert_non_null(strstr(ha_buffer_text(&out), "\npaused: grid.toml:1: it cannot be read\n"));
    ha_buffer_clear(&out);
}

static void running_jobs_name_their_cells(void **state)
{
    static const char *mates[] = {"m/mid", "m/full"}, *other[] = {"m/local", "m/full"};
    struct ha_wire_stage_row train[] = {{.stage = "train",
                                         .state = "running",
                                         .reason = "step",
                                         .category = "",
                                         .mend = "",
                                         .done = 5,
                                         .total = 10,
                                         .tokens_per_second = 1830,
                                         .utilisation = 0.42,
                                         .worker = "w1",
                                         .job = 5,
                                         .started_ms = 3000,
                                         .summary_json = "",
                                         .mates = mates,
                                         .n_mates = 2}};
    struct ha_wire_stage_row second = train[0];
    struct ha_wire_cell_row cells[] = {
        {.name = "m/local", .model = "m", .stages = train, .n_stages = 1, .in_grid = true},
        {.name = "m/mid", .model = "m", .stages = &second, .n_stages = 1, .in_grid = true}};
    const struct ha_wire_cell_row *rows[] = {&cells[0], &cells[1]};
    struct ha_status status = {.head = &sample_head, .cells = rows, .n_cells = 2};
    struct ha_view_style style = {0};
    struct ha_buffer out;
    const char *line;

    (void)state;
    second.mates = other;
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_status_view(&status, &style, &out), 0);
    line = strstr(ha_buffer_text(&out), "job 5");
    assert_non_null(line);
    assert_non_null(strstr(line, "job 5 on w1: train m/local, m/mid, m/full (step), 1830 tokens/s, "
                                 "42 % of the peak, 10 s to go\n"));
    assert_null(strstr(line + 1, "job 5"));
    ha_buffer_clear(&out);
}

static void probes_have_a_column(void **state)
{
    struct ha_wire_stage_row stages[] = {{.stage = "probe",
                                          .state = "running",
                                          .reason = "",
                                          .category = "",
                                          .mend = "",
                                          .done = 2,
                                          .total = 4,
                                          .worker = "",
                                          .summary_json = ""},
                                         sample_mid[0]};
    struct ha_wire_cell_row cells[] = {sample_cells[0],
                                       {.name = "m/top",
                                        .model = "m",
                                        .strategy = "top",
                                        .layers = "3-4",
                                        .stages = stages,
                                        .n_stages = 2,
                                        .in_grid = true,
                                        .choice = {2, "norm", "3-4", 0.75, 9}}};
    const struct ha_wire_cell_row *rows[] = {&cells[0], &cells[1]};
    struct ha_status status = {.head = &sample_head, .cells = rows, .n_cells = 2};
    struct ha_view_style style = {0};
    const struct ha_json *choice;
    struct ha_buffer out;
    struct ha_json *json;

    (void)state;
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_status_view(&status, &style, &out), 0);
    /* Base has neither a probe nor a training. */
    assert_non_null(strstr(ha_buffer_text(&out), "\nm/base    -                           -   "
                                                 "                        [############] done"));
    assert_non_null(strstr(ha_buffer_text(&out), "\nm/top     [######......] 2/4          "
                                                 "[............] failed"));
    ha_buffer_clear(&out);
    json = json_of(&status);
    choice = ha_json_get(ha_json_at(ha_json_get(json, "cells"), 1), "choice");
    assert_string_equal(ha_json_string(ha_json_get(choice, "rule"), ""), "auto:2");
    assert_string_equal(ha_json_string(ha_json_get(choice, "layers"), ""), "3-4");
    assert_null(ha_json_get(ha_json_at(ha_json_get(json, "cells"), 0), "choice"));
    ha_json_destroy(json);
}

static void json_has_every_stage(void **state)
{
    struct ha_json *json = json_of(&sample_status);
    const struct ha_json *cell, *stage;

    (void)state;
    assert_int_equal(ha_json_size(ha_json_get(json, "cells")), 2);
    cell = ha_json_at(ha_json_get(json, "cells"), 0);
    assert_string_equal(ha_json_string(ha_json_get(cell, "name"), ""), "m/base");
    stage = ha_json_at(ha_json_get(cell, "stages"), 0);
    assert_int_equal(ha_json_int(ha_json_get(ha_json_get(stage, "summary"), "tokens"), 0), 12);
    assert_int_equal(ha_json_int(ha_json_get(json, "stages"), 0), 5);
    assert_int_equal(ha_json_int(ha_json_get(json, "answers"), 0), 60);
    ha_json_destroy(json);
}

static void json_escapes_what_it_must(void **state)
{
    static const char reason[] =
        "eight by eight: \"quoted\", back\\slash,\nline, \001 and \xc3\xa9";
    struct ha_wire_stage_row stage = sample_mid[0];
    struct ha_wire_cell_row cell = sample_cells[1];
    const struct ha_wire_cell_row *rows[] = {&cell};
    struct ha_status status = {.head = &sample_head, .cells = rows, .n_cells = 1};
    const struct ha_json *read;
    struct ha_json *json;

    (void)state;
    cell.stages = &stage;
    cell.n_stages = 1;
    for (size_t at = 0; at < sizeof reason; at++) {
        stage.reason = reason + at;
        if (((unsigned char)reason[at] & 0xc0) == 0x80)
            continue;
        json = json_of(&status);
        read = ha_json_at(ha_json_get(json, "cells"), 0);
        read = ha_json_at(ha_json_get(read, "stages"), 0);
        assert_string_equal(ha_json_string(ha_json_get(read, "reason"), "?"), reason + at);
        ha_json_destroy(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_says_what_stands_still),
        cmocka_unit_test(a_paused_sweep_says_why),
        cmocka_unit_test(running_jobs_name_their_cells),
        cmocka_unit_test(probes_have_a_column),
        cmocka_unit_test(json_has_every_stage),
        cmocka_unit_test(json_escapes_what_it_must),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
