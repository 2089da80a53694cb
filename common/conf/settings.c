/* settings.c - rows into structs: defaults, checks, files, --set */
#include "common/conf/settings.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/utf8.h"
#include "common/conf/json.h"
#include "common/conf/settings_value.h"

enum { SHOWN_BYTES = 80, NEAREST_KEYS = 80 };

static void *field(const struct ha_setting *row, void *values)
{
    return (char *)values + row->offset;
}

static int64_t index_of(const struct ha_section *section, const struct ha_setting *row)
{
    return row - section->rows;
}

static bool is_text(const struct ha_setting *row)
{
    return row->type == HA_SETTING_TEXT || row->type == HA_SETTING_CHOICE ||
           row->type == HA_SETTING_LAYERS || row->type == HA_SETTING_OBJECT;
}

void ha_text_list_clear(struct ha_text_list *list)
{
    for (int64_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct ha_text_list){0};
}

int ha_text_list_append(struct ha_text_list *list, const char *text, struct ha_error *err)
{
    char **items = ha_realloc(list->items, list->count + 1, sizeof(*items));

    if (items) {
        list->items = items;
        items[list->count] = ha_strdup(text);
    }
    if (!items || !items[list->count])
        return ha_error_set(err, ENOMEM, "out of memory");
    list->count++;
    return 0;
}

bool ha_text_list_has(const struct ha_text_list *list, const char *text)
{
    for (int64_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], text) == 0)
            return true;
    return false;
}

static void row_clear(const struct ha_setting *row, void *values)
{
    if (is_text(row)) {
        char **text = field(row, values);

        free(*text);
        *text = NULL;
    } else if (row->type == HA_SETTING_LIST) {
        ha_text_list_clear(field(row, values));
    }
}

/* --- checks ------------------------------------------------------------- */

static bool has_range(const struct ha_setting *row)
{
    return row->minimum != 0.0 || row->maximum != 0.0;
}

/* "must be an integer from 1 to 8, not 9" */
static int wrong_number(const struct ha_setting *row, const char *what,
                        const struct ha_setting_value *value, struct ha_error *err)
{
    char shown[SHOWN_BYTES], low[HA_REAL_TEXT_BYTES], high[HA_REAL_TEXT_BYTES];

    ha_setting_value_show(value, shown, sizeof(shown));
    ha_real_text(row->minimum, low);
    ha_real_text(row->maximum, high);
    if (!has_range(row))
        return ha_error_set(err, EINVAL, "must be %s, not %s", what, shown);
    if (row->above && isinf(row->maximum))
        return ha_error_set(err, EINVAL, "must be %s greater than %s, not %s", what, low, shown);
    if (row->above)
        return ha_error_set(err, EINVAL, "must be %s greater than %s and at most %s, not %s", what,
                            low, high, shown);
    if (isinf(row->maximum))
        return ha_error_set(err, EINVAL, "must be %s of at least %s, not %s", what, low, shown);
    return ha_error_set(err, EINVAL, "must be %s from %s to %s, not %s", what, low, high, shown);
}

static bool in_range(const struct ha_setting *row, double number)
{
    if (!isfinite(number))
        return false;
    return !has_range(row) || (number >= row->minimum && number <= row->maximum &&
                               !(row->above && number == row->minimum));
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);

    for (const char *at = choices; length > 0; at++) {
        size_t n = strcspn(at, "|");

        if (n == length && memcmp(at, text, n) == 0)
            return true;
        at += n;
        if (*at == '\0')
            break;
    }
    return false;
}

static int wrong_choice(const char *choices, const struct ha_setting_value *value,
                        struct ha_error *err)
{
    char shown[SHOWN_BYTES];

    ha_setting_value_show(value, shown, sizeof(shown));
    return ha_error_set(err, EINVAL, "must be one of %s, not %s", choices, shown);
}

static int check_text(const struct ha_setting *row, const struct ha_setting_value *value,
                      struct ha_error *err)
{
    char shown[SHOWN_BYTES];

    if (row->choices &&
        (value->type != HA_TOML_STRING || value->binary || !is_choice(row->choices, value->text)))
        return wrong_choice(row->choices, value, err);
    if (value->type != HA_TOML_STRING)
        return ha_error_set(err, EINVAL, "must be a string, not %s",
                            ha_setting_value_show(value, shown, sizeof(shown)));
    if (value->binary)
        return ha_error_set(err, EINVAL, "must not hold a zero byte");
    if (row->memory && !(row->otherwise && strcmp(value->text, row->otherwise) == 0) &&
        ha_memory_parse("", value->text, &(int64_t){0}, NULL) < 0)
        return ha_error_set(err, EINVAL,
                            "must be an amount of memory (\"24GiB\", \"512MiB\"), "
                            "not %s",
                            ha_setting_value_show(value, shown, sizeof(shown)));
    return 0;
}

/* "90s", "10m", "2h", "1d" or a plain number of seconds. */
static int duration_seconds(const struct ha_setting *row, const struct ha_setting_value *value,
                            int64_t *ret_seconds, struct ha_error *err)
{
    static const char units[] = "smhd";
    static const int64_t seconds[] = {1, 60, 3600, 86400};
    const char *form = "a duration (\"90s\", \"10m\", \"2h\", \"1d\" or seconds)";
    int64_t number = value->integer;
    const char *unit;
    char *end = NULL;

    if (value->type == HA_TOML_STRING && !value->binary) {
        errno = 0;
        number = strtoll(value->text, &end, 10);
        unit = end > value->text && *end ? strchr(units, *end) : NULL;
        if (errno || end == value->text || (*end && (!unit || end[1])))
            return wrong_number(row, form, value, err);
        if (unit && __builtin_mul_overflow(number, seconds[unit - units], &number))
            return wrong_number(row, form, value, err);
    } else if (value->type != HA_TOML_INT) {
        return wrong_number(row, form, value, err);
    }
    if (!in_range(row, (double)number) || number < 0)
        return wrong_number(row, form, value, err);
    *ret_seconds = number;
    return 0;
}

/* --- storing ------------------------------------------------------------ */

static int store_text(char **text, const char *from, struct ha_error *err)
{
    char *copy = ha_strdup(from);

    if (!copy)
        return ha_error_set(err, ENOMEM, "out of memory");
    free(*text);
    *text = copy;
    return 0;
}

static int append_item(const struct ha_setting *row, const struct ha_setting_value *item,
                       struct ha_text_list *list, struct ha_error *err)
{
    char number[HA_REAL_TEXT_BYTES];
    int r;

    if (!row->numbers) {
        r = check_text(row, item, err);
        return r < 0 ? r : ha_text_list_append(list, item->text, err);
    }
    if ((item->type != HA_TOML_REAL && item->type != HA_TOML_INT) || !in_range(row, item->real))
        return wrong_number(row, "an array of numbers", item, err);
    return ha_text_list_append(list, ha_real_text(item->real + 0.0, number), err);
}

static int store_list(const struct ha_setting *row, const struct ha_setting_value *value,
                      struct ha_text_list *list, struct ha_error *err)
{
    bool bare = row->single && value->type == HA_TOML_STRING;
    int64_t count = bare ? 1 : value->count;
    struct ha_text_list new = {0};
    char shown[SHOWN_BYTES];
    int r = 0;

    if (value->type != HA_TOML_ARRAY && !bare)
        return ha_error_set(err, EINVAL, "must be an array of %s, not %s",
                            row->numbers ? "numbers" : "strings",
                            ha_setting_value_show(value, shown, sizeof(shown)));
    for (int64_t i = 0; r == 0 && i < count; i++)
        r = append_item(row, bare ? value : &value->items[i], &new, err);
    if (r < 0) {
        ha_text_list_clear(&new);
        return r;
    }
    ha_text_list_clear(list);
    *list = new;
    return 0;
}

/* Layers keep the form of the range text: [18, 20] becomes "18,20". */
static int store_layers(const struct ha_setting_value *value, char **text, struct ha_error *err)
{
    char *joined = ha_strdup("");
    char shown[SHOWN_BYTES];
    int r = 0;

    if (value->type == HA_TOML_STRING && !value->binary) {
        r = store_text(text, value->text, err);
        goto out;
    }
    if (value->type != HA_TOML_ARRAY) {
        r = ha_error_set(err, EINVAL, "must be layers as \"18-27\" or [18, 20], not %s",
                         ha_setting_value_show(value, shown, sizeof(shown)));
        goto out;
    }
    for (int64_t i = 0; joined && i < value->count; i++) {
        const struct ha_setting_value *item = &value->items[i];
        char *longer;

        if (item->type != HA_TOML_INT) {
            r = ha_error_set(err, EINVAL, "must be an array of layer numbers, not of %s",
                             ha_setting_value_show(item, shown, sizeof(shown)));
            goto out;
        }
        longer = ha_format("%s%s%lld", joined, i ? "," : "", (long long)item->integer);
        free(joined);
        joined = longer;
    }
    r = joined ? store_text(text, joined, err) : ha_error_set(err, ENOMEM, "out of memory");
out:
    free(joined);
    return r;
}

int ha_setting_store(const struct ha_setting *row, const struct ha_setting_value *value,
                     void *values, struct ha_error *err)
{
    void *to = field(row, values);
    char shown[SHOWN_BYTES];
    int r;

    switch (row->type) {
    case HA_SETTING_INT:
        if (value->type != HA_TOML_INT || !in_range(row, (double)value->integer))
            return wrong_number(row, "an integer", value, err);
        *(int64_t *)to = value->integer;
        return 0;
    case HA_SETTING_REAL:
        if ((value->type != HA_TOML_REAL && value->type != HA_TOML_INT) ||
            !in_range(row, value->real))
            return wrong_number(row, "a number", value, err);
        *(double *)to = value->real + 0.0; /* -0 is 0, here and in what is made of it */
        return 0;
    case HA_SETTING_BOOL:
        if (value->type != HA_TOML_BOOL)
            return ha_error_set(err, EINVAL, "must be true or false, not %s",
                                ha_setting_value_show(value, shown, sizeof(shown)));
        *(bool *)to = value->boolean;
        return 0;
    case HA_SETTING_TEXT:
    case HA_SETTING_CHOICE:
        r = check_text(row, value, err);
        return r < 0 ? r : store_text(to, value->text, err);
    case HA_SETTING_LIST:
        return store_list(row, value, to, err);
    case HA_SETTING_DURATION:
        return duration_seconds(row, value, to, err);
    case HA_SETTING_LAYERS:
        return store_layers(value, to, err);
    case HA_SETTING_OBJECT:
        if (value->type != HA_TOML_TABLE)
            return ha_error_set(err, EINVAL, "must be a table, not %s",
                                ha_setting_value_show(value, shown, sizeof(shown)));
        return store_text(to, value->text, err);
    }
    return ha_error_set(err, EINVAL, "has no type");
}

static int set_from_text(const struct ha_setting *row, const char *text, void *values,
                         struct ha_error *err)
{
    struct ha_setting_value value = {0};
    int r = ha_setting_value_from_text(row, text, &value, err);

    if (r == 0)
        r = ha_setting_store(row, &value, values, err);
    ha_setting_value_clear(&value);
    return r;
}

/* --- the interface ------------------------------------------------------ */

const struct ha_setting *ha_section_find(const struct ha_section *section, const char *key)
{
    for (int64_t i = 0; i < section->count; i++)
        if (strcmp(section->rows[i].key, key) == 0)
            return &section->rows[i];
    return NULL;
}

bool ha_section_given(const struct ha_section *section, const struct ha_setting *row,
                      const void *values)
{
    return (*(const uint64_t *)values >> index_of(section, row)) & 1;
}

static void mark_given(const struct ha_section *section, const struct ha_setting *row, void *values)
{
    *(uint64_t *)values |= UINT64_C(1) << index_of(section, row);
}

int ha_section_init(const struct ha_section *section, void *values, struct ha_error *err)
{
    memset(values, 0, section->bytes);
    for (int64_t i = 0; i < section->count; i++) {
        const struct ha_setting *row = &section->rows[i];
        int r = 0;

        if (row->otherwise && row->otherwise[0] != '@')
            r = set_from_text(row, row->otherwise, values, err);
        if (r < 0)
            return ha_error_prefix(err, "default of %s.%s", section->name, row->key);
    }
    return 0;
}

void ha_section_clear(const struct ha_section *section, void *values)
{
    for (int64_t i = 0; i < section->count; i++)
        row_clear(&section->rows[i], values);
    memset(values, 0, section->bytes);
}

static int list_copy(const struct ha_text_list *from, struct ha_text_list *to, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < from->count; i++)
        r = ha_text_list_append(to, from->items[i], err);
    return r;
}

int ha_section_copy(const struct ha_section *section, const void *values, void *ret_values,
                    struct ha_error *err)
{
    int r = 0;

    memcpy(ret_values, values, section->bytes);
    /* First forget what belongs to the other struct, so that clearing half a copy is right. */
    for (int64_t i = 0; i < section->count; i++) {
        if (is_text(&section->rows[i]))
            *(char **)field(&section->rows[i], ret_values) = NULL;
        else if (section->rows[i].type == HA_SETTING_LIST)
            *(struct ha_text_list *)field(&section->rows[i], ret_values) = (struct ha_text_list){0};
    }
    for (int64_t i = 0; r == 0 && i < section->count; i++) {
        const struct ha_setting *row = &section->rows[i];
        const void *from = (const char *)values + row->offset;

        if (is_text(row) && *(char *const *)from)
            r = store_text(field(row, ret_values), *(char *const *)from, err);
        else if (row->type == HA_SETTING_LIST)
            r = list_copy(from, field(row, ret_values), err);
    }
    if (r < 0)
        ha_section_clear(section, ret_values);
    return r;
}

static int unknown_key(const struct ha_section *section, const char *where, const char *key,
                       struct ha_error *err)
{
    const char *keys[NEAREST_KEYS], *nearest;
    const char *dot = section->name[0] ? "." : "";

    for (int64_t i = 0; i < section->count && i < NEAREST_KEYS; i++)
        keys[i] = section->rows[i].key;
    nearest = ha_settings_nearest(key, keys, section->count);
    if (nearest)
        return ha_error_set(err, EINVAL, "%s: unknown key %s%s%.60s; did you mean %s?", where,
                            section->name, dot, key, nearest);
    return ha_error_set(err, EINVAL, "%s: unknown key %s%s%.60s", where, section->name, dot, key);
}

static bool is_skipped(const char *const *skip, const struct ha_toml *node)
{
    for (; skip && *skip; skip++)
        if (strcmp(*skip, ha_toml_key(node)) == 0)
            return true;
    return false;
}

static int read_member(const struct ha_section *section, const struct ha_toml *node,
                       const char *file, void *values, struct ha_error *err)
{
    const struct ha_setting *row = ha_section_find(section, ha_toml_key(node));
    const char *dot = section->name[0] ? "." : "";
    struct ha_setting_value value = {0};
    char where[HA_ERROR_TEXT_BYTES];
    int r;

    (void)snprintf(where, sizeof(where), "%s:%lld", file, (long long)ha_toml_key_line(node));
    if (!row)
        return unknown_key(section, where, ha_toml_key(node), err);
    r = ha_setting_value_from_toml(node, &value, err);
    if (r == 0)
        r = ha_setting_store(row, &value, values, err);
    ha_setting_value_clear(&value);
    if (r < 0) {
        struct ha_error inner = err ? *err : (struct ha_error){.code = -r};

        return ha_error_set(err, inner.code, "%s: %s%s%s %s", where, section->name, dot, row->key,
                            ha_error_text(&inner));
    }
    mark_given(section, row, values);
    return 0;
}

int ha_section_read(const struct ha_section *section, const struct ha_toml *table, const char *file,
                    const char *const *skip, void *values, struct ha_error *err)
{
    for (int64_t i = 0; i < ha_toml_size(table); i++) {
        const struct ha_toml *node = ha_toml_at(table, i);
        int r = is_skipped(skip, node) ? 0 : read_member(section, node, file, values, err);

        if (r < 0)
            return r;
    }
    return 0;
}

int ha_section_check_required(const struct ha_section *section, const void *values,
                              const char *file, int64_t line, struct ha_error *err)
{
    for (int64_t i = 0; i < section->count; i++)
        if (section->rows[i].required && !ha_section_given(section, &section->rows[i], values))
            return ha_error_set(err, EINVAL, "%s:%lld: %s%s%s must be given: %s", file,
                                (long long)line, section->name, section->name[0] ? "." : "",
                                section->rows[i].key, section->rows[i].help);
    return 0;
}

int ha_section_set(const struct ha_section *section, const struct ha_setting *row, const char *text,
                   const char *where, void *values, struct ha_error *err)
{
    struct ha_error inner = {0};
    int r;

    /* A file's text is checked by its parser; this may come from a command line. */
    if (ha_utf8_valid(text, strlen(text)) != strlen(text))
        return ha_error_set(err, EINVAL, "%s must be UTF-8", where);
    r = set_from_text(row, text, values, &inner);
    if (r < 0)
        return ha_error_set(err, inner.code, "%s %s", where, ha_error_text(&inner));
    mark_given(section, row, values);
    return 0;
}

int ha_section_from_json(const struct ha_section *section, const struct ha_json *object,
                         const char *where, void *values, struct ha_error *err)
{
    struct ha_json *member;
    const char *key;
    void *at = NULL;

    if (object && !ha_json_is(object, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s: %s must be an object", where, section->name);
    while (ha_json_next(object, &at, &key, &member)) {
        const struct ha_setting *row = ha_section_find(section, key);
        struct ha_setting_value value = {0};
        struct ha_error inner = {0};
        int r;

        if (!row)
            return unknown_key(section, where, key, err);
        r = ha_setting_value_from_json(member, &value, &inner);
        if (r == 0)
            r = ha_setting_store(row, &value, values, &inner);
        ha_setting_value_clear(&value);
        if (r < 0)
            return ha_error_set(err, inner.code, "%s: %s.%s %s", where, section->name, key,
                                ha_error_text(&inner));
        mark_given(section, row, values);
    }
    return 0;
}
