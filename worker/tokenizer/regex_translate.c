/* Oniguruma (Ruby syntax) -> PCRE2.  Everything that is not known to mean the same is refused. */
#include "worker/tokenizer/regex.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "worker/tokenizer/unicode.h"

/* PCRE2's \s has U+180E; Unicode's White_Space does not. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

struct translation {
    const char *pattern, *at;
    struct ha_buffer *out;
    struct ha_error *err;
    bool in_class;
};

static int refuse(struct translation *t, const char *what)
{
    return ha_error_set(t->err, ENOTSUP,
                        "regular expression \"%s\": %s at byte %td is not supported", t->pattern,
                        what, t->at - t->pattern);
}

static int put(struct translation *t, const char *bytes, size_t size)
{
    int r = ha_buffer_append(t->out, bytes, size);

    return r < 0 ? ha_error_set(t->err, -r, "no memory for a regular expression") : 0;
}

static int put_text(struct translation *t, const char *text)
{
    return put(t, text, strlen(text));
}

static int put_property(struct translation *t, char property)
{
    bool letters = property == 'L';
    const struct ha_unicode_range *ranges = letters ? ha_unicode_letters : ha_unicode_numbers;
    int64_t count = letters ? ha_unicode_letters_count : ha_unicode_numbers_count;
    int r = put_text(t, letters ? "\\p{L}" : "\\p{N}");

    for (int64_t i = 0; i < count && r == 0; i++) {
        r = ha_buffer_printf(t->out, "\\x{%x}-\\x{%x}", ranges[i].first, ranges[i].last);
        if (r < 0)
            return ha_error_set(t->err, -r, "no memory for a regular expression");
    }
    return r;
}

/* \p{L}, \p{N}, \P{L}, \P{N}; at stands on the backslash. */
static int translate_property(struct translation *t)
{
    bool negated = t->at[1] == 'P';
    char property = t->at[2] == '{' ? t->at[3] : '\0';
    int r;

    if ((property != 'L' && property != 'N') || t->at[4] != '}')
        return refuse(t, "a property other than \\p{L} and \\p{N}");
    if (t->in_class && negated)
        return refuse(t, "\\P inside a class");
    r = t->in_class ? 0 : put_text(t, negated ? "[^" : "[");
    if (r == 0)
        r = put_property(t, property);
    if (r == 0 && !t->in_class)
        r = put_text(t, "]");
    t->at += 5;
    return r;
}

static int translate_escape(struct translation *t)
{
    char c = t->at[1];
    int r;

    if (c == 'p' || c == 'P')
        return translate_property(t);
    if (c == 's')
        r = put_text(t, t->in_class ? SPACES : "[" SPACES "]");
    else if (c == 'S' && !t->in_class)
        r = put_text(t, "[^" SPACES "]");
    else if ((c != '\0' && strchr("rntf", c)) || (c > ' ' && c < '0') ||
             (c != '\0' && strchr(":;<=>?@[\\]^_`{|}~", c)))
        r = put(t, t->at, 2);
    else
        return refuse(t, "this escape");
    t->at += 2;
    return r;
}

static int translate_in_class(struct translation *t)
{
    int r;

    if (*t->at == '\\')
        return translate_escape(t);
    if (*t->at == '[' || (t->at[0] == '&' && t->at[1] == '&'))
        return refuse(t, "a class inside a class");
    if (*t->at == ']')
        t->in_class = false;
    r = put(t, t->at, 1);
    t->at++;
    return r;
}

static int begin_class(struct translation *t)
{
    size_t n = t->at[1] == '^' ? 2 : 1;
    int r;

    if (t->at[n] == ']')
        return refuse(t, "an empty class");
    t->in_class = true;
    r = put(t, t->at, n);
    t->at += n;
    return r;
}

static int translate_group(struct translation *t)
{
    static const char *const kinds[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    size_t n = t->at[1] == '?' ? 0 : 1;
    int r;

    for (size_t i = 0; n == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strncmp(t->at, kinds[i], strlen(kinds[i])) == 0)
            n = strlen(kinds[i]);
    if (n == 0 || t->at[1] == '*')
        return refuse(t, "this group");
    r = put(t, t->at, n);
    t->at += n;
    return r;
}

/* {n}, {n,} and {n,m}; what follows may not change their greed, which the engines read
 * differently. */
static int translate_braces(struct translation *t)
{
    size_t digits = strspn(t->at + 1, "0123456789"), n = 1 + digits;
    int r;

    if (digits > 0 && t->at[n] == ',')
        n += 1 + strspn(t->at + n + 1, "0123456789");
    if (digits == 0 || t->at[n] != '}')
        return refuse(t, "this repetition");
    n++;
    if (t->at[n] == '?' || t->at[n] == '+')
        return refuse(t, "a lazy or possessive {} repetition");
    r = put(t, t->at, n);
    t->at += n;
    return r;
}

static int translate_one(struct translation *t)
{
    int r;

    if (t->in_class)
        return translate_in_class(t);
    switch (*t->at) {
    case '\\':
        return translate_escape(t);
    case '[':
        return begin_class(t);
    case '(':
        return translate_group(t);
    case '{':
        return translate_braces(t);
    case '^':
    case '$':
        return refuse(t, "an anchor");
    default:
        r = put(t, t->at, 1);
        t->at++;
        return r;
    }
}

int ha_regex_translate(const char *pattern, struct ha_buffer *native, struct ha_error *err)
{
    struct translation t = {.pattern = pattern, .at = pattern, .out = native, .err = err};
    int r = 0;

    while (r == 0 && *t.at)
        r = translate_one(&t);
    return r;
}
