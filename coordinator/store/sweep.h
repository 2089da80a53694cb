/* sweep.h - sweeps with their models, data files and judges */
#ifndef HA_COORDINATOR_STORE_SWEEP_H
#define HA_COORDINATOR_STORE_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/fit.h"
#include "coordinator/core/fuse.h"
#include "coordinator/store/event.h"

struct ha_error;
struct ha_store;

enum ha_sweep_state {
    HA_SWEEP_RUNNING,
    HA_SWEEP_PAUSED,
    HA_SWEEP_DONE,
    HA_SWEEP_GAPS, /* finished, and some stage has no result */
    HA_SWEEP_CANCELLED,
    HA_SWEEP_STATES
};

const char *ha_sweep_state_name(enum ha_sweep_state state);

/* What is being done to the stages of a sweep, a slice at a time. */
enum ha_sweep_chore {
    HA_CHORE_NONE,
    HA_CHORE_CANCEL,    /* all open stages */
    HA_CHORE_REVIVE,    /* cancelled ones wait again */
    HA_CHORE_RETRY,     /* failed and held ones wait again */
    HA_CHORE_RETRY_ALL, /* both */
    HA_CHORES
};

struct ha_sweep_row {
    int64_t id;
    const char *name;
    enum ha_sweep_state state;
    const char *reason;
    int64_t version; /* of its grid */
    bool expanding;
    enum ha_sweep_chore chore;
    const char *toml, *base_dir, *overrides, *submit_sha256, *data_sha256;
    int64_t priority, seed;
    double budget;
    int64_t max_attempts, max_failures;
    bool wait_when_lost;
    enum ha_fuse_mode fuse;
    int64_t time_alone_steps;
    struct ha_fit need;   /* what its attempts need of a worker; no text NULL when read */
    int64_t time_limit_s; /* of an attempt; 0: none */
    const char *judge_label;
    int64_t cells, stages, stages_done, stages_failed, stages_cancelled;
    int64_t created_ms, finished_ms;
};

/* Insert (id 0), or replace the grid and what follows from it (state, counts
 * and times stay).  expanding: its version rises by one; else its cells are those that there are,
 * and whether it is being expanded stays. */
int ha_store_sweep_put(struct ha_store *store, const struct ha_by *by,
                       const struct ha_sweep_row *row, int64_t *ret_id, struct ha_error *err);

typedef int (*ha_sweep_fn)(void *context, const struct ha_sweep_row *row);

/* By id (0: any) and name (NULL: any), in order of id. */
int ha_store_sweep_each(struct ha_store *store, int64_t id, const char *name, ha_sweep_fn fn,
                        void *context, struct ha_error *err);

/* By name, else by number.  1 or 0. */
int ha_store_sweep_id(struct ha_store *store, const char *name, int64_t *ret_id,
                      struct ha_error *err);

/* The one sweep there is: 1; 0 when there are none or several. */
int ha_store_sweep_only(struct ha_store *store, int64_t *ret_id, struct ha_error *err);

int ha_store_sweep_set_state(struct ha_store *store, const struct ha_by *by, int64_t sweep,
                             enum ha_sweep_state state, const char *reason, struct ha_error *err);
int ha_store_sweep_set_chore(struct ha_store *store, int64_t sweep, enum ha_sweep_chore chore,
                             struct ha_error *err);
int ha_store_sweep_set_expanded(struct ha_store *store, int64_t sweep, int64_t cells,
                                struct ha_error *err);

/* Give every expanded sweep the state that its counts of stages say (running,
 * done or gaps; pausing and cancelling are a person's).  Calls fn, which may be
 * NULL, for each that ended now. */
int ha_store_sweep_settle(struct ha_store *store, const struct ha_by *by, ha_sweep_fn fn,
                          void *context, struct ha_error *err);

/* The next running sweep after an id that has reached its max_failures and is
 * not being stopped yet: 1 and the number of its failed cells, or 0. */
int ha_store_sweep_next_failing(struct ha_store *store, int64_t after, int64_t *ret_sweep,
                                int64_t *ret_failed, struct ha_error *err);

struct ha_model_row {
    int64_t id;
    const char *name, *path, *hub_id, *prompt_template, *digest, *tokenizer_digest, *family;
    const char *plan; /* JSON of `ha-attempt plan`; "" or NULL: none */
    int64_t layers;
};

/* Insert or replace by (sweep, name). */
int ha_store_model_put(struct ha_store *store, int64_t sweep, const struct ha_model_row *row,
                       int64_t *ret_id, struct ha_error *err);

typedef int (*ha_model_fn)(void *context, const struct ha_model_row *row);
int ha_store_model_each(struct ha_store *store, int64_t sweep, ha_model_fn fn, void *context,
                        struct ha_error *err);

struct ha_file_row {
    const char *split, *path, *sha256;
    int64_t position, size;
};

int ha_store_files_clear(struct ha_store *store, int64_t sweep, struct ha_error *err);
int ha_store_file_add(struct ha_store *store, int64_t sweep, const struct ha_file_row *row,
                      struct ha_error *err);

/* By split, then position. */
typedef int (*ha_file_fn)(void *context, const struct ha_file_row *row);
int ha_store_file_each(struct ha_store *store, int64_t sweep, ha_file_fn fn, void *context,
                       struct ha_error *err);

struct ha_judge_row {
    int64_t id, sweep;
    const char *name, *settings;
    bool eager;
    int64_t samples, max_reasks, max_attempts;
    double budget, spent, reserved;
    int64_t possibly_paid;
    const char *stop;
    bool live;
};

/* Insert or replace by (sweep, name); money spent stays. */
int ha_store_judge_put(struct ha_store *store, int64_t sweep, const struct ha_judge_row *row,
                       int64_t *ret_id, struct ha_error *err);

/* No judge of the sweep is in the grid, until it is put again. */
int ha_store_judges_retire(struct ha_store *store, int64_t sweep, struct ha_error *err);

/* Why its evaluator cannot be asked just now, for status; "" when it can. */
int ha_store_judge_set_trouble(struct ha_store *store, int64_t judge, const char *text,
                               struct ha_error *err);

/* Of a sweep, or one by id (the other 0). */
typedef int (*ha_judge_fn)(void *context, const struct ha_judge_row *row);
int ha_store_judge_each(struct ha_store *store, int64_t sweep, int64_t judge, ha_judge_fn fn,
                        void *context, struct ha_error *err);

struct ha_money {
    double spent, reserved, budget;
    int64_t possibly_paid;
};

/* Sums over a sweep's judges. */
int ha_store_sweep_money(struct ha_store *store, int64_t sweep, struct ha_money *ret_money,
                         struct ha_error *err);

#endif
