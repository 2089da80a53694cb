/* gang.c - GangState: how the ranks of a job come together, and how they end (inside.h)
 *
 *   preparing --every rank is ready, rank 0's id is stored: GO to all--> gone
 *   either    --a part failed, or they are late: ABORT to the others--> aborting
 *   aborting  --every part has ended, or gang_abort is over: SETTLED to part 0--> settled
 *
 * Part 0 then reports the attempt's end, which is made of what all parts told (core/gang.h); one
 * that does not is not waited for.  Parts say all they know with every heartbeat until they are
 * answered, so that this table may be lost at any time: what the database keeps is who has which
 * ranks, and the id once it may have been given out. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "coordinator/core/gang.h"
#include "coordinator/server/inside.h"
#include "coordinator/store/attempt.h"
#include "coordinator/store/job.h"
#include "coordinator/store/part.h"

enum {
    ABORT_MS = 60000, /* where the options say nothing */
    ID_CHARS = 256,   /* of a communicator's id */
    LOG_PATH_BYTES = 4096,
    LOG_TAIL_BYTES = 4096, /* of what a rank printed last */
    GANG_RANKS = 4096
};

/* ---- the table ------------------------------------------------------------------------------ */

static void gang_free(struct ha_gang *gang)
{
    if (!gang)
        return;
    for (int64_t i = 0; i < gang->part_count; i++)
        free(gang->parts[i].reason);
    free(gang->parts);
    free(gang->ready);
    free(gang->started);
    free(gang->id);
    free(gang);
}

void ha_gangs_clear(struct ha_coordinator *c)
{
    for (int64_t i = 0; i < c->gang_count; i++)
        gang_free(c->gangs[i]);
    free(c->gangs);
    c->gangs = NULL;
    c->gang_count = c->gang_capacity = 0;
}

void ha_gangs_undone(struct ha_coordinator *c)
{
    for (int64_t i = 0; i < c->gang_count; i++)
        c->gangs[i]->gone = false;
}

static struct ha_gang *find(const struct ha_coordinator *c, int64_t job, struct ha_epoch epoch)
{
    for (int64_t i = 0; i < c->gang_count; i++) {
        if (c->gangs[i]->job == job && ha_epoch_equal(c->gangs[i]->epoch, epoch))
            return c->gangs[i];
    }
    return NULL;
}

static int read_part(void *context, const struct ha_part_row *row)
{
    struct ha_gang *gang = context;
    void *array = gang->parts;

    if (ha_grow(&array, &gang->part_capacity, gang->part_count + 1, sizeof *gang->parts) < 0)
        return -ENOMEM;
    gang->parts = array;
    gang->parts[gang->part_count++] = (struct ha_gang_worker){
        .worker = row->worker, .first_rank = row->first_rank, .ranks = row->ranks};
    gang->ranks += row->ranks;
    if (row->comm_id[0] && !gang->id) {
        gang->id = ha_strdup(row->comm_id);
        gang->gone = true;
        return gang->id ? 0 : -ENOMEM;
    }
    return 0;
}

/* From the store; 1, or 0 when the attempt is no gang that runs. */
static int load(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch,
                struct ha_gang **ret_gang, struct ha_error *err)
{
    struct ha_gang *gang = ha_calloc(1, sizeof *gang);
    void *array = c->gangs;
    int r = gang ? ha_store_part_each(c->store, job, epoch, read_part, gang, err) : -ENOMEM;

    if (r == 0 && gang->part_count == 0) {
        gang_free(gang);
        return 0;
    }
    if (r == 0) {
        gang->job = job;
        gang->epoch = epoch;
        gang->since_ms = c->boot_ms;
        gang->ready = ha_calloc(gang->ranks, sizeof *gang->ready);
        gang->started = ha_calloc(gang->ranks, sizeof *gang->started);
        for (int64_t i = 0; gang->started && i < gang->ranks; i++)
            gang->started[i] = -1;
        if (!gang->ready || !gang->started ||
            ha_grow(&array, &c->gang_capacity, c->gang_count + 1, sizeof(void *)) < 0)
            r = -ENOMEM;
        else
            c->gangs = array;
    }
    if (r < 0) {
        gang_free(gang);
        return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for a gang") : r;
    }
    c->gangs[c->gang_count++] = *ret_gang = gang;
    return 1;
}

static int find_or_load(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch,
                        struct ha_gang **ret_gang, struct ha_error *err)
{
    *ret_gang = find(c, job, epoch);
    return *ret_gang ? 1 : load(c, job, epoch, ret_gang, err);
}

struct named {
    struct ha_part_row *rows;
    int64_t count, capacity;
};

static int name_gang(void *context, const struct ha_part_row *row)
{
    struct named *named = context;
    void *array = named->rows;

    if (ha_grow(&array, &named->capacity, named->count + 1, sizeof *named->rows) < 0)
        return -ENOMEM;
    named->rows = array;
    named->rows[named->count++] = *row;
    return 0;
}

int ha_gangs_load(struct ha_coordinator *c, struct ha_error *err)
{
    struct named named = {NULL, 0, 0};
    struct ha_gang *gang;
    int r = ha_store_part_each_gang(c->store, name_gang, &named, err);

    for (int64_t i = 0; r >= 0 && i < named.count; i++)
        r = find_or_load(c, named.rows[i].job, named.rows[i].epoch, &gang, err);
    free(named.rows);
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for the table of gangs")
           : r < 0      ? r
                        : 0;
}

static void drop(struct ha_coordinator *c, const struct ha_gang *gang)
{
    for (int64_t i = 0; i < c->gang_count; i++) {
        if (c->gangs[i] != gang)
            continue;
        gang_free(c->gangs[i]);
        c->gangs[i] = c->gangs[--c->gang_count];
        return;
    }
}

/* ---- words to the parts --------------------------------------------------------------------- */

static struct ha_wire_gang_order order_of(int64_t job, struct ha_epoch epoch,
                                          enum ha_wire_gang_step step)
{
    return (struct ha_wire_gang_order){
        .job = (uint64_t)job,
        .epoch = {(uint64_t)epoch.generation, (uint64_t)epoch.number},
        .step = step,
        .id = "",
        .reason = ""};
}

/* One that is lost is asked for again. */
static void push(struct ha_coordinator *c, const struct ha_gang *gang, int64_t worker,
                 enum ha_wire_gang_step step, const char *reason)
{
    const struct ha_member *m = ha_member_by_id(c, worker);
    struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL,
                                      .kind = HA_WIRE_GANG_ORDER,
                                      .body.gang_order = order_of(gang->job, gang->epoch, step)};

    if (step == HA_WIRE_GANG_GO)
        message.body.gang_order.id = gang->id;
    message.body.gang_order.reason = reason;
    if (m && m->peer != 0)
        (void)ha_server_hold(c, m->peer, &message, NULL);
}

static void push_all(struct ha_coordinator *c, const struct ha_gang *gang, int64_t but,
                     enum ha_wire_gang_step step, const char *reason)
{
    for (int64_t i = 0; i < gang->part_count; i++) {
        if (gang->parts[i].worker != but && !gang->parts[i].ended)
            push(c, gang, gang->parts[i].worker, step, reason);
    }
}

struct finder {
    int64_t sweep;
};

static int find_sweep(void *context, const struct ha_job_row *row)
{
    ((struct finder *)context)->sweep = row->sweep;
    return 1;
}

/* A line of the job's history. */
static int note(struct ha_coordinator *c, const struct ha_by *by, int64_t job, const char *after,
                const char *reason, struct ha_error *err)
{
    struct finder finder = {0};
    char subject[64];
    int r = ha_store_job_get(c->store, job, find_sweep, &finder, err);

    snprintf(subject, sizeof subject, "job %" PRId64, job);
    return r < 0 ? r
                 : ha_store_event_add(c->store, by,
                                      &(struct ha_event){.sweep = finder.sweep,
                                                         .job = job,
                                                         .subject = subject,
                                                         .before = "",
                                                         .after = after,
                                                         .reason = reason},
                                      err);
}

static const char *name_of(const struct ha_coordinator *c, int64_t worker)
{
    const struct ha_member *m = ha_member_by_id(c, worker);

    return m ? m->name : "?";
}

/* ---- logs of ranks that failed --------------------------------------------------------------- */

struct known {
    const char *reason;
    bool found;
};

static int find_reason(void *context, const struct ha_event_row *row)
{
    struct known *known = context;

    known->found = strcmp(row->reason, known->reason) == 0;
    return known->found;
}

/* It is printed on terminals. */
static void copy_plain(char *to, size_t size, const char *text)
{
    ha_utf8_copy(to, size, text);
    for (; *to; to++) {
        unsigned char c = (unsigned char)*to;

        if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7f)
            *to = '?';
    }
}

int ha_gang_keep_log(struct ha_coordinator *c, const struct ha_by *by, int64_t job, int64_t worker,
                     const struct ha_wire_rank_log *log, struct ha_error *err)
{
    const struct ha_member *m = ha_member_by_id(c, worker);
    char path[LOG_PATH_BYTES], tail[LOG_TAIL_BYTES];
    struct known known = {NULL, false};
    struct ha_buffer text;
    int r;

    if (!log->path[0])
        return 0;
    copy_plain(path, sizeof path, log->path);
    copy_plain(tail, sizeof tail, log->tail);
    ha_buffer_init(&text, 0);
    r = ha_buffer_printf(&text, "worker %s (%s): %s%s%s", name_of(c, worker), m ? m->host : "?",
                         path, tail[0] ? "\n" : "", tail);
    known.reason = ha_buffer_text(&text);
    if (r < 0)
        ha_error_set(err, ENOMEM, "no memory for a log");
    else
        r = ha_store_event_each(c->store, 0, job, 0, INT64_MAX, find_reason, &known, err);
    if (r >= 0 && !known.found)
        r = note(c, by, job, "log", known.reason, err);
    ha_buffer_clear(&text);
    return r < 0 ? r : 0;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static int note_parts(struct ha_coordinator *c, const struct ha_by *by, const struct ha_gang *gang,
                      struct ha_error *err)
{
    struct ha_buffer text;
    char words[HA_ERROR_TEXT_BYTES];
    int r;

    ha_buffer_init(&text, 0);
    r = ha_buffer_printf(&text, "%" PRId64 " ranks:", gang->ranks);
    for (int64_t i = 0; r == 0 && i < gang->part_count; i++) {
        const struct ha_gang_worker *part = &gang->parts[i];

        r = ha_buffer_printf(&text, "%s %" PRId64 "-%" PRId64 " on %s", i > 0 ? "," : "",
                             part->first_rank, part->first_rank + part->ranks - 1,
                             name_of(c, part->worker));
    }
    ha_utf8_copy(words, sizeof words, ha_buffer_text(&text));
    ha_buffer_clear(&text);
    return r < 0 ? ha_error_set(err, ENOMEM, "no memory for a gang")
                 : note(c, by, gang->job, "gang", words, err);
}

int ha_gang_begin(struct ha_coordinator *c, const struct ha_by *by, int64_t job,
                  struct ha_epoch epoch, const int64_t *workers, int64_t count, int64_t ranks,
                  struct ha_error *err)
{
    struct ha_gang *gang;
    int r = 0;

    for (int64_t i = c->gang_count - 1; i >= 0; i--)
        if (c->gangs[i]->job == job)
            drop(c, c->gangs[i]); /* of an older epoch, or of a turn that was not stored */
    for (int64_t i = 0; r == 0 && i < count; i++)
        r = ha_store_part_add(c->store,
                              &(struct ha_part_row){.job = job,
                                                    .epoch = epoch,
                                                    .part = i,
                                                    .worker = workers[i],
                                                    .first_rank = i * ranks,
                                                    .ranks = ranks},
                              err);
    if (r == 0)
        r = load(c, job, epoch, &gang, err);
    return r <= 0 ? r : note_parts(c, by, gang, err);
}

int64_t ha_gang_parts(const struct ha_coordinator *c, int64_t job, struct ha_epoch epoch)
{
    const struct ha_gang *gang = find(c, job, epoch);

    return gang ? gang->part_count : 0;
}

void ha_gang_end(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch, bool all)
{
    const struct ha_gang *gang = find(c, job, epoch);

    if (!gang)
        return;
    for (int64_t i = 0; i < gang->part_count; i++) {
        struct ha_member *m = ha_member_by_id(c, gang->parts[i].worker);

        if (i > 0 || all || gang->unreported)
            push(c, gang, gang->parts[i].worker, HA_WIRE_GANG_STALE, "");
        if (m)
            m->used = -1;
    }
    drop(c, gang);
    c->changed = true;
}

int ha_gang_of_grant(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch, int64_t worker,
                     struct ha_wire_gang *ret_gang, struct ha_error *err)
{
    struct ha_gang *gang;
    int r = find_or_load(c, job, epoch, &gang, err);

    for (int64_t i = 0; r == 1 && i < gang->part_count; i++) {
        const struct ha_gang_worker *part = &gang->parts[i];

        if (part->worker == worker)
            *ret_gang = (struct ha_wire_gang){.part = (uint32_t)i,
                                              .parts = (uint32_t)gang->part_count,
                                              .first_rank = (uint32_t)part->first_rank,
                                              .ranks = (uint32_t)part->ranks,
                                              .world = (uint32_t)gang->ranks};
    }
    return r < 0 ? r : 0;
}

/* ---- giving up ------------------------------------------------------------------------------- */

static void abort_gang(struct ha_coordinator *c, struct ha_gang *gang, int64_t but,
                       const char *reason)
{
    if (gang->aborting)
        return;
    gang->aborting = true;
    gang->abort_ms = c->boot_ms;
    push_all(c, gang, but, HA_WIRE_GANG_ABORT, reason);
}

static int64_t abort_limit_ms(const struct ha_coordinator *c)
{
    return c->options.gang.abort_ms > 0 ? c->options.gang.abort_ms : ABORT_MS;
}

static bool all_ended(const struct ha_gang *gang)
{
    return gang->ends == gang->part_count;
}

/* tell: not where an answer does. */
static void settle(struct ha_coordinator *c, struct ha_gang *gang, bool tell)
{
    gang->settled = true;
    if (tell)
        push(c, gang, gang->parts[0].worker, HA_WIRE_GANG_SETTLED, "");
}

static int judge(struct ha_coordinator *c, const struct ha_gang *gang, enum ha_outcome *outcome,
                 char reason[HA_ERROR_TEXT_BYTES], int64_t *ret_worker, struct ha_error *err)
{
    struct ha_gang_part *parts = ha_calloc(gang->part_count, sizeof *parts);
    struct ha_gang_view view = {.parts = parts,
                                .part_count = gang->part_count,
                                .started = gang->started,
                                .ready = gang->ready,
                                .late = gang->late,
                                .time_ms = c->options.gang.ready_ms};
    struct ha_buffer text;
    int64_t part = -1;
    int r;

    if (!parts)
        return ha_error_set(err, ENOMEM, "no memory for a gang");
    for (int64_t i = 0; i < gang->part_count; i++) {
        const struct ha_gang_worker *from = &gang->parts[i];

        parts[i] = (struct ha_gang_part){.worker = name_of(c, from->worker),
                                         .first_rank = from->first_rank,
                                         .ranks = from->ranks,
                                         .ended = from->ended,
                                         .outcome = from->outcome,
                                         .followed = from->followed,
                                         .starved = from->starved,
                                         .order = from->order,
                                         .reason = from->reason ? from->reason : ""};
    }
    ha_buffer_init(&text, 0);
    r = ha_gang_judge(&view, outcome, &part, &text);
    if (r == 0) {
        ha_utf8_copy(reason, HA_ERROR_TEXT_BYTES, ha_buffer_text(&text));
        *ret_worker = gang->parts[part < 0 ? 0 : part].worker;
    }
    ha_buffer_clear(&text);
    free(parts);
    return r < 0 ? ha_error_set(err, ENOMEM, "no memory for a gang") : 0;
}

/* The first word counts; cause: "" or as of an AttemptEnd. */
static int mark_ended(struct ha_gang *gang, struct ha_gang_worker *part, enum ha_outcome outcome,
                      bool followed, const char *cause, const char *reason)
{
    char *copy = part->ended ? NULL : ha_strdup(reason);

    part->starved = part->starved || strcmp(cause, "memory") == 0;
    if (part->ended)
        return 0;
    if (!copy)
        return -ENOMEM;
    part->ended = true;
    part->outcome = outcome;
    part->followed = followed;
    part->order = gang->ends++;
    part->reason = copy;
    return 0;
}

int ha_gang_verdict(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch,
                    const struct ha_wire_attempt_end *end, enum ha_outcome *outcome,
                    char reason[HA_ERROR_TEXT_BYTES], int64_t *ret_worker, struct ha_error *err)
{
    struct ha_gang *gang;
    int r = find_or_load(c, job, epoch, &gang, err);

    if (r <= 0 || gang->part_count == 1)
        return r < 0 ? r : 0;
    if (mark_ended(gang, &gang->parts[0], *outcome, false, end->cause, end->reason) < 0)
        return ha_error_set(err, ENOMEM, "no memory for a gang");
    r = judge(c, gang, outcome, reason, ret_worker, err);
    return r < 0 ? r : 1;
}

int ha_gang_lose(struct ha_coordinator *c, int64_t job, struct ha_epoch epoch, int64_t worker,
                 const char *why, enum ha_outcome *outcome, char reason[HA_ERROR_TEXT_BYTES],
                 int64_t *ret_worker, struct ha_error *err)
{
    char words[HA_ERROR_TEXT_BYTES];
    enum ha_outcome whole;
    struct ha_gang *gang;
    int64_t cause;
    int r = find_or_load(c, job, epoch, &gang, err);

    if (r <= 0 || gang->part_count == 1)
        return r < 0 ? r : 0;
    gang->unreported = true;
    for (int64_t i = 0; i < gang->part_count; i++) {
        struct ha_gang_worker *part = &gang->parts[i];

        if (part->worker == worker && mark_ended(gang, part, HA_OUTCOME_LOST, false, "", why) < 0)
            return ha_error_set(err, ENOMEM, "no memory for a gang");
    }
    r = judge(c, gang, &whole, words, &cause, err);
    if (r < 0 || whole == HA_OUTCOME_LOST)
        return r;
    *outcome = whole;
    *ret_worker = cause;
    ha_utf8_copy(reason, HA_ERROR_TEXT_BYTES, words);
    return 1;
}

/* Its part 0 was told that it may report the end, and does not. */
static int end_without(struct ha_coordinator *c, struct ha_gang *gang, struct ha_error *err)
{
    struct ha_by by = {.now_ms = c->wall_ms, .actor = "coordinator"};
    char reason[HA_ERROR_TEXT_BYTES];
    enum ha_outcome outcome;
    struct ha_attempt_row row;
    int r = ha_store_attempt_get(c->store, gang->job, gang->epoch, &row, err);

    if (r == 0)
        drop(c, gang); /* of a turn that was not stored */
    else
        gang->unreported = true;
    if (r == 1)
        r = judge(c, gang, &outcome, reason, &row.worker, err) < 0 ? -EIO : 1;
    return r <= 0 ? r : ha_server_end_attempt(c, &by, &row, (int)outcome, false, reason, 0, err);
}

static int tick(struct ha_coordinator *c, struct ha_gang *gang, struct ha_error *err)
{
    int64_t ready_ms = c->options.gang.ready_ms, limit_ms = abort_limit_ms(c);

    if (!gang->gone && !gang->aborting && ready_ms > 0 && c->boot_ms - gang->since_ms >= ready_ms) {
        gang->late = true;
        abort_gang(c, gang, 0, "not all ranks are ready in time");
    }
    if (gang->aborting && !gang->settled && c->boot_ms - gang->abort_ms >= limit_ms)
        settle(c, gang, true);
    if (gang->aborting && c->boot_ms - gang->abort_ms >= 2 * limit_ms)
        return end_without(c, gang, err);
    return 0;
}

int ha_gangs_tick(struct ha_coordinator *c, struct ha_error *err)
{
    int r = 0;

    /* Backwards: one that ends takes the last one's place. */
    for (int64_t i = c->gang_count - 1; r == 0 && i >= 0; i--)
        r = tick(c, c->gangs[i], err);
    return r;
}

static int say_not_ready(const struct ha_coordinator *c, const struct ha_gang *gang,
                         struct ha_buffer *text)
{
    int r = ha_buffer_append_text(text, "its ranks come together; not ready yet:");

    for (int64_t i = 0; r == 0 && i < gang->part_count; i++) {
        const struct ha_gang_worker *part = &gang->parts[i];

        for (int64_t rank = part->first_rank; r == 0 && rank < part->first_rank + part->ranks;
             rank++)
            if (!gang->ready[rank])
                r = ha_buffer_printf(text, " rank %" PRId64 " (worker %s)", rank,
                                     name_of(c, part->worker));
    }
    return r;
}

const char *ha_gang_gathers(const struct ha_coordinator *c, struct ha_arena *arena, int64_t job)
{
    const struct ha_gang *gang = NULL;
    const char *copy = NULL;
    struct ha_buffer text;

    for (int64_t i = 0; !gang && i < c->gang_count; i++)
        gang = c->gangs[i]->job == job ? c->gangs[i] : NULL;
    if (!gang || (gang->gone && !gang->aborting))
        return "";
    if (gang->aborting)
        return "one of its ranks has failed, and the others give up";
    ha_buffer_init(&text, 0);
    if (say_not_ready(c, gang, &text) == 0)
        copy = ha_scratch_text(arena, ha_buffer_text(&text));
    ha_buffer_clear(&text);
    return copy ? copy : "";
}

/* ---- the request ----------------------------------------------------------------------------- */

static bool is_id(const char *id)
{
    return strlen(id) == ID_CHARS && strspn(id, "0123456789abcdef") == ID_CHARS;
}

/* Rank 0's id: the first one counts. */
static int take_id(struct ha_gang *gang, int64_t part, const char *id, struct ha_error *err)
{
    if (!id[0] || part != 0)
        return 0;
    if (!is_id(id))
        return ha_error_set(err, EINVAL, "the id of a gang is %d hexadecimal digits", ID_CHARS);
    if (gang->id && strcmp(gang->id, id) != 0)
        return ha_error_set(err, EEXIST,
                            "job %" PRId64 ": this attempt has an id already; another one needs "
                            "another attempt",
                            gang->job);
    if (!gang->id)
        gang->id = ha_strdup(id);
    return gang->id ? 0 : ha_error_set(err, ENOMEM, "no memory for a gang");
}

static bool is_of(const struct ha_gang_worker *part, uint32_t rank)
{
    return rank >= part->first_rank && rank < part->first_rank + part->ranks;
}

static int check_state(const struct ha_gang_worker *part, const struct ha_wire_gang_state *state,
                       struct ha_error *err)
{
    for (int64_t i = 0; i < state->n_ready; i++)
        if (!is_of(part, state->ready[i]))
            return ha_error_set(err, EINVAL, "rank %u is not this worker's", state->ready[i]);
    for (int64_t i = 0; i < state->n_counts; i++)
        if (!is_of(part, state->counts[i].rank))
            return ha_error_set(err, EINVAL, "rank %u is not this worker's", state->counts[i].rank);
    return 0;
}

static bool all_ready(const struct ha_gang *gang)
{
    for (int64_t i = 0; i < gang->ranks; i++)
        if (!gang->ready[i])
            return false;
    return gang->id != NULL;
}

static int go(struct ha_request *q, struct ha_gang *gang, int64_t but, struct ha_error *err)
{
    int r = ha_store_part_set_id(q->c->store, gang->job, gang->epoch, gang->id, err);

    if (r == 0)
        r = note(q->c, &q->by, gang->job, "gang", "all ranks are ready", err);
    if (r < 0)
        return r;
    gang->gone = true;
    push_all(q->c, gang, but, HA_WIRE_GANG_GO, "");
    return 0;
}

static int take_end(struct ha_request *q, struct ha_gang *gang, int64_t at,
                    const struct ha_wire_gang_state *state, struct ha_error *err)
{
    struct ha_gang_worker *part = &gang->parts[at];
    enum ha_outcome outcome;
    int r = 0;

    if (!ha_outcome_parse(state->outcome, &outcome) || outcome > HA_OUTCOME_REFUSED)
        return ha_error_set(err, EINVAL, "a part of a gang cannot end as \"%.20s\"",
                            state->outcome);
    for (int64_t i = 0; i < state->n_counts; i++)
        gang->started[state->counts[i].rank] = state->counts[i].started;
    if (!part->ended)
        r = ha_gang_keep_log(q->c, &q->by, gang->job, part->worker, &state->log, err);
    if (r < 0)
        return r;
    if (mark_ended(gang, part, outcome, state->followed, state->cause, state->reason) < 0)
        return ha_error_set(err, ENOMEM, "no memory for a gang");
    /* One that ended as it was to is followed by the others, or they tell why not. */
    if (outcome == HA_OUTCOME_DONE || (outcome == HA_OUTCOME_STOPPED && gang->gone))
        return 0;
    abort_gang(q->c, gang, part->worker, state->reason);
    return 0;
}

static enum ha_wire_gang_step step_of(const struct ha_gang *gang, int64_t part)
{
    if (gang->settled && part == 0)
        return HA_WIRE_GANG_SETTLED;
    if (gang->aborting)
        return gang->parts[part].ended ? HA_WIRE_GANG_WAIT : HA_WIRE_GANG_ABORT;
    return gang->gone ? HA_WIRE_GANG_GO : HA_WIRE_GANG_WAIT;
}

static int take_state(struct ha_request *q, struct ha_gang *gang, int64_t at, struct ha_error *err)
{
    const struct ha_wire_gang_state *state = &q->message->body.gang_state;
    struct ha_wire_gang_order *order = &q->reply.body.gang_order;
    int r = check_state(&gang->parts[at], state, err);

    if (r == 0)
        r = take_id(gang, at, state->id, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < state->n_ready; i++)
        gang->ready[state->ready[i]] = true;
    if (state->ended)
        r = take_end(q, gang, at, state, err);
    if (r == 0 && !gang->gone && !gang->aborting && all_ready(gang))
        r = go(q, gang, gang->parts[at].worker, err);
    if (r < 0)
        return r;
    if (gang->aborting && !gang->settled && all_ended(gang))
        settle(q->c, gang, at != 0);
    order->step = step_of(gang, at);
    if (order->step == HA_WIRE_GANG_GO)
        order->id = ha_scratch_text(&q->arena, gang->id);
    if (order->step == HA_WIRE_GANG_ABORT)
        order->reason = "another rank has failed";
    return order->id ? 0 : ha_error_set(err, ENOMEM, "no memory for the reply");
}

int ha_handle_gang_state(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_gang_state *state = &q->message->body.gang_state;
    struct ha_epoch epoch = {(int64_t)state->epoch.generation, (int64_t)state->epoch.number};
    int64_t job = (int64_t)state->job, at = 0;
    struct ha_attempt_row row;
    struct ha_gang *gang = NULL;
    int r = ha_store_attempt_get(q->c->store, job, epoch, &row, err);

    if (state->n_ready > GANG_RANKS || state->n_counts > GANG_RANKS)
        return ha_error_set(err, EINVAL, "a part of a gang with too many ranks");
    q->reply.kind = HA_WIRE_GANG_ORDER;
    q->reply.body.gang_order = order_of(job, epoch, HA_WIRE_GANG_STALE);
    if (r == 1 && row.newest && row.state != HA_ATTEMPT_STATE_ENDED)
        r = find_or_load(q->c, job, epoch, &gang, err);
    if (r < 0 || !gang)
        return r < 0 ? r : 0;
    while (at < gang->part_count && gang->parts[at].worker != q->caller->member->id)
        at++;
    return at < gang->part_count ? take_state(q, gang, at, err) : 0;
}
