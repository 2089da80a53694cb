/* nccl_api.h - what this folder uses of NCCL's C interface
 *
 * Declared here, as its public header has it since 2.19, so that nothing of NCCL is needed to
 * build; the library is loaded at run time.  A library of a later version reads the struct below as
 * one of 2.19, by its size and version, and gives what came later its default. */
#ifndef HA_KERNELS_COMM_NCCL_API_H
#define HA_KERNELS_COMM_NCCL_API_H

#include <stddef.h>

struct CUstream_st;
struct ncclComm;

enum {
    HA_NCCL_OLDEST = 21900, /* 2.19.0 */
    HA_NCCL_ID_BYTES = 128,
};

enum ha_nccl_result {
    HA_NCCL_SUCCESS = 0,
    HA_NCCL_CUDA_ERROR = 1,
    HA_NCCL_SYSTEM_ERROR = 2,
    HA_NCCL_INTERNAL_ERROR = 3,
    HA_NCCL_REMOTE_ERROR = 6,
    HA_NCCL_IN_PROGRESS = 7
};

/* Whose fault a failure is, as an errno (kernels/collective.h): ECONNABORTED another rank's,
 * ECONNRESET probably another's, EIO this one's.
 *
 * The loss of a peer is a remote error by NCCL's own words ("network error or remote process
 * exiting"), but a socket that the peer's end has closed may come as a system error, too, and a
 * connection that cannot be made any more as an internal one, which its proxy thread reports. */
int ha_nccl_blame(int code);

enum ha_nccl_type { HA_NCCL_INT8 = 0 };

#define HA_NCCL_MAGIC 0xcafebeefu

struct ha_nccl_id {
    char bytes[HA_NCCL_ID_BYTES];
};

struct ha_nccl_config {
    size_t size;
    unsigned int magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share;
};

struct ha_nccl_api {
    int version;
    int (*get_version)(int *version);
    int (*get_unique_id)(struct ha_nccl_id *id);
    int (*init_rank_config)(struct ncclComm **comm, int size, struct ha_nccl_id id, int rank,
                            struct ha_nccl_config *config);
    int (*get_async_error)(struct ncclComm *comm, int *state);
    int (*all_gather)(const void *own, void *all, size_t count, int type, struct ncclComm *comm,
                      struct CUstream_st *stream);
    int (*finalize)(struct ncclComm *comm);
    int (*destroy)(struct ncclComm *comm);
    int (*abort_comm)(struct ncclComm *comm);
    const char *(*error_string)(int code);
    const char *(*last_error)(struct ncclComm *comm);
};

#endif
