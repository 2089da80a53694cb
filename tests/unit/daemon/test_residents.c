/* Processes that serve several jobs, played by shell scripts: kept, used again, and ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
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
#include "common/io/file.h"
#include "common/net/loop.h"
#include "worker/daemon/contract_line.h"
#include "worker/daemon/crew.h"
#include "worker/daemon/residents.h"

enum { MOST_MS = 15000 };

static char dir[] = "/tmp/ha_test_residents_XXXXXX";
static char program[sizeof(dir) + 16], jobs[3][sizeof(dir) + 16];

/* A job: its log has its folder's name and the process's number; says one line and waits. */
static const char serves[] = "#!/bin/sh\n"
                             "while :; do\n"
                             "  [ -n \"$next\" ] && cd \"$next\"\n"
                             "  echo \"$PWD $$ $*\"\n"
                             "  [ -e fail ] && exit 3\n"
                             "  echo '{\"type\":\"phase\",\"phase\":\"load\"}' >&3\n"
                             "  echo '{\"type\":\"waits\"}' >&3\n"
                             "  read -r next || exit 0\n"
                             "done\n";

static struct {
    struct ha_loop *loop;
    struct residents *residents;
    struct crew *crew;
    bool over;
    int status, lines, changed;
} test;

static void on_line(void *context, const struct contract_line *line)
{
    (void)context;
    test.lines += line->kind == CONTRACT_PHASE;
}

static void on_broken(void *context, const char *reason)
{
    (void)context;
    fail_msg("%s", reason);
}

static void on_ended(void *context, int status)
{
    (void)context;
    test.over = true;
    test.status = status;
    crew_destroy(test.crew);
    test.crew = NULL;
}

static void on_keep(void *context, struct runner *runner)
{
    struct resident_place place = {0};

    (void)context;
    residents_put(test.residents, runner, "model", 1, &place);
}

static void on_changed(void *context)
{
    (void)context;
    test.changed++;
}

static void turn(void)
{
    assert_int_equal(ha_loop_turn(test.loop, 20, NULL), 0);
    if (test.crew)
        crew_check(test.crew);
    residents_check(test.residents);
}

/* Run a job, by a process that waits where there is one; its exit status. */
static int run(int job, bool resume)
{
    struct crew_options options = {.runner = {.loop = test.loop,
                                              .program = program,
                                              .folder = jobs[job],
                                              .grace_ms = 2000,
                                              .log_bytes = 1 << 20,
                                              .log_files = 1,
                                              .serves = true,
                                              .line = on_line,
                                              .broken = on_broken,
                                              .ended = on_ended},
                                   .ranks = 1,
                                   .keep = on_keep};
    struct resident_place place;
    struct ha_error err = {0};
    int64_t start_ms = ha_clock_boot_ms();

    test.over = false;
    options.resumed = resume ? residents_take(test.residents, "model", &place) : NULL;
    assert_int_equal(options.resumed != NULL, resume);
    if (!resume)
        assert_true(residents_admit(test.residents, 1));
    assert_int_equal(crew_create(&options, &test.crew, &err), 0);
    while (!test.over) {
        assert_true(ha_clock_boot_ms() - start_ms < MOST_MS);
        turn();
    }
    residents_leave(test.residents);
    return test.status;
}

/* The process that did a job, as its log says, which has nothing of another one. */
static pid_t process_of(int job)
{
    char *path = ha_path_join(jobs[job], RUNNER_LOG), *text, folder[256];
    size_t size;
    int pid = 0;

    assert_int_equal(ha_file_read(path, 4096, &text, &size, NULL), 0);
    assert_int_equal(sscanf(text, "%255s %d", folder, &pid), 2);
    assert_string_equal(folder, jobs[job]);
    assert_ptr_equal(strchr(text, '\n'), text + size - 1);
    free(text);
    assert_int_equal(unlink(path), 0);
    free(path);
    return pid;
}

static void until_changed(int times)
{
    int64_t start_ms = ha_clock_boot_ms();

    while (test.changed < times) {
        assert_true(ha_clock_boot_ms() - start_ms < MOST_MS);
        turn();
    }
}

static void open_residents(int64_t keep_ms)
{
    struct residents_options options = {.rules = {.slots = 1, .keep_ms = keep_ms, .shared = true},
                                        .changed = on_changed};

    memset(&test, 0, sizeof(test));
    assert_int_equal(ha_loop_create(&test.loop, NULL), 0);
    options.loop = test.loop;
    assert_int_equal(residents_create(&options, &test.residents, NULL), 0);
}

static void close_residents(void)
{
    residents_destroy(test.residents);
    ha_loop_destroy(test.loop);
}

static void one_process_does_three_jobs(void **state)
{
    pid_t first;

    (void)state;
    open_residents(60000);
    for (int job = 0; job < 3; job++)
        assert_int_equal(run(job, job > 0), 0);
    assert_int_equal(test.lines, 3);
    first = process_of(0);
    assert_int_equal(process_of(1), first);
    assert_int_equal(process_of(2), first);
    /* Another model needs the place: it is there when the process has ended. */
    assert_false(residents_admit(test.residents, 1));
    until_changed(1);
    assert_int_equal(kill(first, 0), -1);
    assert_true(residents_admit(test.residents, 1));
    residents_leave(test.residents);
    close_residents();
}

static void it_goes_when_nobody_asks(void **state)
{
    struct resident_place place;

    (void)state;
    open_residents(50);
    assert_int_equal(run(0, false), 0);
    until_changed(1);
    assert_int_equal(kill(process_of(0), 0), -1);
    assert_null(residents_take(test.residents, "model", &place));
    close_residents();
}

static void a_killed_one_is_not_used(void **state)
{
    struct resident_place place;

    (void)state;
    open_residents(60000);
    assert_int_equal(run(0, false), 0);
    assert_null(residents_take(test.residents, "other", &place));
    assert_int_equal(kill(process_of(0), SIGKILL), 0);
    until_changed(1);
    assert_null(residents_take(test.residents, "model", &place));
    close_residents();
}

static void a_failed_job_ends_it(void **state)
{
    char *path = ha_path_join(jobs[1], "fail");
    struct resident_place place;

    (void)state;
    open_residents(60000);
    assert_int_equal(run(0, false), 0);
    (void)process_of(0);
    assert_int_equal(ha_file_write(path, "", 0, 0600, NULL), 0);
    assert_int_equal(run(1, true), 3 << 8);
    (void)process_of(1);
    assert_null(residents_take(test.residents, "model", &place));
    assert_int_equal(unlink(path), 0);
    free(path);
    close_residents();
}

static void leaving_ends_all(void **state)
{
    (void)state;
    open_residents(60000);
    assert_int_equal(run(0, false), 0);
    (void)process_of(0);
    assert_true(residents_keeps(test.residents));
    residents_end(test.residents);
    assert_false(residents_keeps(test.residents));
    until_changed(1);
    close_residents();
}

/* What waits without a GPU is of no use where attempts have one, also one that ends its job only
 * then.  Nothing is asked of the devices: nobody here has a claim on them. */
static void without_gpus_they_go_when_there_are_some(void **state)
{
    struct ha_devices *devices = (struct ha_devices *)&test;
    struct resident_place place;

    (void)state;
    open_residents(60000);
    assert_int_equal(run(0, false), 0);
    (void)process_of(0);
    assert_null(residents_devices(test.residents));
    residents_set_devices(test.residents, devices);
    assert_ptr_equal(residents_devices(test.residents), devices);
    assert_null(residents_take(test.residents, "model", &place));
    until_changed(1);
    assert_int_equal(run(1, false), 0);
    until_changed(2);
    residents_set_devices(test.residents, NULL);
    close_residents();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_process_does_three_jobs),
        cmocka_unit_test(it_goes_when_nobody_asks),
        cmocka_unit_test(a_killed_one_is_not_used),
        cmocka_unit_test(a_failed_job_ends_it),
        cmocka_unit_test(leaving_ends_all),
        cmocka_unit_test(without_gpus_they_go_when_there_are_some),
    };
    int failed;

    if (!mkdtemp(dir))
        return 1;
    snprintf(program, sizeof(program), "%s/program", dir);
    if (ha_file_write(program, serves, sizeof(serves) - 1, 0700, NULL) < 0)
        return 1;
    for (int i = 0; i < 3; i++) {
        snprintf(jobs[i], sizeof(jobs[i]), "%s/job%d", dir, i);
        if (mkdir(jobs[i], 0700) < 0)
            return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    ha_path_remove_tree(dir, NULL);
    return failed;
}
