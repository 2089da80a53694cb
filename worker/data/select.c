#include "worker/data/select.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/rng_numpy.h"
#include "common/base/rng_torch.h"

int ha_select_rows(int64_t n_rows, int64_t wanted, uint64_t seed, int64_t **ret_numbers,
                   int64_t *ret_count, struct ha_error *err)
{
    int64_t *order = ha_calloc(n_rows, sizeof(*order));
    struct ha_rng_numpy rng;

    if (!order)
        return ha_error_set(err, ENOMEM, "no memory to order %" PRId64 " rows", n_rows);
    ha_rng_numpy_init(&rng, seed);
    ha_rng_numpy_permutation(&rng, order, n_rows);
    *ret_numbers = order;
    *ret_count = wanted > 0 && wanted < n_rows ? wanted : n_rows;
    return 0;
}

int ha_select_epoch_order(int64_t n_pairs, uint64_t seed, int64_t epoch, int64_t *order,
                          struct ha_error *err)
{
    struct ha_rng_torch rng;

    ha_rng_torch_init(&rng, seed + (uint64_t)epoch);
    return ha_rng_torch_randperm(&rng, order, n_pairs, err);
}
