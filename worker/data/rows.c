#include "worker/data/rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/io/jsonl.h"

struct file {
    char *path;
    int64_t first, count; /* row numbers */
    uint8_t digest[HA_SHA256_BYTES];
};

struct ha_rows {
    struct file *files;
    int64_t n_files;
    int64_t count;
    enum ha_rows_form form;
    bool messages;
};

static const char *const form_keys[] = {
    [HA_ROWS_IMPLICIT] = "{\"chosen\", \"rejected\"}",
    [HA_ROWS_EXPLICIT] = "{\"prompt\", \"chosen\", \"rejected\"}",
    [HA_ROWS_PROMPT] = "{\"prompt\"}",
};

/* Keys of a row that hold texts or messages. */
static const char *const value_keys[] = {"prompt", "chosen", "rejected"};

static int check_value(const struct ha_json *value, const char *key, const char *path, int64_t line,
                       struct ha_error *err)
{
    struct ha_messages messages = {0};
    int r;

    if (ha_json_is(value, HA_JSON_STRING))
        return 0;
    if (!ha_json_is(value, HA_JSON_ARRAY))
        return ha_error_set(err, EINVAL,
                            "%s:%" PRId64 ": \"%s\" is neither a text nor a list of messages", path,
                            line, key);
    r = ha_messages_from_json(value, &messages, err);
    ha_messages_clear(&messages);
    return r < 0 ? ha_error_prefix(err, "%s:%" PRId64 ": \"%s\"", path, line, key) : 0;
}

/* What TRL hands on to the template beside the messages. */
static int check_extras(const struct ha_json *row, const char *path, int64_t line,
                        struct ha_error *err)
{
    const struct ha_json *tools = ha_json_get(row, "tools");
    const struct ha_json *more = ha_json_get(row, "chat_template_kwargs");
    void *iterator = NULL;
    const char *key;
    struct ha_json *value;

    if (tools && !ha_json_is(tools, HA_JSON_NULL))
        return ha_error_set(err, ENOTSUP, "%s:%" PRId64 ": tools are not supported; leave them out",
                            path, line);
    while (ha_json_next(more, &iterator, &key, &value))
        if (strcmp(key, "enable_thinking") != 0 || ha_json_bool(value, true))
            return ha_error_set(err, ENOTSUP,
                                "%s:%" PRId64 ": chat_template_kwargs has \"%s\"; enable_thinking "
                                "= false is what templates are applied with, leave the rest out",
                                path, line, key);
    return 0;
}

/* Form of a row, whose values are all texts or all messages. */
static int check_row(const struct ha_json *row, const char *path, int64_t line,
                     enum ha_rows_form *ret_form, bool *ret_messages, struct ha_error *err)
{
    const bool prompt = ha_json_get(row, "prompt") != NULL;
    const bool chosen = ha_json_get(row, "chosen") != NULL;
    const bool rejected = ha_json_get(row, "rejected") != NULL;
    int texts = 0, lists = 0, r = 0;

    if (!ha_json_is(row, HA_JSON_OBJECT))
        return ha_error_set(err, EINVAL, "%s:%" PRId64 ": not an object", path, line);
    if (chosen != rejected)
        return ha_error_set(err, EINVAL, "%s:%" PRId64 ": the key \"%s\" is missing", path, line,
                            chosen ? "rejected" : "chosen");
    if (!prompt && !chosen)
        return ha_error_set(err, EINVAL,
                            "%s:%" PRId64 ": neither \"chosen\" and \"rejected\" nor \"prompt\"",
                            path, line);
    for (size_t i = 0; i < sizeof(value_keys) / sizeof(value_keys[0]) && r == 0; i++) {
        const struct ha_json *value = ha_json_get(row, value_keys[i]);

        texts += ha_json_is(value, HA_JSON_STRING);
        lists += ha_json_is(value, HA_JSON_ARRAY);
        r = value ? check_value(value, value_keys[i], path, line, err) : 0;
    }
    if (r == 0 && texts > 0 && lists > 0)
        r = ha_error_set(err, EINVAL, "%s:%" PRId64 ": texts and lists of messages in one row",
                         path, line);
    if (r == 0 && lists > 0)
        r = check_extras(row, path, line, err);
    if (r < 0)
        return r;
    *ret_form = !chosen ? HA_ROWS_PROMPT : prompt ? HA_ROWS_EXPLICIT : HA_ROWS_IMPLICIT;
    *ret_messages = lists > 0;
    return 0;
}

/* A row among others. */
static int check_same(const struct ha_rows *rows, enum ha_rows_form form, bool messages,
                      const char *path, int64_t line, struct ha_error *err)
{
    if (rows->count == 0 || (form == rows->form && messages == rows->messages))
        return 0;
    if (form != rows->form)
        return ha_error_set(err, EINVAL, "%s:%" PRId64 ": a row %s among rows %s", path, line,
                            form_keys[form], form_keys[rows->form]);
    return ha_error_set(err, EINVAL, "%s:%" PRId64 ": a row of %s among rows of %s", path, line,
                        messages ? "messages" : "texts", rows->messages ? "messages" : "texts");
}

static int check_file(struct ha_rows *rows, struct file *file, struct ha_error *err)
{
    struct ha_jsonl *reader;
    struct ha_json *row;
    int r = ha_jsonl_open(file->path, 0, &reader, err);

    if (r < 0)
        return r;
    file->first = rows->count;
    while ((r = ha_jsonl_next(reader, &row, err)) > 0) {
        enum ha_rows_form form = HA_ROWS_IMPLICIT;
        int64_t line = ha_jsonl_line(reader);
        bool messages = false;

        r = check_row(row, file->path, line, &form, &messages, err);
        ha_json_destroy(row);
        if (r == 0)
            r = check_same(rows, form, messages, file->path, line, err);
        if (r < 0)
            break;
        rows->form = form;
        rows->messages = messages;
        rows->count++;
        file->count++;
    }
    if (r == 0)
        ha_jsonl_digest(reader, file->digest);
    ha_jsonl_close(reader);
    return r;
}

int ha_rows_open(const char *const *paths, int64_t n_paths, struct ha_rows **ret_rows,
                 struct ha_error *err)
{
    struct ha_rows *rows = calloc(1, sizeof(*rows));
    int r = 0;

    if (rows)
        rows->files = ha_calloc(n_paths, sizeof(*rows->files));
    if (!rows || !rows->files) {
        free(rows);
        return ha_error_set(err, ENOMEM, "no memory for %" PRId64 " data files", n_paths);
    }
    for (int64_t i = 0; i < n_paths && r == 0; i++) {
        rows->n_files++;
        rows->files[i].path = ha_strdup(paths[i]);
        r = rows->files[i].path ? check_file(rows, &rows->files[i], err)
                                : ha_error_set(err, ENOMEM, "no memory for a file name");
    }
    if (r == 0 && rows->count == 0)
        r = ha_error_set(err, EINVAL, "%s: the data set is empty",
                         n_paths > 0 ? paths[0] : "no data file is named");
    if (r < 0) {
        ha_rows_close(rows);
        return r;
    }
    *ret_rows = rows;
    return 0;
}

void ha_rows_close(struct ha_rows *rows)
{
    if (!rows)
        return;
    for (int64_t i = 0; i < rows->n_files; i++)
        free(rows->files[i].path);
    free(rows->files);
    free(rows);
}

int64_t ha_rows_count(const struct ha_rows *rows)
{
    return rows->count;
}

enum ha_rows_form ha_rows_form(const struct ha_rows *rows)
{
    return rows->form;
}

bool ha_rows_are_messages(const struct ha_rows *rows)
{
    return rows->messages;
}

void ha_rows_digest(const struct ha_rows *rows, uint8_t digest[HA_SHA256_BYTES])
{
    struct ha_sha256 hash;

    ha_sha256_init(&hash);
    for (int64_t i = 0; i < rows->n_files; i++)
        ha_sha256_update(&hash, rows->files[i].digest, HA_SHA256_BYTES);
    ha_sha256_final(&hash, digest);
}

int64_t ha_rows_file_count(const struct ha_rows *rows)
{
    return rows->n_files;
}

const char *ha_rows_file_path(const struct ha_rows *rows, int64_t file)
{
    return rows->files[file].path;
}

void ha_rows_file_digest(const struct ha_rows *rows, int64_t file, uint8_t digest[HA_SHA256_BYTES])
{
    memcpy(digest, rows->files[file].digest, HA_SHA256_BYTES);
}

/* ---- the selected rows ---- */

struct want {
    int64_t number;
    int64_t place; /* in the caller's order */
};

struct wants {
    struct want *list; /* sorted by number */
    int64_t n, next;
    struct ha_row *texts;
};

static int by_number(const void *a, const void *b)
{
    const struct want *x = a, *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

static int copy_value(const struct ha_json *row, const char *key, struct ha_text *text,
                      struct ha_messages *list)
{
    const struct ha_json *value = ha_json_get(row, key);

    if (!value)
        return 0;
    if (ha_json_is(value, HA_JSON_ARRAY))
        return ha_messages_from_json(value, list, NULL);
    text->size = ha_json_string_size(value);
    text->data = ha_strndup(ha_json_string(value, ""), text->size);
    return text->data ? 0 : -ENOMEM;
}

static int take_row(struct ha_row *out, int64_t number, const struct ha_json *json)
{
    int r;

    out->number = number;
    r = copy_value(json, "prompt", &out->prompt, &out->prompt_list);
    if (r == 0)
        r = copy_value(json, "chosen", &out->chosen, &out->chosen_list);
    return r < 0 ? r : copy_value(json, "rejected", &out->rejected, &out->rejected_list);
}

static int stale(const struct file *file, struct ha_error *err)
{
    return ha_error_set(err, ESTALE, "%s: the file has changed while it was in use", file->path);
}

static int read_file(const struct ha_rows *rows, const struct file *file, struct wants *wants,
                     struct ha_error *err)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct ha_jsonl *reader;
    int64_t number = file->first;
    const char *line;
    size_t size;
    int r = ha_jsonl_open(file->path, 0, &reader, err);

    if (r < 0)
        return r;
    for (; (r = ha_jsonl_next_line(reader, &line, &size, err)) > 0; number++) {
        enum ha_rows_form form = HA_ROWS_IMPLICIT;
        struct ha_json *json = NULL;
        bool messages = false;

        if (wants->next == wants->n || wants->list[wants->next].number != number)
            continue;
        r = ha_json_parse(line, size, file->path, &json, err);
        if (r == 0)
            r = check_row(json, file->path, ha_jsonl_line(reader), &form, &messages, err);
        if (r == 0 && (form != rows->form || messages != rows->messages))
            r = stale(file, err);
        if (r == 0 && take_row(&wants->texts[wants->list[wants->next++].place], number, json) < 0)
            r = ha_error_set(err, ENOMEM, "%s: no memory for its rows", file->path);
        ha_json_destroy(json);
        if (r < 0)
            break;
    }
    if (r == 0) {
        ha_jsonl_digest(reader, digest);
        if (memcmp(digest, file->digest, sizeof(digest)) != 0)
            r = stale(file, err);
    }
    ha_jsonl_close(reader);
    return r;
}

int ha_rows_read(const struct ha_rows *rows, const int64_t *numbers, int64_t n,
                 struct ha_row **ret_texts, struct ha_error *err)
{
    struct wants wants = {.n = n};
    int r = 0;

    wants.list = ha_calloc(n, sizeof(*wants.list));
    wants.texts = ha_calloc(n, sizeof(*wants.texts));
    if (!wants.list || !wants.texts)
        r = ha_error_set(err, ENOMEM, "no memory for %" PRId64 " rows", n);
    for (int64_t i = 0; i < n && r == 0; i++)
        wants.list[i] = (struct want){numbers[i], i};
    if (r == 0)
        qsort(wants.list, (size_t)n, sizeof(*wants.list), by_number);
    for (int64_t i = 0; i < rows->n_files && r == 0; i++)
        r = read_file(rows, &rows->files[i], &wants, err);
    if (r == 0 && wants.next < n)
        r = ha_error_set(err, EINVAL, "row %" PRId64 " is not in the data set",
                         wants.list[wants.next].number);
    free(wants.list);
    if (r < 0) {
        ha_rows_free(wants.texts, n);
        return r;
    }
    *ret_texts = wants.texts;
    return 0;
}

void ha_rows_free(struct ha_row *texts, int64_t n)
{
    if (!texts)
        return;
    for (int64_t i = 0; i < n; i++) {
        free(texts[i].prompt.data);
        free(texts[i].chosen.data);
        free(texts[i].rejected.data);
        ha_messages_clear(&texts[i].prompt_list);
        ha_messages_clear(&texts[i].chosen_list);
        ha_messages_clear(&texts[i].rejected_list);
    }
    free(texts);
}
