/* resident_policy.h - which process that keeps a model goes, and which is used again
 *
 * Pure.  A process that has done its job waits for the next one of its model, as long as rules say.
 * It goes at once when a new process needs its place: attempts and those that wait are together no
 * more than there are slots; where attempts share one memory (no GPUs of their own), and for a
 * gang, all that wait go first.  The one that has waited longest is the first to go. */
#ifndef HA_WORKER_DAEMON_RESIDENT_POLICY_H
#define HA_WORKER_DAEMON_RESIDENT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct resident_rules {
    int64_t slots;
    int64_t keep_ms; /* 0: none waits */
    bool shared;     /* attempts share the memory of the machine, or of a GPU */
};

/* One that waits, or was told to end and has not yet. */
struct resident_view {
    const char *key; /* of what it keeps */
    int64_t since_ms;
    bool ending;
};

/* The one to be used again for a job with this key, the one that came last; -1: none. */
int64_t resident_find(const struct resident_view *list, int64_t n, const char *key);

/* May a new process for so many ranks begin, beside `active` others and n that wait or are ending?
 * One that is ending still has what it holds. */
bool resident_has_room(int64_t n, const struct resident_rules *rules, int64_t active,
                       int64_t ranks);

/* The next one that has to end so that it may; -1: none.  To be asked again after that was marked
 * as ending. */
int64_t resident_to_end(const struct resident_view *list, int64_t n,
                        const struct resident_rules *rules, int64_t active, int64_t ranks);

/* The one that has waited longest; -1: none waits. */
int64_t resident_oldest(const struct resident_view *list, int64_t n);

#endif
