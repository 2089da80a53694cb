/* Which GPUs may be given to attempts, from readings and events alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "worker/daemon/device_policy.h"

enum { N = 3, MIB = 1 << 20 };

static const struct ha_device_rules rules = {
    .free_bytes = 100 * MIB, .release_ms = 1000, .stale_ms = 5000, .failures = 2, .max_aside = 1};

static struct ha_device devices[N];

static void read_at(int64_t now_ms)
{
    for (int i = 0; i < N; i++)
        devices[i].read_ms = now_ms;
}

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        ha_device_init(&devices[i]);
        devices[i].reading = (struct ha_device_reading){.index = i, .memory_used_bytes = 50 * MIB};
        snprintf(devices[i].reading.uuid, sizeof devices[i].reading.uuid, "GPU-%d%d%d", i, i, i);
        memcpy(devices[i].reading.gpu_uuid, devices[i].reading.uuid, HA_DEVICE_NAME_BYTES);
    }
    return 0;
}

static void judge(int64_t now_ms)
{
    ha_device_judge(devices, N, &rules, now_ms);
}

static void test_memory(void **state)
{
    (void)state;
    judge(10);
    assert_int_equal(devices[0].state, HA_DEVICE_HELD); /* nothing was read yet */
    read_at(10);
    devices[1].reading.memory_used_bytes = 101 * MIB;
    devices[1].reading.n_pids = 1;
    devices[1].reading.pids[0] = 4711;
    judge(10);
    assert_int_equal(devices[0].state, HA_DEVICE_FREE);
    assert_int_equal(devices[1].state, HA_DEVICE_HELD);
    assert_non_null(strstr(devices[1].reason, "4711"));
    /* An attempt ends: a reading from before says nothing. */
    ha_device_begin(&devices[0]);
    judge(20);
    assert_int_equal(devices[0].state, HA_DEVICE_BUSY);
    ha_device_end(&devices[0], 1, true, false, 30);
    judge(31);
    assert_int_equal(devices[0].state, HA_DEVICE_HELD);
    read_at(32);
    devices[0].reading.memory_used_bytes = 200 * MIB;
    judge(1029);
    assert_int_equal(devices[0].state, HA_DEVICE_HELD);
    judge(1030);
    assert_int_equal(devices[0].state, HA_DEVICE_ASIDE);
    devices[0].reading.memory_used_bytes = 100 * MIB;
    judge(1031);
    assert_int_equal(devices[0].state, HA_DEVICE_FREE); /* healthy again */
    judge(5033);
    assert_int_equal(devices[0].state, HA_DEVICE_ASIDE); /* no reading for too long */
    assert_non_null(strstr(devices[0].reason, "not answered"));
}

static void test_trouble(void **state)
{
    (void)state;
    read_at(1);
    devices[0].reading.ecc_uncorrected = 1;
    judge(1);
    assert_int_equal(devices[0].state, HA_DEVICE_ASIDE);
    assert_non_null(strstr(devices[0].reason, "ECC"));
    /* The cap: one is away already. */
    devices[1].reading.xids = 1;
    devices[1].reading.last_xid = 79;
    judge(2);
    assert_int_equal(devices[1].state, HA_DEVICE_FREE);
    assert_non_null(strstr(devices[1].reason, "XID 79"));
    /* A device that cannot be read can in no case be used. */
    snprintf(devices[2].reading.trouble, sizeof devices[2].reading.trouble, "GPU is lost");
    judge(3);
    assert_int_equal(devices[2].state, HA_DEVICE_ASIDE);
    devices[2].reading.trouble[0] = '\0';
    judge(4);
    assert_int_equal(devices[2].state, HA_DEVICE_FREE);
    /* The operator's word stands until there is a new error. */
    ha_device_accept(&devices[0]);
    judge(5);
    assert_int_equal(devices[0].state, HA_DEVICE_FREE);
    assert_int_equal(devices[1].state, HA_DEVICE_ASIDE); /* its turn now */
    ha_device_accept(&devices[1]);
    ha_device_accept(&devices[1]);
    ha_device_accept(&devices[2]);
    judge(5);
    assert_int_equal(devices[2].state, HA_DEVICE_FREE);
    devices[0].reading.ecc_uncorrected = 2;
    judge(6);
    assert_int_equal(devices[0].state, HA_DEVICE_ASIDE);
}

/* A check that fails takes a device away as long as the cap allows it. */
static void test_condemned(void **state)
{
    static const struct {
        int64_t max_aside;
        int suspected; /* for another reason, devices[0] onwards */
        int at;        /* whose check failed */
        bool taken;
    } rows[] = {{0, 0, 1, false}, {1, 0, 1, true},  {1, 1, 1, false}, {1, 1, 0, true},
                {2, 1, 2, true},  {2, 2, 2, false}, {3, 2, 2, true},  {3, 3, 2, true}};

    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        struct ha_device_rules own = rules;

        own.max_aside = rows[k].max_aside;
        set_up(state);
        read_at(1);
        for (int i = 0; i < rows[k].suspected; i++)
            devices[i].reading.xids = devices[i].reading.last_xid = 79;
        ha_device_judge(devices, N, &own, 1);
        assert_int_equal(ha_device_condemn(devices, N, rows[k].at, &own, "no result"),
                         rows[k].taken);
        ha_device_judge(devices, N, &own, 2);
        assert_int_equal(devices[rows[k].at].state,
                         rows[k].taken ? HA_DEVICE_ASIDE : HA_DEVICE_FREE);
        assert_int_equal(devices[rows[k].at].since_ms, rows[k].at < rows[k].suspected ? 1
                                                       : rows[k].taken                ? 2
                                                                                      : 1);
        ha_device_accept(&devices[rows[k].at]);
        ha_device_judge(devices, N, &own, 3);
        assert_int_equal(devices[rows[k].at].state, HA_DEVICE_FREE);
    }
}

static void end_job(struct ha_device *device, uint64_t job, bool failed, int64_t now_ms)
{
    ha_device_begin(device);
    ha_device_end(device, job, true, failed, now_ms);
    read_at(now_ms + 1);
    judge(now_ms + 1);
}

static void test_poison(void **state)
{
    (void)state;
    /* A poison job fails again and again: that is the job. */
    end_job(&devices[1], 1, false, 1);
    for (int i = 0; i < 5; i++)
        end_job(&devices[0], 7, true, 10 + i);
    end_job(&devices[1], 2, false, 20);
    assert_int_equal(devices[0].state, HA_DEVICE_FREE);
    end_job(&devices[0], 8, false, 30);
    end_job(&devices[0], 9, true, 40);
    /* A stopped or refused attempt says nothing either way. */
    ha_device_end(&devices[0], 10, false, true, 50);
    end_job(&devices[0], 11, true, 60);
    /* So far nothing has gone well elsewhere since: it may be what these jobs have in common. */
    assert_int_equal(devices[0].state, HA_DEVICE_FREE);
    end_job(&devices[1], 12, true, 70);
    assert_int_equal(devices[0].state, HA_DEVICE_FREE);
    end_job(&devices[1], 13, false, 80);
    assert_int_equal(devices[0].state, HA_DEVICE_ASIDE);
    assert_non_null(strstr(devices[0].reason, "job 11"));
    ha_device_accept(&devices[0]);
    judge(81);
    assert_int_equal(devices[0].state, HA_DEVICE_FREE);
}

static void test_select(void **state)
{
    bool selected[N];
    int64_t bad;

    (void)state;
    ha_device_select(
        (struct ha_device_reading[]){devices[0].reading, devices[1].reading, devices[2].reading}, N,
        "2, GPU-00", selected, &bad);
    assert_true(selected[0] && !selected[1] && selected[2]);
    assert_int_equal(bad, -1);
    ha_device_select(
        (struct ha_device_reading[]){devices[0].reading, devices[1].reading, devices[2].reading}, N,
        "1,7,0", selected, &bad);
    assert_true(!selected[0] && selected[1] && !selected[2]);
    assert_int_equal(bad, 1);
    for (const char *const *list =
             (const char *const[]){"", "-1", "GPU-", "NoDevFiles", "0x", NULL};
         *list; list++) {
        ha_device_select(&devices[0].reading, 1, *list, selected, &bad);
        assert_false(selected[0]);
        assert_int_equal(bad, 0);
    }
    ha_device_select(&devices[0].reading, 1, "all", selected, NULL);
    assert_true(selected[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_memory, set_up), cmocka_unit_test_setup(test_trouble, set_up),
        cmocka_unit_test_setup(test_condemned, set_up), cmocka_unit_test_setup(test_poison, set_up),
        cmocka_unit_test_setup(test_select, set_up)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
