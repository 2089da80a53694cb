/* collective.h - the ranks of a gang, and what they exchange
 *
 * A gang is `size` processes, one for each device, that work on one job.  Each opens a
 * communicator with the same id and its own rank, and then all of them call the same
 * collectives in the same order.  Two implementations stand behind one table
 * (kernels/comm/comm.h):
 *
 *   "shm"   processes of one machine, through shared memory; any backend
 *   "nccl"  GPUs, through NCCL >= 2.19, which is loaded at run time
 *
 * The order of every sum is stated by the caller as a list of additions over the ranks'
 * values, and is the same whatever the implementation, the sizes and the timing: the
 * result has the same bits on all ranks.
 *
 * Nothing here waits without an end.  A collective is started and polled; ha_comm_wait does that
 * until it is done, the time is over, `abort` is set, or a rank has failed.  After any
 * failure the communicator is of no use, the contents of the buffers are undefined, and every
 * later call returns the same error: the gang goes back to its last checkpoint, with a
 * new id.
 *
 * Errors: -ECONNABORTED another rank has failed or is gone (the text says which, where
 * that is known), -ECONNRESET probably so (NCCL does not say whose fault it is), -ETIMEDOUT,
 * -ECANCELED `abort` was set, -ENODEV NCCL is not there, -EIO, -ENOMEM, -EINVAL for arguments
 * and foreign ids. */
#ifndef HA_KERNELS_COLLECTIVE_H
#define HA_KERNELS_COLLECTIVE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ha_backend;
struct ha_comm;
struct ha_error;

enum {
    HA_COMM_ID_BYTES = 128,
    HA_COMM_MAX_RANKS = 256,
    HA_COMM_RING = 64, /* collectives that are remembered */
    HA_COMM_LINE_BYTES = 160
};

/* Opaque; made by one process and carried to the others by whatever means. */
struct ha_comm_id {
    unsigned char bytes[HA_COMM_ID_BYTES];
};

/* What ranks use where they are not told: "nccl" on a GPU, else "shm". */
const char *ha_comm_kind_for(const struct ha_backend *backend);

/* A new id for a gang of so many ranks.  The process that calls this is rank 0's, and must
 * live until every rank has opened its communicator.  Each attempt needs an id of its own. */
int ha_comm_make_id(const char *kind, int size, struct ha_comm_id *ret_id, struct ha_error *err);

/* Bytes of the backend's memory that a communicator holds: for a plan of the memory. */
int64_t ha_comm_device_bytes(const char *kind, int size);

struct ha_comm_options {
    const char *kind;
    const struct ha_comm_id *id;
    int rank, size;                     /* 1 <= size <= HA_COMM_MAX_RANKS */
    struct ha_backend *backend;         /* of this rank; must outlive the communicator */
    int64_t timeout_ms;                 /* of each wait; 0: none */
    const volatile sig_atomic_t *abort; /* or NULL: give up as soon as it is not 0 */
};

/* Wait until all ranks are together. */
int ha_comm_create(const struct ha_comm_options *options, struct ha_comm **ret_comm,
                   struct ha_error *err);

/* Ends it for this rank; where a collective is under way it is aborted. */
void ha_comm_destroy(struct ha_comm *comm);

int ha_comm_rank(const struct ha_comm *comm);
int ha_comm_size(const struct ha_comm *comm);
const char *ha_comm_kind(const struct ha_comm *comm);

/* Another time limit for the waits that follow. */
void ha_comm_set_timeout(struct ha_comm *comm, int64_t timeout_ms);

/* ---- collectives; one at a time ----
 *
 * One communicator serves all of them, and one collective is under way at any time, so that every
 * rank puts them on its device in the same order: two communicators on one device would have to be
 * kept in order by their users (NCCL before 2.26 does not). */

/* One addition of a sum: value[into] += value[from], `into` below `from`. */
struct ha_comm_add {
    int into, from;
};

/* all (size * bytes, host) = the `bytes` at own (host) of every rank, in the order of ranks.
 * Both must stay valid until it is done. */
int ha_comm_start_gather(struct ha_comm *comm, void *all, const void *own, size_t bytes,
                         struct ha_error *err);

/* The same in the backend's memory, for pieces that are too large to pass through the host: `all`
 * and `own` must not overlap.  It is on its way when this returns.  On a GPU it runs beside what
 * the backend is given from now on and behind what it was given before, so `all` may be what
 * operations of before still read; nothing may be given that reads `all` until a poll or a wait
 * has said that it is done. */
int ha_comm_start_gather_device(struct ha_comm *comm, void *all, const void *own, size_t bytes,
                                struct ha_error *err);

/* x (n f32 of the backend's memory), with value[r] the x of rank r: the additions are done in
 * order, element by element, and value[0] is the x of every rank afterwards.  A rank that
 * appears in none (but 0) gives nothing.  adds NULL: (0, 1), (0, 2), ... */
int ha_comm_start_sum(struct ha_comm *comm, float *x, int64_t n, const struct ha_comm_add *adds,
                      int n_adds, struct ha_error *err);

/* 0: done; -EINPROGRESS; else it has failed. */
int ha_comm_poll(struct ha_comm *comm, struct ha_error *err);

/* Poll, with naps, until it is done. */
int ha_comm_wait(struct ha_comm *comm, struct ha_error *err);

/* Start and wait. */
int ha_comm_gather(struct ha_comm *comm, void *all, const void *own, size_t bytes,
                   struct ha_error *err);
int ha_comm_sum(struct ha_comm *comm, float *x, int64_t n, const struct ha_comm_add *adds,
                int n_adds, struct ha_error *err);

/* ---- when it goes wrong ---- */

/* Tell the other ranks, as far as that is possible, that this one gives up, and why. */
void ha_comm_abort(struct ha_comm *comm, const char *reason);

/* Collectives that this rank has started and finished since it was opened.  Of the ranks of a
 * gang that failed, the one with the fewest started was behind. */
void ha_comm_count(const struct ha_comm *comm, int64_t *ret_started, int64_t *ret_finished);

/* The last HA_COMM_RING collectives, oldest first, one line each. */
void ha_comm_dump(const struct ha_comm *comm, void (*line)(void *context, const char *text),
                  void *context);

#endif
