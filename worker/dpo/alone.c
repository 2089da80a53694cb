/* What a step of a cell takes by itself.
 *
 * Each cell in turn is the trainer's only one for some steps: the same packs, the
 * same code, nothing shared.  What such a step changes is the cell's adapter and
 * moments, which are kept on the host and put back, and counts, which are copied.
 * Gradient, results and the order of an epoch are made anew by every step. */
#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/dpo/work.h"

enum { PARTS = 3 }; /* adapter, both moments */

/* The trainer as it was, and the state of the cell in work. */
struct kept {
    struct ha_dpo_cell_work *cells;
    int64_t n_cells, step;
    struct ha_dpo_callbacks callbacks;
    struct ha_dpo_progress steps;
    struct ha_dpo_cell_work cell;
    float *values; /* host (PARTS, params of the cell) */
};

static int copy_values(struct ha_dpo_trainer *trainer, const struct ha_dpo_cell_work *cell,
                       float *values, bool back, struct ha_error *err)
{
    void *device[PARTS] = {ha_adapter_params(cell->settings.adapter), cell->m, cell->v};
    int64_t n = ha_adapter_n_params(cell->settings.adapter);
    size_t bytes = (size_t)n * sizeof(float);
    int r = 0;

    for (int i = 0; r == 0 && i < PARTS; i++)
        r = back ? ha_backend_upload(trainer->backend, device[i], values + i * n, bytes, err)
                 : ha_backend_download(trainer->backend, values + i * n, device[i], bytes, err);
    return r < 0 ? r : ha_backend_sync(trainer->backend, err);
}

/* Steps of the schedule, evenly spread; each as if the cell had just come to it. */
static int run_steps(struct ha_dpo_trainer *trainer, struct kept *kept, int64_t steps,
                     double *ret_seconds, struct ha_error *err)
{
    struct ha_dpo_cell_work *cell = trainer->cells;
    int64_t total = kept->cell.stats.steps, done = 0;
    int r = 0;

    trainer->steps = (struct ha_dpo_progress){.phase = HA_DPO_MEASURE};
    for (; r == 0 && done < steps && !cell->outcome && !ha_dpo_stopped(trainer); done++) {
        trainer->step = cell->stats.steps = done * total / steps;
        r = ha_dpo_step(trainer, err);
    }
    if (r == 0 && done > 0)
        *ret_seconds = trainer->steps.seconds / (double)done;
    return r == -EINTR ? 0 : r;
}

static int measure_cell(struct ha_dpo_trainer *trainer, int64_t i, int64_t steps, struct kept *kept,
                        struct ha_error *err)
{
    struct ha_dpo_cell_work *cell = &kept->cells[i];
    double seconds = 0;
    int r, restored;

    kept->values = ha_calloc(PARTS * ha_adapter_n_params(cell->settings.adapter), sizeof(float));
    if (!kept->values)
        return ha_error_set(err, ENOMEM, "no memory to measure a cell alone");
    kept->cell = *cell;
    r = copy_values(trainer, cell, kept->values, false, err);
    if (r == 0) {
        trainer->cells = cell;
        trainer->n_cells = 1;
        r = run_steps(trainer, kept, steps, &seconds, err);
        free(cell->outcome);
        *cell = kept->cell;
        restored = copy_values(trainer, cell, kept->values, true, r < 0 ? NULL : err);
        r = r < 0 ? r : restored;
        trainer->cells = kept->cells;
        trainer->n_cells = kept->n_cells;
        cell->stats.seconds_alone = seconds;
    }
    free(kept->values);
    return r;
}

int ha_dpo_trainer_measure_alone(struct ha_dpo_trainer *trainer, int64_t steps,
                                 struct ha_error *err)
{
    struct kept kept = {.cells = trainer->cells,
                        .n_cells = trainer->n_cells,
                        .step = trainer->step,
                        .callbacks = trainer->callbacks,
                        .steps = trainer->steps};
    struct ha_dpo_progress progress = {.phase = HA_DPO_MEASURE, .total = trainer->n_cells};
    int r = 0;

    if (steps <= 0 || trainer->n_cells < 2)
        return 0;
    for (int64_t i = 0; r == 0 && i < kept.n_cells && !ha_dpo_stopped(trainer); i++) {
        progress.done = i;
        ha_dpo_report(trainer, &progress);
        trainer->callbacks = (struct ha_dpo_callbacks){0};
        if (!kept.cells[i].outcome && kept.cells[i].stats.steps > 0)
            r = measure_cell(trainer, i, steps, &kept, err);
        trainer->callbacks = kept.callbacks;
    }
    trainer->step = kept.step;
    trainer->steps = kept.steps;
    progress.done = kept.n_cells;
    if (r == 0)
        ha_dpo_report(trainer, &progress);
    return r;
}
