/* device_memory.hpp - memory of the emulated device, closed to the host
 *
 * Blocks lie in one range of addresses that nobody may read or write but the device
 * at work, as on a GPU: a host that follows a device pointer ends with a message and
 * SIGSEGV.  Under the address sanitizer what lies between blocks is poisoned, for
 * the device too.
 *
 * The other way round, work that is given the host's memory where the device's is
 * wanted ends the program when it is put on the queue. */
#ifndef HA_TESTS_CUDA_DEVICE_MEMORY_HPP
#define HA_TESTS_CUDA_DEVICE_MEMORY_HPP

#include <cstddef>

namespace emulator
{

/* What the device has: HA_EMULATED_MEMORY, or 8 GiB. */
size_t device_bytes();

/* False where the device has not so many bytes left.  Filled with NaN bytes. */
bool device_alloc(size_t bytes, void **memory);
/* False for what is no block. */
bool device_free(void *memory);

bool pinned_alloc(size_t bytes, void **memory);
void pinned_free(void *memory);

/* While one lives the calling thread is the device. */
struct device_at_work {
    device_at_work();
    ~device_at_work();
};

/* End the program, naming `what`, unless the range lies in one block. */
void expect_device(const char *what, const void *memory, size_t bytes);
/* Unless it has no byte of the device's memory. */
void expect_host(const char *what, const void *memory, size_t bytes);

/* An argument of a kernel: NULL, or an address in a block or in pinned memory. */
void expect_visible(const char *kernel, const void *memory);

} // namespace emulator

#endif
