#include "coordinator/hactl/fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/arguments.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/link.h"

enum { END_POLL_MS = 500, PAGE_CELLS = 512 };

/* Called with each page, which it takes over also when it fails; count of its cells are wanted. */
typedef int (*take_fn)(void *context, int part, struct ha_wire_message *page, int64_t count,
                       struct ha_error *err);

/* Pages of the cells after one id up to another, with one request under way. */
struct range {
    int part;
    struct ha_wire_message request;
    uint64_t last, id;
    bool open;
};

static int ask_range(struct ha_link *link, struct range *range, struct ha_error *err)
{
    struct ha_wire_status_request *query = &range->request.body.status_request;
    uint64_t most = range->last - query->after_cell; /* cells that there can be */

    query->limit = most < PAGE_CELLS ? (uint32_t)most : 0;
    return ha_link_send(link, &range->request, &range->id, err);
}

/* The next page: the one after it is asked for before this one is looked at. */
static int read_range(struct ha_link *link, struct range *range, take_fn take, void *context,
                      struct ha_error *err)
{
    const struct ha_wire_status_reply *reply;
    struct ha_wire_message *page;
    int64_t count = 0;
    int r = ha_link_wait(link, range->id, HA_WIRE_STATUS_REPLY, &page, err);

    range->id = 0;
    if (r == -EPROTO) /* it was started anew, and wants a hello */
        r = ha_link_call(link, &range->request, HA_WIRE_STATUS_REPLY, 0, &page, err);
    if (r < 0)
        return r;
    reply = &page->body.status_reply;
    while (count < reply->n_cells && reply->cells[count].cell <= range->last)
        count++;
    range->open =
        reply->more && reply->n_cells > 0 && reply->cells[reply->n_cells - 1].cell < range->last;
    if (range->open) {
        range->request.body.status_request.after_cell = reply->cells[reply->n_cells - 1].cell;
        r = ask_range(link, range, err);
    }
    if (r < 0) {
        ha_wire_message_destroy(page);
        return r;
    }
    return take(context, range->part, page, count, err);
}

/* What comes after the first page, in two halves side by side: the coordinator makes a page of one
 * while one of the other is read here.  Ids mostly have no gaps; where they do, a half is longer.
 */
static int fetch_rest(struct ha_link *link, const struct ha_wire_message *request, uint64_t after,
                      int64_t left, take_fn take, void *context, struct ha_error *err)
{
    uint64_t middle = after + (uint64_t)(left > 1 ? left / 2 : 1);
    struct range halves[2] = {{.part = 1, .request = *request, .last = middle, .open = true},
                              {.part = 2, .request = *request, .last = UINT64_MAX, .open = true}};
    int r = 0;

    halves[0].request.body.status_request.after_cell = after;
    halves[1].request.body.status_request.after_cell = middle;
    for (int i = 0; i < 2 && r == 0; i++)
        r = ask_range(link, &halves[i], err);
    while (r == 0 && (halves[0].open || halves[1].open))
        for (int i = 0; i < 2 && r == 0; i++)
            if (halves[i].open)
                r = read_range(link, &halves[i], take, context, err);
    for (int i = 0; i < 2; i++)
        ha_link_drop(link, halves[i].id);
    return r;
}

static int fetch(struct ha_link *link, const char *sweep, const char *cell, take_fn take,
                 void *context, struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_STATUS_REQUEST}, *page = NULL;
    const struct ha_wire_status_reply *reply;
    uint64_t after = 0;
    int64_t left;
    bool more;
    int r;

    request.body.status_request = (struct ha_wire_status_request){.sweep = sweep, .cell = cell};
    r = ha_link_call(link, &request, HA_WIRE_STATUS_REPLY, 0, &page, err);
    if (r < 0)
        return r;
    reply = &page->body.status_reply;
    more = reply->more && reply->n_cells > 0;
    left = reply->sweep.cells - reply->n_cells;
    if (more)
        after = reply->cells[reply->n_cells - 1].cell;
    r = take(context, 0, page, reply->n_cells, err);
    return r == 0 && more ? fetch_rest(link, &request, after, left, take, context, err) : r;
}

/* ---- all of it, kept ------------------------------------------------------------------------- */

struct kept {
    struct ha_wire_message **pages;
    int64_t *counts, n_pages, n_cells;
};

static int keep_page(void *context, int part, struct ha_wire_message *page, int64_t count,
                     struct ha_error *err)
{
    struct kept *kept = &((struct kept *)context)[part];
    void *pages = ha_realloc(kept->pages, kept->n_pages + 1, sizeof(*kept->pages));
    void *counts;

    kept->pages = pages ? pages : kept->pages;
    counts = pages ? ha_realloc(kept->counts, kept->n_pages + 1, sizeof(*kept->counts)) : NULL;
    if (!counts) {
        ha_wire_message_destroy(page);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    kept->counts = counts;
    kept->counts[kept->n_pages] = count;
    kept->pages[kept->n_pages++] = page;
    kept->n_cells += count;
    return 0;
}

/* Pages move to the status; parts keep what is to be freed. */
static int join_parts(struct kept parts[HA_FETCH_PARTS], struct ha_status *status,
                      struct ha_error *err)
{
    int64_t pages = 0, cells = 0;

    for (int part = 0; part < HA_FETCH_PARTS; part++) {
        pages += parts[part].n_pages;
        cells += parts[part].n_cells;
    }
    status->pages = ha_calloc(pages, sizeof(*status->pages));
    status->cells = ha_calloc(cells, sizeof(*status->cells));
    if (!status->pages || !status->cells)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    for (int part = 0; part < HA_FETCH_PARTS; part++) {
        for (int64_t i = 0; i < parts[part].n_pages; i++) {
            const struct ha_wire_status_reply *reply = &parts[part].pages[i]->body.status_reply;

            status->pages[status->n_pages++] = parts[part].pages[i];
            for (int64_t k = 0; k < parts[part].counts[i]; k++)
                status->cells[status->n_cells++] = &reply->cells[k];
        }
        parts[part].n_pages = 0;
    }
    status->head = &status->pages[0]->body.status_reply;
    return 0;
}

int ha_fetch_status(struct ha_link *link, const char *sweep, const char *cell,
                    struct ha_status **ret_status, struct ha_error *err)
{
    struct ha_status *status = ha_calloc(1, sizeof(*status));
    struct kept parts[HA_FETCH_PARTS] = {0};
    int r = status ? fetch(link, sweep, cell, keep_page, parts, err)
                   : ha_error_set(err, ENOMEM, "hactl: out of memory");

    if (r == 0)
        r = join_parts(parts, status, err);
    for (int part = 0; part < HA_FETCH_PARTS; part++) {
        for (int64_t i = 0; i < parts[part].n_pages; i++)
            ha_wire_message_destroy(parts[part].pages[i]);
        free(parts[part].pages);
        free(parts[part].counts);
    }
    if (r < 0) {
        ha_status_destroy(status);
        return r;
    }
    *ret_status = status;
    return 0;
}

void ha_status_destroy(struct ha_status *status)
{
    if (!status)
        return;
    for (int64_t i = 0; i < status->n_pages; i++)
        ha_wire_message_destroy(status->pages[i]);
    free(status->pages);
    free(status->cells);
    free(status);
}

/* ---- page by page ---------------------------------------------------------------------------- */

struct shown {
    ha_fetch_cells_fn fn;
    void *context;
    struct ha_wire_message *head;
};

static int show_page(void *context, int part, struct ha_wire_message *page, int64_t count,
                     struct ha_error *err)
{
    struct shown *shown = context;
    int r = shown->fn(shown->context, part, &page->body.status_reply, count, err);

    if (shown->head)
        ha_wire_message_destroy(page);
    else
        shown->head = page;
    return r;
}

int ha_fetch_cells(struct ha_link *link, const char *sweep, ha_fetch_cells_fn fn, void *context,
                   struct ha_wire_message **ret_head, struct ha_error *err)
{
    struct shown shown = {.fn = fn, .context = context};
    int r = fetch(link, sweep, "", show_page, &shown, err);

    if (r < 0)
        ha_wire_message_destroy(shown.head);
    else
        *ret_head = shown.head;
    return r;
}

int ha_fetch_sweep(const struct ha_arguments *arguments, struct ha_session **ret_session,
                   struct ha_status **ret_status, struct ha_error *err)
{
    struct ha_session *session;
    int r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    r = ha_fetch_status(ha_session_link(session), ha_arguments_at(arguments, 0, ""), "", ret_status,
                        err);
    if (r < 0)
        ha_session_close(session);
    else
        *ret_session = session;
    return r;
}

int ha_fetch_end(struct ha_link *link, const char *sweep, int64_t timeout_ms, bool *ret_done,
                 struct ha_error *err)
{
    int64_t end_ms = timeout_ms > 0 ? ha_clock_boot_ms() + timeout_ms : INT64_MAX;

    for (;;) {
        struct ha_wire_message request = {.kind = HA_WIRE_STATUS_REQUEST}, *reply;
        bool running;
        int r;

        request.body.status_request = (struct ha_wire_status_request){.sweep = sweep, .limit = 1};
        r = ha_link_call(link, &request, HA_WIRE_STATUS_REPLY, 0, &reply, err);
        if (r < 0)
            return r;
        running = strcmp(reply->body.status_reply.sweep.state, "running") == 0;
        *ret_done = strcmp(reply->body.status_reply.sweep.state, "done") == 0;
        ha_wire_message_destroy(reply);
        if (!running)
            return 0;
        if (ha_clock_boot_ms() >= end_ms)
            return ha_error_set(err, ETIMEDOUT, "the sweep still runs after %lld s",
                                (long long)(timeout_ms / 1000));
        usleep(END_POLL_MS * 1000);
    }
}

int ha_fetch_answers(struct ha_link *link, struct ha_wire_answers_request *request,
                     ha_fetch_answer_fn fn, void *context, struct ha_error *err)
{
    bool more = true;
    int r = 0;

    while (r == 0 && more) {
        struct ha_wire_message message = {.kind = HA_WIRE_ANSWERS_REQUEST}, *page;
        const struct ha_wire_answers_reply *reply;

        message.body.answers_request = *request;
        r = ha_link_call(link, &message, HA_WIRE_ANSWERS_REPLY, 0, &page, err);
        if (r < 0)
            break;
        reply = &page->body.answers_reply;
        more = reply->more && reply->n_answers > 0;
        for (int64_t i = 0; r == 0 && i < reply->n_answers; i++) {
            request->after_answer = reply->answers[i].answer;
            r = fn(context, &reply->answers[i], err);
        }
        ha_wire_message_destroy(page);
    }
    return r;
}

int ha_fetch_metrics(struct ha_link *link, struct ha_wire_metrics_request *request,
                     ha_fetch_metric_fn fn, void *context, struct ha_error *err)
{
    bool more = true;
    int r = 0;

    while (r == 0 && more) {
        struct ha_wire_message message = {.kind = HA_WIRE_METRICS_REQUEST}, *page;
        const struct ha_wire_metrics_reply *reply;

        message.body.metrics_request = *request;
        r = ha_link_call(link, &message, HA_WIRE_METRICS_REPLY, 0, &page, err);
        if (r < 0)
            break;
        reply = &page->body.metrics_reply;
        more = reply->more && reply->n_rows > 0;
        for (int64_t i = 0; r == 0 && i < reply->n_rows; i++) {
            request->after = reply->rows[i].metric;
            r = fn(context, &reply->rows[i], err);
        }
        ha_wire_message_destroy(page);
    }
    return r;
}

int ha_fetch_norms(struct ha_link *link, struct ha_wire_norms_request *request, ha_fetch_norm_fn fn,
                   void *context, struct ha_error *err)
{
    bool more = true;
    int r = 0;

    while (r == 0 && more) {
        struct ha_wire_message message = {.kind = HA_WIRE_NORMS_REQUEST}, *page;
        const struct ha_wire_norms_reply *reply;

        message.body.norms_request = *request;
        r = ha_link_call(link, &message, HA_WIRE_NORMS_REPLY, 0, &page, err);
        if (r < 0)
            break;
        reply = &page->body.norms_reply;
        more = reply->more && reply->n_rows > 0;
        for (int64_t i = 0; r == 0 && i < reply->n_rows; i++) {
            request->after = reply->rows[i].row;
            r = fn(context, &reply->rows[i], err);
        }
        ha_wire_message_destroy(page);
    }
    return r;
}

int ha_fetch_events(struct ha_link *link, struct ha_wire_log_request *request, ha_fetch_event_fn fn,
                    void *context, struct ha_error *err)
{
    bool more = true;
    int r = 0;

    while (r == 0 && more) {
        struct ha_wire_message message = {.kind = HA_WIRE_LOG_REQUEST}, *page;
        const struct ha_wire_log_reply *reply;

        message.body.log_request = *request;
        r = ha_link_call(link, &message, HA_WIRE_LOG_REPLY, 0, &page, err);
        if (r < 0)
            break;
        reply = &page->body.log_reply;
        more = reply->more && reply->n_events > 0;
        for (int64_t i = 0; r == 0 && i < reply->n_events; i++) {
            request->after_event = reply->events[i].event;
            r = fn(context, &reply->events[i], err);
        }
        ha_wire_message_destroy(page);
    }
    return r;
}
