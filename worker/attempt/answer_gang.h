/* answer_gang.h - ranks that answer together: how their answers come to rank 0
 *
 * Every rank has the whole queue of requests and answers a part of it (answer_part.h).  Now and
 * then all exchange what they have finished, as tokens; rank 0 makes texts of them and reports them
 * as if they were its own.  What an answer is depends on none of this: tokens are drawn by seed,
 * prompt and position.
 *
 * A rank exchanges when it was long enough ago, when it is told to stop, and when it has nothing
 * left; the others come to it within a few of their steps.  Where ranks share the model's weights a
 * rank that waits helps them meanwhile (worker/model/model.h). */
#ifndef HA_WORKER_ATTEMPT_ANSWER_GANG_H
#define HA_WORKER_ATTEMPT_ANSWER_GANG_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "worker/sampling/generate.h"

struct ha_answer_gang;
struct ha_comm;
struct ha_error;

struct ha_answer_gang_options {
    struct ha_comm *comm;   /* outlives the gang, and so does the model */
    struct ha_model *model; /* joined */
    int64_t n_requests;     /* of the whole queue */
    int64_t wait_ms;        /* that a rank waits for the others; 0: no limit */
    void *context;
    /* Another rank has finished a request; ids are valid during the call. */
    int (*answer)(void *context, const struct ha_generate_answer *answer, struct ha_error *err);
    /* For another rank the logits of a request were no numbers; *why is its own. */
    int (*failed)(void *context, int64_t request, struct ha_error *why, struct ha_error *err);
};

int ha_answer_gang_create(const struct ha_answer_gang_options *options,
                          struct ha_answer_gang **ret_gang, struct ha_error *err);
void ha_answer_gang_destroy(struct ha_answer_gang *gang);

/* To be sent with the next exchange.  Requests count in the whole queue. */
int ha_answer_gang_put(struct ha_answer_gang *gang, const struct ha_generate_answer *answer,
                       struct ha_error *err);
int ha_answer_gang_put_failure(struct ha_answer_gang *gang, int64_t request,
                               const struct ha_error *why, struct ha_error *err);

/* What this rank has done so far, for the others to know. */
void ha_answer_gang_tell(struct ha_answer_gang *gang, int64_t tokens, double flops);
/* The same of all others, as they told it last. */
void ha_answer_gang_told(const struct ha_answer_gang *gang, int64_t *ret_tokens, double *ret_flops);

/* Before each step: exchange if it is time; at once with `stop`, which asks all to end.  -EINTR
 * where one of them did. */
int ha_answer_gang_step(struct ha_answer_gang *gang, bool stop, struct ha_error *err);

/* This rank has nothing left: exchange until that is so for all.  *stop is looked at between;
 * -EINTR as above. */
int ha_answer_gang_finish(struct ha_answer_gang *gang, const volatile sig_atomic_t *stop,
                          struct ha_error *err);

#endif
