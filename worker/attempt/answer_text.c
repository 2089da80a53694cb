#include "worker/attempt/answer_text.h"

#include <string.h>

size_t ha_answer_stop(const char *text, size_t size, size_t from, const char *const *stops,
                      int64_t n_stops)
{
    size_t first = size;

    for (int64_t i = 0; i < n_stops && from < size; i++) {
        size_t length = strlen(stops[i]);
        const char *found = length > 0 ? memmem(text + from, size - from, stops[i], length) : NULL;

        if (found && (size_t)(found - text) < first)
            first = (size_t)(found - text);
    }
    return first;
}

static int is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The rest of raw[*begin .. *end) without its thoughts. */
static void cut_thoughts(const char *raw, size_t *begin, size_t *end)
{
    static const char opening[] = "<think>", closing[] = "</think>";
    const char *found;

    while (*begin < *end &&
           (found = memmem(raw + *begin, *end - *begin, closing, sizeof(closing) - 1)) != NULL)
        *begin = (size_t)(found - raw) + sizeof(closing) - 1;
    found =
        *begin < *end ? memmem(raw + *begin, *end - *begin, opening, sizeof(opening) - 1) : NULL;
    if (found)
        *end = (size_t)(found - raw);
}

void ha_answer_cut(const char *raw, size_t size, const char *const *stops, int64_t n_stops,
                   bool thoughts_cut, size_t *ret_begin, size_t *ret_size)
{
    size_t begin = 0, end = ha_answer_stop(raw, size, 0, stops, n_stops);

    if (thoughts_cut)
        cut_thoughts(raw, &begin, &end);
    while (begin < end && is_space(raw[begin]))
        begin++;
    while (end > begin && is_space(raw[end - 1]))
        end--;
    *ret_begin = begin;
    *ret_size = end - begin;
}
