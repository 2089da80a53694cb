#include "tests/unit/kernels/support.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/pool.h"

enum { ITEMS = 500 };

struct tally {
    _Atomic int times[ITEMS];
    _Atomic int threads[8];
    int values[ITEMS]; /* plain memory: must be there after the run */
    bool sleep;
};

static void count(void *context, int64_t item, int thread)
{
    struct tally *tally = context;

    atomic_fetch_add(&tally->times[item], 1);
    atomic_fetch_add(&tally->threads[thread], 1);
    tally->values[item] += (int)item;
    if (tally->sleep && item % 7 == 0)
        nanosleep(&(struct timespec){0, 200000}, NULL);
}

/* Every item once per run, over many runs of every size, with pauses long enough for
 * threads to fall asleep on both sides. */
static void every_item_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        static struct tally tally;
        struct ha_pool *pool = NULL;
        int runs[ITEMS] = {0};

        memset(&tally, 0, sizeof(tally));
        assert_ok(ha_pool_create(threads, &pool, &err));
        for (int run = 0; run < 400; run++) {
            int n = run * run % ITEMS;

            tally.sleep = run % 100 == 7;
            ha_pool_run(pool, count, &tally, n);
            for (int i = 0; i < n; i++)
                runs[i]++;
            if (run % 50 == 0)
                nanosleep(&(struct timespec){0, 500000}, NULL);
        }
        for (int i = 0; i < ITEMS; i++) {
            assert_int_equal(atomic_load(&tally.times[i]), runs[i]);
            assert_int_equal(tally.values[i], runs[i] * i);
        }
        for (int i = threads; i < 8; i++)
            assert_int_equal(atomic_load(&tally.threads[i]), 0);
        ha_pool_destroy(pool);
    }
    ha_pool_destroy(NULL);
}

struct meeting {
    _Atomic int arrived;
};

static void wait_for_all(void *context, int64_t item, int thread)
{
    struct meeting *meeting = context;

    (void)item;
    (void)thread;
    atomic_fetch_add(&meeting->arrived, 1);
    while (atomic_load(&meeting->arrived) < 3)
        sched_yield();
}

/* Three items that wait for each other end only if three threads work at once. */
static void threads_work_at_once(void **state)
{
    struct ha_pool *pool = NULL;

    (void)state;
    assert_ok(ha_pool_create(3, &pool, &err));
    for (int run = 0; run < 20; run++) {
        struct meeting meeting = {0};

        ha_pool_run(pool, wait_for_all, &meeting, 3);
        assert_int_equal(atomic_load(&meeting.arrived), 3);
    }
    ha_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once),
        cmocka_unit_test(threads_work_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
