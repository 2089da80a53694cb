/* memory.c - device memory, and what passes between host and device
 *
 * All bytes between host and device pass through a few pinned buffers, each with an
 * event that says when the device has read (or filled) it.  A large import, a
 * weight of a mapped file, fills the buffers from one thread each, so that reading
 * pages and copying to the device overlap.
 *
 * Small arguments of operations go through a ring of pinned memory with a copy on
 * the device.  The device's side may be written again at once, as the stream keeps
 * order; the host's side waits for the event of the part that it enters. */
#include "kernels/cuda/cuda.h"

#include <cuda_runtime_api.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/cuda/launch.h"

enum { ALIGNMENT = 256, CONVERT_BYTES = 32 << 20 };

#define PARALLEL_BYTES ((size_t)4 * HA_CUDA_STAGE_BYTES)

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static char *stage_of(const struct ha_cuda *cuda, int stage)
{
    return cuda->stage + (size_t)stage * HA_CUDA_STAGE_BYTES;
}

/* ---- open and close ---- */

static int create_events(struct ha_cuda *cuda, struct CUevent_st **events, int n,
                         struct ha_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < n; i++)
        rc = ha_cuda_check(cuda, (int)cudaEventCreateWithFlags(&events[i], cudaEventDisableTiming),
                           "creating an event", err);
    return rc;
}

static int pinned(struct ha_cuda *cuda, size_t bytes, void **ret_memory, struct ha_error *err)
{
    int rc = ha_cuda_check(cuda, (int)cudaHostAlloc(ret_memory, bytes, cudaHostAllocDefault),
                           "allocating pinned host memory", err);

    if (rc == 0)
        memset(*ret_memory, 0, bytes);
    return rc;
}

int ha_cuda_memory_open(struct ha_cuda *cuda, struct ha_error *err)
{
    void *stage = NULL, *ring = NULL, *fault = NULL, *device_ring = NULL;
    int rc = create_events(cuda, cuda->stage_done, HA_CUDA_N_STAGES, err);

    if (rc == 0)
        rc = create_events(cuda, cuda->ring_done, HA_CUDA_N_RINGS, err);
    if (rc == 0)
        rc = pinned(cuda, (size_t)HA_CUDA_N_STAGES * HA_CUDA_STAGE_BYTES, &stage, err);
    cuda->stage = stage;
    if (rc == 0)
        rc = pinned(cuda, (size_t)HA_CUDA_N_RINGS * HA_CUDA_RING_BYTES, &ring, err);
    cuda->ring = ring;
    if (rc == 0)
        rc = pinned(cuda, sizeof(*cuda->fault), &fault, err);
    cuda->fault = fault;
    if (rc == 0)
        rc = ha_backend_alloc_counted(&cuda->base, (size_t)HA_CUDA_N_RINGS * HA_CUDA_RING_BYTES,
                                      ha_cuda_alloc, &device_ring, err);
    cuda->device_ring = device_ring;
    if (rc == 0)
        rc = ha_backend_alloc_counted(&cuda->base, HA_CUDA_WORKSPACE_BYTES, ha_cuda_alloc,
                                      &cuda->workspace, err);
    return rc;
}

void ha_cuda_memory_close(struct ha_cuda *cuda)
{
    for (int64_t i = 0; i < cuda->n_blocks; i++)
        (void)cudaFree(cuda->blocks[i].memory);
    free(cuda->blocks);
    for (int i = 0; i < HA_CUDA_N_STAGES; i++)
        if (cuda->stage_done[i])
            (void)cudaEventDestroy(cuda->stage_done[i]);
    for (int i = 0; i < HA_CUDA_N_RINGS; i++)
        if (cuda->ring_done[i])
            (void)cudaEventDestroy(cuda->ring_done[i]);
    (void)cudaFreeHost(cuda->stage);
    (void)cudaFreeHost(cuda->ring);
    (void)cudaFreeHost((void *)(uintptr_t)cuda->fault);
}

/* ---- blocks ---- */

int ha_cuda_alloc(struct ha_backend *backend, size_t bytes, void **ret_memory, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    void *blocks = cuda->blocks, *memory = NULL;
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "taking memory", err);
    if (rc < 0)
        return rc;
    if (ha_grow(&blocks, &cuda->max_blocks, cuda->n_blocks + 1, sizeof(*cuda->blocks)) < 0)
        return ha_error_set(err, ENOMEM, "no memory for the list of device memory");
    cuda->blocks = blocks;
    rc = ha_cuda_check(cuda, (int)cudaMalloc(&memory, bytes), "allocating device memory", err);
    if (rc < 0)
        return ha_error_prefix(err, "%zu bytes wanted", bytes);
    rc = ha_cuda_check(cuda, (int)cudaMemsetAsync(memory, 0, bytes, cuda->stream),
                       "zeroing device memory", err);
    if (rc < 0) {
        (void)cudaFree(memory);
        return rc;
    }
    cuda->blocks[cuda->n_blocks++] = (struct ha_cuda_block){memory, bytes};
    *ret_memory = memory;
    return 0;
}

bool ha_cuda_holds(struct ha_cuda *cuda, const void *memory, size_t bytes)
{
    uintptr_t at = (uintptr_t)memory;

    /* Calls mostly ask for the block of the call before. */
    for (int64_t i = -1; i < cuda->n_blocks; i++) {
        int64_t number = i < 0 ? cuda->held_block : i;
        uintptr_t begin;

        if (number >= cuda->n_blocks)
            continue;
        begin = (uintptr_t)cuda->blocks[number].memory;
        if (at < begin || at - begin >= cuda->blocks[number].bytes)
            continue;
        cuda->held_block = number;
        return bytes <= cuda->blocks[number].bytes - (at - begin);
    }
    return false;
}

/* cudaFree waits for the device, so nothing that is enqueued loses its memory.  It may fail
 * with an error of earlier work, which the next call meets too. */
size_t ha_cuda_free(struct ha_backend *backend, void *memory)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);

    for (int64_t i = cuda->n_blocks - 1; i >= 0; i--)
        if (cuda->blocks[i].memory == memory) {
            size_t bytes = cuda->blocks[i].bytes;

            memmove(&cuda->blocks[i], &cuda->blocks[i + 1],
                    (size_t)(cuda->n_blocks - i - 1) * sizeof(*cuda->blocks));
            cuda->n_blocks--;
            (void)cudaSetDevice(cuda->device);
            (void)ha_cuda_check(cuda, (int)cudaFree(memory), "freeing device memory", NULL);
            return bytes;
        }
    return 0;
}

int ha_cuda_scratch(struct ha_cuda *cuda, enum ha_cuda_scratch use, size_t bytes, void **ret_memory,
                    struct ha_error *err)
{
    size_t rounded;
    int rc;

    if (bytes <= cuda->scratch_bytes[use]) {
        *ret_memory = cuda->scratch[use];
        return 0;
    }
    rc = ha_cuda_refuse_recording(cuda, "taking memory", err);
    if (rc < 0)
        return rc;
    if (bytes > SIZE_MAX - HA_CUDA_SCRATCH_STEP)
        return ha_error_set(err, ENOMEM, "%zu bytes of scratch are more than any memory holds",
                            bytes);
    rounded = (bytes + HA_CUDA_SCRATCH_STEP - 1) / HA_CUDA_SCRATCH_STEP * HA_CUDA_SCRATCH_STEP;
    if (cuda->scratch[use])
        ha_backend_unreserve(&cuda->base, ha_cuda_free(&cuda->base, cuda->scratch[use]));
    cuda->scratch[use] = NULL;
    cuda->scratch_bytes[use] = 0;
    cuda->scratch_moves++;
    rc = ha_backend_alloc_counted(&cuda->base, rounded, ha_cuda_alloc, &cuda->scratch[use], err);
    if (rc < 0)
        return ha_error_prefix(err, "scratch memory");
    cuda->scratch_bytes[use] = rounded;
    *ret_memory = cuda->scratch[use];
    return 0;
}

void ha_cuda_scratch_clear(struct ha_cuda *cuda)
{
    cuda->scratch_moves++;
    for (int use = 0; use < HA_CUDA_N_SCRATCH; use++) {
        if (cuda->scratch[use])
            ha_backend_unreserve(&cuda->base, ha_cuda_free(&cuda->base, cuda->scratch[use]));
        cuda->scratch[use] = NULL;
        cuda->scratch_bytes[use] = 0;
    }
}

/* ---- to the device ---- */

/* Send a run of chunks, each HA_CUDA_STAGE_BYTES of `bytes`, every `step`th from `first`, through
 * one stage.  Returns a cudaError_t; runs on any thread. */
static int send_chunks(struct ha_cuda *cuda, int stage, char *to, const char *from, size_t bytes,
                       size_t first, size_t step)
{
    int code = (int)cudaSetDevice(cuda->device);

    for (size_t at = first * HA_CUDA_STAGE_BYTES; code == 0 && at < bytes;
         at += step * HA_CUDA_STAGE_BYTES) {
        size_t n = smaller(bytes - at, HA_CUDA_STAGE_BYTES);

        code = (int)cudaEventSynchronize(cuda->stage_done[stage]);
        if (code)
            break;
        memcpy(stage_of(cuda, stage), from + at, n);
        code = (int)cudaMemcpyAsync(to + at, stage_of(cuda, stage), n, cudaMemcpyHostToDevice,
                                    cuda->stream);
        if (code == 0)
            code = (int)cudaEventRecord(cuda->stage_done[stage], cuda->stream);
    }
    return code;
}

struct sender {
    struct ha_cuda *cuda;
    pthread_t thread;
    int stage, code;
    bool started;
    char *to;
    const char *from;
    size_t bytes;
};

static void *send_thread(void *context)
{
    struct sender *s = context;

    s->code = send_chunks(s->cuda, s->stage, s->to, s->from, s->bytes, (size_t)s->stage,
                          HA_CUDA_N_STAGES);
    return NULL;
}

/* One thread for each stage; where one does not start, this thread does its chunks. */
static int send_parallel(struct ha_cuda *cuda, char *to, const char *from, size_t bytes)
{
    struct sender senders[HA_CUDA_N_STAGES];
    int code = 0;

    for (int i = 0; i < HA_CUDA_N_STAGES; i++) {
        senders[i] =
            (struct sender){.cuda = cuda, .stage = i, .to = to, .from = from, .bytes = bytes};
        senders[i].started =
            i > 0 && pthread_create(&senders[i].thread, NULL, send_thread, &senders[i]) == 0;
    }
    for (int i = 0; i < HA_CUDA_N_STAGES; i++) {
        if (senders[i].started)
            (void)pthread_join(senders[i].thread, NULL);
        else
            (void)send_thread(&senders[i]);
        if (code == 0)
            code = senders[i].code;
    }
    return code;
}

int ha_cuda_upload(struct ha_backend *backend, void *memory, const void *host, size_t bytes,
                   struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err), code = 0;

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "a copy to the device", err);
    if (rc < 0)
        return rc;
    if (bytes >= PARALLEL_BYTES) {
        code = send_parallel(cuda, memory, host, bytes);
    } else {
        for (size_t at = 0; code == 0 && at < bytes; at += HA_CUDA_STAGE_BYTES) {
            code = send_chunks(cuda, cuda->next_stage, (char *)memory + at, (const char *)host + at,
                               smaller(bytes - at, HA_CUDA_STAGE_BYTES), 0, 1);
            cuda->next_stage = (cuda->next_stage + 1) % HA_CUDA_N_STAGES;
        }
    }
    return ha_cuda_check(cuda, code, "copying to the device", err);
}

/* Ask the system to read a mapped file ahead; for other memory this does nothing. */
static void read_ahead(const void *host, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)host / page * page;

    (void)madvise((void *)begin, (uintptr_t)host + bytes - begin, MADV_WILLNEED);
}

int ha_cuda_import_host(struct ha_backend *backend, const void *host, size_t bytes,
                        const void **ret_memory, struct ha_error *err)
{
    void *memory = NULL;
    int rc = ha_backend_alloc_counted(backend, bytes ? bytes : 1, ha_cuda_alloc, &memory, err);

    if (rc < 0)
        return rc;
    if (bytes) {
        read_ahead(host, bytes);
        rc = ha_cuda_upload(backend, memory, host, bytes, err);
    }
    if (rc < 0) {
        ha_cuda_release_host(backend, memory);
        return rc;
    }
    *ret_memory = memory;
    return 0;
}

/* A piece at a time, so that no second copy of the weight is on the device: whole rows where they
 * lie apart, else any part of the one row. */
static int load_pieces(struct ha_cuda *cuda, char *memory, int64_t stride, const char *host,
                       enum ha_dtype dtype, int64_t rows, int64_t cols, struct ha_error *err)
{
    int64_t most = CONVERT_BYTES / (int64_t)ha_dtype_bytes(dtype), step = 1;
    int64_t piece = ha_cuda_min(most, rows * cols);
    void *wide = NULL;
    int rc;

    if (rows > 1) {
        step = ha_cuda_min(most > cols ? most / cols : 1, rows);
        piece = step * cols;
    }
    rc = ha_backend_alloc_counted(&cuda->base, (size_t)piece * ha_dtype_bytes(dtype), ha_cuda_alloc,
                                  &wide, err);
    if (rc < 0)
        return rc;
    for (int64_t at = 0; rc == 0 && at < rows * cols; at += piece) {
        int64_t count = ha_cuda_min(piece, rows * cols - at);
        int64_t n = rows > 1 ? count / cols : 1, width = rows > 1 ? cols : count;
        char *to = memory + (rows > 1 ? at / cols * stride : at) * 2;

        rc = ha_cuda_upload(&cuda->base, wide, host + (size_t)at * ha_dtype_bytes(dtype),
                            (size_t)count * ha_dtype_bytes(dtype), err);
        if (rc == 0)
            rc = ha_cuda_check(cuda,
                               ha_cuda_launch_convert(cuda->stream, to, HA_DTYPE_BF16, stride, wide,
                                                      dtype, width, n, width),
                               "laying out a weight", err);
    }
    ha_backend_unreserve(&cuda->base, ha_cuda_free(&cuda->base, wide));
    return rc;
}

int ha_cuda_load_weight(struct ha_backend *backend, void *memory, int64_t stride, const void *host,
                        enum ha_dtype dtype, int64_t rows, int64_t cols, struct ha_error *err)
{
    size_t bytes = (size_t)(rows * cols) * ha_dtype_bytes(dtype);

    read_ahead(host, bytes);
    return dtype == HA_DTYPE_BF16 && rows == 1
               ? ha_cuda_upload(backend, memory, host, bytes, err)
               : load_pieces(ha_cuda_of(backend), memory, stride, host, dtype, rows, cols, err);
}

void ha_cuda_release_host(struct ha_backend *backend, const void *memory)
{
    ha_backend_unreserve(backend, ha_cuda_free(backend, (void *)(uintptr_t)memory));
}

/* ---- from the device, and on it ---- */

/* Up to HA_CUDA_N_STAGES chunks are on their way while the oldest is copied out. */
static int receive(struct ha_cuda *cuda, char *to, const char *from, size_t bytes)
{
    size_t asked = 0, got = 0;
    int code = 0, asking = 0, getting = 0;

    while (code == 0 && got < bytes) {
        size_t n;

        while (code == 0 && asked < bytes &&
               asked - got < (size_t)HA_CUDA_N_STAGES * HA_CUDA_STAGE_BYTES) {
            n = smaller(bytes - asked, HA_CUDA_STAGE_BYTES);
            code = (int)cudaEventSynchronize(cuda->stage_done[asking]);
            if (code == 0)
                code = (int)cudaMemcpyAsync(stage_of(cuda, asking), from + asked, n,
                                            cudaMemcpyDeviceToHost, cuda->stream);
            if (code == 0)
                code = (int)cudaEventRecord(cuda->stage_done[asking], cuda->stream);
            asking = (asking + 1) % HA_CUDA_N_STAGES;
            asked += n;
        }
        if (code == 0)
            code = (int)cudaEventSynchronize(cuda->stage_done[getting]);
        if (code)
            break;
        n = smaller(bytes - got, HA_CUDA_STAGE_BYTES);
        memcpy(to + got, stage_of(cuda, getting), n);
        getting = (getting + 1) % HA_CUDA_N_STAGES;
        got += n;
    }
    return code;
}

int ha_cuda_download(struct ha_backend *backend, void *host, const void *memory, size_t bytes,
                     struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "a copy from the device", err);
    if (rc == 0)
        rc =
            ha_cuda_check(cuda, receive(cuda, host, memory, bytes), "copying from the device", err);
    return rc < 0 ? rc : ha_cuda_take_fault(cuda, err);
}

int ha_cuda_copy(struct ha_backend *backend, void *to, const void *from, size_t bytes,
                 struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    return rc < 0 ? rc
                  : ha_cuda_check(cuda,
                                  (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice,
                                                       cuda->stream),
                                  "copying on the device", err);
}

int ha_cuda_copy_rows(struct ha_backend *backend, void *to, size_t to_stride, const void *from,
                      size_t from_stride, size_t row_bytes, int64_t n_rows, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    return rc < 0 ? rc
                  : ha_cuda_check(cuda,
                                  (int)cudaMemcpy2DAsync(to, to_stride, from, from_stride,
                                                         row_bytes, (size_t)n_rows,
                                                         cudaMemcpyDeviceToDevice, cuda->stream),
                                  "copying rows on the device", err);
}

int ha_cuda_zero(struct ha_backend *backend, void *memory, size_t bytes, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    return rc < 0 ? rc
                  : ha_cuda_check(cuda, (int)cudaMemsetAsync(memory, 0, bytes, cuda->stream),
                                  "zeroing device memory", err);
}

int ha_cuda_zero_rows(struct ha_backend *backend, void *memory, size_t stride, size_t row_bytes,
                      int64_t n_rows, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    return rc < 0 ? rc
                  : ha_cuda_check(cuda,
                                  (int)cudaMemset2DAsync(memory, stride, 0, row_bytes,
                                                         (size_t)n_rows, cuda->stream),
                                  "zeroing rows on the device", err);
}

int ha_cuda_sync(struct ha_backend *backend, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "waiting for the device", err);
    if (rc == 0)
        rc = ha_cuda_check(cuda, (int)cudaStreamSynchronize(cuda->stream), "waiting for the device",
                           err);
    return rc < 0 ? rc : ha_cuda_take_fault(cuda, err);
}

int ha_cuda_poll(struct ha_backend *backend, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err), code;

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "asking the device", err);
    if (rc < 0)
        return rc;
    code = (int)cudaStreamQuery(cuda->stream);
    if (code == (int)cudaErrorNotReady)
        return -EINPROGRESS;
    rc = ha_cuda_check(cuda, code, "asking the device", err);
    return rc < 0 ? rc : ha_cuda_take_fault(cuda, err);
}

/* ---- the second stream ---- */

int ha_cuda_fork(struct ha_backend *backend, void **ret_stream, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "a second stream", err);
    if (rc == 0 && !cuda->fork)
        rc = ha_cuda_check(cuda, (int)cudaStreamCreateWithFlags(&cuda->fork, cudaStreamNonBlocking),
                           "creating a second stream", err);
    if (rc == 0 && !cuda->forked)
        rc = create_events(cuda, &cuda->forked, 1, err);
    if (rc == 0)
        rc = ha_cuda_check(cuda, (int)cudaEventRecord(cuda->forked, cuda->stream),
                           "recording an event", err);
    if (rc == 0)
        rc = ha_cuda_check(cuda, (int)cudaStreamWaitEvent(cuda->fork, cuda->forked, 0),
                           "making the second stream wait", err);
    if (rc == 0)
        *ret_stream = cuda->fork;
    return rc;
}

int ha_cuda_poll_fork(struct ha_backend *backend, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err), code;

    if (rc < 0 || !cuda->fork)
        return rc;
    code = (int)cudaStreamQuery(cuda->fork);
    if (code == (int)cudaErrorNotReady)
        return -EINPROGRESS;
    return ha_cuda_check(cuda, code, "asking the device", err);
}

/* ---- arguments ---- */

/* Room for bytes in the ring, which may mean to wait until the device has read what lay there. */
static int ring_room(struct ha_cuda *cuda, size_t bytes, size_t *ret_at, struct ha_error *err)
{
    int rc = 0;

    if (cuda->ring_used + bytes > HA_CUDA_RING_BYTES) {
        rc = ha_cuda_check(cuda,
                           (int)cudaEventRecord(cuda->ring_done[cuda->ring_part], cuda->stream),
                           "recording an event", err);
        cuda->ring_part = (cuda->ring_part + 1) % HA_CUDA_N_RINGS;
        cuda->ring_used = 0;
        if (rc == 0)
            rc = ha_cuda_check(cuda, (int)cudaEventSynchronize(cuda->ring_done[cuda->ring_part]),
                               "waiting for the device", err);
    }
    if (rc < 0)
        return rc;
    *ret_at = (size_t)cuda->ring_part * HA_CUDA_RING_BYTES + cuda->ring_used;
    cuda->ring_used += bytes;
    return 0;
}

int ha_cuda_arguments(struct ha_cuda *cuda, const void *host, size_t bytes, const void **ret_device,
                      struct ha_error *err)
{
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, at = 0;
    int rc = ha_cuda_refuse_recording(cuda, "an argument of the host", err);

    if (rc < 0)
        return rc;
    if (bytes > HA_CUDA_RING_BYTES) {
        void *memory;

        rc = ha_cuda_scratch(cuda, HA_CUDA_SCRATCH_ARGUMENTS, bytes, &memory, err);
        if (rc == 0)
            rc = ha_cuda_upload(&cuda->base, memory, host, bytes, err);
        if (rc == 0)
            *ret_device = memory;
        return rc;
    }
    rc = ring_room(cuda, rounded, &at, err);
    if (rc < 0)
        return rc;
    memcpy(cuda->ring + at, host, bytes);
    rc = ha_cuda_check(cuda,
                       (int)cudaMemcpyAsync(cuda->device_ring + at, cuda->ring + at, bytes,
                                            cudaMemcpyHostToDevice, cuda->stream),
                       "copying arguments to the device", err);
    if (rc == 0)
        *ret_device = cuda->device_ring + at;
    return rc;
}
