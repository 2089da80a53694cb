#include "tests/unit/dpo/lockstep_cells.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/base/path.h"

static char dir[] = "/tmp/ha_test_lockstep_XXXXXX";

int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

int remove_dir(void **state)
{
    (void)state;
    return ha_path_remove_tree(dir, NULL);
}

const char *path_of(const char *name, int64_t cell)
{
    static char path[2][4096];
    static int turn;

    turn = 1 - turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s-%d", dir, name, (int)cell);
    return path[turn];
}

static struct ha_model_config family_config(int family)
{
    static const enum ha_model_family kinds[] = {HA_FAMILY_LLAMA, HA_FAMILY_LLAMA, HA_FAMILY_QWEN2,
                                                 HA_FAMILY_QWEN3};
    struct ha_model_config config = small_config(kinds[family]);

    config.n_layers = N_LAYERS;
    if (family == 0) {
        config.n_kv_heads = config.n_heads;
        config.rope.llama3 = false;
    }
    return config;
}

const struct plan plans[N_CELLS] = {
    {"local", {0, 1}, 2, 2, 4, 0x0f, 1, HA_DPO_SIGMOID, 0.1, 1e-2, 0.01},
    {"mid", {2, 3}, 2, 3, 6, 0x0f, 2, HA_DPO_IPO, 0.2, 5e-3, 0},
    {"global", {4, 5}, 2, 4, 4, 0x05, 3, HA_DPO_AOT, 0.3, 2e-2, 0.1},
    {"full", {0, 1, 2, 3, 4, 5}, 6, 2, 8, 0x7f, 4, HA_DPO_HINGE, 0.1, 1e-3, 0.01},
    {"gaps", {1, 3, 4}, 3, 1, 2, 0x08, 5, HA_DPO_APO_ZERO, 0.5, 1e-2, 0.2},
    {"mid 2", {2, 3}, 2, 3, 6, 0x0f, 6, HA_DPO_SIGMOID, 0.05, 3e-2, 0.01},
};

void set_up(struct fixture *fixture, int family)
{
    struct ha_model_config config = family_config(family);

    memset(fixture, 0, sizeof(*fixture));
    fixture->backend = open_backend(1 + family % 2);
    small_model_open(&fixture->small, fixture->backend, &config,
                     family == 2 ? HA_DTYPE_F32 : HA_DTYPE_BF16, 7);
    small_model_join(&fixture->small, LORA_COLUMNS);
    fixture->train = random_pair_set(N_TRAIN, VOCAB, 31);
    fixture->eval = random_pair_set(N_EVAL, VOCAB, 32);
    ha_dpo_job_defaults(&fixture->job);
    fixture->job.train = &fixture->train;
    fixture->job.eval = &fixture->eval;
    fixture->job.batch_size = 2;
    fixture->job.gradient_accumulation = 2;
    fixture->job.epochs = 1;
    fixture->job.tokens_per_microbatch = 45;
}

void tear_down(struct fixture *fixture)
{
    small_model_close(&fixture->small);
    ha_backend_close(fixture->backend);
    clear_pair_set(&fixture->train);
    clear_pair_set(&fixture->eval);
}

struct ha_adapter *make_adapter(const struct fixture *fixture, int i)
{
    const struct plan *plan = &plans[i];
    struct ha_adapter_settings settings = {.rank = plan->rank,
                                           .alpha = plan->alpha,
                                           .modules = plan->modules,
                                           .layers = plan->layers,
                                           .n_layers = plan->n_layers};
    struct ha_adapter_geometry geometry;
    struct ha_adapter *adapter = NULL;

    ha_model_config_geometry(&fixture->small.config, &geometry);
    assert_ok(ha_adapter_create(fixture->backend, &geometry, &settings, &adapter, &err));
    assert_ok(ha_adapter_init(adapter, plan->seed, &err));
    return adapter;
}

void make_cells(struct fixture *fixture)
{
    for (int i = 0; i < N_CELLS; i++) {
        const struct plan *plan = &plans[i];
        struct ha_dpo_cell *cell = &fixture->cells[i];

        ha_dpo_cell_defaults(cell);
        cell->name = plan->name;
        cell->adapter = make_adapter(fixture, i);
        cell->loss.terms[0].kind = plan->loss;
        cell->loss.beta = plan->beta;
        cell->learning_rate = plan->learning_rate;
        cell->weight_decay = plan->weight_decay;
        cell->dropout = i == N_CELLS - 1 ? 0 : fixture->dropout;
        cell->dropout_seed = plan->seed;
    }
}

void destroy_cells(struct fixture *fixture)
{
    for (int i = 0; i < N_CELLS; i++)
        ha_adapter_destroy(fixture->cells[i].adapter);
}

static void on_metrics(void *user, int64_t cell, int64_t step, const struct ha_dpo_metric *metrics,
                       int64_t n_metrics)
{
    struct fixture *fixture = user;
    int64_t i = fixture->first_cell + cell;

    assert_true(n_metrics > 0);
    if (strcmp(metrics[0].name, "eval_loss") == 0) {
        fixture->evals[i] = metrics[0].value;
        return;
    }
    fixture->losses[i] += (double)step * metrics[0].value;
    fixture->n_metrics[i]++;
    if (fixture->stop_at == step)
        fixture->stop = 1;
}

static int on_checkpoint(void *user, struct ha_dpo_trainer *trainer, int64_t cell, int64_t step,
                         struct ha_error *err)
{
    const struct fixture *fixture = user;
    char name[32];

    snprintf(name, sizeof(name), "step%d", (int)step);
    return ha_dpo_trainer_save(trainer, cell, path_of(name, fixture->first_cell + cell), err);
}

struct ha_dpo_trainer *make_trainer(struct fixture *fixture, int64_t first, int64_t n)
{
    struct ha_dpo_callbacks callbacks = {
        .user = fixture, .metrics = on_metrics, .checkpoint = on_checkpoint};
    struct ha_dpo_trainer *trainer = NULL;

    fixture->first_cell = first;
    for (int64_t i = first; i < first + n; i++) {
        fixture->losses[i] = fixture->evals[i] = 0;
        fixture->n_metrics[i] = 0;
    }
    assert_ok(ha_dpo_trainer_create(fixture->small.model, &fixture->job, fixture->cells + first, n,
                                    &callbacks, &fixture->stop, &trainer, &err));
    return trainer;
}

size_t params_bytes(const struct fixture *fixture, int i)
{
    return (size_t)ha_adapter_n_params(fixture->cells[i].adapter) * sizeof(float);
}

float *params_of_cell(const struct fixture *fixture, int i)
{
    return to_host(fixture->backend, ha_adapter_params(fixture->cells[i].adapter),
                   params_bytes(fixture, i));
}

void keep(const struct fixture *fixture, int i, struct trained *trained)
{
    trained->params[i] = params_of_cell(fixture, i);
    trained->losses[i] = fixture->losses[i];
    trained->evals[i] = fixture->evals[i];
}

void forget(struct trained *trained)
{
    for (int i = 0; i < N_CELLS; i++)
        free(trained->params[i]);
}

void assert_same_params(const struct fixture *fixture, const struct trained *alone, int i)
{
    float *params = params_of_cell(fixture, i);
    bool same = memcmp(params, alone->params[i], params_bytes(fixture, i)) == 0;

    free(params);
    if (!same)
        fail_msg("the adapter of %s differs from the one trained alone", plans[i].name);
}

void assert_same(const struct fixture *fixture, const struct trained *alone)
{
    for (int i = 0; i < N_CELLS; i++) {
        assert_same_params(fixture, alone, i);
        assert_true(fixture->evals[i] == alone->evals[i]);
    }
}

void train_alone(struct fixture *fixture, struct trained *trained)
{
    make_cells(fixture);
    for (int i = 0; i < N_CELLS; i++) {
        struct ha_dpo_trainer *trainer = make_trainer(fixture, i, 1);

        assert_ok(ha_dpo_trainer_run(trainer, &err));
        keep(fixture, i, trained);
        ha_dpo_trainer_destroy(trainer);
    }
    destroy_cells(fixture);
}
