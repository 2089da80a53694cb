/* cancel and retry: changes of state that a person asks for. */
#include <stdio.h>

#include "common/base/error.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/verbs.h"

static int change(const struct ha_arguments *arguments, const char *verb, struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_CHANGE}, *reply;
    struct ha_session *session;
    char key[HA_LINK_KEY_BYTES];
    int r = ha_link_new_key(key, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    request.body.change =
        (struct ha_wire_change){.key = key,
                                .verb = verb,
                                .sweep = ha_arguments_at(arguments, 0, ""),
                                .cell = ha_arguments_value(arguments, "cell", ""),
                                .reason = ha_arguments_value(arguments, "reason", ""),
                                .failed_only = ha_arguments_given(arguments, "failed")};
    r = ha_link_call(ha_session_link(session), &request, HA_WIRE_CHANGE_REPLY, 0, &reply, err);
    if (r == 0) {
        printf("%s\n", reply->body.change_reply.text);
        ha_wire_message_destroy(reply);
    }
    ha_session_close(session);
    return r;
}

static int run_cancel(const struct ha_arguments *arguments, struct ha_error *err)
{
    return change(arguments, "cancel", err);
}

static int run_retry(const struct ha_arguments *arguments, struct ha_error *err)
{
    return change(arguments, "retry", err);
}

static const struct ha_option cancel_options[] = {
    {"cell", "CELL", "one cell only (name or id)"},
    {"reason", "TEXT", "kept in the history and shown by status"},
};

static const struct ha_option retry_options[] = {
    {"cell", "CELL", "one cell only (name or id)"},
    {"failed", NULL, "what failed; without it also what was cancelled"},
    {"reason", "TEXT", "kept in the history"},
};

const struct ha_verb ha_verb_cancel = {
    .name = "cancel",
    .command =
        {
            .name = "hactl cancel",
            .synopsis = "SWEEP",
            .summary = "stop a sweep or one of its cells; what is done stays",
            .example = "hactl cancel demo --cell qwen3-demo/mid --reason 'wrong data'",
            .options = cancel_options,
            .n_options = sizeof(cancel_options) / sizeof(cancel_options[0]),
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run_cancel,
};

const struct ha_verb ha_verb_retry = {
    .name = "retry",
    .command =
        {
            .name = "hactl retry",
            .synopsis = "SWEEP",
            .summary = "let failed or cancelled work run again",
            .example = "hactl retry demo --failed",
            .options = retry_options,
            .n_options = sizeof(retry_options) / sizeof(retry_options[0]),
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run_retry,
};
