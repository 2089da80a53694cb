/* entries.h - one candidate set of scores, checked entry by entry
 *
 * The inner half of the parser: parser.c finds the entries in a reply, this
 * half says whether they are sixteen valid scores. */
#ifndef HA_JUDGE_WORKER_ENTRIES_H
#define HA_JUDGE_WORKER_ENTRIES_H

#include <stdbool.h>
#include <stdint.h>

#include "judge-worker/parser.h"

struct ha_json;

/* An entry of a candidate: {"dimension", "score", "reason"}, or name and value
 * of a map.  json is borrowed. */
struct ha_judge_entry {
    const char *name; /* of a map; NULL: json's own "dimension" */
    const struct ha_json *json;
};

/* True for an object that has a member "dimension". */
bool ha_judge_entry_is(const struct ha_json *json);

/* The number of a dimension, or -1.  Its spelling may differ in case, in the
 * spaces, dashes and underscores between words, and in a number before it
 * ("3. Tone"); *ret_exact says whether it does. */
int ha_judge_dimension_find(const char *name, bool *ret_exact);

/* Returns 0, -EBADMSG with the fault, or -ENOMEM. */
int ha_judge_entries_read(const struct ha_judge_entry *entries, int64_t count,
                          struct ha_judge_scores *ret_scores, struct ha_error *err);

#endif
