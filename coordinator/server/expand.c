/* expand.c - a submitted grid becomes cells, stages, results and jobs (inside.h)
 *
 * One cell per step.  Expanding is idempotent: after a restart it begins again
 * and finds what is there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/memory.h"
#include "coordinator/server/grid_work.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/block.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/sweep.h"

enum phase { PHASE_CELLS, PHASE_GONE, PHASE_JUDGES, PHASE_LAST };

struct place {
    enum phase phase;
    int64_t cell;
};

struct expansion {
    int64_t sweep, version, priority;
    struct ha_grid_work *work;
    int64_t *models, *judges; /* row ids, in the order of the grid */
    struct ha_cell_keys keys;
    struct place now, kept;
};

static void destroy(void *state)
{
    struct expansion *e = state;

    if (!e)
        return;
    ha_grid_work_destroy(e->work);
    free(e->models);
    free(e->judges);
    free(e->keys.judges);
    free(e);
}

static void keep(void *state)
{
    struct expansion *e = state;

    e->kept = e->now;
}

static void undo(void *state)
{
    struct expansion *e = state;

    e->now = e->kept;
}

/* A cell whose sweep probes has that stage; nothing waits for it where the layers
 * are named.  *ret_result: 0 without one. */
static int attach_probe(struct ha_coordinator *c, const struct ha_by *by, const struct expansion *e,
                        struct ha_stage_spec spec, int64_t *ret_result, struct ha_error *err)
{
    *ret_result = 0;
    if (!e->keys.probe[0])
        return ha_store_stage_retire_probe(c->store, by, spec.cell, "no longer in the grid", err);
    spec.kind = HA_STAGE_PROBE;
    spec.key = e->keys.probe;
    spec.total = e->work->sweep->probe.pairs;
    return ha_store_stage_attach(c->store, by, &spec, ret_result, err);
}

static int attach_train(struct ha_coordinator *c, const struct ha_by *by, const struct expansion *e,
                        struct ha_stage_spec spec, int64_t probe, int64_t *ret_result,
                        struct ha_error *err)
{
    const struct ha_grid_cell *cell = &e->work->grid->cells[e->now.cell];

    *ret_result = 0;
    if (!cell->trains)
        return 0;
    spec.kind = HA_STAGE_TRAIN;
    spec.key = e->keys.train;
    spec.fuse_key = e->keys.train_together;
    spec.reference_key = e->keys.reference;
    spec.need = ha_grid_work_need(e->work, e->now.cell, true);
    spec.auto_layers = cell->auto_layers;
    spec.measure = e->work->sweep->probe.measure;
    spec.parent = cell->auto_layers > 0 ? probe : 0;
    return ha_store_stage_attach(c->store, by, &spec, ret_result, err);
}

static int attach(struct ha_coordinator *c, const struct expansion *e,
                  const struct ha_grid_cell *cell, int64_t cell_id, struct ha_error *err)
{
    const struct ha_grid_work *w = e->work;
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    struct ha_stage_spec spec = {
        .sweep = e->sweep,
        .cell = cell_id,
        .model = e->models[cell->model],
        .priority = e->priority,
        .model_digest = w->models[cell->model]->digest,
        .fuse_key = "",
        .reference_key = "",
    };
    int64_t result = 0;
    int r = attach_probe(c, &by, e, spec, &result, err);

    if (r == 0)
        r = attach_train(c, &by, e, spec, result, &result, err);
    spec.kind = HA_STAGE_GENERATE;
    spec.key = e->keys.generate;
    spec.fuse_key = e->keys.generate_together;
    spec.need = ha_grid_work_need(w, e->now.cell, false);
    spec.parent = result;
    spec.total = w->sweep->data.eval_samples * cell->generate->samples;
    if (r == 0)
        r = ha_store_stage_attach(c->store, &by, &spec, &result, err);
    spec.kind = HA_STAGE_JUDGE;
    spec.fuse_key = "";
    spec.parent = result;
    spec.total = 0;
    for (int64_t j = 0; r == 0 && j < w->sweep->judge_count; j++) {
        spec.judge = e->judges[j];
        spec.key = e->keys.judges[j];
        r = ha_store_stage_attach(c->store, &by, &spec, &result, err);
    }
    return r;
}

static int put_cell(struct ha_coordinator *c, struct expansion *e, struct ha_error *err)
{
    const struct ha_grid_work *w = e->work;
    const struct ha_grid_cell *cell = &w->grid->cells[e->now.cell];
    char *settings = NULL, *layers = NULL;
    int64_t id;
    int r = ha_grid_work_cell(w, e->now.cell, &settings, &layers, err);

    if (r == 0)
        r = ha_store_cell_put(
            c->store,
            &(struct ha_cell_row){.sweep = e->sweep,
                                  .model = e->models[cell->model],
                                  .name = cell->name,
                                  .strategy = w->sweep->strategies[cell->strategy].name,
                                  .layers = layers,
                                  .settings = settings,
                                  .position = e->now.cell,
                                  .version = e->version},
            &id, err);
    if (r == 0)
        r = ha_grid_work_keys(w, e->now.cell, &e->keys, err);
    if (r == 0)
        r = attach(c, e, cell, id, err);
    free(settings);
    free(layers);
    return r;
}

static int retire_cell(struct ha_coordinator *c, struct expansion *e, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    int64_t cell;
    int r = ha_store_cell_gone(c->store, e->sweep, &cell, err);

    if (r == 0)
        e->now.phase = PHASE_JUDGES;
    if (r <= 0)
        return r;
    c->cancelled = true;
    r = ha_store_stages_retire_of_cell(c->store, &by, cell, "no longer in the grid", err);
    return r < 0 ? r : ha_store_cell_set_live(c->store, cell, false, err);
}

static int retire_judge(struct ha_coordinator *c, struct expansion *e, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    int64_t stage;
    int r = ha_store_stage_next_retired(c->store, e->sweep, &stage, err);

    if (r == 0)
        e->now.phase = PHASE_LAST;
    if (r <= 0)
        return r;
    return ha_store_stage_retire(c->store, &by, stage, "its judge is no longer in the grid", err);
}

static int finish(struct ha_coordinator *c, struct expansion *e, struct ha_error *err)
{
    int r = ha_store_sweep_set_expanded(c->store, e->sweep, e->work->grid->cell_count, err);

    for (int64_t i = 0; r == 0 && i < e->work->sweep->model_count; i++)
        r = ha_store_block_release(c->store, e->models[i], err);
    return r < 0 ? r : 1;
}

static int step(struct ha_coordinator *c, void *state, struct ha_error *err)
{
    struct expansion *e = state;
    int r;

    HA_CRASH_POINT("coordinator.slice_expands");
    switch (e->now.phase) {
    case PHASE_CELLS:
        if (e->now.cell >= e->work->grid->cell_count) {
            e->now.phase = PHASE_GONE;
            return 0;
        }
        r = put_cell(c, e, err);
        e->now.cell++;
        return r;
    case PHASE_GONE:
        HA_CRASH_POINT("coordinator.slice_retires");
        return retire_cell(c, e, err);
    case PHASE_JUDGES:
        return retire_judge(c, e, err);
    default:
        HA_CRASH_POINT("coordinator.last_expanded");
        return finish(c, e, err);
    }
}

static int failed(struct ha_coordinator *c, void *state, const struct ha_error *why)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    struct expansion *e = state;

    return ha_store_sweep_set_state(c->store, &by, e->sweep, HA_SWEEP_PAUSED, ha_error_text(why),
                                    NULL);
}

/* ---- making it ------------------------------------------------------------------------ */

static int read_sweep(void *context, const struct ha_sweep_row *row)
{
    struct expansion *e = context;

    e->version = row->version;
    e->priority = row->priority;
    return 1;
}

static int read_model(void *context, const struct ha_model_row *row)
{
    struct expansion *e = context;

    for (int64_t i = 0; i < e->work->sweep->model_count; i++) {
        if (strcmp(e->work->sweep->models[i].name, row->name) == 0)
            e->models[i] = row->id;
    }
    return 0;
}

static int read_judge(void *context, const struct ha_judge_row *row)
{
    struct expansion *e = context;

    for (int64_t i = 0; i < e->work->sweep->judge_count; i++) {
        if (strcmp(e->work->sweep->judges[i].name, row->name) == 0)
            e->judges[i] = row->id;
    }
    return 0;
}

static int load(struct ha_coordinator *c, struct expansion *e, struct ha_error *err)
{
    int r = e->work ? 0 : ha_grid_work_load(c->store, e->sweep, NULL, 0, &e->work, err);

    if (r < 0)
        return r;
    e->models = ha_calloc(e->work->sweep->model_count, sizeof *e->models);
    e->judges = ha_calloc(e->work->sweep->judge_count, sizeof *e->judges);
    e->keys.judges = ha_calloc(e->work->sweep->judge_count, sizeof *e->keys.judges);
    if (!e->models || !e->judges || !e->keys.judges)
        return ha_error_set(err, ENOMEM, "no memory for the grid");
    r = ha_store_sweep_each(c->store, e->sweep, NULL, read_sweep, e, err);
    if (r == 0)
        r = ha_store_model_each(c->store, e->sweep, read_model, e, err);
    if (r == 0)
        r = ha_store_judge_each(c->store, e->sweep, 0, read_judge, e, err);
    return r;
}

int ha_chore_expand(struct ha_coordinator *c, int64_t sweep, struct ha_grid_work *work,
                    struct ha_error *err)
{
    struct expansion *e = ha_calloc(1, sizeof *e);
    int r;

    if (!e)
        return ha_error_set(err, ENOMEM, "no memory for the grid");
    e->sweep = sweep;
    e->work = work ? ha_grid_work_share(work) : NULL;
    r = load(c, e, err);
    if (r < 0) {
        destroy(e);
        return r;
    }
    ha_chores_drop(c, sweep, "expanding the grid");
    return ha_chore_add(c,
                        &(struct ha_chore){.what = "expanding the grid",
                                           .sweep = sweep,
                                           .step = step,
                                           .keep = keep,
                                           .undo = undo,
                                           .failed = failed,
                                           .destroy = destroy,
                                           .state = e},
                        err);
}
