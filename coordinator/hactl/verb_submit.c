#include "common/base/error.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/dry_run.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/grid_input.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/submission.h"
#include "coordinator/hactl/verbs.h"

static int submit(const struct ha_arguments *arguments, struct ha_grid_input *input,
                  struct ha_error *err)
{
    struct ha_session *session;
    struct ha_wire_message *reply;
    bool done = true;
    const char *name;
    int r = ha_submission_name(input, ha_arguments_value(arguments, "name", NULL), &name, err);

    if (r == 0)
        r = ha_grid_input_hash(input, err);
    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    r = ha_submission_send(ha_session_link(session), input, name,
                           ha_arguments_given(arguments, "extend"), &reply, err);
    if (r == 0) {
        ha_submission_print(reply);
        if (ha_arguments_given(arguments, "wait"))
            r = ha_fetch_end(ha_session_link(session), reply->body.submit_reply.name, 0, &done,
                             err);
        if (r == 0 && !done)
            r = HA_EXIT_GAPS;
        ha_wire_message_destroy(reply);
    }
    ha_session_close(session);
    return r;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *gpu_memory = ha_arguments_value(arguments, "gpu-memory", "24GiB");
    bool dry = ha_arguments_given(arguments, "dry-run");
    struct ha_grid_input *input;
    const char *const *overrides;
    int64_t n;
    int r;

    overrides = ha_arguments_values(arguments, "set", &n);
    r = ha_grid_input_load(ha_arguments_at(arguments, 0, ""), overrides, n, dry, &input, err);
    if (r < 0)
        return r;
    if (dry && ha_arguments_given(arguments, "json"))
        r = ha_dry_run_json(input, gpu_memory, err);
    else if (dry)
        r = ha_dry_run_print(input, gpu_memory, err);
    else
        r = submit(arguments, input, err);
    ha_grid_input_destroy(input);
    return r;
}

static const struct ha_option options[] = {
    {"dry-run", NULL, "print what it would do; needs no coordinator"},
    {"gpu-memory", "SIZE", "with --dry-run: plan for a GPU of so much memory (default: 24GiB)"},
    {"set", "KEY=VALUE", "another value than the grid's (train.beta=0.5); repeatable"},
    {"name", "NAME", "another name than the grid's"},
    {"extend", NULL,
     "work cells anew whose settings changed; what is there under their keys is reused"},
    {"wait", NULL, "wait until the sweep has ended"},
    {"json", NULL, "with --dry-run: print JSON"},
};

const struct ha_verb ha_verb_submit = {
    .name = "submit",
    .command =
        {
            .name = "hactl submit",
            .synopsis = "GRID.toml",
            .summary = "bring a grid to the coordinator; the same name resumes",
            .example = "hactl submit --dry-run deploy/paper/grid.toml",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
