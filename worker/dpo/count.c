#include "worker/dpo/count.h"

#include <errno.h>

#include "common/base/clock.h"
#include "common/base/error.h"

struct ha_dpo_meter ha_dpo_meter_start(const struct ha_backend *backend)
{
    return (struct ha_dpo_meter){.start_ns = ha_clock_work_ns(),
                                 .flops = ha_backend_flops(backend),
                                 .bytes = ha_backend_bytes_moved(backend)};
}

int ha_dpo_meter_stop(struct ha_backend *backend, const struct ha_dpo_meter *meter,
                      struct ha_dpo_work *ret_work, struct ha_error *err)
{
    int r = ha_backend_sync(backend, err);

    if (r < 0)
        return r;
    *ret_work = (struct ha_dpo_work){
        .seconds = (double)(ha_clock_work_ns() - meter->start_ns) / 1e9,
        .flops = ha_backend_flops(backend) - meter->flops,
        .bytes = ha_backend_bytes_moved(backend) - meter->bytes,
    };
    return 0;
}

void ha_dpo_work_add(struct ha_dpo_work *to, const struct ha_dpo_work *what, int64_t parts)
{
    to->seconds += what->seconds / (double)parts;
    to->flops += what->flops / (double)parts;
    to->bytes += what->bytes / (double)parts;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t ha_dpo_padded_tokens(const struct ha_dpo_packs *packs, const struct ha_window *window)
{
    int64_t end = window->first + window->n_pairs, padded = 0;

    for (int64_t first = window->first; first < end; first += packs->batch.batch_size) {
        int64_t last = first + packs->batch.batch_size, longest = 0;

        if (last > end)
            last = end;
        for (int64_t i = first; i < last; i++) {
            const struct ha_pack_pair *pair = &packs->pairs[packs->order[i]];

            longest = larger(longest, pair->n_prompt + larger(pair->n_chosen, pair->n_rejected));
        }
        padded += 2 * (last - first) * longest;
    }
    return padded;
}

double ha_dpo_plain_flops(const struct ha_model_config *config, const struct ha_dpo_packs *packs,
                          const struct ha_window *window)
{
    double layers = (double)ha_model_config_layer_linear_params(config) * (double)config->n_layers;
    double per_token = 8.0 * layers + 6.0 * (double)ha_model_config_head_params(config);

    return per_token * (double)ha_dpo_padded_tokens(packs, window);
}

int ha_dpo_mean_lengths(const struct ha_pair_set *pairs, int64_t batch_size, int64_t accumulation,
                        uint64_t order_seed, struct ha_dpo_lengths *ret_lengths,
                        struct ha_error *err)
{
    int64_t prompt = 0, chosen = 0, rejected = 0, padded = 0;
    double n = (double)pairs->n_pairs;
    struct ha_dpo_packs packs;
    int r;

    if (pairs->n_pairs == 0)
        return ha_error_set(err, EINVAL, "there are no pairs to count");
    r = ha_dpo_packs_init(&packs, pairs, batch_size, accumulation, 1, true, err);
    if (r < 0)
        return r;
    packs.shuffled = true;
    packs.order_seed = order_seed;
    r = ha_dpo_packs_set_epoch(&packs, 0, err);
    for (int64_t i = 0; r == 0 && i < ha_batch_windows(&packs.batch); i++) {
        struct ha_window window = ha_batch_window(&packs.batch, i);

        padded += ha_dpo_padded_tokens(&packs, &window);
    }
    for (int64_t i = 0; i < pairs->n_pairs; i++) {
        prompt += packs.pairs[i].n_prompt;
        chosen += packs.pairs[i].n_chosen;
        rejected += packs.pairs[i].n_rejected;
    }
    ha_dpo_packs_clear(&packs);
    if (r == 0)
        *ret_lengths = (struct ha_dpo_lengths){(double)prompt / n, (double)chosen / n,
                                               (double)rejected / n, (double)padded / n};
    return r;
}

int64_t ha_dpo_window_tokens(const struct ha_dpo_packs *packs, const struct ha_window *window)
{
    int64_t tokens = 0;

    for (int64_t i = window->first; i < window->first + window->n_pairs; i++) {
        const struct ha_pack_pair *pair = &packs->pairs[packs->order[i]];

        tokens += 2 * pair->n_prompt + pair->n_chosen + pair->n_rejected;
    }
    return tokens;
}
