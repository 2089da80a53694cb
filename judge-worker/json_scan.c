#include "judge-worker/json_scan.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/utf8.h"

enum { NUMBER_CHARACTERS = 17 };

struct scan {
    const char *text;
    size_t size, at;
    struct ha_buffer *out;
    unsigned mends;
    int depth;
};

static enum ha_judge_scan_result scan_value(struct scan *s);

static enum ha_judge_scan_result put(struct scan *s, const char *bytes, size_t size)
{
    return ha_buffer_append(s->out, bytes, size) < 0 ? HA_JUDGE_SCAN_MEMORY : HA_JUDGE_SCAN_VALUE;
}

static enum ha_judge_scan_result put_text(struct scan *s, const char *text)
{
    return put(s, text, strlen(text));
}

static bool at_end(const struct scan *s)
{
    return s->at >= s->size;
}

static void skip_space(struct scan *s)
{
    while (!at_end(s) && strchr(" \t\r\n", s->text[s->at]) && s->text[s->at])
        s->at++;
}

/* The four digits after "\u" at offset at, or -1. */
static int hex4(const struct scan *s, size_t at)
{
    int value = 0;

    if (at + 4 > s->size)
        return -1;
    for (size_t i = at; i < at + 4; i++) {
        int c = (unsigned char)s->text[i];

        if (!isxdigit(c))
            return -1;
        value = value * 16 + (isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
    }
    return value;
}

static enum ha_judge_scan_result replace_character(struct scan *s, size_t skip)
{
    s->mends |= HA_JUDGE_MEND_CHARACTER;
    s->at += skip;
    return put_text(s, "\xef\xbf\xbd");
}

/* s->at is at "\u". */
static enum ha_judge_scan_result scan_unicode(struct scan *s)
{
    int unit = hex4(s, s->at + 2);
    size_t length = 6;

    if (unit < 0)
        return s->at + 6 > s->size ? HA_JUDGE_SCAN_CUT : HA_JUDGE_SCAN_INVALID;
    if (unit == 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        return replace_character(s, 6);
    if (unit >= 0xd800 && unit <= 0xdbff) {
        bool escape = s->at + 8 <= s->size && memcmp(s->text + s->at + 6, "\\u", 2) == 0;
        int low = escape ? hex4(s, s->at + 8) : -1;

        if (low < 0xdc00 || low > 0xdfff)
            return replace_character(s, 6);
        length = 12;
    }
    s->at += length;
    return put(s, s->text + s->at - length, length);
}

static enum ha_judge_scan_result scan_escape(struct scan *s)
{
    char c;

    if (s->at + 1 >= s->size)
        return HA_JUDGE_SCAN_CUT;
    c = s->text[s->at + 1];
    if (c == 'u')
        return scan_unicode(s);
    if (c == '\0' || !strchr("\"\\/bfnrt", c))
        return HA_JUDGE_SCAN_INVALID;
    s->at += 2;
    return put(s, s->text + s->at - 2, 2);
}

static enum ha_judge_scan_result scan_character(struct scan *s)
{
    unsigned char c = (unsigned char)s->text[s->at];
    size_t length;

    if (c == '\\')
        return scan_escape(s);
    if (c == 0)
        return replace_character(s, 1);
    if (c < 0x20) {
        s->mends |= HA_JUDGE_MEND_CONTROL;
        s->at++;
        return ha_buffer_printf(s->out, "\\u%04x", c) < 0 ? HA_JUDGE_SCAN_MEMORY
                                                          : HA_JUDGE_SCAN_VALUE;
    }
    length = ha_utf8_decode(s->text + s->at, s->size - s->at, NULL);
    if (length == 0)
        return replace_character(s, 1);
    s->at += length;
    return put(s, s->text + s->at - length, length);
}

static enum ha_judge_scan_result scan_string(struct scan *s)
{
    enum ha_judge_scan_result r = put(s, "\"", 1);

    s->at++;
    while (r == HA_JUDGE_SCAN_VALUE) {
        if (at_end(s))
            return HA_JUDGE_SCAN_CUT;
        if (s->text[s->at] == '"') {
            s->at++;
            return put(s, "\"", 1);
        }
        r = scan_character(s);
    }
    return r;
}

static size_t digits(const struct scan *s, size_t at)
{
    size_t from = at;

    while (at < s->size && isdigit((unsigned char)s->text[at]))
        at++;
    return at - from;
}

static enum ha_judge_scan_result scan_number(struct scan *s)
{
    size_t from = s->at, at = from, n;
    bool as_text = false;
    enum ha_judge_scan_result r;

    if (s->text[at] == '-')
        at++;
    n = digits(s, at);
    if (n == 0)
        return at >= s->size ? HA_JUDGE_SCAN_CUT : HA_JUDGE_SCAN_INVALID;
    if (n > 1 && s->text[at] == '0')
        return HA_JUDGE_SCAN_INVALID;
    at += n;
    if (at < s->size && s->text[at] == '.') {
        n = digits(s, at + 1);
        if (n == 0)
            return HA_JUDGE_SCAN_INVALID;
        at += 1 + n;
    }
    if (at < s->size && (s->text[at] == 'e' || s->text[at] == 'E')) {
        at++;
        if (at < s->size && (s->text[at] == '+' || s->text[at] == '-'))
            at++;
        n = digits(s, at);
        if (n == 0)
            return HA_JUDGE_SCAN_INVALID;
        at += n;
        as_text = true;
    }
    as_text |= at - from > NUMBER_CHARACTERS;
    s->at = at;
    r = as_text ? put(s, "\"", 1) : HA_JUDGE_SCAN_VALUE;
    if (r == HA_JUDGE_SCAN_VALUE)
        r = put(s, s->text + from, at - from);
    return r == HA_JUDGE_SCAN_VALUE && as_text ? put(s, "\"", 1) : r;
}

static enum ha_judge_scan_result scan_word(struct scan *s)
{
    static const char *const words[] = {"true", "false", "null"};

    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);

        if (s->size - s->at >= n && memcmp(s->text + s->at, words[i], n) == 0) {
            s->at += n;
            return put(s, words[i], n);
        }
    }
    return HA_JUDGE_SCAN_INVALID;
}

/* "name": of an object's member. */
static enum ha_judge_scan_result scan_name(struct scan *s)
{
    enum ha_judge_scan_result r;

    if (s->text[s->at] != '"')
        return HA_JUDGE_SCAN_INVALID;
    r = scan_string(s);
    if (r != HA_JUDGE_SCAN_VALUE)
        return r;
    skip_space(s);
    if (at_end(s))
        return HA_JUDGE_SCAN_CUT;
    if (s->text[s->at] != ':')
        return HA_JUDGE_SCAN_INVALID;
    s->at++;
    return put(s, ":", 1);
}

/* An array or object; s->at is at its opening bracket. */
static enum ha_judge_scan_result scan_container(struct scan *s)
{
    const char open[2] = {s->text[s->at], '\0'};
    const char close[2] = {open[0] == '[' ? ']' : '}', '\0'};
    enum ha_judge_scan_result r = put_text(s, open);
    bool comma = false; /* one was read and not yet written */
    bool first = true;

    if (s->depth == HA_JUDGE_SCAN_DEPTH)
        return HA_JUDGE_SCAN_DEEP;
    s->depth++;
    s->at++;
    while (r == HA_JUDGE_SCAN_VALUE) {
        skip_space(s);
        if (at_end(s))
            return HA_JUDGE_SCAN_CUT;
        if (s->text[s->at] == close[0]) {
            if (comma)
                s->mends |= HA_JUDGE_MEND_COMMA;
            s->depth--;
            s->at++;
            return put_text(s, close);
        }
        if (!first && !comma)
            return HA_JUDGE_SCAN_INVALID;
        if (comma)
            r = put(s, ",", 1);
        first = comma = false;
        if (r == HA_JUDGE_SCAN_VALUE && open[0] == '{')
            r = scan_name(s);
        if (r == HA_JUDGE_SCAN_VALUE)
            r = scan_value(s);
        if (r != HA_JUDGE_SCAN_VALUE)
            return r;
        skip_space(s);
        if (!at_end(s) && s->text[s->at] == ',') {
            comma = true;
            s->at++;
        }
    }
    return r;
}

static enum ha_judge_scan_result scan_value(struct scan *s)
{
    skip_space(s);
    if (at_end(s))
        return HA_JUDGE_SCAN_CUT;
    switch (s->text[s->at]) {
    case '[':
    case '{':
        return scan_container(s);
    case '"':
        return scan_string(s);
    default:
        if (s->text[s->at] == '-' || isdigit((unsigned char)s->text[s->at]))
            return scan_number(s);
        return scan_word(s);
    }
}

enum ha_judge_scan_result ha_judge_scan(const char *text, size_t size, size_t at,
                                        struct ha_buffer *out, size_t *ret_end, unsigned *ret_mends)
{
    struct scan s = {.text = text, .size = size, .at = at, .out = out};
    enum ha_judge_scan_result r = scan_value(&s);

    if (r == HA_JUDGE_SCAN_VALUE) {
        *ret_end = s.at;
        *ret_mends = s.mends;
    }
    return r;
}
