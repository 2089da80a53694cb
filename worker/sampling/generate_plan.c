#include "worker/sampling/generate_plan.h"

#include <errno.h>
#include <inttypes.h>

#include "common/base/error.h"

/* Prompts that enter together fill at most this many tokens, or one longer prompt. */
enum { PROMPT_TOKENS = 2048 };

int64_t ha_generate_positions(const struct ha_generate_request *request)
{
    return request->n_ids + request->rules->max_new_tokens - 1;
}

int64_t ha_generate_kv_bytes(struct ha_model *model, const struct ha_generate_request *request)
{
    return ha_kv_cache_bytes(ha_model_config(model),
                             ha_backend_activation_dtype(ha_model_backend(model)),
                             ha_generate_positions(request));
}

bool ha_generate_same_prompt(const struct ha_generate_request *a,
                             const struct ha_generate_request *b)
{
    return a->ids == b->ids && a->n_ids == b->n_ids;
}

static int check_settings(const struct ha_generate_settings *settings, struct ha_error *err)
{
    if (settings->max_sequences < 1 || settings->max_sequences > INT32_MAX)
        return ha_error_set(err, EINVAL, "%" PRId64 " sequences at once; it must be 1 or more",
                            settings->max_sequences);
    if (settings->max_kv_bytes < 0)
        return ha_error_set(err, EINVAL, "the KV cache limit of %" PRId64 " bytes is negative",
                            settings->max_kv_bytes);
    if (settings->burst < 0 || settings->burst > HA_GENERATE_BURST_MOST)
        return ha_error_set(err, EINVAL, "%" PRId64 " steps at once; it must be 0 to %d",
                            settings->burst, HA_GENERATE_BURST_MOST);
    return 0;
}

static int check_rules(const struct ha_generate_rules *rules, struct ha_error *err)
{
    int r = ha_sampler_settings_check(&rules->sampler, err);

    if (r < 0)
        return r;
    if (rules->max_new_tokens < 1 || rules->max_new_tokens > INT32_MAX / 2)
        return ha_error_set(err, EINVAL, "max_new_tokens is %" PRId64 "; it must be 1 to %d",
                            rules->max_new_tokens, INT32_MAX / 2);
    return 0;
}

static int check_request(struct ha_model *model, const struct ha_generate_request *request,
                         int64_t number, int64_t max_kv_bytes, struct ha_error *err)
{
    if (request->n_ids < 1 || request->n_ids > INT32_MAX / 2)
        return ha_error_set(err, EINVAL, "request %" PRId64 ": a prompt of %" PRId64 " tokens",
                            number, request->n_ids);
    if (max_kv_bytes > 0 && ha_generate_kv_bytes(model, request) > max_kv_bytes)
        return ha_error_set(err, EINVAL,
                            "request %" PRId64 ", a prompt of %" PRId64 " tokens and %" PRId64
                            " new ones, needs %" PRId64 " bytes of KV cache, the limit is %" PRId64
                            "; raise it or lower max_new_tokens",
                            number, request->n_ids, request->rules->max_new_tokens,
                            ha_generate_kv_bytes(model, request), max_kv_bytes);
    return 0;
}

int ha_generate_check(struct ha_model *model, const struct ha_generate_request *requests,
                      int64_t n_requests, const struct ha_generate_settings *settings,
                      struct ha_error *err)
{
    const struct ha_generate_rules *checked = NULL;
    int r = check_settings(settings, err);

    for (int64_t i = 0; r == 0 && i < n_requests; i++) {
        if (requests[i].rules != checked)
            r = check_rules(requests[i].rules, err);
        checked = requests[i].rules;
        if (r == 0)
            r = check_request(model, &requests[i], i, settings->max_kv_bytes, err);
    }
    return r;
}

struct ha_decoder_limits ha_generate_limits(const struct ha_generate_request *requests,
                                            int64_t n_requests,
                                            const struct ha_generate_settings *settings)
{
    struct ha_decoder_limits limits = {
        .max_sequences =
            settings->max_sequences < n_requests ? settings->max_sequences : n_requests,
    };
    int64_t all = 0, longest = 0;

    for (int64_t i = 0; i < n_requests; i++) {
        int64_t rank = requests[i].adapter ? ha_adapter_settings(requests[i].adapter)->rank : 0;

        limits.max_rank = rank > limits.max_rank ? rank : limits.max_rank;
        longest = requests[i].n_ids > longest ? requests[i].n_ids : longest;
        all += requests[i].n_ids < PROMPT_TOKENS - all ? requests[i].n_ids : PROMPT_TOKENS - all;
    }
    limits.max_prompt_tokens = longest > all ? longest : all;
    return limits;
}

int64_t ha_generate_burst(struct ha_model *model, const struct ha_generate_settings *settings,
                          int64_t n_sequences)
{
    int64_t steps = HA_GENERATE_BURST_ROWS / n_sequences;

    if (settings->burst > 0)
        return settings->burst;
    /* Where calls return when their work is done there is nobody to wait for. */
    if (!ha_backend_stream(ha_model_backend(model)) || steps < 1)
        return 1;
    return steps < HA_GENERATE_BURST ? steps : HA_GENERATE_BURST;
}

int64_t ha_generate_kv_limit(struct ha_model *model, const struct ha_generate_request *requests,
                             int64_t n_requests, const struct ha_generate_settings *settings)
{
    int64_t largest = 0, all = 0, bound;

    for (int64_t i = 0; i < n_requests; i++) {
        int64_t bytes = ha_generate_kv_bytes(model, &requests[i]);

        largest = bytes > largest ? bytes : largest;
        all = bytes < INT64_MAX - all ? all + bytes : INT64_MAX;
    }
    if (!__builtin_mul_overflow(largest, settings->max_sequences, &bound) && bound < all)
        all = bound;
    return settings->max_kv_bytes > 0 && settings->max_kv_bytes < all ? settings->max_kv_bytes
                                                                      : all;
}

/* What the draws take on the backend: rules and states, end tokens, ids seen. */
static int64_t draw_bytes(struct ha_model *model, const struct ha_generate_request *requests,
                          int64_t n_requests, const struct ha_generate_settings *settings,
                          const struct ha_decoder_limits *limits)
{
    int64_t words = ha_sampler_seen_words(ha_model_config(model)->vocab), eos = 0;
    const struct ha_generate_rules *counted = NULL;
    int64_t per_sequence = (1 + ha_generate_burst(model, settings, 1)) * (int64_t)sizeof(int32_t);
    bool seen = false;

    for (int64_t i = 0; i < n_requests; i++) {
        seen = seen || requests[i].rules->sampler.repetition_penalty != 1.0;
        if (requests[i].rules != counted && i < limits->max_sequences)
            eos += requests[i].rules->n_eos * (int64_t)sizeof(int32_t);
        counted = requests[i].rules;
    }
    return limits->max_sequences * (per_sequence + (int64_t)sizeof(struct ha_draw)) + eos +
           (seen ? limits->max_sequences * words * (int64_t)sizeof(uint32_t) : 0);
}

int ha_generate_plan(struct ha_model *model, const struct ha_generate_request *requests,
                     int64_t n_requests, const struct ha_generate_settings *settings,
                     struct ha_generate_sizes *ret_sizes, struct ha_error *err)
{
    struct ha_generate_sizes sizes = {0};
    struct ha_decoder_limits limits;
    int r = ha_generate_check(model, requests, n_requests, settings, err);

    if (r == 0 && n_requests > 0) {
        limits = ha_generate_limits(requests, n_requests, settings);
        r = ha_decoder_plan_bytes(ha_model_config(model),
                                  ha_backend_activation_dtype(ha_model_backend(model)), &limits,
                                  &sizes.decoder, err);
        if (r == 0)
            sizes.decoder += draw_bytes(model, requests, n_requests, settings, &limits);
    }
    if (r < 0)
        return r;
    sizes.kv = ha_generate_kv_limit(model, requests, n_requests, settings);
    for (int64_t i = 0; i < n_requests; i++) {
        int64_t bytes = ha_generate_kv_bytes(model, &requests[i]);

        sizes.largest = bytes > sizes.largest ? bytes : sizes.largest;
    }
    if (__builtin_add_overflow(sizes.decoder, sizes.kv, &sizes.total))
        return ha_error_set(err, EOVERFLOW,
                            "%" PRId64 " sequences at once need more memory than can be addressed",
                            settings->max_sequences);
    *ret_sizes = sizes;
    return 0;
}
