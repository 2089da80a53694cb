#include "judge-worker/request.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/conf/json.h"
#include "common/conf/sweep.h"
#include "judge-worker/profile.h"
#include "judge-worker/prompt.h"
#include "judge-worker/url.h"

/* Tokenizers make more than three bytes of a token in every language that an
 * evaluator is used for, so this is an upper estimate; the chat template adds a few. */
enum { BYTES_PER_TOKEN = 3, TEMPLATE_TOKENS = 16 };

static int add_message(struct ha_json *messages, const char *role, const struct ha_buffer *content)
{
    struct ha_json *message = ha_json_new_object();
    int r = message ? 0 : -ENOMEM;

    if (r == 0)
        r = ha_json_set(message, "role", ha_json_new_string(role));
    if (r == 0)
        r = ha_json_set(message, "content", ha_json_new_string_n(content->data, content->size));
    if (r < 0) {
        ha_json_destroy(message);
        return r;
    }
    return ha_json_append(messages, message);
}

static int add_messages(struct ha_json *body, const struct ha_buffer *system,
                        const struct ha_buffer *user)
{
    struct ha_json *messages = ha_json_new_array();
    int r = messages ? add_message(messages, "system", system) : -ENOMEM;

    if (r == 0)
        r = add_message(messages, "user", user);
    if (r < 0) {
        ha_json_destroy(messages);
        return r;
    }
    return ha_json_set(body, "messages", messages);
}

static bool is_qwen3_with_switch(const char *model)
{
    return strncasecmp(model, "qwen3", 5) == 0 && !strcasestr(model, "thinking") &&
           !strcasestr(model, "instruct");
}

/* A parameter that `extra` did not set already. */
static int set_default(struct ha_json *body, const char *key, struct ha_json *value)
{
    if (ha_json_get(body, key)) {
        ha_json_destroy(value);
        return 0;
    }
    return ha_json_set(body, key, value);
}

static int add_parameters(struct ha_json *body, const struct ha_sweep_judge *judge,
                          int64_t max_tokens)
{
    const struct ha_judge_profile *profile = ha_judge_profile_find(judge->provider);
    const struct ha_setting *seed = ha_section_find(&ha_sweep_judge_section, "seed");
    int r = set_default(body, "temperature",
                        judge->temperature == (double)(int64_t)judge->temperature
                            ? ha_json_new_int((int64_t)judge->temperature)
                            : ha_json_new_real(judge->temperature));

    if (r == 0)
        r = set_default(body, profile->max_tokens_key, ha_json_new_int(max_tokens));
    if (r == 0 && ha_section_given(&ha_sweep_judge_section, seed, judge))
        r = set_default(body, "seed", ha_json_new_int(judge->seed));
    if (r == 0 && profile->thinking_switch && is_qwen3_with_switch(judge->model))
        r = set_default(body, "enable_thinking", ha_json_new_bool(false));
    return r;
}

/* The object that the request is built on: what `extra` holds. */
static int begin_body(const char *extra, struct ha_json **ret_body, struct ha_error *err)
{
    static const char *const ours[] = {"messages", "model", "stream", "n"};
    struct ha_json *body = NULL;
    int r;

    r = ha_json_parse(extra ? extra : "{}", extra ? strlen(extra) : 2, "judge.extra", &body, err);
    for (int i = 0; i < 4 && r == 0; i++) {
        if (ha_json_get(body, ours[i]))
            r = ha_error_set(err, EINVAL, "judge.extra may not set \"%s\"", ours[i]);
    }
    if (r < 0)
        ha_json_destroy(body);
    else
        *ret_body = body;
    return r;
}

static int build_body(const struct ha_sweep_judge *judge, const struct ha_buffer *system,
                      const struct ha_buffer *user, struct ha_judge_request *request,
                      struct ha_error *err)
{
    struct ha_json *body;
    int r = begin_body(judge->extra, &body, err);

    if (r < 0)
        return r;
    r = ha_json_set(body, "model", ha_json_new_string(judge->model));
    if (r == 0)
        r = add_messages(body, system, user);
    if (r == 0)
        r = add_parameters(body, judge, request->max_tokens);
    if (r == 0) {
        request->body = ha_json_dump(body, HA_JSON_COMPACT);
        request->body_size = request->body ? strlen(request->body) : 0;
    }
    ha_json_destroy(body);
    if (r == 0 && !request->body)
        r = -ENOMEM;
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for a request") : r;
}

int ha_judge_request_build(const struct ha_sweep_judge *judge,
                           const struct ha_judge_question *question,
                           struct ha_judge_request *ret_request, struct ha_error *err)
{
    struct ha_judge_request request = {.max_tokens = judge->max_tokens};
    char nonce[HA_JUDGE_NONCE_BYTES];
    const char *fault = question->fault ? question->fault : "";
    struct ha_judge_prompt prompt = {.kind = judge->prompt,
                                     .prompt = question->prompt,
                                     .answer = question->answer,
                                     .nonce = nonce};
    struct ha_buffer system, user;
    int r;

    ha_buffer_init(&system, 0);
    ha_buffer_init(&user, 0);
    if (strncmp(fault, HA_JUDGE_FAULT_REPLY, strlen(HA_JUDGE_FAULT_REPLY)) == 0)
        prompt.fault = fault + strlen(HA_JUDGE_FAULT_REPLY);
    if (strncmp(fault, HA_JUDGE_FAULT_CUT, strlen(HA_JUDGE_FAULT_CUT)) == 0)
        request.max_tokens *= 2;
    r = ha_judge_prompt_nonce(question->prompt, question->answer, nonce, err);
    if (r == 0)
        r = ha_judge_prompt_build(&prompt, &system, &user, err);
    if (r == 0)
        r = ha_judge_url_chat(judge->base_url, &request.url, err);
    if (r == 0)
        r = build_body(judge, &system, &user, &request, err);
    request.prompt_tokens =
        (int64_t)((system.size + user.size) / BYTES_PER_TOKEN) + TEMPLATE_TOKENS;
    ha_buffer_clear(&system);
    ha_buffer_clear(&user);
    if (r < 0)
        ha_judge_request_clear(&request);
    else
        *ret_request = request;
    return r;
}

void ha_judge_request_clear(struct ha_judge_request *request)
{
    free(request->url);
    free(request->body);
    *request = (struct ha_judge_request){0};
}

double ha_judge_price(const struct ha_sweep_judge *judge, int64_t prompt_tokens,
                      int64_t completion_tokens)
{
    return ((double)prompt_tokens * judge->price_input +
            (double)completion_tokens * judge->price_output) /
           1e6;
}
