/* What the attempt writes is what the daemon reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "worker/attempt/contract_reporter.h"
#include "worker/attempt/engine.h"
#include "worker/daemon/contract_line.h"

enum { LINE_BYTES = 4096 };

struct fixture {
    int read_fd;
    struct ha_contract_reporter context;
    struct ha_reporter reporter;
    struct contract_line line;
};

static int setup(void **state)
{
    static struct fixture fixture;
    int ends[2];

    if (pipe(ends) < 0)
        return -1;
    fixture = (struct fixture){.read_fd = ends[0], .context.fd = ends[1]};
    fixture.reporter = ha_contract_reporter(&fixture.context);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    contract_line_clear(&fixture->line);
    if (fixture->read_fd >= 0)
        close(fixture->read_fd);
    close(fixture->context.fd);
    return 0;
}

/* The one line that was written, as the daemon understands it. */
static const struct contract_line *read_line(struct fixture *fixture)
{
    char bytes[LINE_BYTES];
    ssize_t n = read(fixture->read_fd, bytes, sizeof(bytes));

    assert_true(n > 1 && n < LINE_BYTES);
    assert_int_equal(bytes[n - 1], '\n');
    assert_null(memchr(bytes, '\n', (size_t)n - 1));
    contract_line_clear(&fixture->line);
    assert_int_equal(contract_line_parse(bytes, (size_t)n - 1, &fixture->line, NULL), 0);
    return &fixture->line;
}

static void phases_and_progress(void **state)
{
    struct fixture *fixture = *state;
    struct ha_reporter *reporter = &fixture->reporter;
    const struct ha_reported_progress progress = {
        .step = 7, .steps = 417, .tokens_per_second = 1234.5, .utilisation = 0.5, .saved = 0.875};
    const struct contract_line *line;

    assert_int_equal(reporter->phase(reporter->context, "reference", NULL), 0);
    line = read_line(fixture);
    assert_int_equal(line->kind, CONTRACT_PHASE);
    assert_string_equal(line->text, "reference");

    assert_int_equal(reporter->progress(reporter->context, &progress, NULL), 0);
    line = read_line(fixture);
    assert_int_equal(line->kind, CONTRACT_PROGRESS);
    assert_int_equal(line->progress.step, 7);
    assert_int_equal(line->progress.steps, 417);
    assert_true(line->progress.tokens_per_second == 1234.5);
    assert_true(line->progress.utilisation == 0.5);
    assert_true(ha_json_real(ha_json_get(line->json, "saved"), 0) == 0.875);
    assert_null(ha_json_get(line->json, "pairs_per_second")); /* not counted: not said */
}

static void models_are_told(void **state)
{
    const struct ha_engine_loaded loaded = {
        .bytes = (int64_t)16 << 30, .read_bytes = 5, .device_bytes = 7, .seconds = 0.25};
    struct fixture *fixture = *state;
    const struct contract_line *line;

    assert_int_equal(ha_contract_model(&fixture->context, &loaded, NULL), 0);
    line = read_line(fixture);
    assert_int_equal(line->kind, CONTRACT_MODEL);
    assert_int_equal(line->model.bytes, (int64_t)16 << 30);
    assert_int_equal(line->model.read_bytes, 5);
    assert_int_equal(line->model.device_bytes, 7);
    assert_true(line->model.seconds == 0.25);
    assert_int_equal(ha_contract_waits(&fixture->context, NULL), 0);
    assert_int_equal(read_line(fixture)->kind, CONTRACT_WAITS);
}

static void metrics_keep_every_bit(void **state)
{
    struct fixture *fixture = *state;
    struct ha_reporter *reporter = &fixture->reporter;
    const struct ha_reported_metric metrics[] = {
        {"loss", 0.69314718055994529}, {"rewards/margins", -1e-300}, {"grad_norm", NAN}};
    const struct contract_line *line;

    assert_int_equal(reporter->metrics(reporter->context, 5000000000, 3, metrics, 3, NULL), 0);
    line = read_line(fixture);
    assert_int_equal(line->kind, CONTRACT_EVENTS);
    assert_int_equal(line->n_events, 3);
    for (int i = 0; i < 3; i++) {
        const struct ha_wire_attempt_metric *metric = &line->events[i].event.metric;

        assert_int_equal(line->events[i].kind, HA_WIRE_ATTEMPT_EVENT_METRIC);
        assert_int_equal(metric->cell, 5000000000);
        assert_int_equal(metric->step, 3);
        assert_string_equal(metric->name, metrics[i].name);
        assert_true(i == 2 ? isnan(metric->value) : metric->value == metrics[i].value);
    }
}

static void answers_with_any_text(void **state)
{
    static const char prompt[] = "\n\nHuman: \"x\"\\ \xf0\x9f\x98\x80\n\nAssistant:";
    static const char raw[] = " a\0b\n\nHuman:";
    struct fixture *fixture = *state;
    struct ha_reporter *reporter = &fixture->reporter;
    const struct ha_reported_answer answer = {.cell = 2,
                                              .prompt = 59,
                                              .row = 1999,
                                              .sample = 1,
                                              .prompt_text = prompt,
                                              .prompt_bytes = sizeof(prompt) - 1,
                                              .text = raw + 1,
                                              .text_bytes = 3,
                                              .raw = raw,
                                              .raw_bytes = sizeof(raw) - 1,
                                              .finish = "stop",
                                              .prompt_tokens = 12,
                                              .tokens = 9};
    const struct ha_wire_attempt_answer *got;
    const struct contract_line *line;

    assert_int_equal(reporter->answer(reporter->context, &answer, NULL), 0);
    line = read_line(fixture);
    assert_int_equal(line->n_events, 1);
    assert_int_equal(line->events[0].kind, HA_WIRE_ATTEMPT_EVENT_ANSWER);
    got = &line->events[0].event.answer;
    assert_int_equal(got->cell, 2);
    assert_int_equal(got->prompt, 59);
    assert_int_equal(got->sample, 1);
    assert_string_equal(got->prompt_text, prompt);
    assert_string_equal(got->text, "a\xef\xbf\xbd"
                                   "b");
    assert_string_equal(got->raw, " a\xef\xbf\xbd"
                                  "b\n\nHuman:");
    assert_string_equal(got->finish, "stop");
    assert_int_equal(got->prompt_tokens, 12);
    assert_int_equal(got->tokens, 9);
}

static void artifacts_and_cells(void **state)
{
    struct fixture *fixture = *state;
    struct ha_reporter *reporter = &fixture->reporter;
    struct ha_json *summary = ha_json_new_object();
    const struct contract_line *line;

    assert_int_equal(reporter->artifact(reporter->context, 3, "checkpoint", "checkpoint-4",
                                        "out/3/checkpoint/checkpoint-4", 4, NULL),
                     0);
    line = read_line(fixture);
    assert_int_equal(line->kind, CONTRACT_ARTIFACT);
    assert_string_equal(line->text, "out/3/checkpoint/checkpoint-4");
    assert_int_equal(line->artifact.cell, 3);
    assert_string_equal(line->artifact.kind, "checkpoint");
    assert_string_equal(line->artifact.name, "checkpoint-4");
    assert_int_equal(line->artifact.step, 4);

    assert_int_equal(ha_json_set(summary, "steps", ha_json_new_int(4)), 0);
    assert_int_equal(reporter->cell(reporter->context, 3, true, "", false, summary, NULL), 0);
    line = read_line(fixture);
    assert_int_equal(line->events[0].kind, HA_WIRE_ATTEMPT_EVENT_CELL);
    assert_true(line->events[0].event.cell.done);
    assert_string_equal(line->events[0].event.cell.summary_json, "{\"steps\":4}");

    assert_int_equal(
        reporter->cell(reporter->context, 4, false, "the loss is not finite", true, NULL, NULL), 0);
    line = read_line(fixture);
    assert_int_equal(line->events[0].event.cell.cell, 4);
    assert_false(line->events[0].event.cell.done);
    assert_true(line->events[0].event.cell.permanent);
    assert_string_equal(line->events[0].event.cell.reason, "the loss is not finite");
    assert_string_equal(line->events[0].event.cell.summary_json, "{}");
}

static void errors_and_a_daemon_that_is_gone(void **state)
{
    struct fixture *fixture = *state;
    struct ha_reporter *reporter = &fixture->reporter;
    const struct contract_line *line;
    struct ha_error err = {0};

    assert_int_equal(ha_contract_error(&fixture->context, "no \"model\""), 0);
    line = read_line(fixture);
    assert_int_equal(line->kind, CONTRACT_ERROR);
    assert_string_equal(line->text, "no \"model\"");

    close(fixture->read_fd);
    fixture->read_fd = -1;
    assert_int_equal(reporter->phase(reporter->context, "load", &err), -EPIPE);
    assert_non_null(strstr(err.text, "the daemon does not take lines"));
}

static void norms(void **state)
{
    struct fixture *fixture = *state;
    struct ha_reporter *reporter = &fixture->reporter;
    const struct ha_reported_norm norm = {.cell = 3,
                                          .block = "mid",
                                          .layer = 11,
                                          .layers = 10,
                                          .module = "all",
                                          .norm = 0.1,
                                          .parameters = 419430400,
                                          .pairs = 256};
    const struct ha_json *got;

    assert_int_equal(reporter->norm(reporter->context, &norm, NULL), 0);
    got = read_line(fixture)->json;
    assert_string_equal(ha_json_string(ha_json_get(got, "type"), ""), "probe");
    assert_string_equal(ha_json_string(ha_json_get(got, "block"), ""), "mid");
    assert_string_equal(ha_json_string(ha_json_get(got, "module"), ""), "all");
    assert_int_equal(ha_json_int(ha_json_get(got, "cell"), 0), 3);
    assert_int_equal(ha_json_int(ha_json_get(got, "layer"), 0), 11);
    assert_int_equal(ha_json_int(ha_json_get(got, "layers"), 0), 10);
    assert_true(ha_json_real(ha_json_get(got, "norm"), 0) == 0.1);
    assert_int_equal(ha_json_int(ha_json_get(got, "parameters"), 0), 419430400);
    assert_int_equal(ha_json_int(ha_json_get(got, "pairs"), 0), 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(phases_and_progress, setup, teardown),
        cmocka_unit_test_setup_teardown(models_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(metrics_keep_every_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_with_any_text, setup, teardown),
        cmocka_unit_test_setup_teardown(norms, setup, teardown),
        cmocka_unit_test_setup_teardown(artifacts_and_cells, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_and_a_daemon_that_is_gone, setup, teardown),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
