/* attempts.c - what happens to attempts and workers (world.h) */
#include <stddef.h>
#include <stdlib.h>

#include "tests/sim/world.h"

enum {
    CACHED_MS = 4000,
    GRACE_MS = 20000,
    FREEZE_MS = 120000,
    CHECKPOINT_MS = 600000, /* between two that the coordinator has */
    BAD_JOB = 193,          /* one in so many crashes nearly always */
    AGAIN_MS = 3600000      /* at most, to the next failure */
};

bool sim_newest(const struct sim *s, int32_t job, int32_t number)
{
    const struct sim_job *j = &s->jobs[job];

    return j->attempts == number && j->attempt != HA_ATTEMPT_STATE_ENDED &&
           !ha_job_final((enum ha_job_state)j->state);
}

/* ---- grants --------------------------------------------------------------------------------- */

double sim_work(const struct sim *s, int32_t job)
{
    double work = s->jobs[job].need.shared;

    for (int32_t cell = job; cell >= 0; cell = s->jobs[cell].next)
        work += s->jobs[cell].need.cost;
    return work;
}

static double speed_of(const struct sim_worker *worker)
{
    return worker->train_speed > 0 ? worker->train_speed : 5e13;
}

double sim_speed(const struct sim *s, const struct sim_job *j)
{
    double slowest = speed_of(&s->workers[j->worker]);

    for (int32_t i = 0; j->gang && i < j->gang->count; i++) {
        double speed = speed_of(&s->workers[j->gang->parts[i].worker]);

        slowest = speed < slowest ? speed : slowest;
    }
    return j->gang ? slowest * j->gang->count : slowest;
}

int64_t sim_run_ms(const struct sim *s, int32_t job)
{
    const struct sim_job *j = &s->jobs[job];

    return (int64_t)((sim_work(s, job) - j->saved) / sim_speed(s, j) * 1000) + 1;
}

/* A place for one more; those of attempts that are over are free. */
static struct sim_run *free_run(struct sim *s, int32_t w)
{
    struct sim_worker *worker = &s->workers[w];

    for (int i = 0; i < SIM_RUNS_MAX; i++) {
        struct sim_run *run = &worker->runs[i];

        if (run->number == 0 || !sim_newest(s, run->job, run->number))
            return run;
    }
    sim_fail(s, "worker %s runs more than it has slots", worker->name);
    return NULL;
}

void sim_join(struct sim *s, int32_t whole, int32_t part)
{
    struct sim_job *p = &s->jobs[part];
    int32_t at = whole;

    if (p->state != HA_JOB_READY || p->attempts > 0 || p->whole >= 0 || p->next >= 0)
        sim_fail(s, "job %d joins %d, but was leased or joined before", part, whole);
    while (s->jobs[at].next >= 0)
        at = s->jobs[at].next;
    s->jobs[at].next = part;
    sim_hide(s, part);
    p->whole = whole;
    s->counts.joined++;
}

/* Its process keeps it loaded; what it had before is in the page cache. */
static void keep_model(struct sim_worker *worker, int64_t model)
{
    int at = 0;

    while (at < HA_PLAN_MODELS - 1 && worker->models[at].model != model)
        at++;
    for (; at > 0; at--)
        worker->models[at] = (struct ha_plan_model){worker->models[at - 1].model, CACHED_MS};
    worker->models[0] = (struct ha_plan_model){.model = model};
}

static void take_place(struct sim *s, int32_t job, int32_t w)
{
    struct sim_job *j = &s->jobs[job];

    *free_run(s, w) = (struct sim_run){job, j->attempts};
    s->workers[w].used++;
    sim_touch(s, w);
    s->sweeps[j->sweep].used++;
    keep_model(&s->workers[w], j->model + 1);
}

void sim_grant(struct sim *s, int32_t job, const int32_t *workers, int32_t count)
{
    struct sim_job *j = &s->jobs[job];

    sim_set_state(s, job, HA_JOB_LEASED);
    j->attempts++;
    j->attempt = HA_ATTEMPT_STATE_LEASED;
    j->stop = HA_STOP_NONE;
    j->worker = workers[0];
    j->charged = false;
    j->started_ms = s->now_ms;
    j->begun = j->saved;
    for (int32_t i = 0; i < count; i++)
        take_place(s, job, workers[i]);
    s->counts.granted++;
    s->counts.probes += j->kind == HA_STAGE_PROBE;
    if (s->now_ms - j->ready_ms > s->counts.wait_ms)
        s->counts.wait_ms = s->now_ms - j->ready_ms;
    if (count > 1) {
        sim_gang_begin(s, job, workers, count);
        return;
    }
    sim_at(s, s->now_ms + 50 + (int64_t)sim_random(s, 500), SIM_RUNS, workers[0], job, j->attempts);
    sim_at(s, s->now_ms + 600 + sim_run_ms(s, job), SIM_ENDS, workers[0], job, j->attempts);
}

void sim_stop(struct sim *s, int32_t job, enum ha_stop stop)
{
    struct sim_job *j = &s->jobs[job];

    if (j->stop != HA_STOP_NONE)
        return;
    j->stop = (uint8_t)stop;
    s->counts.stopped++;
    sim_at(s, s->now_ms + 500 + (int64_t)sim_random(s, GRACE_MS), SIM_STOPS, j->worker, job,
           j->attempts);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void leave(struct sim *s, struct sim_job *j, int32_t w)
{
    s->workers[w].used--;
    sim_touch(s, w);
    s->sweeps[j->sweep].used--;
}

/* All places of the attempt, together. */
static void release(struct sim *s, struct sim_job *j)
{
    for (int32_t i = 1; j->gang && i < j->gang->count; i++)
        leave(s, j, j->gang->parts[i].worker);
    leave(s, j, j->worker);
    free(j->gang);
    j->gang = NULL;
    s->changed = true;
}

static void follow(struct sim *s, int32_t job, bool done)
{
    int32_t child = s->jobs[job].child;

    if (child < 0)
        return;
    s->jobs[child].whole = -1;
    sim_set_state(s, child, done ? HA_JOB_READY : HA_JOB_FAILED);
}

/* Every cell of the job is final. */
static void finish(struct sim *s, int32_t job, bool done)
{
    int32_t cell = job;

    while (cell >= 0) {
        struct sim_job *j = &s->jobs[cell];
        int32_t next = j->next;

        if (done && ++j->results != 1)
            sim_fail(s, "job %d has %d results", cell, j->results);
        sim_set_state(s, cell, done ? HA_JOB_DONE : HA_JOB_FAILED);
        if (done)
            s->counts.done++;
        else
            s->counts.failed++;
        follow(s, cell, done);
        cell = next;
    }
}

/* Every cell gets a job of its own. */
static void split(struct sim *s, int32_t job, int64_t not_before_ms)
{
    int32_t cell = job;

    s->counts.split++;
    while (cell >= 0) {
        struct sim_job *j = &s->jobs[cell];
        int32_t next = j->next;

        j->next = j->whole = j->worker = -1;
        j->alone = true;
        j->crashes = j->losses = 0;
        j->failures = 0;
        j->begun = j->saved = 0;
        j->not_before_ms = not_before_ms;
        if (cell == job)
            sim_set_state(s, cell, HA_JOB_READY);
        else
            sim_mark_ready(s, cell);
        cell = next;
    }
}

static bool splits(const struct sim_job *j, const struct ha_retry_decision *d)
{
    return j->next >= 0 && d->verdict != HA_RETRY_HOLD &&
           (d->verdict == HA_RETRY_FAIL ||
            (d->counts.crashes > j->crashes && d->counts.crashes >= HA_RETRY_SPLIT));
}

/* Its newest checkpoint, of after so much of the attempt; the next attempt goes on from there.
 * False: it has none that is newer; a probe never has one. */
static bool keep(struct sim *s, int32_t job, int64_t ran_ms)
{
    struct sim_job *j = &s->jobs[job];
    double work = sim_work(s, job);
    double saved = j->begun + sim_speed(s, j) * (double)ran_ms / 1000;

    if (saved > work)
        saved = work;
    if (saved <= j->saved || j->kind == HA_STAGE_PROBE)
        return false;
    j->saved = saved;
    return true;
}

int64_t sim_checkpoint_ms(struct sim *s, int64_t end_ms)
{
    return end_ms - (int64_t)sim_random(s, CHECKPOINT_MS);
}

void sim_end(struct sim *s, int32_t job, enum ha_outcome outcome, int64_t saved_ms, bool back)
{
    struct sim_job *j = &s->jobs[job];
    const struct sim_sweep *sweep = &s->sweeps[j->sweep];
    bool started = j->attempt == HA_ATTEMPT_STATE_RUNNING, progress, apart;
    struct ha_retry_decision d;

    if (j->attempt == HA_ATTEMPT_STATE_LOST) {
        j->attempt = HA_ATTEMPT_STATE_ENDED;
        return;
    }
    progress = started && keep(s, job, saved_ms - j->started_ms);
    d = ha_retry_decide(&sweep->policy, (struct ha_retry_counts){j->crashes, j->losses}, outcome,
                        (enum ha_stop)j->stop, started, progress, (uint64_t)job);
    apart = splits(j, &d);
    j->failures += outcome == HA_OUTCOME_FAILED;
    if (j->failures >= sweep->policy.max_attempts && d.verdict != HA_RETRY_FAIL && !apart)
        sim_fail(s, "job %d crashed %d times and is tried again", job, j->failures);
    release(s, j);
    j->attempt = back && d.verdict != HA_RETRY_FAIL && !apart ? HA_ATTEMPT_STATE_LOST
                                                              : HA_ATTEMPT_STATE_ENDED;
    j->charged = d.counts.crashes > j->crashes;
    j->not_before_ms = d.delay_ms > 0 ? s->now_ms + d.delay_ms : 0;
    if (apart) {
        split(s, job, j->not_before_ms);
        return;
    }
    j->crashes = (int32_t)d.counts.crashes;
    j->losses = (int32_t)d.counts.losses;
    if (d.verdict == HA_RETRY_FAIL) {
        finish(s, job, false);
        return;
    }
    sim_set_state(s, job, d.verdict == HA_RETRY_HOLD ? HA_JOB_HELD : HA_JOB_READY);
    if (d.verdict == HA_RETRY_HOLD)
        sim_at(s, s->now_ms + 600000 + (int64_t)sim_random(s, 600000), SIM_PERSON, -1, job,
               j->attempts);
}

/* The newest attempt was lost, and its worker is here again with it. */
static void take_back(struct sim *s, int32_t job)
{
    struct sim_job *j = &s->jobs[job];

    sim_set_state(s, job, HA_JOB_RUNNING);
    j->attempt = HA_ATTEMPT_STATE_RUNNING;
    j->losses = 0;
    j->crashes -= j->charged && j->crashes > 0;
    j->charged = false;
    j->not_before_ms = 0;
    s->workers[j->worker].used++;
    sim_touch(s, j->worker);
    s->sweeps[j->sweep].used++;
    s->counts.returned++;
}

/* ---- words of workers
 * ---------------------------------------------------------------------------- */

bool sim_heard(struct sim *s, const struct sim_event *e)
{
    struct sim_worker *worker = &s->workers[e->worker];

    if (worker->instance != e->instance || worker->dead)
        return false; /* went with its process */
    if (worker->cut || !worker->connected) {
        sim_at(s, (worker->cut ? worker->back_ms : s->now_ms) + 100 + (int64_t)sim_random(s, 3000),
               (enum sim_kind)e->kind, e->worker, e->subject, e->number);
        return false;
    }
    if (sim_newest(s, e->subject, e->number))
        return true;
    s->counts.stale++; /* refused: the epoch is over */
    return false;
}

static void on_runs(struct sim *s, const struct sim_event *e)
{
    struct sim_job *j = &s->jobs[e->subject];

    if (!sim_heard(s, e) || j->attempt != HA_ATTEMPT_STATE_LEASED)
        return;
    if (j->gang) {
        sim_gang_runs(s, e);
        return;
    }
    j->attempt = HA_ATTEMPT_STATE_RUNNING;
    sim_set_state(s, e->subject, HA_JOB_RUNNING);
    s->changed = true;
}

static void on_ends(struct sim *s, const struct sim_event *e)
{
    struct sim_job *j = &s->jobs[e->subject];

    if (!sim_heard(s, e) || (j->gang && (j->gang->broken || j->gang->aborting)))
        return;
    if (j->attempt == HA_ATTEMPT_STATE_LOST)
        take_back(s, e->subject);
    if (j->attempt == HA_ATTEMPT_STATE_LEASED)
        on_runs(s, e);
    if (j->gang && sim_chance(s, 30000)) {
        sim_gang_fails(s, e->subject);
    } else if (sim_chance(s, e->subject % BAD_JOB == 0 ? 900000 : 30000)) {
        s->counts.crashed++;
        sim_end(s, e->subject, HA_OUTCOME_FAILED, sim_checkpoint_ms(s, s->now_ms), false);
    } else if (sim_chance(s, 2000)) {
        sim_end(s, e->subject, HA_OUTCOME_REFUSED, 0, false);
    } else {
        release(s, j);
        j->attempt = HA_ATTEMPT_STATE_ENDED;
        finish(s, e->subject, true);
    }
}

static void on_stops(struct sim *s, const struct sim_event *e)
{
    const struct sim_gang *gang = s->jobs[e->subject].gang;

    if (!sim_heard(s, e) || (gang && (gang->broken || gang->aborting)))
        return;
    if (s->jobs[e->subject].attempt == HA_ATTEMPT_STATE_LOST)
        take_back(s, e->subject);
    sim_end(s, e->subject, HA_OUTCOME_STOPPED, sim_chance(s, 900000) ? s->now_ms : 0, false);
}

/* ---- workers
 * --------------------------------------------------------------------------------------- */

static void lose_all(struct sim *s, int32_t w, bool back)
{
    struct sim_worker *worker = &s->workers[w];

    for (int i = 0; i < SIM_RUNS_MAX; i++) {
        struct sim_run *run = &worker->runs[i];

        if (run->number == 0 || !sim_newest(s, run->job, run->number))
            continue;
        s->counts.lost++;
        sim_end(s, run->job, HA_OUTCOME_LOST, sim_checkpoint_ms(s, worker->gone_ms),
                back && !s->jobs[run->job].gang);
        sim_check_job(s, run->job);
    }
    s->changed = true;
}

static void on_starts(struct sim *s, int32_t w)
{
    struct sim_worker *worker = &s->workers[w];

    lose_all(s, w, false);
    for (int i = 0; i < SIM_RUNS_MAX; i++)
        worker->runs[i] = (struct sim_run){0};
    worker->instance++;
    worker->dead = worker->lost = false;
    worker->connected = true;
    worker->heard_ms = s->now_ms;
    sim_touch(s, w);
    sim_at(s, s->now_ms + (int64_t)sim_random(s, AGAIN_MS), SIM_DIES, w, 0, 0);
}

static void on_back(struct sim *s, int32_t w)
{
    struct sim_worker *worker = &s->workers[w];

    worker->cut = worker->lost = false;
    worker->heard_ms = s->now_ms;
    sim_touch(s, w);
    for (int i = 0; i < SIM_RUNS_MAX; i++) {
        struct sim_run *run = &worker->runs[i];

        if (run->number == 0 || !sim_newest(s, run->job, run->number) ||
            s->jobs[run->job].attempt != HA_ATTEMPT_STATE_LOST)
            continue;
        take_back(s, run->job);
        sim_check_job(s, run->job);
    }
    s->changed = true;
    sim_at(s, s->now_ms + (int64_t)sim_random(s, AGAIN_MS), SIM_CUT, w, 0, 0);
}

/* Network and process fail one at a time. */
static void fail_worker(struct sim *s, int32_t w, bool dies)
{
    struct sim_worker *worker = &s->workers[w];
    int64_t for_ms = 1000 + (int64_t)sim_random(s, sim_chance(s, 500000) ? 40000 : 400000);

    if (worker->dead || worker->cut) {
        sim_at(s, worker->back_ms + 1000, dies ? SIM_DIES : SIM_CUT, w, 0, 0);
        return;
    }
    worker->dead = dies;
    worker->cut = !dies;
    worker->heard_ms = worker->gone_ms = s->now_ms;
    worker->back_ms = s->now_ms + for_ms;
    sim_at(s, worker->back_ms, dies ? SIM_STARTS : SIM_BACK, w, 0, 0);
    for (int i = 0; dies && i < SIM_RUNS_MAX; i++) {
        const struct sim_run *run = &worker->runs[i];

        if (run->number != 0 && sim_newest(s, run->job, run->number) && s->jobs[run->job].gang)
            sim_gang_breaks(s, run->job);
    }
}

static void drain(struct sim *s, int32_t w, bool on)
{
    struct sim_worker *worker = &s->workers[w];

    worker->draining = on;
    s->changed = true;
    for (int i = 0; on && i < SIM_RUNS_MAX; i++) {
        const struct sim_run *run = &worker->runs[i];

        if (run->number != 0 && sim_newest(s, run->job, run->number))
            sim_stop(s, run->job, HA_STOP_DRAIN);
    }
    if (on)
        sim_at(s, s->now_ms + 600000, SIM_UNDRAIN, w, 0, 0);
}

void sim_tick(struct sim *s)
{
    for (int32_t w = 0; w < s->options.workers; w++) {
        struct sim_worker *worker = &s->workers[w];
        enum ha_liveness liveness = ha_lease_liveness(&s->rules, worker->heard_ms, s->now_ms);

        if (!worker->lost)
            sim_check_lease(s, w, liveness);
        if (!worker->dead && !worker->cut) {
            worker->heard_ms = s->now_ms;
            s->changed = s->changed || !worker->connected;
            if (!worker->connected) {
                worker->connected = true; /* hello again, after a restart */
                sim_touch(s, w);
            }
            continue;
        }
        if (!worker->lost && liveness == HA_LOST) {
            worker->lost = true;
            sim_touch(s, w);
            lose_all(s, w, true);
            sim_check_worker(s, w);
        }
    }
    sim_at(s, s->now_ms + s->rules.heartbeat_ms / 2, SIM_TICK, -1, 0, 0);
}

/* ---- people, and the coordinator itself
 * ------------------------------------------------------------- */

static void submit(struct sim *s, int32_t number)
{
    struct sim_sweep *sweep = &s->sweeps[number];

    sweep->there = true;
    sweep->expanding = sweep->fuse != HA_FUSE_NEVER;
    for (int32_t j = sweep->first; j < sweep->first + sweep->count; j++)
        if (!s->jobs[j].waits)
            sim_set_state(s, j, HA_JOB_READY);
    sim_at(s, s->now_ms + 2000, SIM_EXPANDED, -1, number, 0);
}

static void pause_one(struct sim *s)
{
    int32_t number = (int32_t)sim_random(s, (uint64_t)s->options.sweeps);
    struct sim_sweep *sweep = &s->sweeps[number];

    sweep->paused = true;
    for (int32_t j = sweep->first; j < sweep->first + sweep->count; j++)
        if (s->jobs[j].state == HA_JOB_RUNNING && s->jobs[j].whole < 0)
            sim_stop(s, j, HA_STOP_PAUSE);
    sim_at(s, s->now_ms + 120000, SIM_RESUME, -1, number, 0);
    sim_at(s, s->now_ms + 300000 + (int64_t)sim_random(s, 600000), SIM_PAUSE, -1, 0, 0);
}

/* Memory is lost, the store is not: every lease begins a full period. */
static void restart(struct sim *s)
{
    for (int32_t w = 0; w < s->options.workers; w++) {
        s->workers[w].connected = false;
        sim_touch(s, w);
        s->workers[w].heard_ms = s->now_ms;
    }
    s->listens_ms = s->now_ms;
    s->counts.restarts++;
    sim_at(s, s->now_ms + 1200000 + (int64_t)sim_random(s, 1200000), SIM_RESTART, -1, 0, 0);
}

static void person(struct sim *s, const struct sim_event *e)
{
    struct sim_job *j = &s->jobs[e->subject];

    if (j->state != HA_JOB_HELD)
        return;
    j->crashes = j->losses = 0;
    j->failures = 0;
    j->not_before_ms = 0;
    sim_set_state(s, e->subject, HA_JOB_READY);
    s->counts.person++;
}

void sim_handle(struct sim *s, const struct sim_event *e)
{
    switch ((enum sim_kind)e->kind) {
    case SIM_SUBMIT:
        submit(s, e->subject);
        return;
    case SIM_EXPANDED:
        s->sweeps[e->subject].expanding = false;
        s->changed = true;
        return;
    case SIM_RUNS:
        on_runs(s, e);
        return;
    case SIM_ENDS:
        on_ends(s, e);
        return;
    case SIM_STOPS:
        on_stops(s, e);
        return;
    case SIM_PART:
        sim_gang_part(s, e);
        return;
    case SIM_LATE:
        sim_gang_late(s, e);
        return;
    case SIM_JUDGED:
        sim_gang_judged(s, e);
        return;
    case SIM_DUE:
        sim_mark_ready(s, e->subject);
        return;
    case SIM_PERSON:
        person(s, e);
        return;
    case SIM_DIES:
        fail_worker(s, e->worker, true);
        return;
    case SIM_CUT:
        fail_worker(s, e->worker, false);
        return;
    case SIM_STARTS:
        on_starts(s, e->worker);
        return;
    case SIM_BACK:
        on_back(s, e->worker);
        return;
    case SIM_DRAIN:
        drain(s, e->worker, true);
        return;
    case SIM_UNDRAIN:
        drain(s, e->worker, false);
        return;
    case SIM_PAUSE:
        pause_one(s);
        return;
    case SIM_RESUME:
        s->sweeps[e->subject].paused = false;
        s->changed = true;
        return;
    case SIM_FREEZE:
        s->frozen_until_ms = s->now_ms + FREEZE_MS;
        sim_at(s, s->now_ms + 900000 + (int64_t)sim_random(s, 900000), SIM_FREEZE, -1, 0, 0);
        return;
    case SIM_RESTART:
        restart(s);
        return;
    case SIM_TICK:
        sim_tick(s);
        return;
    }
}
