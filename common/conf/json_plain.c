/* json_plain.c - is a text JSON that can be copied as it is? (json.h)
 *
 * One pass without memory: a bit for each open bracket says whether it is an object's. */
#include <string.h>

#include "common/base/utf8.h"
#include "common/conf/json.h"

enum { DEPTH = 64 };

struct reader {
    const char *at, *end;
    bool high; /* a byte that is no ASCII was passed */
};

static char peek(const struct reader *r)
{
    return r->at < r->end ? *r->at : '\0';
}

static bool take(struct reader *r, char c)
{
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

static bool read_word(struct reader *r, const char *word)
{
    size_t size = strlen(word);

    if ((size_t)(r->end - r->at) < size || memcmp(r->at, word, size) != 0)
        return false;
    r->at += size;
    return true;
}

static bool read_string(struct reader *r)
{
    if (!take(r, '"'))
        return false;
    while (r->at < r->end && *r->at != '"') {
        unsigned char c = (unsigned char)*r->at++;

        if (c < 32)
            return false;
        if (c == '\\' && !take(r, '"') && !take(r, '\\'))
            return false;
        r->high = r->high || c >= 128;
    }
    return take(r, '"');
}

static bool read_digits(struct reader *r)
{
    const char *begin = r->at;

    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return r->at > begin;
}

/* Eighteen digits at most before the point, and two of the exponent's: no reader of the text gets
 * one that is too large for it. */
static bool read_number(struct reader *r)
{
    const char *begin;

    (void)take(r, '-');
    begin = r->at;
    if (!take(r, '0') && !read_digits(r))
        return false;
    if (r->at - begin > 18 || (take(r, '.') && !read_digits(r)))
        return false;
    if (!take(r, 'e') && !take(r, 'E'))
        return true;
    if (!take(r, '+'))
        (void)take(r, '-');
    begin = r->at;
    return read_digits(r) && r->at - begin <= 2;
}

static bool read_scalar(struct reader *r)
{
    switch (peek(r)) {
    case '"':
        return read_string(r);
    case 't':
        return read_word(r, "true");
    case 'f':
        return read_word(r, "false");
    case 'n':
        return read_word(r, "null");
    default:
        return read_number(r);
    }
}

/* A member's name, where one has to be. */
static bool read_name(struct reader *r, bool object)
{
    skip_space(r);
    if (!object)
        return true;
    if (!read_string(r))
        return false;
    skip_space(r);
    if (!take(r, ':'))
        return false;
    skip_space(r);
    return true;
}

bool ha_json_is_plain(const char *text, size_t size)
{
    struct reader r = {.at = text, .end = text + size};
    uint64_t objects = 0; /* lowest bit: the innermost bracket */
    int depth = 0;
    bool more = true;

    skip_space(&r);
    while (more) {
        bool object = peek(&r) == '{';

        if (object || peek(&r) == '[') {
            if (++depth > DEPTH)
                return false;
            objects = objects << 1 | object;
            r.at++;
            skip_space(&r);
            if (peek(&r) != (object ? '}' : ']')) {
                if (!read_name(&r, object))
                    return false;
                continue;
            }
        } else if (!read_scalar(&r)) {
            return false;
        }
        skip_space(&r);
        while (depth > 0 && take(&r, objects & 1 ? '}' : ']')) {
            depth--;
            objects >>= 1;
            skip_space(&r);
        }
        more = depth > 0;
        if (more && (!take(&r, ',') || !read_name(&r, objects & 1)))
            return false;
    }
    return r.at == r.end && (!r.high || ha_utf8_valid(text, size) == size);
}
