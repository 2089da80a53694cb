/* plan_places.c - which place is the best for a job: a heap for each want (plan_inside.h) */
#include <errno.h>
#include <stdlib.h>

#include "common/base/memory.h"
#include "coordinator/core/plan_inside.h"

enum { MOST_SLOTS = (1 << 17) - 1, THERE = 31, FASTEST_LOAD_MS = 64, LOOK_BEHIND = 64, RANKED = 2 };

int64_t ha_plan_load_ms(const struct ha_plan_worker *worker, int64_t model)
{
    for (int i = 0; i < HA_PLAN_MODELS; i++) {
        if (worker->models[i].model == model && model != 0)
            return worker->models[i].load_ms;
    }
    return -1;
}

int64_t ha_plan_loaded(const struct ha_plan_worker *worker)
{
    for (int i = 0; i < HA_PLAN_MODELS; i++) {
        if (worker->models[i].model != 0 && worker->models[i].load_ms == 0)
            return worker->models[i].model;
    }
    return 0;
}

/* What is loaded there serves one job. */
static bool is_loaded(const struct maker *m, int64_t w, int64_t model)
{
    const struct ha_plan_worker *worker = &m->snapshot->workers[w];

    return m->used[w] == worker->used && ha_plan_load_ms(worker, model) == 0;
}

/* 0, where it does not have the model, to THERE; each doubling of the time is one less. */
static int load_level(const struct maker *m, int64_t w, int64_t model)
{
    int64_t ms = ha_plan_load_ms(&m->snapshot->workers[w], model);
    int level = THERE;

    if (ms < 0 || is_loaded(m, w, model))
        return ms < 0 ? 0 : THERE;
    for (level--; level > 1 && ms >= FASTEST_LOAD_MS; level--)
        ms /= 2;
    return level;
}

/* Whether a model would be lost for this one. */
static bool displaces(const struct maker *m, int64_t w, int64_t model)
{
    const struct ha_plan_worker *worker = &m->snapshot->workers[w];

    return m->some_loaded && ha_plan_load_ms(worker, model) != 0 && ha_plan_loaded(worker) != 0;
}

/* Whether an attempt of it has no more GPUs than the job uses: others are left to gangs. */
static bool is_exact(const struct ha_plan_worker *worker, const struct ha_fit *need)
{
    return worker->offer.gpus <= (need && need->gpus > 1 ? need->gpus : 1);
}

/* How good a place the worker is: higher is better, no two are equal.  An idle device beats one
 * that works already, then a faster one a slower, one without GPUs that the job would not use, one
 * that loads the model sooner, one that loses none for it, one with more free slots, the first in
 * the snapshot. */
uint64_t ha_plan_place_rank(const struct maker *m, const struct want *want, int64_t w)
{
    const struct ha_plan_worker *worker = &m->snapshot->workers[w];
    int64_t level = m->levels[(want->answers ? m->snapshot->worker_count : 0) + w];
    int64_t free_slots = worker->slots - m->used[w];

    if (free_slots > MOST_SLOTS)
        free_slots = MOST_SLOTS;
    return (uint64_t)(m->idle[w] > 0) << 63 | (uint64_t)(HA_PLAN_SLOWEST - level) << 56 |
           (uint64_t)is_exact(worker, m->kinds[want->kind].fit) << 55 |
           (uint64_t)load_level(m, w, want->model) << 50 |
           (uint64_t)!displaces(m, w, want->model) << 49 | (uint64_t)free_slots << 32 |
           (uint32_t)~w;
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
            want->ranks[want->count++] = ha_plan_place_rank(m, want, w);
    for (int64_t i = want->count / 2; i-- > 0;)
        sink(want, i);
}

int ha_plan_places_make(struct maker *m, struct want *want)
{
    int64_t fitting = 0;

    for (int64_t w = 0; w < m->snapshot->worker_count; w++)
        fitting += m->kinds[want->kind].fits[w];
    want->capacity = 2 * fitting + 16; /* those that are put in anew; filled anew when full */
    want->ranks = ha_calloc(want->capacity, sizeof *want->ranks);
    if (!want->ranks)
        return -ENOMEM;
    m->work += RANKED * fitting;
    fill_ranks(m, want);
    return 0;
}

void ha_plan_place_back(const struct maker *m, struct want *want, int64_t w)
{
    uint64_t rank = ha_plan_place_rank(m, want, w);
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
        uint64_t rank = full ? 0 : ha_plan_place_rank(m, want, w);

        if (rank == want->ranks[0])
            return w;
        want->ranks[0] = full ? want->ranks[--want->count] : rank;
        sink(want, 0);
    }
}

/* A group of the share, behind its first one, that would keep a model that is loaded where the
 * first would go, and be lost. */
static struct group *keeper(struct maker *m, const struct share *share, int64_t w)
{
    const struct group *first = &m->groups[share->first];
    int64_t at = first->next;

    for (int seen = 0; at >= 0 && seen < LOOK_BEHIND; seen++) {
        struct group *group = &m->groups[at];

        if (group->first->grows == first->first->grows && is_loaded(m, w, group->first->model))
            return group;
        at = group->next;
    }
    return NULL;
}

int ha_plan_place_first(struct maker *m, const struct share *share, struct group **ret_group)
{
    struct group *first = &m->groups[share->first], *better = NULL;
    struct want *want = &m->wants[first->want];
    int64_t w;

    *ret_group = first;
    if (first->next < 0 || first->first->kind == HA_STAGE_PROBE || !m->some_loaded)
        return 0;
    if (!want->ranks && ha_plan_places_make(m, want) < 0)
        return -ENOMEM;
    w = ha_plan_place_best(m, want);
    if (m->idle[w] > 0 && displaces(m, w, want->model))
        better = keeper(m, share, w);
    if (better)
        *ret_group = better;
    return 0;
}
