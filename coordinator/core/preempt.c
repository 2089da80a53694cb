#include "coordinator/core/preempt.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/base/memory.h"

/* Jobs that need the same of a worker. */
struct kind {
    const struct ha_fit *fit;
    int64_t coming;  /* rooms that come free by themselves: free slots and stops under way */
    int64_t *choice; /* attempts whose places fit, the first to be stopped first */
    int64_t count, at;
};

struct chooser {
    struct ha_preempt *p;
    const struct ha_plan_worker **worker; /* of each attempt; NULL: it takes no work */
    int64_t *order;                       /* attempts, the first to be stopped first */
    int64_t *groups, table;               /* those that have asked, open addressing */
    struct kind *kinds;
    int64_t n_kinds;
};

static int by_id(const void *a, const void *b)
{
    const struct ha_plan_worker *x = *(const struct ha_plan_worker *const *)a;
    const struct ha_plan_worker *y = *(const struct ha_plan_worker *const *)b;

    return (x->id > y->id) - (x->id < y->id);
}

static const struct ha_plan_worker *find(const struct ha_plan_worker **workers, int64_t count,
                                         int64_t id)
{
    int64_t low = 0, high = count;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (workers[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && workers[low]->id == id ? workers[low] : NULL;
}

static int find_workers(struct chooser *c)
{
    const struct ha_plan_snapshot *s = c->p->snapshot;
    const struct ha_plan_worker **workers = ha_calloc(s->worker_count, sizeof *workers);
    int64_t count = 0;

    if (!workers)
        return -ENOMEM;
    for (int64_t w = 0; w < s->worker_count; w++)
        if (ha_plan_takes_work(&s->workers[w]))
            workers[count++] = &s->workers[w];
    if (count > 0)
        qsort(workers, (size_t)count, sizeof *workers, by_id);
    for (int64_t i = 0; i < c->p->running_count; i++)
        c->worker[i] = find(workers, count, c->p->running[i].worker);
    free(workers);
    return 0;
}

/* Of the lowest priority first, of these the youngest. */
static int by_turn(const void *a, const void *b, void *context)
{
    const struct ha_preempt_running *running = context;
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;

    if (running[i].priority != running[j].priority)
        return running[i].priority < running[j].priority ? -1 : 1;
    if (running[i].ran_ms != running[j].ran_ms)
        return running[i].ran_ms < running[j].ran_ms ? -1 : 1;
    return i < j ? -1 : i > j;
}

static bool could_run(const struct ha_plan_worker *worker, const struct ha_fit *fit)
{
    return worker && ha_fit(fit, &worker->offer);
}

static int fill_kind(struct chooser *c, struct kind *kind)
{
    const struct ha_plan_snapshot *s = c->p->snapshot;

    kind->choice = ha_calloc(c->p->running_count, sizeof *kind->choice);
    if (!kind->choice)
        return -ENOMEM;
    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];

        if (worker->slots > worker->used && ha_plan_takes_work(worker) &&
            could_run(worker, kind->fit))
            kind->coming += worker->slots - worker->used;
    }
    for (int64_t i = 0; i < c->p->running_count; i++) {
        int64_t at = c->order[i];

        if (!could_run(c->worker[at], kind->fit))
            continue;
        kind->choice[kind->count++] = at;
        kind->coming += c->p->running[at].stopping;
    }
    return 0;
}

static int kind_of(struct chooser *c, const struct ha_fit *fit, struct kind **ret_kind)
{
    int64_t k = 0;

    while (k < c->n_kinds && !ha_fit_equal(c->kinds[k].fit, fit))
        k++;
    *ret_kind = &c->kinds[k];
    if (k < c->n_kinds)
        return 0;
    c->kinds[c->n_kinds++].fit = fit;
    return fill_kind(c, *ret_kind);
}

/* The attempt to stop for a job, or -1.  One that is too young shortens the wait.  Those that are
 * passed over, because they stop already or are too young, stay so until all have been asked. */
static int64_t choose(const struct ha_preempt *p, struct kind *kind, int64_t priority,
                      int64_t *wait_ms)
{
    for (; kind->at < kind->count; kind->at++) {
        const struct ha_preempt_running *r = &p->running[kind->choice[kind->at]];
        int64_t left_ms = p->min_run_ms - r->ran_ms;

        if (r->priority >= priority)
            return -1;
        if (r->stopping)
            continue;
        if (left_ms <= 0)
            return kind->choice[kind->at];
        *wait_ms = *wait_ms == 0 || left_ms < *wait_ms ? left_ms : *wait_ms;
    }
    return -1;
}

/* A group of jobs asks once. */
static bool asks_again(struct chooser *c, int64_t group)
{
    uint64_t mask = (uint64_t)c->table - 1, at = (uint64_t)group * 0x9e3779b97f4a7c15u >> 20;

    if (group == 0)
        return false;
    for (; c->groups[at & mask] != 0; at++)
        if (c->groups[at & mask] == group)
            return true;
    c->groups[at & mask] = group;
    return false;
}

/* The attempt's place is on its way to everybody whom it fits. */
static void stop(struct chooser *c, int64_t victim)
{
    c->p->running[victim].stopping = true;
    for (int64_t k = 0; k < c->n_kinds; k++)
        c->kinds[k].coming += could_run(c->worker[victim], c->kinds[k].fit);
}

static int64_t choose_all(struct chooser *c, struct ha_preempt_stop *stops, int64_t limit,
                          int64_t *wait_ms)
{
    const struct ha_plan_snapshot *s = c->p->snapshot;
    int64_t count = 0, before = 0;

    for (int64_t j = 0; j < s->job_count && count < limit; j++) {
        const struct ha_plan_job *job = &s->jobs[j];
        struct kind *kind;
        int64_t victim;

        if (!ha_plan_may_start(job, c->p->now_ms) || job->grows || asks_again(c, job->group))
            continue;
        if (kind_of(c, job->fit, &kind) < 0)
            return -ENOMEM;
        /* Rooms on their way are for those that are considered first. */
        if (before++ < kind->coming)
            continue;
        victim = choose(c->p, kind, job->priority, wait_ms);
        if (victim < 0)
            continue;
        stop(c, victim);
        stops[count++] = (struct ha_preempt_stop){.victim = victim, .job = job->id};
    }
    return count;
}

static int prepare(struct chooser *c)
{
    int64_t jobs = c->p->snapshot->job_count, running = c->p->running_count;

    for (c->table = 16; c->table < 2 * jobs;)
        c->table *= 2;
    c->worker = ha_calloc(running, sizeof *c->worker);
    c->order = ha_calloc(running, sizeof *c->order);
    c->groups = ha_calloc(c->table, sizeof *c->groups);
    c->kinds = ha_calloc(jobs, sizeof *c->kinds);
    if (!c->worker || !c->order || !c->groups || !c->kinds)
        return -ENOMEM;
    for (int64_t i = 0; i < running; i++)
        c->order[i] = i;
    if (running > 0)
        qsort_r(c->order, (size_t)running, sizeof *c->order, by_turn, c->p->running);
    return find_workers(c);
}

int64_t ha_preempt_choose(struct ha_preempt *p, struct ha_preempt_stop *stops, int64_t limit,
                          int64_t *ret_wait_ms)
{
    struct chooser c = {.p = p};
    int64_t count = 0;

    *ret_wait_ms = 0;
    if (p->min_run_ms <= 0)
        return 0;
    count = prepare(&c);
    if (count == 0)
        count = choose_all(&c, stops, limit, ret_wait_ms);
    for (int64_t k = 0; k < c.n_kinds; k++)
        free(c.kinds[k].choice);
    free(c.worker);
    free(c.order);
    free(c.groups);
    free(c.kinds);
    return count;
}
