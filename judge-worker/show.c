#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arguments.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/sweep.h"
#include "common/io/file.h"
#include "judge-worker/commands.h"
#include "judge-worker/identity.h"
#include "judge-worker/profile.h"
#include "judge-worker/request.h"

enum { TEXT_BYTES = 4 << 20 };

static const struct ha_option options[] = {
    {"grid-judge", "FILE", "the [[judge]] table as JSON, {\"base_url\": ..., \"model\": ...}"},
    {"prompt-text", "TEXT", "the dialogue; @FILE reads a file"},
    {"answer", "TEXT", "the answer to be judged; @FILE reads a file"},
    {"fault", "TEXT", "show the question that follows a reply with this fault"},
};

static const struct ha_command command = {
    .name = "ha-judge-worker show",
    .synopsis = "",
    .summary = "Print the exact first request of a judge as JSON, its key masked, with estimates.",
    .example = "ha-judge-worker show --grid-judge judge.json --prompt-text $'\\n\\nHuman: "
               "Hi\\n\\nAssistant:' --answer 'Hello!'",
    .options = options,
    .n_options = sizeof options / sizeof options[0]};

static int read_text(const char *given, char **ret_text, struct ha_error *err)
{
    size_t size;

    if (given[0] == '@')
        return ha_file_read(given + 1, TEXT_BYTES, ret_text, &size, err);
    *ret_text = strdup(given);
    return *ret_text ? 0 : ha_error_set(err, ENOMEM, "out of memory");
}

static int load_judge(const char *path, struct ha_sweep_judge *judge, struct ha_error *err)
{
    struct ha_json *json;
    int r = ha_section_init(&ha_sweep_judge_section, judge, err);

    if (r == 0)
        r = ha_json_load(path, TEXT_BYTES, &json, err);
    if (r < 0)
        return r;
    r = ha_section_from_json(&ha_sweep_judge_section, json, path, judge, err);
    ha_json_destroy(json);
    if (r == 0 && (!judge->base_url || !judge->model))
        r = ha_error_set(err, EINVAL, "%s: base_url and model must be given", path);
    return r;
}

static int set_text(struct ha_json *json, const char *key, const char *text)
{
    return ha_json_set(json, key, ha_json_new_string(text));
}

static struct ha_json *headers_json(const struct ha_sweep_judge *judge)
{
    bool own = ha_judge_profile_find(judge->provider)->api_key_header;
    bool key = judge->api_key || judge->api_key_env || judge->api_key_file;
    struct ha_json *json = ha_json_new_object();
    int r = json ? set_text(json, "Content-Type", "application/json") : -ENOMEM;

    if (r == 0)
        r = set_text(json, "Accept", "application/json");
    if (r == 0 && key)
        r = set_text(json, own ? "api-key" : "Authorization", own ? "***" : "Bearer ***");
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

/* What the call is expected to take, and to cost at most. */
static struct ha_json *estimate_json(const struct ha_sweep_judge *judge,
                                     const struct ha_judge_request *request)
{
    struct ha_json *json = ha_json_new_object();
    int r = json ? ha_json_set(json, "prompt_tokens", ha_json_new_int(request->prompt_tokens))
                 : -ENOMEM;

    if (r == 0)
        r = ha_json_set(json, "completion_tokens_at_most", ha_json_new_int(request->max_tokens));
    if (r == 0)
        r = ha_json_set(
            json, "price_at_most",
            ha_json_new_real(ha_judge_price(judge, request->prompt_tokens, request->max_tokens)));
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static int build_json(const struct ha_sweep_judge *judge, const struct ha_judge_request *request,
                      struct ha_json *json, struct ha_error *err)
{
    const char *label = ha_judge_profile_find(judge->provider)->label;
    char identity[HA_SHA256_HEX_BYTES];
    struct ha_json *body = NULL, *parts = NULL;
    int r = ha_judge_identity(judge, identity, err);

    if (r == 0)
        r = ha_judge_identity_json(judge, &parts, err);
    if (r == 0)
        r = ha_json_parse(request->body, request->body_size, "request", &body, err);
    if (r < 0) {
        ha_json_destroy(parts);
        return r;
    }
    r = set_text(json, "method", "POST");
    if (r == 0)
        r = set_text(json, "url", request->url);
    if (r == 0)
        r = ha_json_set(json, "headers", headers_json(judge));
    if (r == 0)
        r = ha_json_set(json, "body", body);
    else
        ha_json_destroy(body);
    if (r == 0)
        r = ha_json_set(json, "estimate", estimate_json(judge, request));
    if (r == 0)
        r = set_text(json, "identity", identity);
    if (r == 0)
        r = ha_json_set(json, "identity_of", parts);
    else
        ha_json_destroy(parts);
    if (r == 0 && label)
        r = set_text(json, "label", label);
    return r < 0 ? ha_error_set(err, -r, "out of memory") : 0;
}

static int print_request(const struct ha_sweep_judge *judge, const struct ha_judge_request *request,
                         struct ha_error *err)
{
    struct ha_json *json = ha_json_new_object();
    char *text = NULL;
    int r =
        json ? build_json(judge, request, json, err) : ha_error_set(err, ENOMEM, "out of memory");

    if (r == 0) {
        text = ha_json_dump(json, HA_JSON_PRETTY);
        r = text ? 0 : ha_error_set(err, ENOMEM, "out of memory");
    }
    if (r == 0)
        puts(text);
    free(text);
    ha_json_destroy(json);
    return r;
}

static int show(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *path = ha_arguments_value(arguments, "grid-judge", NULL);
    struct ha_judge_request request = {0};
    struct ha_judge_question question = {.fault = ha_arguments_value(arguments, "fault", "")};
    struct ha_sweep_judge judge;
    char *prompt = NULL, *answer = NULL;
    int r;

    memset(&judge, 0, sizeof judge);
    if (!path)
        return ha_error_set(err, EINVAL, "--grid-judge FILE must be given; see --help");
    r = load_judge(path, &judge, err);
    if (r == 0)
        r = read_text(
            ha_arguments_value(arguments, "prompt-text", "\n\nHuman: What is a hat?\n\nAssistant:"),
            &prompt, err);
    if (r == 0)
        r = read_text(ha_arguments_value(arguments, "answer", "A hat is worn on the head."),
                      &answer, err);
    if (r == 0) {
        question.prompt = prompt;
        question.answer = answer;
        r = ha_judge_request_build(&judge, &question, &request, err);
    }
    if (r == 0)
        r = print_request(&judge, &request, err);
    ha_judge_request_clear(&request);
    ha_section_clear(&ha_sweep_judge_section, &judge);
    free(prompt);
    free(answer);
    return r;
}

int ha_judge_command_show(int argc, char **argv, struct ha_error *err)
{
    struct ha_arguments *arguments;
    int r = ha_arguments_parse(&command, argc, (const char *const *)argv, 2, &arguments, err);

    if (r < 0)
        return r;
    if (ha_arguments_help(arguments))
        ha_command_print_help(&command);
    else
        r = show(arguments, err);
    ha_arguments_destroy(arguments);
    return r;
}
