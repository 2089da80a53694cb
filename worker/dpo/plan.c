#include "worker/dpo/plan.h"

#include <errno.h>
#include <stdio.h>

#include "common/base/error.h"
#include "common/base/memory_use.h"
#include "kernels/scratch.h"
#include "worker/dpo/lockstep.h"
#include "worker/dpo/packs.h"
#include "worker/dpo/work.h"
#include "worker/model/model.h"
#include "worker/model/shard_layout.h"

#define MIB ((int64_t)1 << 20)

enum {
    GPU_ROW_VALUES = 8, /* rows of an operand that is converted are a multiple of them */
    GPU_MARGIN_PERCENT = 5,
    TOKENIZER_ID_BYTES = 600, /* measured: 450 to 590 bytes a vocabulary entry */
    THREAD_BYTES = 64 << 10,  /* of a stack that is touched */
    PAIR_BYTES = 5 * 8 + 24,  /* offsets, row, order, and a pair's view */
};
#define PROGRAM_BYTES (2 * MIB)
#define MAX_VALUES (INT64_C(1) << 46) /* of an adapter: sums over all cells stay in range */

static const struct {
    const char *name, *text;
    bool host;
} parts[HA_DPO_PARTS] = {
    [HA_DPO_WEIGHTS] = {"weights", "frozen weights", false},
    [HA_DPO_RESIDUAL] = {"residual_activations", "activations: inputs of trained layers", false},
    [HA_DPO_KEPT] = {"kept_activations", "activations: kept for the backward pass", false},
    [HA_DPO_WORK] = {"work_activations", "activations: layer in work", false},
    [HA_DPO_HEAD] = {"head_rows", "scored rows", false},
    [HA_DPO_BORDERS] = {"border_states", "states at the cells' borders", false},
    [HA_DPO_KERNELS] = {"kernel_scratch", "logits chunk and scratch of kernels", false},
    [HA_DPO_ADAPTERS] = {"adapters", "adapters", false},
    [HA_DPO_GRADIENTS] = {"gradients", "gradients", false},
    [HA_DPO_MOMENTS] = {"moments", "optimizer moments", false},
    [HA_DPO_CHECKPOINT] = {"checkpoint_buffer", "a checkpoint on its way", true},
    [HA_DPO_DATA] = {"data", "tokenised data, references, results", true},
    [HA_DPO_PROGRAM] = {"program", "program, threads, tokenizer", true},
    [HA_DPO_MARGIN] = {"margin", "margin for driver and allocator", false},
};

const char *ha_dpo_part_name(enum ha_dpo_part part)
{
    return parts[part].name;
}

const char *ha_dpo_part_text(enum ha_dpo_part part)
{
    return parts[part].text;
}

bool ha_dpo_part_of_host(enum ha_dpo_part part)
{
    return parts[part].host;
}

void ha_dpo_plan_worst_pack(int64_t max_length, int64_t tokens_per_microbatch,
                            struct ha_dpo_plan_request *request)
{
    request->max_tokens =
        tokens_per_microbatch > 2 * max_length ? tokens_per_microbatch : 2 * max_length;
    /* Every token may be an answer's. */
    request->max_rows = request->max_tokens;
    request->max_positions = max_length;
}

/* ---- parts ---- */

/* What the parts are made from. */
struct job {
    const struct ha_dpo_plan_request *request;
    enum ha_dtype act;
    struct ha_adapter_geometry geometry;
    int64_t n_trainable, largest; /* LoRA values: of all cells, of one */
    int64_t max_rank;
    uint32_t modules; /* of any cell */
    int64_t lowest[HA_DPO_MAX_CELLS];
    int64_t lowest_layer;
};

static int read_adapters(struct job *job, struct ha_error *err)
{
    const struct ha_dpo_plan_request *request = job->request;

    if (request->n_adapters < 0 || request->n_adapters > HA_DPO_MAX_CELLS)
        return ha_error_set(err, EINVAL, "%lld cells in one job; 1 to %d are possible",
                            (long long)request->n_adapters, (int)HA_DPO_MAX_CELLS);
    job->max_rank = request->reference_rank;
    job->lowest_layer = request->n_adapters > 0 ? request->config->n_layers : 0;
    for (int64_t i = 0; i < request->n_adapters; i++) {
        const struct ha_adapter_settings *adapter = &request->adapters[i];
        int64_t n = 0;
        int r = ha_adapter_count_params(&job->geometry, adapter, &n, err);

        if (r < 0)
            return r;
        if (n > MAX_VALUES)
            return ha_error_set(err, EOVERFLOW, "an adapter of %lld values is too large",
                                (long long)n);
        job->n_trainable += n;
        job->largest = n > job->largest ? n : job->largest;
        job->max_rank = adapter->rank > job->max_rank ? adapter->rank : job->max_rank;
        job->modules |= adapter->modules;
        job->lowest[i] = adapter->layers[0];
        if (job->lowest[i] < job->lowest_layer)
            job->lowest_layer = job->lowest[i];
    }
    return 0;
}

static int64_t padded(int64_t n)
{
    return (n + GPU_ROW_VALUES - 1) / GPU_ROW_VALUES * GPU_ROW_VALUES;
}

/* Values of the largest A or B, which products on a GPU round to bf16 first, where they are no
 * columns of weights. */
static int64_t operand_values(const struct job *job)
{
    int64_t most = 0;

    for (int module = 0; module < HA_MODULE_COUNT; module++) {
        int64_t a = job->max_rank * padded(job->geometry.in[module]);
        int64_t b = job->geometry.out[module] * padded(job->max_rank);

        if (!(job->modules >> module & 1) ||
            ha_weights_lora_fits(job->request->lora_columns, (enum ha_module)module, job->max_rank))
            continue;
        most = a > most ? a : most;
        most = b > most ? b : most;
    }
    return most;
}

static int64_t kernel_bytes(const struct job *job)
{
    const struct ha_dpo_plan_request *request = job->request;
    const struct ha_model_config *config = request->config;
    struct ha_scratch_shape shape = {.threads = request->device.threads,
                                     .head_rows = request->max_rows,
                                     .vocab = config->vocab,
                                     .f32_logits = request->f32_logits,
                                     .attention = true,
                                     .backward = true,
                                     .n_heads = config->n_heads,
                                     .n_kv_heads = config->n_kv_heads,
                                     .head_dim = config->head_dim,
                                     .n_params = job->largest,
                                     .n_tokens = request->max_tokens,
                                     .operand_values = operand_values(job)};
    int64_t table = request->max_positions * config->head_dim * (int64_t)sizeof(float);

    return table +
           (request->device.gpu ? ha_gpu_scratch_bytes(&shape) : ha_cpu_scratch_bytes(&shape));
}

/* Pairs of both sets, the pack in work, and what its rows give. */
static int64_t data_bytes(const struct ha_dpo_plan_request *request)
{
    int64_t pairs = request->n_train + request->n_eval;
    /* Of every cell: an evaluation keeps all of them until its last pack. */
    int64_t results = (request->n_window + request->n_eval) * request->n_adapters;

    return 4 * request->n_ids +
           pairs * (PAIR_BYTES +
                    (int64_t)(sizeof(struct ha_pack_pair) + sizeof(struct ha_dpo_reference))) +
           results * (int64_t)sizeof(struct ha_dpo_pair_result) +
           (request->dropout ? 16 : 8) * request->max_tokens + 36 * request->max_rows;
}

int64_t ha_dpo_program_bytes(const struct ha_model_config *config, int threads)
{
    return PROGRAM_BYTES + TOKENIZER_ID_BYTES * config->vocab +
           (int64_t)THREAD_BYTES * (threads > 0 ? threads : 16);
}

static struct ha_pass_limits limits_of(const struct job *job, int64_t recomputed)
{
    return (struct ha_pass_limits){
        .max_tokens = job->request->max_tokens > 0 ? job->request->max_tokens : 1,
        .max_rows = job->request->max_rows,
        .max_rank = job->max_rank,
        .dropout_width =
            job->request->dropout ? ha_adapter_widest_input(&job->geometry, job->modules) : 0,
        .lowest_layer = job->lowest_layer,
        .recomputed_layers = recomputed,
        .statistics = true,
        .lora_columns = job->request->lora_columns,
    };
}

struct ha_dpo_weights ha_dpo_plan_weights(const struct ha_model_config *config, bool gpu,
                                          int shards, int64_t lora_columns, int64_t stored_bytes)
{
    int64_t n = ha_model_config_n_params(config);
    /* Files of f32 have 4 bytes a parameter, others 2; what is between is held as f32. */
    int64_t value = gpu || stored_bytes <= 2 * n + n / 2 ? 2 : 4;
    struct ha_dpo_weights weights = {
        .bytes = gpu ? 2 * n + ha_weights_lora_bytes(config, lora_columns) : 0};
    struct ha_shard_layout layout;

    if (shards == 1)
        return weights;
    ha_shard_layout_make(config, shards, value, lora_columns, &layout);
    weights.gathered_bytes = ha_shard_layout_forward_bytes(&layout);
    /* What is not shared stays in the mapped files on the CPU. */
    weights.bytes = layout.total_bytes - (gpu ? 0 : layout.resident_bytes);
    return weights;
}

/* Everything but the activations, which depend on the layers run again. */
static int fixed_parts(const struct job *job, struct ha_dpo_plan *plan, struct ha_error *err)
{
    const struct ha_dpo_plan_request *request = job->request;
    int64_t value = (int64_t)sizeof(float), *part = plan->part;
    int64_t stored = request->stored_bytes > 0 ? request->stored_bytes : 2 * plan->n_params;
    struct ha_dpo_weights weights = ha_dpo_plan_weights(
        request->config, request->device.gpu, plan->shards, request->lora_columns, stored);

    plan->mapped_bytes = stored;
    plan->gathered_bytes = weights.gathered_bytes;
    part[HA_DPO_WEIGHTS] = weights.bytes;
    part[HA_DPO_KERNELS] = kernel_bytes(job);
    part[HA_DPO_ADAPTERS] =
        value * (job->n_trainable + (request->reference_rank > 0 ? job->largest : 0));
    part[HA_DPO_GRADIENTS] =
        value * job->n_trainable * (request->n_gradients > 0 ? request->n_gradients : 1) +
        request->comm_bytes + request->probe_bytes;
    part[HA_DPO_MOMENTS] = 2 * value * job->n_trainable;
    part[HA_DPO_CHECKPOINT] = 3 * value * job->largest;
    part[HA_DPO_DATA] = data_bytes(request);
    part[HA_DPO_PROGRAM] = ha_dpo_program_bytes(request->config, request->device.threads);
    return ha_dpo_border_bytes(request->config, job->act, request->max_tokens, job->lowest,
                               request->n_adapters, &part[HA_DPO_BORDERS], err);
}

static int add_up(struct ha_dpo_plan *plan, bool gpu, struct ha_error *err)
{
    bool overflow = false;

    plan->part[HA_DPO_MARGIN] = 0;
    plan->total_bytes = 0;
    plan->host_bytes = gpu ? ha_gpu_pinned_bytes() : 0;
    for (int i = 0; i < HA_DPO_PARTS; i++) {
        int64_t *sum = gpu && parts[i].host ? &plan->host_bytes : &plan->total_bytes;

        overflow = overflow || __builtin_add_overflow(*sum, plan->part[i], sum);
    }
    if (gpu)
        plan->part[HA_DPO_MARGIN] = plan->total_bytes / 100 * GPU_MARGIN_PERCENT;
    if (overflow ||
        __builtin_add_overflow(plan->total_bytes, plan->part[HA_DPO_MARGIN], &plan->total_bytes))
        return ha_error_set(err, EOVERFLOW, "the job needs more memory than can be addressed");
    plan->fits = plan->memory_bytes == 0 || plan->total_bytes <= plan->memory_bytes;
    return 0;
}

/* The plan with so many layers run again. */
static int with_recompute(const struct job *job, int64_t recomputed, struct ha_dpo_plan *plan,
                          struct ha_error *err)
{
    struct ha_pass_limits limits = limits_of(job, recomputed);
    struct ha_pass_sizes sizes;
    int r = ha_pass_plan(job->request->config, job->act, &limits, &sizes, err);

    if (r < 0)
        return r;
    plan->recomputed_layers = recomputed;
    plan->part[HA_DPO_RESIDUAL] = sizes.residual;
    plan->part[HA_DPO_KEPT] = sizes.kept;
    plan->part[HA_DPO_WORK] = sizes.scratch;
    plan->part[HA_DPO_HEAD] = sizes.head;
    return add_up(plan, job->request->device.gpu, err);
}

static int check_sizes(const struct ha_dpo_plan_request *request, struct ha_error *err)
{
    const int64_t sizes[] = {request->max_tokens, request->max_rows, request->max_positions,
                             request->n_train,    request->n_eval,   request->n_window,
                             request->probe_bytes};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (sizes[i] < 0 || sizes[i] > INT32_MAX)
            return ha_error_set(err, EINVAL, "a size of the plan is out of range: %lld",
                                (long long)sizes[i]);
    }
    if (request->n_ids < 0 || request->n_ids > INT64_MAX / 16 || request->device.memory_bytes < 0 ||
        request->stored_bytes < 0 || request->ranks < 0 || request->ranks > HA_COMM_MAX_RANKS)
        return ha_error_set(err, EINVAL, "a size of the plan is out of range");
    return 0;
}

/* The plan with weights in so many shares, with the fewest layers run again that let it fit, or
 * with all. */
static int with_shards(struct job *job, int shards, struct ha_dpo_plan *plan, struct ha_error *err)
{
    int64_t low = 0, high;
    int r;

    plan->shards = shards;
    r = fixed_parts(job, plan, err);
    if (r == 0)
        r = with_recompute(job, 0, plan, err);
    /* The fewest in (low, high] that fit, or all. */
    high = job->request->config->n_layers - job->lowest_layer - 1;
    while (r == 0 && !plan->fits && low < high) {
        int64_t middle = low + (high - low) / 2;

        r = with_recompute(job, middle, plan, err);
        if (plan->fits)
            high = middle;
        else
            low = middle + 1;
        plan->fits = false;
    }
    if (r == 0 && low > 0)
        r = with_recompute(job, low, plan, err);
    return r;
}

int ha_dpo_plan_make(const struct ha_dpo_plan_request *request, struct ha_dpo_plan *ret_plan,
                     struct ha_error *err)
{
    struct job job = {.request = request,
                      .act = request->device.gpu ? HA_DTYPE_BF16 : HA_DTYPE_F32};
    struct ha_dpo_plan plan = {.n_params = ha_model_config_n_params(request->config),
                               .memory_bytes = request->device.memory_bytes},
                       shared;
    bool gang = request->ranks > 1, always = gang && request->sharding == HA_DPO_SHARD_ALWAYS;
    int r = check_sizes(request, err);

    ha_model_config_geometry(request->config, &job.geometry);
    if (r == 0)
        r = read_adapters(&job, err);
    plan.n_trainable = job.n_trainable;
    plan.lowest_layer = job.lowest_layer;
    if (r == 0)
        r = with_shards(&job, always ? request->ranks : 1, &plan, err);
    if (r == 0 && !plan.fits && !always && gang && request->device.gpu) {
        shared = plan;
        r = with_shards(&job, request->ranks, &shared, err);
        plan.sharing_fits = shared.fits;
        if (request->sharding == HA_DPO_SHARD_AUTO)
            plan = shared;
    }
    if (r == 0)
        *ret_plan = plan;
    return r;
}

int ha_dpo_plan_check(const struct ha_dpo_plan *plan, const char *limit, struct ha_error *err)
{
    char needed[HA_MEMORY_TEXT_BYTES], there[HA_MEMORY_TEXT_BYTES], packs[HA_MEMORY_TEXT_BYTES];
    char shared[64] = "";
    const int64_t *part = plan->part;

    if (plan->fits)
        return 0;
    if (plan->shards > 1)
        (void)snprintf(shared, sizeof(shared), " and the weights shared by %d ranks", plan->shards);
    return ha_error_set(
        err, EFBIG,
        "the training needs %s with every layer run again%s (%s of it for its largest pack), and "
        "%s may be used (%s); lower train.max_length or train.tokens_per_microbatch, train fewer "
        "cells in one job, %sor raise the limit",
        ha_memory_text(plan->total_bytes, needed), shared,
        ha_memory_text(part[HA_DPO_RESIDUAL] + part[HA_DPO_KEPT] + part[HA_DPO_WORK] +
                           part[HA_DPO_HEAD] + part[HA_DPO_BORDERS],
                       packs),
        ha_memory_text(plan->memory_bytes, there), limit,
        plan->sharing_fits ? "let train.shard_weights be \"auto\", " : "");
}

/* ---- the token budget ---- */

enum { TOKENS_LEAST = 1024, TOKENS_UNSTATED = 4096, TOKENS_MOST = 16384, CANONICAL_RANK = 16 };

int ha_dpo_plan_tokens(const struct ha_model_config *config, const struct ha_dpo_device *device,
                       int64_t max_length, int64_t *ret_tokens, struct ha_error *err)
{
    int64_t layers[HA_ADAPTER_MAX_LAYERS], tokens = TOKENS_LEAST;
    struct ha_adapter_settings adapter = {.rank = CANONICAL_RANK,
                                          .alpha = CANONICAL_RANK,
                                          .modules = (1u << HA_MODULE_COUNT) - 1,
                                          .layers = layers,
                                          .n_layers = config->n_layers};
    struct ha_dpo_plan_request request = {.config = config,
                                          .device = *device,
                                          .adapters = &adapter,
                                          .n_adapters = 1,
                                          .lora_columns = ha_weights_lora_columns(device->gpu)};

    if (device->memory_bytes == 0) {
        *ret_tokens = TOKENS_UNSTATED;
        return 0;
    }
    for (int64_t i = 0; i < config->n_layers; i++)
        layers[i] = i;
    /* Threads differ from machine to machine. */
    request.device.threads = 1;
    for (int64_t more = TOKENS_LEAST; more <= TOKENS_MOST; more *= 2) {
        struct ha_dpo_plan plan;
        int r;

        ha_dpo_plan_worst_pack(max_length, more, &request);
        r = ha_dpo_plan_make(&request, &plan, err);
        if (r < 0)
            return r;
        if (!plan.fits || plan.recomputed_layers > 0)
            break;
        tokens = more;
    }
    *ret_tokens = tokens;
    return 0;
}
