/* device.cuh - what all kernels share
 *
 * A launch is written HA_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 * and followed by HA_LAUNCHED(), the error of the launch as an int.  Under
 * HA_CUDA_EMULATED (tests/cuda) the same source is compiled as C++ for the CPU: a
 * launch runs the threads of each block one at a time, switching at barriers and
 * shuffles.  So PTX has to stand in small functions with a plain meaning beside it
 * for that case. */
#ifndef HA_KERNELS_CUDA_DEVICE_CUH
#define HA_KERNELS_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#ifndef HA_CUDA_EMULATED /* else tests/cuda/emulator.h, which the compiler includes first, has     \
                            these */
#define HA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                  \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define HA_LAUNCHED() ((int)cudaPeekAtLastError())
/* Shared memory whose size the launch gives; 16-byte aligned. */
#define HA_SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace ha
{

constexpr int WARP = 32;

} // namespace ha

#endif
