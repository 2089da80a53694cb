/* device_ops.h - a device's operations for tests that hold their data as the CPU does
 *
 * Each operation takes host memory and f32 activations, as kernels/ops.h has them on
 * the CPU, copies all of its operands to the device between zones that nothing may
 * touch (activations as bf16), runs there, waits, and copies results back.  Operands
 * that overlap on the host overlap on the device in the same way.  Fails the test when
 * the device wrote anything but results. */
#ifndef HA_TESTS_UNIT_KERNELS_DEVICE_OPS_H
#define HA_TESTS_UNIT_KERNELS_DEVICE_OPS_H

#include "kernels/ops.h"

const struct ha_ops *device_ops(void);

#endif
