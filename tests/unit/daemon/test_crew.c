/* A gang's processes, played by shell scripts: coming together, and what becomes of the others when
 * one of them fails, is late, or does not answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/path.h"
#include "common/net/loop.h"
#include "worker/daemon/contract_line.h"
#include "worker/daemon/crew.h"

enum { MOST_MS = 15000 };

static char dir[] = "/tmp/ha_test_crew_XXXXXX";
static char program[sizeof(dir) + 16];

struct ended {
    struct crew *crew;
    int status, n_lines, n_ready, world;
    bool over, followed;
    int64_t started[8]; /* of each rank; -1: not told */
    char id[128];
    char error[1024], last[128];
};

static void on_line(void *context, const struct contract_line *line)
{
    struct ended *ended = context;

    if (line->kind == CONTRACT_ERROR) {
        snprintf(ended->error, sizeof(ended->error), "%s", line->text);
        return;
    }
    ended->n_lines++;
    snprintf(ended->last, sizeof(ended->last), "%s", line->text ? line->text : "");
}

static void on_broken(void *context, const char *reason)
{
    struct ended *ended = context;

    snprintf(ended->error, sizeof(ended->error), "broken: %s", reason);
}

static void on_ended(void *context, int status)
{
    struct ended *ended = context;

    ended->over = true;
    ended->status = status;
    ended->followed = crew_followed(ended->crew);
    for (int i = 0; i < 8; i++) {
        int64_t finished;

        if (!crew_counts(ended->crew, i, &ended->started[i], &finished))
            ended->started[i] = -1;
    }
    crew_destroy(ended->crew);
    ended->crew = NULL;
}

/* The coordinator, which knows when all are ready. */
static void on_ready(void *context, int rank, const char *id)
{
    struct ended *ended = context;

    if (rank == 0)
        snprintf(ended->id, sizeof(ended->id), "%s", id);
    else
        assert_string_equal(id, "");
    if (++ended->n_ready == ended->world)
        crew_go(ended->crew, ended->id[0] ? ended->id : "abc");
}

/* Every rank runs this, with its rank in $rank; ready and id tell that it is ready. */
static void write_program(const char *body)
{
    FILE *file = fopen(program, "w");

    assert_non_null(file);
    fprintf(file,
            "#!/bin/sh\n"
            "rank=0\n"
            "while [ $# -gt 0 ]; do [ \"$1\" = --rank ] && rank=$2; shift; done\n"
            "ready() { if [ $rank = 0 ]; then id=',\"id\":\"abc\"'; else id=; fi\n"
            "  echo \"{\\\"type\\\":\\\"gang\\\",\\\"state\\\":\\\"ready\\\"$id}\" >&3; }\n"
            "failed() { echo \"{\\\"type\\\":\\\"gang\\\",\\\"state\\\":\\\"failed\\\","
            "\\\"started\\\":$1,\\\"finished\\\":1}\" >&3; }\n"
            "say() { echo \"{\\\"type\\\":\\\"phase\\\",\\\"phase\\\":\\\"$1\\\"}\" >&3; }\n"
            "error() { echo \"{\\\"type\\\":\\\"error\\\",\\\"text\\\":\\\"$1\\\"}\" >&3; }\n"
            "%s\n",
            body);
    fclose(file);
    assert_int_equal(chmod(program, 0700), 0);
}

static struct ended run_crew(int ranks, const char *body, int64_t stop_after_ms)
{
    struct ended ended = {.status = -1, .world = ranks};
    struct crew_options options = {.runner = {.program = program,
                                              .folder = dir,
                                              .grace_ms = 2000,
                                              .log_bytes = 1 << 20,
                                              .log_files = 1,
                                              .line = on_line,
                                              .broken = on_broken,
                                              .ended = on_ended,
                                              .context = &ended},
                                   .ranks = ranks,
                                   .world = ranks,
                                   .ready = on_ready,
                                   .prepare_ms = 3000,
                                   .abort_ms = 400};
    struct ha_error err = {0};
    int64_t start_ms = ha_clock_boot_ms();
    bool stopped = false;

    write_program(body);
    assert_int_equal(ha_loop_create(&options.runner.loop, &err), 0);
    assert_int_equal(crew_create(&options, &ended.crew, &err), 0);
    while (!ended.over) {
        int64_t spent_ms = ha_clock_boot_ms() - start_ms;

        assert_true(spent_ms < MOST_MS);
        assert_int_equal(ha_loop_turn(options.runner.loop, 20, NULL), 0);
        if (!ended.over)
            crew_check(ended.crew);
        if (!ended.over && stop_after_ms > 0 && spent_ms >= stop_after_ms && !stopped) {
            stopped = true;
            crew_stop(ended.crew);
        }
    }
    ha_loop_destroy(options.runner.loop);
    return ended;
}

static void one_is_no_gang(void **state)
{
    struct ended ended = run_crew(1, "say load; error 'no such model'; exit 78", 0);

    (void)state;
    assert_int_equal(WEXITSTATUS(ended.status), 78);
    assert_string_equal(ended.error, "no such model");
    assert_int_equal(ended.n_lines, 1);
}

static void they_come_together(void **state)
{
    struct ended ended =
        run_crew(3, "say load; sleep 0.$rank; ready; read id; say \"$id\"; exit 0", 0);

    (void)state;
    assert_int_equal(ended.status, 0);
    assert_string_equal(ended.error, "");
    assert_int_equal(ended.n_lines, 2); /* of rank 0 alone */
    assert_string_equal(ended.last, "abc");
}

static void one_fails_and_all_end(void **state)
{
    /* While they prepare. */
    struct ended ended = run_crew(
        3,
        "trap 'error aborted; exit 1' USR1; [ $rank = 1 ] && { error 'bad file'; exit 78; }\n"
        "ready; while :; do sleep 0.05; done",
        0);

    (void)state;
    assert_int_equal(WEXITSTATUS(ended.status), 78);
    assert_string_equal(ended.error, "rank 1 of 3: bad file");
    /* While they work, by a signal. */
    ended = run_crew(3,
                     "trap 'failed 18; exit 1' USR1; ready; read id; [ $rank = 2 ] && kill -9 $$\n"
                     "while :; do sleep 0.05; done",
                     0);
    assert_int_equal(WTERMSIG(ended.status), SIGKILL);
    assert_string_equal(ended.error, "rank 2 of 3");
}

static void who_was_behind_is_said(void **state)
{
    struct ended ended =
        run_crew(3,
                 "trap 'failed $((20 - rank % 2)); exit 1' USR1; ready; read id\n"
                 "[ $rank = 0 ] && { sleep 0.2; failed 20; error 'out of time'; exit 1; }\n"
                 "while :; do sleep 0.05; done",
                 0);

    (void)state;
    assert_int_equal(WEXITSTATUS(ended.status), 1);
    assert_string_equal(ended.error, "rank 0 of 3: out of time; rank 1 was behind: it had begun 19 "
                                     "collectives, others 20");
    /* One does not even hear that it is to give up. */
    ended = run_crew(3,
                     "if [ $rank = 1 ]; then trap '' USR1; else trap 'failed 20; exit 1' USR1; fi\n"
                     "ready; read id; [ $rank = 0 ] && { failed 20; error late; exit 1; }\n"
                     "while :; do sleep 0.05; done",
                     0);
    assert_string_equal(ended.error, "rank 0 of 3: late; rank 1 did not answer and was killed");
}

static void late_ones_are_named(void **state)
{
    struct ended ended =
        run_crew(3, "trap 'exit 1' USR1; [ $rank = 2 ] || ready; while :; do sleep 0.05; done", 0);

    (void)state;
    assert_true(WIFEXITED(ended.status) || WIFSIGNALED(ended.status));
    assert_true(ended.status != 0);
    assert_string_equal(ended.error, "a gang of 3 ranks: not ready within 3 s: rank 2");
}

static void a_stop_is_no_failure(void **state)
{
    struct ended ended =
        run_crew(2, "trap 'exit 75' TERM; ready; while :; do sleep 0.05; done", 500);

    (void)state;
    assert_int_equal(WEXITSTATUS(ended.status), 75);
    assert_string_equal(ended.error, "");
}

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(program, sizeof(program), "%s/attempt", dir);
    return signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_is_no_gang),        cmocka_unit_test(they_come_together),
        cmocka_unit_test(one_fails_and_all_end), cmocka_unit_test(who_was_behind_is_said),
        cmocka_unit_test(late_ones_are_named),   cmocka_unit_test(a_stop_is_no_failure),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
