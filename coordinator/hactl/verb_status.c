#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/status_json.h"
#include "coordinator/hactl/status_view.h"
#include "coordinator/hactl/verbs.h"

enum { WATCH_SECONDS = 1 };

static int show(const struct ha_arguments *arguments, const struct ha_status *status, bool redraw,
                struct ha_error *err)
{
    struct ha_view_style style = ha_view_style_detect();
    struct ha_buffer out;
    int r = 0;

    style.summary = ha_arguments_given(arguments, "summary");
    ha_buffer_init(&out, 0);
    if (redraw && isatty(STDOUT_FILENO))
        r = ha_buffer_append_text(&out, "\033[H\033[2J");
    if (r == 0)
        r = ha_status_view(status, &style, &out);
    if (r < 0) {
        ha_buffer_clear(&out);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    return ha_output_text(&out, err);
}

static int show_once(const struct ha_arguments *arguments, struct ha_link *link, bool *ret_over,
                     struct ha_error *err)
{
    struct ha_status *status;
    int r = ha_fetch_status(link, ha_arguments_at(arguments, 0, ""), "", &status, err);

    if (r < 0)
        return r;
    r = show(arguments, status, ha_arguments_given(arguments, "watch"), err);
    *ret_over = strcmp(status->head->sweep.state, "running") != 0;
    ha_status_destroy(status);
    return r;
}

static int add_cells(void *context, int part, const struct ha_wire_status_reply *page,
                     int64_t count, struct ha_error *err)
{
    int r = ha_status_json_add(context, part, page->cells, count, page->now_ms);

    return r < 0 ? ha_error_set(err, ENOMEM, "hactl: out of memory") : 0;
}

/* The text is made while the coordinator makes the next page. */
static int print_once(const struct ha_arguments *arguments, struct ha_link *link, bool *ret_over,
                      struct ha_error *err)
{
    struct ha_wire_message *head;
    struct ha_status_json json;
    int r;

    ha_status_json_init(&json);
    r = ha_fetch_cells(link, ha_arguments_at(arguments, 0, ""), add_cells, &json, &head, err);
    if (r == 0) {
        if (ha_status_json_end(&json, &head->body.status_reply) < 0)
            r = ha_error_set(err, ENOMEM, "hactl: out of memory");
        *ret_over = strcmp(head->body.status_reply.sweep.state, "running") != 0;
        ha_wire_message_destroy(head);
    }
    if (r == 0)
        r = ha_output_text(&json.head, err);
    for (int part = 0; part < HA_FETCH_PARTS && r == 0; part++)
        r = ha_output_text(&json.parts[part], err);
    if (r == 0)
        r = ha_output_text(&json.tail, err);
    ha_status_json_clear(&json);
    return r;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    bool watch = ha_arguments_given(arguments, "watch"), over = false;
    bool json = ha_arguments_given(arguments, "json");
    struct ha_session *session;
    int r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    do {
        r = json ? print_once(arguments, ha_session_link(session), &over, err)
                 : show_once(arguments, ha_session_link(session), &over, err);
        if (watch && !over && r == 0)
            (void)sleep(WATCH_SECONDS);
    } while (r == 0 && watch && !over);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"watch", NULL, "go on until the sweep has ended"},
    {"summary", NULL, "the head lines only"},
    {"json", NULL, "print JSON"},
};

const struct ha_verb ha_verb_status = {
    .name = "status",
    .command =
        {
            .name = "hactl status",
            .synopsis = "[SWEEP]",
            .summary = "show every cell and stage, and what stands still and why",
            .example = "hactl status --watch",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
