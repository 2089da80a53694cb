/* The devices of a worker over a fake management library that plays trouble. */
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
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/net/loop.h"
#include "common/proc/spawn.h"
#include "worker/daemon/devices.h"
#include "worker/daemon/orphan.h"

#include "play_nvml.h"

enum { WAIT_MS = 10000 };

static struct ha_loop *loop;
static struct ha_devices *devices;
static int64_t stuck_ms;
static int readings;

static void on_changed(void *context)
{
    (void)context;
    readings++;
}

static int open_devices(const char *visible, const struct ha_text_list *chosen,
                        struct ha_error *err)
{
    const struct ha_devices_options options = {.loop = loop,
                                               .visible = visible,
                                               .chosen = chosen,
                                               .rules = {.free_bytes = 1 << 30,
                                                         .release_ms = 60000,
                                                         .stale_ms = 60000,
                                                         .failures = 2,
                                                         .max_aside = 2},
                                               .poll_ms = 20,
                                               .anew_ms = 100,
                                               .answer_ms = 200,
                                               .stuck_ms = stuck_ms,
                                               .max_lost = 2,
                                               .mark = HA_ORPHAN_MARK "/this/test",
                                               .changed = on_changed};

    return ha_devices_create(&options, &devices, err);
}

/* Until a reading that began after this call is taken. */
static void wait_reading(void)
{
    int64_t end = ha_clock_boot_ms() + WAIT_MS;
    int from = readings;

    while (readings < from + 2 && ha_clock_boot_ms() < end)
        assert_int_equal(ha_loop_turn(loop, 1000, NULL), 0);
    assert_true(readings >= from + 2);
}

static const struct ha_device *device(int64_t i)
{
    int64_t n;
    const struct ha_device *list = ha_devices_list(devices, &n);

    assert_true(i < n);
    return &list[i];
}

static int set_up(void **state)
{
    (void)state;
    stuck_ms = 0;
    play("uuid=GPU-aaaa name=One total=8192 used=10 util=7 temp=55\n"
         "uuid=GPU-bbbb name=Two total=4096\n");
    return ha_loop_create(&loop, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    ha_devices_destroy(devices);
    devices = NULL;
    ha_loop_destroy(loop);
    return 0;
}

static void test_missing(void **state)
{
    char *library = strdup(getenv("HA_NVML_LIBRARY"));
    struct ha_error err = {0};

    (void)state;
    setenv("HA_NVML_LIBRARY", "/nowhere/libnvidia-ml.so.1", 1);
    assert_int_equal(open_devices(NULL, NULL, &err), -ENOENT);
    setenv("HA_NVML_LIBRARY", library, 1);
    free(library);
    play("init=18\n");
    assert_int_equal(open_devices(NULL, NULL, &err), -ENODEV);
    assert_non_null(strstr(err.text, "version mismatch"));
    play("");
    assert_int_equal(open_devices(NULL, NULL, &err), -ENODEV);
}

static void test_readings(void **state)
{
    int64_t n;

    (void)state;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    assert_int_equal(device(0)->state, HA_DEVICE_HELD);
    wait_reading();
    (void)ha_devices_list(devices, &n);
    assert_int_equal(n, 2);
    assert_string_equal(device(0)->reading.name, "One");
    assert_string_equal(device(0)->reading.uuid, "GPU-aaaa");
    assert_int_equal(device(0)->reading.memory_total_bytes, (int64_t)8192 << 20);
    assert_int_equal(device(0)->reading.memory_used_bytes, 10 << 20);
    assert_int_equal(device(0)->reading.utilisation_percent, 7);
    assert_int_equal(device(0)->reading.temperature_c, 55);
    assert_int_equal(device(1)->state, HA_DEVICE_FREE);
    assert_int_equal(ha_devices_memory_bytes(devices), (int64_t)4096 << 20);
    assert_int_equal(ha_devices_usable(devices), 2);
}

static void test_narrowed(void **state)
{
    char one[] = "1", cccc[] = "GPU-cccc", *second[] = {one}, *none[] = {cccc};
    struct ha_text_list list = {.items = second, .count = 1};
    struct ha_error err = {0};
    int64_t n;

    (void)state;
    assert_int_equal(open_devices("0", &list, &err), -ENODEV);
    assert_int_equal(open_devices("", NULL, &err), -ENODEV);
    assert_int_equal(open_devices("GPU-b", &list, &err), 0);
    (void)ha_devices_list(devices, &n);
    assert_int_equal(n, 1);
    assert_string_equal(device(0)->reading.uuid, "GPU-bbbb");
    ha_devices_destroy(devices);
    devices = NULL;
    list.items = none;
    assert_int_equal(open_devices(NULL, &list, &err), -EINVAL);
    assert_non_null(strstr(err.text, "GPU-cccc"));
}

static void test_trouble(void **state)
{
    (void)state;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    play("uuid=GPU-aaaa ecc=1\nuuid=GPU-bbbb xid=13 xids=1\n");
    wait_reading();
    assert_int_equal(device(0)->state, HA_DEVICE_ASIDE);
    assert_int_equal(device(1)->state, HA_DEVICE_FREE); /* a program's own mistake */
    play("uuid=GPU-aaaa lost=1\nuuid=GPU-bbbb xid=79 xids=2\n");
    wait_reading();
    assert_non_null(strstr(device(0)->reason, "GPU is lost"));
    assert_string_equal(device(0)->reading.uuid, "GPU-aaaa");
    assert_int_equal(device(1)->state, HA_DEVICE_ASIDE);
    assert_int_equal(ha_devices_usable(devices), 0);
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb xid=79 xids=2\n");
    wait_reading();
    assert_int_equal(device(0)->state, HA_DEVICE_ASIDE); /* the ECC error has been */
    ha_devices_accept(devices, ha_clock_boot_ms());
    assert_int_equal(ha_devices_usable(devices), 2);
}

static void test_instances(void **state)
{
    uint64_t claim;
    char *uuids = NULL;
    int64_t n;

    (void)state;
    play("uuid=GPU-aaaa mig=2 lost=0\nuuid=GPU-bbbb lost=1\n");
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    wait_reading();
    (void)ha_devices_list(devices, &n);
    assert_int_equal(n, 3);
    assert_true(device(0)->reading.is_mig && device(1)->reading.is_mig);
    assert_int_equal(device(0)->reading.utilisation_percent, -1);
    assert_int_equal(device(2)->state, HA_DEVICE_ASIDE); /* lost from the beginning */
    assert_int_equal(ha_devices_take(devices, 2, ha_clock_boot_ms(), &claim, &uuids, NULL), 0);
    assert_string_equal(uuids, "MIG-GPU-aaaa-0,MIG-GPU-aaaa-1");
    free(uuids);
    play("uuid=GPU-aaaa mig=2 xid=95 xids=1\nuuid=GPU-bbbb lost=1\n");
    wait_reading();
    assert_int_equal(device(0)->reading.xids, 0); /* that of the other instance */
    assert_int_equal(device(1)->reading.xids, 1);
}

static void test_taken(void **state)
{
    uint64_t first, second;
    char *uuids = NULL;
    struct ha_error err = {0};

    (void)state;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    wait_reading();
    assert_int_equal(ha_devices_take(devices, 1, ha_clock_boot_ms(), &first, &uuids, NULL), 0);
    assert_string_equal(uuids, "GPU-aaaa");
    free(uuids);
    assert_int_equal(ha_devices_take(devices, 2, ha_clock_boot_ms(), &second, &uuids, &err),
                     -EAGAIN);
    play("uuid=GPU-aaaa used=2000\nuuid=GPU-bbbb\n");
    ha_devices_release(devices, first, 1, true, false, ha_clock_boot_ms());
    wait_reading();
    assert_int_equal(device(0)->state, HA_DEVICE_HELD);
    assert_int_equal(ha_devices_take(devices, 2, ha_clock_boot_ms(), &second, &uuids, &err),
                     -EAGAIN);
    assert_non_null(strstr(err.text, "2.0 GiB of its memory"));
    play("uuid=GPU-aaaa used=2\nuuid=GPU-bbbb\n");
    wait_reading();
    assert_int_equal(ha_devices_take(devices, 2, ha_clock_boot_ms(), &second, &uuids, &err), 0);
    assert_string_equal(uuids, "GPU-aaaa,GPU-bbbb");
    free(uuids);
}

static void expect_uuids(const char *first, const char *second, const char *third)
{
    const char *const wanted[] = {first, second, third};
    int64_t end = ha_clock_boot_ms() + WAIT_MS, n;
    const struct ha_device *list;
    bool same;

    do {
        wait_reading();
        list = ha_devices_list(devices, &n);
        same = n == (first != NULL) + (second != NULL) + (third != NULL);
        for (int64_t i = 0; same && i < n; i++)
            same = strcmp(list[i].reading.uuid, wanted[i]) == 0;
    } while (!same && ha_clock_boot_ms() < end);
    assert_true(same);
}

/* A GPU is split, split otherwise and joined while its neighbour computes. */
static void test_split_meanwhile(void **state)
{
    uint64_t claim;
    char *uuids = NULL;

    (void)state;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    wait_reading();
    assert_int_equal(ha_devices_take(devices, 1, ha_clock_boot_ms(), &claim, &uuids, NULL), 0);
    free(uuids);
    play("uuid=GPU-aaaa used=4000\nuuid=GPU-bbbb mig=2\n");
    expect_uuids("GPU-aaaa", "MIG-GPU-bbbb-0", "MIG-GPU-bbbb-1");
    assert_int_equal(device(0)->state, HA_DEVICE_BUSY);
    assert_int_equal(device(1)->state, HA_DEVICE_FREE);
    assert_int_equal(ha_devices_usable(devices), 3);
    play("uuid=GPU-aaaa used=4000\nuuid=GPU-bbbb mig=1\n");
    expect_uuids("GPU-aaaa", "MIG-GPU-bbbb-0", NULL);
    ha_devices_release(devices, claim, 1, true, false, ha_clock_boot_ms());
    assert_int_equal(ha_devices_take(devices, 1, ha_clock_boot_ms(), &claim, &uuids, NULL), 0);
    assert_string_equal(uuids, "MIG-GPU-bbbb-0");
    free(uuids);
    /* What runs on a part that goes keeps it until its end. */
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb\n");
    expect_uuids("GPU-aaaa", "MIG-GPU-bbbb-0", "GPU-bbbb");
    assert_int_equal(device(1)->state, HA_DEVICE_BUSY);
    ha_devices_release(devices, claim, 2, true, false, ha_clock_boot_ms());
    expect_uuids("GPU-aaaa", "GPU-bbbb", NULL);
    assert_int_equal(ha_devices_usable(devices), 2);
}

/* A GPU falls off the bus and comes back; another is plugged in. */
static void test_appears(void **state)
{
    (void)state;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    play("uuid=GPU-aaaa\n");
    do
        wait_reading();
    while (device(1)->state != HA_DEVICE_ASIDE || !strstr(device(1)->reason, "not there any more"));
    assert_int_equal(device(0)->state, HA_DEVICE_FREE);
    play("uuid=GPU-aaaa xid=79 xids=1\nuuid=GPU-bbbb\nuuid=GPU-cccc\n");
    expect_uuids("GPU-aaaa", "GPU-bbbb", "GPU-cccc");
    wait_reading();
    assert_int_equal(device(1)->state, HA_DEVICE_FREE);
    assert_int_equal(device(2)->state, HA_DEVICE_FREE);
    play("init=18\n"); /* the driver is taken out, and put in again */
    do
        wait_reading();
    while (!strstr(device(2)->reason, "version mismatch"));
    assert_int_equal(device(2)->state, HA_DEVICE_ASIDE);
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb\nuuid=GPU-cccc\n");
    do
        wait_reading();
    while (device(2)->state != HA_DEVICE_FREE);
}

/* Only the GPUs that the settings take are added. */
static void test_appears_narrowed(void **state)
{
    char one[] = "GPU-bbbb", *items[] = {one};
    const struct ha_text_list list = {.items = items, .count = 1};

    (void)state;
    assert_int_equal(open_devices(NULL, &list, NULL), 0);
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb mig=2\nuuid=GPU-cccc\n");
    expect_uuids("MIG-GPU-bbbb-0", "MIG-GPU-bbbb-1", NULL);
    for (int i = 0; i < 8; i++)
        wait_reading();
    expect_uuids("MIG-GPU-bbbb-0", "MIG-GPU-bbbb-1", NULL);
}

/* A driver that hangs holds nobody up; its GPUs are there when it answers. */
static void test_hangs(void **state)
{
    int64_t begin = ha_clock_boot_ms(), since, n;
    struct ha_error err = {0};

    (void)state;
    play("uuid=GPU-aaaa hang=1\n");
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    assert_true(ha_clock_boot_ms() - begin < 5000);
    (void)ha_devices_list(devices, &n);
    assert_int_equal(n, 0);
    assert_string_equal(ha_devices_silence(devices, &since), "the driver does not answer");
    assert_true(since >= begin);
    assert_int_equal(ha_devices_take(devices, 1, 0, &(uint64_t){0}, &(char *){NULL}, &err),
                     -EAGAIN);
    play("init=18\n"); /* it says at last that it does not work, */
    wait_reading();
    assert_non_null(strstr(ha_devices_silence(devices, &since), "version mismatch"));
    play("uuid=GPU-aaaa\n"); /* and then it does */
    expect_uuids("GPU-aaaa", NULL, NULL);
    assert_null(ha_devices_silence(devices, &since));
    assert_int_equal(ha_devices_usable(devices), 1);
}

static void wait_lost(int64_t n)
{
    int64_t end = ha_clock_boot_ms() + WAIT_MS;

    while (ha_devices_lost(devices) != n && ha_clock_boot_ms() < end)
        assert_int_equal(ha_loop_turn(loop, 1000, NULL), 0);
    assert_int_equal(ha_devices_lost(devices), n);
}

/* A call that never returns: another thread asks, and the driver that works again is seen. */
static void test_stuck(void **state)
{
    (void)state;
    stuck_ms = 250;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    wait_reading();
    play("uuid=GPU-aaaa xid=79 xids=1\nuuid=GPU-bbbb\n");
    wait_reading();
    ha_devices_accept(devices, ha_clock_boot_ms());
    assert_int_equal(device(0)->reading.xids, 1);
    assert_int_equal(ha_devices_usable(devices), 2);
    play("uuid=GPU-aaaa xid=79 xids=1 stuck=1\nuuid=GPU-bbbb used=2000\n");
    wait_lost(1);
    wait_reading();
    assert_int_equal(device(0)->state, HA_DEVICE_FREE);
    assert_int_equal(device(1)->state, HA_DEVICE_HELD);
    play("uuid=GPU-aaaa xid=74 xids=2 stuck=1\nuuid=GPU-bbbb\n");
    wait_reading(); /* what was accepted is not what is new */
    assert_int_equal(device(0)->reading.xids, 2);
    assert_non_null(strstr(device(0)->reason, "XID 74"));
    assert_int_equal(device(0)->state, HA_DEVICE_ASIDE);
    assert_int_equal(device(1)->state, HA_DEVICE_FREE);
    assert_int_equal(ha_devices_lost(devices), 1);
    play("uuid=GPU-aaaa xids=2\nuuid=GPU-bbbb\n"); /* and at last it returns */
    wait_lost(0);
    wait_reading();
    assert_int_equal(device(1)->state, HA_DEVICE_FREE);
}

/* At the start as well, and no more threads than may be. */
static void test_stuck_for_ever(void **state)
{
    int64_t since, end;

    (void)state;
    stuck_ms = 20;
    play("uuid=GPU-aaaa hang=1\n");
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    assert_non_null(ha_devices_silence(devices, &since));
    wait_lost(2);
    for (end = ha_clock_boot_ms() + 200; ha_clock_boot_ms() < end;)
        assert_int_equal(ha_loop_turn(loop, 50, NULL), 0);
    assert_int_equal(ha_devices_lost(devices), 2);
    play("uuid=GPU-aaaa\n");
    expect_uuids("GPU-aaaa", NULL, NULL);
    wait_lost(0);
    assert_null(ha_devices_silence(devices, &since));
    play("uuid=GPU-aaaa used=2000 stuck=1\n"); /* now there may be some again */
    wait_lost(1);
    play("uuid=GPU-aaaa\n");
    wait_lost(0);
}

/* The driver hung, and is not there any more when another thread asks. */
static void test_stuck_and_gone(void **state)
{
    (void)state;
    stuck_ms = 60;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    wait_reading();
    play("init=18 stuck=1\n");
    wait_lost(1);
    wait_reading();
    assert_int_equal(device(0)->state, HA_DEVICE_ASIDE);
    assert_non_null(strstr(device(0)->reason, "version mismatch"));
    play("uuid=GPU-aaaa\nuuid=GPU-bbbb\n");
    wait_lost(0);
    wait_reading();
    assert_int_equal(ha_devices_usable(devices), 2);
}

static struct ha_child start_sleeper(const char *mark)
{
    const char *arguments[] = {"sleep", "60", NULL};
    const char *environment[] = {mark, NULL};
    const struct ha_spawn_options options = {.program = "/bin/sleep",
                                             .arguments = arguments,
                                             .environment = environment,
                                             .own_group = true,
                                             .death_signal = SIGKILL};
    struct ha_child child;

    assert_int_equal(ha_child_spawn(&options, &child, NULL), 0);
    return child;
}

/* What an attempt left behind is killed, and nobody else who holds a device. */
static void test_orphan(void **state)
{
    struct ha_child ours, other;
    char text[160];
    int status = 0;
    uint64_t claim;
    char *uuids = NULL;

    (void)state;
    assert_int_equal(open_devices(NULL, NULL, NULL), 0);
    wait_reading();
    assert_int_equal(ha_devices_take(devices, 1, ha_clock_boot_ms(), &claim, &uuids, NULL), 0);
    free(uuids);
    ours = start_sleeper(HA_ORPHAN_MARK "/this/test");
    other = start_sleeper(HA_ORPHAN_MARK "/this/test2");
    snprintf(text, sizeof text, "uuid=GPU-aaaa used=2000 pids=%d,%d\nuuid=GPU-bbbb pids=%d\n",
             (int)ours.pid, (int)other.pid, (int)other.pid);
    play(text);
    wait_reading();
    assert_false(ha_child_poll(&ours, &status)); /* its attempt runs */
    ha_devices_release(devices, claim, 1, true, false, ha_clock_boot_ms());
    wait_reading();
    assert_int_equal(waitpid(ours.pid, &status, 0), ours.pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_false(ha_child_poll(&other, &status));
    assert_int_equal(device(0)->state, HA_DEVICE_HELD);
    (void)ha_child_stop(&other, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_readings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_narrowed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_trouble, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_instances, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_orphan, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_split_meanwhile, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_appears, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_appears_narrowed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hangs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stuck, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stuck_for_ever, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stuck_and_gone, set_up, tear_down),
    };
    int fd = mkstemp(state_path), failed;

    if (fd < 0 || !getenv("HA_NVML_LIBRARY"))
        return 1;
    (void)close(fd);
    setenv("HA_FAKE_NVML", state_path, 1);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(state_path);
    return failed;
}
