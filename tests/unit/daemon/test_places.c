/* What a worker offers of its GPUs, also while their driver hangs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/conf/daemon.h"
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
static struct daemon_options options = {.program = "/no/program"};

static int open_places(const char *backend, const char *slots, const char *description, bool silent)
{
    char choice[32], count[32];
    const char *overrides[] = {choice, count, "work_dir=/tmp", "driver_answer=1s"};

    snprintf(choice, sizeof choice, "backend=%s", backend);
    snprintf(count, sizeof count, "slots=%s", slots);
    assert_int_equal(ha_worker_config_load(NULL, overrides, 4, &config, NULL), 0);
    assert_int_equal(ha_loop_create(&loop, NULL), 0);
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
    assert_int_equal(open_places("auto", "2", "cuda: fake", false), 0);
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

static void test_cpu_goes_on(void **state)
{
    struct ha_wire_heartbeat beat;

    (void)state;
    play("uuid=GPU-aaaa hang=1\n");
    assert_int_equal(open_places("auto", "3", "cuda: fake", false), 0);
    assert_true(places_on_cpu(places));
    assert_string_equal(places_backend(places), "cpu");
    assert_string_equal(places_setting(places), "cpu");
    assert_null(places_devices(places));
    assert_int_equal(places_gpus(places), 0);
    beat = told();
    assert_int_equal(beat.places, 3);
    assert_int_equal(beat.gpus, 0);
    assert_int_equal(beat.n_devices, 1);
    assert_string_equal(beat.devices[0].state, "aside");
    assert_string_equal(beat.devices[0].reason, "the driver does not answer");
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb\n");
    while (beat.n_devices != 2) {
        assert_int_equal(ha_loop_turn(loop, 1000, NULL), 0);
        beat = told();
    }
    assert_int_equal(beat.places, 3);
    assert_string_equal(beat.devices[1].state, "aside");
    assert_non_null(strstr(beat.devices[1].reason, "start it anew"));
}

/* The management library answers, CUDA did not. */
static void test_cuda_alone_hangs(void **state)
{
    (void)state;
    play("uuid=GPU-aaaa\n");
    assert_int_equal(open_places("auto", "1", "auto", true), 0);
    assert_true(places_on_cpu(places));
    assert_int_equal(told().places, 1);
    assert_string_equal(told().devices[0].state, "aside");
}

/* Who asked for CUDA gets nothing else; its places come with the driver. */
static void test_gpus_only(void **state)
{
    (void)state;
    play("uuid=GPU-aaaa hang=1\n");
    assert_int_equal(open_places("cuda", "2", "cuda", true), 0);
    assert_false(places_on_cpu(places));
    assert_int_equal(told().places, 0);
    assert_string_equal(told().devices[0].reason, "the driver does not answer");
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb\n");
    assert_int_equal(wait_places(2).gpus, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_offer, tear_down),
        cmocka_unit_test_teardown(test_cpu_goes_on, tear_down),
        cmocka_unit_test_teardown(test_cuda_alone_hangs, tear_down),
        cmocka_unit_test_teardown(test_gpus_only, tear_down),
    };
    int fd = mkstemp(state_path), failed;

    if (fd < 0 || !getenv("HA_NVML_LIBRARY"))
        return 1;
    (void)close(fd);
    setenv("HA_FAKE_NVML", state_path, 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(state_path);
    return failed;
}
