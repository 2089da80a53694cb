/* inside.h - what the files of the server share
 *
 * A handler reads the request, changes the store, fills the reply, and changes
 * memory last, so that a refused request leaves nothing behind.  What memory
 * holds beside the store (who is connected, who was heard when, progress) may
 * be lost at any time. */
#ifndef HA_COORDINATOR_SERVER_INSIDE_H
#define HA_COORDINATOR_SERVER_INSIDE_H

#include "common/base/error.h"
#include "coordinator/core/plan.h"
#include "coordinator/core/retry.h"
#include "coordinator/core/speed.h"
#include "coordinator/core/suspect.h"
#include "coordinator/server/coordinator.h"
#include "coordinator/store/event.h"
#include "proto/arena.h"
#include "proto/wire.h"

enum {
    HA_SERVER_PHASE_BYTES = 24,
    HA_SERVER_ACTOR_BYTES = 128,
    HA_SERVER_KEY_BYTES = 128,
    HA_SERVER_VOIDED = 8,
    HA_SERVER_FAILURE_BYTES = 160
};

/* By whom a worker is drained that fails one job after the other. */
#define HA_SERVER_SETS_ASIDE "coordinator"

struct ha_backup;
struct ha_store;
struct ha_chore;

struct ha_progress {
    int64_t job;
    struct ha_epoch epoch;
    char phase[HA_SERVER_PHASE_BYTES];
    int64_t step, steps;
    double tokens_per_second, utilisation;
};

/* A worker or judge worker that the store knows. */
struct ha_member {
    int64_t id;
    bool judge;
    char *name, *machine, *instance, *host, *backend, *version;
    char *key; /* the name of the one that its name belongs to; NULL: to none */
    char *voided[HA_SERVER_VOIDED]; /* instances that newer ones replaced, newest first */
    uint64_t peer;                  /* 0: not connected since the start */
    int64_t heard_ms, seen_wall_ms;
    int64_t clock_ms; /* its wall clock less ours, as its last heartbeat showed */
    bool clock_known;
    bool lost;              /* as stored */
    bool answered;          /* its last quiet heartbeat was */
    bool draining;          /* as its heartbeat says */
    bool returns;           /* it is back, and has not told yet what it runs: no new work */
    bool drained;           /* a person drains it, or it was set aside */
    bool aside;             /* it was set aside (suspect.c) */
    char *drain_why;        /* by whom, since when and why; NULL when nobody does */
    int64_t drain_until_ms; /* boot time: attempts are stopped then; 0: they go on to their end */
    int64_t slots;
    int64_t memory_bytes;     /* as its hello said; 0: not known */
    struct ha_fit offer;      /* as its hello said, and since then its heartbeats */
    int64_t gpu_memory_bytes; /* of each GPU, as its hello said; 0: not known */
    char *labels;             /* of the offer; NULL: none */
    int64_t used;             /* attempts that hold a slot; -1: to be counted */
    struct ha_plan_model models[HA_PLAN_MODELS]; /* that it has, as far as is known */
    struct ha_speed speed;                       /* from what it has finished */
    char last_failure[HA_SERVER_FAILURE_BYTES];
    struct ha_progress *running;
    int64_t running_count;
    struct ha_wire_message *beat; /* its last heartbeat's devices alone; NULL: it told none */
    struct ha_wire_message *told; /* the same, as its last heartbeat told; NULL: nothing */
    int64_t undrained_ms;         /* when a person last undrained it; 0: not since we began */
    uint64_t items_request;       /* of a judge worker: the last request for items that counted */
};

/* The attempts that its slots and its devices allow now. */
int64_t ha_member_slots(const struct ha_member *m);

/* A connection that said hello. */
struct ha_caller {
    uint64_t peer; /* 0: free place of the table */
    enum ha_wire_role role;
    struct ha_member *member; /* of workers and judge workers */
    int64_t heard_ms;
};

struct ha_held {
    uint64_t peer;
    void *data; /* NULL: tell about an artifact instead */
    size_t size;
    char sha256[65];
    bool orphan;
};

struct ha_asked {
    uint64_t peer, request_id;
};

/* A gang that runs: what its parts told.  All of it is told again with every heartbeat for as long
 * as it matters, so that losing it does no harm. */
struct ha_gang_worker {
    int64_t worker, first_rank, ranks;
    bool ended, followed, starved;
    enum ha_outcome outcome;
    int64_t order;
    char *reason;
};

struct ha_gang {
    int64_t job;
    struct ha_epoch epoch;
    int64_t since_ms; /* boot time: of the lease, or of our start */
    struct ha_gang_worker *parts;
    int64_t part_count, part_capacity, ranks;
    bool *ready;
    int64_t *started; /* collectives of each rank; -1: not told */
    char *id;         /* rank 0's */
    bool gone;        /* all are ready, which is stored */
    bool late, aborting, settled;
    bool unreported;  /* its end is not one that part 0 reports */
    int64_t abort_ms; /* boot time: of the first failure */
    int64_t ends;     /* parts that ended */
};

struct ha_coordinator {
    struct ha_coordinator_options options;
    char *version, *files_endpoint;
    struct ha_coordinator_hooks hooks;
    struct ha_store *store;

    int64_t boot_ms, wall_ms; /* of this turn */
    int64_t turn_ended_ms;    /* boot time */
    bool in_turn;
    bool changed;       /* something may have changed since the last plan */
    bool cancelled;     /* cells were cancelled: attempts have to be revoked, or to go on without */
    int64_t plan_at_ms; /* wall clock: a job's wait is over then; 0: none */
    int64_t pruned_ms;
    int64_t ticked_ms;  /* boot time */
    int64_t room_at_ms; /* boot time: before, nobody is asked to make room */
    int64_t settled;    /* ha_store_changes when every sweep had the state that its counts say */
    struct ha_suspects suspects;
    bool failure_seen;     /* since workers were last suspected */
    int64_t rest_until_ms; /* boot time: after a turn that could not be stored, no own work */
    char *disk_low;

    struct ha_gang **gangs; /* that run */
    int64_t gang_count, gang_capacity;

    struct ha_member **members; /* by id */
    int64_t member_count, member_capacity;
    struct ha_caller *callers; /* open addressing by peer */
    int64_t caller_count, caller_capacity;

    struct ha_held *held; /* to be sent after the commit */
    int64_t held_count, held_capacity;
    struct ha_asked *asked; /* requests of this turn, less quiet heartbeats */
    int64_t asked_count, asked_capacity;
    int64_t asked_ms;    /* boot time: of the last turn with a request */
    int64_t quiet_beats; /* of this turn */
    bool was_quiet;      /* the last turn had those and no request */
    bool idle;           /* nobody worked when the last plan was made, and there are no judges */

    struct ha_backup *backup; /* under way, or NULL */
    int64_t snapshots;        /* backups begun since the start */
    int64_t refused;          /* messages, by the sockets */
    bool keys_changed;        /* and it was not looked yet whose key is gone */

    struct ha_chore *chores; /* long work, oldest first */
    int64_t step;            /* rises with every savepoint */
    int64_t turn_step;       /* the first one of this turn */
};

struct ha_request {
    struct ha_coordinator *c;
    const struct ha_origin *origin;
    struct ha_caller *caller; /* NULL before hello */
    const struct ha_wire_message *message;
    struct ha_by by;
    char actor[HA_SERVER_ACTOR_BYTES];
    struct ha_arena arena; /* of the reply */
    struct ha_wire_message reply;
    char hash[65]; /* of the body, from ha_server_once on */
    bool deferred; /* the reply comes later */
    bool quiet;    /* ha_heartbeat_is_quiet */
};

/* ---- effects (effects.c): seen by others only after the commit ----------------- */

int ha_server_hold(struct ha_coordinator *c, uint64_t peer, const struct ha_wire_message *message,
                   struct ha_error *err);
int ha_server_hold_error(struct ha_coordinator *c, uint64_t peer, uint64_t request_id,
                         const struct ha_error *why);
int ha_server_hold_bytes(struct ha_coordinator *c, uint64_t peer, const void *data, size_t size,
                         struct ha_error *err);
int ha_server_hold_artifact(struct ha_coordinator *c, const char *sha256, bool orphan,
                            struct ha_error *err);
void ha_server_release_held(struct ha_coordinator *c); /* send */
void ha_server_drop_held(struct ha_coordinator *c, int64_t from);
void ha_server_refuse_held(struct ha_coordinator *c, const struct ha_error *why); /* drop all */

/* ---- backups (backup.c) ------------------------------------------------------------- */

/* Some pages further, between turns; ends one that nobody asks for. */
void ha_backup_work(struct ha_coordinator *c);
bool ha_backup_has_work(const struct ha_coordinator *c);
void ha_backup_drop(struct ha_coordinator *c);

/* An orphan that a backup may name: true, and it is told when the backup has ended. */
bool ha_backup_keeps(struct ha_coordinator *c, const char *sha256);

/* ---- memory of replies (scratch.c): NULL when memory is short ------------------- */

const char *ha_scratch_text(struct ha_arena *arena, const char *text);
const char *ha_scratch_format(struct ha_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
const void *ha_scratch_copy(struct ha_arena *arena, const void *data, size_t size);

/* Make room for one more element: returns its place and counts it. */
void *ha_scratch_grow(struct ha_arena *arena, void *array_pointer, int64_t *count,
                      size_t element_bytes);

/* ---- members and callers (members.c) ---------------------------------------------- */

int ha_members_load(struct ha_coordinator *c, struct ha_error *err);

/* A summary of what the worker finished, of any kind, for the plans to come; m may be NULL. */
void ha_member_finished(struct ha_member *m, enum ha_stage_kind kind, const char *summary_json);
void ha_members_clear(struct ha_coordinator *c);
struct ha_member *ha_member_by_id(const struct ha_coordinator *c, int64_t id);
struct ha_member *ha_member_by_name(const struct ha_coordinator *c, bool judge, const char *name);
struct ha_member *ha_member_add(struct ha_coordinator *c, int64_t id, bool judge);
int ha_member_describe(struct ha_member *m, const char *name, const char *machine,
                       const char *instance, const char *host, const char *backend,
                       const char *version);
enum ha_liveness ha_member_liveness(const struct ha_coordinator *c, const struct ha_member *m);

struct ha_worker_row;

/* Remember who drains it, as the row says.  -ENOMEM. */
int ha_member_drain(const struct ha_coordinator *c, struct ha_member *m,
                    const struct ha_worker_row *row);

/* Its instance was replaced: it may not take the name back.  -ENOMEM. */
int ha_member_void(struct ha_member *m);
bool ha_member_is_void(const struct ha_member *m, const char *instance);

/* A message of the member came: it is alive, also after it was given up. */
int ha_member_heard(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                    struct ha_error *err);

/* It was given a job of the model, which it loads: until its next heartbeat tells what it has. */
void ha_member_loads(struct ha_member *m, int64_t model);

/* What its heartbeat tells of models, instead of what was known.  -ENOMEM. */
int ha_member_keep_models(struct ha_member *m, const struct ha_wire_heartbeat *beat,
                          struct ha_error *err);
const struct ha_progress *ha_member_progress(const struct ha_coordinator *c, int64_t job);

struct ha_caller *ha_caller_find(struct ha_coordinator *c, uint64_t peer);
struct ha_caller *ha_caller_add(struct ha_coordinator *c, uint64_t peer);
void ha_caller_remove(struct ha_coordinator *c, uint64_t peer);
void ha_callers_prune(struct ha_coordinator *c);

/* ---- leases (liveness.c, ending.c, planning.c) ---------------------------------------- */

/* Look for members that have been silent for too long. */
int ha_server_tick(struct ha_coordinator *c, bool input_pending, struct ha_error *err);

/* End what workers hold whose key is not in the allow-list any more. */
int ha_server_revoke_keys(struct ha_coordinator *c, struct ha_error *err);

/* Everything that a member held is free again.  back: it may still come back
 * (silence), else its process is gone. */
int ha_member_lose(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m, bool back,
                   const char *why, struct ha_error *err);

/* A new process of its name said hello: the same for what its process held, except for attempts
 * that ended with it and whose last reports the new one has. */
int ha_member_replace(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                      const struct ha_wire_hello *hello, struct ha_error *err);

struct ha_attempt_row;

/* An attempt ended: retry, hold, or fail its job. */
int ha_server_end_attempt(struct ha_coordinator *c, const struct ha_by *by,
                          const struct ha_attempt_row *attempt, int outcome, bool back,
                          const char *why, int64_t exit_code, struct ha_error *err);

struct ha_job_counts;

/* Every cell of the job is final: done when one of them is. */
int ha_server_end_job(struct ha_coordinator *c, const struct ha_by *by, int64_t job,
                      const struct ha_job_counts *cells, struct ha_error *err);

int ha_server_plan(struct ha_coordinator *c, struct ha_error *err);
int ha_server_revoke(struct ha_coordinator *c, struct ha_error *err);

/* Tell an attempt to stop at a checkpoint; its lease goes on until it says that it did. */
int ha_server_ask_to_stop(struct ha_coordinator *c, const struct ha_attempt_row *row,
                          struct ha_error *err);

/* The same, and it is written down why; a word that was said before stands. */
int ha_server_stop_attempt(struct ha_coordinator *c, const struct ha_by *by,
                           const struct ha_attempt_row *row, enum ha_stop stop, const char *reason,
                           struct ha_error *err);

/* Tell attempts to stop whose jobs people hold (pause.c). */
int ha_server_stop_held(struct ha_coordinator *c, struct ha_error *err);

/* Cells that are held leave jobs that nobody works on, so that the others go on.
 * job 0: every such job of the sweep. */
int ha_server_part_held(struct ha_coordinator *c, const struct ha_by *by, int64_t sweep,
                        int64_t job, struct ha_error *err);

/* Pause or resume what a Change names: how many holds came or went; *ret_text
 * is in the arena. */
int64_t ha_server_pause(struct ha_request *q, int64_t sweep, const char **ret_text,
                        struct ha_error *err);
int64_t ha_server_resume(struct ha_request *q, int64_t sweep, const char **ret_text,
                         struct ha_error *err);

/* Settings of a Change "set": -EINVAL names one that cannot be set.  Of a large grid the answer
 * comes later. */
int ha_server_set(struct ha_request *q, int64_t sweep, const char **ret_text, struct ha_error *err);

/* Change "drain" and "undrain" (drain.c). */
int ha_server_drain(struct ha_request *q, bool drain, int64_t *ret_changed, const char **ret_text,
                    struct ha_error *err);

/* An attempt came to an end by its own doing: well, or why not (suspect.c). */
void ha_server_saw_end(struct ha_coordinator *c, const struct ha_attempt_row *attempt,
                       int64_t sweep, enum ha_stage_kind kind, bool good, const char *why);

/* Set workers aside that fail jobs which others would not. */
int ha_server_suspect(struct ha_coordinator *c, struct ha_error *err);

/* Attempts of drained workers whose deadline is over are told to stop. */
int ha_server_drain_tick(struct ha_coordinator *c, struct ha_error *err);

struct ha_hold;

/* "ann since 2026-01-31 12:00:00 UTC (reason)", in the arena; NULL when memory is short. */
const char *ha_server_holder(struct ha_arena *arena, const struct ha_hold *hold);

/* Workers as the plan sees them, all or those with a free slot: an array in the arena. */
int ha_server_plan_workers(struct ha_coordinator *c, struct ha_arena *arena, bool all,
                           struct ha_plan_snapshot *ret_snapshot, struct ha_error *err);

/* Fill in what the sweeps of the snapshot's jobs need, and the slots they have. */
int ha_server_plan_sweeps(struct ha_coordinator *c, struct ha_arena *arena,
                          struct ha_plan_job *jobs, struct ha_plan_snapshot *snapshot,
                          struct ha_error *err);

/* Tell attempts of low priority to stop for jobs of higher priority that the plan
 * found no place for.  It looks at all that runs, so it sets c->room_at_ms.  *ret_wait_ms: until
 * there may be more to stop; 0: never. */
int ha_server_make_room(struct ha_coordinator *c, struct ha_arena *arena,
                        const struct ha_plan_snapshot *before, int64_t *ret_wait_ms,
                        struct ha_error *err);

/* Equal for models with the same weights. */
int64_t ha_server_model_number(const char *digest);

/* The grant of a leased job, filled into message; texts are in the arena.
 * m: the worker that gets it. */
int ha_server_grant(struct ha_coordinator *c, struct ha_arena *arena, int64_t job,
                    struct ha_epoch epoch, const struct ha_member *m,
                    struct ha_wire_message *ret_message, struct ha_error *err);

/* ---- gangs (gang.c) ------------------------------------------------------------------------- */

/* Remember those that run, after a start. */
int ha_gangs_load(struct ha_coordinator *c, struct ha_error *err);
void ha_gangs_clear(struct ha_coordinator *c);

/* The turn was not stored: what was to be kept of them may not be. */
void ha_gangs_undone(struct ha_coordinator *c);

/* A job of several ranks was leased: the parts of its workers (member ids), part 0 first, which
 * have so many ranks each. */
int ha_gang_begin(struct ha_coordinator *c, const struct ha_by *by, int64_t job,
                  struct ha_epoch epoch, const int64_t *workers, int64_t count, int64_t ranks,
                  struct ha_error *err);

/* Its attempt is over: its workers are told, that of part 0 too where all is set, and their slots
 * are free.  One that is no gang: nothing. */
void ha_gang_end(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch, bool all);

/* Workers of a gang that runs; 0: it is none. */
int64_t ha_gang_parts(const struct ha_coordinator *c, int64_t job, struct ha_epoch epoch);

/* The attempt's own worker says that it failed: if it is a gang over several workers, what that
 * means for the whole.  1: outcome, reason and *ret_worker have it; 0: it is none. */
int ha_gang_verdict(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch,
                    const struct ha_wire_attempt_end *end, enum ha_outcome *outcome,
                    char reason[HA_ERROR_TEXT_BYTES], int64_t *ret_worker, struct ha_error *err);

/* It ends because a worker was lost or has its part no more: if another part had failed by itself
 * before, that is why (1: the arguments have it, *ret_worker too), else the loss is (0). */
int ha_gang_lose(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch, int64_t worker,
                 const char *why, enum ha_outcome *outcome, char reason[HA_ERROR_TEXT_BYTES],
                 int64_t *ret_worker, struct ha_error *err);

/* The log of a rank that failed on a worker, as a line of the job's history: once. */
int ha_gang_keep_log(struct ha_coordinator *c, const struct ha_by *by, int64_t job, int64_t worker,
                     const struct ha_wire_rank_log *log, struct ha_error *err);

/* What a gang that runs waits for, in words: its ranks that are not ready, or their ends; "" for
 * all else, also without memory. */
const char *ha_gang_gathers(const struct ha_coordinator *c, struct ha_arena *arena, int64_t job);

/* What is due: gangs that are not ready in time, or whose parts do not end. */
int ha_gangs_tick(struct ha_coordinator *c, struct ha_error *err);

/* The ranks of an attempt that a worker runs; parts 0: it is no gang. */
int ha_gang_of_grant(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch, int64_t worker,
                     struct ha_wire_gang *ret_gang, struct ha_error *err);

/* Under which a job's reference is kept, for a worker with this backend. */
struct ha_reference_keys {
    char own[65]; /* of the job's batch plan */
    char any[65]; /* of any plan and backend; "": not known */
    bool takes_any;
};

/* 1, or 0 when the job has none. */
int ha_server_reference_keys(struct ha_coordinator *c, int64_t job, const char *backend,
                             struct ha_reference_keys *ret_keys, struct ha_error *err);

/* ---- long work (chores.c) ------------------------------------------------------------- */

/* One slice: returns 1 when it is finished, 0 when there is more, or a negative
 * errno, which ends it. */
typedef int (*ha_chore_step_fn)(struct ha_coordinator *c, void *state, struct ha_error *err);

/* Who gets the answer of a request that takes several turns, once it is there. */
struct ha_waiter {
    uint64_t peer, request_id;
    char key[HA_SERVER_KEY_BYTES], client[128], hash[65]; /* as the reply will be stored (once.c) */
};

struct ha_chore {
    struct ha_chore *next;
    const char *what;
    int64_t sweep;
    struct ha_waiter *waiter; /* of state; NULL: nobody gets an answer */
    bool awaited; /* somebody waits for it: it comes before those that nobody waits for */
    ha_chore_step_fn step;
    void (*keep)(void *state); /* the turn is durable; may be NULL */
    void (*undo)(void *state); /* it is not; may be NULL */
    /* An error ended it; may be NULL. */
    int (*failed)(struct ha_coordinator *c, void *state, const struct ha_error *why);
    void (*destroy)(void *state);
    void *state;
    int64_t born, ended; /* steps (c->step) in which it was added and finished or dropped; 0: not
                            ended */
};

/* Takes over state, also when this fails. */
int ha_chore_add(struct ha_coordinator *c, const struct ha_chore *chore, struct ha_error *err);
bool ha_chore_of_sweep(const struct ha_coordinator *c, int64_t sweep, const char *what);

/* The chore that answers the request with this key; NULL: there is none. */
struct ha_chore *ha_chore_of_key(const struct ha_coordinator *c, const char *key);

/* May this client's request take several turns?  Those under way that somebody waits for are
 * limited, its own and all; the one with its key does not count.  -EBUSY names the limit. */
int ha_chore_admit(const struct ha_coordinator *c, const struct ha_waiter *waiter,
                   struct ha_error *err);

/* End a sweep's chores of a kind before they are finished; what NULL: all. */
void ha_chores_drop(struct ha_coordinator *c, int64_t sweep, const char *what);
int ha_chores_work(struct ha_coordinator *c, struct ha_error *err);
void ha_chores_kept(struct ha_coordinator *c);

/* The steps from this one on did not happen: chores added in them are gone,
 * chores ended in them go on.  rewind: chores go back to where they were when
 * the last turn was stored. */
void ha_chores_undone(struct ha_coordinator *c, int64_t from, bool rewind);
void ha_chores_clear(struct ha_coordinator *c);

struct ha_grid_work;

/* work: of the sweep as it is stored, or NULL to read it back; shared, not taken. */
int ha_chore_expand(struct ha_coordinator *c, int64_t sweep, struct ha_grid_work *work,
                    struct ha_error *err);
int ha_chore_stages(struct ha_coordinator *c, int64_t sweep, struct ha_error *err);

/* ---- requests ---------------------------------------------------------------------------- */

typedef int (*ha_handler)(struct ha_request *q, struct ha_error *err);

int ha_handle_hello(struct ha_request *q, struct ha_error *err);
int ha_handle_heartbeat(struct ha_request *q, struct ha_error *err);

/* A heartbeat of a worker that has nothing and tells nothing new: it needs no store. */
bool ha_heartbeat_is_quiet(const struct ha_coordinator *c, const struct ha_caller *caller,
                           const struct ha_wire_message *message);
int ha_handle_grant_request(struct ha_request *q, struct ha_error *err);
int ha_handle_report(struct ha_request *q, struct ha_error *err);
int ha_handle_gang_state(struct ha_request *q, struct ha_error *err);
int ha_handle_items_request(struct ha_request *q, struct ha_error *err);
int ha_handle_items_begin(struct ha_request *q, struct ha_error *err);
int ha_handle_judge_replies(struct ha_request *q, struct ha_error *err);
int ha_handle_judge_outcomes(struct ha_request *q, struct ha_error *err);
int ha_handle_submit(struct ha_request *q, struct ha_error *err);
int ha_handle_list_sweeps(struct ha_request *q, struct ha_error *err);
int ha_handle_status(struct ha_request *q, struct ha_error *err);
int ha_handle_answers(struct ha_request *q, struct ha_error *err);
int ha_handle_log(struct ha_request *q, struct ha_error *err);
int ha_handle_change(struct ha_request *q, struct ha_error *err);
int ha_handle_workers(struct ha_request *q, struct ha_error *err);
int ha_handle_metrics(struct ha_request *q, struct ha_error *err);
int ha_handle_norms(struct ha_request *q, struct ha_error *err);
int ha_handle_backup(struct ha_request *q, struct ha_error *err);
int ha_handle_gc(struct ha_request *q, struct ha_error *err);
int ha_handle_health(struct ha_request *q, struct ha_error *err);

/* The sweep that a client names; "" is the only one there is.  -ENOENT. */
int ha_server_find_sweep(struct ha_coordinator *c, const char *name, int64_t *ret_sweep,
                         struct ha_error *err);
int ha_server_find_cell(struct ha_coordinator *c, int64_t sweep, const char *name,
                        int64_t *ret_cell, struct ha_error *err);

/* Idempotency of requests that change something (once.c): 1 when it needs nothing more, as its
 * stored reply is sent, or a chore works on it, which answers this request then; 0 when it is new,
 * and q->hash is filled in; -EEXIST when the key is another request's, stored or under way. */
int ha_server_once(struct ha_request *q, const char *key, struct ha_error *err);
/* Who asked, for an answer in a later turn: after ha_server_once, which looked at the key. */
void ha_server_waiter(const struct ha_request *q, const char *key, struct ha_waiter *ret_waiter);
int ha_server_once_hash(const struct ha_wire_message *message, char ret_hex[65],
                        struct ha_error *err);
int ha_server_once_store(struct ha_coordinator *c, const char *key, const char *client,
                         const char *hash, const struct ha_wire_message *reply,
                         struct ha_error *err);

#endif
