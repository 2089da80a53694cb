/* lockstep_cells.h - six cells that differ in everything a job allows, on small random models */
#ifndef HA_TESTS_UNIT_DPO_LOCKSTEP_CELLS_H
#define HA_TESTS_UNIT_DPO_LOCKSTEP_CELLS_H

#include "tests/unit/model/support.h"

#include <signal.h>
#include <stdint.h>

#include "tests/unit/dpo/pair_sets.h"
#include "worker/dpo/trainer.h"

enum { N_TRAIN = 13, N_EVAL = 5, VOCAB = 53, N_LAYERS = 6, N_CELLS = 6, STEPS_PER_EPOCH = 4 };

/* Setup and teardown of a group: the folder that path_of names files in. */
int make_dir(void **state);
int remove_dir(void **state);

/* Of the last two calls; good until the call after the next. */
const char *path_of(const char *name, int64_t cell);

/* Of a device's weights: enough for all but q, k, v of the two mids. */
enum { LORA_COLUMNS = 8 };

/* local, mid, global, full, layers with gaps, and mid once more: all settings differ. */
struct plan {
    const char *name;
    int64_t layers[N_LAYERS], n_layers, rank;
    double alpha;
    uint32_t modules;
    uint64_t seed;
    enum ha_dpo_loss_kind loss;
    double beta, learning_rate, weight_decay;
};

extern const struct plan plans[N_CELLS];

struct fixture {
    struct ha_backend *backend;
    struct small_model small;
    struct ha_pair_set train, eval;
    struct ha_dpo_job job;
    struct ha_dpo_cell cells[N_CELLS];
    double dropout; /* of the cells that make_cells makes, but of the last */
    volatile sig_atomic_t stop;
    int64_t stop_at; /* set stop when this step is reported; 0: never */

    double losses[N_CELLS], evals[N_CELLS];
    int64_t n_metrics[N_CELLS], first_cell; /* first_cell: cells[0] of the trainer is this one */
};

/* family 0 to 3: Llama 2 (as many kv heads as heads, plain RoPE), Llama 3.1, Qwen 2.5, Qwen 3. */
void set_up(struct fixture *fixture, int family);
void tear_down(struct fixture *fixture);

/* The adapter of cell i as training begins with it. */
struct ha_adapter *make_adapter(const struct fixture *fixture, int i);

/* New adapters for all cells. */
void make_cells(struct fixture *fixture);
void destroy_cells(struct fixture *fixture);

/* Over cells [first, first + n) of the fixture; checkpoints go to path_of("stepN", cell). */
struct ha_dpo_trainer *make_trainer(struct fixture *fixture, int64_t first, int64_t n);

/* What a run has left of each cell. */
struct trained {
    float *params[N_CELLS];
    double losses[N_CELLS], evals[N_CELLS];
};

size_t params_bytes(const struct fixture *fixture, int i);
float *params_of_cell(const struct fixture *fixture, int i); /* new host memory */
void keep(const struct fixture *fixture, int i, struct trained *trained);
void forget(struct trained *trained);

/* Every cell in a trainer of its own. */
void train_alone(struct fixture *fixture, struct trained *trained);

/* Byte for byte. */
void assert_same_params(const struct fixture *fixture, const struct trained *alone, int i);
void assert_same(const struct fixture *fixture, const struct trained *alone);

#endif
