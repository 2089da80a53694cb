#include "judge-worker/parser.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "judge-worker/entries.h"
#include "judge-worker/json_scan.h"

/* A reply with more JSON values, or more brackets that begin none, holds no
 * scores that anybody meant. */
enum { MAX_VALUES = 1000, MAX_BAD = 1000, WRAPPER_DEPTH = 4, MAP_MEMBERS = 8 };

const char *const ha_judge_repair_names[HA_JUDGE_REPAIRS] = {
    [HA_JUDGE_REPAIR_BOM] = "byte order mark",
    [HA_JUDGE_REPAIR_THINK] = "thinking cut",
    [HA_JUDGE_REPAIR_DOUBLE] = "double encoding",
    [HA_JUDGE_REPAIR_FENCE] = "code fence",
    [HA_JUDGE_REPAIR_AROUND] = "text around the array",
    [HA_JUDGE_REPAIR_WRAPPER] = "object around the array",
    [HA_JUDGE_REPAIR_MAP] = "map instead of array",
    [HA_JUDGE_REPAIR_BRACKETS] = "missing brackets",
    [HA_JUDGE_REPAIR_COMMA] = "trailing comma",
    [HA_JUDGE_REPAIR_CONTROL] = "raw control character",
    [HA_JUDGE_REPAIR_CHARACTER] = "invalid character replaced",
    [HA_JUDGE_REPAIR_NAME] = "spelling of a dimension",
    [HA_JUDGE_REPAIR_KEY] = "spelling of a key",
    [HA_JUDGE_REPAIR_SCORE_TEXT] = "score as text",
    [HA_JUDGE_REPAIR_SCORE_REAL] = "score as real number",
    [HA_JUDGE_REPAIR_TWICE] = "dimension twice with equal score",
    [HA_JUDGE_REPAIR_NO_REASON] = "reason missing",
    [HA_JUDGE_REPAIR_REASON_CUT] = "reason cut",
    [HA_JUDGE_REPAIR_REASONING] = "read from the reasoning field",
    [HA_JUDGE_REPAIR_FLAT] = "all scores equal",
};

/* A JSON value that stands in the text. */
struct value {
    struct ha_json *json;
    size_t start, end;
    unsigned mends;
};

/* What was found so far. */
struct search {
    const char *text;
    size_t size;
    struct value *values;
    int64_t count, capacity;
    enum ha_judge_scan_result first_bad; /* why the first bracket began no value */
    size_t bad_at;
    int64_t bad;  /* brackets that began no value */
    bool refused; /* a value was JSON, but had a name twice */

    int64_t complete; /* valid sets */
    struct ha_judge_scores scores;
    int64_t fault_entries; /* of the largest set that was not valid; 0: none */
    struct ha_error fault;
};

void ha_judge_scores_clear(struct ha_judge_scores *scores)
{
    for (int i = 0; i < HA_DIMENSIONS; i++)
        free(scores->reason[i]);
    memset(scores, 0, sizeof *scores);
}

/* ---- the values in the text ------------------------------------------------------ */

/* Take the value at offset at; *ret_end is where to go on. */
static int take_value(struct search *s, size_t at, size_t *ret_end)
{
    enum ha_judge_scan_result found;
    struct value value = {.start = at};
    struct ha_buffer mended;
    int r = 0;

    ha_buffer_init(&mended, 0);
    found = ha_judge_scan(s->text, s->size, at, &mended, &value.end, &value.mends);
    *ret_end = at + 1;
    if (found == HA_JUDGE_SCAN_MEMORY) {
        r = -ENOMEM;
    } else if (found != HA_JUDGE_SCAN_VALUE) {
        if (s->bad++ == 0) {
            s->first_bad = found;
            s->bad_at = at;
        }
    } else {
        *ret_end = value.end;
        r = ha_json_parse(mended.data, mended.size, "reply", &value.json, NULL);
        if (r != -ENOMEM && r < 0) {
            s->refused = true;
            r = 0;
        }
        if (r == 0 && value.json)
            r = ha_grow((void **)&s->values, &s->capacity, s->count + 1, sizeof value);
        if (r == 0 && value.json)
            s->values[s->count++] = value;
        else
            ha_json_destroy(value.json);
    }
    ha_buffer_clear(&mended);
    return r;
}

static int take_values(struct search *s, struct ha_error *err)
{
    size_t at = 0;
    int r = 0;

    while (at < s->size && r == 0) {
        if (s->text[at] == '[' || s->text[at] == '{')
            r = take_value(s, at, &at);
        else
            at++;
        if (s->count > MAX_VALUES)
            return ha_error_set(err, EBADMSG, "it holds over %d JSON values", MAX_VALUES);
        if (s->bad > MAX_BAD)
            break;
    }
    return r < 0 ? ha_error_set(err, -r, "no memory to read a reply") : 0;
}

/* ---- sets of entries --------------------------------------------------------------- */

/* Judge one candidate set; how: the repair that made it a set, or 0. */
static int judge_set(struct search *s, const struct ha_judge_entry *entries, int64_t count,
                     uint32_t how)
{
    struct ha_judge_scores scores;
    struct ha_error fault;
    int r;

    r = ha_judge_entries_read(entries, count, &scores, &fault);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        if (count > s->fault_entries) {
            s->fault_entries = count;
            s->fault = fault;
        }
        return 0;
    }
    scores.repairs |= how;
    if (s->complete++ == 0)
        s->scores = scores;
    else
        ha_judge_scores_clear(&scores);
    return 0;
}

static int judge_array(struct search *s, const struct ha_json *array, uint32_t how)
{
    int64_t count = ha_json_size(array);
    struct ha_judge_entry *entries = ha_calloc(count, sizeof *entries);
    int r;

    if (!entries)
        return -ENOMEM;
    for (int64_t i = 0; i < count; i++)
        entries[i].json = ha_json_at(array, i);
    r = judge_set(s, entries, count, how);
    free(entries);
    return r;
}

static int judge_map(struct search *s, const struct ha_json *object, uint32_t how)
{
    int64_t count = ha_json_size(object), i = 0;
    struct ha_judge_entry *entries = ha_calloc(count, sizeof *entries);
    struct ha_json *value;
    void *iterator = NULL;
    const char *key;
    int r;

    if (!entries)
        return -ENOMEM;
    while (i < count && ha_json_next(object, &iterator, &key, &value))
        entries[i++] = (struct ha_judge_entry){.name = key, .json = value};
    r = judge_set(s, entries, i, how);
    free(entries);
    return r;
}

static bool array_of_entries(const struct ha_json *json)
{
    for (int64_t i = 0; i < ha_json_size(json); i++) {
        if (ha_judge_entry_is(ha_json_at(json, i)))
            return true;
    }
    return false;
}

static bool map_of_dimensions(const struct ha_json *json)
{
    struct ha_json *value;
    void *iterator = NULL;
    const char *key;
    int known = 0;
    bool exact;

    while (ha_json_next(json, &iterator, &key, &value))
        known += ha_judge_dimension_find(key, &exact) >= 0;
    return known >= MAP_MEMBERS;
}

/* Look for sets in a value and in what it wraps. */
static int visit(struct search *s, const struct ha_json *json, int depth)
{
    uint32_t wrapped = depth > 0 ? 1u << HA_JUDGE_REPAIR_WRAPPER : 0;
    struct ha_json *value;
    void *iterator = NULL;
    const char *key;
    int r = 0;

    if (ha_json_is(json, HA_JSON_ARRAY)) {
        if (array_of_entries(json))
            return judge_array(s, json, wrapped);
        for (int64_t i = 0; i < ha_json_size(json) && depth < WRAPPER_DEPTH && r == 0; i++)
            r = visit(s, ha_json_at(json, i), depth + 1);
    } else if (ha_json_is(json, HA_JSON_OBJECT) && !ha_judge_entry_is(json)) {
        if (map_of_dimensions(json))
            return judge_map(s, json, wrapped | 1u << HA_JUDGE_REPAIR_MAP);
        while (depth < WRAPPER_DEPTH && r == 0 && ha_json_next(json, &iterator, &key, &value))
            r = visit(s, value, depth + 1);
    }
    return r;
}

static bool only(const struct search *s, size_t from, size_t to, const char *characters)
{
    for (size_t i = from; i < to; i++) {
        if (s->text[i] == '\0' || !strchr(characters, s->text[i]))
            return false;
    }
    return true;
}

/* Entries that stand side by side without an array around them.  Nothing but
 * spaces and commas may stand between them, and no bracket anywhere else. */
static int visit_loose(struct search *s, size_t *ret_start, size_t *ret_end)
{
    struct ha_judge_entry *entries = ha_calloc(s->count, sizeof *entries);
    int64_t n = 0;
    bool clean = s->bad == 0;
    int r = 0;

    if (!entries)
        return -ENOMEM;
    for (int64_t i = 0; i < s->count; i++) {
        if (!ha_judge_entry_is(s->values[i].json))
            continue;
        if (n == 0)
            *ret_start = s->values[i].start;
        else
            clean &= only(s, *ret_end, s->values[i].start, " \t\r\n,");
        *ret_end = s->values[i].end;
        entries[n++].json = s->values[i].json;
    }
    if (n > 0 && clean)
        r = judge_set(s, entries, n, 1u << HA_JUDGE_REPAIR_BRACKETS);
    free(entries);
    return r;
}

/* ---- what stands around the scores ---------------------------------------------------- */

/* Pass over spaces, and over one code fence with its language. */
static size_t skip_fence(const char *text, size_t size, bool *fence)
{
    size_t at = 0;

    while (at < size && isspace((unsigned char)text[at]))
        at++;
    if (size - at >= 3 && memcmp(text + at, "```", 3) == 0) {
        *fence = true;
        at += 3;
        while (at < size && isalnum((unsigned char)text[at]))
            at++;
        while (at < size && isspace((unsigned char)text[at]))
            at++;
    }
    return at;
}

static uint32_t surroundings(const struct search *s, size_t start, size_t end)
{
    bool fence = false;
    bool around = skip_fence(s->text, start, &fence) != start;
    uint32_t repairs;

    around |= skip_fence(s->text + end, s->size - end, &fence) != s->size - end;
    repairs = fence ? 1u << HA_JUDGE_REPAIR_FENCE : 0;
    return around ? repairs | 1u << HA_JUDGE_REPAIR_AROUND : repairs;
}

static uint32_t mended(unsigned mends)
{
    uint32_t repairs = mends & HA_JUDGE_MEND_COMMA ? 1u << HA_JUDGE_REPAIR_COMMA : 0;

    if (mends & HA_JUDGE_MEND_CONTROL)
        repairs |= 1u << HA_JUDGE_REPAIR_CONTROL;
    if (mends & HA_JUDGE_MEND_CHARACTER)
        repairs |= 1u << HA_JUDGE_REPAIR_CHARACTER;
    return repairs;
}

/* ---- the whole ------------------------------------------------------------------------- */

static int no_set(const struct search *s, struct ha_error *err)
{
    if (s->fault_entries > 0) {
        if (err)
            *err = s->fault;
        return -EBADMSG;
    }
    if (s->refused)
        return ha_error_set(err, EBADMSG, "a JSON object in it has a member twice");
    if (!s->bad)
        return ha_error_set(err, EBADMSG, "it holds no JSON array of scores");
    switch (s->first_bad) {
    case HA_JUDGE_SCAN_CUT:
        return ha_error_set(err, EBADMSG, "the JSON in it is not complete");
    case HA_JUDGE_SCAN_DEEP:
        return ha_error_set(err, EBADMSG, "the JSON in it is nested too deep");
    default:
        return ha_error_set(err, EBADMSG, "it is not valid JSON from character %zu on",
                            s->bad_at + 1);
    }
}

static int search_text(struct search *s, struct ha_error *err)
{
    size_t start = 0, end = 0;
    unsigned mends = 0;
    int r;

    r = take_values(s, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < s->count && r == 0; i++) {
        int64_t before = s->complete;

        r = visit(s, s->values[i].json, 0);
        if (s->complete > before) {
            start = s->values[i].start;
            end = s->values[i].end;
            mends = s->values[i].mends;
        }
    }
    if (r == 0 && s->complete == 0) {
        r = visit_loose(s, &start, &end);
        for (int64_t i = 0; i < s->count; i++)
            mends |= s->values[i].mends;
    }
    if (r < 0)
        return ha_error_set(err, -r, "no memory to read a reply");
    if (s->complete == 0)
        return no_set(s, err);
    if (s->complete > 1)
        return ha_error_set(err, EBADMSG, "it holds %lld complete sets of scores",
                            (long long)s->complete);
    s->scores.repairs |= surroundings(s, start, end) | mended(mends);
    return 0;
}

static int parse_text(const char *text, size_t size, struct ha_judge_scores *ret_scores,
                      struct ha_error *err)
{
    struct search s = {.text = text, .size = size};
    int r = search_text(&s, err);

    if (r == 0)
        *ret_scores = s.scores;
    else if (s.complete > 0)
        ha_judge_scores_clear(&s.scores);
    for (int64_t i = 0; i < s.count; i++)
        ha_json_destroy(s.values[i].json);
    free(s.values);
    return r;
}

/* A text that is one JSON string holds the scores one level deeper. */
static int parse_encoded(const char *text, size_t size, struct ha_judge_scores *ret_scores,
                         struct ha_error *err)
{
    struct ha_json *json = NULL;
    struct ha_buffer string;
    unsigned mends;
    size_t end;
    int r;

    ha_buffer_init(&string, 0);
    if (ha_judge_scan(text, size, 0, &string, &end, &mends) != HA_JUDGE_SCAN_VALUE ||
        ha_json_parse(string.data, string.size, "reply", &json, NULL) < 0) {
        ha_buffer_clear(&string);
        return parse_text(text, size, ret_scores, err);
    }
    ha_buffer_clear(&string);
    r = parse_text(ha_json_string(json, ""), ha_json_string_size(json), ret_scores, err);
    if (r == 0)
        ret_scores->repairs |= 1u << HA_JUDGE_REPAIR_DOUBLE | mended(mends);
    ha_json_destroy(json);
    return r;
}

/* The end of the last "</think>", or 0. */
static size_t after_thinking(const char *text, size_t size)
{
    static const char tag[] = "</think>";
    size_t end = 0;

    for (const char *at = text; (at = memmem(at, size - (size_t)(at - text), tag, 8)) != NULL;)
        end = (size_t)((at += 8) - text);
    return end;
}

int ha_judge_parse(const char *text, size_t size, struct ha_judge_scores *ret_scores,
                   struct ha_error *err)
{
    uint32_t repairs = 0;
    size_t cut = after_thinking(text, size);
    int r;

    if (cut > 0)
        repairs |= 1u << HA_JUDGE_REPAIR_THINK;
    text += cut;
    size -= cut;
    while (size > 0 && isspace((unsigned char)text[0])) {
        text++;
        size--;
    }
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        repairs |= 1u << HA_JUDGE_REPAIR_BOM;
        text += 3;
        size -= 3;
    }
    if (size >= 7 && memcmp(text, "<think>", 7) == 0)
        return ha_error_set(err, EBADMSG, "its thinking does not end");
    if (size > 0 && text[0] == '"')
        r = parse_encoded(text, size, ret_scores, err);
    else
        r = parse_text(text, size, ret_scores, err);
    if (r == 0)
        ret_scores->repairs |= repairs;
    return r;
}
