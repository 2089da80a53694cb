#include "worker/tokenizer/regex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/utf8.h"

enum { JIT_STACK_START = 64 << 10, JIT_STACK_LIMIT = 8 << 20 };

struct ha_regex {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; /* NULL where there is no JIT */
};

int ha_regex_create_native(const char *pattern, struct ha_regex **ret_regex, struct ha_error *err)
{
    struct ha_regex *regex = calloc(1, sizeof(*regex));
    PCRE2_SIZE offset;
    int code;

    if (!regex)
        return ha_error_set(err, ENOMEM, "no memory for a regular expression");
    regex->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                &code, &offset, NULL);
    if (!regex->code) {
        PCRE2_UCHAR text[128] = "";

        pcre2_get_error_message(code, text, sizeof(text));
        ha_regex_destroy(regex);
        return ha_error_set(err, EINVAL, "regular expression \"%s\": %s", pattern,
                            (const char *)text);
    }
    regex->match = pcre2_match_data_create_from_pattern(regex->code, NULL);
    regex->context = pcre2_match_context_create(NULL);
    if (!regex->match || !regex->context) {
        ha_regex_destroy(regex);
        return ha_error_set(err, ENOMEM, "no memory for a regular expression");
    }
    /* Without JIT (none built in, or no executable memory) pcre2_match interprets: slower, equal.
     */
    if (pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0)
        regex->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_LIMIT, NULL);
    if (regex->stack)
        pcre2_jit_stack_assign(regex->context, NULL, regex->stack);
    *ret_regex = regex;
    return 0;
}

int ha_regex_create(const char *pattern, struct ha_regex **ret_regex, struct ha_error *err)
{
    struct ha_buffer native;
    int r;

    ha_buffer_init(&native, 1 << 20);
    r = ha_regex_translate(pattern, &native, err);
    if (r == 0)
        r = ha_regex_create_native(ha_buffer_text(&native), ret_regex, err);
    ha_buffer_clear(&native);
    return r;
}

void ha_regex_destroy(struct ha_regex *regex)
{
    if (!regex)
        return;
    pcre2_jit_stack_free(regex->stack);
    pcre2_match_context_free(regex->context);
    pcre2_match_data_free(regex->match);
    pcre2_code_free(regex->code);
    free(regex);
}

static int match_at(struct ha_regex *regex, const char *text, size_t size, size_t from)
{
    int r = pcre2_match(regex->code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK, regex->match,
                        regex->context);

    /* The interpreter keeps its state on the heap. */
    if (r == PCRE2_ERROR_JIT_STACKLIMIT)
        r = pcre2_match(regex->code, (PCRE2_SPTR)text, size, from,
                        PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, regex->match, regex->context);
    return r;
}

int ha_regex_next(struct ha_regex *regex, const char *text, size_t size, struct ha_regex_walk *walk,
                  size_t *ret_start, size_t *ret_end, struct ha_error *err)
{
    while (walk->from <= size) {
        int r = match_at(regex, text, size, walk->from);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(regex->match);
        size_t step;

        if (r == PCRE2_ERROR_NOMATCH)
            return 0;
        if (r < 0)
            return ha_error_set(err, EIO, "a regular expression gave up after %zu bytes (PCRE2 %d)",
                                walk->from, r);
        if (span[0] != span[1] || span[1] != walk->last_match) {
            walk->from = walk->last_match = span[1];
            *ret_start = span[0];
            *ret_end = span[1];
            return 1;
        }
        step = ha_utf8_decode(text + walk->from, size - walk->from, NULL);
        walk->from += step ? step : 1;
    }
    return 0;
}
