#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/verbs.h"

/* What a rank printed last is several lines. */
static void print_reason(const char *reason)
{
    printf(": ");
    for (; *reason; reason++) {
        putchar(*reason);
        if (*reason == '\n' && reason[1])
            printf("    ");
    }
}

static int print_event(void *context, const struct ha_wire_event_row *row, struct ha_error *err)
{
    const bool *json = context;
    char stamp[HA_CLOCK_STAMP_BYTES];
    struct ha_json *object;

    if (!*json) {
        printf("%s  %-20s %s%s%s", ha_clock_stamp(row->time_ms, stamp), row->subject, row->from,
               row->from[0] ? " -> " : "", row->to);
        if (row->reason[0])
            print_reason(row->reason);
        printf("%s%s\n", row->actor[0] ? "  by " : "", row->actor);
        return 0;
    }
    object = ha_json_new_object();
    if (!object || ha_json_set(object, "event", ha_json_new_int((int64_t)row->event)) < 0 ||
        ha_json_set(object, "time_ms", ha_json_new_int(row->time_ms)) < 0 ||
        ha_json_set(object, "subject", ha_json_new_string(row->subject)) < 0 ||
        ha_json_set(object, "from", ha_json_new_string(row->from)) < 0 ||
        ha_json_set(object, "to", ha_json_new_string(row->to)) < 0 ||
        ha_json_set(object, "reason", ha_json_new_string(row->reason)) < 0 ||
        ha_json_set(object, "actor", ha_json_new_string(row->actor)) < 0) {
        ha_json_destroy(object);
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    return ha_output_json(object, err);
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_wire_log_request request = {.sweep = ha_arguments_at(arguments, 0, "")};
    bool json = ha_arguments_given(arguments, "json");
    bool follow = ha_arguments_given(arguments, "follow");
    struct ha_session *session;
    int64_t job;
    int r = ha_arguments_int(arguments, "job", 0, 0, &job, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    request.job = (uint64_t)job;
    do {
        r = ha_fetch_events(ha_session_link(session), &request, print_event, &json, err);
        (void)fflush(stdout);
        if (r == 0 && follow)
            (void)sleep(1);
    } while (r == 0 && follow);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"job", "ID", "events of one job"},
    {"follow", NULL, "go on with what happens from now on"},
    {"json", NULL, "print JSON"},
};

const struct ha_verb ha_verb_log = {
    .name = "log",
    .command =
        {
            .name = "hactl log",
            .synopsis = "[SWEEP]",
            .summary = "the history of every state change, with its reason",
            .example = "hactl log demo --follow",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
