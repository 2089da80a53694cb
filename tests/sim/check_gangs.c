/* check_gangs.c - what has to hold of gangs after every step and every plan (world.h)
 *
 *   whole       a gang has as many workers as it needs, each once, of one island, none of them lost
 *   no leak     nobody else's books have a place that the gang left, or lack one that it has
 *               (sim_check_worker, sim_check_all)
 *   no starving who comes after a gang that waits leaves at least one island as it is
 *   kept, ended a place stays free only for a gang that waits, could run there and lacks workers,
 * and on one island only */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "tests/sim/world.h"

/* ---- gangs that run -------------------------------------------------------------------------- */

static bool runs_on(const struct sim *s, int32_t job, int32_t w)
{
    int count = 0;

    for (int i = 0; i < SIM_RUNS_MAX; i++) {
        const struct sim_run *run = &s->workers[w].runs[i];

        count += run->number == s->jobs[job].attempts && run->job == job;
    }
    return count == 1;
}

void sim_check_gang(const struct sim *s, int32_t job)
{
    const struct sim_job *j = &s->jobs[job];
    const struct sim_gang *gang = j->gang;
    bool holds = j->state == HA_JOB_LEASED || j->state == HA_JOB_RUNNING;

    if (!gang || !holds)
        sim_fail(s, "job %d is %s %s its gang", job, ha_job_state_name((enum ha_job_state)j->state),
                 gang ? "and keeps" : "without");
    if (gang->count != sim_nodes(s, job))
        sim_fail(s, "job %d needs %" PRId64 " workers and has %d", job, sim_nodes(s, job),
                 gang->count);
    if (gang->gone != (j->state == HA_JOB_RUNNING))
        sim_fail(s, "job %d is %s, and its ranks are %s", job,
                 ha_job_state_name((enum ha_job_state)j->state), gang->gone ? "gone" : "not");
    for (int32_t i = 0; i < gang->count; i++) {
        const struct sim_worker *worker = &s->workers[gang->parts[i].worker];

        for (int32_t k = 0; k < i; k++)
            if (gang->parts[k].worker == gang->parts[i].worker)
                sim_fail(s, "job %d has worker %s twice", job, worker->name);
        if (worker->island != s->workers[j->worker].island)
            sim_fail(s, "job %d is on two islands", job);
        if (worker->lost)
            sim_fail(s, "job %d goes on without worker %s, which is lost", job, worker->name);
        if (!runs_on(s, job, gang->parts[i].worker))
            sim_fail(s, "worker %s does not hold its part of job %d", worker->name, job);
    }
}

/* ---- islands, in this program's own words ---------------------------------------------------- */

/* Of one island, for a gang. */
struct seats {
    int64_t all, free;
};

static struct seats count_seats(const struct ha_plan_snapshot *p, const struct ha_fit *fit,
                                int64_t island)
{
    struct seats seats = {0, 0};

    for (int64_t w = 0; w < p->worker_count; w++) {
        const struct ha_plan_worker *worker = &p->workers[w];

        if (worker->island != island || !sim_takes_work(worker) || worker->slots <= 0 ||
            !sim_offers(&worker->offer, fit))
            continue;
        seats.all++;
        seats.free += worker->used < worker->slots;
    }
    return seats;
}

/* GPUs have the low numbers, and gangs need some. */
enum { ISLANDS = 3 };

/* 0: it could never run; 1: it waits; 2: enough are free on an island. */
static int chance_of(const struct sim *s, const struct ha_plan_snapshot *p,
                     const struct ha_plan_job *job)
{
    int chance = 0;

    if (job->fit->nodes <= 1 || !sim_startable(s, job))
        return 0;
    for (int64_t island = 0; island < ISLANDS; island++) {
        struct seats seats = count_seats(p, job->fit, island);

        if (seats.all >= job->fit->nodes)
            chance = chance < 1 ? 1 : chance;
        if (seats.free >= job->fit->nodes)
            chance = 2;
    }
    return chance;
}

/* A gang whose group will have more cells begins only where a device is idle. */
static bool some_idle(const struct ha_plan_snapshot *p, const struct ha_fit *fit)
{
    for (int64_t w = 0; w < p->worker_count; w++)
        if (sim_takes_work(&p->workers[w]) && sim_offers(&p->workers[w].offer, fit) &&
            ha_plan_free_devices(&p->workers[w]) > 0)
            return true;
    return false;
}

/* What gangs of each need could do. */
static void find_chances(const struct sim *s, const struct ha_plan_snapshot *p,
                         int chances[SIM_FITS])
{
    bool known[SIM_FITS][2] = {{false}};

    memset(chances, 0, SIM_FITS * sizeof *chances);
    for (int64_t j = 0; j < p->job_count; j++) {
        const struct ha_plan_job *job = &p->jobs[j];
        int64_t f = job->fit - s->fits;
        int chance;

        if (job->fit->nodes <= 1 || known[f][job->grows] || !sim_startable(s, job))
            continue;
        known[f][job->grows] = true;
        chance = !job->grows || some_idle(p, job->fit) ? chance_of(s, p, job) : 0;
        chances[f] = chance > chances[f] ? chance : chances[f];
    }
}

/* ---- after a plan that gave nothing ---------------------------------------------------------- */

bool sim_is_kept(const struct sim *s, const struct ha_plan_snapshot *snapshot,
                 const struct ha_plan_worker *worker)
{
    int chances[SIM_FITS];

    if (worker->slots - worker->used != 1 || worker->island >= ISLANDS)
        return false; /* one place of a worker is kept */
    find_chances(s, snapshot, chances);
    for (int f = SIM_FITS - SIM_GANGS; f < SIM_FITS; f++)
        if (chances[f] == 1 && sim_offers(&worker->offer, &s->fits[f]) &&
            count_seats(snapshot, &s->fits[f], worker->island).all >= s->fits[f].nodes)
            return true;
    return false;
}

void sim_check_waiting_gangs(const struct sim *s, const struct ha_plan_snapshot *snapshot)
{
    int chances[SIM_FITS];
    bool waits = false, could = false, wanted[SIM_FITS] = {false};
    int64_t island = -1;

    find_chances(s, snapshot, chances);
    for (int f = 0; f < SIM_FITS; f++) {
        waits = waits || chances[f] == 1;
        could = could || chances[f] == 2;
    }
    if (could && !waits)
        sim_fail(s, "a gang waits although enough workers of an island are free");
    for (int64_t j = 0; j < snapshot->job_count; j++) {
        const struct ha_plan_job *job = &snapshot->jobs[j];

        if (job->fit->nodes <= 1 && !job->grows && sim_startable(s, job))
            wanted[job->fit - s->fits] = true;
    }
    for (int64_t w = 0; w < snapshot->worker_count; w++) {
        const struct ha_plan_worker *worker = &snapshot->workers[w];
        bool missed = false;

        for (int f = 0; f < SIM_FITS && sim_takes_work(worker); f++)
            missed = missed || (wanted[f] && worker->used < worker->slots &&
                                sim_offers(&worker->offer, &s->fits[f]));
        if (missed && island >= 0 && island != worker->island)
            sim_fail(s, "places of two islands are kept for one gang");
        island = missed ? worker->island : island;
    }
}

/* ---- plans ----------------------------------------------------------------------------------- */

struct look {
    const struct sim *s;
    const struct ha_plan_snapshot *p;
    int64_t *share; /* of each sweep, before the plan */
    int64_t *left;  /* free slots of each worker, after the plan */
    bool *came;     /* of each worker: one that comes after the gang got a place of it */
};

static const struct ha_plan_job *job_of(const struct look *l, int64_t id)
{
    for (int64_t j = 0; j < l->p->job_count; j++)
        if (l->p->jobs[j].id == id)
            return &l->p->jobs[j];
    return NULL;
}

static int64_t index_of(const struct look *l, int64_t worker)
{
    int64_t w = 0;

    while (l->p->workers[w].id != worker)
        w++;
    return w;
}

/* Did it get a place, or somebody of its group?  Then it waits by choice. */
static bool is_given(const struct look *l, const struct ha_plan_assignment *a, int64_t count,
                     const struct ha_plan_job *job)
{
    for (int64_t i = 0; i < count; i++) {
        const struct ha_plan_job *given = a[i].job == job->id ? job : NULL;

        if (!given && job->group != 0)
            given = job_of(l, a[i].job);
        if (given && (given == job || given->group == job->group))
            return true;
    }
    return false;
}

/* The gang that waits and comes first: of the highest priority, whose sweep has clearly the
 * smallest share of those with gangs that wait; NULL: that cannot be told from here. */
static const struct ha_plan_job *first_gang(const struct look *l,
                                            const struct ha_plan_assignment *a, int64_t count)
{
    const struct ha_plan_job *first = NULL;
    int64_t growing = -1; /* the highest priority of those whose groups will have more cells */

    for (int64_t j = 0; j < l->p->job_count; j++) {
        const struct ha_plan_job *job = &l->p->jobs[j];

        if (job->fit->nodes <= 1)
            continue;
        if (job->grows) { /* it comes last of its priority */
            growing = job->priority > growing ? job->priority : growing;
            continue;
        }
        if (is_given(l, a, count, job) || chance_of(l->s, l->p, job) == 0)
            continue;
        if (first && first->sweep == job->sweep)
            continue;
        if (first && first->priority == job->priority)
            return NULL;
        if (!first || job->priority > first->priority)
            first = job;
    }
    return first && growing > first->priority ? NULL : first;
}

/* Who got a place and comes after the gang: of lower priority, or of a sweep that had more. */
static void find_later(struct look *l, const struct ha_plan_job *gang,
                       const struct ha_plan_assignment *a, int64_t count)
{
    int64_t own = l->share[gang->sweep - 1]; /* at most, when it had its turn */

    for (int64_t i = 0; i < count; i++) {
        const struct ha_plan_job *job = job_of(l, a[i].job);

        own += (a[i].part > 0 || a[i].into == a[i].job) && job->sweep == gang->sweep;
    }
    for (int64_t i = 0; i < count; i++) {
        const struct ha_plan_job *job = job_of(l, a[i].job);
        int64_t w;

        if (!job || (a[i].part == 0 && a[i].into != a[i].job))
            continue;
        w = index_of(l, a[i].worker);
        l->left[w]--;
        if (job->priority < gang->priority ||
            (job->priority == gang->priority && job->sweep != gang->sweep &&
             l->share[job->sweep - 1] > own)) /* it had no fewer when it had its turn */
            l->came[w] = true;
    }
}

/* Is there an island that could hold the gang, where those that come later took no last place? */
static bool keeps_one(const struct look *l, const struct ha_plan_job *gang)
{
    for (int64_t island = 0; island < ISLANDS; island++) {
        bool spoiled = count_seats(l->p, gang->fit, island).all < gang->fit->nodes;

        for (int64_t w = 0; w < l->p->worker_count && !spoiled; w++)
            spoiled = l->p->workers[w].island == island && l->came[w] && l->left[w] <= 0 &&
                      sim_offers(&l->p->workers[w].offer, gang->fit);
        if (!spoiled)
            return true;
    }
    return false;
}

static void check_keeping(struct look *l, const struct ha_plan_assignment *a, int64_t count)
{
    const struct ha_plan_job *gang = first_gang(l, a, count);

    if (!gang)
        return;
    for (int64_t i = 0; i < l->p->share_count; i++)
        l->share[l->p->shares[i].sweep - 1] = l->p->shares[i].used;
    for (int64_t w = 0; w < l->p->worker_count; w++)
        l->left[w] = l->p->workers[w].slots - l->p->workers[w].used;
    find_later(l, gang, a, count);
    if (!keeps_one(l, gang))
        sim_fail(l->s, "the gang of job %" PRId64 " waits, and later ones take its places",
                 gang->id - 1);
}

static void check_whole(const struct look *l, const struct ha_plan_assignment *a, int64_t count)
{
    const struct ha_plan_job *job = job_of(l, a->job);
    int64_t nodes = job->fit->nodes > 1 ? job->fit->nodes : 1, parts = 1, island = -1;

    for (int64_t i = 0; i < count; i++) {
        const struct ha_plan_worker *worker = &l->p->workers[index_of(l, a[i].worker)];

        if (i > 0 && a[i].part == 0)
            continue;
        if (i > 0 && a[i].part != parts++)
            sim_fail(l->s, "the parts of job %" PRId64 " are not in order", a->job - 1);
        if (nodes > 1 && island >= 0 && island != worker->island)
            sim_fail(l->s, "the gang of job %" PRId64 " is given two islands", a->job - 1);
        island = worker->island;
        for (int64_t k = 1; k < i; k++)
            if (a[k].part > 0 && a[k].worker == a[i].worker)
                sim_fail(l->s, "the gang of job %" PRId64 " gets a worker twice", a->job - 1);
    }
    if (parts != nodes)
        sim_fail(l->s, "job %" PRId64 " needs %" PRId64 " workers and gets %" PRId64, a->job - 1,
                 nodes, parts);
}

void sim_check_gangs(const struct sim *s, const struct ha_plan_snapshot *snapshot,
                     const struct ha_plan_assignment *assignments, int64_t count)
{
    struct look l = {.s = s, .p = snapshot};

    l.share = ha_calloc(s->options.sweeps, sizeof *l.share);
    l.left = ha_calloc(snapshot->worker_count + 1, sizeof *l.left);
    l.came = ha_calloc(snapshot->worker_count + 1, sizeof *l.came);
    if (!l.share || !l.left || !l.came)
        sim_fail(s, "no memory for a check");
    for (int64_t i = 0, parts; i < count; i += parts) {
        for (parts = 1; i + parts < count && assignments[i + parts].into == assignments[i].job;)
            parts++;
        check_whole(&l, &assignments[i], parts);
    }
    check_keeping(&l, assignments, count);
    free(l.share);
    free(l.left);
    free(l.came);
}

/* ---- preemption ------------------------------------------------------------------------------ */

static bool leaves(const struct ha_preempt *p, int64_t worker)
{
    for (int64_t i = 0; i < p->running_count; i++) {
        const struct ha_preempt_running *r = &p->running[i];
        bool there = r->stopping && r->worker == worker;

        for (int64_t k = 0; k < r->other_count && r->stopping; k++)
            there = there || r->others[k] == worker;
        if (there)
            return true;
    }
    return false;
}

void sim_check_room(const struct sim *s, const struct ha_preempt *preempt, int64_t job)
{
    const struct ha_plan_snapshot *p = preempt->snapshot;
    int64_t seats[ISLANDS] = {0}, most = 0, nodes = 1;

    for (int64_t j = 0; j < p->job_count; j++) {
        if (p->jobs[j].id != job)
            continue;
        nodes = p->jobs[j].fit->nodes;
        for (int64_t w = 0; w < p->worker_count && nodes > 1; w++) {
            const struct ha_plan_worker *worker = &p->workers[w];

            if (worker->island < ISLANDS && sim_takes_work(worker) &&
                sim_offers(&worker->offer, p->jobs[j].fit))
                seats[worker->island] +=
                    worker->used < worker->slots || leaves(preempt, worker->id);
        }
    }
    for (int i = 0; i < ISLANDS; i++)
        most = seats[i] > most ? seats[i] : most;
    if (nodes > 1 && most < nodes)
        sim_fail(s,
                 "attempts are stopped for job %" PRId64 ", which then has %" PRId64 " of %" PRId64
                 " workers",
                 job - 1, most, nodes);
}
