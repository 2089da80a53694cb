#include "worker/dpo/packs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/data/select.h"

int ha_dpo_packs_init(struct ha_dpo_packs *packs, const struct ha_pair_set *set, int64_t batch_size,
                      int64_t accumulation, int64_t tokens_per_microbatch, bool share_prompt,
                      struct ha_error *err)
{
    *packs = (struct ha_dpo_packs){
        .batch = {set->n_pairs, batch_size, accumulation},
        .tokens_per_microbatch = tokens_per_microbatch,
        .share_prompt = share_prompt,
        .epoch = -1,
        .pairs = ha_calloc(set->n_pairs, sizeof(*packs->pairs)),
        .order = ha_calloc(set->n_pairs, sizeof(*packs->order)),
    };
    if (!packs->pairs || !packs->order) {
        ha_dpo_packs_clear(packs);
        return ha_error_set(err, ENOMEM, "no memory for %lld pairs", (long long)set->n_pairs);
    }
    for (int64_t i = 0; i < set->n_pairs; i++) {
        const int64_t *at = set->offset + 3 * i;

        packs->pairs[i] =
            (struct ha_pack_pair){set->ids + at[0], set->ids + at[1], set->ids + at[2],
                                  at[1] - at[0],    at[2] - at[1],    at[3] - at[2]};
    }
    return 0;
}

void ha_dpo_packs_clear(struct ha_dpo_packs *packs)
{
    free(packs->pairs);
    free(packs->order);
    packs->pairs = NULL;
    packs->order = NULL;
}

int ha_dpo_packs_set_epoch(struct ha_dpo_packs *packs, int64_t epoch, struct ha_error *err)
{
    int r = 0;

    if (packs->epoch == epoch)
        return 0;
    packs->epoch = -1;
    if (packs->shuffled)
        r = ha_select_epoch_order(packs->batch.n_pairs, packs->order_seed, epoch, packs->order,
                                  err);
    for (int64_t i = 0; !packs->shuffled && i < packs->batch.n_pairs; i++)
        packs->order[i] = i;
    if (r == 0)
        packs->epoch = epoch;
    return r;
}

int64_t ha_dpo_packs_fill(const struct ha_dpo_packs *packs, int64_t first, int64_t end)
{
    int64_t window = packs->batch.batch_size * packs->batch.accumulation;
    int64_t next = first - first % window % packs->batch.batch_size + packs->batch.batch_size;

    if (packs->by_micro && next < end)
        end = next;
    return ha_pack_fill(packs->pairs, packs->order + first, end - first, packs->share_prompt,
                        packs->tokens_per_microbatch);
}

int ha_dpo_packs_make(const struct ha_dpo_packs *packs, int64_t first, int64_t count,
                      struct ha_pack **ret_pack, struct ha_error *err)
{
    return ha_pack_create_pairs(packs->pairs, packs->order + first, count, packs->share_prompt,
                                ret_pack, err);
}

static void survey_window(const struct ha_dpo_packs *packs, const struct ha_window *window,
                          int64_t *max_tokens, int64_t *max_rows, struct ha_sha256 *hash)
{
    int64_t first = window->first, end = window->first + window->n_pairs;

    while (first < end) {
        int64_t count = ha_dpo_packs_fill(packs, first, end), tokens = 0, rows = 0;

        for (int64_t i = first; i < first + count; i++) {
            const struct ha_pack_pair *pair = &packs->pairs[packs->order[i]];

            tokens += ha_pack_pair_tokens(pair, packs->share_prompt);
            rows += ha_pack_pair_rows(pair);
        }
        if (tokens > *max_tokens)
            *max_tokens = tokens;
        if (rows > *max_rows)
            *max_rows = rows;
        ha_sha256_update(hash, &count, sizeof(count));
        ha_sha256_update(hash, &tokens, sizeof(tokens));
        first += count;
    }
}

int ha_dpo_packs_survey(struct ha_dpo_packs *packs, int64_t epochs, int64_t *max_tokens,
                        int64_t *max_rows, struct ha_sha256 *hash, struct ha_error *err)
{
    for (int64_t i = 0; i < packs->batch.n_pairs; i++) {
        const struct ha_pack_pair *pair = &packs->pairs[i];
        int64_t lengths[3] = {pair->n_prompt, pair->n_chosen, pair->n_rejected};

        ha_sha256_update(hash, lengths, sizeof(lengths));
        ha_sha256_update(hash, pair->prompt, (size_t)pair->n_prompt * sizeof(int32_t));
        ha_sha256_update(hash, pair->chosen, (size_t)pair->n_chosen * sizeof(int32_t));
        ha_sha256_update(hash, pair->rejected, (size_t)pair->n_rejected * sizeof(int32_t));
    }
    for (int64_t epoch = 0; epoch < epochs; epoch++) {
        int r = ha_dpo_packs_set_epoch(packs, epoch, err);

        if (r < 0)
            return r;
        ha_sha256_update(hash, packs->order, (size_t)packs->batch.n_pairs * sizeof(int64_t));
        for (int64_t i = 0; i < ha_batch_windows(&packs->batch); i++) {
            struct ha_window window = ha_batch_window(&packs->batch, i);

            survey_window(packs, &window, max_tokens, max_rows, hash);
        }
    }
    return 0;
}
