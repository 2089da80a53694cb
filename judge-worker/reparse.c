#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arguments.h"
#include "common/base/error.h"
#include "common/conf/dimensions.h"
#include "common/conf/json.h"
#include "common/io/jsonl.h"
#include "judge-worker/commands.h"
#include "judge-worker/outcome.h"

static const struct ha_command command = {
    .name = "ha-judge-worker reparse",
    .synopsis = "",
    .summary = "Read raw replies again, without a network: JSON Lines in, outcomes out.\n"
               "A line in: {\"raw\": TEXT, \"call\", \"item\", \"http_status\", \"provider\", "
               "\"model\"}; all but raw may be left out.",
    .example = "ha-judge-worker reparse < replies.jsonl > outcomes.jsonl"};

static int set_scores(struct ha_json *json, const struct ha_judge_scores *scores)
{
    struct ha_json *array = ha_json_new_array(), *repairs = ha_json_new_array();
    int r = array && repairs ? 0 : -ENOMEM;

    for (int i = 0; i < HA_DIMENSIONS && r == 0; i++) {
        struct ha_json *entry = ha_json_new_object();

        r = entry ? ha_json_set(entry, "dimension", ha_json_new_string(ha_dimensions[i].name))
                  : -ENOMEM;
        if (r == 0)
            r = ha_json_set(entry, "score", ha_json_new_int(scores->value[i]));
        if (r == 0)
            r = ha_json_set(entry, "reason", ha_json_new_string(scores->reason[i]));
        if (r == 0)
            r = ha_json_append(array, entry);
        else
            ha_json_destroy(entry);
    }
    for (int i = 0; i < HA_JUDGE_REPAIRS && r == 0; i++) {
        if (scores->repairs & 1u << i)
            r = ha_json_append(repairs, ha_json_new_string(ha_judge_repair_names[i]));
    }
    if (r < 0) {
        ha_json_destroy(array);
        ha_json_destroy(repairs);
        return r;
    }
    r = ha_json_set(json, "scores", array);
    if (r < 0) {
        ha_json_destroy(repairs);
        return r;
    }
    return ha_json_set(json, "repairs", repairs);
}

static int print_outcome(const struct ha_json *line, const struct ha_judge_outcome *outcome,
                         struct ha_error *err)
{
    static const char *const ids[] = {"call", "item"};
    struct ha_json *json = ha_json_new_object();
    char *text = NULL;
    int r = json ? 0 : -ENOMEM;

    for (int i = 0; i < 2 && r == 0; i++) {
        if (ha_json_get(line, ids[i]))
            r = ha_json_set(json, ids[i],
                            ha_json_new_int(ha_json_int(ha_json_get(line, ids[i]), 0)));
    }
    if (r == 0)
        r = ha_json_set(json, "kind", ha_json_new_string(ha_judge_kind_name(outcome->kind)));
    if (r == 0 && outcome->kind == HA_JUDGE_SCORED)
        r = set_scores(json, &outcome->scores);
    else if (r == 0)
        r = ha_json_set(json, "fault", ha_json_new_string(outcome->fault));
    if (r == 0)
        text = ha_json_dump(json, HA_JSON_COMPACT);
    if (text)
        puts(text);
    r = text ? 0 : ha_error_set(err, ENOMEM, "out of memory");
    free(text);
    ha_json_destroy(json);
    return r;
}

static int reparse_line(const struct ha_json *line, int64_t number, struct ha_error *err)
{
    const struct ha_json *raw = ha_json_get(line, "raw");
    const struct ha_judge_end end = {
        .provider = ha_json_string(ha_json_get(line, "provider"), "generic"),
        .model = ha_json_string(ha_json_get(line, "model"), ""),
        .max_tokens = ha_json_int(ha_json_get(line, "max_tokens"), 0),
        .transport_text = "",
        .http_status = (int)ha_json_int(ha_json_get(line, "http_status"), 200),
        .raw = ha_json_string(raw, ""),
        .raw_size = ha_json_string_size(raw)};
    struct ha_judge_outcome outcome;
    int r;

    if (!ha_json_is(raw, HA_JSON_STRING))
        return ha_error_set(err, EINVAL, "standard input:%lld: a line must hold \"raw\", a text",
                            (long long)number);
    r = ha_judge_outcome_read(&end, &outcome, err);
    if (r < 0)
        return r;
    r = print_outcome(line, &outcome, err);
    ha_judge_outcome_clear(&outcome);
    return r;
}

static int reparse(struct ha_error *err)
{
    struct ha_jsonl *reader;
    struct ha_json *line;
    int r = ha_jsonl_open("-", 0, &reader, err);

    if (r < 0)
        return r;
    while ((r = ha_jsonl_next(reader, &line, err)) == 1) {
        r = reparse_line(line, ha_jsonl_line(reader), err);
        ha_json_destroy(line);
        if (r < 0)
            break;
    }
    ha_jsonl_close(reader);
    return r;
}

int ha_judge_command_reparse(int argc, char **argv, struct ha_error *err)
{
    struct ha_arguments *arguments;
    int r = ha_arguments_parse(&command, argc, (const char *const *)argv, 2, &arguments, err);

    if (r < 0)
        return r;
    if (ha_arguments_help(arguments))
        ha_command_print_help(&command);
    else
        r = reparse(err);
    ha_arguments_destroy(arguments);
    return r;
}
