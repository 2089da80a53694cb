/* check.c - what has to hold after every step (world.h) */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "tests/sim/world.h"

enum { PRIORITIES = 3 };

void sim_fail(const struct sim *s, const char *format, ...)
{
    va_list args;

    fprintf(stderr,
            "simulate: seed %" PRIu64 ", step %" PRId64 ", %" PRId64 " ms: ", s->options.seed,
            s->counts.steps, s->now_ms);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

static bool holds_slot(const struct sim_job *j)
{
    return j->state == HA_JOB_LEASED || j->state == HA_JOB_RUNNING;
}

void sim_check_job(const struct sim *s, int32_t job)
{
    const struct sim_job *j = &s->jobs[job];
    bool bit = s->ready[job / 64] >> (job % 64) & 1;

    if (holds_slot(j) && (j->worker < 0 || j->whole >= 0))
        sim_fail(s, "job %d is %s without a worker", job,
                 ha_job_state_name((enum ha_job_state)j->state));
    if (holds_slot(j) && j->attempt != (j->state == HA_JOB_LEASED ? HA_ATTEMPT_STATE_LEASED
                                                                  : HA_ATTEMPT_STATE_RUNNING))
        sim_fail(s, "job %d and its attempt disagree", job);
    if (!holds_slot(j) &&
        (j->attempt == HA_ATTEMPT_STATE_LEASED || j->attempt == HA_ATTEMPT_STATE_RUNNING))
        sim_fail(s, "job %d is %s, but an attempt holds a slot", job,
                 ha_job_state_name((enum ha_job_state)j->state));
    if (holds_slot(j) && s->workers[j->worker].lost)
        sim_fail(s, "job %d is leased to a worker that is lost", job);
    if (j->gang || (holds_slot(j) && sim_nodes(s, job) > 1))
        sim_check_gang(s, job);
    if (bit && (j->state != HA_JOB_READY || j->whole >= 0))
        sim_fail(s, "job %d can be leased but is not ready", job);
    if (!bit && j->state == HA_JOB_READY && j->whole < 0 && j->not_before_ms <= s->now_ms - 1 &&
        (s->event_count == 0 || s->events[0].at_ms > j->not_before_ms)) /* after a pause */
        sim_fail(s, "job %d is ready and nobody would find it", job);
    if (j->results > 1)
        sim_fail(s, "job %d was done %d times", job, j->results);
    if ((j->results == 1) != (j->state == HA_JOB_DONE))
        sim_fail(s, "job %d is %s with %d results", job,
                 ha_job_state_name((enum ha_job_state)j->state), j->results);
}

void sim_check_worker(const struct sim *s, int32_t w)
{
    const struct sim_worker *worker = &s->workers[w];
    int64_t used = 0;

    for (int i = 0; i < SIM_RUNS_MAX; i++) {
        const struct sim_run *run = &worker->runs[i];
        const struct sim_job *j = &s->jobs[run->job];

        used += run->number != 0 && j->attempts == run->number && holds_slot(j);
    }
    if (used != worker->used || used > worker->slots)
        sim_fail(s, "worker %s holds %" PRId64 " leases, counts %" PRId64 ", has %" PRId64 " slots",
                 worker->name, used, worker->used, worker->slots);
    if ((s->free[w / 64] >> (w % 64) & 1) !=
        (!worker->lost && worker->connected && used < worker->slots))
        sim_fail(s, "worker %s is free and nobody would find it, or the other way round",
                 worker->name);
    if (worker->lost && used > 0)
        sim_fail(s, "worker %s is lost and holds leases", worker->name);
}

/* Only silence that the coordinator listened to for a whole lease is a loss, and it is one soon
 * after. */
void sim_check_lease(const struct sim *s, int32_t w, enum ha_liveness liveness)
{
    const struct sim_worker *worker = &s->workers[w];
    int64_t since_ms = worker->gone_ms > s->listens_ms ? worker->gone_ms : s->listens_ms;
    int64_t silent_ms = s->now_ms - since_ms;

    if (!worker->dead && !worker->cut) {
        if (liveness == HA_LOST)
            sim_fail(s, "worker %s beats, and its lease is over", worker->name);
        return;
    }
    if (liveness == HA_LOST && silent_ms < s->rules.lost_ms)
        sim_fail(s, "worker %s is lost after %" PRId64 " ms of silence", worker->name, silent_ms);
    if (liveness != HA_LOST && silent_ms > s->rules.lost_ms + 2 * s->rules.heartbeat_ms)
        sim_fail(s, "worker %s is silent for %" PRId64 " ms and not lost", worker->name, silent_ms);
}

void sim_check_all(const struct sim *s)
{
    int64_t *used = ha_calloc(s->options.sweeps, sizeof *used), open = 0;

    if (!used)
        sim_fail(s, "no memory for a check");
    for (int32_t j = 0; j < s->options.jobs; j++) {
        sim_check_job(s, j);
        used[s->jobs[j].sweep] += holds_slot(&s->jobs[j]) ? sim_nodes(s, j) : 0;
        open += !ha_job_final((enum ha_job_state)s->jobs[j].state);
    }
    for (int32_t w = 0; w < s->options.workers; w++)
        sim_check_worker(s, w);
    for (int64_t i = 0; i < s->options.sweeps; i++)
        if (used[i] != s->sweeps[i].used)
            sim_fail(s, "sweep %" PRId64 " holds %" PRId64 " slots, counts %" PRId64, i, used[i],
                     s->sweeps[i].used);
    if (open != s->open)
        sim_fail(s, "%" PRId64 " jobs are open, %" PRId64 " are counted", open, s->open);
    free(used);
}

/* ---- plans ----------------------------------------------------------------------------------- */

/* The rules in this program's own words. */
bool sim_offers(const struct ha_fit *offer, const struct ha_fit *need)
{
    return offer->gpus >= need->gpus && offer->gpu_memory_bytes >= need->gpu_memory_bytes &&
           offer->memory_bytes >= need->memory_bytes && strstr(offer->labels, need->labels);
}

bool sim_startable(const struct sim *s, const struct ha_plan_job *job)
{
    return job->state == HA_JOB_READY && !job->held && !job->expanding &&
           job->not_before_ms <= s->now_ms;
}

bool sim_takes_work(const struct ha_plan_worker *worker)
{
    return worker->connected && worker->liveness == HA_ALIVE && !worker->draining;
}

struct view {
    const struct sim *s;
    const struct ha_plan_snapshot *snapshot;
    const struct ha_plan_worker **workers; /* by number, NULL: not in the snapshot */
    int64_t *given;                        /* slots per worker */
    int64_t *share;                        /* slots per sweep, with what the plan gives */
    const struct ha_plan_assignment **of;  /* per job of the snapshot; NULL: none */
};

static const struct ha_plan_worker *worker_of(const struct view *v, int64_t id)
{
    return id >= 1 && id <= v->s->options.workers ? v->workers[id - 1] : NULL;
}

static int64_t index_of(const struct view *v, int64_t job)
{
    for (int64_t j = 0; j < v->snapshot->job_count; j++)
        if (v->snapshot->jobs[j].id == job)
            return j;
    sim_fail(v->s, "a plan names job %" PRId64 ", which it was not asked about", job);
    return 0;
}

/* A further worker of a gang. */
static void check_part(const struct view *v, const struct ha_plan_job *whole,
                       const struct ha_plan_assignment *a)
{
    const struct ha_plan_worker *worker = worker_of(v, a->worker);

    if (!worker || !sim_takes_work(worker) || !sim_offers(&worker->offer, whole->fit))
        sim_fail(v->s,
                 "a part of job %" PRId64 " goes to worker %" PRId64 ", which must not get it",
                 a->job - 1, a->worker - 1);
    if (++v->given[a->worker - 1] + worker->used > worker->slots)
        sim_fail(v->s, "worker %s gets more than it has slots", worker->name);
    v->share[whole->sweep - 1]++;
}

static void check_set(const struct view *v, const struct ha_plan_assignment *a, int64_t parts)
{
    const struct ha_plan_worker *worker = worker_of(v, a->worker);
    const struct ha_plan_job *whole = &v->snapshot->jobs[index_of(v, a->job)];
    int64_t bytes = whole->need.shared_bytes + whole->need.pass_bytes, cells = 0;

    if (!worker || !sim_takes_work(worker) || !sim_offers(&worker->offer, whole->fit))
        sim_fail(v->s, "job %" PRId64 " goes to worker %" PRId64 ", which must not get it",
                 a->job - 1, a->worker - 1);
    if (++v->given[a->worker - 1] + worker->used > worker->slots)
        sim_fail(v->s, "worker %s gets more than it has slots", worker->name);
    v->share[whole->sweep - 1]++;
    for (int64_t i = 0; i < parts; i++) {
        int64_t at = index_of(v, a[i].job);
        const struct ha_plan_job *job = &v->snapshot->jobs[at];

        if (a[i].part > 0) {
            check_part(v, whole, &a[i]);
            continue;
        }
        cells++;
        if (v->of[at])
            sim_fail(v->s, "job %" PRId64 " is given twice", a[i].job - 1);
        v->of[at] = &a[i];
        bytes += job->need.bytes;
        if (!sim_startable(v->s, job))
            sim_fail(v->s, "job %" PRId64 " may not start", a[i].job - 1);
        if (a[i].into != a->job || a[i].worker != a->worker ||
            (i > 0 && (job->group == 0 || job->group != whole->group)))
            sim_fail(v->s, "job %" PRId64 " does not belong to %" PRId64, a[i].job - 1, a->job - 1);
    }
    if (cells > HA_FUSE_CELLS)
        sim_fail(v->s, "%" PRId64 " cells in a job", cells);
    for (int64_t i = 0; i < parts; i++) {
        worker = worker_of(v, a[i].worker);
        if (cells > HA_FUSE_CELLS_BLIND && worker->memory_bytes == 0)
            sim_fail(v->s, "%" PRId64 " cells go to worker %s, whose memory nobody knows", cells,
                     worker->name);
        if (cells > 1 && worker->memory_bytes > 0 && bytes > worker->memory_bytes)
            sim_fail(v->s, "a job of %" PRId64 " cells does not fit worker %s", cells,
                     worker->name);
    }
}

/* Did somebody of its group get a place?  Then the others wait by choice. */
static bool group_served(const struct view *v, int64_t at)
{
    const struct ha_plan_job *job = &v->snapshot->jobs[at];

    if (job->group == 0)
        return v->of[at] != NULL;
    for (int64_t j = 0; j < v->snapshot->job_count; j++)
        if (v->of[j] && v->snapshot->jobs[j].group == job->group)
            return true;
    return false;
}

/* Who was passed over: of each need, the highest priority and, per priority, the sweep with the
 * smallest share. */
struct waiting {
    const struct ha_fit *fit;
    int64_t priority;          /* -1: nobody */
    int64_t least[PRIORITIES]; /* share of the sweep; INT64_MAX: nobody */
};

static void find_waiting(const struct view *v, struct waiting waiting[SIM_FITS])
{
    int64_t last_group = 0;
    bool last_served = false;

    for (int f = 0; f < SIM_FITS; f++) {
        waiting[f] = (struct waiting){.fit = &v->s->fits[f], .priority = -1};
        for (int p = 0; p < PRIORITIES; p++)
            waiting[f].least[p] = INT64_MAX;
    }
    for (int64_t j = 0; j < v->snapshot->job_count; j++) {
        const struct ha_plan_job *job = &v->snapshot->jobs[j];
        struct waiting *w = &waiting[job->fit - v->s->fits];

        if (!sim_startable(v->s, job) || job->grows || v->of[j] || job->fit->nodes > 1)
            continue; /* a gang may lack workers (gangs.c) */
        if (job->group == 0 || job->group != last_group)
            last_served = group_served(v, j);
        last_group = job->group;
        if (last_served)
            continue;
        if (job->priority > w->priority)
            w->priority = job->priority;
        if (v->share[job->sweep - 1] < w->least[job->priority])
            w->least[job->priority] = v->share[job->sweep - 1];
    }
}

static int64_t most_nodes(const struct sim *s, int64_t sweep)
{
    return s->sweeps[sweep].train_fit->nodes > 1 ? s->sweeps[sweep].train_fit->nodes : 1;
}

static void check_fairness(const struct view *v)
{
    struct waiting waiting[SIM_FITS];

    find_waiting(v, waiting);
    for (int64_t j = 0; j < v->snapshot->job_count; j++) {
        const struct ha_plan_job *job = &v->snapshot->jobs[j];
        const struct waiting *same = &waiting[job->fit - v->s->fits];

        if (!v->of[j] || v->of[j]->into != job->id)
            continue;
        for (int f = 0; f < SIM_FITS; f++)
            if (waiting[f].priority > job->priority &&
                sim_offers(&worker_of(v, v->of[j]->worker)->offer, waiting[f].fit))
                sim_fail(v->s,
                         "job %" PRId64 " of priority %" PRId64 " goes before priority %" PRId64,
                         job->id - 1, job->priority, waiting[f].priority);
        /* A gang of the same sweep may have had its turn after this one. */
        if (same->least[job->priority] <
            v->share[job->sweep - 1] - most_nodes(v->s, job->sweep - 1))
            sim_fail(v->s,
                     "sweep %" PRId64 " has %" PRId64 " slots, one with %" PRId64 " got nothing",
                     job->sweep - 1, v->share[job->sweep - 1], same->least[job->priority]);
    }
}

static void view_create(struct view *v)
{
    const struct ha_plan_snapshot *p = v->snapshot;

    v->workers = ha_calloc(v->s->options.workers, sizeof *v->workers);
    v->given = ha_calloc(v->s->options.workers, sizeof *v->given);
    v->share = ha_calloc(v->s->options.sweeps, sizeof *v->share);
    v->of = ha_calloc(p->job_count, sizeof *v->of);
    if (!v->workers || !v->given || !v->share || !v->of)
        sim_fail(v->s, "no memory for a check");
    for (int64_t w = 0; w < p->worker_count; w++)
        v->workers[p->workers[w].id - 1] = &p->workers[w];
    for (int64_t i = 0; i < p->share_count; i++)
        v->share[p->shares[i].sweep - 1] = p->shares[i].used;
}

void sim_check_plan(const struct sim *s, const struct ha_plan_snapshot *snapshot,
                    const struct ha_plan_assignment *assignments, int64_t count)
{
    struct view v = {.s = s, .snapshot = snapshot};

    if (count == 0)
        return;
    view_create(&v);
    for (int64_t i = 0, parts; i < count; i += parts) {
        for (parts = 1; i + parts < count && assignments[i + parts].into == assignments[i].job;)
            parts++;
        check_set(&v, &assignments[i], parts);
    }
    if (count < SIM_ASSIGNMENTS - HA_FUSE_CELLS) /* else it was cut off */
        check_fairness(&v);
    sim_check_gangs(s, snapshot, assignments, count);
    free(v.workers);
    free(v.given);
    free(v.share);
    free(v.of);
}

void sim_check_idle(const struct sim *s, const struct ha_plan_snapshot *snapshot)
{
    bool slot[SIM_FITS] = {false}, device[SIM_FITS] = {false};

    for (int64_t w = 0; w < snapshot->worker_count; w++) {
        const struct ha_plan_worker *worker = &snapshot->workers[w];

        if (!sim_takes_work(worker) || worker->used >= worker->slots ||
            sim_is_kept(s, snapshot, worker))
            continue;
        for (int f = 0; f < SIM_FITS; f++) {
            if (!sim_offers(&worker->offer, &s->fits[f]))
                continue;
            slot[f] = true;
            device[f] = device[f] || ha_plan_free_devices(worker) > 0;
        }
    }
    for (int64_t j = 0; j < snapshot->job_count; j++) {
        const struct ha_plan_job *job = &snapshot->jobs[j];
        int64_t f = job->fit - s->fits;

        if (job->fit->nodes <= 1 && sim_startable(s, job) && (job->grows ? device[f] : slot[f]))
            sim_fail(s, "job %" PRId64 " waits although a slot that fits is free", job->id - 1);
    }
    sim_check_waiting_gangs(s, snapshot);
}

static bool has_place(const struct sim *s, const struct ha_preempt_running *victim,
                      const struct ha_fit *fit)
{
    bool has = sim_offers(&s->workers[victim->worker - 1].offer, fit);

    for (int64_t i = 0; i < victim->other_count; i++)
        has = has || sim_offers(&s->workers[victim->others[i] - 1].offer, fit);
    return has;
}

void sim_check_stop(const struct sim *s, const struct ha_preempt_running *victim,
                    const struct ha_plan_snapshot *snapshot, int64_t job)
{
    for (int64_t j = 0; j < snapshot->job_count; j++) {
        if (snapshot->jobs[j].id != job)
            continue;
        if (victim->priority >= snapshot->jobs[j].priority || victim->ran_ms < SIM_MIN_RUN_MS ||
            !has_place(s, victim, snapshot->jobs[j].fit))
            sim_fail(s, "job %" PRId64 " is stopped for %" PRId64 ", which may not have its place",
                     victim->job - 1, job - 1);
        return;
    }
    sim_fail(s, "an attempt is stopped for job %" PRId64 ", which does not wait", job - 1);
}
