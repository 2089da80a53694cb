#include "coordinator/core/plan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "coordinator/core/plan_inside.h"
#include "coordinator/core/speed.h"

/* Workers count as equally fast within this factor, which may be chance, of the fastest; then those
 * within this factor of the fastest of the others, and so on. */
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

/* A power of two, at least twice the jobs. */
static int64_t table_size(int64_t jobs)
{
    int64_t size = 16;

    while (size < 2 * jobs)
        size *= 2;
    return size;
}

static int make_room(struct maker *m)
{
    int64_t jobs = m->snapshot->job_count;

    m->used = ha_calloc(m->snapshot->worker_count, sizeof *m->used);
    m->idle = ha_calloc(m->snapshot->worker_count, sizeof *m->idle);
    m->speeds = ha_calloc(2 * m->snapshot->worker_count, sizeof *m->speeds);
    m->levels = ha_calloc(2 * m->snapshot->worker_count, sizeof *m->levels);
    m->given = ha_calloc(jobs, sizeof *m->given);
    m->given_speeds = ha_calloc(jobs, sizeof *m->given_speeds);
    m->groups = ha_calloc(jobs, sizeof *m->groups);
    m->members = ha_calloc(jobs, sizeof *m->members);
    m->needs = ha_calloc(jobs, sizeof *m->needs);
    m->set_of = ha_calloc(jobs, sizeof *m->set_of);
    m->trial = ha_calloc(jobs, sizeof *m->trial);
    m->kinds = ha_calloc(jobs, sizeof *m->kinds);
    m->shares = ha_calloc(jobs, sizeof *m->shares);
    m->wants = ha_calloc(jobs, sizeof *m->wants);
    m->table = ha_calloc(table_size(jobs), sizeof *m->table);
    return m->used && m->idle && m->speeds && m->levels && m->given && m->given_speeds &&
                   m->groups && m->members && m->needs && m->set_of && m->trial && m->kinds &&
                   m->shares && m->wants && m->table
               ? 0
               : -ENOMEM;
}

static void clear(struct maker *m)
{
    free(m->used);
    free(m->idle);
    free(m->speeds);
    free(m->levels);
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
    for (int64_t i = 0; i < m->n_wants; i++)
        free(m->wants[i].ranks);
    free(m->wants);
    free(m->teams);
    free(m->by_island);
    free(m->table);
}

static void read_levels(const double *speeds, int64_t count, uint8_t *levels)
{
    double fastest = 0;

    for (int64_t w = 0; w < count; w++)
        fastest = speeds[w] > fastest ? speeds[w] : fastest;
    for (int64_t w = 0; w < count; w++) {
        double level = speeds[w] < fastest ? log(fastest / speeds[w]) / log(FASTER) : 0;

        levels[w] = (uint8_t)(level < HA_PLAN_SLOWEST ? level : HA_PLAN_SLOWEST);
    }
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
    for (int kind = 0; kind < 2; kind++)
        read_levels(m->speeds + kind * n, n, m->levels + kind * n);
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
        m->some_loaded = m->some_loaded || ha_plan_loaded(worker) != 0;
    }
}

/* What is free for jobs of one kind. */
static void count_kind(struct maker *m, struct kind *kind)
{
    for (int64_t w = 0; w < m->snapshot->worker_count; w++) {
        const struct ha_plan_worker *worker = &m->snapshot->workers[w];

        kind->fits[w] = worker->slots > m->used[w] && ha_plan_takes_work(worker) &&
                        ha_fit(kind->fit, &worker->offer);
        if (!kind->fits[w])
            continue;
        kind->slots += worker->slots - m->used[w];
        kind->devices += m->idle[w];
        if (worker->memory_bytes == 0)
            kind->blind = true;
        else if (kind->memory_bytes == 0 || worker->memory_bytes < kind->memory_bytes)
            kind->memory_bytes = worker->memory_bytes;
    }
}

static int64_t kind_of(struct maker *m, const struct ha_fit *fit)
{
    int64_t k = 0;

    while (k < m->n_kinds && !ha_fit_equal(m->kinds[k].fit, fit))
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
    m->shares[m->n_shares] = (struct share){.sweep = sweep, .first = -1};
    for (int64_t k = 0; k < s->share_count; k++)
        if (s->shares[k].sweep == sweep)
            m->shares[i].used = s->shares[k].used;
    return m->n_shares++;
}

static int64_t want_of(struct maker *m, int64_t kind, const struct ha_plan_job *job)
{
    bool answers = job->kind == HA_STAGE_GENERATE;
    int64_t i = 0;

    while (i < m->n_wants && (m->wants[i].kind != kind || m->wants[i].model != job->model ||
                              m->wants[i].answers != answers))
        i++;
    if (i == m->n_wants)
        m->wants[m->n_wants++] =
            (struct want){.kind = kind, .model = job->model, .answers = answers};
    return i;
}

/* Neighbours are mostly of one sweep. */
static int find_kinds(struct maker *m)
{
    int64_t workers = m->snapshot->worker_count;

    for (int64_t g = 0; g < m->n_groups; g++) {
        struct group *group = &m->groups[g];
        const struct group *last = g > 0 ? group - 1 : NULL;
        const struct ha_plan_job *job = group->first;
        bool same = last && last->first->sweep == job->sweep && last->first->fit == job->fit;

        group->kind = same ? last->kind : kind_of(m, job->fit);
        group->share = same ? last->share : share_of(m, job->sweep);
        group->want = same && last->first->model == job->model && last->first->kind == job->kind
                          ? last->want
                          : want_of(m, group->kind, job);
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

static int compare_groups(const void *a, const void *b)
{
    const struct group *x = a, *y = b;

    if (before(x, y) || before(y, x))
        return before(x, y) ? -1 : 1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* The job's group: found by its number and priority, or begun. */
static int64_t group_of(struct maker *m, const struct ha_plan_job *job)
{
    uint64_t mask = (uint64_t)table_size(m->snapshot->job_count) - 1;
    uint64_t at =
        ((uint64_t)job->group ^ (uint64_t)job->priority << 32) * 0x9e3779b97f4a7c15u >> 20;

    while (job->group != 0 && m->table[at & mask] != 0) {
        if (same_group(&m->groups[m->table[at & mask] - 1], job))
            return m->table[at & mask] - 1;
        at++;
    }
    m->groups[m->n_groups] = (struct group){.first = job, .nodes = ha_plan_nodes(job)};
    if (job->group != 0)
        m->table[at & mask] = m->n_groups + 1;
    return m->n_groups++;
}

static void find_groups(struct maker *m, int64_t now_ms)
{
    const struct ha_plan_snapshot *s = m->snapshot;
    int64_t begin = 0;

    for (int64_t j = 0; j < s->job_count; j++) {
        const struct ha_plan_job *job = &s->jobs[j];

        m->set_of[j] = ha_plan_may_start(job, now_ms) ? group_of(m, job) : -1;
        if (m->set_of[j] >= 0)
            m->groups[m->set_of[j]].count++;
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
    if (m->n_groups > 0)
        qsort(m->groups, (size_t)m->n_groups, sizeof *m->groups, compare_groups);
}

/* ---- first places --------------------------------------------------------------------- */

bool ha_plan_spent(const struct maker *m)
{
    return m->first_places > 0 && (m->work >= HA_PLAN_WORK || m->first_places >= m->limit);
}

/* Whose next group may have a first place: the sweep's with the smallest share.  Groups of a
 * sweep are of one kind, and here all of them grow or none does. */
static struct share *next_share(struct maker *m)
{
    struct share *next = NULL;

    for (int64_t i = 0; i < m->n_shares; i++) {
        struct share *share = &m->shares[i];
        const struct group *group = share->first < 0 ? NULL : &m->groups[share->first];
        const struct kind *kind = group ? &m->kinds[group->kind] : NULL;

        if (!group || kind->slots <= 0)
            continue;
        if (group->first->grows && kind->devices == 0)
            continue; /* company costs no time while its device is busy */
        if (!next || share->used < next->used ||
            (share->used == next->used && share->first < next->first))
            next = share;
    }
    return next;
}

/* It has its turn now. */
static void take_turn(struct maker *m, struct share *share, const struct group *group)
{
    int64_t *at = &share->first;

    while (&m->groups[*at] != group)
        at = &m->groups[*at].next;
    *at = group->next;
}

static int take_seats(struct maker *m, struct group *group)
{
    const int64_t *team = &m->teams[group->team];

    m->given[group->begin] = (struct given){team[0], 1, m->idle[team[0]] > 0};
    m->given_speeds[group->begin] = ha_plan_speed_at(m, team[0], group->first->kind);
    group->devices = 1;
    group->stuck = true;
    for (int64_t i = 0; i < group->nodes; i++)
        ha_plan_count_place(m, group, team[i], m->idle[team[i]] > 0, 1);
    return ha_plan_divide(m, group, &m->set_of[group->begin], &group->finish);
}

/* All workers of a gang, or none: then the first such gang keeps what is free of those that it
 * waits for. */
static int give_gang(struct maker *m, struct group *group)
{
    bool waited = m->kept.job != NULL;
    int r = ha_plan_gang_seat(m, group);

    if (r > 0)
        return take_seats(m, group);
    for (int64_t i = 0; i < m->kept.count && !waited; i++) {
        int64_t w = m->kept.workers[i];

        ha_plan_count_place(m, group, w, m->idle[w] > 0, 1);
        m->shares[group->share].used--; /* it has them not yet */
    }
    return r;
}

/* Groups [begin, end) come in the same breath. */
static int give(struct maker *m, int64_t begin, int64_t end)
{
    struct share *share;

    for (int64_t i = 0; i < m->n_shares; i++)
        m->shares[i].first = -1;
    for (int64_t g = end; g-- > begin;) {
        m->groups[g].next = m->shares[m->groups[g].share].first;
        m->shares[m->groups[g].share].first = g;
    }
    while (m->slots > 0 && (share = next_share(m))) {
        struct group *group = &m->groups[share->first];
        int r = 0;

        if (ha_plan_spent(m))
            return 0; /* their turn comes in the next plan */
        if (group->nodes == 1)
            r = ha_plan_place_first(m, share, &group);
        if (r == 0)
            r = group->nodes > 1 ? give_gang(m, group) : ha_plan_settle(m, group, 1);
        if (r < 0)
            return r;
        m->first_places += group->devices > 0 ? group->nodes : 0;
        take_turn(m, share, group);
    }
    return ha_plan_give_more(m, begin, end);
}

/* ---- who gets them ---------------------------------------------------------------------- */

/* The jobs of the group that are in the set, in order, to one worker: the first takes the
 * others over.  False: no room is left in the plan. */
static bool assign(struct maker *m, const struct group *group, int64_t set, int64_t w)
{
    int64_t into = 0, size = group->nodes - 1;

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
    for (int64_t i = 1; i < group->nodes; i++)
        m->out[m->count++] = (struct ha_plan_assignment){
            .job = into,
            .worker = m->snapshot->workers[m->teams[group->team + i]].id,
            .into = into,
            .part = i};
    return true;
}

/* The first set of each place; the others wait until it is free.  0: no room is left in the
 * plan. */
static int assign_group(struct maker *m, const struct group *group)
{
    struct ha_fuse_group fuse = ha_plan_fuse_group(m, group);
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
    while (begin < m->n_groups && m->slots > 0 && !ha_plan_spent(m)) {
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
