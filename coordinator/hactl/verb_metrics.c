#include <errno.h>
#include <stdio.h>

#include "common/base/error.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/verbs.h"

static int print_metric(void *context, const struct ha_wire_metric_row *row, struct ha_error *err)
{
    bool *headed = context;

    /* The header comes with the first row, so that an error stands alone. */
    if (!*headed)
        puts("step,name,value");
    *headed = true;
    if (printf("%lld,%s,%.9g\n", (long long)row->step, row->name, row->value) < 0)
        return ha_error_set(err, EIO, "standard output cannot be written");
    return 0;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_wire_metrics_request request = {
        .sweep = ha_arguments_value(arguments, "sweep", ""),
        .cell = ha_arguments_at(arguments, 0, ""),
        .name = ha_arguments_value(arguments, "name", ""),
    };
    struct ha_session *session;
    bool headed = false;
    int r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    r = ha_fetch_metrics(ha_session_link(session), &request, print_metric, &headed, err);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"sweep", "SWEEP", "the sweep, when there are several"},
    {"name", "METRIC", "one metric, as TRL names it (rewards/margins)"},
};

const struct ha_verb ha_verb_metrics = {
    .name = "metrics",
    .command =
        {
            .name = "hactl metrics",
            .synopsis = "CELL",
            .summary = "a cell's training metrics as CSV, one row per optimizer step and name",
            .example = "hactl metrics qwen3-demo/mid --name loss",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
