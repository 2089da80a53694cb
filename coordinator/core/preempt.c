#include "coordinator/core/preempt.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"

/* Jobs that need the same of a worker. */
struct kind {
    const struct ha_fit *fit;
    int64_t coming;  /* rooms that come free by themselves: free slots and stops under way */
    int64_t *choice; /* attempts whose places fit, the first to be stopped first */
    int64_t count, at;
};

/* Workers of one island, for a job that needs several. */
struct island {
    int64_t number;
    int64_t lacks;    /* places that nobody has left or is told to leave */
    int64_t victims;  /* that would be enough, old ones first asked */
    int64_t short_of; /* places, were those that are too young stopped as well */
    int64_t left_ms;  /* until the youngest of them may be */
};

enum { NEEDS = 8 }; /* of jobs that need several places and ask at one time */

struct chooser {
    struct ha_preempt *p;
    struct {
        const struct ha_fit *fit;
        int64_t priority;
    } asked[NEEDS];
    int64_t n_asked;
    const struct ha_plan_worker **places; /* of all attempts; NULL: it takes no work */
    int64_t *begin;                       /* of each attempt, in places; one more at the end */
    int64_t *order;                       /* attempts, the first to be stopped first */
    struct island *islands;               /* by number */
    int64_t n_islands;
    int64_t *island_of;     /* of each worker of the snapshot, in islands */
    uint8_t *taken;         /* of each worker, while a gang looks: its place is counted */
    int64_t *groups, table; /* those that have asked, open addressing */
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

static int64_t place_count(const struct ha_preempt_running *running)
{
    return 1 + running->other_count;
}

static int find_places(struct chooser *c)
{
    const struct ha_plan_snapshot *s = c->p->snapshot;
    const struct ha_plan_worker **workers = ha_calloc(s->worker_count, sizeof *workers);
    int64_t count = 0, n = 0;

    for (int64_t i = 0; i < c->p->running_count; i++) {
        c->begin[i] = n;
        n += place_count(&c->p->running[i]);
    }
    c->begin[c->p->running_count] = n;
    c->places = ha_calloc(n, sizeof *c->places);
    if (!workers || !c->places) {
        free(workers);
        return -ENOMEM;
    }
    for (int64_t w = 0; w < s->worker_count; w++)
        if (ha_plan_takes_work(&s->workers[w]))
            workers[count++] = &s->workers[w];
    if (count > 0)
        qsort(workers, (size_t)count, sizeof *workers, by_id);
    for (int64_t i = 0; i < c->p->running_count; i++) {
        const struct ha_preempt_running *r = &c->p->running[i];

        c->places[c->begin[i]] = find(workers, count, r->worker);
        for (int64_t k = 0; k < r->other_count; k++)
            c->places[c->begin[i] + 1 + k] = find(workers, count, r->others[k]);
    }
    free(workers);
    return 0;
}

/* Of the lowest priority first, of these the one with fewest places, then the youngest. */
static int by_turn(const void *a, const void *b, void *context)
{
    const struct ha_preempt_running *running = context;
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;

    if (running[i].priority != running[j].priority)
        return running[i].priority < running[j].priority ? -1 : 1;
    if (running[i].other_count != running[j].other_count)
        return running[i].other_count < running[j].other_count ? -1 : 1;
    if (running[i].ran_ms != running[j].ran_ms)
        return running[i].ran_ms < running[j].ran_ms ? -1 : 1;
    return i < j ? -1 : i > j;
}

static bool could_run(const struct ha_plan_worker *worker, const struct ha_fit *fit)
{
    return worker && ha_fit(fit, &worker->offer);
}

/* Places of the attempt where a job of this need could run. */
static int64_t places_for(const struct chooser *c, int64_t attempt, const struct ha_fit *fit)
{
    int64_t count = 0;

    for (int64_t i = c->begin[attempt]; i < c->begin[attempt + 1]; i++)
        count += could_run(c->places[i], fit);
    return count;
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
        int64_t at = c->order[i], places = places_for(c, at, kind->fit);

        if (places == 0)
            continue;
        kind->choice[kind->count++] = at;
        kind->coming += c->p->running[at].stopping ? places : 0;
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

/* The attempt's places are on their way to everybody whom they fit. */
static void stop(struct chooser *c, int64_t victim)
{
    c->p->running[victim].stopping = true;
    for (int64_t k = 0; k < c->n_kinds; k++)
        c->kinds[k].coming += places_for(c, victim, c->kinds[k].fit);
}

/* ---- several places at once ------------------------------------------------------------------ */

static int64_t index_of(const struct chooser *c, const struct ha_plan_worker *worker)
{
    return worker - c->p->snapshot->workers;
}

static int by_number(const void *a, const void *b)
{
    const struct island *x = a, *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

/* Once, when the first gang asks. */
static int find_islands(struct chooser *c)
{
    const struct ha_plan_snapshot *s = c->p->snapshot;

    if (c->islands)
        return 0;
    c->islands = ha_calloc(s->worker_count + 1, sizeof *c->islands);
    c->island_of = ha_calloc(s->worker_count + 1, sizeof *c->island_of);
    c->taken = ha_calloc(s->worker_count + 1, sizeof *c->taken);
    if (!c->islands || !c->island_of || !c->taken)
        return -ENOMEM;
    for (int64_t w = 0; w < s->worker_count; w++)
        c->islands[w].number = s->workers[w].island;
    if (s->worker_count > 0)
        qsort(c->islands, (size_t)s->worker_count, sizeof *c->islands, by_number);
    for (int64_t w = 0; w < s->worker_count; w++)
        if (w == 0 || c->islands[w].number != c->islands[c->n_islands - 1].number)
            c->islands[c->n_islands++].number = c->islands[w].number;
    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct island key = {.number = s->workers[w].island};
        const struct island *at =
            bsearch(&key, c->islands, (size_t)c->n_islands, sizeof key, by_number);

        c->island_of[w] = at - c->islands;
    }
    return 0;
}

/* A place of a worker counts once for a gang.  True: it did not yet, and a part could run there. */
static bool take(struct chooser *c, const struct ha_plan_worker *worker, const struct ha_fit *fit)
{
    if (!could_run(worker, fit) || c->taken[index_of(c, worker)])
        return false;
    c->taken[index_of(c, worker)] = 1;
    return true;
}

/* What the gang lacks on each island when those that stop have left. */
static void count_lacks(struct chooser *c, const struct ha_plan_job *job)
{
    const struct ha_plan_snapshot *s = c->p->snapshot;

    memset(c->taken, 0, (size_t)s->worker_count);
    for (int64_t i = 0; i < c->n_islands; i++)
        c->islands[i] =
            (struct island){.number = c->islands[i].number, .lacks = ha_plan_nodes(job)};
    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];

        if (worker->slots > worker->used && ha_plan_takes_work(worker) && take(c, worker, job->fit))
            c->islands[c->island_of[w]].lacks--;
    }
    for (int64_t i = 0; i < c->p->running_count; i++)
        for (int64_t at = c->begin[i]; c->p->running[i].stopping && at < c->begin[i + 1]; at++)
            if (take(c, c->places[at], job->fit))
                c->islands[c->island_of[index_of(c, c->places[at])]].lacks--;
    for (int64_t i = 0; i < c->n_islands; i++)
        c->islands[i].short_of = c->islands[i].lacks;
}

/* Places that the attempt would leave to the gang where it still lacks some; *ret_island: where, as
 * all of them are of one. */
static int64_t would_leave(struct chooser *c, const struct ha_plan_job *job, int64_t attempt,
                           bool young, struct island **ret_island)
{
    int64_t count = 0;

    for (int64_t at = c->begin[attempt]; at < c->begin[attempt + 1]; at++) {
        const struct ha_plan_worker *worker = c->places[at];
        struct island *island = worker ? &c->islands[c->island_of[index_of(c, worker)]] : NULL;

        if (!island || (young ? island->short_of : island->lacks) <= 0)
            continue;
        *ret_island = island;
        count += take(c, worker, job->fit);
    }
    return count;
}

/* Asks the attempts in order; *ret_best: where the fewest have to stop, or NULL. */
static void ask(struct chooser *c, const struct ha_plan_job *job, bool young,
                struct island **ret_best)
{
    for (int64_t i = 0; i < c->p->running_count; i++) {
        const struct ha_preempt_running *r = &c->p->running[c->order[i]];
        int64_t left_ms = c->p->min_run_ms - r->ran_ms, places;
        struct island *island = NULL;

        if (r->priority >= job->priority)
            break;
        if (r->stopping || (left_ms > 0) != young)
            continue;
        places = would_leave(c, job, c->order[i], young, &island);
        if (places == 0)
            continue;
        island->short_of -= places;
        island->lacks -= young ? 0 : places;
        island->victims += !young;
        island->left_ms = young && left_ms > island->left_ms ? left_ms : island->left_ms;
    }
    *ret_best = NULL;
    for (int64_t i = 0; i < c->n_islands; i++) {
        struct island *island = &c->islands[i];
        bool enough = (young ? island->short_of : island->lacks) <= 0;

        if (enough && (!*ret_best || (young ? island->left_ms < (*ret_best)->left_ms
                                            : island->victims < (*ret_best)->victims)))
            *ret_best = island;
    }
}

/* The victims are those that were asked: asks them once more, of this island only. */
static int64_t stop_for(struct chooser *c, const struct ha_plan_job *job, int64_t number,
                        struct ha_preempt_stop *stops)
{
    int64_t count = 0;

    count_lacks(c, job);
    for (int64_t i = 0; i < c->p->running_count; i++) {
        int64_t at = c->order[i], places;
        const struct ha_preempt_running *r = &c->p->running[at];
        struct island *island = NULL;

        if (r->priority >= job->priority)
            break;
        if (r->stopping || r->ran_ms < c->p->min_run_ms)
            continue;
        places = would_leave(c, job, at, false, &island);
        if (places == 0)
            continue;
        island->lacks -= places;
        if (island->number == number)
            stops[count++] = (struct ha_preempt_stop){.victim = at, .job = job->id};
    }
    for (int64_t i = 0; i < count; i++)
        stop(c, stops[i].victim);
    return count;
}

/* Jobs of one need ask as one, and few at a time: each has all that runs looked through. */
static bool has_asked(struct chooser *c, const struct ha_plan_job *job)
{
    for (int64_t i = 0; i < c->n_asked; i++)
        if (c->asked[i].priority == job->priority && ha_fit_equal(c->asked[i].fit, job->fit))
            return true;
    if (c->n_asked == NEEDS)
        return true;
    c->asked[c->n_asked].fit = job->fit;
    c->asked[c->n_asked++].priority = job->priority;
    return false;
}

/* Attempts to stop for a job that needs several workers; 0: none, or nobody would be enough. */
static int64_t choose_several(struct chooser *c, const struct ha_plan_job *job,
                              struct ha_preempt_stop *stops, int64_t limit, int64_t *wait_ms)
{
    struct island *best;

    if (has_asked(c, job))
        return 0;
    if (find_islands(c) < 0)
        return -ENOMEM;
    count_lacks(c, job);
    ask(c, job, false, &best);
    if (best)
        return best->victims <= limit ? stop_for(c, job, best->number, stops) : 0;
    ask(c, job, true, &best);
    if (best && best->left_ms > 0 && (*wait_ms == 0 || best->left_ms < *wait_ms))
        *wait_ms = best->left_ms;
    return 0;
}

/* Attempts to stop for a job that needs one: one, or none. */
static int64_t choose_one(struct chooser *c, const struct ha_plan_job *job, int64_t before,
                          struct ha_preempt_stop *ret_stop, int64_t *wait_ms)
{
    struct kind *kind;
    int64_t victim;

    if (kind_of(c, job->fit, &kind) < 0)
        return -ENOMEM;
    /* Rooms on their way are for those that are considered first. */
    if (before < kind->coming)
        return 0;
    victim = choose(c->p, kind, job->priority, wait_ms);
    if (victim < 0)
        return 0;
    stop(c, victim);
    *ret_stop = (struct ha_preempt_stop){.victim = victim, .job = job->id};
    return 1;
}

static int64_t choose_all(struct chooser *c, struct ha_preempt_stop *stops, int64_t limit,
                          int64_t *wait_ms)
{
    const struct ha_plan_snapshot *s = c->p->snapshot;
    int64_t count = 0, before = 0;

    for (int64_t j = 0; j < s->job_count && count < limit; j++) {
        const struct ha_plan_job *job = &s->jobs[j];
        int64_t nodes = ha_plan_nodes(job), n;

        if (!ha_plan_may_start(job, c->p->now_ms) || job->grows || asks_again(c, job->group))
            continue;
        n = nodes > 1 ? choose_several(c, job, stops + count, limit - count, wait_ms)
                      : choose_one(c, job, before, stops + count, wait_ms);
        if (n < 0)
            return n;
        count += n;
        before += nodes;
    }
    return count;
}

static int prepare(struct chooser *c)
{
    int64_t jobs = c->p->snapshot->job_count, running = c->p->running_count;

    for (c->table = 16; c->table < 2 * jobs;)
        c->table *= 2;
    c->begin = ha_calloc(running + 1, sizeof *c->begin);
    c->order = ha_calloc(running, sizeof *c->order);
    c->groups = ha_calloc(c->table, sizeof *c->groups);
    c->kinds = ha_calloc(jobs, sizeof *c->kinds);
    if (!c->begin || !c->order || !c->groups || !c->kinds)
        return -ENOMEM;
    for (int64_t i = 0; i < running; i++)
        c->order[i] = i;
    if (running > 0)
        qsort_r(c->order, (size_t)running, sizeof *c->order, by_turn, c->p->running);
    return find_places(c);
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
    free(c.places);
    free(c.begin);
    free(c.islands);
    free(c.island_of);
    free(c.taken);
    free(c.order);
    free(c.groups);
    free(c.kinds);
    return count;
}
