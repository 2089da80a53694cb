/* world.h - a simulated cluster around the real policy of coordinator/core
 *
 * Plans, leases, retries, states, preemption and sets of cells are decided by the functions of
 * coordinator/core; this folder is only what lies around them: a clock, workers that fail, jobs
 * that take time and go on from their checkpoints, probes that trainings wait for, gangs that
 * probe, train and answer, whose parts come together, crash, follow one another and are judged,
 * people who pause and drain.  Everything follows from the seed.
 *
 * A step is one event of the simulated clock, or one plan.  After every step what it touched is
 * checked (check.c): a violation prints the seed and the step, and ends the program. */
#ifndef HA_TESTS_SIM_WORLD_H
#define HA_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/fuse.h"
#include "coordinator/core/plan.h"
#include "coordinator/core/preempt.h"
#include "coordinator/core/retry.h"
#include "coordinator/core/state.h"

enum {
    SIM_MODELS = 8,
    SIM_FITS = 6,
    SIM_GANGS = 2, /* of them need several workers, the last ones */
    SIM_RUNS_MAX = 8,
    SIM_TURN_MS = 10,
    SIM_SNAPSHOT = 512,     /* jobs of one plan, as in the server */
    SIM_ASSIGNMENTS = 512,  /* of one plan */
    SIM_MIN_RUN_MS = 60000, /* before an attempt may be preempted */
};

struct sim_options {
    int64_t workers, jobs, sweeps;
    uint64_t seed;
    int64_t check_every; /* steps between two checks of everything; 1: after each */
};

enum sim_kind {
    SIM_SUBMIT,   /* a sweep */
    SIM_EXPANDED, /* a sweep */
    SIM_RUNS,     /* an attempt is seen running; a part of a gang is ready */
    SIM_ENDS,     /* an attempt has its outcome, and says so when it can */
    SIM_STOPS,    /* an attempt that was told to stop has written its checkpoint */
    SIM_PART,     /* a part of a gang has ended, and says so when it can */
    SIM_LATE,     /* a gang's ranks are to be ready */
    SIM_JUDGED,   /* a gang's parts are to have ended */
    SIM_DUE,      /* a job's wait is over */
    SIM_PERSON,   /* says "retry" to a held job */
    SIM_DIES,     /* a worker's process */
    SIM_STARTS,   /* a new process in its place */
    SIM_CUT,      /* a worker's network */
    SIM_BACK,
    SIM_DRAIN,
    SIM_UNDRAIN,
    SIM_PAUSE, /* a sweep */
    SIM_RESUME,
    SIM_FREEZE, /* the coordinator: it does nothing for a while */
    SIM_RESTART,
    SIM_TICK,
};

struct sim_event {
    int64_t at_ms;
    uint64_t order; /* of those at one time: first set, first served */
    int32_t kind, worker, subject;
    int32_t instance, number; /* of the worker's process and the attempt; else 0 */
};

/* What a worker does of a gang. */
struct sim_part {
    int32_t worker, order;
    bool ready, ended, followed;
};

/* An attempt on several workers, the first of which reports. */
struct sim_gang {
    int32_t count, ready, ends;
    bool gone;     /* all were ready */
    bool broken;   /* a part's process is dead, so that the others cannot go on */
    bool aborting; /* the coordinator knows that one failed */
    bool late, crashed;
    struct sim_part parts[];
};

/* A job of one cell, until it takes others over. */
struct sim_job {
    int32_t sweep, model;
    int32_t child;         /* the job that waits for it; -1: none does */
    int32_t whole;         /* the job that took its cell over; -1: none did */
    int32_t next;          /* of the cells of a whole; -1: the last one */
    int32_t worker;        /* of its newest attempt; -1: it has none */
    struct sim_gang *gang; /* while its attempt is one */
    int32_t attempts, crashes, losses;
    uint8_t kind, state, attempt, stop;
    bool waits;   /* for the job whose child it is */
    bool alone;   /* split off: never together with others again */
    bool charged; /* the loss of its newest attempt counted as a crash */
    uint8_t results;
    int32_t failures; /* crashes, as this program counts them */
    int64_t not_before_ms, started_ms, ready_ms;
    double begun, saved; /* of its work: what its newest attempt began with, and has saved */
    struct ha_fuse_need need;
};

/* An attempt that the worker's process was given; number 0: none. */
struct sim_run {
    int32_t job, number;
};

struct sim_worker {
    char name[16];
    struct sim_run runs[SIM_RUNS_MAX];
    int64_t slots, devices, used, memory_bytes;
    double train_speed, generate_speed;
    struct ha_fit offer;
    int64_t island;
    struct ha_plan_model models[HA_PLAN_MODELS];
    int32_t instance;
    bool dead, cut, connected, lost, draining;
    int64_t heard_ms;         /* as the coordinator has it */
    int64_t gone_ms, back_ms; /* since when it is dead or cut off, and until when */
};

struct sim_sweep {
    int32_t first, count;
    int64_t priority, used;
    int32_t open_train[SIM_MODELS];       /* trainings that are not final */
    const struct ha_fit *fit, *train_fit; /* of answers; of what comes before them */
    enum ha_fuse_mode fuse;
    struct ha_retry_policy policy;
    bool there, expanding, paused;
};

struct sim_counts {
    int64_t steps, plans, granted, joined, done, failed, stale, returned, lost, crashed, split,
        stopped, person, restarts, probes, gangs, gang_answers, gang_probes, gang_wait_ms, wait_ms;
    int64_t mostly_ms;                  /* when 99 of 100 jobs were final */
    int64_t *plan_times, plan_capacity; /* ns of each plan */
};

struct sim {
    struct sim_options options;
    uint64_t random;
    int64_t now_ms;
    int64_t turn_ended_ms;
    struct ha_lease_rules rules;
    struct sim_job *jobs;
    struct sim_worker *workers;
    struct sim_sweep *sweeps;
    struct ha_fit fits[SIM_FITS];
    uint64_t *ready, *summary; /* a bit per job that is ready and due, a bit per word of them */
    int64_t ready_words, summary_words;
    uint64_t *free; /* a bit per worker that the plan may give work, as far as is known */
    struct sim_event *events;
    int64_t event_count, event_capacity;
    uint64_t order;
    int64_t open; /* jobs that are not final */
    int64_t frozen_until_ms, room_at_ms;
    int64_t listens_ms; /* since when the coordinator reads without a pause */
    bool changed;
    struct ha_plan_worker *plan_workers; /* of the snapshot */
    struct sim_counts counts;
};

/* world.c */
struct sim *sim_create(const struct sim_options *options);
void sim_destroy(struct sim *s);
uint64_t sim_random(struct sim *s, uint64_t below);
bool sim_chance(struct sim *s, uint64_t per_million);
void sim_at(struct sim *s, int64_t at_ms, enum sim_kind kind, int32_t worker, int32_t subject,
            int32_t number);
bool sim_next_event(struct sim *s, struct sim_event *ret_event);

/* The next ready and due job from this one on, or -1. */
int32_t sim_next_ready(const struct sim *s, int32_t from);
void sim_mark_ready(struct sim *s, int32_t job);
void sim_hide(struct sim *s, int32_t job); /* not ready by itself any more */

/* Its slots or its connection changed. */
void sim_touch(struct sim *s, int32_t worker);
void sim_set_state(struct sim *s, int32_t job, enum ha_job_state state);

/* What its worker, or each of its gang, must offer. */
const struct ha_fit *sim_fit(const struct sim *s, int32_t job);

/* attempts.c */
void sim_grant(struct sim *s, int32_t job, const int32_t *workers, int32_t count);
void sim_join(struct sim *s, int32_t whole, int32_t part);
void sim_stop(struct sim *s, int32_t job, enum ha_stop stop);
void sim_end(struct sim *s, int32_t job, enum ha_outcome outcome, int64_t saved_ms, bool back);
void sim_handle(struct sim *s, const struct sim_event *event);
void sim_tick(struct sim *s);

/* Is this the newest attempt of its job, and not over? */
bool sim_newest(const struct sim *s, int32_t job, int32_t number);

/* Can the worker say this now?  What it cannot, it says when it is back. */
bool sim_heard(struct sim *s, const struct sim_event *event);

/* FLOP/s of its attempt. */
double sim_speed(const struct sim *s, const struct sim_job *job);

/* Until when the newest checkpoint knows, of an attempt that ended without being asked to. */
int64_t sim_checkpoint_ms(struct sim *s, int64_t end_ms);

/* All that is to be done, and all of it that is not saved yet, at this speed. */
double sim_work(const struct sim *s, int32_t job);
int64_t sim_run_ms(const struct sim *s, int32_t job);

/* gangs.c */
int64_t sim_nodes(const struct sim *s, int32_t job); /* that an attempt of the job needs */
void sim_gang_begin(struct sim *s, int32_t job, const int32_t *workers, int32_t count);
void sim_gang_runs(struct sim *s, const struct sim_event *event);
void sim_gang_part(struct sim *s, const struct sim_event *event);
void sim_gang_late(struct sim *s, const struct sim_event *event);
void sim_gang_judged(struct sim *s, const struct sim_event *event);
void sim_gang_fails(struct sim *s, int32_t job);  /* its first part does */
void sim_gang_breaks(struct sim *s, int32_t job); /* the process of one of its parts is dead */

/* turn.c: plans until there is nothing more to give */
void sim_plan(struct sim *s);

/* check.c: all of them end the program when something is wrong */
void sim_fail(const struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_check_job(const struct sim *s, int32_t job);
void sim_check_worker(const struct sim *s, int32_t worker);
void sim_check_lease(const struct sim *s, int32_t worker, enum ha_liveness liveness);
void sim_check_all(const struct sim *s);
void sim_check_plan(const struct sim *s, const struct ha_plan_snapshot *snapshot,
                    const struct ha_plan_assignment *assignments, int64_t count);

void sim_check_gang(const struct sim *s, int32_t job);

/* of a plan: gangs are whole, and who comes after one that waits leaves it an island to wait for */
void sim_check_gangs(const struct sim *s, const struct ha_plan_snapshot *snapshot,
                     const struct ha_plan_assignment *assignments, int64_t count);

/* Is a free place of this worker kept for a gang that waits?  After a plan that gave nothing. */
bool sim_is_kept(const struct sim *s, const struct ha_plan_snapshot *snapshot,
                 const struct ha_plan_worker *worker);
void sim_check_waiting_gangs(const struct sim *s, const struct ha_plan_snapshot *snapshot);

bool sim_offers(const struct ha_fit *offer, const struct ha_fit *need);
bool sim_startable(const struct sim *s, const struct ha_plan_job *job);
bool sim_takes_work(const struct ha_plan_worker *worker);

void sim_check_stop(const struct sim *s, const struct ha_preempt_running *victim,
                    const struct ha_plan_snapshot *snapshot, int64_t job);

/* after the last stop for a job: a gang has enough room on an island when all have left */
void sim_check_room(const struct sim *s, const struct ha_preempt *preempt, int64_t job);

/* after the last of a turn's plans, which gave nothing: nobody is idle for want of being asked */
void sim_check_idle(const struct sim *s, const struct ha_plan_snapshot *snapshot);

#endif
