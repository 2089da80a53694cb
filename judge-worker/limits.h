/* limits.h - how many calls may be in flight, and how many a minute
 *
 * Pure: time comes in as an argument, in milliseconds of one clock.  One
 * struct per (host, model, key).
 *
 *   concurrency  begins small and grows by one with every reply until the first
 *                cut (slow start), then by one per round; it is cut to 0.7 once
 *                per burst of refusals, never by server errors, and never below 1
 *   requests     a bucket that fills with the configured rate; where the
 *                provider counts by the second it holds one second, else two
 *   tokens       the same, taken when a call is admitted by its estimate and
 *                settled by what it used
 *   hold         nothing is admitted before this time (Retry-After, a pause)
 *
 * Where a person has to mend something, or nothing is reached, the width falls
 * to one, so that one call probes and not many. */
#ifndef HA_JUDGE_WORKER_LIMITS_H
#define HA_JUDGE_WORKER_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "judge-worker/classify.h"

struct ha_judge_bucket {
    double per_ms;   /* 0: no limit */
    double capacity; /* what it holds at most */
    double level;    /* below 0: owed */
};

struct ha_judge_limits {
    int64_t ceiling; /* the configured concurrency */
    double width;    /* calls in flight at a time, now */
    bool slow_start; /* no cut so far */
    int64_t in_flight;
    int64_t burst_end; /* refusals before this time belong to the cut that was made */
    int64_t hold_until;
    int64_t filled_at; /* when the buckets were filled last */
    int64_t streak;    /* failures in a row, for backoff; those of one wait count once */
    int64_t streak_until;
    struct ha_judge_bucket requests, tokens;
};

void ha_judge_limits_init(struct ha_judge_limits *limits, int64_t concurrency,
                          int64_t requests_per_minute, int64_t tokens_per_minute, bool per_second,
                          int64_t now_ms);

/* May a call of about this many tokens go now?  Returns 0 and counts it, the
 * milliseconds after which to ask again, or INT64_MAX when a call has to end
 * first. */
int64_t ha_judge_limits_admit(struct ha_judge_limits *limits, int64_t tokens, int64_t now_ms);

/* What admit took, given back: the call was not made after all. */
void ha_judge_limits_return(struct ha_judge_limits *limits, int64_t tokens);

struct ha_judge_ending {
    enum ha_judge_class class;
    int64_t tokens_reserved, tokens_used; /* used -1: not said */
    int64_t retry_after_ms;               /* -1: not said */
    double random;                        /* [0, 1): jitter of the backoff */
};

/* A call has ended.  Returns how long its item should wait before it is sent
 * again, in milliseconds; 0 when nothing speaks against now. */
int64_t ha_judge_limits_end(struct ha_judge_limits *limits, const struct ha_judge_ending *ending,
                            int64_t now_ms);

#endif
