#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/console_reporter.h"
#include "worker/attempt/gang.h"
#include "worker/attempt/generation.h"
#include "worker/contract.h"

/* Without data.eval_samples every row is answered, in its place. */
static bool selects(const struct ha_arguments *arguments)
{
    static const char key[] = "data.eval_samples=";
    int64_t n;
    const char *const *overrides = ha_arguments_values(arguments, "set", &n);

    for (int64_t i = 0; i < n; i++)
        if (strncmp(overrides[i], key, sizeof(key) - 1) == 0)
            return true;
    return false;
}

static int generate(const struct ha_call *call, const struct ha_gang *gang,
                    struct ha_console_reporter *console, struct ha_error *err)
{
    const struct ha_arguments *arguments = call->arguments;
    struct ha_reporter reporter = ha_console_reporter(console);
    struct ha_generation generation = {.engine = call->engine,
                                       .in_file_order = !selects(arguments),
                                       .gang = gang->ranks > 0 ? gang : NULL};
    struct ha_generation_cell *cells;
    const char *const *adapters;
    int64_t n;
    int r = ha_arguments_int(arguments, "sequences", 1, 0, &generation.max_sequences, err);

    if (r < 0)
        return r;
    generation.prompts = ha_arguments_values(arguments, "prompts", &generation.n_prompts);
    adapters = ha_arguments_values(arguments, "adapter", &n);
    generation.n_cells = n > 0 ? n : 1;
    cells = ha_calloc(generation.n_cells, sizeof(*cells));
    if (!cells)
        return ha_error_set(err, ENOMEM, "out of memory");
    for (int64_t i = 0; i < generation.n_cells; i++)
        cells[i] = (struct ha_generation_cell){.id = i + 1,
                                               .name = n > 0 ? adapters[i] : "base",
                                               .adapter = n > 0 ? adapters[i] : NULL,
                                               .settings = call->settings};
    generation.cells = cells;
    console->names = n > 0 ? adapters : NULL;
    r = ha_generation_run(&generation, &reporter, &ha_attempt_stop, err);
    free(cells);
    return r;
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    struct ha_console_reporter console = {.answers_path =
                                              ha_arguments_value(call->arguments, "out", NULL)};
    struct ha_gang_file file;
    struct ha_gang gang = {.ranks = 0};
    int r = ha_call_read_gang(call->arguments, &file, &gang, err);

    if (gang.rank > 0)
        console.answers_path = NULL;
    if (r == 0)
        r = ha_console_reporter_open(&console, err);
    if (r == 0)
        r = generate(call, &gang, &console, err);
    r = ha_console_reporter_close(&console, r, err);
    return r < 0 ? r : console.failed ? HA_ATTEMPT_FAILED : HA_ATTEMPT_DONE;
}

static const char *const required[] = {"model", "prompts", "out", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder"},
    {"adapter", "DIR", "PEFT adapter; repeatable: each answers all prompts"},
    {"prompts", "FILE",
     "rows {\"prompt\"} or hh-rlhf dialogues, JSON Lines, plain or gzip; repeatable"},
    {"out", "FILE", "answers as JSON Lines (- for standard output)"},
    HA_OPTION_TEMPLATE,
    {"set", "KEY=VALUE",
     "generate.max_new_tokens=64, ...; repeatable; data.eval_samples=60 takes so many rows "
     "by data.seed, else all are answered"},
    {"sequences", "N", "sequences at once (default 64)"},
    {"threads", "N", "CPU threads (default: one per core)"},
    {"backend", "NAME", "auto, cpu or cuda"},
    HA_OPTIONS_GANG,
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
    .required = required,
    .stops = true,
    .run = run,
};
