#include <errno.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/norms.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/verbs.h"
#include "coordinator/report/table.h"

static int print_tables(const struct ha_norms *norms, struct ha_error *err)
{
    int r = ha_output_table(ha_report_norm_layers(&norms->norms), HA_OUTPUT_PLAIN, err);

    if (r == 0)
        r = ha_output_table(ha_report_norm_blocks(&norms->norms), HA_OUTPUT_PLAIN, err);
    if (r == 0 && norms->n_choices > 0)
        r = ha_output_table(ha_report_choices(&norms->norms, norms->choices, norms->n_choices),
                            HA_OUTPUT_PLAIN, err);
    return r;
}

static int print_norms(const struct ha_arguments *arguments, const struct ha_status *status,
                       const struct ha_norms *norms, struct ha_error *err)
{
    if (!ha_norms_has_probe(status))
        return ha_error_set(err, ENOENT, "sweep %s has no probe; write [probe] into its grid",
                            status->head->sweep.name);
    if (ha_arguments_given(arguments, "csv"))
        return ha_output_table(ha_report_norm_long(&norms->norms), HA_OUTPUT_CSV, err);
    if (ha_arguments_given(arguments, "json"))
        return ha_output_json(ha_norms_json(norms), err);
    return print_tables(norms, err);
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_norms *norms = NULL;
    struct ha_session *session;
    struct ha_status *status;
    int r = ha_fetch_sweep(arguments, &session, &status, err);

    if (r < 0)
        return r;
    r = ha_norms_fetch(ha_session_link(session), status, ha_arguments_value(arguments, "cell", ""),
                       &norms, err);
    if (r == 0)
        r = print_norms(arguments, status, norms, err);
    ha_norms_destroy(norms);
    ha_status_destroy(status);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"cell", "CELL", "the probe of one cell"},
    {"csv", NULL, "every norm as CSV"},
    {"json", NULL, "every norm and every choice as JSON"},
};

const struct ha_verb ha_verb_probe = {
    .name = "probe",
    .command =
        {
            .name = "hactl probe",
            .synopsis = "[SWEEP]",
            .summary = "where the loss has its gradient before training, and layers chosen by it",
            .example = "hactl probe demo --csv > norms.csv",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
