#include "tests/fuzz/small_trainer.h"

#include "tests/fuzz/fuzz.h"
#include "tests/unit/dpo/pair_sets.h"
#include "tests/unit/model/support.h"

enum { N_TRAIN = 9, N_EVAL = 3, VOCAB = 53, RANK = 2 };

static const struct ha_dpo_origin origin = {.model = "11ab",
                                            .tokenizer = "22ab",
                                            .train_data = "33ab",
                                            .eval_data = "44ab",
                                            .prompt_template = "hh",
                                            .split = "trl",
                                            .ends = "EOS",
                                            .max_length = 2048};

/* What the trainer borrows. */
static struct small_model small;
static struct ha_pair_set train, eval;
static struct ha_dpo_job job;
static struct ha_dpo_cell cell;
/* Held, so that no leak is seen where nothing can end it. */
static struct ha_dpo_trainer *trainer;

static void no_metrics(void *user, int64_t of, int64_t step, const struct ha_dpo_metric *metrics,
                       int64_t n_metrics)
{
    (void)user;
    (void)of;
    (void)step;
    (void)metrics;
    (void)n_metrics;
}

struct ha_dpo_trainer *small_trainer_create(void)
{
    struct ha_model_config config = small_config(HA_FAMILY_LLAMA);
    struct ha_dpo_callbacks callbacks = {.metrics = no_metrics};
    struct ha_backend *backend = open_cpu(1);
    struct ha_error err = {0};

    small_model_open(&small, backend, &config, HA_DTYPE_BF16, 7);
    train = random_pair_set(N_TRAIN, VOCAB, 21);
    eval = random_pair_set(N_EVAL, VOCAB, 22);
    ha_dpo_job_defaults(&job);
    job.train = &train;
    job.eval = &eval;
    job.origin = &origin;
    job.batch_size = 2;
    job.gradient_accumulation = 2;
    job.tokens_per_microbatch = 40;
    ha_dpo_cell_defaults(&cell);
    cell.name = "mid";
    cell.adapter = random_adapter(backend, &config, 1, 2, 0xf, RANK, 0.0f, 5);
    FUZZ_CHECK(fuzz_result(ha_dpo_trainer_create(small.model, &job, &cell, 1, &callbacks, NULL,
                                                 &trainer, &err),
                           &err) == 0);
    return trainer;
}
