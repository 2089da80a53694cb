/* crew.h - the processes of an attempt: one, or the ranks of a gang
 *
 * Of a gang, each rank is a process that prepares by itself and says that it is ready; the
 * line of rank 0 brings the id of the gang, which it has made.
 *
 *   preparing --all ranks are ready: the id goes to each--> working --> ended
 *
 * Nobody is waited for without an end: ranks that are not ready in time, and what is left
 * of a gang of which one rank has failed, are told to give up (SIGUSR1), and get SIGKILL if they
 * do not.  A gang's outcome is rank 0's where that is done or was stopped; else that of the rank
 * that failed first, with its number and, where the ranks' counts of collectives tell it, which
 * one was behind. */
#ifndef HA_WORKER_DAEMON_CREW_H
#define HA_WORKER_DAEMON_CREW_H

#include "worker/daemon/runner.h"

struct crew;

struct crew_options {
    struct runner_options runner; /* lines are those of rank 0, an error that of the whole */
    int ranks;                    /* 1: no gang */
    /* Alone: a process that waits, to do this job too; taken over, also where that fails.  NULL:
     * a new one. */
    struct runner *resumed;
    /* Alone, and it serves: its job is done; the process is the owner's from now on.  Followed by
     * runner.ended with status 0.  runner.waits is not called. */
    void (*keep)(void *context, struct runner *runner);
    int64_t prepare_ms; /* until all must be ready */
    int64_t abort_ms;   /* between SIGUSR1 and SIGKILL */
};

/* As runner_create, runner_destroy, runner_stop and runner_check. */
int crew_create(const struct crew_options *options, struct crew **ret_crew, struct ha_error *err);
void crew_destroy(struct crew *crew);
void crew_stop(struct crew *crew);
void crew_check(struct crew *crew);

#endif
