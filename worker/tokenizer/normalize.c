#include "worker/tokenizer/normalize.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/utf8.h"
#include "common/conf/json.h"
#include "worker/tokenizer/unicode.h"

enum step_kind { STEP_PREPEND, STEP_REPLACE, STEP_FORM };

struct step {
    enum step_kind kind;
    char *pattern, *content; /* Replace; Prepend has content only */
    size_t pattern_size, content_size;
    utf8proc_option_t form;
};

struct ha_normalizer {
    struct step *steps;
    int64_t n_steps, capacity;
    struct ha_buffer buffers[2]; /* a step reads one and writes the other */
};

static const struct {
    const char *name;
    utf8proc_option_t form;
} forms[] = {
    {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
    {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
    {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};

static int copy_string(const struct ha_json *json, const char *what, char **ret_text,
                       size_t *ret_size, struct ha_error *err)
{
    const char *text = ha_json_string(json, NULL);

    if (!text)
        return ha_error_set(err, ENOTSUP, "normalizer: %s is not a string", what);
    *ret_size = ha_json_string_size(json);
    *ret_text = ha_strndup(text, *ret_size);
    return *ret_text ? 0 : ha_error_set(err, ENOMEM, "no memory for a normalizer");
}

static int fill_step(const struct ha_json *json, struct step *step, struct ha_error *err)
{
    const char *type = ha_json_string(ha_json_get(json, "type"), "");
    int r;

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
        if (strcmp(type, forms[i].name) == 0) {
            step->kind = STEP_FORM;
            step->form = forms[i].form;
            return 0;
        }
    if (strcmp(type, "Prepend") == 0) {
        step->kind = STEP_PREPEND;
        return copy_string(ha_json_get(json, "prepend"), "prepend", &step->content,
                           &step->content_size, err);
    }
    if (strcmp(type, "Replace") != 0)
        return ha_error_set(err, ENOTSUP, "normalizer of type \"%s\" is not supported", type);
    step->kind = STEP_REPLACE;
    r = copy_string(ha_json_get(ha_json_get(json, "pattern"), "String"),
                    "the pattern of Replace (a regular expression is not supported)",
                    &step->pattern, &step->pattern_size, err);
    if (r == 0)
        r = copy_string(ha_json_get(json, "content"), "content", &step->content,
                        &step->content_size, err);
    if (r == 0 && step->pattern_size == 0)
        r = ha_error_set(err, ENOTSUP, "normalizer: Replace of an empty pattern is not supported");
    return r;
}

static int add_steps(struct ha_normalizer *n, const struct ha_json *json, struct ha_error *err)
{
    const struct ha_json *list = ha_json_get(json, "normalizers");
    const char *type = ha_json_string(ha_json_get(json, "type"), "");
    int r = 0;

    if (strcmp(type, "Sequence") == 0) {
        for (int64_t i = 0; i < ha_json_size(list) && r == 0; i++)
            r = add_steps(n, ha_json_at(list, i), err);
        return r;
    }
    if (ha_grow((void **)&n->steps, &n->capacity, n->n_steps + 1, sizeof(*n->steps)) < 0)
        return ha_error_set(err, ENOMEM, "no memory for a normalizer");
    n->steps[n->n_steps] = (struct step){0};
    return fill_step(json, &n->steps[n->n_steps++], err);
}

int ha_normalizer_create(const struct ha_json *json, struct ha_normalizer **ret_normalizer,
                         struct ha_error *err)
{
    struct ha_normalizer *n = calloc(1, sizeof(*n));
    int r = 0;

    if (!n)
        return ha_error_set(err, ENOMEM, "no memory for a normalizer");
    ha_buffer_init(&n->buffers[0], 0);
    ha_buffer_init(&n->buffers[1], 0);
    if (json && !ha_json_is(json, HA_JSON_NULL))
        r = add_steps(n, json, err);
    if (r < 0) {
        ha_normalizer_destroy(n);
        return r;
    }
    *ret_normalizer = n;
    return 0;
}

void ha_normalizer_destroy(struct ha_normalizer *n)
{
    if (!n)
        return;
    for (int64_t i = 0; i < n->n_steps; i++) {
        free(n->steps[i].pattern);
        free(n->steps[i].content);
    }
    free(n->steps);
    ha_buffer_clear(&n->buffers[0]);
    ha_buffer_clear(&n->buffers[1]);
    free(n);
}

/* utf8proc takes this vowel for the missing last consonant of a syllable and drops it behind
 * one that has none. */
enum { HANGUL_BEFORE_LAST = 0x11a7 };

static bool inert(uint32_t code)
{
    int64_t low = 0, high = ha_unicode_inert_count;

    if (code == HANGUL_BEFORE_LAST)
        return true;
    while (low < high) {
        int64_t middle = (low + high) / 2;

        if (code > ha_unicode_inert[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < ha_unicode_inert_count && code >= ha_unicode_inert[low].first;
}

/* NFC leaves text alone whose code points are all below U+0300; the first bytes of those
 * characters are below 0xcc. */
static bool all_below_0300(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)text[i] >= 0xcc)
            return false;
    return true;
}

static bool all_ascii(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)text[i] >= 0x80)
            return false;
    return true;
}

static int append_form(const struct step *step, const char *text, size_t size,
                       struct ha_buffer *out)
{
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t n;
    int r;

    if (size == 0)
        return 0;
    n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &mapped, step->form);
    if (n < 0)
        return n == UTF8PROC_ERROR_NOMEM ? -ENOMEM : -EILSEQ;
    r = ha_buffer_append(out, mapped, (size_t)n);
    free(mapped);
    return r;
}

/* Characters that never decompose, reorder or compose, such as those that the library's older
 * Unicode does not know, part the text into pieces that are normalised one by one. */
static int run_form(const struct step *step, const char *text, size_t size, struct ha_buffer *out)
{
    size_t begin = 0, i = 0;
    int r = 0;

    while (i < size && r == 0) {
        uint32_t code = 0;
        size_t n = ha_utf8_decode(text + i, size - i, &code);

        if (n == 0)
            return -EILSEQ;
        if (code >= ha_unicode_inert[0].first && inert(code)) {
            r = append_form(step, text + begin, i - begin, out);
            if (r == 0)
                r = ha_buffer_append(out, text + i, n);
            begin = i + n;
        }
        i += n;
    }
    return r < 0 ? r : append_form(step, text + begin, size - begin, out);
}

static int run_replace(const struct step *step, const char *text, size_t size,
                       struct ha_buffer *out)
{
    size_t begin = 0;
    int r = 0;

    while (r == 0) {
        const char *found =
            size > begin ? memmem(text + begin, size - begin, step->pattern, step->pattern_size)
                         : NULL;

        if (!found)
            break;
        r = ha_buffer_append(out, text + begin, (size_t)(found - text) - begin);
        if (r == 0)
            r = ha_buffer_append(out, step->content, step->content_size);
        begin = (size_t)(found - text) + step->pattern_size;
    }
    return r < 0 ? r : ha_buffer_append(out, text + begin, size - begin);
}

static int run_prepend(const struct step *step, const char *text, size_t size,
                       struct ha_buffer *out)
{
    int r = ha_buffer_append(out, step->content, step->content_size);

    return r < 0 ? r : ha_buffer_append(out, text, size);
}

static bool changes_nothing(const struct step *step, const char *text, size_t size)
{
    if (step->kind == STEP_PREPEND)
        return size == 0;
    if (step->kind == STEP_REPLACE)
        return size == 0 || !memmem(text, size, step->pattern, step->pattern_size);
    if (step->form == (UTF8PROC_STABLE | UTF8PROC_COMPOSE))
        return all_below_0300(text, size);
    return all_ascii(text, size);
}

int ha_normalizer_run(struct ha_normalizer *n, const char *text, size_t size, const char **ret_text,
                      size_t *ret_size, struct ha_error *err)
{
    int side = 0;

    for (int64_t i = 0; i < n->n_steps; i++) {
        const struct step *step = &n->steps[i];
        struct ha_buffer *out = &n->buffers[side];
        int r;

        if (changes_nothing(step, text, size))
            continue;
        ha_buffer_reset(out);
        r = step->kind == STEP_PREPEND   ? run_prepend(step, text, size, out)
            : step->kind == STEP_REPLACE ? run_replace(step, text, size, out)
                                         : run_form(step, text, size, out);
        if (r < 0)
            return ha_error_set(err, -r, "a text of %zu bytes cannot be normalised: %s", size,
                                strerror(-r));
        text = ha_buffer_text(out);
        size = out->size;
        side = 1 - side;
    }
    *ret_text = text;
    *ret_size = size;
    return 0;
}
