/* outcome.h - from a reply's bytes to what the coordinator is told
 *
 * Pure, so that a stored reply can be read again without a network: by this
 * worker after a restart, by another one, or by `reparse`. */
#ifndef HA_JUDGE_WORKER_OUTCOME_H
#define HA_JUDGE_WORKER_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "judge-worker/classify.h"
#include "judge-worker/parser.h"

struct ha_error;

/* A call as it ended, and the settings under which it is read. */
struct ha_judge_end {
    const char *provider, *model; /* of the judge */
    int64_t max_tokens;
    int64_t reasks,
        max_reasks; /* replies of this item that could not be read so far, and the cap */
    enum ha_judge_transport transport;
    const char *transport_text; /* "" when it ended well */
    int http_status;
    const void *raw; /* the body */
    size_t raw_size;
};

/* "scored" | "reask" | "retry" | "failed" | "release" (proto/ha.proto). */
enum ha_judge_kind {
    HA_JUDGE_SCORED,
    HA_JUDGE_REASK,
    HA_JUDGE_RETRY,
    HA_JUDGE_FAILED,
    HA_JUDGE_RELEASE
};

enum { HA_JUDGE_FAULT_BYTES = 600 };

struct ha_judge_outcome {
    enum ha_judge_kind kind;
    enum ha_judge_class class;
    bool possibly_paid;
    struct ha_judge_scores scores;            /* when scored */
    char fault[HA_JUDGE_FAULT_BYTES];         /* otherwise */
    int64_t prompt_tokens, completion_tokens; /* -1: not said */
};

/* Returns 0 or -ENOMEM. */
int ha_judge_outcome_read(const struct ha_judge_end *end, struct ha_judge_outcome *ret_outcome,
                          struct ha_error *err);
void ha_judge_outcome_clear(struct ha_judge_outcome *outcome);

const char *ha_judge_kind_name(enum ha_judge_kind kind);

#endif
