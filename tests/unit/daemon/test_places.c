/* What a worker offers of its GPUs, also while their driver hangs.  Who asks it is a shell script.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/path.h"
#include "common/conf/daemon.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "proto/wire.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/devices.h"
#include "worker/daemon/places.h"

#include "play_nvml.h"

enum { WAIT_MS = 10000 };

static struct ha_loop *loop;
static struct places *places;
static struct ha_worker_config config;
static char folder[] = "/tmp/ha-places-XXXXXX";
static char program[sizeof folder + 16];
static struct daemon_options options = {.program = program};

/* "ha-attempt backend --check --threads 1 --backend NAME" is this. */
static void play_cuda(const char *script)
{
    char next[sizeof program + 8], text[256];
    int n = snprintf(text, sizeof text, "#!/bin/sh\n%s\n", script);

    snprintf(next, sizeof next, "%s.next", program);
    assert_int_equal(ha_file_write(next, text, (size_t)n, 0700, NULL), 0);
    assert_int_equal(rename(next, program), 0);
}

static void on_child(void *context, int number)
{
    (void)context;
    (void)number;
    places_check(places);
}

static int open_places(const char *backend, const char *without, const char *slots,
                       const char *description, bool silent)
{
    char choice[32], meanwhile[32], count[32], dir[sizeof folder + 16];
    const char *overrides[] = {choice, count, dir, meanwhile, "driver_answer=1s"};

    snprintf(choice, sizeof choice, "backend=%s", backend);
    snprintf(meanwhile, sizeof meanwhile, "without_driver=%s", without);
    snprintf(count, sizeof count, "slots=%s", slots);
    snprintf(dir, sizeof dir, "work_dir=%s", folder);
    assert_int_equal(ha_worker_config_load(NULL, overrides, 5, &config, NULL), 0);
    assert_int_equal(ha_loop_create(&loop, NULL), 0);
    assert_int_equal(ha_loop_on_signal(loop, SIGCHLD, on_child, NULL, NULL), 0);
    options.backend = description;
    options.silent = silent;
    return places_create(loop, &config, &options, NULL, NULL, &places, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    play(""); /* whoever hangs goes on */
    places_destroy(places);
    places = NULL;
    ha_loop_destroy(loop);
    ha_worker_config_clear(&config);
    return 0;
}

static struct ha_wire_heartbeat told(void)
{
    struct ha_wire_heartbeat beat = {.n_devices = 0};

    places_tell(places, &beat);
    return beat;
}

/* Until so many places are offered. */
static struct ha_wire_heartbeat wait_places(uint32_t n)
{
    int64_t end = ha_clock_boot_ms() + WAIT_MS;
    struct ha_wire_heartbeat beat = told();

    while (beat.places != n && ha_clock_boot_ms() < end) {
        assert_int_equal(ha_loop_turn(loop, 1000, NULL), 0);
        beat = told();
    }
    assert_int_equal(beat.places, n);
    return beat;
}

static void test_offer(void **state)
{
    struct ha_wire_heartbeat beat;

    (void)state;
    play("uuid=GPU-aaaa total=4096\nuuid=GPU-bbbb\nuuid=GPU-cccc\nuuid=GPU-dddd lost=1\n");
    assert_int_equal(open_places("auto", "wait", "2", "cuda: fake", false), 0);
    assert_false(places_on_cpu(places));
    assert_non_null(places_devices(places));
    assert_int_equal(places_gpus(places), 2);
    assert_int_equal(places_gpu_memory_bytes(places), (int64_t)4096 << 20);
    beat = wait_places(2); /* three devices are left for them */
    assert_int_equal(beat.gpus, 1);
    assert_int_equal(beat.n_devices, 4);
    assert_string_equal(beat.devices[0].state, "free");
    assert_string_equal(beat.devices[3].state, "aside");
    assert_true(llabs(beat.devices[3].since_ms - ha_clock_wall_ms()) < 60000);
}

/* Until it is said that the driver has answered. */
static void wait_news(void)
{
    int64_t end = ha_clock_boot_ms() + WAIT_MS;

    while (!places_news(places)) {
        assert_true(ha_clock_boot_ms() < end);
        assert_int_equal(ha_loop_turn(loop, 100, NULL), 0);
    }
    assert_false(places_news(places));
}

/* Nobody wants the CPU's results: no place until the management library, and then CUDA, answer. */
static void test_waits(void **state)
{
    struct ha_wire_heartbeat beat;

    (void)state;
    play("uuid=GPU-aaaa hang=1\n");
    play_cuda("exit 3");
    assert_int_equal(open_places("auto", "wait", "2", "cuda: fake", false), 0);
    assert_true(places_wait(places));
    assert_false(places_on_cpu(places));
    assert_string_equal(places_setting(places), "auto");
    beat = told();
    assert_int_equal(beat.places, 0);
    assert_int_equal(beat.n_devices, 1);
    assert_string_equal(beat.devices[0].state, "aside");
    assert_string_equal(beat.devices[0].reason, "the driver does not answer");
    play("uuid=GPU-aaaa total=4096\nuuid=GPU-bbbb total=4096\n");
    while (!strstr(beat.devices[0].reason, "exit code 3")) {
        assert_int_equal(ha_loop_turn(loop, 1000, NULL), 0);
        beat = told();
    }
    assert_int_equal(beat.n_devices, 2);
    assert_int_equal(beat.places, 0);
    assert_string_equal(beat.devices[1].state, "aside");
    assert_non_null(strstr(beat.devices[1].reason, "it is asked again every 1 s"));
    play_cuda("echo 'a warning' >&2; echo \"cuda: $6 answers\"");
    wait_news();
    assert_false(places_wait(places));
    assert_string_equal(places_backend(places), "cuda: auto answers");
    assert_int_equal(places_gpu_memory_bytes(places), (int64_t)4096 << 20);
    assert_int_equal(places_attempt_memory(places), 0);
    beat = wait_places(2);
    assert_int_equal(beat.gpus, 1);
    assert_string_equal(beat.devices[1].state, "free");
}

static void test_cpu_meanwhile(void **state)
{
    struct ha_wire_heartbeat beat;

    (void)state;
    play("uuid=GPU-aaaa hang=1\n");
    play_cuda("echo \"$3 here\"");
    assert_int_equal(open_places("auto", "cpu", "3", "cuda: fake", false), 0);
    assert_true(places_on_cpu(places));
    assert_false(places_wait(places));
    assert_string_equal(places_setting(places), "cpu");
    assert_null(places_devices(places));
    assert_int_equal(places_gpus(places), 0);
    assert_true(places_attempt_memory(places) > 0);
    beat = told();
    assert_int_equal(beat.places, 3);
    assert_int_equal(beat.gpus, 0);
    assert_int_equal(beat.n_devices, 1);
    assert_string_equal(beat.devices[0].state, "aside");
    assert_string_equal(beat.devices[0].reason, "the driver does not answer");
    play_cuda("echo 'cuda: there'");
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb\n");
    wait_news();
    assert_false(places_on_cpu(places));
    assert_string_equal(places_setting(places), "auto");
    assert_string_equal(places_backend(places), "cuda: there");
    assert_non_null(places_devices(places));
    beat = wait_places(2);
    assert_int_equal(beat.gpus, 1);
    assert_string_equal(beat.devices[1].state, "free");
}

/* The management library answers, CUDA did not, and at first the one that asks hangs, too; in the
 * end there is nothing to be had of it. */
static void test_cuda_alone_hangs(void **state)
{
    (void)state;
    play("uuid=GPU-aaaa\n");
    play_cuda("exec sleep 1");
    assert_int_equal(open_places("auto", "wait", "1", "auto", true), 0);
    assert_true(places_wait(places));
    assert_int_equal(told().places, 0);
    assert_string_equal(told().devices[0].state, "aside");
    assert_non_null(strstr(told().devices[0].reason, "without_driver"));
    play_cuda("echo 'cpu: no device'");
    wait_news();
    assert_true(places_on_cpu(places));
    assert_string_equal(places_setting(places), "cpu");
    assert_int_equal(told().places, 1);
    assert_string_equal(told().devices[0].state, "aside");
    assert_non_null(strstr(told().devices[0].reason, "does not open"));
}

/* Who asked for CUDA gets nothing else; its places come with the driver. */
static void test_gpus_only(void **state)
{
    (void)state;
    play("uuid=GPU-aaaa hang=1\n");
    play_cuda("echo 'cuda: there'");
    assert_int_equal(open_places("cuda", "cpu", "2", "cuda", true), 0);
    assert_false(places_on_cpu(places));
    assert_true(places_wait(places));
    assert_int_equal(told().places, 0);
    assert_string_equal(told().devices[0].reason, "the driver does not answer");
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb\n");
    assert_int_equal(wait_places(2).gpus, 1);
    assert_string_equal(places_setting(places), "cuda");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_offer, tear_down),
        cmocka_unit_test_teardown(test_waits, tear_down),
        cmocka_unit_test_teardown(test_cpu_meanwhile, tear_down),
        cmocka_unit_test_teardown(test_cuda_alone_hangs, tear_down),
        cmocka_unit_test_teardown(test_gpus_only, tear_down),
    };
    int fd = mkstemp(state_path), failed;

    if (fd < 0 || !getenv("HA_NVML_LIBRARY") || !mkdtemp(folder))
        return 1;
    snprintf(program, sizeof program, "%s/program", folder);
    (void)close(fd);
    setenv("HA_FAKE_NVML", state_path, 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(state_path);
    ha_path_remove_tree(folder, NULL);
    return failed;
}
