/* items.c - ItemsRequest, ItemsBegin */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "common/base/buffer.h"
#include "coordinator/core/retry.h"
#include "coordinator/server/inside.h"
#include "coordinator/server/judging.h"
#include "coordinator/store/call.h"
#include "coordinator/store/hold.h"
#include "coordinator/store/item.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"

enum { ITEMS_LIMIT = 64, GRANT_BYTES = 4 << 20 };

struct grant {
    struct ha_request *q;
    int64_t wanted;
    size_t bytes;
    int64_t *judges; /* that have ready items */
    int64_t judge_count;
    struct ha_item_row *rows;
    int64_t row_count;
    const char *sweep; /* of the judge that is being described */
};

static int add_judge(void *context, int64_t judge)
{
    struct grant *g = context;
    int64_t *place = ha_scratch_grow(&g->q->arena, &g->judges, &g->judge_count, sizeof *place);

    if (!place)
        return -ENOMEM;
    *place = judge;
    return 0;
}

static int add_row(void *context, const struct ha_item_row *row)
{
    struct grant *g = context;
    struct ha_item_row *place;

    place = ha_scratch_grow(&g->q->arena, &g->rows, &g->row_count, sizeof *place);
    if (!place)
        return -ENOMEM;
    *place = *row;
    place->fault = ha_scratch_text(&g->q->arena, row->fault);
    place->prompt = ha_scratch_text(&g->q->arena, row->prompt);
    place->text = ha_scratch_text(&g->q->arena, row->text);
    if (!place->fault || !place->prompt || !place->text)
        return -ENOMEM;
    g->bytes += strlen(row->prompt) + strlen(row->text) + strlen(row->fault);
    return g->bytes > GRANT_BYTES;
}

static int describe_sweep(void *context, const struct ha_sweep_row *row)
{
    struct grant *g = context;

    g->sweep = ha_scratch_text(&g->q->arena, row->name);
    return g->sweep ? 1 : -ENOMEM;
}

static int describe(void *context, const struct ha_judge_row *row)
{
    struct grant *g = context;
    struct ha_wire_items_grant *reply = &g->q->reply.body.items_grant;
    struct ha_wire_judge_spec *spec;
    int r = ha_store_sweep_each(g->q->c->store, row->sweep, NULL, describe_sweep, g, NULL);

    spec = r < 0 ? NULL
                 : ha_scratch_grow(&g->q->arena, &reply->judges, &reply->n_judges, sizeof *spec);
    if (!spec)
        return -ENOMEM;
    spec->judge = (uint64_t)row->id;
    spec->sweep = g->sweep;
    spec->settings_json = ha_scratch_text(&g->q->arena, row->settings);
    return spec->sweep && spec->settings_json ? 0 : -ENOMEM;
}

/* The reply that nobody read goes along, so that it is never asked for again. */
static int attach_reply(struct grant *g, const struct ha_item_row *row, struct ha_wire_item *item,
                        struct ha_error *err)
{
    struct ha_buffer raw;
    int r;

    if (row->unread_call == 0)
        return 0;
    ha_buffer_init(&raw, GRANT_BYTES);
    r = ha_store_call_raw(g->q->c->store, row->unread_call, &raw, err);
    if (r == 1) {
        item->reply.data = ha_scratch_copy(&g->q->arena, ha_buffer_text(&raw), raw.size);
        item->reply.size = raw.size;
        item->reply_call = (uint64_t)row->unread_call;
        g->bytes += raw.size;
        if (!item->reply.data)
            r = ha_error_set(err, ENOMEM, "no memory for a stored reply");
    }
    ha_buffer_clear(&raw);
    return r < 0 ? r : 0;
}

static int lease(struct grant *g, const struct ha_item_row *row, struct ha_error *err)
{
    struct ha_request *q = g->q;
    struct ha_wire_items_grant *reply = &q->reply.body.items_grant;
    struct ha_wire_item *item;
    int64_t epoch;
    int r = ha_store_item_lease(q->c->store, &q->by, row->id, q->caller->member->id, &epoch, err);

    if (r <= 0)
        return r;
    item = ha_scratch_grow(&q->arena, &reply->items, &reply->n_items, sizeof *item);
    if (!item)
        return ha_error_set(err, ENOMEM, "no memory for items");
    *item = (struct ha_wire_item){
        .item = (uint64_t)row->id,
        .epoch = {(uint64_t)ha_store_generation(q->c->store), (uint64_t)epoch},
        .judge = (uint64_t)row->judge,
        .sample = (uint32_t)row->sample,
        .prompt_text = row->prompt,
        .answer_text = row->text,
        .reasks = (uint32_t)row->reasks,
        .last_fault = row->fault,
    };
    return attach_reply(g, row, item, err);
}

/* Lease what one judge has, and describe the judge when it has something. */
static int lease_of_judge(struct grant *g, int64_t judge, struct ha_error *err)
{
    struct ha_request *q = g->q;
    struct ha_wire_items_grant *reply = &q->reply.body.items_grant;
    int64_t before = reply->n_items;
    int r;

    g->rows = NULL;
    g->row_count = 0;
    r = ha_store_item_each_ready(q->c->store, judge, q->c->wall_ms, 2 * HA_RETRY_MAX_MS,
                                 g->wanted - reply->n_items, add_row, g, err);
    for (int64_t i = 0; r >= 0 && i < g->row_count; i++)
        r = lease(g, &g->rows[i], err);
    if (r >= 0 && reply->n_items > before)
        r = ha_store_judge_each(q->c->store, 0, judge, describe, g, err);
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for items") : r < 0 ? r : 0;
}

int ha_handle_items_request(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_items_request *request = &q->message->body.items_request;
    struct grant g = {.q = q, .wanted = request->max_items};
    struct ha_member *m = q->caller->member;
    int r = 0;

    q->reply.kind = HA_WIRE_ITEMS_GRANT;
    /* Nobody waits for the answer of an older one: what it got would be lost. */
    if (q->message->request_id <= m->items_request)
        return 0;
    if (request->lists_held)
        r = ha_judging_reconcile(q->c, &q->by, m, request->held, request->n_held, err);
    if (r < 0)
        return r;
    m->items_request = q->message->request_id;
    if (g.wanted > ITEMS_LIMIT)
        g.wanted = ITEMS_LIMIT;
    if (m->draining || m->drained || g.wanted == 0)
        return 0;
    r = ha_store_item_each_judge(q->c->store, add_judge, &g, err);
    if (r < 0)
        return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for items") : r;
    for (int64_t i = 0; r == 0 && i < g.judge_count; i++) {
        if (q->reply.body.items_grant.n_items >= g.wanted || g.bytes > GRANT_BYTES)
            break;
        r = lease_of_judge(&g, g.judges[i], err);
    }
    return r;
}

/* ---- begin ---------------------------------------------------------------------------- */

static int refuse(struct ha_request *q, uint64_t item, const char *reason, struct ha_error *err)
{
    struct ha_wire_items_begin_reply *reply = &q->reply.body.items_begin_reply;
    struct ha_wire_refused_item *place =
        ha_scratch_grow(&q->arena, &reply->refused, &reply->n_refused, sizeof *place);

    if (!place)
        return ha_error_set(err, ENOMEM, "no memory for the reply");
    *place = (struct ha_wire_refused_item){.item = item, .reason = reason};
    return 0;
}

/* The reply came in after this lease was given, from the item's earlier judge
 * worker: the next lease carries it. */
static int reply_waits(struct ha_request *q, const struct ha_item_row *item, struct ha_error *err)
{
    struct ha_item_change change = {
        .state = HA_ITEM_READY, .reasks = item->reasks, .sends = item->sends, .fault = ""};
    int r = ha_store_item_return(q->c->store, &q->by, item->id, item->epoch, &change, err);

    if (r == 1)
        r = ha_store_item_set_unread(q->c->store, item->id, item->unread_call, err);
    return r < 0
               ? r
               : refuse(q, (uint64_t)item->id, "a stored reply of the item waits to be read", err);
}

/* A person holds its cell back: nothing more is sent for it. */
static int is_held(struct ha_request *q, const struct ha_item_row *item, struct ha_error *err)
{
    struct ha_item_change change = {
        .state = HA_ITEM_READY, .reasks = item->reasks, .sends = item->sends, .fault = ""};
    int r = ha_store_item_return(q->c->store, &q->by, item->id, item->epoch, &change, err);

    return r < 0 ? r : refuse(q, (uint64_t)item->id, "its sweep is paused", err);
}

/* Out of money, or of what it may store: the item waits, and its judge gets no more items until
 * some reservation comes free or the budget is raised. */
static int no_money(struct ha_request *q, const struct ha_item_row *item, struct ha_error *err)
{
    struct ha_item_change change = {
        .state = HA_ITEM_READY, .reasks = item->reasks, .sends = item->sends, .fault = ""};
    int r = ha_store_item_return(q->c->store, &q->by, item->id, item->epoch, &change, err);

    return r < 0 ? r : refuse(q, (uint64_t)item->id, "nothing more may be spent or stored", err);
}

static int begin_one(struct ha_request *q, const struct ha_wire_item_ref *ref, double reserve,
                     struct ha_error *err)
{
    struct ha_wire_items_begin_reply *reply = &q->reply.body.items_begin_reply;
    struct ha_wire_begun_call *place;
    struct ha_item_row item;
    int64_t call;
    int r = ha_store_item_get(q->c->store, (int64_t)ref->item, &item, err);

    if (r < 0)
        return r;
    if (r == 0 || !ha_judging_holds(q->c, q->caller->member, &item, &ref->epoch))
        return refuse(q, ref->item, "the lease of the item is over", err);
    if (item.unread_call != 0)
        return reply_waits(q, &item, err);
    /* A request that is repeated finds its call begun already. */
    r = ha_store_call_open(q->c->store, item.id, item.epoch, &call, err);
    if (r == 1 && call == 0)
        return refuse(q, ref->item, "its call was made already", err);
    if (r == 0) {
        r = ha_store_hold_of_result(q->c->store, item.result, NULL, NULL, err);
        if (r != 0)
            return r < 0 ? r : is_held(q, &item, err);
    }
    if (r == 0)
        r = ha_store_call_begin(q->c->store, item.id, item.epoch, q->caller->member->id, reserve,
                                q->c->options.max_sweep_bytes, q->c->wall_ms, &call, err);
    if (r <= 0)
        return r < 0 ? r : no_money(q, &item, err);
    place = ha_scratch_grow(&q->arena, &reply->calls, &reply->n_calls, sizeof *place);
    if (!place)
        return ha_error_set(err, ENOMEM, "no memory for the reply");
    *place = (struct ha_wire_begun_call){.item = ref->item, .call = (uint64_t)call};
    return 0;
}

int ha_handle_items_begin(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_items_begin *begin = &q->message->body.items_begin;
    int r = 0;

    q->reply.kind = HA_WIRE_ITEMS_BEGIN_REPLY;
    if (begin->n_reserve != 0 && begin->n_reserve != begin->n_items)
        return ha_error_set(err, EINVAL, "one reservation for each item, or none");
    for (int64_t i = 0; r == 0 && i < begin->n_items; i++) {
        double reserve = begin->n_reserve > 0 ? begin->reserve[i] : 0;

        if (!isfinite(reserve) || reserve < 0)
            return ha_error_set(err, EINVAL, "a reservation must not be negative");
        r = begin_one(q, &begin->items[i], reserve, err);
    }
    return r;
}
