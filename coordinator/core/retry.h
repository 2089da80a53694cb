/* retry.h - what becomes of a job when one of its attempts ends
 *
 * A crash counts against max_attempts.  A loss (the worker went silent, or
 * came back as another process) counts only when the attempt left no newer
 * checkpoint, and so does a stop for a drained worker, a sweep of higher priority,
 * a time limit or a gap in its reports; an attempt that a person stopped never counts.  Losses in a
 * row, with no newer checkpoint between them, quarantine the job.  An error that cannot heal fails
 * it at once, and so does memory that ran out although the plan fits: the same would do so again;
 * of a job of several cells each gets one of its own then.  The wait before the next attempt
 * doubles, with a jitter that depends only on the job and the count, so that a run can be repeated.
 */
#ifndef HA_COORDINATOR_CORE_RETRY_H
#define HA_COORDINATOR_CORE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

struct ha_buffer;

enum {
    HA_RETRY_BASE_MS = 2000,
    HA_RETRY_MAX_MS = 300000,
    HA_RETRY_LOSSES = 5,
    HA_RETRY_SPLIT = 2 /* crashes after which the cells of a job get jobs of their own */
};

enum ha_outcome {
    HA_OUTCOME_DONE,
    HA_OUTCOME_STOPPED, /* as asked, after a checkpoint */
    HA_OUTCOME_FAILED,  /* a crash: another attempt may succeed */
    HA_OUTCOME_REFUSED, /* cannot heal */
    HA_OUTCOME_LOST,
    HA_OUTCOME_REVOKED, /* cancelled */
    HA_OUTCOMES
};

/* Why an attempt was told to stop. */
enum ha_stop {
    HA_STOP_NONE,
    HA_STOP_CELL,    /* its job has fewer cells now */
    HA_STOP_PAUSE,   /* a person holds its sweep, or a cell of its job */
    HA_STOP_DRAIN,   /* its worker is drained */
    HA_STOP_PREEMPT, /* a sweep of higher priority needs its place */
    HA_STOP_LIMIT,   /* its own time limit; never stored, the attempt's end says so */
    HA_STOP_GAP,     /* reports of it that were taken are gone from the store; never stored */
    HA_STOPS
};

const char *ha_stop_name(enum ha_stop stop); /* "" for NONE */
bool ha_stop_parse(const char *name, enum ha_stop *ret_stop);

const char *ha_outcome_name(enum ha_outcome outcome);
bool ha_outcome_parse(const char *name, enum ha_outcome *ret_outcome);

struct ha_retry_policy {
    int64_t max_attempts;
    bool wait_when_lost; /* on_worker_lost = "wait": never lease again without a person */
};

struct ha_retry_counts {
    int64_t crashes; /* attempts that count against max_attempts */
    int64_t losses;  /* in a row, without progress */
};

enum ha_retry_verdict { HA_RETRY_AGAIN, HA_RETRY_FAIL, HA_RETRY_HOLD };

struct ha_retry_decision {
    enum ha_retry_verdict verdict;
    int64_t delay_ms;              /* for HA_RETRY_AGAIN */
    struct ha_retry_counts counts; /* from now on */
};

/* outcome is not DONE and not REVOKED.  stop: why a STOPPED one was stopped.  started: the attempt
 * was seen running (one that never ran does not count at all).  progress: a newer checkpoint, or
 * answers, came out of it.  seed: of the jitter, e.g. the job's id. */
struct ha_retry_decision ha_retry_decide(const struct ha_retry_policy *policy,
                                         struct ha_retry_counts counts, enum ha_outcome outcome,
                                         enum ha_stop stop, bool started, bool progress,
                                         uint64_t seed);

/* HA_RETRY_BASE_MS * 2^(count - 1), at most HA_RETRY_MAX_MS, times 0.75 to 1.25. */
int64_t ha_retry_backoff_ms(int64_t count, uint64_t seed);

/* Why an attempt whose memory ran out was refused, in one line with what to do. */
int ha_retry_memory_reason(const char *why, struct ha_buffer *out);

/* The job's reason in words after a decision: "crash: killed by signal 9 (SIGKILL)". */
int ha_retry_reason(const struct ha_retry_policy *policy, const struct ha_retry_decision *decision,
                    enum ha_outcome outcome, const char *why, struct ha_buffer *out);

#endif
