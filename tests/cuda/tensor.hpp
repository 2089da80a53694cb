/* tensor.hpp - a warp's matrix instructions and asynchronous copies, for the emulated device
 *
 * Written from the PTX manual's description of mma.m16n8k16, ldmatrix and cp.async, by
 * other formulas than kernels/cuda/tensor.cuh has.  All 32 lanes must come to a matrix
 * instruction.  A copy is made as late as the thread may count on it, or in
 * every other two blocks at once. */
#ifndef HA_TESTS_CUDA_TENSOR_HPP
#define HA_TESTS_CUDA_TENSOR_HPP

#include <cstdint>

namespace emulator
{

/* ldmatrix.x4, with .trans where transposed: `row` is the address that this lane gives. */
void load_matrices(uint32_t (&out)[4], const void *row, bool transposed);

/* mma.m16n8k16 of bf16 in f32: c += a b. */
void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

/* cp.async of `bytes`, of which `there` are read and the rest are zeros. */
void copy_async(void *to, const void *from, int bytes, int there);
void copy_commit();
void copy_wait(int pending_groups);

} // namespace emulator

#endif
