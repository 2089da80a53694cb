/* gang.h - one rank of a gang: how its processes find each other
 *
 * Every rank prepares (model, data, checkpoint) by itself.  Then rank 0 makes the
 * id of a communicator, it is carried to the others, and all open it.  How it is carried is the
 * meeting: a file for ranks that were started by hand, the daemon for a job. */
#ifndef HA_WORKER_ATTEMPT_GANG_H
#define HA_WORKER_ATTEMPT_GANG_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/collective.h"

struct ha_backend;
struct ha_contract_reporter;
struct ha_engine;
struct ha_error;

struct ha_gang {
    int rank, ranks;
    const char *collective;             /* "shm", "nccl"; NULL or "auto": by the backend */
    int64_t join_ms, step_ms;           /* to be together; for one collective.  0: no limit */
    const volatile sig_atomic_t *abort; /* or NULL: give up at once where it is set */
    /* *id is rank 0's; for the others it is to be filled in.  *stop ends the waiting with -EINTR.
     */
    int (*meet)(void *context, struct ha_comm_id *id, const volatile sig_atomic_t *stop,
                struct ha_error *err);
    /* All have opened their communicators; or NULL. */
    void (*met)(void *context);
    /* The gang has failed, for this rank because of others where it followed; or NULL. */
    void (*failed)(void *context, int64_t started, int64_t finished, bool followed);
    void *context;
};

const char *ha_gang_collective(const struct ha_gang *gang, const struct ha_backend *backend);

/* Meet, open the communicator, and call `join`, which finds out whether the ranks belong
 * together. */
int ha_gang_join(const struct ha_gang *gang, struct ha_backend *backend,
                 int (*join)(void *what, struct ha_comm *comm, struct ha_error *err), void *what,
                 const volatile sig_atomic_t *stop, struct ha_comm **ret_comm,
                 struct ha_error *err);

/* A join for work without a trainer: the ranks have the same job (its digest), kind of device and
 * division of the weights, or -ESTALE; then the model's ranks are together. */
struct ha_gang_same {
    const struct ha_engine *engine;
    const char *job; /* hexadecimal */
};

int ha_gang_join_same(void *same, struct ha_comm *comm, struct ha_error *err);

/* Has this rank failed because of others?  What the coordinator then charges the job with is not
 * this end but the one of the rank or worker that was first (coordinator/core/gang.h). */
bool ha_gang_followed(const struct ha_error *why);

/* After a failure: tell the others, and log the last collectives. */
void ha_gang_fail(const struct ha_gang *gang, struct ha_comm *comm, const struct ha_error *why);

/* Meeting by a file that all ranks name.  Rank 0 makes it, and removes it when all are
 * together. */
struct ha_gang_file {
    const char *path;
    int rank;
    int64_t timeout_ms; /* 0: none */
};

/* The meet and met of a gang whose context is a struct ha_gang_file.  -EEXIST where a file of an
 * earlier gang is still there. */
int ha_gang_file_meet(void *context, struct ha_comm_id *id, const volatile sig_atomic_t *stop,
                      struct ha_error *err);
void ha_gang_file_met(void *context);

/* Meeting by the daemon (worker/contract.h): a line of the contract says that this rank is ready,
 * and the id comes on standard input. */
struct ha_gang_daemon {
    struct ha_contract_reporter *reporter;
    int rank;
    const volatile sig_atomic_t *abort;
};

int ha_gang_daemon_meet(void *context, struct ha_comm_id *id, const volatile sig_atomic_t *stop,
                        struct ha_error *err);
void ha_gang_daemon_failed(void *context, int64_t started, int64_t finished, bool followed);

#endif
