/* cancel, retry, pause and resume: changes of state that a person asks for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/change.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/part.h"
#include "coordinator/hactl/verbs.h"

int ha_change_send(const struct ha_arguments *arguments, const struct ha_wire_change *change,
                   struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_CHANGE, .body.change = *change}, *reply;
    struct ha_session *session;
    char key[HA_LINK_KEY_BYTES];
    int r = ha_link_new_key(key, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    request.body.change.key = key;
    request.body.change.reason = ha_arguments_value(arguments, "reason", "");
    r = ha_link_call(ha_session_link(session), &request, HA_WIRE_CHANGE_REPLY, 0, &reply, err);
    if (r == 0) {
        printf("%s\n", reply->body.change_reply.text);
        ha_wire_message_destroy(reply);
    }
    ha_session_close(session);
    return r;
}

static int change(const struct ha_arguments *arguments, const char *verb, struct ha_error *err)
{
    struct ha_wire_change change = {.verb = verb,
                                    .sweep = ha_arguments_at(arguments, 0, ""),
                                    .cell = ha_arguments_value(arguments, "cell", ""),
                                    .failed_only = ha_arguments_given(arguments, "failed")};

    return ha_change_send(arguments, &change, err);
}

static int change_part(const struct ha_arguments *arguments, const char *verb, struct ha_error *err)
{
    struct ha_wire_change change;
    struct ha_part part;
    int r = ha_part_parse(ha_arguments_at(arguments, 0, ""), &part, err);

    if (r < 0)
        return r;
    change = (struct ha_wire_change){.verb = verb,
                                     .sweep = part.sweep,
                                     .model = part.model,
                                     .strategy = part.strategy,
                                     .finish = ha_arguments_given(arguments, "finish")};
    r = ha_change_send(arguments, &change, err);
    ha_part_clear(&part);
    return r;
}

static int run_pause(const struct ha_arguments *arguments, struct ha_error *err)
{
    return change_part(arguments, "pause", err);
}

static int run_resume(const struct ha_arguments *arguments, struct ha_error *err)
{
    return change_part(arguments, "resume", err);
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

static const struct ha_option pause_options[] = {
    {"finish", NULL, "let what runs go on to its end; without it attempts stop at a checkpoint"},
    {"reason", "TEXT", "kept in the history and shown by status and why"},
};

const struct ha_verb ha_verb_pause = {
    .name = "pause",
    .command =
        {
            .name = "hactl pause",
            .synopsis = "SWEEP[/[model][/strategy]]",
            .summary = "hold back a sweep, a model's row or a strategy's column, judging too",
            .example = "hactl pause demo//full --reason 'the GPU is needed'",
            .options = pause_options,
            .n_options = sizeof(pause_options) / sizeof(pause_options[0]),
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run_pause,
};

const struct ha_verb ha_verb_resume = {
    .name = "resume",
    .command =
        {
            .name = "hactl resume",
            .synopsis = "SWEEP[/[model][/strategy]]",
            .summary = "let go on what was paused: what is named and all within it",
            .example = "hactl resume demo",
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run_resume,
};
