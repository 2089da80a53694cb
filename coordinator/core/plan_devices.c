/* plan_devices.c - how many devices each group of jobs gets (plan.h) */
#include <errno.h>
#include <stddef.h>

#include "coordinator/core/plan_inside.h"

/* Below this part of the finish, two groups end at the same time. */
static const double SAME = 1e-9;

double ha_plan_speed_at(const struct maker *m, int64_t worker, enum ha_stage_kind kind)
{
    return m->speeds[(kind == HA_STAGE_GENERATE ? m->snapshot->worker_count : 0) + worker];
}

/* ---- places --------------------------------------------------------------------------- */

void ha_plan_count_place(struct maker *m, const struct group *group, int64_t w, bool idle,
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
    speed = ha_plan_speed_at(m, best, group->first->kind);
    for (; at > 0 && speeds[at - 1] < speed; at--) {
        given[at] = given[at - 1];
        speeds[at] = speeds[at - 1];
    }
    given[at] = (struct given){best, group->devices, m->idle[best] > 0};
    speeds[at] = speed;
    ha_plan_count_place(m, group, best, given[at].idle, 1);
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
    ha_plan_count_place(m, group, given[at].worker, given[at].idle, -1);
    ha_plan_place_back(m, &m->wants[group->want], given[at].worker);
    group->devices--;
    for (; at < group->devices; at++) {
        given[at] = given[at + 1];
        speeds[at] = speeds[at + 1];
    }
}

/* ---- how many devices each group gets ------------------------------------------------ */

struct ha_fuse_group ha_plan_fuse_group(struct maker *m, const struct group *group)
{
    return (struct ha_fuse_group){.cells = &m->needs[group->begin],
                                  .count = group->count,
                                  .memory_bytes = m->kinds[group->kind].memory_bytes,
                                  .blind = m->kinds[group->kind].blind,
                                  .mode = group->first->fuse,
                                  .speeds = &m->given_speeds[group->begin],
                                  .work = &m->work};
}

int ha_plan_divide(struct maker *m, struct group *group, int64_t *set_of, double *ret_finish)
{
    struct ha_fuse_group fuse = ha_plan_fuse_group(m, group);
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
    return r < 0 ? r : ha_plan_divide(m, group, m->trial, ret_finish);
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
    while (r == 0 && group->next_devices > 0 && high - low > 1 && !ha_plan_spent(m)) {
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

int ha_plan_settle(struct maker *m, struct group *group, int64_t devices)
{
    int r = 0;

    while (r == 0 && group->devices < devices)
        r = take_place(m, group);
    return r < 0 ? r : ha_plan_divide(m, group, &m->set_of[group->begin], &group->finish);
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

/* ---- many devices for large groups: guesses in place of divisions ----------------------- */

static void weigh_group(const struct maker *m, struct group *group)
{
    const struct ha_fuse_need *needs = &m->needs[group->begin];

    group->load = group->heaviest = group->speed = 0;
    for (int64_t i = 0; i < group->count; i++) {
        group->load += needs[i].cost;
        group->heaviest = needs[i].cost > group->heaviest ? needs[i].cost : group->heaviest;
    }
    for (int64_t i = 0; i < group->devices; i++)
        group->speed += m->given_speeds[group->begin + i];
}

/* When it would end with a set on each of its devices, all of them ending at once; no sooner than
 * its heaviest cell. */
static double guess(const struct maker *m, const struct group *group)
{
    double shared = m->needs[group->begin].shared;
    double all = (shared * (double)group->devices + group->load) / group->speed;
    double one = (shared + group->heaviest) / m->given_speeds[group->begin];

    return all > one ? all : one;
}

static struct group *last_guessed(struct maker *m, int64_t begin, int64_t end)
{
    struct group *last = NULL;

    for (int64_t g = begin; g < end; g++) {
        struct group *group = &m->groups[g];

        if (group->devices > 0 && group->devices < group->count && !group->stuck &&
            idle_for(m, group) > 0 && (!last || group->finish > last->finish))
            last = group;
    }
    return last;
}

/* One device more, if it would end sooner with it. */
static int guess_one(struct maker *m, struct group *group)
{
    double before = group->finish, speed = group->speed;
    int r = take_place(m, group);

    if (r < 0)
        return r;
    for (int64_t i = 0; i < group->devices; i++)
        if (m->given[group->begin + i].order == group->devices)
            group->speed += m->given_speeds[group->begin + i];
    group->finish = guess(m, group);
    if (group->finish < before * (1 - SAME))
        return 0;
    return_place(m, group);
    group->speed = speed;
    group->finish = before;
    group->stuck = true;
    return 0;
}

/* The steps for looking are made: idle devices one by one to the group that would end last by a
 * guess, which costs little, and one division of each at the end. */
static int spread(struct maker *m, int64_t begin, int64_t end)
{
    struct group *last;
    int r = 0;

    for (int64_t g = begin; g < end; g++) {
        struct group *group = &m->groups[g];

        if (group->devices == 0 || group->nodes > 1)
            continue;
        weigh_group(m, group);
        group->finish = guess(m, group);
        group->next_devices = group->devices;
    }
    while (r == 0 && (last = last_guessed(m, begin, end)))
        r = guess_one(m, last);
    for (int64_t g = begin; r == 0 && g < end; g++) {
        struct group *group = &m->groups[g];

        if (group->devices > 0 && group->nodes == 1 && group->devices != group->next_devices)
            r = ha_plan_settle(m, group, group->devices);
    }
    return r;
}

int ha_plan_give_more(struct maker *m, int64_t begin, int64_t end)
{
    struct group *last;
    double target;
    int r = 0;

    while (r == 0 && !ha_plan_spent(m) && (last = last_group(m, begin, end, &target))) {
        int64_t more = idle_for(m, last);

        last->next_devices = 0;
        if (more > 0)
            r = look_ahead(m, last, more, target);
        last->stuck = last->next_devices == 0;
        if (r == 0 && !last->stuck)
            r = ha_plan_settle(m, last, last->next_devices);
    }
    return r < 0 || !ha_plan_spent(m) ? r : spread(m, begin, end);
}
