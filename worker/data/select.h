/* select.h - which rows, in which order (ENGINE.md, data order)
 *
 * Selection comes before anything is dropped and is not refilled. */
#ifndef HA_WORKER_DATA_SELECT_H
#define HA_WORKER_DATA_SELECT_H

#include <stdint.h>

struct ha_error;

/* datasets.shuffle(seed).select(range(wanted)): the first `wanted` entries of
 * numpy.random.default_rng(seed).permutation(n_rows); wanted 0, or more than there are: all of
 * them, shuffled.  The caller frees *ret_numbers. */
int ha_select_rows(int64_t n_rows, int64_t wanted, uint64_t seed, int64_t **ret_numbers,
                   int64_t *ret_count, struct ha_error *err);

/* torch.randperm(n_pairs) with generator seed + epoch (epoch from 0), as accelerate's seedable
 * sampler, into order [n_pairs]. */
int ha_select_epoch_order(int64_t n_pairs, uint64_t seed, int64_t epoch, int64_t *order,
                          struct ha_error *err);

#endif
