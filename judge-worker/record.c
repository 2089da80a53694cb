#include "judge-worker/record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"

enum kind { NUMBER, UNSIGNED, REAL, FLAG, TEXT, TRANSPORT };

static const struct field {
    const char *key;
    enum kind kind;
    size_t offset;
} fields[] = {
    {"item", UNSIGNED, offsetof(struct ha_judge_record, item)},
    {"generation", UNSIGNED, offsetof(struct ha_judge_record, generation)},
    {"number", UNSIGNED, offsetof(struct ha_judge_record, number)},
    {"call", UNSIGNED, offsetof(struct ha_judge_record, call)},
    {"reasks", NUMBER, offsetof(struct ha_judge_record, reasks)},
    {"max_reasks", NUMBER, offsetof(struct ha_judge_record, max_reasks)},
    {"provider", TEXT, offsetof(struct ha_judge_record, provider)},
    {"model", TEXT, offsetof(struct ha_judge_record, model)},
    {"max_tokens", NUMBER, offsetof(struct ha_judge_record, max_tokens)},
    {"identity", TEXT, offsetof(struct ha_judge_record, identity)},
    {"flagged", FLAG, offsetof(struct ha_judge_record, flagged)},
    {"transport", TRANSPORT, offsetof(struct ha_judge_record, transport)},
    {"error", TEXT, offsetof(struct ha_judge_record, error)},
    {"http_status", NUMBER, offsetof(struct ha_judge_record, http_status)},
    {"host", TEXT, offsetof(struct ha_judge_record, host)},
    {"latency_ms", NUMBER, offsetof(struct ha_judge_record, latency_ms)},
    {"estimated_tokens", NUMBER, offsetof(struct ha_judge_record, estimated_tokens)},
    {"price_input", REAL, offsetof(struct ha_judge_record, price_input)},
    {"price_output", REAL, offsetof(struct ha_judge_record, price_output)},
};

enum { FIELDS = sizeof fields / sizeof fields[0] };

static void *at(const struct field *field, struct ha_judge_record *record)
{
    return (char *)record + field->offset;
}

static const void *at_const(const struct field *field, const struct ha_judge_record *record)
{
    return (const char *)record + field->offset;
}

void ha_judge_record_clear(struct ha_judge_record *record)
{
    for (int i = 0; i < FIELDS; i++) {
        if (fields[i].kind == TEXT)
            free(*(char **)at(&fields[i], record));
    }
    free(record->raw);
    memset(record, 0, sizeof *record);
}

int ha_judge_record_copy(const struct ha_judge_record *record, struct ha_judge_record *ret_copy,
                         struct ha_error *err)
{
    struct ha_judge_record copy = *record;
    bool complete = true;

    for (int i = 0; i < FIELDS; i++) {
        const char *text;

        if (fields[i].kind != TEXT)
            continue;
        text = *(char *const *)at_const(&fields[i], record);
        *(char **)at(&fields[i], &copy) = ha_strdup(text ? text : "");
        complete &= *(char **)at(&fields[i], &copy) != NULL;
    }
    copy.raw = malloc(record->raw_size + 1);
    if (copy.raw) {
        if (record->raw_size > 0)
            memcpy(copy.raw, record->raw, record->raw_size);
        copy.raw[record->raw_size] = '\0';
    }
    if (!complete || !copy.raw) {
        ha_judge_record_clear(&copy);
        return ha_error_set(err, ENOMEM, "no memory for an evaluator's reply");
    }
    *ret_copy = copy;
    return 0;
}

static struct ha_json *to_json(const struct field *field, const struct ha_judge_record *record)
{
    const void *value = at_const(field, record);

    switch (field->kind) {
    case UNSIGNED:
        return ha_json_new_int((int64_t) * (const uint64_t *)value);
    case NUMBER:
        return ha_json_new_int(*(const int64_t *)value);
    case REAL:
        return ha_json_new_real(*(const double *)value);
    case FLAG:
        return ha_json_new_bool(*(const bool *)value);
    case TRANSPORT:
        return ha_json_new_int(*(const enum ha_judge_transport *)value);
    default:
        return ha_json_new_string(*(char *const *)value ? *(char *const *)value : "");
    }
}

int ha_judge_record_encode(const struct ha_judge_record *record, struct ha_buffer *out,
                           struct ha_error *err)
{
    struct ha_json *json = ha_json_new_object();
    int r = json ? 0 : -ENOMEM;
    char *text = NULL;

    for (int i = 0; i < FIELDS && r == 0; i++)
        r = ha_json_set(json, fields[i].key, to_json(&fields[i], record));
    if (r == 0)
        text = ha_json_dump(json, HA_JSON_COMPACT);
    if (r == 0)
        r = text ? ha_buffer_append_text(out, text) : -ENOMEM;
    free(text);
    ha_json_destroy(json);
    return r < 0 ? ha_error_set(err, -r, "no memory for an evaluator's reply") : 0;
}

static int from_json(const struct field *field, const struct ha_json *json,
                     struct ha_judge_record *record)
{
    void *value = at(field, record);

    switch (field->kind) {
    case UNSIGNED:
        *(uint64_t *)value = (uint64_t)ha_json_int(json, 0);
        return 0;
    case NUMBER:
        *(int64_t *)value = ha_json_int(json, 0);
        return 0;
    case REAL:
        *(double *)value = ha_json_real(json, 0);
        return 0;
    case FLAG:
        *(bool *)value = ha_json_bool(json, false);
        return 0;
    case TRANSPORT:
        *(enum ha_judge_transport *)value =
            (enum ha_judge_transport)ha_json_int(json, HA_JUDGE_TRANSPORT_UNKNOWN);
        return 0;
    default:
        *(char **)value = ha_strdup(ha_json_string(json, ""));
        return *(char **)value ? 0 : -ENOMEM;
    }
}

int ha_judge_record_decode(const char *line, size_t size, struct ha_judge_record *ret_record,
                           struct ha_error *err)
{
    struct ha_judge_record record = {0};
    struct ha_json *json;
    int r;

    r = ha_json_parse(line, size, "spool", &json, err);
    if (r < 0)
        return r;
    for (int i = 0; i < FIELDS && r == 0; i++)
        r = from_json(&fields[i], ha_json_get(json, fields[i].key), &record);
    ha_json_destroy(json);
    if (r < 0) {
        ha_judge_record_clear(&record);
        return ha_error_set(err, -r, "no memory for an evaluator's reply");
    }
    *ret_record = record;
    return 0;
}
