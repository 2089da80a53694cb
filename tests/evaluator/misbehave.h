/* misbehave.h - the ways in which evaluators disappoint
 *
 * Twenty-four kinds of reply that a judge client must survive, each with its
 * variants, and what servers and networks do besides.  Each takes the right
 * scores and makes the reply that arrives instead. */
#ifndef HA_TESTS_EVALUATOR_MISBEHAVE_H
#define HA_TESTS_EVALUATOR_MISBEHAVE_H

#include <stdint.h>
#include <stdio.h>

#include "common/base/buffer.h"
#include "tests/evaluator/statistics.h"

#define HA_EVALUATOR_MODEL "ha-evaluator (text statistics, not a language model)"

/* What happens to the connection while the reply goes out. */
enum ha_evaluator_wire {
    HA_EVALUATOR_WHOLE,
    HA_EVALUATOR_SHORT, /* ends before the length that its header promises */
    HA_EVALUATOR_RESET, /* reset before any byte */
    HA_EVALUATOR_HANG,  /* never answered */
    HA_EVALUATOR_SLOW   /* five seconds late */
};

struct ha_evaluator_reply {
    int status;
    const char *content_type;
    char retry_after[64]; /* "": no such header */
    int64_t spaces;       /* sent after the body */
    enum ha_evaluator_wire wire;
    struct ha_buffer body;
};

struct ha_evaluator_way;

/* By name, or by the number of the list (its first variant).  NULL: no such way. */
const struct ha_evaluator_way *ha_evaluator_way_find(const char *name);
const char *ha_evaluator_way_name(const struct ha_evaluator_way *way);

/* One line for each way. */
void ha_evaluator_ways_print(FILE *out);

/* The reply to a request with these scores.  way NULL: as it should be.
 * Returns 0 or -ENOMEM; the body is the caller's to clear either way. */
int ha_evaluator_reply_make(const struct ha_evaluator_way *way,
                            const struct ha_evaluator_score scores[HA_DIMENSIONS],
                            int64_t prompt_tokens, struct ha_evaluator_reply *ret_reply);

#endif
