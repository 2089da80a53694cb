/* Who is suspected: the worker, the job, or what all have in common. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "coordinator/core/suspect.h"

enum { JOBS = 3, GROUP = 7, NOW = 1000000 };

static struct ha_suspects suspects;
static struct ha_suspect_worker workers[8];
static int64_t count, picks[8];

static int set_up(void **state)
{
    (void)state;
    memset(&suspects, 0, sizeof suspects);
    for (int i = 0; i < 8; i++)
        workers[i] = (struct ha_suspect_worker){.id = i + 1, .takes_work = true};
    count = 4;
    return 0;
}

static void end_in(int64_t group, int64_t worker, int64_t job, bool good)
{
    ha_suspect_add(&suspects,
                   &(struct ha_suspect_end){
                       .worker = worker, .job = job, .group = group, .at_ms = NOW, .good = good});
}

static void end(int64_t worker, int64_t job, bool good)
{
    end_in(GROUP, worker, job, good);
}

static int64_t choose_at(int64_t now_ms)
{
    return ha_suspect_choose(&suspects, workers, count, JOBS, now_ms, picks, 8);
}

static int64_t choose(void)
{
    return choose_at(NOW);
}

static void different_jobs_in_a_row_count(void **state)
{
    (void)state;
    end(2, 10, false);
    end(2, 10, false);
    end(2, 11, false);
    end(1, 20, true);
    assert_int_equal(choose(), 0); /* two jobs */
    end(2, 12, false);
    assert_int_equal(choose(), 1);
    assert_int_equal(picks[0], 2);
    assert_int_equal(ha_suspect_failures(&suspects, 2, 10), 2);
    assert_int_equal(choose_at(NOW + HA_SUSPECT_MS + 1), 0);
    end(2, 13, true);
    assert_int_equal(choose(), 0); /* it can */
}

static void a_poison_job_is_to_blame_itself(void **state)
{
    (void)state;
    end(1, 20, true);
    end(3, 21, true);
    end(2, 10, false);
    end(1, 10, false);
    end(2, 11, false);
    end(3, 11, false);
    end(2, 12, false);
    end(2, 13, false);
    assert_int_equal(choose(), 0); /* 10 and 11 failed on workers that do good work */
    end(2, 14, false);
    assert_int_equal(choose(), 1);
}

static void two_bad_workers_do_not_excuse_each_other(void **state)
{
    (void)state;
    count = 8;
    end(3, 20, true);
    for (int64_t job = 10; job < 13; job++) {
        end(1, job, false);
        end(2, job, false);
    }
    assert_int_equal(choose(), 2);
    assert_int_equal(picks[0], 1);
    assert_int_equal(picks[1], 2);
}

static void a_sweep_that_fails_everywhere_is_to_blame(void **state)
{
    (void)state;
    end_in(5, 1, 30, true); /* of another sweep */
    for (int64_t job = 10; job < 14; job++)
        end(2, job, false);
    assert_int_equal(choose(), 1); /* nobody else has tried it */
    end(1, 14, false);
    assert_int_equal(choose(), 0);
    end(3, 15, true); /* but it can be done */
    assert_int_equal(choose(), 1);
}

static void only_some_are_set_aside(void **state)
{
    (void)state;
    end(4, 1, true);
    for (int64_t worker = 1; worker <= 2; worker++) {
        for (int64_t job = 10; job < 13; job++)
            end(worker, 100 * worker + job, false);
    }
    assert_int_equal(choose(), 0); /* two of four at once: not their fault */
    count = 8;
    assert_int_equal(choose(), 2);
    workers[6].aside = true;
    workers[6].takes_work = false;
    assert_int_equal(choose(), 0); /* one is already */
    workers[7].takes_work = false;
}

static void the_last_one_works_on(void **state)
{
    (void)state;
    for (int64_t job = 10; job < 14; job++)
        end(1, job, false);
    count = 1;
    assert_int_equal(choose(), 0);
    count = 2;
    assert_int_equal(choose(), 1);
    workers[1].takes_work = false;
    assert_int_equal(choose(), 0);
}

static void who_is_forgiven_begins_anew(void **state)
{
    (void)state;
    for (int64_t job = 10; job < 14; job++)
        end(2, job, false);
    ha_suspect_forgive(&suspects, 2);
    assert_int_equal(choose(), 0);
    end(2, 20, false);
    assert_int_equal(choose(), 0);
}

static void it_can_be_switched_off(void **state)
{
    (void)state;
    for (int64_t job = 10; job < 14; job++)
        end(2, job, false);
    assert_int_equal(ha_suspect_choose(&suspects, workers, count, 0, NOW, picks, 8), 0);
}

static void the_ring_forgets(void **state)
{
    (void)state;
    for (int64_t job = 10; job < 14; job++)
        end(2, job, false);
    for (int64_t i = 0; i < HA_SUSPECT_KEPT; i++)
        end(1, 1000 + i, true);
    assert_int_equal(choose(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup(name, set_up)
        TEST(different_jobs_in_a_row_count),
        TEST(a_poison_job_is_to_blame_itself),
        TEST(two_bad_workers_do_not_excuse_each_other),
        TEST(a_sweep_that_fails_everywhere_is_to_blame),
        TEST(only_some_are_set_aside),
        TEST(the_last_one_works_on),
        TEST(who_is_forgiven_begins_anew),
        TEST(it_can_be_switched_off),
        TEST(the_ring_forgets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
