/* emulator.hpp - the CUDA language on the CPU, for tests of kernels without a GPU
 *
 * Included before each .cu file, which is then compiled as C++ with CUDA's own
 * headers for types and conversions.  A launch is put on the stream's queue
 * (runtime.cpp) and runs when the host waits for it, so a host buffer that is
 * written too early, or read, shows.
 *
 * The threads of a block are fibers on one thread of the CPU, each with its own
 * stack, that run one at a time until they wait at a barrier or a shuffle; every
 * second block runs them in reverse order, so that a result that hangs on their
 * order shows.  A warp that does not come together where it must, or a barrier
 * that some threads never reach, ends the program with a message.  Shared memory is
 * filled with NaN bytes before each block.  A launch that asks for more of it than the device has,
 * or than the kernel was allowed, fails as on a device.
 *
 * What this cannot show: races inside a warp between barriers, the device's own
 * arithmetic (its exp, its tensor cores), speed. */
#ifndef HA_TESTS_CUDA_EMULATOR_HPP
#define HA_TESTS_CUDA_EMULATOR_HPP

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "tests/cuda/arguments.hpp"
#include "tests/cuda/tensor.hpp"

namespace emulator
{

struct position {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};

/* Of the running thread. */
const position &here();

/* Wait for all threads of the block. */
void wait_for_block();

/* Wait until all lanes of the mask are here; each gave `value`; returns lane's. */
uint64_t exchange(unsigned mask, uint64_t value, int lane);

enum { WARP_LANES = 32 };

/* The values of all lanes of the warp, in one exchange, of which all lanes work out the same: the
 * first one to go on does (true, and all is there), the others find what it leaves in *result. */
bool gather(uint64_t value, uint64_t all[WARP_LANES], uint64_t **result);

/* Bits of the lanes of the mask whose predicate is true. */
unsigned ballot(unsigned mask, bool predicate);

int lane();
unsigned char *shared_bytes();

/* What a kernel is known by. */
template <typename... T> const void *address_of(void (*kernel)(T...))
{
    return reinterpret_cast<const void *>(kernel);
}

/* Put a kernel on the stream's queue. */
void launch(const void *address, dim3 grid, dim3 block, size_t shared, void *stream,
            std::function<void()> check, std::function<void()> kernel);

template <typename T> T exchange_value(unsigned mask, T value, int from)
{
    uint64_t bits = 0;
    T result;

    static_assert(sizeof(T) <= sizeof(bits), "shuffles move up to 8 bytes");
    memcpy(&bits, &value, sizeof(T));
    bits = exchange(mask, bits, from);
    memcpy(&result, &bits, sizeof(T));
    return result;
}

/* What warp_sum of device.cuh comes to by five shuffles, in one exchange: all lanes add in the
 * order of lane 0, but for terms that change places. */
template <typename T> T warp_sum(T value)
{
    uint64_t bits = 0, all[WARP_LANES], *result;
    T sums[WARP_LANES];

    memcpy(&bits, &value, sizeof(T));
    if (gather(bits, all, &result)) {
        for (int i = 0; i < WARP_LANES; i++)
            memcpy(&sums[i], &all[i], sizeof(T));
        for (int n = WARP_LANES / 2; n > 0; n /= 2)
            for (int i = 0; i < n; i++)
                sums[i] += sums[i + n];
        *result = 0;
        memcpy(result, &sums[0], sizeof(T));
    }
    memcpy(&value, result, sizeof(T));
    return value;
}

} // namespace emulator

#define threadIdx (emulator::here().thread)
#define blockIdx (emulator::here().block)
#define blockDim (emulator::here().block_dim)
#define gridDim (emulator::here().grid_dim)

#undef __shared__
#define __shared__ static thread_local /* so that emulator.cpp finds them */
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline
#undef __constant__
#define __constant__ static

#define HA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    emulator::launch(                                                                              \
        emulator::address_of(kernel), dim3(grid), dim3(block), (shared_bytes), (stream),           \
        [=] { emulator::check_arguments(#kernel, __VA_ARGS__); }, [=] { kernel(__VA_ARGS__); })
#define HA_LAUNCHED() ((int)cudaPeekAtLastError())
#define HA_SHARED_BYTES(name) unsigned char *const name = emulator::shared_bytes()

static inline void __syncthreads()
{
    emulator::wait_for_block();
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    (void)emulator::exchange(mask, 0, emulator::lane());
}

template <typename T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits)
{
    return emulator::exchange_value(mask, value, emulator::lane() ^ bits);
}

template <typename T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta)
{
    int from = emulator::lane() + (int)delta;

    return emulator::exchange_value(mask, value, from < 32 ? from : emulator::lane());
}

template <typename T> static inline T __shfl_sync(unsigned mask, T value, int from)
{
    return emulator::exchange_value(mask, value, from & 31);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    return emulator::ballot(mask, predicate != 0);
}

static inline int __any_sync(unsigned mask, int predicate)
{
    return emulator::ballot(mask, predicate != 0) != 0;
}

static inline int __all_sync(unsigned mask, int predicate)
{
    return emulator::ballot(mask, predicate == 0) == 0;
}

static inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}

static inline int __ffs(int bits)
{
    return __builtin_ffs(bits);
}

template <typename T> static inline T __ldg(const T *address)
{
    return *address;
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

/* Without a call; rounded twice, which may differ in the last bit from what a device has. */
#define fmaf(x, y, z) ((float)((double)(x) * (double)(y) + (double)(z)))

/* glibc has the name for itself. */
#define __expf(x) expf(x)

static inline float __fdividef(float x, float y)
{
    return x / y;
}

#endif
