/* The trainer on small random models: resume, stop, several cells, plans,
 * damaged files, cells that diverge. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "kernels/cpu/cpu.h"
#include "tests/unit/dpo/pair_sets.h"
#include "worker/dpo/score.h"
#include "worker/dpo/work.h"

enum { N_TRAIN = 23, N_EVAL = 7, VOCAB = 53, RANK = 3 };

static char dir[] = "/tmp/ha_test_trainer_XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_pair_set train, eval;
    struct ha_dpo_job job;
    struct ha_dpo_cell cell;
    /* What the callbacks saw. */
    int64_t n_metrics, n_evals, n_checkpoints, last_step;
    double loss, last_eval_loss;
    volatile sig_atomic_t stop;
    int64_t stop_at; /* set stop when this step is reported; 0: never */
};

static void set_up_on(struct fixture *fixture, struct ha_backend *backend)
{
    struct ha_model_config config = small_config(HA_FAMILY_QWEN3);

    memset(fixture, 0, sizeof(*fixture));
    fixture->backend = backend;
    small_model_open(&fixture->small, fixture->backend, &config, HA_DTYPE_BF16, 7);
    fixture->train = random_pair_set(N_TRAIN, VOCAB, 21);
    fixture->eval = random_pair_set(N_EVAL, VOCAB, 22);
    ha_dpo_job_defaults(&fixture->job);
    fixture->job.train = &fixture->train;
    fixture->job.eval = &fixture->eval;
    fixture->job.batch_size = 3;
    fixture->job.gradient_accumulation = 2;
    fixture->job.epochs = 2;
    fixture->job.tokens_per_microbatch = 40;
    ha_dpo_cell_defaults(&fixture->cell);
    fixture->cell.name = "mid";
    fixture->cell.learning_rate = 1e-2;
}

static void set_up(struct fixture *fixture, int threads)
{
    set_up_on(fixture, open_cpu(threads));
}

static void tear_down(struct fixture *fixture)
{
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
    clear_pair_set(&fixture->train);
    clear_pair_set(&fixture->eval);
}

static struct ha_adapter *make_adapter(const struct fixture *fixture, int64_t first, int64_t last)
{
    return random_adapter(fixture->backend, &fixture->small.config, first, last, 0xf, RANK, 0.0f,
                          5);
}

static void on_metrics(void *user, int64_t cell, int64_t step, const struct ha_dpo_metric *metrics,
                       int64_t n_metrics)
{
    struct fixture *fixture = user;

    (void)cell;
    assert_true(n_metrics > 0);
    if (strcmp(metrics[0].name, "eval_loss") == 0) {
        fixture->n_evals++;
        fixture->last_eval_loss = metrics[0].value;
        return;
    }
    assert_string_equal(metrics[0].name, "loss");
    fixture->loss = metrics[0].value;
    fixture->n_metrics++;
    fixture->last_step = step;
    if (fixture->stop_at == step)
        fixture->stop = 1;
}

static const char *checkpoint_path(int64_t cell)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/cell%d.ckpt", dir, (int)cell);
    return path;
}

static int on_checkpoint(void *user, struct ha_dpo_trainer *trainer, int64_t cell, int64_t step,
                         struct ha_error *err)
{
    struct fixture *fixture = user;

    assert_int_equal(step, ha_dpo_trainer_step(trainer));
    fixture->n_checkpoints++;
    return ha_dpo_trainer_save(trainer, cell, checkpoint_path(cell), err);
}

static struct ha_dpo_trainer *make_trainer(struct fixture *fixture, const struct ha_dpo_cell *cells,
                                           int64_t n_cells)
{
    struct ha_dpo_callbacks callbacks = {
        .user = fixture, .metrics = on_metrics, .checkpoint = on_checkpoint};
    struct ha_dpo_trainer *trainer = NULL;

    assert_ok(ha_dpo_trainer_create(fixture->small.model, &fixture->job, cells, n_cells, &callbacks,
                                    &fixture->stop, &trainer, &err));
    return trainer;
}

static void assert_same_params(const struct ha_adapter *a, const struct ha_adapter *b)
{
    assert_int_equal(ha_adapter_n_params(a), ha_adapter_n_params(b));
    assert_memory_equal(ha_adapter_params(a), ha_adapter_params(b),
                        (size_t)ha_adapter_n_params(a) * sizeof(float));
}

/* A run without interruption; the adapter afterwards. */
static struct ha_adapter *whole_run(struct fixture *fixture)
{
    struct ha_adapter *adapter = make_adapter(fixture, 1, 2);
    struct ha_dpo_trainer *trainer;

    fixture->cell.adapter = adapter;
    trainer = make_trainer(fixture, &fixture->cell, 1);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    ha_dpo_trainer_destroy(trainer);
    return adapter;
}

/* 23 pairs, 6 to a window: 4 steps an epoch, 8 in all. */
static void resume_is_exact(void **state)
{
    struct fixture fixture;
    struct ha_adapter *whole;

    (void)state;
    set_up(&fixture, 2);
    whole = whole_run(&fixture);
    assert_int_equal(fixture.n_metrics, 8);
    assert_int_equal(fixture.n_evals, 1);
    for (int64_t at = 1; at < 8; at++) {
        struct ha_adapter *adapter = make_adapter(&fixture, 1, 2);
        struct ha_dpo_trainer *trainer;
        double loss = fixture.loss;

        fixture.cell.adapter = adapter;
        fixture.stop_at = at;
        fixture.n_checkpoints = 0;
        trainer = make_trainer(&fixture, &fixture.cell, 1);
        assert_int_equal(ha_dpo_trainer_run(trainer, NULL), -EINTR);
        assert_int_equal(fixture.n_checkpoints, 1);
        assert_int_equal(ha_dpo_trainer_step(trainer), at);
        ha_dpo_trainer_destroy(trainer);
        ha_adapter_destroy(adapter);

        fixture.stop = 0;
        fixture.stop_at = 0;
        adapter = make_adapter(&fixture, 1, 2);
        fixture.cell.adapter = adapter;
        trainer = make_trainer(&fixture, &fixture.cell, 1);
        assert_ok(ha_dpo_trainer_load(trainer, 0, checkpoint_path(0), false, &err));
        assert_int_equal(ha_dpo_trainer_step(trainer), at);
        assert_ok(ha_dpo_trainer_run(trainer, &err));
        assert_true(fixture.loss == loss);
        assert_same_params(adapter, whole);
        ha_dpo_trainer_destroy(trainer);
        ha_adapter_destroy(adapter);
    }
    ha_adapter_destroy(whole);
    tear_down(&fixture);
}

static void threads_change_nothing(void **state)
{
    struct fixture fixture[2];
    struct ha_adapter *adapter[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        set_up(&fixture[i], i == 0 ? 1 : 3);
        adapter[i] = whole_run(&fixture[i]);
    }
    assert_same_params(adapter[0], adapter[1]);
    for (int i = 0; i < 2; i++) {
        ha_adapter_destroy(adapter[i]);
        tear_down(&fixture[i]);
    }
}

/* Cells of one job get what they would get alone. */
static void several_cells(void **state)
{
    static const int64_t blocks[3][2] = {{0, 1}, {2, 3}, {1, 2}};
    struct fixture fixture;
    struct ha_adapter *alone[3], *together[3];
    struct ha_dpo_cell cells[3];
    struct ha_dpo_trainer *trainer;

    (void)state;
    set_up(&fixture, 2);
    for (int i = 0; i < 3; i++) {
        cells[i] = fixture.cell;
        cells[i].loss.beta = 0.1 * (i + 1);
        /* Each with a way of its own through the packs: one by one, all of a micro-batch first,
         * with more of the head's results. */
        if (i == 1)
            cells[i].loss.terms[0].kind = HA_DPO_AOT_UNPAIRED;
        cells[i].loss.use_weighting = i == 2;
        cells[i].adapter = alone[i] = make_adapter(&fixture, blocks[i][0], blocks[i][1]);
        trainer = make_trainer(&fixture, &cells[i], 1);
        assert_ok(ha_dpo_trainer_run(trainer, &err));
        ha_dpo_trainer_destroy(trainer);
        cells[i].adapter = together[i] = make_adapter(&fixture, blocks[i][0], blocks[i][1]);
    }
    trainer = make_trainer(&fixture, cells, 3);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    for (int i = 0; i < 3; i++) {
        assert_null(ha_dpo_trainer_outcome(trainer, i));
        assert_same_params(together[i], alone[i]);
    }
    ha_dpo_trainer_destroy(trainer);
    for (int i = 0; i < 3; i++) {
        ha_adapter_destroy(alone[i]);
        ha_adapter_destroy(together[i]);
    }
    tear_down(&fixture);
}

static void divergence_ends_one_cell(void **state)
{
    struct fixture fixture;
    struct ha_dpo_cell cells[2];
    struct ha_adapter *whole;
    struct ha_dpo_trainer *trainer;

    (void)state;
    set_up(&fixture, 1);
    whole = whole_run(&fixture);
    cells[0] = cells[1] = fixture.cell;
    cells[0].name = "wild";
    cells[0].learning_rate = 1e30;
    cells[0].adapter = make_adapter(&fixture, 1, 2);
    cells[1].adapter = make_adapter(&fixture, 1, 2);
    trainer = make_trainer(&fixture, cells, 2);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_non_null(ha_dpo_trainer_outcome(trainer, 0));
    assert_non_null(strstr(ha_dpo_trainer_outcome(trainer, 0), "not finite"));
    assert_null(ha_dpo_trainer_outcome(trainer, 1));
    assert_same_params(cells[1].adapter, whole);
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(cells[0].adapter);
    ha_adapter_destroy(cells[1].adapter);
    ha_adapter_destroy(whole);
    tear_down(&fixture);
}

/* A checkpoint of a short run, and a trainer that is to load it. */
static void write_checkpoint(struct fixture *fixture)
{
    struct ha_adapter *adapter = make_adapter(fixture, 1, 2);
    struct ha_dpo_trainer *trainer;

    fixture->cell.adapter = adapter;
    fixture->stop_at = 3;
    trainer = make_trainer(fixture, &fixture->cell, 1);
    assert_int_equal(ha_dpo_trainer_run(trainer, NULL), -EINTR);
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    fixture->stop = 0;
    fixture->stop_at = 0;
}

/* Try to load the checkpoint with the fixture's present settings. */
static int try_load(struct fixture *fixture, bool allow_inexact, const char *names)
{
    struct ha_adapter *adapter = make_adapter(fixture, 1, 2), *before = make_adapter(fixture, 1, 2);
    struct ha_dpo_trainer *trainer;
    struct ha_error err = {0};
    int r;

    fixture->cell.adapter = adapter;
    trainer = make_trainer(fixture, &fixture->cell, 1);
    r = ha_dpo_trainer_load(trainer, 0, checkpoint_path(0), allow_inexact, &err);
    if (r < 0) {
        /* Nothing was touched. */
        assert_same_params(adapter, before);
        assert_int_equal(ha_dpo_trainer_step(trainer), 0);
        if (!strstr(err.text, names))
            fail_msg("\"%s\" does not say \"%s\"", err.text, names);
    }
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    ha_adapter_destroy(before);
    return r;
}

static void foreign_checkpoints_are_refused(void **state)
{
    struct fixture fixture;

    (void)state;
    set_up(&fixture, 1);
    write_checkpoint(&fixture);
    assert_int_equal(try_load(&fixture, false, ""), 0);
    fixture.job.tokens_per_microbatch++;
    assert_int_equal(try_load(&fixture, true, "batch plan"), -ESTALE);
    fixture.job.tokens_per_microbatch--;
    fixture.job.order_seed++;
    assert_int_equal(try_load(&fixture, true, "batch plan"), -ESTALE);
    fixture.job.order_seed--;
    fixture.train.ids[5] = (fixture.train.ids[5] + 1) % VOCAB;
    assert_int_equal(try_load(&fixture, true, "batch plan"), -ESTALE);
    fixture.train.ids[5] = (fixture.train.ids[5] + VOCAB - 1) % VOCAB;
    fixture.cell.learning_rate *= 2;
    assert_int_equal(try_load(&fixture, true, "settings"), -ESTALE);
    fixture.cell.learning_rate /= 2;
    assert_int_equal(try_load(&fixture, false, ""), 0);
    tear_down(&fixture);
}

static void other_kernels_need_consent(void **state)
{
    struct ha_backend_options options = {.name = "cpu", .threads = 1};
    struct ha_backend *baseline = NULL;
    struct fixture fixture;

    (void)state;
    set_up(&fixture, 1);
    write_checkpoint(&fixture);
    assert_ok(ha_cpu_open_with(&options, "baseline", &baseline, &err));
    if (strcmp(ha_backend_fingerprint(baseline), ha_backend_fingerprint(fixture.backend)) == 0) {
        ha_backend_close(baseline);
        tear_down(&fixture);
        skip(); /* this processor has but one form of the kernels */
    }
    tear_down(&fixture);
    set_up_on(&fixture, baseline);
    assert_int_equal(try_load(&fixture, false, "--allow-inexact"), -ESTALE);
    assert_int_equal(try_load(&fixture, true, ""), 0);
    tear_down(&fixture);
}

static void damaged_checkpoints_are_refused(void **state)
{
    struct fixture fixture;
    char *bytes = NULL;
    size_t size = 0;

    (void)state;
    set_up(&fixture, 1);
    write_checkpoint(&fixture);
    assert_ok(ha_file_read(checkpoint_path(0), 1 << 24, &bytes, &size, &err));
    for (size_t at = 0; at < size; at += 1 + size / 60) {
        bytes[at] = (char)(bytes[at] ^ 0x10);
        assert_ok(ha_file_write(checkpoint_path(0), bytes, size, 0644, &err));
        assert_true(try_load(&fixture, false, "") < 0);
        bytes[at] = (char)(bytes[at] ^ 0x10);
    }
    for (size_t cut = 0; cut < size; cut += 1 + size / 20) {
        assert_ok(ha_file_write(checkpoint_path(0), bytes, cut, 0644, &err));
        assert_true(try_load(&fixture, false, "") < 0);
    }
    assert_ok(ha_path_remove_tree(checkpoint_path(0), &err));
    assert_int_equal(try_load(&fixture, false, ""), -ENOENT);
    free(bytes);
    tear_down(&fixture);
}

static const char *reference_path(void)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/references", dir);
    return path;
}

/* What a job writes another takes, and computes none of it. */
static void references_can_be_handed_on(void **state)
{
    struct fixture fixture;
    struct ha_adapter *whole, *adapter;
    struct ha_dpo_trainer *trainer;
    double flops;

    (void)state;
    set_up(&fixture, 1);
    whole = make_adapter(&fixture, 1, 2);
    fixture.cell.adapter = whole;
    trainer = make_trainer(&fixture, &fixture.cell, 1);
    assert_false(ha_dpo_trainer_has_references(trainer));
    assert_int_equal(ha_dpo_trainer_save_references(trainer, reference_path(), NULL), -EINVAL);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_true(ha_dpo_trainer_has_references(trainer));
    assert_ok(ha_dpo_trainer_save_references(trainer, reference_path(), &err));
    assert_true(trainer->cells[0].stats.shared.flops > 0);
    flops = trainer->cells[0].stats.own.flops;
    ha_dpo_trainer_destroy(trainer);

    adapter = make_adapter(&fixture, 1, 2);
    fixture.cell.adapter = adapter;
    trainer = make_trainer(&fixture, &fixture.cell, 1);
    assert_ok(ha_dpo_trainer_load_references(trainer, reference_path(), NULL, &err));
    assert_true(ha_dpo_trainer_has_references(trainer));
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_same_params(adapter, whole);
    /* It ran the layers below its border itself. */
    assert_true(trainer->cells[0].stats.shared.flops == 0.0);
    assert_true(trainer->cells[0].stats.own.flops > flops);
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    ha_adapter_destroy(whole);
    tear_down(&fixture);
}

struct scores {
    double chosen[N_TRAIN], rejected[N_TRAIN];
    int64_t seen;
};

static int keep_score(void *user, int64_t pair, const float *chosen, int64_t n_chosen,
                      const float *rejected, int64_t n_rejected, struct ha_error *err)
{
    struct scores *scores = user;

    (void)err;
    assert_int_equal(pair, scores->seen++);
    for (int64_t i = 0; i < n_chosen; i++)
        scores->chosen[pair] += (double)chosen[i];
    for (int64_t i = 0; i < n_rejected; i++)
        scores->rejected[pair] += (double)rejected[i];
    return 0;
}

/* Scoring, other packs, no sharing: near; the job's own plan at the first step: equal. */
static void step_zero_margins(void **state)
{
    struct fixture fixture;
    struct scores scores = {.seen = 0};
    struct ha_adapter *adapter;
    struct ha_dpo_trainer *trainer;

    (void)state;
    set_up(&fixture, 2);
    adapter = make_adapter(&fixture, 1, 2);
    fixture.cell.adapter = adapter;
    fixture.cell.learning_rate = 0;
    trainer = make_trainer(&fixture, &fixture.cell, 1);
    for (int64_t w = 0; w < ha_batch_windows(&trainer->train.batch); w++) {
        struct ha_window window = ha_batch_window(&trainer->train.batch, w);

        assert_ok(ha_dpo_packs_set_epoch(&trainer->train, 0, &err));
        assert_ok(ha_dpo_window(trainer, &window, &err));
        for (int64_t i = 0; i < window.n_pairs; i++) {
            const struct ha_dpo_pair_logps *logps = &trainer->cells[0].results[i].logps;

            assert_true(logps->chosen == logps->ref_chosen);
            assert_true(logps->rejected == logps->ref_rejected);
        }
    }
    assert_ok(ha_dpo_score(fixture.small.model, adapter, &fixture.train, 1000, false, keep_score,
                           &scores, &err));
    assert_int_equal(scores.seen, N_TRAIN);
    for (int64_t i = 0; i < N_TRAIN; i++) {
        assert_true(fabs(scores.chosen[i] - trainer->train_reference[i].chosen) < 1e-4);
        assert_true(fabs(scores.rejected[i] - trainer->train_reference[i].rejected) < 1e-4);
    }
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    tear_down(&fixture);
}

/* Going on from an adapter: a copy of it is the reference, and step 0 is exact again. */
static void reference_adapter(void **state)
{
    struct fixture fixture;
    struct ha_adapter *adapter, *copy;
    struct ha_dpo_trainer *trainer;
    struct ha_window window;
    char base_hash[HA_SHA256_HEX_BYTES];

    (void)state;
    set_up(&fixture, 2);
    adapter = random_adapter(fixture.backend, &fixture.small.config, 1, 2, 0xf, RANK, 0.2f, 5);
    copy = make_adapter(&fixture, 1, 2);
    fixture.cell.adapter = adapter;
    trainer = make_trainer(&fixture, &fixture.cell, 1);
    memcpy(base_hash, ha_dpo_trainer_plan_hash(trainer), sizeof(base_hash));
    ha_dpo_trainer_destroy(trainer);
    assert_ok(ha_backend_copy(fixture.backend, ha_adapter_params(copy), ha_adapter_params(adapter),
                              (size_t)ha_adapter_n_params(copy) * sizeof(float), &err));
    fixture.job.reference = copy;
    trainer = make_trainer(&fixture, &fixture.cell, 1);
    assert_string_not_equal(base_hash, ha_dpo_trainer_plan_hash(trainer));
    window = ha_batch_window(&trainer->train.batch, 0);
    assert_ok(ha_dpo_packs_set_epoch(&trainer->train, 0, &err));
    assert_ok(ha_dpo_window(trainer, &window, &err));
    for (int64_t i = 0; i < window.n_pairs; i++)
        assert_true(trainer->cells[0].results[i].loss.value == log(2.0));
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(copy);
    ha_adapter_destroy(adapter);
    tear_down(&fixture);
}

/* The gradient of a window does not depend, but for rounding, on how it is cut into packs. */
static void packing_changes_only_rounding(void **state)
{
    static const int64_t tokens[] = {1, 40, 100000};
    struct fixture fixture;
    float *first = NULL;
    int64_t n = 0;

    (void)state;
    set_up(&fixture, 2);
    for (int i = 0; i < 6; i++) {
        struct ha_adapter *adapter =
            random_adapter(fixture.backend, &fixture.small.config, 1, 2, 0xf, RANK, 0.2f, 5);
        struct ha_dpo_trainer *trainer;
        struct ha_window window;

        fixture.cell.adapter = adapter;
        fixture.job.tokens_per_microbatch = tokens[i % 3];
        fixture.job.share_prompt = i >= 3;
        trainer = make_trainer(&fixture, &fixture.cell, 1);
        /* The last window of the epoch: micro-batches of 3 and 2. */
        window = ha_batch_window(&trainer->train.batch, 3);
        assert_int_equal(window.n_pairs, 5);
        assert_ok(ha_dpo_packs_set_epoch(&trainer->train, 0, &err));
        assert_ok(ha_dpo_window(trainer, &window, &err));
        n = ha_adapter_n_params(adapter);
        if (!first) {
            first = ha_calloc(n, sizeof(float));
            assert_non_null(first);
            memcpy(first, trainer->cells[0].gradient, (size_t)n * sizeof(float));
        }
        assert_true(relative_gap(trainer->cells[0].gradient, first, n) < 1e-5);
        ha_dpo_trainer_destroy(trainer);
        ha_adapter_destroy(adapter);
    }
    free(first);
    tear_down(&fixture);
}

static void schedule(void **state)
{
    struct ha_dpo_cell cell = {.learning_rate = 1.0};

    (void)state;
    assert_true(ha_dpo_learning_rate(&cell, 0, 4) == 1.0);
    assert_true(ha_dpo_learning_rate(&cell, 3, 4) == 0.25);
    cell.warmup_steps = 2;
    assert_true(ha_dpo_learning_rate(&cell, 0, 6) == 0.0);
    assert_true(ha_dpo_learning_rate(&cell, 1, 6) == 0.5);
    assert_true(ha_dpo_learning_rate(&cell, 2, 6) == 1.0);
    assert_true(ha_dpo_learning_rate(&cell, 5, 6) == 0.25);
    cell.warmup_steps = 10;
    assert_true(ha_dpo_learning_rate(&cell, 5, 6) == 0.5);
}

static void stops_and_checkpoints_in_time(void **state)
{
    struct fixture fixture;
    struct ha_adapter *adapter;
    struct ha_dpo_trainer *trainer;

    (void)state;
    set_up(&fixture, 1);
    adapter = make_adapter(&fixture, 1, 2);
    fixture.cell.adapter = adapter;
    fixture.job.checkpoint_steps = 3;
    fixture.job.eval_steps = 2;
    fixture.job.max_steps = 6;
    trainer = make_trainer(&fixture, &fixture.cell, 1);
    assert_int_equal(ha_dpo_trainer_total_steps(trainer), 6);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    assert_int_equal(fixture.last_step, 6);
    assert_int_equal(fixture.n_checkpoints, 1); /* after 3; the end is no checkpoint */
    assert_int_equal(fixture.n_evals, 3);       /* after 2, 4, and the end */
    assert_true(isfinite(fixture.last_eval_loss));
    ha_dpo_trainer_destroy(trainer);

    /* Stopped before it began: nothing to keep. */
    fixture.stop = 1;
    fixture.n_checkpoints = 0;
    trainer = make_trainer(&fixture, &fixture.cell, 1);
    assert_int_equal(ha_dpo_trainer_run(trainer, NULL), -EINTR);
    assert_int_equal(fixture.n_checkpoints, 0);
    assert_int_equal(ha_dpo_trainer_save(trainer, 0, checkpoint_path(0), NULL), -EINVAL);
    ha_dpo_trainer_destroy(trainer);
    ha_adapter_destroy(adapter);
    tear_down(&fixture);
}

static void bad_jobs_are_refused(void **state)
{
    struct ha_dpo_trainer *trainer = NULL;
    struct fixture fixture;
    struct ha_pair_set none = {.n_pairs = 0};
    struct ha_dpo_job job;
    struct ha_dpo_cell cell;

    (void)state;
    set_up(&fixture, 1);
    fixture.cell.adapter = make_adapter(&fixture, 1, 2);
    for (int i = 0; i < 9; i++) {
        job = fixture.job;
        cell = fixture.cell;
        if (i == 0)
            job.train = &none;
        else if (i == 1)
            job.batch_size = 0;
        else if (i == 2)
            job.epochs = 0;
        else if (i == 3)
            job.tokens_per_microbatch = 0;
        else if (i == 4)
            cell.loss.beta = 0;
        else if (i == 5)
            cell.learning_rate = NAN;
        else if (i == 6)
            cell.beta2 = 1;
        else if (i == 7)
            cell.eps = 0;
        assert_int_equal(ha_dpo_trainer_create(fixture.small.model, &job, &cell, i == 8 ? 0 : 1,
                                               NULL, NULL, &trainer, NULL),
                         -EINVAL);
    }
    assert_null(trainer);
    ha_adapter_destroy(fixture.cell.adapter);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resume_is_exact),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(several_cells),
        cmocka_unit_test(divergence_ends_one_cell),
        cmocka_unit_test(foreign_checkpoints_are_refused),
        cmocka_unit_test(other_kernels_need_consent),
        cmocka_unit_test(damaged_checkpoints_are_refused),
        cmocka_unit_test(references_can_be_handed_on),
        cmocka_unit_test(step_zero_margins),
        cmocka_unit_test(reference_adapter),
        cmocka_unit_test(packing_changes_only_rounding),
        cmocka_unit_test(schedule),
        cmocka_unit_test(stops_and_checkpoints_in_time),
        cmocka_unit_test(bad_jobs_are_refused),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
