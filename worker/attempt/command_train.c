#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/conf/blocks.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/console_reporter.h"
#include "worker/attempt/training.h"
#include "worker/contract.h"

/* The layers of --strategy for a model of so many layers. */
static int find_layers(const char *strategy, const char *model, struct ha_layers *ret_layers,
                       struct ha_error *err)
{
    bool known = ha_blocks_builtin(strategy);
    struct ha_model_config config;
    int r = ha_model_config_load(model, &config, err);

    if (r < 0)
        return r;
    if (known ? strcmp(strategy, "base") == 0 : strcspn(strategy, "0123456789") > 0)
        return ha_error_set(err, EINVAL,
                            "--strategy %s: give local, mid, global, full or layers as 18-27 or "
                            "0-3,7",
                            strategy);
    r = ha_layers_of(strategy, known ? NULL : strategy, config.n_layers, ret_layers, err);
    return r < 0 ? ha_error_prefix(err, "--strategy %s", strategy) : 0;
}

static int train(const struct ha_call *call, const struct ha_layers *layers,
                 const struct ha_gang *gang, struct ha_console_reporter *console,
                 struct ha_error *err)
{
    const struct ha_arguments *arguments = call->arguments;
    const char *out = ha_arguments_value(arguments, "out", NULL);
    const char *reference = ha_arguments_value(arguments, "reference", NULL);
    struct ha_reporter reporter = ha_console_reporter(console);
    struct ha_training_cell cell = {
        .id = 1,
        .name = ha_arguments_value(arguments, "strategy", NULL),
        .layers = layers->items,
        .n_layers = layers->count,
        .settings = call->settings,
        .init_adapter = ha_arguments_value(arguments, "init-adapter", NULL),
        .checkpoint = ha_arguments_value(arguments, "resume", NULL),
        .out_dir = out,
        .checkpoint_dir = ha_arguments_value(arguments, "checkpoint-dir", out),
    };
    struct ha_training training = {
        .engine = call->engine,
        .cells = &cell,
        .n_cells = 1,
        .require_exact = true,
        .prunes_checkpoints = true,
        .allow_inexact = ha_arguments_given(arguments, "allow-inexact"),
        .reference = reference && access(reference, F_OK) == 0 ? reference : NULL,
        .reference_out = reference,
        .choices = ha_arguments_value(arguments, "choices", NULL),
    };

    training.train = ha_arguments_values(arguments, "data", &training.n_train);
    training.eval = ha_arguments_values(arguments, "eval", &training.n_eval);
    if (gang->ranks > 0)
        training.gang = gang;
    return ha_training_run(&training, &reporter, &ha_attempt_stop, err);
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    const struct ha_arguments *arguments = call->arguments;
    struct ha_console_reporter console = {.metrics_path =
                                              ha_arguments_value(arguments, "metrics", NULL),
                                          .append = ha_arguments_given(arguments, "resume")};
    struct ha_layers layers = {0};
    struct ha_gang_file file;
    struct ha_gang gang = {.ranks = 0};
    int r = ha_call_read_gang(arguments, &file, &gang, err);

    if (r == 0)
        r = find_layers(ha_arguments_value(arguments, "strategy", NULL), call->engine.model_dir,
                        &layers, err);
    if (gang.rank > 0)
        console.metrics_path = NULL;
    if (r == 0)
        r = ha_console_reporter_open(&console, err);
    if (r == 0)
        r = train(call, &layers, &gang, &console, err);
    r = ha_console_reporter_close(&console, r, err);
    ha_layers_clear(&layers);
    return r < 0 ? r : console.failed ? HA_ATTEMPT_FAILED : HA_ATTEMPT_DONE;
}

static const char *const required[] = {"model", "strategy", "data", "out", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder"},
    {"strategy", "NAME", "local, mid, global, full, or layers: 18-27 or 0-3,7"},
    {"data", "FILE", "preference pairs, JSON Lines, plain or gzip; repeatable"},
    {"eval", "FILE", "held-out pairs: loss, accuracy and margin at the end; repeatable"},
    {"out", "DIR", "gets adapter_config.json and adapter_model.safetensors"},
    HA_OPTION_TEMPLATE,
    {"set", "KEY=VALUE", "train.learning_rate=1e-5, data.train_samples=240, ...; repeatable"},
    {"init-adapter", "DIR", "start from this PEFT adapter"},
    {"metrics", "FILE",
     "JSON Lines, one per optimizer step, with TRL's names; --resume adds to it"},
    {"checkpoint-dir", "DIR", "the last two checkpoints (default: --out)"},
    {"resume", "FILE", "go on from a checkpoint"},
    {"reference", "FILE",
     "the base model's log-probs: taken from an earlier run on the same data, else written"},
    {"choices", "DIR",
     "GPU: time how to multiply, once, and keep that here; without it the library's suggestions"},
    {"allow-inexact", NULL, "accept a checkpoint of another backend"},
    {"threads", "N", "CPU threads (default: one per core)"},
    {"backend", "NAME", "auto, cpu or cuda"},
    HA_OPTIONS_GANG,
};

const struct ha_subcommand ha_subcommand_train = {
    .name = "train",
    .command = {.name = "ha-attempt train",
                .synopsis = "",
                .summary = "fine-tune a LoRA adapter with DPO and write it as PEFT files",
                .example = "ha-attempt train --model deploy/demo/models/qwen3-demo --strategy mid "
                           "--data deploy/demo/data/train.jsonl --out adapter "
                           "--set train.learning_rate=1e-3",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .stops = true,
    .run = run,
};
