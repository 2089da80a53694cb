/* lane.h - judges, and the limits they share
 *
 * A judge is one [[judge]] table of one sweep, as the coordinator names it.
 * Judges that ask the same model at the same place with the same key share a
 * lane: limits belong to (host, model, key), whatever sweep asks. */
#ifndef HA_JUDGE_WORKER_LANE_H
#define HA_JUDGE_WORKER_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/hash.h"
#include "common/conf/sweep.h"
#include "judge-worker/limits.h"

struct ha_error;
struct ha_wire_judge_spec;

struct ha_judge_lane {
    struct ha_judge_lane *next;
    char *name; /* address, model and key's name */
    struct ha_judge_limits limits;
    double completion_tokens; /* of a reply, on average */

    bool reached;            /* an HTTP reply came at least once */
    int64_t unreached_calls; /* before the first one */
    int64_t unreached_since;
    bool dead;                /* never reached, and given up until a probe reaches it */
    char trouble[256];        /* the last thing that a person has to mend; "" for none */
    int64_t trouble_noted_ms; /* when it was said last */
};

struct ha_judge {
    struct ha_judge *next;
    uint64_t id;
    struct ha_sweep_judge settings;
    char identity[HA_SHA256_HEX_BYTES];
    struct ha_judge_lane *lane;
};

struct ha_judge_table {
    struct ha_judge *judges;
    struct ha_judge_lane *lanes;
};

struct ha_judge *ha_judge_table_find(const struct ha_judge_table *table, uint64_t id);

/* Add a judge that is not there yet, or replace its settings. */
int ha_judge_table_put(struct ha_judge_table *table, const struct ha_wire_judge_spec *spec,
                       int64_t now_ms, struct ha_error *err);
void ha_judge_table_clear(struct ha_judge_table *table);

/* Tokens that a call will take, about: for the bucket of tokens per minute. */
int64_t ha_judge_lane_tokens(const struct ha_judge_lane *lane, int64_t prompt_tokens);

/* A call of this class has ended; the lane learns whether it can be reached. */
void ha_judge_lane_learn(struct ha_judge_lane *lane, enum ha_judge_class class, bool http,
                         const char *fault, int64_t completion_tokens, int64_t now_ms);

#endif
