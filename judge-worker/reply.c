#include "judge-worker/reply.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "judge-worker/json_scan.h"

static void excerpt(const char *text, size_t size, char out[HA_JUDGE_EXCERPT_BYTES])
{
    size_t n = 0;

    for (size_t i = 0; i < size && n + 1 < HA_JUDGE_EXCERPT_BYTES; i++) {
        unsigned char c = (unsigned char)text[i];

        if (isspace(c) && (n == 0 || out[n - 1] == ' '))
            continue;
        out[n++] = isspace(c) ? ' ' : c >= 0x20 && c < 0x7f ? (char)c : '?';
    }
    out[n] = '\0';
}

/* Copy a text member; a number is written as text.  Absent, null, empty: NULL. */
static int copy(const struct ha_json *json, char **ret_text, size_t *ret_size)
{
    const char *text = ha_json_string(json, NULL);
    size_t size = ha_json_string_size(json);
    char *out = NULL;

    if (text && size > 0)
        out = ha_strndup(text, size);
    else if (ha_json_is(json, HA_JSON_INT))
        out = ha_format("%lld", (long long)ha_json_int(json, 0));
    else
        return 0;
    if (!out)
        return -ENOMEM;
    *ret_text = out;
    if (ret_size)
        *ret_size = text ? size : strlen(out);
    return 0;
}

/* Content as a list of parts: their texts one after another. */
static int copy_parts(const struct ha_json *parts, struct ha_judge_reply *reply)
{
    struct ha_buffer text;
    int r = 0;

    ha_buffer_init(&text, 0);
    for (int64_t i = 0; i < ha_json_size(parts) && r == 0; i++) {
        const struct ha_json *part = ha_json_get(ha_json_at(parts, i), "text");

        r = ha_buffer_append(&text, ha_json_string(part, ""), ha_json_string_size(part));
    }
    if (r == 0 && text.size > 0) {
        reply->content_size = text.size;
        reply->content = ha_buffer_detach(&text);
        r = reply->content ? 0 : -ENOMEM;
    }
    ha_buffer_clear(&text);
    return r;
}

static int read_chat(const struct ha_json *root, struct ha_judge_reply *reply)
{
    const struct ha_json *choice = ha_json_at(ha_json_get(root, "choices"), 0);
    const struct ha_json *message = ha_json_get(choice, "message");
    const struct ha_json *content = ha_json_get(message, "content");
    const struct ha_json *usage = ha_json_get(root, "usage");
    const char *finish = ha_json_string(ha_json_get(choice, "finish_reason"), "");
    int r;

    reply->kind = choice ? HA_JUDGE_REPLY_CHAT : HA_JUDGE_REPLY_EMPTY;
    reply->prompt_tokens = ha_json_int(ha_json_get(usage, "prompt_tokens"), -1);
    reply->completion_tokens = ha_json_int(ha_json_get(usage, "completion_tokens"), -1);
    if (strlen(finish) < sizeof reply->finish)
        memcpy(reply->finish, finish, strlen(finish) + 1);
    r = copy(ha_json_get(root, "model"), &reply->model, NULL);
    if (r == 0)
        r = copy(ha_json_get(message, "refusal"), &reply->refusal, NULL);
    if (r == 0)
        r = copy(ha_json_get(message, "reasoning_content"), &reply->reasoning,
                 &reply->reasoning_size);
    if (r == 0 && !reply->reasoning)
        r = copy(ha_json_get(message, "reasoning"), &reply->reasoning, &reply->reasoning_size);
    if (r == 0 && ha_json_is(content, HA_JSON_ARRAY))
        return copy_parts(content, reply);
    return r == 0 ? copy(content, &reply->content, &reply->content_size) : r;
}

/* The object that holds code, type and message; NULL when root is no error. */
static const struct ha_json *find_error(const struct ha_json *root)
{
    const struct ha_json *error = ha_json_get(root, "error");

    if (error && !ha_json_is(error, HA_JSON_NULL))
        return error;
    if (ha_json_get(root, "choices"))
        return NULL;
    if (ha_json_get(root, "detail") && ha_json_size(root) <= 2)
        return ha_json_get(root, "detail");
    return ha_json_is(ha_json_get(root, "message"), HA_JSON_STRING) ? root : NULL;
}

static int read_error(const struct ha_json *error, struct ha_judge_reply *reply)
{
    char *dump;
    int r = 0;

    reply->kind = HA_JUDGE_REPLY_ERROR;
    if (ha_json_is(error, HA_JSON_OBJECT)) {
        r = copy(ha_json_get(error, "code"), &reply->error_code, NULL);
        if (r == 0)
            r = copy(ha_json_get(error, "type"), &reply->error_type, NULL);
        if (r == 0)
            r = copy(ha_json_get(error, "message"), &reply->error_message, NULL);
    } else {
        r = copy(error, &reply->error_message, NULL);
    }
    if (r < 0 || reply->error_message)
        return r;
    dump = ha_json_dump(error, HA_JSON_COMPACT);
    reply->error_message = dump;
    return dump ? 0 : -ENOMEM;
}

static int read_json(const char *text, size_t size, struct ha_judge_reply *reply)
{
    struct ha_json *root = NULL;
    struct ha_buffer mended;
    unsigned mends;
    size_t end;
    int r = 0;

    ha_buffer_init(&mended, 0);
    if (ha_judge_scan(text, size, 0, &mended, &end, &mends) == HA_JUDGE_SCAN_VALUE)
        r = ha_json_parse(mended.data, mended.size, "reply", &root, NULL);
    if (r != -ENOMEM)
        r = 0;
    if (ha_json_is(root, HA_JSON_OBJECT)) {
        const struct ha_json *error = find_error(root);

        r = error ? read_error(error, reply) : read_chat(root, reply);
    }
    ha_json_destroy(root);
    ha_buffer_clear(&mended);
    return r;
}

int ha_judge_reply_read(const void *bytes, size_t size, struct ha_judge_reply *ret_reply,
                        struct ha_error *err)
{
    struct ha_judge_reply reply = {
        .kind = HA_JUDGE_REPLY_OTHER, .prompt_tokens = -1, .completion_tokens = -1};
    const char *text = bytes;
    int r = 0;

    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        size -= 3;
    }
    while (size > 0 && isspace((unsigned char)text[0])) {
        text++;
        size--;
    }
    if (size == 0)
        reply.kind = HA_JUDGE_REPLY_EMPTY;
    else if (text[0] == '<')
        reply.kind = HA_JUDGE_REPLY_HTML;
    else if ((size >= 5 && memcmp(text, "data:", 5) == 0) ||
             (size >= 6 && memcmp(text, "event:", 6) == 0))
        reply.kind = HA_JUDGE_REPLY_STREAM;
    else if (text[0] == '{')
        r = read_json(text, size, &reply);
    excerpt(text, size, reply.excerpt);
    if (r < 0) {
        ha_judge_reply_clear(&reply);
        return ha_error_set(err, -r, "no memory to read a reply");
    }
    *ret_reply = reply;
    return 0;
}

void ha_judge_reply_clear(struct ha_judge_reply *reply)
{
    free(reply->content);
    free(reply->reasoning);
    free(reply->refusal);
    free(reply->model);
    free(reply->error_code);
    free(reply->error_type);
    free(reply->error_message);
    memset(reply, 0, sizeof *reply);
}
