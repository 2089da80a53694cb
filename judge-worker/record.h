/* record.h - one call that has ended, with all that is needed to report it
 *
 * Kept in the spool from the moment its reply is here until the coordinator has
 * both the reply and what it came to; so it says how to read the reply, too. */
#ifndef HA_JUDGE_WORKER_RECORD_H
#define HA_JUDGE_WORKER_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "judge-worker/classify.h"

struct ha_buffer;
struct ha_error;

struct ha_judge_record {
    uint64_t item, generation, number, call; /* generation, number: the lease's epoch */
    int64_t reasks, max_reasks;
    char *provider, *model; /* of the judge */
    int64_t max_tokens;
    char *identity;
    bool flagged;

    enum ha_judge_transport transport;
    char *error; /* why the transport did not end well, "" otherwise */
    int64_t http_status;
    char *host;
    int64_t latency_ms;
    int64_t estimated_tokens; /* of the prompt */
    double price_input, price_output;
    char *raw; /* may be NULL when raw_size is 0 */
    size_t raw_size;
};

/* The caller clears what it got with ha_judge_record_clear. */
int ha_judge_record_copy(const struct ha_judge_record *record, struct ha_judge_record *ret_copy,
                         struct ha_error *err);
void ha_judge_record_clear(struct ha_judge_record *record);

/* All but raw as one line of JSON, and back. */
int ha_judge_record_encode(const struct ha_judge_record *record, struct ha_buffer *out,
                           struct ha_error *err);
int ha_judge_record_decode(const char *line, size_t size, struct ha_judge_record *ret_record,
                           struct ha_error *err);

#endif
