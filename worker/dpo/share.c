#include "worker/dpo/share.h"

enum { MOST_TRIED = 4096 };

static void deal(struct ha_dpo_share *share, struct ha_dpo_range range, int first, int n)
{
    int64_t middle = ha_dpo_share_middle(range), all = range.end - range.first;
    int left;

    share->of_rank[first] = range;
    if (n == 1 || all < 2)
        return;
    /* In proportion, rounded; at least one each. */
    left = (int)((2 * (middle - range.first) * n + all) / (2 * all));
    left = left < 1 ? 1 : left > n - 1 ? n - 1 : left;
    deal(share, (struct ha_dpo_range){range.first, middle}, first, left);
    deal(share, (struct ha_dpo_range){middle, range.end}, first + left, n - left);
    share->adds[share->n_adds++] = (struct ha_comm_add){first, first + left};
}

void ha_dpo_share_deal(int64_t n_micro, int n_ranks, struct ha_dpo_share *ret_share)
{
    *ret_share = (struct ha_dpo_share){.n_adds = 0};
    deal(ret_share, (struct ha_dpo_range){0, n_micro}, 0, n_ranks);
}

int ha_dpo_share_depth(int64_t n_micro)
{
    int depth = 0;

    /* The second half, which is not the larger one, is added up beside the first. */
    for (; n_micro > 1; n_micro /= 2)
        depth++;
    return depth;
}

int ha_dpo_share_most(int64_t accumulation, int n_ranks)
{
    struct ha_dpo_share share;
    int64_t most = accumulation > MOST_TRIED ? accumulation : 0;

    for (int64_t n_micro = 1; n_micro <= accumulation && n_micro <= MOST_TRIED; n_micro++) {
        ha_dpo_share_deal(n_micro, n_ranks, &share);
        for (int i = 0; i < n_ranks; i++) {
            int64_t n = share.of_rank[i].end - share.of_rank[i].first;

            most = n > most ? n : most;
        }
    }
    return ha_dpo_share_depth(most);
}
