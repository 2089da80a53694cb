#include "coordinator/core/preempt.h"

#include <stddef.h>

static const struct ha_plan_worker *find_worker(const struct ha_plan_snapshot *s, int64_t id)
{
    for (int64_t w = 0; w < s->worker_count; w++) {
        if (s->workers[w].id == id)
            return &s->workers[w];
    }
    return NULL;
}

static bool could_run(const struct ha_plan_worker *worker, const struct ha_plan_job *job)
{
    return worker && ha_plan_takes_work(worker) && ha_fit(job->fit, &worker->offer);
}

/* Rooms that will come free by themselves for jobs so urgent: free slots and stops under way. */
static int64_t coming(const struct ha_preempt *p, const struct ha_plan_job *job)
{
    const struct ha_plan_snapshot *s = p->snapshot;
    int64_t count = 0;

    for (int64_t w = 0; w < s->worker_count; w++) {
        if (could_run(&s->workers[w], job) && s->workers[w].slots > s->workers[w].used)
            count += s->workers[w].slots - s->workers[w].used;
    }
    for (int64_t i = 0; i < p->running_count; i++)
        count += p->running[i].stopping && could_run(find_worker(s, p->running[i].worker), job);
    return count;
}

/* The attempt to stop for the job, or -1.  One that is too young shortens the wait. */
static int64_t choose(const struct ha_preempt *p, const struct ha_plan_job *job, int64_t *wait_ms)
{
    int64_t best = -1;

    for (int64_t i = 0; i < p->running_count; i++) {
        const struct ha_preempt_running *r = &p->running[i];
        int64_t left_ms = p->min_run_ms - r->ran_ms;

        if (r->stopping || r->priority >= job->priority ||
            !could_run(find_worker(p->snapshot, r->worker), job))
            continue;
        if (left_ms > 0) {
            *wait_ms = *wait_ms == 0 || left_ms < *wait_ms ? left_ms : *wait_ms;
            continue;
        }
        if (best < 0 || r->priority < p->running[best].priority ||
            (r->priority == p->running[best].priority && r->ran_ms < p->running[best].ran_ms))
            best = i;
    }
    return best;
}

/* A group of jobs asks once. */
static bool asked_before(const struct ha_plan_snapshot *s, int64_t index)
{
    for (int64_t j = 0; j < index; j++) {
        if (s->jobs[index].group != 0 && s->jobs[j].group == s->jobs[index].group)
            return true;
    }
    return false;
}

int64_t ha_preempt_choose(struct ha_preempt *p, struct ha_preempt_stop *stops, int64_t limit,
                          int64_t *ret_wait_ms)
{
    const struct ha_plan_snapshot *s = p->snapshot;
    int64_t count = 0, before = 0;

    *ret_wait_ms = 0;
    for (int64_t j = 0; p->min_run_ms > 0 && j < s->job_count && count < limit; j++) {
        const struct ha_plan_job *job = &s->jobs[j];
        int64_t victim;

        if (!ha_plan_may_start(job, p->now_ms) || job->grows || asked_before(s, j))
            continue;
        /* Rooms on their way are for those that are considered first. */
        if (before++ < coming(p, job))
            continue;
        victim = choose(p, job, ret_wait_ms);
        if (victim < 0)
            continue;
        p->running[victim].stopping = true;
        stops[count++] = (struct ha_preempt_stop){.victim = victim, .job = job->id};
    }
    return count;
}
