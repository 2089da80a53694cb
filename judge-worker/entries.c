#include "judge-worker/entries.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "common/conf/json.h"

enum { NAME_BYTES = 64, SHOWN_BYTES = 40, SCORE_MIN = 1, SCORE_MAX = 5 };

static void note(struct ha_judge_scores *scores, enum ha_judge_repair repair)
{
    scores->repairs |= 1u << repair;
}

/* A piece of the reply that is fit to be shown and sent back: printable ASCII, short. */
static const char *shown(const char *text, char out[SHOWN_BYTES + 1])
{
    size_t n = 0;

    for (; *text && n < SHOWN_BYTES; text++) {
        unsigned char c = (unsigned char)*text;

        out[n++] = c >= 0x20 && c < 0x7f && c != '"' ? (char)c : '?';
    }
    out[n] = '\0';
    return out;
}

/* The letters and digits of a name in lower case, without a number before it.
 * False when it has any other character, or is too long to be a name. */
static bool plain_name(const char *name, char out[NAME_BYTES])
{
    const char *at = name + strspn(name, " \t");
    const char *after = at;
    size_t n = 0;

    after += strspn(after, "#0123456789");
    if (after != at)
        at = after + strspn(after, ".):- ");
    for (; *at; at++) {
        unsigned char c = (unsigned char)*at;

        if (c == ' ' || c == '-' || c == '_' || c == '\t')
            continue;
        if (!isalnum(c) || n + 1 >= NAME_BYTES)
            return false;
        out[n++] = (char)tolower(c);
    }
    out[n] = '\0';
    return true;
}

int ha_judge_dimension_find(const char *name, bool *ret_exact)
{
    char plain[NAME_BYTES];

    for (int i = 0; i < HA_DIMENSIONS; i++) {
        if (strcmp(name, ha_dimensions[i].name) == 0) {
            *ret_exact = true;
            return i;
        }
    }
    if (!plain_name(name, plain))
        return -1;
    for (int i = 0; i < HA_DIMENSIONS; i++) {
        if (strcasecmp(plain, ha_dimensions[i].name) == 0) {
            *ret_exact = false;
            return i;
        }
    }
    return -1;
}

static bool key_is(const char *key, const char *wanted)
{
    size_t n = strlen(wanted);

    key += strspn(key, " ");
    return strncasecmp(key, wanted, n) == 0 && key[n + strspn(key + n, " ")] == '\0';
}

/* A member by its name in any case.  NULL with *ret_twice when two members answer. */
static const struct ha_json *member(const struct ha_json *object, const char *wanted,
                                    bool *ret_exact, bool *ret_twice)
{
    const struct ha_json *found = NULL;
    void *iterator = NULL;
    struct ha_json *value;
    const char *key;

    *ret_exact = true;
    *ret_twice = false;
    while (ha_json_next(object, &iterator, &key, &value)) {
        if (!key_is(key, wanted))
            continue;
        if (found) {
            *ret_twice = true;
            return NULL;
        }
        found = value;
        *ret_exact = strcmp(key, wanted) == 0;
    }
    return found;
}

bool ha_judge_entry_is(const struct ha_json *json)
{
    bool exact, twice;

    return ha_json_is(json, HA_JSON_OBJECT) &&
           (member(json, "dimension", &exact, &twice) != NULL || twice);
}

static int read_score(const char *name, const struct ha_json *json, struct ha_judge_scores *scores,
                      int *ret_value, struct ha_error *err)
{
    const char *text = ha_json_string(json, NULL);
    char *dump, out[SHOWN_BYTES + 1];
    int64_t value = ha_json_int(json, 0);

    if (text && text[0] >= '1' && text[0] <= '5' && text[1] == '\0' &&
        ha_json_string_size(json) == 1) {
        note(scores, HA_JUDGE_REPAIR_SCORE_TEXT);
        value = text[0] - '0';
    }
    for (int i = SCORE_MIN; ha_json_is(json, HA_JSON_REAL) && i <= SCORE_MAX; i++) {
        if (ha_json_real(json, 0) == i) {
            note(scores, HA_JUDGE_REPAIR_SCORE_REAL);
            value = i;
        }
    }
    if (value >= SCORE_MIN && value <= SCORE_MAX) {
        *ret_value = (int)value;
        return 0;
    }
    if (!json)
        return ha_error_set(err, EBADMSG, "%s has no score", name);
    dump = ha_json_dump(json, HA_JSON_COMPACT);
    if (!dump)
        return ha_error_set(err, ENOMEM, "no memory to read a reply");
    ha_error_set(err, EBADMSG, "the score of %s is %s, which is not an integer from 1 to 5", name,
                 shown(dump, out));
    free(dump);
    return -EBADMSG;
}

/* The text of a reason: no zero bytes, at most HA_JUDGE_REASON_BYTES, whole characters. */
static char *copy_reason(const char *text, size_t size, struct ha_judge_scores *scores)
{
    size_t n = 0;

    while (n < size) {
        size_t length = ha_utf8_decode(text + n, size - n, NULL);

        if (length == 0 || n + length > HA_JUDGE_REASON_BYTES) {
            note(scores, HA_JUDGE_REPAIR_REASON_CUT);
            break;
        }
        n += length;
    }
    return ha_strndup(text, n);
}

static int read_reason(const struct ha_json *json, struct ha_judge_scores *scores,
                       char **ret_reason)
{
    const char *text = ha_json_string(json, "");

    if (!*text)
        note(scores, HA_JUDGE_REPAIR_NO_REASON);
    *ret_reason = copy_reason(text, ha_json_string_size(json), scores);
    return *ret_reason ? 0 : -ENOMEM;
}

struct parts {
    const char *name;
    const struct ha_json *score, *reason;
};

/* The three members of an entry, however they are spelled. */
static int take_apart(const struct ha_judge_entry *entry, struct ha_judge_scores *scores,
                      struct parts *ret_parts, struct ha_error *err)
{
    static const char *const keys[] = {"dimension", "score", "reason"};
    const struct ha_json *values[3];
    bool exact, twice;

    if (entry->name && !ha_json_is(entry->json, HA_JSON_OBJECT)) {
        *ret_parts = (struct parts){.name = entry->name, .score = entry->json};
        return 0;
    }
    if (!ha_json_is(entry->json, HA_JSON_OBJECT))
        return ha_error_set(err, EBADMSG, "an element of the array is not an object");
    for (int i = 0; i < 3; i++) {
        values[i] = member(entry->json, keys[i], &exact, &twice);
        if (twice)
            return ha_error_set(err, EBADMSG, "an element has \"%s\" twice", keys[i]);
        if (!exact)
            note(scores, HA_JUDGE_REPAIR_KEY);
    }
    *ret_parts = (struct parts){.name = entry->name ? entry->name : ha_json_string(values[0], NULL),
                                .score = values[1],
                                .reason = values[2]};
    if (!ret_parts->name)
        return ha_error_set(err, EBADMSG, "an element of the array has no \"dimension\"");
    return 0;
}

static int read_entry(const struct ha_judge_entry *entry, struct ha_judge_scores *scores,
                      struct ha_error *err)
{
    char out[SHOWN_BYTES + 1];
    struct parts parts = {0};
    bool exact = true;
    int index, value = 0, r;

    r = take_apart(entry, scores, &parts, err);
    if (r < 0)
        return r;
    index = ha_judge_dimension_find(parts.name, &exact);
    if (index < 0)
        return ha_error_set(err, EBADMSG, "\"%s\" is not one of the 16 dimensions",
                            shown(parts.name, out));
    if (!exact)
        note(scores, HA_JUDGE_REPAIR_NAME);
    r = read_score(ha_dimensions[index].name, parts.score, scores, &value, err);
    if (r < 0)
        return r;
    if (scores->value[index] != 0) {
        if (scores->value[index] != value)
            return ha_error_set(err, EBADMSG, "%s has two scores, %d and %d",
                                ha_dimensions[index].name, scores->value[index], value);
        note(scores, HA_JUDGE_REPAIR_TWICE);
        return 0;
    }
    r = read_reason(parts.reason, scores, &scores->reason[index]);
    if (r < 0)
        return ha_error_set(err, ENOMEM, "no memory to read a reply");
    scores->value[index] = value;
    return 0;
}

/* All sixteen, or the fault that names those that are missing. */
static int check_complete(struct ha_judge_scores *scores, struct ha_error *err)
{
    struct ha_buffer names;
    bool flat = true;
    int missing = 0, r = 0;

    ha_buffer_init(&names, 0);
    for (int i = 0; i < HA_DIMENSIONS && r == 0; i++) {
        flat &= scores->value[i] == scores->value[0];
        if (scores->value[i] != 0)
            continue;
        r = ha_buffer_printf(&names, "%s%s", missing ? ", " : "", ha_dimensions[i].name);
        missing++;
    }
    if (r < 0)
        ha_error_set(err, -r, "no memory to read a reply");
    else if (missing)
        r = ha_error_set(err, EBADMSG, "%d of the 16 dimensions %s missing: %s", missing,
                         missing == 1 ? "is" : "are", ha_buffer_text(&names));
    else if (flat)
        note(scores, HA_JUDGE_REPAIR_FLAT);
    ha_buffer_clear(&names);
    return r;
}

int ha_judge_entries_read(const struct ha_judge_entry *entries, int64_t count,
                          struct ha_judge_scores *ret_scores, struct ha_error *err)
{
    struct ha_judge_scores scores = {0};
    int r = 0;

    for (int64_t i = 0; i < count && r == 0; i++)
        r = read_entry(&entries[i], &scores, err);
    if (r == 0)
        r = check_complete(&scores, err);
    if (r < 0)
        ha_judge_scores_clear(&scores);
    else
        *ret_scores = scores;
    return r;
}
