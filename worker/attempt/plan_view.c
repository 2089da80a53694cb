#include "worker/attempt/plan_view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/conf/blocks.h"
#include "common/conf/json.h"
#include "kernels/collective.h"
#include "worker/attempt/generation.h"
#include "worker/attempt/generation_plan.h"
#include "worker/attempt/memory_settings.h"
#include "worker/dpo/share.h"
#include "worker/model/decode.h"

enum { PROMPT_TOKENS = 2048, CPU_SEQUENCES = 256, GPU_SEQUENCES = 4096 };

static const struct ha_plan_strategy built_in[] = {
    {"local", NULL}, {"mid", NULL}, {"global", NULL}, {"full", NULL}};

/* ---- computing ---- */

static int read_modules(const struct ha_sweep_train *train, uint32_t *ret_modules,
                        struct ha_error *err)
{
    *ret_modules = 0;
    for (int64_t i = 0; i < train->target_modules.count; i++) {
        enum ha_module module;
        int r = ha_module_parse(train->target_modules.items[i], &module, err);

        if (r < 0)
            return r;
        *ret_modules |= 1U << module;
    }
    return 0;
}

/* What all columns have in common. */
struct making {
    struct ha_plan_view *view;
    const struct ha_run_settings *settings;
    struct ha_dpo_plan_request request;
    const struct ha_plan_strategy *strategies;
    struct ha_adapter_settings adapters[HA_PLAN_STRATEGIES_MAX];
    struct ha_layers layers[HA_PLAN_STRATEGIES_MAX];
    int64_t n_cells; /* with layers: a model of one layer has no mid */
};

static struct ha_dpo_lora_way lora_way(const struct making *making)
{
    return (struct ha_dpo_lora_way){making->request.lora_columns, making->request.dropout};
}

static void start_request(struct making *making, int64_t stored_bytes)
{
    const struct ha_run_settings *settings = making->settings;
    const struct ha_sweep_train *train = &settings->train;
    const struct ha_dpo_lengths *lengths = &making->view->lengths;
    struct ha_dpo_plan_request *request = &making->request;
    double pair = lengths->prompt + lengths->chosen + lengths->rejected;

    *request = (struct ha_dpo_plan_request){
        .config = making->view->config,
        .device = making->view->device,
        .stored_bytes = stored_bytes,
        .lora_columns = ha_weights_lora_columns(making->view->device.gpu),
        .dropout = !train->disable_dropout && train->lora_dropout > 0,
        .f32_logits = strcmp(train->precision, "bf16") != 0,
        .n_train = settings->data.train_samples,
        .n_eval = settings->data.eval_samples,
        .n_window = train->batch_size * train->gradient_accumulation,
    };
    if (making->view->ranks > 1) {
        int ranks = making->view->ranks;

        request->ranks = ranks;
        request->sharding = ha_weight_sharding(settings);
        request->n_gradients = 1 + ha_dpo_share_most(train->gradient_accumulation, ranks);
        request->comm_bytes = request->device.gpu ? ha_comm_device_bytes("nccl", ranks) : 0;
    }
    request->n_ids = (int64_t)((double)(request->n_train + request->n_eval) * pair);
    ha_dpo_plan_worst_pack(train->max_length, making->view->tokens_per_microbatch, request);
}

/* The layers of a strategy, and their text. */
static int find_layers(struct making *making, int64_t i, struct ha_error *err)
{
    const struct ha_plan_strategy *strategy = &making->strategies[i];
    struct ha_plan_column *column = &making->view->columns[i];
    int64_t total = making->view->config->n_layers, count = 0;
    char lowest[32];
    int r;

    column->name = strategy->name;
    if (ha_layers_are_auto(strategy->layers)) {
        r = ha_layers_parse_auto(strategy->layers, total, &count, err);
        (void)snprintf(lowest, sizeof(lowest), "0-%lld", (long long)count - 1);
        if (r == 0)
            r = ha_layers_parse(lowest, total, &making->layers[i], err);
        column->layers = r == 0 ? ha_strdup(strategy->layers) : NULL;
    } else {
        r = ha_layers_of(strategy->name, strategy->layers, total, &making->layers[i], err);
        column->layers = r == 0 ? ha_layers_text(&making->layers[i]) : NULL;
    }
    if (r < 0)
        return ha_error_prefix(err, "strategy %s", strategy->name);
    return column->layers ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

static int make_strategy(struct making *making, int64_t i, struct ha_error *err)
{
    const struct ha_sweep_train *train = &making->settings->train;
    struct ha_plan_column *column = &making->view->columns[i];
    struct ha_adapter_settings adapter = {.rank = train->lora_rank, .alpha = train->lora_alpha};
    const struct ha_model_config *config = making->view->config;
    struct ha_dpo_plan_request request = making->request;
    int r = find_layers(making, i, err);

    if (r == 0)
        r = read_modules(train, &adapter.modules, err);
    if (r < 0 || making->layers[i].count == 0)
        return r;
    adapter.layers = making->layers[i].items;
    adapter.n_layers = making->layers[i].count;
    making->adapters[making->n_cells++] = adapter;
    request.adapters = &adapter;
    request.n_adapters = 1;
    r = ha_dpo_plan_make(&request, &column->plan, err);
    if (r < 0)
        return r;
    ha_dpo_flops_of_pair(config, &adapter, &making->view->lengths, true,
                         column->plan.lowest_layer + column->plan.recomputed_layers,
                         lora_way(making), &column->flops);
    return 0;
}

static int make_lockstep(struct making *making, struct ha_error *err)
{
    struct ha_plan_column *column = &making->view->columns[making->view->n_strategies];
    struct ha_dpo_plan_request request = making->request;
    int r;

    if (making->n_cells == 0)
        return ha_error_set(err, EINVAL, "none of the strategies trains a layer");
    request.adapters = making->adapters;
    request.n_adapters = making->n_cells;
    r = ha_dpo_plan_make(&request, &column->plan, err);
    column->name = "lockstep";
    for (int64_t i = 0; r == 0 && i < making->n_cells; i++) {
        struct ha_dpo_flops flops;

        ha_dpo_flops_of_pair(request.config, &making->adapters[i], &making->view->lengths, true,
                             column->plan.lowest_layer + column->plan.recomputed_layers,
                             lora_way(making), &flops);
        column->flops.reference = flops.reference;
        column->flops.forward += flops.forward - flops.below;
        column->flops.backward += flops.backward;
        column->flops.recompute += flops.recompute;
    }
    return r;
}

/* What is left of a pair's work after each thing that is not done: of each strategy, and of all. */
static void count_work(struct making *making)
{
    struct ha_plan_view *view = making->view;
    struct ha_plan_column *all = &view->columns[view->n_strategies];
    struct ha_dpo_kept kept = {.lockstep = all->plan.lowest_layer + all->plan.recomputed_layers};
    int64_t cell = 0;

    for (int64_t i = 0; i < view->n_strategies; i++) {
        struct ha_plan_column *column = &view->columns[i];

        if (making->layers[i].count == 0)
            continue;
        kept.alone = column->plan.lowest_layer + column->plan.recomputed_layers;
        ha_dpo_flops_by_saving(view->config, &making->adapters[cell++], &view->lengths, &kept,
                               lora_way(making), column->work);
        for (int k = 0; k < HA_DPO_SAVINGS; k++)
            all->work[k] += column->work[k];
    }
    for (int k = HA_DPO_REFERENCE_ONCE; k < HA_DPO_SAVINGS; k++)
        all->work[k] += all->flops.reference;
}

/* With weights in so many shares, as many answers at once as fit. */
static int share_generation(const struct making *making, int shards,
                            struct ha_plan_generation *generation, struct ha_error *err)
{
    const struct ha_plan_view *view = making->view;
    const struct ha_dpo_plan *plan = &view->columns[0].plan;
    enum ha_dtype act = view->device.gpu ? HA_DTYPE_BF16 : HA_DTYPE_F32;
    struct ha_decoder_limits limits = {
        .max_sequences = view->device.gpu ? GPU_SEQUENCES : CPU_SEQUENCES,
        .max_prompt_tokens = PROMPT_TOKENS,
        .max_rank = making->settings->train.lora_rank,
    };
    struct ha_dpo_weights weights = ha_dpo_plan_weights(
        view->config, view->device.gpu, shards, making->request.lora_columns, plan->mapped_bytes);
    int64_t fixed = weights.bytes + plan->part[HA_DPO_KERNELS] + making->request.comm_bytes;
    int64_t bytes, sequence;
    int r;

    generation->shards = shards;
    generation->kv_token_bytes = ha_kv_cache_bytes(view->config, act, 1);
    generation->sequence_tokens =
        (int64_t)view->lengths.prompt + making->settings->generate.max_new_tokens;
    sequence = generation->kv_token_bytes * generation->sequence_tokens;
    if (view->device.gpu && making->settings->generate.batch_invariant)
        fixed += ha_generation_separate_bytes(view->config);
    /* Logits come to the host, where the tokens are drawn. */
    if (!view->device.gpu) {
        fixed += plan->part[HA_DPO_PROGRAM];
        sequence += view->config->vocab * (int64_t)sizeof(float);
    }
    for (;; limits.max_sequences /= 2) {
        r = ha_decoder_plan_bytes(view->config, act, &limits, &bytes, err);
        if (r < 0)
            return r;
        bytes += fixed + limits.max_sequences * sequence;
        bytes += view->device.gpu ? bytes / 20 : 0;
        if (view->device.memory_bytes == 0 || bytes <= view->device.memory_bytes ||
            limits.max_sequences == 1)
            break;
    }
    generation->sequences = limits.max_sequences;
    generation->total_bytes = bytes;
    generation->fits = view->device.memory_bytes == 0 || bytes <= view->device.memory_bytes;
    return 0;
}

/* Ranks share the weights as they do when they answer (generation.c). */
static int make_generation(struct making *making, struct ha_error *err)
{
    struct ha_plan_generation *generation = &making->view->generation;
    enum ha_dpo_sharding sharding = making->request.sharding;
    int ranks = making->view->ranks;
    int r = share_generation(making, 1, generation, err);

    if (r < 0 || ranks == 1 || sharding == HA_DPO_SHARD_NEVER)
        return r;
    if (sharding == HA_DPO_SHARD_ALWAYS ||
        (making->view->device.gpu &&
         (!generation->fits || generation->sequences < HA_GENERATION_FEWEST)))
        r = share_generation(making, ranks, generation, err);
    return r;
}

static int make_columns(struct making *making, struct ha_error *err)
{
    struct ha_plan_view *view = making->view;
    int r = 0;

    view->columns = ha_calloc(view->n_strategies + 1, sizeof(*view->columns));
    if (!view->columns)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t i = 0; r == 0 && i < view->n_strategies; i++)
        r = make_strategy(making, i, err);
    if (r == 0)
        r = make_lockstep(making, err);
    if (r == 0)
        count_work(making);
    return r;
}

int ha_plan_view_make(const struct ha_plan_view_request *request, struct ha_plan_view *ret_view,
                      struct ha_error *err)
{
    struct ha_plan_view view = {.config = request->config,
                                .device = request->device,
                                .ranks = request->ranks > 1 ? request->ranks : 1,
                                .max_length = request->settings->train.max_length,
                                .lengths = request->lengths ? *request->lengths
                                                            : ha_dpo_hh_lengths(request->config),
                                .of_hh = !request->lengths,
                                .n_strategies = request->n_strategies};
    struct making making = {
        .view = &view, .settings = request->settings, .strategies = request->strategies};
    int r = ha_token_budget(request->config, request->settings, request->device.gpu,
                            &view.tokens_per_microbatch, err);

    if (!request->strategies) {
        making.strategies = built_in;
        view.n_strategies = sizeof(built_in) / sizeof(built_in[0]);
    }
    if (r == 0)
        start_request(&making, request->stored_bytes);
    if (r == 0)
        r = make_columns(&making, err);
    if (r == 0)
        r = make_generation(&making, err);
    for (int64_t i = 0; i < view.n_strategies; i++)
        ha_layers_clear(&making.layers[i]);
    if (r < 0) {
        ha_plan_view_clear(&view);
        return r;
    }
    *ret_view = view;
    return 0;
}

void ha_plan_view_clear(struct ha_plan_view *view)
{
    for (int64_t i = 0; view->columns && i <= view->n_strategies; i++)
        free(view->columns[i].layers);
    free(view->columns);
    *view = (struct ha_plan_view){0};
}

/* ---- text ---- */

static void print_line(const struct ha_plan_view *view, const char *what,
                       double (*value)(const struct ha_plan_column *column), int digits)
{
    printf("%-42s", what);
    for (int64_t i = 0; i <= view->n_strategies; i++)
        printf(" %11.*f", digits, value(&view->columns[i]));
    puts("");
}

static double trainable(const struct ha_plan_column *column)
{
    return (double)column->plan.n_trainable;
}

static double total_mib(const struct ha_plan_column *column)
{
    return (double)column->plan.total_bytes / (1 << 20);
}

static double host_mib(const struct ha_plan_column *column)
{
    return (double)column->plan.host_bytes / (1 << 20);
}

static double run_again(const struct ha_plan_column *column)
{
    return (double)column->plan.recomputed_layers;
}

static double shards(const struct ha_plan_column *column)
{
    return (double)column->plan.shards;
}

static double gathered_mib(const struct ha_plan_column *column)
{
    return (double)column->plan.gathered_bytes / (1 << 20);
}

static double ratio(const struct ha_plan_column *column)
{
    const double *work = column->work;

    return work[HA_DPO_LOCKSTEP] > 0 ? work[HA_DPO_NOTHING_SAVED] / work[HA_DPO_LOCKSTEP] : 0;
}

/* What is left of the work after each thing that is not done. */
static void print_work(const struct ha_plan_view *view)
{
    puts("TFLOP per pair, after each");
    for (int k = 0; k < HA_DPO_SAVINGS; k++) {
        printf("  %-40s", ha_dpo_saving_text((enum ha_dpo_saving)k));
        for (int64_t i = 0; i <= view->n_strategies; i++)
            printf(" %#11.4g", view->columns[i].work[k] / 1e12);
        puts("");
    }
    print_line(view, "TRL over lock-step", ratio, 1);
}

static void print_part(const struct ha_plan_view *view, enum ha_dpo_part part)
{
    bool any = false;

    for (int64_t i = 0; i <= view->n_strategies; i++)
        any = any || view->columns[i].plan.part[part] > 0;
    if (!any || (view->device.gpu && ha_dpo_part_of_host(part)))
        return;
    printf("  %-40s", ha_dpo_part_text(part));
    for (int64_t i = 0; i <= view->n_strategies; i++)
        printf(" %11.1f", (double)view->columns[i].plan.part[part] / (1 << 20));
    puts("");
}

static void print_head(const struct ha_plan_view *view)
{
    char limit[HA_MEMORY_TEXT_BYTES];

    printf("%s, %s: MiB\n", view->device.gpu ? "GPU, bf16" : "CPU, f32",
           view->device.memory_bytes > 0 ? ha_memory_text(view->device.memory_bytes, limit)
                                         : "as much memory as it takes");
    printf("%-42s", "");
    for (int64_t i = 0; i <= view->n_strategies; i++)
        printf(" %11s", view->columns[i].name);
    printf("\n%-42s", "layers");
    for (int64_t i = 0; i < view->n_strategies; i++)
        printf(" %11s", view->columns[i].layers);
    puts("");
}

static void print_notes(const struct ha_plan_view *view)
{
    const struct ha_plan_generation *generation = &view->generation;
    const struct ha_dpo_lengths *lengths = &view->lengths;
    char mapped[HA_MEMORY_TEXT_BYTES], total[HA_MEMORY_TEXT_BYTES], kv[HA_MEMORY_TEXT_BYTES];

    ha_memory_text(view->columns[0].plan.mapped_bytes, mapped);
    if (view->device.gpu)
        printf(
            "Weights stream from the mapped files (%s) through pinned buffers and are held once, "
            "in bf16,\nq, k, v and gate, up of a layer joined.\n",
            mapped);
    else
        printf("Weights (%s) are read where the files are mapped: page cache, no copy.\n", mapped);
    printf(
        "Activations are for the largest pack: two answers of train.max_length = %lld that "
        "share nothing, or\ntrain.tokens_per_microbatch = %lld.  TFLOP for a pair of %.5g prompt "
        "and %.5g + %.5g answer tokens (the mean of %s;\n%.5g with padding), for lockstep the sum "
        "of "
        "the strategies, from 4 on with one pass of the reference.\n",
        (long long)view->max_length, (long long)view->tokens_per_microbatch, lengths->prompt,
        lengths->chosen, lengths->rejected, view->of_hh ? "hh-rlhf" : "the pairs given",
        lengths->padded);
    printf("Generation: %s of KV cache a token; %lld answers of %lld tokens at once take %s.\n",
           ha_memory_text(generation->kv_token_bytes, kv), (long long)generation->sequences,
           (long long)generation->sequence_tokens, ha_memory_text(generation->total_bytes, total));
    if (view->ranks > 1)
        printf("Of each of %d ranks, with weights in %d share%s.\n", view->ranks,
               generation->shards, generation->shards == 1 ? "" : "s");
    if (!generation->fits)
        puts("It does not fit: answers need more GPUs that share the weights (resources.gpus, "
             "train.shard_weights),\nlarger ones, or the CPU.");
}

void ha_plan_view_print(const struct ha_plan_view *view)
{
    print_head(view);
    print_line(view, "trainable values", trainable, 0);
    for (int i = 0; i < HA_DPO_PARTS; i++)
        print_part(view, (enum ha_dpo_part)i);
    print_line(view, "memory", total_mib, 1);
    if (view->device.gpu)
        print_line(view, "beside it, of the host", host_mib, 1);
    print_line(view, "layers run again", run_again, 0);
    if (view->ranks > 1) {
        print_line(view, "ranks that share the weights", shards, 0);
        print_line(view, "of them from others, a pass forward, MiB", gathered_mib, 1);
    }
    printf("%-42s", "fits");
    for (int64_t i = 0; i <= view->n_strategies; i++)
        printf(" %11s", view->columns[i].plan.fits ? "yes" : "no");
    puts("");
    print_work(view);
    print_notes(view);
}

/* ---- JSON ---- */

static int set_int(struct ha_json *json, const char *key, int64_t value)
{
    return ha_json_set(json, key, ha_json_new_int(value));
}

static int set_real(struct ha_json *json, const char *key, double value)
{
    return ha_json_set(json, key, ha_json_new_real(value));
}

static int fill_parts(struct ha_json *json, const struct ha_dpo_plan *plan)
{
    int r = 0;

    for (int i = 0; r == 0 && i < HA_DPO_PARTS; i++)
        r = set_int(json, ha_dpo_part_name((enum ha_dpo_part)i), plan->part[i]);
    return r;
}

static int fill_work(struct ha_json *json, const double *work)
{
    int r = 0;

    for (int i = 0; r == 0 && i < HA_DPO_SAVINGS; i++)
        r = set_real(json, ha_dpo_saving_name((enum ha_dpo_saving)i), work[i]);
    return r;
}

static int fill_column(struct ha_json *json, const struct ha_plan_column *column)
{
    const struct ha_dpo_plan *plan = &column->plan;
    const struct ha_dpo_flops *flops = &column->flops;
    const int64_t *part = plan->part;
    struct ha_json *parts = ha_json_new_object(), *work;
    int r = ha_json_set(json, "parts", parts);

    if (r == 0)
        r = fill_parts(parts, plan);
    work = ha_json_new_object();
    if (ha_json_set(json, "flops_per_pair_after", work) < 0)
        r = -ENOMEM;
    if (r == 0)
        r = fill_work(work, column->work);
    if (r == 0 && column->layers)
        r = ha_json_set(json, "layers", ha_json_new_string(column->layers));
    if (r < 0 || set_int(json, "trainable_parameters", plan->n_trainable) < 0 ||
        set_int(json, "weight_bytes",
                part[HA_DPO_WEIGHTS] > 0 ? part[HA_DPO_WEIGHTS] : plan->mapped_bytes) < 0 ||
        set_int(json, "mapped_bytes", plan->mapped_bytes) < 0 ||
        set_int(json, "adapter_bytes",
                part[HA_DPO_ADAPTERS] + part[HA_DPO_GRADIENTS] + part[HA_DPO_MOMENTS]) < 0 ||
        set_int(json, "activation_bytes",
                part[HA_DPO_RESIDUAL] + part[HA_DPO_KEPT] + part[HA_DPO_WORK] + part[HA_DPO_HEAD] +
                    part[HA_DPO_BORDERS]) < 0 ||
        set_int(json, "memory_bytes", plan->total_bytes) < 0 ||
        set_int(json, "host_bytes", plan->host_bytes) < 0 ||
        set_int(json, "recomputed_layers", plan->recomputed_layers) < 0 ||
        set_int(json, "weight_shards", plan->shards) < 0 ||
        set_int(json, "gathered_bytes_per_forward", plan->gathered_bytes) < 0 ||
        ha_json_set(json, "fits", ha_json_new_bool(plan->fits)) < 0 ||
        set_real(json, "forward_flops_per_pair", flops->forward) < 0 ||
        set_real(json, "backward_flops_per_pair", flops->backward) < 0 ||
        set_real(json, "recompute_flops_per_pair", flops->recompute) < 0 ||
        set_real(json, "reference_flops_per_pair", flops->reference) < 0 ||
        set_real(json, "lockstep_flops_per_pair", column->work[HA_DPO_LOCKSTEP]) < 0 ||
        set_real(json, "trl_flops_per_pair", column->work[HA_DPO_NOTHING_SAVED]) < 0)
        return -ENOMEM;
    return 0;
}

static int fill_strategies(struct ha_json *json, const struct ha_plan_view *view)
{
    struct ha_json *all = ha_json_new_object(), *lockstep;
    int r = ha_json_set(json, "strategies", all);

    for (int64_t i = 0; r == 0 && i < view->n_strategies; i++) {
        struct ha_json *one = ha_json_new_object();

        r = ha_json_set(all, view->columns[i].name, one);
        if (r == 0)
            r = fill_column(one, &view->columns[i]);
    }
    if (r < 0)
        return r;
    lockstep = ha_json_new_object();
    r = ha_json_set(json, "lockstep", lockstep);
    return r < 0 ? r : fill_column(lockstep, &view->columns[view->n_strategies]);
}

static int fill_rest(struct ha_json *json, const struct ha_plan_view *view)
{
    const struct ha_plan_generation *from = &view->generation;
    struct ha_json *generation = ha_json_new_object(), *lengths;
    int r = ha_json_set(json, "generation", generation);

    if (r < 0 || set_int(generation, "kv_bytes_per_token", from->kv_token_bytes) < 0 ||
        set_int(generation, "tokens_per_sequence", from->sequence_tokens) < 0 ||
        set_int(generation, "sequences", from->sequences) < 0 ||
        set_int(generation, "memory_bytes", from->total_bytes) < 0 ||
        set_int(generation, "weight_shards", from->shards) < 0 ||
        ha_json_set(generation, "fits", ha_json_new_bool(from->fits)) < 0)
        return -ENOMEM;
    lengths = ha_json_new_object();
    if (ha_json_set(json, "pair_tokens", lengths) < 0 ||
        set_real(lengths, "prompt", view->lengths.prompt) < 0 ||
        set_real(lengths, "chosen", view->lengths.chosen) < 0 ||
        set_real(lengths, "rejected", view->lengths.rejected) < 0 ||
        set_real(lengths, "padded", view->lengths.padded) < 0)
        return -ENOMEM;
    if (set_int(json, "memory_limit_bytes", view->device.memory_bytes) < 0 ||
        set_int(json, "tokens_per_microbatch", view->tokens_per_microbatch) < 0 ||
        set_int(json, "max_length", view->max_length) < 0 ||
        set_int(json, "ranks", view->ranks) < 0)
        return -ENOMEM;
    return 0;
}

struct ha_json *ha_plan_view_json(const struct ha_plan_view *view)
{
    struct ha_json *json = ha_json_new_object();

    if (json && fill_strategies(json, view) == 0 && fill_rest(json, view) == 0)
        return json;
    ha_json_destroy(json);
    return NULL;
}
