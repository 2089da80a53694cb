#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/blocks.h"
#include "common/conf/json.h"
#include "common/conf/run_settings.h"
#include "worker/attempt/commands.h"
#include "worker/dpo/plan.h"

/* Mean lengths of an hh-rlhf pair in Llama-3 tokens, for FLOPs per pair before
 * any data is read. */
enum { PROMPT_TOKENS = 120, ANSWER_TOKENS = 60 };

static const char *const strategies[] = {"local", "mid", "global", "full"};
enum { N_STRATEGIES = 4 };

struct planned {
    char *layers;
    struct ha_dpo_plan plan;
};

static int make_plan(const struct ha_model_config *config, const struct ha_run_settings *settings,
                     const char *strategy, struct planned *ret, struct ha_error *err)
{
    const struct ha_sweep_train *train = &settings->train;
    struct ha_adapter_settings adapter = {
        .rank = train->lora_rank, .alpha = train->lora_alpha, .dropout = train->lora_dropout};
    struct ha_dpo_plan_request request = {.config = config,
                                          .adapter = &adapter,
                                          .activation = HA_DTYPE_F32,
                                          .weights_mapped = true,
                                          .prompt_tokens = PROMPT_TOKENS,
                                          .chosen_tokens = ANSWER_TOKENS,
                                          .rejected_tokens = ANSWER_TOKENS,
                                          .share_prompt = true};
    struct ha_layers layers;
    int64_t pair = 2 * train->max_length;
    int r = ha_layers_of(strategy, NULL, config->n_layers, &layers, err);

    if (r < 0)
        return r;
    adapter.layers = layers.items;
    adapter.n_layers = layers.count;
    for (int64_t i = 0; r == 0 && i < train->target_modules.count; i++) {
        enum ha_module module;

        r = ha_module_parse(train->target_modules.items[i], &module, err);
        if (r == 0)
            adapter.modules |= 1U << module;
    }
    /* A pack holds at least the longest pair, and rows for its answers. */
    request.max_tokens = train->tokens_per_microbatch > pair ? train->tokens_per_microbatch : pair;
    request.max_rows = request.max_tokens;
    if (r == 0 && layers.count > 0)
        r = ha_dpo_plan_make(&request, &ret->plan, err);
    if (r == 0 && !(ret->layers = ha_layers_text(&layers)))
        r = ha_error_set(err, ENOMEM, "out of memory");
    ha_layers_clear(&layers);
    return r;
}

static struct ha_json *plan_json(const struct ha_model_config *config,
                                 const struct planned *planned)
{
    struct ha_json *json = ha_json_new_object(), *blocks = ha_json_new_object();
    int r = ha_json_set(json, "strategies", blocks);

    if (r < 0 ||
        ha_json_set(json, "family", ha_json_new_string(ha_model_family_name(config->family))) < 0 ||
        ha_json_set(json, "n_layers", ha_json_new_int(config->n_layers)) < 0 ||
        ha_json_set(json, "width", ha_json_new_int(config->width)) < 0 ||
        ha_json_set(json, "vocab", ha_json_new_int(config->vocab)) < 0 ||
        ha_json_set(json, "context", ha_json_new_int(config->max_position)) < 0 ||
        ha_json_set(json, "parameters", ha_json_new_int(ha_model_config_n_params(config))) < 0)
        goto fail;
    for (int i = 0; i < N_STRATEGIES; i++) {
        const struct ha_dpo_plan *plan = &planned[i].plan;
        struct ha_json *one = ha_json_new_object();

        if (ha_json_set(blocks, strategies[i], one) < 0 ||
            ha_json_set(one, "layers", ha_json_new_string(planned[i].layers)) < 0 ||
            ha_json_set(one, "trainable_parameters", ha_json_new_int(plan->n_trainable)) < 0 ||
            ha_json_set(one, "weight_bytes", ha_json_new_int(plan->weight_bytes)) < 0 ||
            ha_json_set(one, "adapter_bytes", ha_json_new_int(plan->adapter_bytes)) < 0 ||
            ha_json_set(one, "activation_bytes", ha_json_new_int(plan->pass_bytes)) < 0 ||
            ha_json_set(one, "memory_bytes", ha_json_new_int(plan->total_bytes)) < 0 ||
            ha_json_set(one, "forward_flops_per_pair", ha_json_new_real(plan->forward_flops)) < 0 ||
            ha_json_set(one, "backward_flops_per_pair", ha_json_new_real(plan->backward_flops)) <
                0 ||
            ha_json_set(one, "reference_flops_per_pair", ha_json_new_real(plan->reference_flops)) <
                0)
            goto fail;
    }
    return json;
fail:
    ha_json_destroy(json);
    return NULL;
}

static int print_json(const struct ha_model_config *config, const struct planned *planned,
                      struct ha_error *err)
{
    struct ha_json *json = plan_json(config, planned);
    char *text = json ? ha_json_dump(json, HA_JSON_PRETTY) : NULL;
    int r = text ? 0 : ha_error_set(err, ENOMEM, "out of memory");

    if (r == 0 && puts(text) == EOF)
        r = ha_error_set(err, errno, "standard output: %s", strerror(errno));
    free(text);
    ha_json_destroy(json);
    return r;
}

static void print_text(const struct ha_model_config *config, const struct planned *planned)
{
    printf("%s, %lld layers, width %lld, vocabulary %lld, %lld parameters\n\n",
           ha_model_family_name(config->family), (long long)config->n_layers,
           (long long)config->width, (long long)config->vocab,
           (long long)ha_model_config_n_params(config));
    printf("%-8s %-9s %12s %12s %12s %14s\n", "strategy", "layers", "trainable", "activations",
           "memory", "TFLOP per pair");
    for (int i = 0; i < N_STRATEGIES; i++) {
        const struct ha_dpo_plan *plan = &planned[i].plan;

        printf("%-8s %-9s %12lld %8.0f MiB %8.0f MiB %14.4f\n", strategies[i], planned[i].layers,
               (long long)plan->n_trainable, (double)plan->pass_bytes / (1 << 20),
               (double)plan->total_bytes / (1 << 20),
               (plan->forward_flops + plan->backward_flops) / 1e12);
    }
    printf("\nCPU backend: weights are read from the mapped file and not counted; activations are "
           "for the longest\npair at train.max_length; FLOPs for %d prompt and 2 x %d answer "
           "tokens, references not counted.\n",
           (int)PROMPT_TOKENS, (int)ANSWER_TOKENS);
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    struct planned planned[N_STRATEGIES] = {0};
    struct ha_model_config config;
    int r = ha_model_config_load(call->engine.model_dir, &config, err);

    for (int i = 0; r == 0 && i < N_STRATEGIES; i++)
        r = make_plan(&config, call->settings, strategies[i], &planned[i], err);
    if (r == 0 && ha_arguments_given(call->arguments, "json"))
        r = print_json(&config, planned, err);
    else if (r == 0)
        print_text(&config, planned);
    for (int i = 0; i < N_STRATEGIES; i++)
        free(planned[i].layers);
    return r;
}

static const char *const required[] = {"model", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder; config.json is enough"},
    {"set", "KEY=VALUE", "train.lora_rank=16, train.max_length=2048, ...; repeatable"},
    {"json", NULL, "print JSON"},
};

const struct ha_subcommand ha_subcommand_plan = {
    .name = "plan",
    .command = {.name = "ha-attempt plan",
                .synopsis = "",
                .summary =
                    "layers per block, trainable parameters, memory and FLOPs, by arithmetic",
                .example = "ha-attempt plan --model deploy/demo/models/qwen3-demo",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .run = run,
};
