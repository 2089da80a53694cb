#include "worker/data/messages.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

static const char *const names[] = {
    [HA_ROLE_SYSTEM] = "system", [HA_ROLE_USER] = "user", [HA_ROLE_ASSISTANT] = "assistant"};

/* What begins a turn in hh-rlhf; "\n\nSystem:" is ours and only written. */
static const char *const markers[] = {[HA_ROLE_SYSTEM] = "\n\nSystem:",
                                      [HA_ROLE_USER] = "\n\nHuman:",
                                      [HA_ROLE_ASSISTANT] = "\n\nAssistant:"};

void ha_messages_clear(struct ha_messages *messages)
{
    free(messages->items);
    free(messages->storage);
    *messages = (struct ha_messages){0};
}

const char *ha_role_name(enum ha_role role)
{
    return names[role];
}

int ha_messages_add(struct ha_messages *messages, enum ha_role role, const char *text, size_t size)
{
    if (messages->count == messages->capacity &&
        ha_grow((void **)&messages->items, &messages->capacity, messages->count + 1,
                sizeof(*messages->items)) < 0)
        return -ENOMEM;
    messages->items[messages->count++] = (struct ha_message){role, text, size};
    return 0;
}

int ha_messages_join(struct ha_messages *messages, const struct ha_messages *more)
{
    int r = 0;

    for (int64_t i = 0; i < more->count && r == 0; i++)
        r = ha_messages_add(messages, more->items[i].role, more->items[i].text,
                            more->items[i].size);
    return r;
}

bool ha_message_equals(const struct ha_message *a, const struct ha_message *b)
{
    return a->role == b->role && a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

int64_t ha_messages_common(const struct ha_messages *a, const struct ha_messages *b)
{
    int64_t n = 0;

    while (n < a->count && n < b->count && ha_message_equals(&a->items[n], &b->items[n]))
        n++;
    return n;
}

/* ---- message lists ---- */

static int find_role(const char *name, enum ha_role *ret_role)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret_role = (enum ha_role)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* Checks a message and finds its role. */
static int check_message(const struct ha_json *json, int64_t index, enum ha_role *ret_role,
                         struct ha_error *err)
{
    const char *role = ha_json_string(ha_json_get(json, "role"), NULL);
    void *iterator = NULL;
    const char *key;
    struct ha_json *value;

    if (!ha_json_is(json, HA_JSON_OBJECT) || !role)
        return ha_error_set(err, EINVAL, "message %" PRId64 " is no {\"role\", \"content\"}",
                            index);
    if (find_role(role, ret_role) < 0)
        return ha_error_set(err, ENOTSUP,
                            "message %" PRId64 " has the role \"%s\"; system, user and assistant "
                            "are supported",
                            index, role);
    if (!ha_json_is(ha_json_get(json, "content"), HA_JSON_STRING))
        return ha_error_set(err, ENOTSUP, "the content of message %" PRId64 " is not a text",
                            index);
    while (ha_json_next(json, &iterator, &key, &value))
        if (strcmp(key, "role") != 0 && strcmp(key, "content") != 0 &&
            !ha_json_is(value, HA_JSON_NULL))
            return ha_error_set(err, ENOTSUP,
                                "message %" PRId64 " has \"%s\"; leave role and content alone",
                                index, key);
    return 0;
}

int ha_messages_from_json(const struct ha_json *array, struct ha_messages *ret,
                          struct ha_error *err)
{
    struct ha_messages messages = {0};
    int64_t n = ha_json_size(array);
    size_t bytes = 0;
    int r = 0;

    if (!ha_json_is(array, HA_JSON_ARRAY) || n == 0)
        return ha_error_set(err, EINVAL, "a list of messages is empty");
    for (int64_t i = 0; i < n && r == 0; i++) {
        const struct ha_json *json = ha_json_at(array, i);
        enum ha_role role = HA_ROLE_USER;
        size_t size;

        r = check_message(json, i, &role, err);
        if (r < 0)
            break;
        size = ha_json_string_size(ha_json_get(json, "content"));
        bytes += size;
        if (ha_messages_add(&messages, role, NULL, size) < 0)
            r = ha_error_set(err, ENOMEM, "no memory for messages");
    }
    messages.storage = r == 0 ? malloc(bytes > 0 ? bytes : 1) : NULL;
    if (r == 0 && !messages.storage)
        r = ha_error_set(err, ENOMEM, "no memory for messages");
    if (r < 0) {
        ha_messages_clear(&messages);
        return r;
    }
    bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        struct ha_message *message = &messages.items[i];

        message->text =
            memcpy(messages.storage + bytes,
                   ha_json_string(ha_json_get(ha_json_at(array, i), "content"), ""), message->size);
        bytes += message->size;
    }
    *ret = messages;
    return 0;
}

/* ---- dialogues ---- */

/* Bytes of the marker that text begins with, and its role; 0: none. */
static size_t marker_at(const char *text, size_t size, enum ha_role *ret_role)
{
    static const enum ha_role roles[] = {HA_ROLE_USER, HA_ROLE_ASSISTANT};

    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
        size_t length = strlen(markers[roles[i]]);

        if (size >= length && memcmp(text, markers[roles[i]], length) == 0) {
            *ret_role = roles[i];
            return length;
        }
    }
    return 0;
}

int ha_messages_from_dialogue(const char *text, size_t size, struct ha_messages *messages)
{
    enum ha_role role, next_role;
    size_t at = marker_at(text, size, &role);

    if (at == 0)
        return -EINVAL;
    while (at > 0) {
        size_t begin = at + (at < size && text[at] == ' '), end = begin, length = 0;

        for (; end < size; end++) {
            length = text[end] == '\n' ? marker_at(text + end, size - end, &next_role) : 0;
            if (length > 0)
                break;
        }
        if (ha_messages_add(messages, role, text + begin, end - begin) < 0)
            return -ENOMEM;
        role = next_role;
        at = length > 0 ? end + length : 0;
    }
    return 0;
}

int ha_messages_to_dialogue(const struct ha_messages *messages, struct ha_buffer *text)
{
    int r = 0;

    for (int64_t i = 0; i < messages->count && r == 0; i++) {
        const struct ha_message *message = &messages->items[i];

        r = ha_buffer_append_text(text, markers[message->role]);
        if (r == 0)
            r = ha_buffer_append_text(text, " ");
        if (r == 0)
            r = ha_buffer_append(text, message->text, message->size);
    }
    return r;
}
