#include "worker/dpo/plan.h"

#include "worker/model/model.h"

/* FLOPs are 2 per multiply-add; attention is counted at its causal half. */
static double attention_flops(const struct ha_model_config *config, double tokens, double context)
{
    return 2.0 * 2.0 * tokens * context * (double)(config->n_heads * config->head_dim);
}

/* One layer's linear products and attention over one pair. */
static double layer_flops(const struct ha_dpo_plan_request *request)
{
    double prompt = request->prompt_tokens, chosen = request->chosen_tokens;
    double rejected = request->rejected_tokens, copies = request->share_prompt ? 1.0 : 2.0;
    double tokens = copies * prompt + chosen + rejected;
    double linear = 2.0 * (double)ha_model_config_layer_linear_params(request->config) * tokens;

    return linear + attention_flops(request->config, copies * prompt, prompt / 2) +
           attention_flops(request->config, chosen, prompt + chosen / 2) +
           attention_flops(request->config, rejected, prompt + rejected / 2);
}

static void count_flops(const struct ha_dpo_plan_request *request, struct ha_dpo_plan *plan)
{
    const struct ha_model_config *config = request->config;
    double rows = request->chosen_tokens + request->rejected_tokens;
    double tokens = (request->share_prompt ? 1.0 : 2.0) * request->prompt_tokens + rows;
    double head = 2.0 * (double)ha_model_config_head_params(config) * rows;
    double layer = layer_flops(request), n_layers = (double)config->n_layers;
    double trained = n_layers - (double)plan->lowest_layer;
    double lora = 2.0 * (double)plan->n_trainable * tokens;

    plan->reference_flops = n_layers * layer + head;
    plan->forward_flops = plan->reference_flops + lora;
    /* The head's gradient is one more product; LoRA's are two; the lowest layer's
     * input needs no gradient, which is left out of account. */
    plan->backward_flops = trained * layer + head + 2.0 * lora;
}

int ha_dpo_plan_make(const struct ha_dpo_plan_request *request, struct ha_dpo_plan *ret_plan,
                     struct ha_error *err)
{
    const struct ha_model_config *config = request->config;
    struct ha_dpo_plan plan = {.n_params = ha_model_config_n_params(config)};
    struct ha_pass_limits limits = {
        .max_tokens = request->max_tokens > 0 ? request->max_tokens : 1,
        .max_rows = request->max_rows,
        .max_rank = request->adapter->rank,
        .statistics = true,
    };
    struct ha_adapter_geometry geometry;
    int r;

    ha_model_config_geometry(config, &geometry);
    r = ha_adapter_count_params(&geometry, request->adapter, &plan.n_trainable, err);
    if (r < 0)
        return r;
    plan.lowest_layer = request->adapter->layers[0];
    limits.lowest_layer = plan.lowest_layer;
    r = ha_pass_plan_bytes(config, request->activation, &limits, &plan.pass_bytes, err);
    if (r < 0)
        return r;
    plan.weight_bytes = request->weight_bytes > 0 ? request->weight_bytes : 2 * plan.n_params;
    plan.adapter_bytes = 4 * plan.n_trainable * (int64_t)sizeof(float);
    plan.total_bytes =
        plan.pass_bytes + plan.adapter_bytes + (request->weights_mapped ? 0 : plan.weight_bytes);
    count_flops(request, &plan);
    *ret_plan = plan;
    return 0;
}
