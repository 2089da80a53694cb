/* household.h - the processes of an embedded run
 *
 * A private coordinator, one worker, one judge worker, and the demo's evaluator
 * where the grid names it; all children of this process, each in its own group,
 * each ending when this process is gone.  A child that dies is started again,
 * with growing pauses; one that dies ten times within ten minutes is given up. */
#ifndef HA_COORDINATOR_HACTL_HOUSEHOLD_H
#define HA_COORDINATOR_HACTL_HOUSEHOLD_H

#include <signal.h>
#include <stdint.h>

struct ha_error;
struct ha_household;

struct ha_household_options {
    const char *dir;     /* the sweep directory; it exists */
    int64_t slots;       /* attempts at a time; 0: one per core, but one with gpus */
    int64_t gpus;        /* that an attempt has, as the worker is to offer them */
    int64_t threads;     /* per attempt; 0: cores over slots */
    const char *backend; /* "auto", "cpu", "cuda" */
    /* "NAME=value" that the judge worker alone gets beside this process's environment, ended by
     * NULL: evaluators' keys.  It must outlive the household; may be NULL. */
    const char *const *judge_environment;
    /* Once it is not 0, stopping waits for nobody: children are killed.  A signal
     * handler may set it. */
    const volatile sig_atomic_t *hurry;
};

/* Start the coordinator alone. */
int ha_household_create(const struct ha_household_options *options,
                        struct ha_household **ret_household, struct ha_error *err);

/* Start the evaluator on a free port of this machine. */
int ha_household_start_evaluator(struct ha_household *household, int64_t *ret_port,
                                 struct ha_error *err);

/* Start the worker and the judge worker. */
int ha_household_start_workers(struct ha_household *household, struct ha_error *err);

/* Look after the children: restart what ended.  Call a few times a second.
 * -ECHILD when one had to be given up; the text has its name and log. */
int ha_household_tend(struct ha_household *household, struct ha_error *err);

/* Ask all to stop in order (worker, judge worker, evaluator, coordinator last),
 * each with its time to checkpoint and to collect paid replies, unless hurry. */
void ha_household_stop(struct ha_household *household);

void ha_household_destroy(struct ha_household *household);

const char *ha_household_endpoint(const struct ha_household *household);
const char *ha_household_files(const struct ha_household *household);

#endif
