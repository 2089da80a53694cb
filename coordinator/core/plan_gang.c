/* plan_gang.c - jobs that train on several workers at once (plan.h) */
#include <errno.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "coordinator/core/plan_inside.h"

/* A worker that could run a part if it were free. */
struct seat {
    int64_t island, worker; /* worker: index */
    bool free;
    uint64_t rank; /* of a free one */
};

/* Seats of one island, in a row. */
struct row {
    int64_t begin, count, free;
};

int64_t ha_plan_nodes(const struct ha_plan_job *job)
{
    return job->fit && job->fit->nodes > 1 ? job->fit->nodes : 1;
}

/* By island, free ones first, the best first. */
static int compare_seats(const void *a, const void *b)
{
    const struct seat *x = a, *y = b;

    if (x->island != y->island)
        return x->island < y->island ? -1 : 1;
    if (x->free != y->free)
        return x->free ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank > y->rank ? -1 : 1;
    return x->worker < y->worker ? -1 : x->worker > y->worker;
}

/* Those that fit and take work, sorted; m NULL: as the snapshot has them. */
static int64_t list_seats(const struct maker *m, const struct ha_plan_snapshot *s,
                          const struct ha_plan_job *job, const struct want *want,
                          struct seat *seats)
{
    int64_t count = 0;

    for (int64_t w = 0; w < s->worker_count; w++) {
        const struct ha_plan_worker *worker = &s->workers[w];
        bool free = worker->slots > (m ? m->used[w] : worker->used);

        if (!ha_plan_takes_work(worker) || worker->slots <= 0 || !ha_fit(job->fit, &worker->offer))
            continue;
        seats[count++] = (struct seat){.island = worker->island,
                                       .worker = w,
                                       .free = free,
                                       .rank = m && free ? ha_plan_place_rank(m, want, w) : 0};
    }
    if (count > 0)
        qsort(seats, (size_t)count, sizeof *seats, compare_seats);
    return count;
}

static struct row next_row(const struct seat *seats, int64_t count, int64_t begin)
{
    struct row row = {.begin = begin};

    while (begin + row.count < count && seats[begin + row.count].island == seats[begin].island)
        row.free += seats[begin + row.count++].free;
    return row;
}

/* The row that the gang gets, or waits for: enough free seats before few, then the one whose last
 * seat is the best, or of which most are free.  count 0: none has enough seats at all. */
static struct row choose_row(const struct seat *seats, int64_t count, int64_t nodes)
{
    struct row best = {0};

    for (int64_t at = 0; at < count;) {
        struct row row = next_row(seats, count, at);
        bool enough = row.free >= nodes, had = best.free >= nodes;

        at += row.count;
        if (row.count < nodes)
            continue;
        if (best.count == 0 || (enough && !had) || (!enough && !had && row.free > best.free) ||
            (enough && had &&
             seats[row.begin + nodes - 1].rank > seats[best.begin + nodes - 1].rank))
            best = row;
    }
    return best;
}

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

int ha_plan_gang_seat(struct maker *m, struct group *group, int64_t *ret_held, int64_t **ret_hold)
{
    struct seat *seats = ha_calloc(m->snapshot->worker_count, sizeof *seats);
    int64_t count, *hold = NULL;
    struct row row;
    int r = 0;

    *ret_held = 0;
    if (!seats)
        return -ENOMEM;
    count = list_seats(m, m->snapshot, group->first, &m->wants[group->want], seats);
    row = choose_row(seats, count, group->nodes);
    if (row.count > 0 && row.free >= group->nodes) {
        r = keep_team(m, group, seats + row.begin);
    } else if (row.free > 0) {
        hold = ha_calloc(row.free, sizeof *hold);
        r = hold ? 0 : -ENOMEM;
        for (int64_t i = 0; hold && i < row.free; i++)
            hold[i] = seats[row.begin + i].worker;
        *ret_held = hold ? row.free : 0;
        *ret_hold = hold;
    }
    free(seats);
    return r;
}

int ha_plan_gang_look(const struct ha_plan_snapshot *snapshot, const struct ha_plan_job *job,
                      int64_t *ret_seats, int64_t *ret_free)
{
    struct seat *seats = ha_calloc(snapshot->worker_count, sizeof *seats);
    int64_t count, most = 0;
    struct row row;

    if (!seats)
        return -ENOMEM;
    count = list_seats(NULL, snapshot, job, NULL, seats);
    row = choose_row(seats, count, ha_plan_nodes(job));
    for (int64_t at = 0; row.count == 0 && at < count;) {
        struct row other = next_row(seats, count, at);

        most = other.count > most ? other.count : most;
        at += other.count;
    }
    *ret_seats = row.count > 0 ? row.count : most;
    *ret_free = row.free;
    free(seats);
    return 0;
}
