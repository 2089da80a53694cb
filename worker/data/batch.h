/* batch.h - windows, logical micro-batches and the weight of a pair
 *
 * A window is what one optimizer step sees: up to `accumulation` logical
 * micro-batches of up to `batch_size` pairs, in epoch order; the last window
 * and the last micro-batch of an epoch may be short.  With m micro-batches in
 * the window, a pair of micro-batch j (b_j pairs) weighs 1 / (m b_j): TRL's
 * mean over the pairs of each micro-batch, divided by the micro-batches that
 * the window really has.  Physical packing changes none of it.
 *
 * Example: 10,000 pairs, 6 x 4: 417 windows; the last has micro-batches of
 * 6, 6 and 4 pairs, which weigh 1/18, 1/18 and 1/12. */
#ifndef HA_WORKER_DATA_BATCH_H
#define HA_WORKER_DATA_BATCH_H

#include <stdint.h>

struct ha_batch {
    int64_t n_pairs;      /* pairs of an epoch, >= 1 */
    int64_t batch_size;   /* >= 1 */
    int64_t accumulation; /* >= 1 */
};

struct ha_window {
    int64_t first; /* position in the epoch's order */
    int64_t n_pairs;
    int64_t n_micro;
};

struct ha_micro {
    int64_t first; /* position in the epoch's order */
    int64_t n_pairs;
    double weight; /* of each of its pairs */
};

/* Windows, that is optimizer steps, of one epoch. */
int64_t ha_batch_windows(const struct ha_batch *batch);

struct ha_window ha_batch_window(const struct ha_batch *batch, int64_t window);

/* micro: 0 .. n_micro - 1 of the window. */
struct ha_micro ha_batch_micro(const struct ha_batch *batch, int64_t window, int64_t micro);

#endif
