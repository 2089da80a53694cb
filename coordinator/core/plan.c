#include "coordinator/core/plan.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "coordinator/core/speed.h"

/* A worker counts as faster than another from here on; less may be chance. */
static const double FASTER = 1.1;

bool ha_plan_may_start(const struct ha_plan_job *job, int64_t now_ms)
{
    return job->state == HA_JOB_READY && !job->held && !job->expanding &&
           job->not_before_ms <= now_ms;
}

bool ha_plan_takes_work(const struct ha_plan_worker *worker)
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

int64_t ha_plan_free_devices(const struct ha_plan_worker *worker)
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
    int64_t kind;         /* in maker.kinds */
    int64_t share;        /* in maker.shares */
    bool asked;           /* it had its turn at a first place */
};

/* Jobs that need the same of a worker. */
struct kind {
    const struct ha_fit *fit;
    bool *fits;             /* per worker that takes work */
    int64_t slots, devices; /* that are free */
    int64_t memory_bytes;   /* the least of the workers with free slots; 0: not known */
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
    struct given *given;  /* beside members: devices of the group, the fastest first */
    double *given_speeds; /* beside given */
    struct kind *kinds;
    int64_t n_kinds;
    bool *fits;                   /* of all kinds */
    struct ha_plan_share *shares; /* with what this plan gives */
    int64_t n_shares;
    int64_t slots; /* that are free */
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
    m->kinds = ha_calloc(jobs, sizeof *m->kinds);
    m->shares = ha_calloc(jobs, sizeof *m->shares);
    return m->used && m->idle && m->speeds && m->given && m->given_speeds && m->groups &&
                   m->members && m->needs && m->set_of && m->trial && m->kinds && m->shares
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
    free(m->kinds);
    free(m->fits);
    free(m->shares);
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
    for (int64_t w = 0; w < m->snapshot->worker_count; w++) {
        const struct ha_plan_worker *worker = &m->snapshot->workers[w];
        int64_t free_slots = worker->slots - worker->used;

        m->used[w] = worker->used;
        if (!ha_plan_takes_work(worker) || free_slots <= 0)
            continue;
        m->slots += free_slots;
        m->idle[w] = ha_plan_free_devices(worker);
    }
}

/* What is free for jobs of one kind. */
static void count_kind(struct maker *m, struct kind *kind)
{
    bool known = true;

    for (int64_t w = 0; w < m->snapshot->worker_count; w++) {
        const struct ha_plan_worker *worker = &m->snapshot->workers[w];

        kind->fits[w] = ha_plan_takes_work(worker) && ha_fit(kind->fit, &worker->offer);
        if (!kind->fits[w] || worker->slots <= m->used[w])
            continue;
        kind->slots += worker->slots - m->used[w];
        kind->devices += m->idle[w];
        known = known && worker->memory_bytes > 0;
        if (kind->memory_bytes == 0 || worker->memory_bytes < kind->memory_bytes)
            kind->memory_bytes = worker->memory_bytes;
    }
    if (!known)
        kind->memory_bytes = 0;
}

static int64_t kind_of(struct maker *m, const struct ha_fit *fit)
{
    int64_t k = 0;

    while (k < m->n_kinds && m->kinds[k].fit != fit)
        k++;
    if (k == m->n_kinds)
        m->kinds[m->n_kinds++].fit = fit;
    return k;
}

static int64_t share_of(struct maker *m, int64_t sweep)
{
    const struct ha_plan_snapshot *s = m->snapshot;
    int64_t i = 0;

    while (i < m->n_shares && m->shares[i].sweep != sweep)
        i++;
    if (i < m->n_shares)
        return i;
    m->shares[m->n_shares].sweep = sweep;
    for (int64_t k = 0; k < s->share_count; k++)
        if (s->shares[k].sweep == sweep)
            m->shares[i].used = s->shares[k].used;
    return m->n_shares++;
}

static int find_kinds(struct maker *m)
{
    int64_t workers = m->snapshot->worker_count;

    for (int64_t g = 0; g < m->n_groups; g++) {
        m->groups[g].kind = kind_of(m, m->groups[g].first->fit);
        m->groups[g].share = share_of(m, m->groups[g].first->sweep);
    }
    m->fits = ha_calloc(m->n_kinds * workers + 1, sizeof *m->fits);
    if (!m->fits)
        return -ENOMEM;
    for (int64_t k = 0; k < m->n_kinds; k++) {
        m->kinds[k].fits = m->fits + k * workers;
        count_kind(m, &m->kinds[k]);
    }
    return 0;
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
        if (!ha_plan_may_start(job, now_ms))
            continue;
        while (job->group != 0 && g < m->n_groups && !same_group(&m->groups[g], job))
            g++;
        g = job->group != 0 ? g : m->n_groups;
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

/* One place of a worker more (1) or less (-1) is taken for a group. */
static void count_place(struct maker *m, const struct group *group, int64_t w, bool idle,
                        int64_t change)
{
    m->used[w] += change;
    m->slots -= change;
    m->idle[w] -= idle ? change : 0;
    m->shares[group->share].used += change;
    for (int64_t k = 0; k < m->n_kinds; k++) {
        if (!m->kinds[k].fits[w])
            continue;
        m->kinds[k].slots -= change;
        m->kinds[k].devices -= idle ? change : 0;
    }
}

/* Gives the group one more place; there is a free slot of its kind. */
static void take_place(struct maker *m, struct group *group)
{
    struct given *given = &m->given[group->begin];
    double *speeds = &m->given_speeds[group->begin], speed;
    int64_t best = -1, at = group->devices++;

    for (int64_t w = 0; w < m->snapshot->worker_count; w++) {
        if (!m->kinds[group->kind].fits[w] || m->snapshot->workers[w].slots <= m->used[w])
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
    count_place(m, group, best, given[at].idle, 1);
}

/* Gives the place back that was taken last. */
static void return_place(struct maker *m, struct group *group)
{
    struct given *given = &m->given[group->begin];
    double *speeds = &m->given_speeds[group->begin];
    int64_t at = 0;

    while (given[at].order != group->devices)
        at++;
    count_place(m, group, given[at].worker, given[at].idle, -1);
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
                                  .memory_bytes = m->kinds[group->kind].memory_bytes,
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
        struct group *last = NULL;
        int r = 0;

        for (int64_t g = begin; r == 0 && g < end; g++) {
            struct group *group = &m->groups[g];
            const struct kind *kind = &m->kinds[group->kind];
            int64_t more = kind->devices < kind->slots ? kind->devices : kind->slots;

            if (group->devices == 0 || group->count == 1 || more <= 0)
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

/* The next group that may have a first place: of the sweep with the smallest share. */
static struct group *next_group(struct maker *m, int64_t begin, int64_t end)
{
    struct group *next = NULL;

    for (int64_t g = begin; g < end; g++) {
        struct group *group = &m->groups[g];
        const struct kind *kind = &m->kinds[group->kind];

        if (group->asked || kind->slots <= 0)
            continue;
        if (group->first->grows && kind->devices == 0)
            continue; /* company costs no time while its device is busy */
        if (!next || m->shares[group->share].used < m->shares[next->share].used)
            next = group;
    }
    return next;
}

/* Groups [begin, end) come in the same breath. */
static int give(struct maker *m, int64_t begin, int64_t end)
{
    struct group *group;

    while (m->slots > 0 && (group = next_group(m, begin, end))) {
        int r = settle(m, group, 1);

        if (r < 0)
            return r;
        group->asked = true;
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
    r = find_kinds(m);
    if (r < 0)
        return r;
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
