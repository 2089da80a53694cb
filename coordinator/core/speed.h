/* speed.h - how fast workers are, from the records of what they finished
 *
 * A trained or generated cell's summary says how many FLOPs were done for it in
 * how many seconds, and how many cells shared its job.  Of each worker and kind
 * of work the newest records weigh most.  What is not known yet is taken to be as
 * the rest is. */
#ifndef HA_COORDINATOR_CORE_SPEED_H
#define HA_COORDINATOR_CORE_SPEED_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/state.h"

/* Of one worker; zeroed at first. */
struct ha_speed {
    double flops[2], seconds[2]; /* of training, of generation; old ones fade */
    /* Generation, sums over records of y = seconds per FLOP of the plain method and
     * x = 1 / cells of the job, which y falls on a line with; faded alike. */
    double n, x, y, xx, xy;
};

/* What a summary tells (worker/contract.h). */
struct ha_speed_record {
    enum ha_stage_kind kind; /* others than train and generate tell nothing */
    double flops, flops_plain, seconds;
    int64_t cells_in_job;
};

/* One that does not make sense (not finite, not positive) is passed over. */
void ha_speed_add(struct ha_speed *speed, const struct ha_speed_record *record);

/* FLOP/s at this kind of work; where there is no record of it, at the other; 0: not known. */
double ha_speed_of(const struct ha_speed *speed, enum ha_stage_kind kind);

/* Replace what is 0 by the mean of the others.  False, and nothing changed, where all are 0. */
bool ha_speed_fill(double *speeds, int64_t count);

/* Of the time that a variant takes in a queue of its own, the part that others in the same
 * queue need not spend again, over the part that each needs: what shared is to cost in fuse.h.
 * Negative: not known, as no worker has answered in jobs of different sizes. */
double ha_speed_sharing(const struct ha_speed *const *speeds, int64_t count);

#endif
