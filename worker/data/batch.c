#include "worker/data/batch.h"

static int64_t div_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t ha_batch_windows(const struct ha_batch *batch)
{
    return div_up(div_up(batch->n_pairs, batch->batch_size), batch->accumulation);
}

struct ha_window ha_batch_window(const struct ha_batch *batch, int64_t window)
{
    int64_t micro_total = div_up(batch->n_pairs, batch->batch_size);
    int64_t micro_first = window * batch->accumulation;
    int64_t n_micro = least(batch->accumulation, micro_total - micro_first);
    int64_t first = micro_first * batch->batch_size;
    /* Only the last micro-batch of the epoch can be short. */
    int64_t end =
        micro_first + n_micro == micro_total ? batch->n_pairs : first + n_micro * batch->batch_size;

    return (struct ha_window){first, end - first, n_micro};
}

struct ha_micro ha_batch_micro(const struct ha_batch *batch, int64_t window, int64_t micro)
{
    struct ha_window whole = ha_batch_window(batch, window);
    int64_t first = whole.first + micro * batch->batch_size;
    int64_t n = least(batch->batch_size, whole.first + whole.n_pairs - first);

    return (struct ha_micro){first, n, 1.0 / ((double)whole.n_micro * (double)n)};
}
