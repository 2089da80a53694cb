/* result.h - results and the stages that show them, for the files of this folder
 *
 * The functions that others may use are in stage.h. */
#ifndef HA_COORDINATOR_STORE_RESULT_H
#define HA_COORDINATOR_STORE_RESULT_H

#include "coordinator/store/stage.h"

struct ha_result {
    int64_t id;
    enum ha_stage_kind kind;
    enum ha_stage_state state;
    int64_t parent, owner; /* 0: none */
    int64_t total, done, failed, cancelled;
};

int ha_store_result_read(struct ha_store *store, int64_t result, struct ha_result *ret_result,
                         struct ha_error *err);

/* A stage as the history names it. */
struct ha_shown {
    int64_t id, sweep, cell, model, judge, result;
    enum ha_stage_kind kind;
    enum ha_stage_state state;
    bool live;
    char subject[320];
};

int ha_store_shown_read(struct ha_store *store, int64_t stage, struct ha_shown *ret_shown,
                        struct ha_error *err);
int ha_store_shown_set(struct ha_store *store, const struct ha_by *by, const struct ha_shown *shown,
                       enum ha_stage_state state, bool live, const char *reason,
                       struct ha_error *err);

/* A stage does not want the result any more: find it another owner, or cancel
 * its work. */
int ha_store_result_drop(struct ha_store *store, const struct ha_by *by, int64_t result,
                         const char *reason, struct ha_error *err);

/* Begin, or begin again, with a new job or with the items that have no score.
 * The result has an owner. */
int ha_store_result_start(struct ha_store *store, const struct ha_by *by, int64_t result,
                          struct ha_error *err);

#endif
