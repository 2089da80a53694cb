#include "worker/tokenizer/pretok.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "worker/tokenizer/regex.h"

/* A run passes a text through the steps in order; each step hands every piece
 * it makes to the next, and the last to the caller. */

enum step_kind { STEP_SPLIT, STEP_PREFIX_SPACE, STEP_METASPACE };
enum behaviour { ISOLATED, REMOVED, CONTIGUOUS, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT };
enum scheme { SCHEME_ALWAYS, SCHEME_FIRST, SCHEME_NEVER };

struct part {
    size_t start, end;
    bool match; /* for REMOVED: not handed on */
};

struct step {
    enum step_kind kind;
    struct ha_regex *regex; /* Split: this, or */
    char *literal;          /* this; Metaspace: the replacement */
    size_t literal_size;
    enum behaviour behaviour;
    bool invert;
    enum scheme scheme;
    struct part *parts; /* scratch of a run */
    int64_t n_parts, part_capacity;
    struct ha_buffer text; /* scratch of a run */
};

struct ha_pretok {
    struct step *steps;
    int64_t n_steps, capacity;
    bool byte_level;
};

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static int new_step(struct ha_pretok *p, enum step_kind kind, struct step **ret_step,
                    struct ha_error *err)
{
    if (ha_grow((void **)&p->steps, &p->capacity, p->n_steps + 1, sizeof(*p->steps)) < 0)
        return ha_error_set(err, ENOMEM, "no memory for a pre-tokenizer");
    *ret_step = &p->steps[p->n_steps++];
    **ret_step = (struct step){.kind = kind};
    ha_buffer_init(&(*ret_step)->text, 0);
    return 0;
}

static int add_split(struct ha_pretok *p, const char *regex, const struct ha_json *literal,
                     enum behaviour behaviour, bool invert, struct ha_error *err)
{
    struct step *step;
    int r = new_step(p, STEP_SPLIT, &step, err);

    if (r < 0)
        return r;
    step->behaviour = behaviour;
    step->invert = invert;
    if (regex)
        return ha_regex_create(regex, &step->regex, err);
    step->literal_size = ha_json_string_size(literal);
    if (step->literal_size == 0)
        return ha_error_set(err, ENOTSUP,
                            "pre_tokenizer: Split of an empty or missing pattern "
                            "is not supported");
    step->literal = ha_strndup(ha_json_string(literal, ""), step->literal_size);
    return step->literal ? 0 : ha_error_set(err, ENOMEM, "no memory for a pre-tokenizer");
}

static int create_split(struct ha_pretok *p, const struct ha_json *json, struct ha_error *err)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    const struct ha_json *pattern = ha_json_get(json, "pattern");
    const struct ha_json *regex = ha_json_get(pattern, "Regex");
    const char *behaviour = ha_json_string(ha_json_get(json, "behavior"), "");

    if (regex && strlen(ha_json_string(regex, "")) != ha_json_string_size(regex))
        return ha_error_set(err, ENOTSUP, "pre_tokenizer: a zero byte in a regular expression");
    for (int i = 0; i < 5; i++)
        if (strcmp(behaviour, names[i]) == 0)
            return add_split(p, ha_json_string(regex, NULL), ha_json_get(pattern, "String"),
                             (enum behaviour)i, ha_json_bool(ha_json_get(json, "invert"), false),
                             err);
    return ha_error_set(err, ENOTSUP, "pre_tokenizer: behavior \"%s\" of Split is not supported",
                        behaviour);
}

static int create_byte_level(struct ha_pretok *p, const struct ha_json *json, struct ha_error *err)
{
    struct step *step;
    int r = 0;

    p->byte_level = true;
    if (ha_json_bool(ha_json_get(json, "add_prefix_space"), true))
        r = new_step(p, STEP_PREFIX_SPACE, &step, err);
    if (r == 0 && ha_json_bool(ha_json_get(json, "use_regex"), true))
        r = add_split(p, gpt2_pattern, NULL, ISOLATED, false, err);
    return r;
}

static int read_scheme(const struct ha_json *json, enum scheme *ret_scheme, struct ha_error *err)
{
    const char *name = ha_json_string(ha_json_get(json, "prepend_scheme"), "always");
    const bool prefix = ha_json_bool(ha_json_get(json, "add_prefix_space"), true);

    if (strcmp(name, "always") == 0)
        *ret_scheme = SCHEME_ALWAYS;
    else if (strcmp(name, "first") == 0)
        *ret_scheme = SCHEME_FIRST;
    else if (strcmp(name, "never") == 0)
        *ret_scheme = SCHEME_NEVER;
    else
        return ha_error_set(err, ENOTSUP, "pre_tokenizer: prepend_scheme \"%s\" is not supported",
                            name);
    if (!prefix && *ret_scheme != SCHEME_NEVER)
        return ha_error_set(err, EINVAL,
                            "pre_tokenizer: add_prefix_space = false contradicts "
                            "prepend_scheme");
    return 0;
}

static int create_metaspace(struct ha_pretok *p, const struct ha_json *json, struct ha_error *err)
{
    const struct ha_json *replacement = ha_json_get(json, "replacement");
    enum scheme scheme = SCHEME_ALWAYS;
    struct step *step;
    int r = read_scheme(json, &scheme, err);

    if (r < 0)
        return r;
    if (scheme == SCHEME_FIRST && p->n_steps > 0)
        return ha_error_set(err, ENOTSUP,
                            "pre_tokenizer: Metaspace with prepend_scheme \"first\" "
                            "behind another pre-tokenizer is not supported");
    r = new_step(p, STEP_METASPACE, &step, err);
    if (r < 0)
        return r;
    step->scheme = scheme;
    step->literal_size = ha_json_string_size(replacement);
    step->literal = ha_strndup(ha_json_string(replacement, ""), step->literal_size);
    if (!step->literal)
        return ha_error_set(err, ENOMEM, "no memory for a pre-tokenizer");
    if (step->literal_size == 0)
        return ha_error_set(err, EINVAL, "pre_tokenizer: Metaspace has no replacement");
    if (!ha_json_bool(ha_json_get(json, "split"), true))
        return 0;
    return add_split(p, NULL, replacement, MERGED_WITH_NEXT, false, err);
}

static int add_steps(struct ha_pretok *p, const struct ha_json *json, struct ha_error *err)
{
    const struct ha_json *list = ha_json_get(json, "pretokenizers");
    const char *type = ha_json_string(ha_json_get(json, "type"), "");
    int r = 0;

    if (p->byte_level)
        return ha_error_set(err, ENOTSUP, "pre_tokenizer: \"%s\" behind ByteLevel is not supported",
                            type);
    if (strcmp(type, "Sequence") == 0) {
        for (int64_t i = 0; i < ha_json_size(list) && r == 0; i++)
            r = add_steps(p, ha_json_at(list, i), err);
        return r;
    }
    if (strcmp(type, "Split") == 0)
        return create_split(p, json, err);
    if (strcmp(type, "ByteLevel") == 0)
        return create_byte_level(p, json, err);
    if (strcmp(type, "Metaspace") == 0)
        return create_metaspace(p, json, err);
    if (strcmp(type, "Digits") == 0)
        return add_split(p, "\\p{N}", NULL,
                         ha_json_bool(ha_json_get(json, "individual_digits"), false) ? ISOLATED
                                                                                     : CONTIGUOUS,
                         false, err);
    return ha_error_set(err, ENOTSUP, "pre_tokenizer of type \"%s\" is not supported", type);
}

int ha_pretok_create(const struct ha_json *json, struct ha_pretok **ret_pretok,
                     struct ha_error *err)
{
    struct ha_pretok *p = calloc(1, sizeof(*p));
    int r = 0;

    if (!p)
        return ha_error_set(err, ENOMEM, "no memory for a pre-tokenizer");
    if (json && !ha_json_is(json, HA_JSON_NULL))
        r = add_steps(p, json, err);
    if (r < 0) {
        ha_pretok_destroy(p);
        return r;
    }
    *ret_pretok = p;
    return 0;
}

void ha_pretok_destroy(struct ha_pretok *p)
{
    if (!p)
        return;
    for (int64_t i = 0; i < p->n_steps; i++) {
        ha_regex_destroy(p->steps[i].regex);
        free(p->steps[i].literal);
        free(p->steps[i].parts);
        ha_buffer_clear(&p->steps[i].text);
    }
    free(p->steps);
    free(p);
}

bool ha_pretok_byte_level(const struct ha_pretok *p)
{
    return p->byte_level;
}

struct run {
    struct ha_pretok *pretok;
    ha_pretok_word word;
    void *context;
    struct ha_error *err;
    bool first;
};

static int run_step(struct run *run, int64_t index, const char *text, size_t size);

static int hand_on(struct run *run, int64_t index, const char *text, size_t size)
{
    if (size == 0)
        return 0;
    if (index + 1 == run->pretok->n_steps)
        return run->word(run->context, text, size);
    return run_step(run, index + 1, text, size);
}

/* Next match of the step's pattern.  Returns 1, 0 or a negative errno. */
static int next_match(struct run *run, struct step *step, const char *text, size_t size,
                      struct ha_regex_walk *walk, size_t *start, size_t *end)
{
    const char *found;

    if (step->regex)
        return ha_regex_next(step->regex, text, size, walk, start, end, run->err);
    if (walk->from >= size)
        return 0;
    found = memmem(text + walk->from, size - walk->from, step->literal, step->literal_size);
    if (!found)
        return 0;
    *start = (size_t)(found - text);
    *end = walk->from = *start + step->literal_size;
    return 1;
}

/* Matches and what lies between them, as the pieces they are. */
static int split_isolated(struct run *run, int64_t index, const char *text, size_t size)
{
    struct step *step = &run->pretok->steps[index];
    struct ha_regex_walk walk = {0, SIZE_MAX};
    size_t start, end, given = 0;
    int r;

    while ((r = next_match(run, step, text, size, &walk, &start, &end)) > 0) {
        r = hand_on(run, index, text + given, start - given);
        if (r == 0)
            r = hand_on(run, index, text + start, end - start);
        if (r < 0)
            return r;
        given = end;
    }
    return r < 0 ? r : hand_on(run, index, text + given, size - given);
}

static int add_part(struct run *run, struct step *step, size_t start, size_t end, bool match)
{
    if (ha_grow((void **)&step->parts, &step->part_capacity, step->n_parts + 1,
                sizeof(*step->parts)) < 0)
        return ha_error_set(run->err, ENOMEM, "no memory to split a text");
    step->parts[step->n_parts++] = (struct part){start, end, match != step->invert};
    return 0;
}

static int collect_parts(struct run *run, struct step *step, const char *text, size_t size)
{
    struct ha_regex_walk walk = {0, SIZE_MAX};
    size_t start, end, given = 0;
    int r;

    step->n_parts = 0;
    while ((r = next_match(run, step, text, size, &walk, &start, &end)) > 0) {
        r = given < start ? add_part(run, step, given, start, false) : 0;
        if (r == 0)
            r = add_part(run, step, start, end, true);
        if (r < 0)
            return r;
        given = end;
    }
    if (r == 0 && given < size)
        r = add_part(run, step, given, size, false);
    return r;
}

/* Join parts in place; MergedWithNext walks from the back.  A part joins the one walked before it
 * as the behaviour says. */
static void join_parts(struct step *step)
{
    const bool backward = step->behaviour == MERGED_WITH_NEXT;
    bool previous = false;
    int64_t kept = 0;

    for (int64_t i = 0; i < step->n_parts; i++) {
        struct part part = step->parts[backward ? step->n_parts - 1 - i : i];
        struct part *last =
            kept > 0 ? &step->parts[backward ? step->n_parts - kept : kept - 1] : NULL;
        bool joins =
            step->behaviour == CONTIGUOUS ? part.match == previous : part.match && !previous;

        previous = part.match;
        if (joins && last && backward) {
            last->start = part.start;
        } else if (joins && last) {
            last->end = part.end;
        } else {
            kept++;
            step->parts[backward ? step->n_parts - kept : kept - 1] = part;
        }
    }
    if (backward)
        memmove(step->parts, step->parts + step->n_parts - kept,
                (size_t)kept * sizeof(*step->parts));
    step->n_parts = kept;
}

static int run_split(struct run *run, int64_t index, const char *text, size_t size)
{
    struct step *step = &run->pretok->steps[index];
    int r;

    if (step->behaviour == ISOLATED)
        return split_isolated(run, index, text, size);
    r = collect_parts(run, step, text, size);
    if (r == 0 && step->n_parts > 0 && step->behaviour != REMOVED)
        join_parts(step);
    for (int64_t i = 0; i < step->n_parts && r == 0; i++) {
        const struct part *part = &step->parts[i];

        if (step->behaviour != REMOVED || !part->match)
            r = hand_on(run, index, text + part->start, part->end - part->start);
    }
    return r;
}

static bool begins_with(const char *text, size_t size, const char *head, size_t head_size)
{
    return size >= head_size && memcmp(text, head, head_size) == 0;
}

static int run_prefix_space(struct run *run, int64_t index, const char *text, size_t size)
{
    struct ha_buffer *out = &run->pretok->steps[index].text;
    int r;

    if (text[0] == ' ')
        return hand_on(run, index, text, size);
    ha_buffer_reset(out);
    r = ha_buffer_append(out, " ", 1);
    if (r == 0)
        r = ha_buffer_append(out, text, size);
    if (r < 0)
        return ha_error_set(run->err, -r, "no memory to split a text");
    return hand_on(run, index, ha_buffer_text(out), out->size);
}

static int run_metaspace(struct run *run, int64_t index, const char *text, size_t size)
{
    struct step *step = &run->pretok->steps[index];
    struct ha_buffer *out = &step->text;
    bool prepend = step->scheme == SCHEME_ALWAYS || (step->scheme == SCHEME_FIRST && run->first);
    int r = 0;

    ha_buffer_reset(out);
    if (prepend && text[0] != ' ' && !begins_with(text, size, step->literal, step->literal_size))
        r = ha_buffer_append(out, step->literal, step->literal_size);
    for (size_t i = 0; i < size && r == 0;) {
        const char *space = memchr(text + i, ' ', size - i);
        size_t end = space ? (size_t)(space - text) : size;

        r = ha_buffer_append(out, text + i, end - i);
        if (r == 0 && space)
            r = ha_buffer_append(out, step->literal, step->literal_size);
        i = end + 1;
    }
    if (r < 0)
        return ha_error_set(run->err, -r, "no memory to split a text");
    return hand_on(run, index, ha_buffer_text(out), out->size);
}

static int run_step(struct run *run, int64_t index, const char *text, size_t size)
{
    switch (run->pretok->steps[index].kind) {
    case STEP_PREFIX_SPACE:
        return run_prefix_space(run, index, text, size);
    case STEP_METASPACE:
        return run_metaspace(run, index, text, size);
    case STEP_SPLIT:
        break;
    }
    return run_split(run, index, text, size);
}

int ha_pretok_run(struct ha_pretok *pretok, const char *text, size_t size, bool first,
                  ha_pretok_word word, void *context, struct ha_error *err)
{
    struct run run = {pretok, word, context, err, first};

    return hand_on(&run, -1, text, size);
}
