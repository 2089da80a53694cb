#include "worker/attempt/training.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/path.h"
#include "common/conf/json.h"
#include "common/conf/loss_rules.h"
#include "worker/adapter/adapter.h"
#include "worker/attempt/cell_adapter.h"
#include "worker/attempt/choices.h"
#include "worker/attempt/loss_settings.h"
#include "worker/attempt/memory_settings.h"
#include "worker/attempt/pair_files.h"
#include "worker/attempt/reference_file.h"
#include "worker/attempt/training_summary.h"
#include "worker/dpo/trainer.h"

enum { MAX_METRICS = 64 };

/* A job at work. */
struct work {
    const struct ha_training *training;
    const struct ha_reporter *reporter;
    struct ha_engine engine;
    struct ha_pair_set *train, *eval;
    struct ha_adapter **adapters;
    struct ha_adapter *reference; /* of a cell that goes on from an adapter: what it began with */
    struct ha_dpo_cell *cells;
    int64_t (*kept)[2];         /* per cell: steps of its last two checkpoints, 0: none */
    struct ha_json **last_eval; /* per cell: {"eval_loss": ...} of the newest evaluation */
    struct ha_dpo_trainer *trainer;
    struct ha_comm *comm; /* of a gang */
    volatile sig_atomic_t *stop;
    enum ha_dpo_phase phase;
    bool phase_known;
    int64_t start_ns, loaded_ns;
    int64_t peak_bytes; /* of this process's own memory, of samples */
    struct ha_origin origin;
    bool has_origin;
    struct ha_taken_reference taken;
    int report_result; /* first failure of a report, which callbacks cannot return */
    struct ha_error report_error;
};

static const struct ha_run_settings *settings_of(const struct work *work)
{
    return work->training->cells[0].settings;
}

/* Alone, or the rank of a gang that keeps what there is to keep. */
static bool keeps(const struct ha_training *training)
{
    return !training->gang || training->gang->rank == 0;
}

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory while preparing the training");
}

/* ---- data ------------------------------------------------------------------- */

static int load_data(struct work *work, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    const struct ha_run_settings *settings = settings_of(work);
    struct ha_pair_files train = {.what = "training pairs",
                                  .paths = training->train,
                                  .n_paths = training->n_train,
                                  .samples = settings->data.train_samples,
                                  .settings = settings,
                                  .chat = ha_engine_chat(&work->engine)};
    struct ha_pair_files eval = {.what = "held-out pairs",
                                 .paths = training->eval,
                                 .n_paths = training->n_eval,
                                 .samples = settings->data.eval_samples,
                                 .settings = settings,
                                 .chat = ha_engine_chat(&work->engine),
                                 .prompts_allowed = true};
    int r = ha_pair_files_load(&train, work->engine.tokenizer, &work->train, err);

    if (r < 0 || training->n_eval == 0)
        return r;
    return ha_pair_files_load(&eval, work->engine.tokenizer, &work->eval, err);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* What all cells of a job must have in common, as they share pairs, order and packs. */
static int check_common(const struct ha_training *training, struct ha_error *err)
{
    const struct ha_run_settings *first = training->cells[0].settings;

    for (int64_t i = 1; i < training->n_cells; i++) {
        const struct ha_run_settings *other = training->cells[i].settings;
        const struct {
            const char *key;
            bool equal;
        } keys[] = {
            {"data.seed", first->data.seed == other->data.seed},
            {"data.split", strcmp(first->data.split, other->data.split) == 0},
            {"data.train_samples", first->data.train_samples == other->data.train_samples},
            {"data.eval_samples", first->data.eval_samples == other->data.eval_samples},
            {"train.batch_size", first->train.batch_size == other->train.batch_size},
            {"train.gradient_accumulation",
             first->train.gradient_accumulation == other->train.gradient_accumulation},
            {"train.epochs", first->train.epochs == other->train.epochs},
            {"train.max_length", first->train.max_length == other->train.max_length},
            {"train.reference", strcmp(first->train.reference, other->train.reference) == 0},
            {"train.precision", strcmp(first->train.precision, other->train.precision) == 0},
            {"train.order_seed", first->train.order_seed == other->train.order_seed},
            {"train.tokens_per_microbatch",
             first->train.tokens_per_microbatch == other->train.tokens_per_microbatch},
            {"train.plan_memory", same_text(first->train.plan_memory, other->train.plan_memory)},
            {"train.eval_steps", first->train.eval_steps == other->train.eval_steps},
        };

        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
            if (!keys[k].equal)
                return ha_error_set(err, EINVAL, "cells %s and %s of one job differ in %s",
                                    training->cells[0].name, training->cells[i].name, keys[k].key);
    }
    return 0;
}

/* ---- adapters and trainer ----------------------------------------------------- */

static int make_cell(struct work *work, int64_t i, struct ha_error *err)
{
    const struct ha_training_cell *cell = &work->training->cells[i];
    const struct ha_sweep_train *train = &cell->settings->train;
    struct ha_dpo_cell *dpo = &work->cells[i];
    int r = ha_cell_adapter_create(cell, &work->engine, &work->adapters[i], err);

    if (r < 0)
        return r;
    ha_dpo_cell_defaults(dpo);
    dpo->name = cell->name;
    dpo->adapter = work->adapters[i];
    dpo->learning_rate = train->learning_rate;
    dpo->warmup_steps = train->warmup_steps;
    dpo->weight_decay = train->weight_decay;
    dpo->beta1 = train->beta1;
    dpo->beta2 = train->beta2;
    dpo->eps = train->eps;
    dpo->max_grad_norm = train->max_grad_norm;
    dpo->dropout = train->disable_dropout ? 0 : train->lora_dropout;
    dpo->dropout_seed = (uint64_t)train->dropout_seed;
    if (ha_loss_rules_warning(train))
        ha_log_warning("cell %s: %s", cell->name, ha_loss_rules_warning(train));
    return ha_loss_settings_read(train, &dpo->loss, err);
}

static bool on_gpu(const struct work *work)
{
    return strcmp(ha_backend_name(work->engine.backend), "cpu") != 0;
}

/* The lowest limit of any cell: limits may differ, as they change no result. */
static int read_memory(struct work *work, struct ha_dpo_job *job, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    int r = ha_token_budget(ha_model_config(work->engine.model), settings_of(work), on_gpu(work),
                            &job->tokens_per_microbatch, err);

    for (int64_t i = 0; r == 0 && i < training->n_cells; i++) {
        int64_t bytes = 0;

        r = ha_memory_limit(training->cells[i].settings, work->engine.backend, &bytes, err);
        if (r == 0 && bytes > 0 && (job->memory_bytes == 0 || bytes < job->memory_bytes)) {
            job->memory_bytes = bytes;
            job->memory_limit =
                ha_memory_limit_text(training->cells[i].settings, work->engine.backend);
        }
    }
    job->threads = training->engine.threads;
    return r;
}

static struct ha_dpo_job job_of(const struct work *work)
{
    const struct ha_sweep_train *train = &settings_of(work)->train;
    struct ha_dpo_job job;

    ha_dpo_job_defaults(&job);
    job.train = work->train;
    job.eval = work->eval;
    job.reference = work->reference;
    job.origin = work->has_origin ? &work->origin.dpo : NULL;
    job.batch_size = train->batch_size;
    job.gradient_accumulation = train->gradient_accumulation;
    job.epochs = train->epochs;
    job.order_seed = (uint64_t)train->order_seed;
    /* On the CPU everything is fp32, whatever was asked. */
    job.round_logits_bf16 =
        strcmp(ha_engine_precision(&work->engine, train->precision), "bf16") == 0;
    job.eval_steps = train->eval_steps;
    job.checkpoint_every_ms = train->checkpoint_every_s * 1000;
    if (work->training->gang) {
        const struct ha_gang *gang = work->training->gang;

        job.rank = gang->rank;
        job.ranks = gang->ranks;
        job.comm_bytes =
            ha_comm_device_bytes(ha_gang_collective(gang, work->engine.backend), gang->ranks);
    }
    return job;
}

/* ---- reports from the trainer ----------------------------------------------------- */

/* A report that fails ends the work as a signal would. */
static void keep_result(struct work *work, int r, const struct ha_error *err)
{
    if (r < 0 && work->report_result == 0) {
        work->report_result = r;
        work->report_error = *err;
        *work->stop = 1;
    }
}

static void remember_eval(struct work *work, int64_t cell, const struct ha_dpo_metric *metrics,
                          int64_t n)
{
    struct ha_json *values = ha_json_new_object();

    for (int64_t i = 0; values && i < n; i++) {
        if (ha_json_set(values, metrics[i].name, ha_json_new_real(metrics[i].value)) < 0) {
            ha_json_destroy(values);
            values = NULL;
        }
    }
    ha_json_destroy(work->last_eval[cell]);
    work->last_eval[cell] = values;
}

static void on_metrics(void *user, int64_t cell, int64_t step, const struct ha_dpo_metric *metrics,
                       int64_t n)
{
    struct ha_reported_metric list[MAX_METRICS];
    struct work *work = user;
    struct ha_error err = {0};

    if (!keeps(work->training))
        return;
    if (n > MAX_METRICS)
        n = MAX_METRICS;
    for (int64_t i = 0; i < n; i++)
        list[i] = (struct ha_reported_metric){metrics[i].name, metrics[i].value};
    HA_CRASH_POINT("attempt.step");
    if (n > 0 && strncmp(metrics[0].name, "eval_", 5) == 0)
        remember_eval(work, cell, metrics, n);
    keep_result(work,
                work->reporter->metrics(work->reporter->context, work->training->cells[cell].id,
                                        step, list, n, &err),
                &err);
}

static void on_progress(void *user, const struct ha_dpo_progress *progress)
{
    static const char *const names[] = {"step", "evaluate", "measure"};
    struct work *work = user;
    struct ha_error err = {0};
    double seconds = progress->seconds;
    struct ha_reported_progress reported = {
        .step = progress->done,
        .steps = progress->total,
        .tokens_per_second = seconds > 0 ? (double)progress->tokens / seconds : 0,
        .pairs_per_second = seconds > 0 ? (double)progress->pairs / seconds : 0,
        .flops_per_second = seconds > 0 ? progress->flops / seconds : 0,
        .saved = progress->plain_flops > 0 ? 1 - progress->flops / progress->plain_flops : 0,
    };
    int r = 0;

    reported.utilisation = ha_engine_utilisation(&work->engine, reported.flops_per_second);
    ha_memory_sample(&work->peak_bytes);
    if (!work->phase_known || work->phase != progress->phase)
        r = work->reporter->phase(work->reporter->context, names[progress->phase], &err);
    work->phase = progress->phase;
    work->phase_known = true;
    if (r == 0)
        r = work->reporter->progress(work->reporter->context, &reported, &err);
    keep_result(work, r, &err);
}

static char *checkpoint_path(const struct ha_training_cell *cell, int64_t step)
{
    return ha_format("%s/checkpoint-%lld.safetensors", cell->checkpoint_dir, (long long)step);
}

/* Remembers a checkpoint of this run; by hand, all but the last two go. */
static void keep_last(struct work *work, int64_t cell, int64_t step)
{
    int64_t *kept = work->kept[cell];

    if (work->training->prunes_checkpoints && kept[0] > 0) {
        char *path = checkpoint_path(&work->training->cells[cell], kept[0]);

        if (path)
            (void)unlink(path);
        free(path);
    }
    kept[0] = kept[1];
    kept[1] = step;
}

static int on_checkpoint(void *user, struct ha_dpo_trainer *trainer, int64_t cell, int64_t step,
                         struct ha_error *err)
{
    struct work *work = user;
    const struct ha_training_cell *spec = &work->training->cells[cell];
    char *path = checkpoint_path(spec, step);
    int r;

    HA_CRASH_POINT("attempt.before_checkpoint");
    r = path ? ha_dpo_trainer_save(trainer, cell, path, err) : out_of_memory(err);
    HA_CRASH_POINT("attempt.checkpoint_written");
    if (r == 0)
        r = work->reporter->artifact(work->reporter->context, spec->id, "checkpoint",
                                     ha_path_basename(path), path, step, err);
    HA_CRASH_POINT("attempt.checkpoint_told");
    if (r == 0 && work->kept[cell][1] != step)
        keep_last(work, cell, step);
    free(path);
    return r;
}

/* One that was taken is there already, for all. */
static int on_references(void *user, struct ha_dpo_trainer *trainer, struct ha_error *err)
{
    const struct work *work = user;

    if (work->taken.taken || !keeps(work->training))
        return 0;
    return ha_reference_report(work->training, trainer, work->reporter, err);
}

/* ---- the run -------------------------------------------------------------------- */

/* Of a gang, whose plan says whether its ranks share them; all others have them already. */
static int load_weights(struct work *work, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    const struct ha_gang *gang = training->gang;
    struct ha_dpo_job job = job_of(work);
    struct ha_dpo_plan plan = {.shards = 1};
    struct ha_model_shard shard;
    int r = read_memory(work, &job, err);

    if (!gang || r < 0)
        return r;
    job.sharding = HA_DPO_SHARD_AUTO;
    for (int64_t i = 0; i < training->n_cells; i++)
        job.sharding = ha_weight_sharding_join(job.sharding, training->cells[i].settings);
    if (job.sharding == HA_DPO_SHARD_ALWAYS ||
        (job.sharding == HA_DPO_SHARD_AUTO && on_gpu(work) && gang->ranks > 1))
        r = ha_dpo_trainer_foresee(work->engine.model, &job, work->cells, training->n_cells, &plan,
                                   err);
    if (r < 0)
        return r;
    shard = (struct ha_model_shard){gang->rank, plan.shards};
    if (plan.shards > 1)
        ha_log_info("the weights of each layer are shared by %d ranks", plan.shards);
    return ha_engine_load(&training->engine, &work->engine, plan.shards > 1 ? &shard : NULL, err);
}

static void log_plan(const struct ha_dpo_plan *plan)
{
    char planned[HA_MEMORY_TEXT_BYTES], there[HA_MEMORY_TEXT_BYTES];

    ha_log_info("memory: %s planned, %s may be used; %lld layers run again in the backward pass",
                ha_memory_text(plan->total_bytes, planned),
                plan->memory_bytes > 0 ? ha_memory_text(plan->memory_bytes, there) : "any amount",
                (long long)plan->recomputed_layers);
}

static int make_trainer(struct work *work, struct ha_error *err)
{
    struct ha_dpo_callbacks callbacks = {.user = work,
                                         .metrics = on_metrics,
                                         .progress = on_progress,
                                         .checkpoint =
                                             keeps(work->training) ? on_checkpoint : NULL};
    struct ha_dpo_job job = job_of(work);
    int r = read_memory(work, &job, err);

    job.sharding =
        ha_model_ranks(work->engine.model) > 1 ? HA_DPO_SHARD_ALWAYS : HA_DPO_SHARD_NEVER;
    if (work->training->reference_out)
        callbacks.references = on_references;

    if (r == 0)
        r = ha_dpo_trainer_create(work->engine.model, &job, work->cells, work->training->n_cells,
                                  &callbacks, work->stop, &work->trainer, err);
    if (r == 0)
        log_plan(ha_dpo_trainer_plan(work->trainer));
    return r;
}

/* The cell's checkpoint, if it has one.  Where that cannot be used the cell starts anew: work may
 * be lost, results may not. */
static int resume_cell(struct work *work, int64_t i, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    const struct ha_training_cell *cell = &training->cells[i];
    struct ha_error why = {0};
    struct ha_dpo_stats stats;
    int r = cell->checkpoint ? ha_dpo_trainer_load(work->trainer, i, cell->checkpoint,
                                                   training->allow_inexact, &why)
                             : 0;

    if (r < 0 && (training->require_exact || r == -ENOMEM)) {
        *err = why;
        return r;
    }
    ha_dpo_trainer_stats(work->trainer, i, &stats);
    if (r < 0)
        ha_log_warning("the checkpoint is left aside, %s starts anew: %s", cell->name,
                       ha_error_text(&why));
    else if (stats.steps > 0)
        ha_log_info("%s goes on after step %lld of %lld", cell->name, (long long)stats.steps,
                    (long long)ha_dpo_trainer_total_steps(work->trainer));
    return 0;
}

static int join(void *trainer, struct ha_comm *comm, struct ha_error *err)
{
    return ha_dpo_trainer_join(trainer, comm, err);
}

static int resume(struct work *work, struct ha_error *err)
{
    int r = ha_reference_take(work->training, work->trainer, &work->taken, err);

    for (int64_t i = 0; r == 0 && i < work->training->n_cells; i++)
        r = resume_cell(work, i, err);
    if (r == 0 && work->training->gang)
        r = ha_gang_join(work->training->gang, work->engine.backend, join, work->trainer,
                         work->stop, &work->comm, err);
    return r < 0 ? r : ha_reference_compare(work->trainer, &work->taken, err);
}

static struct ha_json *summary_of(const struct work *work, int64_t cell)
{
    const struct ha_sweep_train *train = &work->training->cells[cell].settings->train;
    struct ha_training_record record = {
        .trainer = work->trainer,
        .cell = cell,
        .n_params = ha_adapter_n_params(work->adapters[cell]),
        .n_cells = work->training->n_cells,
        .ranks = work->training->gang ? work->training->gang->ranks : 1,
        .load_seconds = (double)(work->loaded_ns - work->start_ns) / 1e9,
        .wall_seconds = (double)(ha_clock_work_ns() - work->start_ns) / 1e9,
        .precision = ha_engine_precision(&work->engine, train->precision),
        .backend = ha_backend_fingerprint(work->engine.backend),
        .peak_bytes = on_gpu(work) ? ha_backend_peak_bytes(work->engine.backend) : work->peak_bytes,
        .engine = &work->engine,
        .taken = &work->taken,
        .pairs = work->train,
        .last_eval = work->last_eval[cell],
    };

    return ha_training_summary(&record);
}

static int report_adapter(struct work *work, int64_t cell, struct ha_error *err)
{
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors"};
    const struct ha_training_cell *spec = &work->training->cells[cell];
    const char *base =
        work->training->hub_id ? work->training->hub_id : work->training->engine.model_dir;
    int r = ha_adapter_save(work->adapters[cell], spec->out_dir, base, err);

    for (int i = 0; r == 0 && i < 2; i++) {
        char *path = ha_path_join(spec->out_dir, names[i]);

        r = path ? work->reporter->artifact(work->reporter->context, spec->id, "adapter", names[i],
                                            path, ha_dpo_trainer_step(work->trainer), err)
                 : out_of_memory(err);
        free(path);
    }
    return r;
}

static int report_cells(struct work *work, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < work->training->n_cells; i++) {
        const char *outcome = ha_dpo_trainer_outcome(work->trainer, i);

        if (!outcome)
            r = report_adapter(work, i, err);
        if (r == 0)
            r = work->reporter->cell(work->reporter->context, work->training->cells[i].id, !outcome,
                                     outcome ? outcome : "", outcome != NULL, summary_of(work, i),
                                     err);
    }
    return r;
}

/* Folders that cannot be written to are found before the work, not after it. */
static int make_folders(const struct ha_training *training, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && keeps(training) && i < 2 * training->n_cells; i++) {
        const struct ha_training_cell *cell = &training->cells[i / 2];
        const char *dir = i % 2 == 0 ? cell->out_dir : cell->checkpoint_dir;

        r = ha_path_make_dirs(dir, 0777, err);
        if (r == 0 && access(dir, W_OK) < 0)
            r = ha_error_set(err, errno, "%s: cannot write into it: %s", dir, strerror(errno));
    }
    return r;
}

/* The reference of a cell that goes on from an adapter is that adapter, as in TRL. */
static int make_reference(struct work *work, struct ha_error *err)
{
    const struct ha_training *training = work->training;

    if (!training->cells[0].init_adapter)
        return 0;
    if (training->n_cells > 1)
        return ha_error_set(err, ENOTSUP,
                            "cells that go on from an adapter have no reference in common; train "
                            "them one by one");
    return ha_cell_adapter_create(&training->cells[0], &work->engine, &work->reference, err);
}

static int check(const struct ha_training *training, struct ha_error *err)
{
    int r = check_common(training, err);

    return r < 0 ? r : make_folders(training, err);
}

/* Where references go from job to job their key has to say where all is from. */
static int find_origin(struct work *work, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    int r;

    if (!training->reference && !training->reference_out)
        return 0;
    r = ha_origin_find(training, work->train, work->eval, &work->origin, err);
    work->has_origin = r == 0;
    return r;
}

/* Of the checkpoint of any cell: the job's cells were trained beside each other, or their
 * checkpoints do not go with it. */
static const char *checkpoint_of(const struct ha_training *training)
{
    const char *checkpoint = NULL;

    for (int64_t i = 0; i < training->n_cells && !checkpoint; i++)
        checkpoint = training->cells[i].checkpoint;
    return checkpoint;
}

static int64_t tokens_of(const struct ha_pair_set *set)
{
    return set ? set->offset[3 * set->n_pairs] : 0;
}

/* Packs are as long as the token budget, or as all the data. */
static int choose_products(struct work *work, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    const char *precision = ha_engine_precision(&work->engine, settings_of(work)->train.precision);
    struct ha_choices choices = {.dir = training->choices,
                                 .checkpoint = checkpoint_of(training),
                                 .round_logits_bf16 = strcmp(precision, "bf16") == 0,
                                 .stop = work->stop};
    int64_t most = tokens_of(work->train);
    int r = ha_token_budget(ha_model_config(work->engine.model), settings_of(work), on_gpu(work),
                            &choices.max_tokens, err);

    if (tokens_of(work->eval) > most)
        most = tokens_of(work->eval);
    if (most < choices.max_tokens)
        choices.max_tokens = most > 0 ? most : 1;
    return r < 0 ? r : ha_choices_prepare(&choices, &work->engine, err);
}

/* The ranks of a gang read weights when the memory is planned. */
static int open_engine(struct work *work, struct ha_error *err)
{
    struct ha_engine_options options = work->training->engine;
    int r;

    options.weights_later = work->training->gang != NULL;
    r = ha_engine_open(&options, &work->engine, err);
    if (r < 0)
        return r;
    ha_engine_measure(&work->engine);
    ha_log_info("precision %s",
                ha_engine_precision(&work->engine, settings_of(work)->train.precision));
    return 0;
}

static int make_cells(struct work *work, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    int r = 0;

    work->adapters = ha_calloc(training->n_cells, sizeof(*work->adapters));
    work->cells = ha_calloc(training->n_cells, sizeof(*work->cells));
    work->last_eval = ha_calloc(training->n_cells, sizeof(*work->last_eval));
    work->kept = ha_calloc(training->n_cells, sizeof(*work->kept));
    if (!work->adapters || !work->cells || !work->last_eval || !work->kept)
        return out_of_memory(err);
    for (int64_t i = 0; r == 0 && i < training->n_cells; i++)
        r = make_cell(work, i, err);
    return r < 0 ? r : make_reference(work, err);
}

/* Everything before the first step. */
static int prepare(struct work *work, struct ha_error *err)
{
    const struct ha_training *training = work->training;
    int r = work->reporter->phase(work->reporter->context, "load", err);

    if (r == 0)
        r = check(training, err);
    if (r == 0)
        r = open_engine(work, err);
    if (r == 0)
        r = load_data(work, err);
    /* The texts are not needed any more; what the heap keeps of them would be wasted. */
    ha_memory_sample(&work->peak_bytes);
    (void)malloc_trim(0);
    if (r == 0)
        r = find_origin(work, err);
    if (r == 0)
        r = make_cells(work, err);
    if (r == 0)
        r = load_weights(work, err);
    if (r == 0)
        r = choose_products(work, err);
    if (r == 0)
        r = make_trainer(work, err);
    return r < 0 ? r : resume(work, err);
}

static void clear(struct work *work)
{
    ha_comm_destroy(work->comm);
    ha_dpo_trainer_destroy(work->trainer);
    for (int64_t i = 0; i < work->training->n_cells; i++) {
        if (work->adapters)
            ha_adapter_destroy(work->adapters[i]);
        if (work->last_eval)
            ha_json_destroy(work->last_eval[i]);
    }
    ha_adapter_destroy(work->reference);
    free(work->adapters);
    free(work->cells);
    free(work->last_eval);
    free(work->kept);
    ha_pair_set_destroy(work->train);
    ha_pair_set_destroy(work->eval);
    ha_engine_close(&work->engine);
}

int ha_training_run(const struct ha_training *training, const struct ha_reporter *reporter,
                    volatile sig_atomic_t *stop, struct ha_error *err)
{
    struct work work = {
        .training = training, .reporter = reporter, .stop = stop, .start_ns = ha_clock_work_ns()};
    int r = prepare(&work, err);

    work.loaded_ns = ha_clock_work_ns();
    if (r == 0)
        r = ha_dpo_trainer_run(work.trainer, err);
    if (r == 0)
        r = ha_dpo_trainer_measure_alone(work.trainer, training->time_alone_steps, err);
    if (r < 0 && r != -EINTR && work.comm)
        ha_gang_fail(training->gang, work.comm, err);
    ha_memory_sample(&work.peak_bytes);
    if (work.report_result < 0) {
        r = work.report_result;
        *err = work.report_error;
    }
    if (r == 0 && keeps(training))
        r = report_cells(&work, err);
    clear(&work);
    return r;
}
