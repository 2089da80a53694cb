/* comm.h - what an implementation of collective.h fills in (internal to kernels/comm)
 *
 * comm.c checks arguments, keeps the ring of collectives and the first failure, and waits;
 * shm.c and nccl.c move bytes.  An implementation embeds struct ha_comm as its first
 * member.  Its steps return 0 when done, -EINPROGRESS, or an error; none of them blocks. */
#ifndef HA_KERNELS_COMM_COMM_H
#define HA_KERNELS_COMM_COMM_H

#include "common/base/error.h"
#include "kernels/collective.h"

struct ha_comm_table {
    const char *name;
    int (*make_id)(int size, struct ha_comm_id *ret_id, struct ha_error *err);
    /* Allocates and begins to come together with the others, which poll_open goes on with. */
    int (*open)(const struct ha_comm_options *options, struct ha_comm **ret_comm,
                struct ha_error *err);
    int (*poll_open)(struct ha_comm *comm, struct ha_error *err);
    /* Goes on with comm->work; the first call begins it. */
    int (*poll)(struct ha_comm *comm, struct ha_error *err);
    /* Wait a little for something to happen. */
    void (*nap)(struct ha_comm *comm);
    /* Ends what is under way, here and, where possible, elsewhere; called once. */
    void (*cancel)(struct ha_comm *comm, const char *reason);
    /* Who is waited for, for an error text; "" where that is not known. */
    void (*missing)(const struct ha_comm *comm, char *text, size_t text_bytes);
    void (*close)(struct ha_comm *comm);
};

extern const struct ha_comm_table ha_comm_shm;
extern const struct ha_comm_table ha_comm_nccl;

enum ha_comm_work_kind { HA_COMM_GATHER, HA_COMM_GATHER_DEVICE, HA_COMM_SUM };

struct ha_comm_work {
    enum ha_comm_work_kind kind;
    void *all; /* gather: host, or device memory (size * bytes) */
    const void *own;
    size_t bytes; /* of one rank */
    float *x;     /* sum: device (bytes / 4) */
    const struct ha_comm_add *adds;
    int n_adds;
    size_t at; /* bytes that are done */
};

struct ha_comm_record {
    int64_t sequence; /* from 1 */
    enum ha_comm_work_kind kind;
    int64_t bytes, start_ns, end_ns; /* end 0: not finished */
};

struct ha_comm {
    const struct ha_comm_table *table;
    struct ha_backend *backend;
    const volatile sig_atomic_t *abort;
    int rank, size;
    int64_t timeout_ms;
    struct ha_comm_add *chain; /* (size - 1): the sum where none is given */
    bool opened, working, aborted;
    struct ha_comm_work work;
    int64_t started, finished;
    struct ha_comm_record ring[HA_COMM_RING];
    struct ha_error failure; /* code 0: none */
};

#endif
