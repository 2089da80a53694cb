#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/dimensions.h"
#include "judge-worker/session_inside.h"

enum {
    BATCH = 128,           /* replies or outcomes in one request */
    BATCH_BYTES = 4 << 20, /* of them together, about; one may be longer */
    AGAIN_MS = 5000,       /* for what a coordinator did not acknowledge */
    TROUBLE_MS = 60000     /* until the same trouble is said again */
};

/* ---- the list ------------------------------------------------------------------------- */

struct delivery *delivery_add(struct ha_judge_session *session)
{
    struct delivery *delivery = calloc(1, sizeof *delivery);

    if (!delivery)
        return NULL;
    delivery->retry_after_ms = -1;
    *session->last_delivery = delivery;
    session->last_delivery = &delivery->next;
    session->n_deliveries++;
    return delivery;
}

static void delivery_free(struct delivery *delivery)
{
    ha_judge_record_clear(&delivery->record);
    ha_judge_outcome_clear(&delivery->outcome);
    free(delivery);
}

void delivery_clear(struct ha_judge_session *session)
{
    while (session->deliveries) {
        struct delivery *next = session->deliveries->next;

        delivery_free(session->deliveries);
        session->deliveries = next;
    }
}

/* Remove every delivery whose outcome is stored (state NEW is never removed). */
static void remove_done(struct ha_judge_session *session, const bool *done)
{
    struct delivery **link = &session->deliveries, *delivery;
    int64_t i = 0;

    while ((delivery = *link) != NULL) {
        if (delivery->state != REPORTING || !done[i++]) {
            link = &delivery->next;
            continue;
        }
        *link = delivery->next;
        if (delivery->kept)
            session->effects.drop(session->context, delivery->record.call);
        delivery_free(delivery);
        session->n_deliveries--;
    }
    session->last_delivery = link;
}

/* ---- making one --------------------------------------------------------------------------- */

int delivery_describe(struct delivery *delivery, const struct item *item, uint64_t call)
{
    const struct ha_sweep_judge *judge = &item->judge->settings;
    struct ha_judge_record *record = &delivery->record;

    record->item = item->id;
    record->generation = item->epoch.generation;
    record->number = item->epoch.number;
    record->call = call;
    record->reasks = item->reasks;
    record->max_reasks = judge->max_reasks;
    record->max_tokens = item->request.max_tokens ? item->request.max_tokens : judge->max_tokens;
    record->flagged = item->flagged;
    record->estimated_tokens = item->request.prompt_tokens;
    record->price_input = judge->price_input;
    record->price_output = judge->price_output;
    record->provider = ha_strdup(judge->provider);
    record->model = ha_strdup(judge->model);
    record->identity = ha_strdup(item->judge->identity);
    return record->provider && record->model && record->identity ? 0 : -ENOMEM;
}

void delivery_release(struct ha_judge_session *session, const struct item *item, uint64_t call,
                      const char *why, int64_t wait_ms)
{
    struct delivery *delivery = delivery_add(session);

    if (!delivery)
        return; /* the lease runs out */
    (void)delivery_describe(delivery, item, call);
    delivery->outcome.kind = HA_JUDGE_RELEASE;
    delivery->wait_ms = wait_ms;
    memccpy(delivery->outcome.fault, why, '\0', sizeof delivery->outcome.fault - 1);
    delivery->state = READ;
}

/* What the record came to.  -ENOMEM leaves it for later. */
static int read_outcome(struct delivery *delivery)
{
    const struct ha_judge_record *record = &delivery->record;
    const struct ha_judge_end end = {.provider = record->provider,
                                     .model = record->model ? record->model : "",
                                     .max_tokens = record->max_tokens,
                                     .reasks = record->reasks,
                                     .max_reasks = record->max_reasks,
                                     .transport = record->transport,
                                     .transport_text = record->error ? record->error : "",
                                     .http_status = (int)record->http_status,
                                     .raw = record->raw,
                                     .raw_size = record->raw_size};

    return ha_judge_outcome_read(&end, &delivery->outcome, NULL);
}

void delivery_read_stored(struct ha_judge_session *session, const struct item *item, uint64_t call,
                          const struct ha_wire_bytes *raw, int64_t now_ms)
{
    struct delivery *delivery = delivery_add(session);

    (void)now_ms;
    if (!delivery)
        return;
    (void)delivery_describe(delivery, item, call);
    delivery->record.http_status = 200; /* only replies of success are left unread */
    delivery->record.raw = ha_calloc((int64_t)raw->size + 1, 1);
    if (delivery->record.raw && raw->size > 0) {
        memcpy(delivery->record.raw, raw->data, raw->size);
        delivery->record.raw_size = raw->size;
    }
    if (!delivery->record.raw || read_outcome(delivery) < 0)
        delivery->outcome.kind = HA_JUDGE_RELEASE;
    delivery->state = READ;
}

int ha_judge_session_restore(struct ha_judge_session *session, const struct ha_judge_record *record,
                             struct ha_error *err)
{
    struct ha_judge_record copy;
    struct delivery *delivery;
    int r = ha_judge_record_copy(record, &copy, err);

    if (r < 0)
        return r;
    delivery = delivery_add(session);
    if (!delivery) {
        ha_judge_record_clear(&copy);
        return ha_error_set(err, ENOMEM, "no memory for a reply of the spool");
    }
    delivery->record = copy;
    delivery->kept = true;
    return 0;
}

/* ---- reading what is on disk ----------------------------------------------------------------- */

static void note_trouble(struct ha_judge_session *session, struct ha_judge_lane *lane,
                         int64_t now_ms)
{
    int64_t wait = lane->limits.hold_until - now_ms;

    if (!lane->trouble[0]) {
        lane->trouble_noted_ms = 0;
        return;
    }
    if (lane->trouble_noted_ms != 0 && now_ms < lane->trouble_noted_ms + TROUBLE_MS)
        return;
    lane->trouble_noted_ms = now_ms;
    session_note(session, HA_LOG_ERROR, "judge %s: %s; next try in %lld s", lane->name,
                 lane->trouble, (long long)(wait > 0 ? (wait + 999) / 1000 : 0));
}

/* What limits and lane learn from a call that we made. */
static void settle(struct ha_judge_session *session, struct delivery *delivery, int64_t now_ms)
{
    struct ha_judge_outcome *outcome = &delivery->outcome;
    struct ha_judge_lane *lane = delivery->lane;
    bool told = outcome->prompt_tokens >= 0 && outcome->completion_tokens >= 0;
    const struct ha_judge_ending ending = {
        .class = outcome->class,
        .tokens_reserved = delivery->tokens,
        .tokens_used = told ? outcome->prompt_tokens + outcome->completion_tokens : -1,
        .retry_after_ms = delivery->retry_after_ms,
        .random = session->effects.random(session->context)};

    if (!delivery->given_up) {
        delivery->wait_ms = ha_judge_limits_end(&lane->limits, &ending, now_ms);
        ha_judge_lane_learn(lane, outcome->class, delivery->record.http_status != 0, outcome->fault,
                            told ? outcome->completion_tokens : 0, now_ms);
        note_trouble(session, lane, now_ms);
    }
    if (outcome->class == HA_JUDGE_CLASS_NOT_SENT && (delivery->given_up || lane->dead))
        outcome->kind = HA_JUDGE_FAILED;
    session->next_send_ms = now_ms;
}

/* What a call cost: by what the server says was used, or by estimate; all that
 * was reserved where a part of a reply came.  Where nothing came the coordinator
 * keeps the reservation. */
static double cost_of(const struct delivery *delivery)
{
    const struct ha_judge_outcome *outcome = &delivery->outcome;
    const struct ha_judge_record *record = &delivery->record;
    struct ha_sweep_judge prices = {.price_input = record->price_input,
                                    .price_output = record->price_output};
    bool served = record->http_status >= 200 && record->http_status < 300;

    if (!served)
        return 0;
    if (outcome->class == HA_JUDGE_CLASS_UNKNOWN)
        return ha_judge_price(&prices, record->estimated_tokens, record->max_tokens);
    return ha_judge_price(
        &prices, outcome->prompt_tokens >= 0 ? outcome->prompt_tokens : record->estimated_tokens,
        outcome->completion_tokens >= 0 ? outcome->completion_tokens
                                        : (int64_t)record->raw_size / 3);
}

void ha_judge_session_synced(struct ha_judge_session *session, int64_t now_ms)
{
    for (struct delivery *delivery = session->deliveries; delivery; delivery = delivery->next) {
        if (delivery->state != NEW || read_outcome(delivery) < 0)
            continue;
        delivery->cost = cost_of(delivery);
        if (delivery->lane)
            settle(session, delivery, now_ms);
        delivery->lane = NULL;
        delivery->state = KEPT;
    }
    session_pump(session, now_ms);
}

/* ---- raw replies
 * ---------------------------------------------------------------------------------- */

static struct ha_wire_judge_reply wire_reply(const struct delivery *delivery)
{
    const struct ha_judge_record *record = &delivery->record;
    const struct ha_judge_outcome *outcome = &delivery->outcome;

    return (struct ha_wire_judge_reply){
        .item = record->item,
        .epoch = {record->generation, record->number},
        .call = record->call,
        .http_status = (uint32_t)record->http_status,
        .raw = {(const uint8_t *)record->raw, record->raw_size},
        .host = record->host ? record->host : "",
        .latency_ms = record->latency_ms,
        .prompt_tokens = outcome->prompt_tokens > 0 ? outcome->prompt_tokens : 0,
        .completion_tokens = outcome->completion_tokens > 0 ? outcome->completion_tokens : 0,
        .cost = delivery->cost,
        .possibly_paid = outcome->possibly_paid,
        .error = outcome->kind == HA_JUDGE_SCORED ? "" : outcome->fault};
}

static void send_replies(struct ha_judge_session *session, int64_t now_ms)
{
    struct ha_wire_judge_reply replies[BATCH];
    struct ha_wire_message message = {.kind = HA_WIRE_JUDGE_REPLIES};
    size_t bytes = 0;
    int64_t n = 0;

    if (!session_may_ask(session, ASK_REPLIES, now_ms))
        return;
    for (struct delivery *delivery = session->deliveries; delivery && n < BATCH;
         delivery = delivery->next) {
        if (delivery->state != KEPT)
            continue;
        bytes += delivery->record.raw_size;
        if (n > 0 && bytes > BATCH_BYTES)
            break;
        replies[n++] = wire_reply(delivery);
        delivery->state = REPLYING;
    }
    if (n == 0)
        return;
    message.body.judge_replies = (struct ha_wire_judge_replies){.replies = replies, .n_replies = n};
    session_ask(session, ASK_REPLIES, &message, now_ms);
}

/* ---- outcomes
 * ------------------------------------------------------------------------------------------ */

/* Room for the parts of one outcome on the wire. */
struct parts {
    struct ha_wire_score scores[HA_DIMENSIONS];
    const char *repairs[HA_JUDGE_REPAIRS];
};

static struct ha_wire_judge_outcome wire_outcome(const struct delivery *delivery,
                                                 struct parts *parts)
{
    const struct ha_judge_record *record = &delivery->record;
    const struct ha_judge_outcome *from = &delivery->outcome;
    struct ha_wire_judge_outcome to = {.item = record->item,
                                       .epoch = {record->generation, record->number},
                                       .call = record->call,
                                       .kind = ha_judge_kind_name(from->kind),
                                       .fault = from->fault,
                                       .retry_after_ms = delivery->wait_ms,
                                       .flagged = record->flagged,
                                       .identity = record->identity ? record->identity : ""};

    if (from->kind != HA_JUDGE_SCORED)
        return to;
    for (int i = 0; i < HA_DIMENSIONS; i++)
        parts->scores[i] = (struct ha_wire_score){.dimension = ha_dimensions[i].name,
                                                  .value = (uint32_t)from->scores.value[i],
                                                  .reason = from->scores.reason[i]};
    to.scores = parts->scores;
    to.n_scores = HA_DIMENSIONS;
    to.repairs = parts->repairs;
    for (int i = 0; i < HA_JUDGE_REPAIRS; i++) {
        if (from->scores.repairs & 1u << i)
            parts->repairs[to.n_repairs++] = ha_judge_repair_names[i];
    }
    return to;
}

static void send_outcomes(struct ha_judge_session *session, int64_t now_ms)
{
    struct ha_wire_judge_outcome outcomes[BATCH];
    struct ha_wire_message message = {.kind = HA_WIRE_JUDGE_OUTCOMES};
    struct parts *parts;
    int64_t n = 0;

    if (!session_may_ask(session, ASK_OUTCOMES, now_ms))
        return;
    parts = calloc(BATCH, sizeof *parts);
    if (!parts)
        return; /* the next tick tries again */
    for (struct delivery *delivery = session->deliveries; delivery && n < BATCH;
         delivery = delivery->next) {
        if (delivery->state != READ)
            continue;
        outcomes[n] = wire_outcome(delivery, &parts[n]);
        delivery->state = REPORTING;
        n++;
    }
    if (n > 0) {
        message.body.judge_outcomes =
            (struct ha_wire_judge_outcomes){.outcomes = outcomes, .n_outcomes = n};
        session_ask(session, ASK_OUTCOMES, &message, now_ms);
    }
    free(parts);
}

void delivery_send(struct ha_judge_session *session, int64_t now_ms)
{
    send_replies(session, now_ms);
    send_outcomes(session, now_ms);
}

/* ---- acknowledgements
 * --------------------------------------------------------------------------------------- */

static bool named(const uint64_t *numbers, int64_t count, uint64_t number)
{
    for (int64_t i = 0; i < count; i++) {
        if (numbers[i] == number)
            return true;
    }
    return false;
}

static void replies_acknowledged(struct ha_judge_session *session,
                                 const struct ha_wire_judge_ack *ack, int64_t now_ms)
{
    for (struct delivery *delivery = session->deliveries; delivery; delivery = delivery->next) {
        if (delivery->state != REPLYING)
            continue;
        if (named(ack->calls, ack->n_calls, delivery->record.call)) {
            delivery->state = READ;
        } else {
            delivery->state = KEPT;
            session->asks[ASK_REPLIES].not_before_ms = now_ms + AGAIN_MS;
        }
    }
}

static void outcomes_acknowledged(struct ha_judge_session *session,
                                  const struct ha_wire_judge_ack *ack, int64_t now_ms)
{
    bool done[BATCH];
    int64_t n = 0;

    for (struct delivery *delivery = session->deliveries; delivery && n < BATCH;
         delivery = delivery->next) {
        if (delivery->state != REPORTING)
            continue;
        if ((delivery->outcome.kind == HA_JUDGE_REASK ||
             delivery->outcome.kind == HA_JUDGE_RETRY) &&
            session->next_poll_ms > now_ms + delivery->wait_ms)
            session->next_poll_ms = now_ms + delivery->wait_ms;
        done[n] = delivery->record.call == 0 ||
                  named(ack->calls, ack->n_calls, delivery->record.call) ||
                  named(ack->stale, ack->n_stale, delivery->record.item);
        if (!done[n++])
            session->asks[ASK_OUTCOMES].not_before_ms = now_ms + AGAIN_MS;
    }
    remove_done(session, done);
    delivery_lost(session, ASK_OUTCOMES);
}

void delivery_acknowledged(struct ha_judge_session *session, enum request_kind kind,
                           const struct ha_wire_judge_ack *ack, int64_t now_ms)
{
    if (kind == ASK_REPLIES)
        replies_acknowledged(session, ack, now_ms);
    else
        outcomes_acknowledged(session, ack, now_ms);
}

void delivery_lost(struct ha_judge_session *session, enum request_kind kind)
{
    for (struct delivery *delivery = session->deliveries; delivery; delivery = delivery->next) {
        if (kind == ASK_REPLIES && delivery->state == REPLYING)
            delivery->state = KEPT;
        else if (kind == ASK_OUTCOMES && delivery->state == REPORTING)
            delivery->state = READ;
    }
}
