/* runtime.cpp - the part of the CUDA run time that kernels/cuda calls, on the CPU
 *
 * Work of the stream is done as late as the interface allows: when the host waits
 * for an event or the stream, or frees memory.  HA_EMULATED_MEMORY sets how many
 * bytes the device has. */
#include "tests/cuda/queue.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

struct CUstream_st {
    int unused;
};

struct CUevent_st {
    uint64_t marker; /* all work up to this number */
};

namespace
{

enum { ALIGNMENT = 256 };

std::recursive_mutex lock;
std::deque<std::function<void()>> queue;
uint64_t n_done, n_enqueued;
cudaError_t last_error = cudaSuccess;
std::map<void *, size_t> blocks;
size_t n_held;

size_t memory_of_device()
{
    const char *text = getenv("HA_EMULATED_MEMORY");

    return text ? strtoull(text, nullptr, 10) : (size_t)8 << 30;
}

void run_until(uint64_t marker)
{
    std::lock_guard<std::recursive_mutex> guard(lock);

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
    if (device != 0)
        return cudaErrorInvalidDevice;
    *properties = cudaDeviceProp();
    (void)snprintf(properties->name, sizeof(properties->name), "emulated on the CPU");
    properties->major = 9;
    properties->minor = 0;
    properties->multiProcessorCount = 4;
    properties->totalGlobalMem = memory_of_device();
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
    std::lock_guard<std::recursive_mutex> guard(lock);
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

    if (rounded < bytes || rounded > memory_of_device() - n_held)
        return cudaErrorMemoryAllocation;
    /* Exactly as long as asked for, so that a sanitizer sees the end. */
    if (posix_memalign(memory, ALIGNMENT, bytes) != 0)
        return cudaErrorMemoryAllocation;
    memset(*memory, 0xff, bytes);
    blocks[*memory] = rounded;
    n_held += rounded;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    auto block = blocks.find(memory);

    if (!memory)
        return cudaSuccess;
    run_all();
    if (block == blocks.end())
        return cudaErrorInvalidValue;
    n_held -= block->second;
    blocks.erase(block);
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned)
{
    return posix_memalign(memory, ALIGNMENT, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    run_all();
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
    emulator::enqueue([=] { memset(memory, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind,
                            cudaStream_t)
{
    emulator::enqueue([=] { memmove(to, from, bytes); });
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
