/* queue.hpp - the one stream of the emulated device: work waits until the host waits for it */
#ifndef HA_TESTS_CUDA_QUEUE_HPP
#define HA_TESTS_CUDA_QUEUE_HPP

#include <cuda_runtime.h>

#include <functional>

namespace emulator
{

void enqueue(std::function<void()> work);
void set_last_error(cudaError_t code);

} // namespace emulator

#endif
