/* record.c - work that is recorded as a CUDA graph, to be done again by one call */
#include <cuda_runtime_api.h>
#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/cuda/cuda.h"

struct recording {
    cudaGraphExec_t exec;
    int64_t moves; /* of scratch memory, before it */
};

int ha_cuda_refuse_recording(struct ha_cuda *cuda, const char *what, struct ha_error *err)
{
    if (!cuda->recording)
        return 0;
    cuda->recording_void = true;
    return ha_error_set(err, EBUSY, "%s cannot be recorded", what);
}

int ha_cuda_record_begin(struct ha_backend *backend, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "a recording", err);
    if (rc == 0)
        rc = ha_cuda_check(
            cuda, (int)cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
            "beginning to record", err);
    if (rc < 0)
        return rc;
    cuda->recording = true;
    cuda->recording_void = false;
    return 0;
}

/* What went wrong in a capture is no failure of the device: nothing of it was done. */
static int end_capture(struct ha_cuda *cuda, bool wanted, cudaGraphExec_t *ret_exec,
                       struct ha_error *err)
{
    cudaGraph_t graph = NULL;
    cudaError_t code = cudaStreamEndCapture(cuda->stream, &graph);

    wanted = wanted && !cuda->recording_void;
    if (code == cudaSuccess && wanted)
        code = cudaGraphInstantiateWithFlags(ret_exec, graph, 0);
    if (graph)
        (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    if (code != cudaSuccess && wanted)
        return ha_error_set(err, EBUSY, "what was called cannot be recorded: %s",
                            cudaGetErrorString(code));
    if (cuda->recording_void && ret_exec)
        return ha_error_set(err, EBUSY, "what was called cannot be recorded");
    return 0;
}

int ha_cuda_record_end(struct ha_backend *backend, void **ret_kept, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    struct recording *recording = ret_kept ? ha_calloc(1, sizeof(*recording)) : NULL;
    int rc;

    if (!cuda->recording) {
        free(recording);
        return ha_error_set(err, EINVAL, "no recording has begun");
    }
    rc = end_capture(cuda, recording != NULL, recording ? &recording->exec : NULL, err);
    cuda->recording = false;
    if (rc == 0 && ret_kept && !recording)
        rc = ha_error_set(err, ENOMEM, "no memory for a recording");
    if (rc < 0 || !recording) {
        free(recording);
        return rc;
    }
    recording->moves = cuda->scratch_moves;
    *ret_kept = recording;
    return 0;
}

int ha_cuda_replay(struct ha_backend *backend, void *kept, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    const struct recording *recording = kept;
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_refuse_recording(cuda, "a replay", err);
    if (rc < 0)
        return rc;
    if (recording->moves != cuda->scratch_moves)
        return ha_error_set(err, ESTALE, "memory that the recording uses has moved");
    return ha_cuda_check(cuda, (int)cudaGraphLaunch(recording->exec, cuda->stream),
                         "launching what was recorded", err);
}

/* It may still run: CUDA lets it end first. */
void ha_cuda_forget(struct ha_backend *backend, void *kept)
{
    struct recording *recording = kept;

    (void)cudaSetDevice(ha_cuda_of(backend)->device);
    (void)cudaGraphExecDestroy(recording->exec);
    free(recording);
}
