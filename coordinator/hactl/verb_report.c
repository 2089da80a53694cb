#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/document.h"
#include "coordinator/hactl/verbs.h"

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *out = ha_arguments_value(arguments, "out", NULL);
    struct ha_session *session;
    char *dir;
    int r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    dir = ha_path_join(out ? NULL : ha_session_dir(session), out ? out : "report");
    r = dir ? ha_document_write(ha_session_link(session), ha_arguments_at(arguments, 0, ""),
                                ha_arguments_value(arguments, "judge", ""), dir, err)
            : ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (r == 0)
        printf("%s/report.md\n", dir);
    free(dir);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"out", "DIR",
     "where to write it (default: report, in the sweep directory where one is known)"},
    {"judge", "NAME", "the judge whose scores are shown (default: the first)"},
};

const struct ha_verb ha_verb_report = {
    .name = "report",
    .command =
        {
            .name = "hactl report",
            .synopsis = "[SWEEP]",
            .summary =
                "write the tables of the paper from the sweep's own scores (Markdown and CSV)",
            .example = "hactl report demo --out report",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
