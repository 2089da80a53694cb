/* plan_gang.c - jobs that train on several workers at once (plan.h) */
#include <errno.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "coordinator/core/plan_inside.h"

enum { LOOKED = 2, SORTED = 16 }; /* steps of work for each seat */

static const int64_t NEVER = INT64_MAX;

/* A worker that could run a part if it were free. */
struct seat {
    int64_t worker; /* index */
    int64_t at_ms;  /* until it is free: 0 for one that is, or that an attempt is about to leave */
    bool free;
    uint64_t rank; /* of a free one */
};

/* Seats of one island, in a row. */
struct row {
    int64_t begin, count, free;
    int64_t coming;   /* those that are free, or about to be */
    int64_t start_ms; /* until enough are free */
};

int64_t ha_plan_nodes(const struct ha_plan_job *job)
{
    return job->fit && job->fit->nodes > 1 ? job->fit->nodes : 1;
}

/* ---- seats ---------------------------------------------------------------------------------- */

static int compare_islands(const void *a, const void *b, void *context)
{
    const struct ha_plan_worker *workers = *(const struct ha_plan_worker *const *)context;
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    if (workers[x].island != workers[y].island)
        return workers[x].island < workers[y].island ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Workers island by island.  NULL when memory is short. */
static int64_t *sort_by_island(const struct ha_plan_snapshot *s)
{
    int64_t *order = ha_calloc(s->worker_count + 1, sizeof *order);
    const struct ha_plan_worker *workers = s->workers;

    for (int64_t w = 0; order && w < s->worker_count; w++)
        order[w] = w;
    if (order && s->worker_count > 0)
        qsort_r(order, (size_t)s->worker_count, sizeof *order, compare_islands, &workers);
    return order;
}

static int64_t seat_time(const struct ha_plan_worker *worker, bool is_free)
{
    if (is_free || worker->leaving > 0)
        return 0;
    return worker->used > 0 && worker->free_in_ms > 0 ? worker->free_in_ms : NEVER;
}

/* Those that fit and take work, island by island; m NULL: as the snapshot has them. */
static int64_t list_seats(const struct maker *m, const struct ha_plan_snapshot *s,
                          const struct ha_plan_job *job, const int64_t *by_island,
                          struct seat *seats)
{
    int64_t count = 0;

    for (int64_t i = 0; i < s->worker_count; i++) {
        int64_t w = by_island[i];
        const struct ha_plan_worker *worker = &s->workers[w];
        bool is_free = worker->slots > (m ? m->used[w] : worker->used);

        if (!ha_plan_takes_work(worker) || worker->slots <= 0 || !ha_fit(job->fit, &worker->offer))
            continue;
        seats[count++] =
            (struct seat){.worker = w, .at_ms = seat_time(worker, is_free), .free = is_free};
    }
    return count;
}

/* ---- rows ----------------------------------------------------------------------------------- */

/* When the last of so many seats is free that are free first. */
static int64_t start_of(const struct seat *seats, int64_t count, int64_t nodes)
{
    int64_t first[HA_PLAN_NODES], n = 0;

    if (nodes > HA_PLAN_NODES)
        return NEVER;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = n;

        if (n == nodes && seats[i].at_ms >= first[n - 1])
            continue;
        at = n == nodes ? n - 1 : n++;
        for (; at > 0 && first[at - 1] > seats[i].at_ms; at--)
            first[at] = first[at - 1];
        first[at] = seats[i].at_ms;
    }
    return n == nodes ? first[nodes - 1] : NEVER;
}

static struct row next_row(const struct ha_plan_snapshot *s, const struct seat *seats,
                           int64_t count, int64_t begin, int64_t nodes)
{
    struct row row = {.begin = begin};
    int64_t island = s->workers[seats[begin].worker].island;

    while (begin + row.count < count &&
           s->workers[seats[begin + row.count].worker].island == island) {
        const struct seat *seat = &seats[begin + row.count++];

        row.free += seat->free;
        row.coming += seat->at_ms == 0;
    }
    row.start_ms = row.free >= nodes ? 0 : start_of(&seats[begin], row.count, nodes);
    return row;
}

/* Free ones first, the best first. */
static int compare_seats(const void *a, const void *b)
{
    const struct seat *x = a, *y = b;

    if (x->free != y->free)
        return x->free ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank > y->rank ? -1 : 1;
    return x->worker < y->worker ? -1 : x->worker > y->worker;
}

static void sort_row(struct maker *m, const struct want *want, struct seat *seats,
                     const struct row *row)
{
    for (int64_t i = row->begin; i < row->begin + row->count; i++)
        seats[i].rank = seats[i].free ? ha_plan_place_rank(m, want, seats[i].worker) : 0;
    qsort(seats + row->begin, (size_t)row->count, sizeof *seats, compare_seats);
    m->work += SORTED * row->count;
}

/* Where it would wait a shorter time: by the estimates, else where more places are about to be
 * free, and where more are. */
static bool sooner(const struct row *a, const struct row *b)
{
    if (a->start_ms != b->start_ms)
        return a->start_ms < b->start_ms;
    if (a->coming != b->coming)
        return a->coming > b->coming;
    return a->free > b->free;
}

/* The row that the gang gets, or waits for: enough free seats before few, then the one whose last
 * seat is the best, or where it would begin soonest.  count 0: none has enough seats at all.  m
 * NULL: nobody asks which seat is the best. */
static struct row choose_row(struct maker *m, const struct ha_plan_snapshot *s,
                             const struct want *want, struct seat *seats, int64_t count,
                             int64_t nodes)
{
    struct row best = {0};

    for (int64_t at = 0; at < count;) {
        struct row row = next_row(s, seats, count, at, nodes);
        bool enough = row.free >= nodes, had = best.count > 0 && best.free >= nodes;

        at += row.count;
        if (row.count < nodes)
            continue;
        if (enough && m)
            sort_row(m, want, seats, &row);
        if (best.count == 0 || (enough && !had) || (!enough && !had && sooner(&row, &best)) ||
            (enough && had &&
             seats[row.begin + nodes - 1].rank > seats[best.begin + nodes - 1].rank))
            best = row;
    }
    return best;
}

/* ---- a gang --------------------------------------------------------------------------------- */

static int keep_team(struct maker *m, struct group *group, const struct seat *seats)
{
    int64_t nodes = group->nodes;
    void *array = m->teams;

    if (ha_grow(&array, &m->team_capacity, m->n_teams + nodes, sizeof *m->teams) < 0)
        return -ENOMEM;
    m->teams = array;
    group->team = m->n_teams;
    for (int64_t i = 0; i < nodes; i++)
        m->teams[m->n_teams++] = seats[i].worker;
    return 1;
}

static void keep_free(struct maker *m, const struct group *group, const struct seat *seats,
                      const struct row *row)
{
    m->kept =
        (struct kept){.job = group->first, .start_ms = row->start_ms == NEVER ? -1 : row->start_ms};
    for (int64_t i = row->begin; i < row->begin + row->count; i++)
        if (seats[i].free && m->kept.count < HA_PLAN_NODES)
            m->kept.workers[m->kept.count++] = seats[i].worker;
}

int ha_plan_gang_seat(struct maker *m, struct group *group)
{
    const struct ha_plan_snapshot *s = m->snapshot;
    struct kind *kind = &m->kinds[group->kind];
    struct seat *seats;
    struct row row;
    int64_t count;
    int r = 0;

    if (kind->crowded)
        return 0;
    m->by_island = m->by_island ? m->by_island : sort_by_island(s);
    seats = ha_calloc(s->worker_count + 1, sizeof *seats);
    if (!seats || !m->by_island) {
        free(seats);
        return -ENOMEM;
    }
    m->work += LOOKED * s->worker_count;
    count = list_seats(m, s, group->first, m->by_island, seats);
    row = choose_row(m, s, &m->wants[group->want], seats, count, group->nodes);
    kind->crowded = row.count == 0 || row.free < group->nodes;
    if (!kind->crowded)
        r = keep_team(m, group, seats + row.begin);
    else if (row.free > 0 && !m->kept.job)
        keep_free(m, group, seats, &row);
    free(seats);
    return r;
}

int ha_plan_gang_look(const struct ha_plan_snapshot *snapshot, const struct ha_plan_job *job,
                      int64_t *ret_seats, int64_t *ret_free, int64_t *ret_start_ms)
{
    struct seat *seats = ha_calloc(snapshot->worker_count + 1, sizeof *seats);
    int64_t *by_island = sort_by_island(snapshot), nodes = ha_plan_nodes(job);
    int64_t count, most = 0;
    struct row row;

    if (!seats || !by_island) {
        free(seats);
        free(by_island);
        return -ENOMEM;
    }
    count = list_seats(NULL, snapshot, job, by_island, seats);
    row = choose_row(NULL, snapshot, NULL, seats, count, nodes);
    for (int64_t at = 0; row.count == 0 && at < count;) {
        struct row other = next_row(snapshot, seats, count, at, nodes);

        most = other.count > most ? other.count : most;
        at += other.count;
    }
    *ret_seats = row.count > 0 ? row.count : most;
    *ret_free = row.free;
    *ret_start_ms = row.count == 0 || row.start_ms == NEVER ? -1 : row.start_ms;
    free(seats);
    free(by_island);
    return 0;
}
