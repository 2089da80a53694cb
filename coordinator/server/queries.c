/* queries.c - ListSweeps, LogRequest, WorkersRequest, MetricsRequest, NormsRequest; naming sweeps
 * and cells */
#include <errno.h>
#include <string.h>

#include "common/base/clock.h"
#include "coordinator/server/inside.h"
#include "coordinator/server/rows.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/metric.h"
#include "coordinator/store/probe.h"
#include "coordinator/store/sweep.h"

enum { PAGE = 500, PAGE_LIMIT = 1000 };

static int64_t page(uint32_t limit)
{
    return limit == 0 ? PAGE : limit > PAGE_LIMIT ? PAGE_LIMIT : limit;
}

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "no memory for the reply");
}

int ha_server_find_sweep(struct ha_coordinator *c, const char *name, int64_t *ret_sweep,
                         struct ha_error *err)
{
    int r = name[0] ? ha_store_sweep_id(c->store, name, ret_sweep, err)
                    : ha_store_sweep_only(c->store, ret_sweep, err);

    if (r != 0)
        return r < 0 ? r : 0;
    if (name[0])
        return ha_error_set(err, ENOENT, "there is no sweep %.100s; hactl list shows all", name);
    return ha_error_set(err, ENOENT, "name the sweep: there is not exactly one (hactl list)");
}

int ha_server_find_cell(struct ha_coordinator *c, int64_t sweep, const char *name,
                        int64_t *ret_cell, struct ha_error *err)
{
    int r;

    *ret_cell = 0;
    if (!name[0])
        return 0;
    r = ha_store_cell_id(c->store, sweep, name, ret_cell, err);
    if (r == 0)
        return ha_error_set(err, ENOENT, "the sweep has no cell %.200s; hactl status shows all",
                            name);
    return r < 0 ? r : 0;
}

/* ---- sweeps ------------------------------------------------------------------------ */

int ha_row_sweep(struct ha_arena *arena, const struct ha_sweep_row *row,
                 struct ha_wire_sweep_row *ret_row)
{
    *ret_row = (struct ha_wire_sweep_row){
        .sweep = (uint64_t)row->id,
        .name = ha_scratch_text(arena, row->name),
        .state = ha_sweep_state_name(row->state),
        .cells = row->cells,
        .stages = row->stages,
        .stages_done = row->stages_done,
        .stages_failed = row->stages_failed,
        .created_ms = row->created_ms,
        .finished_ms = row->finished_ms,
        .reason = ha_scratch_text(arena, row->reason),
    };
    /* Until all its stages are there, nobody may take it for finished. */
    if (row->expanding && row->state != HA_SWEEP_CANCELLED && row->state != HA_SWEEP_PAUSED)
        ret_row->state = ha_sweep_state_name(HA_SWEEP_RUNNING);
    return ret_row->name && ret_row->reason ? 0 : -ENOMEM;
}

static int list_sweep(void *context, const struct ha_sweep_row *row)
{
    struct ha_request *q = context;
    struct ha_wire_sweep_list *reply = &q->reply.body.sweep_list;
    struct ha_wire_sweep_row *place =
        ha_scratch_grow(&q->arena, &reply->sweeps, &reply->n_sweeps, sizeof *place);

    return place ? ha_row_sweep(&q->arena, row, place) : -ENOMEM;
}

int ha_handle_list_sweeps(struct ha_request *q, struct ha_error *err)
{
    int r;

    q->reply.kind = HA_WIRE_SWEEP_LIST;
    r = ha_store_sweep_each(q->c->store, 0, NULL, list_sweep, q, err);
    return r == -ENOMEM ? no_memory(err) : r;
}

/* ---- events ------------------------------------------------------------------------ */

struct paging {
    struct ha_request *q;
    int64_t limit;
};

static int list_event(void *context, const struct ha_event_row *row)
{
    struct paging *p = context;
    struct ha_arena *arena = &p->q->arena;
    struct ha_wire_log_reply *reply = &p->q->reply.body.log_reply;
    struct ha_wire_event_row *place;

    if (reply->n_events >= p->limit) {
        reply->more = true;
        return 1;
    }
    place = ha_scratch_grow(arena, &reply->events, &reply->n_events, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = (struct ha_wire_event_row){
        .event = (uint64_t)row->id,
        .time_ms = row->time_ms,
        .subject = ha_scratch_text(arena, row->subject),
        .from = ha_scratch_text(arena, row->before),
        .to = ha_scratch_text(arena, row->after),
        .reason = ha_scratch_text(arena, row->reason),
        .actor = ha_scratch_text(arena, row->actor),
    };
    return place->subject && place->from && place->to && place->reason && place->actor ? 0
                                                                                       : -ENOMEM;
}

int ha_handle_log(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_log_request *ask = &q->message->body.log_request;
    struct paging p = {.q = q, .limit = page(ask->limit)};
    int64_t sweep = 0;
    int r = 0;

    if (ask->sweep[0])
        r = ha_server_find_sweep(q->c, ask->sweep, &sweep, err);
    if (r < 0)
        return r;
    q->reply.kind = HA_WIRE_LOG_REPLY;
    r = ha_store_event_each(q->c->store, sweep, (int64_t)ask->job, (int64_t)ask->after_event,
                            p.limit + 1, list_event, &p, err);
    return r == -ENOMEM ? no_memory(err) : r;
}

/* ---- workers ----------------------------------------------------------------------- */

static int list_running(struct ha_arena *arena, const struct ha_member *m,
                        struct ha_wire_worker_row *row)
{
    for (int64_t i = 0; i < m->running_count; i++) {
        struct ha_wire_running *place =
            ha_scratch_grow(arena, &row->running, &row->n_running, sizeof *place);

        if (!place)
            return -ENOMEM;
        *place = (struct ha_wire_running){
            .job = (uint64_t)m->running[i].job,
            .epoch = {(uint64_t)m->running[i].epoch.generation,
                      (uint64_t)m->running[i].epoch.number},
            .phase = m->running[i].phase,
            .step = m->running[i].step,
            .steps = m->running[i].steps,
            .tokens_per_second = m->running[i].tokens_per_second,
            .utilisation = m->running[i].utilisation,
        };
    }
    return 0;
}

static const char *worker_state(const struct ha_member *m, enum ha_liveness liveness)
{
    if (liveness != HA_ALIVE || !(m->draining || m->drained))
        return ha_liveness_name(liveness);
    return m->drained && m->running_count == 0 ? "drained" : "draining";
}

/* What its GPUs are to whoever asks what may be had: those of a worker that is lost are so, with
 * what does not change of them; those of one that is late or drained are not free. */
static int list_devices(struct ha_arena *arena, const struct ha_member *m,
                        enum ha_liveness liveness, struct ha_wire_worker_row *row)
{
    const struct ha_wire_heartbeat *beat = m->beat ? &m->beat->body.heartbeat : NULL;
    char stamp[HA_CLOCK_STAMP_BYTES];

    for (int64_t i = 0; beat && i < beat->n_devices; i++) {
        struct ha_wire_device *device =
            ha_scratch_grow(arena, &row->devices, &row->n_devices, sizeof *device);

        if (!device)
            return -ENOMEM;
        *device = beat->devices[i];
        if (liveness == HA_LOST)
            device->memory_used_bytes = device->utilisation_percent = device->temperature_c = -1;
        else if (strcmp(device->state, "free") != 0 || strcmp(row->state, "alive") == 0)
            continue;
        device->state = row->state;
        device->since_ms = 0;
        device->reason = row->note;
        if (liveness != HA_ALIVE)
            device->reason = ha_scratch_format(arena, "its worker was last heard of %s",
                                               ha_clock_stamp(row->last_seen_ms, stamp));
        if (!device->reason)
            return -ENOMEM;
    }
    return 0;
}

int ha_handle_workers(struct ha_request *q, struct ha_error *err)
{
    struct ha_wire_workers_reply *reply = &q->reply.body.workers_reply;

    q->reply.kind = HA_WIRE_WORKERS_REPLY;
    for (int64_t i = 0; i < q->c->member_count; i++) {
        const struct ha_member *m = q->c->members[i];
        enum ha_liveness liveness = ha_member_liveness(q->c, m);
        struct ha_wire_worker_row *place =
            ha_scratch_grow(&q->arena, &reply->workers, &reply->n_workers, sizeof *place);

        if (!place)
            return no_memory(err);
        *place = (struct ha_wire_worker_row){
            .name = m->name,
            .role = m->judge ? "judge" : "worker",
            .state = worker_state(m, liveness),
            .note = m->drained ? m->drain_why : "",
            .host = m->host,
            .backend = m->backend,
            .slots = (uint32_t)m->slots,
            .last_seen_ms = m->seen_wall_ms,
            .version = m->version,
            .key = m->key ? m->key : "",
            .clock_ms = m->clock_ms,
            .clock_known = m->clock_known,
        };
        if (m->told && liveness != HA_LOST) {
            place->models = m->told->body.heartbeat.models;
            place->n_models = m->told->body.heartbeat.n_models;
        }
        if (list_running(&q->arena, m, place) < 0 ||
            list_devices(&q->arena, m, liveness, place) < 0)
            return no_memory(err);
    }
    return 0;
}

/* ---- metrics ----------------------------------------------------------------------- */

static int list_metric(void *context, const struct ha_metric_row *row)
{
    struct paging *p = context;
    struct ha_wire_metrics_reply *reply = &p->q->reply.body.metrics_reply;
    struct ha_wire_metric_row *place;

    place = ha_scratch_grow(&p->q->arena, &reply->rows, &reply->n_rows, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = (struct ha_wire_metric_row){
        .metric = (uint64_t)row->id,
        .cell = (uint64_t)row->cell,
        .step = row->step,
        .name = ha_scratch_text(&p->q->arena, row->name),
        .value = row->value,
    };
    return place->name ? 0 : -ENOMEM;
}

int ha_handle_metrics(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_metrics_request *ask = &q->message->body.metrics_request;
    struct ha_wire_metrics_reply *reply = &q->reply.body.metrics_reply;
    struct paging p = {.q = q, .limit = page(ask->limit)};
    int64_t sweep, cell;
    int r = ha_server_find_sweep(q->c, ask->sweep, &sweep, err);

    if (r == 0)
        r = ha_server_find_cell(q->c, sweep, ask->cell, &cell, err);
    if (r < 0)
        return r;
    q->reply.kind = HA_WIRE_METRICS_REPLY;
    r = ha_store_metric_each(q->c->store, sweep, cell, ask->name, (int64_t)ask->after, p.limit,
                             list_metric, &p, err);
    reply->more = reply->n_rows >= p.limit;
    return r == -ENOMEM ? no_memory(err) : r;
}

/* ---- norms of probes ---------------------------------------------------------------- */

static int list_norm(void *context, const struct ha_norm_row *row)
{
    struct paging *p = context;
    struct ha_arena *arena = &p->q->arena;
    struct ha_wire_norms_reply *reply = &p->q->reply.body.norms_reply;
    struct ha_wire_norm_row *place;

    if (reply->n_rows >= p->limit) {
        reply->more = true;
        return 1;
    }
    place = ha_scratch_grow(arena, &reply->rows, &reply->n_rows, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = (struct ha_wire_norm_row){
        .row = (uint64_t)row->id,
        .probe = (uint64_t)row->result,
        .model = ha_scratch_text(arena, row->model),
        .norm = {.cell = (uint64_t)row->cell,
                 .block = ha_scratch_text(arena, row->block),
                 .layer = row->layer,
                 .layers = row->layers,
                 .module = ha_scratch_text(arena, row->module),
                 .norm = row->norm,
                 .parameters = row->parameters,
                 .pairs = row->pairs},
    };
    return place->model && place->norm.block && place->norm.module ? 0 : -ENOMEM;
}

int ha_handle_norms(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_norms_request *ask = &q->message->body.norms_request;
    struct paging p = {.q = q, .limit = page(ask->limit)};
    int64_t sweep, cell;
    int r = ha_server_find_sweep(q->c, ask->sweep, &sweep, err);

    if (r == 0)
        r = ha_server_find_cell(q->c, sweep, ask->cell, &cell, err);
    if (r < 0)
        return r;
    q->reply.kind = HA_WIRE_NORMS_REPLY;
    r = ha_store_norm_each(q->c->store, sweep, cell, (int64_t)ask->after, p.limit + 1, list_norm,
                           &p, err);
    return r == -ENOMEM ? no_memory(err) : r;
}
