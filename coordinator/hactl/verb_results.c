#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/gather.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/results_json.h"
#include "coordinator/hactl/verbs.h"
#include "coordinator/report/table.h"

static int print_tables(const struct ha_experiment *experiment, struct ha_error *err)
{
    int r = ha_output_table(ha_report_cells(experiment, experiment->overall), HA_OUTPUT_PLAIN, err);

    if (r == 0)
        r = ha_output_table(ha_report_dimensions(experiment, 0), HA_OUTPUT_PLAIN, err);
    if (r == 0)
        r = ha_output_table(ha_report_strategies(experiment), HA_OUTPUT_PLAIN, err);
    if (r == 0)
        r = ha_output_table(ha_report_dimensions(experiment, 1), HA_OUTPUT_PLAIN, err);
    if (r == 0 && experiment->n_missing > 0)
        r = ha_output_table(ha_report_missing_table(experiment), HA_OUTPUT_PLAIN, err);
    return r;
}

static int print_results(const struct ha_arguments *arguments, const struct ha_experiment *e,
                         struct ha_error *err)
{
    if (ha_arguments_given(arguments, "csv"))
        return ha_output_table(ha_report_long(e), HA_OUTPUT_CSV, err);
    if (ha_arguments_given(arguments, "json"))
        return ha_output_json(ha_results_json(e), err);
    return print_tables(e, err);
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_gathered *gathered;
    struct ha_session *session;
    struct ha_status *status;
    int r = ha_fetch_sweep(arguments, &session, &status, err);

    if (r < 0)
        return r;
    r = ha_gather(ha_session_link(session), status, ha_arguments_value(arguments, "judge", ""),
                  &gathered, err);
    if (r == 0) {
        r = print_results(arguments, &gathered->experiment, err);
        ha_gathered_destroy(gathered);
    }
    ha_status_destroy(status);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"judge", "NAME", "the judge whose scores are shown (default: the first)"},
    {"csv", NULL, "every statistic of every cell, strategy and dimension as CSV"},
    {"json", NULL, "the same as JSON"},
};

const struct ha_verb ha_verb_results = {
    .name = "results",
    .command =
        {
            .name = "hactl results",
            .synopsis = "[SWEEP]",
            .summary = "mean, std, median and count of every dimension, by cell and by strategy",
            .example = "hactl results demo --csv > scores.csv",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
