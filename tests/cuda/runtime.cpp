/* runtime.cpp - the part of the CUDA run time that kernels/cuda calls, on the CPU
 *
 * Work of the stream is done as late as the interface allows: when the host waits
 * for an event or the stream, or frees memory; only then is the device's memory open
 * (device_memory.hpp).  HA_EMULATED_MEMORY sets how many bytes the device has,
 * HA_EMULATED_NAME what it is called, HA_EMULATED_SHARED the bytes of shared memory that one of its
 * blocks may have: 227 KiB, as on compute capability 9.0, unless set.
 *
 * While a stream is captured, what is put on it is kept with its arguments as they are.  What CUDA
 * does not allow then (waiting for the stream or asking it, taking or giving memory, bringing a
 * second stream in) returns its error and makes the capture void; an event that was recorded in
 * one can be waited for no more. */
#include "tests/cuda/device_memory.hpp"
#include "tests/cuda/queue.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

struct CUstream_st {
    int unused;
};

struct CUevent_st {
    uint64_t marker; /* all work up to this number */
    bool captured;
};

struct node {
    std::function<void()> check, work;
};

struct CUgraph_st {
    std::vector<node> nodes;
};

struct CUgraphExec_st {
    std::vector<node> nodes;
};

namespace
{

std::recursive_mutex lock;
std::deque<std::function<void()>> queue;
uint64_t n_done, n_enqueued;
cudaError_t last_error = cudaSuccess;
void *captured; /* stream; NULL: none */
bool capture_is_void;
std::vector<node> capture;
std::map<const void *, size_t> allowed; /* kernels' dynamic shared memory */

size_t shared_per_block()
{
    const char *text = getenv("HA_EMULATED_SHARED");

    return text ? strtoull(text, nullptr, 10) : (size_t)227 << 10;
}

/* What is not allowed while anything is captured. */
cudaError_t refuse(cudaError_t code = cudaErrorStreamCaptureUnsupported)
{
    capture_is_void = true;
    last_error = code;
    return code;
}

void run_until(uint64_t marker)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    if (n_done >= marker)
        return;
    emulator::device_at_work work_begins;
    while (n_done < marker) {
        std::function<void()> work = std::move(queue.front());

        queue.pop_front();
        n_done++;
        work();
    }
}

void run_all()
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    run_until(n_enqueued);
}

} // namespace

namespace emulator
{

void enqueue(void *stream, std::function<void()> check, std::function<void()> work)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    check();
    if (captured && stream == captured) {
        capture.push_back({std::move(check), std::move(work)});
        return;
    }
    queue.push_back(std::move(work));
    n_enqueued++;
}

void set_last_error(cudaError_t code)
{
    last_error = code;
}

size_t shared_allowed(const void *kernel)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto found = allowed.find(kernel);

    return found == allowed.end() ? (size_t)48 << 10 : found->second;
}

} // namespace emulator

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    const char *name = getenv("HA_EMULATED_NAME");

    if (device != 0)
        return cudaErrorInvalidDevice;
    *properties = cudaDeviceProp();
    (void)snprintf(properties->name, sizeof(properties->name), "%s",
                   name ? name : "emulated on the CPU");
    properties->major = 9;
    properties->minor = 0;
    properties->multiProcessorCount = 4;
    properties->totalGlobalMem = emulator::device_bytes();
    properties->sharedMemPerBlockOptin = shared_per_block();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    if (captured)
        return refuse();
    return emulator::device_alloc(bytes, memory) ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *memory)
{
    if (captured)
        return refuse();
    run_all();
    return !memory || emulator::device_free(memory) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    if (captured)
        return refuse();
    return emulator::pinned_alloc(bytes, memory) ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    if (captured)
        return refuse();
    run_all();
    emulator::pinned_free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    emulator::enqueue(
        stream, [=] { emulator::expect_device("cudaMemsetAsync", memory, bytes); },
        [=] { memset(memory, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;

    emulator::enqueue(
        stream,
        [=] {
            (to_device ? emulator::expect_device : emulator::expect_host)("cudaMemcpyAsync", to,
                                                                          bytes);
            (from_device ? emulator::expect_device : emulator::expect_host)("cudaMemcpyAsync", from,
                                                                            bytes);
        },
        [=] { memmove(to, from, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_stride, const void *from, size_t from_stride,
                              size_t row_bytes, size_t n_rows, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    if (kind != cudaMemcpyDeviceToDevice || row_bytes > to_stride || row_bytes > from_stride)
        return cudaErrorInvalidValue;
    emulator::enqueue(
        stream,
        [=] {
            emulator::expect_device("cudaMemcpy2DAsync", to, (n_rows - 1) * to_stride + row_bytes);
            emulator::expect_device("cudaMemcpy2DAsync", from,
                                    (n_rows - 1) * from_stride + row_bytes);
        },
        [=] {
            for (size_t i = 0; i < n_rows; i++)
                memcpy(static_cast<char *>(to) + i * to_stride,
                       static_cast<const char *>(from) + i * from_stride, row_bytes);
        });
    return cudaSuccess;
}

cudaError_t cudaMemset2DAsync(void *memory, size_t stride, int value, size_t row_bytes,
                              size_t n_rows, cudaStream_t on)
{
    if (row_bytes > stride)
        return cudaErrorInvalidValue;
    emulator::enqueue(
        on,
        [=] {
            emulator::expect_device("cudaMemset2DAsync", memory, (n_rows - 1) * stride + row_bytes);
        },
        [=] {
            for (size_t i = 0; i < n_rows; i++)
                memset(static_cast<char *>(memory) + i * stride, value, row_bytes);
        });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = new CUstream_st();
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    run_all();
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (captured && stream == captured)
        return refuse();
    run_all();
    return cudaSuccess;
}

/* Asking lets the device get one piece further, as time would. */
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    if (captured && stream == captured)
        return refuse();
    if (n_done == n_enqueued)
        return cudaSuccess;
    run_until(n_done + 1);
    return cudaErrorNotReady;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new CUevent_st();
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    event->captured = captured && stream == captured;
    event->marker = n_enqueued;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (event->captured)
        return refuse(cudaErrorCapturedEvent);
    run_until(event->marker);
    return cudaSuccess;
}

/* There is one order of all work, and it is that of the calls. */
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t event, unsigned)
{
    if (event->captured)
        return refuse();
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = (float)(to->marker - from->marker);
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode)
{
    if (captured)
        return refuse(cudaErrorIllegalState);
    captured = stream;
    capture_is_void = false;
    capture.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = nullptr;
    if (!captured || stream != captured)
        return cudaErrorIllegalState;
    captured = nullptr;
    if (capture_is_void)
        return cudaErrorStreamCaptureInvalidated;
    *graph = new CUgraph_st{std::move(capture)};
    capture.clear();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long)
{
    if (captured)
        return refuse();
    *exec = new CUgraphExec_st{graph->nodes};
    return cudaSuccess;
}

/* Each piece in its order; the graph may go before it is done. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (captured)
        return refuse();
    for (const node &n : exec->nodes)
        emulator::enqueue(stream, n.check, n.work);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t code = last_error;

    last_error = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute name, int value)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    if (name != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        (size_t)value > shared_per_block()) {
        last_error = cudaErrorInvalidValue;
        return last_error;
    }
    allowed[kernel] = (size_t)value;
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    default:
        return "an error of the emulated device";
    }
}
}
