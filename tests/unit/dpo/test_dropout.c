/* Dropout in training: what it changes, and what it leaves alone.  test_lockstep.c has it beside
 * other cells, over stops and with prompts computed once or twice. */
#include "tests/unit/dpo/lockstep_cells.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "worker/dpo/work.h"

enum { FULL = 3 }; /* the cell that trains every module of every layer */

/* The adapter of cell FULL trained alone with the job as it is. */
static void train_full(struct fixture *fixture, double dropout, uint64_t seed,
                       struct trained *trained)
{
    struct ha_dpo_trainer *trainer;

    make_cells(fixture);
    fixture->cells[FULL].dropout = dropout;
    fixture->cells[FULL].dropout_seed = seed;
    trainer = make_trainer(fixture, FULL, 1);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    keep(fixture, FULL, trained);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(fixture);
}

static double distance(const struct trained *a, const struct trained *b, int64_t n)
{
    return relative_gap(a->params[FULL], b->params[FULL], n);
}

/* Share and seed each change the adapter; the same ones give the same bytes, with layers run again
 * and other packs as well (there but for rounding). */
static void share_and_seed_decide(void **state)
{
    struct trained none = {0}, dropped = {0}, other = {0}, again = {0}, packed = {0};
    struct fixture fixture;
    int64_t n;

    (void)state;
    set_up(&fixture, 3);
    fixture.job.epochs = 2;
    train_full(&fixture, 0, 1, &none);
    train_full(&fixture, 0.1, 1, &dropped);
    train_full(&fixture, 0.1, 2, &other);
    fixture.job.recomputed_layers = 4;
    train_full(&fixture, 0.1, 1, &again);
    fixture.job.tokens_per_microbatch = 1;
    train_full(&fixture, 0.1, 1, &packed);
    make_cells(&fixture);
    n = ha_adapter_n_params(fixture.cells[FULL].adapter);
    assert_memory_equal(again.params[FULL], dropped.params[FULL], params_bytes(&fixture, FULL));
    assert_true(again.losses[FULL] == dropped.losses[FULL]);
    destroy_cells(&fixture);
    assert_true(distance(&none, &dropped, n) > 1e-3);
    assert_true(distance(&other, &dropped, n) > 1e-3);
    assert_true(distance(&packed, &dropped, n) < 1e-4);
    forget(&none);
    forget(&dropped);
    forget(&other);
    forget(&again);
    forget(&packed);
    tear_down(&fixture);
}

/* The log-probs of a window's pairs under cell FULL, in training. */
static void window_logps(struct ha_dpo_trainer *trainer, int64_t epoch, int64_t index,
                         struct ha_dpo_pair_logps *logps)
{
    struct ha_window window = ha_batch_window(&trainer->train.batch, index);

    assert_ok(ha_dpo_packs_set_epoch(&trainer->train, epoch, &err));
    assert_ok(ha_dpo_window(trainer, &window, &err));
    for (int64_t i = 0; i < window.n_pairs; i++)
        logps[trainer->train.order[window.first + i]] = trainer->cells[0].results[i].logps;
}

/* B = 0: every margin of epoch 0 is exactly 0.  With another B a pair's masks are other ones in
 * each epoch, and the same whatever window and pack it is in. */
static void each_epoch_has_its_own(void **state)
{
    struct ha_dpo_pair_logps logps[2][N_TRAIN];
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;
    struct random random = {77};
    float *params;

    (void)state;
    set_up(&fixture, 1);
    fixture.dropout = 0.3;
    make_cells(&fixture);
    trainer = make_trainer(&fixture, FULL, 1);
    for (int64_t i = 0; i < STEPS_PER_EPOCH; i++)
        window_logps(trainer, 0, i, logps[0]);
    for (int i = 0; i < N_TRAIN; i++) {
        assert_true(logps[0][i].chosen == logps[0][i].ref_chosen);
        assert_true(logps[0][i].rejected == logps[0][i].ref_rejected);
    }
    params = ha_adapter_params(fixture.cells[FULL].adapter);
    for (int64_t i = 0; i < ha_adapter_n_params(fixture.cells[FULL].adapter); i++)
        params[i] = 0.3f * random_uniform(&random);
    for (int64_t epoch = 0; epoch < 2; epoch++)
        for (int64_t i = 0; i < STEPS_PER_EPOCH; i++)
            window_logps(trainer, epoch, i, logps[epoch]);
    for (int i = 0; i < N_TRAIN; i++) {
        assert_true(logps[0][i].ref_chosen == logps[1][i].ref_chosen);
        assert_true(logps[0][i].chosen != logps[1][i].chosen ||
                    fixture.train.offset[3 * i + 2] == fixture.train.offset[3 * i + 1]);
    }
    ha_dpo_trainer_destroy(trainer);
    /* Each pair in a pack of its own. */
    fixture.job.tokens_per_microbatch = 1;
    trainer = make_trainer(&fixture, FULL, 1);
    for (int64_t i = 0; i < STEPS_PER_EPOCH; i++)
        window_logps(trainer, 0, i, logps[1]);
    for (int i = 0; i < N_TRAIN; i++) {
        assert_true(logps[0][i].chosen == logps[1][i].chosen);
        assert_true(logps[0][i].rejected == logps[1][i].rejected);
    }
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

/* Held-out pairs are judged by the whole adapter. */
static void evaluation_drops_nothing(void **state)
{
    struct ha_dpo_trainer *trainer;
    struct fixture fixture;
    double loss;

    (void)state;
    set_up(&fixture, 2);
    fixture.dropout = 0.5;
    make_cells(&fixture);
    trainer = make_trainer(&fixture, FULL, 1);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    ha_dpo_trainer_destroy(trainer);
    loss = fixture.evals[FULL];
    assert_true(loss > 0);
    fixture.cells[FULL].dropout = 0;
    trainer = make_trainer(&fixture, FULL, 1);
    assert_ok(ha_dpo_evaluate(trainer, &err));
    assert_true(fixture.evals[FULL] == loss);
    ha_dpo_trainer_destroy(trainer);
    destroy_cells(&fixture);
    tear_down(&fixture);
}

static int try_load(struct fixture *fixture, double dropout, uint64_t seed)
{
    struct ha_dpo_trainer *trainer;
    struct ha_error err = {0};
    int r;

    fixture->cells[FULL].dropout = dropout;
    fixture->cells[FULL].dropout_seed = seed;
    trainer = make_trainer(fixture, FULL, 1);
    r = ha_dpo_trainer_load(trainer, 0, path_of("step2", FULL), false, &err);
    if (r < 0)
        if (!strstr(err.text, "settings"))
            fail_msg("%s", err.text);
    ha_dpo_trainer_destroy(trainer);
    return r;
}

/* A checkpoint belongs to its masks; without dropout the seed is nothing to it. */
static void checkpoints_know_it(void **state)
{
    static const double shares[] = {0.1, 0};
    struct fixture fixture;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct ha_dpo_trainer *trainer;

        set_up(&fixture, 0);
        fixture.job.max_steps = 3;
        fixture.job.checkpoint_steps = 2;
        make_cells(&fixture);
        fixture.cells[FULL].dropout = shares[i];
        fixture.cells[FULL].dropout_seed = 4;
        trainer = make_trainer(&fixture, FULL, 1);
        assert_ok(ha_dpo_trainer_run(trainer, &err));
        ha_dpo_trainer_destroy(trainer);
        assert_int_equal(try_load(&fixture, shares[i], 4), 0);
        assert_int_equal(try_load(&fixture, shares[i], 5), i == 0 ? -ESTALE : 0);
        assert_int_equal(try_load(&fixture, shares[1 - i], 4), -ESTALE);
        destroy_cells(&fixture);
        tear_down(&fixture);
    }
}

static void bad_shares_are_refused(void **state)
{
    static const double shares[] = {1, -0.1, (double)NAN};
    struct ha_dpo_trainer *trainer = NULL;
    struct fixture fixture;
    struct ha_error err;

    (void)state;
    set_up(&fixture, 0);
    make_cells(&fixture);
    for (int i = 0; i < 3; i++) {
        fixture.cells[FULL].dropout = shares[i];
        assert_int_equal(ha_dpo_trainer_create(fixture.small.model, &fixture.job,
                                               &fixture.cells[FULL], 1, NULL, NULL, &trainer, &err),
                         -EINVAL);
        assert_non_null(strstr(err.text, "cell full: a setting of its training"));
    }
    fixture.cells[FULL].dropout = 0.1;
    fixture.job.epochs = HA_PASS_MAX_DROPOUT_EPOCHS + 1;
    assert_int_equal(ha_dpo_trainer_create(fixture.small.model, &fixture.job, &fixture.cells[FULL],
                                           1, NULL, NULL, &trainer, &err),
                     -EINVAL);
    assert_non_null(strstr(err.text, "cell full: dropout has masks for 524288 epochs"));
    destroy_cells(&fixture);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(share_and_seed_decide),    cmocka_unit_test(each_epoch_has_its_own),
        cmocka_unit_test(evaluation_drops_nothing), cmocka_unit_test(checkpoints_know_it),
        cmocka_unit_test(bad_shares_are_refused),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
