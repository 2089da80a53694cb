#include "coordinator/core/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"
#include "coordinator/core/speed.h"

/* A worker counts as faster than another from here on; less may be chance. */
static const double FASTER = 1.1;

/* What stands in the way of a ready job, before any worker is looked at. */
enum gate { GATE_OPEN, GATE_STATE, GATE_HELD, GATE_BACKOFF };

static enum gate job_gate(const struct ha_plan_job *job, int64_t now_ms)
{
    if (job->state != HA_JOB_READY)
        return GATE_STATE;
    if (job->held)
        return GATE_HELD;
    return job->not_before_ms > now_ms ? GATE_BACKOFF : GATE_OPEN;
}

static bool takes_work(const struct ha_plan_worker *worker)
{
    return worker->connected && worker->liveness == HA_ALIVE && !worker->draining;
}

static bool is_warm(const struct ha_plan_worker *worker, int64_t model)
{
    for (int i = 0; i < HA_PLAN_WARM; i++) {
        if (worker->warm[i] == model && model != 0)
            return true;
    }
    return false;
}

static int64_t free_devices(const struct ha_plan_worker *worker)
{
    int64_t devices = (worker->devices > 0 ? worker->devices : worker->slots) - worker->used;
    int64_t free_slots = worker->slots - worker->used;

    if (devices > free_slots)
        devices = free_slots;
    return devices > 0 ? devices : 0;
}

int ha_plan_order(const struct ha_plan_job *a, const struct ha_plan_job *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    if (a->turn != b->turn)
        return a->turn < b->turn ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* ---- groups ------------------------------------------------------------------------- */

/* A place where a job may run now. */
struct given {
    int64_t worker; /* index */
    int64_t order;  /* of the group's, in which they were taken */
    bool idle;      /* it is an idle device of the worker's, not only a slot */
};

/* Jobs that may become one, or one job by itself. */
struct group {
    const struct ha_plan_job *first;
    int64_t begin, count; /* in maker.members */
    int64_t devices;      /* given to it: that many of maker.given */
    int64_t sets;         /* that they are divided into */
    double finish;
    int64_t next_devices; /* the least that make it end sooner; 0: none do */
};

struct maker {
    const struct ha_plan_snapshot *snapshot;
    int64_t *used, *idle; /* per worker: slots and devices; this plan takes some too */
    double *speeds;       /* (2, workers): at training, at answering; NULL: nothing is known */
    struct group *groups; /* in order: priority, groups that grow last, first job */
    int64_t n_groups;
    const struct ha_plan_job **members; /* group by group */
    struct ha_fuse_need *needs;         /* beside members */
    int64_t *set_of, *trial;            /* beside members */
    struct given *given;    /* beside members: devices of the group, the fastest first */
    double *given_speeds;   /* beside given */
    int64_t slots, devices; /* that are free */
    int64_t memory_bytes;   /* the least of the workers with free slots; 0: not known */
    struct ha_plan_assignment *out;
    int64_t count, limit;
};

static int make_room(struct maker *m)
{
    int64_t jobs = m->snapshot->job_count;

    m->used = ha_calloc(m->snapshot->worker_count, sizeof *m->used);
    m->idle = ha_calloc(m->snapshot->worker_count, sizeof *m->idle);
    m->speeds = ha_calloc(2 * m->snapshot->worker_count, sizeof *m->speeds);
    m->given = ha_calloc(jobs, sizeof *m->given);
    m->given_speeds = ha_calloc(jobs, sizeof *m->given_speeds);
    m->groups = ha_calloc(jobs, sizeof *m->groups);
    m->members = ha_calloc(jobs, sizeof *m->members);
    m->needs = ha_calloc(jobs, sizeof *m->needs);
    m->set_of = ha_calloc(jobs, sizeof *m->set_of);
    m->trial = ha_calloc(jobs, sizeof *m->trial);
    return m->used && m->idle && m->speeds && m->given && m->given_speeds && m->groups &&
                   m->members && m->needs && m->set_of && m->trial
               ? 0
               : -ENOMEM;
}

static void clear(struct maker *m)
{
    free(m->used);
    free(m->idle);
    free(m->speeds);
    free(m->given);
    free(m->given_speeds);
    free(m->groups);
    free(m->members);
    free(m->needs);
    free(m->set_of);
    free(m->trial);
}

/* What the workers do, in FLOP/s where anything is known of any of them, else 1 each. */
static void read_speeds(struct maker *m)
{
    int64_t n = m->snapshot->worker_count;
    bool known[2];

    for (int64_t w = 0; w < n; w++) {
        m->speeds[w] = m->snapshot->workers[w].train_speed;
        m->speeds[n + w] = m->snapshot->workers[w].generate_speed;
    }
    for (int kind = 0; kind < 2; kind++)
        known[kind] = ha_speed_fill(m->speeds + kind * n, n);
    for (int64_t i = 0; i < 2 * n; i++)
        if (!known[i / n])
            m->speeds[i] = known[i < n] ? m->speeds[(i + n) % (2 * n)] : 1;
}

static double speed_at(const struct maker *m, int64_t worker, enum ha_stage_kind kind)
{
    return m->speeds[(kind == HA_STAGE_GENERATE ? m->snapshot->worker_count : 0) + worker];
}

static void count_free(struct maker *m)
{
    bool known = true;

    for (int64_t w = 0; w < m->snapshot->worker_count; w++) {
        const struct ha_plan_worker *worker = &m->snapshot->workers[w];
        int64_t free_slots = worker->slots - worker->used;

        m->used[w] = worker->used;
        if (!takes_work(worker) || free_slots <= 0)
            continue;
        m->slots += free_slots;
        m->idle[w] = free_devices(worker);
        m->devices += m->idle[w];
        known = known && worker->memory_bytes > 0;
        if (m->memory_bytes == 0 || worker->memory_bytes < m->memory_bytes)
            m->memory_bytes = worker->memory_bytes;
    }
    if (!known)
        m->memory_bytes = 0;
}

static bool same_group(const struct group *group, const struct ha_plan_job *job)
{
    return job->group != 0 && group->first->group == job->group &&
           group->first->priority == job->priority;
}

/* May group a come before b?  Equal ones stay as they are. */
static bool before(const struct group *a, const struct group *b)
{
    if (a->first->priority != b->first->priority)
        return a->first->priority > b->first->priority;
    return !a->first->grows && b->first->grows;
}

static void sort_groups(struct maker *m)
{
    for (int64_t i = 1; i < m->n_groups; i++) {
        struct group group = m->groups[i];
        int64_t at = i;

        for (; at > 0 && before(&group, &m->groups[at - 1]); at--)
            m->groups[at] = m->groups[at - 1];
        m->groups[at] = group;
    }
}

static void find_groups(struct maker *m, int64_t now_ms)
{
    const struct ha_plan_snapshot *s = m->snapshot;
    int64_t begin = 0;

    for (int64_t j = 0; j < s->job_count; j++) {
        const struct ha_plan_job *job = &s->jobs[j];
        int64_t g = 0;

        m->set_of[j] = -1; /* no group */
        if (job_gate(job, now_ms) != GATE_OPEN)
            continue;
        while (g < m->n_groups && !same_group(&m->groups[g], job))
            g++;
        if (g == m->n_groups)
            m->groups[m->n_groups++] = (struct group){.first = job};
        m->set_of[j] = g;
        m->groups[g].count++;
    }
    for (int64_t g = 0; g < m->n_groups; g++) {
        m->groups[g].begin = begin;
        begin += m->groups[g].count;
        m->groups[g].count = 0;
    }
    for (int64_t j = 0; j < s->job_count; j++) {
        struct group *group = m->set_of[j] < 0 ? NULL : &m->groups[m->set_of[j]];

        if (!group)
            continue;
        m->members[group->begin + group->count] = &s->jobs[j];
        m->needs[group->begin + group->count++] = s->jobs[j].need;
    }
    sort_groups(m);
}

/* ---- places --------------------------------------------------------------------------- */

/* Is worker a the better place of two with free slots?  An idle device beats one that works
 * already, then a faster one a slower, one that has the model, one with more free slots. */
static bool better_place(const struct maker *m, const struct ha_plan_job *job, int64_t a, int64_t b)
{
    const struct ha_plan_worker *workers = m->snapshot->workers;
    double fast = speed_at(m, a, job->kind), slow = speed_at(m, b, job->kind);
    bool warm = is_warm(&workers[a], job->model), other = is_warm(&workers[b], job->model);

    if ((m->idle[a] > 0) != (m->idle[b] > 0))
        return m->idle[a] > 0;
    if (fast > slow * FASTER || slow > fast * FASTER)
        return fast > slow;
    if (warm != other)
        return warm;
    return workers[a].slots - m->used[a] > workers[b].slots - m->used[b];
}

/* Gives the group one more place; there is a free slot. */
static void take_place(struct maker *m, struct group *group)
{
    struct given *given = &m->given[group->begin];
    double *speeds = &m->given_speeds[group->begin], speed;
    int64_t best = -1, at = group->devices++;

    for (int64_t w = 0; w < m->snapshot->worker_count; w++) {
        const struct ha_plan_worker *worker = &m->snapshot->workers[w];

        if (!takes_work(worker) || worker->slots <= m->used[w])
            continue;
        if (best < 0 || better_place(m, group->first, w, best))
            best = w;
    }
    speed = speed_at(m, best, group->first->kind);
    for (; at > 0 && speeds[at - 1] < speed; at--) {
        given[at] = given[at - 1];
        speeds[at] = speeds[at - 1];
    }
    given[at] = (struct given){best, group->devices, m->idle[best] > 0};
    speeds[at] = speed;
    m->used[best]++;
    m->slots--;
    m->idle[best] -= given[at].idle;
    m->devices -= given[at].idle;
}

/* Gives the place back that was taken last. */
static void return_place(struct maker *m, struct group *group)
{
    struct given *given = &m->given[group->begin];
    double *speeds = &m->given_speeds[group->begin];
    int64_t at = 0;

    while (given[at].order != group->devices)
        at++;
    m->used[given[at].worker]--;
    m->slots++;
    m->idle[given[at].worker] += given[at].idle;
    m->devices += given[at].idle;
    group->devices--;
    for (; at < group->devices; at++) {
        given[at] = given[at + 1];
        speeds[at] = speeds[at + 1];
    }
}

/* ---- how many devices each group gets ------------------------------------------------ */

static struct ha_fuse_group fuse_group(const struct maker *m, const struct group *group)
{
    return (struct ha_fuse_group){.cells = &m->needs[group->begin],
                                  .count = group->count,
                                  .memory_bytes = m->memory_bytes,
                                  .mode = group->first->fuse,
                                  .speeds = &m->given_speeds[group->begin]};
}

/* Over the places that it has now. */
static int divide(struct maker *m, struct group *group, int64_t *set_of, double *ret_finish)
{
    struct ha_fuse_group fuse = fuse_group(m, group);
    int64_t sets = ha_fuse_choose(&fuse, group->devices, set_of, ret_finish);

    if (sets < 0)
        return -ENOMEM;
    group->sets = sets;
    return 0;
}

/* The least number of devices with which the group ends sooner than now, out of
 * so many more. */
static int look_ahead(struct maker *m, struct group *group, int64_t more)
{
    int64_t sets = group->sets, devices = group->devices;
    int r = 0;

    group->next_devices = 0;
    while (r == 0 && group->next_devices == 0 && group->devices < devices + more &&
           group->devices < group->count) {
        double finish;

        take_place(m, group);
        r = divide(m, group, m->trial, &finish);
        if (r == 0 && finish < group->finish * (1 - 1e-9))
            group->next_devices = group->devices;
    }
    while (group->devices > devices)
        return_place(m, group);
    group->sets = sets;
    return r;
}

static int settle(struct maker *m, struct group *group, int64_t devices)
{
    while (group->devices < devices)
        take_place(m, group);
    return divide(m, group, &m->set_of[group->begin], &group->finish);
}

/* Idle devices to the group that ends last, while that helps. */
static int give_more(struct maker *m, int64_t begin, int64_t end)
{
    for (;;) {
        int64_t more = m->devices < m->slots ? m->devices : m->slots;
        struct group *last = NULL;
        int r = 0;

        for (int64_t g = begin; r == 0 && more > 0 && g < end; g++) {
            struct group *group = &m->groups[g];

            if (group->devices == 0 || group->count == 1)
                continue;
            r = look_ahead(m, group, more);
            if (group->next_devices > 0 && (!last || group->finish > last->finish))
                last = group;
        }
        if (r < 0 || !last)
            return r;
        r = settle(m, last, last->next_devices);
        if (r < 0)
            return r;
    }
}

/* Groups [begin, end) come in the same breath. */
static int give(struct maker *m, int64_t begin, int64_t end)
{
    for (int64_t g = begin; g < end && m->slots > 0; g++) {
        int r;

        if (m->groups[g].first->grows && m->devices == 0)
            continue; /* company costs no time while its device is busy */
        r = settle(m, &m->groups[g], 1);
        if (r < 0)
            return r;
    }
    return give_more(m, begin, end);
}

/* ---- who gets them ---------------------------------------------------------------------- */

/* The jobs of the group that are in the set, in order, to one worker: the first takes the
 * others over.  False: no room is left in the plan. */
static bool assign(struct maker *m, const struct group *group, int64_t set, int64_t w)
{
    int64_t into = 0, size = 0;

    for (int64_t i = 0; i < group->count; i++)
        size += m->set_of[group->begin + i] == set;
    if (m->count + size > m->limit)
        return false;
    for (int64_t i = 0; i < group->count; i++) {
        int64_t job = m->members[group->begin + i]->id;

        if (m->set_of[group->begin + i] != set)
            continue;
        into = into == 0 ? job : into;
        m->out[m->count++] = (struct ha_plan_assignment){
            .job = job, .worker = m->snapshot->workers[w].id, .into = into};
    }
    return true;
}

/* The first set of each place; the others wait until it is free.  0: no room is left in the
 * plan. */
static int assign_group(struct maker *m, const struct group *group)
{
    struct ha_fuse_group fuse = fuse_group(m, group);
    const int64_t *set_of = &m->set_of[group->begin];
    int64_t *place_of = &m->trial[group->begin]; /* of each set */
    int r = ha_fuse_place(&fuse, set_of, group->sets, group->devices, place_of, NULL);

    for (int64_t set = 0; r == 0 && set < group->sets; set++) {
        bool first = true;

        for (int64_t i = 0; i < set; i++)
            first = first && place_of[i] != place_of[set];
        if (first && !assign(m, group, set, m->given[group->begin + place_of[set]].worker))
            return 0;
    }
    return r < 0 ? r : 1;
}

static int make(struct maker *m, int64_t now_ms)
{
    int64_t begin = 0;
    int r = 0;

    read_speeds(m);
    count_free(m);
    find_groups(m, now_ms);
    while (begin < m->n_groups && m->slots > 0) {
        int64_t end = begin + 1;

        while (end < m->n_groups && !before(&m->groups[end - 1], &m->groups[end]))
            end++;
        r = give(m, begin, end);
        if (r < 0)
            return r;
        begin = end;
    }
    r = 1;
    for (int64_t g = 0; r > 0 && g < m->n_groups; g++)
        if (m->groups[g].devices > 0)
            r = assign_group(m, &m->groups[g]);
    return r < 0 ? r : 0;
}

int64_t ha_plan_make(const struct ha_plan_snapshot *snapshot, int64_t now_ms,
                     struct ha_plan_assignment *assignments, int64_t limit)
{
    struct maker m = {.snapshot = snapshot, .out = assignments, .limit = limit};
    int r = make_room(&m);

    if (r == 0)
        r = make(&m, now_ms);
    clear(&m);
    return r < 0 ? r : m.count;
}

static int why_no_worker(const struct ha_plan_snapshot *s, const struct ha_plan_job *job,
                         struct ha_buffer *out)
{
    int64_t slots = 0, used = 0, devices = 0, draining = 0, silent = 0;
    const struct ha_plan_worker *quiet = NULL, *drained = NULL;

    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];

        if (takes_work(worker)) {
            slots += worker->slots;
            used += worker->used;
            devices += free_devices(worker);
        } else if (worker->liveness != HA_LOST && worker->draining) {
            draining++;
            drained = worker->drained_by ? worker : drained;
        } else if (worker->liveness != HA_LOST) {
            silent++;
            quiet = worker;
        }
    }
    if (slots > used && job->grows && devices == 0)
        return ha_buffer_append_text(out, "waiting for other cells of its model, to answer "
                                          "together with them");
    if (slots > used)
        return ha_buffer_append_text(out, "about to start");
    if (slots > 0 && slots == 1)
        return ha_buffer_append_text(out, "the only slot is busy");
    if (slots > 0)
        return ha_buffer_printf(out, "all %" PRId64 " slots are busy", slots);
    if (silent == 1)
        return ha_buffer_printf(out, "worker %s has been silent for %" PRId64 " s", quiet->name,
                                quiet->silent_ms / 1000);
    if (silent > 1)
        return ha_buffer_printf(out, "all %" PRId64 " workers have been silent for a while",
                                silent);
    if (draining > 0 && drained)
        return ha_buffer_printf(out, "%sworker %s is drained by %s",
                                draining == 1 ? "the only " : "no worker takes work: ",
                                drained->name, drained->drained_by);
    if (draining > 0)
        return ha_buffer_append_text(out, draining == 1 ? "the only worker is draining"
                                                        : "every worker is draining");
    return ha_buffer_append_text(out, "no worker is connected");
}

static int why_state(const struct ha_plan_job *job, struct ha_buffer *out)
{
    switch (job->state) {
    case HA_JOB_WAITING:
        return ha_buffer_printf(out, "waiting for %s",
                                job->waits_for ? job->waits_for : "its turn");
    case HA_JOB_LEASED:
    case HA_JOB_RUNNING:
        if (job->stopping && job->stopping[0])
            return ha_buffer_printf(out, "stopping at a checkpoint: %s", job->stopping);
        return job->state == HA_JOB_RUNNING ? 0 : ha_buffer_append_text(out, "granted, starting");
    case HA_JOB_DONE:
        return 0;
    case HA_JOB_HELD:
        return ha_buffer_printf(out, "held: %s", job->reason);
    default:
        return ha_buffer_append_text(out, job->reason);
    }
}

int ha_plan_why(const struct ha_plan_snapshot *snapshot, const struct ha_plan_job *job,
                int64_t now_ms, struct ha_buffer *out)
{
    switch (job_gate(job, now_ms)) {
    case GATE_STATE:
        return why_state(job, out);
    case GATE_HELD:
        return ha_buffer_printf(out, "held by %s", job->held);
    case GATE_BACKOFF:
        return ha_buffer_printf(out, "retry in %" PRId64 " s after %s",
                                (job->not_before_ms - now_ms + 999) / 1000, job->reason);
    default:
        return why_no_worker(snapshot, job, out);
    }
}

int ha_plan_why_judging(const struct ha_plan_judging *j, struct ha_buffer *out)
{
    int64_t open = j->total - j->scored - j->failed;

    if (j->answers_complete && open <= 0)
        return 0;
    if (j->held)
        return ha_buffer_printf(out, "held by %s", j->held);
    if (j->trouble[0] && j->ready + j->leased > 0)
        return ha_buffer_printf(out, "the evaluator cannot be asked now: %s", j->trouble);
    if (j->leased > 0)
        return 0;
    if (j->ready > 0 && j->stop[0])
        return ha_buffer_append_text(out, j->stop);
    if (j->ready > 0 && j->judges == 0)
        return ha_buffer_append_text(out, "no judge worker is connected");
    if (j->ready > 0)
        return ha_buffer_printf(out, "%" PRId64 " answers wait for a judge worker", j->ready);
    if (j->blocked > 0)
        return ha_buffer_append_text(
            out, "waiting until every cell of the model has answered the same prompts");
    return ha_buffer_printf(out, "waiting for answers%s%s", j->answers_why[0] ? ": " : "",
                            j->answers_why);
}
