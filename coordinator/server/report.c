/* report.c - what an attempt says that it did */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/hash.h"
#include "common/base/utf8.h"
#include "coordinator/core/retry.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/answer.h"
#include "coordinator/store/artifact.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/cell.h"
#include "coordinator/store/job.h"
#include "coordinator/store/metric.h"
#include "coordinator/store/part.h"
#include "coordinator/store/probe.h"
#include "coordinator/store/reference.h"
#include "coordinator/store/stage.h"
#include "coordinator/store/store.h"

enum { CHECKPOINTS_KEPT = 2 };

#define ADAPTER_FILE "adapter_model.safetensors"

struct report {
    struct ha_request *q;
    struct ha_store *store;
    int64_t job;
    struct ha_epoch epoch;
    struct ha_attempt_row row; /* as it was before this report */
    enum ha_stage_kind kind;   /* of the job, once a cell was looked up, as its sweep */
    int64_t sweep;
    /* the cell that was looked up last */
    int64_t cell, result, parent;
    char adapter_sha256[65];
    bool open; /* it is not final in this job */
    bool progress;
    int64_t row_bytes; /* of the rows that this report stored */
};

static int find_cell(void *context, const struct ha_job_cell_row *row)
{
    struct report *p = context;

    p->result = row->result;
    p->parent = row->parent;
    p->open = strcmp(row->outcome, "pending") == 0;
    return 1;
}

static int find_adapter(void *context, const struct ha_product *product)
{
    struct report *p = context;

    if (strcmp(product->name, ADAPTER_FILE) != 0)
        return 0;
    ha_utf8_copy(p->adapter_sha256, sizeof p->adapter_sha256, product->sha256);
    return 1;
}

static int read_kind(void *context, const struct ha_job_row *row)
{
    struct report *p = context;

    p->kind = row->kind;
    p->sweep = row->sweep;
    return 0;
}

/* Fill the kind and the fields of the cell; of one that answers, the hash of the
 * adapter it answers with.  What is said about a cell that is final here (it was cancelled, and its
 * attempt goes on for the others) is acknowledged and changes nothing: open is false then. */
static int look_up(struct report *p, uint64_t cell, struct ha_error *err)
{
    int r;

    if (p->result != 0 && p->cell == (int64_t)cell)
        return 0;
    p->cell = (int64_t)cell;
    p->result = 0;
    p->adapter_sha256[0] = '\0';
    r = ha_store_job_get(p->store, p->job, read_kind, p, err);
    if (r >= 0)
        r = ha_store_job_cell_get(p->store, p->job, (int64_t)cell, find_cell, p, err);
    if (r < 0)
        return r;
    if (p->result == 0)
        return ha_error_set(err, EINVAL, "cell %" PRIu64 " is not in job %" PRId64, cell, p->job);
    if (p->parent == 0 || p->kind != HA_STAGE_GENERATE)
        return 0;
    return ha_store_product_each(p->store, p->parent, "adapter", find_adapter, p, err);
}

/* ---- what a sweep may store --------------------------------------------------------- */

static int fail_cell(struct report *p, const char *reason, struct ha_error *err)
{
    return ha_store_job_cell_end(p->store, &p->q->by, p->job, p->result, false, reason, err);
}

/* May the sweep store so much more?  1, or 0 with why not. */
static int has_room(struct report *p, int64_t size, char reason[HA_ERROR_TEXT_BYTES],
                    struct ha_error *err)
{
    int64_t most = p->q->c->options.max_sweep_bytes, bytes;
    char name[64] = "";
    int r;

    if (most == 0)
        return 1;
    r = ha_store_stored_bytes(p->store, 0, p->job, &bytes, name, err);
    bytes += p->row_bytes;
    if (r < 0 || size <= most - bytes)
        return r < 0 ? r : 1;
    snprintf(reason, HA_ERROR_TEXT_BYTES,
             "sweep %s stores %" PRId64 " MiB and may store %" PRId64 " MiB: no room for %" PRId64
             " KiB more; raise max_sweep_size in coordinator.toml or "
             "run hactl gc, then hactl retry",
             name, bytes >> 20, most >> 20, (size + 1023) >> 10);
    return 0;
}

/* 1: what was looked up may store so much more.  0: it may not; the cell, if it is one, fails at
 * once, and its attempt goes on for the others, if there are any. */
static int make_room(struct report *p, int64_t size, struct ha_error *err)
{
    char reason[HA_ERROR_TEXT_BYTES];
    int r = has_room(p, size, reason, err);

    if (r != 0 || p->result == 0 || !p->open)
        return r;
    p->open = false;
    r = fail_cell(p, reason, err);
    return r < 0 ? r
                 : ha_server_stop_attempt(p->q->c, &p->q->by, &p->row, HA_STOP_CELL,
                                          "its sweep may store no more", err);
}

/* ---- events ------------------------------------------------------------------------ */

static int take_metric(struct report *p, const struct ha_wire_attempt_metric *metric,
                       struct ha_error *err)
{
    int r = look_up(p, metric->cell, err);

    if (r < 0 || !p->open)
        return r;
    r = make_room(p, HA_ROW_METRIC + (int64_t)strlen(metric->name), err);
    if (r <= 0)
        return r;
    p->row_bytes += HA_ROW_METRIC + (int64_t)strlen(metric->name);
    r = ha_store_metric_put(p->store, p->result, metric->step, metric->name, metric->value, err);
    return r < 0 ? r : ha_store_result_progress(p->store, p->result, metric->step, 0, err);
}

static int take_answer(struct report *p, const struct ha_wire_attempt_answer *from,
                       struct ha_error *err)
{
    struct ha_answer answer;
    int64_t bytes = 0;
    int r = look_up(p, from->cell, err);

    if (r < 0 || !p->open)
        return r;
    answer = (struct ha_answer){
        .result = p->result,
        .cell = p->cell,
        .adapter_sha256 = p->adapter_sha256,
        .prompt = from->prompt,
        .sample = from->sample,
        .prompt_text = from->prompt_text,
        .text = from->text,
        .raw = from->raw,
        .finish = from->finish,
        .prompt_tokens = from->prompt_tokens,
        .tokens = from->tokens,
    };
    r = make_room(p,
                  HA_ROW_ANSWER + (int64_t)(strlen(answer.prompt_text) + strlen(answer.text) +
                                            strlen(answer.raw)),
                  err);
    if (r <= 0)
        return r;
    r = ha_store_answer_add(p->store, &p->q->by, &answer, &bytes, err);
    p->progress = p->progress || bytes > 0;
    p->row_bytes += bytes;
    return r;
}

static int take_norm(struct report *p, const struct ha_wire_attempt_norm *from,
                     struct ha_error *err)
{
    struct ha_norm_row row;
    int r = look_up(p, from->cell, err);

    if (r == 0 && p->kind != HA_STAGE_PROBE)
        r = ha_error_set(err, EINVAL, "job %" PRId64 " is no probe, but sent a norm", p->job);
    if (r < 0 || !p->open)
        return r;
    row = (struct ha_norm_row){
        .result = p->result,
        .block = from->block,
        .layer = from->layer,
        .layers = from->layers,
        .module = from->module,
        .norm = from->norm,
        .parameters = from->parameters,
        .pairs = from->pairs,
    };
    r = make_room(p, HA_ROW_METRIC + (int64_t)strlen(row.module), err);
    if (r <= 0)
        return r;
    p->row_bytes += HA_ROW_METRIC + (int64_t)strlen(row.module);
    r = ha_store_norm_put(p->store, &row, err);
    return r < 0 ? r : ha_store_result_progress(p->store, p->result, from->pairs, 0, err);
}

static int drop_orphan(void *context, const char *sha256)
{
    struct report *p = context;

    return ha_server_hold_artifact(p->q->c, sha256, true, NULL);
}

/* The base model's log-probs: for every later job that would work out the same, and for those
 * that take what others worked out under another plan. */
static int take_reference(struct report *p, const struct ha_wire_attempt_artifact *from,
                          struct ha_error *err)
{
    struct ha_reference reference = {
        .name = from->name, .sha256 = from->sha256, .size = from->size};
    const struct ha_member *m = p->q->caller->member;
    struct ha_reference_keys keys;
    int r = ha_server_reference_keys(p->q->c, p->job, m->backend, &keys, err);

    if (r <= 0)
        return r;
    r = ha_store_reference_put(p->store, keys.own, &reference, p->q->c->wall_ms, drop_orphan, p,
                               err);
    return r < 0 || !keys.any[0] ? r
                                 : ha_store_reference_put(p->store, keys.any, &reference,
                                                          p->q->c->wall_ms, drop_orphan, p, err);
}

static int take_artifact(struct report *p, const struct ha_wire_attempt_artifact *from,
                         struct ha_error *err)
{
    bool checkpoint = strcmp(from->kind, "checkpoint") == 0;
    struct ha_product product = {
        .job = p->job,
        .number = p->epoch.number,
        .kind = from->kind,
        .name = from->name,
        .step = checkpoint ? from->step : 0,
        .sha256 = from->sha256,
        .size = from->size,
    };
    char reason[HA_ERROR_TEXT_BYTES];
    int r = from->cell == 0 ? 0 : look_up(p, from->cell, err);

    if (from->cell == 0 && strcmp(from->kind, "reference") == 0)
        return take_reference(p, from, err);
    if (r < 0 || (from->cell != 0 && !p->open))
        return r;
    product.result = from->cell == 0 ? 0 : p->result;
    r = from->cell == 0 ? has_room(p, from->size, reason, err) : make_room(p, from->size, err);
    if (r <= 0)
        return r;
    r = ha_store_product_add(p->store, &product, err);
    if (r < 0 || !checkpoint || product.result == 0)
        return r;
    p->progress = true;
    return ha_store_checkpoint_prune(p->store, p->result, CHECKPOINTS_KEPT, drop_orphan, p, err);
}

static int find_layers(void *context, const struct ha_cell_row *row)
{
    *(int64_t *)context = row->model_layers;
    return 1;
}

/* Is what a cell is done for in the store?  *ret_lack says what is not. */
static int check_made(struct report *p, const char **ret_lack, struct ha_error *err)
{
    int64_t layers = 0;
    int r = 0;

    if (p->kind == HA_STAGE_TRAIN) {
        r = ha_store_product_each(p->store, p->result, "adapter", find_adapter, p, err);
        *ret_lack = p->adapter_sha256[0] ? NULL : "the attempt ended without an adapter";
    } else if (p->kind == HA_STAGE_PROBE) {
        r = ha_store_cell_get(p->store, p->cell, find_layers, &layers, err);
        if (r >= 0)
            r = ha_store_norms_complete(p->store, p->result, layers, err);
        *ret_lack = r > 0 ? NULL : "the attempt ended without the norms of every layer";
    }
    return r < 0 ? r : 0;
}

static int take_cell(struct report *p, const struct ha_wire_attempt_cell *from,
                     struct ha_error *err)
{
    const char *lack = NULL;
    char reason[HA_ERROR_TEXT_BYTES];
    int r = look_up(p, from->cell, err);

    if (r < 0 || !p->open)
        return r;
    ha_utf8_copy(reason, sizeof reason, from->reason);
    if (!from->done && !from->permanent)
        return 0; /* another attempt may do it; the attempt's end says more */
    p->open = false;
    if (!from->done)
        return fail_cell(p, reason, err);
    r = check_made(p, &lack, err);
    if (r == 0 && lack)
        return fail_cell(p, lack, err);
    if (r == 0)
        r = ha_store_result_summary(p->store, p->result, from->summary_json,
                                    p->kind == HA_STAGE_TRAIN ? p->adapter_sha256 : "", err);
    if (r == 0)
        ha_member_finished(p->q->caller->member, p->kind, from->summary_json);
    return r < 0 ? r : ha_store_job_cell_end(p->store, &p->q->by, p->job, p->result, true, "", err);
}

/* The attempt said that it is done: its job is, unless cells are missing. */
static int end_done(struct report *p, const struct ha_attempt_row *now,
                    const struct ha_wire_attempt_end *end, struct ha_error *err)
{
    struct ha_job_counts cells;
    int r = ha_store_job_cell_counts(p->store, p->job, &cells, err);

    if (r < 0)
        return r;
    if (cells.pending > 0)
        return ha_server_end_attempt(p->q->c, &p->q->by, now, HA_OUTCOME_FAILED, false,
                                     "it ended without the results of all its cells",
                                     end->exit_code, err);
    r = ha_store_attempt_end(p->store, p->job, p->epoch, HA_OUTCOME_DONE, "", end->exit_code,
                             p->q->c->wall_ms, err);
    if (r == 0)
        r = ha_store_job_get(p->store, p->job, read_kind, p, err);
    if (r < 0)
        return r;
    ha_gang_end(p->q->c, p->job, p->epoch, false);
    ha_server_saw_end(p->q->c, now, p->sweep, p->kind, true, "");
    return ha_server_end_job(p->q->c, &p->q->by, p->job, &cells, err);
}

/* The same attempt would fail in the same way. */
static int refuse_for_memory(char reason[HA_ERROR_TEXT_BYTES], struct ha_error *err)
{
    struct ha_buffer text;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_retry_memory_reason(reason, &text);
    if (r == 0)
        ha_utf8_copy(reason, HA_ERROR_TEXT_BYTES, ha_buffer_text(&text));
    ha_buffer_clear(&text);
    return r < 0 ? ha_error_set(err, ENOMEM, "no memory for a reason") : 0;
}

static int take_end(struct report *p, const struct ha_wire_attempt_end *end, struct ha_error *err)
{
    char reason[HA_ERROR_TEXT_BYTES];
    struct ha_attempt_row now;
    enum ha_outcome outcome;
    int r = ha_store_attempt_get(p->store, p->job, p->epoch, &now, err);

    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ESTALE, "the attempt is gone");
    now.progress = now.progress || p->progress;
    if (!ha_outcome_parse(end->outcome, &outcome) || outcome > HA_OUTCOME_REFUSED)
        return ha_error_set(err, EINVAL, "an attempt cannot end as \"%.20s\"", end->outcome);
    if (outcome == HA_OUTCOME_DONE)
        return end_done(p, &now, end, err);
    r = ha_gang_keep_log(p->q->c, &p->q->by, p->job, now.worker, &end->log, err);
    if (r < 0)
        return r;
    ha_utf8_copy(reason, sizeof reason, end->reason);
    if (outcome == HA_OUTCOME_STOPPED && strcmp(end->cause, "time_limit") == 0)
        now.stop = HA_STOP_LIMIT;
    if (outcome == HA_OUTCOME_STOPPED && strcmp(end->cause, "lost") == 0)
        outcome = HA_OUTCOME_LOST;
    if (outcome == HA_OUTCOME_FAILED) {
        r = ha_gang_verdict(p->q->c, p->job, p->epoch, end, &outcome, reason, &now.worker, err);
        if (r < 0)
            return r;
    }
    if (r == 0 && outcome == HA_OUTCOME_FAILED && strcmp(end->cause, "memory") == 0) {
        outcome = HA_OUTCOME_REFUSED;
        r = refuse_for_memory(reason, err);
        if (r < 0)
            return r;
    }
    return ha_server_end_attempt(p->q->c, &p->q->by, &now, outcome, false, reason, end->exit_code,
                                 err);
}

static int take_event(struct report *p, const struct ha_wire_attempt_event *event,
                      struct ha_error *err)
{
    switch (event->kind) {
    case HA_WIRE_ATTEMPT_EVENT_METRIC:
        return take_metric(p, &event->event.metric, err);
    case HA_WIRE_ATTEMPT_EVENT_ANSWER:
        return take_answer(p, &event->event.answer, err);
    case HA_WIRE_ATTEMPT_EVENT_ARTIFACT:
        return take_artifact(p, &event->event.artifact, err);
    case HA_WIRE_ATTEMPT_EVENT_CELL:
        return take_cell(p, &event->event.cell, err);
    case HA_WIRE_ATTEMPT_EVENT_NORM:
        return take_norm(p, &event->event.norm, err);
    case HA_WIRE_ATTEMPT_EVENT_END:
        return take_end(p, &event->event.end, err);
    default:
        return 0; /* of a newer version */
    }
}

/* ---- the request ------------------------------------------------------------------- */

static int list_missing(struct report *p, struct ha_wire_report_reply *reply, struct ha_error *err)
{
    const struct ha_wire_report *report = &p->q->message->body.report;

    for (int64_t i = 0; i < report->n_events; i++) {
        const char *sha256, **place;
        int r;

        if (report->events[i].kind != HA_WIRE_ATTEMPT_EVENT_ARTIFACT)
            continue;
        sha256 = report->events[i].event.artifact.sha256;
        r = ha_store_artifact_find(p->store, sha256, NULL, err);
        if (r < 0)
            return r;
        if (r == 1)
            continue;
        place = ha_scratch_grow(&p->q->arena, &reply->missing, &reply->n_missing, sizeof *place);
        if (!place)
            return ha_error_set(err, ENOMEM, "no memory for the reply");
        *place = sha256;
    }
    return 0;
}

static int take(struct report *p, struct ha_error *err)
{
    const struct ha_wire_report *report = &p->q->message->body.report;
    int r = ha_store_attempt_take(p->store, p->job, p->epoch, (int64_t)report->sequence, err);

    if (r <= 0)
        return r < 0 ? r : ha_error_set(err, ESTALE, "the attempt is not the newest");
    r = ha_store_attempt_runs(p->store, &p->q->by, &p->row, err);
    for (int64_t i = 0; r == 0 && i < report->n_events; i++)
        r = take_event(p, &report->events[i], err);
    if (r == 0 && p->row_bytes > 0)
        r = ha_store_count_rows(p->store, p->job, 0, p->row_bytes, err);
    if (r == 0 && p->progress)
        r = ha_store_attempt_progress(p->store, p->job, p->epoch, err);
    if (r < 0)
        return r;
    if (p->q->caller->member)
        p->q->caller->member->used = -1;
    p->q->c->changed = true;
    return 0;
}

/* The worker goes on behind a report that it was told is durable and that is not here: the
 * database lost commits, to damage of its log or because it is an older copy.  What was told cannot
 * be told again, so the job goes on without the attempt, from what the store has of it. */
static int close_gap(struct report *p, struct ha_error *err)
{
    struct ha_attempt_row row = p->row;
    struct ha_error text;
    char why[HA_ERROR_TEXT_BYTES];

    ha_error_set(&text, EIO,
                 "its worker sent report %" PRIu64 ", but the database has only the first %" PRId64
                 ": it lost what it took (a damaged log, or an older copy)",
                 p->q->message->body.report.sequence, row.sequence);
    ha_utf8_copy(why, sizeof why, text.text);
    row.stop = HA_STOP_GAP;
    p->q->caller->member->used = -1;
    return ha_server_end_attempt(p->q->c, &p->q->by, &row, HA_OUTCOME_STOPPED, false, why, 0, err);
}

/* Only the first part of a gang reports.  A worker of another one does so when it has lost it. */
static int lose_part(struct report *p, struct ha_error *err)
{
    struct ha_member *m = p->q->caller->member;
    enum ha_outcome outcome = HA_OUTCOME_LOST;
    struct ha_attempt_row row = p->row;
    struct ha_error text;
    char why[HA_ERROR_TEXT_BYTES];
    int r = ha_store_part_of(p->store, p->job, p->epoch, m->id, err);

    if (r <= 0)
        return r;
    ha_error_set(&text, EIO, "worker %s does not have its part of the gang any more", m->name);
    ha_utf8_copy(why, sizeof why, text.text);
    r = ha_gang_lose(p->q->c, p->job, p->epoch, m->id, text.text, &outcome, why, &row.worker, err);
    return r < 0
               ? r
               : ha_server_end_attempt(p->q->c, &p->q->by, &row, (int)outcome, false, why, 0, err);
}

int ha_handle_report(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_report *report = &q->message->body.report;
    struct ha_wire_report_reply *reply = &q->reply.body.report_reply;
    struct report p = {
        .q = q,
        .store = q->c->store,
        .job = (int64_t)report->job,
        .epoch = {(int64_t)report->epoch.generation, (int64_t)report->epoch.number},
    };
    int r = ha_store_attempt_get(p.store, p.job, p.epoch, &p.row, err);

    if (r < 0)
        return r;
    q->reply.kind = HA_WIRE_REPORT_REPLY;
    reply->job = report->job;
    reply->epoch = report->epoch;
    if (r == 1)
        reply->sequence = (uint64_t)p.row.sequence;
    if (r == 1 && (int64_t)report->sequence <= p.row.sequence)
        return 0; /* taken before: its reply was lost */
    if (r == 1 && p.row.newest && p.row.worker != q->caller->member->id)
        r = lose_part(&p, err);
    if (r < 0)
        return r;
    reply->stale = r == 0 || !p.row.newest || p.row.state == HA_ATTEMPT_STATE_ENDED ||
                   p.row.worker != q->caller->member->id;
    if (reply->stale)
        return 0;
    if ((int64_t)report->sequence != p.row.sequence + 1) {
        reply->stale = true;
        return close_gap(&p, err);
    }
    r = list_missing(&p, reply, err);
    if (r < 0 || reply->n_missing > 0)
        return r;
    r = take(&p, err);
    if (r == 0)
        reply->sequence = report->sequence;
    return r;
}
