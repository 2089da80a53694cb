/* DPO against TRL: step-0 margins, gradients, three optimizer steps of the demo
 * models, and that the comparison catches planted faults; twenty steps from the
 * demo data on. */
#include "tests/unit/model/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "tests/unit/dpo/loss_settings.h"
#include "worker/dpo/probe.h"
#include "worker/dpo/work.h"
#include "worker/tokenizer/tokenizer.h"

/* ENGINE.md, numerics 1.  A limit is widened to the oracle's own fp32-fp64 gap
 * where that is larger: it stands in the golden file beside each figure. */
#define LOSS_LIMIT 5e-6
#define REWARD_LIMIT 5e-5
#define DB_LIMIT 1e-5
#define DA_LIMIT 5e-5
#define CHANGE_B_LIMIT 1e-4
#define CHANGE_A_LIMIT 1e-3
#define PROBE_LIMIT 1e-4

struct golden {
    const char *family;
    struct ha_json *json;
    const struct ha_json *pairs, *settings;
    struct ha_pair_set set;
    struct ha_pair_set *made; /* owns what `set` holds; NULL: `set` does */
    struct ha_backend *backend;
    struct ha_model *model;
    const struct ha_json *loss; /* of losses.json; NULL: sigmoid */
    int64_t tokens_per_microbatch;
};

/* The pairs of a golden file as a pair set. */
static void load_pairs(struct golden *golden)
{
    static const char *const keys[3] = {"prompt_ids", "chosen_ids", "rejected_ids"};
    struct ha_pair_set *set = &golden->set;
    int64_t n = ha_json_size(golden->pairs), total = 0;

    set->n_pairs = n;
    set->offset = ha_calloc(3 * n + 1, sizeof(int64_t));
    assert_non_null(set->offset);
    for (int64_t i = 0; i < 3 * n; i++)
        total += ha_json_size(ha_json_get(ha_json_at(golden->pairs, i / 3), keys[i % 3]));
    set->ids = ha_calloc(total, sizeof(int32_t));
    assert_non_null(set->ids);
    for (int64_t i = 0; i < 3 * n; i++) {
        int64_t count;
        int32_t *ids = json_ids(ha_json_get(ha_json_at(golden->pairs, i / 3), keys[i % 3]), &count);

        memcpy(set->ids + set->offset[i], ids, (size_t)count * sizeof(int32_t));
        set->offset[i + 1] = set->offset[i] + count;
        free(ids);
    }
}

static void open_golden(struct golden *golden, const char *family)
{
    *golden = (struct golden){.family = family, .tokens_per_microbatch = 300};
    golden->json = golden_json(family, "dpo.json");
    golden->pairs = ha_json_get(golden->json, "pairs");
    golden->settings = ha_json_get(golden->json, "settings");
    assert_true(ha_json_size(golden->pairs) > 0);
    load_pairs(golden);
    golden->backend = open_cpu(2);
    assert_ok(ha_model_open(golden->backend, demo_model_path(family), &golden->model, &err));
}

/* The same for dpo-long.json, whose pairs are those of the demo data. */
static void open_long(struct golden *golden, const char *family)
{
    struct ha_pair_options options = {.split = HA_SPLIT_TRL};
    struct ha_tokenizer *tokenizer = NULL;
    struct ha_rows *rows = NULL;

    *golden = (struct golden){.family = family, .tokens_per_microbatch = 1000};
    golden->json = golden_json(family, "dpo-long.json");
    golden->settings = ha_json_get(golden->json, "settings");
    options.max_length = ha_json_int(ha_json_get(golden->settings, "max_length"), 0);
    assert_ok(ha_tokenizer_load(demo_model_path(family), &tokenizer, &err));
    assert_ok(ha_rows_open((const char *const[]){demo_model_path("../data/train.jsonl")}, 1, &rows,
                           &err));
    assert_ok(ha_pair_set_create(
        rows, tokenizer, &options, ha_json_int(ha_json_get(golden->settings, "train_samples"), -1),
        (uint64_t)ha_json_int(ha_json_get(golden->settings, "seed"), -1), &golden->made, &err));
    golden->set = *golden->made;
    ha_rows_close(rows);
    ha_tokenizer_destroy(tokenizer);
    golden->backend = open_cpu(2);
    assert_ok(ha_model_open(golden->backend, demo_model_path(family), &golden->model, &err));
}

static void close_golden(struct golden *golden)
{
    ha_model_destroy(golden->model);
    ha_backend_close(golden->backend);
    if (!golden->made) {
        free(golden->set.ids);
        free(golden->set.offset);
    }
    ha_pair_set_destroy(golden->made);
    ha_json_destroy(golden->json);
}

static struct ha_adapter *load_adapter(const struct golden *golden, const char *name)
{
    struct ha_adapter_geometry geometry;
    struct ha_adapter *adapter = NULL;

    ha_model_config_geometry(ha_model_config(golden->model), &geometry);
    assert_ok(ha_adapter_load(golden->backend, &geometry, golden_path(golden->family, name),
                              &adapter, &err));
    return adapter;
}

static double setting(const struct golden *golden, const char *key)
{
    const struct ha_json *value = ha_json_get(golden->settings, key);

    if (!value)
        fail_msg("dpo.json: settings.%s is missing", key);
    return ha_json_real(value, NAN);
}

static struct ha_dpo_trainer *make_trainer(const struct golden *golden, struct ha_adapter *adapter,
                                           const struct ha_dpo_callbacks *callbacks)
{
    struct ha_dpo_trainer *trainer = NULL;
    struct ha_dpo_cell cell;
    struct ha_dpo_job job;

    ha_dpo_job_defaults(&job);
    job.train = &golden->set;
    job.batch_size = (int64_t)setting(golden, "per_device_train_batch_size");
    job.gradient_accumulation = (int64_t)setting(golden, "gradient_accumulation_steps");
    job.order_seed = (uint64_t)setting(golden, "seed");
    job.tokens_per_microbatch = golden->tokens_per_microbatch;
    ha_dpo_cell_defaults(&cell);
    cell.name = golden->family;
    cell.adapter = adapter;
    if (golden->loss)
        read_loss_settings(golden->loss, 1, &cell.loss);
    cell.loss.beta = setting(golden, "beta");
    cell.learning_rate = setting(golden, "learning_rate");
    cell.weight_decay = setting(golden, "weight_decay");
    cell.max_grad_norm = setting(golden, "max_grad_norm");
    assert_ok(
        ha_dpo_trainer_create(golden->model, &job, &cell, 1, callbacks, NULL, &trainer, &err));
    return trainer;
}

/* ---- gradients ---- */

static float *download(const struct golden *golden, const float *device, int64_t n)
{
    float *host = ha_calloc(n, sizeof(float));

    assert_non_null(host);
    assert_ok(ha_backend_download(golden->backend, host, device, (size_t)n * sizeof(float), &err));
    assert_ok(ha_backend_sync(golden->backend, &err));
    return host;
}

/* The place of a PEFT tensor name in an adapter's block. */
static int64_t find_tensor(const struct ha_adapter *adapter, const char *name, bool *ret_is_a,
                           int64_t *ret_n)
{
    for (int64_t layer = 0; layer < ha_adapter_geometry(adapter)->n_layers; layer++) {
        for (int module = 0; module < HA_MODULE_COUNT; module++) {
            const struct ha_lora *lora = ha_adapter_lora(adapter, layer, (enum ha_module)module);
            char prefix[128];

            snprintf(prefix, sizeof(prefix), "base_model.model.model.layers.%d.%s.lora_",
                     (int)layer, ha_module_path((enum ha_module)module));
            if (!lora->a.data || strncmp(name, prefix, strlen(prefix)) != 0)
                continue;
            *ret_is_a = name[strlen(prefix)] == 'A';
            *ret_n = *ret_is_a ? lora->a.rows * lora->a.cols : lora->b.rows * lora->b.cols;
            return *ret_is_a ? lora->a_offset : lora->b_offset;
        }
    }
    fail_msg("%s is not in the adapter", name);
    return 0;
}

/* The oracle's own fp32-fp64 gap of a tensor, relative to its norm. */
static double oracle_gap(const struct ha_json *table, const char *name)
{
    const struct ha_json *entry = ha_json_get(table, name);

    assert_non_null(entry);
    return ha_json_real(ha_json_get(entry, "gap"), 0) /
           ha_json_real(ha_json_get(entry, "norm"), INFINITY);
}

static void check_gradients(struct golden *golden, const char *adapter_name, const char *file_name,
                            const char *table_name)
{
    struct ha_adapter *adapter = load_adapter(golden, adapter_name);
    struct ha_dpo_trainer *trainer = make_trainer(golden, adapter, NULL);
    struct ha_safetensors *file = golden_tensors(golden->family, file_name);
    const struct ha_json *table = ha_json_get(golden->json, table_name);
    struct ha_window window = ha_batch_window(&trainer->train.batch, 0);
    bool zero = strcmp(adapter_name, "adapter-zero") == 0;
    double worst_a = 0, worst_b = 0;
    int64_t n_params = ha_adapter_n_params(adapter);
    float *gradient;

    assert_ok(ha_dpo_packs_set_epoch(&trainer->train, 0, &err));
    assert_ok(ha_dpo_window(trainer, &window, &err));
    gradient = download(golden, trainer->cells[0].gradient, n_params);
    assert_true(ha_safetensors_count(file) > 0);
    for (int64_t i = 0; i < ha_safetensors_count(file); i++) {
        const struct ha_safetensors_tensor *tensor = ha_safetensors_at(file, i);
        int64_t n, offset;
        bool is_a;
        double gap, limit;

        offset = find_tensor(adapter, tensor->name, &is_a, &n);
        assert_int_equal(n, tensor->n_elements);
        gap = relative_gap(gradient + offset, tensor->data, n);
        limit = fmax(is_a ? DA_LIMIT : DB_LIMIT, oracle_gap(table, tensor->name));
        if (gap > limit)
            fail_msg("%s %s: differs by %g, allowed %g", file_name, tensor->name, gap, limit);
        *(is_a ? &worst_a : &worst_b) = fmax(is_a ? worst_a : worst_b, gap);
    }
    print_message("  %s: dB differs by %.2g, dA by %.2g\n", file_name, worst_b, worst_a);
    if (zero) {
        for (int64_t layer = 0; layer < ha_adapter_geometry(adapter)->n_layers; layer++) {
            for (int module = 0; module < HA_MODULE_COUNT; module++) {
                const struct ha_lora *lora =
                    ha_adapter_lora(adapter, layer, (enum ha_module)module);

                for (int64_t i = 0; lora->a.data && i < lora->a.rows * lora->a.cols; i++)
                    assert_true(gradient[lora->a_offset + i] == 0.0f);
            }
        }
        /* B = 0: policy and reference are the same numbers. */
        for (int64_t i = 0; i < window.n_pairs; i++) {
            const struct ha_dpo_pair_logps *logps = &trainer->cells[0].results[i].logps;

            assert_true(logps->chosen == logps->ref_chosen);
            assert_true(logps->rejected == logps->ref_rejected);
            assert_true(trainer->cells[0].results[i].loss.value == log(2.0));
        }
    }
    free(gradient);
    ha_safetensors_close(file);
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
}

static void gradients_agree(void **state)
{
    struct golden golden;

    open_golden(&golden, *state);
    check_gradients(&golden, "adapter-zero", "dpo-gradients-zero.safetensors", "gradients_zero");
    check_gradients(&golden, "adapter-random", "dpo-gradients-random.safetensors",
                    "gradients_random");
    close_golden(&golden);
}

static void references_agree(void **state)
{
    struct golden golden;
    struct ha_adapter *adapter;
    struct ha_dpo_trainer *trainer;

    open_golden(&golden, *state);
    adapter = load_adapter(&golden, "adapter-zero");
    trainer = make_trainer(&golden, adapter, NULL);
    assert_ok(ha_dpo_trainer_run(trainer, &err)); /* the steps of an epoch come by all of them */
    for (int64_t i = 0; i < golden.set.n_pairs; i++) {
        const struct ha_json *pair = ha_json_at(golden.pairs, i);
        double chosen = ha_json_real(ha_json_get(pair, "reference_chosen_logp_fp64"), NAN);
        double rejected = ha_json_real(ha_json_get(pair, "reference_rejected_logp_fp64"), NAN);

        assert_true(fabs(trainer->train_reference[i].chosen - chosen) <=
                    1e-6 * fmax(10, fabs(chosen)));
        assert_true(fabs(trainer->train_reference[i].rejected - rejected) <=
                    1e-6 * fmax(10, fabs(rejected)));
    }
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    close_golden(&golden);
}

/* ---- three optimizer steps ---- */

/* The same training twice: with TRL's limit of the gradient's norm, which acts on hardly a step,
 * and with one that acts on all.  The second makes gradients some tenfold smaller and so brings
 * tenfold more elements near eps = 1e-8, where Adam's step follows their rounding: it shows that
 * clipping is there and right, and the first one how exact the rest is. */
static const struct run {
    const char *steps, *trained, *file, *file_fp64, *max_grad_norm;
    double change_slack; /* times the limits of what the steps changed */
} plain_run = {"steps", "trained", "dpo-trained.safetensors", "dpo-trained-fp64.safetensors",
               NULL,    1},
  clipped_run = {"clipped_steps",
                 "clipped_trained",
                 "dpo-trained-clipped.safetensors",
                 "dpo-trained-clipped-fp64.safetensors",
                 "clipped_max_grad_norm",
                 10},
  long_run = {
      "steps", "trained", "dpo-long-trained-fp64.safetensors", "dpo-long-trained-fp64.safetensors",
      NULL,    1};

enum { MAX_STEPS = 20, MAX_METRICS = 24 };

struct log {
    struct ha_dpo_metric metrics[MAX_STEPS][MAX_METRICS];
    int64_t n_metrics[MAX_STEPS];
    int64_t n_steps;
};

static void keep_metrics(void *user, int64_t cell, int64_t step,
                         const struct ha_dpo_metric *metrics, int64_t n_metrics)
{
    struct log *log = user;

    assert_int_equal(cell, 0);
    assert_int_equal(step, log->n_steps + 1);
    assert_true(step <= MAX_STEPS && n_metrics <= MAX_METRICS);
    memcpy(log->metrics[log->n_steps], metrics, (size_t)n_metrics * sizeof(*metrics));
    log->n_metrics[log->n_steps] = n_metrics;
    log->n_steps++;
}

static double metric(const struct log *log, int64_t step, const char *name)
{
    for (int64_t i = 0; i < log->n_metrics[step]; i++) {
        if (strcmp(log->metrics[step][i].name, name) == 0)
            return log->metrics[step][i].value;
    }
    fail_msg("metric %s was not reported", name);
    return 0;
}

/* How far a run is from the oracle, in units of what is allowed; above 1 a
 * comparison fails. */
struct distance {
    double worst;
    char what[160];
};

static void measure(struct distance *distance, double gap, double limit, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void measure(struct distance *distance, double gap, double limit, const char *format, ...)
{
    double ratio = gap / limit;
    va_list args;

    if (isnan(ratio))
        ratio = INFINITY;
    if (ratio <= distance->worst)
        return;
    distance->worst = ratio;
    va_start(args, format);
    vsnprintf(distance->what, sizeof(distance->what), format, args);
    va_end(args);
}

static void measure_log(const struct golden *golden, const struct run *run, const struct log *log,
                        struct distance *distance)
{
    /* Limits of figures that ENGINE.md does not name are those of their parts. */
    static const struct {
        const char *name;
        double limit, relative;
    } figures[] = {
        {"loss", LOSS_LIMIT, 0},
        {"rewards/chosen", REWARD_LIMIT, 0},
        {"rewards/rejected", REWARD_LIMIT, 0},
        {"rewards/margins", REWARD_LIMIT, 0},
        {"rewards/accuracies", 1e-8, 0},
        {"logps/chosen", 1e-4, 1e-6},
        {"logps/rejected", 1e-4, 1e-6},
        {"logits/chosen", 2e-5, 0},
        {"logits/rejected", 2e-5, 0},
        {"entropy", 2e-5, 0},
        {"mean_token_accuracy", 1e-6, 0},
        {"grad_norm", 0, 2e-5},
        {"learning_rate", 0, 1e-8},
        {"num_tokens", 0.5, 0},
        {"epoch", 1e-8, 0},
    };

    const struct ha_json *steps = ha_json_get(golden->json, run->steps);

    assert_int_equal(log->n_steps, ha_json_size(steps));
    for (int64_t step = 0; step < log->n_steps; step++) {
        const struct ha_json *entry = ha_json_at(steps, step);
        const struct ha_json *theirs = ha_json_get(entry, "log"), *gaps = ha_json_get(entry, "gap");

        for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
            const char *name = figures[i].name;
            const struct ha_json *value = ha_json_get(theirs, name);
            double want, limit;

            if (!value)
                fail_msg("dpo.json: no %s in the log of step %d", name, (int)step);
            want = ha_json_real(value, NAN);
            limit = figures[i].limit + figures[i].relative * fabs(want);
            limit = fmax(limit, ha_json_real(ha_json_get(gaps, name), 0));
            measure(distance, fabs(metric(log, step, name) - want), limit,
                    "%s of step %d: %.9g, TRL has %.9g", name, (int)step + 1,
                    metric(log, step, name), want);
        }
    }
}

/* ||trained - wanted|| / ||wanted - start||. */
static double change_gap(const float *trained, const float *wanted, const float *start, int64_t n)
{
    double gap = 0, change = 0;

    for (int64_t i = 0; i < n; i++) {
        double difference = (double)trained[i] - (double)wanted[i];
        double moved = (double)wanted[i] - (double)start[i];

        gap += difference * difference;
        change += moved * moved;
    }
    return sqrt(gap / change);
}

/* Adam's first step moves each element by the sign of its gradient, so an element whose gradient
 * is nothing but rounding moves either way, in TRL as here.  Where we differ from TRL the arbiter
 * decides: TRL's run in fp64. */
static void measure_change(const struct golden *golden, const struct run *run,
                           const struct ha_adapter *adapter, struct distance *distance)
{
    struct ha_adapter *start = load_adapter(golden, "adapter-zero");
    struct ha_safetensors *file = golden_tensors(golden->family, run->file);
    struct ha_safetensors *file_fp64 = golden_tensors(golden->family, run->file_fp64);
    const struct ha_json *table = ha_json_get(golden->json, run->trained);
    float *before = download(golden, ha_adapter_params(start), ha_adapter_n_params(start));
    float *after = download(golden, ha_adapter_params(adapter), ha_adapter_n_params(adapter));

    assert_int_equal(ha_adapter_n_params(start), ha_adapter_n_params(adapter));
    assert_true(ha_safetensors_count(file) > 0);
    for (int64_t i = 0; i < ha_safetensors_count(file); i++) {
        const struct ha_safetensors_tensor *tensor = ha_safetensors_at(file, i);
        const struct ha_safetensors_tensor *arbiter = ha_safetensors_find(file_fp64, tensor->name);
        const struct ha_json *entry = ha_json_get(table, tensor->name);
        double gap, own = ha_json_real(ha_json_get(entry, "gap"), 0) /
                          ha_json_real(ha_json_get(entry, "change_norm"), INFINITY);
        int64_t n, offset;
        bool is_a;

        assert_non_null(arbiter);
        offset = find_tensor(adapter, tensor->name, &is_a, &n);
        assert_int_equal(n, tensor->n_elements);
        gap = fmin(change_gap(after + offset, tensor->data, before + offset, n),
                   change_gap(after + offset, arbiter->data, before + offset, n));
        measure(distance, gap,
                fmax(run->change_slack * (is_a ? CHANGE_A_LIMIT : CHANGE_B_LIMIT), own),
                "change of %s: differs by %.3g of its norm", tensor->name, gap);
    }
    free(after);
    free(before);
    ha_safetensors_close(file_fp64);
    ha_safetensors_close(file);
    ha_adapter_destroy(start);
}

enum fault { NO_FAULT, ZERO_RATE, LARGER_BETA, SHIFTED_MASK, NO_DECAY, NO_CLIPPING };

/* The same sequences with a loss that begins one token early: the last token of
 * each prompt becomes the first of both answers. */
static void shift_mask(struct ha_pair_set *set)
{
    int64_t n = set->n_pairs;
    int32_t *ids = ha_calloc(set->offset[3 * n] + n, sizeof(*ids)), *at = ids;
    int64_t *offset = ha_calloc(3 * n + 1, sizeof(*offset));

    assert_non_null(ids);
    assert_non_null(offset);
    for (int64_t i = 0; i < 3 * n; i++) {
        int64_t first = set->offset[i], end = set->offset[i + 1];
        bool prompt = i % 3 == 0;

        if (!prompt)
            *at++ = set->ids[set->offset[i / 3 * 3 + 1] - 1];
        for (int64_t j = first; j < (prompt ? end - 1 : end); j++)
            *at++ = set->ids[j];
        offset[i + 1] = at - ids;
    }
    free(set->ids);
    free(set->offset);
    set->ids = ids;
    set->offset = offset;
}

/* Train the golden steps; compare everything. */
static struct distance train_and_compare(struct golden *golden, const struct run *run,
                                         enum fault fault)
{
    struct log log = {.n_steps = 0};
    struct ha_dpo_callbacks callbacks = {.user = &log, .metrics = keep_metrics};
    struct ha_adapter *adapter = load_adapter(golden, "adapter-zero");
    struct ha_dpo_trainer *trainer;
    struct distance distance = {.worst = 0};

    if (fault == SHIFTED_MASK)
        shift_mask(&golden->set);
    trainer = make_trainer(golden, adapter, &callbacks);
    if (fault == ZERO_RATE)
        trainer->cells[0].settings.learning_rate = 0;
    if (fault == LARGER_BETA)
        trainer->cells[0].settings.loss.beta *= 1.01;
    if (fault == NO_DECAY)
        trainer->cells[0].settings.weight_decay = 0;
    if (run->max_grad_norm && fault != NO_CLIPPING)
        trainer->cells[0].settings.max_grad_norm =
            ha_json_real(ha_json_get(golden->json, run->max_grad_norm), NAN);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_null(ha_dpo_trainer_outcome(trainer, 0));
    measure_log(golden, run, &log, &distance);
    measure_change(golden, run, adapter, &distance);
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    return distance;
}

static void training_agrees(void **state)
{
    static const struct run *const runs[] = {&plain_run, &clipped_run};

    for (size_t i = 0; i < 2; i++) {
        struct distance distance;
        struct golden golden;

        open_golden(&golden, *state);
        distance = train_and_compare(&golden, runs[i], NO_FAULT);
        print_message("  %s, nearest to its limit (%.2g of it): %s\n", runs[i]->steps,
                      distance.worst, distance.what);
        if (!(distance.worst <= 1))
            fail_msg("%s", distance.what);
        close_golden(&golden);
    }
}

static void twenty_steps_agree(void **state)
{
    struct distance distance;
    struct golden golden;

    open_long(&golden, *state);
    assert_int_equal(ha_json_size(ha_json_get(golden.json, "steps")), MAX_STEPS);
    distance = train_and_compare(&golden, &long_run, NO_FAULT);
    print_message("  nearest to its limit (%.2g of it): %s\n", distance.worst, distance.what);
    if (!(distance.worst <= 1))
        fail_msg("%s", distance.what);
    close_golden(&golden);
}

static void planted_faults_are_caught(void **state)
{
    static const struct {
        const struct run *run;
        enum fault fault;
    } plants[] = {{&plain_run, ZERO_RATE},
                  {&plain_run, LARGER_BETA},
                  {&plain_run, SHIFTED_MASK},
                  {&plain_run, NO_DECAY},
                  {&clipped_run, NO_CLIPPING}};

    for (size_t i = 0; i < sizeof(plants) / sizeof(plants[0]); i++) {
        struct distance distance;
        struct golden golden;

        open_golden(&golden, *state);
        distance = train_and_compare(&golden, plants[i].run, plants[i].fault);
        print_message("  fault %d: %.3g times the limit: %s\n", (int)plants[i].fault,
                      distance.worst, distance.what);
        assert_true(distance.worst > 1);
        close_golden(&golden);
    }
}

/* ---- the other losses ---- */

/* Two steps of a loss from adapter-random. */
static struct distance train_loss(struct golden *golden, const struct ha_json *file,
                                  const struct ha_json *entry, int64_t tokens)
{
    static const char *const names[] = {"loss",
                                        "grad_norm",
                                        "rewards/chosen",
                                        "rewards/rejected",
                                        "rewards/margins",
                                        "rewards/accuracies",
                                        "logps/chosen",
                                        "logps/rejected"};
    const struct ha_json *steps = ha_json_get(entry, "steps");
    const struct ha_json *training = ha_json_get(file, "training");
    struct log log = {.n_steps = 0};
    struct ha_dpo_callbacks callbacks = {.user = &log, .metrics = keep_metrics};
    struct ha_adapter *adapter = load_adapter(golden, "adapter-random");
    struct ha_dpo_trainer *trainer;
    struct distance distance = {.worst = 0};

    golden->settings = training;
    golden->loss = ha_json_get(entry, "settings");
    golden->tokens_per_microbatch = tokens;
    trainer = make_trainer(golden, adapter, &callbacks);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_null(ha_dpo_trainer_outcome(trainer, 0));
    assert_int_equal(log.n_steps, ha_json_size(steps));
    for (int64_t step = 0; step < log.n_steps; step++) {
        const struct ha_json *step_json = ha_json_at(steps, step);

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            double want = ha_json_real(ha_json_get(ha_json_get(step_json, "log"), names[i]), NAN);
            double own = ha_json_real(ha_json_get(ha_json_get(step_json, "gap"), names[i]), 0);
            double have = metric(&log, step, names[i]);

            /* Losses far from 1 are right to so many digits, as log-probs are. */
            measure(&distance, fabs(have - want),
                    fmax(i == 1 ? 2e-5 * want : LOSS_LIMIT * fmax(1, fabs(want)), 2 * own),
                    "%s of step %d: %.9g, TRL has %.9g", names[i], (int)step + 1, have, want);
        }
    }
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    return distance;
}

static void losses_agree(void **state)
{
    struct ha_json *file = golden_json(".", "losses.json");
    const struct ha_json *trained = ha_json_get(file, "trained");
    struct golden golden;
    double nearest = 0;

    (void)state;
    open_golden(&golden, ha_json_string(ha_json_get(file, "family"), ""));
    assert_true(ha_json_size(trained) > HA_DPO_SFT);
    for (int64_t i = 0; i < ha_json_size(trained); i++) {
        const struct ha_json *entry = ha_json_at(trained, i);
        const struct ha_json *settings = ha_json_get(entry, "settings");
        bool sorts = strncmp(describe_loss(settings), "aot", 3) == 0;

        /* Packs that cut micro-batches; and whole windows for the losses that mind. */
        for (int64_t tokens = 100; tokens <= (sorts ? 30000 : 100); tokens *= 300) {
            struct distance distance = train_loss(&golden, file, entry, tokens);

            if (!(distance.worst <= 1))
                fail_msg("%s: %.3g times the limit: %s", describe_loss(settings), distance.worst,
                         distance.what);
            nearest = fmax(nearest, distance.worst);
        }
    }
    print_message("  %d losses, nearest to its limit: %.2g of it\n", (int)ha_json_size(trained),
                  nearest);
    close_golden(&golden);
    ha_json_destroy(file);
}

#define OF_FAMILY(test, family)                                                                    \
    {                                                                                              \
#test " " family, test, NULL, NULL, (void *)(uintptr_t)family                              \
    }
#define OF_EACH_FAMILY(test)                                                                       \
    OF_FAMILY(test, "llama-2-demo"), OF_FAMILY(test, "llama-3.1-demo"),                            \
        OF_FAMILY(test, "qwen2.5-demo"), OF_FAMILY(test, "qwen3-demo")

/* ---- norms of frozen weights' gradients ---- */

static const struct ha_dpo_probe_norms *norms_at(const struct ha_dpo_probe_result *result,
                                                 const char *block, int64_t layer)
{
    static const char *const names[] = {"local", "mid", "global", "full"};
    int64_t n_layers = result->n_norms - 4;

    for (int64_t i = 0; block[0] && i < 4; i++)
        if (strcmp(names[i], block) == 0)
            return &result->norms[n_layers + i];
    return &result->norms[layer];
}

static int module_of(const char *name)
{
    for (int module = 0; module < HA_DPO_PROBE_MODULES; module++)
        if (strcmp(ha_dpo_probe_module_name(module), name) == 0)
            return module;
    fail_msg("no module %s", name);
    return 0;
}

/* The largest relative error. */
static double probe_error(const struct golden *golden, const struct ha_json *norms, double beta)
{
    int64_t n = ha_model_config(golden->model)->n_layers, local = n / 3 + (n % 3 > 0);
    int64_t mid = n / 3 + (n % 3 > 1);
    const struct ha_dpo_probe_range blocks[] = {
        {0, local}, {local, mid}, {local + mid, n - local - mid}, {0, n}};
    struct ha_dpo_probe_settings settings = {
        .pairs = golden->set.n_pairs, .share_prompt = true, .ranges = blocks, .n_ranges = 4};
    struct ha_dpo_probe_result *result = NULL;
    double largest = 0;

    ha_dpo_loss_defaults(&settings.loss);
    settings.loss.beta = beta;
    assert_ok(
        ha_dpo_probe(golden->model, &golden->set, &settings, NULL, NULL, NULL, &result, &err));
    assert_int_equal(ha_json_size(norms), result->n_norms * HA_DPO_PROBE_MODULES);
    for (int64_t i = 0; i < ha_json_size(norms); i++) {
        const struct ha_json *item = ha_json_at(norms, i);
        const char *block = ha_json_string(ha_json_get(item, "block"), "?");
        const struct ha_dpo_probe_norms *ours =
            norms_at(result, block, ha_json_int(ha_json_get(item, "layer"), -1));
        double want = ha_json_real(ha_json_get(item, "norm"), 0);
        double got = ours->norm[module_of(ha_json_string(ha_json_get(item, "module"), ""))];

        assert_int_equal(ours->range.first, ha_json_int(ha_json_get(item, "layer"), -1));
        assert_true(want > 0);
        largest = fmax(largest, fabs(got - want) / want);
    }
    ha_dpo_probe_result_destroy(result);
    return largest;
}

static void probe_norms(void **state)
{
    (void)state;
    for (int f = 0; f < 4; f++) {
        struct ha_json *json = golden_json(golden_families[f], "probe.json");
        const struct ha_json *norms = ha_json_get(json, "norms");
        double beta = ha_json_real(ha_json_get(json, "beta"), 0), error;
        struct golden golden;

        open_golden(&golden, golden_families[f]);
        assert_int_equal(ha_json_int(ha_json_get(json, "pairs"), 0), golden.set.n_pairs);
        error = probe_error(&golden, norms, beta);
        if (!(error <= PROBE_LIMIT))
            fail_msg("%s: %g", golden_families[f], error);
        assert_true(probe_error(&golden, norms, beta * 1.01) > PROBE_LIMIT);
        close_golden(&golden);
        ha_json_destroy(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OF_EACH_FAMILY(references_agree),
        OF_EACH_FAMILY(gradients_agree),
        OF_EACH_FAMILY(training_agrees),
        OF_EACH_FAMILY(twenty_steps_agree),
        OF_EACH_FAMILY(planted_faults_are_caught),
        cmocka_unit_test(losses_agree),
        cmocka_unit_test(probe_norms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
