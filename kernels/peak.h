/* peak.h - how fast a backend multiplies matrices at best
 *
 * What a run achieves is judged by it: utilisation is its FLOP/s over this.  Measured
 * and not looked up, so that it is what this build does with these threads on this
 * device today: a product of square matrices of the activation type, as large as
 * needed to be timed, the best of several.  A device that is busy with other work
 * measures less, so that the figure stands beside every utilisation. */
#ifndef HA_KERNELS_PEAK_H
#define HA_KERNELS_PEAK_H

struct ha_backend;
struct ha_error;

/* Takes about 50 ms, more where one product of 512 x 512 x 512 takes longer.  Counts into
 * ha_backend_flops as any product does, and leaves allocated what any product does. */
int ha_backend_measure_peak(struct ha_backend *backend, double *ret_flops_per_second,
                            struct ha_error *err);

#endif
