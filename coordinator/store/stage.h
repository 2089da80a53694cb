/* stage.h - stages of cells, and the results they show
 *
 * A result is what a stage key names.  Every live stage with that key shows the
 * result's state, except one that was cancelled in its own sweep; a stage that
 * did not have it made shows "reused" instead of "done".  The owner is the
 * stage on whose behalf the work is done: its sweep pays and gives priority.
 *
 * A result lives as long as some live stage wants it; when the last one goes,
 * its job and items are cancelled. */
#ifndef HA_COORDINATOR_STORE_STAGE_H
#define HA_COORDINATOR_STORE_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/fuse.h"
#include "coordinator/core/state.h"
#include "coordinator/store/event.h"

struct ha_error;
struct ha_store;

struct ha_stage_spec {
    int64_t sweep, cell, model;
    enum ha_stage_kind kind;
    int64_t judge;   /* of a judge stage, else 0 */
    const char *key; /* 64 hexadecimal digits */
    int64_t parent;  /* result that it is made from; 0: none */
    int64_t total;   /* expected pairs, steps or answers; 0: not known */
    int64_t priority;
    const char *model_digest;
    const char *fuse_key;      /* equal for stages that one job may hold; "" or NULL: none */
    const char *reference_key; /* of a train stage, words: the key of its reference, the one that
                                  is equal under any batch plan, train.reference; "": none */
    struct ha_fuse_need need;
    int64_t auto_layers; /* of a train stage whose layers the parent, a probe, chooses; else 0 */
    const char *measure; /* by which */
};

/* Let the cell have a live stage with this key: keep it, replace one with
 * another key, or add one; find or make the result, and its job.  A result that
 * failed or was cancelled is worked on again when a stage is new for it, or was
 * cancelled itself. */
int ha_store_stage_attach(struct ha_store *store, const struct ha_by *by,
                          const struct ha_stage_spec *spec, int64_t *ret_result,
                          struct ha_error *err);

struct ha_stage_row {
    int64_t id, sweep, cell, result, judge;
    enum ha_stage_kind kind;
    const char *judge_name;    /* "" unless judge, as what follows */
    const char *judge_stop;    /* why it may send nothing now */
    const char *judge_trouble; /* what its evaluator said last */
    int64_t judge_samples;
    const char *key;
    enum ha_stage_state state;
    const char *reason; /* of the stage, else of its result */
    /* of the result */
    int64_t done, total, failed, ready, leased;
    const char *summary;
    int64_t started_ms, finished_ms;
    /* of its newest job; 0 and "" without one */
    int64_t job, attempts, not_before_ms;
    enum ha_job_state job_state;
    const char *worker;
    const char *stop_reason; /* why the job's attempt was told to stop; "": it was not */
    const char *fuse_key;    /* of its job, while others may still become part of that; else "" */
};

typedef int (*ha_stage_fn)(void *context, const struct ha_stage_row *row);

/* Live stages of a cell: probe, train, generate, then judges by id.  Only id, cell, kind,
 * judge_name, key and state are filled. */
int ha_store_stage_each(struct ha_store *store, int64_t cell, ha_stage_fn fn, void *context,
                        struct ha_error *err);

/* What a status shows of the live stages of all cells of a sweep from one id to another, all but
 * the key, in any order: the judges' after all others. */
int ha_store_stage_each_of_cells(struct ha_store *store, int64_t sweep, int64_t first, int64_t last,
                                 ha_stage_fn fn, void *context, struct ha_error *err);

/* Do stages of the sweep wait that could share a job with this key?  1 or 0. */
int ha_store_stage_grows(struct ha_store *store, int64_t sweep, const char *fuse_key,
                         struct ha_error *err);

/* The next live stage of a sweep (cell 0: all cells) after an id that is in this
 * state: 1, or 0. */
int ha_store_stage_next(struct ha_store *store, int64_t sweep, int64_t cell,
                        enum ha_stage_state state, int64_t after, int64_t *ret_stage,
                        struct ha_error *err);

/* The next live stage after an id that failed, or whose job is held: 1, or 0. */
int ha_store_stage_next_retry(struct ha_store *store, int64_t sweep, int64_t cell, int64_t after,
                              int64_t *ret_stage, struct ha_error *err);

/* The next live stage after an id that is not final: 1, or 0. */
int ha_store_stage_next_open(struct ha_store *store, int64_t sweep, int64_t cell, int64_t after,
                             int64_t *ret_stage, struct ha_error *err);

/* The next live judge stage whose judge left the grid: 1, or 0. */
int ha_store_stage_next_retired(struct ha_store *store, int64_t sweep, int64_t *ret_stage,
                                struct ha_error *err);

/* Its sweep does not want it any more.  Final stages stay as they are. */
int ha_store_stage_cancel(struct ha_store *store, const struct ha_by *by, int64_t stage,
                          const char *reason, struct ha_error *err);

/* It left the grid: not live, and not wanted.  Of a cell: its probe stage, if it
 * has one, or all. */
int ha_store_stage_retire(struct ha_store *store, const struct ha_by *by, int64_t stage,
                          const char *reason, struct ha_error *err);
int ha_store_stage_retire_probe(struct ha_store *store, const struct ha_by *by, int64_t cell,
                                const char *reason, struct ha_error *err);
int ha_store_stages_retire_of_cell(struct ha_store *store, const struct ha_by *by, int64_t cell,
                                   const char *reason, struct ha_error *err);

/* Work on it again from the start of its attempts: for a stage that failed or
 * was cancelled, or whose job is held.  Returns 1, or 0 when there was nothing to do. */
int ha_store_stage_retry(struct ha_store *store, const struct ha_by *by, int64_t stage,
                         struct ha_error *err);

/* Give a result a state, and what follows: the stages that show it, blocks, and
 * the results made from it. */
int ha_store_result_set(struct ha_store *store, const struct ha_by *by, int64_t result,
                        enum ha_stage_state state, const char *reason, struct ha_error *err);

/* End a judge result when its answers are complete and its items are final. */
int ha_store_result_settle(struct ha_store *store, const struct ha_by *by, int64_t result,
                           struct ha_error *err);

int ha_store_result_progress(struct ha_store *store, int64_t result, int64_t done, int64_t total,
                             struct ha_error *err);
/* Summaries of what workers have trained and answered: the newest `limit` of them, the oldest of
 * these first. */
typedef int (*ha_result_record_fn)(void *context, int64_t worker, enum ha_stage_kind kind,
                                   const char *summary_json);
int ha_store_result_each_record(struct ha_store *store, int64_t limit, ha_result_record_fn fn,
                                void *context, struct ha_error *err);

int ha_store_result_summary(struct ha_store *store, int64_t result, const char *summary,
                            const char *adapter_sha256, struct ha_error *err);

#endif
