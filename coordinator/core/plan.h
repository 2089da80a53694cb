/* plan.h - which job goes to which worker, and why one goes nowhere
 *
 * Pure: no clock, no store, no socket.  ha_plan_make and ha_plan_why judge a
 * job by the same function, so that the sentence is never another story than
 * the plan.
 *
 * Policy: jobs by priority of their sweep (high first), then in their turn, then
 * first come first served; among sweeps of one priority, the one whose attempts have
 * fewest slots comes next.  A job goes only to a worker that offers what the
 * [resources] of its sweep ask for (fit.h): to an idle device, a faster one, one without GPUs
 * that the job would not use, one that loads its model sooner (a factor of two counts), one where
 * no other model would be lost for it, the one with most free slots, the first in the snapshot.
 * No device stays idle for the sake of a model that is loaded elsewhere.  But among jobs of one
 * sweep and priority, one whose model is loaded at the place that the next one would get, where it
 * would be lost, goes before it; not before a probe, for which others wait.  So a job waits no
 * longer than the jobs of its own sweep last whose models are loaded, and a sweep not for another.
 *
 * Ready jobs of one group may become one job (fuse.h).  How many devices a group
 * gets decides into how many: every group of a priority gets a free slot in
 * order; what idle devices are left go one by one to the group that would end
 * last, as long as it ends sooner with them.  A group that will have more cells
 * (answers whose adapters are still being trained) comes after those of its
 * priority that will not, but no device stays idle for its sake; a slot of a
 * device that is busy (of a CPU that several attempts share) does.
 *
 * A plan makes a bounded number of steps: when they are made it looks for nothing better, guesses
 * how many idle devices large groups get, and leaves who has not had a turn to the next plan, which
 * is made at once as this one gave something.  It counts steps and no time, so it stays the same
 * for the same snapshot.
 *
 * A job that trains on several workers gets all of them at once, of one island, or none.  The first
 * one in its turn for which not enough are free keeps those that are from later ones, until it has
 * them all: it cannot starve.  Nothing is kept for one that could not run if all were free.  It
 * waits for the island where it can begin soonest by the estimates, of those that are not known the
 * one where most places are free or about to be. */
#ifndef HA_COORDINATOR_CORE_PLAN_H
#define HA_COORDINATOR_CORE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/fit.h"
#include "coordinator/core/fuse.h"
#include "coordinator/core/lease.h"
#include "coordinator/core/state.h"

struct ha_buffer;

enum {
    HA_PLAN_MODELS = 8,
    HA_PLAN_NODES = 64 /* workers that share a job, at most */
};

/* A model that a worker has. */
struct ha_plan_model {
    int64_t model;   /* 0: none */
    int64_t load_ms; /* until the weights are where an attempt needs them; 0: they are there */
};

struct ha_plan_worker {
    int64_t id;
    const char *name;
    enum ha_liveness liveness;
    int64_t silent_ms;
    bool connected; /* known by hello since the start; else work cannot be pushed to it */
    bool draining;
    const char *drained_by; /* a person, since when and why; NULL: nobody */
    int64_t slots, used;
    int64_t leaving; /* of used: attempts that were told to stop */
    int64_t
        free_in_ms;  /* when the first of the others ends, by what such work took; 0: not known */
    int64_t devices; /* attempts that do not slow one another down; 0: as many as slots */
    int64_t memory_bytes;                        /* that one attempt may use; 0: not known */
    double train_speed, generate_speed;          /* FLOP/s as measured (speed.h); 0: not known */
    struct ha_plan_model models[HA_PLAN_MODELS]; /* others take longer to load */
    int64_t island;                              /* equal where ranks can be of one gang */
    struct ha_fit offer;                         /* what one attempt may have of it */
    const char *lacks;   /* which of its GPUs are aside or held, since when and why; NULL: none */
    int64_t aside, held; /* how many are */
};

struct ha_plan_job {
    int64_t id;
    enum ha_job_state state;
    enum ha_stage_kind kind;
    int64_t priority, turn;
    int64_t sweep;            /* whose share it takes */
    const struct ha_fit *fit; /* what its worker must offer, the same pointer for jobs of a sweep;
                                 NULL: nothing special */
    bool expanding; /* its sweep's grid is; the plan waits for all that belongs together */
    int64_t group;  /* equal for jobs of one cell that may become one job; 0: it stays as it is */
    enum ha_fuse_mode fuse;
    bool grows; /* its group will have more cells */
    struct ha_fuse_need need;
    int64_t model;         /* equal for jobs that load the same weights */
    int64_t not_before_ms; /* wall clock; 0: at once */
    const char *held;      /* by whom: "ann since ..."; NULL: nobody holds it back */
    const char *stopping;  /* why the attempt that runs was told to stop; NULL or "": it was not */
    const char *gathers;   /* of a gang that runs: which ranks it waits for; NULL or "": none */
    const char *reason;    /* stored: of a retry, a hold, a failure; never NULL */
    const char *waits_for; /* "training" for a generate job that waits, else NULL */
};

/* Slots that attempts of a sweep have. */
struct ha_plan_share {
    int64_t sweep, used;
};

/* Jobs in the order in which they are considered; see ha_plan_order. */
struct ha_plan_snapshot {
    const struct ha_plan_worker *workers;
    int64_t worker_count;
    const struct ha_plan_job *jobs;
    int64_t job_count;
    const struct ha_plan_share *shares; /* a sweep that is not named has none */
    int64_t share_count;
};

struct ha_plan_assignment {
    int64_t job, worker; /* ids */
    int64_t into; /* the job that takes its cells over; job itself for the one that is leased.
                     Parts follow the whole that takes them */
    int64_t part; /* > 0: no further job, but a further worker of the whole that it follows */
};

/* < 0: a is considered before b. */
int ha_plan_order(const struct ha_plan_job *a, const struct ha_plan_job *b);

/* Fill assignments[limit]; returns how many there are.  Neither a job nor more
 * than a worker's free slots is given twice; a whole comes with all its parts.
 * now_ms: wall clock.  -ENOMEM. */
int64_t ha_plan_make(const struct ha_plan_snapshot *snapshot, int64_t now_ms,
                     struct ha_plan_assignment *assignments, int64_t limit);

/* How long the worker loads the model; -1: not known, as it does not have it. */
int64_t ha_plan_load_ms(const struct ha_plan_worker *worker, int64_t model);

/* Workers that the job needs at once. */
int64_t ha_plan_nodes(const struct ha_plan_job *job);

/* What the plan asks of jobs and workers, for the other files of this policy. */
bool ha_plan_takes_work(const struct ha_plan_worker *worker);
bool ha_plan_may_start(const struct ha_plan_job *job, int64_t now_ms);
int64_t ha_plan_free_devices(const struct ha_plan_worker *worker);

/* What kind of reason it is. */
enum ha_why {
    HA_WHY_NONE,    /* it runs, or is done */
    HA_WHY_BUSY,    /* what fits is busy */
    HA_WHY_NEVER,   /* no worker that takes work fits */
    HA_WHY_DEVICES, /* GPUs that it would fit are set aside */
    HA_WHY_NOBODY,  /* no worker takes work */
    HA_WHY_JUDGES,  /* no judge worker is connected */
    HA_WHY_HELD,    /* a person holds it back */
    HA_WHY_TRAINING,
    HA_WHY_PROBE,
    HA_WHY_ANSWERS,
    HA_WHY_UNSEEN, /* the plan comes to it next */
    HA_WHY_RETRY,  /* its wait after a failure */
    HA_WHY_PERSON, /* a person has to decide */
    HA_WHY_STOPPING,
    HA_WHY_EVALUATOR, /* cannot be asked now, or may not for want of money */
    HA_WHYS
};

const char *ha_why_name(enum ha_why why); /* "busy now"; "" for NONE */
const char *ha_why_mend(enum ha_why why); /* what to do; "": wait */

/* Append the evidence in one sentence: why the job stands where it stands.  The
 * jobs of the snapshot are not looked at.  Returns 0 or -ENOMEM. */
int ha_plan_why(const struct ha_plan_snapshot *snapshot, const struct ha_plan_job *job,
                int64_t now_ms, struct ha_buffer *out, enum ha_why *ret_why);

/* Why the items of a judge stage stand where they stand. */
struct ha_plan_judging {
    int64_t total, scored, failed, blocked, ready, leased;
    bool answers_complete;   /* its generate stage is final */
    const char *answers_why; /* why not, in words; never NULL */
    int64_t judges;          /* judge workers connected and alive */
    const char *stop;        /* the judge's own: budget used up; "" = none */
    const char *trouble;     /* why its evaluator cannot be asked just now; "" = it can */
    const char *held;        /* by whom; NULL: nobody holds it back */
};

int ha_plan_why_judging(const struct ha_plan_judging *judging, struct ha_buffer *out,
                        enum ha_why *ret_why);

#endif
