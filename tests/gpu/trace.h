/* trace.h - the operations of a backend, each timed by itself
 *
 * What runs on a backend after trace_install goes through a table of operations that, while the
 * trace is on, waits for the device before and after each call and adds up time, bytes and
 * floating-point operations per kind and shape.  So the time is that of the work itself, without
 * the overlap of launches; the sum is compared with the same work untraced. */
#ifndef HA_TESTS_GPU_TRACE_H
#define HA_TESTS_GPU_TRACE_H

#include <stdbool.h>

struct ha_backend;

/* What the device does at best. */
struct trace_rates {
    double bytes_per_ms, flops_per_ms;
};

/* For one backend at a time, before anything is created on it; it stays until the process ends. */
void trace_install(struct ha_backend *backend);
/* Forgets what was added up. */
void trace_start(void);
void trace_stop(void);

/* One line for each kind, those that lose most over their floor first.  untraced_ms: what the same
 * work takes without a trace.  The floor of a call is the time for its bytes or for its operations
 * at the given rates, whichever is more. */
void trace_print(const char *what, double untraced_ms, const struct trace_rates *rates);

#endif
