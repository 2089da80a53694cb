/* Jobs that train on several workers at once: all or none, of one island, and never starved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/buffer.h"
#include "coordinator/core/plan.h"

enum { ROOM = 32 };

static const struct ha_fit two = {.gpus = 1, .nodes = 2}, three = {.gpus = 2, .nodes = 3},
                           alone = {.gpus = 1, .nodes = 1};

static struct ha_plan_worker worker(int64_t id, int64_t island, int64_t used)
{
    return (struct ha_plan_worker){.id = id,
                                   .name = "w",
                                   .liveness = HA_ALIVE,
                                   .connected = true,
                                   .slots = 1,
                                   .used = used,
                                   .island = island,
                                   .offer = {.gpus = 2}};
}

static struct ha_plan_job job(int64_t id, const struct ha_fit *fit)
{
    return (struct ha_plan_job){
        .id = id, .state = HA_JOB_READY, .kind = HA_STAGE_TRAIN, .fit = fit, .reason = ""};
}

static int64_t plan(const struct ha_plan_worker *workers, int64_t n_workers,
                    const struct ha_plan_job *jobs, int64_t n_jobs, struct ha_plan_assignment *out)
{
    struct ha_plan_snapshot s = {
        .workers = workers, .worker_count = n_workers, .jobs = jobs, .job_count = n_jobs};

    return ha_plan_make(&s, 1000, out, ROOM);
}

static void all_at_once(void **state)
{
    struct ha_plan_worker workers[] = {worker(1, 7, 0), worker(2, 7, 0), worker(3, 7, 0)};
    struct ha_plan_job jobs[] = {job(5, &two), job(6, &two)};
    struct ha_plan_assignment out[ROOM];

    (void)state;
    assert_int_equal(plan(workers, 3, jobs, 2, out), 2);
    assert_int_equal(out[0].job, 5);
    assert_int_equal(out[0].part, 0);
    assert_int_equal(out[1].job, 5);
    assert_int_equal(out[1].into, 5);
    assert_int_equal(out[1].part, 1);
    assert_true(out[0].worker != out[1].worker);
    jobs[0].fit = &three;
    assert_int_equal(plan(workers, 3, jobs, 2, out), 3);
    assert_int_equal(out[2].part, 2);
}

static void of_one_island(void **state)
{
    struct ha_plan_worker workers[] = {worker(1, 7, 0), worker(2, 8, 0), worker(3, 8, 0)};
    struct ha_plan_job jobs[] = {job(5, &two)};
    struct ha_plan_assignment out[ROOM];

    (void)state;
    assert_int_equal(plan(workers, 3, jobs, 1, out), 2);
    assert_true(out[0].worker >= 2 && out[1].worker >= 2);
    workers[2].island = 9;
    assert_int_equal(plan(workers, 3, jobs, 1, out), 0);
}

/* One slot of each worker, though one has several. */
static void never_twice_on_a_worker(void **state)
{
    struct ha_plan_worker workers[] = {worker(1, 7, 0), worker(2, 7, 1)};
    struct ha_plan_job jobs[] = {job(5, &two)};
    struct ha_plan_assignment out[ROOM];

    (void)state;
    workers[0].slots = 4;
    assert_int_equal(plan(workers, 2, jobs, 1, out), 0);
    workers[1].used = 0;
    assert_int_equal(plan(workers, 2, jobs, 1, out), 2);
}

/* What is free of the workers that the first gang waits for is kept for it; the rest is not. */
static void it_does_not_starve(void **state)
{
    struct ha_plan_worker workers[] = {worker(1, 7, 0), worker(2, 7, 1), worker(3, 8, 0)};
    struct ha_plan_job jobs[] = {job(5, &two), job(6, &two), job(7, &alone), job(8, &alone)};
    struct ha_plan_assignment out[ROOM];

    (void)state;
    assert_int_equal(plan(workers, 3, jobs, 4, out), 1);
    assert_int_equal(out[0].job, 7);
    assert_int_equal(out[0].worker, 3);
    workers[1].used = 0; /* now it has both */
    assert_int_equal(plan(workers, 3, jobs, 4, out), 3);
    assert_int_equal(out[0].job, 5);
    /* Nothing is kept where it could never run. */
    workers[1].draining = true;
    assert_int_equal(plan(workers, 3, jobs, 4, out), 2);
    assert_int_equal(out[0].job, 7);
    assert_int_equal(out[1].job, 8);
}

/* A gang is as many slots of its sweep's share as it has workers. */
static void its_share_counts_every_worker(void **state)
{
    struct ha_plan_worker workers[] = {worker(1, 7, 0), worker(2, 7, 0), worker(3, 7, 0),
                                       worker(4, 7, 0)};
    struct ha_plan_job jobs[] = {job(5, &two), job(6, &alone), job(7, &alone), job(8, &two)};
    struct ha_plan_assignment out[ROOM];

    (void)state;
    jobs[0].sweep = jobs[3].sweep = 1;
    jobs[1].sweep = jobs[2].sweep = 2;
    assert_int_equal(plan(workers, 4, jobs, 4, out), 4);
    for (int i = 0; i < 4; i++)
        assert_true(out[i].job != 8);
}

static void expect_why(const struct ha_plan_worker *workers, int64_t count, enum ha_why want,
                       const char *sentence)
{
    struct ha_plan_snapshot s = {.workers = workers, .worker_count = count};
    struct ha_plan_job waiting = job(5, &two);
    struct ha_buffer text;
    enum ha_why why;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_plan_why(&s, &waiting, 1000, &text, &why), 0);
    assert_string_equal(ha_buffer_text(&text), sentence);
    assert_int_equal(why, want);
    ha_buffer_clear(&text);
}

static void why_it_waits(void **state)
{
    struct ha_plan_worker workers[] = {worker(1, 7, 0), worker(2, 7, 1), worker(3, 8, 0)};

    (void)state;
    expect_why(workers, 3, HA_WHY_BUSY,
               "it needs 2 workers at once (resources.nodes); of 2 that fit 1 have a free slot, "
               "kept for the first such job");
    expect_why(workers, 1, HA_WHY_NEVER,
               "it needs 2 workers at once (resources.nodes), of GPUs of one kind, or CPUs of one "
               "machine; at most 1 fit");
    workers[1].used = 0;
    expect_why(workers, 3, HA_WHY_UNSEEN, "about to start");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_at_once),
        cmocka_unit_test(of_one_island),
        cmocka_unit_test(never_twice_on_a_worker),
        cmocka_unit_test(it_does_not_starve),
        cmocka_unit_test(its_share_counts_every_worker),
        cmocka_unit_test(why_it_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
