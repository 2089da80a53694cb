/* A libnccl whose ranks are threads of one process and whose device is the host's memory: it has
 * the entries that kernels/comm/nccl.c uses, is never done at once, and fails as it is told to
 * (fake_nccl.h). */
#include "tests/unit/kernels/fake_nccl.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/comm/nccl_api.h"

enum { MOST_RANKS = 8, MOST_GANGS = 16, INVALID = 4 };

struct gang {
    int size, joined;
    int64_t rounds; /* that are done */
    int64_t given[MOST_RANKS];
    const void *own[MOST_RANKS];
    int taken;
};

struct ncclComm {
    struct gang *gang;
    int rank;
    int waits; /* polls that still say "in progress" */
    bool gathering;
    void *all;
    size_t bytes;
    int64_t round;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gang gangs[MOST_GANGS];
static int n_gangs;
static struct fake_nccl plan = {.version = 22005, .polls = 3};

#define EXPORT __attribute__((visibility("default")))

EXPORT struct fake_nccl *fake_nccl_plan(void);
EXPORT int ncclGetVersion(int *version);
EXPORT int ncclGetUniqueId(struct ha_nccl_id *id);
EXPORT int ncclCommInitRankConfig(struct ncclComm **comm, int size, struct ha_nccl_id id, int rank,
                                  struct ha_nccl_config *config);
EXPORT int ncclCommGetAsyncError(struct ncclComm *comm, int *state);
EXPORT int ncclAllGather(const void *own, void *all, size_t count, int type, struct ncclComm *comm,
                         struct CUstream_st *stream);
EXPORT int ncclCommFinalize(struct ncclComm *comm);
EXPORT int ncclCommDestroy(struct ncclComm *comm);
EXPORT int ncclCommAbort(struct ncclComm *comm);
EXPORT const char *ncclGetErrorString(int code);
EXPORT const char *ncclGetLastError(struct ncclComm *comm);

struct fake_nccl *fake_nccl_plan(void)
{
    return &plan;
}

int ncclGetVersion(int *version)
{
    *version = plan.version;
    return HA_NCCL_SUCCESS;
}

int ncclGetUniqueId(struct ha_nccl_id *id)
{
    memset(id, 0, sizeof(*id));
    pthread_mutex_lock(&lock);
    memcpy(id->bytes, &n_gangs, sizeof(n_gangs));
    n_gangs++;
    pthread_mutex_unlock(&lock);
    return HA_NCCL_SUCCESS;
}

int ncclCommInitRankConfig(struct ncclComm **comm, int size, struct ha_nccl_id id, int rank,
                           struct ha_nccl_config *config)
{
    struct gang *gang;
    int number;

    memcpy(&number, id.bytes, sizeof(number));
    if (config->size != sizeof(*config) || config->magic != HA_NCCL_MAGIC ||
        config->blocking != 0 || config->max_ctas != INT_MIN || number >= n_gangs)
        return INVALID;
    gang = &gangs[number];
    *comm = calloc(1, sizeof(**comm));
    (*comm)->gang = gang;
    (*comm)->rank = rank;
    (*comm)->waits = plan.polls;
    pthread_mutex_lock(&lock);
    gang->size = size;
    gang->joined++;
    pthread_mutex_unlock(&lock);
    return HA_NCCL_IN_PROGRESS;
}

/* All have given: take theirs; the last to do so ends the round. */
static void take(struct ncclComm *comm)
{
    struct gang *gang = comm->gang;

    for (int i = 0; i < gang->size; i++)
        memcpy((char *)comm->all + (size_t)i * comm->bytes, gang->own[i], comm->bytes);
    comm->gathering = false;
    comm->round++;
    if (++gang->taken == gang->size) {
        gang->taken = 0;
        gang->rounds++;
    }
}

static bool ready(const struct ncclComm *comm)
{
    const struct gang *gang = comm->gang;

    if (gang->joined < gang->size)
        return false;
    for (int i = 0; comm->gathering && i < gang->size; i++) {
        if (gang->given[i] <= comm->round)
            return false;
    }
    return true;
}

int ncclCommGetAsyncError(struct ncclComm *comm, int *state)
{
    pthread_mutex_lock(&lock);
    *state = HA_NCCL_IN_PROGRESS;
    if (plan.fails_at > 0 && comm->rank == plan.fails_rank && comm->round >= plan.fails_at)
        *state = plan.fails_code ? plan.fails_code : HA_NCCL_REMOTE_ERROR;
    else if (comm->waits > 0)
        comm->waits--;
    else if (ready(comm) && !comm->gathering)
        /* Nobody goes on while another still reads what it gave. */
        *state = comm->gang->rounds >= comm->round ? HA_NCCL_SUCCESS : HA_NCCL_IN_PROGRESS;
    else if (ready(comm))
        take(comm); /* and say so when asked next */
    pthread_mutex_unlock(&lock);
    return HA_NCCL_SUCCESS;
}

int ncclAllGather(const void *own, void *all, size_t count, int type, struct ncclComm *comm,
                  struct CUstream_st *stream)
{
    (void)stream;
    if (type != HA_NCCL_INT8 || comm->gathering || comm->waits > 0)
        return INVALID;
    pthread_mutex_lock(&lock);
    comm->gang->own[comm->rank] = own;
    comm->gang->given[comm->rank] = comm->round + 1;
    comm->all = all;
    comm->bytes = count;
    comm->gathering = true;
    comm->waits = plan.polls;
    pthread_mutex_unlock(&lock);
    return HA_NCCL_IN_PROGRESS;
}

int ncclCommFinalize(struct ncclComm *comm)
{
    comm->waits = plan.polls;
    return HA_NCCL_IN_PROGRESS;
}

int ncclCommDestroy(struct ncclComm *comm)
{
    pthread_mutex_lock(&lock);
    plan.destroyed++;
    pthread_mutex_unlock(&lock);
    free(comm);
    return HA_NCCL_SUCCESS;
}

int ncclCommAbort(struct ncclComm *comm)
{
    pthread_mutex_lock(&lock);
    plan.aborted++;
    pthread_mutex_unlock(&lock);
    free(comm);
    return HA_NCCL_SUCCESS;
}

const char *ncclGetErrorString(int code)
{
    return code == HA_NCCL_REMOTE_ERROR ? "remote process exited" : "some error";
}

const char *ncclGetLastError(struct ncclComm *comm)
{
    (void)comm;
    return "the cable is out";
}
