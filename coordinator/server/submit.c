/* submit.c - Submit: a new sweep, the same again, or a changed one */
#include "coordinator/server/submit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/conf/json.h"
#include "common/conf/model_path.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/hold.h"
#include "coordinator/store/sweep.h"

/* ---- rows of a grid -------------------------------------------------------------------- */

static char *overrides_json(const struct ha_wire_submit *submit)
{
    struct ha_json *array = ha_json_new_array();
    char *text = NULL;
    int r = array ? 0 : -ENOMEM;

    for (int64_t i = 0; r == 0 && i < submit->n_overrides; i++)
        r = ha_json_append(array, ha_json_new_string(submit->overrides[i]));
    if (r == 0)
        text = ha_json_dump(array, HA_JSON_COMPACT);
    ha_json_destroy(array);
    return text;
}

/* [resources] as the plan compares them.  The labels are the caller's to free. */
static int read_needs(const struct ha_sweep_resources *from, struct ha_fit *need, char **ret_labels,
                      struct ha_error *err)
{
    struct ha_buffer labels;
    int r = 0;

    /* Each of its workers gives its part of the GPUs. */
    *need = (struct ha_fit){.cpus = from->cpus,
                            .gpus = from->nodes > 1 ? from->gpus / from->nodes : from->gpus,
                            .nodes = from->nodes};
    if (from->host_memory)
        r = ha_memory_parse("resources.host_memory", from->host_memory, &need->memory_bytes, err);
    if (r == 0 && from->min_gpu_memory)
        r = ha_memory_parse("resources.min_gpu_memory", from->min_gpu_memory,
                            &need->gpu_memory_bytes, err);
    if (r < 0)
        return r;
    ha_buffer_init(&labels, 0);
    for (int64_t i = 0; r == 0 && i < from->labels.count; i++)
        r = ha_buffer_printf(&labels, "%s\n", from->labels.items[i]);
    *ret_labels = r < 0 ? NULL : ha_strdup(ha_buffer_text(&labels));
    ha_buffer_clear(&labels);
    need->labels = *ret_labels;
    return *ret_labels ? 0 : ha_error_set(err, ENOMEM, "no memory for the grid");
}

static int put_sweep(struct ha_coordinator *c, const struct ha_by *by, int64_t sweep,
                     const struct ha_grid_work *w, bool expand, int64_t *ret_sweep,
                     struct ha_error *err)
{
    char *overrides = overrides_json(&w->submit);
    struct ha_sweep_row row = {
        .id = sweep,
        .name = w->submit.name,
        .expanding = expand,
        .toml = w->submit.toml,
        .base_dir = w->submit.base_dir,
        .overrides = overrides,
        .submit_sha256 = w->submit_sha256,
        .data_sha256 = w->data_sha256,
        .priority = w->sweep->general.priority,
        .seed = w->sweep->general.seed,
        .budget = w->sweep->general.budget,
        .max_attempts = w->sweep->retry.max_attempts,
        .max_failures = w->sweep->retry.max_failures,
        .wait_when_lost = strcmp(w->sweep->retry.on_worker_lost, "wait") == 0,
        .judge_label = ha_grid_work_label(w),
        .fuse = HA_FUSE_AUTO,
        .time_alone_steps = w->sweep->schedule.time_alone_steps,
        .cells = w->grid->cell_count,
    };
    char *labels = NULL;
    int r = read_needs(&w->sweep->resources, &row.need, &labels, err);

    row.time_limit_s = w->sweep->resources.time_limit_s;
    ha_fuse_mode_parse(w->sweep->schedule.fuse, &row.fuse);
    if (r == 0)
        r = overrides ? ha_store_sweep_put(c->store, by, &row, ret_sweep, err)
                      : ha_error_set(err, ENOMEM, "no memory for the grid");

    free(overrides);
    free(labels);
    return r;
}

static const char *hub_id(const struct ha_sweep_model *model)
{
    if (model->hub_id)
        return model->hub_id;
    return ha_model_path_is_hub_id(model->path) ? model->path : "";
}

static int put_models(struct ha_coordinator *c, int64_t sweep, const struct ha_grid_work *w,
                      struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < w->sweep->model_count; i++) {
        const struct ha_sweep_model *model = &w->sweep->models[i];
        struct ha_model_row row = {
            .name = model->name,
            .path = w->models[i]->path,
            .hub_id = hub_id(model),
            .prompt_template = model->prompt_template,
            .digest = w->models[i]->digest,
            .tokenizer_digest = w->models[i]->tokenizer_digest,
            .family = w->models[i]->family,
            .plan = w->models[i]->plan_json,
            .layers = w->grid->layers[i],
        };
        int64_t id;

        r = ha_store_model_put(c->store, sweep, &row, &id, err);
    }
    return r;
}

static int put_files(struct ha_coordinator *c, int64_t sweep, const struct ha_grid_work *w,
                     struct ha_error *err)
{
    int64_t train = 0, eval = 0;
    int r = ha_store_files_clear(c->store, sweep, err);

    for (int64_t i = 0; r == 0 && i < w->submit.n_files; i++) {
        const struct ha_wire_submit_file *file = &w->submit.files[i];
        bool is_train = strcmp(file->split, "train") == 0;
        struct ha_file_row row = {.split = file->split,
                                  .path = file->path,
                                  .sha256 = file->sha256,
                                  .position = is_train ? train++ : eval++,
                                  .size = file->size};

        r = ha_store_file_add(c->store, sweep, &row, err);
    }
    return r;
}

/* The least that the rows of new cells will take. */
static int new_rows(struct ha_coordinator *c, int64_t sweep, const struct ha_grid_work *w,
                    int64_t *ret_bytes, struct ha_error *err)
{
    int64_t stages = 1 + w->sweep->judge_count, old, cells;
    int r = ha_store_cell_count(c->store, sweep, &old, err);

    cells = w->grid->cell_count > old ? w->grid->cell_count - old : 0;
    *ret_bytes = cells * (HA_ROW_CELL + stages * HA_ROW_STAGE);
    return r;
}

static int check_size(struct ha_coordinator *c, int64_t sweep, const struct ha_grid_work *w,
                      struct ha_error *err)
{
    int64_t bytes, rows = 0, most = c->options.max_sweep_bytes;
    int r = most > 0 ? ha_store_stored_bytes(c->store, sweep, 0, &bytes, NULL, err) : 0;

    if (r == 0 && most > 0)
        r = new_rows(c, sweep, w, &rows, err);
    if (r == 0 && most > 0 && rows > most - bytes)
        r = ha_error_set(err, EFBIG,
                         "its data files and rows have %" PRId64 " KiB, its new cells need %" PRId64
                         " KiB or more, and a sweep may store %" PRId64
                         " KiB here (max_sweep_size in coordinator.toml)",
                         (bytes + 1023) >> 10, (rows + 1023) >> 10, most >> 10);
    return r;
}

static int put_judges(struct ha_coordinator *c, int64_t sweep, const struct ha_grid_work *w,
                      struct ha_error *err)
{
    int r = ha_store_judges_retire(c->store, sweep, err);

    for (int64_t i = 0; r == 0 && i < w->sweep->judge_count; i++) {
        const struct ha_sweep_judge *judge = &w->sweep->judges[i];
        struct ha_judge_row row = {
            .name = judge->name,
            .eager = strcmp(judge->order, "eager") == 0,
            .samples = judge->samples,
            .max_reasks = judge->max_reasks,
            .max_attempts = judge->max_attempts,
            .budget = judge->budget,
        };
        char *settings = NULL;
        int64_t id;

        r = ha_grid_work_judge(w, i, &settings, err);
        row.settings = settings;
        if (r == 0)
            r = ha_store_judge_put(c->store, sweep, &row, &id, err);
        free(settings);
    }
    return r;
}

int ha_submit_apply(struct ha_coordinator *c, const struct ha_by *by, int64_t sweep,
                    struct ha_grid_work *work, bool expand, int64_t *ret_sweep,
                    struct ha_error *err)
{
    int64_t id;
    int r = put_sweep(c, by, sweep, work, expand, &id, err);

    if (r == 0)
        r = put_models(c, id, work, err);
    if (r == 0)
        r = put_files(c, id, work, err);
    if (r == 0)
        r = check_size(c, id, work, err);
    if (r == 0)
        r = put_judges(c, id, work, err);
    if (r == 0)
        r = ha_store_sweep_set_chore(c->store, id, HA_CHORE_NONE, err);
    if (r == 0)
        r = ha_store_hold_of_sweep(c->store, id, err);
    if (r >= 0)
        r = ha_store_sweep_set_state(c->store, by, id, r ? HA_SWEEP_PAUSED : HA_SWEEP_RUNNING, "",
                                     err);
    if (r == 0 && expand) {
        ha_chores_drop(c, id, "changing the stages");
        r = ha_chore_expand(c, id, work, err);
    }
    if (r == 0)
        *ret_sweep = id;
    return r;
}

/* ---- the request ------------------------------------------------------------------------- */

struct existing {
    int64_t id, cells;
    bool same;
    const char *submit_sha256;
    enum ha_sweep_state state;
};

static int read_existing(void *context, const struct ha_sweep_row *row)
{
    struct existing *e = context;

    e->id = row->id;
    e->state = row->state;
    e->cells = row->cells;
    e->same = strcmp(row->submit_sha256, e->submit_sha256) == 0;
    return 1;
}

static int check_files(struct ha_coordinator *c, const struct ha_grid_work *w, struct ha_error *err)
{
    for (int64_t i = 0; i < w->submit.n_files; i++) {
        int r = ha_store_artifact_find(c->store, w->submit.files[i].sha256, NULL, err);

        if (r < 0)
            return r;
        if (r == 0)
            return ha_error_set(err, ENOENT, "the data file %s was not uploaded",
                                w->submit.files[i].path);
    }
    return 0;
}

/* The same grid again: go on; stages that were cancelled wait again. */
static int resume(struct ha_coordinator *c, const struct ha_by *by, const struct existing *e,
                  struct ha_error *err)
{
    int r;

    if (e->state != HA_SWEEP_CANCELLED)
        return 0;
    r = ha_store_sweep_set_state(c->store, by, e->id, HA_SWEEP_RUNNING, "", err);
    if (r == 0)
        r = ha_store_sweep_set_chore(c->store, e->id, HA_CHORE_REVIVE, err);
    return r < 0 ? r : ha_chore_stages(c, e->id, err);
}

static void fill_submitter(struct ha_request *q, struct ha_submitter *s)
{
    const struct ha_wire_submit *submit = &q->message->body.submit;

    *s = (struct ha_submitter){.extend = submit->extend};
    ha_server_waiter(q, submit->key, &s->waiter);
}

int ha_submit_take(struct ha_coordinator *c, const struct ha_by *by, struct ha_submitter *s,
                   struct ha_grid_work *w, struct ha_wire_message *reply, bool *ret_deferred,
                   struct ha_error *err)
{
    struct existing e = {.submit_sha256 = w->submit_sha256};
    int64_t sweep = 0;
    int r = check_files(c, w, err);

    if (r == 0 && !ha_sweep_name_valid(w->submit.name))
        r = ha_error_set(err, EINVAL, "\"%.60s\" is no name for a sweep", w->submit.name);
    if (r == 0)
        r = ha_store_sweep_each(c->store, 0, w->submit.name, read_existing, &e, err);
    if (r == 0 && e.id != 0 && ha_chore_of_sweep(c, e.id, "comparing the grids"))
        r = ha_error_set(err, EBUSY, "another grid for sweep %s is being compared; submit again",
                         w->submit.name);
    if (r == 0 && e.id != 0 && !e.same) {
        r = ha_chore_admit(c, &s->waiter, err);
        if (r < 0)
            return r;
        *ret_deferred = true;
        return ha_chore_compare(c, e.id, ha_grid_work_share(w), s, err);
    }
    if (r == 0 && e.id != 0)
        r = resume(c, by, &e, err);
    else if (r == 0)
        r = ha_submit_apply(c, by, 0, w, true, &sweep, err);
    if (r < 0)
        return r;
    reply->kind = HA_WIRE_SUBMIT_REPLY;
    reply->body.submit_reply = (struct ha_wire_submit_reply){
        .sweep = (uint64_t)(e.id != 0 ? e.id : sweep),
        .name = w->submit.name,
        .outcome = e.id != 0 ? "resumed" : "created",
        .cells = w->grid->cell_count,
    };
    c->changed = true;
    return ha_server_once_store(c, s->waiter.key, s->waiter.client, s->waiter.hash, reply, err);
}

/* Takes over work, which has all its cells. */
static int submit_work(struct ha_request *q, struct ha_grid_work *w, struct ha_submitter *s,
                       struct ha_error *err)
{
    struct ha_wire_submit_reply *reply = &q->reply.body.submit_reply;
    int r = ha_submit_take(q->c, &q->by, s, w, &q->reply, &q->deferred, err);

    if (r == 0 && !q->deferred) {
        reply->name = ha_scratch_text(&q->arena, reply->name);
        r = reply->name ? 0 : ha_error_set(err, ENOMEM, "no memory for the reply");
    }
    ha_grid_work_destroy(w);
    return r;
}

/* A grid that cannot be taken is an answer, not a failure of the request. */
static int refuse(struct ha_request *q, const struct ha_error *why)
{
    const char **note;
    struct ha_wire_submit_reply *reply = &q->reply.body.submit_reply;

    q->reply.kind = HA_WIRE_SUBMIT_REPLY;
    *reply = (struct ha_wire_submit_reply){.name = "", .outcome = "refused"};
    note = ha_scratch_grow(&q->arena, &reply->notes, &reply->n_notes, sizeof *note);
    if (!note)
        return -ENOMEM;
    *note = ha_scratch_text(&q->arena, ha_error_text(why));
    return *note ? 0 : -ENOMEM;
}

/* Takes over work, whose cells are still to be read. */
static int read_slowly(struct ha_request *q, struct ha_grid_work *work,
                       const struct ha_submitter *s, struct ha_error *err)
{
    int r = ha_chore_admit(q->c, &s->waiter, err);

    if (r < 0) {
        ha_grid_work_destroy(work);
        return r;
    }
    q->deferred = true;
    return ha_chore_read(q->c, work, s, err);
}

int ha_handle_submit(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_submit *submit = &q->message->body.submit;
    struct ha_grid_work *work;
    struct ha_submitter s;
    struct ha_error why = {0};
    int r;

    if (q->c->disk_low)
        return ha_error_set(err, ENOSPC, "nothing new is taken: %s", q->c->disk_low);
    r = ha_server_once(q, submit->key, err);
    if (r != 0)
        return r < 0 ? r : 0;
    fill_submitter(q, &s);
    r = ha_grid_work_begin(submit, &work, &why);
    if (r == 0 && work->grid->points > HA_SUBMIT_AT_ONCE)
        return read_slowly(q, work, &s, err);
    if (r == 0) {
        r = ha_grid_work_step(work, INT64_MAX, &why);
        if (r < 0)
            ha_grid_work_destroy(work);
    }
    if (r == -EINVAL || r == -E2BIG)
        return refuse(q, &why);
    if (r < 0)
        return ha_error_set(err, -r, "%s", ha_error_text(&why));
    return submit_work(q, work, &s, err);
}
