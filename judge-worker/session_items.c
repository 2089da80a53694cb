#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "judge-worker/client.h"
#include "judge-worker/flag.h"
#include "judge-worker/session_inside.h"

enum {
    BEGIN_ITEMS = 256,  /* in one request */
    GRANT_ITEMS = 256,  /* what a coordinator gives at most at a time */
    POLL_FIRST_MS = 50, /* while there is nothing to do, from this ... */
    POLL_MAX_MS = 1000, /* ... to this */
    HELD_MS = 5000,     /* items that wait longer than this take nobody's place */
    UNMADE_MS = 60000   /* until an item whose request cannot be made is offered again */
};

/* ---- the list ------------------------------------------------------------------------ */

static void item_free(struct item *item)
{
    ha_judge_request_clear(&item->request);
    free(item->prompt);
    free(item->answer);
    free(item->fault);
    free(item);
}

void items_remove(struct ha_judge_session *session, struct item *item)
{
    struct item **link = &session->items;

    while (*link != item)
        link = &(*link)->next;
    *link = item->next;
    if (session->last_item == &item->next)
        session->last_item = link;
    session->n_items--;
    item_free(item);
}

static struct item *find_item(const struct ha_judge_session *session, uint64_t id,
                              const struct ha_wire_epoch *epoch)
{
    struct item *item = session->items;

    while (item && (item->id != id || item->epoch.generation != epoch->generation ||
                    item->epoch.number != epoch->number))
        item = item->next;
    return item;
}

/* ---- leases ------------------------------------------------------------------------------ */

static struct item *make_item(struct ha_judge_session *session, const struct ha_wire_item *from,
                              struct ha_judge *judge)
{
    struct item *item = calloc(1, sizeof *item);

    if (!item)
        return NULL;
    item->session = session;
    item->id = from->item;
    item->epoch = from->epoch;
    item->judge = judge;
    item->reasks = from->reasks;
    item->flagged = ha_judge_flag(from->prompt_text) || ha_judge_flag(from->answer_text);
    item->prompt = ha_strdup(from->prompt_text);
    item->answer = ha_strdup(from->answer_text);
    item->fault = ha_strdup(from->last_fault);
    if (!item->prompt || !item->answer || !item->fault) {
        item_free(item);
        return NULL;
    }
    return item;
}

static void take_item(struct ha_judge_session *session, const struct ha_wire_item *from,
                      int64_t now_ms)
{
    struct ha_judge *judge = ha_judge_table_find(&session->table, from->judge);
    struct item *item;

    if (!judge || find_item(session, from->item, &from->epoch))
        return;
    item = make_item(session, from, judge);
    if (!item)
        return; /* its lease runs out */
    if (from->reply_call != 0) {
        delivery_read_stored(session, item, from->reply_call, &from->reply, now_ms);
        item_free(item);
        return;
    }
    if (session->draining) {
        delivery_release(session, item, 0, "the judge worker stops", 0);
        item_free(item);
        return;
    }
    *session->last_item = item;
    session->last_item = &item->next;
    session->n_items++;
}

void items_take_grant(struct ha_judge_session *session, const struct ha_wire_items_grant *grant,
                      int64_t now_ms)
{
    struct ha_error err;

    for (int64_t i = 0; i < grant->n_judges; i++) {
        if (ha_judge_table_put(&session->table, &grant->judges[i], now_ms, &err) < 0)
            session_note(session, HA_LOG_ERROR, "judge %llu of sweep %s: %s",
                         (unsigned long long)grant->judges[i].judge, grant->judges[i].sweep,
                         ha_error_text(&err));
    }
    for (int64_t i = 0; i < grant->n_items; i++)
        take_item(session, &grant->items[i], now_ms);
    if (grant->n_items > 0)
        session->poll_wait_ms = 0;
    else if (session->poll_wait_ms == 0)
        session->poll_wait_ms = POLL_FIRST_MS;
    else if (session->poll_wait_ms < POLL_MAX_MS)
        session->poll_wait_ms *= 2;
    if (session->poll_wait_ms > POLL_MAX_MS)
        session->poll_wait_ms = POLL_MAX_MS;
    session->next_poll_ms = now_ms + session->poll_wait_ms;
}

/* Places for further items: those that wait behind a long hold do not count,
 * so that one judge's trouble does not keep the others' items away. */
static int64_t room(const struct ha_judge_session *session, int64_t now_ms)
{
    int64_t limit = session->options.concurrency, active = 0;

    for (const struct item *item = session->items; item; item = item->next)
        active += item->state != QUEUED || item->judge->lane->limits.hold_until < now_ms + HELD_MS;
    if (session->n_items >= 4 * limit)
        return 0;
    limit += limit / 4 + 1; /* a few more than can be in flight, so that the next is at hand */
    return limit > active ? limit - active : 0;
}

/* Everything that was leased to us and is not over for us.  False without memory. */
static bool list_held(const struct ha_judge_session *session, struct ha_wire_items_request *request)
{
    int64_t room = session->n_items + session->n_deliveries;
    struct ha_wire_item_ref *held = ha_calloc(room, sizeof *held);
    int64_t n = 0;

    if (!held)
        return false;
    for (const struct item *item = session->items; item; item = item->next)
        held[n++] = (struct ha_wire_item_ref){.item = item->id, .epoch = item->epoch};
    for (const struct delivery *at = session->deliveries; at; at = at->next)
        held[n++] = (struct ha_wire_item_ref){.item = at->record.item,
                                              .epoch = {at->record.generation, at->record.number}};
    request->lists_held = true;
    request->held = held;
    request->n_held = n;
    return true;
}

void items_request(struct ha_judge_session *session, int64_t now_ms)
{
    int64_t places = room(session, now_ms);
    struct ha_wire_message message = {.kind = HA_WIRE_ITEMS_REQUEST};

    if (now_ms < session->next_poll_ms || !session_may_ask(session, ASK_ITEMS, now_ms))
        return;
    /* A request for every single place would be as many requests as items. */
    if (places == 0 || (session->n_items > 0 && places < session->options.concurrency / 8)) {
        session->next_poll_ms = now_ms + POLL_MAX_MS;
        return;
    }
    message.body.items_request.max_items = (uint32_t)(places < GRANT_ITEMS ? places : GRANT_ITEMS);
    if (session->grant_lost && !list_held(session, &message.body.items_request))
        return;                  /* the next tick tries again */
    session->grant_lost = false; /* until this one is lost, too */
    session_ask(session, ASK_ITEMS, &message, now_ms);
    free(message.body.items_request.held);
}

/* A place has become free. */
static void poll_soon(struct ha_judge_session *session, int64_t now_ms)
{
    if (session->poll_wait_ms == 0 || session->n_items == 0)
        session->next_poll_ms = now_ms;
}

/* ---- beginning --------------------------------------------------------------------------- */

/* Make the request of an item.  One that cannot be made ends the item: false. */
static bool prepare(struct ha_judge_session *session, struct item *item)
{
    const struct ha_judge_question question = {
        .prompt = item->prompt, .answer = item->answer, .fault = item->fault};
    struct ha_error err;

    if (item->request.body)
        return true;
    if (ha_judge_request_build(&item->judge->settings, &question, &item->request, &err) == 0)
        return true;
    session_note(session, HA_LOG_ERROR, "judge \"%s\": %s", item->judge->settings.name,
                 ha_error_text(&err));
    return false;
}

/* May it go?  Otherwise *wait_ms is brought down to when to ask again. */
static bool admit(struct item *item, int64_t now_ms, int64_t *wait_ms)
{
    struct ha_judge_lane *lane = item->judge->lane;
    int64_t tokens = ha_judge_lane_tokens(lane, item->request.prompt_tokens);
    int64_t wait = ha_judge_limits_admit(&lane->limits, tokens, now_ms);

    item->given_up = wait != 0 && lane->dead;
    item->tokens = tokens;
    if (wait == 0 || item->given_up)
        return true;
    if (wait < *wait_ms)
        *wait_ms = wait;
    return false;
}

/* An item that is held back blocks those behind it in its lane, not in others. */
static int64_t choose(struct ha_judge_session *session, int64_t now_ms,
                      struct ha_wire_item_ref *refs, double *reserve)
{
    int64_t n = 0, wait = INT64_MAX, busy = session->n_sending;
    const struct ha_judge_lane *blocked = NULL;
    struct item *next;

    for (struct item *item = session->items; item && n < BEGIN_ITEMS; item = next) {
        next = item->next;
        if (item->state != QUEUED || item->judge->lane == blocked)
            continue;
        if (busy + n >= session->options.concurrency)
            break;
        if (!prepare(session, item)) {
            delivery_release(session, item, 0, "the request cannot be made", UNMADE_MS);
            items_remove(session, item);
            continue;
        }
        if (!admit(item, now_ms, &wait)) {
            blocked = item->judge->lane;
            continue;
        }
        item->state = BEGINNING;
        refs[n] = (struct ha_wire_item_ref){.item = item->id, .epoch = item->epoch};
        reserve[n++] = ha_judge_price(&item->judge->settings, item->request.prompt_tokens,
                                      item->request.max_tokens);
    }
    session->next_send_ms = wait > 3600000 ? INT64_MAX : now_ms + wait;
    return n;
}

void items_begin(struct ha_judge_session *session, int64_t now_ms)
{
    struct ha_wire_item_ref refs[BEGIN_ITEMS];
    double reserve[BEGIN_ITEMS];
    struct ha_wire_message message = {.kind = HA_WIRE_ITEMS_BEGIN};
    int64_t n;

    if (!session_may_ask(session, ASK_BEGIN, now_ms))
        return;
    if (now_ms < session->unkept_until_ms) {
        session->next_send_ms = session->unkept_until_ms;
        return;
    }
    n = choose(session, now_ms, refs, reserve);
    if (n == 0)
        return;
    message.body.items_begin = (struct ha_wire_items_begin){
        .items = refs, .n_items = n, .reserve = reserve, .n_reserve = n};
    session_ask(session, ASK_BEGIN, &message, now_ms);
}

/* What admit took for an item that is not sent after all. */
static void give_back(struct item *item)
{
    if (!item->given_up)
        ha_judge_limits_return(&item->judge->lane->limits, item->tokens);
}

void items_begin_lost(struct ha_judge_session *session)
{
    for (struct item *item = session->items; item; item = item->next) {
        if (item->state != BEGINNING)
            continue;
        give_back(item);
        item->state = QUEUED;
    }
}

/* ---- sending -------------------------------------------------------------------------------- */

/* A call that ended without being made. */
static void end_unsent(struct ha_judge_session *session, struct item *item,
                       enum ha_judge_transport transport, const char *why, int64_t now_ms)
{
    struct ha_judge_response response = {.transport = transport, .retry_after_ms = -1};

    if (strncmp(why, HA_JUDGE_UNREACHED, strlen(HA_JUDGE_UNREACHED)) == 0)
        why += strlen(HA_JUDGE_UNREACHED);
    snprintf(response.text, sizeof response.text, "%.250s", why);
    ha_judge_session_replied(session, item, &response, "", now_ms);
}

static void send_item(struct ha_judge_session *session, struct item *item, uint64_t call,
                      int64_t now_ms)
{
    struct ha_error err = {0};

    item->state = SENDING;
    item->call = call;
    session->n_sending++;
    if (item->given_up)
        end_unsent(session, item, HA_JUDGE_TRANSPORT_NOT_SENT, item->judge->lane->trouble, now_ms);
    else if (session->effects.call(session->context, item, &item->judge->settings, &item->request,
                                   &err) < 0)
        end_unsent(session, item, HA_JUDGE_TRANSPORT_CONFIG, ha_error_text(&err), now_ms);
}

static struct item *find_beginning(const struct ha_judge_session *session, uint64_t id)
{
    struct item *item = session->items;

    while (item && (item->id != id || item->state != BEGINNING))
        item = item->next;
    return item;
}

static void refuse(struct ha_judge_session *session, const struct ha_wire_refused_item *refused)
{
    struct item *item = find_beginning(session, refused->item);

    if (!item)
        return;
    give_back(item);
    session_note(session, HA_LOG_DEBUG, "item %llu may not be sent: %s",
                 (unsigned long long)refused->item, refused->reason);
    items_remove(session, item);
}

void items_begun(struct ha_judge_session *session, const struct ha_wire_items_begin_reply *reply,
                 int64_t now_ms)
{
    for (int64_t i = 0; i < reply->n_refused; i++)
        refuse(session, &reply->refused[i]);
    for (int64_t i = 0; i < reply->n_calls; i++) {
        struct item *item = find_beginning(session, reply->calls[i].item);

        if (!item)
            continue;
        if (session->draining) {
            delivery_release(session, item, reply->calls[i].call, "the judge worker stops", 0);
            give_back(item);
            items_remove(session, item);
        } else {
            send_item(session, item, reply->calls[i].call, now_ms);
        }
    }
    items_begin_lost(session); /* items that the reply does not name */
    session->next_send_ms = now_ms;
    poll_soon(session, now_ms);
}

void ha_judge_session_replied(struct ha_judge_session *session, void *handle,
                              const struct ha_judge_response *response, const char *host,
                              int64_t now_ms)
{
    struct item *item = handle;
    struct delivery *delivery = delivery_add(session);
    struct ha_error err = {0};
    int r = delivery ? delivery_describe(delivery, item, item->call) : -ENOMEM;

    session->n_sending--;
    if (r == 0) {
        struct ha_judge_record *record = &delivery->record;

        record->transport = response->transport;
        record->http_status = response->http_status;
        record->latency_ms = response->latency_ms;
        record->raw_size = response->body_size;
        record->error = ha_strdup(response->text);
        record->host = ha_strdup(host);
        record->raw = response->body_size > 0 ? malloc(response->body_size) : NULL;
        if (record->raw)
            memcpy(record->raw, response->body, response->body_size);
        delivery->retry_after_ms = response->retry_after_ms;
        delivery->lane = item->judge->lane;
        delivery->given_up = item->given_up;
        delivery->tokens = item->tokens;
        r = session->effects.keep(session->context, record, &err);
        delivery->kept = r == 0;
    }
    if (r < 0) {
        session->unkept_until_ms = now_ms + HELD_MS;
        session_note(session, HA_LOG_ERROR, "a reply cannot be kept on disk: %s",
                     ha_error_text(&err));
    }
    items_remove(session, item);
    session->next_send_ms = now_ms;
    poll_soon(session, now_ms);
}

void items_release(struct ha_judge_session *session)
{
    struct item *next;

    for (struct item *item = session->items; item; item = next) {
        next = item->next;
        if (item->state != QUEUED)
            continue;
        delivery_release(session, item, 0, "the judge worker stops", 0);
        items_remove(session, item);
    }
}
