/* pair_sets.h - sets of random pairs, for the tests of dpo */
#ifndef HA_TESTS_UNIT_DPO_PAIR_SETS_H
#define HA_TESTS_UNIT_DPO_PAIR_SETS_H

#include <stdint.h>

#include "worker/data/pairs.h"

/* random_pairs as a set. */
struct ha_pair_set random_pair_set(int64_t n, int64_t vocab, uint64_t seed);
void clear_pair_set(struct ha_pair_set *set);

#endif
