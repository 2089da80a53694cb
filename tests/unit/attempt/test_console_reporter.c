#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/io/file.h"
#include "worker/attempt/console_reporter.h"

static char path[] = "/tmp/ha_test_console_XXXXXX";

static int make_file(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 || write(fd, "old\n", 4) != 4 || close(fd) < 0 ? -1 : 0;
}

static int remove_file(void **state)
{
    (void)state;
    (void)unlink(path);
    (void)snprintf(path + strlen(path) - 6, 7, "XXXXXX");
    return 0;
}

static void holds(const char *want)
{
    char *text;
    size_t size;

    assert_int_equal(ha_file_read(path, 1 << 16, &text, &size, NULL), 0);
    assert_string_equal(text, want);
    free(text);
}

static int put_metric(const struct ha_reporter *reporter, struct ha_error *err)
{
    const struct ha_reported_metric metric = {"loss", 0.5};

    return reporter->metrics(reporter->context, 1, 3, &metric, 1, err);
}

static void old_results_stay_until_the_work_begins(void **state)
{
    struct ha_console_reporter console = {.metrics_path = path};
    struct ha_reporter reporter = ha_console_reporter(&console);

    (void)state;
    assert_int_equal(ha_console_reporter_open(&console, NULL), 0);
    assert_int_equal(reporter.phase(reporter.context, "load", NULL), 0);
    holds("old\n");
    assert_int_equal(reporter.phase(reporter.context, "step", NULL), 0);
    holds("");
    assert_int_equal(put_metric(&reporter, NULL), 0);
    assert_int_equal(reporter.phase(reporter.context, "evaluate", NULL), 0);
    assert_int_equal(ha_console_reporter_close(&console, 0, NULL), 0);
    holds("{\"step\":3,\"loss\":0.5}\n");
}

static void resumed_work_adds(void **state)
{
    struct ha_console_reporter console = {.metrics_path = path, .append = true};
    struct ha_reporter reporter = ha_console_reporter(&console);

    (void)state;
    assert_int_equal(ha_console_reporter_open(&console, NULL), 0);
    assert_int_equal(reporter.phase(reporter.context, "step", NULL), 0);
    assert_int_equal(put_metric(&reporter, NULL), 0);
    assert_int_equal(ha_console_reporter_close(&console, 0, NULL), 0);
    holds("old\n{\"step\":3,\"loss\":0.5}\n");
}

static void a_full_disk_is_named(void **state)
{
    struct ha_console_reporter console = {.metrics_path = "/dev/full"};
    struct ha_reporter reporter = ha_console_reporter(&console);
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_console_reporter_open(&console, &err), 0);
    assert_int_equal(put_metric(&reporter, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "/dev/full: cannot write results"));
    (void)ha_console_reporter_close(&console, -ENOSPC, &err);
}

static void answers_name_their_adapter(void **state)
{
    static const char *const names[] = {"first", "second"};
    struct ha_console_reporter console = {.answers_path = path, .names = names};
    struct ha_reporter reporter = ha_console_reporter(&console);
    const struct ha_reported_answer answer = {.cell = 2,
                                              .prompt = 0,
                                              .row = 4,
                                              .prompt_text = "p",
                                              .prompt_bytes = 1,
                                              .text = "a",
                                              .text_bytes = 1,
                                              .raw = " a",
                                              .raw_bytes = 2,
                                              .finish = "eos",
                                              .prompt_tokens = 1,
                                              .tokens = 1};

    (void)state;
    assert_int_equal(ha_console_reporter_open(&console, NULL), 0);
    assert_int_equal(reporter.phase(reporter.context, "generate", NULL), 0);
    assert_int_equal(reporter.answer(reporter.context, &answer, NULL), 0);
    assert_int_equal(reporter.cell(reporter.context, 2, false, "no", true, NULL, NULL), 0);
    assert_true(console.failed);
    assert_int_equal(ha_console_reporter_close(&console, 0, NULL), 0);
    holds("{\"prompt\":0,\"row\":4,\"sample\":0,\"adapter\":\"second\",\"prompt_text\":\"p\","
          "\"text\":\"a\",\"raw\":\" a\",\"finish\":\"eos\",\"prompt_tokens\":1,\"tokens\":1}\n");
}

static void norms_are_kept(void **state)
{
    struct ha_console_reporter console = {0};
    struct ha_reporter reporter = ha_console_reporter(&console);
    struct ha_reported_norm norm = {.block = "", .module = "q_proj", .layers = 1};

    (void)state;
    for (norm.layer = 0; norm.layer < 100; norm.layer++)
        assert_int_equal(reporter.norm(reporter.context, &norm, NULL), 0);
    assert_int_equal(console.n_norms, 100);
    assert_int_equal(console.norms[99].layer, 99);
    assert_string_equal(console.norms[0].module, "q_proj");
    assert_int_equal(ha_console_reporter_close(&console, 0, NULL), 0);
    assert_null(console.norms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(old_results_stay_until_the_work_begins, make_file,
                                        remove_file),
        cmocka_unit_test_setup_teardown(resumed_work_adds, make_file, remove_file),
        cmocka_unit_test(a_full_disk_is_named),
        cmocka_unit_test(norms_are_kept),
        cmocka_unit_test_setup_teardown(answers_name_their_adapter, make_file, remove_file),
    };

    ha_log_setup("test", HA_LOG_ERROR, HA_LOG_TEXT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
