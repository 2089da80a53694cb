/* The memory plan of a trainer: it never takes more than it planned, runs under
 * any limit that the plan says is enough with the same bits, and refuses others. */
#include "tests/unit/model/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "tests/unit/dpo/pair_sets.h"
#include "worker/dpo/trainer.h"

enum { N_TRAIN = 11, N_EVAL = 4, VOCAB = 53, RANK = 3, N_CELLS = 4, LORA_COLUMNS = 3 * RANK };

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_pair_set train, eval;
    struct ha_dpo_job job;
    struct ha_adapter *adapters[N_CELLS];
    struct ha_dpo_cell cells[N_CELLS];
    int64_t before; /* bytes of the backend without the job */
};

static const int64_t blocks[N_CELLS][2] = {{0, 1}, {2, 2}, {3, 3}, {0, 3}};

static void set_up(struct fixture *fixture, int64_t first_cell, int64_t n_cells)
{
    struct ha_model_config config = small_config(HA_FAMILY_QWEN3);

    *fixture = (struct fixture){.backend = open_backend(2)};
    small_model_open(&fixture->small, fixture->backend, &config, HA_DTYPE_BF16, 7);
    small_model_join(&fixture->small, LORA_COLUMNS);
    /* The plan of a device is of all that is there, its weights among it. */
    if (is_cpu(fixture->backend))
        fixture->before = ha_backend_allocated_bytes(fixture->backend);
    fixture->train = random_pair_set(N_TRAIN, VOCAB, 21);
    fixture->eval = random_pair_set(N_EVAL, VOCAB, 22);
    ha_dpo_job_defaults(&fixture->job);
    fixture->job.train = &fixture->train;
    fixture->job.eval = &fixture->eval;
    fixture->job.batch_size = 3;
    fixture->job.gradient_accumulation = 2;
    fixture->job.tokens_per_microbatch = 40;
    fixture->job.threads = 2;
    for (int64_t i = 0; i < n_cells; i++) {
        const int64_t *block = blocks[first_cell + i];

        fixture->adapters[i] = random_adapter(fixture->backend, &config, block[0], block[1], 0xf,
                                              RANK, 0.1f, (uint64_t)(5 + i));
        ha_dpo_cell_defaults(&fixture->cells[i]);
        fixture->cells[i].adapter = fixture->adapters[i];
        fixture->cells[i].learning_rate = 1e-2;
    }
}

static void tear_down(struct fixture *fixture)
{
    for (int i = 0; i < N_CELLS; i++)
        ha_adapter_destroy(fixture->adapters[i]);
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
    clear_pair_set(&fixture->train);
    clear_pair_set(&fixture->eval);
}

/* What of the plan the backend allocates: not what a driver takes. */
static int64_t of_backend(const struct ha_dpo_plan *plan)
{
    int64_t sum = -plan->part[HA_DPO_MARGIN];

    for (int i = 0; i < HA_DPO_PARTS; i++)
        sum += ha_dpo_part_of_host((enum ha_dpo_part)i) ? 0 : plan->part[i];
    return sum;
}

static struct ha_dpo_plan train(struct fixture *fixture, int64_t n_cells)
{
    struct ha_dpo_trainer *trainer = NULL;
    struct ha_dpo_plan plan;

    assert_ok(ha_dpo_trainer_create(fixture->small.model, &fixture->job, fixture->cells, n_cells,
                                    NULL, NULL, &trainer, &err));
    plan = *ha_dpo_trainer_plan(trainer);
    assert_ok(ha_dpo_trainer_run(trainer, &err));
    ha_dpo_trainer_destroy(trainer);
    return plan;
}

/* What was planned is what is taken, but for packed rows of the products (4 MiB at most) and the
 * ends of pages; on a device, for the ends of scratch memory alone (64 KiB each). */
static void no_more_than_planned(void **state)
{
    static const int64_t sets[][2] = {{0, 1}, {2, 1}, {3, 1}, {0, N_CELLS}, {1, 2}};

    (void)state;
    for (size_t i = 0; i < 2 * sizeof(sets) / sizeof(sets[0]); i++) {
        struct fixture fixture;
        struct ha_dpo_plan plan;
        int64_t peak;

        set_up(&fixture, sets[i / 2][0], sets[i / 2][1]);
        /* One cell with dropout is enough for room. */
        fixture.cells[0].dropout = i % 2 == 0 ? 0 : 0.1;
        plan = train(&fixture, sets[i / 2][1]);
        peak = ha_backend_peak_bytes(fixture.backend) - fixture.before;
        if (peak > of_backend(&plan) ||
            peak < of_backend(&plan) - (is_cpu(fixture.backend) ? 5 << 20 : 5 << 16))
            fail_msg("%lld bytes were taken, %lld planned", (long long)peak,
                     (long long)of_backend(&plan));
        tear_down(&fixture);
    }
}

static float *params_of(const struct fixture *fixture, int64_t n_cells, int64_t *ret_n)
{
    float *all;
    int64_t n = 0;

    for (int64_t i = 0; i < n_cells; i++)
        n += ha_adapter_n_params(fixture->adapters[i]);
    all = ha_calloc(n, sizeof(float));
    assert_non_null(all);
    *ret_n = n;
    n = 0;
    for (int64_t i = 0; i < n_cells; i++) {
        int64_t count = ha_adapter_n_params(fixture->adapters[i]);

        assert_ok(ha_backend_download(fixture->backend, all + n,
                                      ha_adapter_params(fixture->adapters[i]),
                                      (size_t)count * sizeof(float), &err));
        n += count;
    }
    return all;
}

/* Every limit between the least and the most: trained to the same bytes with the fewest layers
 * run again, and never above the limit. */
static void any_limit_gives_the_same_bits(void **state)
{
    int64_t n = 0, limit, kept_set, last = -1;
    struct fixture fixture;
    struct ha_dpo_plan plan;
    float *want;

    (void)state;
    set_up(&fixture, 0, N_CELLS);
    plan = train(&fixture, N_CELLS);
    assert_int_equal(plan.recomputed_layers, 0);
    want = params_of(&fixture, N_CELLS, &n);
    tear_down(&fixture);
    kept_set = plan.part[HA_DPO_KEPT] / 4;
    limit = plan.total_bytes;
    for (int64_t again = 0; again < 4; again++) {
        float *got;

        set_up(&fixture, 0, N_CELLS);
        fixture.job.memory_bytes = limit;
        plan = train(&fixture, N_CELLS);
        assert_int_equal(plan.recomputed_layers, again);
        assert_true(plan.recomputed_layers > last);
        assert_true(ha_backend_peak_bytes(fixture.backend) - fixture.before <= of_backend(&plan));
        got = params_of(&fixture, N_CELLS, &n);
        assert_memory_equal(got, want, (size_t)n * sizeof(float));
        last = plan.recomputed_layers;
        free(got);
        tear_down(&fixture);
        limit -= kept_set;
    }
    free(want);
}

/* A vocabulary of 152 thousand: all scored rows of a pack together would need more than a chunk of
 * logits, and more is never held. */
static void no_tensor_of_rows_times_vocabulary(void **state)
{
    enum { PAIRS = 60, WIDE_VOCAB = 152064 };
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct fixture fixture = {.backend = open_cpu(2)};
    struct ha_dpo_plan plan;
    int64_t rows = 0;

    (void)state;
    config.vocab = WIDE_VOCAB;
    small_model_open(&fixture.small, fixture.backend, &config, HA_DTYPE_BF16, 7);
    fixture.before = ha_backend_allocated_bytes(fixture.backend);
    fixture.train = random_pair_set(PAIRS, WIDE_VOCAB, 21);
    fixture.eval = random_pair_set(1, WIDE_VOCAB, 22);
    for (int64_t i = 0; i < PAIRS; i++)
        rows += fixture.train.offset[3 * i + 3] - fixture.train.offset[3 * i + 1];
    ha_dpo_job_defaults(&fixture.job);
    fixture.job.train = &fixture.train;
    fixture.job.batch_size = PAIRS;
    fixture.job.gradient_accumulation = 1;
    fixture.job.threads = 2;
    fixture.adapters[0] = random_adapter(fixture.backend, &config, 2, 3, 0xf, RANK, 0.1f, 5);
    ha_dpo_cell_defaults(&fixture.cells[0]);
    fixture.cells[0].adapter = fixture.adapters[0];
    plan = train(&fixture, 1);
    assert_true(plan.part[HA_DPO_KERNELS] < 80 << 20);
    assert_true(ha_backend_peak_bytes(fixture.backend) - fixture.before <= of_backend(&plan));
    assert_true(rows * WIDE_VOCAB * (int64_t)sizeof(float) > of_backend(&plan));
    tear_down(&fixture);
}

static void too_little_is_refused(void **state)
{
    struct ha_dpo_trainer *trainer = NULL;
    struct fixture fixture;
    struct ha_error err;
    int64_t held;

    (void)state;
    set_up(&fixture, 0, 1);
    fixture.job.memory_bytes = 1 << 20;
    fixture.job.memory_limit = "train.memory_limit";
    held = ha_backend_allocated_bytes(fixture.backend);
    assert_int_equal(ha_dpo_trainer_create(fixture.small.model, &fixture.job, fixture.cells, 1,
                                           NULL, NULL, &trainer, &err),
                     -EFBIG);
    assert_null(trainer);
    assert_non_null(strstr(ha_error_text(&err), "1 MiB may be used (train.memory_limit)"));
    assert_int_equal(ha_backend_allocated_bytes(fixture.backend), held);
    tear_down(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_than_planned),
        cmocka_unit_test(any_limit_gives_the_same_bits),
        cmocka_unit_test(no_tensor_of_rows_times_vocabulary),
        cmocka_unit_test(too_little_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
