/* runtime.cpp - the part of the CUDA run time that kernels/cuda calls, on the CPU
 *
 * Work of the stream is done as late as the interface allows: when the host waits
 * for an event or the stream, or frees memory; only then is the device's memory open
 * (device_memory.hpp).  HA_EMULATED_MEMORY sets how many bytes the device has,
 * HA_EMULATED_NAME what it is called. */
#include "tests/cuda/device_memory.hpp"
#include "tests/cuda/queue.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>

struct CUstream_st {
    int unused;
};

struct CUevent_st {
    uint64_t marker; /* all work up to this number */
};

namespace
{

std::recursive_mutex lock;
std::deque<std::function<void()>> queue;
uint64_t n_done, n_enqueued;
cudaError_t last_error = cudaSuccess;

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

void enqueue(std::function<void()> work)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    queue.push_back(std::move(work));
    n_enqueued++;
}

void set_last_error(cudaError_t code)
{
    last_error = code;
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
    properties->sharedMemPerBlockOptin = 227 << 10;
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
    return emulator::device_alloc(bytes, memory) ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *memory)
{
    run_all();
    return !memory || emulator::device_free(memory) ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    return emulator::pinned_alloc(bytes, memory) ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    run_all();
    emulator::pinned_free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
    emulator::expect_device("cudaMemsetAsync", memory, bytes);
    emulator::enqueue([=] { memset(memory, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t)
{
    bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;

    (to_device ? emulator::expect_device : emulator::expect_host)("cudaMemcpyAsync", to, bytes);
    (from_device ? emulator::expect_device : emulator::expect_host)("cudaMemcpyAsync", from, bytes);
    emulator::enqueue([=] { memmove(to, from, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_stride, const void *from, size_t from_stride,
                              size_t row_bytes, size_t n_rows, enum cudaMemcpyKind kind,
                              cudaStream_t)
{
    if (kind != cudaMemcpyDeviceToDevice || row_bytes > to_stride || row_bytes > from_stride)
        return cudaErrorInvalidValue;
    emulator::expect_device("cudaMemcpy2DAsync", to, (n_rows - 1) * to_stride + row_bytes);
    emulator::expect_device("cudaMemcpy2DAsync", from, (n_rows - 1) * from_stride + row_bytes);
    emulator::enqueue([=] {
        for (size_t i = 0; i < n_rows; i++)
            memcpy(static_cast<char *>(to) + i * to_stride,
                   static_cast<const char *>(from) + i * from_stride, row_bytes);
    });
    return cudaSuccess;
}

cudaError_t cudaMemset2DAsync(void *memory, size_t stride, int value, size_t row_bytes,
                              size_t n_rows, cudaStream_t)
{
    if (row_bytes > stride)
        return cudaErrorInvalidValue;
    emulator::expect_device("cudaMemset2DAsync", memory, (n_rows - 1) * stride + row_bytes);
    emulator::enqueue([=] {
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

cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    run_all();
    return cudaSuccess;
}

/* Asking lets the device get one piece further, as time would. */
cudaError_t cudaStreamQuery(cudaStream_t)
{
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

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

    event->marker = n_enqueued;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    run_until(event->marker);
    return cudaSuccess;
}

/* There is one order of all work, and it is that of the calls. */
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = (float)(to->marker - from->marker);
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

cudaError_t cudaFuncSetAttribute(const void *, enum cudaFuncAttribute, int)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    default:
        return "an error of the emulated device";
    }
}
}
