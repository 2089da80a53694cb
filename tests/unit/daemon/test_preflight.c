/* The check of devices before an attempt, by shell scripts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/path.h"
#include "common/net/loop.h"
#include "worker/daemon/preflight.h"

static char folder[] = "/tmp/ha-preflight-XXXXXX";
static char program[sizeof folder + 16];
static struct ha_loop *loop;
static struct preflight *preflight;
static int n_done;
static char bad[64], said[512];

static void on_child(void *context, int number)
{
    (void)context;
    (void)number;
    if (preflight)
        preflight_check(preflight);
}

static void on_done(void *context, const char *uuid, const char *why)
{
    (void)context;
    n_done++;
    snprintf(bad, sizeof bad, "%s", uuid ? uuid : "");
    snprintf(said, sizeof said, "%s", why ? why : "");
    preflight_destroy(preflight);
    preflight = NULL;
}

static void look_at(const char *uuids, int64_t limit_ms)
{
    const struct preflight_options options = {.loop = loop,
                                              .program = program,
                                              .backend = "cpu",
                                              .folder = folder,
                                              .mark = "MARK=here",
                                              .uuids = uuids,
                                              .limit_ms = limit_ms,
                                              .done = on_done};
    int64_t end = ha_clock_boot_ms() + 10000;

    n_done = 0;
    assert_int_equal(preflight_create(&options, &preflight, NULL), 0);
    while (n_done == 0 && ha_clock_boot_ms() < end)
        assert_int_equal(ha_loop_turn(loop, 1000, NULL), 0);
    assert_int_equal(n_done, 1);
}

static void test_all(void **state)
{
    char path[sizeof folder + 16];
    struct stat st;

    (void)state;
    look_at("GPU-good,GPU-fine", 10000);
    assert_string_equal(bad, "");
    snprintf(path, sizeof path, "%s/GPU-fine", folder);
    assert_int_equal(stat(path, &st), 0); /* the second was looked at as well */
    look_at("GPU-good,GPU-bad,GPU-fine", 10000);
    assert_string_equal(bad, "GPU-bad");
    assert_string_equal(said, "the check of a product failed: 3 instead of 4");
    look_at("GPU-killed", 10000);
    assert_non_null(strstr(said, "SIGSEGV"));
}

static void test_hangs(void **state)
{
    (void)state;
    look_at("GPU-slow", 100);
    assert_string_equal(bad, "GPU-slow");
    assert_non_null(strstr(said, "no result within"));
}

int main(void)
{
    static const char script[] =
        "#!/bin/sh\n"
        "test \"$*\" = 'backend --check --threads 1 --backend cpu' || exit 9\n"
        "test \"$MARK\" = here || exit 8\n"
        "case $CUDA_VISIBLE_DEVICES in\n"
        "GPU-bad) echo looking; echo '3 instead of 4' >&2; exit 1;;\n"
        "GPU-killed) : >preflight.log; kill -SEGV $$;;\n"
        "GPU-slow) exec sleep 60;;\n"
        "*) : >$CUDA_VISIBLE_DEVICES;;\n"
        "esac\n";
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all), cmocka_unit_test(test_hangs)};
    FILE *file;
    int failed;

    if (!mkdtemp(folder) || ha_loop_create(&loop, NULL) < 0 ||
        ha_loop_on_signal(loop, SIGCHLD, on_child, NULL, NULL) < 0)
        return 1;
    snprintf(program, sizeof program, "%s/attempt", folder);
    file = fopen(program, "we");
    if (!file)
        return 1;
    fputs(script, file);
    fclose(file);
    if (chmod(program, 0700) < 0)
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    ha_loop_destroy(loop);
    return ha_path_remove_tree(folder, NULL) < 0 || failed;
}
