/* coordinator.toml, worker.toml, judge.toml. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/daemon.h"

static char folder[] = "/tmp/ha-test-daemon-XXXXXX";
static char file[64];

static void write_config(const char *text)
{
    FILE *out = fopen(file, "we");

    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void expect_path(const char *path, const char *name)
{
    char whole[128];

    (void)snprintf(whole, sizeof(whole), "%s/%s", folder, name);
    assert_string_equal(path, whole);
}

/* The error without the file's name in front. */
static void expect_error(const struct ha_error *err, const char *want)
{
    const char *text = err->text;

    if (strncmp(text, file, strlen(file)) == 0)
        text += strlen(file);
    if (strcmp(text, want) != 0)
        fail_msg("got:  %s\nwant: %s", text, want);
}

static void defaults_need_no_file(void **state)
{
    struct ha_coordinator_config coordinator;
    struct ha_worker_config worker;
    struct ha_judge_config judge;
    struct ha_error err = {0};
    struct ha_buffer out;

    (void)state;
    assert_int_equal(ha_coordinator_config_load(NULL, NULL, 0, &coordinator, &err), 0);
    assert_int_equal(coordinator.heartbeat_ms, 5000);
    assert_int_equal(coordinator.late_ms, 15000);
    assert_int_equal(coordinator.lost_ms, 60000);
    assert_false(coordinator.insecure_loopback);
    assert_string_equal(coordinator.files_listen, "tcp://127.0.0.1:8471");
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_section_print(&ha_coordinator_section, &coordinator, &out), 0);
    assert_non_null(strstr(ha_buffer_text(&out), "lost_ms = 60000"));
    ha_buffer_clear(&out);
    ha_coordinator_config_clear(&coordinator);
    assert_int_equal(ha_worker_config_load(NULL, NULL, 0, &worker, &err), 0);
    assert_true(worker.name[0] != '\0');
    assert_int_equal(worker.slots, 1);
    assert_string_equal(worker.files, "tcp://127.0.0.1:8471");
    ha_worker_config_clear(&worker);
    assert_int_equal(ha_judge_config_load(NULL, NULL, 0, &judge, &err), 0);
    assert_int_equal(judge.key_count, 0);
    assert_false(judge.grid_keys);
    ha_judge_config_clear(&judge);
}

static void reads_files(void **state)
{
    static const char *const set[] = {"threads=3", "files=ipc:///run/f"};
    struct ha_worker_config worker;
    struct ha_judge_config judge;
    struct ha_error err = {0};

    (void)state;
    write_config("name = \"n1\"\ncoordinator = \"ipc:///run/c\"\nwork_dir = \"w\"\n"
                 "model_roots = [\"m\", \"/abs\"]\nstall_step = \"5m\"\nkey_file = \"k\"\n");
    assert_int_equal(ha_worker_config_load(file, set, 1, &worker, &err), 0);
    assert_string_equal(worker.files, "ipc:///run/c.files");
    expect_path(worker.work_dir, "w");
    expect_path(worker.model_roots.items[0], "m");
    expect_path(worker.key_file, "k");
    assert_string_equal(worker.model_roots.items[1], "/abs");
    assert_int_equal(worker.stall_step_s, 300);
    assert_int_equal(worker.threads, 3);
    ha_worker_config_clear(&worker);
    assert_int_equal(ha_worker_config_load(file, set, 2, &worker, &err), 0);
    assert_string_equal(worker.files, "ipc:///run/f");
    ha_worker_config_clear(&worker);

    write_config("[[key]]\nname = \"a\"\nenv = \"A\"\nhosts = [\"h\"]\n"
                 "[[key]]\nname = \"b\"\nfile = \"f\"\nhosts = [\"h\", \"i\"]\n");
    assert_int_equal(ha_judge_config_load(file, NULL, 0, &judge, &err), 0);
    assert_int_equal(judge.key_count, 2);
    assert_string_equal(judge.keys[0].env, "A");
    expect_path(judge.keys[1].file, "f");
    assert_int_equal(judge.keys[1].hosts.count, 2);
    ha_judge_config_clear(&judge);
}

static void refused_coordinator(const char *text, const char *override, const char *want)
{
    struct ha_coordinator_config config;
    struct ha_error err = {0};

    write_config(text);
    assert_true(ha_coordinator_config_load(file, &override, override ? 1 : 0, &config, &err) < 0);
    expect_error(&err, want);
}

static void refused_judge(const char *text, const char *want)
{
    struct ha_judge_config config;
    struct ha_error err = {0};

    write_config(text);
    assert_true(ha_judge_config_load(file, NULL, 0, &config, &err) < 0);
    expect_error(&err, want);
}

static void refuses(void **state)
{
    (void)state;
    refused_coordinator("\nlisen = \"x\"\n", NULL, ":2: unknown key lisen; did you mean listen?");
    refused_coordinator("listen = \"http://x\"\n", NULL,
                        ": endpoint \"http://x\" must begin with tcp:// or ipc://");
    refused_coordinator("listen = \"tcp://127.0.0.1:*\"\n", NULL,
                        ": tcp://127.0.0.1:* has no port from 1 to 65534; name the artifact "
                        "endpoint too");
    refused_coordinator("late_ms = 1000\n", NULL,
                        ": heartbeat_ms <= late_ms <= lost_ms and 3 heartbeats within lost_ms "
                        "must hold, not 5000, 1000, 60000");
    refused_coordinator("", "lat_ms=3", "--set lat_ms: unknown key; did you mean late_ms?");
    refused_coordinator("", "late_ms", "--set late_ms: write key=value");
    refused_coordinator("", "late_ms=x",
                        "--set late_ms must be an integer from 10 to 86400000, not \"x\"");
    refused_judge("[[key]]\nname = \"a\"\nhosts = [\"h\"]\n",
                  ":1: key \"a\" needs either env or file");
    refused_judge("[[key]]\nname = \"a\"\nenv = \"A\"\nfile = \"f\"\nhosts = [\"h\"]\n",
                  ":1: key \"a\" needs either env or file");
    refused_judge("[[key]]\nname = \"a\"\nenv = \"A\"\n",
                  ":1: key.hosts must be given: the hosts that it may be sent to");
    refused_judge("[[key]]\nname = \"a\"\nenv = \"A\"\nhosts = []\n",
                  ":1: key \"a\" may be sent to no host");
    refused_judge("key = 1\n", ":1: write [[key]], one for each, at most 256");
    refused_judge("[[key]]\nname = \"a\"\nenv = \"A\"\nhosts = [\"h\"]\n"
                  "[[key]]\nname = \"a\"\nenv = \"A\"\nhosts = [\"h\"]\n",
                  ":5: a second key \"a\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_need_no_file),
        cmocka_unit_test(reads_files),
        cmocka_unit_test(refuses),
    };
    int r;

    assert_non_null(mkdtemp(folder));
    (void)snprintf(file, sizeof(file), "%s/config.toml", folder);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(file);
    (void)rmdir(folder);
    return r;
}
