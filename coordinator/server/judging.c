#include "coordinator/server/judging.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "coordinator/core/retry.h"
#include "coordinator/store/call.h"
#include "coordinator/store/item.h"
#include "coordinator/store/store.h"
#include "coordinator/store/sweep.h"

bool ha_judging_holds(const struct ha_coordinator *c, const struct ha_member *m,
                      const struct ha_item_row *item, const struct ha_wire_epoch *epoch)
{
    struct ha_epoch given = {(int64_t)epoch->generation, (int64_t)epoch->number};
    struct ha_epoch now = {ha_store_generation(c->store), item->epoch};

    return item->state == HA_ITEM_LEASED && item->worker == m->id && ha_epoch_equal(given, now);
}

static int read_limit(void *context, const struct ha_judge_row *row)
{
    *(int64_t *)context = row->max_attempts;
    return 1;
}

int ha_judging_send_failed(struct ha_coordinator *c, const struct ha_by *by,
                           const struct ha_item_row *item, int64_t wait_ms, const char *why,
                           struct ha_error *err)
{
    struct ha_item_change change = {
        .state = HA_ITEM_READY, .reasks = item->reasks, .sends = item->sends + 1, .fault = why};
    int64_t max_attempts = 1;
    int r = ha_store_judge_each(c->store, 0, item->judge, read_limit, &max_attempts, err);

    if (r < 0)
        return r;
    if (change.sends >= max_attempts)
        change.state = HA_ITEM_FAILED;
    if (wait_ms < 0)
        wait_ms = ha_retry_backoff_ms(change.sends, (uint64_t)item->id);
    change.not_before_ms = by->now_ms + wait_ms;
    r = ha_store_item_return(c->store, by, item->id, item->epoch, &change, err);
    return r < 0 ? r : 0;
}

/* An item whose call may have been paid counts the send; one that was never
 * sent, or whose reply is stored, is just free again. */
static int lose_item(struct ha_coordinator *c, const struct ha_by *by,
                     const struct ha_item_row *item, const char *why, struct ha_error *err)
{
    struct ha_item_change change = {
        .state = HA_ITEM_READY, .reasks = item->reasks, .sends = item->sends, .fault = item->fault};
    int64_t unknown = ha_store_calls_unknown(c->store, item->id, item->epoch, err);
    int r;

    if (unknown < 0)
        return (int)unknown;
    if (unknown > 0)
        return ha_judging_send_failed(c, by, item, 0, why, err);
    r = ha_store_item_return(c->store, by, item->id, item->epoch, &change, err);
    if (r == 1 && item->unread_call != 0)
        r = ha_store_item_set_unread(c->store, item->id, item->unread_call, err);
    return r < 0 ? r : 0;
}

int ha_judging_lose(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                    const char *why, struct ha_error *err)
{
    struct ha_item_row item;
    int64_t id = 0;
    int r;

    while ((r = ha_store_item_next_leased(c->store, m->id, id, &id, err)) == 1) {
        r = ha_store_item_get(c->store, id, &item, err);
        if (r == 1)
            r = lose_item(c, by, &item, why, err);
        if (r < 0)
            break;
    }
    return r;
}

/* ---- what a judge worker holds ----------------------------------------------------------- */

static int compare_refs(const void *left, const void *right)
{
    const struct ha_wire_item_ref *a = left, *b = right;

    return a->item < b->item ? -1 : a->item > b->item;
}

static bool is_held(const struct ha_wire_item_ref *held, int64_t n, const struct ha_epoch *epoch,
                    int64_t item)
{
    int64_t low = 0, high = n;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if ((int64_t)held[middle].item < item)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < n && (int64_t)held[low].item == item; low++) {
        if ((int64_t)held[low].epoch.generation == epoch->generation &&
            (int64_t)held[low].epoch.number == epoch->number)
            return true;
    }
    return false;
}

int ha_judging_reconcile(struct ha_coordinator *c, const struct ha_by *by, struct ha_member *m,
                         const struct ha_wire_item_ref *held, int64_t n_held, struct ha_error *err)
{
    struct ha_wire_item_ref *sorted = ha_calloc(n_held, sizeof *sorted);
    struct ha_item_row item;
    int64_t id = 0;
    int r;

    if (!sorted)
        return ha_error_set(err, ENOMEM, "no memory for a list of items");
    if (n_held > 0) {
        memcpy(sorted, held, (size_t)n_held * sizeof *sorted);
        qsort(sorted, (size_t)n_held, sizeof *sorted, compare_refs);
    }
    while ((r = ha_store_item_next_leased(c->store, m->id, id, &id, err)) == 1) {
        struct ha_epoch epoch = {.generation = ha_store_generation(c->store)};

        r = ha_store_item_get(c->store, id, &item, err);
        epoch.number = r == 1 ? item.epoch : 0;
        if (r == 1 && !is_held(sorted, n_held, &epoch, id))
            r = lose_item(c, by, &item, "its judge worker does not have it", err);
        if (r < 0)
            break;
    }
    free(sorted);
    return r;
}
