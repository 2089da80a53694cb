#include "coordinator/core/suspect.h"

#include <stddef.h>

void ha_suspect_add(struct ha_suspects *suspects, const struct ha_suspect_end *end)
{
    suspects->ends[suspects->count++ % HA_SUSPECT_KEPT] = *end;
}

void ha_suspect_forgive(struct ha_suspects *suspects, int64_t worker)
{
    for (int i = 0; i < HA_SUSPECT_KEPT; i++) {
        if (suspects->ends[i].worker == worker)
            suspects->ends[i].worker = 0;
    }
}

/* The i-th end before the present, from 0; NULL: no more of this hour. */
static const struct ha_suspect_end *back(const struct ha_suspects *suspects, int64_t i,
                                         int64_t now_ms)
{
    const struct ha_suspect_end *end;

    if (i >= suspects->count || i >= HA_SUSPECT_KEPT)
        return NULL;
    end = &suspects->ends[(suspects->count - 1 - i) % HA_SUSPECT_KEPT];
    return now_ms - end->at_ms > HA_SUSPECT_MS ? NULL : end;
}

static bool does_good_work(const struct ha_suspects *suspects, int64_t worker, int64_t now_ms)
{
    const struct ha_suspect_end *end;

    for (int64_t i = 0; (end = back(suspects, i, now_ms)) != NULL; i++) {
        if (end->worker == worker && end->good)
            return true;
    }
    return false;
}

/* Is the job to blame for its failure, or its group? */
static bool is_excused(const struct ha_suspects *suspects, const struct ha_suspect_end *failure,
                       int64_t now_ms)
{
    bool group_failed = false, group_good = false;
    const struct ha_suspect_end *end;

    for (int64_t i = 0; (end = back(suspects, i, now_ms)) != NULL; i++) {
        if (end->worker == 0 || end->worker == failure->worker)
            continue;
        if (!end->good && end->job == failure->job && does_good_work(suspects, end->worker, now_ms))
            return true;
        group_failed = group_failed || (!end->good && end->group == failure->group);
        group_good = group_good || (end->good && end->group == failure->group);
    }
    return group_failed && !group_good;
}

static bool contains(const int64_t *values, int64_t count, int64_t value)
{
    for (int64_t i = 0; i < count; i++) {
        if (values[i] == value)
            return true;
    }
    return false;
}

int64_t ha_suspect_jobs(const struct ha_suspects *suspects, int64_t worker, int64_t now_ms,
                        int64_t *ret_jobs, int64_t limit)
{
    const struct ha_suspect_end *end;
    int64_t n = 0;

    for (int64_t i = 0; n < limit && (end = back(suspects, i, now_ms)) != NULL; i++) {
        if (end->worker != worker)
            continue;
        if (end->good)
            break;
        if (!contains(ret_jobs, n, end->job) && !is_excused(suspects, end, now_ms))
            ret_jobs[n++] = end->job;
    }
    return n;
}

int64_t ha_suspect_failures(const struct ha_suspects *suspects, int64_t worker, int64_t job)
{
    int64_t n = 0;

    for (int i = 0; i < HA_SUSPECT_KEPT; i++) {
        const struct ha_suspect_end *end = &suspects->ends[i];

        n += end->worker == worker && end->job == job && !end->good;
    }
    return n;
}

int64_t ha_suspect_choose(const struct ha_suspects *suspects,
                          const struct ha_suspect_worker *workers, int64_t worker_count,
                          int64_t jobs, int64_t now_ms, int64_t *picks, int64_t limit)
{
    int64_t takers = 0, aside = 0, room, n = 0, failed[HA_SUSPECT_KEPT];

    if (jobs <= 0 || jobs > HA_SUSPECT_KEPT)
        return 0;
    for (int64_t i = 0; i < worker_count; i++) {
        takers += workers[i].takes_work;
        aside += workers[i].aside;
    }
    room = (takers + aside) / 4 > 1 ? (takers + aside) / 4 - aside : 1 - aside;
    if (room > takers - 1)
        room = takers - 1;
    for (int64_t i = 0; i < worker_count; i++) {
        if (!workers[i].takes_work ||
            ha_suspect_jobs(suspects, workers[i].id, now_ms, failed, jobs) < jobs)
            continue;
        if (n >= room || n >= limit)
            return 0;
        picks[n++] = workers[i].id;
    }
    return n;
}
