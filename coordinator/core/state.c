#include "coordinator/core/state.h"

#include <string.h>

static const char *const job_names[HA_JOB_STATES] = {
    [HA_JOB_WAITING] = "waiting", [HA_JOB_READY] = "ready",   [HA_JOB_LEASED] = "leased",
    [HA_JOB_RUNNING] = "running", [HA_JOB_HELD] = "held",     [HA_JOB_ASIDE] = "aside",
    [HA_JOB_DONE] = "done",       [HA_JOB_FAILED] = "failed", [HA_JOB_CANCELLED] = "cancelled",
};

static const char *const stage_names[HA_STAGE_STATES] = {
    [HA_STAGE_WAITING] = "waiting",     [HA_STAGE_READY] = "ready",   [HA_STAGE_LEASED] = "leased",
    [HA_STAGE_RUNNING] = "running",     [HA_STAGE_DONE] = "done",     [HA_STAGE_FAILED] = "failed",
    [HA_STAGE_CANCELLED] = "cancelled", [HA_STAGE_REUSED] = "reused",
};

static const char *const attempt_names[HA_ATTEMPT_STATES] = {
    [HA_ATTEMPT_STATE_LEASED] = "leased",
    [HA_ATTEMPT_STATE_RUNNING] = "running",
    [HA_ATTEMPT_STATE_LOST] = "lost",
    [HA_ATTEMPT_STATE_ENDED] = "ended",
};

static const char *const item_names[HA_ITEM_STATES] = {
    [HA_ITEM_BLOCKED] = "blocked", [HA_ITEM_READY] = "ready",   [HA_ITEM_LEASED] = "leased",
    [HA_ITEM_SCORED] = "scored",   [HA_ITEM_FAILED] = "failed", [HA_ITEM_CANCELLED] = "cancelled",
};

static const char *const kind_names[HA_STAGE_KINDS] = {
    [HA_STAGE_PROBE] = "probe",
    [HA_STAGE_TRAIN] = "train",
    [HA_STAGE_GENERATE] = "generate",
    [HA_STAGE_JUDGE] = "judge",
};

/* One row per state before the change, one bit per state after it. */
#define TO(state) (1u << (state))

static const unsigned job_table[HA_JOB_STATES] = {
    [HA_JOB_WAITING] =
        TO(HA_JOB_READY) | TO(HA_JOB_HELD) | TO(HA_JOB_FAILED) | TO(HA_JOB_CANCELLED),
    [HA_JOB_READY] = TO(HA_JOB_LEASED) | TO(HA_JOB_RUNNING) | TO(HA_JOB_DONE) | TO(HA_JOB_FAILED) |
                     TO(HA_JOB_HELD) | TO(HA_JOB_CANCELLED) | TO(HA_JOB_ASIDE),
    [HA_JOB_LEASED] = TO(HA_JOB_RUNNING) | TO(HA_JOB_READY) | TO(HA_JOB_DONE) | TO(HA_JOB_FAILED) |
                      TO(HA_JOB_HELD) | TO(HA_JOB_CANCELLED),
    [HA_JOB_RUNNING] = TO(HA_JOB_READY) | TO(HA_JOB_DONE) | TO(HA_JOB_FAILED) | TO(HA_JOB_HELD) |
                       TO(HA_JOB_CANCELLED),
    [HA_JOB_HELD] = TO(HA_JOB_READY) | TO(HA_JOB_RUNNING) | TO(HA_JOB_DONE) | TO(HA_JOB_FAILED) |
                    TO(HA_JOB_CANCELLED),
    [HA_JOB_ASIDE] = TO(HA_JOB_READY) | TO(HA_JOB_CANCELLED),
};

static const unsigned attempt_table[HA_ATTEMPT_STATES] = {
    [HA_ATTEMPT_STATE_LEASED] =
        TO(HA_ATTEMPT_STATE_RUNNING) | TO(HA_ATTEMPT_STATE_LOST) | TO(HA_ATTEMPT_STATE_ENDED),
    [HA_ATTEMPT_STATE_RUNNING] = TO(HA_ATTEMPT_STATE_LOST) | TO(HA_ATTEMPT_STATE_ENDED),
    [HA_ATTEMPT_STATE_LOST] = TO(HA_ATTEMPT_STATE_RUNNING) | TO(HA_ATTEMPT_STATE_ENDED),
};

static const unsigned item_table[HA_ITEM_STATES] = {
    [HA_ITEM_BLOCKED] = TO(HA_ITEM_READY) | TO(HA_ITEM_CANCELLED),
    [HA_ITEM_READY] =
        TO(HA_ITEM_LEASED) | TO(HA_ITEM_SCORED) | TO(HA_ITEM_FAILED) | TO(HA_ITEM_CANCELLED),
    [HA_ITEM_LEASED] =
        TO(HA_ITEM_READY) | TO(HA_ITEM_SCORED) | TO(HA_ITEM_FAILED) | TO(HA_ITEM_CANCELLED),
    [HA_ITEM_FAILED] = TO(HA_ITEM_BLOCKED) | TO(HA_ITEM_READY) | TO(HA_ITEM_SCORED),
    [HA_ITEM_CANCELLED] = TO(HA_ITEM_BLOCKED) | TO(HA_ITEM_READY) | TO(HA_ITEM_SCORED),
};

static bool find_name(const char *const *names, int count, const char *name, int *ret_index)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

const char *ha_job_state_name(enum ha_job_state state)
{
    return job_names[state];
}

const char *ha_stage_state_name(enum ha_stage_state state)
{
    return stage_names[state];
}

const char *ha_item_state_name(enum ha_item_state state)
{
    return item_names[state];
}

const char *ha_stage_kind_name(enum ha_stage_kind kind)
{
    return kind_names[kind];
}

bool ha_job_state_parse(const char *name, enum ha_job_state *ret_state)
{
    int index;

    if (!find_name(job_names, HA_JOB_STATES, name, &index))
        return false;
    *ret_state = (enum ha_job_state)index;
    return true;
}

bool ha_stage_state_parse(const char *name, enum ha_stage_state *ret_state)
{
    int index;

    if (!find_name(stage_names, HA_STAGE_STATES, name, &index))
        return false;
    *ret_state = (enum ha_stage_state)index;
    return true;
}

bool ha_attempt_state_parse(const char *name, enum ha_attempt_state *ret_state)
{
    int index;

    if (!find_name(attempt_names, HA_ATTEMPT_STATES, name, &index))
        return false;
    *ret_state = (enum ha_attempt_state)index;
    return true;
}

bool ha_item_state_parse(const char *name, enum ha_item_state *ret_state)
{
    int index;

    if (!find_name(item_names, HA_ITEM_STATES, name, &index))
        return false;
    *ret_state = (enum ha_item_state)index;
    return true;
}

bool ha_stage_kind_parse(const char *name, enum ha_stage_kind *ret_kind)
{
    int index;

    if (!find_name(kind_names, HA_STAGE_KINDS, name, &index))
        return false;
    *ret_kind = (enum ha_stage_kind)index;
    return true;
}

bool ha_job_may(enum ha_job_state from, enum ha_job_state to)
{
    return (job_table[from] & TO(to)) != 0;
}

bool ha_attempt_may(enum ha_attempt_state from, enum ha_attempt_state to)
{
    return (attempt_table[from] & TO(to)) != 0;
}

bool ha_item_may(enum ha_item_state from, enum ha_item_state to)
{
    return (item_table[from] & TO(to)) != 0;
}

bool ha_job_final(enum ha_job_state state)
{
    return job_table[state] == 0;
}

bool ha_stage_final(enum ha_stage_state state)
{
    return state == HA_STAGE_DONE || state == HA_STAGE_FAILED || state == HA_STAGE_CANCELLED ||
           state == HA_STAGE_REUSED;
}

enum ha_stage_state ha_stage_of_job(enum ha_job_state state)
{
    static const enum ha_stage_state table[HA_JOB_STATES] = {
        [HA_JOB_WAITING] = HA_STAGE_WAITING,     [HA_JOB_READY] = HA_STAGE_READY,
        [HA_JOB_LEASED] = HA_STAGE_LEASED,       [HA_JOB_RUNNING] = HA_STAGE_RUNNING,
        [HA_JOB_HELD] = HA_STAGE_READY,          [HA_JOB_ASIDE] = HA_STAGE_FAILED,
        [HA_JOB_DONE] = HA_STAGE_DONE,           [HA_JOB_FAILED] = HA_STAGE_FAILED,
        [HA_JOB_CANCELLED] = HA_STAGE_CANCELLED,
    };

    return table[state];
}
