#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#include "common/io/file.h"
#include "common/proc/spawn.h"

enum { WAIT_MS = 5000 };

static char *folder;

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-spawn-XXXXXX";

    (void)state;
    folder = ha_strdup(mkdtemp(name));
    return folder ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    ha_path_remove_tree(folder, NULL);
    free(folder);
    return 0;
}

/* Run a shell script with these options (program and arguments are set here). */
static struct ha_child start(const char *script, struct ha_spawn_options options)
{
    const char *arguments[] = {"sh", "-c", script, NULL};
    struct ha_child child;
    struct ha_error err = {0};

    options.program = "/bin/sh";
    options.arguments = arguments;
    if (ha_child_spawn(&options, &child, &err) < 0)
        fail_msg("%s", err.text);
    return child;
}

static int wait_for(struct ha_child *child)
{
    int64_t deadline = ha_clock_boot_ms() + WAIT_MS;
    int status;

    while (!ha_child_poll(child, &status)) {
        assert_true(ha_clock_boot_ms() < deadline);
        usleep(2000);
    }
    assert_int_equal(child->pid, 0);
    return status;
}

static void expect_words(const char *script, const char *want)
{
    char words[HA_EXIT_WORDS_BYTES];
    struct ha_child child = start(script, (struct ha_spawn_options){0});

    assert_string_equal(ha_exit_words(wait_for(&child), words), want);
}

static void says_in_words_how_a_child_ended(void **state)
{
    (void)state;
    expect_words("exit 0", "exit code 0");
    expect_words("exit 3", "exit code 3");
    expect_words("kill -9 $$", "killed by signal 9 (SIGKILL)");
    expect_words("kill -TERM $$", "killed by signal 15 (SIGTERM)");
}

static void says_why_a_child_did_not_start(void **state)
{
    const char *arguments[] = {"x", NULL};
    struct ha_spawn_options options = {.program = "/no/such/program", .arguments = arguments};
    struct ha_child child;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(ha_child_spawn(&options, &child, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/no/such/program"));
    options.program = "/bin/sh";
    options.dir = "/no/such/folder";
    assert_int_equal(ha_child_spawn(&options, &child, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/no/such/folder"));
    options.dir = NULL;
    options.log_path = "/no/such/folder/log";
    assert_int_equal(ha_child_spawn(&options, &child, &err), -ENOENT);
}

/* What comes out of a pipe until its end. */
static char *read_all(int fd)
{
    static char text[4096];
    struct pollfd item = {.fd = fd, .events = POLLIN};
    size_t have = 0;
    ssize_t n;

    for (;;) {
        assert_true(poll(&item, 1, WAIT_MS) > 0);
        n = read(fd, text + have, sizeof(text) - 1 - have);
        assert_true(n >= 0);
        if (n == 0)
            break;
        have += (size_t)n;
    }
    text[have] = '\0';
    return text;
}

static void wait_for_output(const struct ha_child *child)
{
    struct pollfd item = {.fd = child->output_fd, .events = POLLIN};

    assert_true(poll(&item, 1, WAIT_MS) > 0);
}

static void connects_pipes_and_log(void **state)
{
    static const char *const environment[] = {"HA_TEST_WORD=new", NULL};
    char *log = ha_path_join(folder, "log"), *text;
    struct ha_child child;
    size_t size;

    (void)state;
    setenv("HA_TEST_WORD", "old", 1);
    setenv("HA_TEST_KEPT", "kept", 1);
    child = start("read line; echo \"got $line $HA_TEST_WORD $HA_TEST_KEPT\"; echo problem >&2; "
                  "echo contract >&3; pwd",
                  (struct ha_spawn_options){.input_pipe = true,
                                            .output_pipe = true,
                                            .contract_pipe = true,
                                            .log_path = log,
                                            .dir = folder,
                                            .environment = environment});
    assert_int_equal(write(child.input_fd, "word\n", 5), 5);
    text = ha_format("got word new kept\n%s\n", folder);
    assert_string_equal(read_all(child.output_fd), text);
    free(text);
    assert_string_equal(read_all(child.contract_fd), "contract\n");
    wait_for(&child);
    ha_child_close(&child);
    assert_int_equal(child.input_fd, -1);
    assert_int_equal(ha_file_read(log, 1000, &text, &size, NULL), 0);
    assert_string_equal(text, "problem\n");
    free(text);
    free(log);
}

static void gives_no_other_descriptors(void **state)
{
    struct ha_child child;
    int low = open(folder, O_RDONLY | O_DIRECTORY);
    int extra = fcntl(low, F_DUPFD, 20); /* neither has close-on-exec */
    char *script = ha_format("ls -l /proc/$$/fd | grep -c %s", folder);

    (void)state;
    assert_true(extra >= 20);
    child = start(script, (struct ha_spawn_options){.output_pipe = true, .contract_pipe = true});
    assert_string_equal(read_all(child.output_fd), "0\n");
    wait_for(&child);
    ha_child_close(&child);
    close(low);
    close(extra);
    free(script);
}

static void resets_signals(void **state)
{
    struct ha_child child;
    sigset_t set, old;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &old);
    child = start("grep -E 'SigBlk|SigIgn' /proc/self/status",
                  (struct ha_spawn_options){.output_pipe = true});
    assert_string_equal(read_all(child.output_fd),
                        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    wait_for(&child);
    ha_child_close(&child);
    sigprocmask(SIG_SETMASK, &old, NULL);
    signal(SIGPIPE, SIG_DFL);
}

static void wait_until_gone(pid_t pid)
{
    int64_t deadline = ha_clock_boot_ms() + WAIT_MS;
    char path[64], text[256], state = 'R';

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    for (;;) {
        FILE *file = fopen(path, "r");

        if (!file)
            return;
        /* A zombie that nobody reaps yet is gone enough. */
        if (fgets(text, sizeof(text), file) && strrchr(text, ')'))
            state = strrchr(text, ')')[2];
        fclose(file);
        if (state == 'Z' || state == 'X')
            return;
        assert_true(ha_clock_boot_ms() < deadline);
        usleep(5000);
    }
}

static void ends_the_whole_group(void **state)
{
    struct ha_child child;
    char text[64] = "";
    pid_t grandchild;

    (void)state;
    child = start("sleep 100 & echo $!; exit 4",
                  (struct ha_spawn_options){.output_pipe = true, .own_group = true});
    wait_for_output(&child);
    assert_true(read(child.output_fd, text, sizeof(text) - 1) > 0);
    grandchild = (int)strtol(text, NULL, 10);
    assert_int_equal(WEXITSTATUS(wait_for(&child)), 4);
    wait_until_gone(grandchild);
    ha_child_close(&child);
}

static void stops_politely_then_by_force(void **state)
{
    char words[HA_EXIT_WORDS_BYTES];
    struct ha_child child;
    int64_t start_ms;

    (void)state;
    child = start("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done",
                  (struct ha_spawn_options){.output_pipe = true, .own_group = true});
    wait_for_output(&child);
    assert_string_equal(ha_exit_words(ha_child_stop(&child, WAIT_MS), words), "exit code 7");
    ha_child_close(&child);

    child = start("trap '' TERM; echo ready; while :; do sleep 0.01; done",
                  (struct ha_spawn_options){.output_pipe = true, .own_group = true});
    wait_for_output(&child);
    start_ms = ha_clock_boot_ms();
    assert_string_equal(ha_exit_words(ha_child_stop(&child, 50), words),
                        "killed by signal 9 (SIGKILL)");
    assert_in_range(ha_clock_boot_ms() - start_ms, 50, 2000);
    assert_int_equal(ha_child_stop(&child, 50), 0);
    ha_child_close(&child);
}

static void dies_with_its_parent(void **state)
{
    struct ha_child child = {0};
    pid_t parent, grandchild = 0;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    parent = fork();
    if (parent == 0) {
        child = start("exec sleep 100",
                      (struct ha_spawn_options){.own_group = true, .death_signal = SIGKILL});
        _exit(write(ends[1], &child.pid, sizeof(child.pid)) < 0);
    }
    assert_int_equal(read(ends[0], &grandchild, sizeof(grandchild)), sizeof(grandchild));
    waitpid(parent, NULL, 0);
    wait_until_gone(grandchild);
    close(ends[0]);
    close(ends[1]);
}

static void finds_programs(void **state)
{
    struct ha_error err = {0};
    char *path;

    (void)state;
    assert_int_equal(ha_program_find("test_spawn", &path, &err), 0);
    assert_string_equal(ha_path_basename(path), "test_spawn");
    free(path);
    assert_int_equal(ha_program_find("sh", &path, &err), 0);
    assert_int_equal(path[0], '/');
    free(path);
    assert_int_equal(ha_program_find("ha-no-such-program", &path, &err), -ENOENT);
    assert_non_null(strstr(err.text, "ha-no-such-program"));
}

static void locks_once(void **state)
{
    char *path = ha_path_join(folder, "lock");
    struct ha_lock *lock, *second;
    struct ha_error err = {0};
    char number[32];
    FILE *file;

    (void)state;
    assert_int_equal(ha_lock_take(path, &lock, &err), 0);
    assert_int_equal(ha_lock_take(path, &second, &err), -EWOULDBLOCK);
    snprintf(number, sizeof(number), "process %ld;", (long)getpid());
    assert_non_null(strstr(err.text, number));
    /* As a holder on another machine writes it, where the folder is shared. */
    file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs("4711 elsewhere\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(ha_lock_take(path, &second, &err), -EWOULDBLOCK);
    assert_non_null(strstr(err.text, "process 4711 on elsewhere;"));
    ha_lock_release(lock);
    assert_int_equal(ha_lock_take(path, &second, &err), 0);
    ha_lock_release(second);
    assert_int_equal(ha_lock_take("/no/such/folder/lock", &second, &err), -ENOENT);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_in_words_how_a_child_ended),
        cmocka_unit_test(says_why_a_child_did_not_start),
        cmocka_unit_test(connects_pipes_and_log),
        cmocka_unit_test(gives_no_other_descriptors),
        cmocka_unit_test(resets_signals),
        cmocka_unit_test(ends_the_whole_group),
        cmocka_unit_test(stops_politely_then_by_force),
        cmocka_unit_test(dies_with_its_parent),
        cmocka_unit_test(finds_programs),
        cmocka_unit_test(locks_once),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
