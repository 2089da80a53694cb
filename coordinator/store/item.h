/* item.h - answers to be scored, one by one judge, one sample
 *
 * The lease of an item is (item, epoch); its worker's liveness is the lease's.
 * A reply that is stored but was not read (unread_call) goes along with the
 * next lease instead of being asked for again. */
#ifndef HA_COORDINATOR_STORE_ITEM_H
#define HA_COORDINATOR_STORE_ITEM_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/core/state.h"
#include "coordinator/store/event.h"

struct ha_error;
struct ha_store;

/* Make the items of a judge result for one answer, or for all answers of its
 * generate result (answer 0); those that exist stay. */
int ha_store_items_fill(struct ha_store *store, const struct ha_by *by, int64_t result,
                        int64_t answer, struct ha_error *err);

/* The same for every judge result that is made from the generate result. */
int ha_store_items_fill_from(struct ha_store *store, const struct ha_by *by, int64_t generate,
                             int64_t answer, struct ha_error *err);

/* Items without scores wait again, as if never asked. */
int ha_store_items_restore(struct ha_store *store, int64_t result, struct ha_error *err);
int ha_store_items_cancel(struct ha_store *store, int64_t result, struct ha_error *err);

/* Another sweep's judge asks from now on. */
int ha_store_items_move(struct ha_store *store, int64_t result, int64_t judge, int64_t model,
                        struct ha_error *err);

struct ha_item_row {
    int64_t id, result, answer, judge, sample;
    enum ha_item_state state;
    int64_t epoch, worker, reasks, sends;
    int64_t unread_call;
    const char *fault;
    const char *prompt, *text; /* only from ha_store_item_each_ready */
};

typedef int (*ha_item_fn)(void *context, const struct ha_item_row *row);

/* Ready items of a judge whose wait is over, in their order. */
int ha_store_item_each_ready(struct ha_store *store, int64_t judge, int64_t now_ms,
                             int64_t max_wait_ms, int64_t limit, ha_item_fn fn, void *context,
                             struct ha_error *err);

/* Judges of running sweeps that have ready items and may send, by priority. */
typedef int (*ha_item_judge_fn)(void *context, int64_t judge);
int ha_store_item_each_judge(struct ha_store *store, ha_item_judge_fn fn, void *context,
                             struct ha_error *err);

/* 1 or 0. */
int ha_store_item_get(struct ha_store *store, int64_t item, struct ha_item_row *ret_row,
                      struct ha_error *err);

/* ready -> leased; 1 and the new epoch, or 0 when it is not ready. */
int ha_store_item_lease(struct ha_store *store, const struct ha_by *by, int64_t item,
                        int64_t worker, int64_t *ret_epoch, struct ha_error *err);

/* What a lease, or the reply to one call, came to. */
struct ha_item_change {
    enum ha_item_state state; /* ready or failed */
    int64_t reasks, sends, not_before_ms;
    const char *fault;
};

/* leased -> ready or failed, for this epoch only: 1, or 0 when the lease is over. */
int ha_store_item_return(struct ha_store *store, const struct ha_by *by, int64_t item,
                         int64_t epoch, const struct ha_item_change *change, struct ha_error *err);

struct ha_item_score {
    const char *dimension, *reason;
    int64_t value;
};

struct ha_item_scores {
    int64_t call;
    const struct ha_item_score *scores;
    int64_t count;
    const char *identity, *repairs;
    bool flagged;
};

/* Store one set of scores, when the item has none: 1, or 0 (it has). */
int ha_store_item_score(struct ha_store *store, const struct ha_by *by, int64_t item,
                        const struct ha_item_scores *scores, struct ha_error *err);

/* The next item that a judge worker holds: 1 or 0. */
int ha_store_item_next_leased(struct ha_store *store, int64_t worker, int64_t after,
                              int64_t *ret_item, struct ha_error *err);

/* The reply of this call is stored; call 0: none waits to be read. */
int ha_store_item_set_unread(struct ha_store *store, int64_t item, int64_t call,
                             struct ha_error *err);

#endif
