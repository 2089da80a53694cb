/* launch.h - the C launchers of rows.cu, norm.cu, optimizer.cu, head.cu and convert.cu
 *
 * Shapes and contracts are those of kernels/ops.h.  Pointers are of the device,
 * sizes are positive (the host part leaves empty work out), act is bf16.  Each
 * launches on the stream and returns a cudaError_t as an int. */
#ifndef HA_KERNELS_CUDA_LAUNCH_H
#define HA_KERNELS_CUDA_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

#ifdef __cplusplus
}
#endif

#endif
