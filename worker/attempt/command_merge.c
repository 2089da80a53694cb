#include "common/base/error.h"
#include "worker/attempt/commands.h"
#include "worker/model/merge.h"

static int run(const struct ha_call *call, struct ha_error *err)
{
    /* The sums are made on the host, whatever a machine has beside it. */
    struct ha_backend_options options = {.name = "cpu", .threads = call->engine.threads};
    struct ha_backend *backend;
    int r = ha_backend_open(&options, &backend, err);

    if (r < 0)
        return r;
    r = ha_model_merge(backend, call->engine.model_dir,
                       ha_arguments_value(call->arguments, "adapter", NULL),
                       ha_arguments_value(call->arguments, "out", NULL), err);
    ha_backend_close(backend);
    return r;
}

static const char *const required[] = {"model", "adapter", "out", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder"},
    {"adapter", "DIR", "PEFT adapter"},
    {"out", "DIR", "gets the merged model, in the files and types of the old one"},
    {"threads", "N", "CPU threads (default: one per core)"},
};

const struct ha_subcommand ha_subcommand_merge = {
    .name = "merge",
    .command = {.name = "ha-attempt merge",
                .synopsis = "",
                .summary = "add an adapter into its model's weights: a model of its own",
                .example = "ha-attempt merge --model deploy/demo/models/qwen3-demo --adapter "
                           "adapter --out merged",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .run = run,
};
