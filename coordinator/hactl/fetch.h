/* fetch.h - whole answers from paged replies */
#ifndef HA_COORDINATOR_HACTL_FETCH_H
#define HA_COORDINATOR_HACTL_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct ha_arguments;
struct ha_error;
struct ha_link;
struct ha_session;

/* A sweep with all its cells.  head is the first page; cells point into the
 * pages.  All of it lives until ha_status_destroy. */
struct ha_status {
    const struct ha_wire_status_reply *head;
    const struct ha_wire_cell_row **cells;
    int64_t n_cells;
    struct ha_wire_message **pages;
    int64_t n_pages;
};

/* sweep and cell: a name, an id, or "".  With a cell, its settings and artifacts
 * come along. */
int ha_fetch_status(struct ha_link *link, const char *sweep, const char *cell,
                    struct ha_status **ret_status, struct ha_error *err);
void ha_status_destroy(struct ha_status *status);

/* The same without keeping it: page->cells[0..count), as pages come.  The cells come in the order
 * of part, and within each; several parts come side by side.  The page lives during the call.
 * *ret_head is the first page, which the caller destroys. */
enum { HA_FETCH_PARTS = 3 };
typedef int (*ha_fetch_cells_fn)(void *context, int part, const struct ha_wire_status_reply *page,
                                 int64_t count, struct ha_error *err);
int ha_fetch_cells(struct ha_link *link, const char *sweep, ha_fetch_cells_fn fn, void *context,
                   struct ha_wire_message **ret_head, struct ha_error *err);

/* How a verb with [SWEEP] begins: a session, and the sweep that is named.  On failure neither is
 * left open. */
int ha_fetch_sweep(const struct ha_arguments *arguments, struct ha_session **ret_session,
                   struct ha_status **ret_status, struct ha_error *err);

/* Wait until a sweep no longer runs, looking at its head row only.  timeout_ms 0: for
 * ever.  *ret_done: it ended without gaps.  -ETIMEDOUT when it still runs. */
int ha_fetch_end(struct ha_link *link, const char *sweep, int64_t timeout_ms, bool *ret_done,
                 struct ha_error *err);

/* Called for each row; the row lives during the call.  A negative return ends
 * the fetch with it. */
typedef int (*ha_fetch_answer_fn)(void *context, const struct ha_wire_answer_row *row,
                                  struct ha_error *err);

/* request: what to fetch; its after_answer is used and changed. */
int ha_fetch_answers(struct ha_link *link, struct ha_wire_answers_request *request,
                     ha_fetch_answer_fn fn, void *context, struct ha_error *err);

typedef int (*ha_fetch_metric_fn)(void *context, const struct ha_wire_metric_row *row,
                                  struct ha_error *err);
int ha_fetch_metrics(struct ha_link *link, struct ha_wire_metrics_request *request,
                     ha_fetch_metric_fn fn, void *context, struct ha_error *err);

typedef int (*ha_fetch_norm_fn)(void *context, const struct ha_wire_norm_row *row,
                                struct ha_error *err);
int ha_fetch_norms(struct ha_link *link, struct ha_wire_norms_request *request, ha_fetch_norm_fn fn,
                   void *context, struct ha_error *err);

typedef int (*ha_fetch_event_fn)(void *context, const struct ha_wire_event_row *row,
                                 struct ha_error *err);
int ha_fetch_events(struct ha_link *link, struct ha_wire_log_request *request, ha_fetch_event_fn fn,
                    void *context, struct ha_error *err);

#endif
