/* gang.h - why a gang over several workers ended
 *
 * Pure.  Every part tells how its ranks ended; the attempt's end is made of all of them: a part
 * that failed by itself is why, before one that went silent or away with its worker, one that was
 * stopped, and one that only followed others.  So a worker that is lost costs the job no attempt,
 * and a rank that crashed does, whatever the order in which the words come in.  One whose memory
 * ran out is why before one that crashed: it would run out again. */
#ifndef HA_COORDINATOR_CORE_GANG_H
#define HA_COORDINATOR_CORE_GANG_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/retry.h"

struct ha_buffer;

struct ha_gang_part {
    const char *worker; /* its name */
    int64_t first_rank, ranks;
    bool ended;
    enum ha_outcome outcome; /* of one that ended */
    bool followed;           /* it failed because others had */
    bool starved;            /* it failed because memory ran out */
    int64_t order;           /* in which they ended */
    const char *reason;
};

struct ha_gang_view {
    const struct ha_gang_part *parts;
    int64_t part_count;
    const int64_t *started; /* collectives that each rank had begun; -1: it did not tell */
    const bool *ready;      /* each rank, until all are */
    bool late;              /* they were not ready in time_ms */
    int64_t time_ms;
};

/* The end of the whole: its outcome (HA_OUTCOME_REFUSED where memory ran out, as for a single
 * process), its reason in words, and the part that is why (-1: none).
 * Returns 0 or -ENOMEM. */
int ha_gang_judge(const struct ha_gang_view *view, enum ha_outcome *ret_outcome, int64_t *ret_part,
                  struct ha_buffer *reason);

/* The rank that was behind the others, by their collectives; -1: they do not tell.  A single one
 * that told nothing while others did is behind, too, with *ret_started -1. */
int64_t ha_gang_behind(const struct ha_gang_view *view, int64_t *ret_started, int64_t *ret_most);

/* Which part has the rank; -1: none. */
int64_t ha_gang_part_of(const struct ha_gang_view *view, int64_t rank);

#endif
