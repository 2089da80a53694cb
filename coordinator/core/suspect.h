/* suspect.h - which workers fail jobs that others would not fail
 *
 * Pure.  What ended where is remembered for an hour, the last HA_SUSPECT_KEPT ends.  A worker is
 * suspected when so many different jobs failed on it in a row, with no good end between, and the
 * jobs are not to blame.  A job is, when it failed as well on another worker that does good work;
 * so is its kind of work (a group: the jobs of a sweep of one kind), when it failed elsewhere and
 * nowhere else came to a good end.
 *
 * At most a quarter of the workers that take work are set aside, one at least, and never the last.
 * When more than that are suspected at once none is: what they have in common is to blame. */
#ifndef HA_COORDINATOR_CORE_SUSPECT_H
#define HA_COORDINATOR_CORE_SUSPECT_H

#include <stdbool.h>
#include <stdint.h>

enum { HA_SUSPECT_KEPT = 256, HA_SUSPECT_MS = 3600000 };

struct ha_suspect_end {
    int64_t worker, job, group; /* worker 0: forgiven */
    int64_t at_ms;
    bool good;
};

struct ha_suspects {
    struct ha_suspect_end ends[HA_SUSPECT_KEPT]; /* a ring */
    int64_t count;                               /* ever */
};

void ha_suspect_add(struct ha_suspects *suspects, const struct ha_suspect_end *end);

/* Nothing that ended on this worker counts any more. */
void ha_suspect_forgive(struct ha_suspects *suspects, int64_t worker);

struct ha_suspect_worker {
    int64_t id;
    bool takes_work;
    bool aside; /* it was set aside for this, and nobody undid it */
};

/* Fill picks[limit] with the workers to be set aside; returns how many.  jobs: how many different
 * ones must have failed; 0: nobody is ever suspected. */
int64_t ha_suspect_choose(const struct ha_suspects *suspects,
                          const struct ha_suspect_worker *workers, int64_t worker_count,
                          int64_t jobs, int64_t now_ms, int64_t *picks, int64_t limit);

/* Jobs that count against a worker: fills ret_jobs[limit], returns how many. */
int64_t ha_suspect_jobs(const struct ha_suspects *suspects, int64_t worker, int64_t now_ms,
                        int64_t *ret_jobs, int64_t limit);

/* How often a job failed on a worker. */
int64_t ha_suspect_failures(const struct ha_suspects *suspects, int64_t worker, int64_t job);

#endif
