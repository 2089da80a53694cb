/* ha-attempt rows: the ids that training and generation see, to look at or to compare. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "worker/attempt/commands.h"
#include "worker/attempt/pair_files.h"
#include "worker/data/prompts.h"

/* What a line is made of. */
struct part {
    const char *key;
    const int32_t *ids;
    int64_t n;
};

static struct ha_json *ids_json(const struct part *part)
{
    struct ha_json *array = ha_json_new_array();

    for (int64_t i = 0; array && i < part->n; i++) {
        if (ha_json_append(array, ha_json_new_int(part->ids[i])) < 0) {
            ha_json_destroy(array);
            return NULL;
        }
    }
    return array;
}

static int put_line(int64_t row, const struct ha_text *text, const struct part *parts, int n,
                    struct ha_error *err)
{
    struct ha_json *json = ha_json_new_object();
    char *line = NULL;
    int r = ha_json_set(json, "row", ha_json_new_int(row));

    if (r == 0 && text)
        r = ha_json_set(json, "text", ha_json_new_string_n(text->data, text->size));
    for (int i = 0; i < n && r == 0; i++)
        r = ha_json_set(json, parts[i].key, ids_json(&parts[i]));
    line = r == 0 ? ha_json_dump(json, HA_JSON_COMPACT) : NULL;
    if (!line)
        r = ha_error_set(err, ENOMEM, "out of memory");
    else if (puts(line) == EOF)
        r = ha_error_set(err, errno, "standard output: %s", strerror(errno));
    free(line);
    ha_json_destroy(json);
    return r;
}

static int by_row(const void *a, const void *b)
{
    const struct ha_pair *x = a, *y = b;

    return (x->row > y->row) - (x->row < y->row);
}

static int put_pairs(const struct ha_pair_set *set, struct ha_error *err)
{
    struct ha_pair *pairs = calloc((size_t)set->n_pairs, sizeof(*pairs));
    int r = pairs ? 0 : ha_error_set(err, ENOMEM, "out of memory");

    for (int64_t i = 0; pairs && i < set->n_pairs; i++)
        pairs[i] = ha_pair_at(set, i);
    if (pairs)
        qsort(pairs, (size_t)set->n_pairs, sizeof(*pairs), by_row);
    for (int64_t i = 0; r == 0 && i < set->n_pairs; i++) {
        const struct part parts[] = {{"prompt", pairs[i].prompt, pairs[i].n_prompt},
                                     {"chosen", pairs[i].chosen, pairs[i].n_chosen},
                                     {"rejected", pairs[i].rejected, pairs[i].n_rejected}};

        r = put_line(pairs[i].row, NULL, parts, 3, err);
    }
    free(pairs);
    return r;
}

static int show_pairs(const struct ha_call *call, struct ha_tokenizer *tokenizer,
                      const struct ha_chat *chat, struct ha_error *err)
{
    struct ha_pair_files files = {.what = "pairs", .settings = call->settings, .chat = chat};
    struct ha_pair_set *set = NULL;
    int r;

    files.paths = ha_arguments_values(call->arguments, "data", &files.n_paths);
    r = ha_pair_files_load(&files, tokenizer, &set, err);
    if (r == 0)
        r = put_pairs(set, err);
    ha_pair_set_destroy(set);
    return r;
}

static int prompt_by_row(const void *a, const void *b)
{
    const struct ha_prompt *x = a, *y = b;

    return (x->row > y->row) - (x->row < y->row);
}

static int show_prompts(const struct ha_call *call, struct ha_tokenizer *tokenizer,
                        const struct ha_chat *chat, struct ha_error *err)
{
    int64_t n_paths, seed = call->settings->data.seed;
    const char *const *paths = ha_arguments_values(call->arguments, "data", &n_paths);
    struct ha_prompt_set *set = NULL;
    struct ha_rows *rows;
    int r = ha_rows_open(paths, n_paths, &rows, err);

    if (r < 0)
        return r;
    r = ha_prompt_set_create(rows, tokenizer, chat, 0, 0, (uint64_t)seed, &set, err);
    ha_rows_close(rows);
    if (r < 0)
        return r;
    qsort(set->prompts, (size_t)set->n_prompts, sizeof(*set->prompts), prompt_by_row);
    for (int64_t i = 0; r == 0 && i < set->n_prompts; i++) {
        const struct ha_prompt *prompt = &set->prompts[i];
        const struct part part = {"prompt", prompt->ids, prompt->n_ids};

        r = put_line(prompt->row, &prompt->text, &part, 1, err);
    }
    ha_prompt_set_destroy(set);
    return r;
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    struct ha_tokenizer *tokenizer;
    struct ha_chat chat;
    bool has_chat = false;
    int r = ha_tokenizer_load(call->engine.model_dir, &tokenizer, err);

    if (r < 0)
        return r;
    r = ha_engine_open_chat(&call->engine, tokenizer, &chat, &has_chat, err);
    if (r == 0 && ha_arguments_given(call->arguments, "prompts"))
        r = show_prompts(call, tokenizer, has_chat ? &chat : NULL, err);
    else if (r == 0)
        r = show_pairs(call, tokenizer, has_chat ? &chat : NULL, err);
    ha_tokenizer_destroy(tokenizer);
    return r;
}

static const char *const required[] = {"model", "data", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder; tokenizer files are enough"},
    {"data", "FILE", "rows, JSON Lines, plain or gzip; repeatable"},
    {"prompts", NULL, "the prompts to generate for, instead of the pairs to train on"},
    HA_OPTION_TEMPLATE,
    {"set", "KEY=VALUE", "data.split=turn, train.max_length=1024, ...; repeatable"},
};

const struct ha_subcommand ha_subcommand_rows = {
    .name = "rows",
    .command = {.name = "ha-attempt rows",
                .synopsis = "",
                .summary = "the token ids that training or generation makes of rows",
                .example = "ha-attempt rows --model deploy/demo/models/qwen3-demo --template chat "
                           "--data deploy/demo/data/eval.jsonl",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .run = run,
};
