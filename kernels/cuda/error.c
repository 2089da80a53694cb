#include "kernels/cuda/cuda.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/base/error.h"

int ha_cuda_enter(struct ha_cuda *cuda, struct ha_error *err)
{
    if (cuda->failed)
        return ha_error_set(err, EIO, "the GPU failed before: %s", cuda->failure);
    return ha_cuda_check(cuda, (int)cudaSetDevice(cuda->device), "choosing the device", err);
}

/* Keep the failure: after it nothing that the device holds can be trusted. */
static int fail(struct ha_cuda *cuda, int code, const char *what, const char *why,
                struct ha_error *err)
{
    if (cuda->recording) { /* nothing was done */
        cuda->recording_void = true;
        return ha_error_set(err, EBUSY, "%s cannot be recorded: %s", what, why);
    }
    cuda->failed = code;
    (void)snprintf(cuda->failure, sizeof(cuda->failure), "%s: %s", what, why);
    return ha_error_set(err, EIO, "%s: %s", what, why);
}

int ha_cuda_check(struct ha_cuda *cuda, int code, const char *what, struct ha_error *err)
{
    const char *why;

    if (code == (int)cudaSuccess)
        return 0;
    (void)cudaGetLastError();
    why = cudaGetErrorString((cudaError_t)code);
    if (code == (int)cudaErrorMemoryAllocation)
        return ha_error_set(err, ENOMEM,
                            "%s: the device has no memory left (%" PRId64 " held here)", what,
                            cuda->base.allocated_bytes);
    return fail(cuda, code, what, why, err);
}

int ha_cuda_check_lt(struct ha_cuda *cuda, int status, const char *what, struct ha_error *err)
{
    const char *why = cublasLtGetStatusString((cublasStatus_t)status);

    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return 0;
    case CUBLAS_STATUS_ALLOC_FAILED:
        return ha_error_set(err, ENOMEM, "%s: %s", what, why);
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_INVALID_VALUE:
        return ha_error_set(err, EINVAL, "%s: %s", what, why);
    default:
        return fail(cuda, status, what, why, err);
    }
}

int ha_cuda_take_fault(struct ha_cuda *cuda, struct ha_error *err)
{
    uint64_t word = cuda->fault->word;
    int32_t id = (int32_t)(uint32_t)word;
    int64_t row = (int64_t)(word >> 32 & 0x3fffffff);

    if (word == 0)
        return 0;
    cuda->fault->word = 0;
    if (word >> 62 == HA_CUDA_FAULT_ID)
        return ha_error_set(err, EINVAL,
                            "embed: token %" PRId64 " has id %" PRId32
                            ", which is outside the vocabulary",
                            row, id);
    return ha_error_set(err, EINVAL,
                        "head: target %" PRId32 " of row %" PRId64 " is outside the vocabulary", id,
                        row);
}
