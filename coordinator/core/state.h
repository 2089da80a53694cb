/* state.h - the states of jobs, stages, attempts and items, and their changes
 *
 *   job:     waiting -> ready -> leased -> running -> done
 *            any state that is not final -> cancelled, held or failed; a lease that ends without a
 *            result goes back to ready; ready -> running or done when a lost attempt comes back
 *   attempt: leased -> running -> ended; either -> lost -> running or ended
 *   item:    blocked -> ready -> leased -> scored | failed; a late score also takes ready -> scored
 *   stage:   follows its job or its items; "reused" when another cell's work gave its result
 *
 * The tables here are the only place that knows which change is allowed.  The names are those of
 * the database and of the wire. */
#ifndef HA_COORDINATOR_CORE_STATE_H
#define HA_COORDINATOR_CORE_STATE_H

#include <stdbool.h>

enum ha_job_state {
    HA_JOB_WAITING, /* for the stage before it */
    HA_JOB_READY,
    HA_JOB_LEASED, /* granted, not yet seen running */
    HA_JOB_RUNNING,
    HA_JOB_HELD,  /* a person has to say "retry" */
    HA_JOB_ASIDE, /* its rows make no sense */
    HA_JOB_DONE,
    HA_JOB_FAILED,
    HA_JOB_CANCELLED,
    HA_JOB_STATES
};

enum ha_stage_state {
    HA_STAGE_WAITING,
    HA_STAGE_READY,
    HA_STAGE_LEASED,
    HA_STAGE_RUNNING,
    HA_STAGE_DONE,
    HA_STAGE_FAILED,
    HA_STAGE_CANCELLED,
    HA_STAGE_REUSED,
    HA_STAGE_STATES
};

enum ha_attempt_state {
    HA_ATTEMPT_STATE_LEASED,
    HA_ATTEMPT_STATE_RUNNING,
    HA_ATTEMPT_STATE_LOST, /* taken back when it is still the newest of its job */
    HA_ATTEMPT_STATE_ENDED,
    HA_ATTEMPT_STATES
};

enum ha_item_state {
    HA_ITEM_BLOCKED, /* other cells of its model have not answered the prompt yet */
    HA_ITEM_READY,
    HA_ITEM_LEASED,
    HA_ITEM_SCORED,
    HA_ITEM_FAILED,
    HA_ITEM_CANCELLED,
    HA_ITEM_STATES
};

/* In the order of a cell's stages. */
enum ha_stage_kind {
    HA_STAGE_PROBE,
    HA_STAGE_TRAIN,
    HA_STAGE_GENERATE,
    HA_STAGE_JUDGE,
    HA_STAGE_KINDS
};

/* Names, and back: false for a text that is no name. */
const char *ha_job_state_name(enum ha_job_state state);
const char *ha_stage_state_name(enum ha_stage_state state);
const char *ha_item_state_name(enum ha_item_state state);
const char *ha_stage_kind_name(enum ha_stage_kind kind);

bool ha_job_state_parse(const char *name, enum ha_job_state *ret_state);
bool ha_stage_state_parse(const char *name, enum ha_stage_state *ret_state);
bool ha_attempt_state_parse(const char *name, enum ha_attempt_state *ret_state);
bool ha_item_state_parse(const char *name, enum ha_item_state *ret_state);
bool ha_stage_kind_parse(const char *name, enum ha_stage_kind *ret_kind);

bool ha_job_may(enum ha_job_state from, enum ha_job_state to);
bool ha_attempt_may(enum ha_attempt_state from, enum ha_attempt_state to);
bool ha_item_may(enum ha_item_state from, enum ha_item_state to);

/* Nothing changes it any more, except a person's "retry". */
bool ha_job_final(enum ha_job_state state);
bool ha_stage_final(enum ha_stage_state state);

/* What a stage shows while its job is in this state. */
enum ha_stage_state ha_stage_of_job(enum ha_job_state state);

#endif
