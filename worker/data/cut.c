/* Where a dialogue pair is cut: pure functions on UTF-8. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "worker/data/pairs.h"
#include "worker/data/prompts.h"

static const char marker[] = "\n\nAssistant:";

enum { MARKER_BYTES = sizeof(marker) - 1 };

static bool continues(const struct ha_text *text, size_t at)
{
    return at < text->size && ((uint8_t)text->data[at] & 0xc0) == 0x80;
}

/* Bytes of the longest common prefix in whole characters. */
static size_t common_prefix(const struct ha_text *a, const struct ha_text *b)
{
    size_t least = a->size < b->size ? a->size : b->size, n = 0;

    while (n < least && a->data[n] == b->data[n])
        n++;
    /* The texts may part within a character whose first bytes agree. */
    while (n > 0 && (continues(a, n) || continues(b, n)))
        n--;
    return n;
}

/* Start of the last character before `end` (end > 0). */
static size_t char_before(const struct ha_text *text, size_t end)
{
    size_t start = end - 1;

    while (start > 0 && continues(text, start))
        start--;
    return start;
}

int ha_pair_cut_trl(const struct ha_text *chosen, const struct ha_text *rejected,
                    struct ha_cut *ret_cut)
{
    size_t least = chosen->size < rejected->size ? chosen->size : rejected->size, at;

    if (least == 0)
        return -EINVAL;
    at = common_prefix(chosen, rejected);
    if (at == least) {
        at = char_before(chosen, at);
    } else if (at > 0) {
        at -= chosen->data[at - 1] == ' ';
    } else if (chosen->data[chosen->size - 1] == ' ') {
        /* Python's chosen[-1]: the slices then count from the end. */
        *ret_cut = (struct ha_cut){chosen->size - 1, chosen->size - 1,
                                   char_before(rejected, rejected->size)};
        return 0;
    }
    *ret_cut = (struct ha_cut){at, at, at};
    return 0;
}

bool ha_pair_has_common_text(const struct ha_text *chosen, const struct ha_text *rejected)
{
    return common_prefix(chosen, rejected) > 0;
}

size_t ha_prompt_end(const char *text, size_t size)
{
    for (size_t end = size; end >= MARKER_BYTES; end--)
        if (memcmp(text + end - MARKER_BYTES, marker, MARKER_BYTES) == 0)
            return end;
    return 0;
}

int ha_pair_cut_turn(const struct ha_text *chosen, const struct ha_text *rejected,
                     struct ha_cut *ret_cut)
{
    size_t at = ha_prompt_end(chosen->data, common_prefix(chosen, rejected));

    if (at == 0)
        return -ENOENT;
    *ret_cut = (struct ha_cut){at, at, at};
    return 0;
}
