#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    struct ha_model_config config;
    int r = ha_model_config_load(model, &config, err);

    if (r == 0 && strcmp(strategy, "base") == 0)
        r = ha_error_set(err, EINVAL, "--strategy: base trains nothing");
    if (r == 0)
        r = ha_layers_of(strategy, ha_blocks_builtin(strategy) ? NULL : strategy, config.n_layers,
                         ret_layers, err);
    return r < 0 ? ha_error_prefix(err, "--strategy %s", strategy) : 0;
}

static int train(const struct ha_arguments *arguments, const struct ha_run_settings *settings,
                 const struct ha_layers *layers, struct ha_console_reporter *console,
                 struct ha_error *err)
{
    const char *out = ha_arguments_value(arguments, "out", NULL);
    struct ha_reporter reporter = ha_console_reporter(console);
    struct ha_training_cell cell = {
        .id = 1,
        .name = ha_arguments_value(arguments, "strategy", "full"),
        .layers = layers->items,
        .n_layers = layers->count,
        .settings = settings,
        .init_adapter = ha_arguments_value(arguments, "init-adapter", NULL),
        .checkpoint = ha_arguments_value(arguments, "resume", NULL),
        .out_dir = out,
        .checkpoint_dir = ha_arguments_value(arguments, "checkpoint-dir", out),
    };
    struct ha_training training = {
        .engine = {.model_dir = ha_arguments_value(arguments, "model", NULL),
                   .backend = ha_arguments_value(arguments, "backend", "auto")},
        .prompt_template = "hh",
        .cells = &cell,
        .n_cells = 1,
        .require_exact = true,
        .allow_inexact = ha_arguments_given(arguments, "allow-inexact"),
    };
    const char *const *paths;
    const char **train_paths;
    int64_t threads;
    bool permanent;
    int r = ha_arguments_int(arguments, "threads", 0, 0, &threads, err);

    if (r < 0)
        return r;
    training.engine.threads = (int)threads;
    /* The list of --data has to outlive that of --eval. */
    paths = ha_arguments_values(arguments, "data", &training.n_train);
    train_paths = calloc((size_t)training.n_train, sizeof(*train_paths));
    if (!train_paths)
        return ha_error_set(err, ENOMEM, "out of memory");
    memcpy(train_paths, paths, (size_t)training.n_train * sizeof(*train_paths));
    training.train = train_paths;
    training.eval = ha_arguments_values(arguments, "eval", &training.n_eval);
    r = ha_training_run(&training, &reporter, &ha_attempt_stop, &permanent, err);
    free(train_paths);
    return r;
}

static int check(const struct ha_arguments *arguments, struct ha_error *err)
{
    static const char *const needed[] = {"model", "strategy", "data", "out"};

    for (int i = 0; i < 4; i++)
        if (!ha_arguments_given(arguments, needed[i]))
            return ha_error_set(err, EINVAL, "ha-attempt train needs --%s; see --help", needed[i]);
    return 0;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *metrics = ha_arguments_value(arguments, "metrics", NULL);
    struct ha_console_reporter console = {0};
    struct ha_run_settings *settings = NULL;
    struct ha_layers layers = {0};
    const char *const *overrides;
    int64_t n;
    int r = check(arguments, err);

    overrides = ha_arguments_values(arguments, "set", &n);
    if (r == 0)
        r = ha_run_settings_create(overrides, n, &settings, err);
    if (r == 0)
        r = find_layers(ha_arguments_value(arguments, "strategy", ""),
                        ha_arguments_value(arguments, "model", ""), &layers, err);
    if (r == 0 && metrics && !(console.metrics = fopen(metrics, "we")))
        r = ha_error_set(err, errno, "--metrics %s: %s", metrics, strerror(errno));
    if (r == 0)
        r = train(arguments, settings, &layers, &console, err);
    if (console.metrics && fclose(console.metrics) == EOF && r == 0)
        r = ha_error_set(err, errno, "--metrics %s: %s", metrics, strerror(errno));
    ha_layers_clear(&layers);
    ha_run_settings_destroy(settings);
    if (r == -EINTR)
        return HA_ATTEMPT_STOPPED;
    return r < 0 ? r : console.failed ? HA_ATTEMPT_FAILED : HA_ATTEMPT_DONE;
}

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder"},
    {"strategy", "NAME", "local, mid, global, full, or layers: 18-27 or 0-3,7"},
    {"data", "FILE", "preference pairs, JSON Lines, plain or gzip; repeatable"},
    {"eval", "FILE", "held-out pairs; repeatable"},
    {"out", "DIR", "gets adapter_config.json and adapter_model.safetensors"},
    {"set", "KEY=VALUE", "train.learning_rate=1e-5, data.train_samples=240, ...; repeatable"},
    {"init-adapter", "DIR", "start from this PEFT adapter"},
    {"metrics", "FILE", "JSON Lines, one per optimizer step, with TRL's names"},
    {"checkpoint-dir", "DIR", "checkpoints (default: --out)"},
    {"resume", "FILE", "go on from a checkpoint"},
    {"allow-inexact", NULL, "accept a checkpoint of another backend"},
    {"threads", "N", "CPU threads (default: one per core)"},
    {"backend", "NAME", "auto, cpu or cuda"},
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
    .run = run,
};
