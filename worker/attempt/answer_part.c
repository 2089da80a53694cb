#include "worker/attempt/answer_part.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "kernels/collective.h"

/* The requests [first, end) of one prompt. */
struct prompt {
    int64_t first, end, weight;
    int rank;
};

static int by_weight(const void *a, const void *b)
{
    const struct prompt *x = a, *y = b;

    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int by_place(const void *a, const void *b)
{
    const struct prompt *x = a, *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

/* Returns how many there are. */
static int64_t find_prompts(const struct ha_generate_request *queue, int64_t n,
                            struct prompt *prompts)
{
    int64_t n_prompts = 0;

    for (int64_t i = 0; i < n; i++) {
        struct prompt *last = prompts + n_prompts - 1;

        if (n_prompts == 0 || queue[i].ids != queue[last->first].ids) {
            last = &prompts[n_prompts++];
            *last = (struct prompt){.first = i, .weight = queue[i].n_ids};
        }
        last->end = i + 1;
        last->weight += queue[i].rules->max_new_tokens;
    }
    return n_prompts;
}

static void deal(struct prompt *prompts, int64_t n, int ranks)
{
    int64_t load[HA_COMM_MAX_RANKS] = {0};

    qsort(prompts, (size_t)n, sizeof(*prompts), by_weight);
    for (int64_t i = 0; i < n; i++) {
        int least = 0;

        for (int rank = 1; rank < ranks; rank++)
            least = load[rank] < load[least] ? rank : least;
        load[least] += prompts[i].weight;
        prompts[i].rank = least;
    }
    qsort(prompts, (size_t)n, sizeof(*prompts), by_place);
}

int ha_answer_part_take(const struct ha_generate_request *queue, int64_t n, int ranks, int rank,
                        struct ha_answer_part *ret_part, struct ha_error *err)
{
    struct prompt *prompts = ha_calloc(n, sizeof(*prompts));
    struct ha_answer_part part = {.requests = ha_calloc(n, sizeof(*part.requests)),
                                  .place = ha_calloc(n, sizeof(*part.place))};
    int64_t n_prompts;

    if (!prompts || !part.requests || !part.place) {
        free(prompts);
        ha_answer_part_clear(&part);
        return ha_error_set(err, ENOMEM, "no memory to divide %lld answers", (long long)n);
    }
    n_prompts = find_prompts(queue, n, prompts);
    deal(prompts, n_prompts, ranks);
    for (int64_t p = 0; p < n_prompts; p++)
        for (int64_t i = prompts[p].first; prompts[p].rank == rank && i < prompts[p].end; i++) {
            part.requests[part.n] = queue[i];
            part.place[part.n++] = i;
        }
    free(prompts);
    *ret_part = part;
    return 0;
}

void ha_answer_part_clear(struct ha_answer_part *part)
{
    free(part->requests);
    free(part->place);
    *part = (struct ha_answer_part){0};
}

void ha_answer_hash_request(const struct ha_generate_request *request, struct ha_sha256 *hash)
{
    const struct ha_generate_rules *rules = request->rules;
    const struct ha_sampler_settings *sampler = &rules->sampler;
    const double reals[] = {sampler->temperature, sampler->top_p, sampler->repetition_penalty};
    const int64_t numbers[] = {
        request->n_ids, (int64_t)request->number, (int64_t)rules->seed,   rules->max_new_tokens,
        rules->n_eos,   sampler->top_k,           sampler->min_new_tokens};

    ha_sha256_update(hash, reals, sizeof(reals));
    ha_sha256_update(hash, numbers, sizeof(numbers));
    ha_sha256_update(hash, request->ids, (size_t)request->n_ids * sizeof(*request->ids));
    ha_sha256_update(hash, rules->eos, (size_t)rules->n_eos * sizeof(*rules->eos));
}

int ha_answer_hash_adapter(struct ha_backend *backend, const struct ha_adapter *adapter,
                           struct ha_sha256 *hash, struct ha_error *err)
{
    size_t bytes = (size_t)ha_adapter_n_params(adapter) * sizeof(float);
    float *params = ha_calloc(ha_adapter_n_params(adapter), sizeof(*params));
    int r = params ? ha_backend_download(backend, params, ha_adapter_params(adapter), bytes, err)
                   : ha_error_set(err, ENOMEM, "no memory to compare the ranks of a gang");

    if (r == 0)
        r = ha_backend_sync(backend, err);
    if (r == 0)
        ha_sha256_update(hash, params, bytes);
    free(params);
    return r;
}
