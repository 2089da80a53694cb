/* preempt.h - which attempts make room for sweeps of higher priority
 *
 * Pure.  A ready job that no free slot fits may have an attempt of lower priority
 * stopped at a checkpoint: of the lowest priority first, of these the youngest.
 * No thrashing: an attempt runs min_run_ms before it may be stopped, a waiting
 * group of jobs asks for one attempt at a time, and one that is stopping already
 * (for whatever reason) counts as room that is coming.
 *
 * An attempt of a gang has a place on each of its workers, and leaves all of them together; of
 * equal priority one with fewer places is stopped first.  A job that needs several workers has as
 * many attempts stopped at once, all on one island, as it lacks places there; the island where the
 * fewest have to be.  Nobody is stopped for it where that would not be enough. */
#ifndef HA_COORDINATOR_CORE_PREEMPT_H
#define HA_COORDINATOR_CORE_PREEMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/plan.h"

struct ha_preempt_running {
    int64_t job, worker;   /* ids; of a gang the worker of its first part */
    const int64_t *others; /* ids of the workers of its further parts */
    int64_t other_count;
    int64_t priority;
    int64_t ran_ms;
    bool stopping;
};

struct ha_preempt {
    const struct ha_plan_snapshot *snapshot; /* as it is after the plan: used is up to date */
    struct ha_preempt_running *running;      /* those chosen are marked as stopping */
    int64_t running_count;
    int64_t min_run_ms; /* 0: nothing is ever stopped */
    int64_t now_ms;     /* wall clock, as for the plan */
};

struct ha_preempt_stop {
    int64_t victim; /* index in running */
    int64_t job;    /* that waits */
};

/* Fill stops[limit]; returns how many, or -ENOMEM.  *ret_wait_ms: until an attempt that is too
 * young now may be stopped; 0: none is. */
int64_t ha_preempt_choose(struct ha_preempt *preempt, struct ha_preempt_stop *stops, int64_t limit,
                          int64_t *ret_wait_ms);

#endif
