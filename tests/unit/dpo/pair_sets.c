#include "tests/unit/dpo/pair_sets.h"

#include <stdlib.h>

#include "common/base/memory.h"
#include "tests/unit/model/support.h"

struct ha_pair_set random_pair_set(int64_t n, int64_t vocab, uint64_t seed)
{
    struct ha_pair_set set = {.n_pairs = n};
    int32_t *ids;
    struct ha_pack_pair *pairs = random_pairs(n, vocab, seed, &ids);

    set.ids = ids;
    set.offset = ha_calloc(3 * n + 1, sizeof(int64_t));
    set.row = ha_calloc(n, sizeof(int64_t));
    assert_non_null(set.offset);
    assert_non_null(set.row);
    for (int64_t i = 0; i < n; i++) {
        set.offset[3 * i + 1] = set.offset[3 * i] + pairs[i].n_prompt;
        set.offset[3 * i + 2] = set.offset[3 * i + 1] + pairs[i].n_chosen;
        set.offset[3 * i + 3] = set.offset[3 * i + 2] + pairs[i].n_rejected;
        set.row[i] = i;
        for (int side = 0; side < 2; side++) {
            int64_t length = pairs[i].n_prompt + (side ? pairs[i].n_rejected : pairs[i].n_chosen);

            set.longest = length > set.longest ? length : set.longest;
        }
    }
    free(pairs);
    return set;
}

void clear_pair_set(struct ha_pair_set *set)
{
    free(set->ids);
    free(set->offset);
    free(set->row);
}
