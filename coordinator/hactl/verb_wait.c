#include "common/base/error.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/verbs.h"

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_session *session;
    int64_t timeout_s;
    bool done = false;
    int r = ha_arguments_int(arguments, "timeout", 1, 0, &timeout_s, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    r = ha_fetch_end(ha_session_link(session), ha_arguments_at(arguments, 0, ""), timeout_s * 1000,
                     &done, err);
    ha_session_close(session);
    if (r < 0)
        return r;
    return done ? HA_EXIT_DONE : HA_EXIT_GAPS;
}

static const struct ha_option options[] = {
    {"timeout", "SECONDS", "give up after so long (exit code 1)"}};

const struct ha_verb ha_verb_wait = {
    .name = "wait",
    .command =
        {
            .name = "hactl wait",
            .synopsis = "[SWEEP]",
            .summary = "wait until a sweep has ended; exit code 4 when it has gaps",
            .example = "hactl wait demo --timeout 3600",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
