/* pool.h - the threads of the CPU backend
 *
 * A run is a number of items; the caller and the pool's threads take them one by
 * one.  A run is over when all items are done: a thread that wakes late, because
 * other processes have the cores, is not waited for.  Which thread does an item is
 * chance, so items must not depend on it.
 *
 * OpenMP's barrier waits for every thread and, with libgomp's defaults, spins for
 * milliseconds; beside other busy processes that made a training run several times
 * slower than one thread alone. */
#ifndef HA_KERNELS_CPU_POOL_H
#define HA_KERNELS_CPU_POOL_H

#include <stdint.h>

struct ha_error;
struct ha_pool;

/* thread is 0 .. threads - 1. */
typedef void (*ha_pool_fn)(void *context, int64_t item, int thread);

/* threads >= 1, the caller among them.  Returns 0, -ENOMEM or -EAGAIN (the system
 * starts no more threads). */
int ha_pool_create(int threads, struct ha_pool **ret_pool, struct ha_error *err);
void ha_pool_destroy(struct ha_pool *pool);

/* Do items 0 .. n_items - 1 (below 2^31).  One run at a time, not from inside an item. */
void ha_pool_run(struct ha_pool *pool, ha_pool_fn fn, void *context, int64_t n_items);

#endif
