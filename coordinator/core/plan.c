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

/* Below this part of the finish, two groups end at the same time. */
static const double SAME = 1e-9;

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

/* ---- places --------------------------------------------------------------------------- */

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

/* Gives the group one more place; there is a free slot of its kind.  -ENOMEM. */
static int take_place(struct maker *m, struct group *group)
{
    struct given *given = &m->given[group->begin];
    double *speeds = &m->given_speeds[group->begin], speed;
    struct want *want = &m->wants[group->want];
    int64_t best, at;

    if (!want->ranks && ha_plan_places_make(m, want) < 0)
        return -ENOMEM;
    best = ha_plan_place_best(m, want);
    at = group->devices++;
    speed = speed_at(m, best, group->first->kind);
    for (; at > 0 && speeds[at - 1] < speed; at--) {
        given[at] = given[at - 1];
        speeds[at] = speeds[at - 1];
    }
    given[at] = (struct given){best, group->devices, m->idle[best] > 0};
    speeds[at] = speed;
    count_place(m, group, best, given[at].idle, 1);
    return 0;
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
    ha_plan_place_back(m, &m->wants[group->want], given[at].worker);
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
                                  .blind = m->kinds[group->kind].blind,
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

/* What would its finish be with so many? */
static int try_devices(struct maker *m, struct group *group, int64_t devices, double *ret_finish)
{
    int r = 0;

    while (r == 0 && group->devices < devices)
        r = take_place(m, group);
    while (group->devices > devices)
        return_place(m, group);
    return r < 0 ? r : divide(m, group, m->trial, ret_finish);
}

/* The least number of devices with which the group ends sooner than now, and by the target if it
 * can, else as soon as it can, out of so many more.  More devices do not make it end later. */
static int look_ahead(struct maker *m, struct group *group, int64_t more, double target)
{
    int64_t sets = group->sets, devices = group->devices, low = devices, high = devices + more;
    double sooner = group->finish * (1 - SAME), goal = 0;
    int r;

    if (high > group->count)
        high = group->count;
    group->next_devices = 0;
    r = try_devices(m, group, high, &goal);
    if (r == 0 && goal < sooner) {
        group->next_devices = high;
        goal = (goal > target ? goal : target) * (1 + SAME);
    }
    while (r == 0 && group->next_devices > 0 && high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        double finish = 0;

        r = try_devices(m, group, middle, &finish);
        if (finish < sooner && finish <= goal)
            group->next_devices = high = middle;
        else
            low = middle;
    }
    while (group->devices > devices)
        return_place(m, group);
    group->sets = sets;
    return r;
}

static int settle(struct maker *m, struct group *group, int64_t devices)
{
    int r = 0;

    while (r == 0 && group->devices < devices)
        r = take_place(m, group);
    return r < 0 ? r : divide(m, group, &m->set_of[group->begin], &group->finish);
}

static int64_t idle_for(const struct maker *m, const struct group *group)
{
    const struct kind *kind = &m->kinds[group->kind];

    return kind->devices < kind->slots ? kind->devices : kind->slots;
}

/* The group that ends last of those that may end sooner with more devices; *ret_target: when the
 * one after it ends, or 0 when there are devices for every cell of all of them. */
static struct group *last_group(struct maker *m, int64_t begin, int64_t end, double *ret_target)
{
    struct group *last = NULL;
    int64_t wanted = 0;

    *ret_target = 0;
    for (int64_t g = begin; g < end; g++) {
        struct group *group = &m->groups[g];
        bool may = group->devices > 0 && group->devices < group->count && !group->stuck;

        wanted += may ? group->count - group->devices : 0;
        if (may && (!last || group->finish > last->finish)) {
            *ret_target = last ? last->finish : *ret_target;
            last = group;
        } else if (group->devices > 0 && group->finish > *ret_target) {
            *ret_target = group->finish;
        }
    }
    if (last && wanted <= idle_for(m, last))
        *ret_target = 0;
    return last;
}

/* Idle devices to the group that ends last, while that helps. */
static int give_more(struct maker *m, int64_t begin, int64_t end)
{
    struct group *last;
    double target;
    int r = 0;

    while (r == 0 && (last = last_group(m, begin, end, &target))) {
        int64_t more = idle_for(m, last);

        last->next_devices = 0;
        if (more > 0)
            r = look_ahead(m, last, more, target);
        last->stuck = last->next_devices == 0;
        if (r == 0 && !last->stuck)
            r = settle(m, last, last->next_devices);
    }
    return r;
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
    m->given_speeds[group->begin] = speed_at(m, team[0], group->first->kind);
    group->devices = 1;
    group->stuck = true;
    for (int64_t i = 0; i < group->nodes; i++)
        count_place(m, group, team[i], m->idle[team[i]] > 0, 1);
    return divide(m, group, &m->set_of[group->begin], &group->finish);
}

/* All workers of a gang, or none: then the first such gang keeps what is free of those that it
 * waits for. */
static int give_gang(struct maker *m, struct group *group)
{
    int64_t *hold = NULL, held = 0;
    int r = ha_plan_gang_seat(m, group, &held, &hold);

    if (r > 0)
        r = take_seats(m, group);
    for (int64_t i = 0; i < held && !m->waits; i++) {
        count_place(m, group, hold[i], m->idle[hold[i]] > 0, 1);
        m->shares[group->share].used--; /* it has them not yet */
    }
    m->waits = m->waits || held > 0;
    if (held > 0)
        free(hold);
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
        int r = group->nodes > 1 ? 0 : ha_plan_place_first(m, share, &group);

        if (r == 0)
            r = group->nodes > 1 ? give_gang(m, group) : settle(m, group, 1);
        if (r < 0)
            return r;
        take_turn(m, share, group);
    }
    return give_more(m, begin, end);
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
