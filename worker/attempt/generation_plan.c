#include "worker/attempt/generation_plan.h"

#include <errno.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory_use.h"
#include "kernels/scratch.h"
#include "worker/dpo/plan.h"

enum { REQUEST_BYTES = 512 };

static int64_t longest_request(const struct ha_generation_plan_request *request)
{
    int64_t longest = 0;

    for (int64_t i = 0; i < request->n_requests; i++) {
        const struct ha_generate_request *one = &request->requests[i];
        int64_t length = one->n_ids + one->rules->max_new_tokens;

        longest = length > longest ? length : longest;
    }
    return longest;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t ha_generation_separate_bytes(const struct ha_model_config *config)
{
    int64_t heads = config->n_heads * config->head_dim;
    int64_t qkv = heads + 2 * config->n_kv_heads * config->head_dim;
    struct ha_scratch_shape shape = {
        .separate_depth = larger(config->inner, larger(config->width, heads)),
        .separate_cols = larger(2 * config->inner, larger(config->width, qkv)),
        .separate_f32_cols = config->vocab};

    return ha_gpu_scratch_bytes(&shape) - ha_gpu_scratch_bytes(&(struct ha_scratch_shape){0});
}

/* On a GPU: weights and adapters are there already, and so is what the backend takes from the
 * start; a converted A or B is no larger than the adapters together. */
static int64_t rest_of_gpu(const struct ha_generation_plan_request *request,
                           const struct ha_generate_settings *settings,
                           const struct ha_generate_sizes *sizes)
{
    const struct ha_model_config *config = ha_model_config(request->engine->model);
    struct ha_scratch_shape shape = {.attention = true,
                                     .n_heads = config->n_heads,
                                     .n_kv_heads = config->n_kv_heads,
                                     .head_dim = config->head_dim,
                                     .decode_length = longest_request(request),
                                     .decode_rows = settings->max_sequences,
                                     .operand_values =
                                         request->adapter_bytes / (int64_t)sizeof(float)};

    return ha_backend_allocated_bytes(request->engine->backend) + request->weight_bytes +
           request->comm_bytes + sizes->decoder +
           shape.decode_length * config->head_dim * (int64_t)sizeof(float) +
           ha_gpu_scratch_bytes(&shape) - ha_gpu_scratch_bytes(&(struct ha_scratch_shape){0}) +
           (settings->batch_invariant ? ha_generation_separate_bytes(config) : 0);
}

/* All but the caches. */
static int64_t rest_of(const struct ha_generation_plan_request *request,
                       const struct ha_generate_settings *settings,
                       const struct ha_generate_sizes *sizes)
{
    const struct ha_model_config *config = ha_model_config(request->engine->model);
    struct ha_scratch_shape shape = {.threads = request->threads,
                                     .attention = true,
                                     .n_heads = config->n_heads,
                                     .n_kv_heads = config->n_kv_heads,
                                     .head_dim = config->head_dim,
                                     .decode_length = longest_request(request),
                                     .sample_vocab = config->vocab};

    if (ha_backend_memory_bytes(request->engine->backend) > 0)
        return rest_of_gpu(request, settings, sizes);
    /* And the table of positions. */
    return sizes->decoder + request->weight_bytes +
           shape.decode_length * config->head_dim * (int64_t)sizeof(float) +
           ha_cpu_scratch_bytes(&shape) + request->adapter_bytes + request->text_bytes +
           REQUEST_BYTES * request->n_requests + ha_dpo_program_bytes(config, request->threads);
}

/* Bytes for the caches, of what the rest leaves. */
static int64_t room_for_kv(const struct ha_generation_plan_request *request, int64_t rest,
                           int64_t largest)
{
    /* The host has other things to do. */
    bool stated = strcmp(request->memory_limit, "train.memory_limit") == 0 ||
                  ha_backend_memory_bytes(request->engine->backend) > 0;
    int64_t room = request->memory_bytes - rest,
            quarter = request->memory_bytes / 4 / (1 + request->neighbours);

    if (!stated && room > quarter)
        room = quarter;
    return room > largest ? room : largest;
}

/* The plan with so many answers at once. */
static int make(const struct ha_generation_plan_request *request,
                struct ha_generate_settings *settings, struct ha_generation_plan *plan,
                struct ha_error *err)
{
    struct ha_model *model = request->engine->model;
    int64_t rest;
    int r;

    settings->max_kv_bytes = request->max_kv_bytes;
    r = ha_generate_plan(model, request->requests, request->n_requests, settings, &plan->sizes,
                         err);
    if (r < 0)
        return r;
    rest = rest_of(request, settings, &plan->sizes);
    if (request->max_kv_bytes == 0 && request->memory_bytes > 0) {
        settings->max_kv_bytes = room_for_kv(request, rest, plan->sizes.largest);
        r = ha_generate_plan(model, request->requests, request->n_requests, settings, &plan->sizes,
                             err);
    }
    plan->total_bytes = rest + plan->sizes.kv;
    /* Loading a model may have taken more for a moment. */
    if (ha_backend_memory_bytes(request->engine->backend) > 0 &&
        plan->total_bytes < ha_backend_peak_bytes(request->engine->backend))
        plan->total_bytes = ha_backend_peak_bytes(request->engine->backend);
    return r;
}

int ha_generation_plan_make(const struct ha_generation_plan_request *request,
                            struct ha_generate_settings *settings,
                            struct ha_generation_plan *ret_plan, struct ha_error *err)
{
    char needed[HA_MEMORY_TEXT_BYTES], there[HA_MEMORY_TEXT_BYTES];
    struct ha_generation_plan plan;

    if (settings->max_sequences > request->n_requests)
        settings->max_sequences = request->n_requests;
    for (;; settings->max_sequences /= 2) {
        int r = make(request, settings, &plan, err);

        if (r < 0)
            return r;
        if (request->memory_bytes == 0 || plan.total_bytes <= request->memory_bytes)
            break;
        if (settings->max_sequences == 1)
            return ha_error_set(err, EFBIG,
                                "the generation needs %s for one answer at a time and %s may be "
                                "used (%s); lower generate.max_new_tokens or raise the limit",
                                ha_memory_text(plan.total_bytes, needed),
                                ha_memory_text(request->memory_bytes, there),
                                request->memory_limit);
    }
    *ret_plan = plan;
    return 0;
}
