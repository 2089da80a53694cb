#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/io/jsonl.h"
#include "worker/attempt/commands.h"
#include "worker/tokenizer/tokenizer.h"

static int out_of_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

/* Print a value that is taken over, as one line. */
static int put(struct ha_json *json, struct ha_error *err)
{
    char *text = json ? ha_json_dump(json, HA_JSON_COMPACT) : NULL;
    int r = text ? 0 : out_of_memory(err);

    if (r == 0 && puts(text) == EOF)
        r = ha_error_set(err, errno, "standard output: %s", strerror(errno));
    free(text);
    ha_json_destroy(json);
    return r;
}

static int encode(struct ha_tokenizer *tokenizer, const struct ha_json *line, bool special,
                  const char *where, struct ha_error *err)
{
    struct ha_json *array;
    struct ha_ids ids = {0};
    int r;

    if (!ha_json_is(line, HA_JSON_STRING))
        return ha_error_set(err, EINVAL, "%s: not a JSON string", where);
    r = ha_tokenizer_encode(tokenizer, ha_json_string(line, ""), ha_json_string_size(line), special,
                            &ids, err);
    if (r < 0)
        (void)ha_error_prefix(err, "%s", where);
    array = ha_json_new_array();
    for (int64_t i = 0; r == 0 && i < ids.count; i++)
        if (ha_json_append(array, ha_json_new_int(ids.data[i])) < 0)
            r = out_of_memory(err);
    ha_ids_clear(&ids);
    if (r < 0) {
        ha_json_destroy(array);
        return r;
    }
    return put(array, err);
}

static int decode(const struct ha_tokenizer *tokenizer, const struct ha_json *line, bool special,
                  const char *where, struct ha_error *err)
{
    struct ha_ids ids = {0};
    char *text = NULL;
    size_t size;
    int r = 0;

    if (!ha_json_is(line, HA_JSON_ARRAY))
        return ha_error_set(err, EINVAL, "%s: not a JSON array of ids", where);
    for (int64_t i = 0; r == 0 && i < ha_json_size(line); i++) {
        int64_t id = ha_json_int(ha_json_at(line, i), -1);

        if (id < 0 || id > INT32_MAX)
            r = ha_error_set(err, EINVAL, "%s: element %lld is no token id", where, (long long)i);
        else if (ha_ids_append(&ids, (int32_t)id) < 0)
            r = out_of_memory(err);
    }
    if (r == 0)
        r = ha_tokenizer_decode(tokenizer, ids.data, ids.count, !special, &text, &size, err);
    ha_ids_clear(&ids);
    if (r == 0)
        r = put(ha_json_new_string_n(text, size), err);
    free(text);
    return r;
}

static int run_lines(struct ha_tokenizer *tokenizer, bool decoding, bool special,
                     struct ha_error *err)
{
    struct ha_jsonl *lines;
    struct ha_json *json;
    int r = ha_jsonl_open("-", 0, &lines, err);

    if (r < 0)
        return r;
    while ((r = ha_jsonl_next(lines, &json, err)) > 0) {
        char where[64];

        (void)snprintf(where, sizeof(where), "standard input:%" PRId64, ha_jsonl_line(lines));
        r = decoding ? decode(tokenizer, json, special, where, err)
                     : encode(tokenizer, json, special, where, err);
        ha_json_destroy(json);
        if (r < 0)
            break;
    }
    ha_jsonl_close(lines);
    return r;
}

static int run(const struct ha_call *call, struct ha_error *err)
{
    bool decoding = ha_arguments_given(call->arguments, "decode");
    bool special = decoding ? ha_arguments_given(call->arguments, "keep-special")
                            : !ha_arguments_given(call->arguments, "no-special");
    struct ha_tokenizer *tokenizer;
    int r = ha_tokenizer_load(call->engine.model_dir, &tokenizer, err);

    if (r < 0)
        return r;
    r = run_lines(tokenizer, decoding, special, err);
    ha_tokenizer_destroy(tokenizer);
    return r;
}

static const char *const required[] = {"model", NULL};

static const struct ha_option options[] = {
    {"model", "DIR", "Hugging Face model folder; tokenizer files are enough"},
    {"decode", NULL, "ids to text: JSON arrays in, JSON strings out"},
    {"no-special", NULL, "add no special tokens (BOS ...) of the model's own"},
    {"keep-special", NULL, "with --decode: write special tokens out"},
};

const struct ha_subcommand ha_subcommand_tokenize = {
    .name = "tokenize",
    .command = {.name = "ha-attempt tokenize",
                .synopsis = "",
                .summary = "text to token ids, one JSON string per line to one JSON array per line",
                .example = "echo '\"Hello there\"' | ha-attempt tokenize --model "
                           "deploy/demo/models/qwen3-demo",
                .options = options,
                .n_options = sizeof(options) / sizeof(options[0])},
    .required = required,
    .run = run,
};
