/* Attempts on several workers make room, and have room made for them, on all of these at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "coordinator/core/preempt.h"

enum { MINUTE = 60000, ROOM = 8, MOST = 8 };

static const struct ha_fit two = {.gpus = 1, .nodes = 2}, three = {.gpus = 1, .nodes = 3},
                           alone = {.gpus = 1, .nodes = 1}, many = {.gpus = 4, .nodes = 2};

/* A small world: workers of one slot each, what runs on them, and one job that waits. */
struct world {
    struct ha_plan_worker workers[MOST];
    int64_t n_workers;
    struct ha_preempt_running running[MOST];
    int64_t n_running;
    struct ha_plan_job jobs[2];
    int64_t n_jobs;
    struct ha_preempt_stop stops[ROOM];
    int64_t wait_ms;
};

static void add_worker(struct world *w, int64_t island)
{
    w->workers[w->n_workers] = (struct ha_plan_worker){.id = 11 + w->n_workers,
                                                       .name = "w",
                                                       .liveness = HA_ALIVE,
                                                       .connected = true,
                                                       .slots = 1,
                                                       .used = 1,
                                                       .island = island,
                                                       .offer = {.gpus = 2}};
    w->n_workers++;
}

static void add_running(struct world *w, int64_t worker, const int64_t *others, int64_t count,
                        int64_t priority, int64_t minutes)
{
    w->running[w->n_running] = (struct ha_preempt_running){.job = 101 + w->n_running,
                                                           .worker = worker,
                                                           .others = others,
                                                           .other_count = count,
                                                           .priority = priority,
                                                           .ran_ms = minutes * MINUTE};
    w->n_running++;
}

static void add_job(struct world *w, const struct ha_fit *fit, int64_t priority)
{
    w->jobs[w->n_jobs] = (struct ha_plan_job){.id = 7 + w->n_jobs,
                                              .state = HA_JOB_READY,
                                              .kind = HA_STAGE_TRAIN,
                                              .fit = fit,
                                              .priority = priority,
                                              .reason = ""};
    w->n_jobs++;
}

static int64_t choose(struct world *w)
{
    struct ha_plan_snapshot s = {.workers = w->workers,
                                 .worker_count = w->n_workers,
                                 .jobs = w->jobs,
                                 .job_count = w->n_jobs};
    struct ha_preempt p = {.snapshot = &s,
                           .running = w->running,
                           .running_count = w->n_running,
                           .min_run_ms = 5 * MINUTE,
                           .now_ms = 1000};

    return ha_preempt_choose(&p, w->stops, ROOM, &w->wait_ms);
}

static int64_t victim(const struct world *w, int64_t stop)
{
    return w->running[w->stops[stop].victim].job;
}

/* Its second place is as good as its first; one that has only one place goes before it. */
static void every_place_of_a_gang_counts(void **state)
{
    static const int64_t others[] = {12, 13};
    struct world w = {.n_workers = 0};

    (void)state;
    for (int i = 0; i < 3; i++)
        add_worker(&w, 1);
    add_running(&w, 11, others, 2, 0, 30);
    add_job(&w, &alone, 1);
    w.workers[0].draining = true; /* its first worker takes no work */
    assert_int_equal(choose(&w), 1);
    assert_int_equal(victim(&w, 0), 101);
    /* It leaves two more places: a second job needs nobody to be stopped. */
    add_job(&w, &alone, 1);
    assert_int_equal(choose(&w), 0);

    w.n_running = w.n_jobs = 0;
    add_worker(&w, 1);
    add_running(&w, 11, others, 2, 0, 30);
    add_running(&w, 14, NULL, 0, 0, 90);
    add_job(&w, &alone, 1);
    assert_int_equal(choose(&w), 1);
    assert_int_equal(victim(&w, 0), 102);
}

static void a_gang_gets_room_on_several_workers(void **state)
{
    static const int64_t others[] = {15};
    struct world w = {.n_workers = 0};

    (void)state;
    for (int i = 0; i < 3; i++)
        add_worker(&w, 1);
    for (int i = 0; i < 2; i++)
        add_worker(&w, 2);
    for (int i = 0; i < 3; i++)
        add_running(&w, 11 + i, NULL, 0, 0, 10 + i);
    add_running(&w, 14, others, 1, 0, 60);
    add_job(&w, &two, 1);
    assert_int_equal(choose(&w), 1); /* one gang is stopped, rather than two attempts */
    assert_int_equal(victim(&w, 0), 104);
    assert_int_equal(w.stops[0].job, 7);
    assert_int_equal(choose(&w), 0); /* its places are on their way */

    w.jobs[0].fit = &three;
    w.running[3].stopping = false;
    assert_int_equal(choose(&w), 3); /* island 2 has two workers */
    for (int i = 0; i < 3; i++)
        assert_int_equal(victim(&w, i), 101 + i); /* the youngest first */
    assert_int_equal(choose(&w), 0);
}

/* What is free or leaving already counts; nobody is stopped where that would not be enough. */
static void all_or_nobody(void **state)
{
    struct world w = {.n_workers = 0};

    (void)state;
    for (int i = 0; i < 3; i++)
        add_worker(&w, 1);
    for (int i = 0; i < 3; i++)
        add_running(&w, 11 + i, NULL, 0, 0, 10 + i);
    add_job(&w, &three, 1);
    w.running[1].priority = 1; /* as urgent as the one that waits */
    assert_int_equal(choose(&w), 0);
    assert_int_equal(w.wait_ms, 0);
    w.running[1].priority = 0;
    w.running[1].ran_ms = 2 * MINUTE; /* too young: they are stopped together, later */
    assert_int_equal(choose(&w), 0);
    assert_int_equal(w.wait_ms, 3 * MINUTE);
    w.running[1].stopping = true;
    assert_int_equal(choose(&w), 2);
    for (int i = 0; i < 3; i++)
        w.running[i].stopping = false;
    w.workers[1].used = 0;
    assert_int_equal(choose(&w), 2);
    w.running[0].stopping = w.running[2].stopping = false;
    w.jobs[0].fit = &many; /* of which no worker here can run a part */
    assert_int_equal(choose(&w), 0);
}

/* Two attempts of one worker are one place for a gang. */
static void one_place_of_a_worker(void **state)
{
    struct world w = {.n_workers = 0};

    (void)state;
    for (int i = 0; i < 2; i++)
        add_worker(&w, 1);
    w.workers[0].slots = w.workers[0].used = 2;
    add_running(&w, 11, NULL, 0, 0, 10);
    add_running(&w, 11, NULL, 0, 0, 11);
    add_running(&w, 12, NULL, 0, 0, 12);
    add_job(&w, &two, 1);
    assert_int_equal(choose(&w), 2);
    assert_int_equal(victim(&w, 0), 101);
    assert_int_equal(victim(&w, 1), 103);
}

/* Jobs of one need ask as one: the places of the first are on their way to both. */
static void gangs_ask_as_one(void **state)
{
    struct world w = {.n_workers = 0};

    (void)state;
    for (int i = 0; i < 4; i++) {
        add_worker(&w, 1);
        add_running(&w, 11 + i, NULL, 0, 0, 10);
    }
    add_job(&w, &two, 1);
    add_job(&w, &two, 1);
    assert_int_equal(choose(&w), 2);
    assert_int_equal(choose(&w), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_place_of_a_gang_counts),
        cmocka_unit_test(a_gang_gets_room_on_several_workers),
        cmocka_unit_test(all_or_nobody),
        cmocka_unit_test(one_place_of_a_worker),
        cmocka_unit_test(gangs_ask_as_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
