/* fit.h - what an attempt needs of a worker, and what the worker offers
 *
 * Pure.  Both are for one attempt.  What a worker does not know it offers none of. */
#ifndef HA_COORDINATOR_CORE_FIT_H
#define HA_COORDINATOR_CORE_FIT_H

#include <stdbool.h>
#include <stdint.h>

struct ha_buffer;

struct ha_fit {
    const char *labels; /* one per line; "" or NULL: none */
    int64_t cpus, memory_bytes;
    int64_t gpus, gpu_memory_bytes; /* memory of each */
    int64_t
        nodes; /* of a need: workers that share the job, each giving what is above; 0 or 1: one */
};

/* Processes that do it with what the need asks for of all its workers. */
int64_t ha_fit_ranks(const struct ha_fit *need);

/* need NULL or all zero: every worker fits. */
bool ha_fit(const struct ha_fit *need, const struct ha_fit *offer);

/* The same need; NULL is none. */
bool ha_fit_equal(const struct ha_fit *a, const struct ha_fit *b);

/* Append the first thing that is lacking: "has no label a100", "offers 2 of 8 cpus".
 * Nothing when it fits.  Returns 0 or -ENOMEM. */
int ha_fit_lack(const struct ha_fit *need, const struct ha_fit *offer, struct ha_buffer *out);

#endif
