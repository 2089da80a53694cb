/* Cells in lock-step: each adapter, byte for byte, as if it had been trained alone, whatever the
 * cells beside it, wherever the references come from and wherever a run was interrupted. */
#include "tests/unit/dpo/lockstep_cells.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "worker/dpo/count.h"
#include "worker/dpo/flops.h"
#include "worker/dpo/work.h"

/* All in one job, references of their own or from the file. */
static void train_together(struct fixture *fixture, const struct trained *alone, bool from_file)
{
    struct ha_dpo_trainer *trainer;

    make_cells(fixture);
    trainer = make_trainer(fixture, 0, N_CELLS);
    if (from_file)
        assert_ok(ha_dpo_trainer_load_references(trainer, path_of("reference", 0), NULL, &err));
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_same(fixture, alone);
    for (int i = 0; i < N_CELLS; i++) {
        assert_null(ha_dpo_trainer_outcome(trainer, i));
        assert_true(fixture->losses[i] == alone->losses[i]);
        assert_int_equal(fixture->n_metrics[i], fixture->job.epochs * STEPS_PER_EPOCH);
    }
    if (!from_file)
        assert_ok(ha_dpo_trainer_save_references(trainer, path_of("reference", 0), &err));
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(fixture);
}

/* Stopped after step `at`, with checkpoints, and gone on from them. */
static void train_in_two_parts(struct fixture *fixture, const struct trained *alone, int64_t at)
{
    struct ha_dpo_trainer *trainer;
    char name[32];

    snprintf(name, sizeof(name), "step%d", (int)at);
    make_cells(fixture);
    fixture->stop_at = at;
    trainer = make_trainer(fixture, 0, N_CELLS);
    assert_int_equal(ha_dpo_trainer_run(trainer, NULL), -EINTR);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(fixture);
    fixture->stop = 0;
    fixture->stop_at = 0;

    make_cells(fixture);
    trainer = make_trainer(fixture, 0, N_CELLS);
    for (int i = 0; i < N_CELLS; i++)
        assert_ok(ha_dpo_trainer_load(trainer, i, path_of(name, i), false, &err));
    assert_int_equal(ha_dpo_trainer_step(trainer), at);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_same(fixture, alone);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(fixture);
}

/* Each cell goes on from another step, the first from none: those that are further wait. */
static void train_from_unequal_steps(struct fixture *fixture, const struct trained *alone)
{
    static const int64_t steps[N_CELLS] = {0, 3, 1, 2, 3, 0};
    struct ha_dpo_trainer *trainer;

    make_cells(fixture);
    fixture->job.checkpoint_steps = 1;
    trainer = make_trainer(fixture, 0, N_CELLS);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(fixture);
    fixture->job.checkpoint_steps = 0;

    make_cells(fixture);
    trainer = make_trainer(fixture, 0, N_CELLS);
    for (int i = 0; i < N_CELLS; i++) {
        char name[32];

        snprintf(name, sizeof(name), "step%d", (int)steps[i]);
        if (steps[i] > 0)
            assert_ok(ha_dpo_trainer_load(trainer, i, path_of(name, i), false, &err));
    }
    assert_int_equal(ha_dpo_trainer_step(trainer), 0);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_same(fixture, alone);
    for (int i = 0; i < N_CELLS; i++) {
        struct ha_dpo_stats stats;

        ha_dpo_trainer_stats(trainer, i, &stats);
        assert_int_equal(stats.steps, fixture->job.epochs * STEPS_PER_EPOCH);
        assert_int_equal(stats.pairs, fixture->job.epochs * N_TRAIN);
        assert_int_equal(fixture->n_metrics[i], fixture->job.epochs * STEPS_PER_EPOCH - steps[i]);
    }
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(fixture);
}

static void as_alone(int family, int64_t epochs, double dropout)
{
    struct trained alone = {0};
    struct fixture fixture;

    set_up(&fixture, family);
    fixture.job.epochs = epochs;
    fixture.dropout = dropout;
    train_alone(&fixture, &alone);
    train_together(&fixture, &alone, false);
    train_together(&fixture, &alone, true);
    train_in_two_parts(&fixture, &alone, 2);
    if (epochs > 1)
        train_in_two_parts(&fixture, &alone, STEPS_PER_EPOCH + 1);
    train_from_unequal_steps(&fixture, &alone);
    forget(&alone);
    tear_down(&fixture);
}

static void one_epoch(void **state)
{
    as_alone(*(const int *)*state, 1, 0);
}

static void two_epochs(void **state)
{
    as_alone(*(const int *)*state, 2, 0);
}

/* Masks are a cell's own, and the same after a stop. */
static void with_dropout(void **state)
{
    as_alone(*(const int *)*state, 2, 0.1);
}

/* The cells that a wild learning rate leaves alone; it is in the way of all of them: it starts at
 * the embedding, its losses sort, it comes first. */
static void failures_end_one_cell(void **state)
{
    struct trained alone = {0};
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;
    struct ha_dpo_stats stats;

    (void)state;
    set_up(&fixture, 3);
    train_alone(&fixture, &alone);
    make_cells(&fixture);
    fixture.cells[0].learning_rate = 1e30;
    fixture.cells[0].loss.terms[0].kind = HA_DPO_AOT;
    fixture.cells[4].learning_rate = 1e30;
    trainer = make_trainer(&fixture, 0, N_CELLS);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    for (int i = 0; i < N_CELLS; i++) {
        bool wild = i == 0 || i == 4;

        if (wild) {
            assert_non_null(ha_dpo_trainer_outcome(trainer, i));
            assert_non_null(strstr(ha_dpo_trainer_outcome(trainer, i), "not finite"));
            ha_dpo_trainer_stats(trainer, i, &stats);
            assert_true(stats.steps > 0 && stats.steps < STEPS_PER_EPOCH);
            continue;
        }
        assert_null(ha_dpo_trainer_outcome(trainer, i));
        assert_same_params(&fixture, &alone, i);
        assert_true(fixture.evals[i] == alone.evals[i]);
    }
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);

    /* A job whose every cell fails ends as well, and waits for none. */
    make_cells(&fixture);
    fixture.cells[1].learning_rate = 1e30;
    fixture.cells[2].learning_rate = 1e30;
    trainer = make_trainer(&fixture, 1, 2);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_non_null(ha_dpo_trainer_outcome(trainer, 0));
    assert_non_null(ha_dpo_trainer_outcome(trainer, 1));
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    forget(&alone);
    tear_down(&fixture);
}

/* Where a cell fails while others wait further on, the job goes to them. */
static void waiting_cells_outlive_the_first(void **state)
{
    struct trained alone = {0};
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, 1);
    fixture.job.epochs = 2;
    train_alone(&fixture, &alone);
    make_cells(&fixture);
    fixture.job.checkpoint_steps = 6;
    trainer = make_trainer(&fixture, 1, 1);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);

    make_cells(&fixture);
    fixture.cells[0].learning_rate = 1e30;
    trainer = make_trainer(&fixture, 0, 2);
    assert_ok(ha_dpo_trainer_load(trainer, 1, path_of("step6", 1), false, &err));
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_non_null(ha_dpo_trainer_outcome(trainer, 0));
    assert_null(ha_dpo_trainer_outcome(trainer, 1));
    assert_int_equal(fixture.n_metrics[1], 2);
    assert_same_params(&fixture, &alone, 1);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    forget(&alone);
    tear_down(&fixture);
}

/* Every FLOP of the steps is charged, once; and together they are fewer than apart. */
static void work_is_charged_and_shared(void **state)
{
    struct ha_dpo_stats stats, sum = {0}, apart = {0};
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, 1);
    fixture.job.eval = NULL;
    make_cells(&fixture);
    for (int i = 0; i < N_CELLS; i++) {
        trainer = make_trainer(&fixture, i, 1);
        assert_ok(ha_dpo_trainer_run(trainer, &err));
        ha_dpo_trainer_stats(trainer, 0, &stats);
        apart.own.flops += stats.own.flops + stats.shared.flops;
        ha_dpo_trainer_destroy(trainer);
    }
    destroy_cells(&fixture);
    make_cells(&fixture);
    trainer = make_trainer(&fixture, 0, N_CELLS);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    for (int i = 0; i < N_CELLS; i++) {
        ha_dpo_trainer_stats(trainer, i, &stats);
        assert_true(stats.own.seconds > 0 && stats.shared.seconds > 0);
        assert_true(stats.own.bytes > 0 && stats.shared.bytes > 0);
        assert_true(stats.plain_flops > stats.own.flops + stats.shared.flops);
        assert_int_equal(stats.pairs, N_TRAIN);
        sum.own.flops += stats.own.flops;
        sum.shared.flops += stats.shared.flops;
        sum.own.seconds += stats.own.seconds + stats.shared.seconds;
        sum.plain_flops += stats.plain_flops;
    }
    assert_true(fabs(sum.own.flops + sum.shared.flops - trainer->steps.flops) <
                1e-9 * trainer->steps.flops);
    assert_true(sum.own.seconds <= trainer->steps.seconds);
    assert_true(sum.plain_flops == trainer->steps.plain_flops);
    assert_true(sum.own.flops + sum.shared.flops < 0.75 * apart.own.flops);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

/* Pairs without empty texts, one to a pack. */
static struct ha_pair_set full_pair_set(int64_t n)
{
    struct ha_pair_set set = {.n_pairs = n};
    struct random random = {77};

    set.offset = ha_calloc(3 * n + 1, sizeof(int64_t));
    set.row = ha_calloc(n, sizeof(int64_t));
    assert_true(set.offset && set.row);
    for (int64_t i = 0; i < 3 * n; i++)
        set.offset[i + 1] = set.offset[i] + 2 + random_below(&random, 9);
    set.ids = ha_calloc(set.offset[3 * n], sizeof(int32_t));
    assert_non_null(set.ids);
    for (int64_t i = 0; i < set.offset[3 * n]; i++)
        set.ids[i] = (int32_t)random_below(&random, VOCAB);
    return set;
}

/* FLOPs by arithmetic over one epoch: a cell's own, and the shared pass. */
static void expect_flops(const struct fixture *fixture, int i, double *ret_own, double *ret_base)
{
    struct ha_dpo_lora_way way = {fixture->small.weights.lora_columns,
                                  fixture->cells[i].dropout > 0};
    double own = 0, base = 0;

    for (int64_t p = 0; p < fixture->train.n_pairs; p++) {
        struct ha_pair pair = ha_pair_at(&fixture->train, p);
        struct ha_dpo_lengths lengths = {(double)pair.n_prompt, (double)pair.n_chosen,
                                         (double)pair.n_rejected, 0};
        struct ha_dpo_flops flops;

        ha_dpo_flops_of_pair(&fixture->small.config, ha_adapter_settings(fixture->cells[i].adapter),
                             &lengths, true, 0, way, &flops);
        own += flops.forward - flops.below + flops.backward;
        base += flops.reference;
    }
    *ret_own = own;
    *ret_base = base;
}

/* What is counted is what the dense formula says, to the last operation: every cell without the
 * layers below its border, and one base pass in equal parts. */
static void work_is_the_formula(void **state)
{
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, 3);
    clear_pair_set(&fixture.train);
    fixture.train = full_pair_set(8);
    fixture.job.eval = NULL;
    fixture.job.tokens_per_microbatch = 1;
    fixture.dropout = 0.1; /* of all cells but the last */
    make_cells(&fixture);
    fixture.cells[2].loss.terms[0].kind = HA_DPO_SIGMOID; /* no pass of its own before the others */
    trainer = make_trainer(&fixture, 0, N_CELLS);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    for (int i = 0; i < N_CELLS; i++) {
        struct ha_dpo_stats stats;
        double own, base;

        ha_dpo_trainer_stats(trainer, i, &stats);
        expect_flops(&fixture, i, &own, &base);
        assert_true(fabs(stats.own.flops - own) <= 1e-12 * own);
        assert_true(fabs(stats.shared.flops - base / N_CELLS) <= 1e-12 * base);
    }
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

/* Two micro-batches of two pairs and one pair, by hand. */
static void plain_method(void **state)
{
    struct fixture fixture;
    struct ha_dpo_trainer *trainer;
    struct ha_window window;
    const struct ha_model_config *config;
    double per_token, tokens = 0;

    (void)state;
    set_up(&fixture, 0);
    make_cells(&fixture);
    fixture.job.gradient_accumulation = 7;
    trainer = make_trainer(&fixture, 0, 1);
    config = ha_model_config(trainer->model);
    assert_ok(ha_dpo_packs_set_epoch(&trainer->train, 0, &err));
    window = ha_batch_window(&trainer->train.batch, 0);
    assert_int_equal(window.n_pairs, N_TRAIN);
    for (int64_t first = 0; first < N_TRAIN; first += 2) {
        int64_t last = first + 2 < N_TRAIN ? first + 2 : N_TRAIN, longest = 0;

        for (int64_t i = first; i < last; i++) {
            struct ha_pair pair = ha_pair_at(&fixture.train, trainer->train.order[i]);
            int64_t lengths[2] = {pair.n_prompt + pair.n_chosen, pair.n_prompt + pair.n_rejected};

            for (int side = 0; side < 2; side++)
                longest = lengths[side] > longest ? lengths[side] : longest;
        }
        tokens += 2.0 * (double)((last - first) * longest);
    }
    /* Width 24: q, k, v, o of 24 x 24, gate, up and down of 24 x 40; the head 24 x 53. */
    per_token = 8.0 * N_LAYERS * (4 * 24 * 24 + 3 * 24 * 40) + 6.0 * 24 * VOCAB;
    assert_true(ha_dpo_plain_flops(config, &trainer->train, &window) == per_token * tokens);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

static char *file_bytes(const char *path, long *ret_size)
{
    FILE *file = fopen(path, "rb");
    char *bytes;

    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *ret_size = ftell(file);
    rewind(file);
    bytes = ha_calloc(*ret_size, 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)*ret_size, file), *ret_size);
    fclose(file);
    return bytes;
}

/* The state of every cell, its checkpoint's bytes, is the same. */
static void assert_same_states(struct ha_dpo_trainer *trainer, bool first)
{
    for (int i = 0; i < N_CELLS; i++) {
        char *bytes[2];
        long size[2];

        if (ha_dpo_trainer_outcome(trainer, i))
            continue;
        assert_ok(ha_dpo_trainer_save(trainer, i, path_of(first ? "before" : "after", i), &err));
        if (first)
            continue;
        bytes[0] = file_bytes(path_of("before", i), &size[0]);
        bytes[1] = file_bytes(path_of("after", i), &size[1]);
        assert_int_equal(size[0], size[1]);
        assert_memory_equal(bytes[0], bytes[1], (size_t)size[0]);
        free(bytes[0]);
        free(bytes[1]);
    }
}

/* Measuring leaves no trace but its result: not in a cell that would diverge by more steps either,
 * and a run goes on from where it was. */
static void alone_changes_nothing(void **state)
{
    struct trained alone = {0};
    struct ha_dpo_trainer *trainer;
    struct ha_dpo_stats stats;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, 2);
    train_alone(&fixture, &alone);
    make_cells(&fixture);
    trainer = make_trainer(&fixture, 0, N_CELLS);
    trainer->job.max_steps = 3;
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_same_states(trainer, true);
    assert_ok(ha_dpo_trainer_measure_alone(trainer, 0, &err));
    ha_dpo_trainer_stats(trainer, 1, &stats);
    assert_true(stats.seconds_alone == 0);
    assert_ok(ha_dpo_trainer_measure_alone(trainer, 5, &err));
    assert_same_states(trainer, false);
    assert_int_equal(ha_dpo_trainer_step(trainer), 3);
    assert_int_equal(fixture.n_metrics[1], 3);
    for (int i = 0; i < N_CELLS; i++) {
        ha_dpo_trainer_stats(trainer, i, &stats);
        assert_true(stats.seconds_alone > 0);
    }
    trainer->job.max_steps = 0;
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_same(&fixture, &alone);
    fixture.stop = 1;
    assert_ok(ha_dpo_trainer_measure_alone(trainer, 5, &err));
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);

    /* One that is over is not measured; nor is a job of one cell. */
    fixture.stop = 0;
    make_cells(&fixture);
    fixture.cells[4].learning_rate = 1e30;
    trainer = make_trainer(&fixture, 3, 2);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_non_null(ha_dpo_trainer_outcome(trainer, 1));
    assert_ok(ha_dpo_trainer_measure_alone(trainer, 2, &err));
    ha_dpo_trainer_stats(trainer, 0, &stats);
    assert_true(stats.seconds_alone > 0);
    ha_dpo_trainer_stats(trainer, 1, &stats);
    assert_true(stats.seconds_alone == 0);
    assert_same_params(&fixture, &alone, 3);
    ha_dpo_trainer_destroy(trainer);
    trainer = make_trainer(&fixture, 5, 1);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_ok(ha_dpo_trainer_measure_alone(trainer, 2, &err));
    ha_dpo_trainer_stats(trainer, 0, &stats);
    assert_true(stats.seconds_alone == 0);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    forget(&alone);
    tear_down(&fixture);
}

static void border_buffers(void **state)
{
    static const int64_t lowest[] = {0, 2, 4, 0, 1, 2}, borders[] = {1, 2, 4};
    struct ha_model_config config = {.width = 4096};
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;
    int64_t bytes = -1;

    (void)state;
    assert_ok(ha_dpo_border_bytes(&config, HA_DTYPE_BF16, 6768, lowest, 6, &bytes, &err));
    assert_int_equal(bytes, INT64_C(3) * 6768 * 4096 * 2);
    assert_ok(ha_dpo_border_bytes(&config, HA_DTYPE_BF16, 6768, lowest, 1, &bytes, &err));
    assert_int_equal(bytes, 0);
    assert_int_equal(
        ha_dpo_border_bytes(&config, HA_DTYPE_F32, INT64_MAX / 4096, lowest, 6, &bytes, NULL),
        -EOVERFLOW);

    set_up(&fixture, 0);
    make_cells(&fixture);
    trainer = make_trainer(&fixture, 0, N_CELLS);
    assert_int_equal(trainer->n_borders, 3);
    for (int64_t i = 0; i < 3; i++)
        assert_int_equal(trainer->borders[i].layer, borders[i]);
    ha_dpo_trainer_destroy(trainer);
    /* The whole of what it holds is what it says. */
    bytes = ha_backend_allocated_bytes(fixture.backend);
    trainer = make_trainer(&fixture, 0, N_CELLS);
    bytes = ha_backend_allocated_bytes(fixture.backend) - bytes;
    for (int i = 0; i < N_CELLS; i++)
        bytes -= 3 * (int64_t)params_bytes(&fixture, i) + (int64_t)sizeof(double);
    assert_int_equal(bytes, ha_dpo_trainer_pass_bytes(trainer));
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

/* With an adapter as reference the shared pass is that adapter's from its lowest layer on. */
static void reference_adapters(void **state)
{
    static const int64_t layers[] = {2, 3};
    struct ha_adapter_settings settings = {
        .rank = 2, .alpha = 4, .modules = 0xf, .layers = layers, .n_layers = 2};
    struct trained alone = {0};
    struct ha_adapter *reference;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, 2);
    reference = random_adapter(fixture.backend, &fixture.small.config, layers[0], layers[1],
                               settings.modules, settings.rank, 0.3f, 41);
    fixture.job.reference = reference;
    train_alone(&fixture, &alone);
    train_together(&fixture, &alone, false);
    train_together(&fixture, &alone, true);
    forget(&alone);
    ha_adapter_destroy(reference);
    tear_down(&fixture);
}

/* ---- a shared prompt is exact ---- */

static void randomise(struct ha_adapter *adapter, uint64_t seed)
{
    struct random random = {seed};
    int64_t n = ha_adapter_n_params(adapter);
    float *params = ha_calloc(n, sizeof(float));

    assert_non_null(params);
    for (int64_t i = 0; i < n; i++)
        params[i] = 0.3f * random_uniform(&random);
    assert_ok(ha_backend_upload(ha_adapter_backend(adapter), ha_adapter_params(adapter), params,
                                (size_t)n * sizeof(float), &err));
    free(params);
}

static void compare_tensors(const struct ha_adapter *adapter, const float *a, const float *b)
{
    const struct ha_adapter_settings *settings = ha_adapter_settings(adapter);

    for (int64_t i = 0; i < settings->n_layers * HA_MODULE_COUNT; i++) {
        const struct ha_lora *lora = ha_adapter_lora(adapter, settings->layers[i / HA_MODULE_COUNT],
                                                     (enum ha_module)(i % HA_MODULE_COUNT));

        if (!lora->a.data)
            continue;
        assert_true(relative_gap(a + lora->a_offset, b + lora->a_offset,
                                 lora->a.rows * lora->a.cols) <= 1e-5);
        assert_true(relative_gap(a + lora->b_offset, b + lora->b_offset,
                                 lora->b.rows * lora->b.cols) <= 1e-5);
    }
}

/* Loss and gradients of a window with random A and B, prompts computed once and twice, for every
 * strategy of every family.  In f32: bf16's rounding is larger than what is looked for. */
static void prompts_once_or_twice(int family, double dropout)
{
    struct fixture fixture;
    float *gradient[N_CELLS];
    double losses[N_CELLS];

    set_up(&fixture, family);
    if (!is_cpu(fixture.backend)) {
        tear_down(&fixture);
        skip();
    }
    fixture.dropout = dropout;
    make_cells(&fixture);
    for (int share = 0; share < 2; share++) {
        struct ha_dpo_trainer *trainer;
        struct ha_window window;

        for (int i = 0; i < N_CELLS; i++)
            randomise(fixture.cells[i].adapter, (uint64_t)i + 50);
        fixture.job.share_prompt = share;
        trainer = make_trainer(&fixture, 0, N_CELLS);
        window = ha_batch_window(&trainer->train.batch, 1);
        assert_ok(ha_dpo_packs_set_epoch(&trainer->train, 0, &err));
        assert_ok(ha_dpo_window(trainer, &window, &err));
        for (int i = 0; i < N_CELLS; i++) {
            const struct ha_dpo_cell_work *cell = &trainer->cells[i];
            double loss = 0;

            for (int64_t p = 0; p < window.n_pairs; p++)
                loss += cell->results[p].loss.value;
            if (share == 0) {
                gradient[i] = ha_calloc((int64_t)params_bytes(&fixture, i), 1);
                assert_non_null(gradient[i]);
                memcpy(gradient[i], cell->gradient, params_bytes(&fixture, i));
                losses[i] = loss;
                continue;
            }
            assert_true(fabs(loss - losses[i]) <= 1e-5 * fmax(1, fabs(losses[i])));
            compare_tensors(cell->settings.adapter, cell->gradient, gradient[i]);
            free(gradient[i]);
        }
        ha_dpo_trainer_destroy(trainer);
    }
    destroy_cells(&fixture);
    tear_down(&fixture);
}

static void shared_prompts(void **state)
{
    prompts_once_or_twice(*(const int *)*state, 0);
}

static void shared_with_dropout(void **state)
{
    prompts_once_or_twice(*(const int *)*state, 0.1);
}

enum { FAMILIES = 4, KINDS = 5, OTHERS = 8 };

int main(void)
{
    static const int families[] = {0, 1, 2, 3};
    static const char *const names[] = {"llama 2", "llama 3.1", "qwen 2.5", "qwen 3"};
    struct CMUnitTest tests[OTHERS + KINDS * FAMILIES] = {
        cmocka_unit_test(failures_end_one_cell),
        cmocka_unit_test(waiting_cells_outlive_the_first),
        cmocka_unit_test(work_is_charged_and_shared),
        cmocka_unit_test(work_is_the_formula),
        cmocka_unit_test(plain_method),
        cmocka_unit_test(alone_changes_nothing),
        cmocka_unit_test(border_buffers),
        cmocka_unit_test(reference_adapters)};
    char texts[KINDS * FAMILIES][64];
    int n = OTHERS;

    for (int i = 0; i < KINDS * FAMILIES; i++, n++) {
        static const CMUnitTestFunction functions[KINDS] = {one_epoch, two_epochs, shared_prompts,
                                                            with_dropout, shared_with_dropout};
        static const char *const kinds[KINDS] = {"one epoch", "two epochs", "shared prompts",
                                                 "dropout", "shared prompts, dropout"};

        snprintf(texts[i], sizeof(texts[i]), "%s, %s", kinds[i % KINDS], names[i / KINDS]);
        tests[n] = (struct CMUnitTest){.name = texts[i],
                                       .test_func = functions[i % KINDS],
                                       .initial_state = (void *)(uintptr_t)&families[i / KINDS]};
    }
    /* The emulated device is slow: the family with most to it, every cell alone and together, from
     * a file of references, interrupted, and from unequal steps. */
    if (getenv("HA_KERNEL_TEST_BACKEND"))
        cmocka_set_test_filter("one epoch, qwen 3");
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
