#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/console_reporter.h"
#include "worker/attempt/generation.h"
#include "worker/contract.h"

static int generate(const struct ha_arguments *arguments, const struct ha_run_settings *settings,
                    struct ha_console_reporter *console, struct ha_error *err)
{
    struct ha_reporter reporter = ha_console_reporter(console);
    const char *prompts = ha_arguments_value(arguments, "prompts", "");
    struct ha_generation generation = {
        .engine = {.model_dir = ha_arguments_value(arguments, "model", ""),
                   .backend = ha_arguments_value(arguments, "backend", "auto")},
        .prompt_template = "hh",
        .prompts = &prompts,
        .n_prompts = 1,
    };
    struct ha_generation_cell *cells;
    const char *const *adapters;
    int64_t threads, n;
    bool permanent;
    int r = ha_arguments_int(arguments, "threads", 0, 0, &threads, err);

    if (r == 0)
        r = ha_arguments_int(arguments, "sequences", 1, 0, &generation.max_sequences, err);
    if (r < 0)
        return r;
    generation.engine.threads = (int)threads;
    adapters = ha_arguments_values(arguments, "adapter", &n);
    cells = ha_calloc(n > 0 ? n : 1, sizeof(*cells));
    if (!cells)
        return ha_error_set(err, ENOMEM, "out of memory");
    generation.n_cells = n > 0 ? n : 1;
    for (int64_t i = 0; i < generation.n_cells; i++)
        cells[i] = (struct ha_generation_cell){.id = i + 1,
                                               .name = n > 0 ? adapters[i] : "base",
                                               .adapter = n > 0 ? adapters[i] : NULL,
                                               .settings = settings};
    generation.cells = cells;
    console->names = n > 0 ? adapters : NULL;
    r = ha_generation_run(&generation, &reporter, &ha_attempt_stop, &permanent, err);
    free(cells);
    return r;
}

static int check(const struct ha_arguments *arguments, struct ha_error *err)
{
    static const char *const needed[] = {"model", "prompts", "out"};

    for (int i = 0; i < 3; i++)
        if (!ha_arguments_given(arguments, needed[i]))
            return ha_error_set(err, EINVAL, "ha-attempt generate needs --%s; see --help",
                                needed[i]);
    return 0;
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *out = ha_arguments_value(arguments, "out", NULL);
    struct ha_console_reporter console = {0};
    struct ha_run_settings *settings = NULL;
    const char *const *overrides;
    int64_t n;
    int r = check(arguments, err);

    overrides = ha_arguments_values(arguments, "set", &n);
    if (r == 0)
        r = ha_run_settings_create(overrides, n, &settings, err);
    if (r == 0 && !(console.answers = strcmp(out, "-") == 0 ? stdout : fopen(out, "we")))
        r = ha_error_set(err, errno, "--out %s: %s", out, strerror(errno));
    if (r == 0)
        r = generate(arguments, settings, &console, err);
    if (console.answers && console.answers != stdout && fclose(console.answers) == EOF && r == 0)
        r = ha_error_set(err, errno, "--out %s: %s", out, strerror(errno));
    ha_run_settings_destroy(settings);
    return r == -EINTR ? HA_ATTEMPT_STOPPED : r;
}

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder"},
    {"adapter", "DIR", "PEFT adapter; repeatable: each answers all prompts"},
    {"prompts", "FILE", "rows {\"prompt\"} or hh-rlhf dialogues, JSON Lines, plain or gzip"},
    {"out", "FILE", "answers as JSON Lines (- for standard output)"},
    {"set", "KEY=VALUE", "generate.max_new_tokens=64, data.eval_samples=60, ...; repeatable"},
    {"sequences", "N", "sequences at once (default 64)"},
    {"threads", "N", "CPU threads (default: one per core)"},
    {"backend", "NAME", "auto, cpu or cuda"},
};

const struct ha_subcommand ha_subcommand_generate = {
    .name = "generate",
    .command = {.name = "ha-attempt generate",
                .synopsis = "",
                .summary = "answer held-out prompts with a model and its adapters",
                .example = "ha-attempt generate --model deploy/demo/models/qwen3-demo --prompts "
                           "deploy/demo/data/eval.jsonl --out answers.jsonl "
                           "--set generate.max_new_tokens=64",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .run = run,
};
