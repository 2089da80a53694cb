/* crew.h - the processes of an attempt: one, or the ranks of a gang
 *
 * A gang may have ranks of other workers, too; a crew has those of this one.  Each rank is a
 * process that prepares by itself and says that it is ready; the line of rank 0 brings the id of
 * the gang, which it has made.  Both are told to the owner, and from the owner comes the id once
 * all ranks of the gang are ready.
 *
 *   preparing --crew_go: the id goes to each--> working --> ended
 *
 * Nobody is waited for without an end: ranks of a crew that are not ready in time, and what is left
 * of one of which a rank has failed, are told to give up (SIGUSR1), and get SIGKILL if they
 * do not.  A crew's outcome is its first rank's where that is done or was stopped; else that of the
 * rank that failed first, of those that did not follow others if there are such, with its number
 * and, where the ranks' counts of collectives tell it, which one was behind. */
#ifndef HA_WORKER_DAEMON_CREW_H
#define HA_WORKER_DAEMON_CREW_H

#include "worker/daemon/runner.h"

struct crew;

struct crew_options {
    struct runner_options runner; /* lines are those of rank 0, an error that of the whole */
    int first_rank, ranks;        /* of this crew */
    int world;                    /* ranks of the gang; 1: none */
    /* Alone: a process that waits, to do this job too; taken over, also where that fails.  NULL:
     * a new one. */
    struct runner *resumed;
    /* Alone, and it serves: its job is done; the process is the owner's from now on.  Followed by
     * runner.ended with status 0.  runner.waits is not called. */
    void (*keep)(void *context, struct runner *runner);
    int64_t prepare_ms; /* until all of this crew must be ready */
    int64_t abort_ms;   /* between SIGUSR1 and SIGKILL */
    /* A rank is ready; id, in hexadecimal, is rank 0's, "" for the others. */
    void (*ready)(void *context, int rank, const char *id);
};

/* As runner_create, runner_destroy, runner_stop and runner_check. */
int crew_create(const struct crew_options *options, struct crew **ret_crew, struct ha_error *err);
void crew_destroy(struct crew *crew);
void crew_stop(struct crew *crew);
void crew_check(struct crew *crew);

/* All ranks of the gang are ready: this is its id.  Once; more change nothing. */
void crew_go(struct crew *crew, const char *id);

/* Another rank of the gang has failed. */
void crew_abort(struct crew *crew);

/* When the crew ends: did it fail because others had?  The rank whose words its reason has; -1:
 * none failed.  Collectives that each of its ranks had begun and finished; false where it did not
 * tell. */
bool crew_followed(const struct crew *crew);
int crew_failed_rank(const struct crew *crew);
bool crew_counts(const struct crew *crew, int rank, int64_t *ret_started, int64_t *ret_finished);

#endif
