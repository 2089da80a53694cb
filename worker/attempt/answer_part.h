/* answer_part.h - the part of a queue of requests that a rank of a gang answers
 *
 * Prompts are dealt, with all their requests: a rank computes what their adapters have in common
 * once.  Who has which depends on the queue and the number of ranks alone. */
#ifndef HA_WORKER_ATTEMPT_ANSWER_PART_H
#define HA_WORKER_ATTEMPT_ANSWER_PART_H

#include <stdint.h>

#include "common/base/hash.h"
#include "worker/sampling/generate.h"

struct ha_error;

struct ha_answer_part {
    struct ha_generate_request *requests; /* (n), in the queue's order */
    int64_t *place;                       /* (n): of each in the queue */
    int64_t n;
};

/* Requests of one prompt have one array of ids and stand side by side.  The most work goes first,
 * to the rank that has the least so far (of equals the first); work is counted as tokens of the
 * prompt and of answers of full length. */
int ha_answer_part_take(const struct ha_generate_request *queue, int64_t n, int ranks, int rank,
                        struct ha_answer_part *ret_part, struct ha_error *err);
void ha_answer_part_clear(struct ha_answer_part *part);

/* What tells queues of ranks apart that are not of one job: all but the adapter, and its values. */
void ha_answer_hash_request(const struct ha_generate_request *request, struct ha_sha256 *hash);
int ha_answer_hash_adapter(struct ha_backend *backend, const struct ha_adapter *adapter,
                           struct ha_sha256 *hash, struct ha_error *err);

#endif
