/* compare.c - a grid submitted again with changes, compared cell by cell (submit.h)
 *
 * Equal cells are kept, new ones added, missing ones stopped.  A setting that
 * changes the result of a cell that exists is refused with its name, unless the
 * user said --extend: then the cell gets new stages, and the old results stay
 * in the store under their keys. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/fault.h"
#include "common/base/memory.h"
#include "coordinator/core/resubmit.h"
#include "coordinator/server/submit.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/sweep.h"

enum { NOTES = 8, REPLY_BYTES = 1 << 20 };

struct comparison {
    int64_t sweep;
    struct ha_grid_work *work;
    struct ha_submitter submitter;
    struct ha_cell_keys keys;
    int64_t next;
    int64_t equal, added, changed, gone;
    struct ha_buffer notes[NOTES]; /* of the first cells that changed */
    /* of the cell that is being compared */
    bool differs;
    int64_t differing_judge; /* -1: not a judge's setting */
    struct ha_arena arena;
};

static void destroy(void *state)
{
    struct comparison *p = state;

    if (!p)
        return;
    ha_grid_work_destroy(p->work);
    for (int i = 0; i < NOTES; i++)
        ha_buffer_clear(&p->notes[i]);
    free(p->keys.judges);
    ha_arena_clear(&p->arena);
    free(p);
}

/* What is counted is not stored: a turn that is undone counts its cells again. */
static void undo(void *state)
{
    struct comparison *p = state;

    p->next = p->equal = p->added = p->changed = p->gone = 0;
    for (int i = 0; i < NOTES; i++)
        ha_buffer_reset(&p->notes[i]);
}

/* ---- one cell -------------------------------------------------------------------------- */

static int64_t judge_index(const struct ha_grid_work *w, const char *name)
{
    for (int64_t i = 0; i < w->sweep->judge_count; i++) {
        if (strcmp(w->sweep->judges[i].name, name) == 0)
            return i;
    }
    return -1;
}

static int compare_stage(void *context, const struct ha_stage_row *row)
{
    struct comparison *p = context;
    int64_t judge;

    switch (row->kind) {
    case HA_STAGE_PROBE: /* a grid without it leaves its norms where they are */
        p->differs = p->keys.probe[0] && strcmp(row->key, p->keys.probe) != 0;
        return p->differs;
    case HA_STAGE_TRAIN:
        p->differs = strcmp(row->key, p->keys.train) != 0;
        return p->differs;
    case HA_STAGE_GENERATE:
        p->differs = strcmp(row->key, p->keys.generate) != 0;
        return p->differs;
    default:
        judge = judge_index(p->work, row->judge_name);
        p->differs = judge >= 0 && strcmp(row->key, p->keys.judges[judge]) != 0;
        p->differing_judge = p->differs ? judge : -1;
        return p->differs;
    }
}

struct old_cell {
    struct comparison *p;
    const char *settings, *layers, *model, *tokenizer, *data, *judge;
    int64_t model_id;
};

static int read_cell(void *context, const struct ha_cell_row *row)
{
    struct old_cell *old = context;

    old->settings = ha_scratch_text(&old->p->arena, row->settings);
    old->layers = ha_scratch_text(&old->p->arena, row->layers);
    old->model_id = row->model;
    return old->settings && old->layers ? 1 : -ENOMEM;
}

static int read_model(void *context, const struct ha_model_row *row)
{
    struct old_cell *old = context;

    if (row->id != old->model_id)
        return 0;
    old->model = ha_scratch_text(&old->p->arena, row->digest);
    old->tokenizer = ha_scratch_text(&old->p->arena, row->tokenizer_digest);
    return old->model && old->tokenizer ? 1 : -ENOMEM;
}

static int read_data(void *context, const struct ha_sweep_row *row)
{
    struct old_cell *old = context;

    old->data = ha_scratch_text(&old->p->arena, row->data_sha256);
    return old->data ? 1 : -ENOMEM;
}

static int read_judge(void *context, const struct ha_judge_row *row)
{
    struct old_cell *old = context;

    if (strcmp(row->name, old->p->work->sweep->judges[old->p->differing_judge].name) != 0)
        return 0;
    old->judge = ha_scratch_text(&old->p->arena, row->settings);
    return old->judge ? 1 : -ENOMEM;
}

static int name_judge(struct ha_coordinator *c, struct comparison *p, struct ha_buffer *note,
                      struct ha_error *err)
{
    struct old_cell old = {.p = p};
    char *settings = NULL, *prefix;
    int r = ha_store_judge_each(c->store, p->sweep, 0, read_judge, &old, err);

    if (r == 0)
        r = ha_grid_work_judge(p->work, p->differing_judge, &settings, err);
    prefix = ha_format("judge.%s", p->work->sweep->judges[p->differing_judge].name);
    if (r == 0 && (!prefix || !old.judge))
        r = ha_error_set(err, ENOMEM, "no memory to compare two grids");
    if (r == 0)
        r = ha_resubmit_judge_difference(prefix, old.judge, settings, note, err);
    free(prefix);
    free(settings);
    return r;
}

static int name_setting(struct ha_coordinator *c, struct comparison *p, int64_t cell,
                        struct ha_buffer *note, struct ha_error *err)
{
    const struct ha_grid_cell *new = &p->work->grid->cells[p->next];
    struct old_cell old = {.p = p};
    char *settings = NULL, *layers = NULL;
    int r = ha_store_cell_get(c->store, cell, read_cell, &old, err);

    if (r >= 0)
        r = ha_store_model_each(c->store, p->sweep, read_model, &old, err);
    if (r == 0)
        r = ha_store_sweep_each(c->store, p->sweep, NULL, read_data, &old, err);
    if (r == 0)
        r = ha_grid_work_cell(p->work, p->next, &settings, &layers, err);
    if (r == 0)
        r = ha_resubmit_difference(
            &(struct ha_resubmit_cell){old.settings, old.layers, old.model, old.tokenizer,
                                       old.data},
            &(struct ha_resubmit_cell){settings, layers, p->work->models[new->model]->digest,
                                       p->work->models[new->model]->tokenizer_digest,
                                       p->work->data_sha256},
            note, err);
    free(settings);
    free(layers);
    return r;
}

static int note_change(struct ha_coordinator *c, struct comparison *p, int64_t cell,
                       struct ha_error *err)
{
    struct ha_buffer *note;
    int r;

    if (p->changed++ >= NOTES)
        return 0;
    note = &p->notes[p->changed - 1];
    r = p->differing_judge >= 0 ? name_judge(c, p, note, err) : name_setting(c, p, cell, note, err);
    ha_arena_clear(&p->arena);
    ha_arena_init(&p->arena, REPLY_BYTES);
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory to compare two grids") : r;
}

static int read_live(void *context, const struct ha_cell_row *row)
{
    *(bool *)context = row->live;
    return 1;
}

static int compare_cell(struct ha_coordinator *c, struct comparison *p, struct ha_error *err)
{
    int64_t cell;
    bool live = false;
    int r = ha_grid_work_keys(p->work, p->next, &p->keys, err);

    if (r == 0)
        r = ha_store_cell_id(c->store, p->sweep, p->work->grid->cells[p->next].name, &cell, err);
    if (r == 1)
        r = ha_store_cell_get(c->store, cell, read_live, &live, err);
    if (r < 0)
        return r;
    if (r == 0 || !live) {
        p->added++;
        return 0;
    }
    p->differs = false;
    p->differing_judge = -1;
    r = ha_store_stage_each(c->store, cell, compare_stage, p, err);
    if (r < 0)
        return r;
    if (p->differs)
        return note_change(c, p, cell, err);
    p->equal++;
    return 0;
}

/* ---- the end ------------------------------------------------------------------------------ */

static int count_live(void *context, const struct ha_cell_row *row)
{
    *(int64_t *)context += row->live;
    return 0;
}

static int add_note(struct ha_arena *arena, struct ha_wire_submit_reply *reply, const char *note)
{
    const char **place =
        note ? ha_scratch_grow(arena, &reply->notes, &reply->n_notes, sizeof *place) : NULL;

    if (!place)
        return -ENOMEM;
    *place = note;
    return 0;
}

static int fill_refusal(struct comparison *p, struct ha_arena *arena,
                        struct ha_wire_submit_reply *reply)
{
    int r = add_note(arena, reply,
                     ha_scratch_format(arena,
                                       "%s would change the results of %" PRId64
                                       " cells; give --extend to work them out anew, or another "
                                       "--name",
                                       ha_buffer_text(&p->notes[0]), p->changed));

    for (int64_t i = 1; r == 0 && i < p->changed && i < NOTES; i++) {
        if (strcmp(ha_buffer_text(&p->notes[i]), ha_buffer_text(&p->notes[0])) != 0)
            r = add_note(arena, reply, ha_scratch_text(arena, ha_buffer_text(&p->notes[i])));
    }
    reply->outcome = "refused";
    return r;
}

static int fill_counts(struct comparison *p, struct ha_arena *arena,
                       struct ha_wire_submit_reply *reply)
{
    int r =
        add_note(arena, reply, ha_scratch_format(arena, "%" PRId64 " cells are kept", p->equal));

    if (r == 0 && p->added > 0)
        r = add_note(arena, reply, ha_scratch_format(arena, "%" PRId64 " cells are new", p->added));
    if (r == 0 && p->changed > 0)
        r = add_note(arena, reply,
                     ha_scratch_format(arena, "%" PRId64 " cells are worked out anew: %s",
                                       p->changed, ha_buffer_text(&p->notes[0])));
    if (r == 0 && p->gone > 0)
        r = add_note(
            arena, reply,
            ha_scratch_format(arena, "%" PRId64 " cells are no longer in the grid", p->gone));
    reply->outcome = p->added + p->changed + p->gone > 0 ? "changed" : "resumed";
    return r;
}

/* The reply, stored under the request's key and sent after the commit. */
static int answer(struct ha_coordinator *c, struct comparison *p, struct ha_wire_message *message,
                  bool store, struct ha_error *err)
{
    int r = store ? ha_server_once_store(c, p->submitter.waiter.key, p->submitter.waiter.client,
                                         p->submitter.waiter.hash, message, err)
                  : 0;

    message->request_id = p->submitter.waiter.request_id;
    return r < 0 ? r : ha_server_hold(c, p->submitter.waiter.peer, message, err);
}

static int conclude(struct ha_coordinator *c, struct comparison *p, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = p->submitter.waiter.client};
    bool refused = p->changed > 0 && !p->submitter.extend;
    struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL, .kind = HA_WIRE_SUBMIT_REPLY};
    struct ha_wire_submit_reply *reply = &message.body.submit_reply;
    int64_t live = 0, sweep = 0;
    int r = ha_store_cell_each(c->store, p->sweep, 0, -1, count_live, &live, err);

    if (r < 0)
        return r;
    p->gone = live - p->equal - p->changed;
    reply->sweep = (uint64_t)p->sweep;
    reply->name = p->work->submit.name;
    reply->cells = p->work->grid->cell_count;
    r = refused ? fill_refusal(p, &p->arena, reply) : fill_counts(p, &p->arena, reply);
    if (r < 0)
        return ha_error_set(err, ENOMEM, "no memory for the reply");
    if (!refused)
        r = ha_submit_apply(c, &by, p->sweep, p->work, true, &sweep, err);
    if (r == 0)
        r = answer(c, p, &message, !refused, err);
    return r < 0 ? r : 1;
}

static int step(struct ha_coordinator *c, void *state, struct ha_error *err)
{
    struct comparison *p = state;
    int r;

    if (ha_chore_of_sweep(c, p->sweep, "expanding the grid"))
        return 0; /* its cells are not all there yet */
    HA_CRASH_POINT("coordinator.slice_compares");
    if (p->next >= p->work->grid->cell_count) {
        HA_CRASH_POINT("coordinator.last_compared");
        return conclude(c, p, err);
    }
    r = compare_cell(c, p, err);
    p->next++;
    return r;
}

static int failed(struct ha_coordinator *c, void *state, const struct ha_error *why)
{
    struct comparison *p = state;

    return ha_server_hold_error(c, p->submitter.waiter.peer, p->submitter.waiter.request_id, why);
}

int ha_chore_compare(struct ha_coordinator *c, int64_t sweep, struct ha_grid_work *work,
                     const struct ha_submitter *submitter, struct ha_error *err)
{
    struct comparison *p = ha_calloc(1, sizeof *p);

    if (!p) {
        ha_grid_work_destroy(work);
        return ha_error_set(err, ENOMEM, "no memory to compare two grids");
    }
    p->sweep = sweep;
    p->work = work;
    p->submitter = *submitter;
    ha_arena_init(&p->arena, REPLY_BYTES);
    for (int i = 0; i < NOTES; i++)
        ha_buffer_init(&p->notes[i], 4096);
    p->keys.judges = ha_calloc(work->sweep->judge_count, sizeof *p->keys.judges);
    if (!p->keys.judges) {
        destroy(p);
        return ha_error_set(err, ENOMEM, "no memory to compare two grids");
    }
    return ha_chore_add(c,
                        &(struct ha_chore){.what = "comparing the grids",
                                           .sweep = sweep,
                                           .waiter = &p->submitter.waiter,
                                           .step = step,
                                           .undo = undo,
                                           .failed = failed,
                                           .destroy = destroy,
                                           .state = p},
                        err);
}
