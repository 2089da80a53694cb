/* cuda.c - opening and closing a GPU, and the table of its operations */
#include "kernels/cuda/cuda.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "kernels/cuda/limit.h"

enum { OLDEST_SM = 80 };

static void close_device(struct ha_backend *backend);

static int export_choices(const struct ha_backend *backend, void **ret_blob, size_t *ret_bytes,
                          struct ha_error *err)
{
    const struct ha_cuda *cuda = (const struct ha_cuda *)backend;

    return ha_cuda_choices_export(&cuda->choices, cuda->kind, ret_blob, ret_bytes, err);
}

/* Bits hang on what the clock chose: the fingerprint ends with a digest of it.  Where memory for
 * that is short it ends as none other does, so that no checkpoint goes with it. */
static void name_choices(struct ha_cuda *cuda)
{
    char *end = cuda->base.fingerprint + cuda->fingerprint_bytes;
    size_t room = sizeof(cuda->base.fingerprint) - cuda->fingerprint_bytes, bytes;
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];
    bool any = false;
    void *blob;

    *end = '\0';
    for (int64_t i = 0; i < cuda->choices.n && !any; i++)
        any = cuda->choices.list[i].timed;
    if (!any)
        return;
    if (ha_cuda_choices_export(&cuda->choices, cuda->kind, &blob, &bytes, NULL) < 0) {
        (void)snprintf(end, room, ", products unknown %p", (void *)cuda);
        return;
    }
    ha_sha256(blob, bytes, digest);
    ha_sha256_hex(digest, hex);
    (void)snprintf(end, room, ", products %.16s", hex);
    free(blob);
}

static int import_choices(struct ha_backend *backend, const void *blob, size_t bytes,
                          struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);
    int rc = ha_cuda_choices_import(&cuda->choices, cuda->kind, blob, bytes, err);

    if (rc == 0)
        name_choices(cuda);
    return rc;
}

static void time_choices(struct ha_backend *backend, bool on)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);

    cuda->time_products = on;
    if (!on)
        name_choices(cuda);
}

static void separate_rows(struct ha_backend *backend, bool on)
{
    ha_cuda_of(backend)->separate_rows = on;
}

/* Scratch memory is part of a job's plan, not of the next one's. */
static int renew(struct ha_backend *backend, struct ha_error *err)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);

    ha_cuda_scratch_clear(cuda);
    ha_cuda_choices_clear(&cuda->choices);
    cuda->time_products = false;
    cuda->separate_rows = false;
    name_choices(cuda);
    return ha_cuda_enter(cuda, err);
}

static void *stream_of(struct ha_backend *backend)
{
    return ha_cuda_of(backend)->stream;
}

static const struct ha_backend_table table = {
    .name = "cuda",
    .close = close_device,
    .renew = renew,
    .alloc = ha_cuda_alloc,
    .free = ha_cuda_free,
    .import_host = ha_cuda_import_host,
    .load_weight = ha_cuda_load_weight,
    .release_host = ha_cuda_release_host,
    .upload = ha_cuda_upload,
    .download = ha_cuda_download,
    .copy = ha_cuda_copy,
    .copy_rows = ha_cuda_copy_rows,
    .zero = ha_cuda_zero,
    .zero_rows = ha_cuda_zero_rows,
    .sync = ha_cuda_sync,
    .poll = ha_cuda_poll,
    .stream = stream_of,
    .fork = ha_cuda_fork,
    .poll_fork = ha_cuda_poll_fork,
    .export_choices = export_choices,
    .import_choices = import_choices,
    .time_choices = time_choices,
    .separate_rows = separate_rows,
    .record_begin = ha_cuda_record_begin,
    .record_end = ha_cuda_record_end,
    .replay = ha_cuda_replay,
    .forget = ha_cuda_forget,
};

static const struct ha_ops ops = {
    .gemm = ha_cuda_op_gemm,
    .add_bias = ha_cuda_op_add_bias,
    .embed_forward = ha_cuda_op_embed_forward,
    .rmsnorm_forward = ha_cuda_op_rmsnorm_forward,
    .rmsnorm_backward = ha_cuda_op_rmsnorm_backward,
    .rope = ha_cuda_op_rope,
    .attention_forward = ha_cuda_op_attention_forward,
    .attention_backward = ha_cuda_op_attention_backward,
    .swiglu_forward = ha_cuda_op_swiglu_forward,
    .swiglu_backward = ha_cuda_op_swiglu_backward,
    .dropout = ha_cuda_op_dropout,
    .lora_columns = ha_cuda_op_lora_columns,
    .gather_rows = ha_cuda_op_gather_rows,
    .scatter_rows_add = ha_cuda_op_scatter_rows_add,
    .head = ha_cuda_op_head,
    .logits = ha_cuda_op_logits,
    .kv_append = ha_cuda_op_kv_append,
    .decode_attention = ha_cuda_op_decode_attention,
    .sample = ha_cuda_op_sample,
    .sum_of_squares = ha_cuda_op_sum_of_squares,
    .add = ha_cuda_op_add,
    .adamw = ha_cuda_op_adamw,
};

static void close_device(struct ha_backend *backend)
{
    struct ha_cuda *cuda = ha_cuda_of(backend);

    (void)cudaSetDevice(cuda->device);
    if (cuda->stream)
        (void)cudaStreamSynchronize(cuda->stream);
    if (cuda->forked)
        (void)cudaEventDestroy(cuda->forked);
    if (cuda->fork)
        (void)cudaStreamDestroy(cuda->fork);
    if (cuda->lt)
        (void)cublasLtDestroy(cuda->lt);
    ha_cuda_memory_close(cuda);
    ha_cuda_choices_clear(&cuda->choices);
    if (cuda->stream)
        (void)cudaStreamDestroy(cuda->stream);
    free(cuda);
}

/* Is there a driver, and this device? */
static int find_device(int device, struct cudaDeviceProp *ret_properties, struct ha_error *err)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);

    if (code == cudaErrorInsufficientDriver)
        return ha_error_set(err, ENODEV,
                            "no NVIDIA driver, or one older than CUDA %d.%d, on this machine",
                            CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0))
        return ha_error_set(err, ENODEV, "no NVIDIA GPU on this machine, or none visible");
    if (code != cudaSuccess)
        return ha_error_set(err, ENODEV, "the NVIDIA driver does not start: %s",
                            cudaGetErrorString(code));
    if (device < 0 || device >= count)
        return ha_error_set(err, ENODEV, "GPU %d asked for; this machine has %d, counted from 0",
                            device, count);
    code = cudaGetDeviceProperties(ret_properties, device);
    if (code != cudaSuccess)
        return ha_error_set(err, ENODEV, "GPU %d does not answer: %s", device,
                            cudaGetErrorString(code));
    if (10 * ret_properties->major + ret_properties->minor < OLDEST_SM)
        return ha_error_set(
            err, ENODEV, "GPU %d, %s, has compute capability %d.%d; 8.0 or newer is needed", device,
            ret_properties->name, ret_properties->major, ret_properties->minor);
    return 0;
}

/* The smaller of two limits of which 0 is none. */
static int64_t smaller_limit(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static void describe(struct ha_cuda *cuda, const struct cudaDeviceProp *properties)
{
    int driver = 0, runtime = 0;
    size_t lt = cublasLtGetVersion();

    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    (void)snprintf(cuda->kind, sizeof(cuda->kind), "%.64s sm_%d, cuBLASLt %zu", properties->name,
                   cuda->sm, lt);
    (void)snprintf(cuda->base.description, sizeof(cuda->base.description),
                   "cuda: GPU %d, %s, %.1f GiB, driver for CUDA %d.%d", cuda->device,
                   properties->name, (double)properties->totalGlobalMem / 0x1p30, driver / 1000,
                   driver % 1000 / 10);
    (void)snprintf(cuda->base.fingerprint, sizeof(cuda->base.fingerprint),
                   "cuda kernels %d, %s, driver %d, run time %d", HA_CUDA_NUMERICS, cuda->kind,
                   driver, runtime);
    cuda->fingerprint_bytes = strlen(cuda->base.fingerprint);
}

/* Make the device ready; what was made stays with cuda where it fails. */
static int start(struct ha_cuda *cuda, struct ha_error *err)
{
    int rc = ha_cuda_enter(cuda, err);

    if (rc == 0)
        rc = ha_cuda_check(cuda,
                           (int)cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
                           "creating a stream", err);
    if (rc == 0)
        rc = ha_cuda_check_lt(cuda, (int)cublasLtCreate(&cuda->lt), "starting cuBLASLt", err);
    if (rc == 0)
        rc = ha_cuda_memory_open(cuda, err);
    return rc;
}

__attribute__((visibility("default"))) int
ha_backend_cuda_open(uint32_t api_version, const struct ha_backend_options *options,
                     struct ha_backend **ret_backend, struct ha_error *err);

int ha_backend_cuda_open(uint32_t api_version, const struct ha_backend_options *options,
                         struct ha_backend **ret_backend, struct ha_error *err)
{
    struct cudaDeviceProp properties;
    struct ha_cuda *cuda;
    int64_t limit;
    int rc;

    if (api_version != HA_BACKEND_API_VERSION)
        return ha_error_set(err, ENODEV,
                            "the CUDA module speaks version %d, the program %u; "
                            "install both from one build",
                            HA_BACKEND_API_VERSION, api_version);
    rc = ha_cuda_limit_parse(getenv(HA_CUDA_LIMIT_VARIABLE), &limit, err);
    if (rc == 0)
        rc = find_device(options->device, &properties, err);
    if (rc < 0)
        return rc;
    cuda = ha_calloc(1, sizeof(*cuda));
    if (!cuda)
        return ha_error_set(err, ENOMEM, "no memory for the CUDA backend");
    cuda->device = options->device;
    cuda->sm = 10 * properties.major + properties.minor;
    cuda->processors = properties.multiProcessorCount;
    cuda->base.table = &table;
    cuda->base.ops = &ops;
    cuda->base.activation_dtype = HA_DTYPE_BF16;
    cuda->base.device_bytes = (int64_t)properties.totalGlobalMem;
    cuda->base.memory_limit = smaller_limit(options->memory_limit, limit);
    describe(cuda, &properties);
    rc = start(cuda, err);
    if (rc < 0) {
        close_device(&cuda->base);
        return rc;
    }
    *ret_backend = &cuda->base;
    return 0;
}
