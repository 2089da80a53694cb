#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/verbs.h"

enum { POLL_MS = 500 };

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_session *session;
    int64_t timeout_s, end_ms;
    int r = ha_arguments_int(arguments, "timeout", 1, 0, &timeout_s, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    end_ms = timeout_s > 0 ? ha_clock_boot_ms() + timeout_s * 1000 : INT64_MAX;
    for (;;) {
        struct ha_status *status;
        bool running, gaps;

        r = ha_fetch_status(ha_session_link(session), ha_arguments_at(arguments, 0, ""), "",
                            &status, err);
        if (r < 0)
            break;
        running = strcmp(status->head->sweep.state, "running") == 0;
        gaps = strcmp(status->head->sweep.state, "done") != 0;
        ha_status_destroy(status);
        if (!running) {
            r = gaps ? HA_EXIT_GAPS : HA_EXIT_DONE;
            break;
        }
        if (ha_clock_boot_ms() >= end_ms) {
            r = HA_EXIT_FAILED;
            break;
        }
        usleep(POLL_MS * 1000);
    }
    ha_session_close(session);
    return r;
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
