#include "common/conf/settings_value.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

static int no_memory(struct ha_error *err)
{
    return ha_error_set(err, ENOMEM, "out of memory");
}

void ha_setting_value_clear(struct ha_setting_value *value)
{
    for (int64_t i = 0; i < value->count; i++)
        ha_setting_value_clear(&value->items[i]);
    free(value->items);
    free(value->text);
    *value = (struct ha_setting_value){0};
}

/* A TOML table as JSON, for settings that are objects. */
static struct ha_json *json_from_toml(const struct ha_toml *node)
{
    struct ha_json *json = NULL;
    int r = 0;

    switch (ha_toml_type(node)) {
    case HA_TOML_STRING:
    case HA_TOML_TIME:
        return ha_json_new_string_n(ha_toml_string(node, ""), ha_toml_string_bytes(node));
    case HA_TOML_INT:
        return ha_json_new_int(ha_toml_int(node, 0));
    case HA_TOML_REAL:
        return ha_json_new_real(ha_toml_real(node, 0));
    case HA_TOML_BOOL:
        return ha_json_new_bool(ha_toml_bool(node, false));
    case HA_TOML_ARRAY:
        json = ha_json_new_array();
        for (int64_t i = 0; json && r == 0 && i < ha_toml_size(node); i++)
            r = ha_json_append(json, json_from_toml(ha_toml_at(node, i)));
        break;
    case HA_TOML_TABLE:
        json = ha_json_new_object();
        for (int64_t i = 0; json && r == 0 && i < ha_toml_size(node); i++)
            r = ha_json_set(json, ha_toml_key(ha_toml_at(node, i)),
                            json_from_toml(ha_toml_at(node, i)));
        break;
    }
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

static int take_json_text(const struct ha_json *json, struct ha_setting_value *value,
                          struct ha_error *err)
{
    value->type = HA_TOML_TABLE;
    value->text = json ? ha_json_dump(json, HA_JSON_CANONICAL) : NULL;
    return value->text ? 0 : no_memory(err);
}

static int take_text(const char *text, size_t bytes, struct ha_setting_value *value,
                     struct ha_error *err)
{
    value->text = ha_strndup(text, bytes);
    value->binary = memchr(text, '\0', bytes) != NULL;
    return value->text ? 0 : no_memory(err);
}

int ha_setting_value_from_toml(const struct ha_toml *node, struct ha_setting_value *ret_value,
                               struct ha_error *err)
{
    struct ha_setting_value value = {.type = ha_toml_type(node)};
    struct ha_json *json = NULL;
    int r = 0;

    value.integer = ha_toml_int(node, 0);
    value.real = ha_toml_real(node, 0);
    value.boolean = ha_toml_bool(node, false);
    if (value.type == HA_TOML_STRING || value.type == HA_TOML_TIME) {
        r = take_text(ha_toml_string(node, ""), ha_toml_string_bytes(node), &value, err);
    } else if (value.type == HA_TOML_TABLE) {
        json = json_from_toml(node);
        r = take_json_text(json, &value, err);
        ha_json_destroy(json);
    } else if (value.type == HA_TOML_ARRAY) {
        value.items = ha_calloc(ha_toml_size(node), sizeof(*value.items));
        if (!value.items)
            return no_memory(err);
        for (; r == 0 && value.count < ha_toml_size(node); value.count++)
            r = ha_setting_value_from_toml(ha_toml_at(node, value.count), &value.items[value.count],
                                           err);
    }
    if (r < 0) {
        ha_setting_value_clear(&value);
        return r;
    }
    *ret_value = value;
    return 0;
}

int ha_setting_value_from_json(const struct ha_json *json, struct ha_setting_value *ret_value,
                               struct ha_error *err)
{
    static const enum ha_toml_type types[] = {
        [HA_JSON_NULL] = HA_TOML_TABLE,    [HA_JSON_BOOL] = HA_TOML_BOOL,
        [HA_JSON_INT] = HA_TOML_INT,       [HA_JSON_REAL] = HA_TOML_REAL,
        [HA_JSON_STRING] = HA_TOML_STRING, [HA_JSON_ARRAY] = HA_TOML_ARRAY,
        [HA_JSON_OBJECT] = HA_TOML_TABLE,
    };
    struct ha_setting_value value = {.type = types[ha_json_type(json)]};
    int r = 0;

    if (ha_json_type(json) == HA_JSON_NULL)
        return ha_error_set(err, EINVAL, "must not be null");
    value.integer = ha_json_int(json, 0);
    value.real = ha_json_real(json, 0);
    value.boolean = ha_json_bool(json, false);
    if (value.type == HA_TOML_STRING) {
        r = take_text(ha_json_string(json, ""), ha_json_string_size(json), &value, err);
    } else if (value.type == HA_TOML_TABLE) {
        r = take_json_text(json, &value, err);
    } else if (value.type == HA_TOML_ARRAY) {
        value.items = ha_calloc(ha_json_size(json), sizeof(*value.items));
        if (!value.items)
            return no_memory(err);
        for (; r == 0 && value.count < ha_json_size(json); value.count++)
            r = ha_setting_value_from_json(ha_json_at(json, value.count), &value.items[value.count],
                                           err);
    }
    if (r < 0) {
        ha_setting_value_clear(&value);
        return r;
    }
    *ret_value = value;
    return 0;
}

/* Text as the right side of a TOML assignment.  -EINVAL when it is none. */
static int value_from_toml_text(const char *text, struct ha_setting_value *ret_value,
                                struct ha_error *err)
{
    struct ha_toml *root = NULL;
    char *document;
    int r;

    if (strchr(text, '\n'))
        return ha_error_set(err, EINVAL, "must be one line");
    document = ha_format("value = %s\n", text);
    if (!document)
        return no_memory(err);
    r = ha_toml_parse(document, strlen(document), "", &root, NULL);
    if (r == 0 && ha_toml_size(root) == 1)
        r = ha_setting_value_from_toml(ha_toml_get(root, "value"), ret_value, err);
    else if (r == -ENOMEM)
        r = no_memory(err);
    else
        r = ha_error_set(err, EINVAL, "cannot read \"%s\"", text);
    ha_toml_destroy(root);
    free(document);
    return r;
}

/* Digits as TOML and C both read them.  What is no number stays text, so that
 * the row can say what it wants. */
static int value_from_number(const char *text, struct ha_setting_value *ret_value,
                             struct ha_error *err)
{
    struct ha_setting_value value = {.type = HA_TOML_INT};
    bool plain = *text && text[strspn(text, "0123456789+-.eE")] == '\0';
    char *end = NULL;

    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        value.type = HA_TOML_BOOL;
        value.boolean = text[0] == 't';
    } else if (!plain) {
        value.type = HA_TOML_STRING;
    } else {
        errno = 0;
        value.integer = strtoll(text, &end, 10);
        value.real = (double)value.integer;
        if (errno || *end) {
            value = (struct ha_setting_value){.type = HA_TOML_REAL, .real = strtod(text, &end)};
            value.type = *end ? HA_TOML_STRING : HA_TOML_REAL;
        }
    }
    if (value.type == HA_TOML_STRING && take_text(text, strlen(text), &value, err) < 0)
        return -ENOMEM;
    *ret_value = value;
    return 0;
}

static int value_from_bare_list(const char *text, struct ha_setting_value *ret_value,
                                struct ha_error *err)
{
    struct ha_setting_value value = {.type = HA_TOML_ARRAY};
    int64_t capacity = 0;
    int r = 0;

    for (const char *at = text; r == 0 && *text; at = at + strcspn(at, ",") + 1) {
        struct ha_setting_value *item;

        if (ha_grow((void **)&value.items, &capacity, value.count + 1, sizeof(*value.items)) < 0) {
            r = no_memory(err);
            break;
        }
        item = &value.items[value.count++];
        *item = (struct ha_setting_value){.type = HA_TOML_STRING};
        r = take_text(at, strcspn(at, ","), item, err);
        if (at[strcspn(at, ",")] == '\0')
            break;
    }
    if (r < 0) {
        ha_setting_value_clear(&value);
        return r;
    }
    *ret_value = value;
    return 0;
}

static int value_from_object_text(const char *text, struct ha_setting_value *ret_value,
                                  struct ha_error *err)
{
    struct ha_json *json = NULL;
    int r = ha_json_parse(text, strlen(text), "", &json, NULL);

    if (r == -ENOMEM)
        return no_memory(err);
    if (r < 0)
        return value_from_toml_text(text, ret_value, err);
    r = ha_setting_value_from_json(json, ret_value, err);
    ha_json_destroy(json);
    return r;
}

int ha_setting_value_from_text(const struct ha_setting *row, const char *text,
                               struct ha_setting_value *ret_value, struct ha_error *err)
{
    struct ha_setting_value value = {.type = HA_TOML_STRING};
    bool quoted = text[0] == '"' || text[0] == '\'';
    char *array;
    int r;

    switch (row->type) {
    case HA_SETTING_INT:
    case HA_SETTING_REAL:
    case HA_SETTING_BOOL:
        return value_from_number(text, ret_value, err);
    case HA_SETTING_LIST:
        if (text[0] == '[' || (row->single && quoted))
            return value_from_toml_text(text, ret_value, err);
        if (!row->numbers)
            return value_from_bare_list(text, ret_value, err);
        array = ha_format("[%s]", text);
        r = array ? value_from_toml_text(array, ret_value, err) : no_memory(err);
        free(array);
        return r;
    case HA_SETTING_OBJECT:
        return value_from_object_text(text, ret_value, err);
    case HA_SETTING_LAYERS:
        quoted = quoted || text[0] == '[';
        break;
    case HA_SETTING_TEXT:
    case HA_SETTING_CHOICE:
    case HA_SETTING_DURATION:
        break;
    }
    if (quoted)
        return value_from_toml_text(text, ret_value, err);
    r = take_text(text, strlen(text), &value, err);
    if (r == 0)
        *ret_value = value;
    return r;
}

const char *ha_setting_value_show(const struct ha_setting_value *value, char *text, size_t bytes)
{
    char real[HA_REAL_TEXT_BYTES];

    switch (value->type) {
    case HA_TOML_STRING:
        (void)snprintf(text, bytes, "\"%.60s\"", value->text);
        break;
    case HA_TOML_INT:
        (void)snprintf(text, bytes, "%lld", (long long)value->integer);
        break;
    case HA_TOML_REAL:
        (void)snprintf(text, bytes, "%s", ha_real_text(value->real, real));
        break;
    case HA_TOML_BOOL:
        (void)snprintf(text, bytes, "%s", value->boolean ? "true" : "false");
        break;
    case HA_TOML_TIME:
        (void)snprintf(text, bytes, "a date or time");
        break;
    case HA_TOML_ARRAY:
        (void)snprintf(text, bytes, "an array");
        break;
    case HA_TOML_TABLE:
        (void)snprintf(text, bytes, "a table");
        break;
    }
    return text;
}
