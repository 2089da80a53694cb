#include "worker/dpo/flops.h"

enum { SMALL_VOCAB = 65536 };

struct ha_dpo_lengths ha_dpo_hh_lengths(const struct ha_model_config *config)
{
    if (config->vocab < SMALL_VOCAB)
        return (struct ha_dpo_lengths){179, 67, 85, 1263};
    return (struct ha_dpo_lengths){148, 59, 75, 1090};
}

/* A pair of one model and one adapter. */
struct pair {
    const struct ha_model_config *config;
    struct ha_adapter_geometry geometry;
    const struct ha_adapter_settings *adapter;
    struct ha_dpo_lora_way way;
    double tokens;    /* computed */
    double rows;      /* scored by the head */
    double attention; /* forward of one layer */
};

/* (query, key) pairs of n tokens behind a prefix. */
static double visible(double n, double prefix)
{
    return n * prefix + n * (n + 1) / 2;
}

/* Tokens of an answer that predict another: all but the last. */
static double predicting(double n)
{
    return n > 1 ? n - 1 : 0;
}

static struct pair pair_of(const struct ha_model_config *config,
                           const struct ha_adapter_settings *adapter,
                           const struct ha_dpo_lengths *lengths, bool shared,
                           struct ha_dpo_lora_way way)
{
    double prompt = lengths->prompt, chosen = predicting(lengths->chosen);
    double rejected = predicting(lengths->rejected);
    double seen = shared ? visible(prompt, 0) + visible(chosen, prompt) + visible(rejected, prompt)
                         : visible(prompt + chosen, 0) + visible(prompt + rejected, 0);
    struct pair pair = {.config = config,
                        .adapter = adapter,
                        .way = way,
                        .tokens = (shared ? 1 : 2) * prompt + chosen + rejected,
                        .rows = lengths->chosen + lengths->rejected,
                        .attention = 4.0 * (double)(config->n_heads * config->head_dim) * seen};

    ha_model_config_geometry(config, &pair.geometry);
    return pair;
}

static bool adapted(const struct pair *pair, int64_t layer, int module)
{
    if (!(pair->adapter->modules & 1u << module))
        return false;
    for (int64_t i = 0; i < pair->adapter->n_layers; i++) {
        if (pair->adapter->layers[i] == layer)
            return true;
    }
    return false;
}

static bool any_adapted(const struct pair *pair, int64_t layer, int first, int last)
{
    for (int module = first; module <= last; module++) {
        if (adapted(pair, layer, module))
            return true;
    }
    return false;
}

static double linear(const struct pair *pair, int module)
{
    return 2.0 * pair->tokens * (double)pair->geometry.in[module] *
           (double)pair->geometry.out[module];
}

/* A x, or anything else of the input's width times rank. */
static double lora_in(const struct pair *pair, int module)
{
    return 2.0 * pair->tokens * (double)pair->adapter->rank * (double)pair->geometry.in[module];
}

static double lora_out(const struct pair *pair, int module)
{
    return 2.0 * pair->tokens * (double)pair->adapter->rank * (double)pair->geometry.out[module];
}

/* All columns of a product beside so much of a token. */
static double columns(const struct pair *pair, int64_t width)
{
    return 2.0 * pair->tokens * (double)pair->way.columns * (double)width;
}

static double base_layer(const struct pair *pair)
{
    double sum = pair->attention;

    for (int module = 0; module < HA_MODULE_COUNT; module++)
        sum += linear(pair, module) +
               (module <= HA_MODULE_O ? columns(pair, pair->geometry.out[module]) : 0);
    return sum;
}

/* Is the module adapted in columns of its product, that of q, k, v or of o? */
static bool in_columns(const struct pair *pair, int64_t layer, int module)
{
    int first = module <= HA_MODULE_V ? HA_MODULE_Q : module, ranks = 0;
    int last = module <= HA_MODULE_V ? HA_MODULE_V : module;

    if (module > HA_MODULE_O)
        return false;
    for (int i = first; i <= last; i++)
        ranks += adapted(pair, layer, i);
    return ranks > 0 && ranks * pair->adapter->rank <= pair->way.columns;
}

/* A product of all columns with an input is counted with the first module, or as products of each
 * adapted one under dropout. */
static double columns_in(const struct pair *pair, int64_t layer, int module)
{
    if (pair->way.dropout)
        return adapted(pair, layer, module) ? lora_in(pair, module) : 0;
    return module == HA_MODULE_Q || module == HA_MODULE_O ? columns(pair, pair->geometry.in[module])
                                                          : 0;
}

static double lora_forward(const struct pair *pair, int64_t layer)
{
    double sum = 0;

    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        if (in_columns(pair, layer, module))
            sum += columns_in(pair, layer, module);
        else if (adapted(pair, layer, module))
            sum += lora_in(pair, module) + lora_out(pair, module);
    }
    return sum;
}

/* As ha_pass_recompute: everything but the product of the down projection. */
static double again(const struct pair *pair, int64_t layer)
{
    double sum = base_layer(pair) - linear(pair, HA_MODULE_DOWN) + lora_forward(pair, layer);

    return adapted(pair, layer, HA_MODULE_DOWN) ? sum - lora_out(pair, HA_MODULE_DOWN) : sum;
}

/* One linear layer backward: dB, u, dA, and dx where it is needed. */
static double linear_backward(const struct pair *pair, int64_t layer, int module, bool dx)
{
    double sum = dx ? linear(pair, module) : 0;

    /* The columns with dx or without, dB, dA, and dx += u A. */
    if (in_columns(pair, layer, module)) {
        sum +=
            columns(pair, pair->geometry.out[module]) + (dx ? columns_in(pair, layer, module) : 0);
        return adapted(pair, layer, module) ? sum + lora_out(pair, module) + lora_in(pair, module)
                                            : sum;
    }
    if (adapted(pair, layer, module))
        sum += 2 * lora_out(pair, module) + (dx ? 2 : 1) * lora_in(pair, module);
    return sum;
}

/* As backward.c: what the lowest layer does not need is not done. */
static double layer_backward(const struct pair *pair, int64_t layer, bool go_on)
{
    bool attention = go_on || any_adapted(pair, layer, HA_MODULE_Q, HA_MODULE_O);
    bool below = go_on || any_adapted(pair, layer, HA_MODULE_Q, HA_MODULE_V);
    bool inner = attention || any_adapted(pair, layer, HA_MODULE_GATE, HA_MODULE_UP);
    double sum = linear_backward(pair, layer, HA_MODULE_DOWN, inner);

    if (inner)
        sum += linear_backward(pair, layer, HA_MODULE_GATE, attention) +
               linear_backward(pair, layer, HA_MODULE_UP, attention);
    if (attention)
        sum += linear_backward(pair, layer, HA_MODULE_O, below);
    if (below)
        sum += 2.5 * pair->attention + linear_backward(pair, layer, HA_MODULE_Q, go_on) +
               linear_backward(pair, layer, HA_MODULE_K, go_on) +
               linear_backward(pair, layer, HA_MODULE_V, go_on);
    return sum;
}

void ha_dpo_flops_of_pair(const struct ha_model_config *config,
                          const struct ha_adapter_settings *adapter,
                          const struct ha_dpo_lengths *lengths, bool shared, int64_t kept_from,
                          struct ha_dpo_lora_way way, struct ha_dpo_flops *ret_flops)
{
    struct pair pair = pair_of(config, adapter, lengths, shared, way);
    double layer = base_layer(&pair);
    double head = 2.0 * (double)ha_model_config_head_params(config) * pair.rows;
    int64_t lowest = adapter->layers[0];
    struct ha_dpo_flops flops = {.reference = (double)config->n_layers * layer + head,
                                 .below = (double)lowest * layer,
                                 .backward = head};

    flops.forward = flops.reference;
    for (int64_t i = lowest; i < config->n_layers; i++) {
        flops.forward += lora_forward(&pair, i);
        flops.backward += layer_backward(&pair, i, i > lowest);
        if (i < kept_from)
            flops.recompute += again(&pair, i);
    }
    *ret_flops = flops;
}

/* The plain method on these tokens: forward of policy and reference, forward again, gradients
 * through all layers; the head for policy, reference and gradient over `rows`. */
static double plain(const struct pair *pair, double rows)
{
    double sum = 3 * 2.0 * (double)ha_model_config_head_params(pair->config) * rows;

    for (int64_t i = 0; i < pair->config->n_layers; i++) {
        sum += 3 * base_layer(pair) + 2 * lora_forward(pair, i) + 2.5 * pair->attention;
        for (int module = 0; module < HA_MODULE_COUNT; module++)
            sum += linear_backward(pair, i, module, true);
    }
    return sum;
}

double ha_dpo_flops_of_trl(const struct ha_model_config *config,
                           const struct ha_adapter_settings *adapter,
                           const struct ha_dpo_lengths *lengths)
{
    struct ha_dpo_lengths rows = {lengths->padded / 2, 0, 0, 0};
    struct pair pair = pair_of(config, adapter, &rows, false, (struct ha_dpo_lora_way){0});

    return plain(&pair, pair.tokens);
}

/* ---- one thing after the other ---- */

static const struct {
    const char *name, *text;
} savings[HA_DPO_SAVINGS] = {
    {"trl", "TRL, padded"},
    {"packed", "1 packed, no padding"},
    {"shared_prompt", "2 the prompt once for both answers"},
    {"scored_rows", "3 the head on answer tokens only"},
    {"reference_once", "4 the reference once for all"},
    {"activations_kept", "5 activations kept as the plan says"},
    {"backward_ends", "6 backward ends at the lowest layer"},
    {"lockstep", "7 lock-step: lower layers shared"},
};

const char *ha_dpo_saving_name(enum ha_dpo_saving saving)
{
    return savings[saving].name;
}

const char *ha_dpo_saving_text(enum ha_dpo_saving saving)
{
    return savings[saving].text;
}

/* The forward pass of the policy that checkpointing repeats. */
static double all_again(const struct pair *pair)
{
    double sum = 0;

    for (int64_t i = 0; i < pair->config->n_layers; i++)
        sum += base_layer(pair) + lora_forward(pair, i);
    return sum;
}

void ha_dpo_flops_by_saving(const struct ha_model_config *config,
                            const struct ha_adapter_settings *adapter,
                            const struct ha_dpo_lengths *lengths, const struct ha_dpo_kept *kept,
                            struct ha_dpo_lora_way way, double ret_flops[HA_DPO_SAVINGS])
{
    struct pair apart = pair_of(config, adapter, lengths, false, way);
    struct pair shared = pair_of(config, adapter, lengths, true, way);
    struct ha_dpo_flops alone, together;

    /* Up to HA_DPO_ACTIVATIONS it is the plain method with less to do, in the engine's products. */
    ha_dpo_flops_of_pair(config, adapter, lengths, true, kept->alone, way, &alone);
    ha_dpo_flops_of_pair(config, adapter, lengths, true, kept->lockstep, way, &together);
    ret_flops[HA_DPO_NOTHING_SAVED] = ha_dpo_flops_of_trl(config, adapter, lengths);
    ret_flops[HA_DPO_PACKED] = plain(&apart, apart.tokens);
    ret_flops[HA_DPO_SHARED_PROMPT] = plain(&shared, shared.tokens);
    ret_flops[HA_DPO_SCORED_ROWS] = plain(&shared, shared.rows);
    ret_flops[HA_DPO_REFERENCE_ONCE] = ret_flops[HA_DPO_SCORED_ROWS] - alone.reference;
    ret_flops[HA_DPO_ACTIVATIONS] =
        ret_flops[HA_DPO_REFERENCE_ONCE] - all_again(&shared) + alone.recompute;
    ret_flops[HA_DPO_BACKWARD_ENDS] = alone.forward + alone.backward + alone.recompute;
    ret_flops[HA_DPO_LOCKSTEP] =
        together.forward - together.below + together.backward + together.recompute;
}
