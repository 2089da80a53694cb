/* plan_places.c - which place is the best for a job: a heap for each want (plan_inside.h) */
#include <errno.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "coordinator/core/plan_inside.h"

enum { MOST_SLOTS = (1 << 22) - 1 };

static bool is_warm(const struct ha_plan_worker *worker, int64_t model)
{
    for (int i = 0; i < HA_PLAN_WARM; i++) {
        if (worker->warm[i] == model && model != 0)
            return true;
    }
    return false;
}

/* Whether an attempt of it has no more GPUs than the job uses: others are left to gangs. */
static bool is_exact(const struct ha_plan_worker *worker, const struct ha_fit *need)
{
    return worker->offer.gpus <= (need && need->gpus > 1 ? need->gpus : 1);
}

/* How good a place the worker is: higher is better, no two are equal.  An idle device beats one
 * that works already, then a faster one a slower, one without GPUs that the job would not use, one
 * that has the model, one with more free slots, the first in the snapshot. */
static uint64_t rank_of(const struct maker *m, const struct want *want, int64_t w)
{
    const struct ha_plan_worker *worker = &m->snapshot->workers[w];
    int64_t level = m->levels[(want->answers ? m->snapshot->worker_count : 0) + w];
    int64_t free_slots = worker->slots - m->used[w];

    if (free_slots > MOST_SLOTS)
        free_slots = MOST_SLOTS;
    return (uint64_t)(m->idle[w] > 0) << 63 | (uint64_t)(HA_PLAN_SLOWEST - level) << 56 |
           (uint64_t)is_exact(worker, m->kinds[want->kind].fit) << 55 |
           (uint64_t)is_warm(worker, want->model) << 54 | (uint64_t)free_slots << 32 | (uint32_t)~w;
}

static int64_t worker_of_rank(uint64_t rank)
{
    return (uint32_t) ~(uint32_t)rank;
}

static void sink(struct want *want, int64_t at)
{
    uint64_t rank = want->ranks[at];

    for (;;) {
        int64_t child = 2 * at + 1;

        if (child + 1 < want->count && want->ranks[child + 1] > want->ranks[child])
            child++;
        if (child >= want->count || want->ranks[child] <= rank)
            break;
        want->ranks[at] = want->ranks[child];
        at = child;
    }
    want->ranks[at] = rank;
}

static void fill_ranks(const struct maker *m, struct want *want)
{
    want->count = 0;
    for (int64_t w = 0; w < m->snapshot->worker_count; w++)
        if (m->kinds[want->kind].fits[w] && m->snapshot->workers[w].slots > m->used[w])
            want->ranks[want->count++] = rank_of(m, want, w);
    for (int64_t i = want->count / 2; i-- > 0;)
        sink(want, i);
}

int ha_plan_places_make(const struct maker *m, struct want *want)
{
    int64_t fitting = 0;

    for (int64_t w = 0; w < m->snapshot->worker_count; w++)
        fitting += m->kinds[want->kind].fits[w];
    want->capacity = 2 * fitting + 16; /* those that are put in anew; filled anew when full */
    want->ranks = ha_calloc(want->capacity, sizeof *want->ranks);
    if (!want->ranks)
        return -ENOMEM;
    fill_ranks(m, want);
    return 0;
}

void ha_plan_place_back(const struct maker *m, struct want *want, int64_t w)
{
    uint64_t rank = rank_of(m, want, w);
    int64_t at = want->count;

    if (want->count == want->capacity) {
        fill_ranks(m, want);
        return;
    }
    want->count++;
    for (; at > 0 && want->ranks[(at - 1) / 2] < rank; at = (at - 1) / 2)
        want->ranks[at] = want->ranks[(at - 1) / 2];
    want->ranks[at] = rank;
}

int64_t ha_plan_place_best(const struct maker *m, struct want *want)
{
    for (;;) {
        int64_t w = worker_of_rank(want->ranks[0]);
        bool full = m->snapshot->workers[w].slots <= m->used[w];
        uint64_t rank = full ? 0 : rank_of(m, want, w);

        if (rank == want->ranks[0])
            return w;
        want->ranks[0] = full ? want->ranks[--want->count] : rank;
        sink(want, 0);
    }
}
