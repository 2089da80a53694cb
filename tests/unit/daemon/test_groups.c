/* Control groups of attempts: a folder that plays one, and the kernel's own where it may be had. */
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
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/conf/daemon.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "common/proc/spawn.h"
#include "worker/daemon/contract_line.h"
#include "worker/daemon/groups.h"
#include "worker/daemon/runner.h"

enum { WAIT_MS = 10000 };

static char *folder, *parent, *inside; /* inside: where the worker's groups are */
static struct ha_worker_config config;
static struct groups *groups;

static void put(const char *where, const char *name, const char *text)
{
    char *path = ha_path_join(where, name);

    assert_int_equal(ha_file_write(path, text, strlen(text), 0600, NULL), 0);
    free(path);
}

static char *get(const char *where, const char *name)
{
    char *path = ha_path_join(where, name), *text = NULL;
    size_t size;

    assert_int_equal(ha_file_read(path, 4096, &text, &size, NULL), 0);
    free(path);
    return text;
}

static void load(const char *cgroup)
{
    char *work = ha_format("work_dir=%s/work", folder), *where = ha_format("cgroup=%s", cgroup);
    const char *overrides[] = {work, where, "attempt_memory=3MiB"};

    ha_worker_config_clear(&config);
    assert_int_equal(ha_worker_config_load(NULL, overrides, 3, &config, NULL), 0);
    free(work);
    free(where);
}

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-groups-XXXXXX";

    (void)state;
    folder = ha_strdup(mkdtemp(name));
    parent = ha_path_join(folder, "parent");
    assert_int_equal(mkdir(parent, 0700), 0);
    put(parent, "cgroup.procs", "");
    config = (struct ha_worker_config){0};
    load(parent);
    return ha_path_make_dirs(config.work_dir, 0700, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    groups_close(groups);
    groups = NULL;
    ha_worker_config_clear(&config);
    ha_path_remove_tree(folder, NULL);
    free(folder);
    free(parent);
    free(inside);
    inside = NULL;
    return 0;
}

static void open_groups(void)
{
    assert_int_equal(groups_open(&config, &groups, NULL), 0);
    assert_non_null(groups);
    free(inside);
    inside = get(config.work_dir, "cgroup");
    assert_true(ha_path_exists(inside));
}

/* As the kernel would have one: it is there, and has these processes. */
static char *play_group(const char *name, pid_t pid, bool kills)
{
    char *path = ha_path_join(inside, name), text[32];

    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(text, sizeof text, "%d\n", (int)pid);
    put(path, "cgroup.procs", text);
    put(path, "memory.max", "max\n");
    if (kills)
        put(path, "cgroup.kill", "");
    return path;
}

static struct ha_child sleeper(const char *procs)
{
    const char *arguments[] = {"sleep", "60", NULL};
    const struct ha_spawn_options options = {.program = "/bin/sleep",
                                             .arguments = arguments,
                                             .group_procs = procs,
                                             .own_group = true,
                                             .death_signal = SIGKILL};
    struct ha_child child;

    assert_int_equal(ha_child_spawn(&options, &child, NULL), 0);
    return child;
}

static void expect_killed(struct ha_child *child)
{
    int status = 0;

    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_played(void **state)
{
    struct ha_child ours, other = sleeper(NULL);
    struct group *group;
    char *path, *text;
    int status;

    (void)state;
    open_groups();
    ours = sleeper(NULL);
    path = play_group("1-1-1", ours.pid, false);
    group = group_create(groups, "1-1-1");
    assert_non_null(group);
    text = ha_format("%s/cgroup.procs", path);
    assert_string_equal(group_procs(group), text);
    free(text);
    text = get(path, "memory.max");
    assert_int_equal(strtoll(text, NULL, 10), 3 << 20);
    free(text);
    assert_int_equal(group_starved(group), -1); /* the kernel counts no memory for it */
    put(path, "memory.events", "low 0\nhigh 3\nmax 7\noom 2\noom_kill 0\noom_group_kill 0\n");
    assert_int_equal(group_starved(group), 0);
    put(path, "memory.events", "low 0\nhigh 3\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n");
    assert_int_equal(group_starved(group), 1);
    group_kill(group); /* one by one, without cgroup.kill */
    expect_killed(&ours);
    assert_false(ha_child_poll(&other, &status));
    put(path, "cgroup.procs", "");
    put(path, "cgroup.kill", "");
    group_kill(group);
    text = get(path, "cgroup.kill");
    assert_string_equal(text, "1");
    free(text);
    free(path);
    group_destroy(group);
    assert_null(group_procs(NULL));
    assert_int_equal(group_starved(NULL), -1);
    group_kill(NULL);
    group_destroy(NULL);
    (void)ha_child_stop(&other, 0);
}

/* The first knows nothing of what is put there after it: as if it had died. */
static void open_groups_again(void)
{
    struct groups *first = groups;

    open_groups();
    groups_close(first);
}

/* What a daemon that died left is killed by the next, also where that is in another group. */
static void test_left(void **state)
{
    struct ha_child one, two;
    char *elsewhere = ha_path_join(folder, "elsewhere");

    (void)state;
    open_groups();
    one = sleeper(NULL);
    free(play_group("1-1-1", one.pid, false));
    open_groups_again();
    expect_killed(&one);
    two = sleeper(NULL);
    free(play_group("2-1-1", two.pid, false));
    assert_int_equal(mkdir(elsewhere, 0700), 0);
    put(elsewhere, "cgroup.procs", "");
    load(elsewhere);
    open_groups_again();
    assert_non_null(strstr(inside, elsewhere));
    expect_killed(&two);
    free(elsewhere);
}

static void test_none(void **state)
{
    struct ha_error err = {0};

    (void)state;
    load("off");
    assert_int_equal(groups_open(&config, &groups, NULL), 0);
    assert_null(groups);
    assert_null(group_create(groups, "1"));
    load("/nowhere/at/all");
    assert_int_equal(groups_open(&config, &groups, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/at/all"));
}

/* ---- with a runner ------------------------------------------------------------------------- */

static struct ha_loop *loop;
static int ended;
static char said[200];

static void on_line(void *context, const struct contract_line *line)
{
    (void)context;
    if (line->kind == CONTRACT_ERROR)
        snprintf(said, sizeof said, "%s", line->text);
}

static void on_broken(void *context, const char *reason)
{
    (void)context;
    fail_msg("%s", reason);
}

static void on_ended(void *context, int status)
{
    (void)context;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ended++;
    ha_loop_stop(loop);
}

static void on_child(void *context, int number)
{
    struct runner **runner = context;

    (void)number;
    if (*runner)
        runner_check(*runner);
}

static void run_one(const char *name, const char *script)
{
    char *attempt = ha_path_join(folder, name), *program = ha_path_join(folder, "program");
    const struct runner_options options = {.program = program,
                                           .folder = attempt,
                                           .log_bytes = 4096,
                                           .log_files = 1,
                                           .groups = groups,
                                           .line = on_line,
                                           .broken = on_broken,
                                           .ended = on_ended};
    struct runner_options own = options;
    struct runner *runner = NULL;

    put(folder, "program", script);
    assert_int_equal(chmod(program, 0700), 0);
    assert_int_equal(mkdir(attempt, 0700), 0);
    assert_int_equal(ha_loop_create(&loop, NULL), 0);
    assert_int_equal(ha_loop_on_signal(loop, SIGCHLD, on_child, &runner, NULL), 0);
    own.loop = loop;
    said[0] = '\0';
    ended = 0;
    assert_int_equal(runner_create(&own, &runner, NULL), 0);
    assert_int_equal(ha_loop_run(loop, NULL), 0);
    assert_int_equal(ended, 1);
    runner_destroy(runner);
    ha_loop_destroy(loop);
    free(attempt);
    free(program);
}

static const char suicide[] = "#!/bin/sh\nkill -9 $$\n";

/* The same, and the kernel's count for the group says that it was killed. */
static char *starving(const char *path)
{
    return ha_format("#!/bin/sh\necho 'oom_kill 2' >%s/memory.events\nkill -9 $$\n", path);
}

static void test_starved(void **state)
{
    char *path, *script;

    (void)state;
    open_groups();
    path = play_group("7-1-1", 0, true);
    put(path, "memory.events", "oom_kill 1\n");
    script = starving(path);
    run_one("7-1-1", script);
    free(script);
    assert_int_equal(strncmp(said, CONTRACT_STARVED " when it had ", strlen(CONTRACT_STARVED) + 13),
                     0);
    assert_true(contract_is_starved(said));
    free(path);
    path = play_group("8-1-1", 0, true);
    put(path, "memory.events", "oom_kill 0\n");
    run_one("8-1-1", suicide); /* somebody else did it */
    assert_string_equal(said, "");
    free(path);
    path = play_group("10-1-1", 0, true);
    put(path, "memory.events", "oom_kill 1\n"); /* of one that was there before */
    run_one("10-1-1", suicide);
    assert_string_equal(said, "");
    free(path);
    run_one("9-1-1", suicide); /* its group cannot be entered: it runs all the same */
}

/* ---- the kernel's own ------------------------------------------------------------------------ */

static bool is_empty(const char *path)
{
    char *text = ha_path_exists(path) ? get(path, "cgroup.procs") : NULL;
    bool empty = !text || !text[0];

    free(text);
    return empty;
}

static void wait_empty(const char *path)
{
    int64_t end = ha_clock_boot_ms() + WAIT_MS;

    while (!is_empty(path) && ha_clock_boot_ms() < end)
        (void)usleep(5000);
    assert_true(is_empty(path));
}

/* Below one of the places where it is mounted; NULL: nowhere may be written. */
static char *make_real(void)
{
    static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        char *path = ha_format("%s/ha-test-%d", places[i], (int)getpid());
        char *procs = ha_path_join(path, "cgroup.procs");
        bool made = mkdir(path, 0755) == 0, real = made && ha_path_exists(procs);

        free(procs);
        if (real)
            return path;
        if (made)
            (void)rmdir(path);
        free(path);
    }
    return NULL;
}

/* A process that left group and session dies with its attempt. */
static void test_real(void **state)
{
    char *real = make_real(), *path, *text;

    (void)state;
    if (!real)
        skip();
    load(real);
    open_groups();
    path = ha_path_join(inside, "3-1-1");
    run_one("3-1-1", "#!/bin/sh\nsetsid sh -c 'trap \"\" TERM; echo $$ >../stray; sleep 60' &\n"
                     "while [ ! -s ../stray ]; do sleep 0.01; done\nkill -9 $$\n");
    text = get(folder, "stray");
    assert_true(strtoll(text, NULL, 10) > 1);
    wait_empty(path);
    free(text);
    groups_close(groups); /* nothing is left of it */
    groups = NULL;
    assert_false(ha_path_exists(inside));
    assert_int_equal(rmdir(real), 0);
    free(path);
    free(real);
}

/* What it finds depends on the machine; it never fails. */
static void test_auto(void **state)
{
    (void)state;
    load("auto");
    assert_int_equal(groups_open(&config, &groups, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_played, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_starved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_real, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_auto, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
