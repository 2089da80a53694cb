#include "common/conf/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/base/error.h"

/* struct ha_json is never defined: a pointer to it is a pointer to json_t.
 * jansson counts references; every value here has exactly one owner, so the
 * count stays 1 and destroying the root ends the whole tree. */

enum { DEPTH_LIMIT = 512 };

static json_t *inside(struct ha_json *json)
{
    return (json_t *)json;
}

static const json_t *inside_const(const struct ha_json *json)
{
    return (const json_t *)json;
}

/* jansson's iterators and typed reads of const values hand out pointers
 * without const; none of them changes the value. */
static json_t *unconst(const struct ha_json *json)
{
    return (json_t *)(uintptr_t)json;
}

static struct ha_json *outside(json_t *json)
{
    return (struct ha_json *)json;
}

/* ---- memory ---------------------------------------------------------------------
 *
 * jansson 2.14 does not look whether the text of the token in hand could grow: its
 * parser then ends the process by an assertion, or takes a number without its
 * last digit; its writer leaves a key out.  So allocations go through here.  When one fails that is
 * remembered; the parser gets this one from a reserve that holds any token of its text, and no
 * further input. */
struct memory {
    bool failed;
    char *reserve;
    size_t left;  /* of the reserve, from its end */
    size_t bytes; /* of the reserve */
};

static _Thread_local struct memory memory;

enum { RESERVE_BYTES = 1024, RESERVE_ALIGN = 16, TOKEN_COPIES = 8 };

static void *allocate(size_t bytes)
{
    void *found = malloc(bytes);

    if (found)
        return found;
    memory.failed = true;
    if (bytes > SIZE_MAX - RESERVE_ALIGN)
        return NULL;
    bytes = (bytes + RESERVE_ALIGN - 1) / RESERVE_ALIGN * RESERVE_ALIGN;
    if (bytes > memory.left)
        return NULL;
    memory.left -= bytes;
    return memory.reserve + memory.left;
}

static void release(void *used)
{
    const char *at = used;

    if (!memory.reserve || at < memory.reserve || at >= memory.reserve + memory.bytes)
        free(used);
}

__attribute__((constructor)) static void watch_allocations(void)
{
    json_set_alloc_funcs(allocate, release);
}

/* Bytes of the longest text or number, escapes and quotes included. */
static size_t longest_token(const char *text, size_t size)
{
    size_t longest = 0, begin = 0;
    bool quoted = false;

    for (size_t i = 0; i < size; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && memchr(" \t\r\n,:[]{}", text[i], 10))
            begin = i;
        if (i + 1 - begin > longest)
            longest = i + 1 - begin;
    }
    return longest;
}

struct place {
    long line, column;
};

/* jansson allows 2,048 levels and each costs it a stack frame.  Counts brackets outside
 * strings; text that is not JSON is left for the parser to refuse. */
static bool too_deep(const char *text, size_t size, struct place *ret_place)
{
    struct place at = {1, 0};
    bool quoted = false;
    int depth = 0;

    for (size_t i = 0; i < size; i++) {
        char c = text[i];

        at.column++;
        if (c == '\n')
            at = (struct place){at.line + 1, 0};
        else if (quoted && c == '\\')
            i++, at.column++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '[' || c == '{') && ++depth > DEPTH_LIMIT) {
            *ret_place = at;
            return true;
        } else if (!quoted && (c == ']' || c == '}'))
            depth--;
    }
    return false;
}

/* Is the number at text an integer that int64 cannot hold?  ret_size: its length, at least 1. */
static bool too_big(const char *text, size_t size, size_t *ret_size)
{
    const char *limit = text[0] == '-' ? "9223372036854775808" : "9223372036854775807";
    size_t sign = text[0] == '-', n = 1;

    while (n < size && text[n] >= '0' && text[n] <= '9')
        n++;
    *ret_size = n;
    if (n < size && (text[n] == '.' || text[n] == 'e' || text[n] == 'E'))
        return false;
    if (n - sign != strlen(limit))
        return n - sign > strlen(limit);
    return memcmp(text + sign, limit, strlen(limit)) > 0;
}

/* A copy in which integers beyond int64 are written as reals ("...e0"), as other JSON readers take
 * them: published tokenizer_config.json files hold a model_max_length of 10^30. */
static char *widen_integers(const char *text, size_t size, size_t *ret_size)
{
    char *copy = malloc(size + size / 19 * 2 + 1);
    bool quoted = false;
    size_t n = 0;

    if (!copy)
        return NULL;
    for (size_t i = 0; i < size;) {
        size_t run = 1;
        bool big = false;

        if (text[i] == '"')
            quoted = !quoted;
        else if (quoted && text[i] == '\\' && i + 1 < size)
            run = 2;
        else if (!quoted && (text[i] == '-' || (text[i] >= '0' && text[i] <= '9')))
            big = too_big(text + i, size - i, &run);
        memcpy(copy + n, text + i, run);
        n += run;
        i += run;
        if (big) {
            memcpy(copy + n, "e0", 2);
            n += 2;
        }
    }
    copy[n] = '\0';
    *ret_size = n;
    return copy;
}

/* Text for the parser, byte by byte: it ends when memory has failed. */
struct input {
    const char *at, *end;
};

static size_t feed(void *to, size_t room, void *context)
{
    struct input *input = context;

    if (memory.failed || input->at == input->end || room == 0)
        return 0;
    *(char *)to = *input->at++;
    return 1;
}

static json_t *load_text(const char *text, size_t size, json_error_t *error)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    struct input input = {text, text + size};

    return json_load_callback(feed, &input, flags, error);
}

/* NULL also where memory.failed. */
static json_t *load(const char *text, size_t size, json_error_t *error)
{
    json_t *json = load_text(text, size, error);

    if (!json && !memory.failed && json_error_code(error) == json_error_numeric_overflow &&
        strstr(error->text, "integer")) {
        size_t widened_size;
        char *widened = widen_integers(text, size, &widened_size);

        if (widened)
            json = load_text(widened, widened_size, error);
        else
            memory.failed = true;
        free(widened);
    }
    if (memory.failed) {
        json_decref(json);
        return NULL;
    }
    return json;
}

/* The reserve is there as long as the parser works. */
static json_t *load_with_reserve(const char *text, size_t size, json_error_t *error)
{
    json_t *json = NULL;
    size_t bytes;

    memory = (struct memory){.failed = true};
    if (!__builtin_mul_overflow(longest_token(text, size), (size_t)TOKEN_COPIES, &bytes) &&
        !__builtin_add_overflow(bytes, (size_t)RESERVE_BYTES, &bytes))
        memory.reserve = malloc(bytes);
    if (memory.reserve) {
        memory.failed = false;
        memory.bytes = bytes / RESERVE_ALIGN * RESERVE_ALIGN;
        memory.left = memory.bytes;
        json = load(text, size, error);
        free(memory.reserve);
        memory = (struct memory){.failed = memory.failed};
    }
    return json;
}

int ha_json_parse(const char *text, size_t size, const char *name, struct ha_json **ret_json,
                  struct ha_error *err)
{
    json_error_t error;
    struct place place;
    json_t *json;

    /* jansson takes a zero byte after the value for the end of the text. */
    if (size > 0 && memchr(text, '\0', size))
        return ha_error_set(err, EINVAL, "%s: not valid JSON: a zero byte", name);
    if (too_deep(text, size, &place))
        return ha_error_set(err, EINVAL, "%s:%ld:%ld: nested deeper than %d levels", name,
                            place.line, place.column, DEPTH_LIMIT);
    json = load_with_reserve(text, size, &error);
    if (memory.failed)
        return ha_error_set(err, ENOMEM, "%s: no memory to read %zu bytes of JSON", name, size);
    if (!json)
        return ha_error_set(err, EINVAL, "%s:%d:%d: not valid JSON: %s", name,
                            error.line > 0 ? error.line : 1, error.column > 0 ? error.column : 1,
                            error.text);
    *ret_json = outside(json);
    return 0;
}

static int read_all(FILE *file, const char *path, size_t limit_bytes, char **ret_text,
                    size_t *ret_size, struct ha_error *err)
{
    size_t size = 0, capacity = 0;
    char *text = NULL;
    int r = 0;

    for (;;) {
        size_t n;

        if (size == capacity) {
            char *more;

            capacity = capacity ? capacity * 2 : 65536;
            more = realloc(text, capacity);
            if (!more) {
                r = ha_error_set(err, ENOMEM, "%s: no memory for %zu bytes", path, capacity);
                break;
            }
            text = more;
        }
        n = fread(text + size, 1, capacity - size, file);
        size += n;
        if (size > limit_bytes) {
            r = ha_error_set(err, EFBIG, "%s: larger than the %zu bytes allowed for it", path,
                             limit_bytes);
            break;
        }
        if (n == 0) {
            if (ferror(file))
                r = ha_error_set(err, errno ? errno : EIO, "%s: %s", path,
                                 strerror(errno ? errno : EIO));
            break;
        }
    }
    if (r < 0) {
        free(text);
        return r;
    }
    *ret_text = text;
    *ret_size = size;
    return 0;
}

int ha_json_load(const char *path, size_t limit_bytes, struct ha_json **ret_json,
                 struct ha_error *err)
{
    FILE *file = fopen(path, "rbe");
    char *text = NULL;
    size_t size = 0;
    int r;

    if (!file)
        return ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    r = read_all(file, path, limit_bytes, &text, &size, err);
    (void)fclose(file);
    if (r == 0)
        r = ha_json_parse(text, size, path, ret_json, err);
    free(text);
    return r;
}

void ha_json_destroy(struct ha_json *json)
{
    json_decref(inside(json));
}

enum ha_json_type ha_json_type(const struct ha_json *json)
{
    if (!json)
        return HA_JSON_NULL;
    switch (json_typeof(inside_const(json))) {
    case JSON_OBJECT:
        return HA_JSON_OBJECT;
    case JSON_ARRAY:
        return HA_JSON_ARRAY;
    case JSON_STRING:
        return HA_JSON_STRING;
    case JSON_INTEGER:
        return HA_JSON_INT;
    case JSON_REAL:
        return HA_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return HA_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return HA_JSON_NULL;
}

bool ha_json_is(const struct ha_json *json, enum ha_json_type type)
{
    return json && ha_json_type(json) == type;
}

struct ha_json *ha_json_get(const struct ha_json *object, const char *key)
{
    return outside(json_object_get(inside_const(object), key));
}

int64_t ha_json_size(const struct ha_json *json)
{
    if (ha_json_is(json, HA_JSON_OBJECT))
        return (int64_t)json_object_size(inside_const(json));
    return (int64_t)json_array_size(inside_const(json));
}

struct ha_json *ha_json_at(const struct ha_json *array, int64_t index)
{
    return index < 0 ? NULL : outside(json_array_get(inside_const(array), (size_t)index));
}

bool ha_json_next(const struct ha_json *object, void **iterator, const char **ret_key,
                  struct ha_json **ret_value)
{
    void *next = *iterator ? json_object_iter_next(unconst(object), *iterator)
                           : json_object_iter(unconst(object));

    if (!next)
        return false;
    *iterator = next;
    *ret_key = json_object_iter_key(next);
    *ret_value = outside(json_object_iter_value(next));
    return true;
}

bool ha_json_bool(const struct ha_json *json, bool otherwise)
{
    return ha_json_is(json, HA_JSON_BOOL) ? json_is_true(inside_const(json)) : otherwise;
}

int64_t ha_json_int(const struct ha_json *json, int64_t otherwise)
{
    return ha_json_is(json, HA_JSON_INT) ? json_integer_value(inside_const(json)) : otherwise;
}

double ha_json_real(const struct ha_json *json, double otherwise)
{
    if (ha_json_is(json, HA_JSON_INT) || ha_json_is(json, HA_JSON_REAL))
        return json_number_value(inside_const(json));
    return otherwise;
}

const char *ha_json_string(const struct ha_json *json, const char *otherwise)
{
    return ha_json_is(json, HA_JSON_STRING) ? json_string_value(inside_const(json)) : otherwise;
}

size_t ha_json_string_size(const struct ha_json *json)
{
    return json_string_length(inside_const(json));
}

struct ha_json *ha_json_new_object(void)
{
    return outside(json_object());
}

struct ha_json *ha_json_new_array(void)
{
    return outside(json_array());
}

struct ha_json *ha_json_new_null(void)
{
    return outside(json_null());
}

struct ha_json *ha_json_new_bool(bool value)
{
    return outside(json_boolean(value));
}

struct ha_json *ha_json_new_int(int64_t value)
{
    return outside(json_integer(value));
}

struct ha_json *ha_json_new_real(double value)
{
    return outside(isfinite(value) ? json_real(value) : json_null());
}

struct ha_json *ha_json_new_string(const char *text)
{
    return outside(text ? json_string(text) : NULL);
}

struct ha_json *ha_json_new_string_n(const char *bytes, size_t size)
{
    return outside(json_stringn(bytes, size));
}

int ha_json_set(struct ha_json *object, const char *key, struct ha_json *value)
{
    return json_object_set_new(inside(object), key, inside(value)) < 0 ? -ENOMEM : 0;
}

int ha_json_append(struct ha_json *array, struct ha_json *value)
{
    return json_array_append_new(inside(array), inside(value)) < 0 ? -ENOMEM : 0;
}

char *ha_json_dump(const struct ha_json *json, enum ha_json_style style)
{
    size_t flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(17);
    char *text;

    flags |= style == HA_JSON_PRETTY ? JSON_INDENT(2) : JSON_COMPACT;
    if (style == HA_JSON_CANONICAL)
        flags |= JSON_SORT_KEYS;
    memory = (struct memory){.failed = false};
    text = json ? json_dumps(inside_const(json), flags) : NULL;
    if (memory.failed) {
        free(text);
        return NULL;
    }
    return text;
}
