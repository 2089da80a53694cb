#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/buffer.h"
#include "coordinator/core/plan.h"

#define WORKER(number, title, all, taken)                                                          \
    {                                                                                              \
        .id = (number), .name = (title), .liveness = HA_ALIVE, .connected = true, .slots = (all),  \
        .used = (taken)                                                                            \
    }
#define JOB(number, weights)                                                                       \
    {                                                                                              \
        .id = (number), .state = HA_JOB_READY, .model = (weights), .reason = ""                    \
    }

static int64_t plan(const struct ha_plan_worker *workers, int64_t worker_count,
                    const struct ha_plan_job *jobs, int64_t job_count,
                    struct ha_plan_assignment *out, int64_t limit)
{
    struct ha_plan_snapshot s = {
        .workers = workers, .worker_count = worker_count, .jobs = jobs, .job_count = job_count};

    return ha_plan_make(&s, 1000, out, limit);
}

static void first_come_first_served(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "a", 2, 0)};
    struct ha_plan_job jobs[] = {JOB(5, 1), JOB(6, 1), JOB(7, 1)};
    struct ha_plan_assignment out[8];

    (void)state;
    assert_int_equal(plan(workers, 1, jobs, 3, out, 8), 2);
    assert_int_equal(out[0].job, 5);
    assert_int_equal(out[1].job, 6);
    assert_int_equal(out[0].worker, 1);
    assert_int_equal(plan(workers, 1, jobs, 3, out, 1), 1);
}

static void spreads_and_prefers_warm_workers(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "a", 2, 0), WORKER(2, "b", 4, 2),
                                       WORKER(3, "c", 2, 1)};
    struct ha_plan_job jobs[] = {JOB(5, 9), JOB(6, 8), JOB(7, 8), JOB(8, 8), JOB(9, 8), JOB(10, 8)};
    struct ha_plan_assignment out[8];

    (void)state;
    workers[2].models[3].model = 9;
    assert_int_equal(plan(workers, 3, jobs, 6, out, 8), 5);
    assert_int_equal(out[0].worker, 3); /* warm, though it has fewest free slots */
    assert_int_equal(out[1].worker, 1);
    assert_int_equal(out[2].worker, 2);
    assert_int_equal(out[3].worker, 1);
    assert_int_equal(out[4].worker, 2);
}

/* The worker that takes a job, of those that differ in what they have of model 9. */
static void loads_where_it_is_soonest(void **state)
{
    static const struct {
        struct ha_plan_model has[3]; /* per worker; model 0: nothing */
        int64_t worker;
    } rows[] = {
        {{{0, 0}, {9, 16000}, {0, 0}}, 2},        /* on the disk, rather than nowhere */
        {{{9, 16000}, {9, 3000}, {9, 16000}}, 2}, /* in the page cache */
        {{{9, 3000}, {9, 0}, {9, 1}}, 2},         /* loaded */
        {{{9, 16000}, {9, 15000}, {0, 0}}, 1},    /* much the same: the first */
        {{{8, 0}, {8, 0}, {0, 0}}, 3},            /* where no other model is lost */
        {{{8, 0}, {8, 10}, {8, 0}}, 2},
        {{{9, INT64_MAX}, {0, 0}, {0, 0}}, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ha_plan_worker workers[] = {WORKER(1, "a", 1, 0), WORKER(2, "b", 1, 0),
                                           WORKER(3, "c", 1, 0)};
        struct ha_plan_job job = JOB(5, 9);
        struct ha_plan_assignment out[2];

        for (int w = 0; w < 3; w++)
            workers[w].models[i % HA_PLAN_MODELS] = rows[i].has[w];
        assert_int_equal(plan(workers, 3, &job, 1, out, 2), 1);
        assert_int_equal(out[0].worker, rows[i].worker);
    }
}

/* What is loaded on a worker of several slots serves one job; the next one goes elsewhere. */
static void one_process_serves_one_job(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "a", 3, 0), WORKER(2, "b", 3, 0)};
    struct ha_plan_job jobs[] = {JOB(5, 9), JOB(6, 9)};
    struct ha_plan_assignment out[2];

    (void)state;
    workers[0].models[0] = (struct ha_plan_model){9, 0};
    workers[1].models[0] = (struct ha_plan_model){9, 10};
    assert_int_equal(plan(workers, 2, jobs, 2, out, 2), 2);
    assert_int_equal(out[0].worker, 1);
    assert_int_equal(out[1].worker, 2);
}

/* A loaded model is kept at work where that costs nobody else: not a probe, not another sweep, not
 * an idle device. */
static void loaded_models_go_first(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "a", 1, 0), WORKER(2, "b", 1, 1)};
    struct ha_plan_job jobs[] = {JOB(5, 9), JOB(6, 8), JOB(7, 8)};
    struct ha_plan_assignment out[4];

    (void)state;
    workers[0].models[3] = (struct ha_plan_model){8, 0};
    workers[1].models[0] = (struct ha_plan_model){9, 0};
    for (int j = 0; j < 3; j++)
        jobs[j].kind = HA_STAGE_TRAIN;
    assert_int_equal(plan(workers, 2, jobs, 3, out, 4), 1);
    assert_int_equal(out[0].job, 6);
    assert_int_equal(plan(workers, 2, &jobs[1], 2, out, 4), 1);
    assert_int_equal(out[0].job, 6); /* among themselves in order */
    assert_int_equal(plan(workers, 2, jobs, 1, out, 4), 1);
    assert_int_equal(out[0].worker, 1); /* no device waits for a model that is elsewhere */
    jobs[0].kind = HA_STAGE_PROBE;
    assert_int_equal(plan(workers, 2, jobs, 3, out, 4), 1);
    assert_int_equal(out[0].job, 5);
    jobs[0].kind = HA_STAGE_TRAIN;
    jobs[1].sweep = jobs[2].sweep = 3;
    assert_int_equal(plan(workers, 2, jobs, 3, out, 4), 1);
    assert_int_equal(out[0].job, 5);
    jobs[1].sweep = jobs[2].sweep = 0;
    jobs[0].priority = 1;
    assert_int_equal(plan(workers, 2, jobs, 3, out, 4), 1);
    assert_int_equal(out[0].job, 5);
    jobs[0].priority = 0;
    /* With a place of its own, the first comes first. */
    workers[1].used = 0;
    assert_int_equal(plan(workers, 2, jobs, 3, out, 4), 2);
    assert_int_equal(out[0].job, 5);
    assert_int_equal(out[0].worker, 2);
    assert_int_equal(out[1].job, 6);
    assert_int_equal(out[1].worker, 1);
}

static void who_gets_no_work(void **state)
{
    struct ha_plan_worker worker = WORKER(1, "a", 2, 0);
    struct ha_plan_job jobs[] = {JOB(5, 1)};
    struct ha_plan_assignment out[2];

    (void)state;
    assert_int_equal(plan(&worker, 1, jobs, 1, out, 2), 1);
    worker.liveness = HA_LATE;
    assert_int_equal(plan(&worker, 1, jobs, 1, out, 2), 0);
    worker.liveness = HA_ALIVE;
    worker.draining = true;
    assert_int_equal(plan(&worker, 1, jobs, 1, out, 2), 0);
    worker.draining = false;
    worker.connected = false;
    assert_int_equal(plan(&worker, 1, jobs, 1, out, 2), 0);
    worker.connected = true;
    worker.used = 2;
    assert_int_equal(plan(&worker, 1, jobs, 1, out, 2), 0);
}

static void which_jobs_wait(void **state)
{
    struct ha_plan_worker worker = WORKER(1, "a", 1, 0);
    struct ha_plan_job jobs[] = {JOB(5, 1), JOB(6, 1), JOB(7, 1), JOB(8, 1)};
    struct ha_plan_assignment out[2];

    (void)state;
    jobs[0].state = HA_JOB_WAITING;
    jobs[1].not_before_ms = 1001;
    jobs[2].held = "ann";
    assert_int_equal(plan(&worker, 1, jobs, 4, out, 2), 1);
    assert_int_equal(out[0].job, 8);
}

static void order_is_priority_then_id(void **state)
{
    struct ha_plan_job a = JOB(5, 1), b = JOB(6, 1);

    (void)state;
    assert_true(ha_plan_order(&a, &b) < 0);
    b.priority = 1;
    assert_true(ha_plan_order(&a, &b) > 0);
    assert_int_equal(ha_plan_order(&a, &a), 0);
}

static void expect_why(const struct ha_plan_worker *workers, int64_t count,
                       const struct ha_plan_job *job, const char *sentence)
{
    struct ha_plan_snapshot s = {.workers = workers, .worker_count = count};
    struct ha_buffer text;
    enum ha_why why;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_plan_why(&s, job, 1000, &text, &why), 0);
    assert_string_equal(ha_buffer_text(&text), sentence);
    ha_buffer_clear(&text);
}

static void why_sentences(void **state)
{
    struct ha_plan_worker worker = WORKER(1, "w1", 2, 2);
    struct ha_plan_job job = JOB(5, 1);

    (void)state;
    expect_why(NULL, 0, &job, "no worker is connected");
    expect_why(&worker, 1, &job, "all 2 slots are busy");
    worker.slots = 1;
    expect_why(&worker, 1, &job, "the only slot is busy");
    worker.models[2].model = 1;
    expect_why(&worker, 1, &job, "the only slot is busy");
    worker.models[2].load_ms = 10;
    worker.models[0].model = 2;
    expect_why(&worker, 1, &job,
               "the only slot is busy; jobs of its sweep whose model is loaded go first");
    worker.used = 0;
    expect_why(&worker, 1, &job, "about to start");
    worker.liveness = HA_LATE;
    worker.silent_ms = 20400;
    expect_why(&worker, 1, &job, "worker w1 has been silent for 20 s");
    worker.liveness = HA_LOST;
    expect_why(&worker, 1, &job, "no worker is connected");
    worker.liveness = HA_ALIVE;
    worker.draining = true;
    expect_why(&worker, 1, &job, "the only worker is draining");
    job.not_before_ms = 12500;
    job.reason = "crash: killed by signal 9 (SIGKILL)";
    expect_why(&worker, 1, &job, "retry in 12 s after crash: killed by signal 9 (SIGKILL)");
    job.held = "ann since noon";
    expect_why(&worker, 1, &job, "held by ann since noon");
    job.state = HA_JOB_WAITING;
    job.waits_for = "training";
    expect_why(&worker, 1, &job, "waiting for training");
    job.state = HA_JOB_HELD;
    job.reason = "lost";
    expect_why(&worker, 1, &job, "held: lost");
    job.state = HA_JOB_RUNNING;
    expect_why(&worker, 1, &job, "");
    job.stopping = "paused by ann";
    expect_why(&worker, 1, &job, "stopping at a checkpoint: paused by ann");
}

static void expect_judging(const struct ha_plan_judging *judging, const char *sentence,
                           enum ha_why kind)
{
    struct ha_buffer text;
    enum ha_why why;

    ha_buffer_init(&text, 0);
    assert_int_equal(ha_plan_why_judging(judging, &text, &why), 0);
    assert_string_equal(ha_buffer_text(&text), sentence);
    assert_int_equal(why, kind);
    ha_buffer_clear(&text);
}

static void why_judging(void **state)
{
    struct ha_plan_judging j = {.answers_why = "no worker is connected", .stop = "", .trouble = ""};

    (void)state;
    expect_judging(&j, "waiting for answers: no worker is connected", HA_WHY_ANSWERS);
    j.total = j.blocked = 3;
    expect_judging(&j, "waiting until every cell of the model has answered the same prompts",
                   HA_WHY_ANSWERS);
    j.ready = 2;
    expect_judging(&j, "no judge worker is connected", HA_WHY_JUDGES);
    assert_non_null(strstr(ha_why_mend(HA_WHY_JUDGES), "ha-judge-worker"));
    j.judges = 1;
    expect_judging(&j, "2 answers wait for a judge worker", HA_WHY_BUSY);
    j.stop = "the budget is used up";
    expect_judging(&j, "the budget is used up", HA_WHY_EVALUATOR);
    j.leased = 1;
    expect_judging(&j, "", HA_WHY_NONE);
    j.held = "ann since noon";
    expect_judging(&j, "held by ann since noon", HA_WHY_HELD);
    j = (struct ha_plan_judging){.total = 2,
                                 .scored = 2,
                                 .answers_complete = true,
                                 .answers_why = "",
                                 .stop = "",
                                 .trouble = ""};
    expect_judging(&j, "", HA_WHY_NONE);
}

/* ---- groups --------------------------------------------------------------------------- */

static struct ha_plan_job cell_job(int64_t id, int64_t group, double cost)
{
    return (struct ha_plan_job){.id = id,
                                .state = HA_JOB_READY,
                                .model = group,
                                .group = group,
                                .need = {.shared = 2, .cost = cost},
                                .reason = ""};
}

static void one_slot_takes_the_whole_group(void **state)
{
    struct ha_plan_worker worker = WORKER(1, "a", 1, 0);
    struct ha_plan_job jobs[] = {cell_job(5, 7, 4), cell_job(6, 7, 3), cell_job(7, 8, 1),
                                 cell_job(8, 7, 1)};
    struct ha_plan_assignment out[4];

    (void)state;
    assert_int_equal(plan(&worker, 1, jobs, 4, out, 4), 3);
    assert_int_equal(out[0].job, 5);
    assert_int_equal(out[1].job, 6);
    assert_int_equal(out[2].job, 8);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(out[i].into, 5);
        assert_int_equal(out[i].worker, 1);
    }
    /* Whole or not at all. */
    assert_int_equal(plan(&worker, 1, jobs, 4, out, 2), 0);
}

static void idle_devices_go_where_they_help(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "a", 1, 0), WORKER(2, "b", 1, 0),
                                       WORKER(3, "c", 1, 0)};
    /* A long group, a short one, and answers that will have company. */
    struct ha_plan_job jobs[] = {cell_job(5, 7, 4), cell_job(6, 7, 4), cell_job(7, 8, 1),
                                 cell_job(8, 8, 1), cell_job(9, 9, 1)};
    struct ha_plan_assignment out[8];

    (void)state;
    jobs[4].grows = true;
    assert_int_equal(plan(workers, 3, jobs, 5, out, 8), 4);
    assert_int_equal(out[0].into, 5);
    assert_int_equal(out[1].into, 6); /* two devices */
    assert_int_equal(out[2].into, 7);
    assert_int_equal(out[3].into, 7); /* one */
    /* With nothing better to do a device does not wait for company. */
    assert_int_equal(plan(workers, 3, &jobs[2], 3, out, 8), 3);
    assert_int_equal(out[2].into, 9);
}

/* Unequal devices: the heavy job goes to the fast one, whatever model it has warm, and one that is
 * too slow to help is left to others. */
static void faster_devices_take_more(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "a", 1, 0), WORKER(2, "b", 1, 0),
                                       WORKER(3, "c", 1, 0)};
    struct ha_plan_job jobs[] = {cell_job(5, 7, 8), cell_job(6, 7, 4), cell_job(7, 0, 1)};
    struct ha_plan_assignment out[4];

    (void)state;
    for (int w = 0; w < 3; w++)
        workers[w].train_speed = 1e12;
    workers[1].train_speed = 2e12;
    workers[2].train_speed = 1e9;
    workers[0].models[0].model = jobs[0].model = jobs[1].model = 3;
    assert_int_equal(plan(workers, 2, jobs, 2, out, 4), 2);
    assert_int_equal(out[0].job, 5);
    assert_int_equal(out[0].worker, 2);
    assert_int_equal(out[1].into, 6);
    assert_int_equal(out[1].worker, 1);
    workers[0].used = 1;
    assert_int_equal(plan(workers, 3, jobs, 2, out, 4), 2);
    assert_int_equal(out[1].into, 5); /* rather together than on the slow one */
    assert_int_equal(out[1].worker, 2);
    assert_int_equal(plan(workers, 3, jobs, 3, out, 4), 3);
    assert_int_equal(out[2].job, 7);
    assert_int_equal(out[2].worker, 3); /* which has nothing better to do */
    /* One that has done nothing yet counts as the others; a tenth is no difference. */
    workers[0].used = 0;
    workers[1].train_speed = 1.05e12;
    workers[2].train_speed = 0;
    workers[2].generate_speed = 1;
    assert_int_equal(plan(workers, 3, jobs, 1, out, 4), 1);
    assert_int_equal(out[0].worker, 1); /* warm */
}

/* One of two workers does not tell its memory: what goes to the other one fits it all the same. */
static void unknown_memory_hides_no_known_one(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "small", 1, 0), WORKER(2, "silent", 1, 0)};
    struct ha_plan_job jobs[20];
    struct ha_plan_assignment out[20];
    int64_t count, at_small = 0;

    (void)state;
    workers[0].memory_bytes = 1000;
    for (int64_t j = 0; j < 20; j++) {
        jobs[j] = cell_job(j + 1, 7, 1);
        jobs[j].need.shared_bytes = 400;
        jobs[j].need.pass_bytes = 100;
        jobs[j].need.bytes = 150;
    }
    count = plan(workers, 2, jobs, 20, out, 20);
    for (int64_t i = 0; i < count; i++)
        at_small += out[i].worker == 1;
    assert_in_range(at_small, 1, 3);
    assert_in_range(count - at_small, 1, HA_FUSE_CELLS_BLIND);
}

static void slots_of_one_cpu_are_one_device(void **state)
{
    struct ha_plan_worker worker = WORKER(1, "a", 4, 0);
    struct ha_plan_job jobs[] = {cell_job(5, 7, 4), cell_job(6, 7, 4)};
    struct ha_plan_assignment out[4];

    (void)state;
    assert_int_equal(plan(&worker, 1, jobs, 2, out, 4), 2);
    assert_int_equal(out[1].into, 6);
    worker.devices = 1;
    assert_int_equal(plan(&worker, 1, jobs, 2, out, 4), 2);
    assert_int_equal(out[1].into, 5);
}

static void company_is_waited_for_on_a_busy_device(void **state)
{
    struct ha_plan_worker worker = WORKER(1, "a", 2, 1);
    struct ha_plan_job job = cell_job(5, 7, 1);
    struct ha_plan_assignment out[2];

    (void)state;
    job.grows = true;
    assert_int_equal(plan(&worker, 1, &job, 1, out, 2), 1); /* a device of its own */
    worker.devices = 1;
    assert_int_equal(plan(&worker, 1, &job, 1, out, 2), 0);
    expect_why(&worker, 1, &job,
               "waiting for other cells of its model, to answer together with them");
    worker.used = 0;
    assert_int_equal(plan(&worker, 1, &job, 1, out, 2), 1);
}

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void check_plan(const struct ha_plan_worker *workers, int64_t worker_count,
                       const struct ha_plan_job *jobs, int64_t job_count,
                       const struct ha_plan_assignment *out, int64_t count)
{
    int64_t leases[8] = {0}, ready = 0, idle = 0, total = 0;

    for (int64_t i = 0; i < count; i++) {
        const struct ha_plan_job *job = NULL, *into = NULL;

        for (int64_t j = 0; j < job_count; j++) {
            job = jobs[j].id == out[i].job ? &jobs[j] : job;
            into = jobs[j].id == out[i].into ? &jobs[j] : into;
        }
        assert_non_null(job);
        assert_int_equal(job->state, HA_JOB_READY);
        assert_true(job == into || (job->group != 0 && job->group == into->group));
        if (job == into)
            leases[out[i].worker - 1]++;
        else
            assert_true(i > 0 && out[i - 1].into == out[i].into); /* parts follow the whole */
        for (int64_t k = 0; k < i; k++)
            assert_int_not_equal(out[k].job, out[i].job);
    }
    for (int64_t w = 0; w < worker_count; w++) {
        assert_true(leases[w] <= workers[w].slots - workers[w].used);
        idle += workers[w].used == 0;
        total += leases[w];
    }
    for (int64_t j = 0; j < job_count; j++)
        ready += jobs[j].state == HA_JOB_READY;
    assert_true(total > 0 || idle == 0 || ready == 0); /* no device idles beside work */
}

static void properties(void **state)
{
    uint64_t seed = 3;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct ha_plan_worker workers[4];
        struct ha_plan_job jobs[40];
        struct ha_plan_assignment out[40], again[40];
        int64_t n_workers = 1 + (int64_t)(next(&seed) % 4), n_jobs = (int64_t)(next(&seed) % 40);
        int64_t count;

        for (int64_t w = 0; w < n_workers; w++) {
            int64_t slots = 1 + (int64_t)(next(&seed) % 3);

            workers[w] = (struct ha_plan_worker)WORKER(w + 1, "w", slots,
                                                       (int64_t)(next(&seed) % 4) % (slots + 1));
            workers[w].devices = next(&seed) % 2 ? 1 : 0;
            workers[w].memory_bytes = next(&seed) % 2 ? 1000 : 0;
            workers[w].train_speed = next(&seed) % 3 ? (double)(1 + next(&seed) % 50) : 0;
            workers[w].generate_speed = next(&seed) % 3 ? (double)(1 + next(&seed) % 50) : 0;
        }
        for (int64_t j = 0; j < n_jobs; j++) {
            jobs[j] = cell_job(100 + j, (int64_t)(next(&seed) % 4), (double)(next(&seed) % 9));
            jobs[j].grows = jobs[j].group == 3;
            jobs[j].kind = jobs[j].group == 2 ? HA_STAGE_GENERATE : HA_STAGE_TRAIN;
            jobs[j].fuse = (enum ha_fuse_mode)(jobs[j].group % 2);
            jobs[j].state = next(&seed) % 5 ? HA_JOB_READY : HA_JOB_WAITING;
            jobs[j].need.shared_bytes = 100;
            jobs[j].need.bytes = 200;
        }
        count = plan(workers, n_workers, jobs, n_jobs, out, 40);
        assert_true(count >= 0);
        check_plan(workers, n_workers, jobs, n_jobs, out, count);
        assert_int_equal(plan(workers, n_workers, jobs, n_jobs, again, 40), count);
        for (int64_t i = 0; i < count; i++)
            assert_true(out[i].job == again[i].job && out[i].worker == again[i].worker &&
                        out[i].into == again[i].into);
    }
}

/* Groups too large to be divided again for every device: each device gets work all the same, the
 * same for the same snapshot, and nobody ends much later than the others. */
static void large_groups_share_many_devices(void **state)
{
    enum { GROUPS = 4, JOBS = 512, WORKERS = 490 };
    static struct ha_plan_worker workers[WORKERS];
    static struct ha_plan_job jobs[JOBS];
    static struct ha_plan_assignment out[JOBS], again[JOBS];
    double load[WORKERS] = {0}, least = 0, most = 0, all = 0;
    uint64_t seed = 11;
    int64_t count;

    (void)state;
    for (int64_t w = 0; w < WORKERS; w++) {
        workers[w] = (struct ha_plan_worker)WORKER(w + 1, "w", 1, 0);
        workers[w].memory_bytes = 1000;
        workers[w].train_speed = 1 + 0.01 * (double)(next(&seed) % 300);
    }
    for (int64_t j = 0; j < JOBS; j++) {
        jobs[j] = cell_job(j + 1, 1 + j * GROUPS / JOBS, 10 + (double)(next(&seed) % 30));
        jobs[j].kind = HA_STAGE_TRAIN;
        jobs[j].need.shared_bytes = 100;
        jobs[j].need.bytes = 10;
    }
    count = plan(workers, WORKERS, jobs, JOBS, out, JOBS);
    assert_int_equal(count, JOBS);
    assert_int_equal(plan(workers, WORKERS, jobs, JOBS, again, JOBS), count);
    assert_memory_equal(again, out, sizeof out);
    for (int64_t i = 0; i < count; i++) {
        const struct ha_plan_worker *w = &workers[out[i].worker - 1];

        load[out[i].worker - 1] += jobs[out[i].job - 1].need.cost / w->train_speed;
    }
    for (int64_t w = 0; w < WORKERS; w++) {
        least += load[w] > 0;
        all += load[w];
        most = load[w] > most ? load[w] : most;
    }
    assert_true(least >= WORKERS * 9 / 10);
    assert_true(most < 4 * all / WORKERS);
}

/* What is left when a plan has given as much as may be assigned has its turn in the next one. */
static void the_next_plan_goes_on(void **state)
{
    struct ha_plan_worker workers[] = {WORKER(1, "a", 30, 0)};
    struct ha_plan_job jobs[20];
    struct ha_plan_assignment out[8];
    int64_t count, given = 0, plans = 0;

    (void)state;
    for (int64_t j = 0; j < 20; j++)
        jobs[j] = (struct ha_plan_job)JOB(5 + j, 1);
    while ((count = plan(workers, 1, jobs, 20, out, 8)) > 0) {
        for (int64_t i = 0; i < count; i++) {
            assert_int_equal(out[i].job, 5 + given++);
            jobs[out[i].job - 5].state = HA_JOB_LEASED;
        }
        workers[0].used += count;
        plans++;
    }
    assert_int_equal(given, 20);
    assert_int_equal(plans, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(spreads_and_prefers_warm_workers),
        cmocka_unit_test(loads_where_it_is_soonest),
        cmocka_unit_test(one_process_serves_one_job),
        cmocka_unit_test(loaded_models_go_first),
        cmocka_unit_test(who_gets_no_work),
        cmocka_unit_test(which_jobs_wait),
        cmocka_unit_test(order_is_priority_then_id),
        cmocka_unit_test(one_slot_takes_the_whole_group),
        cmocka_unit_test(idle_devices_go_where_they_help),
        cmocka_unit_test(faster_devices_take_more),
        cmocka_unit_test(unknown_memory_hides_no_known_one),
        cmocka_unit_test(slots_of_one_cpu_are_one_device),
        cmocka_unit_test(company_is_waited_for_on_a_busy_device),
        cmocka_unit_test(large_groups_share_many_devices),
        cmocka_unit_test(the_next_plan_goes_on),
        cmocka_unit_test(properties),
        cmocka_unit_test(why_sentences),
        cmocka_unit_test(why_judging),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
