/* turn.c - from the world to a plan and back, as the server's planning.c does it (world.h) */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/memory.h"
#include "tests/sim/world.h"

enum { SWEEP_JOBS = 16, CROWD = 32 /* one plan in so many sees what must get nothing, too */ };

/* What a plan reads, and what belongs to it. */
struct snapshot {
    struct ha_plan_snapshot plan;
    struct ha_plan_job *jobs;
    struct ha_plan_share *shares;
    int64_t capacity;
};

static struct snapshot memory; /* kept from plan to plan */

/* ---- the snapshot --------------------------------------------------------------------------- */

/* Its attempts that were told to stop. */
static int64_t leaving(const struct sim *s, int32_t w)
{
    int64_t count = 0;

    for (int i = 0; i < SIM_RUNS_MAX; i++) {
        const struct sim_run *run = &s->workers[w].runs[i];

        count += run->number != 0 && sim_newest(s, run->job, run->number) &&
                 s->jobs[run->job].stop != HA_STOP_NONE;
    }
    return count;
}

static void add_worker(struct sim *s, int32_t w)
{
    const struct sim_worker *from = &s->workers[w];
    struct ha_plan_worker *to = &s->plan_workers[memory.plan.worker_count++];
    int64_t silent_ms = from->dead || from->cut ? s->now_ms - from->heard_ms : 0;

    *to = (struct ha_plan_worker){
        .id = w + 1,
        .name = from->name,
        .liveness = ha_lease_liveness(&s->rules, s->now_ms - silent_ms, s->now_ms),
        .silent_ms = silent_ms,
        .connected = from->connected && !from->dead,
        .draining = from->draining,
        .slots = from->slots,
        .used = from->used,
        .devices = from->devices,
        .memory_bytes = from->memory_bytes,
        .train_speed = from->train_speed,
        .generate_speed = from->generate_speed,
        .island = from->island,
        .leaving = leaving(s, w),
        .offer = from->offer,
    };
    memcpy(to->models, from->models, sizeof to->models);
}

/* Those with a free slot; in a crowd all that are not lost. */
static void add_workers(struct sim *s, bool crowd)
{
    memory.plan.workers = s->plan_workers;
    memory.plan.worker_count = 0;
    for (int32_t w = 0; crowd && w < s->options.workers; w++)
        if (!s->workers[w].lost)
            add_worker(s, w);
    for (int32_t word = 0; !crowd && word <= s->options.workers / 64; word++)
        for (uint64_t bits = s->free[word]; bits; bits &= bits - 1)
            add_worker(s, word * 64 + __builtin_ctzll(bits));
}

static void add_job(struct sim *s, int32_t job)
{
    const struct sim_job *j = &s->jobs[job];
    const struct sim_sweep *sweep = &s->sweeps[j->sweep];
    bool fuses =
        sweep->fuse != HA_FUSE_NEVER && j->attempts == 0 && !j->alone && j->kind != HA_STAGE_PROBE;

    memory.jobs[memory.plan.job_count++] = (struct ha_plan_job){
        .id = job + 1,
        .state = (enum ha_job_state)j->state,
        .kind = (enum ha_stage_kind)j->kind,
        .priority = sweep->priority,
        .turn = 8 * j->model + 2 * (j->kind - HA_STAGE_PROBE),
        .sweep = j->sweep + 1,
        .fit = sim_fit(s, job),
        .expanding = sweep->expanding,
        .group = fuses ? ((int64_t)j->sweep * SIM_MODELS + j->model) * 2 + 1 + j->kind % 2 : 0,
        .fuse = sweep->fuse,
        .grows = fuses && j->kind == HA_STAGE_GENERATE && sweep->open_train[j->model] > 0,
        .need = j->need,
        .model = j->model + 1,
        .not_before_ms = j->not_before_ms,
        .held = sweep->paused ? "somebody" : NULL,
        .reason = "",
    };
}

static bool has_ready(const struct sim *s, const struct sim_sweep *sweep, bool crowd)
{
    int32_t first = sim_next_ready(s, sweep->first);

    return sweep->there && (crowd || (!sweep->paused && !sweep->expanding)) && first >= 0 &&
           first < sweep->first + sweep->count;
}

static void add_sweep(struct sim *s, int32_t number, int64_t limit)
{
    const struct sim_sweep *sweep = &s->sweeps[number];
    int32_t job = sim_next_ready(s, sweep->first);

    memory.shares[memory.plan.share_count++] =
        (struct ha_plan_share){.sweep = number + 1, .used = sweep->used};
    for (int64_t i = 0; i < limit && job >= 0 && job < sweep->first + sweep->count; i++) {
        add_job(s, job);
        job = sim_next_ready(s, job + 1);
    }
}

/* A gang waits for workers that are busy, too. */
static bool has_gang(void)
{
    for (int64_t j = 0; j < memory.plan.job_count; j++)
        if (ha_plan_nodes(&memory.jobs[j]) > 1)
            return true;
    return false;
}

static void make_snapshot(struct sim *s, bool crowd)
{
    int64_t live = 0, part;

    memory.plan = (struct ha_plan_snapshot){0};
    for (int32_t i = 0; i < s->options.sweeps; i++)
        live += has_ready(s, &s->sweeps[i], crowd);
    part = live > 0 && SIM_SNAPSHOT / live > SWEEP_JOBS ? SIM_SNAPSHOT / live : SWEEP_JOBS;
    if (live * part > memory.capacity || !memory.shares) {
        memory.capacity = live * part + SIM_SNAPSHOT;
        memory.jobs = ha_realloc(memory.jobs, memory.capacity, sizeof *memory.jobs);
        memory.shares = ha_realloc(memory.shares, s->options.sweeps, sizeof *memory.shares);
        if (!memory.jobs || !memory.shares)
            sim_fail(s, "no memory for a plan");
    }
    for (int64_t priority = 2; priority >= 0; priority--)
        for (int32_t i = 0; i < s->options.sweeps; i++)
            if (s->sweeps[i].priority == priority && has_ready(s, &s->sweeps[i], crowd))
                add_sweep(s, i, part);
    memory.plan.jobs = memory.jobs;
    memory.plan.shares = memory.shares;
    if (memory.plan.job_count > 0)
        add_workers(s, crowd || has_gang());
}

/* ---- preemption ------------------------------------------------------------------------------ */

/* The ids of the workers of its further parts; others[HA_PLAN_NODES]. */
static int64_t list_others(const struct sim_gang *gang, int64_t *others)
{
    for (int32_t i = 1; gang && i < gang->count; i++)
        others[i - 1] = gang->parts[i].worker + 1;
    return gang ? gang->count - 1 : 0;
}

static int64_t list_running(struct sim *s, struct ha_preempt_running *running, int64_t *others)
{
    int64_t count = 0, n = 0;

    for (int32_t w = 0; w < s->options.workers; w++) {
        for (int i = 0; i < SIM_RUNS_MAX; i++) {
            const struct sim_run *run = &s->workers[w].runs[i];
            const struct sim_job *j = &s->jobs[run->job];

            if (run->number == 0 || j->worker != w || j->attempts != run->number ||
                (j->state != HA_JOB_LEASED && j->state != HA_JOB_RUNNING))
                continue;
            running[count++] = (struct ha_preempt_running){
                .job = run->job + 1,
                .worker = w + 1,
                .others = others + n,
                .other_count = list_others(j->gang, others + n),
                .priority = s->sweeps[j->sweep].priority,
                .ran_ms = s->now_ms - j->started_ms,
                .stopping = j->stop != HA_STOP_NONE,
            };
            n += running[count - 1].other_count;
        }
    }
    return count;
}

static bool urgent_waits(const struct sim *s)
{
    for (int64_t j = 0; j < memory.plan.job_count; j++)
        if (memory.jobs[j].priority > 0 && ha_plan_may_start(&memory.jobs[j], s->now_ms))
            return true;
    return false;
}

/* The plan gave nothing more: may somebody make room? */
static void make_room(struct sim *s)
{
    struct ha_preempt_stop stops[64];
    struct ha_preempt_running *running;
    struct ha_preempt p;
    int64_t count, wait_ms, *others;

    if (s->now_ms < s->room_at_ms || !urgent_waits(s))
        return;
    running = ha_calloc(s->options.workers * SIM_RUNS_MAX, sizeof *running);
    others = ha_calloc(s->options.workers * SIM_RUNS_MAX, sizeof *others);
    if (!running || !others)
        sim_fail(s, "no memory for a plan");
    add_workers(s, true);
    p = (struct ha_preempt){.snapshot = &memory.plan,
                            .running = running,
                            .running_count = list_running(s, running, others),
                            .min_run_ms = SIM_MIN_RUN_MS,
                            .now_ms = s->now_ms};
    count = ha_preempt_choose(&p, stops, 64, &wait_ms);
    for (int64_t i = 0; i < count; i++) {
        const struct ha_preempt_running *r = &running[stops[i].victim];

        sim_check_stop(s, r, &memory.plan, stops[i].job);
        if (i + 1 == count || stops[i + 1].job != stops[i].job)
            sim_check_room(s, &p, stops[i].job);
        sim_stop(s, (int32_t)r->job - 1, HA_STOP_PREEMPT);
    }
    s->room_at_ms = s->now_ms + 1000;
    free(running);
    free(others);
}

/* ---- plans
 * --------------------------------------------------------------------------------------- */

static void count_time(struct sim *s, int64_t ns)
{
    void *array = s->counts.plan_times;

    if (ha_grow(&array, &s->counts.plan_capacity, s->counts.plans + 1, sizeof(int64_t)) < 0)
        sim_fail(s, "no memory for times");
    s->counts.plan_times = array;
    s->counts.plan_times[s->counts.plans++] = ns;
}

/* A plan does nothing but compute; what the machine did meanwhile is not its time. */
static int64_t processor_ns(void)
{
    struct timespec at;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static int64_t plan_once(struct sim *s, struct ha_plan_assignment *out)
{
    bool crowd = s->counts.plans % CROWD == 0;
    int64_t count, begin_ns;

    make_snapshot(s, crowd);
    if (memory.plan.worker_count == 0 || memory.plan.job_count == 0)
        return 0;
    begin_ns = processor_ns();
    count = ha_plan_make(&memory.plan, s->now_ms, out, SIM_ASSIGNMENTS);
    count_time(s, processor_ns() - begin_ns);
    s->counts.steps++;
    if (count < 0)
        sim_fail(s, "no memory for a plan");
    sim_check_plan(s, &memory.plan, out, count);
    return count;
}

/* A job with all its workers; returns how many assignments that are. */
static int64_t grant(struct sim *s, const struct ha_plan_assignment *out, int64_t count)
{
    int32_t workers[HA_PLAN_NODES], n = 1;
    int64_t i = 1;

    workers[0] = (int32_t)out[0].worker - 1;
    for (; i < count && out[i].into == out[0].job; i++) {
        if (out[i].part > 0)
            workers[n++] = (int32_t)out[i].worker - 1;
        else
            sim_join(s, (int32_t)out[0].job - 1, (int32_t)out[i].job - 1);
    }
    sim_grant(s, (int32_t)out[0].job - 1, workers, n);
    sim_check_job(s, (int32_t)out[0].job - 1);
    for (int32_t k = 0; k < n; k++)
        sim_check_worker(s, workers[k]);
    return i;
}

void sim_plan(struct sim *s)
{
    struct ha_plan_assignment out[SIM_ASSIGNMENTS];
    int64_t count;

    while ((count = plan_once(s, out)) > 0)
        for (int64_t i = 0; i < count;)
            i += grant(s, out + i, count - i);
    sim_check_idle(s, &memory.plan);
    make_room(s);
    s->changed = false;
}
