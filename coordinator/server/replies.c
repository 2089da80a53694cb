/* replies.c - JudgeReplies, JudgeOutcomes */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/base/utf8.h"
#include "common/conf/dimensions.h"
#include "common/conf/json.h"
#include "coordinator/server/inside.h"
#include "coordinator/server/judging.h"
#include "coordinator/store/call.h"
#include "coordinator/store/item.h"
#include "coordinator/store/sweep.h"

#include <stdlib.h>

static int add_number(struct ha_request *q, uint64_t **array, int64_t *count, uint64_t number,
                      struct ha_error *err)
{
    uint64_t *place = ha_scratch_grow(&q->arena, array, count, sizeof *place);

    if (!place)
        return ha_error_set(err, ENOMEM, "no memory for the reply");
    *place = number;
    return 0;
}

static int ack(struct ha_request *q, uint64_t call, struct ha_error *err)
{
    struct ha_wire_judge_ack *reply = &q->reply.body.judge_ack;

    return add_number(q, &reply->calls, &reply->n_calls, call, err);
}

static int stale(struct ha_request *q, uint64_t item, struct ha_error *err)
{
    struct ha_wire_judge_ack *reply = &q->reply.body.judge_ack;

    return add_number(q, &reply->stale, &reply->n_stale, item, err);
}

/* ---- raw replies ------------------------------------------------------------------- */

static int note_unknown_call(struct ha_request *q, const struct ha_wire_judge_reply *reply,
                             struct ha_error *err)
{
    const char *subject = ha_scratch_format(&q->arena, "call %" PRIu64, reply->call);

    return ha_store_event_add(q->c->store, &q->by,
                              &(struct ha_event){.subject = subject ? subject : "call",
                                                 .after = "dropped",
                                                 .reason = "a reply to a call that is not known"},
                              err);
}

static int take_reply(struct ha_request *q, const struct ha_wire_judge_reply *from,
                      struct ha_error *err)
{
    enum ha_call_taken taken = HA_CALL_UNKNOWN;
    struct ha_call_reply reply = {
        .call = (int64_t)from->call,
        .item = (int64_t)from->item,
        .http_status = from->http_status,
        .raw = from->raw.data,
        .raw_bytes = from->raw.size,
        .host = from->host,
        .error = from->error,
        .latency_ms = from->latency_ms,
        .prompt_tokens = from->prompt_tokens,
        .completion_tokens = from->completion_tokens,
        .cost = isfinite(from->cost) && from->cost > 0 ? from->cost : 0,
        .possibly_paid = from->possibly_paid,
    };
    struct ha_item_row item;
    int r = ha_store_call_reply(q->c->store, &reply, q->c->wall_ms, &taken, err);

    if (r == 0 && taken == HA_CALL_UNKNOWN)
        r = note_unknown_call(q, from, err);
    if (r == 0 && taken == HA_CALL_TAKEN && from->http_status / 100 == 2 && from->raw.size > 0)
        r = ha_store_item_set_unread(q->c->store, reply.item, reply.call, err);
    if (r == 0)
        r = ack(q, from->call, err);
    if (r == 0)
        r = ha_store_item_get(q->c->store, reply.item, &item, err);
    if (r < 0)
        return r;
    return r == 1 && ha_judging_holds(q->c, q->caller->member, &item, &from->epoch)
               ? 0
               : stale(q, from->item, err);
}

int ha_handle_judge_replies(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_judge_replies *replies = &q->message->body.judge_replies;
    int r = 0;

    q->reply.kind = HA_WIRE_JUDGE_ACK;
    for (int64_t i = 0; r == 0 && i < replies->n_replies; i++)
        r = take_reply(q, &replies->replies[i], err);
    return r;
}

/* ---- outcomes ------------------------------------------------------------------------ */

/* Exactly the 16 dimensions, once each, 1 to 5. */
static bool complete(const struct ha_wire_judge_outcome *outcome)
{
    unsigned seen = 0;

    if (outcome->n_scores != HA_DIMENSIONS)
        return false;
    for (int64_t i = 0; i < outcome->n_scores; i++) {
        int index = ha_dimension_index(outcome->scores[i].dimension);

        if (index < 0 || outcome->scores[i].value < 1 || outcome->scores[i].value > 5)
            return false;
        seen |= 1u << index;
    }
    return seen == (1u << HA_DIMENSIONS) - 1;
}

static char *repairs_json(const struct ha_wire_judge_outcome *outcome)
{
    struct ha_json *array = ha_json_new_array();
    char *text = NULL;
    int r = array ? 0 : -ENOMEM;

    for (int64_t i = 0; r == 0 && i < outcome->n_repairs; i++)
        r = ha_json_append(array, ha_json_new_string(outcome->repairs[i]));
    if (r == 0)
        text = ha_json_dump(array, HA_JSON_COMPACT);
    ha_json_destroy(array);
    return text;
}

static int store_scores(struct ha_request *q, const struct ha_wire_judge_outcome *outcome,
                        struct ha_error *err)
{
    struct ha_item_score scores[HA_DIMENSIONS];
    char *repairs = repairs_json(outcome);
    int r;

    if (!repairs)
        return ha_error_set(err, ENOMEM, "no memory for scores");
    for (int64_t i = 0; i < HA_DIMENSIONS; i++)
        scores[i] = (struct ha_item_score){.dimension = outcome->scores[i].dimension,
                                           .reason = outcome->scores[i].reason,
                                           .value = outcome->scores[i].value};
    r = ha_store_item_score(q->c->store, &q->by, (int64_t)outcome->item,
                            &(struct ha_item_scores){.call = (int64_t)outcome->call,
                                                     .scores = scores,
                                                     .count = HA_DIMENSIONS,
                                                     .identity = outcome->identity,
                                                     .repairs = repairs,
                                                     .flagged = outcome->flagged},
                            err);
    free(repairs);
    return r < 0 ? r : 0;
}

static int read_reasks(void *context, const struct ha_judge_row *row)
{
    *(int64_t *)context = row->max_reasks;
    return 1;
}

static int take_reask(struct ha_request *q, const struct ha_item_row *item, const char *fault,
                      struct ha_error *err)
{
    struct ha_item_change change = {
        .state = HA_ITEM_READY, .reasks = item->reasks + 1, .sends = item->sends, .fault = fault};
    int64_t max_reasks = 0;
    int r = ha_store_judge_each(q->c->store, 0, item->judge, read_reasks, &max_reasks, err);

    if (r < 0)
        return r;
    if (change.reasks > max_reasks) {
        change.state = HA_ITEM_FAILED;
        change.reasks = item->reasks;
    }
    r = ha_store_item_return(q->c->store, &q->by, item->id, item->epoch, &change, err);
    return r < 0 ? r : 0;
}

/* An item that comes back unharmed: the judge worker stops, or its evaluator
 * cannot be asked for wait_ms, which is nobody's fault but the evaluator's. */
static int take_release(struct ha_request *q, const struct ha_item_row *item, int64_t call,
                        int64_t wait_ms, const char *fault, struct ha_error *err)
{
    struct ha_item_change change = {.state = HA_ITEM_READY,
                                    .reasks = item->reasks,
                                    .sends = item->sends,
                                    .not_before_ms = wait_ms > 0 ? q->by.now_ms + wait_ms : 0,
                                    .fault = ""};
    int r = call == 0 ? 0 : ha_store_call_unsent(q->c->store, call, item->id, err);

    if (r == 0 && wait_ms > 0)
        r = ha_store_judge_set_trouble(q->c->store, item->judge, fault, err);
    if (r == 0)
        r = ha_store_item_return(q->c->store, &q->by, item->id, item->epoch, &change, err);
    /* A stored reply that came back with a fault was read: it is no answer to go by,
     * and the evaluator is asked again. */
    if (r == 1 && item->unread_call != 0 && (call != item->unread_call || !fault[0]))
        r = ha_store_item_set_unread(q->c->store, item->id, item->unread_call, err);
    return r < 0 ? r : 0;
}

static int take_failure(struct ha_request *q, const struct ha_item_row *item, const char *fault,
                        struct ha_error *err)
{
    struct ha_item_change change = {
        .state = HA_ITEM_FAILED, .reasks = item->reasks, .sends = item->sends, .fault = fault};
    int r = ha_store_item_return(q->c->store, &q->by, item->id, item->epoch, &change, err);

    return r < 0 ? r : 0;
}

/* Everything but scores counts for the holder of the lease only. */
static int take_held(struct ha_request *q, const struct ha_item_row *item,
                     const struct ha_wire_judge_outcome *outcome, struct ha_error *err)
{
    char fault[HA_ERROR_TEXT_BYTES];
    int64_t wait_ms = outcome->retry_after_ms > 0 ? outcome->retry_after_ms : -1;

    ha_utf8_copy(fault, sizeof fault, outcome->fault);
    if (strcmp(outcome->kind, "reask") == 0)
        return take_reask(q, item, fault, err);
    if (strcmp(outcome->kind, "retry") == 0) {
        int r = ha_judging_send_failed(q->c, &q->by, item, wait_ms, fault, err);

        return r == 0 && wait_ms > 0
                   ? ha_store_judge_set_trouble(q->c->store, item->judge, fault, err)
                   : r;
    }
    if (strcmp(outcome->kind, "failed") == 0)
        return take_failure(q, item, fault, err);
    if (strcmp(outcome->kind, "release") == 0)
        return take_release(q, item, (int64_t)outcome->call, wait_ms, fault, err);
    return ha_judging_send_failed(q->c, &q->by, item, -1,
                                  "the judge worker sent something else than 16 scores", err);
}

/* A set of scores counts when its reply is stored, also after the lease is
 * over; the first one wins. */
static int take_outcome(struct ha_request *q, const struct ha_wire_judge_outcome *outcome,
                        struct ha_error *err)
{
    bool scored = strcmp(outcome->kind, "scored") == 0 && complete(outcome);
    struct ha_item_row item;
    int r = ha_store_item_get(q->c->store, (int64_t)outcome->item, &item, err);

    if (r == 1 && scored)
        r = ha_store_call_replied(q->c->store, (int64_t)outcome->call, item.id, err);
    if (r < 0)
        return r;
    if (r == 0 || (!scored && !ha_judging_holds(q->c, q->caller->member, &item, &outcome->epoch)))
        r = stale(q, outcome->item, err);
    else
        r = scored ? store_scores(q, outcome, err) : take_held(q, &item, outcome, err);
    if (r == 0 && scored)
        r = ha_store_judge_set_trouble(q->c->store, item.judge, "", err);
    if (r == 0 && outcome->call != 0)
        r = ha_store_call_outcome(q->c->store, (int64_t)outcome->call, outcome->kind, err);
    return r < 0 || outcome->call == 0 ? r : ack(q, outcome->call, err);
}

int ha_handle_judge_outcomes(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_judge_outcomes *outcomes = &q->message->body.judge_outcomes;
    int r = 0;

    q->reply.kind = HA_WIRE_JUDGE_ACK;
    for (int64_t i = 0; r == 0 && i < outcomes->n_outcomes; i++)
        r = take_outcome(q, &outcomes->outcomes[i], err);
    q->c->changed = true;
    return r;
}
