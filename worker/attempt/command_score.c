#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/conf/run_settings.h"
#include "worker/adapter/adapter.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/pair_files.h"
#include "worker/attempt/memory_settings.h"
#include "worker/dpo/score.h"

/* The lines, kept until all are there: pairs come in the order of the selection,
 * people want the order of the file. */
struct scores {
    const struct ha_pair_set *pairs;
    struct scored {
        int64_t row;
        char *line;
    } * lines;
    bool per_token;
};

static struct ha_json *numbers(const float *values, int64_t n)
{
    struct ha_json *array = ha_json_new_array();

    for (int64_t i = 0; array && i < n; i++) {
        if (ha_json_append(array, ha_json_new_real((double)values[i])) < 0) {
            ha_json_destroy(array);
            return NULL;
        }
    }
    return array;
}

static double sum(const float *values, int64_t n)
{
    double total = 0;

    for (int64_t i = 0; i < n; i++)
        total += (double)values[i];
    return total;
}

static int take(void *user, int64_t pair, const float *chosen, int64_t n_chosen,
                const float *rejected, int64_t n_rejected, struct ha_error *err)
{
    struct scores *scores = user;
    struct ha_pair at = ha_pair_at(scores->pairs, pair);
    struct ha_json *json = ha_json_new_object();
    int r = ha_json_set(json, "row", ha_json_new_int(at.row));

    if (r == 0)
        r = ha_json_set(json, "chosen", ha_json_new_real(sum(chosen, n_chosen)));
    if (r == 0)
        r = ha_json_set(json, "rejected", ha_json_new_real(sum(rejected, n_rejected)));
    if (r == 0)
        r = ha_json_set(json, "prompt_tokens", ha_json_new_int(at.n_prompt));
    if (r == 0)
        r = ha_json_set(json, "chosen_tokens", ha_json_new_int(n_chosen));
    if (r == 0)
        r = ha_json_set(json, "rejected_tokens", ha_json_new_int(n_rejected));
    if (r == 0 && scores->per_token)
        r = ha_json_set(json, "chosen_logps", numbers(chosen, n_chosen));
    if (r == 0 && scores->per_token)
        r = ha_json_set(json, "rejected_logps", numbers(rejected, n_rejected));
    scores->lines[pair].row = at.row;
    scores->lines[pair].line = r == 0 ? ha_json_dump(json, HA_JSON_COMPACT) : NULL;
    ha_json_destroy(json);
    return scores->lines[pair].line ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

static int by_row(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    return (x->row > y->row) - (x->row < y->row);
}

static int print_lines(const struct scores *scores, struct ha_error *err)
{
    int64_t n = scores->pairs->n_pairs;

    qsort(scores->lines, (size_t)n, sizeof(*scores->lines), by_row);
    for (int64_t i = 0; i < n; i++)
        if (puts(scores->lines[i].line) == EOF)
            return ha_error_set(err, errno, "standard output: %s", strerror(errno));
    return 0;
}

static int score(const struct ha_call *call, struct ha_engine *engine, struct ha_pair_set *pairs,
                 struct ha_error *err)
{
    const char *dir = ha_arguments_value(call->arguments, "adapter", NULL);
    struct scores scores = {.pairs = pairs,
                            .per_token = ha_arguments_given(call->arguments, "per-token")};
    struct ha_adapter_geometry geometry;
    struct ha_adapter *adapter = NULL;
    bool gpu = strcmp(ha_backend_name(engine->backend), "cpu") != 0;
    int64_t tokens = 0;
    int r = ha_token_budget(ha_model_config(engine->model), call->settings, gpu, &tokens, err);

    ha_model_config_geometry(ha_model_config(engine->model), &geometry);
    if (r == 0 && dir)
        r = ha_adapter_load(engine->backend, &geometry, dir, &adapter, err);
    scores.lines = ha_calloc(pairs->n_pairs, sizeof(*scores.lines));
    if (r == 0 && !scores.lines)
        r = ha_error_set(err, ENOMEM, "out of memory");
    if (r == 0)
        r = ha_dpo_score(engine->model, adapter, pairs, tokens, true, take, &scores, err);
    if (r == 0)
        r = print_lines(&scores, err);
    for (int64_t i = 0; scores.lines && i < pairs->n_pairs; i++)
        free(scores.lines[i].line);
    free(scores.lines);
    ha_adapter_destroy(adapter);
    return r;
}

static int load_pairs(const struct ha_call *call, struct ha_engine *engine,
                      struct ha_pair_set **ret_pairs, struct ha_error *err)
{
    struct ha_pair_files files = {
        .what = "pairs", .settings = call->settings, .chat = ha_engine_chat(engine)};

    files.paths = ha_arguments_values(call->arguments, "data", &files.n_paths);
    return ha_pair_files_load(&files, engine->tokenizer, ret_pairs, err);
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    struct ha_pair_set *pairs = NULL;
    struct ha_engine engine;
    int r = ha_engine_open(&call->engine, &engine, err);

    if (r < 0)
        return r;
    r = load_pairs(call, &engine, &pairs, err);
    if (r == 0)
        r = score(call, &engine, pairs, err);
    ha_pair_set_destroy(pairs);
    ha_engine_close(&engine);
    return r;
}

static const char *const required[] = {"model", "data", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder"},
    {"adapter", "DIR", "PEFT adapter"},
    {"data", "FILE", "preference pairs, JSON Lines, plain or gzip; repeatable"},
    {"per-token", NULL, "add the log-prob of every completion token"},
    HA_OPTION_TEMPLATE,
    {"set", "KEY=VALUE", "data.split=turn, train.max_length=1024, ...; repeatable"},
    {"threads", "N", "CPU threads (default: one per core)"},
    {"backend", "NAME", "auto, cpu or cuda"},
};

const struct ha_subcommand ha_subcommand_score = {
    .name = "score",
    .command = {.name = "ha-attempt score",
                .synopsis = "",
                .summary = "summed log-probs of the chosen and rejected answers of each pair",
                .example = "ha-attempt score --model deploy/demo/models/qwen3-demo --data "
                           "deploy/demo/data/eval.jsonl > scores.jsonl",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .run = run,
};
