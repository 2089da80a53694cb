#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/status_view.h"
#include "coordinator/hactl/verbs.h"

/* job 0: every stage. */
static int put_cell(struct ha_buffer *out, const struct ha_wire_cell_row *cell, uint64_t job)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < cell->n_stages; i++) {
        const struct ha_wire_stage_row *stage = &cell->stages[i];

        if (job != 0 && stage->job != job)
            continue;
        r = ha_buffer_printf(out, "%s %s: %s%s%s%s%s", cell->name, stage->stage, stage->state,
                             stage->category[0] ? " (" : "", stage->category,
                             stage->category[0] ? ")" : "", stage->reason[0] ? ": " : "");
        r = r < 0 ? r : ha_buffer_append_text(out, stage->reason);
        if (r == 0 && stage->mend[0])
            r = ha_buffer_printf(out, "; %s", stage->mend);
        if (r == 0)
            r = ha_status_put_mates(out, stage);
        if (r == 0)
            r = ha_buffer_append_text(out, "\n");
    }
    return r;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    struct ha_session *session;
    struct ha_status *status;
    struct ha_buffer out;
    int64_t job;
    int r = ha_arguments_int(arguments, "job", 1, 0, &job, err);

    if (r == 0)
        r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    ha_buffer_init(&out, 0);
    r = ha_fetch_status(ha_session_link(session), ha_arguments_value(arguments, "sweep", ""),
                        ha_arguments_at(arguments, 0, ""), &status, err);
    if (r == 0) {
        for (int64_t i = 0; r == 0 && i < status->n_cells; i++)
            r = put_cell(&out, status->cells[i], (uint64_t)job);
        ha_status_destroy(status);
        if (r == 0 && job != 0 && out.size == 0)
            r = ha_error_set(err, ENOENT,
                             "the sweep shows no job %lld; hactl log --job tells of it",
                             (long long)job);
        else
            r = r < 0 ? ha_error_set(err, ENOMEM, "hactl: out of memory")
                      : ha_output_text(&out, err);
    }
    ha_buffer_clear(&out);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"sweep", "SWEEP", "the sweep, when there are several"},
    {"job", "N", "only the stages that this job works on"},
};

const struct ha_verb ha_verb_why = {
    .name = "why",
    .command =
        {
            .name = "hactl why",
            .synopsis = "[CELL]",
            .summary =
                "say for each stage of a cell, or of a job, why it stands where it stands, of what "
                "kind that is, and what to do",
            .example = "hactl why qwen3-demo/mid",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
