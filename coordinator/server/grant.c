/* grant.c - a leased job as its worker gets it; GrantRequest (inside.h) */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/hash.h"
#include "coordinator/core/job_spec.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/answer.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/job.h"
#include "coordinator/store/part.h"
#include "coordinator/store/reference.h"
#include "coordinator/store/sweep.h"

/* Everything of a grant; texts in the arena. */
struct maker {
    int64_t time_limit_s;
    struct ha_coordinator *c;
    struct ha_arena *arena;
    int64_t job, model_id, sweep_id;
    enum ha_stage_kind kind;
    struct ha_spec spec;
    struct ha_spec_cell *cells;
    struct ha_spec_skip *skip;
    const char **train, **eval;
    struct ha_wire_input *inputs;
    int64_t input_count;
    const char *model_digest;
    /* of the cell that is being read */
    int64_t cell, result, parent;
    const char *folder, *checkpoint;
};

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for a grant");
}

/* path is freed here. */
static const char *keep(struct maker *m, char *path)
{
    const char *copy = path ? ha_scratch_text(m->arena, path) : NULL;

    free(path);
    return copy;
}

static int add_input(struct maker *m, const char *sha256, int64_t size, const char *path)
{
    struct ha_wire_input *input =
        path ? ha_scratch_grow(m->arena, &m->inputs, &m->input_count, sizeof *input) : NULL;

    if (!input)
        return -ENOMEM;
    input->sha256 = ha_scratch_text(m->arena, sha256);
    input->size = size;
    input->path = path;
    return input->sha256 ? 0 : -ENOMEM;
}

static int read_job(void *context, const struct ha_job_row *row)
{
    struct maker *m = context;

    m->kind = row->kind;
    return 0;
}

static int read_sweep(void *context, const struct ha_sweep_row *row)
{
    struct maker *m = context;

    m->spec.sweep = ha_scratch_text(m->arena, row->name);
    m->spec.time_alone_steps = row->time_alone_steps;
    m->time_limit_s = row->time_limit_s;
    return m->spec.sweep ? 0 : -ENOMEM;
}

static int read_file(void *context, const struct ha_file_row *row)
{
    struct maker *m = context;
    bool train = strcmp(row->split, "train") == 0;
    const char *path, **place;

    if (m->kind == (train ? HA_STAGE_GENERATE : HA_STAGE_PROBE))
        return 0;
    path = keep(m, ha_spec_data_path(row->split, row->position, row->path));
    place = train ? ha_scratch_grow(m->arena, &m->train, &m->spec.train_count, sizeof *place)
                  : ha_scratch_grow(m->arena, &m->eval, &m->spec.eval_count, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = path;
    return add_input(m, row->sha256, row->size, path);
}

static int read_model(void *context, const struct ha_model_row *row)
{
    struct maker *m = context;

    if (row->id != m->model_id)
        return 0;
    m->spec.model_name = ha_scratch_text(m->arena, row->name);
    m->spec.model_path = ha_scratch_text(m->arena, row->path);
    m->spec.hub_id = ha_scratch_text(m->arena, row->hub_id);
    m->spec.prompt_template = ha_scratch_text(m->arena, row->prompt_template);
    m->model_digest = ha_scratch_text(m->arena, row->digest);
    return m->spec.model_name && m->spec.model_path && m->spec.hub_id && m->spec.prompt_template &&
                   m->model_digest
               ? 1
               : -ENOMEM;
}

/* Files of the newest checkpoint only; products come newest step first. */
static int read_checkpoint(void *context, const struct ha_product *product)
{
    struct maker *m = context;

    if (m->checkpoint)
        return 1;
    m->checkpoint = keep(m, ha_spec_checkpoint_path(m->cell));
    return add_input(m, product->sha256, product->size, m->checkpoint);
}

static int read_adapter(void *context, const struct ha_product *product)
{
    struct maker *m = context;
    const char *path = keep(m, ha_spec_adapter_path(m->cell, product->name));

    if (!m->folder)
        m->folder = keep(m, ha_spec_adapter_path(m->cell, NULL));
    return m->folder ? add_input(m, product->sha256, product->size, path) : -ENOMEM;
}

static int read_answered(void *context, int64_t prompt, int64_t sample)
{
    struct maker *m = context;
    struct ha_spec_skip *skip =
        ha_scratch_grow(m->arena, &m->skip, &m->spec.skip_count, sizeof *skip);

    if (!skip)
        return -ENOMEM;
    *skip = (struct ha_spec_skip){.cell = m->cell, .prompt = prompt, .sample = sample};
    return 0;
}

/* One cell that still has something to do.  The query of its rows is closed
 * before this runs others. */
struct cell_list {
    struct ha_arena *arena;
    struct {
        int64_t cell, result, parent, sweep;
        const char *name, *layers, *settings;
    } * rows;
    int64_t count;
};

static int list_cell(void *context, const struct ha_job_cell_row *row)
{
    struct cell_list *list = context;
    void *place;

    if (strcmp(row->outcome, "pending") != 0)
        return 0;
    place = ha_scratch_grow(list->arena, &list->rows, &list->count, sizeof *list->rows);
    if (!place)
        return -ENOMEM;
    list->rows[list->count - 1].cell = row->cell;
    list->rows[list->count - 1].result = row->result;
    list->rows[list->count - 1].parent = row->parent;
    list->rows[list->count - 1].sweep = row->sweep;
    list->rows[list->count - 1].name = ha_scratch_text(list->arena, row->name);
    list->rows[list->count - 1].layers = ha_scratch_text(list->arena, row->layers);
    list->rows[list->count - 1].settings = ha_scratch_text(list->arena, row->settings);
    return list->rows[list->count - 1].settings ? 0 : -ENOMEM;
}

static int add_cell(struct maker *m, const struct cell_list *list, int64_t index,
                    struct ha_error *err)
{
    struct ha_store *store = m->c->store;
    struct ha_spec_cell *cell;
    int r = 0;

    m->cell = list->rows[index].cell;
    m->result = list->rows[index].result;
    m->parent = list->rows[index].parent;
    m->folder = m->checkpoint = NULL;
    if (m->kind == HA_STAGE_TRAIN)
        r = ha_store_product_each(store, m->result, "checkpoint", read_checkpoint, m, err);
    else if (m->kind == HA_STAGE_GENERATE)
        r = ha_store_answered_each(store, m->result, read_answered, m, err);
    if (r == 0 && m->kind == HA_STAGE_GENERATE && m->parent != 0)
        r = ha_store_product_each(store, m->parent, "adapter", read_adapter, m, err);
    if (r == 0 && m->kind == HA_STAGE_GENERATE && m->parent != 0 && !m->folder)
        return ha_error_set(err, ENOENT, "the adapter of cell %s is gone", list->rows[index].name);
    cell = r < 0 ? NULL : ha_scratch_grow(m->arena, &m->cells, &m->spec.cell_count, sizeof *cell);
    if (!cell)
        return r < 0 && r != -ENOMEM ? r : no_memory(err);
    *cell = (struct ha_spec_cell){
        .id = m->cell,
        .name = list->rows[index].name,
        .layers = list->rows[index].layers,
        .settings = list->rows[index].settings,
        .adapter = m->folder,
        .checkpoint = m->checkpoint,
    };
    return 0;
}

static int find_model(void *context, const struct ha_cell_row *row)
{
    struct maker *m = context;

    m->model_id = row->model;
    return 1;
}

static int read_all(struct maker *m, struct ha_error *err)
{
    struct cell_list list = {.arena = m->arena};
    struct ha_store *store = m->c->store;
    int r = ha_store_job_get(store, m->job, read_job, m, err);

    if (r == 0)
        return ha_error_set(err, ENOENT, "job %" PRId64 " does not exist", m->job);
    r = r < 0 ? r : ha_store_job_cell_each(store, m->job, list_cell, &list, err);
    if (r == 0 && list.count == 0)
        return ha_error_set(err, EINVAL, "job %" PRId64 " has nothing left to do", m->job);
    if (r == 0) {
        m->sweep_id = list.rows[0].sweep;
        r = ha_store_cell_get(store, list.rows[0].cell, find_model, m, err);
    }
    if (r >= 0)
        r = ha_store_sweep_each(store, m->sweep_id, NULL, read_sweep, m, err);
    if (r == 0)
        r = ha_store_model_each(store, m->sweep_id, read_model, m, err);
    if (r == 0 && !m->model_digest)
        return ha_error_set(err, ENOENT, "the model of job %" PRId64 " is gone", m->job);
    if (r == 0)
        r = ha_store_file_each(store, m->sweep_id, read_file, m, err);
    for (int64_t i = 0; r == 0 && i < list.count; i++)
        r = add_cell(m, &list, i, err);
    return r == -ENOMEM ? no_memory(err) : r;
}

static int find_reference_key(void *context, const struct ha_job_cell_row *row)
{
    struct ha_buffer *key = context;
    int r = row->reference_key[0] ? ha_buffer_append_text(key, row->reference_key) : 0;

    return r < 0 ? r : 1;
}

/* The next word of a stage's reference_key, up to the given size. */
static const char *take_word(const char *text, char *word, size_t size)
{
    size_t n = strcspn(text, " ");

    (void)snprintf(word, size, "%.*s", (int)n, text);
    return text + n + (text[n] == ' ');
}

int ha_server_reference_keys(struct ha_coordinator *c, int64_t job, const char *backend,
                             struct ha_reference_keys *ret_keys, struct ha_error *err)
{
    struct ha_reference_keys keys;
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_buffer text;
    const char *rest;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_store_job_cell_each(c->store, job, find_reference_key, &text, err);
    if (r == 0 && text.size > 0) {
        rest = take_word(ha_buffer_text(&text), keys.own, sizeof keys.own);
        rest = take_word(rest, keys.any, sizeof keys.any);
        keys.takes_any = strcmp(rest, "any") == 0;
        ha_buffer_clear(&text);
        r = ha_buffer_printf(&text, "%s %s", keys.own, backend);
        if (r == 0) {
            ha_sha256(text.data, text.size, digest);
            ha_sha256_hex(digest, keys.own);
            *ret_keys = keys;
        }
        r = r < 0 ? r : 1;
    }
    ha_buffer_clear(&text);
    return r == -ENOMEM ? no_memory(err) : r;
}

static int add_reference(void *context, const struct ha_reference *reference)
{
    struct maker *m = context;

    m->spec.reference = keep(m, ha_spec_reference_path());
    return add_input(m, reference->sha256, reference->size, m->spec.reference);
}

/* One of the same plan, if there is one; else of any, where that will do. */
static int read_reference(struct maker *m, const char *backend, struct ha_error *err)
{
    struct ha_store *store = m->c->store;
    struct ha_reference_keys keys;
    int r =
        m->kind == HA_STAGE_TRAIN ? ha_server_reference_keys(m->c, m->job, backend, &keys, err) : 0;

    if (r > 0) {
        r = ha_store_reference_use(store, keys.own, m->c->wall_ms, add_reference, m, err);
        if (r == 0 && keys.takes_any)
            r = ha_store_reference_use(store, keys.any, m->c->wall_ms, add_reference, m, err);
    }
    if (r == -ENOMEM)
        return no_memory(err);
    return r < 0 ? r : 0;
}

int ha_server_grant(struct ha_coordinator *c, struct ha_arena *arena, int64_t job,
                    struct ha_epoch epoch, const struct ha_member *member,
                    struct ha_wire_message *ret_message, struct ha_error *err)
{
    struct maker m = {.c = c, .arena = arena, .job = job};
    struct ha_wire_gang gang = {.parts = 0};
    const char *spec;
    char *text;
    int r = read_all(&m, err);

    if (r == 0)
        r = read_reference(&m, member->backend, err);
    if (r == 0)
        r = ha_gang_of_grant(c, job, epoch, member->id, &gang, err);
    if (r < 0)
        return r;
    m.spec.ranks = gang.parts > 0 ? gang.world : 1; /* as it was leased */
    m.spec.kind = m.kind;
    m.spec.job = job;
    m.spec.train = m.train;
    m.spec.eval = m.eval;
    m.spec.cells = m.cells;
    m.spec.skip = m.skip;
    r = ha_spec_json(&m.spec, &text, err);
    if (r < 0)
        return r;
    spec = keep(&m, text);
    if (!spec)
        return no_memory(err);
    ret_message->kind = HA_WIRE_GRANT;
    ret_message->body.grant = (struct ha_wire_grant){
        .job = (uint64_t)job,
        .epoch = {(uint64_t)epoch.generation, (uint64_t)epoch.number},
        .kind = ha_stage_kind_name(m.kind),
        .sweep = m.spec.sweep,
        .spec_json = spec,
        .inputs = m.inputs,
        .n_inputs = m.input_count,
        .model_path = m.spec.model_path,
        .model_digest = m.model_digest,
        .time_limit_s = m.time_limit_s,
        .gang = gang,
    };
    return 0;
}

int ha_handle_grant_request(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_grant_request *ask = &q->message->body.grant_request;
    struct ha_epoch epoch = {(int64_t)ask->epoch.generation, (int64_t)ask->epoch.number};
    struct ha_attempt_row row;
    int r = ha_store_attempt_get(q->c->store, (int64_t)ask->job, epoch, &row, err);

    if (r == 1 && row.worker != q->caller->member->id)
        r = ha_store_part_of(q->c->store, row.job, epoch, q->caller->member->id, err);
    if (r < 0)
        return r;
    if (r == 0 || !row.newest || row.state == HA_ATTEMPT_STATE_ENDED)
        return ha_error_set(err, ESTALE, "the lease of job %" PRIu64 " is over", ask->job);
    return ha_server_grant(q->c, &q->arena, row.job, epoch, q->caller->member, &q->reply, err);
}
