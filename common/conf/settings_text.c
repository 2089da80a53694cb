/* settings_text.c - settings as text and JSON, and the nearest key */
#include "common/conf/settings.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/fold.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

enum { KEY_BYTES_MAX = 64 };

const char *ha_setting_source_name(enum ha_setting_source source)
{
    static const char *const names[] = {"paper", "TRL", "ours", "user"};

    return names[source];
}

enum ha_setting_source ha_section_source(const struct ha_section *section,
                                         const struct ha_setting *row, const void *values)
{
    return ha_section_given(section, row, values) ? HA_SOURCE_USER : row->source;
}

/* --- numbers ------------------------------------------------------------ */

/* digits[.digits]e+XX without what says nothing: "1.0e-05" -> "1e-5" */
static void tidy_exponent(char *text)
{
    char *e = strchr(text, 'e');
    int exponent = e ? (int)strtol(e + 1, NULL, 10) : 0;

    if (e)
        (void)snprintf(e, HA_REAL_TEXT_BYTES - (size_t)(e - text), "e%d", exponent);
}

const char *ha_real_text(double value, char text[HA_REAL_TEXT_BYTES])
{
    int exponent;

    if (!isfinite(value)) {
        (void)snprintf(text, HA_REAL_TEXT_BYTES, "%s",
                       isnan(value) ? "nan"
                       : value > 0  ? "inf"
                                    : "-inf");
        return text;
    }
    for (int digits = 0; digits < 17; digits++) {
        (void)snprintf(text, HA_REAL_TEXT_BYTES, "%.*e", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    if (value != 0.0 && (exponent <= -3 || exponent >= 16)) {
        tidy_exponent(text);
        return text;
    }
    for (int digits = 0; digits <= 20; digits++) {
        (void)snprintf(text, HA_REAL_TEXT_BYTES, "%.*f", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return text;
}

/* "600" seconds -> "10m" */
static char *duration_text(int64_t seconds)
{
    static const struct {
        int64_t seconds;
        char unit;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}};

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (seconds > 0 && seconds % units[i].seconds == 0)
            return ha_format("%lld%c", (long long)(seconds / units[i].seconds), units[i].unit);
    return ha_format("%llds", (long long)seconds);
}

/* --- JSON --------------------------------------------------------------- */

static struct ha_json *list_json(const struct ha_setting *row, const struct ha_text_list *list)
{
    struct ha_json *json;

    if (row->single && list->count == 1)
        return ha_json_new_string(list->items[0]);
    json = ha_json_new_array();
    for (int64_t i = 0; json && i < list->count; i++) {
        const char *item = list->items[i];

        if (ha_json_append(json, row->numbers ? ha_json_new_real(strtod(item, NULL))
                                              : ha_json_new_string(item)) < 0) {
            ha_json_destroy(json);
            return NULL;
        }
    }
    return json;
}

static struct ha_json *object_json(const char *text)
{
    struct ha_json *json = NULL;

    return ha_json_parse(text, strlen(text), "", &json, NULL) < 0 ? NULL : json;
}

struct ha_json *ha_setting_json(const struct ha_setting *row, const void *values)
{
    const void *from = (const char *)values + row->offset;

    switch (row->type) {
    case HA_SETTING_INT:
    case HA_SETTING_DURATION:
        return ha_json_new_int(*(const int64_t *)from);
    case HA_SETTING_REAL:
        return ha_json_new_real(*(const double *)from);
    case HA_SETTING_BOOL:
        return ha_json_new_bool(*(const bool *)from);
    case HA_SETTING_TEXT:
    case HA_SETTING_CHOICE:
    case HA_SETTING_LAYERS:
        return ha_json_new_string(*(char *const *)from);
    case HA_SETTING_LIST:
        return list_json(row, from);
    case HA_SETTING_OBJECT:
        return object_json(*(char *const *)from);
    }
    return NULL;
}

bool ha_section_has(const struct ha_section *section, const struct ha_setting *row,
                    const void *values)
{
    const void *from = (const char *)values + row->offset;

    switch (row->type) {
    case HA_SETTING_TEXT:
    case HA_SETTING_CHOICE:
    case HA_SETTING_LAYERS:
    case HA_SETTING_OBJECT:
        return *(char *const *)from != NULL;
    case HA_SETTING_INT:
    case HA_SETTING_REAL:
    case HA_SETTING_BOOL:
    case HA_SETTING_LIST:
    case HA_SETTING_DURATION:
        break;
    }
    return row->otherwise || ha_section_given(section, row, values);
}

struct ha_json *ha_section_json(const struct ha_section *section, const void *values,
                                unsigned reads)
{
    struct ha_json *json = ha_json_new_object();

    for (int64_t i = 0; json && i < section->count; i++) {
        const struct ha_setting *row = &section->rows[i];

        if ((reads && !(row->reads & reads)) || !ha_section_has(section, row, values))
            continue;
        if (reads && row->late) {
            char *text = ha_section_text(row, values);
            bool same = text && strcmp(text, row->otherwise) == 0;

            free(text);
            if (!text) {
                ha_json_destroy(json);
                return NULL;
            }
            if (same)
                continue;
        }
        if (ha_json_set(json, row->key, ha_setting_json(row, values)) < 0) {
            ha_json_destroy(json);
            return NULL;
        }
    }
    return json;
}

/* --- text --------------------------------------------------------------- */

/* JSON that is TOML too: TOML wants the character 7f escaped. */
static char *json_text(struct ha_json *json)
{
    static const char del[] = "\x7f";
    char *dumped = json ? ha_json_dump(json, HA_JSON_COMPACT) : NULL;
    const char *at = dumped;
    struct ha_buffer text;
    int r = 0;

    ha_json_destroy(json);
    if (!dumped || !strstr(dumped, del))
        return dumped;
    ha_buffer_init(&text, 0);
    while (r == 0 && *at) {
        size_t length = strcspn(at, del);

        r = ha_buffer_append(&text, at, length);
        at += length;
        if (r == 0 && *at == del[0]) {
            r = ha_buffer_append_text(&text, "\\u007f");
            at++;
        }
    }
    free(dumped);
    if (r == 0)
        return ha_buffer_detach(&text);
    ha_buffer_clear(&text);
    return NULL;
}

/* "[1,0.2]": as short as the items are, not with the 17 digits of JSON. */
static char *numbers_text(const struct ha_text_list *list)
{
    struct ha_buffer text;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_buffer_append_text(&text, "[");
    for (int64_t i = 0; r == 0 && i < list->count; i++)
        r = ha_buffer_printf(&text, "%s%s", i ? "," : "", list->items[i]);
    if (r == 0)
        r = ha_buffer_append_text(&text, "]");
    if (r == 0)
        return ha_buffer_detach(&text);
    ha_buffer_clear(&text);
    return NULL;
}

static char *list_text(const struct ha_setting *row, const struct ha_text_list *list)
{
    if (row->single && list->count == 1)
        return ha_strdup(list->items[0]);
    if (row->numbers)
        return numbers_text(list);
    return json_text(list_json(row, list));
}

char *ha_section_text(const struct ha_setting *row, const void *values)
{
    const void *from = (const char *)values + row->offset;
    char real[HA_REAL_TEXT_BYTES];
    const char *text;

    switch (row->type) {
    case HA_SETTING_INT:
        return ha_format("%lld", (long long)*(const int64_t *)from);
    case HA_SETTING_DURATION:
        return duration_text(*(const int64_t *)from);
    case HA_SETTING_REAL:
        return ha_strdup(ha_real_text(*(const double *)from, real));
    case HA_SETTING_BOOL:
        return ha_strdup(*(const bool *)from ? "true" : "false");
    case HA_SETTING_LIST:
        return list_text(row, from);
    case HA_SETTING_TEXT:
    case HA_SETTING_CHOICE:
    case HA_SETTING_LAYERS:
    case HA_SETTING_OBJECT:
        break;
    }
    text = *(char *const *)from;
    /* A bare text that begins with a quote or bracket would be read as TOML. */
    if (text && row->type != HA_SETTING_OBJECT && strchr("\"'[", text[0]) && text[0])
        return json_text(ha_json_new_string(text));
    return ha_strdup(text ? text : "");
}

/* As in a file: texts quoted. */
static char *file_text(const struct ha_setting *row, const void *values)
{
    switch (row->type) {
    case HA_SETTING_TEXT:
    case HA_SETTING_CHOICE:
    case HA_SETTING_LAYERS:
        return json_text(ha_setting_json(row, values));
    case HA_SETTING_DURATION: {
        char *bare = ha_section_text(row, values);
        char *quoted = bare ? ha_format("\"%s\"", bare) : NULL;

        free(bare);
        return quoted;
    }
    case HA_SETTING_LIST:
        return row->numbers ? ha_section_text(row, values)
                            : json_text(ha_setting_json(row, values));
    case HA_SETTING_INT:
    case HA_SETTING_REAL:
    case HA_SETTING_BOOL:
    case HA_SETTING_OBJECT:
        break;
    }
    return ha_section_text(row, values);
}

/* "key = value    # source; help", what is too long for a line as further comments below. */
static int print_line(struct ha_buffer *out, const char *left, const char *source, const char *help)
{
    enum { INDENT = 45 };
    char *comment = ha_format("%s; %s", source, help);
    const char *text = comment;
    size_t used = strlen(left) + 1;
    int column = used > INDENT ? (int)used : INDENT, n;
    int r = comment ? ha_buffer_printf(out, "%-44s", left) : -ENOMEM;

    for (; r == 0 && *text; text = ha_fold_next(text, n), column = INDENT) {
        n = ha_fold(text, HA_FOLD_COLUMNS - column - 2);
        r = ha_buffer_printf(out, "%*s# %.*s\n", text == comment ? 1 : INDENT, "", n, text);
    }
    free(comment);
    return r;
}

int ha_section_print(const struct ha_section *section, const void *values, struct ha_buffer *out)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < section->count; i++) {
        const struct ha_setting *row = &section->rows[i];
        const char *source = ha_setting_source_name(ha_section_source(section, row, values));
        bool has = ha_section_has(section, row, values);
        char *text = has ? file_text(row, values) : ha_strdup("");
        char *left =
            text ? ha_format("%s%s = %s", has ? "" : "# ", row->key, has ? text : "(not set)")
                 : NULL;

        r = left ? print_line(out, left, source, row->help) : -ENOMEM;
        free(left);
        free(text);
    }
    return r;
}

/* --- the nearest key ---------------------------------------------------- */

static int64_t least(int64_t a, int64_t b, int64_t c)
{
    int64_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* Insertions, deletions, replacements and swaps of neighbours (optimal string
 * alignment), over rows of one matrix. */
static int64_t edit_distance(const char *a, const char *b)
{
    int64_t rows[3][KEY_BYTES_MAX + 1];
    int64_t *before = rows[0], *last = rows[1], *now = rows[2];
    int64_t n = (int64_t)strlen(a), m = (int64_t)strlen(b);

    if (n > KEY_BYTES_MAX || m > KEY_BYTES_MAX)
        return n + m;
    for (int64_t j = 0; j <= m; j++)
        last[j] = before[j] = j;
    for (int64_t i = 1; i <= n; i++) {
        int64_t *spare = before;

        now[0] = i;
        for (int64_t j = 1; j <= m; j++) {
            int64_t cost = a[i - 1] != b[j - 1];

            now[j] = least(last[j] + 1, now[j - 1] + 1, last[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1, now[j]);
        }
        before = last;
        last = now;
        now = spare;
    }
    return last[m];
}

const char *ha_settings_nearest(const char *key, const char *const *keys, int64_t count)
{
    const char *nearest = NULL;
    int64_t distance = (int64_t)strlen(key) / 3 + 2;

    for (int64_t i = 0; i < count; i++) {
        int64_t d = edit_distance(key, keys[i]);

        /* As far away as the key is long would be any key at all. */
        if (d < distance && d < (int64_t)strlen(keys[i])) {
            distance = d;
            nearest = keys[i];
        }
    }
    return nearest;
}
