/* nccl.c - a gang of GPUs, through NCCL
 *
 * NCCL's own sums add in an order that hangs on its topology and algorithm, so only its
 * all-gather is used, and the additions are kernels of ours, in the caller's order.  Work goes
 * through a staging area of the device, a chunk at a time.
 *
 * A gather of device memory needs no staging: it is one call, on the backend's second stream.
 *
 * Communicators are non-blocking.  While NCCL says that a call is in progress, no other call is
 * made on the communicator and nothing is put on its stream; whether the stream is done is
 * asked, never waited for, as a collective whose peer is gone never ends by itself. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/memory.h"
#include "kernels/backend.h"
#include "kernels/comm/comm.h"
#include "kernels/comm/nccl_api.h"
#include "kernels/ops.h"

#define LIBRARY "libnccl.so.2"
/* Names another library: for tests, and where it lies in no folder of the loader's. */
#define LIBRARY_VARIABLE "HA_NCCL_LIBRARY"

enum {
    CHUNK_BYTES = 8 << 20, /* of each rank in the staging area */
    NAP_NS = 50 * 1000,
    CLOSE_MS = 10 * 1000, /* that an end may take before it is left alone */
};

enum stage { BEGIN, LAUNCHED, FLUSHING };

struct nccl {
    struct ha_comm base;
    struct ha_nccl_api api;
    struct ncclComm *comm;
    struct CUstream_st *stream;
    char *own, *all; /* device: CHUNK_BYTES, (size, CHUNK_BYTES) */
    enum stage stage;
    pthread_t aborter;
};

static struct nccl *nccl_of(struct ha_comm *comm)
{
    return (struct nccl *)comm;
}

int64_t ha_comm_device_bytes(const char *kind, int size)
{
    return strcmp(kind, ha_comm_nccl.name) == 0 ? ((int64_t)size + 1) * CHUNK_BYTES : 0;
}

/* ---- the library ---- */

/* It stays open: unloading code that a driver may still call back into is not safe. */
static int load(struct ha_nccl_api *api, struct ha_error *err)
{
    const char *given = getenv(LIBRARY_VARIABLE);
    const char *name = given && *given ? given : LIBRARY;
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    const struct {
        const char *name;
        void *entry;
    } symbols[] = {
        {"ncclGetVersion", &api->get_version},
        {"ncclGetUniqueId", &api->get_unique_id},
        {"ncclCommInitRankConfig", &api->init_rank_config},
        {"ncclCommGetAsyncError", &api->get_async_error},
        {"ncclAllGather", &api->all_gather},
        {"ncclCommFinalize", &api->finalize},
        {"ncclCommDestroy", &api->destroy},
        {"ncclCommAbort", &api->abort_comm},
        {"ncclGetErrorString", &api->error_string},
        {"ncclGetLastError", &api->last_error},
    };

    if (!library) {
        const char *why = dlerror();

        return ha_error_set(err, ENODEV, "NCCL does not load; install it or use one GPU: %s",
                            why ? why : "no reason given");
    }
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(library, symbols[i].name);

        if (!symbol)
            return ha_error_set(err, ENODEV, "%s has no %s; NCCL 2.19 or later is needed", name,
                                symbols[i].name);
        memcpy(symbols[i].entry, &symbol, sizeof(symbol));
    }
    if (api->get_version(&api->version) != HA_NCCL_SUCCESS || api->version < HA_NCCL_OLDEST)
        return ha_error_set(err, ENODEV, "%s is version %d; NCCL 2.19 (%d) or later is needed",
                            name, api->version, (int)HA_NCCL_OLDEST);
    return 0;
}

int ha_nccl_blame(int code)
{
    switch (code) {
    case HA_NCCL_REMOTE_ERROR:
        return ECONNABORTED;
    case HA_NCCL_SYSTEM_ERROR:
    case HA_NCCL_INTERNAL_ERROR:
        return ECONNRESET;
    default:
        return EIO;
    }
}

/* Its own words say more than the code does, where it has any.  Without a communicator there is no
 * peer that could be why. */
static int explain(const struct nccl *nccl, int code, const char *what, struct ha_error *err)
{
    const char *text = nccl->api.error_string(code);
    const char *more = nccl->comm ? nccl->api.last_error(nccl->comm) : NULL;

    return ha_error_set(err, nccl->comm ? ha_nccl_blame(code) : EIO, "NCCL: %s: %s%s%s", what,
                        text ? text : "no reason given", more && *more ? ": " : "",
                        more && *more ? more : "");
}

static int make_id(int size, struct ha_comm_id *ret_id, struct ha_error *err)
{
    struct nccl nccl = {.comm = NULL};
    struct ha_nccl_id id;
    int r = load(&nccl.api, err), code;

    (void)size;
    if (r < 0)
        return r;
    code = nccl.api.get_unique_id(&id);
    if (code != HA_NCCL_SUCCESS)
        return explain(&nccl, code, "making the id of a gang", err);
    _Static_assert(sizeof(id) == sizeof(ret_id->bytes), "an id of ours is one of NCCL's");
    memcpy(ret_id->bytes, &id, sizeof(id));
    return 0;
}

/* ---- opening ---- */

/* What is in progress: 0 for nothing. */
static int async_state(struct nccl *nccl, const char *what, struct ha_error *err)
{
    int state = HA_NCCL_SUCCESS, code = nccl->api.get_async_error(nccl->comm, &state);

    if (code == HA_NCCL_SUCCESS)
        code = state;
    if (code == HA_NCCL_IN_PROGRESS)
        return -EINPROGRESS;
    return code == HA_NCCL_SUCCESS ? 0 : explain(nccl, code, what, err);
}

static int check_call(const struct nccl *nccl, int code, const char *what, struct ha_error *err)
{
    return code == HA_NCCL_SUCCESS || code == HA_NCCL_IN_PROGRESS ? 0
                                                                  : explain(nccl, code, what, err);
}

static int open_rank(struct nccl *nccl, const struct ha_comm_options *options, struct ha_error *err)
{
    struct ha_nccl_config config = {.size = sizeof(config),
                                    .magic = HA_NCCL_MAGIC,
                                    .version = HA_NCCL_OLDEST,
                                    .blocking = 0,
                                    .cga_cluster_size = INT_MIN,
                                    .min_ctas = INT_MIN,
                                    .max_ctas = INT_MIN,
                                    .split_share = INT_MIN};
    struct ha_backend *backend = options->backend;
    struct ha_nccl_id id;
    void *own, *all;
    int r = ha_backend_alloc(backend, CHUNK_BYTES, &own, err);

    if (r < 0)
        return r;
    nccl->own = own;
    r = ha_backend_alloc(backend, (size_t)options->size * CHUNK_BYTES, &all, err);
    if (r < 0)
        return r;
    nccl->all = all;
    r = ha_backend_sync(backend, err);
    if (r < 0)
        return r;
    memcpy(&id, options->id->bytes, sizeof(id));
    return check_call(
        nccl, nccl->api.init_rank_config(&nccl->comm, options->size, id, options->rank, &config),
        "opening a communicator", err);
}

static void close_nccl(struct ha_comm *comm);

static int open_nccl(const struct ha_comm_options *options, struct ha_comm **ret_comm,
                     struct ha_error *err)
{
    const char *given = getenv(LIBRARY_VARIABLE);
    struct nccl *nccl;
    int r;

    if (strcmp(ha_backend_name(options->backend), "cuda") != 0 && !(given && *given))
        return ha_error_set(err, EINVAL, "NCCL is for GPUs; ranks on the CPU use \"shm\"");
    nccl = ha_calloc(1, sizeof(*nccl));
    if (!nccl)
        return ha_error_set(err, ENOMEM, "no memory for a communicator");
    nccl->base.backend = options->backend;
    nccl->stream = ha_backend_stream(options->backend);
    r = load(&nccl->api, err);
    if (r == 0)
        r = open_rank(nccl, options, err);
    if (r < 0) {
        close_nccl(&nccl->base);
        return r;
    }
    *ret_comm = &nccl->base;
    return 0;
}

static int poll_open(struct ha_comm *comm, struct ha_error *err)
{
    return async_state(nccl_of(comm), "coming together", err);
}

/* ---- ending ---- */

static void nap(struct ha_comm *comm)
{
    const struct timespec time = {.tv_nsec = NAP_NS};

    (void)comm;
    (void)nanosleep(&time, NULL);
}

static void *abort_thread(void *context)
{
    struct nccl *nccl = context;

    (void)nccl->api.abort_comm(nccl->comm);
    return NULL;
}

/* It may hang; then its thread is left behind, and whoever watches this process kills it. */
static void cancel_nccl(struct ha_comm *comm, const char *reason)
{
    struct nccl *nccl = nccl_of(comm);
    struct timespec until;

    (void)reason;
    if (!nccl->comm || pthread_create(&nccl->aborter, NULL, abort_thread, nccl) != 0)
        return;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CLOSE_MS / 1000;
    if (pthread_timedjoin_np(nccl->aborter, NULL, &until) == 0)
        nccl->comm = NULL;
    else
        (void)pthread_detach(nccl->aborter);
}

static void finish(struct nccl *nccl)
{
    int64_t start_ms = ha_clock_boot_ms();
    int r = check_call(nccl, nccl->api.finalize(nccl->comm), "ending", NULL);

    while (r == 0) {
        r = async_state(nccl, "ending", NULL);
        if (r == 0)
            break;
        if (r == -EINPROGRESS && ha_clock_boot_ms() - start_ms < CLOSE_MS) {
            nap(&nccl->base);
            r = 0;
        }
    }
    if (r < 0)
        cancel_nccl(&nccl->base, "");
    else
        (void)nccl->api.destroy(nccl->comm);
}

static void close_nccl(struct ha_comm *comm)
{
    struct nccl *nccl = nccl_of(comm);
    bool hanging = comm->aborted && nccl->comm;

    if (nccl->comm && !comm->aborted)
        finish(nccl);
    if (hanging) /* its thread may still use all of this */
        return;
    ha_backend_free(comm->backend, nccl->own);
    ha_backend_free(comm->backend, nccl->all);
    free(nccl);
}

static void missing(const struct ha_comm *comm, char *text, size_t text_bytes)
{
    (void)comm;
    text[0] = '\0';
    (void)text_bytes;
}

/* ---- collectives ---- */

static size_t chunk_of(const struct ha_comm_work *work)
{
    size_t left = work->bytes - work->at;

    return left < CHUNK_BYTES ? left : CHUNK_BYTES;
}

/* One that gathers nothing gathers a byte, as NCCL does nothing for none. */
static size_t sent_bytes(const struct ha_comm_work *work)
{
    size_t bytes = chunk_of(work);

    return bytes > 0 ? bytes : 1;
}

/* A gather of device memory, whole, on the second stream. */
static int launch_beside(struct nccl *nccl, struct ha_error *err)
{
    const struct ha_comm_work *work = &nccl->base.work;
    void *stream = NULL;
    int r = ha_backend_fork(nccl->base.backend, &stream, err);

    if (r < 0)
        return r;
    nccl->stage = LAUNCHED;
    return check_call(
        nccl,
        nccl->api.all_gather(work->own, work->all, work->bytes, HA_NCCL_INT8, nccl->comm, stream),
        "an all-gather of device memory", err);
}

static int launch(struct nccl *nccl, struct ha_error *err)
{
    const struct ha_comm_work *work = &nccl->base.work;
    const void *own = nccl->own;
    int r = 0;

    if (work->kind == HA_COMM_GATHER_DEVICE)
        return launch_beside(nccl, err);
    if (work->kind == HA_COMM_SUM && work->bytes > 0)
        own = (const char *)work->x + work->at;
    else if (work->bytes > 0)
        r = ha_backend_upload(nccl->base.backend, nccl->own, (const char *)work->own + work->at,
                              chunk_of(work), err);
    if (r < 0)
        return r;
    nccl->stage = LAUNCHED;
    return check_call(nccl,
                      nccl->api.all_gather(own, nccl->all, sent_bytes(work), HA_NCCL_INT8,
                                           nccl->comm, nccl->stream),
                      "an all-gather", err);
}

/* The chunk's additions, put on the stream behind the all-gather. */
static int add(struct nccl *nccl, struct ha_error *err)
{
    const struct ha_comm_work *work = &nccl->base.work;
    const struct ha_ops *ops = ha_backend_ops(nccl->base.backend);
    size_t bytes = chunk_of(work);
    int r = 0;

    nccl->stage = FLUSHING;
    if (work->kind != HA_COMM_SUM || bytes == 0)
        return 0;
    for (int i = 0; r == 0 && i < work->n_adds; i++)
        r = ops->add(nccl->base.backend,
                     (float *)(void *)(nccl->all + (size_t)work->adds[i].into * bytes),
                     (const float *)(const void *)(nccl->all + (size_t)work->adds[i].from * bytes),
                     (int64_t)(bytes / sizeof(float)), err);
    return r < 0 ? r
                 : ha_backend_copy(nccl->base.backend, (char *)work->x + work->at, nccl->all, bytes,
                                   err);
}

static int take(struct nccl *nccl, struct ha_error *err)
{
    struct ha_comm_work *work = &nccl->base.work;
    size_t bytes = chunk_of(work);
    int r = 0;

    for (int i = 0; r == 0 && work->kind == HA_COMM_GATHER && i < nccl->base.size; i++)
        r = ha_backend_download(nccl->base.backend,
                                (char *)work->all + (size_t)i * work->bytes + work->at,
                                nccl->all + (size_t)i * bytes, bytes, err);
    if (r == 0 && work->kind == HA_COMM_GATHER)
        r = ha_backend_sync(nccl->base.backend, err);
    work->at += bytes;
    nccl->stage = BEGIN;
    return r;
}

static int end_beside(struct nccl *nccl, struct ha_error *err)
{
    int r = ha_backend_poll_fork(nccl->base.backend, err);

    if (r < 0)
        return r;
    nccl->base.work.at = nccl->base.work.bytes;
    nccl->stage = BEGIN;
    return 0;
}

static int poll_nccl(struct ha_comm *comm, struct ha_error *err)
{
    struct nccl *nccl = nccl_of(comm);
    int r = 0;

    for (;;) {
        if (nccl->stage == BEGIN)
            r = launch(nccl, err);
        if (r == 0)
            r = async_state(nccl, "a collective", err);
        if (r == 0 && nccl->stage == LAUNCHED)
            r = add(nccl, err);
        if (r == 0 && comm->work.kind == HA_COMM_GATHER_DEVICE)
            return end_beside(nccl, err);
        if (r == 0)
            r = ha_backend_poll(comm->backend, err);
        if (r == 0)
            r = take(nccl, err);
        if (r < 0 || comm->work.at >= comm->work.bytes)
            return r;
    }
}

const struct ha_comm_table ha_comm_nccl = {.name = "nccl",
                                           .make_id = make_id,
                                           .open = open_nccl,
                                           .poll_open = poll_open,
                                           .poll = poll_nccl,
                                           .nap = nap,
                                           .cancel = cancel_nccl,
                                           .missing = missing,
                                           .close = close_nccl};
