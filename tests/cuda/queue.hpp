/* queue.hpp - the streams of the emulated device, which have one queue: work waits until the host
 * waits for it.  While a stream is captured its work is kept instead, and done at each launch of
 * the graph. */
#ifndef HA_TESTS_CUDA_QUEUE_HPP
#define HA_TESTS_CUDA_QUEUE_HPP

#include <cuda_runtime.h>

#include <functional>

namespace emulator
{

/* check() ends the program where an argument is no memory that the work may touch: it is called
 * now, and again at each launch of a graph that has it. */
void enqueue(void *stream, std::function<void()> check, std::function<void()> work);
void set_last_error(cudaError_t code);

/* Bytes of shared memory that a launch of the kernel may ask for: 48 KiB until
 * cudaFuncSetAttribute allowed more. */
size_t shared_allowed(const void *kernel);

} // namespace emulator

#endif
