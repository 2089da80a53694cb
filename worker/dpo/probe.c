#include "worker/dpo/probe.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "kernels/collective.h"
#include "worker/dpo/plan.h"
#include "worker/dpo/work.h"

/* Values of dW that are held at once, at least one row. */
enum { TILE_VALUES = 1 << 22 };

enum { N_WEIGHTS = HA_DPO_PROBE_ALL };

struct probe {
    struct ha_model *model;
    struct ha_backend *backend;
    const struct ha_dpo_probe_settings *settings;
    const struct ha_pair_set *set;
    struct ha_adapter_geometry geometry;
    struct ha_dpo_packs packs;
    struct ha_dpo_reference *references; /* (pairs of the set) */
    struct ha_pass *pass;
    float *coefficient; /* host (max rows) */
    void *tile;         /* device f32: rows of the largest dW */
    void *square_sums;  /* device double (n_layers, N_WEIGHTS) of one pair */
    double *squares;    /* host copy */
    double *shared;     /* (ranks + 1, shared_values): of one pair of each rank, then our own */
    struct ha_dpo_probe_result *result;
};

const char *ha_dpo_probe_module_name(int module)
{
    return module == HA_DPO_PROBE_ALL ? "all" : ha_module_name((enum ha_module)module);
}

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for a probe");
}

static size_t square_bytes(const struct probe *probe)
{
    return (size_t)(probe->geometry.n_layers * N_WEIGHTS) * sizeof(double);
}

/* What ranks tell each other of a pair. */
enum { SHARED_STOP, SHARED_TOKENS, SHARED_FLOPS, SHARED_SQUARES };

static int64_t shared_values(const struct probe *probe)
{
    return SHARED_SQUARES + probe->geometry.n_layers * N_WEIGHTS;
}

static int ranks_of(const struct probe *probe)
{
    return probe->settings->comm ? ha_comm_size(probe->settings->comm) : 1;
}

/* ---- one pair ---- */

/* Rows of a weight of so many columns that a tile holds. */
static int64_t tile_rows(int64_t cols)
{
    return cols < TILE_VALUES ? TILE_VALUES / cols : 1;
}

/* ||dy^T x||^2 into its place of square_sums, tile by tile of the rows of dW. */
static int take_factors(void *user, int64_t layer, enum ha_module module,
                        const struct ha_matrix *dy, const struct ha_matrix *x, struct ha_error *err)
{
    const struct probe *probe = user;
    const struct ha_ops *ops = ha_backend_ops(probe->backend);
    double *sum = (double *)probe->square_sums + layer * N_WEIGHTS + module;
    int64_t rows = tile_rows(x->cols);
    int r = 0;

    for (int64_t first = 0; r == 0 && first < dy->cols; first += rows) {
        int64_t count = dy->cols - first < rows ? dy->cols - first : rows;
        struct ha_matrix part = *dy;
        struct ha_matrix dw = {.data = probe->tile,
                               .dtype = HA_DTYPE_F32,
                               .rows = count,
                               .cols = x->cols,
                               .stride = x->cols};

        part.data = (char *)dy->data + (size_t)first * ha_dtype_bytes(dy->dtype);
        part.cols = count;
        r = ops->gemm(probe->backend, &dw, &part, true, x, false, 1.0f, 0.0f, err);
        if (r == 0)
            r = ops->sum_of_squares(probe->backend, sum, probe->tile, count * x->cols, err);
    }
    return r;
}

/* The loss's slopes, one for each row of the pack; the reference is the policy itself. */
static int set_coefficients(struct probe *probe, int64_t pair, const struct ha_pack *pack,
                            const struct ha_pass_rows *rows, struct ha_error *err)
{
    const struct ha_dpo_loss_settings *settings = &probe->settings->loss;
    struct ha_dpo_micro_totals totals = {.n_pairs = 1};
    struct ha_dpo_pair_result result;
    int r;

    ha_dpo_pair_result(rows, pack, 0, &result);
    probe->references[pair] = (struct ha_dpo_reference){result.logps.chosen, result.logps.rejected,
                                                        result.chosen_tail, result.rejected_tail};
    ha_dpo_take_pair(rows, pack, 0, settings, &probe->packs, pair, probe->references, &result);
    totals.n_chosen = result.logps.n_chosen;
    r = ha_dpo_loss(settings, &totals, &result.logps, 1, &result.loss, err);
    if (r < 0)
        return r;
    if (!isfinite(result.loss.value))
        return ha_error_set(err, ERANGE, "the loss of the pair in row %lld is not finite (%g)",
                            (long long)probe->set->row[pair], result.loss.value);
    ha_dpo_pair_coefficients(settings, &result.loss, 1.0, pack, 0, probe->coefficient);
    return 0;
}

static int run_pair(struct probe *probe, int64_t pair, int64_t *ret_tokens, struct ha_error *err)
{
    struct ha_pack *pack = NULL;
    struct ha_pass_rows rows;
    int r = ha_dpo_packs_make(&probe->packs, pair, 1, &pack, err);

    if (r == 0)
        r = ha_backend_zero(probe->backend, probe->square_sums, square_bytes(probe), err);
    if (r == 0)
        r = ha_pass_forward(probe->pass, pack, NULL, true, &rows, err);
    if (r == 0)
        r = set_coefficients(probe, pair, pack, &rows, err);
    if (r == 0)
        r = ha_pass_backward_frozen(probe->pass, probe->coefficient, take_factors, probe, err);
    if (r == 0)
        r = ha_backend_download(probe->backend, probe->squares, probe->square_sums,
                                square_bytes(probe), err);
    if (r == 0)
        r = ha_backend_sync(probe->backend, err);
    if (r == 0)
        *ret_tokens = pack->n_tokens;
    ha_pack_destroy(pack);
    for (int64_t i = 0; r == 0 && i < probe->geometry.n_layers * N_WEIGHTS; i++)
        if (!isfinite(probe->squares[i]))
            r = ha_error_set(
                err, ERANGE, "layer %lld: the gradient of %s of the pair in row %lld is not finite",
                (long long)(i / N_WEIGHTS), ha_dpo_probe_module_name((int)(i % N_WEIGHTS)),
                (long long)probe->set->row[pair]);
    return r;
}

/* Add the norms of a pair. */
static void add_norms(const struct probe *probe, const double *squares)
{
    for (int64_t i = 0; i < probe->result->n_norms; i++) {
        struct ha_dpo_probe_norms *norms = &probe->result->norms[i];
        double sums[HA_DPO_PROBE_MODULES] = {0};

        for (int64_t layer = norms->range.first; layer < norms->range.first + norms->range.count;
             layer++)
            for (int module = 0; module < N_WEIGHTS; module++)
                sums[module] += squares[layer * N_WEIGHTS + module];
        for (int module = 0; module < N_WEIGHTS; module++)
            sums[HA_DPO_PROBE_ALL] += sums[module];
        for (int module = 0; module < HA_DPO_PROBE_MODULES; module++)
            norms->norm[module] += sqrt(sums[module]);
    }
}

/* ---- the whole ---- */

static int check(const struct ha_dpo_probe_settings *settings, int64_t n_layers,
                 const struct ha_pair_set *pairs, struct ha_error *err)
{
    if (settings->pairs < 1 || settings->n_ranges < 0 || settings->memory_bytes < 0)
        return ha_error_set(err, EINVAL, "a probe takes at least one pair");
    if (pairs->n_pairs < 1)
        return ha_error_set(err, EINVAL, "there are no pairs to probe with");
    for (int64_t i = 0; i < settings->n_ranges; i++) {
        const struct ha_dpo_probe_range *range = &settings->ranges[i];

        if (range->first < 0 || range->count < 0 || range->first > n_layers ||
            range->count > n_layers - range->first)
            return ha_error_set(err, EINVAL, "layers %lld to %lld are not all in the model",
                                (long long)range->first,
                                (long long)(range->first + range->count - 1));
    }
    return ha_dpo_loss_check(&settings->loss, err);
}

static int make_result(struct probe *probe, struct ha_error *err)
{
    int64_t n_layers = probe->geometry.n_layers;
    struct ha_dpo_probe_result *result = ha_calloc(1, sizeof(*result));

    if (!result)
        return out_of_memory(err);
    probe->result = result;
    result->n_pairs =
        probe->settings->pairs < probe->set->n_pairs ? probe->settings->pairs : probe->set->n_pairs;
    result->n_norms = n_layers + probe->settings->n_ranges;
    result->norms = ha_calloc(result->n_norms, sizeof(*result->norms));
    if (!result->norms)
        return out_of_memory(err);
    for (int64_t i = 0; i < result->n_norms; i++) {
        struct ha_dpo_probe_norms *norms = &result->norms[i];

        norms->range = i < n_layers ? (struct ha_dpo_probe_range){i, 1}
                                    : probe->settings->ranges[i - n_layers];
        for (int module = 0; module < N_WEIGHTS; module++) {
            norms->parameters[module] =
                norms->range.count * probe->geometry.in[module] * probe->geometry.out[module];
            norms->parameters[HA_DPO_PROBE_ALL] += norms->parameters[module];
        }
    }
    return 0;
}

static int64_t tile_values(const struct probe *probe)
{
    int64_t values = 0;

    for (int module = 0; module < N_WEIGHTS; module++) {
        int64_t in = probe->geometry.in[module], out = probe->geometry.out[module];
        int64_t rows = tile_rows(in) < out ? tile_rows(in) : out;

        values = rows * in > values ? rows * in : values;
    }
    return values;
}

static int make_plan(const struct probe *probe, const struct ha_pass_limits *limits,
                     enum ha_dpo_sharding sharding, struct ha_dpo_plan *ret_plan,
                     struct ha_error *err)
{
    const struct ha_dpo_probe_settings *settings = probe->settings;
    const struct ha_pair_set *set = probe->set;
    struct ha_dpo_plan_request request = {
        .config = ha_model_config(probe->model),
        .device = {.gpu = strcmp(ha_backend_name(probe->backend), "cpu") != 0,
                   .threads = settings->threads,
                   .memory_bytes = settings->memory_bytes},
        .lora_columns = ha_model_weights(probe->model)->lora_columns,
        .probe_bytes =
            tile_values(probe) * (int64_t)sizeof(float) + 2 * (int64_t)square_bytes(probe),
        .max_tokens = limits->max_tokens,
        .max_rows = limits->max_rows,
        .max_positions = set->longest,
        .n_train = set->n_pairs,
        .n_ids = set->offset[3 * set->n_pairs],
        .stored_bytes = ha_model_weights(probe->model)->bytes,
        .comm_bytes = settings->comm_bytes,
        .ranks = settings->ranks,
        .sharding = sharding,
    };

    return ha_dpo_plan_make(&request, ret_plan, err);
}

/* Sets as few layers to run again as the memory asks for. */
static int fit_pass(struct probe *probe, struct ha_pass_limits *limits, struct ha_error *err)
{
    const struct ha_dpo_probe_settings *settings = probe->settings;
    char need[HA_MEMORY_TEXT_BYTES], have[HA_MEMORY_TEXT_BYTES];
    struct ha_dpo_plan plan;
    int r = make_plan(probe, limits,
                      ha_model_ranks(probe->model) > 1 ? HA_DPO_SHARD_ALWAYS : HA_DPO_SHARD_NEVER,
                      &plan, err);

    if (r < 0)
        return r;
    if (!plan.fits)
        return ha_error_set(
            err, EFBIG,
            "the probe needs %s with every layer run again, for a pair of %lld tokens, and %s may "
            "be used (%s); lower train.max_length, %sor raise the limit",
            ha_memory_text(plan.total_bytes, need), (long long)limits->max_tokens,
            ha_memory_text(plan.memory_bytes, have),
            settings->memory_limit ? settings->memory_limit : "the limit",
            plan.sharing_fits ? "let train.shard_weights be \"auto\", " : "");
    limits->recomputed_layers = plan.recomputed_layers;
    probe->result->recomputed_layers = plan.recomputed_layers;
    probe->result->planned_bytes = plan.total_bytes;
    return ha_pass_plan_bytes(ha_model_config(probe->model),
                              ha_backend_activation_dtype(probe->backend), limits,
                              &probe->result->pass_bytes, err);
}

/* One pair a pack: a pack's size is its longest pair's. */
static struct ha_pass_limits limits_of(const struct probe *probe)
{
    struct ha_pass_limits limits = {.max_tokens = 1,
                                    .lora_columns = ha_model_weights(probe->model)->lora_columns,
                                    .max_rows = 1,
                                    .statistics = true,
                                    .logsumexps = probe->settings->loss.use_weighting,
                                    .round_logits_bf16 = probe->settings->round_logits_bf16};

    for (int64_t i = 0; i < probe->result->n_pairs; i++) {
        const struct ha_pack_pair *pair = &probe->packs.pairs[i];
        int64_t tokens = ha_pack_pair_tokens(pair, probe->settings->share_prompt);
        int64_t rows = ha_pack_pair_rows(pair);

        limits.max_tokens = tokens > limits.max_tokens ? tokens : limits.max_tokens;
        limits.max_rows = rows > limits.max_rows ? rows : limits.max_rows;
    }
    return limits;
}

static int make_pass(struct probe *probe, struct ha_error *err)
{
    struct ha_pass_limits limits = limits_of(probe);
    int r = fit_pass(probe, &limits, err);

    if (r == 0)
        r = ha_pass_create(probe->model, &limits, &probe->pass, err);
    if (r < 0)
        return r;
    probe->coefficient = ha_calloc(limits.max_rows, sizeof(*probe->coefficient));
    return probe->coefficient ? 0 : out_of_memory(err);
}

static int make_buffers(struct probe *probe, struct ha_error *err)
{
    int r = ha_backend_alloc(probe->backend, (size_t)tile_values(probe) * sizeof(float),
                             &probe->tile, err);

    if (r == 0)
        r = ha_backend_alloc(probe->backend, square_bytes(probe), &probe->square_sums, err);
    if (r < 0)
        return r;
    probe->squares = ha_calloc(probe->geometry.n_layers * N_WEIGHTS, sizeof(*probe->squares));
    probe->references = ha_calloc(probe->set->n_pairs, sizeof(*probe->references));
    probe->shared = ha_calloc(ranks_of(probe) + 1, (size_t)shared_values(probe) * sizeof(double));
    return probe->squares && probe->references && probe->shared ? 0 : out_of_memory(err);
}

static int make_packs(struct probe *probe, struct ha_error *err)
{
    int r = make_result(probe, err);

    if (r == 0)
        r = ha_dpo_packs_init(&probe->packs, probe->set, 1, 1, 1, probe->settings->share_prompt,
                              err);
    if (r == 0)
        r = ha_dpo_packs_set_epoch(&probe->packs, 0, err);
    return r;
}

static int prepare(struct probe *probe, struct ha_error *err)
{
    int r = make_packs(probe, err);

    if (r == 0)
        r = make_pass(probe, err);
    return r < 0 ? r : make_buffers(probe, err);
}

/* One pair of each rank: what it gave comes to all, and is added in the order of pairs. */
static int run_round(struct probe *probe, int64_t first, const volatile sig_atomic_t *stop,
                     struct ha_error *err)
{
    struct ha_comm *comm = probe->settings->comm;
    struct ha_dpo_probe_result *result = probe->result;
    int ranks = ranks_of(probe), rank = comm ? ha_comm_rank(comm) : 0;
    int64_t n = shared_values(probe);
    double *own = probe->shared + (comm ? ranks * n : 0), before = ha_backend_flops(probe->backend);
    int64_t tokens = 0;
    int r = 0;

    own[SHARED_STOP] = stop && *stop;
    if (own[SHARED_STOP] == 0 && first + rank < result->n_pairs)
        r = run_pair(probe, first + rank, &tokens, err);
    own[SHARED_TOKENS] = (double)tokens;
    own[SHARED_FLOPS] = ha_backend_flops(probe->backend) - before;
    memcpy(own + SHARED_SQUARES, probe->squares, square_bytes(probe));
    if (r == 0 && comm)
        r = ha_model_idle(probe->model, err);
    if (r == 0 && comm)
        r = ha_comm_gather(comm, probe->shared, own, (size_t)n * sizeof(double), err);
    for (int i = 0; r == 0 && i < ranks; i++)
        if (probe->shared[i * n + SHARED_STOP] != 0)
            r = ha_error_set(err, EINTR, "stopped");
    for (int i = 0; r == 0 && i < ranks && first + i < result->n_pairs; i++) {
        const double *of_rank = probe->shared + i * n;

        add_norms(probe, of_rank + SHARED_SQUARES);
        result->n_tokens += (int64_t)of_rank[SHARED_TOKENS];
        result->flops += of_rank[SHARED_FLOPS];
    }
    return r;
}

static int run_pairs(struct probe *probe, ha_dpo_probe_progress progress, void *user,
                     const volatile sig_atomic_t *stop, struct ha_error *err)
{
    struct ha_dpo_probe_result *result = probe->result;
    int64_t start_ns = ha_clock_work_ns(), done = 0;
    int r = 0;

    while (r == 0 && done < result->n_pairs) {
        r = run_round(probe, done, stop, err);
        if (r < 0)
            break;
        done = result->n_pairs - done > ranks_of(probe) ? done + ranks_of(probe) : result->n_pairs;
        result->elapsed_ns = ha_clock_work_ns() - start_ns;
        if (progress)
            r = progress(user, done, result->n_pairs, result->n_tokens, result->elapsed_ns, err);
    }
    for (int64_t i = 0; i < result->n_norms; i++)
        for (int module = 0; module < HA_DPO_PROBE_MODULES; module++)
            result->norms[i].norm[module] /= (double)result->n_pairs;
    return r;
}

static void clear(struct probe *probe)
{
    ha_pass_destroy(probe->pass);
    ha_backend_free(probe->backend, probe->tile);
    ha_backend_free(probe->backend, probe->square_sums);
    ha_dpo_packs_clear(&probe->packs);
    ha_dpo_probe_result_destroy(probe->result);
    free(probe->coefficient);
    free(probe->squares);
    free(probe->references);
    free(probe->shared);
}

int ha_dpo_probe_foresee(struct ha_model *model, const struct ha_pair_set *pairs,
                         const struct ha_dpo_probe_settings *settings, struct ha_dpo_plan *ret_plan,
                         struct ha_error *err)
{
    struct probe probe = {
        .model = model, .backend = ha_model_backend(model), .settings = settings, .set = pairs};
    struct ha_pass_limits limits;
    int r;

    ha_model_config_geometry(ha_model_config(model), &probe.geometry);
    r = check(settings, probe.geometry.n_layers, pairs, err);
    if (r == 0)
        r = make_packs(&probe, err);
    if (r == 0) {
        limits = limits_of(&probe);
        r = make_plan(&probe, &limits, settings->sharding, ret_plan, err);
    }
    clear(&probe);
    return r;
}

int ha_dpo_probe(struct ha_model *model, const struct ha_pair_set *pairs,
                 const struct ha_dpo_probe_settings *settings, ha_dpo_probe_progress progress,
                 void *user, const volatile sig_atomic_t *stop,
                 struct ha_dpo_probe_result **ret_result, struct ha_error *err)
{
    struct probe probe = {
        .model = model, .backend = ha_model_backend(model), .settings = settings, .set = pairs};
    int r;

    ha_model_config_geometry(ha_model_config(model), &probe.geometry);
    r = check(settings, probe.geometry.n_layers, pairs, err);
    if (r == 0)
        r = prepare(&probe, err);
    if (r == 0)
        r = run_pairs(&probe, progress, user, stop, err);
    if (r == 0) {
        *ret_result = probe.result;
        probe.result = NULL;
    }
    clear(&probe);
    return r;
}

void ha_dpo_probe_result_destroy(struct ha_dpo_probe_result *result)
{
    if (!result)
        return;
    free(result->norms);
    free(result);
}
