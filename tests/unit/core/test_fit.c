/* What an attempt needs and a worker offers; fair shares; who makes room for whom; why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/buffer.h"
#include "coordinator/core/plan.h"
#include "coordinator/core/preempt.h"

#define GIB (INT64_C(1) << 30)

static struct ha_plan_worker worker(int64_t id, const char *name, int64_t slots, int64_t used)
{
    return (struct ha_plan_worker){.id = id,
                                   .name = name,
                                   .liveness = HA_ALIVE,
                                   .connected = true,
                                   .slots = slots,
                                   .used = used,
                                   .offer = {.labels = "fast\nlocal\n",
                                             .cpus = 4,
                                             .memory_bytes = 16 * GIB,
                                             .gpus = 1,
                                             .gpu_memory_bytes = 80 * GIB}};
}

static struct ha_plan_job job(int64_t id, int64_t sweep, int64_t priority)
{
    return (struct ha_plan_job){.id = id,
                                .sweep = sweep,
                                .priority = priority,
                                .state = HA_JOB_READY,
                                .kind = HA_STAGE_TRAIN,
                                .model = 1,
                                .reason = ""};
}

static void expect_lack(struct ha_fit need, const char *words)
{
    struct ha_plan_worker w = worker(1, "a", 1, 0);
    struct ha_buffer text;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_fit(&need, &w.offer), words[0] == '\0');
    assert_int_equal(ha_fit_lack(&need, &w.offer, &text), 0);
    assert_string_equal(ha_buffer_text(&text), words);
    ha_buffer_clear(&text);
}

static void needs_are_matched(void **state)
{
    struct ha_plan_worker w = worker(1, "a", 1, 0);

    (void)state;
    assert_true(ha_fit(NULL, &w.offer));
    expect_lack((struct ha_fit){.labels = ""}, "");
    expect_lack((struct ha_fit){.labels = "local\nfast\n", .cpus = 4}, "");
    expect_lack((struct ha_fit){.labels = "fast\nfas\n"}, "has no label fas");
    expect_lack((struct ha_fit){.labels = "fastest\n"}, "has no label fastest");
    expect_lack((struct ha_fit){.cpus = 5}, "offers 4 of 5 cpus");
    expect_lack((struct ha_fit){.gpus = 2}, "offers 1 of 2 GPUs");
    expect_lack((struct ha_fit){.memory_bytes = 32 * GIB}, "offers 16.0 of 32.0 GiB of memory");
    expect_lack((struct ha_fit){.gpu_memory_bytes = 81 * GIB},
                "offers 80.0 of 81.0 GiB of GPU memory");
}

static int64_t make(const struct ha_plan_snapshot *s, struct ha_plan_assignment *out)
{
    return ha_plan_make(s, 1000, out, 16);
}

static void jobs_go_where_they_fit(void **state)
{
    static const struct ha_fit big = {.cpus = 8}, huge = {.labels = "a100\n"};
    struct ha_plan_worker workers[] = {worker(1, "a", 2, 0), worker(2, "b", 1, 0)};
    struct ha_plan_job jobs[] = {job(5, 1, 0), job(6, 1, 0), job(7, 2, 0), job(8, 3, 0)};
    struct ha_plan_snapshot s = {
        .workers = workers, .worker_count = 2, .jobs = jobs, .job_count = 4};
    struct ha_plan_assignment out[16];

    (void)state;
    workers[1].offer.cpus = 8;
    jobs[0].fit = jobs[1].fit = &big;
    jobs[2].fit = &huge;
    assert_int_equal(make(&s, out), 2);
    assert_int_equal(out[0].job, 5);
    assert_int_equal(out[0].worker, 2);
    assert_int_equal(out[1].job, 8); /* what fits nowhere holds nobody up */
    assert_int_equal(out[1].worker, 1);
}

static void sweeps_share_fairly(void **state)
{
    struct ha_plan_worker w = worker(1, "a", 4, 0);
    struct ha_plan_job jobs[] = {job(1, 1, 0), job(2, 1, 0), job(3, 1, 0), job(4, 1, 0),
                                 job(5, 2, 0), job(6, 2, 0), job(7, 2, 0)};
    struct ha_plan_share shares[] = {{.sweep = 1, .used = 1}};
    struct ha_plan_snapshot s = {.workers = &w,
                                 .worker_count = 1,
                                 .jobs = jobs,
                                 .job_count = 7,
                                 .shares = shares,
                                 .share_count = 1};
    struct ha_plan_assignment out[16];
    int first = 0;

    (void)state;
    assert_int_equal(make(&s, out), 4);
    for (int i = 0; i < 4; i++)
        first += out[i].job <= 4;
    /* 1 + 2 slots and 2: the sweep that has one already is behind by one. */
    assert_int_equal(first, 2);
    shares[0].used = 3;
    assert_int_equal(make(&s, out), 4);
    first = 0;
    for (int i = 0; i < 4; i++)
        first += out[i].job <= 4;
    assert_int_equal(first, 1);
    for (int i = 4; i < 7; i++)
        jobs[i].priority = -1; /* priority comes before fairness */
    assert_int_equal(make(&s, out), 4);
    assert_int_equal(out[3].job, 4);
}

static void expect_why(const struct ha_plan_snapshot *s, const struct ha_plan_job *j,
                       enum ha_why category, const char *evidence)
{
    struct ha_buffer text;
    enum ha_why why;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_plan_why(s, j, 1000, &text, &why), 0);
    assert_string_equal(ha_buffer_text(&text), evidence);
    assert_string_equal(ha_why_name(why), ha_why_name(category));
    ha_buffer_clear(&text);
}

static void reasons_have_categories(void **state)
{
    static const struct ha_fit need = {.labels = "a100\n"};
    struct ha_plan_worker workers[] = {worker(1, "a", 2, 2), worker(2, "b", 1, 0)};
    struct ha_plan_snapshot s = {.workers = workers, .worker_count = 2};
    struct ha_plan_job j = job(5, 1, 0);

    (void)state;
    expect_why(&s, &j, HA_WHY_UNSEEN, "about to start");
    j.expanding = true;
    expect_why(&s, &j, HA_WHY_UNSEEN, "its grid is still being expanded");
    j.expanding = false;
    workers[1].used = 1;
    expect_why(&s, &j, HA_WHY_BUSY, "all 3 slots are busy");
    j.fit = &need;
    expect_why(&s, &j, HA_WHY_NEVER,
               "no worker that takes work fits: a has no label a100, b has no label a100");
    workers[1].offer.labels = "a100\n";
    expect_why(&s, &j, HA_WHY_BUSY, "the only slot is busy");
    s.worker_count = 0;
    expect_why(&s, &j, HA_WHY_NOBODY, "no worker is connected");
    j.held = "ann since noon";
    expect_why(&s, &j, HA_WHY_HELD, "held by ann since noon");
    j.state = HA_JOB_WAITING;
    j.kind = HA_STAGE_GENERATE;
    j.waits_for = "training";
    expect_why(&s, &j, HA_WHY_TRAINING, "waiting for training");
    assert_string_equal(ha_why_name(HA_WHY_TRAINING), "waiting for its training");
    assert_string_equal(ha_why_name(HA_WHY_NEVER), "can never run here");
}

/* Jobs of one GPU go first to workers that have just one. */
static void gangs_keep_their_places(void **state)
{
    const struct ha_fit sweep = {.labels = "fast\n", .gpus = 4, .gpu_memory_bytes = GIB};
    const struct ha_fit one = {.labels = "fast\n", .gpus = 1, .gpu_memory_bytes = GIB};
    struct ha_plan_worker workers[] = {worker(1, "four", 2, 0), worker(2, "one", 1, 0)};
    struct ha_plan_job jobs[] = {job(5, 1, 0), job(6, 1, 0), job(7, 1, 0)};
    struct ha_plan_snapshot s = {
        .workers = workers, .worker_count = 2, .jobs = jobs, .job_count = 3};
    struct ha_plan_assignment out[4];

    (void)state;
    workers[0].offer.gpus = 4;
    workers[0].models[0].model = 1;
    for (int i = 0; i < 3; i++) {
        jobs[i].kind = i == 1 ? HA_STAGE_TRAIN : HA_STAGE_PROBE;
        jobs[i].fit = i == 1 ? &sweep : &one;
        jobs[i].turn = i;
    }
    assert_int_equal(ha_plan_make(&s, 1000, out, 4), 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(out[i].worker, out[i].job == 5 ? 2 : 1);
}

static void gpus_that_are_aside_are_the_reason(void **state)
{
    const struct ha_fit two = {.gpus = 2}, many = {.gpus = 8};
    struct ha_plan_worker workers[] = {worker(1, "a", 0, 0), worker(2, "b", 1, 1)};
    struct ha_plan_snapshot s = {.workers = workers, .worker_count = 1};
    struct ha_plan_job j = job(5, 1, 0);

    (void)state;
    workers[0].lacks = "GPU 0 is set aside since noon: XID 79";
    workers[0].aside = 1;
    expect_why(&s, &j, HA_WHY_DEVICES,
               "worker a has not the GPUs for it now: GPU 0 is set aside since noon: XID 79");
    assert_non_null(strstr(ha_why_mend(HA_WHY_DEVICES), "undrain"));
    s.worker_count = 2; /* what is busy comes first: it passes */
    expect_why(&s, &j, HA_WHY_BUSY, "the only slot is busy");
    workers[0].slots = 1; /* it has one that is well, of two that are asked for */
    j.fit = &two;
    expect_why(&s, &j, HA_WHY_DEVICES,
               "worker a has not the GPUs for it now: GPU 0 is set aside since noon: XID 79");
    j.fit = &many; /* it never had so many */
    expect_why(&s, &j, HA_WHY_NEVER,
               "no worker that takes work fits: a offers 1 of 8 GPUs, b offers 1 of 8 GPUs");
    workers[0].slots = 0; /* memory that somebody holds comes back by itself */
    workers[0].lacks = "GPU 0 is held: 3.9 GiB of its memory is held by process 1";
    workers[0].aside = 0;
    workers[0].held = 1;
    s.worker_count = 1;
    j.fit = NULL;
    expect_why(&s, &j, HA_WHY_BUSY,
               "worker a has not the GPUs for it now: GPU 0 is held: 3.9 GiB of its memory is "
               "held by process 1");
}

/* ---- preemption ---------------------------------------------------------------------------- */

enum { MINUTE = 60000 };

static void the_lowest_and_youngest_makes_room(void **state)
{
    struct ha_plan_worker w = worker(1, "a", 3, 3);
    struct ha_plan_job jobs[] = {job(9, 2, 5)};
    struct ha_plan_snapshot s = {.workers = &w, .worker_count = 1, .jobs = jobs, .job_count = 1};
    struct ha_preempt_running running[] = {
        {.job = 1, .worker = 1, .priority = 1, .ran_ms = 30 * MINUTE},
        {.job = 2, .worker = 1, .priority = 0, .ran_ms = 30 * MINUTE},
        {.job = 3, .worker = 1, .priority = 0, .ran_ms = 10 * MINUTE}};
    struct ha_preempt p = {.snapshot = &s,
                           .running = running,
                           .running_count = 3,
                           .min_run_ms = 5 * MINUTE,
                           .now_ms = 1000};
    struct ha_preempt_stop stops[4];
    int64_t wait_ms;

    (void)state;
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 1);
    assert_int_equal(running[stops[0].victim].job, 3);
    assert_int_equal(stops[0].job, 9);
    /* One that stops already is room enough. */
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 0);
    running[2].stopping = false;
    p.min_run_ms = 0;
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 0);
}

static void nobody_is_stopped_in_vain(void **state)
{
    static const struct ha_fit need = {.labels = "a100\n"};
    struct ha_plan_worker w = worker(1, "a", 2, 2);
    struct ha_plan_job jobs[] = {job(8, 2, 5), job(9, 2, 5)};
    struct ha_plan_snapshot s = {.workers = &w, .worker_count = 1, .jobs = jobs, .job_count = 2};
    struct ha_preempt_running running[] = {
        {.job = 1, .worker = 1, .priority = 0, .ran_ms = MINUTE},
        {.job = 2, .worker = 1, .priority = 5, .ran_ms = 60 * MINUTE}};
    struct ha_preempt p = {.snapshot = &s,
                           .running = running,
                           .running_count = 2,
                           .min_run_ms = 5 * MINUTE,
                           .now_ms = 1000};
    struct ha_preempt_stop stops[4];
    int64_t wait_ms;

    (void)state;
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 0); /* too young; equal */
    assert_int_equal(wait_ms, 4 * MINUTE);
    running[0].ran_ms = 6 * MINUTE;
    jobs[0].fit = jobs[1].fit = &need; /* it would not fit there */
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 0);
    jobs[0].fit = jobs[1].fit = NULL;
    w.slots = 3; /* a slot is free: the plan gives it to the first, the second stops one */
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 1);
    running[0].stopping = false;
    jobs[0].group = jobs[1].group = 7; /* they ask as one */
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 0);
    w.slots = 2;
    jobs[0].held = "ann";
    jobs[1].not_before_ms = 2000;
    assert_int_equal(ha_preempt_choose(&p, stops, 4, &wait_ms), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(needs_are_matched),
        cmocka_unit_test(jobs_go_where_they_fit),
        cmocka_unit_test(sweeps_share_fairly),
        cmocka_unit_test(reasons_have_categories),
        cmocka_unit_test(gangs_keep_their_places),
        cmocka_unit_test(gpus_that_are_aside_are_the_reason),
        cmocka_unit_test(the_lowest_and_youngest_makes_room),
        cmocka_unit_test(nobody_is_stopped_in_vain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
