/* Making and unmaking a trainer. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/work.h"

static int check_job(const struct ha_dpo_job *job, const struct ha_dpo_cell *cells, int64_t n_cells,
                     struct ha_error *err)
{
    if (!job->train || job->train->n_pairs < 1)
        return ha_error_set(err, EINVAL, "there are no training pairs");
    if (job->batch_size < 1 || job->gradient_accumulation < 1 || job->epochs < 1 ||
        job->tokens_per_microbatch < 1 || job->max_steps < 0 || job->eval_steps < 0 ||
        job->checkpoint_every_ms < 0 || job->checkpoint_steps < 0 || job->recomputed_layers < 0 ||
        job->memory_bytes < 0 || job->batch_size > INT32_MAX / job->gradient_accumulation ||
        job->epochs > INT32_MAX || job->ranks < 0 || job->ranks > HA_COMM_MAX_RANKS ||
        job->rank < 0 || (job->ranks > 0 && job->rank >= job->ranks))
        return ha_error_set(err, EINVAL, "a setting of the training job is out of range");
    if (job->ranks > job->gradient_accumulation)
        return ha_error_set(err, EINVAL,
                            "a gang of %d has more ranks than an optimizer step has micro-batches "
                            "(train.gradient_accumulation = %lld): some would have nothing to do",
                            job->ranks, (long long)job->gradient_accumulation);
    if (n_cells < 1)
        return ha_error_set(err, EINVAL, "a training job needs at least one cell");
    for (int64_t i = 0; i < n_cells; i++) {
        const struct ha_dpo_cell *cell = &cells[i];
        int r = ha_dpo_loss_check(&cell->loss, err);

        if (r < 0) {
            ha_error_prefix(err, "cell %s", cell->name ? cell->name : "");
            return r;
        }
        if (!(cell->learning_rate >= 0) || !isfinite(cell->learning_rate) ||
            cell->warmup_steps < 0 || !(cell->weight_decay >= 0) ||
            !(cell->beta1 >= 0 && cell->beta1 < 1) || !(cell->beta2 >= 0 && cell->beta2 < 1) ||
            !(cell->eps > 0) || !(cell->max_grad_norm >= 0) ||
            !(cell->dropout >= 0 && cell->dropout < 1))
            return ha_error_set(err, EINVAL, "cell %s: a setting of its training is out of range",
                                cell->name ? cell->name : "");
        if (cell->dropout > 0 && job->epochs > HA_PASS_MAX_DROPOUT_EPOCHS)
            return ha_error_set(err, EINVAL, "cell %s: dropout has masks for %d epochs at most",
                                cell->name ? cell->name : "", (int)HA_PASS_MAX_DROPOUT_EPOCHS);
    }
    return 0;
}

static void hash_loss(const struct ha_dpo_loss_settings *loss, struct ha_sha256 *hash)
{
    char text[512];
    int n = snprintf(text, sizeof(text),
                     "beta %a smoothing %a divergence %d %a tau %a ld_alpha %a weighted %d",
                     loss->beta, loss->label_smoothing, (int)loss->divergence, loss->f_alpha,
                     loss->discopop_tau, loss->ld_alpha, loss->use_weighting);

    ha_sha256_update(hash, text, (size_t)n);
    for (int64_t i = 0; i < loss->n_terms; i++) {
        n = snprintf(text, sizeof(text), " %s %a", ha_dpo_loss_name(loss->terms[i].kind),
                     loss->terms[i].weight);
        ha_sha256_update(hash, text, (size_t)n);
    }
}

/* What a checkpoint of this cell belongs to. */
static void hash_cell(struct ha_dpo_cell_work *cell)
{
    const struct ha_dpo_cell *settings = &cell->settings;
    const struct ha_adapter_settings *adapter = ha_adapter_settings(settings->adapter);
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;
    char text[512];
    int n = snprintf(text, sizeof(text),
                     "lr %a warmup %lld decay %a beta1 %a beta2 %a eps %a clip %a rank %lld "
                     "scale %a modules %u layers",
                     settings->learning_rate, (long long)settings->warmup_steps,
                     settings->weight_decay, settings->beta1, settings->beta2, settings->eps,
                     settings->max_grad_norm, (long long)adapter->rank,
                     (double)ha_adapter_scale(settings->adapter), adapter->modules);

    ha_sha256_init(&hash);
    hash_loss(&settings->loss, &hash);
    ha_sha256_update(&hash, text, (size_t)n);
    if (settings->dropout > 0) {
        n = snprintf(text, sizeof(text), " dropout %a seed %llu", settings->dropout,
                     (unsigned long long)settings->dropout_seed);
        ha_sha256_update(&hash, text, (size_t)n);
    }
    ha_sha256_update(&hash, adapter->layers, (size_t)adapter->n_layers * sizeof(int64_t));
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, cell->hash);
}

/* What a rank of a gang adds up beside its gradient. */
static int make_partial(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell, size_t bytes,
                        struct ha_error *err)
{
    int r = 0;

    cell->partial = ha_calloc(trainer->n_levels, sizeof(*cell->partial));
    if (!cell->partial)
        return ha_error_set(err, ENOMEM, "no memory for a cell's gradients");
    for (int i = 0; r == 0 && i < trainer->n_levels - 1; i++) {
        void *memory = NULL;

        r = ha_backend_alloc(trainer->backend, bytes, &memory, err);
        cell->partial[i] = memory;
    }
    return r;
}

static int make_cell(struct ha_dpo_trainer *trainer, struct ha_dpo_cell_work *cell,
                     struct ha_error *err)
{
    size_t bytes = (size_t)ha_adapter_n_params(cell->settings.adapter) * sizeof(float);
    int64_t window_pairs = trainer->job.batch_size * trainer->job.gradient_accumulation;
    void *memory[4] = {NULL};
    int r = 0;

    hash_cell(cell);
    if (window_pairs > trainer->job.train->n_pairs)
        window_pairs = trainer->job.train->n_pairs;
    cell->results = ha_calloc(window_pairs, sizeof(*cell->results));
    if (!cell->results)
        return ha_error_set(err, ENOMEM, "no memory for a cell's results");
    for (int i = 0; r == 0 && i < 4; i++)
        r = ha_backend_alloc(trainer->backend, i < 3 ? bytes : sizeof(double), &memory[i], err);
    cell->gradient = memory[0];
    cell->m = memory[1];
    cell->v = memory[2];
    cell->square_sum = memory[3];
    return r < 0 ? r : make_partial(trainer, cell, bytes, err);
}

static struct ha_dpo_reference *unknown_references(int64_t n)
{
    struct ha_dpo_reference *references = ha_calloc(n, sizeof(*references));

    for (int64_t i = 0; references && i < n; i++)
        references[i] =
            (struct ha_dpo_reference){(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    return references;
}

static int make_packs(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    struct ha_dpo_job *job = &trainer->job;
    int r =
        ha_dpo_packs_init(&trainer->train, job->train, job->batch_size, job->gradient_accumulation,
                          job->tokens_per_microbatch, job->share_prompt, err);

    trainer->train.shuffled = true;
    trainer->train.by_micro = job->ranks > 0;
    trainer->train.order_seed = job->order_seed;
    if (r == 0 && job->eval && job->eval->n_pairs > 0)
        /* An evaluation is one window. */
        r = ha_dpo_packs_init(&trainer->eval, job->eval, job->batch_size, job->eval->n_pairs,
                              job->tokens_per_microbatch, job->share_prompt, err);
    trainer->eval.by_micro = job->ranks > 0;
    if (r < 0)
        return r;
    trainer->train_reference = unknown_references(job->train->n_pairs);
    if (trainer->eval.pairs)
        trainer->eval_reference = unknown_references(job->eval->n_pairs);
    if (!trainer->train_reference || (trainer->eval.pairs && !trainer->eval_reference))
        return ha_error_set(err, ENOMEM, "no memory for reference log-probs");
    return 0;
}

/* The digest of the reference adapter; "" without one. */
static int digest_adapter(const struct ha_dpo_trainer *trainer, char hex[HA_SHA256_HEX_BYTES],
                          struct ha_error *err)
{
    const struct ha_adapter *reference = trainer->job.reference;
    uint8_t digest[HA_SHA256_BYTES];
    size_t bytes;
    void *params;
    int r;

    hex[0] = '\0';
    if (!reference)
        return 0;
    bytes = (size_t)ha_adapter_n_params(reference) * sizeof(float);
    params = ha_calloc((int64_t)bytes, 1);
    if (!params)
        return ha_error_set(err, ENOMEM, "no memory for a reference adapter");
    r = ha_backend_download(trainer->backend, params, ha_adapter_params(reference), bytes, err);
    if (r == 0)
        r = ha_backend_sync(trainer->backend, err);
    ha_sha256(params, bytes, digest);
    ha_sha256_hex(digest, hex);
    free(params);
    return r;
}

static void hash_set(const struct ha_pair_set *set, struct ha_sha256 *hash)
{
    ha_sha256_update(hash, &set->n_pairs, sizeof(set->n_pairs));
    ha_sha256_update(hash, set->offset, (size_t)(3 * set->n_pairs + 1) * sizeof(*set->offset));
    ha_sha256_update(hash, set->ids, (size_t)set->offset[3 * set->n_pairs] * sizeof(*set->ids));
}

/* The hash of what the pairs are, whatever their order and packs. */
static void hash_pairs(const struct ha_dpo_trainer *trainer, char hex[HA_SHA256_HEX_BYTES])
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    hash_set(trainer->job.train, &hash);
    if (trainer->eval.pairs)
        hash_set(trainer->job.eval, &hash);
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
}

/* The hash of a batch plan of so many epochs, and the largest pack in it. */
static int hash_plan(struct ha_dpo_trainer *trainer, int64_t epochs, const char *adapter,
                     struct ha_pass_limits *limits, char hex[HA_SHA256_HEX_BYTES],
                     struct ha_error *err)
{
    const struct ha_dpo_job *job = &trainer->job;
    const struct ha_model_config *config = ha_model_config(trainer->model);
    int64_t lora_columns = ha_model_weights(trainer->model)->lora_columns;
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_sha256 hash;
    char text[512], columns[48] = "";
    int n;

    if (lora_columns > 0)
        (void)snprintf(columns, sizeof(columns), "; %lld columns of LoRA", (long long)lora_columns);
    n = snprintf(text, sizeof(text),
                 "plan 2: %s %lld layers %lld wide %lld vocabulary; %lld x %lld pairs, %lld "
                 "epochs, seed %llu, %lld tokens, shared %d, bf16 logits %d; %s%s%s",
                 ha_model_family_name(config->family), (long long)config->n_layers,
                 (long long)config->width, (long long)config->vocab, (long long)job->batch_size,
                 (long long)job->gradient_accumulation, (long long)epochs,
                 (unsigned long long)job->order_seed, (long long)job->tokens_per_microbatch,
                 job->share_prompt, job->round_logits_bf16, adapter,
                 job->ranks > 0 ? "; sums of a gang" : "", columns);
    int r;

    ha_sha256_init(&hash);
    ha_sha256_update(&hash, text, (size_t)n);
    r = ha_dpo_packs_survey(&trainer->train, epochs, &limits->max_tokens, &limits->max_rows, &hash,
                            err);
    if (r == 0 && trainer->eval.pairs)
        r = ha_dpo_packs_survey(&trainer->eval, 1, &limits->max_tokens, &limits->max_rows, &hash,
                                err);
    if (r < 0)
        return r;
    ha_sha256_final(&hash, digest);
    ha_sha256_hex(digest, hex);
    return 0;
}

/* The names of the plan and of the references. */
static int make_hashes(struct ha_dpo_trainer *trainer, struct ha_pass_limits *limits,
                       struct ha_error *err)
{
    static const struct ha_dpo_origin unknown = {.model = "",
                                                 .tokenizer = "",
                                                 .train_data = "",
                                                 .eval_data = "",
                                                 .prompt_template = "",
                                                 .split = "",
                                                 .ends = ""};
    const struct ha_dpo_origin *origin = trainer->job.origin ? trainer->job.origin : &unknown;
    const char *act = ha_dtype_name(ha_backend_activation_dtype(trainer->backend));
    char adapter[HA_SHA256_HEX_BYTES], plan[HA_SHA256_HEX_BYTES], pairs[HA_SHA256_HEX_BYTES];
    char precision[64];
    int r = digest_adapter(trainer, adapter, err);

    if (r == 0)
        r = hash_plan(trainer, trainer->job.epochs, adapter, limits, trainer->plan_hash, err);
    if (r == 0)
        r = hash_plan(trainer, 1, adapter, limits, plan, err);
    if (r < 0)
        return r;
    (void)snprintf(precision, sizeof(precision), "%s, logits %s", act,
                   trainer->job.round_logits_bf16 ? "BF16" : "F32");
    hash_pairs(trainer, pairs);
    return ha_dpo_reference_key_make(origin, pairs, precision,
                                     ha_backend_fingerprint(trainer->backend), plan, adapter,
                                     &trainer->key, err);
}

static bool any_dropout(const struct ha_dpo_trainer *trainer)
{
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        if (trainer->cells[i].settings.dropout > 0)
            return true;
    }
    return false;
}

/* Of the adapters of all cells where any has dropout, as the plan has it; else 0. */
static int64_t dropout_width(const struct ha_dpo_trainer *trainer)
{
    struct ha_adapter_geometry geometry;
    uint32_t modules = 0;

    ha_model_config_geometry(ha_model_config(trainer->model), &geometry);
    for (int64_t i = 0; i < trainer->n_cells; i++)
        modules |= ha_adapter_settings(trainer->cells[i].settings.adapter)->modules;
    return any_dropout(trainer) ? ha_adapter_widest_input(&geometry, modules) : 0;
}

static struct ha_pass_limits limits_of(const struct ha_dpo_trainer *trainer)
{
    const struct ha_dpo_job *job = &trainer->job;
    int64_t n_layers = ha_model_config(trainer->model)->n_layers, most;
    struct ha_pass_limits limits = {.max_tokens = 1,
                                    .lora_columns = ha_model_weights(trainer->model)->lora_columns,
                                    .dropout_width = dropout_width(trainer),
                                    .lowest_layer = n_layers,
                                    .statistics = true,
                                    .round_logits_bf16 = job->round_logits_bf16};

    for (int64_t i = 0; i < trainer->n_cells; i++) {
        const struct ha_adapter *adapter = trainer->cells[i].settings.adapter;

        if (ha_adapter_lowest_layer(adapter) < limits.lowest_layer)
            limits.lowest_layer = ha_adapter_lowest_layer(adapter);
        if (ha_adapter_settings(adapter)->rank > limits.max_rank)
            limits.max_rank = ha_adapter_settings(adapter)->rank;
        limits.logsumexps = limits.logsumexps || trainer->cells[i].settings.loss.use_weighting;
    }
    if (job->reference && ha_adapter_settings(job->reference)->rank > limits.max_rank)
        limits.max_rank = ha_adapter_settings(job->reference)->rank;
    most = n_layers - limits.lowest_layer - 1;
    limits.recomputed_layers = job->recomputed_layers < most ? job->recomputed_layers : most;
    return limits;
}

static struct ha_dpo_plan_request plan_request(const struct ha_dpo_trainer *trainer,
                                               const struct ha_pass_limits *limits)
{
    const struct ha_dpo_job *job = &trainer->job;
    const struct ha_pair_set *sets[] = {job->train, trainer->eval.pairs ? job->eval : NULL};
    struct ha_dpo_plan_request request = {
        .config = ha_model_config(trainer->model),
        .device = {.gpu = strcmp(ha_backend_name(trainer->backend), "cpu") != 0,
                   .threads = job->threads,
                   .memory_bytes = job->memory_bytes},
        .n_adapters = trainer->n_cells,
        .dropout = any_dropout(trainer),
        .lora_columns = ha_model_weights(trainer->model)->lora_columns,
        .reference_rank = job->reference ? ha_adapter_settings(job->reference)->rank : 0,
        .max_tokens = limits->max_tokens,
        .max_rows = limits->max_rows,
        .f32_logits = !job->round_logits_bf16,
        .n_train = job->train->n_pairs,
        .n_eval = sets[1] ? sets[1]->n_pairs : 0,
        .n_window = job->batch_size * job->gradient_accumulation,
        .n_gradients = trainer->n_levels,
        .comm_bytes = job->comm_bytes,
        .ranks = job->ranks,
        .sharding = job->sharding,
    };

    if (request.n_window > request.n_train)
        request.n_window = request.n_train;
    for (int i = 0; i < 2 && sets[i]; i++) {
        request.n_ids += sets[i]->offset[3 * sets[i]->n_pairs];
        if (sets[i]->longest > request.max_positions)
            request.max_positions = sets[i]->longest;
    }
    return request;
}

/* The plan of the memory, which says how many layers are run again, or that it cannot be. */
static int make_plan(struct ha_dpo_trainer *trainer, struct ha_pass_limits *limits,
                     struct ha_error *err)
{
    const struct ha_dpo_job *job = &trainer->job;
    struct ha_dpo_plan_request request = plan_request(trainer, limits);
    struct ha_adapter_settings *adapters = ha_calloc(trainer->n_cells, sizeof(*adapters));
    int r;

    if (!adapters)
        return ha_error_set(err, ENOMEM, "no memory for a training job");
    for (int64_t i = 0; i < trainer->n_cells; i++)
        adapters[i] = *ha_adapter_settings(trainer->cells[i].settings.adapter);
    request.adapters = adapters;
    r = ha_dpo_plan_make(&request, &trainer->plan, err);
    free(adapters);
    if (r == 0)
        r = ha_dpo_plan_check(&trainer->plan, job->memory_limit ? job->memory_limit : "the limit",
                              err);
    if (r == 0 && trainer->plan.recomputed_layers > limits->recomputed_layers)
        limits->recomputed_layers = trainer->plan.recomputed_layers;
    return r;
}

/* The hashes, the plan, and working memory for the largest pack. */
static int make_pass(struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    const struct ha_dpo_job *job = &trainer->job;
    struct ha_pass_limits limits = limits_of(trainer);
    int64_t n_micro = job->train->n_pairs;
    int r = make_hashes(trainer, &limits, err);

    if (r == 0)
        r = make_plan(trainer, &limits, err);
    if (r < 0)
        return r;
    if (job->eval && job->eval->n_pairs > n_micro)
        n_micro = job->eval->n_pairs;
    if (job->batch_size < n_micro)
        n_micro = job->batch_size;
    trainer->max_rows = limits.max_rows;
    trainer->coefficient = ha_calloc(limits.max_rows, sizeof(float));
    trainer->micro_logps = ha_calloc(n_micro, sizeof(*trainer->micro_logps));
    trainer->micro_losses = ha_calloc(n_micro, sizeof(*trainer->micro_losses));
    if (!trainer->coefficient || !trainer->micro_logps || !trainer->micro_losses)
        return ha_error_set(err, ENOMEM, "no memory for a training job");
    r = ha_pass_plan_bytes(ha_model_config(trainer->model),
                           ha_backend_activation_dtype(trainer->backend), &limits,
                           &trainer->pass_bytes, err);
    if (r == 0)
        r = ha_pass_create(trainer->model, &limits, &trainer->pass, err);
    return r < 0 ? r : ha_dpo_borders_create(trainer, limits.max_tokens, err);
}

/* A trainer that holds nothing yet. */
static int begin_trainer(struct ha_model *model, const struct ha_dpo_job *job,
                         const struct ha_dpo_cell *cells, int64_t n_cells,
                         struct ha_dpo_trainer **ret_trainer, struct ha_error *err)
{
    struct ha_dpo_trainer *trainer;
    int r = check_job(job, cells, n_cells, err);

    if (r < 0)
        return r;
    trainer = ha_calloc(1, sizeof(*trainer));
    if (trainer)
        trainer->cells = ha_calloc(n_cells, sizeof(*trainer->cells));
    if (!trainer || !trainer->cells) {
        free(trainer);
        return ha_error_set(err, ENOMEM, "no memory for a training job");
    }
    trainer->model = model;
    trainer->backend = ha_model_backend(model);
    trainer->job = *job;
    trainer->steps.phase = HA_DPO_STEP;
    trainer->n_levels =
        job->ranks > 0 ? 1 + ha_dpo_share_most(job->gradient_accumulation, job->ranks) : 1;
    trainer->n_cells = n_cells;
    for (int64_t i = 0; i < n_cells; i++)
        trainer->cells[i].settings = cells[i];
    *ret_trainer = trainer;
    return 0;
}

int ha_dpo_trainer_foresee(struct ha_model *model, const struct ha_dpo_job *job,
                           const struct ha_dpo_cell *cells, int64_t n_cells,
                           struct ha_dpo_plan *ret_plan, struct ha_error *err)
{
    struct ha_dpo_trainer *trainer;
    struct ha_pass_limits limits;
    int r = begin_trainer(model, job, cells, n_cells, &trainer, err);

    if (r < 0)
        return r;
    r = make_packs(trainer, err);
    limits = limits_of(trainer);
    if (r == 0)
        r = make_hashes(trainer, &limits, err);
    if (r == 0)
        r = make_plan(trainer, &limits, err);
    if (r == 0)
        *ret_plan = trainer->plan;
    ha_dpo_trainer_destroy(trainer);
    return r;
}

int ha_dpo_trainer_create(struct ha_model *model, const struct ha_dpo_job *job,
                          const struct ha_dpo_cell *cells, int64_t n_cells,
                          const struct ha_dpo_callbacks *callbacks,
                          const volatile sig_atomic_t *stop, struct ha_dpo_trainer **ret_trainer,
                          struct ha_error *err)
{
    struct ha_dpo_trainer *trainer;
    int r = begin_trainer(model, job, cells, n_cells, &trainer, err);

    if (r < 0)
        return r;
    trainer->stop = stop;
    if (callbacks)
        trainer->callbacks = *callbacks;
    for (int64_t i = 0; r == 0 && i < n_cells; i++)
        r = make_cell(trainer, &trainer->cells[i], err);
    if (r == 0 && job->ranks > 0)
        r = ha_dpo_gang_create(trainer, &trainer->gang, err);
    if (r == 0)
        r = make_packs(trainer, err);
    if (r == 0)
        r = make_pass(trainer, err);
    if (r < 0) {
        ha_dpo_trainer_destroy(trainer);
        return r;
    }
    *ret_trainer = trainer;
    return 0;
}

void ha_dpo_trainer_destroy(struct ha_dpo_trainer *trainer)
{
    if (!trainer)
        return;
    for (int64_t i = 0; i < trainer->n_cells; i++) {
        struct ha_dpo_cell_work *cell = &trainer->cells[i];
        void *memory[4] = {cell->gradient, cell->m, cell->v, cell->square_sum};

        for (int j = 0; j < 4; j++) {
            if (memory[j])
                ha_backend_free(trainer->backend, memory[j]);
        }
        for (int j = 0; cell->partial && j < trainer->n_levels - 1; j++) {
            if (cell->partial[j])
                ha_backend_free(trainer->backend, cell->partial[j]);
        }
        free(cell->partial);
        free(cell->results);
        free(cell->outcome);
    }
    ha_dpo_gang_destroy(trainer->gang);
    ha_dpo_borders_destroy(trainer);
    ha_pass_destroy(trainer->pass);
    ha_dpo_packs_clear(&trainer->train);
    ha_dpo_packs_clear(&trainer->eval);
    free(trainer->train_reference);
    free(trainer->eval_reference);
    free(trainer->coefficient);
    free(trainer->micro_logps);
    free(trainer->micro_losses);
    free(trainer->cells);
    free(trainer);
}
